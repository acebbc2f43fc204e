"""`sealwire certs issue`: one more identity, many at once, or a certificate for another's key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sealwire.cli.certs.common import (
    ROLES,
    Failed,
    content_of,
    days_option,
    errors,
    folder_options,
    name_option,
    options,
    out_option,
)
from sealwire.cli.certs.config import seen_at_option
from sealwire.cli.certs.issue_each import file_name, grant_each
from sealwire.cli.certs.sign import grant

REQUEST = click.Path(path_type=Path, dir_okay=False, exists=True)

_LARGEST = 1 << 20  # bytes of a list of hosts


@click.command("issue", short_help="Issue an identity to a role on named hosts, or one to each.")
@click.argument("role", type=click.Choice(ROLES))
@click.argument("names", nargs=-1)
@options(
    name_option,
    click.option("--each", is_flag=True, help="An identity for each of NAMES, not one for all."),
    click.option(
        "--hosts",
        type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True),
        help="File with a host and its further names on each line: an identity for each host.",
    ),
    click.option(
        "--to",
        type=click.Path(path_type=Path, file_okay=False),
        help="With --each or --hosts: make a folder to copy for each in this one, as `pack` does.",
    ),
    seen_at_option("as in dask.yaml"),
    days_option,
    click.option(
        "--csr",
        type=REQUEST,
        help="Issue a certificate for the key of this request (CSR); its holder keeps the key.",
    ),
    out_option("ROLE-NAME.pem"),
    *folder_options,
)
def command(
    role: str,
    names: tuple[str, ...],
    node: str | None,
    each: bool,
    hosts: Path | None,
    to: Path | None,
    seen_at: str | None,
    csr: Path | None,
    out: Path | None,
    folder: Path,
    **given: Any,
) -> None:
    """Issue an identity to a process of ROLE, for the hosts and IP addresses in NAMES.

    The certificate's common names are the role, which peers check, and --name or the first host,
    which identifies it in links and logs. Certificate and key are written to one file. With --csr,
    the key stays where the request was made, and only a certificate is written. An existing file is
    never overwritten: see `renew`.

    \b
      sealwire certs issue worker node7.lab 10.0.0.7
      sealwire certs issue worker --each node7.lab node8.lab --to deploy
      sealwire certs issue worker --hosts hosts.txt --to deploy --seen-at /etc/sealwire
      sealwire certs issue client --name alice@lab.example --days 30 --out alice.pem
      sealwire certs issue worker node8.lab --csr node8.csr

    Exit codes: 0 issued, 1 failed, 2 wrong usage.
    """
    person = next((name for name in names if "@" in name), None)
    if person is not None:
        raise click.UsageError(f"{person!r} is no host: give the name of a person with --name")
    if each or hosts is not None:
        if node is not None or csr is not None or out is not None:
            raise click.UsageError("--name, --csr and --out are for one identity, not for many")
        with errors():
            lines = [(name,) for name in names] if each else [names] if names else []
            grant_each(role, [*lines, *_listed(hosts)], to=to, at=seen_at, folder=folder, **given)
        return
    if to is not None or seen_at is not None:
        raise click.UsageError("--to and --seen-at go with --each or --hosts; see also: pack")
    path = out or folder / file_name(role, node or next(iter(names), None))
    grant(role, names, node=node, own_names=False, csr=csr, out=path, folder=folder, **given)


def _listed(file: Path | None) -> list[tuple[str, ...]]:
    """Read the hosts in a file, with their further names; a # starts a comment."""
    if file is None:
        return []
    from sealwire.security.pem_shapes import in_utf8

    if str(file) == "-":
        data = b"" if sys.stdin is None else sys.stdin.buffer.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise Failed(f"cannot use standard input: it has more than {_LARGEST:,} bytes")
    else:
        data = content_of(file, _LARGEST, "the list of hosts")
    text = in_utf8(data).decode("utf-8", "replace")
    lines = (tuple(line.partition("#")[0].split()) for line in text.splitlines())
    return [line for line in lines if line]
