"""The demo's output: progress while it runs, and the report at its end.

On a terminal, progress is a live bar; otherwise plain lines that suit logs and tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from sealwire.cli.console import cell, visible
from sealwire.cli.demo.computations import Array, Words
from sealwire.cli.demo.observations import Owners, Process
from sealwire.cli.demo.unauthorized import Attempt
from sealwire.cli.demo.verdict import Check, Evidence, bytes_between_workers, in_a_line, mib

PLAIN_WIDTH = 150  # columns if the output is not a terminal


def output() -> Console:
    """Return the console on standard output; wide enough for the tables if it is not a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


class Story:
    """Prints on `console` what is being done."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, words: str) -> None:
        """Print a line."""
        soft = not self.console.is_terminal  # which would break a line within a word
        self.console.print(Text(visible(words, lines=True)), soft_wrap=soft)

    @contextmanager
    def step(self, words: str, parts: str = "tasks") -> Iterator[Callable[[int, int], None]]:
        """Show that `words` is being done, until the block ends.

        Yields a function to call with the number of parts done and the total, where there are
        parts; `parts` is their name.
        """
        began = time.monotonic()
        if self.console.is_terminal:
            with self._bar(words) as advance:
                yield advance
        else:
            self.say(f"{words} ...")
            yield self._quarters(words, parts)
        self.say(f"{words}: done in {time.monotonic() - began:.1f} s")

    @contextmanager
    def _bar(self, words: str) -> Iterator[Callable[[int, int], None]]:
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn())
        progress = Progress(
            *columns,
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            redirect_stderr=False,
        )
        with progress:
            task = progress.add_task(visible(words), total=None)
            yield lambda done, of: progress.update(task, completed=done, total=of)

    def _quarters(self, words: str, parts: str) -> Callable[[int, int], None]:
        told = 0

        def advance(done: int, of: int) -> None:
            nonlocal told
            if 4 * done // of > told:
                told = 4 * done // of
                self.say(f"{words}: {done} of {of} {parts}")

        return advance


def print_report(console: Console, evidence: Evidence, checks: Sequence[Check]) -> None:
    """Print the verdict, then promises, links, processes, unauthorized attempts, results."""
    good = all(check.kept for check in checks)
    console.print()
    console.print(cell(in_a_line(checks), "bold green" if good else "bold red"))
    console.print(checks_table(checks))
    console.print(links_table(evidence.processes))
    console.print(processes_table(evidence.processes))
    console.print(unauthenticated_table(evidence.attempts))
    print_words(console, evidence.words)
    print_array(console, evidence.array)


def print_words(console: Console, words: Words) -> None:
    """Print the totals and the most frequent words."""
    console.print(
        f"\n[bold]Words[/]  {words.files:,} files, {mib(words.size)}, {words.total:,} words, "
        f"{words.distinct:,} different"
    )
    console.print(cell("  " + "  ".join(f"{word} {count:,}" for word, count in words.top)))


def print_array(console: Console, array: Array) -> None:
    """Print the array that was multiplied and the result."""
    console.print(
        f"\n[bold]Array[/]  x @ x.T of {array.side:,} by {array.side:,} in {array.blocks} blocks; "
        f"sum of (x @ x.T) @ r = {array.total:,}, by the other route {array.total_again:,}"
    )


def table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    """Return an empty table with a title; the columns in `right` are right-aligned."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        numeric = column in right
        made.add_column(
            column, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric
        )
    return made


def links_table(processes: Sequence[Process]) -> Group:
    """Every open link end; similar links of one process to the same peer share a row.

    What all links have in common stands above the table.
    """
    ends = [link for process in processes for link in process.links]
    how = {(link.protocol, link.cipher) for link in ends}
    common = f", all {' with '.join(map(str, *how))}" if len(how) == 1 else ""
    verified = (
        ", every peer verified" if ends and all(link.peer_certificate for link in ends) else ""
    )
    columns = ["process", "peer", "its certificate", "links", "MiB in", "MiB out"]
    if not common:
        columns[3:3] = ["protocol", "cipher"]
    made = table("", *columns, right=("links", "MiB in", "MiB out"))
    made.title = None  # which would be folded to the width of the table
    owners = Owners(processes)
    rows: dict[tuple[str, ...], list[int]] = {}
    for process in processes:
        for link in process.links:
            peer = owners.of_peer(link)
            key = [process.name, peer.name if peer else link.peer, whose(link.peer_certificate)]
            if not common:
                key += [str(link.protocol), str(link.cipher)]
            sums = rows.setdefault(tuple(key), [0, 0, 0])
            for index, value in enumerate((1, link.bytes_in, link.bytes_out)):
                sums[index] += value or 0
    for texts, (count, *sizes) in rows.items():
        made.add_row(*map(cell, (*texts, str(count), *map(figure, sizes))))
    return Group("", cell(f"Links: {len(ends)} ends{common}{verified}", "bold italic"), made)


def whose(certificate: str | None) -> str:
    """Return the names in the subject of a certificate, such as `worker, worker-0`."""
    return "none" if certificate is None else certificate.replace("CN=", "")


def figure(size: int) -> str:
    """Return a size in MiB, without the unit."""
    return mib(size).removesuffix(" MiB")


def processes_table(processes: Sequence[Process]) -> Table:
    """Return the totals of each process, including closed comms."""
    ours = all(process.installed for process in processes)
    columns = ["process", "pid", "listens on", "MiB in", "MiB out"]
    if not ours:
        columns.insert(2, "backend")
    title = "\nProcesses" + (", all with sealwire's backend" if ours and processes else "")
    made = table(title, *columns, right=("pid", "MiB in", "MiB out"))
    for process in processes:
        texts = [process.name, str(process.pid), process.address or "-"]
        if not ours:
            texts.insert(2, "sealwire" if process.installed else "not ours")
        made.add_row(*map(cell, (*texts, figure(process.bytes_in), figure(process.bytes_out))))
    made.caption = f"from worker to worker: {mib(bytes_between_workers(tuple(processes)))}"
    made.caption_justify = "left"
    return made


def unauthenticated_table(attempts: Sequence[Attempt]) -> Table:
    """Who tried to connect, and the outcome; equal outcomes at several listeners share a row."""
    columns = ("who", "outcome", "at", "what they saw")
    made = table("\nUnauthenticated peers, and one with a certificate", *columns, right=("at",))
    rows: dict[tuple[str, str, str], int] = {}
    for attempt in attempts:
        key = (attempt.visitor, attempt.outcome, attempt.words)
        rows[key] = rows.get(key, 0) + 1
    for (visitor, outcome, words), count in rows.items():
        made.add_row(cell(visitor), outcome, str(count), cell(words))
    made.caption = "at: how many listeners"
    made.caption_justify = "left"
    return made


def checks_table(checks: Sequence[Check]) -> Table:
    """Each promise with its verdict."""
    made = table("\nPromises", "", "promise", "observed")
    for check in checks:
        mark = "[green]kept[/]" if check.kept else "[bold red]FAILED[/]"
        made.add_row(mark, cell(check.promise), cell(check.detail))
    return made
