"""The types of `Security`'s parameters, and of what its methods return: for checkers and editors.

A checker follows them: a misspelt role or parameter is found before the program runs. At runtime
`fields` checks the same, for those who use no checker.
"""

from __future__ import annotations

import inspect
import os
import ssl
from collections.abc import Callable, Mapping
from typing import (
    Any,
    Concatenate,
    Final,
    Literal,
    ParamSpec,
    TypeAlias,
    TypedDict,
    TypeVar,
    get_args,
)

__all__ = [
    "AUTHORITY",
    "ROLES",
    "UNSET",
    "AllowedPeers",
    "ConnectionArgs",
    "ListenArgs",
    "Passwords",
    "Pem",
    "Role",
    "RoleConfig",
    "TLSVersion",
    "is_nothing",
    "takes_parameters_of",
]

Role = Literal["client", "scheduler", "worker"]
"""What a process is in its cluster."""

ROLES: tuple[Role, ...] = get_args(Role)
#: the role in the own certificate of `sealwire certs serve`: no process of a cluster has it
AUTHORITY: Final = "authority"

Pem: TypeAlias = "str | os.PathLike[str]"
"""A path, or PEM text."""

TLSVersion: TypeAlias = "ssl.TLSVersion | float | str"
"""A version as `Security` takes it: 1.2, "TLSv1.3", `ssl.TLSVersion.TLSv1_2`."""

Passwords: TypeAlias = "str | bytes | Mapping[Role, str | bytes | None]"
Patterns: TypeAlias = "str | list[str] | tuple[str, ...] | set[str] | frozenset[str]"
AllowedPeers: TypeAlias = "Patterns | Mapping[Role, Patterns | None]"


def is_nothing(value: object) -> bool:
    """Whether a parameter's value means that there is none: None or "", as of an empty variable.

    No other value is compared: an array is equal to nothing in as many ways as it has items.
    """
    return value is None or (isinstance(value, str) and not str.__len__(value))


class ConnectionArgs(TypedDict):
    """What `Security.get_connection_args` returns: arguments of `connect`."""

    ssl_context: ssl.SSLContext | None
    require_encryption: bool
    extra_conn_args: dict[str, Any]


class ListenArgs(TypedDict):
    """What `Security.get_listen_args` returns: arguments of `listen` and of `FrameServer`."""

    ssl_context: ssl.SSLContext | None
    require_encryption: bool


class RoleConfig(TypedDict):
    """What `Security.get_tls_config_for_role` returns: paths or PEM text, and a cipher string."""

    ca_file: str | None
    ciphers: str | None
    cert: str | None
    key: str | None


class _Unset:
    """The type of `UNSET`."""

    def __repr__(self) -> str:
        return "<as configured>"

    def __reduce__(self) -> str:
        return "UNSET"


UNSET: Final[Any] = _Unset()
"""The default of a parameter that configuration supplies; None would hide the configuration."""

_Takes = ParamSpec("_Takes")
_Gives = TypeVar("_Gives")


def takes_parameters_of(
    function: Callable[_Takes, object],
) -> Callable[[Callable[..., _Gives]], Callable[Concatenate[Any, _Takes], _Gives]]:
    """Give a method that passes its arguments on to `function` the parameters of `function`."""

    def decorate(method: Callable[..., _Gives]) -> Callable[Concatenate[Any, _Takes], _Gives]:
        own = next(iter(inspect.signature(method).parameters.values()))  # self or cls
        passed_on = inspect.signature(function)
        parameters = (own, *passed_on.parameters.values())
        method.__signature__ = passed_on.replace(parameters=parameters)  # type: ignore[attr-defined]
        return method

    return decorate
