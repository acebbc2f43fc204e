"""A sealed context is tightened or left as it is, whatever is tried on it.

What "as strong as before" means is said here once more, in `weaker`, and not taken from the code.
"""

from __future__ import annotations

import copy
import pickle
import ssl
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sealwire.security import ConfigError, Security
from sealwire.security.contexts.verified import VerifiedObject, VerifiedSocket
from support import certs
from support.handshakes import client_context, foreign_context, security, server_context, shake

CA = certs.root()
NODE = certs.leaf(CA)
OTHER = certs.leaf(CA, "other")

# Every public name of `ssl.SSLContext`, on every Python. One that is not here has to be thought of:
# in which list it belongs, and in `sealed.py` what it may be set to.
READS = {
    "cert_store_stats", "get_ca_certs", "get_ciphers", "get_groups", "protocol", "security_level",
    "session_stats",
}  # fmt: skip
CONNECTS = {"wrap_bio", "wrap_socket"}
SETTINGS = {
    "check_hostname", "hostname_checks_common_name", "keylog_filename", "maximum_version",
    "minimum_version", "num_tickets", "options", "post_handshake_auth", "sni_callback",
    "sslobject_class", "sslsocket_class", "verify_flags", "verify_mode",
}  # fmt: skip
METHODS = {
    "load_cert_chain", "load_default_certs", "load_dh_params", "load_verify_locations",
    "set_alpn_protocols", "set_ciphers", "set_ciphersuites", "set_client_sigalgs",
    "set_default_verify_paths", "set_ecdh_curve", "set_groups", "set_npn_protocols",
    "set_psk_client_callback", "set_psk_server_callback", "set_server_sigalgs",
    "set_servername_callback",
}  # fmt: skip
PUBLIC = sorted(name for name in dir(ssl.SSLContext) if not name.startswith("_"))


def test_every_name_of_this_python_has_been_thought_of() -> None:
    assert set(PUBLIC) <= READS | CONNECTS | SETTINGS | METHODS


def facade(side: str, **fields: Any) -> ssl.SSLContext:
    one = security(NODE, [CA], **fields)
    return server_context(one) if side == "server" else client_context(one)


def behind(side: str, **fields: Any) -> ssl.SSLContext:
    """What handshakes are really done with."""
    return (
        facade(side, **fields).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), side == "server").context
    )


KINDS: dict[str, Callable[..., ssl.SSLContext]] = {"facade": facade, "behind": behind}
POLICIES: dict[str, dict[str, Any]] = {
    "default": {},
    "1.3": {"tls_min_version": "1.3"},
    "1.2": {"tls_max_version": "1.2", "tls_ciphers": "ECDHE+CHACHA20:@SECLEVEL=3"},
    "CRL and list": {"tls_crl_file": certs.crl(CA), "tls_allowed_peers": ["leaf"]},
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Callable[..., ssl.SSLContext]:
    return KINDS[request.param]


@pytest.fixture
def fields(request: pytest.FixtureRequest) -> dict[str, Any]:
    return POLICIES[request.param]


@pytest.fixture(params=["server", "client"])
def side(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def state(context: ssl.SSLContext) -> dict[str, Any]:
    return {
        "verify_mode": context.verify_mode,
        "verify_flags": int(context.verify_flags),
        "options": int(context.options),
        "least": int(context.minimum_version),
        "most": 772 if context.maximum_version < 0 else int(context.maximum_version),
        "level": context.security_level,
        "suites": {suite["name"] for suite in context.get_ciphers()},
        "tickets": context.num_tickets,
        "keylog": context.keylog_filename,
        "auth": context.post_handshake_auth,
        "host": context.check_hostname,
        "cn": context.hostname_checks_common_name,
        "host flags": context._host_flags,
        "sni": context.sni_callback,
        "socket": context.sslsocket_class,
        "object": context.sslobject_class,
        "cas": context.get_ca_certs(binary_form=True),
        "store": context.cert_store_stats(),
        "class": type(context),
        "allowed": context.allowed,  # type: ignore[attr-defined]
    }


# X509_V_FLAG_CRL_CHECK, _CRL_CHECK_ALL, _X509_STRICT, _TRUSTED_FIRST
STRICT_FLAGS = 0x4 | 0x8 | 0x20 | 0x8000
# SSL_OP_NO_SSLv2 (0), _SSLv3, _TLSv1, _TLSv1_1, _TLSv1_2, _COMPRESSION, _RENEGOTIATION,
# _CIPHER_SERVER_PREFERENCE; _NO_TICKET for a client
STRICT_OPTIONS = 1 << 25 | 1 << 26 | 1 << 28 | 1 << 27 | 1 << 17 | 1 << 30 | 1 << 22
NO_TICKET = 1 << 14


def weaker(before: dict[str, Any], after: dict[str, Any], side: str) -> Iterator[str]:
    """What has become worse."""
    for name in ("verify_mode", "tickets", "keylog", "auth", "sni", "socket", "object", "cas",
                 "store", "class", "allowed"):  # fmt: skip
        if before[name] != after[name]:
            yield name
    options = STRICT_OPTIONS | (NO_TICKET if side == "client" else 0)
    for name, stricter in (("verify_flags", STRICT_FLAGS), ("options", options)):
        if before[name] & ~after[name] or after[name] & ~before[name] & ~stricter:
            yield name
    if after["least"] < before["least"] or after["level"] < before["level"]:
        yield "least or level"
    if not after["least"] <= after["most"] <= before["most"]:
        yield "most"
    if not after["suites"] <= before["suites"]:
        yield "suites"
    if (before["host"] and not after["host"]) or (after["cn"] and not before["cn"]):
        yield "names"


def values() -> list[Any]:
    """What might be set, by somebody who thinks of everything."""
    versions = [*ssl.TLSVersion, 0, 768, 769, 770, 771, 772, 773, "1.2", 1.2]
    return [
        None, True, False, -1, 2, 3, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1, "", "x", b"x", (), [],
        {}, object(), int, print, lambda *args: None, ssl.CERT_NONE, ssl.CERT_OPTIONAL,
        ssl.CERT_REQUIRED, ssl.SSLSocket, ssl.SSLObject, VerifiedSocket, VerifiedObject, *versions,
    ]  # fmt: skip


def attempts(context: ssl.SSLContext, name: str) -> Iterator[Any]:
    """Values for an attribute; for flags each alone, and what they become by adding and taking."""
    yield from values()
    current = getattr(context, name, None)
    if isinstance(current, int):
        for bit in range(64):
            yield 1 << bit
            yield current | 1 << bit
            yield current & ~(1 << bit)
            yield current ^ 1 << bit


# Both kinds of context meet both sides and all policies; and so do the sides.
EVERY_TWO = [
    (kind, side, policy)
    for number, policy in enumerate(POLICIES)
    for kind, side in zip(KINDS, ("server", "client")[:: 1 - number % 2 * 2], strict=True)
]
every_two = pytest.mark.parametrize(("kind", "side", "fields"), EVERY_TWO, indirect=True)


@every_two
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_whatever_is_set(
    kind: Callable[..., ssl.SSLContext], side: str, fields: dict[str, Any]
) -> None:
    """Also names that no context has, and our own."""
    context = kind(side, **fields)
    own = ["allowed", "tell_refused", "_sealed", "_material", "_own", "__class__", "__dict__",
           "_msg_callback", "_host_flags", "no_such_name", "seal", "lacks", "describe"]  # fmt: skip
    before = state(context)
    for name in [*PUBLIC, *own]:
        for value in attempts(context, name):
            try:
                setattr(context, name, value)
            except ConfigError as error:
                assert name in str(error)
                assert state(context) == before, f"{name} = {value!r} was refused and done"
            except (AttributeError, TypeError, ValueError, OverflowError) as error:
                pytest.fail(f"{name} = {value!r}: {error!r}")
            else:
                after = state(context)
                assert not list(weaker(before, after, side)), f"{name} = {value!r}"
                before = after
        with pytest.raises(ConfigError):
            delattr(context, name)


ARGUMENTS: list[tuple[Any, ...]] = [
    (), (None,), ("",), ("x",), ("ALL",), ("ALL:@SECLEVEL=0",), ("ALL:@SECLEVEL=3",), ("PSK",),
    ("aNULL",), ("eNULL",), ("DEFAULT",), ("HIGH:!aNULL",), ("kRSA",), ("AES128-SHA",),
    ("ECDHE+AES",), ("ECDHE+AESGCM:AES256-SHA",), ("ECDHE+AESGCM",), ("ECDHE+CHACHA20",),
    ("@SECLEVEL=1",), ("ECDHE+CHACHA20:@SECLEVEL = 1",), ("secp112r1",), ("secp160k1",),
    ("secp224r1",), ("prime256v1",), (b"secp112r1",), (lambda *args: None,), (["h2"],), (5,),
    (ssl.Purpose.SERVER_AUTH,), (None, None), (__file__,), (None, None, CA.pem), ("x\0y",),
    (0xFFFFFFFF,), (CA.pem,), (["secp112r1"],), ("TLS_AES_128_CCM_8_SHA256",),
]  # fmt: skip


@every_two
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", sorted(METHODS & set(PUBLIC)))
def test_whatever_is_called(
    name: str, kind: Callable[..., ssl.SSLContext], side: str, fields: dict[str, Any]
) -> None:
    context = kind(side, **fields)
    for arguments in ARGUMENTS:
        before = state(context)
        try:
            getattr(context, name)(*arguments)
        except (ConfigError, TypeError, ValueError, ssl.SSLError, FileNotFoundError):
            assert state(context) == before
        else:
            assert name in ("set_alpn_protocols", "set_ciphers", "set_ecdh_curve")
            assert not list(weaker(before, state(context), side)), f"{name}{arguments}"


def test_what_must_be_refused_is_by_name(side: str, kind: Callable[..., ssl.SSLContext]) -> None:
    """The dangers that the tests above could not see in a context's attributes."""
    context = kind(side)
    for name, arguments in {
        "load_dh_params": ("x",),
        "set_ecdh_curve": ("secp112r1",),
        "set_servername_callback": (lambda *args: None,),
        "load_cert_chain": ("x",),
        "load_verify_locations": (None, None, CA.pem),
        "set_psk_client_callback": (lambda hint: ("", b""),),
        "set_psk_server_callback": (lambda identity: b"",),
    }.items():
        if hasattr(ssl.SSLContext, name):
            with pytest.raises(ConfigError):
                getattr(context, name)(*arguments)


def test_a_method_of_a_later_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until somebody has thought of it: here one is left out of the list."""
    import importlib

    from sealwire.security.contexts import sealed

    monkeypatch.setattr(ssl.SSLContext, "set_anything", lambda self: None, raising=False)
    spec = importlib.util.find_spec(sealed.__name__)
    assert spec is not None
    assert spec.loader is not None
    later = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, sealed.__name__, later)  # for its dataclass
    spec.loader.exec_module(later)
    with pytest.raises(ConfigError, match="set_anything"):
        later.SealedContext(ssl.PROTOCOL_TLS_CLIENT).set_anything()


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda f: f.__name__
)
def test_it_cannot_be_copied(
    copied: Callable[[Any], Any], side: str, kind: Callable[..., ssl.SSLContext]
) -> None:
    """The copy of an SSLContext is an empty one, that verifies nobody."""
    with pytest.raises(TypeError, match="pass on the Security"):
        copied(kind(side))


def test_its_classes_cannot_be_hidden(side: str, kind: Callable[..., ssl.SSLContext]) -> None:
    context = kind(side)
    vars(context).update(sslsocket_class=ssl.SSLSocket, sslobject_class=ssl.SSLObject)
    assert context.sslsocket_class is VerifiedSocket
    assert context.sslobject_class is VerifiedObject


TIGHTENED: list[Callable[[ssl.SSLContext], object]] = [
    lambda c: setattr(c, "minimum_version", ssl.TLSVersion.TLSv1_3),
    lambda c: setattr(c, "maximum_version", ssl.TLSVersion.TLSv1_2),
    lambda c: setattr(c, "maximum_version", ssl.TLSVersion.TLSv1_3),
    lambda c: setattr(c, "maximum_version", ssl.TLSVersion.MAXIMUM_SUPPORTED),
    lambda c: setattr(c, "verify_flags", c.verify_flags | ssl.VERIFY_X509_TRUSTED_FIRST),
    lambda c: setattr(c, "options", c.options | ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1),
    lambda c: setattr(c, "verify_mode", ssl.CERT_REQUIRED),
    lambda c: setattr(c, "check_hostname", False),
    lambda c: setattr(c, "hostname_checks_common_name", False),
    lambda c: setattr(c, "post_handshake_auth", False),
    lambda c: c.set_ciphers("ECDHE+CHACHA20:@SECLEVEL=3"),
    lambda c: c.set_ecdh_curve("secp384r1"),
    lambda c: c.set_alpn_protocols(["sealwire"]),
    lambda c: setattr(c, "tell_refused", None),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("number", range(len(TIGHTENED)))
def test_what_only_tightens_is_taken(number: int, side: str) -> None:
    """And the context goes on to work, with a CRL too."""
    crl = certs.crl(CA)
    ours = security(NODE, [CA], tls_crl_file=crl)
    context = server_context(ours) if side == "server" else client_context(ours)
    TIGHTENED[number](context)
    server, client = server_context(ours), client_context(ours)
    outcome = shake(server, client)
    assert outcome.accepted, (outcome.server.error, outcome.client.error)


def test_a_flag_that_is_added_counts_beside_a_crl() -> None:
    """The facade has the flags of what stands behind it, so `|=` takes none away."""
    revoked = security(OTHER, [CA])
    ours = security(NODE, [CA], tls_crl_file=certs.crl(CA, OTHER))
    context = server_context(ours)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert shake(context, client_context(security(NODE, [CA]))).accepted
    assert shake(context, client_context(revoked)).refused_by("server") == 23


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_was_set_holds_after_a_change_of_files(tmp_path: Any) -> None:
    """And is not worn out by it."""
    (tmp_path / "ca.pem").write_text(CA.pem)
    (tmp_path / "key.pem").touch(0o600)
    (tmp_path / "key.pem").write_text(NODE.pem + NODE.key_pem)
    ours = Security(
        tls_ca_file=str(tmp_path / "ca.pem"),
        tls_scheduler_cert=str(tmp_path / "key.pem"),
        tls_reload_interval=0,
    )
    context = server_context(ours)
    context.set_ciphers("ECDHE+CHACHA20")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TLSv1
    (tmp_path / "key.pem").write_text(OTHER.pem + OTHER.key_pem)
    outcome = shake(context, client_context(security(NODE, [CA])))
    assert outcome.accepted
    assert outcome.client.tls.cipher() is not None
    assert "CHACHA20" in str(outcome.client.tls.cipher())
    now = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), True).context
    assert now.options & ssl.OP_NO_TLSv1
    assert now.maximum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_connection_keeps_its_context(version: ssl.TLSVersion, side: str) -> None:
    """A callback of the server name is given the connection, and could set another there."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weak = foreign_context(side, NODE, [CA], version=version)
    weak.check_hostname = False
    weak.verify_mode = ssl.CERT_NONE
    ours = facade(side, tls_max_version=version)
    connection = ours.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), side == "server")
    before = connection.context
    with pytest.raises(ConfigError, match="change the context"):
        connection.context = weak
    connection.context = before
    assert connection.context is before
