"""Who has something expired, or wants it so, would rather wait for the files than go on without."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

import pytest
from cryptography import x509

from sealwire.security import Authority, Security
from sealwire.security.contexts import reloading
from sealwire.security.contexts.background import PATIENCE
from sealwire.security.x509.templates import now

AGO = datetime.timedelta(hours=2)


@pytest.mark.parametrize(
    ("expired", "interval"), [(True, 0.001), (False, 0), (False, "0 ms"), (False, 0.001)]
)
def test_a_check_that_takes_long_is_waited_for_where_it_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expired: bool, interval: float | str
) -> None:
    """On a busy machine: what is there is expired, or every handshake is to have a check.

    The first happens after a quiet time, with certificates that live for minutes.
    """
    authority = Authority.create("lab CA")
    file = tmp_path / "worker.pem"

    def write(**how: object) -> int:
        made = authority.issue("worker", **how)  # type: ignore[arg-type]
        file.write_text(made.certificate + made.key)
        return x509.load_pem_x509_certificate(made.certificate.encode()).serial_number

    before = write(days=1 / 24, not_before=now() - AGO) if expired else write(days=1)
    security = Security(
        tls_ca_file=authority.certificate, tls_worker_cert=file, tls_reload_interval=interval
    )
    context = security.get_connection_args("worker")["ssl_context"]
    watch = context._watch
    update = watch._update

    def slow() -> list[str]:
        time.sleep(4 * PATIENCE)
        changed: list[str] = update()
        return changed

    def serial() -> int:
        built = watch.present("client").material
        text = built.certificate.read()
        return int(x509.load_pem_x509_certificate(text.encode()).serial_number)

    assert serial() == before
    file.unlink()
    after = write(days=1)
    monkeypatch.setattr(watch, "_update", slow)
    time.sleep(0.01)  # the interval between checks
    waits = expired or interval != 0.001
    assert serial() == (after if waits else before)
    deadline = time.monotonic() + 20
    while serial() != after:
        assert time.monotonic() < deadline
    assert reloading._RATHER > 4 * PATIENCE
