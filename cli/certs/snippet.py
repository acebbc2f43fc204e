"""`sealwire certs snippet`: commands and configuration to paste, for the path they are for."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from sealwire.cli.certs.common import Failed, errors, folder_option, json_option, options
from sealwire.cli.certs.config import absolute, seen_at_option
from sealwire.cli.certs.snippets import MOUNT, SNIPPETS, Place
from sealwire.cli.console import to_json, visible

_MOUNTED = ("compose", "kubernetes")  # where the files are not seen under the path of here
_MOUNTABLE = re.compile(r"[^:$\x00-\x1f\x7f]+")  # `:` separates in compose, `$` is replaced


@click.command("snippet", short_help="Print commands and configuration to paste.")
@click.argument("name", required=False, type=click.Choice(sorted(SNIPPETS)))
@click.argument("serials", nargs=-1)
@options(
    seen_at_option(f"as in dask.yaml; where that names this folder, a mount is {MOUNT}"),
    folder_option,
    json_option,
)
def command(
    name: str | None, serials: tuple[str, ...], seen_at: str | None, folder: Path, as_json: bool
) -> None:
    """Print commands and configuration to paste; without a name, list the snippets.

    compose, kubernetes, slurm and ssh bring the files to processes elsewhere; cron renews them;
    drop closes open connections that use the revoked certificates with these SERIALS.

    \b
      sealwire certs snippet
      sealwire certs snippet kubernetes --seen-at /etc/sealwire
      sealwire certs snippet ssh --dir ~/certs
      sealwire certs snippet drop 3fa2c107

    Exit codes: 0 printed, 1 failed, 2 wrong usage.
    """
    if name is None:
        lines = {each: (make.__doc__ or "") for each, make in SNIPPETS.items()}
        text = "\n".join(f"{each:<12}{words}" for each, words in lines.items())
        click.echo(to_json(lines) if as_json else f"sealwire certs snippet NAME\n\n{text}")
        return
    if serials and name != "drop":
        raise click.UsageError("SERIALS are for drop")
    with errors():
        place = _place(folder, name, absolute(seen_at), [_serial(each) for each in serials])
    text = SNIPPETS[name](place)
    if as_json:
        click.echo(to_json({"name": name, "seen_at": place.mount, "text": text}))
        return
    click.echo(visible(text, lines=True), nl=False)


def _place(folder: Path, name: str, seen_at: str | None, serials: list[int]) -> Place:
    from sealwire.security.ca.folder import Folder
    from sealwire.security.ca.inventory import inventory
    from sealwire.security.ca.relocation import place_named
    from sealwire.security.ca.store import KEYS, Store

    store = Store(Folder(folder, links=True))
    named = place_named(store.folder)
    here = named == os.path.abspath(folder)
    mount = seen_at or (MOUNT if here and name in _MOUNTED else named)
    if name in _MOUNTED and (mount == "/" or not _MOUNTABLE.fullmatch(mount)):
        raise Failed(
            f"cannot mount the files at {mount!r}: that is the root, or has ':', '$' or a line "
            f"break in it; give another path, such as --seen-at {MOUNT}"
        )
    hosts = dict.fromkeys(
        each.node for each in inventory(store) if each.role == "worker" and each.node
    )
    locked = store.folder.has(KEYS) and "ENCRYPTED" in store.folder.text(KEYS)
    return Place(str(folder), named, mount, list(hosts), serials, locked)


def _serial(text: str) -> int:
    try:
        return int(text.replace(":", ""), 16)
    except ValueError:
        raise click.UsageError(
            f"{text!r} is no serial; it is hexadecimal, as `show` has it"
        ) from None
