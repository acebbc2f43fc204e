"""The comms of this process, as plain dicts that travel through Dask.

For operators and tests: ``client.run(links)`` shows every link of every worker, with the protocol,
cipher and peer certificate that were actually negotiated.
"""

from __future__ import annotations

from typing import Any

from distributed.comm.core import Comm

from .backend import TCP
from .protection import unprotected_comm

__all__ = ["links", "subject", "traffic"]


def links() -> list[dict[str, Any]]:
    """Describe every open comm of this process, ours or another backend's.

    Returns
    -------
    list of dict
        With the keys ``backend`` (the comm's class), ``local``, ``peer``, ``protocol`` and
        ``cipher`` (None if plain), ``peer_certificate`` (its subject), ``bytes_in`` and
        ``bytes_out`` (None if the comm is not ours), ``holds_gil`` (whether it receives large
        frames with the GIL held; None if it is plain or not ours), and ``unprotected``: in words,
        each protection that is configured in this process and not in effect for the comm; empty if
        all are.
    """
    return [_describe(comm) for comm in list(Comm._instances) if not comm.closed()]


def traffic() -> dict[str, int]:
    """Payload bytes this process has received and sent through our comms, including closed ones."""
    total = dict(TCP.closed_traffic)
    for comm in list(Comm._instances):
        if isinstance(comm, TCP) and not comm.stream.closed():
            total["bytes_in"] += comm.stream.bytes_in
            total["bytes_out"] += comm.stream.bytes_out
    return total


def _describe(comm: Comm) -> dict[str, Any]:
    extra = comm.extra_info
    cipher = extra.get("cipher")
    stream = comm.stream if isinstance(comm, TCP) else None
    return {
        "backend": f"{type(comm).__module__}.{type(comm).__qualname__}",
        "local": comm.local_address,
        "peer": comm.peer_address,
        "protocol": extra.get("protocol") or (cipher[1] if cipher else None),
        "cipher": cipher[0] if cipher else None,
        "peer_certificate": subject(extra.get("peercert")),
        "holds_gil": extra.get("holds_gil"),
        "unprotected": unprotected_comm(comm),
        "bytes_in": stream.bytes_in if stream else None,
        "bytes_out": stream.bytes_out if stream else None,
    }


_SHORT = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU"}


def subject(certificate: dict[str, Any] | None) -> str | None:
    """Return the subject of a certificate as `ssl` gives it, like ``CN=worker, O=cluster``."""
    if not certificate:
        return None
    pairs = [pair for rdn in certificate.get("subject", ()) for pair in rdn]
    return ", ".join(f"{_SHORT.get(name, name)}={value}" for name, value in pairs)
