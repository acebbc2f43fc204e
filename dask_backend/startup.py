"""What a process says of itself at its start: what protects it, or that nothing does."""

from __future__ import annotations

import datetime
import functools
import logging
import ssl
import weakref
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import dask
from distributed.comm.core import connect

from sealwire.comm.arguments import log_lacks
from sealwire.comm.transport import records, switch_interval
from sealwire.comm.wire import hello
from sealwire.security import PEMError, config, config_files, subjects
from sealwire.security.contexts.sealed import Material, SealedContext
from sealwire.security.der import end_of
from sealwire.security.pem import certificates

from .protection import configured, unprotected

__all__ = [
    "forget",
    "own_version",
    "tell_configuration",
    "tell_context",
    "tell_nanny",
    "tell_plain",
    "tell_unprotected",
]

logger = logging.getLogger("sealwire.dask_backend")

_PATIENCE = 10.0  # seconds for a nanny to answer
_NEWEST = ssl.TLSVersion.MAXIMUM_SUPPORTED

_told: set[str] = set()
_seen: weakref.WeakSet[ssl.SSLContext] = weakref.WeakSet()


def forget() -> None:
    """Let it all be said again."""
    _told.clear()
    _seen.clear()


def _is_new(words: str) -> bool:
    new = words not in _told
    _told.add(words)
    return new


def tell_configuration() -> None:
    """Warn of a `DASK_CONFIG` that names nothing: Dask goes on without a word."""
    vain = config_files.named_in_vain()
    if vain is not None and _is_new(vain.why):
        logger.warning("%s: nothing of it holds; %s", *vain)


def tell_context(context: ssl.SSLContext | None, does: str) -> bool:
    """Log what protects the comms of a context, once for each identity that this process shows.

    `does` says who uses it, such as "listens on tls://…". Asked for every comm; returns whether it
    was the first one of this context.
    """
    if context is None or context in _seen:
        return False
    _seen.add(context)
    material = context.material if isinstance(context, SealedContext) else None
    shown = _identity(material) if material is not None else "a certificate of others' making"
    if _is_new(f"{getattr(context, 'role', None)} {shown}"):
        logger.info(
            "sealwire %s %s: its own backend, %s, %s, CRL %s, allow-list %s, hold-gil %s",
            own_version(),
            does,
            _versions(context),
            shown,
            _on(context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF),
            _on(material is not None and material.allowed),
            _on(switch_interval.policy().hold_tls and records.usable()),
        )
    return True


def tell_unprotected(context: ssl.SSLContext, where: str) -> None:
    """Log what is configured and does not hold for a context that is dialled with, each once.

    However many contexts a program makes of its own.
    """
    log_lacks(where, context, [words for words in unprotected(context) if _is_new(words)])


def tell_plain(server: Any) -> None:
    """Warn, once, of a server or client whose comms are plain although nobody has decided so."""
    kind = type(server).__name__
    addresses = [listener.contact_address for listener in getattr(server, "listeners", ())]
    addresses = addresses or [getattr(getattr(server, "scheduler", None), "address", "")]
    plain = [each for each in addresses if not each.startswith(("tls://", "wss://", "inproc://"))]
    decided = dask.config.get(config.KEYS["require_encryption"], None) is not None
    if plain and plain[0] and not decided and _is_new(f"plain {kind}"):
        logger.warning(
            "%s on %s is plain: no TLS is configured (%s), so whoever reaches the port can run "
            "code; make certificates with `sealwire certs init`, and set DASK_CONFIG to its "
            "dask.yaml",
            kind,
            plain[0],
            f"read: {', '.join(config.files()) or 'no file'}",
        )


async def tell_nanny(worker: Any) -> None:
    """Warn if what is configured does not hold for the port of a worker's nanny.

    ``python -m distributed.cli.dask_worker``, which job queues run, loads no plugin of the command
    line, and does not look at ``distributed.nanny.preload``.
    """
    names = list(configured("worker").values())
    if not names or not str(worker.nanny).startswith("tls://"):
        return
    try:
        comm = await connect(worker.nanny, timeout=_PATIENCE, **worker.connection_args)
    except OSError:
        return  # it says so itself
    known = hello.BACKEND in comm.remote_info
    comm.abort()
    if not known:
        logger.warning(
            "the nanny of this worker is on distributed's own backend: %s does not hold for %s; "
            "start it with `dask worker`, or add --preload-nanny %s",
            " and ".join(names),
            worker.nanny,
            config.PRELOAD,
        )


def _identity(material: Material) -> str:
    try:
        own, *_ = certificates(material.certificate)
        der = ssl.PEM_cert_to_DER_cert(own.text)
        subject, end = subjects.subject(der), end_of(der)
    except (PEMError, ValueError):  # the file has gone since
        return str(material.certificate)
    if end is None:
        return f"certificate {subject}"
    until = datetime.datetime.fromtimestamp(end, datetime.timezone.utc)
    return f"certificate {subject} until {until:%Y-%m-%d %H:%M} UTC"


def _versions(context: ssl.SSLContext) -> str:
    least, most = context.minimum_version, context.maximum_version
    names = [each.name for each in (least, ssl.TLSVersion.TLSv1_3 if most is _NEWEST else most)]
    first, last = (name.replace("TLSv", "TLS ").replace("_", ".") for name in names)
    return first if first == last else f"{first} to {last.removeprefix('TLS ')}"


def _on(state: object) -> str:
    return "on" if state else "off"


@functools.cache
def own_version() -> str:
    """Return the version of this package, as it is installed."""
    try:
        return version("sealwire")
    except PackageNotFoundError:  # a copy that nobody has installed
        return "of an unknown version"
