"""The group `sealwire`: a table of commands, each loaded when it is asked for.

A command is one file: a module that has a `click.Command` named `command`, and a line in
`COMMANDS`. A module keeps its imports light, since `sealwire --help` loads all of them to show
their first lines; what a command needs to run, it imports when it runs.
"""

from __future__ import annotations

import errno
import io
import sys
import warnings
from importlib import import_module
from typing import Any

import click

from sealwire.cli.console import log_visibly, visible

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # of what the output goes to

COMMANDS = {
    "bench": "sealwire.cli.bench.command",
    "certs": "sealwire.cli.certs.group",
    "demo": "sealwire.cli.demo.command",
    "probe": "sealwire.cli.probe.command",
}


class LazyGroup(click.Group):
    """A group whose commands come from a table: name -> module."""

    def __init__(self, *args: Any, table: dict[str, str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        command = import_module(self.table[cmd_name]).command
        assert isinstance(command, click.Command), self.table[cmd_name]
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; whatever its errors quote is visible text, as its warnings are."""
        log_visibly()
        warnings.filterwarnings("ignore", "Attribute's length must be", UserWarning)  # of a name
        for stream in (sys.stdout, sys.stderr):
            if isinstance(
                stream, io.TextIOWrapper
            ):  # of any encoding: \u2026 is better than an end
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            words = visible(error.message.expandtabs(), lines=True)  # click's own have lines
            error.message = words  # type: ignore[misc]
            raise
        except OSError as error:
            if error.errno not in _FULL:
                raise
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
@click.version_option(package_name="sealwire", message="%(prog)s %(version)s")
def main() -> None:
    """Mutually authenticated links between the processes of a cluster."""
