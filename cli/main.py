"""The group `sealwire`: a table of commands, each loaded when it is asked for.

A command is one file: a module that has a `click.Command` named `command`, and a line in
`COMMANDS`. A module keeps its imports light, since `sealwire --help` loads all of them to show
their first lines; what a command needs to run, it imports when it runs.
"""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS = {
    "bench": "sealwire.cli.bench",
    "demo": "sealwire.cli.demo",
}


class LazyGroup(click.Group):
    """A group whose commands come from `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(COMMANDS[cmd_name]).command
        assert isinstance(command, click.Command), COMMANDS[cmd_name]
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sealwire", message="%(prog)s %(version)s")
def main() -> None:
    """Mutually authenticated links between the processes of a cluster."""
