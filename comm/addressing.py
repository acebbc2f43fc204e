"""Parse and format addresses (``scheme://host:port``); resolve wildcard hosts.

An IPv6 host is written in brackets: ``tls://[::1]:8786``. A bare address (``host:port``) has no
scheme; the caller picks one. The addresses of some schemes are no hosts and ports
(``unix:///run/x.sock``): their backends say so, and what follows the scheme is theirs. Only
`concrete_host` does I/O: it queries the routing table.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import NamedTuple

from .errors import AddressError
from .words import repr_of

__all__ = ["Address", "concrete_host", "declare_scheme", "format_address", "parse_address"]


_OPAQUE = {"unix", "mem"}  # schemes whose addresses are not host and port

_NOT_IN_A_HOST = re.compile(r"[\s/@?#]")


class Address(NamedTuple):
    """A parsed address; `str` formats it again.

    Attributes
    ----------
    scheme : str
        In lower case; empty for a bare address.
    host : str
        A name or an IP address without brackets; empty for all interfaces. All that follows
        ``://`` if the scheme's addresses are no hosts and ports.
    port : int
        0 if none was given; a listener then picks any free port.
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return format_address(*self)

    @property
    def opaque(self) -> bool:
        """Whether it has no host and port: what follows the scheme is for the backend alone."""
        return self.scheme in _OPAQUE


def declare_scheme(scheme: str, *, host_port: bool) -> None:
    """Say whether the addresses of a scheme are hosts and ports; `register_backend` does."""
    (_OPAQUE.discard if host_port else _OPAQUE.add)(scheme)


def parse_address(address: str) -> Address:
    """Parse ``[scheme://]host[:port]``.

    Parameters
    ----------
    address : str
        An IPv6 host is written in brackets.

    Returns
    -------
    Address
        Scheme (in lower case), host and port; an omitted scheme is ``""``, an omitted port 0.

    Raises
    ------
    AddressError
        If `address` is not of this form, or the port is not in 0–65535.
    """
    if not isinstance(address, str):
        raise AddressError(
            f"bad address {repr_of(address)}: got {type(address).__name__}, need a str"
        )
    address = str.__str__(address)  # a subclass may be an Enum, or say anything
    scheme, separator, rest = address.partition("://")
    if separator and scheme.lower() in _OPAQUE:
        if not rest.isprintable():
            raise AddressError(f"bad address {address!r}: it holds control characters")
        return Address(scheme.lower(), rest, 0)
    scheme, separator, rest = address.rpartition("://")
    if separator and not (scheme.replace("+", "").replace("-", "").isalnum()):
        raise AddressError(
            f"bad address {address!r}: no scheme before '://'; write tls://host:port"
        )
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise AddressError(f"bad address {address!r}: unbalanced brackets; write [::1]:8786")
        port = tail[1:]
    else:
        host, colon, port = rest.rpartition(":")
        if not colon:
            host, port = rest, ""
        elif ":" in host:
            raise AddressError(
                f"bad address {address!r}: several colons; write an IPv6 host as [{rest}]:port"
            )
    if _NOT_IN_A_HOST.search(host) or not host.isprintable():  # libraries cut a name at a NUL
        raise AddressError(f"bad address {address!r}: {host!r} is not a host name")
    return Address(scheme.lower(), host, _parse_port(port, address))


def _parse_port(text: str, address: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise AddressError(f"bad address {address!r}: got port {text!r}, need 0 to 65535")
    return int(text)


def format_address(scheme: str, host: str, port: int) -> str:
    """Format an address, the inverse of `parse_address`; IPv6 hosts get brackets."""
    if scheme in _OPAQUE and not port:  # in Dask, unix:// has a number
        return f"{scheme}://{host}"
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"{scheme}://{place}" if scheme else place


def concrete_host(host: str) -> str:
    """Return a host that peers can dial, for a host that means all interfaces.

    ``""``, ``0.0.0.0`` and ``::`` become the source address of this machine's default route, or
    loopback if there is none; any other host is returned unchanged.
    """
    if host in ("", "0.0.0.0"):
        return _outward_address(socket.AF_INET, "10.255.255.255", "127.0.0.1")
    try:
        if ipaddress.IPv6Address(host).is_unspecified:
            return _outward_address(socket.AF_INET6, "fd00::ffff", "::1")
    except ValueError:
        pass
    return host


def _outward_address(family: socket.AddressFamily, probe: str, fallback: str) -> str:
    # Connecting a UDP socket sends nothing, but makes the kernel pick the route's source address.
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((probe, 9))
            return str(sock.getsockname()[0])
    except OSError:
        return fallback
