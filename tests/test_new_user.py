"""What a new user does: the first steps in their order, in new shells and an empty home."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.guarded import expect_refused, rob, robbed
from support.processes import HANG, Program, Programs

ROOT = Path(__file__).resolve().parents[1]
START = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
TROUBLE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
DEPLOYING = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
CERTIFICATES = (ROOT / "docs" / "certificates.md").read_text(encoding="utf-8")
QUIET = "--host 127.0.0.1 --dashboard-address 127.0.0.1:0"
ANY_PORT = "--port 0"


def section(page: str, title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def commands(text: str) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def code(text: str, word: str) -> str:
    return next(
        each for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in each
    )


FIRST = section(START, "Five minutes, with Dask")
LAPTOP = section(CERTIFICATES, "On a laptop")


class User:
    """Opens new shells in an empty home, of which each knows nothing of the others."""

    def __init__(self, home: Path, programs: Programs) -> None:
        self.home = home
        self.programs = programs
        self.environment = {
            "HOME": str(home),
            "TMPDIR": str(home),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        }

    def shell(self, *lines: str) -> list[str]:
        """What runs `lines` in a new shell."""
        pairs = [f"{name}={value}" for name, value in self.environment.items()]
        lead = ["env", "-i", *pairs, "PYTHONUNBUFFERED=1", "bash", "-euc"]
        *before, last = lines
        return [*lead, "\n".join([*before, f"exec {last}"])]

    def run(self, *lines: str) -> str:
        done = subprocess.run(
            self.shell(*lines), cwd=self.home, capture_output=True, text=True, timeout=HANG
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *lines: str) -> Program:
        program = Program(self.shell(*lines), self.home)
        self.programs.started.append(program)
        return program


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    with Programs(tmp_path) as programs:
        user = User(tmp_path, programs)
        yield user


def test_the_first_steps(user: User, tmp_path: Path) -> None:
    """In terminals with the configuration; the client and the cluster in others.

    The laptop of docs/certificates.md is started by the same, but for hosts and a port.
    """
    init, check, export, scheduler, worker = commands(FIRST)[1:]
    for line in (init, check):
        assert line.startswith("sealwire certs ")
        user.run(line)
    rob(tmp_path / "certs")
    assert export.startswith("export DASK_CONFIG=")
    here = "--host 127.0.0.1"
    assert commands(LAPTOP) == [
        *(init, check, export), f"{scheduler} {here} --port 8786", f"{worker} {here}"
    ]  # fmt: skip
    first = user.start(export, f"{scheduler} {QUIET} {ANY_PORT}")
    address = first.wait_for(r"Scheduler at:\s+(tls://\S+)")[1]
    port = address.rpartition(":")[2]
    second = user.start(export, f"{worker.replace('8786', port)} {QUIET}")
    second.wait_for("Registered to")
    (tmp_path / "client.py").write_text(code(FIRST, "Client(").replace("8786", port))
    cluster = code(FIRST, "LocalCluster(").replace("n_workers=2", "n_workers=1")
    (tmp_path / "cluster.py").write_text(cluster)
    assert user.run("python cluster.py") == "4950\n"
    probe = next(line for line in commands(TROUBLE) if "probe" in line)
    said = user.run(export, probe.replace("tls://10.0.0.5:8786", address))
    assert "each side accepts the other's certificate" in " ".join(said.split())
    expect_refused(address, tmp_path / "certs")
    (tmp_path / "links.py").write_text(code(FIRST, "links").replace("8786", port))
    (tmp_path / "refused.py").write_text(code(TROUBLE, "refused").replace("8786", port))
    done, *shown, counted = user.run("cat client.py links.py refused.py | python").splitlines()
    assert done == "4950"
    assert len(shown) >= 2
    assert all(re.search(r"^tls://\S+ TLSv1\.3 TLS_\w+ \[\]$", line) for line in shown), shown
    assert re.search(rf"\('{address}', {{.*'revoked': 1", counted)
    assert "its own backend" in "".join(first.output + second.output)


def test_a_terminal_without_the_configuration(user: User, tmp_path: Path) -> None:
    """Nothing plain is started, and the setting that is missing is named."""
    robbed(tmp_path / "certs")
    scheduler, worker = commands(FIRST)[4:]
    for line, role in ((f"{scheduler} {ANY_PORT}", "scheduler"), (worker, "worker")):
        program = user.start(f"{line} {QUIET}")
        program.wait_for(f"role {role} has no certificate .* distributed.comm.tls.{role}.cert")
        assert program.process.wait(HANG) != 0
        assert "tcp://" not in "".join(program.output)


def test_the_options_instead(user: User, tmp_path: Path) -> None:
    """Instead of the configuration, with the CRL named by a variable."""
    folder = robbed(tmp_path / "certs")
    scheduler, worker = commands(FIRST)[4:]
    crl = f"export DASK_SEALWIRE__TLS__CRL_FILE={folder}/crl.pem"
    options = "--tls-ca-file certs/ca.pem --tls-cert certs/{0}.pem --tls-key certs/{0}.pem"
    first = user.start(crl, f"{scheduler} {QUIET} {ANY_PORT} {options.format('scheduler')}")
    address = first.wait_for(r"Scheduler at:\s+(tls://\S+)")[1]
    line = worker.replace("8786", address.rpartition(":")[2])
    line += f" {QUIET} --no-nanny {options.format('worker')}"
    user.start(crl, line).wait_for("Registered to")
    expect_refused(address, folder)


def test_the_commands_of_the_deployments(user: User, tmp_path: Path) -> None:
    """With `DASK_CONFIG`; a second worker without it, from the other place that the page names.

    So are the clients: without a word of security, and as on the laptop of docs/certificates.md.
    """
    folder = robbed(tmp_path / "certs")
    export, scheduler, worker = commands(section(DEPLOYING, "`dask scheduler` and `dask worker`"))
    export = export.replace("/etc/sealwire", "$HOME/certs")
    first = user.start(export, f"{scheduler} {QUIET} {ANY_PORT}")
    address = first.wait_for(r"Scheduler at:\s+(tls://\S+)")[1]
    line = f"{worker.replace('tls://node1:8786', address)} {QUIET} --no-nanny"
    assert address in line
    user.start(export, line).wait_for("Registered to")
    assert "~/.config/dask" in DEPLOYING
    user.run("mkdir -p .config/dask", "cp certs/dask.yaml .config/dask/")
    bare = address.removeprefix("tls://")  # the scheme is configured
    user.start(line.replace(address, bare)).wait_for("Registered to")
    (tmp_path / "client.py").write_text(
        f"from distributed import Client\n"
        f"with Client('{bare}') as client:\n"
        f"    client.wait_for_workers(2)\n"
        f"    print(client.submit(sum, range(100)).result())\n"
        f"{code(LAPTOP, 'Client(').replace('tls://127.0.0.1:8786', address)}"
    )
    assert user.run("python client.py") == "4950\n" * 2
    expect_refused(address, folder)
