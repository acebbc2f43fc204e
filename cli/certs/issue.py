"""`sealwire certs issue`: one more identity, or a certificate for somebody else's key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sealwire.cli.certs.common import (
    ROLES,
    days_option,
    dry_run_option,
    folder_option,
    json_option,
    options,
    password_option,
)
from sealwire.cli.certs.sign import grant

REQUEST = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command("issue", short_help="Issue an identity to a role on named hosts.")
@click.argument("role", type=click.Choice(ROLES))
@click.argument("names", nargs=-1)
@options(
    days_option,
    click.option(
        "--csr",
        type=REQUEST,
        help="Certificate for the key of this request, whose holder keeps the key.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
        help="The file to write, - for the terminal.  [default: ROLE-NAME.pem in --dir]",
    ),
    folder_option,
    password_option,
    dry_run_option,
    json_option,
)
def command(
    role: str,
    names: tuple[str, ...],
    out: Path | None,
    folder: Path,
    **given: Any,
) -> None:
    """Issue an identity to a process of ROLE, for the hosts and IP addresses in NAMES.

    Certificate and key go to one file. With --csr the key stays where the request was made, and
    only a certificate is written. A file that is there already is not touched: see `renew`.

    \b
      sealwire certs issue worker node7.lab 10.0.0.7
      sealwire certs issue client --days 30 --out alice.pem
      sealwire certs issue worker node8.lab --csr node8.csr

    Exit codes: 0 issued, 1 failed, 2 wrong usage.
    """
    first = [name.strip("[]").removesuffix(".") for name in names[:1]]
    stem = "-".join([role, *first]).replace(":", "_").replace("/", "_").replace("*", "any")
    path = out or folder / f"{stem}.pem"
    grant(role, names, own_names=False, out=path, folder=folder, **given)
