"""The errors of calls, and how an error of a handler travels: as its name, text and chosen fields.

    CallError(Exception)                       .method .may_have_run
    ├─ CallRefused                             the other side did not run it; .kind
    ├─ CallTimeout(TimeoutError)               its deadline has passed
    ├─ CallLost(CommClosedError)               the comm ended before the reply; .code .reason …
    └─ RemoteError                             the handler raised; .name .message

Nothing is pickled, and no class is looked up by a name that a peer sends: an error becomes an
object of a class only if `register_error` was called for it here, and a `RemoteError` else. A peer
can raise none but those, and texts from it are cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from ..close_codes import CloseCode
from ..errors import CommClosedError, EncodeError, quoted
from ..words import repr_of

__all__ = [
    "CallError",
    "CallLost",
    "CallRefused",
    "CallTimeout",
    "RefusalKind",
    "RemoteError",
    "at_argument",
    "client_closed",
    "describe",
    "is_expected",
    "late",
    "lost",
    "refused",
    "register_error",
    "revive",
]

_CALL = "call "
_LONGEST_NAME = 200  # characters
_LONGEST_TEXT = 4000
_NO_TEXT = "(its text cannot be made)"

RefusalKind = Literal["unknown-method", "bad-arguments", "bad-request", "overloaded", "stopping"]

_Value = TypeVar("_Value")
_Class = TypeVar("_Class", bound=type[Exception])


class CallError(Exception):
    """Base class of the errors of a call.

    Attributes
    ----------
    method : str
        What was called.
    may_have_run : bool
        Whether the other side may have run the call, in part or as a whole. If not, it can be
        repeated without harm.
    """

    method = ""
    may_have_run = True

    def named(self, method: str) -> None:
        """Say what was called, in the text too."""
        if not self.method:
            self.method = method
            text = self.args[0] if len(self.args) == 1 else ""
            if isinstance(text, str) and text.startswith(_CALL):
                self.args = (f"call of {quoted(method, 100)!r} {text[len(_CALL) :]}",)


class CallRefused(CallError):
    """The other side did not run the call, and says why.

    Attributes
    ----------
    kind : {"unknown-method", "bad-arguments", "bad-request", "overloaded", "stopping"}
        Why. After ``"overloaded"`` and ``"stopping"`` another attempt may succeed.
    """

    may_have_run = False
    kind: RefusalKind = "bad-request"


class CallTimeout(CallError, TimeoutError):
    """The deadline of a call has passed before its reply arrived."""


class CallLost(CallError, CommClosedError):
    """The comm has ended before the reply arrived; ``code`` and ``reason`` are those of its end."""


class RemoteError(CallError):
    """The handler raised an error whose class is not registered here.

    Errors of calls that the handler has made itself arrive so, too, whatever they say of
    `may_have_run`: here the handler has run.

    Attributes
    ----------
    name : str
        The class's module and name at the other side, or the name it is registered with there.
    message : str
        The text of the error, as it was sent; `str` shows it without control characters.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)
        self.name = name
        self.message = message

    def __str__(self) -> str:
        return _visible(f"{self.name}: {self.message}" if self.message else self.name)


def _visible(text: str) -> str:
    """Return a peer's text of several lines without what a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


class _Registered(NamedTuple):
    name: str
    fields: tuple[str, ...]


_NEVER = (CallError, StopIteration)  # asyncio's futures do not take the latter
_by_class: dict[type[Exception], _Registered] = {}
_by_name: dict[str, type[Exception]] = {}


def register_error(cls: _Class, *, fields: Collection[str] = (), name: str | None = None) -> _Class:
    """Let errors of `cls` and its subclasses arrive as `cls`; both sides register it.

    They count as part of what a handler promises: the side that runs it does not log them.

    Parameters
    ----------
    cls : type of Exception
        It is made by ``cls(message, **fields)``, with values that a peer has sent, which it must
        check. If that raises, the error arrives as a `RemoteError`.
    fields : collection of str, optional
        Attributes that travel along: all of them, or none if one cannot be encoded.
    name : str, optional
        The name on the wire, by default the class's module and qualified name.

    Returns
    -------
    type
        `cls`, so that this can be used as a decorator.

    Raises
    ------
    TypeError
        If `cls` is not a class of errors, is one of the errors of calls themselves, or
        `StopIteration`; for fields that are no names, and for a name that is no printable text.
    ValueError
        If the name belongs to another class, or is longer than 200 characters.

    Examples
    --------
    ::

        @register_error
        class OutOfStock(Exception):
            pass

        register_error(KeyError)
    """
    if not (isinstance(cls, type) and issubclass(cls, Exception)) or issubclass(cls, _NEVER):
        raise TypeError(
            f"cannot register {repr_of(cls)} as an error: need a class of Exception other than "
            f"CallError and StopIteration"
        )
    names = tuple(fields) if isinstance(fields, Iterable) else (None,)
    if isinstance(fields, str) or not all(isinstance(each, str) for each in names):
        raise TypeError(
            f"cannot register {cls!r}: fields is {repr_of(fields)}, need a list of names"
        )
    name = _name(cls) if name is None else name
    if not (isinstance(name, str) and name and name.isprintable()):
        raise TypeError(
            f"cannot register {cls!r}: its name is {repr_of(name)}, need printable text"
        )
    if len(name) > _LONGEST_NAME:
        raise ValueError(
            f"cannot register {cls!r}: its name has {len(name)} characters, at most "
            f"{_LONGEST_NAME} are sent; choose a shorter one"
        )
    if _by_name.get(name, cls) is not cls:
        raise ValueError(f"cannot register {cls!r}: the name {name!r} is taken; choose another")
    _by_class[cls] = _Registered(name, names)
    _by_name[name] = cls
    return cls


def _name(cls: type) -> str:
    prefix = "" if cls.__module__ == "builtins" else f"{cls.__module__}."
    return f"{prefix}{cls.__qualname__}"


def is_expected(error: BaseException) -> bool:
    """Whether its class, or one above, is registered: it is part of what a handler promises."""
    return any(cls in _by_class for cls in type(error).__mro__)


def describe(error: BaseException, most: int = _LONGEST_TEXT) -> list[Any]:
    """Return ``[name, message, fields]`` for an error of a handler; the fields may be anything.

    Name and message have `most` characters at most.
    """
    name, message, fields = _described(error)
    return [name[:most], message[:most], fields]


def _described(error: BaseException) -> tuple[str, str, dict[str, Any]]:
    if isinstance(error, RemoteError):  # of a call that the handler has made
        name = _tried(lambda: _sendable(error.name, _LONGEST_NAME), "unknown")
        return name, _tried(lambda: _sendable(error.message, _LONGEST_TEXT), _NO_TEXT), {}
    for cls in type(error).__mro__:
        entry = _by_class.get(cls)
        if entry is not None:
            text = _tried(lambda: _text(error), _NO_TEXT)
            return entry.name, text, {each: _field(error, each) for each in entry.fields}
    name = _tried(lambda: _sendable(_name(type(error)), _LONGEST_NAME), "unknown")
    return name, _tried(lambda: _text(error), _NO_TEXT), {}


def _tried(make: Callable[[], _Value], instead: _Value) -> _Value:
    """Return what `make` returns, or `instead` if it raises: an error's own code may do anything.

    Neither the reader nor the process must end by it.
    """
    try:
        return make()
    except BaseException:
        return instead


def _text(error: BaseException) -> str:
    """Return the error's message: what it was made with, if that is one text, else its `str`."""
    args = error.args
    text = args[0] if len(args) == 1 and type(args[0]) is str else str(error)
    return _sendable(text, _LONGEST_TEXT)


def _field(error: BaseException, name: str) -> Any:
    return _tried(lambda: getattr(error, name, None), None)


def _sendable(text: str, longest: int) -> str:
    """`text`, cut, without lone surrogates, which have no form in UTF-8."""
    return str.__str__(text)[:longest].encode(errors="replace").decode()


def revive(described: Any) -> Exception:
    """Return the error that a peer has described; anything else is described as it is."""
    if type(described) is not list or len(described) != 3:
        return RemoteError("unknown", "the other side has sent an error that is none")
    name, message, given = described
    name = name[:_LONGEST_NAME] if isinstance(name, str) else "unknown"
    message = message[:_LONGEST_TEXT] if isinstance(message, str) else ""
    cls = _by_name.get(name)
    if cls is not None:
        known = _by_class[cls].fields
        fields = given if isinstance(given, dict) else {}
        values = {field: fields.get(field) for field in known}
        made = _tried(lambda: cls(message, **values), None)  # which may not suit it
        if isinstance(made, Exception):
            return made
    return RemoteError(name, message)


def at_argument(error: EncodeError, first: int | None) -> None:
    """Let `error` name an argument or the result where it names a part of our envelope.

    The part numbered `first` is the first argument; without it, what is wrong is in the result.
    """

    def name(found: re.Match[str]) -> str:
        if first is None:
            return "result"
        number = int(found[1]) - first
        if number >= 0:
            return f"argument {number}"
        return "keywords" if number == -1 else "method"

    error.args = (re.sub(r"^\[(\d+)\]", name, str(error)),)


def refused(kind: Any, text: Any, peer: str) -> CallError:
    """Return the error for a refusal by the peer, whose words may be anything."""
    if type(kind) is not str:  # an array has no truth value
        kind = "bad-request"
    if kind == "expired":
        return CallTimeout(
            f"call to {peer} timed out: it was not done at its deadline there; allow it more time"
        )
    why = quoted(text, _LONGEST_TEXT) if isinstance(text, str) else "it does not say why"
    kind = kind if kind in get_args(RefusalKind) else "bad-request"
    error = CallRefused(f"call to {peer} refused: {why}; {_REMEDIES[kind]}")
    error.kind = kind
    return error


_REMEDIES = {
    "unknown-method": "check the name, and that both sides are of the same version",
    "bad-arguments": "pass what the method takes",
    "bad-request": "check that both sides are of the same version",
    "overloaded": "call again later, or make fewer calls at once",
    "stopping": "call again once it has been replaced",
}


def late(peer: str, seconds: float, *, sent: bool) -> CallTimeout:
    """Return the error for a deadline that has passed here."""
    why = "no reply within" if sent else "it could not be sent within"
    error = CallTimeout(f"call to {peer} timed out: {why} {seconds:.3g} s; allow it more time")
    error.may_have_run = sent
    return error


def lost(peer: str, failure: CommClosedError, *, sent: bool) -> CallLost:
    """Return the error for a call whose comm has ended, as `failure` says."""
    why, _, remedy = str(failure).partition("; ")
    ran = "it may have run" if sent else "it was not sent"
    error = CallLost(f"call to {peer} lost, {ran}: {why}; {remedy or 'connect again'}", peer=peer)
    error.code, error.reason = failure.code, failure.reason
    error.closed_by, error.clean = failure.closed_by, failure.clean
    error.retryable, error.kind = failure.retryable, failure.kind
    error.may_have_run = sent
    error.__cause__ = failure.again()
    return error


def client_closed(address: str) -> CallLost:
    """Return the error for a call of a reconnecting client that is closed."""
    closed = CommClosedError(f"client of {address} closed; make another one")
    closed.closed_by, closed.clean, closed.code = "us", True, CloseCode.NORMAL
    return lost(address, closed, sent=False)
