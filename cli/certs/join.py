"""`sealwire certs join`: makes a key here, and gets a certificate for a token."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealwire.cli.certs.common import (
    ROLES,
    Failed,
    dir_option,
    duration,
    errors,
    finish,
    json_option,
    options,
)
from sealwire.cli.certs.config import seen_at_option
from sealwire.cli.console import visible

if TYPE_CHECKING:
    from sealwire.joining.client import Joined
    from sealwire.joining.files import Place
    from sealwire.joining.tokens import Token

VARIABLE = "SEALWIRE_TOKEN"
_LARGEST = 4096  # bytes of a token, and what is around it


@click.command("join", short_help="Get a certificate from a CA's service, with a token.")
@click.argument("address", metavar="HOST[:PORT]")
@click.argument("names", nargs=-1)
@options(
    click.option("--token", help=f"The token; better a file or {VARIABLE}: arguments are public."),
    click.option(
        "--token-file",
        metavar="FILE",
        help="A file with the token, - for standard input.",
    ),
    click.option("--role", type=click.Choice(ROLES), help="Refuse a token for another role."),
    click.option(
        "--name", "node", metavar="NAME", help="Who it is, in links and logs.  [default: this host]"
    ),
    click.option(
        "--wait",
        default="1m",
        show_default=True,
        help="How long to retry while the service does not answer.",
    ),
    seen_at_option("the folder's path"),
    dir_option("The folder for the files; made if it is not there."),
    json_option,
)
def command(
    address: str,
    names: tuple[str, ...],
    token: str | None,
    token_file: str | None,
    role: str | None,
    node: str | None,
    wait: str,
    seen_at: str | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Make a key, and get a certificate for it and NAMES from `certs serve` at HOST.

    The service is verified by the CA's digest in the token before anything is sent to it. Written
    are ca.pem, crl.pem, dask.yaml, and ROLE.pem with certificate and key, which only you can read.
    If the answer is lost, run the same command again: the key is kept, and the token remains valid
    for it. These files are not renewed automatically: join again, into a new folder, before they
    expire.

    \b
      sealwire certs join scheduler.lab --token-file worker.token
      SEALWIRE_TOKEN=… sealwire certs join 10.0.0.1:8788 node7.lab 10.0.0.7

    Exit codes: 0 joined, 1 failed, 2 wrong usage.
    """
    with errors():
        from sealwire.joining.client import address_of
        from sealwire.joining.errors import JoinError, Refused
        from sealwire.joining.files import Place
        from sealwire.joining.given import lasting
        from sealwire.joining.inputs import must_be_name

        try:
            place_of = address_of(address)
            parsed = _token(token, token_file)
            named = _node(names) if node is None else must_be_name(node, "--name")
            patience = duration(wait).total_seconds()
            with Place.of(folder) as place:
                place.must_suit(parsed, role or "")
                asked: dict[str, Any] = {
                    "role": role or "",
                    "node": named,
                    "hosts": names,
                }
                try:
                    joined = asyncio.run(_joined(place_of, parsed, place, patience, asked))
                except Refused as error:
                    if error.ends_token:
                        place.forget_key()
                    raise
                finish(
                    place.writes(joined, seen_at),
                    dry_run=False,
                    as_json=as_json,
                    result=_result(joined),
                )
                place.forget_key()
        except JoinError as error:
            raise Failed(str(error)) from error
    if not as_json:
        lasts = lasting(joined.lifetime)
        config = os.path.join(seen_at or os.path.abspath(folder), "dask.yaml")
        what = f"joined as {joined.role}, for {lasts}, not renewed by itself"
        click.echo(visible(f"{what}; DASK_CONFIG={config}"))


async def _joined(
    address: Any, token: Any, place: Place, patience: float, asked: dict[str, Any]
) -> Joined:
    from sealwire.joining.client import join, patiently

    key = place.key()
    return await patiently(lambda: join(address, token, key, **asked), patience)


def _result(joined: Joined) -> dict[str, Any]:
    return {"role": joined.role, "lifetime": joined.lifetime}


def _token(given: str | None, file: str | None) -> Token:
    """Return the token, from wherever it was given."""
    from sealwire.joining.inputs import token_in
    from sealwire.joining.tokens import Token
    from sealwire.security.pem_shapes import decoded

    if given is not None and file is not None:
        raise click.UsageError("give --token or --token-file, not both")
    if file == "-":
        data = sys.stdin.buffer.read(_LARGEST) if sys.stdin is not None else b""
        return Token.parse(decoded(data), "on standard input")
    if file is not None:
        return token_in(file, "--token-file")
    text = given if given is not None else os.environ.get(VARIABLE, "")
    if not text.strip():
        raise click.UsageError(f"give the token: --token-file, or the variable {VARIABLE}")
    return Token.parse(text)


def _node(names: tuple[str, ...]) -> str:
    """Return the name of this machine, if it has one that says more than a role."""
    from sealwire.joining.inputs import own_name, usable

    return usable(names[0]) if names else own_name()
