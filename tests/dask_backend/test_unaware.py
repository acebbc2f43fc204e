"""What is configured holds in every process that imports Dask, by whatever it was started."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from distributed.comm import listen

from sealwire.security.config import PROCESSES
from support import forking
from support.guarded import expect_guarded, revoked_server, robbed
from support.parties import echo, select
from support.processes import HANG, Programs
from support.programs import command, environment

Config = dict[str, str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a configuration that names a CRL and an allow-list, and no preload."""
    folder = robbed(tmp_path_factory.mktemp("cluster") / "certs")
    tree = yaml.safe_load((folder / "dask.yaml").read_text())
    for process in PROCESSES:
        del tree["distributed"][process]
    (folder / "plain.yaml").write_text(yaml.safe_dump(tree))
    return folder


# Ways to configure


def as_made(folder: Path, home: Path) -> Config:
    """With the preloads of `certs init`."""
    return {"DASK_CONFIG": str(folder / "dask.yaml")}


def by_file(folder: Path, home: Path) -> Config:
    return {"DASK_CONFIG": str(folder / "plain.yaml")}


def by_folder(folder: Path, home: Path) -> Config:
    return {"DASK_CONFIG": str(placed(folder, home / "configs"))}


def by_root(folder: Path, home: Path) -> Config:
    return {"DASK_ROOT_CONFIG": str(placed(folder, home / "etc"))}


def by_home(folder: Path, home: Path) -> Config:
    placed(folder, home / ".config" / "dask")
    return {}


def by_variables(folder: Path, home: Path) -> Config:
    """The protections alone by variables, the rest by a file, as an operator adds them."""
    tree = yaml.safe_load((folder / "plain.yaml").read_text())
    tls = tree.pop("sealwire")["tls"]
    file = home / "stock.yaml"
    file.write_text(yaml.safe_dump(tree))
    return {
        "DASK_CONFIG": str(file),
        "DASK_SEALWIRE__TLS__CRL_FILE": tls["crl-file"],
        "DASK_SEALWIRE__TLS__ALLOWED_PEERS": repr(tls["allowed-peers"]),
    }


def placed(folder: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    (target / "any.yml").write_text((folder / "plain.yaml").read_text())
    return target


def surroundings(config: Config, home: Path) -> dict[str, str]:
    """An environment of nothing but a configuration, as that of `env -i` and of most managers."""
    kept = {name: value for name, value in environment().items() if name in ("PATH", "PYTHONPATH")}
    return {
        **kept,
        "HOME": str(home),
        "TMPDIR": str(home),
        "DASK_TEMPORARY_DIRECTORY": str(home),
        **config,
    }


@contextmanager
def started(arguments: list[str], config: Config, home: Path) -> Iterator[dict[str, str]]:
    process = subprocess.Popen(
        arguments,
        cwd=home,
        env=surroundings(config, home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("{"), (line, process.communicate(timeout=HANG)[1])
        yield json.loads(line)
        _, words = process.communicate("", timeout=HANG)
        assert process.returncode == 0, words
    finally:
        process.kill()
        process.wait()


CLUSTERS = [
    *("threads: scheduler", "threads: worker"),
    *("processes: scheduler", "processes: worker", "processes: nanny"),
]
CHILDREN = ["scheduler by fork", "scheduler by spawn", "scheduler by forkserver", "scheduler"]


@pytest.mark.parametrize(
    ("kind", "way", "names"),
    [
        ("clusters", by_variables, CLUSTERS),
        ("children", by_root, CHILDREN),
    ],
)
def test_scripts(
    kind: str, way: Callable[..., Config], names: list[str], folder: Path, tmp_path: Path
) -> None:
    config = way(folder, tmp_path)
    with started(command("unaware", kind), config, tmp_path) as addresses:
        assert list(addresses) == names
        for name, address in addresses.items():
            stranger = "scheduler" if "scheduler" in name else "client"
            expect_guarded([address], folder, stranger)


@contextmanager
def environment_of(config: Config, home: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings(config, home).items():
            patch.setenv(name, value)
        yield


def test_modules_that_others_run(folder: Path, tmp_path: Path, programs: Programs) -> None:
    """`dask ssh` and job queues run these; no plugin of the command line is loaded.

    In one cluster, of which each process is configured in another way.
    """
    with environment_of(by_file(folder, tmp_path), tmp_path):
        scheduler = programs.start_module(
            "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
            "--protocol", "tls", "--dashboard-address", "127.0.0.1:0",
        )  # fmt: skip
        address = scheduler.wait_for(r"Scheduler at:\s+(\S+)")[1]
    with environment_of(by_home(folder, tmp_path), tmp_path):
        worker = programs.start_module(
            "distributed.cli.dask_worker", address, "--nthreads", "1", "--host", "127.0.0.1",
            "--dashboard-address", "127.0.0.1:0", "--local-directory", str(tmp_path),
        )  # fmt: skip
    home = tmp_path / "script"
    home.mkdir()
    with started(command("unaware", "worker", address), by_variables(folder, home), home) as found:
        assert list(found) == ["worker"]
        expect_guarded(found.values(), folder, "client")
    worker.wait_for("Registered to")
    said = "".join(worker.output)
    listens = re.findall(r"Start (?:worker at:\s+|Nanny at: ')(\w+://[\d.:]+)", said)
    assert len(listens) == 2, said
    expect_guarded(listens, folder, "client")
    expect_guarded([address], folder, "scheduler")
    assert "its own backend" in "".join(scheduler.output)


@pytest.mark.parametrize("way", [as_made, by_variables])
def test_a_client(way: Callable[..., Config], folder: Path, tmp_path: Path) -> None:
    """Its first connection, too, refuses a scheduler whose certificate is revoked, in words."""

    async def refused() -> str:
        select("stock")
        context = revoked_server(folder)
        async with listen("tls://127.0.0.1:0", echo, ssl_context=context) as listener:
            done = await asyncio.to_thread(
                subprocess.run,
                command("unaware", "client", listener.contact_address),
                cwd=tmp_path,
                env=surroundings(way(folder, tmp_path), tmp_path),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=HANG,
            )
        return str(done.stdout)

    assert "it has been revoked" in asyncio.run(refused())


UNTOUCHED = """
import sys
import distributed
from distributed import Security
fields = dict(tls_ca_file=FILE, tls_client_cert=FILE)
security = Security()
security.get_connection_args("client")
assert not [name for name in sys.modules if name.startswith("sealwire.") and "cli" not in name]
import dask
from distributed.comm import registry
from sealwire.cli import dask_hook
looks, meant = [], dask_hook._is_meant
dask_hook._is_meant = lambda tree: looks.append(tree) or meant(tree)
for _ in range(20):
    security.get_connection_args("client")
    registry.get_backend("tcp")
assert len(looks) == 1, looks  # it takes as long as half a connection
dask.config.set({"sealwire.tls.reload-interval": "1 s"})
Security()
from sealwire.dask_backend import installed, uninstall
assert installed() and "dask_hook" not in Security.__init__.__code__.co_filename
uninstall()
Security()
assert not installed()
"""

DECIDED = """
import sealwire.dask_backend
from distributed import Security
from distributed.comm import registry
from sealwire.cli import dask_hook
assert dask_hook._armed
sealwire.dask_backend.DECIDE()
registry.get_backend("tcp")
assert not dask_hook._armed  # each connection would ask nine times
import dask
dask.config.set({"sealwire.tls.reload-interval": "1 s"})
Security()
registry.get_backend("tcp")
assert sealwire.dask_backend.installed() is (DECIDE == "install")
"""


def test_nothing_is_loaded_where_nothing_is_configured(tmp_path: Path) -> None:
    """And what a program decides itself stays."""
    run(UNTOUCHED.replace("FILE", "None"), tmp_path)


@pytest.mark.parametrize("decide", ["install", "uninstall"])
def test_nobody_is_asked_once_the_program_has_decided(decide: str, tmp_path: Path) -> None:
    script = DECIDED.replace(".DECIDE", f".{decide}").replace("DECIDE", repr(decide))
    run(script, tmp_path)


def run(script: str, folder: Path) -> None:
    """A program in a folder and with a home of its own, where nothing is configured."""
    ended(folder, {}, script)


def ended(
    home: Path, config: Config, script: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """A program that has ended well; nothing but what Dask is made of is imported before."""
    command = [sys.executable, "-c", script, *arguments]
    done = forking.run(command, home, surroundings(config, home))
    assert done.returncode == 0, done.stderr
    return done


OWN_CONTEXTS = """
import asyncio, ssl, sys
from distributed.comm import connect, listen

def made(purpose):
    context = ssl.create_default_context(purpose, cafile=f"{sys.argv[1]}/ca.pem")
    context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
    context.load_cert_chain(f"{sys.argv[1]}/scheduler.pem")
    return context

async def run():
    async def nothing(comm): pass
    serving = made(ssl.Purpose.CLIENT_AUTH)
    async with listen("tls://127.0.0.1:0", nothing, ssl_context=serving) as at:
        for _ in range(3):
            context = made(ssl.Purpose.SERVER_AUTH)
            (await connect(at.contact_address, ssl_context=context)).abort()
        print(type(at).__module__)
    for opens in (connect, listen):
        try:
            await opens("tcp://127.0.0.1:0", *([nothing] if opens is listen else []))
        except RuntimeError as error:
            print(error)

asyncio.run(run())
"""


def test_contexts_that_a_program_makes_itself(folder: Path, tmp_path: Path) -> None:
    """No `Security` is asked for them; both sides say what does not hold, each once."""
    done = ended(tmp_path, by_folder(folder, tmp_path), OWN_CONTEXTS, str(folder))
    assert done.stdout.startswith("sealwire.dask_backend"), done.stdout
    assert done.stdout.count("encryption required by Dask configuration") == 2
    for words in ("it looks certificates up in no revocation list", "it looks at no name of"):
        assert done.stderr.count(words) == 2, done.stderr


MISSING = """
import sys
from distributed import Client
try:
    Client("tls://127.0.0.1:1", timeout=5)
except TypeError as error:
    print("role client has no certificate" in str(error))
"""


def test_a_role_without_a_certificate_is_named(folder: Path, tmp_path: Path) -> None:
    """Where nothing of ours is configured either, distributed's words name no setting."""
    tls = {"ca-file": str(folder / "ca.pem"), "worker": {"cert": str(folder / "worker.pem")}}
    tree = {"distributed": {"comm": {"require-encryption": True, "tls": tls}}}
    (tmp_path / "stock.yaml").write_text(yaml.safe_dump(tree))
    done = ended(tmp_path, {"DASK_CONFIG": str(tmp_path / "stock.yaml")}, MISSING)
    assert done.stdout == "False\n"  # the error is distributed's
    assert done.stderr.count("set distributed.comm.tls.client.cert and ") == 1


NAMED_IN_VAIN = {
    "certs/dask.yml": "which does not exist",
    "configs": "a folder without a file that Dask reads",
}


@pytest.mark.parametrize(
    ("kind", "named"), [*zip(("scheduler", "client"), NAMED_IN_VAIN, strict=True)]
)
def test_a_configuration_that_is_not_there_is_named(kind: str, named: str, tmp_path: Path) -> None:
    """Also by a script, which is all that would tell it from one that is protected.

    And so is one of which nothing of ours is left, though it is there.
    """
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "dask").write_text("sealwire: {tls: {crl-file: crl.pem}}")
    own = tmp_path / ".config" / "dask" / "own.yaml"
    own.parent.mkdir(parents=True)
    if kind == "client":
        own.mkdir()
        words = f"nothing in '{own}' holds: it is ignored, as by Dask: is a directory"
    else:
        preload = "distributed: {scheduler: {preload: [sealwire.dask_backend.preload]}}"
        own.write_text(f"{preload}\ndistributed: {{worker: {{}}}}\n")
        words = f"'{own}' has the name 'distributed' in lines 1 and 2 of one mapping"
    said = asked_thrice(kind, {"DASK_CONFIG": named}, tmp_path)
    assert said.count(f"DASK_CONFIG names '{named}'") == 1, said
    assert NAMED_IN_VAIN[named] in said
    assert said.count(words) == 1, said


def test_a_protection_in_a_wrong_place_is_named(tmp_path: Path) -> None:
    """By a process that has nothing else of ours in its configuration."""
    wrong = {
        "Sealwire": "Sealwire: {tls: {crl-file: crl.pem}}",
        "distributed.sealwire": "distributed: {sealwire: {tls: {crl-file: crl.pem}}}",
        "sealwire.tls": "sealwire.tls: {crl-file: crl.pem}",
        "sealwire.crl-file": "sealwire: {crl-file: crl.pem}",
    }
    (tmp_path / "dask.yaml").write_text("\n".join(wrong.values()))
    said = asked_thrice("client", {"DASK_CONFIG": str(tmp_path / "dask.yaml")}, tmp_path)
    for key in wrong:
        assert said.count(f"unknown configuration key {key} is ignored; did you mean ") == 1, said


def test_a_variable_that_comes_after_dask_is_named(tmp_path: Path) -> None:
    """As in the worker of a nanny that was given it as `env`."""
    name = "DASK_SEALWIRE__TLS__CRL_FILE"
    said = asked_thrice("worker", {}, tmp_path, f"import os; os.environ[{name!r}] = 'crl.pem'")
    assert said.count(f"the variable {name} does not hold in this process") == 1, said


def asked_thrice(kind: str, variables: dict[str, str], home: Path, first: str = "") -> str:
    """What a script says that asks for its contexts."""
    code = (
        f"import dask; {first}\n"
        "dask.config.set({'distributed.comm.require-encryption': False})\n"
        "from distributed import Security\n"
        f"for _ in range(3): Security().get_connection_args({kind!r})"
    )
    return ended(home, variables, code).stderr
