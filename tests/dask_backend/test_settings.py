"""Limits from Dask's configuration, and that comms are held to them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import dask
import pytest
from distributed.comm.core import CommClosedError
from distributed.protocol import to_serialize

from sealwire.comm import Limits, configure_gil
from sealwire.comm.transport import switch_interval
from sealwire.dask_backend.links import links
from sealwire.dask_backend.settings import apply_gil_policy, forget, limits
from sealwire.security import schema
from support.parties import Party, asynchronous, pair

LIMITS = "sealwire.limits"


@pytest.mark.parametrize(
    ("setting", "value", "field", "expected"),
    [
        (f"{LIMITS}.handshake-timeout", "1500 ms", "handshake_timeout", 1.5),
        (f"{LIMITS}.handshake-timeout", 7, "handshake_timeout", 7),
        (f"{LIMITS}.close-timeout", "1 minute", "close_timeout", 60),
        (f"{LIMITS}.max-message-size", "1 MiB", "max_message_size", 1 << 20),
        (f"{LIMITS}.max-frames", 1_000, "max_frames", 1_000),
        (f"{LIMITS}.max-frames", "77", "max_frames", 77),
        (f"{LIMITS}.max-queued", ".5 MiB", "max_queued", 1 << 19),
        (f"{LIMITS}.max-queued", "1e6", "max_queued", 1_000_000),
        (f"{LIMITS}.stop-timeout", ".25 s", "stop_timeout", 0.25),
        (f"{LIMITS}.stop-timeout", "5e-3", "stop_timeout", 0.005),
        (f"{LIMITS}.max-queued", "256 MiB", "max_queued", 256 << 20),
        (f"{LIMITS}.max-queued", 1, "max_queued", 1),
        (f"{LIMITS}.backlog", 5, "backlog", 5),
        ("distributed.comm.socket-backlog", 6, "backlog", 6),
        ("distributed.comm.timeouts.tcp", "20s", "keepalive_timeout", 20),
        (f"{LIMITS}.keepalive-timeout", "40s", "keepalive_timeout", 40),
    ],
)
def test_a_setting_sets_its_limit(setting: str, value: Any, field: str, expected: Any) -> None:
    with dask.config.set({setting: value}):
        assert getattr(limits(), field) == expected
    assert getattr(limits(), field) != expected


@pytest.mark.parametrize("nothing", [{}, *({f"{LIMITS}.max-queued": x} for x in (None, ""))])
def test_what_may_be_queued_has_no_limit_of_its_own(nothing: dict[str, Any]) -> None:
    with dask.config.set(nothing):
        assert limits().max_queued is None


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "64 MiB", b"1", [1]])
def test_a_bound_of_the_queue_is_a_positive_number(value: Any) -> None:
    words = r"bad limit max_queued: got .*, need a positive whole number up to .*; leave it"
    with pytest.raises(ValueError, match=words):
        Limits(max_queued=value)


def test_only_the_queue_may_be_without_a_bound() -> None:
    for field in dataclasses.fields(Limits):
        if field.name != "max_queued":
            with pytest.raises(ValueError, match=f"bad limit {field.name}: got None"):
                Limits(**{field.name: None})


def test_what_is_not_set_is_the_default_or_dasks() -> None:
    assert limits() == Limits(keepalive_timeout=30, backlog=2048)


def test_what_does_nothing_in_dask_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Dask's writers never wait, so nothing says how many bytes they may queue before."""
    monkeypatch.setattr("sealwire.security.config._reported", set())
    with dask.config.set({f"{LIMITS}.write-ahead": "2 MiB", f"{LIMITS}.max-frames": 78}):
        assert limits().max_frames == 78
        assert limits().write_ahead == Limits().write_ahead
    assert f"unknown configuration key {LIMITS}.write-ahead is ignored" in caplog.text


def test_defaults_stand_for_those_of_the_limits_and_are_not_parsed() -> None:
    shipped = schema.defaults()["sealwire"]["limits"]
    with dask.config.set({"distributed.comm.timeouts.tcp": None}):  # none of distributed's
        with dask.config.set({f"{LIMITS}.{name}": None for name in shipped}):
            nothing_set = limits()
        written = {name: f" {value} " for name, value in shipped.items() if value is not None}
        with dask.config.set({LIMITS: written}):  # other texts of the same values: parsed
            assert limits() == nothing_set
    schema.sections.cache_clear()
    schema.settings.cache_clear()
    forget()
    assert limits() == nothing_set
    assert not schema.sections.cache_info().currsize  # the schema was not read, as at each start


@pytest.mark.parametrize(
    ("setting", "value"),
    [(f"{LIMITS}.max-accepts", 32.5), (f"{LIMITS}.max-pending", True), (LIMITS, {"backlog": -1})],
)
def test_what_is_no_limit_is_refused_beside_defaults(setting: str, value: Any) -> None:
    with dask.config.set({setting: value}), pytest.raises(ValueError, match="bad setting"):
        limits()


def test_what_was_made_is_made_again_only_for_other_settings() -> None:
    with dask.config.set({f"{LIMITS}.max-queued": 1}):
        assert limits() is limits()
        with (
            dask.config.set({f"{LIMITS}.max-queued": True}),
            pytest.raises(ValueError, match="got True"),
        ):
            limits()
        with dask.config.set({f"{LIMITS}.max-queued": "2 MiB"}):
            assert limits().max_queued == 2 << 20
        assert limits().max_queued == 1


@pytest.mark.parametrize(
    ("field", "value", "example"),
    [
        ("handshake-timeout", "soon", "30 s"),
        ("max-message-size", "much", "64 MiB"),
        ("max-frames", [1], "1048576"),
        ("max-queued", "64 potatoes", "64 MiB"),
        ("max-queued", math.inf, "64 MiB"),
        ("max-queued", math.nan, "64 MiB"),
        ("max-queued", "inf", "64 MiB"),
        ("max-queued", True, "64 MiB"),
        ("max-queued", False, "64 MiB"),
        ("max-queued", {"is": 1}, "64 MiB"),
        ("close-timeout", True, "30 s"),
        ("close-timeout", {"is": 1}, "30 s"),
    ],
)
def test_a_setting_that_cannot_be_read_is_named(field: str, value: Any, example: str) -> None:
    words = rf"bad setting {LIMITS}.{field}: got .*{example}"
    with dask.config.set({f"{LIMITS}.{field}": value}), pytest.raises(ValueError, match=words):
        limits()


@pytest.mark.parametrize("value", [0, -1, "0 MiB"])
@pytest.mark.parametrize("field", ["max-frames", "max-queued"])
def test_a_limit_must_be_positive(field: str, value: Any) -> None:
    bad = dask.config.set({f"{LIMITS}.{field}": value})
    with bad, pytest.raises(ValueError, match=f"bad setting {LIMITS}.{field}: got"):
        limits()


@pytest.mark.parametrize("value", ["-3 s", 0, 1e308, math.inf, "1e12 s"])
def test_a_setting_of_dasks_is_named_as_well(value: Any) -> None:
    words = r"bad setting distributed\.comm\.timeouts\.tcp: "
    with (
        dask.config.set({"distributed.comm.timeouts.tcp": value}),
        pytest.raises(ValueError, match=words),
    ):
        limits()


@asynchronous
async def test_what_is_too_large_is_not_sent(ours: Party) -> None:
    """And the comm goes on; it is the sender's limit that counts here."""
    with dask.config.set({f"{LIMITS}.max-message-size": "100 kB"}):
        async with pair(ours) as (near, far):
            with pytest.raises(CommClosedError, match=r"too large: 2\d{5} bytes.* 100000"):
                await near.write({"x": to_serialize(bytes(200_000))})
            await near.write({"small": 1})
            assert await far.read() == {"small": 1}


@asynchronous
async def test_what_is_too_large_is_not_received(
    scheme: str, make_party: Callable[..., Party]
) -> None:
    with dask.config.set({f"{LIMITS}.max-message-size": "100 kB"}):
        async with pair(make_party("stock", scheme), make_party("ours", scheme)) as (near, far):
            await near.write({"x": to_serialize(bytes(200_000))})
            with pytest.raises(CommClosedError, match=r"too large: 2\d{5} bytes.* 100000"):
                await far.read()
            assert far.closed()


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ({}, switch_interval.Policy()),
        ({"interval": "1 ms"}, switch_interval.Policy(interval=0.001)),
        ({"interval": 0.001, "linger": "20 ms"}, switch_interval.Policy(0.001, 0.02)),
        ({"interval": False}, switch_interval.Policy(interval=None)),
    ],
)
@asynchronous
async def test_the_switch_interval_is_configured(
    configured: dict[str, Any], expected: switch_interval.Policy, ours: Party
) -> None:
    try:
        with dask.config.set({f"sealwire.gil.{name}": value for name, value in configured.items()}):
            async with pair(ours) as (near, far):
                await near.write({"x": 1})
                assert await far.read() == {"x": 1}
                assert switch_interval.policy() == expected
    finally:
        configure_gil()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), (False, False), ("false", False), ("on", True), (0, False)],
)
@asynchronous
async def test_whether_the_gil_is_held_is_configured(
    value: Any, expected: bool, make_party: Callable[..., Party]
) -> None:
    """For connections from then on; what else is chosen stays."""
    ours = make_party("ours", "tls")
    key = "sealwire.tls.hold-gil"
    configure_gil(interval=0.001)
    try:
        with dask.config.set({key: not expected}):
            async with pair(ours) as (before, _):
                with dask.config.set({key: value}):
                    async with pair(ours) as (near, far):
                        assert switch_interval.policy() == switch_interval.Policy(
                            interval=0.001, hold_tls=expected
                        )
                        shown = {link["local"]: link["holds_gil"] for link in links()}
                        assert shown[near.local_address] is shown[far.local_address] is expected
                        assert shown[before.local_address] is not expected
                        payload = {"x": to_serialize(bytes(2_000_000))}
                        await near.write(payload)
                        assert await far.read() == {"x": bytes(2_000_000)}
    finally:
        configure_gil()


def test_whether_the_gil_is_held_is_true_or_false() -> None:
    words = r"cannot use sealwire\.tls\.hold-gil: expected true or false"
    with (
        dask.config.set({"sealwire.tls.hold-gil": "sometimes"}),
        pytest.raises(ValueError, match=words),
    ):
        apply_gil_policy()
    assert switch_interval.policy() == switch_interval.Policy()


@pytest.mark.parametrize("value", ["soon", "-1 s", "2 s"])
def test_an_interval_that_cannot_be(value: str) -> None:
    bad = dask.config.set({"sealwire.gil.interval": value})
    with bad, pytest.raises(ValueError, match=r"bad setting sealwire\.gil.*write for example"):
        apply_gil_policy()
    assert switch_interval.policy() == switch_interval.Policy()
