"""The blocks of code in the documents: what can be run here is run, the rest is at least valid.

Other tests run what needs certificates, processes or a cluster; a page with code is named by one.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import click
import pytest
import yaml
from click.testing import CliRunner

from sealwire.cli.main import main
from sealwire.comm import CallRefused, Calls, CloseCode, Comm, connect, listen
from sealwire.security import Security, config
from support.aio import aio, until

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PATIENCE = 60  # seconds


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def named(language: str) -> list[Any]:
    return [
        pytest.param(block, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page, language))
    ]


STANDALONE = blocks(ROOT / "docs" / "standalone.md", "python")


def standalone(word: str) -> str:
    return next(block for block in STANDALONE if word in block)


@pytest.mark.parametrize("block", named("python"))
def test_python_compiles(block: str) -> None:
    compile(block, "block", "exec")


@pytest.mark.parametrize("block", named("python"))
def test_what_python_imports_takes_these_arguments(block: str) -> None:
    """Of what a block imports and calls by that name."""
    tree = ast.parse(block)
    known: dict[str, Any] = {}
    for each in ast.walk(tree):
        if isinstance(each, ast.ImportFrom):
            exec(compile(ast.Module([each], []), "block", "exec"), known)
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            given = {each.arg for each in call.keywords if each.arg is not None}
            if given and call.func.id in known:
                inspect.signature(known[call.func.id]).bind_partial(**dict.fromkeys(given))


@pytest.mark.parametrize("block", named("yaml"))
def test_configuration_can_be_used(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every key is known, and every value is one, but for files that are not here."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for tree in yaml.safe_load_all(block):
        if isinstance(tree, dict) and {"distributed", "sealwire"} & tree.keys():
            file = tmp_path / "dask.yaml"
            file.write_text(yaml.safe_dump(tree))
            assert config.unknown_keys(str(file)) == []
            done = CliRunner().invoke(main, ["config", "--json", str(file)])
            found = json.loads(done.stdout)["findings"]
            assert [each for each in found if each["severity"] != "note"] == []


FENCED = re.compile(r"^ *```(\S*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SHELL = ("", "bash", "console", "text", "yaml")
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
CALL = re.compile(r"(?<![\w./-])(?:dask )?(sealwire|dask (?:scheduler|worker)) ([-\w].*)")
END = re.compile(r"\s#\s|\s[<>&|]|[;|)`]")  # of a command in a line


def commands() -> Iterator[Any]:
    """Every command of ours and of Dask's that a page has, in a block or within a line."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        inline = [" ".join(each.split()) for each in INLINE.findall(FENCED.sub("", text))]
        shell = [block for language, block in FENCED.findall(text) if language in SHELL]
        found = CALL.findall("\n".join([*shell, *inline]).replace("\\\n", " "))
        for program, line in dict.fromkeys(found):
            words = re.sub(r"'[^']*'|\"[^\"]*\"", "x", line)
            arguments = END.split(words)[0].split()
            yield pytest.param(program, arguments, id=f"{page.stem}: {program} {line[:40]}")


def program_of(name: str) -> click.Command:
    if name == "sealwire":
        return main
    module = importlib.import_module(f"distributed.cli.{name.replace(' ', '_')}")
    return cast("click.Command", module.main)


@pytest.mark.parametrize(("program", "words"), list(commands()))
def test_commands_and_options_exist(program: str, words: list[str]) -> None:
    """By their names; their values are for the tests that run them."""
    command = program_of(program)
    while isinstance(command, click.Group) and words and words[0][0] not in "-…":
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, words[0]
        command, words = found, words[1:]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert options <= known | {"--help", "-h", "--version"}


def test_commands_are_found_wherever_they_stand() -> None:
    names = {" ".join((program, *words)) for program, words in (each.values for each in commands())}
    assert len(names) > 60
    assert "sealwire certs token --role scheduler" in names, "within $(…)"
    assert "sealwire certs init --seen-at /etc/sealwire" in names, "within a sentence"
    assert any(each.startswith("dask worker tls://") for each in names)


def test_every_page_with_code_is_run_by_a_test() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    for page in PAGES:
        if blocks(page, "python") or blocks(page, "console") or blocks(page, "bash"):
            assert re.search(rf"\b{re.escape(page.name)}\b", tests), page.name


def test_a_link_that_is_cut() -> None:
    names: dict[str, Any] = {}
    exec(standalone("link.cut"), names)
    names["test_a_cut_link_is_an_error"]()


def test_calls(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(standalone("ReconnectingClient"), names)
    asyncio.run(asyncio.wait_for(names["main"]([]), PATIENCE))
    added, again = capsys.readouterr().out.splitlines()
    assert re.match(r"3 [\d.e-]+$", added)
    assert again == "3"


@aio
async def test_the_role_of_a_peer() -> None:
    names: dict[str, Any] = {}
    exec(standalone("def role"), names)
    security = Security.temporary()
    roles: list[str] = []

    async def note(comm: Comm) -> None:
        roles.append(names["role"](comm))

    server = security.get_listen_args("scheduler")
    async with listen("tls://127.0.0.1:0", note, **server) as listener:
        client = security.get_connection_args("worker")
        async with connect(listener.contact_address, **client) as comm:
            assert names["role"](comm) == "scheduler"
            assert [message async for message in comm] == []
    assert roles == ["worker"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_shutting_down(number: signal.Signals) -> None:
    """What runs is answered, by the server and by the worker."""
    names: dict[str, Any] = {}
    exec(standalone("stop_signal()"), names)
    before = signal.getsignal(number)
    registered: list[str] = []

    @aio
    async def main() -> None:
        go_on = asyncio.Event()
        handlers = {"work": go_on.wait, "register": registered.append}

        async def stop_the_other(calls: Calls) -> None:
            working = asyncio.ensure_future(calls.call("work", timeout=PATIENCE))
            await calls.ping()
            os.kill(os.getpid(), number)
            kind = ""
            while kind != "stopping":
                with pytest.raises(CallRefused) as refused:
                    await calls.call("nothing", timeout=PATIENCE)
                kind = refused.value.kind
            go_on.set()
            assert await working is True
            await calls.wait_closed()

        async def serve(comm: Comm) -> None:
            async with Calls(comm, handlers) as calls:
                await until(lambda: registered != [])
                await stop_the_other(calls)

        async with listen("mem://worker", serve):
            await names["worker"]("mem://worker", {"work": go_on.wait}, "w1")
        assert registered == ["w1"]
        assert signal.getsignal(number) is before
        go_on.clear()

        async def answer(comm: Comm) -> None:
            async with Calls(comm, handlers) as calls:
                await calls.serve()

        serving = asyncio.ensure_future(names["server"]("mem://server", answer))
        await until(lambda: signal.getsignal(number) is not before or serving.done())
        async with Calls(await connect("mem://server")) as calls:
            await stop_the_other(calls)
            assert calls.failure is not None
            assert calls.failure.code == CloseCode.GOING_AWAY
        await serving

    main()


@contextmanager
def adding() -> Iterator[str]:
    """The address of a listener in a thread, whose calls add."""
    address: list[str] = []
    ready = threading.Event()

    async def serve(comm: Any) -> None:
        async with Calls(comm, {"add": lambda a, b: a + b}) as calls:
            await calls.serve()

    async def run() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with listen("tcp://127.0.0.1:0", serve) as listener:
            address.append(listener.contact_address)
            end.append(lambda: loop.call_soon_threadsafe(stop.set))
            ready.set()
            await asyncio.wait_for(stop.wait(), PATIENCE)
            await listener.close(grace=PATIENCE)

    end: list[Any] = []
    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield address[0]
    finally:
        end[0]()
        thread.join(PATIENCE)


def test_without_an_event_loop(capsys: pytest.CaptureFixture[str]) -> None:
    code = standalone("sealwire.comm import sync")
    with adding() as address:
        exec(code.replace("tcp://127.0.0.1:8786", address), {})
    assert capsys.readouterr().out == "3\n"
