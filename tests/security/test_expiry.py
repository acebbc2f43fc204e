"""Certificates that end soon: the line in the log, and how often it comes."""

from __future__ import annotations

import datetime
import math
import re
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from sealwire.security import ConfigError, Security
from sealwire.security.contexts.expiry import Deadline, Expiry, in_words
from sealwire.security.der import end_of
from support import certs
from support.certs import DAY, HOUR
from support.handshakes import client_context, security, server_context, shake


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "sealwire.security"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (29.9 * 86400, "30 days"), (2 * 86400, "2 days"), (2 * 86400 - 1, "48 hours"),
        (7200, "2 hours"), (7199, "120 minutes"), (120, "2 minutes"), (119, "119 seconds"),
        (1.4, "1 seconds"), (0, "0 seconds"),
    ],
)  # fmt: skip
def test_what_is_left_in_words(seconds: float, words: str) -> None:
    """Also in the last hours, when somebody looks."""
    assert in_words(seconds) == words


@pytest.mark.parametrize("end", [HOUR, 10 * DAY, 29 * DAY])
def test_an_own_certificate(
    end: datetime.timedelta, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca = certs.root()
    node = certs.leaf(ca, start=-90 * DAY, end=end)
    path = tmp_path / "worker.pem"
    path.touch(mode=0o600)
    path.write_text(node.pem + node.key_pem)
    one = Security(tls_ca_file=ca.pem, tls_worker_cert=path, tls_scheduler_cert=path)
    server_context(one, "worker")
    (said,) = lines(caplog)
    left = f"{end.days} days" if end.days else "60 minutes"
    date = node.certificate.not_valid_after_utc
    assert said == (
        f"the certificate in tls_worker_cert ({path}) expires on {date:%Y-%m-%d %H:%M} UTC, "
        f"{left} from now; renew it and replace the file: running processes take the new one"
    )
    # The other side, another role and another object: once a day for a certificate.
    client_context(one, "worker")
    server_context(one, "scheduler")
    server_context(Security(**one.fields()), "worker")
    assert shake(server_context(one, "worker"), client_context(one, "worker")).accepted
    assert len(lines(caplog)) == 1


def test_a_ca_an_intermediate_and_a_list(caplog: pytest.LogCaptureFixture) -> None:
    old = {"start": -90 * DAY}
    ca, other = certs.root(end=5 * DAY, **old), certs.root()
    between = certs.intermediate(ca, end=3 * DAY, **old)
    node = certs.leaf(between, via=[between])
    crl = certs.crl(other, end=40 * DAY) + certs.crl(ca, end=HOUR * 20, **old)
    one = security(node, [other, ca], tls_crl_file=crl)
    server_context(one)
    said = lines(caplog)
    assert len(said) == 3
    memory = r"\(PEM text in memory\)"
    for line, words in zip(
        said,
        (
            rf"certificate 2 in tls_ca_file {memory} expires .*, 5 days .*: add a new CA",
            rf"certificate 2 in tls_scheduler_cert {memory} expires .*, 3 days .*make a new one",
            rf"CRL 2 in tls_crl_file {memory} expires .*, 20 hours .*put a fresh one there",
        ),
        strict=True,
    ):
        assert re.search(words, line), line


def test_what_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    ca = certs.root()
    server_context(security(certs.leaf(ca, end=-HOUR / 2), [ca]))
    (said,) = lines(caplog)
    assert re.search(r"the certificate in tls_scheduler_cert .* has expired on .* UTC; ", said)


@pytest.mark.parametrize(
    ("setting", "end", "warned"),
    [
        (None, 31 * DAY, False),
        (30, 29 * DAY, True),
        (60, 50 * DAY, True),
        ("1 week", 8 * DAY, False),
        ("1 week", 6 * DAY, True),
        ("12 h", 11 * HOUR, True),
        (0, HOUR, False),
        (0, -HOUR / 2, True),
        ("never", -HOUR / 2, False),
        (False, HOUR, False),
    ],
)
def test_the_setting(
    setting: Any, end: datetime.timedelta, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ca = certs.root()
    one = security(certs.leaf(ca, end=end), [ca], tls_expiry_warning=setting)
    server_context(one)
    assert bool(lines(caplog)) is warned
    assert Security(**one.fields()).tls_expiry_warning == one.tls_expiry_warning


def test_the_setting_must_be_a_time() -> None:
    with pytest.raises(ConfigError, match=r"tls_expiry_warning: expected a time such as 5 or '30"):
        Security(tls_expiry_warning="soon")
    assert Security(tls_expiry_warning="36 h").tls_expiry_warning == 1.5
    assert Security(tls_expiry_warning="never").tls_expiry_warning == math.inf


def test_once_a_day(caplog: pytest.LogCaptureFixture) -> None:
    """Told the hours of three days, one after the other."""
    now = time.time()
    ends = [Deadline(f"the certificate {n}", f"print {n} {now}", now + 86400, "x") for n in (1, 2)]
    ours = Expiry(ends, 3600 * 24 * 30)
    told = []
    for hour in range(72):
        caplog.clear()
        ours.warn(now + 3600 * hour)
        Expiry(ends, 3600 * 24 * 30).warn(now + 3600 * hour)
        told.append(len(lines(caplog)))
    assert [hour for hour, count in enumerate(told) if count] == [0, 24, 48]
    assert set(told) == {0, 2}


def test_a_replaced_certificate_is_looked_at(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca = certs.root()
    path = tmp_path / "worker.pem"
    path.touch(mode=0o600)

    def write(node: certs.Node) -> None:
        path.write_text(node.pem + node.key_pem)

    write(certs.leaf(ca))
    one = Security(tls_ca_file=ca.pem, tls_worker_cert=path, tls_reload_interval=0)
    server = server_context(one, "worker")
    assert not lines(caplog)
    write(certs.leaf(ca, start=-9 * DAY, end=DAY))
    assert shake(server, client_context(one, "worker")).accepted
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize("year", [2030, 2049, 2050, 2999, 9999])
def test_times_are_read_as_cryptography_reads_them(year: int) -> None:
    """UTCTime until 2049, GeneralizedTime from then on."""
    now = datetime.datetime.now(datetime.timezone.utc)
    end = datetime.datetime(year, 6, 1, 12, 30, 45, tzinfo=datetime.timezone.utc)
    node = certs.make("x", end=end - now)
    assert end_of(node.der) == node.certificate.not_valid_after_utc.timestamp()
    crl = certs.crl(certs.root(), node, end=end - now)
    body = ssl.PEM_cert_to_DER_cert(crl.replace("X509 CRL", "CERTIFICATE"))
    loaded = certs.x509.load_pem_x509_crl(crl.encode())
    assert loaded.next_update_utc is not None
    assert end_of(body) == loaded.next_update_utc.timestamp()


def test_what_is_no_certificate_has_no_end() -> None:
    der = certs.root().der
    assert end_of(b"") is None
    assert end_of(b"\x30\x03abc") is None
    ends = {end_of(der[:size]) for size in range(0, len(der), 7)}
    assert ends == {None}
