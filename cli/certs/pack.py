"""`sealwire certs pack`: a folder to copy for each identity."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealwire.cli.certs.common import (
    dry_run_option,
    finish,
    folder_option,
    json_option,
    opened,
    options,
)
from sealwire.cli.certs.config import seen_at_option
from sealwire.cli.certs.issue_each import make_folders, packed
from sealwire.cli.console import cell

if TYPE_CHECKING:
    from rich.console import Console

    from sealwire.security.ca.store import Store


@click.command("pack", short_help="Make a folder to copy for each identity.")
@click.argument("names", nargs=-1)
@options(
    click.option(
        "--to",
        type=click.Path(path_type=Path, file_okay=False),
        required=True,
        help="Where to make the folders.",
    ),
    seen_at_option("as in dask.yaml"),
    folder_option,
    dry_run_option,
    json_option,
)
def command(
    names: tuple[str, ...],
    to: Path,
    seen_at: str | None,
    folder: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a folder to copy for each identity here, or for those named.

    Each contains ca.pem, crl.pem, dask.yaml and the file of its role, and is named after the node,
    or else the identity. Run it again and copy the folders again after each renewal and revocation.
    Revoked identities are left out.

    \b
      sealwire certs pack --to deploy
      sealwire certs pack worker-node7.lab --to deploy --seen-at /etc/sealwire

    Exit codes: 0 packed, 1 failed, or something could not be packed, 2 wrong usage.
    """
    with opened(folder, None, dry_run) as store:
        from sealwire.security.ca.store import CONFIG, CRL, TRUST

        texts, skipped = _chosen(store, names)
        damaged = [] if names else store.damaged()
        writes = packed(store, texts, to, seen_at)
        make_folders(writes, to, dry_run)
        places = list(dict.fromkeys(str(each.path.parent) for each in writes))
        public = (TRUST, CRL, CONFIG)
        keyless = [each.path for each in writes if not (each.private or each.path.name in public)]

        def tell(console: Console) -> None:
            for path in skipped:
                console.print(cell(f"{path} is revoked and left out"), soft_wrap=True)
            for path, why in damaged:
                console.print(cell(f"cannot pack {path}: {why}", "bold red"), soft_wrap=True)
            for path in keyless:
                where = f"the configuration names it there: distributed.comm.tls.{path.stem}.key"
                words = f"{path} has no private key, which stays on its machine; {where}"
                console.print(cell(words), soft_wrap=True)
            for place in places:
                console.print(cell(place), soft_wrap=True)

        result = {
            "folders": places,
            "left_out": [str(path) for path in skipped],
            "damaged": [str(path) for path, _ in damaged],
            "without_key": [str(path) for path in keyless],
        }
        count = f"{len(places)} folder{'' if len(places) == 1 else 's'}"
        summary = f"{count}, each with what one machine needs"
        finish(writes, dry_run=dry_run, as_json=as_json, result=result, tell=tell, summary=summary)
    if damaged:
        raise SystemExit(1)


def _chosen(store: Store, names: tuple[str, ...]) -> tuple[dict[Path, str], list[Path]]:
    """Return the texts of the identities' files, and the files of those that are revoked."""
    texts, skipped = {}, []
    for held in [store.find(name) for name in names] if names else store.identities():
        if not names and store.is_revoked(held.certificate):
            skipped.append(held.path)
            continue
        texts[held.path] = "".join(f"{block.text}\n" for block in held.blocks)
    return texts, skipped
