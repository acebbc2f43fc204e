"""Which configured protections are in effect for a TLS context or a comm of this process.

The context that a process uses comes from many places: a pickled `Security`, a subclass of
distributed's, an argument. What is configured under ``sealwire.tls`` must apply to all of them, or
be reported as missing.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import dask
from distributed.comm.core import Comm

from sealwire.security import config
from sealwire.security.belonging import is_another, trusts_another
from sealwire.security.config import KEYS
from sealwire.security.contexts.selfcheck import lacking
from sealwire.security.native import is_context

from .settings import encryption_required

__all__ = ["configured", "unprotected", "unprotected_comm"]


def configured(role: str | None = None) -> dict[str, str]:
    """Names of the settings of CRLs and allow-list, where they are set.

    Under ``crl`` and ``allowed``, as `lacking` takes them. With a `role`, those that apply to it.
    """
    found = {}
    crl = dask.config.get(KEYS["tls_crl_file"], None)
    if crl is not None and (crl != "" or config.read()["tls_crl_file"]):  # of an empty variable
        found["crl"] = KEYS["tls_crl_file"]
    allowed: Any = dask.config.get(KEYS["tls_allowed_peers"], None)
    if isinstance(allowed, dict) and role is not None:
        allowed = allowed.get(role)
    if allowed is not None and allowed != {}:
        found["allowed"] = KEYS["tls_allowed_peers"]
    return found


def unprotected(context: ssl.SSLContext, role: str | None = None) -> list[str]:
    """Return the configured protections that `context` does not enforce, in words.

    Without a role, that of our own contexts is used; others are checked as for every role.
    """
    lacks = getattr(context, "lacks", None)
    expected = configured(role or getattr(context, "role", None))
    if expected and _is_of_another(context):
        expected = {}
    found: Iterable[str] = lacking(context, **expected) if lacks is None else lacks(**expected)
    return list(found)


def _is_of_another(context: ssl.SSLContext) -> bool:
    """Whether a context is of a CA that is not the configured one."""
    authority = config.read()["tls_ca_file"]
    made_of = getattr(context, "material", None)
    if made_of is None:
        return trusts_another(context, authority)
    return is_another(made_of.trust, authority)


def unprotected_comm(comm: Comm) -> list[str]:
    """Return the configured protections not in effect for a comm of any backend, in words."""
    address = comm.peer_address
    if address.startswith("inproc://"):
        return []
    context = getattr(getattr(getattr(comm, "stream", None), "socket", None), "context", None)
    if is_context(context):
        return unprotected(context)
    if not address.startswith(("tls://", "wss://")):
        plain = encryption_required({})
        return [f"encryption is required, and {address} is plain"] if plain else []
    return [f"{name} is set, and of this comm it cannot be told" for name in configured().values()]
