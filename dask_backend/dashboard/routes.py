"""The pages that a scheduler's web server gets: `/sealwire`, the same as JSON, and to embed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from distributed.http.scheduler.info import IndividualPlots
from tornado import web

from .assets import POLICY
from .cluster import Survey
from .page import render
from .picture import picture

__all__ = ["add"]

_PLOTS = "individual-plots.json"
_EMBEDDED = "individual-sealwire"


class Knows(Protocol):
    """What the pages ask: `extension.SchedulerExtension`."""

    scheduler: Any

    def pages(self) -> list[str]:
        """Return the dashboard's menu, empty if there is none."""

    async def made(
        self, make: Callable[[dict[str, Any], Survey], str], find: object, rows: object
    ) -> str:
        """Return what is made of the cluster, for the arguments of a request."""


def add(application: Any, extension: Knows) -> bool:
    """Add the pages, beside `/info`; return whether that is there."""
    prefix = _prefix(application)
    if prefix is None:
        return False
    given = {"extension": extension}
    routes = [
        (rf"{prefix}sealwire", _Page, given),
        (rf"{prefix}{_EMBEDDED}", _Embedded, given),
        (rf"{prefix}sealwire\.json", _Json, given),
        (rf"{prefix}{_PLOTS}", _Plots, {"dask_server": extension.scheduler}),
    ]
    application.add_handlers(r".*$", routes)  # before those that are there
    return True


def _prefix(application: Any) -> str | None:
    """Return what stands before the names of distributed's pages, as a pattern."""
    for rule in application.wildcard_router.rules:
        pattern = getattr(getattr(rule.matcher, "regex", None), "pattern", "")
        if rule.target is IndividualPlots and pattern.rstrip("$").endswith(_PLOTS):
            return str(pattern.rstrip("$").removesuffix(_PLOTS))
    return None


class _Handler(web.RequestHandler):
    """Answers from what an extension knows."""

    def initialize(self, extension: Knows) -> None:
        self.extension = extension

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")

    async def made(self, make: Callable[[dict[str, Any], Survey], str]) -> str:
        """Return what is to be answered, for the arguments of the request."""
        rows = self.get_query_argument("rows", "")
        return await self.extension.made(make, self.get_query_argument("find", ""), rows)


class _Page(_Handler):
    async def get(self) -> None:
        pages = self.extension.pages() or ["info", "sealwire"]
        await self.finish(await self.made(_Document(tuple(pages))))


class _Embedded(_Handler):
    async def get(self) -> None:
        await self.finish(await self.made(_Document(None)))


class _Json(_Handler):
    async def get(self) -> None:
        self.set_header("Content-Type", "application/json")
        await self.finish(await self.made(_as_json))


def _as_json(view: dict[str, Any], _: Survey) -> str:
    return json.dumps(view)


@dataclass(frozen=True)
class _Document:
    """Makes the page; two with the same menu are equal, so that one answer serves both."""

    pages: tuple[str, ...] | None

    def __call__(self, view: dict[str, Any], known: Survey) -> str:
        return render(view, picture(known), self.pages)


class _Plots(IndividualPlots):
    """Distributed's list of pages to embed, and ours."""

    def write(self, chunk: Any) -> None:
        if isinstance(chunk, dict):
            chunk = {**chunk, "Individual Sealwire": f"/{_EMBEDDED}"}
        super().write(chunk)
