"""Each setting with each wrong value: the schema and the readers agree, and errors have the unit.

An editor that has the schema, `sealwire config`, and a process that starts must say the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dask.utils import parse_bytes, parse_timedelta
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sealwire.cli.config.judge import judged
from sealwire.comm import configure_gil
from sealwire.dask_backend.values import parsed
from sealwire.security import schema
from sealwire.security.config import duration

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = yaml.safe_load((ROOT / "version" / "sealwire-schema.yaml").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
SETTINGS = schema.settings()

VALUES: list[Any] = [
    True, False, 0, 1, -1, 2, 0.5, 2.5, 10**30, -(10**30), 2**31, "", " ", "x", "true", "no", "0",
    "1", "-1", "5 s", "5s", " 5 ms ", "-5 s", "2 h", "3 Days", "5 MiB", "5kb", "-5 MiB", ".5 MiB",
    "1e3", "1e400", "0 s", "0.0", "inf", "nan", "never", "64 potatoes", "5 s 5",
    "5 s\N{NO-BREAK SPACE}", "\N{FULLWIDTH DIGIT FIVE}", [], ["x"], [1], [""], [[]],
]  # fmt: skip

#: of which the schema has the type alone: what is good is a matter of their own syntax
TEXTS = (
    "sealwire.tls.server-hostname",
    *(f"sealwire.join.{name}" for name in ("address", "name", "token")),
)

UNITS = {"time": r"time|never", "size": "size", "count": "whole number", "truth": "true or false"}


@pytest.fixture(autouse=True)
def _policy() -> Iterator[None]:
    """Those of the GIL are judged by applying them."""
    yield
    configure_gil()


def allows(key: str, value: Any) -> bool:
    _, section, name = key.split(".")
    return bool(VALIDATOR.is_valid({"sealwire": {section: {name: value}}}))


def beyond_a_bound(key: str, value: Any) -> bool:
    """What no pattern can tell: a text beyond the bound of its number."""
    why = judged(key, value, usable=True)
    return isinstance(value, str) and allows(key, value) and " at most " in str(why)


@pytest.mark.parametrize("key", SETTINGS)
def test_the_schema_and_the_readers_agree(key: str) -> None:
    for value in VALUES:
        why = judged(key, value, usable=True)
        if beyond_a_bound(key, value) or (key in TEXTS and isinstance(value, str)):
            continue
        assert allows(key, value) is (why is None), (value, why)


@pytest.mark.parametrize("key", [key for key in SETTINGS if SETTINGS[key].about["x-kind"] in UNITS])
def test_an_error_names_the_setting_and_what_it_is(key: str) -> None:
    kind = SETTINGS[key].about["x-kind"]
    names = (key, SETTINGS[key].about.get("x-parameter", key), "sealwire.gil")
    told = [why for value in VALUES if (why := judged(key, value, usable=True)) is not None]
    assert len(told) > 10
    for why in told:
        assert any(name in why for name in names), why
        assert re.search(rf"(need|expected|write) .*({UNITS[kind]}|50 us)", why), why
        for other, unit in UNITS.items():
            assert other == kind or not re.search(rf"need a ({unit})", why), why


def test_each_role_has_what_all_have() -> None:
    for key in ("sealwire.tls.key-password", "sealwire.tls.allowed-peers"):
        for value in [*VALUES, {}, {"worker": "x"}]:
            assert allows(key, {"worker": value}) is (
                judged(f"{key}.worker", value, usable=True) is None
            ), (key, value)
        assert not allows(key, {"wroker": "x"})


texts = st.from_regex(r" ?[0-9]{0,3}\.?[0-9]{0,3}(e[+-]?[0-9])? ?[a-zA-Zµ]{0,8} ?", fullmatch=True)


@given(texts, st.sampled_from([key for key in SETTINGS if ".limits." in key]))
def test_texts_at_random(text: str, key: str) -> None:
    kind = SETTINGS[key].about["x-kind"]
    assume(text)
    try:
        value = parsed(key, text, SETTINGS[key])
    except ValueError:
        assert not allows(key, text) or beyond_a_bound(key, text)
        return
    assert allows(key, text)
    if kind == "time" and text.strip()[0] != ".":
        assert value == pytest.approx(parse_timedelta(text))
    elif kind == "size" and text.strip()[0] != ".":
        assert 0 <= value - parse_bytes(text) <= 1
    assert value > 0


@pytest.mark.parametrize("unit", ["", "s", "sec", "second", "seconds", "m", "min", "Minutes", "h",
                                  "hours", "d", "Days", "w", "weeks", "ms"])  # fmt: skip
@pytest.mark.parametrize("key", ["sealwire.tls.reload-interval", "sealwire.join.wait"])
def test_units_of_durations(key: str, unit: str) -> None:
    for text in (f"5 {unit}".strip(), f"5{unit}", f".5 {unit}", f"5. {unit}"):
        assert allows(key, text)
        assert duration(key, text, bare="s")
