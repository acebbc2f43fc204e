"""Figures as people read them, the same on the page and in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask.utils import format_bytes

from sealwire.security.contexts.expiry import in_words

__all__ = [
    "STATES",
    "certificates",
    "counts",
    "days",
    "headline",
    "is_untold",
    "links",
    "number",
    "round_trip",
    "seconds",
    "size",
]

#: a sign and a word for each state
STATES = {
    "bad": ("◆", "wrong"),
    "warn": ("▲", "worth a look"),
    "stock": ("■", "on distributed's backend"),
    "ok": ("●", "good"),
}

_NONE = "–"
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def size(value: int | None) -> str:
    """Return a number of bytes, such as ``1.20 MiB``."""
    return _NONE if value is None else str(format_bytes(value))


def seconds(value: float | None) -> str:
    """Return an age, such as ``3 h``."""
    if value is None:
        return _NONE
    for length, unit in _UNITS:
        if value >= 2 * length:
            return f"{value / length:.0f} {unit}"
    return f"{value:.0f} s"


def round_trip(microseconds: int | None) -> str:
    """Return a time in milliseconds."""
    return _NONE if microseconds is None else f"{microseconds / 1000:.2f} ms"


def days(value: float | None) -> str:
    """Return the days that are left of a certificate, or hours, minutes, seconds at its end."""
    if value is None:
        return _NONE
    return "expired" if value < 0 else in_words(value * 86400)


def links(process: Mapping[str, Any]) -> str:
    """Return how many links a process has; of one that does not report them, that."""
    if is_untold(process):
        return _NONE
    told = process["links_told"]
    return f"{process['links']}" + (f" ({told} listed)" if 0 < told < process["links"] else "")


def is_untold(process: Mapping[str, Any]) -> bool:
    """Whether a process tells nothing of its links, or another one tells it for it."""
    return bool(process["in_the_process_of"]) or process["pid"] is None


def counts(value: Mapping[str, int]) -> str:
    """Return counts by kind, the most frequent first."""
    ordered = sorted(value.items(), key=lambda each: -each[1])
    return ", ".join(f"{kind} {count}" for kind, count in ordered) or _NONE


def certificates(process: Mapping[str, Any]) -> str:
    """Return what a process holds, with what is left of each."""
    told = [
        f"{each['kind']} {each['name']}".rstrip() + f": {days(each['days'])}"
        for each in process["certificates"]
    ]
    left_out = process["certificates_left_out"]
    return "; ".join([*told, *([f"and {left_out} more"] if left_out > 0 else [])]) or _NONE


def headline(view: Mapping[str, Any]) -> str:
    """Say in a line what there is, and how it is."""
    summary = view["summary"]
    states = summary["states"]
    parts = [
        number(summary["processes"], "process", "processes"),
        number(summary["clients"], "client", "clients"),
        number(summary["links"], "end of a link", "ends of links"),
    ]
    untold = summary["links"] - summary["links_told"]
    if untold > 0:
        parts[-1] += f", {untold} of which are counted only"
    judged = [f"{states[state]} {word}" for state, (_, word) in STATES.items() if states[state]]
    return f"{', '.join(parts)}. Processes: {', '.join(judged)}."


def number(count: int, one: str, several: str) -> str:
    """Return a count of things, such as ``1 link``."""
    return f"{count} {one if count == 1 else several}"
