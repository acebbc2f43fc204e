"""The examples in docstrings are run, and the trees of errors in them are the classes there are."""

from __future__ import annotations

import ast
import asyncio
import functools
import importlib
import inspect
import os
import re
import signal
import ssl
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sealwire import comm, security
from sealwire.comm import Calls, Comm, connect, listen
from sealwire.comm.calls import errors as call_errors
from sealwire.comm.testing import pair
from sealwire.comm.transport.client import FrameClient
from sealwire.comm.transport.server import FrameServer
from sealwire.security import Security
from sealwire.testing import temporary_certificates
from support.aio import aio, until

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("comm", "security", "joining", "metrics", "dask_backend", "cli", "testing")
BLOCK = re.compile(
    r"::\n\n((?:    [^\n]*\n|\n)+)|^```(?:python)?\n(.*?)^```", re.MULTILINE | re.DOTALL
)


@functools.cache  # not at import: each process of xdist imports this file
def examples() -> dict[str, str]:
    """Every indented or fenced block in a docstring, by its file and the name it belongs to."""
    found = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ):
                continue
            for number, block in enumerate(BLOCK.findall(f"{ast.get_docstring(node) or ''}\n")):
                name = f"{path.relative_to(ROOT)} {getattr(node, 'name', '')}".strip()
                found[name + number * "+"] = textwrap.dedent("".join(block))
    return found


#: What is no program, or is run elsewhere.
OTHERS = {
    "comm/calls/envelopes.py": "a table",
    "comm/codec.py": "a table",
    "comm/wire/framing.py": "a figure",
    "security/errors.py": "a tree",
    "joining/errors.py": "a tree",
    "dask_backend/__init__.py": "an outline",
    "metrics/__init__.py": "tests/metrics/test_monitoring.py",
    "testing/__init__.py": "tests/testing/test_page.py runs the like",
}


async def run(name: str, /, **names: Any) -> dict[str, Any]:
    """Run an example, in a namespace of the public names of `sealwire.comm` and of `names`."""
    public = {each: getattr(comm, each) for each in comm.__all__}
    space: dict[str, Any] = {**public, **names}
    code = compile(examples()[name], name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        await eval(code, space)
    else:
        exec(code, space)
    return space


async def echo(connection: Comm) -> None:
    async for message in connection:
        await connection.write(message)


def adding(connection: Comm) -> Awaitable[None]:
    return serving(connection, {"add": lambda a, b: a + b})


async def serving(connection: Comm, handlers: dict[str, Callable[..., Any]]) -> None:
    async with Calls(connection, handlers) as calls:
        await calls.serve()


@aio
async def test_comm() -> None:
    made = await run(
        "comm/__init__.py", security=Security.temporary(), echo=echo, array=np.arange(5)
    )
    assert made["reply"]["op"] == "put"
    assert made["reply"]["data"].tolist() == [0, 1, 2, 3, 4]
    await made["comm"].close()
    await made["listener"].close()


@aio
async def test_broadcast() -> None:
    async with pair() as (one, other, _):
        made = await run("comm/broadcast.py broadcast", comms=[one])
        assert await other.read() == {"op": "news"}
        assert made["sent"] == [one]


@aio
async def test_encoded_message() -> None:
    async with pair() as (one, other, _):
        listener = type("listener", (), {"comms": [one]})
        await run("comm/encoding.py EncodedMessage", listener=listener, data=bytearray(9))
        assert await other.read() == {"op": "news", "data": bytes(9)}


def test_calls(capsys: pytest.CaptureFixture[str]) -> None:
    @aio
    async def main() -> None:
        served: list[Any] = []
        async with listen("mem://", lambda each: served[0](each)) as listener:
            name = "comm/calls/calls.py Calls"
            made: dict[str, Any] = {}
            definition = ast.parse(examples()[name]).body[0]
            exec(compile(ast.Module([definition], []), name, "exec"), made | {"Calls": Calls}, made)
            made["serve"].__globals__["Calls"] = Calls
            served.append(made["serve"])
            await run(name, address=listener.contact_address)

    main()
    assert capsys.readouterr().out == "3\n"


def test_registered_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    @aio
    async def main() -> None:
        made = await run("comm/calls/errors.py register_error", __name__="shop")
        raised = [KeyError("a"), made["OutOfStock"]("b")]

        def fail(number: int) -> None:
            raise raised[number]

        async with pair() as (one, other, _), Calls(one) as calls, Calls(other, {"fail": fail}):
            for number, error in enumerate(raised):
                with pytest.raises(type(error), match=error.args[0]):
                    await calls.call("fail", number)

    for registry in ("_by_class", "_by_name"):
        monkeypatch.setattr(call_errors, registry, dict(getattr(call_errors, registry)))
    main()


@aio
async def test_reconnecting_client() -> None:
    told: list[Any] = []
    handlers = {"register": told.append, "put": lambda *given: told.extend(given)}
    async with listen("mem://", lambda each: serving(each, handlers)) as listener:
        name = "comm/calls/reconnect.py ReconnectingClient"
        await run(name, address=listener.contact_address, name="w1", key="k", value=[1])
    assert told == ["w1", "k", [1]]


def test_stop_signal() -> None:
    before = signal.getsignal(signal.SIGTERM)

    @aio
    async def main() -> None:
        running = asyncio.ensure_future(
            run("comm/signals.py stop_signal", address="mem://docstring", serve=echo)
        )
        await until(lambda: signal.getsignal(signal.SIGTERM) is not before or running.done())
        async with connect("mem://docstring") as client:
            os.kill(os.getpid(), signal.SIGTERM)
            assert [message async for message in client] == []
        made = await running
        assert made["listener"].comms == ()

    main()
    assert signal.getsignal(signal.SIGTERM) is before


def test_without_an_event_loop(capsys: pytest.CaptureFixture[str]) -> None:
    @aio
    async def main() -> None:
        handlers = [echo, adding]
        async with listen("tcp://127.0.0.1:0", lambda each: handlers.pop(0)(each)) as listener:
            code = compile(examples()["comm/sync.py"], "sync", "exec")
            names: dict[str, Any] = {"address": listener.contact_address}
            await asyncio.to_thread(exec, code, names)
            assert names["reply"] == {"op": "put"}
            await listener.close(grace=9)

    main()
    assert capsys.readouterr().out == "3\n"


@aio
async def test_a_pair() -> None:
    made = await run("comm/testing.py", pair=pair, pytest=pytest)
    assert made["b"].closed()


@aio
async def test_frame_server(monkeypatch: pytest.MonkeyPatch) -> None:
    identities = Security.temporary()
    name = "comm/transport/server.py FrameServer"
    monkeypatch.setitem(examples(), name, examples()[name].replace("8786", "0"))  # a free port
    server = (await run(name, FrameServer=FrameServer, security=identities))["server"]
    context = identities.get_connection_args("worker")["ssl_context"]
    stream = await FrameClient().connect("127.0.0.1", server.address[1], ssl_options=context)
    stream.write([b"first", b"second"])
    assert [bytes(frame) for frame in await stream.read_frames()] == [b"first", b"second"]
    stream.close()
    server.stop()


@aio
async def test_an_authority() -> None:
    public = {each: getattr(security, each) for each in security.__all__}
    made = await run("security/ca/authority.py", **public)
    made["Security"](
        tls_ca_file=made["authority"].certificate,
        tls_worker_cert=made["worker"].certificate,
        tls_worker_key=made["worker"].key,
    ).get_connection_args("worker")


@aio
async def test_temporary_certificates() -> None:
    name = "testing/identities.py temporary_certificates"
    made = await run(name, temporary_certificates=temporary_certificates)
    assert isinstance(made["args"]["ssl_context"], ssl.SSLContext)


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert set(OTHERS) <= set(examples())
    programs = [name for name in examples() if name not in OTHERS]
    assert [name for name in programs if text.count(f'"{name}"') != 1] == []


def test_the_metrics_are_registered_as_on_their_page() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    assert examples()["metrics/__init__.py"].strip() in re.sub(r"  #.*", "", page)


@pytest.mark.parametrize(
    "module", ["comm.errors", "comm.calls.errors", "security.errors", "joining.errors"]
)
def test_the_tree_of_errors(module: str) -> None:
    """Each class with its base among them, and the foreign base it names; none is missing."""
    found = importlib.import_module(f"sealwire.{module}")
    above: list[str] = []
    shown = set()
    base = None
    tree = r"^([ │├└─]*)([A-Z]\w+)(?:\((\w+)\))?(?= |$)"
    for lead, name, foreign in re.findall(tree, found.__doc__ or "", re.MULTILINE):
        if not isinstance(kind := getattr(found, name, None), type):
            continue
        base = len(lead) if base is None else base
        level = (len(lead) - base) // 3
        above[level:] = [name]
        bases = [each.__name__ for each in kind.__mro__[1:]]
        assert level == 0 or above[level - 1] in bases, name
        assert not foreign or foreign in bases, name
        shown.add(name)
    there = {
        name
        for name, kind in vars(found).items()
        if isinstance(kind, type)
        and issubclass(kind, Exception)
        and kind.__module__ == found.__name__
        and not name.startswith("_")
    }
    assert shown == there
