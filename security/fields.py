"""The parameters of `Security`: their names, validation, and what may be shown of them."""

from __future__ import annotations

import html
import math
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from . import config, pem
from .contexts import allowlist, policy
from .errors import ConfigError
from .parameters import ROLES, Role, is_nothing
from .pem_shapes import without_mark
from .quoting import hides_key, key_damage, shown

__all__ = ["DAY", "FIELDS", "MATERIAL", "SOURCES", "as_html", "as_shown", "checked"]

MATERIAL = ("tls_ca_file", *(f"tls_{role}_{part}" for role in ROLES for part in ("cert", "key")))
SOURCES = (*MATERIAL, "tls_crl_file")  # paths or PEM text
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
    "tls_server_hostname",
    "extra_conn_args",
)


def checked(name: str, value: Any) -> Any:
    """Validate a field's value and return what the field stores; a `Source` for path or PEM text.

    Raises `ConfigError`, and `AttributeError` if there is no such field.
    """
    if name in VERSIONS:
        version = policy.parse_version(name, value)
        return ssl.TLSVersion.TLSv1_2 if version is None and "min" in name else version
    if name in SOURCES:
        limit = pem.CRL_LIMIT if name == "tls_crl_file" else pem.PEM_LIMIT
        return pem.source(name, value, limit=limit)
    if name in ("tls_ciphers", "tls_server_hostname"):
        parse = _ciphers if name == "tls_ciphers" else policy.parse_hostname
        return parse(name, value)
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
            value = dict.fromkeys(ROLES, _patterns(name, value))
        return _by_role(name, value or {}, _patterns)
    if name == "extra_conn_args":
        if value is not None and not isinstance(value, Mapping):
            raise ConfigError(f"cannot use {name}: expected a mapping, got {type(value).__name__}")
        return dict(value or {})
    if name not in FIELDS:
        raise AttributeError(f"Security has no field {shown(name)}; fields are {', '.join(FIELDS)}")
    return value


def _ciphers(name: str, value: Any) -> Any:
    if isinstance(value, str) and not value.isascii():
        raise ConfigError(f"cannot use {name}: a cipher string is ASCII, got {shown(value)}")
    return policy.parse_ciphers(name, value)


def plain_role(role: object) -> Role | None:
    """Return a role as plain text, which the member of an Enum does not format as; or None."""
    name = str.__str__(role) if isinstance(role, str) else None
    return next((each for each in ROLES if each == name), None)


def _by_role(
    name: str, value: Mapping[Any, Any], parse: Callable[[str, Any], Any]
) -> dict[str, Any] | None:
    """Return a mapping from role to parsed value, without roles that have None."""
    given = {}
    for key, each in value.items():
        role = plain_role(key)
        if role is None:
            raise ConfigError(
                f"cannot use {name}: unknown role {shown(key)}; expected {', '.join(ROLES)}"
            )
        given[role] = None if each is None else parse(f"{name} of {role}", each)
    return {role: each for role, each in given.items() if each is not None} or None


def _patterns(name: str, value: Any) -> tuple[str, ...]:
    """Parse an allow-list. Patterns are shown in errors, so keys are rejected."""
    for pattern in [value] if isinstance(value, str) else value if isinstance(value, list) else ():
        if not isinstance(pattern, str) or not pattern.isprintable():
            continue
        wrong = key_damage(pattern.removeprefix("sha256:"))
        if wrong is not None:
            raise ConfigError(f"cannot use {name}: a pattern in it is none: {wrong}")
    return allowlist.parse_patterns(name, value)


_LONGEST_PASSWORD = 1024  # bytes; the limit of `ssl`


def _password(name: str, value: Any) -> str | bytes | None:
    if is_nothing(value):
        return None
    if not isinstance(value, (str, bytes)):
        raise ConfigError(
            f"cannot use {name}: expected str, got {type(value).__name__}; put it in quotes"
        )
    try:
        size = len(value.encode() if isinstance(value, str) else value)
    except UnicodeEncodeError:  # its text holds the password
        raise ConfigError(f"cannot use {name}: it has characters that are no text") from None
    if size > _LONGEST_PASSWORD:
        raise ConfigError(
            f"cannot use {name}: it has {size} bytes, OpenSSL takes {_LONGEST_PASSWORD}"
        )
    return without_mark(value)


def as_shown(name: str, value: Any, source: pem.Source | None = None) -> str:
    """Return what may be shown of a value: no PEM text, no password, nothing that could be a key.

    `source` tells whether it is a path or PEM text.
    """
    if source is not None:
        if source.in_memory or source.hidden:
            return "<in memory>" if source.in_memory else f"<{source.place}>"
        return repr(value)
    if isinstance(value, ssl.TLSVersion):
        return value.name
    if name == "tls_key_password":
        return "<hidden>"
    if isinstance(value, float):
        return "never" if value == math.inf else f"{value:g}"
    text = repr(value)
    return shown(value) if hides_key(text) else text


def as_html(fields: Mapping[str, str]) -> str:
    """Return a table of fields as `as_shown` gives them."""
    rows = "".join(
        f"<tr><th style='text-align: left'>{name}</th>"
        f"<td style='text-align: left'>{html.escape(text)}</td></tr>"
        for name, text in fields.items()
    )
    return f"<table><caption>Security</caption><tbody>{rows}</tbody></table>"
