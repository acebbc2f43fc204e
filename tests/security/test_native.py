"""Libraries replace `ssl`'s classes: what is verified stays the same, or is refused by name."""

from __future__ import annotations

import socket
import ssl
import subprocess

import pytest

from sealwire.security import Security
from support import HANG, programs


@pytest.mark.parametrize("when", ["before", "after"])
def test_contexts_of_a_library_in_place_of_ssl(when: str) -> None:
    """As of truststore, which would trust the system's CAs, or make the contexts fail."""
    done = subprocess.run(
        programs.command("replaced_ssl", when),
        cwd=programs.HOME,
        env=programs.environment(),
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]


class Foreign(socket.socket):
    """The class of a library that has sockets of its own."""


@pytest.mark.parametrize("side", ["server", "client"])
def test_sockets_of_a_library_are_refused_by_name(
    side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of gevent; the class of a socket is no longer the one that `ssl` knows."""
    security = Security.temporary()
    arguments = (
        security.get_listen_args("scheduler")
        if side == "server"
        else security.get_connection_args("client")
    )
    context = arguments["ssl_context"]
    assert context is not None
    near, far = socket.socketpair()
    with near, far:
        monkeypatch.setattr(ssl, "SSLSocket", Foreign)
        with pytest.raises(RuntimeError, match=rf"sockets are those of {__name__}, and event"):
            context.wrap_socket(near, server_side=side == "server", do_handshake_on_connect=False)
