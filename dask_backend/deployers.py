"""Clusters whose processes are started by command lines, which carry no `Security`.

`SubprocessCluster` and `SSHCluster` start ``dask spec``: its processes read the configuration. A
`Security` that says something else would stay with the cluster's own object, and the scheduler be a
plain one, on a port that nobody guards. So such a cluster is refused before anything is started.

So is one whose process joined with a token: that gives one role, and such a cluster has several.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import dask
from distributed import Scheduler
from distributed.core import Status
from distributed.utils import import_term

from sealwire.security import ConfigError, config
from sealwire.security import Security as OwnSecurity
from sealwire.security.security import FIELDS

from . import membership

__all__ = ["careful"]

# Where the processes that a class starts have their configuration from.
_SCHEDULERS = {
    "distributed.deploy.subprocess.SubprocessScheduler": "SubprocessCluster",
    "distributed.deploy.ssh.Scheduler": "SSHCluster",
}
_ELSEWHERE = ("require_encryption", "tls_reload_interval", "tls_expiry_warning", "extra_conn_args")
_COMPARED = [n for n in FIELDS if not n.startswith("tls_client") and n not in _ELSEWHERE]


def careful(original: Callable[..., Any]) -> Callable[..., Any]:
    """`SpecCluster._start`: refuses what would be plain, and leaves no scheduler behind."""

    @functools.wraps(original)
    async def start(self: Any) -> Any:
        if self.scheduler is None and self.scheduler_spec:
            try:
                _expect_configured(self)
            except ConfigError:
                # What the original does once it fails: else the cluster stays open.
                self._lock, self.status = asyncio.Lock(), Status.failed
                await self._close()
                raise
        try:
            return await original(self)
        except BaseException:
            if self.scheduler is not None:
                with contextlib.suppress(Exception):
                    await self.scheduler.close()
            raise

    return start


def _expect_configured(cluster: Any) -> None:
    """Raise `ConfigError` if a cluster's processes would have no identity, or read other values."""
    kind, security = cluster.scheduler_spec["cls"], cluster.security
    kind = import_term(kind) if isinstance(kind, str) else kind
    name = next(
        (
            _SCHEDULERS[where]
            for each in getattr(kind, "__mro__", ())
            if (where := f"{each.__module__}.{each.__qualname__}") in _SCHEDULERS
        ),
        None,
    )
    if name is not None or (isinstance(kind, type) and issubclass(kind, Scheduler)):
        _expect_roles(cluster, name)
    if name is None:
        return
    # An SSH session is given what this process has, a child reads its own.
    read = dask.config.config if name == "SSHCluster" else dask.config.collect()
    differ = _differences(security, read)
    if differ:
        raise ConfigError(
            f"cannot start a {name} with this Security: the processes that it starts read the "
            f"configuration, where {', '.join(differ)} {'is' if len(differ) == 1 else 'are'} "
            f"not the same; write a dask.yaml (sealwire certs init makes one), name it in "
            f"DASK_CONFIG, and leave security out"
        )


def _expect_roles(cluster: Any, name: str | None) -> None:
    """Raise `ConfigError` for a cluster that is to make do with the one role of a token."""
    options = cluster.scheduler_spec.get("options", {})
    is_plain = not (options.get("protocol") or "tls").startswith(("tls", "wss"))
    role = membership.joined_as(getattr(cluster.security, "tls_ca_file", None) or "")
    if not role or is_plain:
        return
    kind = name or type(cluster).__name__
    temporary = (
        ""
        if name
        else f"give {kind} a security=sealwire.dask_backend.Security.temporary(), and the Client "
        "that cluster, or "
    )
    raise ConfigError(
        f"cannot start a {kind} in a process that joined with a token: it is a {role} alone, and "
        f"the cluster needs a scheduler, workers and a client; {temporary}have files in place of a "
        "token: unset SEALWIRE_JOIN, run `sealwire certs join` for each of the three roles into "
        "one folder, and name its dask.yaml in DASK_CONFIG"
    )


def _differences(security: Any, read: Mapping[str, Any]) -> list[str]:
    """Return the keys whose values differ between a `Security` and a configuration."""
    values = {
        field: dask.config.get(key, None, config=dict(read)) for field, key in config.KEYS.items()
    }
    configured = OwnSecurity(**values).fields()
    ours = getattr(security, "_own", None)
    if ours is not None:
        given = ours.fields()
    else:  # distributed's, which does not know all of them
        known = {name: getattr(security, name) for name in FIELDS if hasattr(security, name)}
        given = {**configured, **{name: OwnSecurity(**known).fields()[name] for name in known}}
    found = [config.KEYS[name] for name in _COMPARED if given[name] != configured[name]]
    if bool(given["require_encryption"]) != bool(configured["require_encryption"]):
        found.insert(0, config.KEYS["require_encryption"])
    return found
