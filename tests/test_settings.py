"""`sealwire.yaml` and its schema: complete, true to the code, with nothing that nobody reads."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
import yaml
from dask.utils import parse_bytes, parse_timedelta
from jsonschema import Draft202012Validator

from sealwire.cli.config.command import THEIRS
from sealwire.comm import Limits
from sealwire.comm.transport.switch_interval import Policy
from sealwire.dask_backend import membership, settings, unix
from sealwire.dask_backend.settings import apply_gil_policy, limits
from sealwire.joining import TokenError
from sealwire.security import Security, config, schema
from sealwire.security.config import KEYS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("comm", "security", "joining", "dask_backend", "cli")
SCHEMA = yaml.safe_load((ROOT / "version" / "sealwire-schema.yaml").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((ROOT / "version" / "sealwire.yaml").read_text(encoding="utf-8"))


def keys_of(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_schema_and_defaults_have_the_same_keys_in_the_same_order() -> None:
    assert list(keys_of(DEFAULTS)) == list(schema.settings())
    assert len(schema.settings()) > 25


def test_the_defaults_are_what_the_schema_allows() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    Draft202012Validator(SCHEMA).validate(DEFAULTS)
    for wrong in ({"tls": {"crl-flie": None}}, {"limits": {"max-frames": []}}, {"tls": "crl.pem"}):
        assert not Draft202012Validator(SCHEMA).is_valid({"sealwire": wrong})


def test_each_setting_is_described() -> None:
    for key, setting in schema.settings().items():
        assert setting.about["description"].endswith("."), key
        assert setting.about["x-kind"] in (
            ["size", "time", "truth", "count", "path", "text", "password", "peers"]
        ), key
        assert ("x-unset" in setting.about) is (setting.default is None), key
        assert "null" in setting.about["type"], key


def test_every_setting_is_read_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever they ask Dask's configuration for is written down, by those who read it."""
    asked: set[str] = set()
    get = dask.config.get

    def recording(key: str, *args: Any, **kwargs: Any) -> Any:
        asked.add(key)
        return get(key, *args, **kwargs)

    monkeypatch.setattr(dask.config, "get", recording)
    for name in (membership.SERVICE, membership.TOKEN, membership.TOKEN_FILE):
        monkeypatch.delenv(name, raising=False)
    settings.forget()
    limits()
    with dask.config.set({"sealwire.gil.linger": "5 ms"}):
        apply_gil_policy()
    config.read()
    unix._refuse_plain("here", {}, listens=True)
    with (
        dask.config.set({"sealwire.join.address": "127.0.0.1:1", "sealwire.join.token": "x"}),
        pytest.raises(TokenError),
    ):
        membership.begin()
    tree = ast.parse((ROOT / "dask_backend/membership.py").read_text(encoding="utf-8"))
    asked |= set(strings(tree))  # what comes after the token, which nobody has here
    found = {key for key in asked if re.fullmatch(r"sealwire\.[a-z]+\.[a-z-]+", key)}
    # Read as one mapping; each field must be one of its keys, and each key a field.
    found |= {f"sealwire.limits.{field.name.replace('_', '-')}" for field in fields()}
    found -= {"sealwire.dask_backend"}
    assert found == set(schema.settings())


def fields() -> list[dataclasses.Field[Any]]:
    """Of what can be configured: in Dask, where the settings apply, no `write` waits."""
    return [each for each in dataclasses.fields(Limits) if each.name != "write_ahead"]


def strings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_source_names_a_setting_that_there_is_not() -> None:
    """A text such as "sealwire.tls.crl-file" anywhere in the code, also within a sentence."""
    known = set(schema.settings())
    sections = "|".join(schema.sections())
    unknown, named = set(), set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for text in strings(ast.parse(path.read_text(encoding="utf-8"))):
                found = set(re.findall(rf"\bsealwire\.(?:{sections})\.[a-z]+(?:-[a-z]+)*", text))
                named |= found
                unknown |= found - known
    assert not unknown
    assert len(named) >= 10


@pytest.mark.parametrize("field", fields(), ids=lambda field: field.name)
def test_a_default_of_a_limit_is_the_code_s(field: dataclasses.Field[Any]) -> None:
    setting = schema.settings()[f"sealwire.limits.{field.name.replace('_', '-')}"]
    expected = getattr(Limits(), field.name)
    is_time = field.type == "float"
    assert setting.about["x-kind"] in (("time",) if is_time else ("size", "count"))
    if setting.default is not None:
        parse = parse_timedelta if is_time else parse_bytes
        assert parse(setting.default) == expected
    elif field.name in settings._DASK_NAMES:
        theirs, _, last = setting.effective.partition(", else ")
        assert theirs == f"`{settings._DASK_NAMES[field.name]}`"
        assert expected == (parse_timedelta(last) if is_time else int(last or 0) or expected)
    else:
        assert expected is None or field.default is dataclasses.MISSING


def test_what_applies_where_nothing_is_set_is_the_code_s() -> None:
    said = {
        key.removeprefix("sealwire."): each.effective for key, each in schema.settings().items()
    }
    assert parse_timedelta(said["gil.interval"]) == pytest.approx(Policy().interval)
    assert parse_timedelta(said["gil.linger"]) == pytest.approx(Policy().linger)
    assert config.truth("", said["tls.hold-gil"]) is Policy().hold_tls
    assert parse_timedelta(said["join.wait"]) == membership._WAIT
    assert said["unix.allow-plain"] == "false"
    assert config.duration("", said["tls.reload-interval"], bare="s") == 1.0


def test_parameters_of_security_are_named() -> None:
    named = {
        each.about["x-parameter"]: key
        for key, each in schema.settings().items()
        if "x-parameter" in each.about
    }
    assert named == {field: key for field, key in KEYS.items() if key.startswith("sealwire.")}
    assert set(named) <= set(Security().fields())


def test_variables_that_come_first_are_named() -> None:
    named = {
        each.about["x-variable"]
        for each in schema.settings().values()
        if "x-variable" in each.about
    }
    assert named == {membership.SERVICE, membership.TOKEN, membership.TOKEN_FILE}


def test_the_page_has_what_the_schema_has() -> None:
    """`python docs/settings_table.py` writes it again."""
    made = importlib.util.spec_from_file_location("settings_table", ROOT / "docs/settings_table.py")
    assert made is not None
    assert made.loader is not None
    table = importlib.util.module_from_spec(made)
    made.loader.exec_module(table)
    page = table.PAGE.read_text(encoding="utf-8")
    assert table.written(page) == page
    for key in schema.settings():
        assert f"| `{key.rpartition('.')[2]}` |" in page
    for field, key in KEYS.items():
        assert key.startswith("sealwire.") or f"| `{key}` | `{field}` |" in page
    for key in (*THEIRS[:3], "distributed.{scheduler,worker,nanny,client}.preload"):
        assert f"| `{key}` |" in page
