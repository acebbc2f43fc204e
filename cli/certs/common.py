"""Shared by the commands of `sealwire certs`: options, errors, and printing of results."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from sealwire.cli.console import cell, to_json, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sealwire.security.ca.atomic_files import Write
    from sealwire.security.ca.store import Store

F = TypeVar("F", bound=Callable[..., Any])

ROLES = ("client", "scheduler", "worker")
PASSWORD = "SEALWIRE_CA_PASSWORD"
_LONGEST = 64 * 1024  # bytes of a password's file

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def duration(text: str) -> datetime.timedelta:
    """Parse a time such as `30d`, `12h`, `2w`, `90m` or `30s`."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", str(text).strip())
    if not found:
        raise click.BadParameter(f"{text!r} is no time; give one such as 30d, 12h, 2w or 90m")
    return datetime.timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def dir_option(text: str) -> Callable[[F], F]:
    """Return ``--dir`` with this help."""
    return click.option(
        "--dir",
        "folder",
        type=click.Path(path_type=Path, file_okay=False),
        default="certs",
        envvar="SEALWIRE_CERTS",
        show_default=True,
        show_envvar=True,
        help=text,
    )


folder_option = dir_option("The folder of the CA.")
json_option = click.option(
    "--json", "as_json", is_flag=True, help='Print JSON, {"error": …} where it fails.'
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would be written, and write nothing."
)
password_option = click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help=f"File whose first line is the password of the CA's key; or set {PASSWORD}.",
)
days_option = click.option(
    "--days",
    type=click.FloatRange(0, min_open=True),
    default=365,
    show_default=True,
    help="How long the certificate is valid.",
)
#: the options of every command that changes a folder, shown last; for `opened` and `finish`
folder_options = (folder_option, password_option, dry_run_option, json_option)


def ca_days_option(text: str) -> Callable[[F], F]:
    """Return the option `--ca-days` of a command that creates a CA."""
    return click.option(
        "--ca-days",
        type=click.FloatRange(0, min_open=True),
        default=3650,
        show_default=True,
        help=text,
    )


def out_option(default: str) -> Callable[[F], F]:
    """Return the option `--out` of a command that issues a certificate."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
        help=f"The file to write, - for the terminal.  [default: {default} in --dir]",
    )


name_option = click.option(
    "--name",
    "node",
    metavar="NAME",
    help="Who it is, in links and logs: a node, a person.  [default: the first name of a host]",
)


def options(*chosen: Callable[[F], F]) -> Callable[[F], F]:
    """Apply several options, shown in this order."""

    def apply(function: F) -> F:
        for option in reversed(chosen):
            function = option(function)
        return function

    return apply


def content_of(file: Path, limit: int, meant: str) -> bytes:
    """Return the content of a file that was named, or of a pipe; `meant` is what it should hold."""
    from sealwire.security.reading import read_given

    try:
        return read_given(str(file), limit)[0]
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise Failed(f"cannot use {file}: {why}; name a file with {meant}") from error


def password_from(file: Path | None) -> bytes | None:
    """Return the password in the file, else in the environment; None if there is neither."""
    if file is not None:
        from sealwire.security.pem_shapes import first_line

        text = content_of(file, _LONGEST, "the password alone")
        password = first_line(text)
        if not password:
            raise Failed(f"cannot use {file}: its first line, the password, is empty")
        return password
    given = os.environ.get(PASSWORD)
    return given.encode() if given else None


class Failed(click.ClickException):
    """An error of a command.

    With `--json` it is printed as JSON as well, on standard output.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]
        context = click.get_current_context(silent=True)
        self.as_json = context is not None and bool(context.params.get("as_json"))

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error on standard error, and as JSON if requested."""
        click.echo(f"Error: {visible(self.message)}", file=file, err=file is None)
        if self.as_json:
            with contextlib.suppress(OSError):  # of the output; the error was printed already
                click.echo(to_json({"error": self.message}))


@contextlib.contextmanager
def errors(exit_code: int = 1) -> Iterator[None]:
    """Turn our errors and the system's into a message and an exit code."""
    from sealwire.security.errors import SecurityError

    try:
        yield
    except Failed as error:
        error.exit_code = exit_code  # type: ignore[misc]
        raise
    except SecurityError as error:
        raise Failed(str(error), exit_code) from error
    except OSError as error:
        named = error.filename or "a file without a name"
        where = "" if error.filename is None else f"cannot use {named}: "
        words = f"{where}{(error.strerror or str(error)).lower()}"
        raise Failed(words, exit_code) from error


@contextlib.contextmanager
def opened(folder: Path, password_file: Path | None, dry_run: bool) -> Iterator[Store]:
    """Open the folder's store, locked against other commands until the block ends."""
    from sealwire.security.ca.atomic_files import locked
    from sealwire.security.ca.folder import Folder
    from sealwire.security.ca.store import Store

    with errors(), contextlib.ExitStack() as stack:
        password = password_from(password_file)
        place = Folder(folder)
        if not dry_run and place.exists():
            stack.enter_context(locked(place))
        yield Store(place, password)


def finish(
    writes: Sequence[Write],
    *,
    dry_run: bool,
    as_json: bool,
    result: dict[str, Any],
    tell: Callable[[Console], None] | None = None,
    after: Callable[[Console], None] | None = None,
    summary: str | None = None,
) -> None:
    """Carry out the writes, unless it is a dry run, and print the result.

    `tell` prints what comes before the list of files, `after` what comes after it; `summary`
    replaces a list that would be too long.
    """
    from sealwire.security.ca.atomic_files import apply, examine

    (examine if dry_run else apply)(writes)
    files = [
        {"path": str(each.path), "content": each.words, "private": each.private} for each in writes
    ]
    if as_json:
        click.echo(to_json({"dry_run": dry_run, **result, "written": files}))
        return
    from sealwire.cli.demo.report import output

    console = output()
    if tell is not None:
        tell(console)
    if writes and summary is not None:
        words = "Would be written" if dry_run else "Written"
        console.print(cell(f"{words}: {summary}"), soft_wrap=True)
    elif writes:
        console.print(_written(writes, dry_run))
    if after is not None:
        after(console)


def _written(writes: Sequence[Write], dry_run: bool) -> Table:
    from sealwire.cli.demo.report import table

    made = table("Would be written" if dry_run else "Written", "file", "content", "")
    for each in writes:
        made.add_row(
            cell(each.path), cell(each.words), cell("private" if each.private else "", "yellow")
        )
    return made


def words_of_cut(
    days: float, ends: datetime.datetime, advice: str = "make a new CA: sealwire certs rotate-ca"
) -> str:
    """Say that a certificate is valid for fewer days than requested, on two lines."""
    cut = f"cut to the end of its CA, {ends:%Y-%m-%d}, instead of {days:g} days;"
    return f"{cut}\nfor more, {advice}"


def copying(store: Store, folder: Path, *names: str) -> str:
    """Return how files of the folder get to a machine that has a copy of it, and who needs none."""
    from sealwire.security.ca.journal import JOINED, SERVICE
    from sealwire.security.x509.templates import now

    files = " ".join(shlex.quote(str(folder / name)) for name in names)
    there = shlex.quote(f"HOST:{os.path.basename(os.path.abspath(folder))}/")
    line = f"  rsync {files} {there}          (Kubernetes: apply the secrets again)"
    joined = any(
        each.file.startswith(f"{JOINED}/") and each.file != SERVICE and each.until > now()
        for each in store.journal.issued()
    )
    return f"{line}\nprocesses that joined get it from `sealwire certs serve`" if joined else line


def moment(when: datetime.datetime) -> str:
    """Format a time for programs."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def day(when: datetime.datetime) -> str:
    """Format a date for people, coloured as it approaches."""
    left = when - datetime.datetime.now(datetime.timezone.utc)
    colour = "green"
    if left < datetime.timedelta(days=30):
        colour = "yellow"
    if left < datetime.timedelta(days=7):
        colour = "red"
    if left < datetime.timedelta(0):
        return f"[bold red]expired {when:%Y-%m-%d}[/]"
    return f"[{colour}]{when:%Y-%m-%d}[/] ({left.days} days)"
