"""Every error of joining.

```
JoinError(Exception)
├─ TokenError(ValueError)   a text is no token, or not a whole one
├─ LedgerError              the ledger of tokens cannot be used, or a token not be made as asked
├─ BadMessage               what the other side sent is no message of ours
├─ WrongAuthority           the service is not one of the CA that the token, or our identity, names
├─ Refused                  the service refuses, and will again
└─ Unavailable(OSError)     the service cannot be reached or is busy: worth another attempt
```

No message holds a token, any part of one, or a private key.
"""

from __future__ import annotations

__all__ = [
    "BadMessage",
    "JoinError",
    "LedgerError",
    "Refused",
    "TokenError",
    "Unavailable",
    "WrongAuthority",
]


class JoinError(Exception):
    """Base class of all errors raised by `sealwire.joining`."""


class TokenError(JoinError, ValueError):
    """A text is no token, or not a whole one."""


class LedgerError(JoinError):
    """The ledger of tokens cannot be used, or a token cannot be made as asked."""


class BadMessage(JoinError):
    """What the other side sent is no message, or lacks a field."""


class WrongAuthority(JoinError):
    """The service is not one of the CA that is expected. Nothing was sent to it."""


class Refused(JoinError):
    """The service refuses, and would again.

    Attributes
    ----------
    kind : str
        Why, in a word: ``unknown``, ``proof``, ``revoked``, ``expired``, ``used``, ``role``,
        ``names``, ``request``…
    """

    def __init__(self, why: str, kind: str = "refused") -> None:
        super().__init__(why)
        self.kind = kind

    @property
    def ends_token(self) -> bool:
        """Whether the token is good for no other attempt with the same key, either."""
        return self.kind in ("unknown", "revoked", "expired", "used")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.kind)


class Unavailable(JoinError, OSError):
    """The service cannot be reached, or is busy: worth another attempt."""
