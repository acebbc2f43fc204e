"""Values that mean nothing are told at the call of `connect` and `listen`, before any I/O."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import decimal
import fractions
import functools
import re
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sealwire.comm import (
    Calls,
    Comm,
    ConnectError,
    Limits,
    ReconnectingClient,
    broadcast,
    closed_error,
    configure_gil,
    connect,
    listen,
    parse_address,
    register_backend,
    register_error,
    register_type,
    sync,
)
from sealwire.comm.tcp import TCPBackend
from sealwire.comm.testing import pair
from sealwire.comm.transport import switch_interval
from sealwire.testing import temporary_certificates
from support.aio import aio
from support.links import echo

ADDRESS = "tcp://127.0.0.1:1"


@pytest.mark.parametrize(
    "value",
    [None, True, False, "5", b"5", [], {}, 1j, datetime.timedelta(seconds=5), decimal.Decimal(5)],
    ids=repr,
)
def test_a_timeout_of_another_type(value: Any) -> None:
    with pytest.raises(TypeError, match=r"connect\(\) got timeout=.*leave it out for 30 s"):
        connect(ADDRESS, timeout=value)


@pytest.mark.parametrize(
    "value", [0, 0.0, -0.0, -1, float("nan"), float("inf"), -(10**400), 10**400]
)
def test_a_timeout_out_of_range(value: Any) -> None:
    with pytest.raises(ValueError, match=r"connect\(\) got timeout=.*positive finite"):
        connect(ADDRESS, timeout=value)


@pytest.mark.parametrize(
    "value", [1e-9, 1, np.float32(3), np.int64(2), fractions.Fraction(1, 3), 1e300], ids=repr
)
def test_a_timeout(value: Any) -> None:
    connect(ADDRESS, timeout=value).close()


@pytest.mark.parametrize("value", [{}, {"read_ahead": 3}, 0, "", [], Limits, False, object()])
def test_limits_of_another_type(value: Any) -> None:
    with pytest.raises(TypeError, match=r"connect\(\) got limits="):
        connect(ADDRESS, limits=value)
    with pytest.raises(TypeError, match=r"listen\(\) got limits="):
        listen(ADDRESS, echo, limits=value)


@pytest.mark.parametrize(
    "given",
    [{"hold_tls": value} for value in ("no", "false", "", b"", 0, 1, None, [], float("nan"))]
    + [{name: value} for name in ("interval", "linger") for value in ("5", b"5", True, [], 1j)]
    + [{"linger": None}],
    ids=repr,
)
def test_a_policy_of_another_type(given: dict[str, Any]) -> None:
    before = switch_interval.policy()
    with pytest.raises(TypeError, match=rf"configure_gil\(\) got {next(iter(given))}=.*: need "):
        configure_gil(**given)
    assert switch_interval.policy() == before


FIELDS = dataclasses.fields(Limits)


@pytest.mark.parametrize(
    "value",
    [True, False, 0, -1, -0.5, "5", "5 s", b"5", [], 1j, decimal.Decimal(5), float("nan"),
     float("inf"), 1e308, 10**400],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_a_limit_that_cannot_be_kept(value: Any) -> None:
    """It is refused where it is given, and not by a socket or a timer later."""
    for field in FIELDS:
        with pytest.raises(ValueError, match=rf"bad limit {field.name}: got .* positive .* up to"):
            Limits(**{field.name: value})


@aio
async def test_the_largest_limits_are_kept() -> None:
    most = {"float": 10**9, "int": sys.maxsize, "int | None": sys.maxsize}
    values: dict[str, Any] = {field.name: most[str(field.type)] for field in FIELDS}
    for name in ("max_frames", "backlog", "max_pending", "max_accepts", "max_log_lines"):
        values[name] = 2**31 - 1
        with pytest.raises(ValueError, match=f"bad limit {name}: .* up to 2147483647; "):
            Limits(**{name: 2**31})
    limits = Limits(**values)
    async with (
        listen("tcp://127.0.0.1:0", echo, limits=limits) as listener,
        connect(listener.contact_address, limits=limits) as comm,
    ):
        await comm.write("hello")
        assert await comm.read() == "hello"
    assert Limits(max_frames=1e6).max_frames == 1_000_000  # type: ignore[arg-type]
    for part in (1.5, 0.5, 1e-320):
        with pytest.raises(ValueError, match="whole number"):
            Limits(max_frames=part)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, 0, "echo", [], {}, object(), asyncio.Event()])
def test_a_handler_that_cannot_be_called(value: Any) -> None:
    with pytest.raises(TypeError, match=r"listen\(\) got handler=.*async def handler\(comm\)"):
        listen(ADDRESS, value)


def test_a_handler_that_was_called() -> None:
    coroutine = echo(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="without calling it"):
        listen(ADDRESS, coroutine)  # type: ignore[arg-type]
    coroutine.close()


@pytest.mark.filterwarnings("ignore:listen.. on:RuntimeWarning")
def test_handlers() -> None:
    class Callable:
        async def __call__(self, comm: Any) -> None: ...

    for handler in (echo, Callable(), functools.partial(echo), lambda comm: None):
        listen(ADDRESS, handler)


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1", float("nan"), []])
def test_what_is_no_number_of_attempts(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"connect\(\) got max_attempts="):
        connect(ADDRESS, max_attempts=value)


@pytest.mark.parametrize("most", [1, 2, 3])
@aio
async def test_no_more_attempts_than_were_asked_for(most: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        counted = rf"refused \({most} attempts? in .* s\); check that a listener"
        with pytest.raises(ConnectError, match=counted) as caught:
            await connect(address, timeout=1000, max_attempts=most)
        assert caught.value.attempts == most
        assert caught.value.kind == "refused"
        assert isinstance(caught.value.__cause__.__cause__, ConnectionRefusedError)  # type: ignore[union-attr]


# What is yes or no: "no" and "false" would count as yes


async def _call(**given: Any) -> None:
    client = ReconnectingClient("mem://nobody")
    try:
        await client.call("now", timeout=20, **given)
    finally:
        await client.close()


CHOICES: dict[str, Callable[..., Any]] = {
    "connect() require_encryption": functools.partial(connect, ADDRESS),
    "listen() require_encryption": functools.partial(listen, ADDRESS, echo),
    "listen() cancel_on_disconnect": functools.partial(listen, ADDRESS, echo),
    "register_backend() replace": functools.partial(register_backend, "tests+x", TCPBackend()),
    "call() idempotent": lambda **given: asyncio.run(_call(**given)),
    "temporary_certificates() trust_both": lambda **given: temporary_certificates(
        other_ca="worker", **given
    ).__enter__(),
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(
    "value", ["no", "false", "", b"", 0, 1, [], float("nan"), np.False_, object], ids=repr
)
def test_a_choice_of_another_type(choice: str, value: Any) -> None:
    call, name = choice.split()
    with pytest.raises(TypeError, match=rf"{re.escape(call)} got {name}=.*: need a bool"):
        CHOICES[choice](**{name: value})


# An attempt is made once


async def _task(connecting: Any) -> Comm:
    comm: Comm = await asyncio.create_task(connecting)
    return comm


async def _enter(connecting: Any) -> Comm:
    comm: Comm = await connecting.__aenter__()
    return comm


async def _await(connecting: Any) -> Comm:
    comm: Comm = await connecting
    return comm


@pytest.mark.parametrize("first", [_task, _enter, _await])
@pytest.mark.parametrize("second", [_task, _enter, _await])
@pytest.mark.parametrize("at_once", [True, False])
@aio
async def test_what_connect_returns_is_used_once(first: Any, second: Any, at_once: bool) -> None:
    """As any coroutine; or the comm of the other use would stay open, and nobody close it."""
    async with listen("mem://", echo) as listener:
        connecting = connect(listener.contact_address)
        if at_once:
            done = await asyncio.gather(
                first(connecting), second(connecting), return_exceptions=True
            )
            (error,) = [each for each in done if isinstance(each, RuntimeError)]
            (comm,) = [each for each in done if isinstance(each, Comm)]
        else:
            comm = await first(connecting)
            with pytest.raises(RuntimeError) as caught:
                await second(connecting)
            error = caught.value
        assert re.search(r"second time.*call connect\(…\) again|reuse already awaited", str(error))
        await comm.write("still open")
        assert await comm.read() == "still open"
        await comm.close()


# Values that cannot be shown


class Unspeakable:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    def __repr__(self) -> str:
        if self.error is None:
            return "x" * 10**6
        raise self.error


async def _over_a_pair(use: Callable[[Comm], Any]) -> None:
    async with pair() as (comm, _, _):
        made = use(comm)
        if asyncio.iscoroutine(made):
            await made


def _with(use: Callable[[Any, Comm], Any]) -> Callable[[Any], None]:
    return lambda value: asyncio.run(_over_a_pair(functools.partial(use, value)))


class OwnError(Exception):
    pass


USES: dict[str, Callable[[Any], Any]] = {
    "parse_address": parse_address,
    "connect": lambda value: connect(value),
    "connect timeout": lambda value: connect(ADDRESS, timeout=value),
    "connect max_attempts": lambda value: connect(ADDRESS, max_attempts=value),
    "connect limits": lambda value: connect(ADDRESS, limits=value),
    "connect ssl_context": lambda value: connect(ADDRESS, ssl_context=value),
    "connect tls": lambda value: asyncio.run(_await(connect("tls://h:1", ssl_context=value))),
    "listen": lambda value: listen(value, echo),
    "listen handler": lambda value: listen(ADDRESS, value),
    "Limits": lambda value: Limits(read_ahead=value),
    "configure_gil": lambda value: configure_gil(interval=value),
    "register_type": lambda value: register_type(value, len, len),
    "register_type encode": lambda value: register_type(OwnError, value, len),
    "register_type name": lambda value: register_type(OwnError, len, len, name=value),
    "register_error": lambda value: register_error(value),
    "register_error fields": lambda value: register_error(OwnError, fields=[value]),
    "register_error name": lambda value: register_error(OwnError, name=value),
    "register_backend": lambda value: register_backend("tests+x", value),
    "register_backend scheme": lambda value: register_backend(value, TCPBackend()),
    "closed_error": lambda value: closed_error("tcp://h:1", value),
    "closed_error by": lambda value: closed_error("tcp://h:1", closed_by=value),
    "write": _with(lambda value, comm: comm.write(1, timeout=value)),
    "close": _with(lambda value, comm: comm.close(value)),
    "broadcast": _with(lambda value, comm: broadcast([comm, value], 1)),
    "broadcast slow": _with(lambda value, comm: broadcast([comm], 1, slow=value)),
    "broadcast most": _with(lambda value, comm: broadcast([comm], 1, max_queued=value)),
    "Calls": _with(lambda value, comm: Calls(value)),
    "Calls handlers": _with(lambda value, comm: Calls(comm, {"a": value})),
    "Calls bound": _with(lambda value, comm: Calls(comm, max_running=value)),
    "Calls call": _with(lambda value, comm: Calls(comm).call(value)),
    "Calls timeout": _with(lambda value, comm: Calls(comm).call("a", timeout=value)),
    "client": _with(lambda value, comm: ReconnectingClient(value)),
    "client on_connect": _with(lambda value, comm: ReconnectingClient(ADDRESS, on_connect=value)),
    "client codes": _with(lambda value, comm: ReconnectingClient(ADDRESS, final_codes=[[value]])),
    "sync": lambda value: sync.Calls(value),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    "value",
    [
        Unspeakable(ZeroDivisionError()),
        Unspeakable(SystemExit(3)),
        Unspeakable(KeyboardInterrupt()),
        Unspeakable(None),
        -(10**5000),
    ],
    ids=["raises", "exits", "interrupts", "long", "many digits"],
)
def test_a_value_without_a_short_text_is_refused_as_any(use: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        USES[use](value)
    assert len(str(caught.value)) < 800
    assert "Exceeds the limit" not in str(caught.value)


# Functions of which nothing would run


def _yields(_: Any) -> Any:
    yield 1


async def _yields_later(_: Any) -> Any:
    yield 1


class Yields:
    def __call__(self, comm: Any) -> Any:
        yield comm

    async def method(self, comm: Any) -> Any:
        yield comm


GENERATORS: dict[str, Any] = {
    "function": _yields,
    "coroutine function": _yields_later,
    "object": Yields(),
    "method": Yields().method,
    "partial": functools.partial(functools.partial(_yields_later), None),
}
TAKES: dict[str, Callable[[Any], Any]] = {
    "listen": _with(lambda function, comm: listen(ADDRESS, function).stop()),
    "Calls": _with(lambda function, comm: Calls(comm, {"a": function})),
    "client": _with(lambda function, comm: ReconnectingClient("mem://x", {"a": function})),
    "on_connect": _with(lambda function, comm: ReconnectingClient("mem://x", on_connect=function)),
}


@pytest.mark.parametrize("take", TAKES)
@pytest.mark.parametrize("function", GENERATORS)
def test_a_function_with_a_yield_is_refused(take: str, function: str) -> None:
    """It was taken, and the comm closed at once as if the handler had done its work."""
    with pytest.raises(TypeError, match="generator, which does nothing; write it without yield"):
        TAKES[take](GENERATORS[function])


@types.coroutine
def _old_coroutine(comm: Any) -> Any:
    yield from asyncio.sleep(0).__await__()


class Waits:
    def __await__(self) -> Any:
        yield


@pytest.mark.parametrize(
    "function", [_old_coroutine, Waits, lambda _: Waits(), contextlib.contextmanager(_yields), id]
)
def test_others_are_taken(function: Any) -> None:
    for take in TAKES.values():
        take(function)
