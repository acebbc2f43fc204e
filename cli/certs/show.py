"""`sealwire certs show`: prints the content of certificates and CRLs."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealwire.cli.certs.common import ROLES, day, errors, json_option, moment
from sealwire.cli.console import cell, to_json

if TYPE_CHECKING:
    from cryptography import x509
    from rich.table import Table

    from sealwire.security.ca.inventory import Revocations


@click.command("show", short_help="Show what certificates say.")
@click.argument(
    "paths",
    metavar="[PATH]...",
    nargs=-1,
    type=click.Path(path_type=Path, exists=True),
)
@json_option
def command(paths: tuple[Path, ...], as_json: bool) -> None:
    """Show subject, purpose and validity of the certificates and CRLs in files and folders.

    PATH is a PEM file or a folder of them; if none is given, the folder that SEALWIRE_CERTS names,
    or certs. Private keys are never shown, only whether a file has one.

    \b
      sealwire certs show
      sealwire certs show certs/worker.pem
      sealwire certs show certs --json | jq '.[] | select(.days_left < 30) | .file'

    Exit codes: 0 shown, 1 a file cannot be read, 2 wrong usage.
    """
    with errors():
        print_entries(paths or (_default(),), as_json)


def print_entries(paths: Sequence[Path], as_json: bool) -> None:
    """Print what the files and folders hold. Raises `PEMError` for one that cannot be shown."""
    entries = [entry for path in paths for entry in _entries(path)]
    if as_json:
        click.echo(to_json(entries))
        return
    from sealwire.cli.demo.report import output

    console = output()
    for entry in entries:
        console.print(_shown(entry))


def _default() -> Path:
    return Path(os.environ.get("SEALWIRE_CERTS") or "certs")


def _entries(path: Path) -> list[dict[str, Any]]:
    """Return the content of the files at a path: certificates in order, then CRLs."""
    from sealwire.security.ca.folder import Folder
    from sealwire.security.ca.inventory import Revocations
    from sealwire.security.errors import PEMError

    if not path.exists():
        raise PEMError(f"cannot show {path}: there is no such file or folder; name one")
    if not path.is_dir():
        folder = Folder(path.parent, links=True)
        found = _of_file(
            path, folder.text(path.name), Revocations(folder, Folder(_default(), links=True))
        )
        if not found:
            raise PEMError(f"cannot show {path}: no certificate and no CRL in it")
        return found
    folder = Folder(path, links=True)
    names = [n for n in folder.names() if n.endswith(".pem") and not n.startswith(".")]
    revocations = Revocations(folder)
    shown = [row for name in names for row in _of_file(path / name, folder.text(name), revocations)]
    if not shown:
        raise PEMError(f"cannot show {path}: no PEM file in it has a certificate")
    return shown


def _of_file(path: Path, text: str, revocations: Revocations) -> list[dict[str, Any]]:
    from sealwire.security.ca.crl import read_lists
    from sealwire.security.pem import Source, blocks
    from sealwire.security.x509.certinfo import hexadecimal, read_certificates

    found = blocks(text)
    keys = [block for block in found if block.is_private_key]
    held = "encrypted" if any(block.is_encrypted for block in keys) else "yes" if keys else "no"
    rows: list[dict[str, Any]] = []
    if any(block.is_certificate for block in found):
        for number, info in enumerate(
            read_certificates(Source("file", str(path), in_memory=False))
        ):
            gone = revocations.of(info.issuer, info.serial)
            left = info.not_after - datetime.datetime.now(datetime.timezone.utc)
            role = "CA" if info.is_ca else info.common_name if info.common_name in ROLES else ""
            rows.append(
                {
                    "file": str(path),
                    "kind": "certificate",
                    "subject": info.subject,
                    "role": role,
                    "node": info.node,
                    "names": list(info.names),
                    "issuer": info.issuer,
                    "not_before": moment(info.not_before),
                    "not_after": moment(info.not_after),
                    "days_left": left.days,
                    "key": info.key,
                    "private_key": held if number == 0 else "no",
                    "purposes": list(info.purposes),
                    "serial": hexadecimal(info.serial),
                    "fingerprint": info.fingerprint,
                    "revoked": moment(gone.when) if gone else None,
                    "reason": gone.reason if gone else None,
                }
            )
    for crl in read_lists(text):
        ends = crl.next_update_utc
        rows.append(
            {
                "file": str(path),
                "kind": "crl",
                "issuer": crl.issuer.rfc4514_string(),
                "not_before": moment(crl.last_update_utc),
                "not_after": moment(ends) if ends else None,
                "revoked": [hexadecimal(each.serial_number) for each in crl],
                "entries": [_entry(crl, each, revocations) for each in crl],
            }
        )
    return rows


def _entry(
    crl: x509.CertificateRevocationList, entry: x509.RevokedCertificate, revocations: Revocations
) -> dict[str, Any]:
    """One of a list, with what the journal beside it knows of the certificate."""
    from sealwire.security.ca.crl import reason_of
    from sealwire.security.x509.certinfo import hexadecimal

    known = revocations.of(crl.issuer.rfc4514_string(), entry.serial_number)
    return {
        "serial": hexadecimal(entry.serial_number),
        "date": moment(entry.revocation_date_utc),
        "reason": reason_of(entry),
        "subject": known.subject if known else "",
        "file": known.file if known else "",
    }


def _of_revoked(entry: dict[str, str]) -> str:
    who = entry["file"].removesuffix(".pem") if entry["file"] not in ("", "-") else entry["subject"]
    return f"{who or 'unknown'}, {entry['date'][:10]}, {entry['reason']}, serial {entry['serial']}"


def _shown(entry: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, show_header=False, pad_edge=False, title_justify="left")
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    made.title = Text.assemble("\n", cell(entry["file"], "bold not italic"))
    until = entry["not_after"]
    ends = datetime.datetime.fromisoformat(until.replace("Z", "+00:00")) if until else None
    if entry["kind"] == "crl":
        made.add_row("revocation list of", cell(entry["issuer"]))
        made.add_row("valid until", day(ends) if ends else "for ever")
        revoked = [cell(_of_revoked(each)) for each in entry["entries"]]
        made.add_row("revoked", Text("\n").join(revoked) if revoked else "none")
        return made
    private = {"yes": " with its private key", "encrypted": " with its private key, encrypted"}
    made.add_row("who", cell(entry["subject"] or "nobody"))
    if entry["revoked"]:
        words = f"revoked {entry['revoked'][:10]}, {entry['reason']}: it is refused"
        made.add_row("status", cell(words, "bold red"))
    made.add_row("role", cell(entry["role"] or "-"))
    made.add_row("node", cell(entry["node"] or "-"))
    made.add_row("names", cell(", ".join(entry["names"]) or "-"))
    made.add_row("issuer", cell(entry["issuer"]))
    made.add_row("valid", f"{entry['not_before'][:10]} to {day(ends) if ends else ''}")
    made.add_row("key", cell(entry["key"] + private.get(entry["private_key"], "")))
    made.add_row("purposes", cell(", ".join(entry["purposes"]) or "any"))
    made.add_row("serial", entry["serial"])
    made.add_row("SHA-256", entry["fingerprint"])
    return made
