"""What a scheduler's log shows of a worker that it refused: by default, and as configured."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import dask
import pytest
import yaml
from distributed.config import initialize_logging

from sealwire import dask_backend
from support import attacker
from support.processes import PRELOAD, Programs

REFUSED = r"sealwire\.comm - INFO - listener on tcp://\S+: bad frame from tcp://\S+: .* HTTP"


#: loggers that distributed sets a level of besides
OTHERS = ("bokeh", "distributed.client", "distributed.gc", "tornado", "tornado.application")


def knock(address: str) -> None:
    """As a browser would, on the wrong port."""
    with attacker.dial(address) as sock:
        sock.sendall(b"GET /status HTTP/1.1\r\n\r\n")
        attacker.ended(sock)


def test_a_refusal_stands_in_the_log_of_a_scheduler(tmp_path: Path) -> None:
    """In distributed's own form, with nothing configured."""
    with Programs(tmp_path, forked=True) as programs:
        scheduler, address = programs.scheduler("tcp", *PRELOAD)
        knock(address)
        scheduler.wait_for(REFUSED)
    assert "".join(scheduler.output).count("listener on tcp://") == 1


def test_the_level_can_be_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_LOGGING__SEALWIRE", "warning")
    with Programs(tmp_path, forked=True) as programs:
        scheduler, address = programs.scheduler("tcp", *PRELOAD)
        knock(address)
    assert "listener on" not in "".join(scheduler.output)


def test_a_logger_that_has_been_configured_is_left_alone() -> None:
    ours = logging.getLogger("sealwire")
    dask_backend.uninstall()
    assert not ours.handlers
    try:
        ours.setLevel(logging.ERROR)
        dask_backend.install()
        assert ours.level == logging.ERROR
        assert not ours.handlers
        dask_backend.uninstall()
        assert ours.level == logging.ERROR
    finally:
        ours.setLevel(logging.NOTSET)
        dask_backend.install()
    assert ours.level == logging.getLogger("distributed").level


def test_the_level_of_the_page() -> None:
    """docs/errors.md, as distributed reads it in each process."""
    page = (Path(__file__).resolve().parents[2] / "docs/errors.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    loggers = [logging.getLogger(name) for name in ("sealwire", "distributed", *OTHERS)]
    before = [(each.level, each.handlers[:], each.propagate) for each in loggers]
    try:
        initialize_logging({**dask.config.config, **yaml.safe_load(block)})
        assert [each.level for each in loggers[:2]] == [logging.WARNING, logging.INFO]
    finally:
        for each, (level, handlers, propagate) in zip(loggers, before, strict=True):
            each.setLevel(level)
            each.handlers, each.propagate = handlers, propagate
