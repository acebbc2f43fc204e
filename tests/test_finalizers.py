"""Finalizers run for objects whose constructor has raised as well, and must not fail then."""

from __future__ import annotations

import gc
import importlib
import inspect
import pkgutil
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sealwire.comm import Limits
from sealwire.comm.transport.stream import FrameStream
from support.aio import aio

PACKAGES = ["comm", "security", "joining", "metrics", "dask_backend", "cli", "testing"]


@pytest.fixture
def ignored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What finalizers have raised."""
    errors: list[str] = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda each: errors.append(f"{each.object} {each.exc_value!r}")
    )
    return errors


def finalized() -> Iterator[type[Any]]:
    """Our classes that have a finalizer."""
    for name in PACKAGES:
        package = importlib.import_module(f"sealwire.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.rpartition(".")[2] == "preload":  # it acts when it is imported
                continue
            for one in vars(importlib.import_module(module.name)).values():
                ours = inspect.isclass(one) and one.__module__ == module.name
                if ours and "__del__" in {name for base in one.__mro__ for name in vars(base)}:
                    yield one


def test_an_object_that_was_never_made(ignored: list[str]) -> None:
    classes = list(finalized())
    assert len(classes) > 10
    for one in classes:
        made = type(one.__name__, (one,), dict.fromkeys(getattr(one, "__abstractmethods__", ())))
        made.__new__(made)
    gc.collect()
    assert not ignored


@aio
async def test_a_stream_of_a_closed_socket(ignored: list[str]) -> None:
    sock = socket.socket()
    sock.close()
    with pytest.raises(OSError, match=r"[Bb]ad file descriptor"):
        FrameStream(sock, Limits(), "tcp://a:1")
    gc.collect()
    assert not ignored
