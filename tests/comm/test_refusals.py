"""What is said about refused handshakes: docs/errors.md shows what real ones say."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from sealwire.comm import CommClosedError, HandshakeError, errors, listen, tls_errors
from support import certs
from support.aio import aio
from support.handshakes import VERSIONS, client_context, security, server_context
from support.links import RawPeer, listen_args
from support.refused import table

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text()


@aio
async def test_the_table_is_what_handshakes_say() -> None:
    """Every cause, either side refused, over TLS 1.2 and 1.3."""
    (shown,) = re.findall(r"<!-- handshakes -->\n(.*?)\n<!-- end -->", DOCS, re.DOTALL)
    assert shown.splitlines() == (await table()).splitlines()


def test_every_kind_is_in_a_table() -> None:
    kinds = {error.kind for error in vars(errors).values() if hasattr(error, "kind")}
    for causes in (tls_errors._VERDICTS, tls_errors._ALERTS, tls_errors._PROTOCOL):
        kinds |= {cause.kind for cause in causes.values()}
    assert {kind for kind in kinds if f"`{kind}`" not in DOCS} == set()


def test_a_peer_that_is_not_allowed() -> None:
    """As a list of allowed peers refuses, which OpenSSL knows nothing of."""
    error = ssl.SSLCertVerificationError(1, "refused")
    error.verify_code, error.verify_message = 50, "CN=eve is none of worker, client"
    explained = tls_errors.explain(error, "tls://peer:1", handshaking=True)
    assert isinstance(explained, HandshakeError)
    assert (explained.kind, explained.retryable) == ("not-allowed", False)
    assert str(explained) == (
        "TLS handshake with tls://peer:1 failed: we refused its certificate: CN=eve is none of "
        "worker, client; name it in tls_allowed_peers (sealwire.tls.allowed-peers) if it is to be "
        "let in"
    )


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        BrokenPipeError(32, "Broken pipe"),
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        ssl.SSLZeroReturnError(6, "closed"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("handshaking", [True, False])
def test_what_may_pass_is_tried_again(error: Exception, handshaking: bool) -> None:
    explained = tls_errors.explain(error, "tls://peer:1", handshaking=handshaking)
    assert type(explained) is CommClosedError
    assert explained.retryable
    assert explained.kind == "lost"
    assert "tls://peer:1" in str(explained)


def first_error(*steps: Callable[[], object]) -> ssl.SSLError:
    """Of steps that may also want to hear more."""
    for step in steps:
        try:
            step()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            return error
    raise AssertionError("no step has failed")


INJECTED: list[tuple[ssl.TLSVersion, Callable[[bytes], bytes]]] = [
    (version, damage)
    for version in VERSIONS
    for damage in (lambda sent: sent + b"GET / HTTP/1.1\r\n\r\n", lambda sent: sent + bytes(99))
]


@pytest.mark.parametrize(
    ("version", "damage"),
    [*INJECTED, (ssl.TLSVersion.TLSv1_3, lambda sent: sent[:-20] + bytes(20))],
)
def test_what_is_damaged_after_a_hello_of_tls_is_not_called_plain(
    version: ssl.TLSVersion, damage: Callable[[bytes], bytes]
) -> None:
    """OpenSSL gives the same reason as for what is no TLS, 3.6 for a wrong MAC as well."""
    ca = certs.root()
    ours = security(certs.leaf(ca), [ca], tls_max_version=version)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(ours).wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello, answer = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello.write(outgoing.read())
    with pytest.raises(ssl.SSLWantReadError):
        server_context(ours).wrap_bio(hello, answer, server_side=True).do_handshake()
    incoming.write(damage(answer.read()))
    error = first_error(client.do_handshake, client.do_handshake, lambda: client.read(1))
    explained = tls_errors.explain(error, "tls://peer:1", handshaking=True, tls=client)
    assert explained.kind == "tls"
    assert "check the TLS configuration of both sides" in str(explained)


NOT_TLS = {
    "our own wire": (
        (16).to_bytes(8, "little") + (1).to_bytes(8, "little"),
        "it does not speak TLS but plain tcp://; use tls:// on both sides",
    ),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", "it speaks plain HTTP; browse the dashboard's port"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\n", "it speaks plain HTTP"),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", "it does not speak TLS, it began with b'SSH-2.0"),
    "a byte": (b"\0", "it does not speak TLS, it began with b'\\x00'"),
    "SSL 2": (b"\x80\x2e\x01\x00\x02\x00", "it does not speak TLS"),
}


@pytest.mark.parametrize("name", NOT_TLS)
@aio
async def test_a_peer_without_tls_is_named_at_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Before OpenSSL sees a byte; and is answered with an alert, for those who understand it."""
    caplog.set_level("INFO", "sealwire")
    words, said = NOT_TLS[name]
    async with listen("tls://127.0.0.1:0", lambda comm: None, **listen_args("tls")) as listener:
        peer = await RawPeer.dial(listener.listen_address)
        peer.writer.write(words)
        assert (await peer.ended()).startswith(b"\x15\x03")
        peer.close()
        assert listener.stats.refused == {"not-tls": 1}
    (record,) = caplog.records
    assert said in record.getMessage()
    assert record.levelname == "INFO"
