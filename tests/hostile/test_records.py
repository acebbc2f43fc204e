"""TLS records that carry no data, of a peer with a certificate."""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import sys

import msgpack
import pytest

from sealwire.comm.transport import openssl
from support import attacker
from support.attacker import Shake, message
from support.target import MODES, Target, check, count, figure


class KeyChanger(Shake):
    """A client that asks for new keys as often as it likes, which `ssl` gives no way to."""

    def change(self, times: int) -> bytes:
        """That many records, to be sent at once."""
        library = ctypes.PyDLL(_ssl.__file__)
        pointer = ctypes.c_void_p(openssl.pointer(self._client._sslobj))  # type: ignore[attr-defined]
        for _ in range(times):
            check(library.SSL_key_update(pointer, 0) == 1)
            with contextlib.suppress(OSError):  # which sends it
                self._client.do_handshake()
        return self._outgoing.read()

    def told(self) -> bytes:
        """What has been said, as records."""
        return self._outgoing.read()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere OpenSSL may not be found")
@pytest.mark.parametrize("kind", ["standalone", "dask"])
@pytest.mark.parametrize("mode", ["plain", "uvloop"])
def test_requests_for_new_keys_do_not_hold_the_loop(kind: str, mode: str) -> None:
    number = count(100_000, 20_000)
    with Target(kind, "tls", **MODES[mode]) as target:
        sock = attacker.dial(target.address)
        peer = KeyChanger(sock, attacker.context())
        peer.send()
        peer.receive()
        peer.say(attacker.OUR_HELLO if kind == "standalone" else attacker.HELLO)
        peer.send()
        peer.hear()
        burst = peer.change(number)
        question = message(msgpack.packb("after it"))
        peer.say(question)
        target.ask("held")
        sock.sendall(burst + peer.told())
        answer = b""
        while len(answer) < len(question):
            answer += peer.hear()
        check(b"after it" in answer, answer)
        held = target.ask("held")
        check(held < 0.1, held)
        figure(f"{number} of them, {len(burst)} bytes: loop held for {held * 1000:.0f} ms at most")
        sock.close()
