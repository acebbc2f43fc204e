"""Is a value one that its reader takes? Asked of the readers themselves."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from sealwire.security import config, schema
from sealwire.security.config import KEYS
from sealwire.security.errors import SecurityError
from sealwire.security.fields import checked

__all__ = ["is_unset", "judged", "with_dask"]

_FIELDS = {key: field for field, key in KEYS.items()}
#: settings whose readers do not take an empty text, as of an empty variable, for nothing
_NEVER_EMPTY = (KEYS["tls_allowed_peers"], "sealwire.unix.allow-plain")


def with_dask() -> bool:
    """Whether the Dask backend can be used here."""
    return find_spec("dask") is not None and find_spec("distributed") is not None


def is_unset(key: str, value: Any) -> bool:
    """Whether a value counts as none: null, and of most settings an empty text."""
    return value is None or (value == "" and not key.startswith(_NEVER_EMPTY))


def judged(key: str, value: Any, *, usable: bool) -> str | None:
    """Return what is wrong with the value of a setting; None if nothing is.

    `usable` says whether Dask can be imported, without which some settings are not judged.
    """
    if is_unset(key, value):
        return None
    whole = ".".join(key.split(".")[:3]) if key.startswith(f"{schema.ROOT}.") else key
    try:
        if whole in _FIELDS:
            _as_a_field(whole, key, value)
        elif key.startswith("sealwire.join."):
            _join(key, value)
        elif usable:
            _in_dask(key, value)
    except (ValueError, TypeError, SecurityError) as error:
        return str(error)
    return None


def _as_a_field(whole: str, key: str, value: Any) -> None:
    field = _FIELDS[whole]
    if key != whole:  # of one role
        value = {key.removeprefix(f"{whole}."): value}
    if field == "require_encryption":
        config.truth(key, value)
        return
    checked(field, config.located(field, value))


def _join(key: str, value: Any) -> None:
    from sealwire.joining import JoinError, Token
    from sealwire.joining.client import address_of
    from sealwire.joining.inputs import must_be_name

    try:
        if key.endswith(".wait"):
            config.duration(key, value, bare="s")
            return
        text = config.text(key, value, number=key.endswith(".name")) or ""
        if key.endswith(".address"):
            address_of(text)
        elif key.endswith(".token"):
            Token.parse(text)
        elif key.endswith(".name") and text:
            must_be_name(text, key)
    except JoinError as error:
        raise ValueError(str(error)) from None


def _in_dask(key: str, value: Any) -> None:
    import dask

    from sealwire.dask_backend import settings, unix, values

    setting = schema.settings().get(key)
    if key.startswith("sealwire.limits.") and setting is not None:
        values.parsed(key, value, setting)
    elif key.startswith("sealwire.gil.") or key == "sealwire.tls.hold-gil":
        with dask.config.set({key: value}):
            settings.apply_gil_policy()
    elif key == "sealwire.unix.allow-plain":
        with dask.config.set({key: value}):
            unix.plain_allowed()
