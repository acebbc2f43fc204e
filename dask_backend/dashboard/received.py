"""What others report, taken apart: whatever a worker sends, it becomes values of known types.

A report is from a member of the cluster, which may be broken, of another version, or hostile. Texts
are escaped and bounded here, once, as `security.text.visible` does it; numbers are finite and not
negative; what is of another type is left out. Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sealwire.security.text import visible

from .report import LINK, VERSION

__all__ = ["Certificate", "Link", "Report", "received"]

_LONGEST = 200  # characters of a text
_MOST_KINDS = 40  # of refusals
_MOST_LACKS = 4  # faults of a link
_MOST_CERTIFICATES = 16
_MOST_ROLES = 4
_GREATEST = 1 << 62


class Link(NamedTuple):
    """One end of a link, as the process that holds it tells it; None for what is not known."""

    local: str
    peer: str
    protocol: str | None = None
    cipher: str | None = None
    identity: str | None = None
    backend: str | None = None
    age: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    round_trip: int | None = None  # microseconds
    since: int | None = None  # of the peer's certificate, as until
    until: int | None = None
    lacks: tuple[str, ...] = ()


class Certificate(NamedTuple):
    """A certificate or CRL that a process holds; `kind` is "own", "CA" or "CRL"."""

    kind: str
    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Report:
    """What a process reports. `open` and `held` count links and certificates left out, too.

    `broken` are links that it has accepted. `broken_dialled` are of all servers of its process, and
    so is `outdated`: the roles whose certificate files have changed and cannot be used.
    """

    process: str = ""
    pid: int | None = None
    version: str = ""
    links: tuple[Link, ...] = ()
    open: int = 0
    certificates: tuple[Certificate, ...] = ()
    held: int = 0
    outdated: tuple[str, ...] = ()
    pending: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    broken: Mapping[str, int] = field(default_factory=dict)
    broken_dialled: Mapping[str, int] = field(default_factory=dict)
    refused_ever: int = 0


def received(value: object, most_links: int) -> Report | str:
    """Return a report, with at most that many links, or in words why it cannot be read."""
    if type(value) is not dict:
        return f"its report is no report but {visible(type(value).__name__, longest=40)}"
    version = value.get("version")
    if type(version) is not int or version != VERSION:  # types first: an array has no truth value
        return "its report is of another version of sealwire"
    links = [_link(each) for each in _items(value.get("links"), most_links)]
    good = tuple(each for each in links if each is not None)
    certificates = [_certificate(e) for e in _items(value.get("certificates"), _MOST_CERTIFICATES)]
    held = tuple(each for each in certificates if each is not None)
    return Report(
        process=_text(value.get("process")) or "",
        pid=_number(value.get("pid")),
        version=_text(value.get("sealwire")) or "",
        links=good,
        open=max(_number(value.get("open")) or 0, len(good)),
        certificates=held,
        held=max(_number(value.get("held")) or 0, len(held)),
        outdated=_texts(value.get("outdated"), _MOST_ROLES),
        pending=_number(value.get("pending")) or 0,
        refused=_counts(value.get("refused")),
        broken=_counts(value.get("broken")),
        broken_dialled=_counts(value.get("broken_dialled")),
        refused_ever=_number(value.get("refused_ever")) or 0,
    )


def _items(value: Any, most: int) -> Any:
    return value[:most] if type(value) in (list, tuple) else ()


def _text(value: object) -> str | None:
    if type(value) is not str:
        return None
    if len(value) <= _LONGEST and value.isascii() and value.isprintable():
        return value  # as nearly all are
    return visible(value, longest=_LONGEST)


def _texts(value: Any, most: int) -> tuple[str, ...]:
    return tuple(words for each in _items(value, most) if (words := _text(each)))


def _number(value: Any) -> int | None:
    # False for NaN, and no conversion of what is too large for one.
    return int(value) if type(value) in (int, float) and 0 <= value <= _GREATEST else None


def _counts(value: Any) -> dict[str, int]:
    if type(value) is not dict:
        return {}
    found = {}
    for kind in list(value)[:_MOST_KINDS]:
        number = _number(value[kind]) if type(kind) is str else None
        if number:
            found[visible(kind, longest=_MOST_KINDS)] = number
    return found


def _link(value: Any) -> Link | None:
    if type(value) not in (list, tuple) or len(value) != len(LINK):
        return None
    local, peer = _text(value[0]), _text(value[1])
    if local is None or peer is None:
        return None
    faults = _texts(value[-1], _MOST_LACKS)
    return Link._make((local, peer, *map(_text, value[2:6]), *map(_number, value[6:-1]), faults))


def _certificate(value: Any) -> Certificate | None:
    if type(value) not in (list, tuple) or len(value) != 4:
        return None
    kind, name, start, end = value
    begins, ends = _number(start), _number(end)
    if type(kind) is not str or kind not in ("own", "CA", "CRL"):
        return None
    if begins is None or ends is None:
        return None
    return Certificate(kind, _text(name) or "", begins, ends)
