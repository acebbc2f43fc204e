"""What completion and `help` show: every parameter by its name, and nothing that is not one."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import pydoc
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealwire import comm, security
from sealwire.comm import Address, Backend, Comm, Connector, Limits, Listener, connect, listen
from sealwire.comm.api import ConnectOptions
from sealwire.comm.interfaces import Handler
from sealwire.comm.transport.client import FrameClient
from sealwire.comm.transport.server import FrameServer
from sealwire.dask_backend import Security as DaskSecurity
from sealwire.security import Role, Security
from sealwire.security.fields import FIELDS, MATERIAL
from sealwire.security.parameters import UNSET

KINDS = inspect.Parameter


def parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


@pytest.mark.parametrize("kind", [Security, DaskSecurity])
def test_security_spells_out_its_parameters(kind: type[Any]) -> None:
    found = parameters(kind)
    assert found.pop("unknown").annotation == "NoReturn"
    assert found.keys() == set(FIELDS)
    assert next(iter(found)) == "require_encryption"
    for name, parameter in found.items():
        if name != "require_encryption":
            assert parameter.kind is KINDS.KEYWORD_ONLY
            assert parameter.default is UNSET
    assert "tls_worker_cert: 'Pem | None' = <as configured>" in str(inspect.signature(kind))


@pytest.mark.parametrize("kind", [Security, DaskSecurity])
def test_temporary_spells_out_its_parameters(kind: type[Any]) -> None:
    found = parameters(kind.temporary)
    assert found.pop("unknown").annotation == "NoReturn"
    assert found.keys() == {"days", *FIELDS} - {*MATERIAL, "tls_key_password"}
    assert found["require_encryption"].default is True


def test_roles_are_the_three() -> None:
    assert typing.get_args(Role) == ("client", "scheduler", "worker")
    for method in ("get_listen_args", "get_connection_args", "get_tls_config_for_role"):
        for kind in (Security, DaskSecurity):
            assert parameters(getattr(kind, method))["role"].annotation == "Role"


@pytest.mark.parametrize(
    "function",
    [
        connect,
        listen,
        comm.register_type,
        comm.register_backend,
        comm.configure_gil,
        Limits,
        FrameServer,
        FrameClient,
        FrameClient.connect,
        Comm.write,
        Comm.read,
        Comm.close,
    ],
)
def test_no_function_takes_just_anything(function: Callable[..., object]) -> None:
    kinds = {parameter.kind for parameter in parameters(function).values()}
    assert not kinds & {KINDS.VAR_KEYWORD, KINDS.VAR_POSITIONAL}


def test_what_is_passed_on_to_connect_is_known_to_type_checkers() -> None:
    passed_on = typing.get_type_hints(ConnectOptions)
    expected = typing.get_type_hints(connect)
    del expected["return"], expected["address"], expected["timeout"]
    assert passed_on == expected


@pytest.mark.parametrize("package", [comm, security])
def test_annotations_mean_something_at_runtime(package: Any) -> None:
    """For those who read them there: validators, documentation."""
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isfunction(value):
            typing.get_type_hints(value)


class Recorded(Backend):
    """A third party's; what it is given is kept."""

    connect_arguments = ("bandwidth",)
    listen_arguments = ("bandwidth", "depth")

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    def connector(self) -> Connector:
        given = self.given

        class Recording(Connector):
            async def connect(
                self, address: Address, limits: Limits, **connection_args: Any
            ) -> Comm:
                given.update(connection_args)
                raise comm.HelloError("done")

        return Recording()

    def listener(
        self, address: Address, handler: Handler, limits: Limits, **connection_args: Any
    ) -> Listener:
        self.given.update(connection_args)
        raise comm.HelloError("done")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    from sealwire.comm import registry

    backend = Recorded()
    monkeypatch.setitem(registry._backends, "recorded", backend)
    return backend


WAYS: list[dict[str, Any]] = [
    {"bandwidth": 5},
    {"connection_args": {"bandwidth": 5}},
    {"connection_args": {"bandwidth": 1}, "bandwidth": 5},
]


@pytest.mark.parametrize("way", WAYS)
def test_a_third_partys_arguments_reach_its_backend(way: dict[str, Any], recorded: Any) -> None:
    before = repr(way)

    async def dial() -> None:
        await connect("recorded://127.0.0.1:1", **way)

    with pytest.raises(comm.HelloError):
        asyncio.run(dial())
    assert recorded.given.pop("bandwidth") == 5
    recorded.given.clear()
    with pytest.raises(comm.HelloError):
        listen("recorded://127.0.0.1:1", print, **way)
    assert recorded.given.pop("bandwidth") == 5
    assert repr(way) == before, "what was given is not changed"


@pytest.mark.parametrize("way", [{"bandwith": 5}, {"connection_args": {"bandwith": 5}}])
def test_misspelt_ones_do_not(way: dict[str, Any], recorded: Any) -> None:
    for call in (connect, lambda *args, **given: listen(*args, print, **given)):
        with pytest.raises(TypeError, match=r"'bandwith'; did you mean bandwidth\?"):
            call("recorded://127.0.0.1:1", **way)
    assert recorded.given == {}


@pytest.mark.parametrize("host", ["x", ""])
def test_a_server_name_is_none_of_tcp(host: str) -> None:
    with pytest.raises(TypeError, match="unexpected argument 'server_hostname'"):
        connect("tcp://127.0.0.1:1", server_hostname=host)


PAGE = (Path(__file__).resolve().parent.parent / "docs/configuration.md").read_text(
    encoding="utf-8"
)
TOLD = PAGE[PAGE.index("### `sealwire.limits`") :]
UNITS = {"s": 1, "ms": 1e-3, "KiB": 1 << 10, "MiB": 1 << 20}


def amount(text: str) -> float | str:
    """The number that a text begins with, in seconds or bytes; the text if there is none."""
    found = re.match(r"([\d.,]+) ?(ms|s|KiB|MiB)?\b", text)
    if found is None:
        return text
    return float(found[1].rstrip(",").replace(",", "")) * UNITS.get(found[2], 1)


def test_help_of_limits_says_what_the_page_says() -> None:
    told = pydoc.plain(pydoc.render_doc(Limits))
    defaults = Limits()
    for field in dataclasses.fields(Limits):
        (shown,) = re.findall(rf"^ \|  {field.name} : (?:int|float), default (.*)$", told, re.M)
        key = field.name.replace("_", "-")
        if key != "write-ahead":  # no setting, since in Dask no write waits
            (cell,) = re.findall(rf"^\| `{key}` \| (.*?) \|", TOLD, re.M)
            cell = re.sub(r"^`distributed.*?`, else ", "", cell)
            assert amount(shown) == amount(cell), field.name
        if isinstance(amount(shown), float):
            assert amount(shown) == getattr(defaults, field.name)
    assert "Sizes are in\n |  bytes, times in seconds" in told


ANSWERS: list[tuple[Any, list[str]]] = [
    (connect, ["timeout : float, default 30", "Seconds for name resolution", "server_hostname"]),
    (connect, ["TypeError", "ValueError", "EncryptionRequired", "ConnectTimeout", "ConnectError"]),
    (listen, ["port 0, or none, any free port", "handler : callable", "OSError", "TypeError"]),
    (Comm, ["read(self)", "write(self, message", "close(self, code", "abort(self)"]),
    (Comm.write, ["EncodeError", "MessageTooLarge", "CommClosedError", "bytes", "write_ahead"]),
    (Comm.read, ["CommClosedError", "CommBusy", "A cancelled read consumes nothing"]),
    (Comm.close, ["CloseCode", "close_timeout", "3000 to 4999", "1000 characters"]),
    (Security, ["TLS 1.2 if unset", "30 days or a third of its lifetime", "ConfigError"]),
    (Security.get_listen_args, ["PEMError", "ssl_context", "require_encryption"]),
    (comm.register_type, ["ValueError", "TypeError", "not of its subclasses", "DecodeError"]),
]


@pytest.mark.parametrize(("what", "words"), ANSWERS)
def test_help_answers(what: Any, words: list[str]) -> None:
    told = " ".join(pydoc.plain(pydoc.render_doc(what)).replace("|", " ").split())
    assert [word for word in words if word not in told] == []


@pytest.mark.parametrize("function", [connect, listen, comm.register_type, Security])
def test_help_has_a_word_for_each_parameter(function: Any) -> None:
    doc = inspect.getdoc(function) or ""
    (section,) = re.findall(r"Parameters\n-+\n(.*?)\n\n\w+\n-+", doc, re.DOTALL)
    told = {n for line in re.findall(r"^(\S.*?) : ", section, re.M) for n in line.split(", ")}
    assert parameters(function).keys() - {"unknown"} <= told
