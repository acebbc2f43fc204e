"""`sealwire certs token`: makes, lists and revokes tokens with which processes join."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealwire.cli.certs.common import (
    ROLES,
    Failed,
    duration,
    finish,
    folder_options,
    moment,
    opened,
    options,
)
from sealwire.cli.console import columns, to_json, visible

if TYPE_CHECKING:
    from sealwire.joining.ledger import Grant, Ledger
    from sealwire.joining.tokens import Token
    from sealwire.security.ca.store import Store


_COLUMNS = ("ID", "ROLE", "STATUS", "USED", "UNTIL", "NAMES", "USED BY", "ABOUT")


def _duration(context: click.Context, parameter: click.Parameter, text: str) -> datetime.timedelta:
    return duration(text)


@click.command("token", short_help="Make a token with which processes join.")
@options(
    click.option("--role", type=click.Choice(ROLES), help="Role of those who join with it."),
    click.option(
        "--uses", type=int, default=1, show_default=True, help="How many keys may join with it."
    ),
    click.option(
        "--expires",
        default="1h",
        show_default=True,
        callback=_duration,
        help="How long it can be used, such as 30m, 12h or 7d.",
    ),
    click.option(
        "--lifetime",
        default="1d",
        show_default=True,
        callback=_duration,
        help="How long its certificates are valid; processes renew theirs.",
    ),
    click.option(
        "--names",
        multiple=True,
        metavar="PATTERN",
        help="Which names its certificates may have, such as *.lab.example.  [default: all but "
        "those of roles]",
    ),
    click.option("--about", default="", help="A note for --list."),
    click.option(
        "--out",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A file to write it to, readable by you alone, instead of the terminal.",
    ),
    click.option(
        "--list", "listed", is_flag=True, help="List the tokens, one a line, without their secrets."
    ),
    click.option("--revoke", metavar="ID", help="Let nobody join with this token any more."),
    *folder_options,
)
def command(
    role: str | None,
    out: Path | None,
    listed: bool,
    revoke: str | None,
    folder: Path,
    password_file: Path | None,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Make a token, with which a process that has no certificate gets one from `certs serve`.

    Standard output has the token and nothing else. It cannot be shown again: the folder has only
    what verifies it. It is a secret until it is used or has expired; pass it on as a file or an
    environment variable, since everyone on a machine can see the arguments of commands.

    \b
      sealwire certs token --role worker --out worker.token
      sealwire certs token --role worker --uses 40 --expires 12h --about "job 4711"
      sealwire certs token --role client --names alice --lifetime 7d --out alice.token
      sealwire certs token --list
      sealwire certs token --revoke b3bc608a

    Revoking a token does not affect processes that have joined with it: see `revoke`.

    Exit codes: 0 done, 1 failed, 2 wrong usage.
    """
    if sum((role is not None, listed, revoke is not None)) != 1:
        raise click.UsageError("give one of --role, --list and --revoke")
    with opened(folder, password_file, dry_run or listed) as store:
        from sealwire.joining.errors import JoinError
        from sealwire.joining.ledger import Ledger

        try:
            ledger = Ledger(store.folder)
            if listed:
                _show(ledger, as_json)
            elif revoke is not None:
                _revoke(ledger, revoke, dry_run, as_json)
            else:
                _make(store, ledger, str(role), out, dry_run, as_json, **given)
        except JoinError as error:
            raise Failed(str(error)) from error


def _make(
    store: Store,
    ledger: Ledger,
    role: str,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
    *,
    names: tuple[str, ...],
    **given: Any,
) -> None:
    from sealwire.joining.tokens import Token
    from sealwire.security.ca.atomic_files import Write, apply
    from sealwire.security.ca.store import KEYS

    if not store.folder.has(KEYS):
        raise Failed(
            f"cannot make a token in {store.path}: there is no {KEYS} in it, so that nobody can "
            "serve it; run this where the CA's key is"
        )
    # With one CA there is no need for its key, and so for its password.
    several = len(store.trusted) > 1
    token = Token.make([each.parsed for each in store.authorities] if several else store.trusted)
    line = ledger.make(token, role, names=names or ("*",), **given)
    writes = ledger.write([line])
    if out is not None:
        writes.append(Write(out, token.text() + "\n", "the token", private=True, new=True))
    ledger.take(line)
    shown = None if dry_run or out is not None else token.text()
    if as_json or dry_run:
        result = {**_about(ledger.grants[token.id]), "token": shown}
        finish(writes, dry_run=dry_run, as_json=as_json, result=result)
    else:
        apply(writes)
        if shown is not None:
            click.echo(shown)
    if not as_json:
        click.echo(visible(_words(token, role, out, dry_run, given)), err=True)


def _words(token: Token, role: str, out: Path | None, dry_run: bool, given: dict[str, Any]) -> str:
    uses = "one use" if given["uses"] == 1 else f"{given['uses']} uses"
    where = f" in {out}" if out is not None else ""
    what = f"for a {role}, of {uses}, to be used within {given['expires']}"
    return f"would be made: {what}" if dry_run else f"token {token.id}{where}: {what}"


def _revoke(ledger: Ledger, name: str, dry_run: bool, as_json: bool) -> None:
    grant = ledger.find(name)
    lines = [] if grant.revoked is not None else [ledger.end(grant, "revoked", "by command")]
    result = {"revoked": [grant.id], "used_by": [each.names for each in grant.used.values()]}
    finish(ledger.write(lines) if lines else [], dry_run=dry_run, as_json=as_json, result=result)
    if not as_json:
        users = ", ".join(each.names for each in grant.used.values())
        after = f"; joined with it, and not shut out by this: {users}" if users else ""
        when = (
            "was revoked before" if not lines else "would be revoked" if dry_run else "is revoked"
        )
        click.echo(visible(f"token {grant.id} {when}{after}"))


def _show(ledger: Ledger, as_json: bool) -> None:
    grants = list(ledger.grants.values())
    if as_json:
        click.echo(to_json({"tokens": [_about(each) for each in grants]}))
        return
    rows = [_COLUMNS, *(_row(each) for each in grants)]
    click.echo("\n".join(columns(rows)))


def _row(grant: Grant) -> tuple[str, ...]:
    return (
        grant.id,
        grant.role,
        grant.status,
        f"{len(grant.used)} of {grant.uses}",
        f"{grant.until:%Y-%m-%d %H:%M}",
        " ".join(grant.names),
        grant.users or "-",
        grant.about or "-",
    )


def _about(grant: Grant) -> dict[str, Any]:
    return {
        "id": grant.id,
        "role": grant.role,
        "status": grant.status,
        "uses": grant.uses,
        "made": moment(grant.made),
        "until": moment(grant.until),
        "lifetime": grant.lifetime,
        "names": list(grant.names),
        "about": grant.about,
        "used": [
            {"name": line.names, "key": key, "from": line.about, "time": moment(line.time)}
            for key, line in grant.used.items()
        ],
    }
