"""When a certificate is said to end soon, in the log, by `check` and by `renew`: as it lives."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from sealwire.security import Security
from sealwire.security.ca.renewal import renew
from sealwire.security.ca.store import Store
from sealwire.security.checks.runner import check_configuration, check_folder
from support import certs, folders
from support.certs import DAY, HOUR
from support.certs_cli import run
from support.handshakes import server_context

# Days that a certificate lives, and days before its end from which it is warned of.
LIVES = [(1, 1 / 3), (6, 2), (30, 10), (47, 47 / 3), (90, 30), (365, 30)]


@pytest.mark.parametrize(("days", "soon"), LIVES)
@pytest.mark.parametrize("of", ["leaf", "intermediate", "CA"])
def test_warned_of_in_its_last_third_or_month(
    days: float, soon: float, of: str, caplog: pytest.LogCaptureFixture
) -> None:
    for left, expected in ((days * 0.99, 0), (soon + 0.1, 0), (soon - 0.1, 1), (-0.01, 1)):
        times = {"start": (left - days) * DAY, "end": left * DAY}
        ca = certs.root(**times if of == "CA" else {})
        between = certs.intermediate(ca, **times if of == "intermediate" else {})
        node = certs.leaf(between, "worker", via=[between], **times if of == "leaf" else {})
        caplog.clear()
        one = Security(tls_ca_file=ca.pem, tls_scheduler_cert=node.pem + node.key_pem)
        server_context(one)
        assert len(caplog.records) == expected, (left, caplog.text)
        found = check_configuration({**dict.fromkeys(one.fields()), **configured(one)})
        dated = [each for each in found if "expire" in each.code or "expire" in each.message]
        assert len(dated) == expected, (left, found)


def configured(one: Security) -> dict[str, object]:
    return {name: getattr(one, name) for name in ("tls_ca_file", "tls_scheduler_cert")}


@pytest.mark.parametrize("days", [1, 6, 30])
def test_a_new_folder_of_short_lives_fits(tmp_path: Path, days: float) -> None:
    folder = folders.found(tmp_path / "certs", days=days)
    assert check_folder(folder) == []
    said = run("check", str(folder))
    assert said.exit_code == 0, said.output
    assert "all fits" in said.output


def test_what_is_asked_for_is_exact(tmp_path: Path) -> None:
    folder = folders.found(tmp_path / "certs", days=6)
    assert {each.code for each in check_folder(folder, soon=7 * DAY)} == {"expires-soon"}
    done = run("check", str(folder), "--soon", "7d", "--json")
    assert done.exit_code == 1
    found = json.loads(done.output)
    assert {each["code"] for each in found} == {"expires-soon"}
    subjects = [each["subject"] for each in found]
    assert len(subjects) == len(set(subjects)) == 3, "each finding once"


@pytest.mark.parametrize(
    ("lives", "left", "within", "due"),
    [
        (30 * DAY, 29 * DAY, 30 * DAY, False),
        (30 * DAY, 11 * DAY, 30 * DAY, False),
        (30 * DAY, 9 * DAY, 30 * DAY, True),
        (6 * DAY, 5 * DAY, 30 * DAY, False),
        (6 * DAY, 1 * DAY, 30 * DAY, True),
        (1 * DAY, 20 * HOUR, 30 * DAY, True),  # cron comes once a day
        (47 * DAY, 29 * DAY, 30 * DAY, True),  # as asked: it is not all its life
        (30 * DAY, 9 * DAY, 8 * DAY, False),
        (30 * DAY, 7 * DAY, 8 * DAY, True),
    ],
)
def test_a_daily_renewal_does_not_renew_daily(
    tmp_path: Path,
    lives: datetime.timedelta,
    left: datetime.timedelta,
    within: datetime.timedelta,
    due: bool,
) -> None:
    folder = folders.found(tmp_path / "certs")
    (authority,) = Store(folder).authorities
    days = lives / DAY
    made = authority.issue("worker", not_before=folders.now() + left - lives, days=days)
    (folder / "worker.pem").write_text(made.certificate + made.key)
    (result,) = renew(Store(folder), [Store(folder).find("worker")], within=within)[0]
    assert result.status == ("renewed" if due else "kept")
