"""What our contexts speak, with each other and with others, and that they stay that way."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest

from sealwire.security import ConfigError, Security, SessionResumed
from sealwire.security.contexts.policy import SealedContext
from sealwire.security.security import ROLES
from support import certs
from support.handshakes import (
    VERSIONS,
    client_context,
    foreign_context,
    security,
    server_context,
    shake,
)

CA = certs.root()
NODE = certs.leaf(CA)

each_version = pytest.mark.parametrize("version", VERSIONS, ids=["TLS1.2", "TLS1.3"])


@pytest.fixture(scope="module")
def shared() -> Security:
    return Security.temporary()


@each_version
@pytest.mark.parametrize("listening", ROLES)
@pytest.mark.parametrize("dialling", ROLES)
def test_every_role_talks_to_every_role(
    shared: Security, listening: str, dialling: str, version: ssl.TLSVersion
) -> None:
    one = Security(**{**shared.fields(), "tls_max_version": version, "tls_min_version": version})
    outcome = shake(server_context(one, listening), client_context(one, dialling))
    assert outcome.accepted
    assert outcome.server.tls.version() == version.name.replace("_", ".")
    peer = outcome.server.tls.getpeercert()
    assert peer is not None
    assert peer["subject"] == ((("commonName", dialling),),)


def test_two_temporary_clusters_do_not_trust_each_other(shared: Security) -> None:
    other = Security.temporary()
    for server, client in ((shared, other), (other, shared)):
        outcome = shake(server_context(server), client_context(client))
        # X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN: OpenSSL sends the root along
        assert outcome.refused_by("client") == 19


def test_versions_that_do_not_meet() -> None:
    server = server_context(security(NODE, [CA], tls_min_version="1.3"))
    client = client_context(security(NODE, [CA], tls_max_version=1.2))
    outcome = shake(server, client)
    assert outcome.server.error is not None
    assert outcome.server.error.reason == "UNSUPPORTED_PROTOCOL"
    assert outcome.client.error is not None


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.parametrize("peer_side", ["client", "server"])
def test_tls_1_1_is_not_spoken(peer_side: str) -> None:
    old = foreign_context(peer_side, NODE, [CA], version=ssl.TLSVersion.TLSv1_1)
    assert shake(
        foreign_context("server", NODE, [CA], version=ssl.TLSVersion.TLSv1_1),
        foreign_context("client", NODE, [CA], version=ssl.TLSVersion.TLSv1_1),
    ).accepted, "this OpenSSL speaks no TLS 1.1 at all, so the test would show nothing"
    ours = security(NODE, [CA])
    if peer_side == "client":
        outcome = shake(server_context(ours), old)
        error = outcome.server.error
    else:
        outcome = shake(old, client_context(ours))
        error = outcome.client.error
    assert not outcome.accepted
    assert error is not None
    assert error.reason in ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION")


def test_the_default_suites_of_tls_1_2() -> None:
    for suite in server_context(security(NODE, [CA])).get_ciphers():
        assert suite["aead"]
        assert suite["protocol"] == "TLSv1.3" or suite["kea"] == "kx-ecdhe"


def test_the_cipher_string_is_used() -> None:
    suite = "ECDHE-ECDSA-AES256-GCM-SHA384"
    one = security(NODE, [CA], tls_ciphers=suite, tls_max_version="1.2")
    outcome = shake(server_context(one), client_context(one))
    cipher = outcome.server.tls.cipher()
    assert outcome.accepted
    assert cipher is not None
    assert cipher[0] == suite


@pytest.mark.parametrize(
    "string", ["aNULL", "eNULL", "aNULL:eNULL@SECLEVEL=2", "NULL-SHA256", "nonsense", "PEM\0"]
)
def test_a_cipher_string_that_leaves_nothing_is_refused(string: str) -> None:
    with pytest.raises(ConfigError, match=r"tls_ciphers .*authenticates and encrypts"):
        Security(tls_ciphers=string)


@pytest.mark.parametrize("string", ["ALL", "ALL:eNULL", "HIGH:aNULL", "COMPLEMENTOFALL:ALL"])
def test_no_string_lets_an_unprotected_suite_in(string: str) -> None:
    for suite in server_context(security(NODE, [CA], tls_ciphers=string)).get_ciphers():
        assert suite["strength_bits"] > 0
        assert suite["auth"] != "auth-null"


@pytest.mark.parametrize("string", ["ALL:@SECLEVEL=1", "@SECLEVEL=0:ALL:@SECLEVEL=3"])
def test_the_security_level_cannot_be_lowered(string: str) -> None:
    with pytest.raises(ConfigError, match=r"security level [01] is below 2"):
        Security(tls_ciphers=string)


@pytest.mark.parametrize(("string", "level"), [(None, 2), ("ALL", 2), ("ALL:@SECLEVEL=3", 3)])
def test_the_security_level(string: str | None, level: int) -> None:
    one = security(NODE, [CA], tls_ciphers=string)
    assert server_context(one).security_level == level
    assert client_context(one).security_level == level


def test_the_security_level_holds_where_openssl_starts_lower() -> None:
    context = SealedContext(ssl.PROTOCOL_TLS_CLIENT)
    ssl.SSLContext.set_ciphers(context, "ALL:@SECLEVEL=0")  # as some builds begin
    assert context.security_level == 0
    context.set_ciphers("ALL")
    assert context.security_level == 2


@each_version
@pytest.mark.parametrize("ticket", [True, False], ids=["ticket", "session-id"])
def test_no_session_is_resumed(version: ssl.TLSVersion, ticket: bool) -> None:
    server = server_context(security(NODE, [CA]))
    client = foreign_context("client", NODE, [CA], version=version)
    if not ticket:
        client.options |= ssl.OP_NO_TICKET
    first = shake(server, client)
    session = first.client.tls.session
    assert first.accepted
    assert session is not None
    again = shake(server, client, session)
    if version is ssl.TLSVersion.TLSv1_3:
        assert again.accepted, "nothing was offered, so nothing is to be refused"
        assert not again.server.tls.session_reused
    else:
        assert again.client.tls.session_reused, "it was not resumed, so the test shows nothing"
        assert isinstance(again.server.error, SessionResumed)
        assert again.server.received == again.client.received == b""
    assert shake(server, client).accepted


@each_version
def test_no_session_of_ours_is_resumed_either(version: ssl.TLSVersion) -> None:
    """By a client that kept one: what has been revoked since would be taken for good."""
    server = foreign_context("server", NODE, [CA], version=version)
    client = client_context(security(NODE, [CA]))
    first = shake(server, client)
    assert first.accepted
    again = shake(server, client, first.client.tls.session)
    assert again.server.tls.session_reused, "it was not resumed, so the test shows nothing"
    assert isinstance(again.client.error, SessionResumed)
    assert again.server.received == again.client.received == b""
    assert shake(server, client).accepted


@each_version
def test_handshakes_leave_nothing_in_the_servers_cache(version: ssl.TLSVersion) -> None:
    one = security(NODE, [CA], tls_max_version=version, tls_min_version=version)
    server, client = server_context(one), client_context(one)
    for _ in range(3):
        assert shake(server, client).accepted
    assert server.num_tickets == 0
    assert server.session_stats()["number"] == 0


LOOSENED: list[Callable[[ssl.SSLContext], object]] = [
    lambda context: setattr(context, "verify_mode", ssl.CERT_NONE),
    lambda context: setattr(context, "verify_mode", ssl.CERT_OPTIONAL),
    lambda context: setattr(context, "minimum_version", ssl.TLSVersion.MINIMUM_SUPPORTED),
    lambda context: setattr(context, "maximum_version", ssl.TLSVersion.MINIMUM_SUPPORTED),
    lambda context: setattr(context, "options", 0),
    lambda context: setattr(context, "num_tickets", 2),
    lambda context: setattr(context, "sni_callback", None),
    lambda context: setattr(context, "verify_flags", ssl.VERIFY_DEFAULT),
    lambda context: context.set_ciphers("ALL:@SECLEVEL=0"),
    lambda context: context.load_default_certs(),
    lambda context: context.set_default_verify_paths(),
]


@pytest.mark.parametrize("loosen", LOOSENED)
def test_a_context_cannot_be_loosened(loosen: Callable[[ssl.SSLContext], object]) -> None:
    context = server_context(security(NODE, [CA]))
    before = (context.verify_mode, context.options, context.get_ca_certs(), context.get_ciphers())
    with pytest.raises(ConfigError):
        loosen(context)
    assert before == (
        context.verify_mode,
        context.options,
        context.get_ca_certs(),
        context.get_ciphers(),
    )


def test_a_context_can_be_tightened() -> None:
    context = client_context(security(NODE, [CA]))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.options |= ssl.OP_NO_TICKET
    context.set_ciphers("ECDHE+CHACHA20:@SECLEVEL=3")
    assert shake(server_context(security(NODE, [CA])), context).accepted


def test_only_the_given_ca_is_trusted() -> None:
    for context in (server_context(security(NODE, [CA])), client_context(security(NODE, [CA]))):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert not context.check_hostname
        assert context.get_ca_certs(binary_form=True) == [CA.der]
        assert context.cert_store_stats() == {"x509": 1, "x509_ca": 1, "crl": 0}


@each_version
@pytest.mark.parametrize("own_temporary", [True, False], ids=["their certificates", "ours"])
def test_stock_distributed_is_understood(version: ssl.TLSVersion, own_temporary: bool) -> None:
    """A cluster may hold both classes: with the PEM text one of them made, each takes the other."""
    import distributed

    stock = distributed.Security.temporary()
    names = [name for name in distributed.Security.__slots__ if name.startswith("tls_")]
    if own_temporary:
        ours = Security(**{name: getattr(stock, name) for name in names})
    else:
        ours = Security.temporary()
        pem = {name: value for name, value in ours.fields().items() if isinstance(value, str)}
        stock = distributed.Security(require_encryption=True, **pem)
    ours.tls_max_version = stock.tls_max_version = version
    for server, client in (
        (server_context(ours), stock.get_connection_args("worker")["ssl_context"]),
        (stock.get_listen_args("scheduler")["ssl_context"], client_context(ours)),
    ):
        outcome = shake(server, client)
        assert outcome.accepted, (outcome.server.error, outcome.client.error)
