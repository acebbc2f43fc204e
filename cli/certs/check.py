"""The command `sealwire certs check`: does everything fit?"""

from __future__ import annotations

import dataclasses
import datetime
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealwire.cli.certs.common import (
    duration,
    errors,
    json_option,
    options,
    password_from,
    password_option,
)
from sealwire.cli.console import cell, to_json

if TYPE_CHECKING:
    from sealwire.security.checks.findings import Finding

COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@click.command("check", short_help="Does everything fit? A folder, or a configuration.")
@click.argument("path", metavar="[DIR|CONFIG]", required=False, type=click.Path(path_type=Path))
@options(
    click.option(
        "--soon",
        type=duration,
        metavar="TIME",
        help="Warn of what expires within this time.  [default: 30d, or a third of its lifetime]",
    ),
    password_option,
    json_option,
)
def command(
    path: Path | None,
    soon: datetime.timedelta | None,
    password_file: Path | None,
    as_json: bool,
) -> None:
    """Look whether keys, chains, purposes, dates, permissions, roles, lists and settings fit.

    DIR is a folder of certificates, with its dask.yaml. CONFIG is a configuration file, read as a
    process does that DASK_CONFIG tells of it: with ~/.config/dask and the environment. Without
    either, it is the configuration that a process would have here and now.

    \b
      sealwire certs check certs
      sealwire certs check ~/.config/dask/dask.yaml
      sealwire certs check --soon 14d --json

    Exit codes: 0 all fits (notes do not count), 1 warnings, 2 errors (also: nothing could be
    checked, wrong usage).
    """
    with errors(exit_code=2):
        found = _findings(path, soon, password_from(password_file))
    if as_json:
        click.echo(to_json([dataclasses.asdict(each) for each in found]))
    else:
        _print(found)
    severities = {each.severity for each in found}
    raise SystemExit(2 if "error" in severities else 1 if "warning" in severities else 0)


def _findings(
    path: Path | None, soon: datetime.timedelta | None, password: bytes | None
) -> list[Finding]:
    from sealwire.security import config, unknown_keys
    from sealwire.security.checks.runner import check_configuration, check_folder, worst_first
    from sealwire.security.errors import ConfigError

    found: list[Finding] = []
    file = None
    if path is not None:
        path = Path(os.path.abspath(path))
        file = str(path)
        if path.is_dir():
            found += check_folder(path, password=password, soon=soon)
            if not (path / "dask.yaml").is_file():
                return found
            file = str(path / "dask.yaml")
        elif not path.is_file():
            raise ConfigError(f"cannot check {path}: there is no such file or folder")
    values = config.read(file)
    if path is not None and path.is_dir():
        values = _brought_here(values, path)
    found += check_configuration(values, unknown_keys(file), soon, config.files(file))
    return worst_first(found)


def _brought_here(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration of a folder made for another place (`init --seen-at`), as if here."""
    there = os.path.dirname(str(values["tls_ca_file"] or ""))
    if not there or os.path.isdir(there):
        return values
    return {
        field: str(folder / os.path.basename(value))
        if isinstance(value, str) and os.path.dirname(value) == there
        else value
        for field, value in values.items()
    }


def _print(found: list[Finding]) -> None:
    from rich.text import Text

    from sealwire.cli.demo.report import output

    console = output()
    for each in found:
        first = (cell(each.severity, COLOURS[each.severity]), " ", cell(each.subject, "bold"))
        second = (cell(each.code, "dim"), "  ", cell(each.advice))
        console.print(
            Text.assemble(*first, ": ", cell(each.message), "\n  ", *second), soft_wrap=True
        )
    count = len(found)
    words = "all fits" if not count else f"{count} finding{'s' if count > 1 else ''}"
    console.print(f"[green]{words}[/]" if not count else f"\n{words}")
