"""Plain `dask scheduler` and `dask worker`: all of ours comes from the configuration."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import pytest
import yaml
from distributed import Client

from sealwire.cli.dask_plugin import install_if_configured
from sealwire.dask_backend import Security, installed, uninstall
from support import certs
from support.parties import ROLES, asynchronous
from support.processes import HANG, PRELOAD, Programs

CA = certs.root("ca")
PASSWORDS = {"client": "open", "scheduler": "0123", "worker": "null"}


@asynchronous
async def test_encrypted_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: Programs
) -> None:
    """Each role with a password of its own, in every process, without a question."""
    tree: dict[str, Any] = {
        "require-encryption": True,
        "tls": {"ca-file": written(tmp_path / "ca.pem", CA.pem)},
    }
    for role in ROLES:
        node = certs.leaf(CA, role)
        text = node.pem + node.encrypted_key_pem(PASSWORDS[role].encode())
        tree["tls"][role] = {"cert": written(tmp_path / f"{role}.pem", text)}
    preload = PRELOAD[1]
    config = {
        "distributed": {
            "comm": tree,
            "scheduler": {"preload": [preload]},
            "worker": {"preload": preload},
        },
        "sealwire": {"tls": {"key-password": PASSWORDS}},
    }
    monkeypatch.setenv("DASK_CONFIG", written(tmp_path / "dask.yaml", yaml.safe_dump(config)))
    _, address = programs.scheduler("tls")
    programs.worker(address, "--nanny")  # which opens the key itself, as its worker does
    values = {f"tls_{role}_cert": tree["tls"][role]["cert"] for role in ROLES}
    security = Security(tls_ca_file=tree["tls"]["ca-file"], tls_key_password=PASSWORDS, **values)

    def has_ours() -> bool:  # defined here, it is sent by value
        module = sys.modules.get("sealwire.dask_backend")
        return module is not None and module.installed()

    async with Client(address, security=security, asynchronous=True) as client:
        await asyncio.wait_for(client.wait_for_workers(1), HANG)
        found = [
            await client.run_on_scheduler(has_ours),
            *(await client.run(has_ours)).values(),
            *(await client.run(has_ours, nanny=True)).values(),
        ]
        assert found == [True] * 3
        assert await client.submit(sum, [1, 2]) == 3


def written(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "settings", "expected"),
    [
        (["worker", "tls://x:1"], {"worker": PRELOAD[1]}, True),
        (["worker", "tls://x:1"], {"worker": ["another", PRELOAD[1]]}, True),
        (["scheduler"], {"scheduler": PRELOAD[1]}, True),
        (["scheduler"], {"worker": PRELOAD[1]}, False),
        (["worker"], {"nanny": PRELOAD[1], "scheduler": PRELOAD[1]}, False),
        (["worker"], {"worker": "another"}, False),
        # The packages that contain it, which by themselves would do nothing.
        (["scheduler"], {"scheduler": "sealwire.dask_backend"}, True),
        (["scheduler", "--preload", "sealwire.dask_backend"], {}, True),
        (["worker", "tcp://x:1", "--preload=sealwire"], {}, True),
        (["worker", "tcp://x:1", "--preload", "sealwire.security"], {}, False),
        (["worker", "tcp://x:1", "--preload", "seal"], {}, False),
        (["worker"], {"worker": None}, False),
        (["worker"], {}, False),
        (["config", "list", "worker"], {"worker": PRELOAD[1]}, False),
        (["--version"], {"worker": PRELOAD[1]}, False),
        ([], {"worker": PRELOAD[1]}, False),
        (["worker", "tls://x:1", "--no-nanny"], {}, True),  # which fails, and ours says why
        (["scheduler", "--protocol", "tls"], {}, True),
        (["scheduler", "--protocol=tls"], {}, True),
        (["spec", "--spec", '{"cls": "x", "opts": {"scheduler": "tls://x:1"}}'], {}, True),
        (["worker", "tls://x:1", "--tls-cert", "x.pem"], {}, False),
        (["worker", "tcp://x:1"], {}, False),
        (["scheduler", "--protocol", "tcp"], {}, False),
    ],
    ids=str,
)
@pytest.mark.usefixtures("registry")
def test_where_it_is_installed(
    arguments: list[str], settings: dict[str, Any], expected: bool
) -> None:
    uninstall()
    with dask.config.set({f"distributed.{name}.preload": each for name, each in settings.items()}):
        install_if_configured(arguments)
    assert installed() is expected


@pytest.mark.parametrize("name", ["sealwire", "sealwire.dask_backend"])
@pytest.mark.usefixtures("registry")
def test_a_package_that_is_preloaded_in_vain_says_so(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As by ``python -m distributed.cli.dask_scheduler``, which loads no plugin."""
    uninstall()
    importlib.import_module(name).dask_setup(object())
    assert not installed()
    assert "preload sealwire.dask_backend.preload" in caplog.text


# As Dask's command line loads its commands, in either order, without running one. Each in a fork
# of a process that has loaded what all but ours import first.
LOAD = """
import os, sys
import distributed
from importlib.metadata import entry_points
for order, command in ((1, "worker"), (-1, "worker"), (1, "scheduler"), (-1, "scheduler")):
    if not os.fork():
        sys.argv[1:] = [command]
        found = sorted(entry_points(group="dask_cli"), key=lambda each: each.name)[::order]
        commands = {each.load().name for each in found}
        assert {"sealwire", "scheduler", "worker"} <= commands, commands
        print(order, command, "sealwire.dask_backend" in sys.modules, flush=True)
        os._exit(0)
    os.wait()
"""


def test_as_dask_loads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order, and with no trace of us where we are not wanted."""
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", PRELOAD[1])
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "1 worker True", "-1 worker True", "1 scheduler False", "-1 scheduler False",
    ], done.stderr  # fmt: skip
