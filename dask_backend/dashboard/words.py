"""Figures as people read them, the same on the page and in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask.utils import format_bytes

__all__ = [
    "STATES",
    "certificates",
    "counts",
    "days",
    "headline",
    "number",
    "round_trip",
    "seconds",
    "size",
]

#: a sign and a word for each state
STATES = {
    "bad": ("◆", "wrong"),
    "warn": ("▲", "look at it"),
    "stock": ("■", "distributed's backend"),
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
    """Return the days that are left of a certificate."""
    if value is None:
        return _NONE
    if value < 0:
        return "expired"
    return f"{value:.0f} days" if value >= 2 else f"{value * 24:.0f} hours"


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
