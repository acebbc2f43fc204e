"""`sealwire certs check`: checks a folder of certificates or a configuration."""

from __future__ import annotations

import dataclasses
import datetime
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealwire.cli.certs.common import (
    ROLES,
    duration,
    errors,
    json_option,
    options,
    password_from,
    password_option,
)
from sealwire.cli.certs.show import print_entries
from sealwire.cli.console import cell, to_json

if TYPE_CHECKING:
    from sealwire.security.checks.findings import Finding

COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@click.command("check", short_help="Does everything fit? A folder, or a configuration.")
@click.argument("path", metavar="[DIR|CONFIG|PEM]", required=False, type=click.Path(path_type=Path))
@options(
    click.option(
        "--role",
        "demanded",
        type=click.Choice(ROLES),
        multiple=True,
        help="A role whose certificate must be here; may be repeated.  [default: any one]",
    ),
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
    demanded: tuple[str, ...],
    soon: datetime.timedelta | None,
    password_file: Path | None,
    as_json: bool,
) -> None:
    """Check that keys, chains, purposes, dates, permissions, roles, CRLs and settings fit together.

    DIR is a folder of certificates, with its dask.yaml. CONFIG is a configuration file; it is read
    as if DASK_CONFIG named it: together with ~/.config/dask and the environment. For a PEM file,
    its contents are shown, as by `show`. The default is the folder that SEALWIRE_CERTS names, or
    certs; if there is none, the configuration that a process would have here and now. Only what is
    on this machine is checked: the file of one role is enough, unless --role demands more.

    \b
      sealwire certs check
      sealwire certs check --role worker
      sealwire certs check ~/.config/dask/dask.yaml
      sealwire certs check --soon 14d --json

    Exit codes: 0 all fits (notes do not count), 1 warnings, 2 errors (also: nothing could be
    checked, wrong usage).
    """
    with errors(exit_code=2):
        password = password_from(password_file)
        path = path or _default()
        if path is not None and _is_pem(path):
            print_entries([path], as_json)
            return
        found = _findings(path, demanded, soon, password)
    if as_json:
        click.echo(to_json([dataclasses.asdict(each) for each in found]))
    else:
        _print(found, path)
    severities = {each.severity for each in found}
    raise SystemExit(2 if "error" in severities else 1 if "warning" in severities else 0)


def _default() -> Path | None:
    """Return the folder that is checked if none is named; None if it is not there."""
    given = os.environ.get("SEALWIRE_CERTS")
    folder = Path(given or "certs")
    return folder if given or folder.is_dir() else None


def _is_pem(path: Path) -> bool:
    """Whether a file holds PEM blocks; a configuration may do so as well, in its values."""
    if not path.is_file() or path.suffix in (".yaml", ".yml", ".json"):
        return False
    with path.open("rb") as file:
        return path.suffix == ".pem" or b"-----BEGIN " in file.read(1 << 20)


def _findings(
    path: Path | None,
    demanded: Sequence[str],
    soon: datetime.timedelta | None,
    password: bytes | None,
) -> list[Finding]:
    from sealwire.security import config, unknown_keys
    from sealwire.security.checks.runner import check_configuration, check_folder, worst_first
    from sealwire.security.errors import ConfigError
    from sealwire.security.reading import kind

    found: list[Finding] = []
    file = None
    if path is not None:
        path = Path(os.path.abspath(path))
        file = str(path)
        if path.is_dir():
            configured = (path / "dask.yaml").is_file()
            here = () if configured else demanded
            found += check_folder(path, password=password, soon=soon, demanded=here)
            if not configured:
                return found
            file = str(path / "dask.yaml")
        elif not path.is_file():
            why = (
                f"it is {kind(os.stat(path))}"
                if path.exists()
                else "there is no such file or folder"
            )
            raise ConfigError(f"cannot check {path}: {why}; name a folder or a regular file")
    values = config.read(file)
    if path is not None and path.is_dir():
        values, there = _brought_here(values, path)
        if there and not (path / "ca-key.pem").is_file():
            found.append(_elsewhere(path, there))
    unknown = unknown_keys(file)
    found += check_configuration(
        values, unknown, soon, config.files(file), demanded, config.without_preload(file)
    )
    return worst_first(found)


def _elsewhere(folder: Path, there: str) -> Finding:
    from sealwire.security.checks.findings import WARNING, Finding

    return Finding(
        WARNING,
        "elsewhere",
        str(folder / "dask.yaml"),
        f"it names files in {there}, which is not on this machine: a process that reads it here "
        "does not find them",
        f"write it for this place: sealwire certs config --dir {shlex.quote(str(folder))}",
    )


def _brought_here(values: dict[str, Any], folder: Path) -> tuple[dict[str, Any], str]:
    """Return the configuration of a folder made for another place (`--seen-at`) as if here.

    And that place, empty if it is this one.
    """
    there = os.path.dirname(str(values["tls_ca_file"] or ""))
    if not there or os.path.isdir(there):
        return values, ""
    brought = {
        field: str(folder / os.path.basename(value))
        if isinstance(value, str) and os.path.dirname(value) == there
        else value
        for field, value in values.items()
    }
    return brought, there


def _print(found: list[Finding], path: Path | None) -> None:
    from rich.text import Text

    from sealwire.cli.demo.report import output

    console = output()
    for each in found:
        first = (cell(each.severity, COLOURS[each.severity]), " ", cell(each.subject, "bold"))
        second = (cell(each.code, "dim"), "  ", cell(each.advice))
        console.print(
            Text.assemble(*first, ": ", cell(each.message), "\n  ", *second), soft_wrap=True
        )
    count = sum(each.severity != "note" for each in found)
    words = "all fits" if not count else f"{count} finding{'s' if count > 1 else ''}"
    style = "" if count else "green"
    where = "in the configuration of this place" if path is None else f"in {path}"
    console.print(cell(words, style), cell(where), soft_wrap=True)
