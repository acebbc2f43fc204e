"""`sealwire certs list`: a line for each certificate."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealwire.cli.certs.common import errors, folder_option, json_option, moment, options
from sealwire.cli.console import columns, to_json

if TYPE_CHECKING:
    from sealwire.security.ca.inventory import Entry

COLUMNS = ("NAME", "ROLE", "VALID UNTIL", "STATUS", "NAMES")


@click.command("list", short_help="List the certificates, one a line.")
@options(folder_option, json_option)
def command(folder: Path, as_json: bool) -> None:
    """List the CA, the identities in the folder, and what was issued elsewhere: one a line.

    The CA's key is not needed. Of what was issued elsewhere, it lists what is in the journal and
    still valid; "gone" means that the file is no longer in the folder, for example because it was
    moved to another machine, and "joined" that it was given for a token and never was a file here.

    \b
      sealwire certs list
      sealwire certs list | grep revoked
      sealwire certs list --json | jq '.[] | select(.days_left < 30) | .name'

    Exit codes: 0 listed, 1 failed, 2 wrong usage.
    """
    with errors():
        from sealwire.security.ca.folder import Folder
        from sealwire.security.ca.inventory import inventory
        from sealwire.security.ca.store import Store

        entries = inventory(Store(Folder(folder, links=True)))
    if as_json:
        click.echo(to_json([_as_dict(each) for each in entries]))
        return
    click.echo("\n".join(columns([COLUMNS, *(_row(each) for each in entries)])))


def _row(entry: Entry) -> tuple[str, ...]:
    until = f"{entry.until:%Y-%m-%d}" if entry.until else "-"
    names = ", ".join(dict.fromkeys(filter(None, (entry.node, *entry.names)))) or "-"
    return (entry.name, entry.role or "-", until, _status(entry), names)


def _status(entry: Entry) -> str:
    words = entry.status
    if entry.revoked is not None:
        words = f"revoked {entry.revoked.when:%Y-%m-%d}"
    elif words == "valid" and entry.until is not None:
        words = _left(entry.until)
    return words if entry.place == "here" else f"{words}, {entry.place}"


def _days_left(until: datetime.datetime) -> int:
    return (until - datetime.datetime.now(datetime.timezone.utc)).days


def _left(until: datetime.datetime) -> str:
    """Return how long it is still valid: those of joined processes are so for hours or minutes."""
    days = _days_left(until)
    if days > 1:
        return f"{days} days"
    left = until - datetime.datetime.now(datetime.timezone.utc)
    minutes = int(left.total_seconds() / 60)
    return f"{minutes // 60} hours" if minutes >= 120 else f"{minutes} minutes"


def _as_dict(entry: Entry) -> dict[str, Any]:
    from sealwire.security.x509.certinfo import hexadecimal

    return {
        "name": entry.name,
        "file": entry.file,
        "place": entry.place,
        "role": entry.role,
        "node": entry.node,
        "names": list(entry.names),
        "serial": None if entry.serial is None else hexadecimal(entry.serial),
        "not_after": moment(entry.until) if entry.until else None,
        "days_left": _days_left(entry.until) if entry.until else None,
        "status": entry.status,
        "why": entry.damaged or (entry.revoked.reason if entry.revoked else ""),
        "revoked": moment(entry.revoked.when) if entry.revoked else None,
    }
