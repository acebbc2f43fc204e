"""Identifies foreign protocols by their first bytes."""

from __future__ import annotations

__all__ = ["name_foreign"]

_METHODS = frozenset({b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT"})


def name_foreign(head: bytes) -> str:
    """Return what a peer with these first bytes speaks, and what to do; empty if unknown."""
    if head[:2] == b"\x16\x03":
        return "a TLS ClientHello; use tls:// on both sides"
    if head[:2] == b"\x15\x03":
        return "a TLS alert; use tls:// on both sides"
    method = head.split(b" ", 1)[0]
    if method in _METHODS or head.startswith((b"HTTP/1.", b"PRI * HT")):
        return "HTTP; this port speaks Dask's comm protocol, browse the dashboard's port instead"
    if head.startswith(b"SSH-"):
        return "SSH; check the port number"
    return ""
