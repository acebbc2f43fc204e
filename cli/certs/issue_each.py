"""Many identities at once, and a folder to copy for each."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealwire.cli.certs.common import Failed, day, finish, moment, opened, words_of_cut
from sealwire.cli.certs.config import absolute
from sealwire.cli.console import cell

if TYPE_CHECKING:
    from rich.console import Console

    from sealwire.security.ca.atomic_files import Write
    from sealwire.security.ca.store import Store


def file_name(role: str, name: str | None) -> str:
    """Return the name of an identity's file in the CA's folder."""
    stem = role if name is None else f"{role}-{name.strip('[]').removesuffix('.')}"
    return stem.replace(":", "_").replace("/", "_").replace("*", "any") + ".pem"


def grant_each(
    role: str,
    hosts: Sequence[tuple[str, ...]],
    *,
    to: Path | None,
    at: str | None,
    days: float,
    folder: Path,
    password_file: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Issue an identity to a role on each of the hosts, with its further names, and pack them.

    One that is there already is kept.
    """
    if not hosts:
        raise Failed("cannot issue: no host was named; name them, or a file that lists them")
    with opened(folder, password_file, dry_run) as store:
        rows, texts, writes, cut = _issued(store, role, hosts, days)
        if to is not None:
            writes += packed(store, texts, to, at, writes)
            make_folders(writes, to, dry_run)

        def tell(console: Console) -> None:
            from sealwire.cli.demo.report import table

            made = table("Identities", "name", "status", "valid until")
            for row in rows:
                made.add_row(cell(row["name"]), row["status"], day(row["until"]))
            console.print(made)
            if cut is not None:
                console.print(words_of_cut(days, cut), soft_wrap=True)

        shown = [
            {"name": row["name"], "path": row["path"], "status": row["status"],
             "not_after": moment(row["until"])}
            for row in rows
        ]  # fmt: skip
        summary = f"{len(writes)} files" + ("" if to is None else f", those to copy in {to}")
        result = {"identities": shown, "cut_to_ca": cut is not None}
        finish(writes, dry_run=dry_run, as_json=as_json, result=result, tell=tell, summary=summary)


def _issued(
    store: Store, role: str, hosts: Sequence[tuple[str, ...]], days: float
) -> tuple[list[dict[str, Any]], dict[Path, str], list[Write], datetime.datetime | None]:
    """Return a row for each, the texts of their files, the writes, and an end that was cut."""
    from sealwire.security.x509.names import split
    from sealwire.security.x509.templates import ends_early

    rows: list[dict[str, Any]] = []
    texts: dict[Path, str] = {}
    writes: dict[tuple[Path, int], Write] = {}
    cut = None
    for names in dict.fromkeys(hosts):
        by_host, by_address = split(names)
        path = store.path / file_name(role, [*by_host, *by_address][0])
        if path in texts:
            raise Failed(f"cannot issue {path.name}: two lines name the same host")
        if store.holds(path.stem):
            certificate, status = store.find(path.stem).certificate, "kept"
            texts[path] = store.folder.text(path.name)
        else:
            certificate, texts[path], new = store.issue(
                role, by_host, by_address, days=days, path=path
            )
            status = "issued"
            cut = certificate.not_valid_after_utc if ends_early(certificate, days) else cut
            for each in new:  # of the lists, the last is whole
                writes[each.path, len(writes) if each.append else 0] = each
        until = certificate.not_valid_after_utc
        rows.append({"name": path.stem, "path": str(path), "status": status, "until": until})
    return rows, texts, list(writes.values()), cut


def packed(
    store: Store, texts: dict[Path, str], to: Path, at: str | None, fresh: Sequence[Write] = ()
) -> list[Write]:
    """Return the writes of a folder to copy for each identity, given its file and text."""
    from cryptography import x509

    from sealwire.security.ca.relocation import Packed, pack
    from sealwire.security.pem import blocks
    from sealwire.security.x509.certinfo import CertificateInfo

    chosen = []
    for path, text in texts.items():
        found = blocks(text)
        leaf = next(block.text for block in found if block.is_certificate)
        info = CertificateInfo.of(x509.load_pem_x509_certificate(leaf.encode()))
        private = any(block.is_private_key for block in found)
        name = info.node or path.stem
        chosen.append(Packed(name, info.common_name or path.stem, text, private))
    new = {each.path.name: each.text for each in fresh if not each.append}
    return pack(store, chosen, to, absolute(at), new)


def make_folders(writes: Sequence[Write], to: Path, dry_run: bool) -> None:
    """Create the folders for packed files, unless it is a dry run."""
    from sealwire.security.ca.atomic_files import make_folder

    if not dry_run:
        for place in [to, *dict.fromkeys(each.path.parent for each in writes)]:
            if place == to or place.parent == to:
                make_folder(place)
