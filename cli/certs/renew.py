"""`sealwire certs renew`: renews identities, and updates the CRLs in time."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealwire.cli.certs.common import (
    day,
    duration,
    finish,
    folder_options,
    moment,
    opened,
    options,
)
from sealwire.cli.console import cell

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {"renewed": "green", "kept": "dim", "revoked": "yellow", "stuck": "bold red"}
ADVISED = ("revoked", "stuck")  # whose reason says what to do


@click.command("renew", short_help="Renew identities, and revocation lists in time.")
@click.argument("names", nargs=-1, metavar="[NAMES|FILES]...")
@options(
    click.option(
        "--if-expires-within",
        "within",
        type=duration,
        metavar="TIME",
        help="Renew only what expires within this time (30d, 12h, 2w); shorter-lived certificates "
        "in the last third of their lifetime.",
    ),
    click.option("--keep-key", is_flag=True, help="Keep the private keys."),
    click.option(
        "--days",
        type=click.FloatRange(0, min_open=True),
        help="How long they are valid.  [default: as long as before]",
    ),
    *folder_options,
)
def command(
    names: tuple[str, ...],
    within: datetime.timedelta | None,
    keep_key: bool,
    days: float | None,
    folder: Path,
    password_file: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Renew identities: all in the folder, or those named. Subject and names stay the same.

    The key is new, unless --keep-key is given or the key is elsewhere. Each file is replaced by one
    rename, so running processes find the old identity or the new one, never a mixture. Revoked
    identities are skipped unless they are named. A file whose key is truncated is repaired; one
    whose certificate is incomplete is reported, with what to do. crl.pem is renewed in time. After
    `rotate-ca`, this moves the identities to the new CA.

    \b
      sealwire certs renew --if-expires-within 30d       from cron, every day
      sealwire certs renew worker --dry-run
      sealwire certs renew                               all, now

    Exit codes: 0 nothing is left to do, 1 something is due and cannot be renewed, 2 wrong usage.
    """
    with opened(folder, password_file, dry_run) as store:
        from sealwire.security.ca.renewal import renew

        chosen = [store.find(name) for name in names] if names else None
        results, writes = renew(store, chosen, within=within, keep_key=keep_key, days=days)

        def tell(console: Console) -> None:
            from sealwire.cli.demo.report import table

            made = table("Identities", "file", "status", "valid until", "")
            longest = max((len(str(each.path)) for each in results), default=0)
            made.columns[0].no_wrap = longest <= 44  # else it is folded
            made.columns[2].no_wrap = True
            for each in results:
                status = cell(each.status, COLOURS[each.status])
                until = day(each.until) if each.until else ""
                advice = each.status in ADVISED  # below, where it can be pasted
                made.add_row(cell(each.path), status, until, "" if advice else cell(each.why))
            console.print(made)
            for each in results:
                if each.status in ADVISED:
                    console.print(cell(f"{each.path}: {each.why}"), soft_wrap=True)

        rows = [
            {
                "path": str(each.path),
                "status": each.status,
                "why": each.why,
                "not_after": moment(each.until) if each.until else None,
            }
            for each in results
        ]
        finish(writes, dry_run=dry_run, as_json=as_json, result={"identities": rows}, tell=tell)
    if any(each.status == "stuck" for each in results):
        raise SystemExit(1)
