"""The page of a real cluster, read by an HTTP client: what has happened is seen on it.

One cluster for all: a scheduler and a worker of ours, and a worker on stock's backend.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sealwire.cli.main import main
from sealwire.security.ca.authority import Authority, Identity
from support import HANG, forking
from support.browser import browse
from support.parties import ROLES
from support.processes import PRELOAD, Program, Programs, tls_options
from support.web import Page, get, get_json, until

DAYS = {"scheduler": 40.5, "worker": 40.5, "client": 400.0}


#: at its files, where nobody connects: every 5 s would be waited for four times
LOOKS_OFTEN = "from sealwire.dask_backend.dashboard import report; report._LOOK = 0.1"


def write(path: Path, identity: Identity) -> None:
    """Replace a file, as one would: by a new one."""
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(identity.certificate + identity.key)
    os.replace(new, path)


class Cluster:
    """Its processes, addresses and files."""

    def __init__(self, programs: Programs, folder: Path) -> None:
        self.authority = Authority.create("cluster")
        (folder / "ca.pem").write_text(self.authority.certificate)
        self.files = {"tls_ca_file": str(folder / "ca.pem")}
        for role in ROLES:
            path = folder / f"{role}.pem"
            write(path, self.authority.issue(role, days=DAYS[role]))
            self.files |= {f"tls_{role}_cert": str(path), f"tls_{role}_key": str(path)}
        ca, mine = self.files["tls_ca_file"], self.files["tls_client_cert"]
        self.credentials = ["--ca", ca, "--cert", mine]
        preloads = (*PRELOAD, "--preload", str(folder / "preload.py"))
        (folder / "preload.py").write_text(LOOKS_OFTEN)
        options = tls_options(self.files, "scheduler")
        scheduler, self.address = programs.scheduler("tls", *options, *preloads, "--dashboard")
        self.url = scheduler.wait_for(r"dashboard at:\s+(\S+)/status")[1]
        self.worker = self.start(programs, "ours", *preloads)
        self.stock = self.start(programs, "stock")
        for _ in range(2):
            scheduler.wait_for("Register worker addr")

    def start(self, programs: Programs, name: str, *options: str) -> Program:
        tls = tls_options(self.files, "worker")
        return programs.worker(self.address, *tls, "--name", name, "--no-nanny", *options)

    def view(self, query: str = "") -> Any:
        return get_json(f"{self.url}/sealwire.json{query}")

    def process(self, name: str) -> dict[str, Any]:
        (row,) = [row for row in self.view()["processes"] if row["name"] == name]
        return dict(row)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("dashboard")
    with Programs(folder, forked=True) as programs:
        yield Cluster(programs, folder)


def test_every_process_and_its_links(cluster: Cluster) -> None:
    view = until(cluster.view, lambda view: any(r["other"] == "scheduler" for r in view["links"]))
    rows = {row["name"]: row for row in view["processes"]}
    assert set(rows) == {"scheduler", "worker ours", "worker stock"}
    assert rows["scheduler"]["address"] == cluster.address
    for name, role in (("scheduler", "scheduler"), ("worker ours", "worker")):
        row = rows[name]
        assert row["backend"].startswith("sealwire ")
        assert row["state"] == "ok", row
        held = {each["kind"]: each for each in row["certificates"]}
        assert held["own"]["name"] == f"CN={role}"
        assert 40 < held["own"]["days"] < 41
        assert held["CA"]["name"] == "CN=cluster"
    assert rows["worker ours"]["pid"] == cluster.worker.process.pid
    assert 0 <= rows["worker ours"]["heard"] < 60
    ours = [row for row in view["links"] if row["process"] == "worker ours"]
    (dialled,) = [row for row in ours if row["other"] == "scheduler"][:1]
    assert dialled["peer"] == cluster.address
    assert dialled["identity"] == "CN=scheduler"
    assert dialled["protocol"] == "TLSv1.3"
    assert dialled["cipher"].startswith("TLS_")
    assert dialled["backend"] == "sealwire"
    assert dialled["bytes_out"] > 0
    assert dialled["age"] >= 0
    assert 0 < dialled["round_trip_us"] < 60e6
    assert 40 < dialled["days"] < 41
    # The other end of that very link, as the scheduler tells it.
    (end,) = [row for row in view["links"] if row["peer"] == dialled["local"]]
    assert (end["process"], end["other"]) == ("scheduler", "worker ours")


def test_a_worker_on_stocks_backend_is_shown_as_such(cluster: Cluster) -> None:
    row = cluster.process("worker stock")
    assert (row["state"], row["backend"], row["links"]) == ("stock", "distributed", 0)
    assert "distributed's own backend" in row["faults"][0]
    links = [row for row in cluster.view()["links"] if row["other"] == "worker stock"]
    assert links  # the scheduler's end of it
    assert {row["identity"] for row in links} == {"CN=worker"}
    page = Page(get(f"{cluster.url}/sealwire"))
    (shown,) = [row for row in page.rows("processes") if row["process"] == "worker stock"]
    assert "distributed's backend" in shown["state"]
    assert any(tag == "g" and attrs.get("class") == "stock" for tag, attrs in page.tags)


@pytest.mark.parametrize("who", ["scheduler", "worker ours"])
def test_a_refused_stranger_is_seen(cluster: Cluster, who: str) -> None:
    before = cluster.process(who)["refused"]
    host, _, port = cluster.process(who)["address"].removeprefix("tls://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while plain.recv(100):
            pass
    nobody = ssl.create_default_context(cadata=cluster.authority.certificate)
    nobody.check_hostname = False
    with (
        socket.create_connection((host, int(port)), timeout=60) as sock,
        pytest.raises((ssl.SSLError, ConnectionError)),
        nobody.wrap_socket(sock) as tls,
    ):
        assert tls.recv(1) == b"never"
    row = until(
        lambda: cluster.process(who),
        lambda row: all(
            row["refused"].get(kind, 0) > before.get(kind, 0)
            for kind in ("not-tls", "no-certificate")
        ),
    )
    assert row["state"] == "warn"
    assert row["refused_ever"] >= 2
    page = Page(get(f"{cluster.url}/sealwire"))
    (shown,) = [row for row in page.rows("processes") if row["process"] == who]
    assert "no-certificate" in shown["refused, last hour"]
    assert "not-tls" in page.text.partition("Refused within the last hour")[2]


@pytest.mark.parametrize(("who", "role"), [("scheduler", "scheduler"), ("worker ours", "worker")])
def test_a_renewed_certificate_and_a_damaged_one_are_seen(
    cluster: Cluster, who: str, role: str
) -> None:
    """Although nobody connects meanwhile."""

    def outdated() -> bool:
        words = f"changed certificate files cannot be used ({role}); its log says why"
        return words in cluster.process(who)["faults"]

    file = Path(cluster.files[f"tls_{role}_cert"])
    file.write_text("no certificate")
    until(outdated, bool)
    new = cluster.authority.issue(role, days=90.5)
    write(file, new)
    until(outdated, lambda it_is: not it_is)

    def days() -> list[float]:
        held = cluster.process(who)["certificates"]
        return [each["days"] for each in held if each["kind"] == "own"]

    assert 90 < until(days, lambda days: days[0] > 41)[0] < 91
    page = Page(get(f"{cluster.url}/sealwire"))
    (shown,) = [row for row in page.rows("processes") if row["process"] == who]
    assert f"own CN={role}: 90 days" in shown["certificates"]


@pytest.mark.bokeh
def test_it_is_in_the_menu(cluster: Cluster) -> None:
    assert '<a href="sealwire">Sealwire</a>' in get(f"{cluster.url}/status")
    menu = Page(get(f"{cluster.url}/sealwire"))
    assert ("a", {"href": "status"}) in menu.tags
    assert ("a", {"href": "sealwire", "aria-current": "page"}) in menu.tags
    plots = get_json(f"{cluster.url}/individual-plots.json")
    assert plots["Individual Workers"] == "/individual-workers"  # as ever


def test_it_is_among_the_plots(cluster: Cluster) -> None:
    plots = get_json(f"{cluster.url}/individual-plots.json")
    embedded = Page(get(cluster.url + plots["Individual Sealwire"]))
    assert embedded.rows("processes")
    assert "nav" not in [tag for tag, _ in embedded.tags]


def test_rows_are_found_and_bounded(cluster: Cluster) -> None:
    everything = cluster.view()
    assert {row["process"] for row in cluster.view("?find=WORKER%20ours")["links"]} >= {
        "worker ours"
    }
    assert cluster.view("?find=no%20such%20thing")["links"] == []
    less = cluster.view("?rows=1")
    assert len(less["links"]) == len(less["processes"]) == 1
    assert less["processes_left_out"] == 2
    assert less["summary"]["processes"] == 3
    odd = [*(f"rows={number}" for number in ("x", "-1", "1e9", "9" * 5000)), "find=%00%1b"]
    for query in (*odd, "find=%E2%80%AE"):
        told = cluster.view(f"?{query}")
        assert told["summary"]["processes"] == everything["summary"]["processes"]
    hostile = get(f"{cluster.url}/sealwire?find=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    assert "<script>alert" not in hostile


def test_headers_let_nothing_else_in(cluster: Cluster) -> None:
    for page in ("sealwire", "individual-sealwire", "sealwire.json"):
        with urllib.request.urlopen(f"{cluster.url}/{page}", timeout=60) as reply:
            policy = reply.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; ")
            assert "unsafe" not in policy
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
            body = reply.read().decode()
            assert "http://" not in body.replace("http://www.w3.org/2000/svg", "")
            assert "https://" not in body
        assert page != "sealwire.json" or json.loads(body)


# The same in a terminal


def top(cluster: Cluster, *arguments: str, address: str = "") -> Result:
    asked = [address or cluster.address, *cluster.credentials, *arguments]
    return CliRunner().invoke(main, ["top", *asked])


def test_top_tells_the_same_as_json(cluster: Cluster) -> None:
    done = top(cluster, "--json", "--find", "worker")
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    names = [row["name"] for row in told["processes"]]
    assert sorted(names) == ["worker ours", "worker stock"]
    assert set(told) == set(cluster.view())
    assert {row["process"] for row in told["links"]} >= {"worker ours"}
    assert len(json.loads(top(cluster, "--json", "--rows", "1").output)["links"]) == 1


def test_top_shows_tables(cluster: Cluster) -> None:
    done = top(cluster, "--once")
    assert done.exit_code == 0, done.output
    for words in ("worker ours", "■ on distributed's backend", "CN=scheduler", "round trip", "1.3"):
        assert words in done.output
    assert "\x1b" not in done.output
    assert "\n1 process\n" in re.sub(" +\n", "\n", top(cluster, "--once", "--find", "stock").output)


def test_top_says_what_is_in_its_way(cluster: Cluster, tmp_path: Path) -> None:
    worker = cluster.process("worker ours")["address"]
    closed = "tls://127.0.0.1:9"
    for address, options, code, words in [
        (worker, ("--timeout", "1"), 1, "give the address of a scheduler"),
        (closed, ("--timeout", "60"), 1, f"cannot connect to {closed}: connection refused; check"),
        ("tls://127.0.0.1", (), 2, "need tls://host:port"),
        ("nonsense://x:1", ("--timeout", "1"), 1, "nonsense"),
        (cluster.address, ("--key", str(tmp_path / "none.pem")), 3, "none.pem"),
    ]:
        done = top(cluster, *options, address=address)
        assert (done.exit_code, words in done.output) == (code, True), done.output
        assert "Traceback" not in done.output
        told = top(cluster, *options, "--json", address=address).stdout
        assert code == 2 or words in json.loads(told)["error"]


@pytest.mark.parametrize("find", ["\udcff\x1b[31m", "\ud800", "n\0de", "x" * 200_000])
def test_top_finds_whatever_text_it_is_given(cluster: Cluster, find: str) -> None:
    done = top(cluster, "--json", "--find", find)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["processes"] == []


ANSWERS = [b"HTTP/1.0 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", bytes(64), b"\xff" * 64]


@pytest.mark.parametrize("answer", ANSWERS)
def test_top_survives_whatever_answers(cluster: Cluster, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    comm, _ = server.accept()
                except OSError:
                    return
                with comm:
                    comm.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        done = CliRunner().invoke(main, ["top", address, "--timeout", "1"])
        server.shutdown(socket.SHUT_RDWR)
        thread.join(HANG)
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.output


@pytest.mark.parametrize("terminal", ["dumb", "unknown"])
def test_top_looks_once_where_no_cursor_moves(
    cluster: Cluster, terminal: str, tmp_path: Path
) -> None:
    near, far = pty.openpty()
    ask = ["top", cluster.address, *cluster.credentials]
    try:
        assert forking.sealwire(*ask, folder=tmp_path, terminal=far, TERM=terminal)[0] == 0
        assert b"processes" in os.read(near, 65536)
    finally:
        os.close(far)
        os.close(near)


def test_top_is_refused_with_a_certificate_of_another_ca(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And says so once: what is logged goes to the same terminal."""
    other = Authority.create("cluster").issue("client")
    write(tmp_path / "other.pem", other)
    done = top(cluster, "--cert", str(tmp_path / "other.pem"), "--timeout", "30")
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    assert done.output.count(f"TLS handshake with {cluster.address} failed: it refused our") == 1
    assert not [words for words in caplog.messages if "TLS handshake" in words]


def test_top_lives_until_it_is_interrupted(cluster: Cluster) -> None:
    near, far = pty.openpty()
    command = [sys.executable, "-m", "sealwire.cli", "top", cluster.address, *cluster.credentials]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    process = subprocess.Popen(
        [*command, "--interval", "0.5"], stdin=far, stdout=far, stderr=far, env=environment
    )
    os.close(far)
    try:
        seen = b""
        deadline = time.monotonic() + HANG
        while seen.count(b"worker ours") < 2 and time.monotonic() < deadline:
            seen += os.read(near, 65536)  # two pictures, at least
        process.send_signal(signal.SIGINT)
        assert process.wait(HANG) == 0
        while select.select([near], [], [], 0)[0]:
            try:
                seen += os.read(near, 65536)
            except OSError:  # the other end is closed
                break
    finally:
        process.kill()
        process.wait()
        os.close(near)
    assert seen.count(b"worker ours") >= 2, seen
    assert b"\x1b[?1049l" in seen  # the screen is as it was before
    assert b"Traceback" not in seen


# In a browser


@pytest.mark.browser
def test_a_browser_shows_it(cluster: Cluster, tmp_path: Path) -> None:
    """With `SEALWIRE_PICTURES` naming a folder, the picture of the documents is made there."""
    shot = tmp_path / "dashboard.png"
    options = ("--window-size=1440,1000", f"--screenshot={shot}")
    page = Page(browse(f"{cluster.url}/sealwire", *options))
    rows = {row["process"]: row for row in page.rows("processes")}
    assert set(rows) == {"scheduler", "worker ours", "worker stock"}
    assert rows["worker stock"]["backend"] == "distributed"
    assert {row["its certificate"] for row in page.rows("links")} >= {"CN=worker", "CN=scheduler"}
    picture = shot.read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert int.from_bytes(picture[16:20], "big") == 1440
    assert len(picture) > 20_000  # an empty page has less
    if folder := os.environ.get("SEALWIRE_PICTURES"):
        Path(folder, shot.name).write_bytes(picture)
