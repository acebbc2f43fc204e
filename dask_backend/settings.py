"""The backend's settings in Dask's configuration: limits, and whether plain links are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import dask

from sealwire.comm import Limits, configure_gil
from sealwire.comm.transport import switch_interval
from sealwire.security import config
from sealwire.security.belonging import OF_A_CA
from sealwire.security.quoting import shown
from sealwire.security.schema import ROOT, defaults, is_set, settings

from .values import parsed

__all__ = [
    "DECIDED",
    "ROLE",
    "any_certificate",
    "apply_gil_policy",
    "encryption_required",
    "forget",
    "limits",
]

DECIDED = "encryption_decided"
"""The connection argument by which our `Security` says that its False is meant."""

ROLE = "tls_role"
"""The connection argument that names a role without a certificate."""

_DASK_NAMES = {
    "keepalive_timeout": "distributed.comm.timeouts.tcp",
    "backlog": "distributed.comm.socket-backlog",
}
# What distributed ships for these: the defaults of `Limits`.
_USUAL = {"distributed.comm.timeouts.tcp": "30s", "distributed.comm.socket-backlog": 2048}


def limits() -> Limits:
    """Return the limits for comms created from now on.

    Each field of `Limits` may be set as ``sealwire.limits.<field-with-dashes>``, times as
    ``"30 s"`` and sizes as ``"64 KiB"`` or as plain numbers. Raises `ValueError` for invalid
    values.
    """
    own = dask.config.get(_LIMITS, None)
    if own is not None and not isinstance(own, Mapping):
        raise ValueError(f"bad setting {_LIMITS}: expected a mapping, got {shown(own)}")
    values = *(own or {}).items(), *((name, dask.config.get(name, None)) for name in _FALLBACKS)
    found = values, [type(value) for _, value in values]  # the types: True == 1, but is no size
    known = _made
    if known is not None and known[0] == found:  # cached: every connection asks
        return known[1]
    config.warn_of_unknown()
    return _make(found)


def _make(found: _Found) -> Limits:
    global _made
    chosen: dict[str, tuple[str, Any]] = {}
    usual = {**defaults()[ROOT]["limits"], **_USUAL}
    for name, value in reversed(found[0]):  # what is set here comes before Dask's own
        key = name if name in _FALLBACKS else f"{_LIMITS}.{name}".replace("_", "-")
        field = _FALLBACKS.get(name, str(name).replace("-", "_"))
        default = usual.get(key.removeprefix(f"{_LIMITS}."))
        if value is None or value == "" or field not in _FIELDS:  # "": an empty variable
            continue
        if value != default or type(value) is not type(default):  # True == 1
            chosen[field] = key, value
    values: dict[str, Any] = {
        field: parsed(key, value, settings()[f"{_LIMITS}.{field.replace('_', '-')}"])
        for field, (key, value) in chosen.items()
    }
    made = Limits(**values)
    _made = found, made
    return made


def forget() -> None:
    """Drop the cached limits."""
    global _made
    _made = None


_LIMITS = "sealwire.limits"
_FALLBACKS = {key: field for field, key in _DASK_NAMES.items()}
_Found = tuple[tuple[tuple[str, Any], ...], list[type]]  # settings by name, and their values' types

_made: tuple[_Found, Limits] | None = None  # the cache
_FIELDS = {field.name for field in dataclasses.fields(Limits)} - {"write_ahead"}  # nobody waits


_HOLD = "sealwire.tls.hold-gil"
_GIL = "sealwire.gil"
_TIMES = ("interval", "linger")


def apply_gil_policy() -> None:
    """Apply ``sealwire.gil.{interval,linger}`` and ``sealwire.tls.hold-gil`` to this process.

    Times are like ``"50 us"`` or in seconds; an interval of false or 0 leaves the interpreter's
    switch interval alone. Where nothing is configured, a policy set by `configure_gil` stays.
    Raises `ValueError` for invalid values.
    """
    chosen = switch_interval.policy()
    holds = config.truth(_HOLD, dask.config.get(_HOLD, None))
    if holds is not None and holds != chosen.hold_tls:
        configure_gil(*chosen._replace(hold_tls=holds))
        chosen = switch_interval.policy()
    own = dask.config.get(_GIL, None)
    if own is not None and not isinstance(own, Mapping):
        raise ValueError(f"bad setting {_GIL}: expected a mapping, got {shown(own)}")
    if not is_set(own):
        return
    interval, linger = (dask.config.get(f"{_GIL}.{name}", None) for name in _TIMES)
    if interval is not None and interval != "":
        off = isinstance(interval, (bool, int, float)) and not interval
        chosen = chosen._replace(interval=None if off else _time("interval", interval))
    if linger is not None and linger != "":
        chosen = chosen._replace(linger=_time("linger", linger))
    try:
        configure_gil(*chosen)
    except ValueError as error:
        raise ValueError(
            f"bad setting {_GIL}: got interval {shown(interval)} and linger {shown(linger)} "
            f"({error}); write for example 50 us and 5 ms"
        ) from error


def _time(name: str, value: Any) -> float:
    key = f"{_GIL}.{name}"
    return parsed(key, value, settings()[key])


def encryption_required(connection_args: Mapping[str, Any]) -> bool:
    """Whether to refuse a plain address.

    True if the caller's `Security` says so, or if there is none and
    ``distributed.comm.require-encryption`` does. A `Security` of distributed's says False also
    where certificates, CRLs or allowed peers are configured and nobody has decided; then they were
    meant to be used, and the result is True until ``distributed.comm.require-encryption`` says
    otherwise.
    """
    if connection_args.get("require_encryption"):
        return True
    if connection_args.get(DECIDED):
        return False
    if connection_args.get("require_encryption") is None:  # no Security was involved
        key = config.KEYS["require_encryption"]
        if config.truth(key, dask.config.get(key, None)):
            return True
    if not (any_certificate() or is_set(dask.config.get("sealwire.tls", None))):
        return False  # reading all of it would take as long as the connection
    configured = config.read()
    decided = configured.pop("require_encryption") is not None
    return not decided and any(
        value is not None for name, value in configured.items() if _is_meant(name)
    )


def any_certificate() -> bool:
    """Whether a CA, certificate or key is configured under ``distributed.comm.tls``."""
    section = dask.config.get("distributed.comm.tls", None)
    return not isinstance(section, dict) or _has_material(section)


def _is_meant(name: str) -> bool:
    """Whether who sets a field of `Security` means TLS: a time or a cipher alone says nothing."""
    return name.endswith(_MATERIAL) or name in OF_A_CA


def _has_material(section: dict[str, Any]) -> bool:
    for name, value in section.items():
        if isinstance(value, dict):
            if _has_material(value):
                return True
        elif value is not None and f"_{name.replace('-', '_')}".endswith(_MATERIAL):
            return True
    return False


_MATERIAL = ("_ca_file", "_cert", "_key")
