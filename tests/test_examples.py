"""The examples that README does not show: each is run, or compared with what makes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import certs_cli
from support.processes import HANG, Program
from support.restarting import free_port

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NOTEBOOK = EXAMPLES / "dask" / "cluster.ipynb"

#: runs a script, and then a notebook's cells, of which it prints the last value
RUN = """
import ast, json, runpy, sys

def run(text, names):
    *statements, last = ast.parse(text).body
    if not isinstance(last, ast.Expr):
        statements, last = [*statements, last], None
    exec(compile(ast.Module(statements, []), "cell", "exec"), names)
    if last is not None:
        return eval(compile(ast.Expression(last.value), "cell", "eval"), names)

runpy.run_path(sys.argv[1], run_name="__main__")
names = {}
for cell in json.load(open(sys.argv[2]))["cells"]:
    if cell["cell_type"] == "code":
        value = run("".join(cell["source"]), names)
        if value is not None:
            print(value)
"""


def test_the_script_and_the_notebook(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(EXAMPLES / "dask" / "script.py"), str(NOTEBOOK)],
        cwd=tmp_path,
        # distributed logs batches that a closed cluster drops as information, with a traceback
        env={**os.environ, "DASK_LOGGING__DISTRIBUTED": "warning"},
        capture_output=True,
        text=True,
        timeout=2 * HANG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    script, protocols, security, total, links = done.stdout.splitlines()
    assert (script, protocols, total) == ("4950", "{'TLSv1.3'}", "4950")
    assert security.startswith("Security(")
    assert "BEGIN" not in security
    assert "'CN=worker'" in links
    assert "Traceback" not in done.stderr


def test_the_notebook_is_one() -> None:
    """By the rules of its format, version 4.5, as far as this one uses it."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook.keys() == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"].keys() == {"display_name", "language", "name"}
    common = {"cell_type", "id", "metadata", "source"}
    for cell in notebook["cells"]:
        code = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert cell.keys() == common | code
        assert cell["cell_type"] in ("code", "markdown")
        assert all(isinstance(line, str) for line in cell["source"])
        assert (cell.get("outputs", []), cell.get("execution_count")) == ([], None)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


class Web:
    """The Tornado application and its workers."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.started: list[Program] = []

    def start(self, name: str, *arguments: str) -> Program:
        path = str(EXAMPLES / "tornado" / f"{name}.py")
        self.started.append(Program([sys.executable, path, *arguments], self.folder))
        return self.started[-1]

    def awaited(self, path: str, worker: Program) -> Any:
        """What it answers once it has a worker."""
        while (got := self.get(path)) in (502, 503):
            assert worker.process.poll() is None
            time.sleep(0.02)
        return got

    def get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as got:
                return json.load(got)
        except urllib.error.HTTPError as error:
            with error:
                return error.code


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    made = Web(tmp_path)
    yield made
    for program in made.started:
        program.process.kill()
        program.process.wait()
        program.finish()


def test_a_tornado_application(web: Web) -> None:
    application = web.start("application", str(web.port), f"unix://{web.folder}/workers")
    address = application.wait_for(r"workers at (\S+)")[1]
    assert web.get("/square/12") == 503
    assert web.get("/cube/12") == 404
    worker = web.start("worker", address)
    assert web.awaited("/square/12", worker) == {"square": 144}
    assert web.get(f"/square/{10**9}") == {"square": 10**18}
    assert web.get("/square/0") == {"square": 0}
    worker.process.kill()
    worker.process.wait()
    assert web.get("/square/12") in (502, 503)  # it may have been asked before it was known
    worker = web.start("worker", address)
    assert web.awaited("/square/2", worker) == {"square": 4}
    for each in (application, worker):
        each.process.terminate()
        assert each.process.wait(HANG) == 0


@pytest.fixture
def snippets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, Any]]:
    """What is printed for a cluster in ./certs: the shell's part, and the YAML."""
    monkeypatch.chdir(tmp_path)
    certs_cli.good("init")
    found = {}
    for name in ("compose", "kubernetes"):
        shell, _, text = certs_cli.good("snippet", name).partition("\n\n")
        found[name] = (shell, yaml.safe_load(text))
    return found


def documents(name: str) -> tuple[str, list[Any]]:
    text = (EXAMPLES / "deploy" / f"{name}.yaml").read_text(encoding="utf-8")
    return text, list(yaml.safe_load_all(text))


def within(part: Any, whole: Any) -> bool:
    """Whether all of `part` is in `whole`; elements of lists by their names."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and within(value, whole[key]) for key, value in part.items()
        )
    if isinstance(part, list) and isinstance(whole, list):
        return all(any(within(each, other) for other in whole) for each in part)
    return bool(part == whole)


def commented(shell: str) -> str:
    first, *rest = shell.splitlines()
    return "\n".join([first, *(f"# {line}" for line in rest)])


def test_the_compose_file(snippets: dict[str, tuple[str, Any]]) -> None:
    text, (compose,) = documents("compose")
    shell, printed = snippets["compose"]
    assert commented(shell) in text
    assert within(printed, compose)
    assert compose["services"].keys() == printed["services"].keys()
    assert not within({"services": {"worker": {"command": "dask worker"}}}, compose)


def test_the_manifests(snippets: dict[str, tuple[str, Any]]) -> None:
    text, (service, scheduler, worker) = documents("kubernetes")
    shell, printed = snippets["kubernetes"]
    assert commented(shell) in text
    pods = [each["spec"]["template"] for each in (scheduler, worker)]
    assert within(printed["spec"], pods[1]["spec"])
    # The scheduler's pod is the worker's, with its own secret and command.
    other = yaml.safe_load(yaml.safe_dump(printed["spec"]).replace("worker", "scheduler"))
    other["containers"][0]["command"] = ["dask", "scheduler", "--protocol", "tls"]
    assert within(other, pods[0]["spec"])
    for each, pod in zip((scheduler, worker), pods, strict=True):
        assert each["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert service["spec"]["selector"] == pods[0]["metadata"]["labels"]
    assert f"tls://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}" in str(
        pods[1]["spec"]["containers"][0]["command"]
    )
