"""`register_type`: every kind of class travels, or is refused when it is registered."""

from __future__ import annotations

import abc
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import pathlib
import pickle
import threading
import typing
import uuid
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest

from sealwire.comm import DecodeError, EncodeError, extensions, register_type
from sealwire.comm.codec import OUT_OF_BAND, decode, encode


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    for name in ("by_class", "by_name", "_owners"):
        monkeypatch.setattr(extensions, name, dict(getattr(extensions, name)))
    for module in ("encoding", "decoding"):
        for name in ("by_class", "by_name"):
            path = f"sealwire.comm.{module}.{name}"
            monkeypatch.setattr(path, getattr(extensions, name), raising=False)


def travel(message: Any) -> Any:
    return decode([bytearray(frame) for frame in encode(message)])


class Text(str):
    pass


class Count(int):
    pass


class Ratio(float):
    pass


class Many(list[Any]):
    pass


class Pair(tuple[Any, ...]):
    pass


class Digest(bytes):
    pass


class Memory(bytearray):
    pass


class Table(dict[Any, Any]):
    pass


class Point(typing.NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Sample:
    name: str
    data: bytes


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Name(str, enum.Enum):
    ADA = "ada"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Image(np.ndarray[Any, Any]):
    pass


class Later(datetime.datetime):
    pass


class Wrong(Exception):
    def __eq__(self, other: object) -> bool:
        return type(other) is Wrong and self.args == other.args

    __hash__ = Exception.__hash__


image = np.arange(OUT_OF_BAND).view(Image)
moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 6)
Plain = Callable[[Any], Any]
#: how each is registered: an object, a function to a message, one from it
KINDS: dict[str, tuple[Any, Plain, Plain]] = {
    "str": (Text("x"), str, Text),
    "int": (Count(5), int, Count),
    "a large int": (Count(1 << 100), int, Count),
    "float": (Ratio(0.5), float, Ratio),
    "list": (Many([1, b"x"]), list, Many),
    "tuple": (Pair((1, 2)), list, Pair),
    "bytes": (Digest(b"x"), bytes, Digest),
    "many bytes": (Digest(bytes(OUT_OF_BAND)), bytes, Digest),
    "bytearray": (Memory(b"x"), bytearray, Memory),
    "dict": (Table({"a": 1}), dict, Table),
    "OrderedDict": (
        collections.OrderedDict(b=1, a=2),
        lambda d: list(d.items()),
        collections.OrderedDict,
    ),
    "Counter": (collections.Counter("aab"), dict, collections.Counter),
    "deque": (collections.deque([1, 2]), list, collections.deque),
    "namedtuple": (Point(1, 2), list, lambda items: Point(*items)),
    "dataclass": (Sample("a", b"b"), vars, lambda fields: Sample(**fields)),
    "enum": (Colour.RED, lambda member: member.value, Colour),
    "IntEnum": (Level.LOW, int, Level),
    "text enum": (Name.ADA, lambda member: member.value, Name),
    "flags": (Right.READ | Right.WRITE, lambda member: member.value, Right),
    "set": ({1, 2}, list, set),
    "frozenset": (frozenset({1}), list, frozenset),
    "complex": (1 + 2j, lambda c: [c.real, c.imag], lambda parts: complex(*parts)),
    "range": (range(3), lambda r: [r.start, r.stop], lambda ends: range(*ends)),
    "Decimal": (decimal.Decimal("0.10"), str, decimal.Decimal),
    "Fraction": (fractions.Fraction(1, 3), str, fractions.Fraction),
    "UUID": (uuid.UUID(int=5), str, uuid.UUID),
    "a path": (pathlib.Path("/x"), str, pathlib.Path),
    "date": (datetime.date(2026, 1, 2), str, datetime.date.fromisoformat),
    "time": (datetime.time(1, 2), str, datetime.time.fromisoformat),
    "timedelta": (
        datetime.timedelta(1, 2),
        lambda d: d.total_seconds(),
        lambda seconds: datetime.timedelta(seconds=seconds),
    ),
    "datetime": (Later(2026, 1, 2), lambda m: m.isoformat(), Later.fromisoformat),
    "exception": (Wrong("x"), lambda error: list(error.args), lambda args: Wrong(*args)),
    "array": (image, np.asarray, lambda array: array.view(Image)),
    "masked array": (
        np.ma.array([1, 2], mask=[True, False]),
        lambda a: [a.data, a.mask],
        lambda parts: np.ma.array(parts[0], mask=parts[1]),
    ),
    "numpy float": (np.float64(0.5), float, np.float64),
    "numpy int": (np.int16(5), int, np.int16),
    "nanoseconds": (
        np.datetime64("2026-01-01T00:00:00.123456789"),
        np.asarray,
        lambda array: array[()],
    ),
    "timestamp": (
        msgpack.Timestamp(1, 2),
        lambda t: [t.seconds, t.nanoseconds],
        lambda parts: msgpack.Timestamp(*parts),
    ),
    "a class": (Point, lambda cls: cls.__name__, lambda name: globals()[name]),
    "a function": (travel, lambda f: f.__name__, lambda name: globals()[name]),
}


@pytest.mark.parametrize("name", KINDS)
def test_any_class_travels(name: str) -> None:
    sent, to_message, from_message = KINDS[name]
    register_type(type(sent), to_message, from_message)
    for message in (sent, [sent], {"deep": [1, {"b": sent}]}, (b"x", sent), [0] * 20 + [sent]):
        received = travel(message)
        while type(received) in (list, dict):
            received = received[-1] if type(received) is list else next(iter(received.values()))
        assert type(received) is type(sent)
        if isinstance(sent, np.ndarray):
            assert np.array_equal(received, sent)
        else:
            assert received == sent


@pytest.mark.parametrize("base", [Text, Table, Many, Digest])
def test_a_subclass_of_a_registered_one_is_as_before(base: Any) -> None:
    """It arrives in its plain form, as unregistered subclasses do."""
    special = type("Special", (base,), {})
    before = travel([special()])
    register_type(base, lambda value: None, lambda message: None)
    assert travel([special()]) == before
    assert type(before[0]) in (str, dict, list, bytearray)


def test_a_subclass_of_a_registered_class_is_refused_by_name() -> None:
    class Special(Sample):
        pass

    register_type(Sample, vars, lambda fields: Sample(**fields))
    with pytest.raises(EncodeError, match=r"^\[1\]: cannot encode .*Special: its base .*Sample is"):
        encode([1, Special("a", b"b")])


def test_keys_are_plain_all_the_same() -> None:
    register_type(Text, str, Text)
    register_type(Level, int, Level)
    received = travel({Text("x"): b"1", Level.LOW: 2})
    assert {key: type(key) for key in received} == {"x": str, 1: int}


@pytest.mark.parametrize("sent", [Text("x"), Table(a=1), Point(1, 2), Sample("a", b"b")])
def test_a_stock_peer_gets_none(sent: Any) -> None:
    register_type(type(sent), str, str)
    with pytest.raises(EncodeError, match="stock"):
        encode([sent], buffers=False, arrays=False)


class Abstract(abc.ABC):
    @abc.abstractmethod
    def x(self) -> None: ...


class Form(typing.Protocol):
    pass


NO_VALUE: list[type] = [type(None), bool, int, float, str, bytes, bytearray, memoryview]
NO_VALUE += [dict, list, tuple, datetime.datetime, pickle.PickleBuffer, np.ndarray, np.memmap]
NO_VALUE += [pathlib.Path, pathlib.PurePath, np.dtype, enum.Enum, enum.IntEnum, enum.Flag]
NO_VALUE += [Abstract, Form, collections.abc.Mapping]


@pytest.mark.parametrize("cls", NO_VALUE, ids=lambda cls: cls.__qualname__)
def test_what_would_not_be_asked_is_refused(cls: Any) -> None:
    before = dict(extensions.by_class)
    with pytest.raises(ValueError, match=r"^cannot register .*: .*[;] "):
        register_type(cls, str, cls)
    assert extensions.by_class == before


@pytest.mark.parametrize("cls", ["Point", None, 5, Point(1, 2), list[int], int | str, len])
def test_what_is_no_class_is_refused(cls: Any) -> None:
    with pytest.raises(TypeError, match=r"^cannot register .*: it is no class; "):
        register_type(cls, str, str)


async def later(value: Any) -> Any:
    return value


@pytest.mark.parametrize("function", [None, 5, "str", later])
def test_what_is_no_function_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match="encode is"):
        register_type(Sample, function, Sample)
    with pytest.raises(TypeError, match="decode is"):
        register_type(Sample, vars, function)


@pytest.mark.parametrize("name", ["", "\ud800", 5, b"x", ["x"], False])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"its name .*; "):
        register_type(Sample, vars, vars, name=name)


@pytest.mark.parametrize("name", ["x", " ", "ünï", "a" * 100_000, "x\n\x1b[0m"])
def test_any_text_is_a_name(name: str) -> None:
    register_type(Sample, vars, lambda fields: Sample(**fields), name=name)
    assert travel(Sample("a", b"b")) == Sample("a", b"b")


def test_a_name_belongs_to_one_class_for_good() -> None:
    register_type(Sample, vars, lambda fields: Sample(**fields), name="first")
    register_type(Sample, vars, lambda fields: Sample(**fields), name="second")
    with pytest.raises(ValueError, match=r"'first' is taken by .*Sample"):
        register_type(Point, list, lambda items: Point(*items), name="first")


def test_registering_again_replaces_both_functions() -> None:
    register_type(Sample, lambda s: s.name, lambda name: Sample(name, b"1"))
    old = encode(Sample("a", b""))
    register_type(Sample, lambda s: [s.name], lambda names: Sample(names[0], b"2"))
    assert travel(Sample("a", b"")) == Sample("a", b"2")
    assert decode([bytearray(old[0])]) == Sample("a", b"2")


def test_an_encoder_that_gives_its_own_type_ends() -> None:
    for function in (lambda s: s, lambda s: [s, s], lambda s: {"a": Sample(s, b"")}):
        register_type(Sample, function, Sample)
        with pytest.raises(EncodeError, match=r"Sample: objects .* nested more than 32 deep; "):
            encode({"a": [Sample("a", b"b")]})


BAD: dict[str, Any] = {
    "ZeroDivisionError": lambda s: 1 // 0,
    "TypeError": lambda s: s + 1,
    "KeyError": lambda s: {}[s.name],
    "RecursionError": lambda s: BAD["RecursionError"](s),
    "EncodeError": lambda s: encode({1}),
    "StopIteration": lambda s: next(iter(())),
}


@pytest.mark.parametrize("name", BAD)
def test_an_encoder_that_raises(name: str) -> None:
    register_type(Sample, BAD[name], Sample)
    with pytest.raises(EncodeError) as caught:
        encode({"a": [0, Sample("a", b"b")]})
    text = str(caught.value)
    assert text.startswith('["a"][1]: cannot encode ')
    assert f"the function registered for it raised {name} (" in text
    assert len(text) < 500
    assert type(caught.value.__cause__).__name__ == name


def test_what_an_encoder_gives_is_looked_at() -> None:
    for odd in ({1, 2}, [{"x": {1, 2}}], object(), 1 << 20_000, {(1,): 2}, "\ud800", len):
        register_type(Sample, lambda s, odd=odd: odd, Sample)
        with pytest.raises(EncodeError, match=r'^\["a"\]'):
            encode({"a": Sample("a", b"b")})
    huge = [np.zeros(1 << 20), bytes(1 << 20), ["x"] * 100_000]
    register_type(Sample, lambda s: huge, lambda message: Sample("", message))
    assert np.array_equal(travel(Sample("a", b"b")).data[0], huge[0])


def test_an_encoder_that_changes_the_message() -> None:
    message: dict[Any, Any] = {}

    def growing(sample: Sample) -> int:
        message[len(message)] = 1
        return 1

    register_type(Sample, growing, Sample)
    message.update({"a": Sample("a", b"b"), "b": 1})
    with pytest.raises(EncodeError, match="changed size during iteration; "):
        encode(message)


def test_functions_that_register() -> None:
    def encoding(sample: Sample) -> list[Any]:
        register_type(Point, list, lambda items: Point(*items))
        return [sample.name, Point(1, 2)]

    def decoding(message: list[Any]) -> Any:
        register_type(Text, str, Text)
        return message

    register_type(Sample, encoding, decoding)
    assert travel([Sample("a", b"b"), Text("x")]) == [["a", (1, 2)], "x"]
    assert type(travel(Text("x"))) is Text


def test_a_decoder_that_raises_is_named() -> None:
    register_type(Sample, vars, lambda fields: fields["no\nsuch"])
    frames = encode({"a": [0, Sample("a", b"b")]})
    with pytest.raises(DecodeError) as caught:
        decode([bytearray(frame) for frame in frames])
    assert '(["a"][1]: the function registered for' in str(caught.value)
    assert "raised KeyError: 'no" in str(caught.value)
    assert type(caught.value.__cause__) is KeyError
    assert str(caught.value).isprintable()


def test_many_threads_register_and_encode() -> None:
    """While the registry grows, nothing fails and nothing is lost."""
    kinds = [type(f"Kind{n}", (), {"n": n}) for n in range(400)]
    failed: list[BaseException] = []
    ready = threading.Barrier(8)

    def work(first: int) -> None:
        try:
            ready.wait(30)
            for kind in kinds[first::8]:
                register_type(kind, lambda o: o.n, lambda n: n, name=f"kind {kind.n}")
                assert travel([kind(), {"a": kind()}]) == [kind.n, {"a": kind.n}]
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert travel([kind() for kind in kinds]) == list(range(400))
