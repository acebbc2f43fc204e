"""The parameters of `Security`: which there are, what each may be, and how much of it is shown."""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from . import config, peers, pem, tls
from .errors import ConfigError

__all__ = ["DAY", "FIELDS", "MATERIAL", "ROLES", "as_shown", "checked"]

ROLES = ("client", "scheduler", "worker")
MATERIAL = ("tls_ca_file", *(f"tls_{role}_{part}" for role in ROLES for part in ("cert", "key")))
DAY = 86400.0
VERSIONS = ("tls_min_version", "tls_max_version")

#: every parameter and attribute of `Security`
FIELDS = (
    "require_encryption",
    "tls_ciphers",
    *VERSIONS,
    *MATERIAL,
    "tls_key_password",
    "tls_crl_file",
    "tls_allowed_peers",
    "tls_reload_interval",
    "tls_expiry_warning",
    "extra_conn_args",
)


def checked(name: str, value: Any) -> Any:
    """The value a field keeps. Raises `ConfigError`, and `AttributeError` if there is no such."""
    if name in VERSIONS:
        version = tls.parse_version(name, value)
        return ssl.TLSVersion.TLSv1_2 if version is None and "min" in name else version
    if name in (*MATERIAL, "tls_crl_file"):
        source = pem.source(name, value)
        return source and source.value
    if name == "tls_ciphers":
        return tls.parse_ciphers(name, value)
    if name == "tls_reload_interval":
        return config.duration(name, value, bare="s")
    if name == "tls_expiry_warning":
        seconds = config.duration(name, value, bare="d")
        return seconds if seconds is None else seconds / DAY
    if name == "tls_key_password":
        return (
            _by_role(name, value, _password)
            if isinstance(value, Mapping)
            else _password(name, value)
        )
    if name == "tls_allowed_peers":
        if value is not None and not isinstance(value, Mapping):
            value = dict.fromkeys(ROLES, peers.parse_patterns(name, value))
        return _by_role(name, value or {}, peers.parse_patterns)
    if name == "extra_conn_args":
        if value is not None and not isinstance(value, Mapping):
            raise ConfigError(f"cannot use {name}: expected a mapping, got {type(value).__name__}")
        return dict(value or {})
    if name not in FIELDS:
        raise AttributeError(f"Security has no field {name!r}; fields are {', '.join(FIELDS)}")
    return value


def _by_role(
    name: str, value: Mapping[Any, Any], parse: Callable[[str, Any], Any]
) -> dict[str, Any] | None:
    """A mapping from role to what `parse` makes of it, without roles that have None."""
    for role in value:
        if role not in ROLES:
            raise ConfigError(
                f"cannot use {name}: unknown role {role!r}; expected {', '.join(ROLES)}"
            )
    return {
        role: parse(f"{name} of {role}", each) for role, each in value.items() if each is not None
    } or None


_LONGEST_PASSWORD = 1024  # bytes; `ssl` takes no more


def _password(name: str, value: Any) -> str | bytes | None:
    if value is None or value == "":
        return None
    if not isinstance(value, (str, bytes)):
        raise ConfigError(
            f"cannot use {name}: expected str, got {type(value).__name__}; put it in quotes"
        )
    size = len(value.encode() if isinstance(value, str) else value)
    if size > _LONGEST_PASSWORD:
        raise ConfigError(
            f"cannot use {name}: it has {size} bytes, OpenSSL takes {_LONGEST_PASSWORD}"
        )
    return value


def as_shown(name: str, value: Any) -> str:
    """What may be seen of a value: no PEM text and no password."""
    if isinstance(value, ssl.TLSVersion):
        return value.name
    if name == "tls_key_password":
        return "<hidden>"
    if isinstance(value, float):
        return "never" if value == math.inf else f"{value:g}"
    if isinstance(value, str) and pem.Source(name, value).in_memory:
        return "<in memory>"
    return repr(value)
