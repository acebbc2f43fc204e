"""The page in one process: without Bokeh, without `/info`, closed; and under attack."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import dask
import msgpack
import pytest
from distributed import Client, Scheduler, Worker
from distributed.comm import connect
from distributed.scheduler import DEFAULT_EXTENSIONS
from distributed.worker import DEFAULT_METRICS
from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from sealwire.dask_backend import Security, install, uninstall
from sealwire.dask_backend.dashboard import extension, routes
from sealwire.dask_backend.dashboard import report as reporting
from sealwire.dask_backend.dashboard.extension import OPERATION
from sealwire.dask_backend.dashboard.report import MOST_BYTES, MOST_LINKS, NAME, report
from sealwire.dask_backend.preload import dask_setup
from sealwire.security.ca.authority import Authority
from support.browser import browse
from support.parties import Party, asynchronous, pair
from support.web import Page

HERE: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}

HOSTILE = [
    "</svg></main><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "&lt;b&gt; &amp;",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.exe",
    "a\nb\r\n\tc",
    "{{ 7*7 }} {% raw %} ${7*7}",
    "javascript:alert(1)",
    "\u0000\ufeff\u200b",
    "x" * 60,
    "界🙂" + "\u0301" * 40,
]


@asynccontextmanager
async def cluster(security: Any, *names: Any, **options: Any) -> AsyncIterator[Scheduler]:
    """A scheduler in this process, with workers of these names."""
    options = {**HERE, "dashboard": False, "port": 0, **options}
    async with AsyncExitStack() as stack:
        scheduler = await stack.enter_async_context(Scheduler(security=security, **options))
        for name in names:
            worker = Worker(scheduler.address, security=security, nthreads=1, name=name, **HERE)
            await stack.enter_async_context(worker)
        yield scheduler


async def fetch(scheduler: Scheduler, path: str, **options: Any) -> HTTPResponse:
    url = f"http://127.0.0.1:{scheduler.http_server.port}/{path}"
    return await AsyncHTTPClient().fetch(url, raise_error=False, request_timeout=60, **options)


async def view(scheduler: Scheduler, query: str = "") -> Any:
    scheduler.extensions[NAME]._stale = 0.0  # not what was found a moment ago
    return json.loads((await fetch(scheduler, f"sealwire.json{query}")).body)


@pytest.fixture
def security() -> Security:
    return Security.temporary(days=30)


@asynchronous
async def test_it_needs_no_bokeh(security: Security) -> None:
    async with cluster(security, "one") as scheduler:
        page = Page((await fetch(scheduler, "sealwire")).body.decode())
        assert [row["process"] for row in page.rows("processes")] == ["scheduler", "worker one"]
        assert ("a", {"href": "info"}) in page.tags
        plots = json.loads((await fetch(scheduler, "individual-plots.json")).body)
        assert plots == {"Individual Sealwire": "/individual-sealwire"}
        paths = json.loads((await fetch(scheduler, "sitemap.json")).body)["paths"]
        assert "/sealwire" in paths


def modules(*names: str) -> dict[str, list[str]]:
    return {"distributed.scheduler.http.routes": [f"distributed.http.{name}" for name in names]}


@asynchronous
async def test_it_is_where_info_is(security: Security) -> None:
    with dask.config.set(modules("scheduler.json", "health")):
        async with cluster(security, "one") as scheduler:
            for path in ("sealwire", "sealwire.json", "individual-plots.json", "info"):
                assert (await fetch(scheduler, path)).code == 404, path
            assert (await fetch(scheduler, "health")).code == 200
            comm = await connect(scheduler.address, **security.get_connection_args("client"))
            await comm.write({"op": OPERATION, "reply": True})  # who may connect is told anyway
            assert len((await comm.read())["processes"]) == 2
            comm.abort()


@asynchronous
async def test_a_prefix_is_kept(security: Security) -> None:
    async with cluster(security, http_prefix="/a/b/") as scheduler:
        for path, code in (("a/b/sealwire", 200), ("sealwire", 404), ("a/b/info", 200)):
            assert (await fetch(scheduler, path)).code == code, path


@asynchronous
async def test_who_has_uninstalled_has_nothing_of_it(security: Security) -> None:
    uninstall()
    assert NAME not in DEFAULT_METRICS
    assert NAME not in DEFAULT_EXTENSIONS
    async with cluster(None, "one") as scheduler:
        assert NAME not in scheduler.extensions
        assert (await fetch(scheduler, "sealwire")).code == 404
        (state,) = scheduler.workers.values()
        assert NAME not in state.metrics
        # A preload that arrives later gives them their parts.
        install()
        dask_setup(scheduler)
        dask_setup(scheduler)
        told = await view(scheduler)
        states = {row["role"]: row["state"] for row in told["processes"]}
        assert states.pop("worker") == "stock"
        assert states.popitem()[1] in ("ok", "warn")  # of what other tests have seen, too
        sampling = scheduler.periodic_callbacks[NAME]
        assert sampling.is_running()
    assert not sampling.is_running()


@asynchronous
async def test_hostile_names_of_workers_stay_text(security: Security) -> None:
    async with cluster(security, *HOSTILE, 1, "1", "scheduler") as scheduler:
        response = await fetch(scheduler, "sealwire")
        text = response.body.decode()
        expect_harmless(text)
        told = await view(scheduler)
        names = [row["name"] for row in told["processes"]]
        assert len(set(names)) == len(HOSTILE) + 4
        assert names.count("scheduler") == 1
        shown = [row["process"] for row in Page(text).rows("processes")]
        assert sorted(shown) == sorted(names)


def expect_harmless(text: str) -> None:
    """No tag, attribute or invisible character but our own."""
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [tag for tag, _ in page.tags if tag in ("img", "b", "iframe", "object")]
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert not str(attributes.get("href", "")).startswith("javascript:")
    own = text.replace("\n", "")
    assert own.isprintable(), [c for c in own if not c.isprintable()]


@pytest.mark.parametrize("name", [name for name in HOSTILE if 0 < len(name) <= 64])
@asynchronous
async def test_hostile_subjects_stay_text(name: str) -> None:
    """In certificates that the CA has signed, of a worker and of a client."""
    authority = Authority.create("</title><script>alert(2)</script>")
    fields: dict[str, Any] = {"tls_ca_file": authority.certificate}
    for role in ("scheduler", "worker", "client"):
        try:
            made = authority.issue(role, node=name)
        except Exception:  # not even a CA of ours signs that
            made = authority.issue(role, node="<script>alert(3)</script>")
        fields |= {f"tls_{role}_cert": made.certificate, f"tls_{role}_key": made.key}
    security = Security(**fields)
    async with (
        cluster(security, "one") as scheduler,
        Client(scheduler.address, security=security, asynchronous=True),
    ):
        expect_harmless((await fetch(scheduler, "sealwire")).body.decode())
        expect_harmless((await fetch(scheduler, "individual-sealwire")).body.decode())


GARBAGE: list[Any] = [
    None, 7, "x" * 1_000_000, b"\xff", [], {}, {"version": 1}, {"version": 99},
    {"version": 1, "links": [[1, 2, 3]] * 1000, "certificates": "no"},
    {"version": 1, "links": {"a": {}}, "refused": {"\x1b[2J": 5, 3: "x"}, "open": float("nan")},
    object(),
]  # fmt: skip


async def hush(scheduler: Scheduler) -> None:
    """Let there be no heartbeats any more."""
    for worker in list(Worker._instances):
        if worker.scheduler.address == scheduler.address:
            worker.periodic_callbacks["heartbeat"].stop()
            await worker.heartbeat()  # after one that may be under way


@asynchronous
async def test_workers_that_send_garbage(security: Security) -> None:
    async with cluster(security, *range(len(GARBAGE)), "good") as scheduler:
        await hush(scheduler)
        by_name = {state.name: state for state in scheduler.workers.values()}
        for number, garbage in enumerate(GARBAGE):
            by_name[number].metrics = {**by_name[number].metrics, NAME: garbage}
        told = await view(scheduler)
        rows = {row["name"]: row for row in told["processes"]}
        assert rows["worker good"]["state"] == "ok"
        assert rows["worker 0"]["state"] == "stock"
        for number in (1, 2, 3, 4, 5, 7, 10):
            assert rows[f"worker {number}"]["state"] == "warn", number
            assert rows[f"worker {number}"]["backend"] == "unknown"
        expect_harmless((await fetch(scheduler, "sealwire")).body.decode())


@asynchronous
async def test_who_leaves_is_gone_and_nothing_of_it_is_kept(security: Security) -> None:
    async with cluster(security, "one", "two") as scheduler:
        assert len((await view(scheduler))["processes"]) == 3
        (gone,) = [s.address for s in scheduler.workers.values() if s.name == "two"]
        await scheduler.remove_worker(gone, stimulus_id="test")
        assert [row["name"] for row in (await view(scheduler))["processes"]] == [
            "scheduler", "worker one",
        ]  # fmt: skip
        assert gone not in scheduler.extensions[NAME]._taken


@asynchronous
async def test_many_at_once_get_one_survey(
    security: Security, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    original = extension.survey
    monkeypatch.setattr(extension, "survey", lambda *a, **k: made.append(1) or original(*a, **k))
    rendered = []
    render = routes.render
    monkeypatch.setattr(routes, "render", lambda *a: rendered.append(1) or render(*a))
    async with cluster(security, "one") as scheduler:
        paths = ["sealwire", "sealwire.json", "individual-sealwire"] * 20
        responses = await asyncio.gather(*(fetch(scheduler, path) for path in paths))
        assert {response.code for response in responses} == {200}
        assert len({response.body for response in responses}) <= 3 * len(made)
    assert len(made) < 20  # about one a second
    assert len(rendered) <= 2 * len(made)  # two kinds of page, of each survey


@asynchronous
async def test_answers_that_nobody_shares_are_not_kept_without_bound(security: Security) -> None:
    async with cluster(security, "one") as scheduler:
        part = scheduler.extensions[NAME]
        for number in range(3 * extension._MOST_ANSWERS):
            told = await part.answer(find=str(number))
            assert told["find"] == str(number)
        assert len(part._answers) <= extension._MOST_ANSWERS
        part._stale = 0.0
        await part.survey()
        assert not part._answers


@asynchronous
async def test_it_is_read_only(security: Security) -> None:
    async with cluster(security) as scheduler:
        for path in ("sealwire", "sealwire.json", "individual-sealwire", "individual-plots.json"):
            for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
                answer = await fetch(scheduler, path, method=method, allow_nonstandard_methods=True)
                assert answer.code == 405, (path, method)


@asynchronous
async def test_a_scheduler_that_closes_meanwhile(security: Security) -> None:
    async with cluster(security, "one") as scheduler:
        asked = [asyncio.ensure_future(fetch(scheduler, "sealwire")) for _ in range(5)]
        await asyncio.sleep(0)
        part = scheduler.extensions[NAME]
    await asyncio.gather(*asked, return_exceptions=True)
    part._stale = 0.0
    assert [row["name"] for row in (await part.answer())["processes"]] == ["scheduler"]


@asynchronous
async def test_before_it_listens(security: Security) -> None:
    scheduler = Scheduler(security=security, dashboard=False, port=0, **HERE)
    told = await view(scheduler)
    assert [row["address"] for row in told["processes"]] == [""]
    await scheduler.close()


@asynchronous
async def test_an_error_is_not_kept(security: Security, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster(security) as scheduler:
        for name in ("paced_report", "as_dict"):
            with monkeypatch.context() as broken:
                broken.setattr(extension, name, lambda *a, **k: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    await scheduler.extensions[NAME].answer()
            assert len((await scheduler.extensions[NAME].answer())["processes"]) == 1
            scheduler.extensions[NAME]._stale = 0.0


# What a process reports


@asynchronous
async def test_a_report_is_bounded(make_party: Any, security: Security) -> None:
    async with cluster(security, "one") as scheduler, AsyncExitStack() as stack:
        party: Party = make_party("ours", "tls")
        for _ in range(MOST_LINKS):
            await stack.enter_async_context(pair(party))
        sent = report(scheduler)
        assert len(sent["links"]) <= MOST_LINKS
        assert sent["open"] >= 2 * MOST_LINKS
        assert len(msgpack.packb(sent)) < MOST_BYTES + 2000
        few = report(scheduler, most_bytes=500)
        assert 0 < len(few["links"]) < 6
        assert report(scheduler, most_links=0)["links"] == []
        everything = report(scheduler, most_links=1000, most_bytes=1 << 30)
        assert len(everything["links"]) == everything["open"]
        (state,) = scheduler.workers.values()
        assert len(state.metrics[NAME]["links"]) <= MOST_LINKS


@asynchronous
async def test_thousands_of_links_leave_the_loop_to_others(
    make_party: Any, security: Security, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paced report tells the same, and others run meanwhile; what they close is left out."""
    async with cluster(security) as scheduler, AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(pair(make_party("ours", "tls"))) for _ in range(8)]
        everything: dict[str, Any] = {"most_links": 1000, "most_bytes": 1 << 30}
        at_once = report(scheduler, **everything)
        paced = await reporting.paced_report(scheduler, **everything)
        assert sorted(row[:2] for row in paced["links"]) == sorted(r[:2] for r in at_once["links"])
        assert {**paced, "links": []} == {**at_once, "links": []}

        def describe(*arguments: Any) -> Any:
            for near, far in pairs:
                near.abort()
                far.abort()
            return original(*arguments)

        original = reporting._describe
        monkeypatch.setattr(reporting, "_describe", describe)
        monkeypatch.setattr(reporting, "_SLICE", 0.0)  # as long as the least step
        task, turns = asyncio.ensure_future(reporting.paced_report(scheduler, **everything)), 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > at_once["open"] == task.result()["open"]
        assert len(task.result()["links"]) == 1


@asynchronous
async def test_links_with_a_fault_come_first(make_party: Any, security: Security) -> None:
    """A plain one where encryption is required, among many."""
    async with cluster(security) as scheduler, AsyncExitStack() as stack:
        for _ in range(MOST_LINKS):
            await stack.enter_async_context(pair(make_party("ours", "tls")))
        await stack.enter_async_context(pair(make_party("ours", "tcp")))
        await stack.enter_async_context(pair(make_party("stock", "tcp")))
        with dask.config.set({"distributed.comm.require-encryption": True}):
            sent = report(scheduler, most_links=6)
        faulty = [row for row in sent["links"] if row[-1]]
        assert sent["links"][: len(faulty)] == faulty
        assert sorted(row[5] for row in faulty) == ["distributed"] * 2 + ["sealwire"] * 2
        assert {row[-1][0].partition(",")[0] for row in faulty} == {"encryption is required"}
        told = await view(scheduler)
        assert told["summary"]["links_with_a_fault"] == 0  # it is not required any more


# In a browser


@pytest.mark.browser
@asynchronous
async def test_a_browser_runs_nothing_but_our_script(
    security: Security, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which refreshes the page; hostile names are text in it, then too."""
    monkeypatch.setattr(extension, "_FRESH", 0.0)
    async with cluster(security, *HOSTILE) as scheduler:
        part = scheduler.extensions[NAME]
        asked: list[str] = []
        original = part.made
        loop = asyncio.get_running_loop()

        async def made(make: Any, *arguments: Any) -> Any:
            asked.append("")
            return await original(make, *arguments)

        monkeypatch.setattr(part, "made", made)
        url = f"http://127.0.0.1:{scheduler.http_server.port}/sealwire"
        text = await loop.run_in_executor(None, lambda: browse(url, seconds=12))
    assert len(asked) >= 3  # at once, after 5 s, after 10 s
    page = Page(text)
    assert page.text.count("does not answer") == 1  # in the script alone
    assert len(page.rows("processes")) == len(HOSTILE) + 1
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [tag for tag, _ in page.tags if tag in ("img", "b")]
    assert "<title>sealwire</title>" in text
