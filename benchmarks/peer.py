"""One process of a pair. Takes JSON commands, a line each, on stdin; answers each with a line.

The first line says who it is: ``{"implementation", "link", "uvloop", "credentials"}``.
Started by `measure.py`; not for use by hand.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from peers import adapters
from peers.worker import Worker


def main() -> None:
    """Obey until stdin ends."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    who = json.loads(sys.stdin.readline())
    adapter = adapters.make(who["implementation"], who["link"], who["credentials"])
    answers.write(json.dumps({"ready": os.getpid()}) + "\n")

    async def obey() -> None:
        worker = Worker(adapter)
        lines = await adapters.read_lines(sys.stdin)
        while line := await lines.readline():
            answers.write(json.dumps(await answer(worker, json.loads(line))) + "\n")
        os._exit(0)  # comms and threads need no farewell

    adapters.run(obey(), uvloop=who["uvloop"])


async def answer(worker: Worker, command: dict[str, Any]) -> dict[str, Any]:
    """Do one command: a method of `Worker` and its arguments."""
    try:
        result = await getattr(worker, command.pop("do"))(**command)
    except Exception as error:
        import traceback

        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
    return result or {}


if __name__ == "__main__":
    main()
