"""The output of `sealwire bench`: a table, JSON, a plot."""

from __future__ import annotations

import json
import platform
import ssl
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from sealwire.cli.bench.client import SIZES, Figure, size_name, throughput_name

Results = Mapping[str, Sequence[Figure]]  # by link: "tcp", "tls"

COLORS = {"tcp": "tab:blue", "tls": "tab:orange"}


def table(results: Results) -> Table:
    """Return a row per measurement, a column per link."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    shown.add_column("")
    for link in results:
        shown.add_column(link, justify="right")
    if len(results) > 1:
        shown.add_column("cost of tls", justify="right")
    by_link = {link: {figure.what: figure for figure in found} for link, found in results.items()}
    for what in dict.fromkeys(what for found in by_link.values() for what in found):
        figures = [found.get(what) for found in by_link.values()]
        cells = ["too slow" if figure is None else str(figure) for figure in figures]
        if len(results) > 1:
            cells.append(_cost(by_link["tcp"].get(what), by_link["tls"].get(what)))
        shown.add_row(what, *cells)
    return shown


def _cost(plain: Figure | None, secured: Figure | None) -> str:
    """How many times as long it takes over TLS."""
    if plain is None or secured is None:
        return ""
    ratio = secured.value / plain.value if plain.unit == "µs" else plain.value / secured.value
    return f"{ratio:.2f} ×"


def facts(peer: str, uvloop: bool) -> dict[str, Any]:
    """Return the conditions of the measurement."""
    return {
        "peer": peer,
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "sealwire": version("sealwire"),
        "uvloop": uvloop,
    }


def write_json(path: Path, about: Mapping[str, Any], results: Results) -> None:
    """Write everything to a file."""
    figures = {
        link: [{"what": f.what, "value": f.value, "unit": f.unit} for f in found]
        for link, found in results.items()
    }
    path.write_text(json.dumps({**about, "results": figures}, indent=1) + "\n", encoding="utf-8")


def require_matplotlib(path: Path) -> None:
    """Raise a ClickException if the plot could not be drawn, before anything is measured."""
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise click.ClickException(
            f"cannot draw {path}: matplotlib is not installed; "
            "install it with: pip install 'sealwire[benchmark]'"
        ) from None
    known = Canvas().canvas.get_supported_filetypes()
    if path.suffix[1:] not in known:
        raise click.ClickException(
            f"cannot draw {path}: unknown kind of picture {path.suffix!r}; "
            f"use one of {', '.join('.' + name for name in sorted(known))}"
        )


def plot(path: Path, about: Mapping[str, Any], results: Results) -> None:
    """Plot throughput by size, for each link and direction."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(7, 4.5), layout="constrained")
    axes = canvas.subplots()
    for link, found in results.items():
        values = {figure.what: figure.value for figure in found}
        for direction, style in (("upload", "o-"), ("download", "s--")):
            points = [
                (index, values[name])
                for index, size in enumerate(SIZES)
                if (name := throughput_name(direction, size)) in values
            ]
            if points:
                color = {"tcp": "tab:blue", "tls": "tab:orange"}.get(link)
                axes.plot(
                    *zip(*points, strict=True), style, color=color, label=f"{link} {direction}"
                )
    axes.set_xticks(range(len(SIZES)), [size_name(size) for size in SIZES])
    axes.set_xlabel("payload")
    axes.set_ylabel("MB/s")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    axes.set_title(f"sealwire {about['sealwire']} to {about['peer']}")
    canvas.savefig(path)
