"""`sealwire.comm` by itself over a local socket, beside tcp on loopback."""

from __future__ import annotations

import os

from .adapters import Standalone


class Unix(Standalone):
    """As `Standalone`, with a name in place of a port."""

    def __init__(self, link: str, credentials: dict[str, str]) -> None:
        super().__init__(link, credentials)
        self.address = f"unix://@sealwire-benchmark-{os.getpid()}"


ADAPTER = Unix
