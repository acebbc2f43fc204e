"""The scheduler's part: it gathers what was reported, and answers the page and `sealwire top`.

An extension as distributed's own: made with the scheduler, when its web server stands. The page is
there where `/info` is, since it shows as much; nothing of Bokeh is needed for it. With a thousand
workers the work is a few tenths of a second: done in a thread, so that the scheduler goes on.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tornado.ioloop import PeriodicCallback

from sealwire.security.text import visible

from .cluster import MOST_ROWS, Member, Survey, as_dict, survey
from .received import Report, received
from .report import MOST_LINKS, NAME, paced_report, sample

__all__ = ["OPERATION", "SchedulerExtension"]

#: the name of the request that `sealwire top` makes
OPERATION = "sealwire_cluster"

_MOST_OWN = 20_000  # links of the scheduler itself
_MOST_ROWS = 5_000
_LONGEST_FIND = 100  # characters
_LONGEST_NAME = 60
_FRESH = 1.0  # seconds for which a survey serves all who ask
_MOST_ANSWERS = 8  # made of one survey that are kept for others who ask the same
_SAMPLE = 30_000  # milliseconds; refusals of the last hour are known to a minute

_T = TypeVar("_T")
_Sent = tuple[str, str, str, "float | None", object]  # role, address, name, heard, the report


class SchedulerExtension:
    """Gathers the reports of a scheduler and its workers.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self._taken: dict[str, tuple[object, Report | str]] = {}  # what was sent, taken apart
        self._making: asyncio.Future[Survey] | None = None
        self._stale = 0.0  # when to make another one
        self._answers: dict[object, asyncio.Future[Any]] = {}  # made of that survey
        self._thread = ThreadPoolExecutor(1, "sealwire-page")  # started when it is needed
        scheduler.handlers[OPERATION] = self.answer
        sampling = PeriodicCallback(self._sample, _SAMPLE)
        scheduler.periodic_callbacks[NAME] = sampling  # started and stopped with the others
        self._add_page()

    def _add_page(self) -> None:
        from .routes import add

        application = getattr(self.scheduler, "http_application", None)
        if application is None or not add(application, self):
            return
        bokeh = sys.modules.get("distributed.dashboard.scheduler")
        pages = self.pages() if bokeh is not None else []
        if pages and NAME not in pages:  # the list that the dashboard's templates have
            pages.insert(pages.index("info") if "info" in pages else len(pages), NAME)

    def pages(self) -> list[str]:
        """Return the dashboard's menu, empty if there is none."""
        bokeh = sys.modules.get("distributed.dashboard.scheduler")
        try:
            found = bokeh.template_variables(self.scheduler)["pages"]  # type: ignore[union-attr]
        except (AttributeError, KeyError, TypeError):  # not loaded, or of another version
            return []
        return found if isinstance(found, list) else []

    def _sample(self) -> None:
        sample(self.scheduler)

    async def answer(self, find: object = "", rows: object = MOST_ROWS) -> dict[str, Any]:
        """Return the cluster as plain values, for whoever may talk to the scheduler."""
        return await self.made(_plain, find, rows)

    async def made(
        self,
        make: Callable[[dict[str, Any], Survey], _T],
        find: object = "",
        rows: object = MOST_ROWS,
    ) -> _T:
        """Return what `make` makes of the cluster as plain values, and of the survey, in a thread.

        `find` and `rows` are anybody's: a bad one counts as none. Who asks the same of the same
        survey gets the same object.
        """
        text = visible(find, longest=_LONGEST_FIND) if isinstance(find, str) else ""
        try:
            most = max(0, min(int(rows), _MOST_ROWS))  # type: ignore[call-overload]
        except (ValueError, TypeError, OverflowError):
            most = MOST_ROWS
        known = await self.survey()
        key = make, text, most
        answer = self._answers.get(key)
        if answer is None:
            answer = asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: make(as_dict(known, find=text, most=most), known)
            )
            if len(self._answers) < _MOST_ANSWERS:
                self._answers[key] = answer
        try:
            made: _T = await asyncio.shield(answer)
        except Exception:
            self._answers.pop(key, None)
            raise
        return made

    async def survey(self) -> Survey:
        """Return what is known now: one survey for all who ask meanwhile, and a second after.

        Or longer, so that no more than a tenth of the time goes into surveys.
        """
        if self._making is None or (self._making.done() and time.monotonic() >= self._stale):
            self._making = asyncio.ensure_future(self._make())
        return await asyncio.shield(self._making)

    async def _make(self) -> Survey:
        began = time.monotonic()
        own = await paced_report(self.scheduler, most_links=_MOST_OWN, most_bytes=sys.maxsize)
        names = self._names()
        sent = self._sent(own, names)
        known = self._known(names)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._thread, lambda: survey(self._members(sent), now=time.time(), known=known)
            )
        finally:
            self._answers = {}
            ended = time.monotonic()
            self._stale = ended + max(_FRESH, 9 * (ended - began))

    def _names(self) -> dict[str, str]:
        """Return what to call the workers, by address, each in another way."""
        names: dict[str, str] = {}
        taken: set[str] = set()
        for address, state in self.scheduler.workers.items():
            name = _label(address, state.name)
            # 1 and "1" are two names to distributed, and long ones are cut off.
            names[address] = f"{name} ({address})" if name in taken else name
            taken.add(names[address])
        return names

    def _sent(self, own: dict[str, Any], names: Mapping[str, str]) -> list[_Sent]:
        """Return who has sent what, the scheduler first."""
        scheduler = self.scheduler
        try:
            address = scheduler.address
        except ValueError:  # it does not listen yet
            address = ""
        found: list[_Sent] = [("scheduler", address, "scheduler", None, own)]
        now = time.time()
        for address, name in names.items():
            state = scheduler.workers[address]
            heard = max(now - state.last_seen, 0.0)
            found.append(("worker", address, name, heard, state.metrics.get(NAME)))
        return found

    def _members(self, sent: Sequence[_Sent]) -> Iterator[Member]:
        """Take apart what was sent, unless that was done before."""
        before, self._taken = self._taken, {}
        for role, address, name, heard, raw in sent:
            taken: Report | str | None = None
            if raw is not None:
                known, taken = before.get(address, (None, None))
                if taken is None or known is not raw:
                    taken = received(raw, _MOST_OWN if role == "scheduler" else MOST_LINKS)
                self._taken[address] = raw, taken
            yield Member(role, address, name, heard, taken)

    def _known(self, names: Mapping[str, str]) -> dict[str, str]:
        """Return who is at the far end of the scheduler's links, by address."""
        scheduler = self.scheduler
        found = {}
        for key, batched in scheduler.client_comms.items():
            number = str(key).removeprefix("Client-")
            found[_far(batched)] = f"client {visible(number, longest=_LONGEST_NAME)}"
        for address, batched in scheduler.stream_comms.items():
            if address in names:
                found[_far(batched)] = names[address]
        found.pop("", None)
        return found


def _plain(view: dict[str, Any], _: Survey) -> dict[str, Any]:
    return view


def _far(batched: Any) -> str:
    address = getattr(getattr(batched, "comm", None), "peer_address", "")
    return address if isinstance(address, str) else ""


def _label(address: str, name: object) -> str:
    text = address if name is None or str(name) == address else str(name)
    return f"worker {visible(text, longest=_LONGEST_NAME)}"
