"""`sealwire certs config`: the dask.yaml again, for where processes see the folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click

from sealwire.cli.certs.common import (
    F,
    dry_run_option,
    errors,
    finish,
    folder_option,
    json_option,
    options,
)


def seen_at_option(default: str) -> Callable[[F], F]:
    """Return the option `--seen-at`, with a text for its default."""
    words = f"Where the processes see the files, such as a mount.  [default: {default}]"
    return click.option("--seen-at", metavar="PATH", help=words)


def absolute(path: str | None) -> str | None:
    """Return a path as other machines take it; a relative one is relative to this place."""
    return path if path is None or path.startswith("/") else os.path.abspath(path)


@click.command("config", short_help="Write dask.yaml again, for another path.")
@options(
    seen_at_option("the folder itself"),
    click.option(
        "--out",
        type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
        help="The file to write, - for the terminal.  [default: dask.yaml in --dir]",
    ),
    folder_option,
    dry_run_option,
    json_option,
)
def command(
    seen_at: str | None, out: Path | None, folder: Path, dry_run: bool, as_json: bool
) -> None:
    """Write the folder's dask.yaml again, for processes that see its files elsewhere.

    Its paths are changed; everything else in it stays. The CA's key is not needed, so this also
    works on a machine to which the files were copied, in a folder of another name. If there is no
    dask.yaml, one is made as by `init`.

    \b
      sealwire certs config                              the folder was moved, or copied here
      sealwire certs config --seen-at /etc/sealwire --out sealwire-dask.yaml
      sealwire certs config --dir /etc/sealwire

    Exit codes: 0 written, 1 failed, 2 wrong usage.
    """
    with errors():
        from sealwire.security.ca.atomic_files import Write, locked
        from sealwire.security.ca.folder import Folder
        from sealwire.security.ca.relocation import relocated

        place = Folder(folder, links=out is not None)
        at = absolute(seen_at) or os.path.abspath(folder)
        if out is not None and str(out) == "-":
            click.echo(relocated(place, at), nl=False)
            return
        path = out or folder / "dask.yaml"
        words = f"configuration for files in {at}"
        result = {"config": str(path), "seen_at": at}
        if out is not None or dry_run:
            write = Write(path, relocated(place, at), words, folder=None if out else place)
            finish([write], dry_run=dry_run, as_json=as_json, result=result)
            return
        with locked(place):
            write = Write(path, relocated(place, at), words, folder=place)
            finish([write], dry_run=False, as_json=as_json, result=result)
