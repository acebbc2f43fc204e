"""`Security` for Dask: distributed's class by type, ours by behaviour.

Scheduler, worker, nanny, client and LocalCluster accept nothing but a `distributed.Security`. This
class is a subclass that keeps all its values in a `sealwire.security.Security`, which creates its
contexts. Creating or unpickling it installs the backends in a process of a cluster.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

from distributed.security import Security as DaskSecurity

from sealwire.security import Security as OwnSecurity
from sealwire.security.fields import FIELDS
from sealwire.security.parameters import (
    ConnectionArgs,
    ListenArgs,
    Role,
    RoleConfig,
    takes_parameters_of,
)

from .patches import install
from .settings import DECIDED, ROLE

__all__ = ["Security"]

_Args = TypeVar("_Args", ConnectionArgs, ListenArgs)


class Security(DaskSecurity):
    """A `distributed.Security` with the behaviour of `sealwire.security.Security`.

    Parameters, attributes, methods and errors are those of the latter. It pickles, keys included,
    and so travels to the processes of a cluster.

    Parameters
    ----------
    require_encryption : bool, optional
        Whether plain addresses are refused.
    **fields
        The other parameters of `sealwire.security.Security`.

    Notes
    -----
    Creating or unpickling one installs our backends, as `install` does.
    """

    @takes_parameters_of(OwnSecurity)
    def __init__(self, *args: Any, **fields: Any) -> None:
        own = OwnSecurity(*args, **fields)
        self._own = own
        known = {name: value for name, value in own.fields().items() if name in self.__slots__}
        super().__init__(**known)  # stored in _own, through the properties below
        install()

    @classmethod
    @takes_parameters_of(OwnSecurity.temporary)
    def temporary(cls, **fields: Any) -> Security:
        """Create TLS material in memory, as `sealwire.security.Security.temporary`."""
        return cls._carrying(OwnSecurity.temporary(**fields))

    @classmethod
    def _carrying(cls, own: OwnSecurity) -> Security:
        return cls(**own.fields())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._carrying, (self._own,)

    def get_tls_config_for_role(self, role: Role) -> RoleConfig:
        """Return the values for a role, as `sealwire.security.Security` does."""
        return self._own.get_tls_config_for_role(role)

    def get_connection_args(self, role: Role) -> ConnectionArgs:
        """Return arguments for `connect`, as `sealwire.security.Security` does."""
        return _marked(self._own.get_connection_args(role), role)

    def get_listen_args(self, role: Role) -> ListenArgs:
        """Return arguments for `listen`, as `sealwire.security.Security` does."""
        return _marked(self._own.get_listen_args(role), role)

    def reload(self) -> list[str]:
        """Check the files now, as `sealwire.security.Security.reload`."""
        return self._own.reload()

    def __repr__(self) -> str:
        return repr(self._own)

    def _repr_html_(self) -> str:
        return self._own._repr_html_()


def _marked(args: _Args, role: str) -> _Args:
    """Mark plain links that were allowed by decision, and a role that has no context."""
    if not args["require_encryption"]:
        cast(dict[str, Any], args)[DECIDED] = True
    if args["ssl_context"] is None:
        cast(dict[str, Any], args)[ROLE] = role
    return args


def _forwarded(name: str) -> property:
    """Return a property for one of our fields, replacing distributed's slot of that name."""

    def get(self: Security) -> Any:
        return getattr(self._own, name)

    def set_(self: Security, value: Any) -> None:
        setattr(self._own, name, value)

    return property(get, set_, doc=f"The parameter `{name}` of `sealwire.security.Security`.")


for _name in FIELDS:
    setattr(Security, _name, _forwarded(_name))
