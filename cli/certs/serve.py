"""`sealwire certs serve`: the CA as a service, for processes that join with a token."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealwire.cli.certs.common import (
    Failed,
    errors,
    folder_option,
    json_option,
    options,
    password_from,
    password_option,
)
from sealwire.cli.console import to_json, visible

if TYPE_CHECKING:
    from sealwire.joining.desk import Desk


@click.command("serve", short_help="Serve the CA to processes that join with a token.")
@options(
    click.option(
        "--host",
        default="",
        show_default="all interfaces",
        help="The address to listen on.",
    ),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=8788,
        show_default=True,
        help="The port; 0 is any that is free.",
    ),
    click.option("--quiet", is_flag=True, help="Log warnings only."),
    folder_option,
    password_option,
    json_option,
)
def command(
    host: str,
    port: int,
    quiet: bool,
    folder: Path,
    password_file: Path | None,
    as_json: bool,
) -> None:
    """Issue certificates to processes that have a token, renew them, and distribute CAs and CRLs.

    The CA's key is opened once, and never leaves this process; if it is encrypted, give its
    password in a file or the variable. Everything issued is recorded in the journal. All other
    commands can be used at the same time. Log lines go to standard error.

    \b
      sealwire certs serve
      sealwire certs serve --host 10.0.0.1 --port 8788 --password-file ~/.ca-password

    Exit codes: 0 ended by a signal, 1 failed, 2 wrong usage.
    """
    with errors():
        from sealwire.joining.desk import Desk
        from sealwire.joining.errors import JoinError

        try:
            with _logging(logging.WARNING if quiet else logging.INFO):
                desk = Desk(folder, password_from(password_file))
                asyncio.run(_serve(desk, host, port, as_json))
        except JoinError as error:
            raise Failed(str(error)) from error
        except KeyboardInterrupt:
            pass


async def _serve(desk: Desk, host: str, port: int, as_json: bool) -> None:
    from sealwire.comm.addressing import concrete_host, format_address
    from sealwire.joining.service import JoinServer

    server = await JoinServer.of(desk)
    try:
        try:
            server.listen(port, host)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise Failed(f"cannot listen on {host or '*'}:{port}: {why}; name another") from error
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        for signum in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(signum, ended.set)
            except NotImplementedError:  # Windows: KeyboardInterrupt ends it
                pass
        bound, number = server.address
        where = format_address("tls", concrete_host(bound), number)
        click.echo(to_json({"address": where}) if as_json else f"serving the CA at {where}")
        await ended.wait()
    finally:
        server.stop()
        server.close()


@contextlib.contextmanager
def _logging(level: int) -> Iterator[None]:
    """Log to standard error, with a time, escaped."""
    from sealwire.cli.console import _ToStderr

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return visible(super().format(record), lines=bool(record.exc_info))

    logger = logging.getLogger("sealwire")
    before = logger.handlers[:], logger.level
    logger.handlers = [each for each in before[0] if not isinstance(each, _ToStderr)]
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.handlers = before[0]
        logger.setLevel(before[1])
