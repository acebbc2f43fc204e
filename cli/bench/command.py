"""`sealwire bench`: measures this machine, or the link to another, over tcp and tls.

Without an address both sides run here, with certificates made for the run. With one, the other side
is a `sealwire bench --serve`, and certificates are those of the configuration or the options. Exit
code 0 if everything was measured, 1 with the reason if not.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealwire.cli.console import visible

if TYPE_CHECKING:
    from sealwire.cli.bench.client import Figure
    from sealwire.cli.demo.report import Story
    from sealwire.security import Role, Security

CONNECT_TIMEOUT = 10.0
STEP_TIMEOUT = 60.0  # seconds for one measurement, besides several times the requested ones
SERVED = "tls://0.0.0.0:8788"


@click.command("bench", short_help="Measure what a link does over tcp and tls.")
@click.argument("address", required=False)
@click.option("--serve", is_flag=True, help=f"Be the other side, on ADDRESS or {SERVED}.")
@click.option(
    "--duration",
    type=click.FloatRange(1, 86_400),
    default=3600.0,
    show_default=True,
    help="Seconds to serve.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 30),
    default=0.5,
    show_default=True,
    help="Seconds for each measurement; there are about 10 for each of tcp and tls.",
)
@click.option("--tls-ca-file", metavar="FILE", help="CA to trust; else as configured.")
@click.option("--tls-cert", metavar="FILE", help="Our certificate; else as configured.")
@click.option("--tls-key", metavar="FILE", help="Its key, if not in the same file.")
@click.option("--uvloop", is_flag=True, help="Run on uvloop instead of asyncio's own loop.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file."
)
@click.option(
    "--plot", "plot_file", type=click.Path(path_type=Path), help="Draw the throughput to this file."
)
def command(
    address: str | None,
    serve: bool,
    duration: float,
    seconds: float,
    tls_ca_file: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    uvloop: bool,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Measure round trips, messages and throughput over tcp and tls.

    Without ADDRESS on this machine, between two processes; with ADDRESS (tls://host:port) to a
    "sealwire bench --serve" there. Only peers with a certificate of the same CA are served, unless
    the address to serve says tcp://.
    """
    from sealwire.cli.bench.report import facts as facts_of
    from sealwire.cli.bench.report import plot, require_matplotlib, table, write_json
    from sealwire.cli.bench.server import run_loop
    from sealwire.cli.demo.report import Story, output
    from sealwire.comm import CommError
    from sealwire.comm.errors import AddressError
    from sealwire.security import SecurityError

    if uvloop:
        require_uvloop()
    if plot_file and not serve:
        require_matplotlib(plot_file)
    story = Story(output())
    try:
        if serve:
            security = own_security("scheduler", tls_ca_file, tls_cert, tls_key)
            run_loop(serve_until(story, address or SERVED, security, duration), uvloop=uvloop)
            return
        if address:
            security = own_security("client", tls_ca_file, tls_cert, tls_key)
            results = run_loop(measure_remote(story, address, security, seconds), uvloop=uvloop)
        else:
            with child(uvloop) as (security, addresses):
                results = run_loop(measure_all(story, addresses, security, seconds), uvloop=uvloop)
    except (CommError, AddressError, SecurityError, OSError) as error:
        words = visible(getattr(error, "strerror", None) or str(error))
        raise click.ClickException(words) from error
    about = facts_of(address or "a process of this machine", uvloop)
    story.console.print(table(results))
    if json_file:
        write_json(json_file, about, results)
    if plot_file:
        plot(plot_file, about, results)


def require_uvloop() -> None:
    """Raise a ClickException that says what to install if uvloop is missing."""
    try:
        import uvloop  # noqa: F401
    except ImportError:
        raise click.ClickException(
            "cannot run on uvloop: it is not installed; "
            "install it with: pip install 'sealwire[uvloop]'"
        ) from None


def own_security(
    role: str, ca_file: str | None, certificate: str | None, key: str | None
) -> Security:
    """Return the configured security, overridden by the options."""
    from sealwire.security import Security

    given: dict[str, Any] = {
        "tls_ca_file": ca_file,
        f"tls_{role}_cert": certificate,
        f"tls_{role}_key": key,
    }
    return Security(**{name: value for name, value in given.items() if value})


@contextmanager
def child(uvloop: bool) -> Iterator[tuple[Security, dict[str, str]]]:
    """Run a serving process with certificates made for it; yield them, and its address by link.

    The keys go through a pipe. The process ends with the block, or when this process exits.
    """
    from sealwire.security import Security

    security = Security.temporary(require_encryption=False)
    fields = {name: value for name, value in security.fields().items() if _is_pem(name)}
    process = subprocess.Popen(
        [sys.executable, "-m", "sealwire.cli.bench.server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches this process only, which ends the child
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            process.stdin.write(json.dumps({"security": fields, "uvloop": uvloop}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise click.ClickException(
                    f"cannot measure: the serving process ended with code {process.wait()}; "
                    "its error stands above"
                )
            yield security, json.loads(line)
        finally:
            process.kill()


def _is_pem(name: str) -> bool:
    return name.endswith(("_cert", "_key", "_ca_file"))


async def serve_until(story: Story, address: str, security: Security, duration: float) -> None:
    """Serve on `address` for `duration` seconds."""
    from sealwire.cli.bench.server import listener

    link_of(address, security, "scheduler")
    async with listener(address, security) as serving:
        story.say(f"serving on {serving.contact_address} for {duration:g} s; stop with Ctrl-C")
        sys.stdout.flush()
        await asyncio.sleep(duration)


def link_of(address: str, security: Security, role: Role) -> str:
    """Return the scheme of an address: "tcp" only if it says so.

    Raises a ClickException for tls without a certificate, and for any other scheme.
    """
    from sealwire.comm.addressing import parse_address

    link = parse_address(address).scheme or "tls"
    if link not in ("tcp", "tls"):
        raise click.ClickException(
            f"cannot use {visible(address)}: unknown scheme {link}; use tls or tcp"
        )
    config = security.get_tls_config_for_role(role)
    if link == "tls" and not (config["ca_file"] and config["cert"]):
        raise click.ClickException(
            f"cannot use {visible(address)}: no CA and certificate for role {role}; give "
            "--tls-ca-file and --tls-cert, configure distributed.comm.tls, or say tcp:// to go "
            "without protection"
        )
    return link


async def measure_remote(
    story: Story, address: str, security: Security, seconds: float
) -> dict[str, list[Figure]]:
    """Measure the link to a server on another machine."""
    link = link_of(address, security, "client")
    return await measure_all(story, {link: address}, security, seconds)


async def measure_all(
    story: Story, addresses: dict[str, str], security: Security, seconds: float
) -> dict[str, list[Figure]]:
    """Measure each link, tcp first."""
    from sealwire.cli.bench.client import STEPS, Busy, measure
    from sealwire.cli.bench.server import LIMITS
    from sealwire.comm import connect

    results: dict[str, list[Figure]] = {}
    for link, address in sorted(addresses.items()):
        args = security.get_connection_args("client")
        if link == "tcp":  # passing a context would be an error
            args["ssl_context"] = None
        results[link] = []
        with story.step(f"measuring {link}", "measurements") as advance:
            done = 0
            async with connect(address, timeout=CONNECT_TIMEOUT, limits=LIMITS, **args) as comm:
                try:
                    steps = measure(comm, seconds)
                    while done < STEPS:
                        limit = STEP_TIMEOUT + 20 * seconds
                        results[link] += await asyncio.wait_for(anext(steps), limit)
                        done += 1
                        advance(done, STEPS)
                except Busy as error:
                    raise click.ClickException(
                        f"cannot measure {visible(address)}: {error}"
                    ) from error
                except asyncio.TimeoutError:
                    comm.abort()  # the other side does not take what is queued
                    raise click.ClickException(
                        f"cannot measure {visible(address)}: measurement {done + 1} of {STEPS} was "
                        f"not done within {limit:g} s; the other side hangs, or is no "
                        "sealwire bench --serve"
                    ) from None
    return results
