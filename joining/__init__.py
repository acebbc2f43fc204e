"""Joining a cluster with a token: its service, and those who ask it.

The command line (`sealwire certs token`, `serve` and `join`) and the Dask backend use it;
docs/joining.md has the exchange, and what it protects from.
"""

from __future__ import annotations

from .client import Joined, address_of, join, lists, renew
from .desk import Desk
from .errors import JoinError, LedgerError, Refused, TokenError, Unavailable, WrongAuthority
from .member import Member
from .service import JoinServer
from .tokens import Token

__all__ = [
    "Desk",
    "JoinError",
    "JoinServer",
    "Joined",
    "LedgerError",
    "Member",
    "Refused",
    "Token",
    "TokenError",
    "Unavailable",
    "WrongAuthority",
    "address_of",
    "join",
    "lists",
    "renew",
]
