"""`sealwire certs rotate-ca`: replaces the CA in two steps, without downtime."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealwire.cli.certs.common import (
    ca_days_option,
    copying,
    finish,
    folder_options,
    opened,
    options,
)
from sealwire.cli.console import visible

if TYPE_CHECKING:
    from rich.console import Console


@click.command("rotate-ca", short_help="Replace the CA in two steps, without a stop.")
@options(
    click.option("--complete", is_flag=True, help="Second step: drop the old CA."),
    click.option("--force", is_flag=True, help="Drop it even if certificates of it are in use."),
    click.option(
        "--gone",
        multiple=True,
        metavar="NAME",
        help="With --complete: an identity that is no longer in use; may be repeated.",
    ),
    click.option("--name", help="The new CA's name.  [default: the old one's with a number]"),
    ca_days_option("How long the new CA is valid."),
    *folder_options,
)
def command(
    complete: bool,
    force: bool,
    gone: tuple[str, ...],
    name: str | None,
    ca_days: float,
    folder: Path,
    password_file: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Replace the CA while the cluster runs. Each step may be repeated, also after a crash.

    \b
      sealwire certs rotate-ca              both CAs are trusted: ca.pem, crl.pem
      (wait until every process has them)
      sealwire certs renew                  identities move to the new CA
      (wait until every process has its own)
      sealwire certs rotate-ca --complete   the old CA is dropped

    Between the first two steps the old CA keeps signing, so that no process is shown a certificate
    of a CA that it does not know yet; after a day, `renew --if-expires-within` from cron moves the
    identities by itself. The last step refuses while certificates of the old CA are in use,
    including those that were copied elsewhere; name with --gone those no longer in use.

    Exit codes: 0 done or nothing to do, 1 failed (such as: certificates are in use), 2 wrong usage.
    """
    if (force or gone) and not complete:
        raise click.UsageError(f"{'--force' if force else '--gone'} goes with --complete")
    with opened(folder, password_file, dry_run) as store:
        from sealwire.security.ca import rotation

        if complete:
            writes = rotation.complete(store, force=force, gone=gone)
            begun = False
        else:
            begun = len(store.authorities) > 1
            writes = rotation.begin(store, name=name, days=ca_days)

        def tell(console: Console) -> None:
            from rich.text import Text

            if dry_run and writes:
                return
            where = "" if str(folder) == "certs" else f" --dir {shlex.quote(str(folder))}"
            copies = copying(store, folder, "ca.pem", "crl.pem")
            if complete:
                words = (
                    "only the new CA is trusted; bring this to every machine that has a copy:\n"
                    f"{copies}\n"
                    if writes
                    else "there is one CA only"
                )
            else:
                already = "already " if begun else ""
                words = (
                    f"both CAs are {already}trusted; bring this to every machine that has a copy:\n"
                    f"{copies}\n"
                    "when every process has both files:\n"
                    f"  sealwire certs renew{where}\n"
                    "and when every process has its new identity:\n"
                    f"  sealwire certs rotate-ca --complete{where}\n"
                )
            console.print(Text(visible(words, lines=True)), soft_wrap=True)

        result = {"step": "complete" if complete else "begin", "was_begun": begun}
        finish(writes, dry_run=dry_run, as_json=as_json, result=result, tell=tell)
