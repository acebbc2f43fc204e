"""Batches of messages as distributed's streams carry them between worker and scheduler."""

from __future__ import annotations

import operator
import pickle
from typing import Any

SIZE = 20


def batch_of(what: str) -> list[dict[str, Any]]:
    """A batch of ``reports`` (worker to scheduler), ``tasks`` (scheduler to worker) or ``values``.

    The latter are plain: 2,500 keys with their sizes, 2,500 texts and 2,500 numbers.
    """
    if what == "values":
        keys = [f"sum-partial-{index}" for index in range(2500)]
        sizes = [8_000_128 + 17 * index for index in range(2500)]
        return [{"sizes": dict(zip(keys, sizes, strict=True)), "keys": keys, "ids": sizes}]
    make = {"reports": _report, "tasks": _task}[what]
    return [make(index) for index in range(SIZE)]


def _key(index: int) -> tuple[str, int, int]:
    return ("sum-partial-8f4c1d0e6a7b42d39c5fae0b1d2c3e4f", index, 0)


def _report(index: int) -> dict[str, Any]:
    """Mostly finished tasks; also what else a worker tells on the same stream."""
    stimulus = f"task-finished-1763990000.{index:06d}"
    if index % 5 == 3:
        return {"op": "add-keys", "keys": [_key(index), _key(index + 1)], "stimulus_id": stimulus}
    if index % 5 == 4:
        return {
            "op": "long-running",
            "key": _key(index),
            "compute_duration": 0.25 * index,
            "stimulus_id": stimulus,
        }
    started = 1763990000.0 + index
    return {
        "op": "task-finished",
        "status": "OK",
        "key": _key(index),
        "run_id": 1000 + index,
        "nbytes": 8_000_128 + index,
        "type": pickle.dumps(dict, 4),
        "typename": "numpy.ndarray",
        "metadata": {},
        "thread": 140_200_000_000_000 + index,
        "startstops": (
            {"action": "compute", "start": started, "stop": started + 0.125},
            {
                "action": "transfer",
                "start": started - 0.5,
                "stop": started,
                "source": "tls://127.0.0.1:40001",
            },
        ),
        "stimulus_id": stimulus,
    }


def _task(index: int) -> dict[str, Any]:
    """A task that depends on two others, as the scheduler sends it to a worker."""
    from dask._task_spec import Task
    from distributed.protocol.serialize import ToPickle

    left, right = _key(index), _key(index + 1)
    return {
        "op": "compute-task",
        "key": ("add-9d3a6c5b4e7f4d2a8b1c0e9f8a7b6c5d", index),
        "run_id": 2000 + index,
        "priority": (0, 1, 17, index),
        "stimulus_id": f"compute-task-1763990000.{index:06d}",
        "who_has": {left: ("tls://127.0.0.1:40001",), right: ("tls://127.0.0.1:40002",)},
        "nbytes": {left: 8_000_128, right: 8_000_128},
        "run_spec": ToPickle(Task(f"add-{index}", operator.add, index, index + 1)),
        "resource_restrictions": {},
        "actor": False,
        "annotations": {},
        "span_id": "4f0c2f0e-5f53-4c9f-9a52-9d7b8f0d2e11",
    }
