"""The group `sealwire`: a table of commands, each imported when needed.

A command is one module that has a `click.Command` named `command`, and a line in `COMMANDS`. Its
imports are light, since `sealwire --help` imports all of them to show their first lines; what a
command needs to run, it imports when it runs.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import warnings
from importlib import import_module
from typing import Any

import click

from sealwire.cli.console import log_visibly, visible

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # errors of writing the output

COMMANDS = {
    "bench": "sealwire.cli.bench.command",
    "certs": "sealwire.cli.certs.group",
    "config": "sealwire.cli.config.command",
    "demo": "sealwire.cli.demo.command",
    "probe": "sealwire.cli.probe.command",
    "top": "sealwire.cli.top.command",
}


class LazyGroup(click.Group):
    """A group whose commands come from a table: name -> module."""

    def __init__(self, *args: Any, table: dict[str, str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, sorted."""
        return sorted(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is none of that name."""
        if cmd_name not in self.table:
            return None
        command = import_module(self.table[cmd_name]).command
        assert isinstance(command, click.Command), self.table[cmd_name]
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; untrusted text in its errors is escaped, as in its warnings."""
        log_visibly()
        warnings.filterwarnings("ignore", "Attribute's length must be", UserWarning)  # of a name
        for stream in (sys.stdout, sys.stderr):
            if isinstance(
                stream, io.TextIOWrapper
            ):  # in any encoding: \u2026 is better than a crash
                stream.reconfigure(errors="backslashreplace")
        try:
            try:
                return super().invoke(ctx)
            finally:
                if sys.stdout is not None:  # it may be closed: `>&-`
                    sys.stdout.flush()  # an output that is full is found here, if it is buffered
        except click.ClickException as error:
            said = error.message
            if isinstance(error, click.NoSuchOption):  # raw in older versions of click
                said = said.replace(error.option_name, visible(error.option_name))
            words = visible(said.expandtabs(), lines=True)  # click's own have lines
            error.message = words  # type: ignore[misc]
            raise
        except OSError as error:
            if error.errno not in _FULL:
                raise
            with contextlib.suppress(OSError, ValueError):  # or Python would flush it once more
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            words = (error.strerror or str(error)).lower()
            raise click.ClickException(
                f"cannot write what is to be said: {words}; the command may have done its work, "
                "so look before you give it again"
            ) from error


# Named, since `dask sealwire` is registered under this name; see `dask_plugin`.
@click.group(
    "sealwire",
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="sealwire", message="%(package)s %(version)s")
def main() -> None:
    """Mutually authenticated links between the processes of a cluster."""
