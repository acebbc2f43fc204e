"""Joins at a desk, once for each write that this takes, and is killed at that write.

For each moment (before the n-th call that changes the disk, or in the middle of it) a child is
forked that joins with a new token and kills itself there, as SIGKILL or a power cut would. A JSON
line says what came of each: the token, the key, the moment, and whether the child had an answer.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sealwire.joining import Desk, Token
from sealwire.joining.client import signing_request
from sealwire.joining.ledger import Ledger
from sealwire.security.ca.atomic_files import apply, locked
from sealwire.security.ca.store import Store
from sealwire.security.x509 import keys

CHANGING = ("write", "fsync", "open", "rename", "replace", "unlink", "ftruncate")
MOST = 200  # moments


def new_token(folder: Path) -> Token:
    with locked(folder) as opened:
        token = Token.make(Store(opened).trusted)
        ledger = Ledger(opened)
        apply(ledger.write([ledger.make(token, "worker")]))
    return token


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(moment: int, halfway: bool) -> None:
    """Kill this process at its n-th call that changes the disk."""
    count = 0

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count != moment:
                return call(*args, **kwargs)
            if halfway:
                if name == "write":
                    call(args[0], bytes(args[1])[: len(args[1]) // 2])
                else:
                    call(*args, **kwargs)
            die()
            raise AssertionError

        return replaced

    for name in CHANGING:
        setattr(os, name, counted(name, getattr(os, name)))


def joined(desk: Desk, token: Token, key: keys.PrivateKey) -> str:
    request = signing_request(key)
    return desk.join(token.id, token.sign(request), request, request, "", "127.0.0.1:1").certificate


def main(folder: Path) -> None:
    for halfway in (False, True):
        for moment in range(1, MOST):
            token, key = new_token(folder), keys.generate()
            desk = Desk(folder)
            read, write = os.pipe()
            child = os.fork()
            if not child:
                send = os.write
                killed_at(moment, halfway)
                certificate = joined(desk, token, key)
                send(write, certificate.encode())
                os._exit(0)
            os.close(write)
            with open(read) as answers:
                answer = answers.read()
            _, status = os.waitpid(child, 0)
            done = {"token": token.text(), "key": keys.write(key), "answer": answer,
                    "killed": os.WIFSIGNALED(status), "moment": [moment, halfway]}  # fmt: skip
            print(json.dumps(done), flush=True)
            if not done["killed"]:
                break


if __name__ == "__main__":
    main(Path(sys.argv[1]))
