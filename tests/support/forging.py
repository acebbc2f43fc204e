"""A TLS 1.3 client that writes its records itself: alerts, and whatever else `ssl` never sends."""

from __future__ import annotations

import socket
import ssl
import struct
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from support.attacker import Shake

ALERT, DATA = 21, 23  # types of records, RFC 8446, 5.1
SECRET = "CLIENT_TRAFFIC_SECRET_0"


class Forger(Shake):
    """Its handshake is done. Its records have the keys that OpenSSL tells, see RFC 8446, 5 and 7.

    `keys` is a file for them, which `tls` keeps.
    """

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext, keys: Path) -> None:
        keys.unlink(missing_ok=True)
        tls.keylog_filename = str(keys)
        super().__init__(sock, tls)
        self.send()
        self.receive()
        self.send()
        name, _, bits = self._client.cipher() or ("", "", 0)
        assert (name, bits) == ("TLS_AES_256_GCM_SHA384", 256)
        lines = [line.split() for line in keys.read_text().splitlines()]
        (secret,) = [bytes.fromhex(line[2]) for line in lines if line[0] == SECRET]
        self._cipher = AESGCM(_expand(secret, b"key", 32))
        self._iv = int.from_bytes(_expand(secret, b"iv", 12), "big")
        self._number = 0

    def record(self, kind: int, content: bytes) -> bytes:
        """Its next one."""
        inner = content + bytes([kind])
        head = struct.pack(">BHH", DATA, 0x0303, len(inner) + 16)
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return head + self._cipher.encrypt(nonce, inner, head)


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    label = b"tls13 " + label
    return HKDFExpand(
        hashes.SHA384(), size, struct.pack(">HB", size, len(label)) + label + b"\0"
    ).derive(secret)
