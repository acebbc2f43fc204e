"""The layers, read from the imports in the source files.

Every import counts: at the top of a file, inside a function, and for type checking alone.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("comm", "security", "joining", "metrics", "dask_backend", "cli", "testing")

# A file imports only what stands above it. A new file takes its place here.
COMM = """
words close_codes leaving signals
kinds errors limits statistics listener_log addressing arguments wire.foreign
wire.framing wire.markers wire.budget wire.place arrays extensions
encoding_errors encoding decoding codec
wire.hello
wire.closing wire.outbox interfaces registry transport.wakeup serving
tls_details tls_errors
transport.sockets transport.liveness transport.buffers transport.switch_interval
transport.readiness transport.race transport.inquiry transport.handshake_throttle
transport.openssl transport.handshake transport.records transport.channel transport.end_errors
transport.goodbye transport.interrupted transport.sender transport.bounded
transport.receiver transport.end_watch transport.pending transport.connection transport.stream
transport.writing transport.greeting transport.client transport.acceptor transport.server
transport.local ends tcp unix memory testing
api
calls.arguments calls.envelopes calls.errors calls.outlet calls.handlers calls.caller calls.calls
calls.attempts calls.reconnect
broadcast sync __init__
"""
SECURITY = """
errors text parameters quoting paths der pem_blocks pem_shapes reading permissions openable pem
schema
native config_files config_tree passed_over config
contexts.allowlist contexts.verified contexts.selfcheck contexts.trust contexts.status
contexts.forks contexts.expiry
x509.keys x509.lineage x509.names x509.requests
x509.certinfo subjects x509.above belonging contexts.description
contexts.sealed contexts.policy fields values contexts.background x509.revoked contexts.open_peers
contexts.reloading
x509.templates ca.authority security
ca.folder ca.atomic_files ca.journal ca.crl ca.store ca.bootstrap ca.renewal ca.rotation
ca.inventory ca.relocation checks.selftest
checks.remedies checks.findings checks.presence checks.certificates checks.runner __init__
"""
JOINING = """
errors tokens messages inputs ledger requests lineages archive given desk service client files
memory member __init__
"""
METRICS = """
series collector registration __init__
"""
TESTING = "identities preload clusters __init__ fixtures"
ORDER = {
    "comm": COMM.split(),
    "security": SECURITY.split(),
    "joining": JOINING.split(),
    "metrics": METRICS.split(),
    "testing": TESTING.split(),
}

# Which package may import which of ours.
ABOVE = {
    "comm": set(),
    "security": set(),
    "joining": {"comm", "security"},
    "metrics": {"comm", "security"},
    "dask_backend": {"comm", "security", "joining", "metrics"},
    "cli": {"comm", "security", "joining", "dask_backend"},
    "testing": {"comm", "security", "dask_backend", "cli"},
}


class Import(NamedTuple):
    """One import: by which module, of which module or name, and whether a function makes it."""

    by: str
    of: str
    line: int
    lazy: bool

    def __str__(self) -> str:
        return f"{self.by}, line {self.line}, imports {self.of}"


def module_name(path: Path, root: Path = ROOT) -> str:
    """The module's name when installed, with `__init__` written out."""
    return ".".join(("sealwire", *path.relative_to(root).with_suffix("").parts))


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


MODULES = {module_name(path) for path in sources()}


def resolve(target: str) -> str:
    """The module that holds `target`, if it is one of ours; else `target` itself."""
    if target in MODULES or not target.startswith("sealwire."):
        return target
    if f"{target}.__init__" in MODULES:
        return f"{target}.__init__"
    parent = target.rpartition(".")[0]
    return resolve(parent) if parent != "sealwire" else target


def imports_of(path: Path, root: Path = ROOT) -> list[Import]:
    """Every import in the file."""
    by = module_name(path, root)
    found = []

    def visit(node: ast.AST, lazy: bool) -> None:
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = by.split(".")[: -node.level] if node.level else []
            assert len(parents) != 1, f"{by}, line {node.lineno}: import across packages by dots"
            base = ".".join(filter(None, [*parents, node.module]))
            targets = [f"{base}.{alias.name}" for alias in node.names]
        found.extend(Import(by, resolve(target), node.lineno, lazy) for target in targets)
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    return found


@functools.cache
def all_imports() -> list[Import]:
    return [found for path in sources() for found in imports_of(path)]


def package_of(module: str) -> str:
    """`comm` for `sealwire.comm.codec`; `tornado` for `tornado.ioloop`."""
    parts = module.split(".")
    return parts[1] if parts[0] == "sealwire" and len(parts) > 1 else parts[0]


def place_of(path: Path) -> str:
    """`wire.framing` for `sealwire.comm.wire.framing`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[1:])


SUBPACKAGES = {
    place_of(path)
    for package in PACKAGES
    for path in (ROOT / package).rglob("*/__init__.py")
    if path.parent.name not in PACKAGES
}


def test_a_subpackage_is_a_docstring_and_no_more() -> None:
    for package in PACKAGES:
        for path in (ROOT / package).glob("*/__init__.py"):
            (statement,) = ast.parse(path.read_text(encoding="utf-8")).body
            assert isinstance(statement, ast.Expr), path


@pytest.mark.parametrize("package", ORDER)
def test_every_file_has_its_place(package: str) -> None:
    files = {place_of(path) for path in (ROOT / package).rglob("*.py")}
    assert sorted(ORDER[package]) == sorted(files - SUBPACKAGES)


@pytest.mark.parametrize("package", ORDER)
def test_a_file_imports_only_what_stands_above_it(package: str) -> None:
    order = ORDER[package]
    wrong = []
    for place in order:
        above = order[: order.index(place)]
        for found in imports_of(ROOT.joinpath(package, *place.split(".")).with_suffix(".py")):
            inside = found.of.startswith(f"sealwire.{package}.")
            if inside and found.of.removeprefix(f"sealwire.{package}.") not in above:
                wrong.append(str(found))
    assert not wrong


def test_packages_stand_on_each_other() -> None:
    wrong = [
        str(found)
        for found in all_imports()
        if found.of.startswith("sealwire.")
        and (package := package_of(found.of)) != package_of(found.by)
        and package not in ABOVE[package_of(found.by)]
    ]
    assert not wrong


def test_comm_security_joining_and_metrics_do_without_dask() -> None:
    """Only security/config_tree.py looks for Dask, and only when configuration is read."""
    wrong = [
        str(found)
        for found in all_imports()
        if package_of(found.by) in ("comm", "security", "joining", "metrics")
        and package_of(found.of) in ("dask", "distributed")
        and not (found.by == "sealwire.security.config_tree" and found.lazy)
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("library", "package", "allowed"),
    [
        ("tornado", "comm", ("sealwire.comm.transport.",)),
        ("socket", "comm.wire", ()),
        ("ssl", "comm.wire", ()),
        ("tornado", "security", ()),
        ("tornado", "joining", ()),
        ("tornado", "metrics", ()),
        ("tornado", "cli", ()),
        ("tornado", "testing", ()),
        ("cryptography", "comm", ()),
        ("cryptography", "metrics", ()),
        ("prometheus_client", "comm", ()),
        ("prometheus_client", "security", ()),
        ("prometheus_client", "dask_backend", ()),
        ("prometheus_client", "metrics", ("sealwire.metrics.",)),
        (
            "cryptography",
            "security",
            ("sealwire.security.x509.", "sealwire.security.ca.", "sealwire.security.checks."),
        ),
    ],
)
def test_a_library_stays_where_it_belongs(
    library: str, package: str, allowed: tuple[str, ...]
) -> None:
    users = {
        found.by
        for found in all_imports()
        if found.by.startswith(f"sealwire.{package}.") and package_of(found.of) == library
    }
    assert not {user for user in users if not user.startswith(allowed)}
    assert bool(users) == bool(allowed)  # a rule about nobody would keep nothing


def test_numpy_and_dask_are_never_needed_to_import_comm_or_security() -> None:
    optional = {"numpy", "dask", "distributed", "uvloop"}
    for package in ("comm", "security"):
        for path in sorted((ROOT / package).glob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in tree.body:
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                assert not optional & {name.split(".")[0] for name in names}, (path, node.lineno)


def test_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for found in all_imports():
        if found.of in MODULES and found.of != found.by:
            graph[found.by].add(found.of)
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")
    assert set(order) == MODULES


def test_the_reader_sees_every_kind_of_import(tmp_path: Path) -> None:
    """The tests above are worth what `imports_of` sees."""
    file = tmp_path / "comm" / "example.py"
    file.parent.mkdir()
    file.write_text(
        "from . import codec\n"
        "from .wire import hello\n"
        "from .errors import CommError\n"
        "from sealwire.security import Security\n"
        "import sealwire.comm.api\n"
        "if TYPE_CHECKING:\n    import numpy\n"
        "class A:\n    async def f(self):\n        from tornado import ioloop\n"
    )
    assert {(found.of, found.lazy) for found in imports_of(file, tmp_path)} == {
        ("sealwire.comm.codec", False),
        ("sealwire.comm.wire.hello", False),
        ("sealwire.comm.errors", False),
        ("sealwire.security.__init__", False),
        ("sealwire.comm.api", False),
        ("numpy", False),
        ("tornado.ioloop", True),
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_exists_and_is_documented(package: str) -> None:
    module = importlib.import_module(f"sealwire.{package}")
    assert module.__doc__
    names = module.__all__
    assert bool(names) == (package != "cli"), "the command line is no API; the others are"
    assert len(set(names)) == len(names)
    undocumented = []
    for name in names:
        value = getattr(module, name)
        if (inspect.isroutine(value) or inspect.isclass(value)) and not value.__doc__:
            undocumented.append(name)
        if inspect.isclass(value):
            undocumented += [
                f"{name}.{member}"
                for member, what in vars(value).items()
                if not member.startswith("_")
                and inspect.isroutine(what)
                and not inspect.getdoc(getattr(value, member))
            ]
    assert not undocumented


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_every_file_says_its_contract(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_no_file_is_longer_than_a_reader_keeps_in_mind() -> None:
    files = [*sources(), *sorted((ROOT / "tests").rglob("*.py"))]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}
