"""`sealwire top`: what the dashboard's page `/sealwire` shows, in a terminal or as JSON.

It asks the scheduler over the cluster's own port, with the certificates that every other command
uses: that port is the one address that everybody knows, and it tells who asks. The dashboard's port
is often a random one, plain, and not reachable from where a person sits.
"""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Any

import click

from sealwire.cli.certs.common import Failed
from sealwire.cli.console import to_json, visible
from sealwire.cli.identity import identity_options, missing

if TYPE_CHECKING:
    from sealwire.cli.top.asking import Asker
    from sealwire.security import Role


@click.command("top", short_help="Show every link of a running Dask cluster, and what is wrong.")
@click.argument("address")
@identity_options
@click.option("--find", default="", help="Show only rows that contain this text.")
@click.option(
    "--rows",
    type=click.IntRange(0, 5000),
    default=300,
    show_default=True,
    help="Most rows of each table.",
)
@click.option(
    "--interval",
    type=click.FloatRange(0.5, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between two refreshes.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 600),
    default=10.0,
    show_default=True,
    help="Seconds to wait for the scheduler.",
)
@click.option(
    "--once",
    is_flag=True,
    help="Print once and exit, as without a terminal or with TERM=dumb.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and exit.")
def command(
    address: str,
    role: Role | None,
    ca: str | None,
    cert: str | None,
    key: str | None,
    find: str,
    rows: int,
    interval: float,
    timeout: float,
    once: bool,
    as_json: bool,
) -> None:
    """Show every link of the cluster of the scheduler at ADDRESS, and what is wrong with it.

    The same as on the page /sealwire of its dashboard: processes and their certificates, links
    with identity, TLS version, cipher, traffic and round trip, who was refused within the last
    hour, who uses distributed's own backend. What is wrong comes first. Ctrl-C ends it. An address
    without tcp:// or tls:// is taken as tls:// if there is a certificate.

    \b
    Examples:
      sealwire top tls://10.0.0.5:8786
      sealwire top tls://10.0.0.5:8786 --find node7
      sealwire top tls://10.0.0.5:8786 --ca certs/ca.pem --cert certs/client.pem
      sealwire top --json tls://10.0.0.5:8786

    \b
    Exit codes:
      0  the cluster was shown
      1  the scheduler does not answer, or refuses us
      2  wrong usage
      3  our own certificates or configuration cannot be used
    """
    from sealwire.cli.demo.command import require_dask

    require_dask("ask a scheduler")
    asker = make_asker(address, role, {"ca": ca, "cert": cert, "key": key}, timeout)
    # As the scheduler escapes it; what is no UTF-8 could not be sent.
    ask: dict[str, Any] = {"find": visible(find), "rows": rows}
    if as_json:
        click.echo(to_json(asyncio.run(ask_once(asker, ask))))
        return
    from sealwire.cli.demo.report import output

    console = output()
    if once or not console.is_terminal or console.is_dumb_terminal:
        from sealwire.cli.top.display import whole

        console.print(whole(asyncio.run(ask_once(asker, ask))))
        return
    from sealwire.cli.signals import Interrupted, Signals

    try:
        with Signals():
            asyncio.run(follow(asker, ask, console, interval))
    except Interrupted as interrupted:
        if interrupted.exit_code != 128 + signal.SIGINT:  # Ctrl-C is how one leaves
            raise SystemExit(interrupted.exit_code) from None


def make_asker(
    address: str, role: Role | None, given: dict[str, str | None], timeout: float
) -> Asker:
    """Return who asks, with the certificates configured, or those given."""
    from sealwire.cli.probe.command import make_security, role_here
    from sealwire.comm import AddressError, parse_address
    from sealwire.security import SecurityError

    try:
        target = parse_address(address)
    except AddressError as error:
        raise click.UsageError(visible(str(error))) from error
    role = role or ("client" if given["cert"] or given["key"] else role_here())
    names = {"ca": "tls_ca_file", "cert": f"tls_{role}_cert", "key": f"tls_{role}_key"}
    fields: dict[str, Any] = {
        names[name]: value for name, value in given.items() if value is not None
    }
    if given["cert"] is not None:
        fields.setdefault(names["key"], None)  # a configured key belongs to another one
    try:
        args = make_security(fields).get_connection_args(role)
    except SecurityError as error:
        raise Failed(str(error), 3) from error
    if not target.scheme:
        target = target._replace(scheme="tls" if args["ssl_context"] else "tcp")
    if not target.port and target.scheme != "unix":  # whose number stands in a name of its own
        raise click.UsageError(f"cannot ask {visible(address)}: need tls://host:port")
    if target.scheme == "tls" and args["ssl_context"] is None:
        raise Failed(missing(role), 3)
    from sealwire.cli.top.asking import Asker  # imports Dask, if its configuration can be read

    return Asker(str(target), args, timeout)


async def ask_once(asker: Asker, ask: dict[str, Any]) -> dict[str, Any]:
    """Return what the scheduler tells. Raises `Failed`."""
    from sealwire.cli.top.asking import NoAnswer

    try:
        return await asker.ask(**ask)
    except NoAnswer as error:
        raise Failed(str(error)) from error
    finally:
        asker.close()


async def follow(asker: Asker, ask: dict[str, Any], console: Any, interval: float) -> None:
    """Show it until somebody ends it; a scheduler that goes away may come back.

    Raises `Failed` if it does not answer the first time.
    """
    from rich.live import Live

    from sealwire.cli.top.asking import NoAnswer
    from sealwire.cli.top.display import fitted

    view = await ask_once(asker, ask)
    trouble = ""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                live.update(fitted(view, console.size.height, trouble), refresh=True)
                await asyncio.sleep(interval)
                try:
                    view, trouble = await asker.ask(**ask), ""
                except NoAnswer as error:
                    trouble = f"{time.strftime('%H:%M:%S')} what is shown is old: {error}"
        finally:
            asker.close()
