"""A picture of the cluster, as SVG: the scheduler, around it workers and clients, their links.

Shapes tell the states as colours do: a circle is as it should be, a triangle is to be looked at, a
diamond is wrong, a square is on distributed's own backend; a ring is a client. Colours are those
of the page's style sheet, so the picture has none of its own.
"""

from __future__ import annotations

import math
from html import escape

from . import words
from .cluster import Survey
from .judging import ORDER, State

__all__ = ["MOST_EDGES", "picture"]

#: most links in the picture; those with a fault first
MOST_EDGES = 2000

_MOST_CLIENTS = 50
_NAMED = 24  # processes that have their names beside them; others show them when pointed at
_LONGEST = 26  # characters of a name
_SIDE = 26.0  # between two neighbours
_FIRST = 130.0  # the radius of the inner ring
_ABOVE, _BESIDE = 40.0, 190.0  # margins, for names

_Place = tuple[float, float]


def picture(made: Survey) -> str:
    """Return an ``<svg>`` element of a survey."""
    rows = {row.member.name: row for row in made.processes}
    centre = next((n for n, row in rows.items() if row.member.role == "scheduler"), None)
    around = sorted(name for name in rows if name != centre) + made.others[:_MOST_CLIENTS]
    places, radius = _places(around)
    width, height = 2 * (radius + _BESIDE), 2 * (radius + _ABOVE)
    if centre is not None:
        places[centre] = 0.0, 0.0
    parts = [_edges(made, places)]
    for name, place in places.items():
        row = rows.get(name)
        state: str = row.state if row is not None else "client"
        faults = "; ".join(fault.words for fault in row.faults) if row is not None else "client"
        scale = 1.6 if name == centre else 1.0
        shape = _shape(state, *place, 7.0 * scale)
        title = f"{name}: {faults or 'as it should be'}"
        parts.append(f'<g class="{state}"><title>{escape(title)}</title>{shape}</g>')
        if len(places) <= _NAMED:
            parts.append(_name(name, place, scale))
    total = len(made.edges)
    shown = min(total, MOST_EDGES)
    about = f"{words.number(len(rows), 'process', 'processes')}, "
    about += f"{words.number(len(made.others), 'client', 'clients')}, "
    about += f"links between {words.number(total, 'pair', 'pairs')}"
    about += f", of which {shown} are shown" if shown < total else ""
    clients = len(made.others) - _MOST_CLIENTS
    about += f"; {words.number(clients, 'client', 'clients')} not shown" if clients > 0 else ""
    return (
        f'<svg role="img" aria-labelledby="about" '
        f'viewBox="{-width / 2:.0f} {-height / 2:.0f} {width:.0f} {height:.0f}" '
        f'xmlns="http://www.w3.org/2000/svg"><title id="about">{escape(about)}</title>'
        f"{''.join(parts)}</svg>"
    )


def _places(names: list[str]) -> tuple[dict[str, _Place], float]:
    """Put names on rings around 0, the inner one first; also return the outer one's radius."""
    rings: list[int] = []
    left, radius = len(names), _FIRST
    while left > 0:
        room = min(left, int(2 * math.pi * radius / _SIDE))
        rings.append(room)
        left, radius = left - room, radius + _SIDE
    outer = _FIRST + _SIDE * max(len(rings) - 1, 0)
    places = {}
    waiting = iter(names)
    for number, room in enumerate(rings):
        radius = _FIRST + _SIDE * number
        for index in range(room):
            angle = 2 * math.pi * (index + number / 2) / room - math.pi / 2
            places[next(waiting)] = radius * math.cos(angle), radius * math.sin(angle)
    return places, outer


def _edges(made: Survey, places: dict[str, _Place]) -> str:
    """Draw all edges of a state as one path: a thousand elements would be slow."""
    ordered = sorted(made.edges.items(), key=lambda edge: ORDER.index(edge[1]))
    paths: dict[State, list[str]] = {}
    for (one, other), state in ordered[:MOST_EDGES]:
        if one in places and other in places:
            (x, y), (u, v) = places[one], places[other]
            paths.setdefault(state, []).append(f"M{x:.0f} {y:.0f}L{u:.0f} {v:.0f}")
    return "".join(
        f'<path class="edge {state}" d="{"".join(lines)}"/>'
        for state, lines in reversed(paths.items())  # the worst on top
    )


def _shape(state: str, x: float, y: float, r: float) -> str:
    if state == "warn":
        points = f"{x:.1f},{y - r:.1f} {x + r:.1f},{y + r:.1f} {x - r:.1f},{y + r:.1f}"
        return f'<polygon points="{points}"/>'
    if state == "bad":
        r *= 1.2
        points = f"{x:.1f},{y - r:.1f} {x + r:.1f},{y:.1f} {x:.1f},{y + r:.1f} {x - r:.1f},{y:.1f}"
        return f'<polygon points="{points}"/>'
    if state == "stock":
        side = 2 * r
        return f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{side:.1f}" height="{side:.1f}"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'


def _name(name: str, place: _Place, scale: float) -> str:
    x, y = place
    short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
    if abs(x) < 40:
        anchor, dx, dy = "middle", 0.0, 22.0 * scale if y >= 0 else -12.0
    else:
        anchor, dx, dy = ("start", 12.0, 4.0) if x > 0 else ("end", -12.0, 4.0)
    return f'<text x="{x + dx:.0f}" y="{y + dy:.0f}" text-anchor="{anchor}">{escape(short)}</text>'
