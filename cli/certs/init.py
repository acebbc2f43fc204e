"""`sealwire certs init`: creates a folder from which a cluster can be started."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path
from typing import Any

import click

from sealwire.cli.certs.common import (
    ca_days_option,
    days_option,
    dry_run_option,
    errors,
    finish,
    json_option,
    options,
    password_from,
    password_option,
    words_of_cut,
)
from sealwire.cli.console import visible


@click.command("init", short_help="Make a CA, the three roles' identities, and a dask.yaml.")
@click.argument(
    "folder",
    metavar="[DIR]",
    type=click.Path(path_type=Path, file_okay=False),
    default="certs",
    envvar="SEALWIRE_CERTS",
)
@options(
    click.option("--name", default="sealwire CA", show_default=True, help="The CA's name."),
    click.option(
        "--key",
        "kind",
        type=click.Choice(["p256", "rsa3072"]),
        default="p256",
        show_default=True,
        help="Type of all keys.",
    ),
    days_option,
    ca_days_option("How long the CA is valid."),
    click.option(
        "--name-constraint",
        "permitted",
        multiple=True,
        metavar="DOMAIN|NETWORK",
        help="The only host names or addresses that the CA can sign for; may be repeated.",
    ),
    click.option(
        "--seen-at",
        metavar="PATH",
        help="Where the processes will see the folder, if not here (a mount in a container).",
    ),
    password_option,
    dry_run_option,
    json_option,
)
def command(
    folder: Path,
    name: str,
    kind: str,
    days: float,
    ca_days: float,
    permitted: tuple[str, ...],
    seen_at: str | None,
    password_file: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a CA, an identity for each role, and a dask.yaml that names them, in DIR (certs).

    The dask.yaml also lists the peers of each role (sealwire.tls.allowed-peers), so that a worker's
    certificate cannot impersonate the scheduler. Only you can read the keys. An existing CA is
    never touched. A password encrypts only the CA's key; the keys of the processes are not
    encrypted.

    \b
      sealwire certs init
      sealwire certs init ~/certs --name "lab CA" --days 90
      sealwire certs init --name-constraint lab.example --name-constraint 10.0.0.0/8
      sealwire certs init --seen-at /etc/sealwire        for containers
      sealwire certs init --password-file ~/.ca-password

    Exit codes: 0 made, 1 failed (such as: a CA is there), 2 wrong usage.
    """
    with errors(), contextlib.ExitStack() as stack:
        from sealwire.security.ca.atomic_files import new_folder
        from sealwire.security.ca.bootstrap import new_store
        from sealwire.security.ca.folder import Folder

        place = Folder(folder) if dry_run else stack.enter_context(new_folder(folder))
        writes = new_store(
            place,
            name=name,
            kind=kind,
            ca_days=ca_days,
            days=days,
            permitted=permitted,
            password=password_from(password_file),
            seen_at=seen_at,
        )
        result: dict[str, Any] = {"folder": str(folder), "config": str(folder / "dask.yaml")}
        result["cut_to_ca"] = cut = days > ca_days
        summary = None if dry_run else f"{len(writes)} files in {folder}"
        finish(writes, dry_run=dry_run, as_json=as_json, result=result, summary=summary)
    if not as_json and cut:
        ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=ca_days)
        click.echo(words_of_cut(days, ends, "give --ca-days as well"))
    if not as_json and not dry_run:
        from sealwire.cli.certs.next_steps import next_steps

        click.echo(visible(next_steps(folder, seen_at), lines=True))
