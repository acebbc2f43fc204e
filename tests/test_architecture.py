"""docs/architecture.md: what it names is there, and is what it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from test_layers import PACKAGES, Import, all_imports

from sealwire.comm.tls_errors import _VERDICTS
from sealwire.comm.transport.connection import State

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PLACES = re.findall(r"^\| (.+?) \| `([\w/]+\.py)` \| `([\w.]+)` \|$", TEXT, re.MULTILINE)

# What a definition must use to be the right one.
USES = {
    "Sender._send_small": {"pack_one", "send", "sent_directly"},
    "Sender.flush": {"send_several", "send", "outbox"},
    "Sender._queue": {"held_back", "call_soon", "_CLOSELY"},
    "Sender._expect_room": {"cut_off", "_max_queued"},
    "Receiver.receive": {"_take_in", "resume"},
    "_Filler._read": {"filterfalse", "map", "RECORD"},
    "pointer": {"why_not", "_checked"},
    "Receiver._may_go_on": {"paused", "read_ahead", "watch"},
    "Splitter": {"feed", "advance", "max_frames"},
    "Readiness": {"add_reader", "add_writer", "remove_reader", "remove_writer"},
    "Connection.close": {"CLOSED", "stop", "end"},
    "ended_by_peer": {"notified", "announces", "NO_STATUS"},
    "Acceptor._accept": {"accept", "_admit", "STARVED"},
    "FrameServer._drop_late": {"late", "too_late", "_end"},
    "Pending.late": {"_deadlines", "_clock"},
    "HandshakeThrottle.take": {"_waiting", "_left"},
    "Race._go_on": {"_next", "_places"},
    "Liveness._check": {"lost", "ETIMEDOUT"},
    "Caller.call": {"REQUEST", "send", "create_future"},
    "Handling._start": {"_handlers", "create_task", "_reply"},
    "ReconnectingClient.call": {"idempotent", "may_have_run", "POISON"},
    "load_crls": {"load_verify_locations", "revocation_lists"},
    "_Verified._admit": {"session_reused"},
    "OpenPeers.compare": {"revoked_among", "shown_chain", "_end"},
    "Watch._update": {"_build", "_use", "_read"},
    "_VERDICTS": {"_Cause"},
    "explain": {"_VERDICTS", "_ALERTS"},
    "ListenerLog._log": {"logger"},
    "snapshot": {"traffic", "lock", "sweep"},
    "Collector._values": {"snapshot", "statuses"},
    "_TABLE": {"Patch", "adoption", "guard", "logs"},
    "renew": {"_renewed", "within", "is_revoked"},
    "Desk.join": {"grants", "verifies", "_must_be_valid", "Asked", "uses"},
    "proved": {"sha256", "service", "nonce", "request"},
    "_connect": {"_within", "retryable", "_BACKOFF_CAP"},
    "Budget": {"check_depth", "check_objects", "check_shape"},
    "offer": {"EXTENSION", "VERSION", "version_info"},
    "encode": {"_is_plain", "_Encoder"},
    "decode": {"check_structure", "_of_frames"},
    "ServingListener._leave": {"end_reading", "_grace", "cancel"},
    "KEYS": set(),
    "load": {"load_trust", "load_identity", "load_crls"},
    "check_folder": {"Finding"},
    "Member._renew": {"_took"},
    "arm": {"_SECURITY", "_REGISTRY", "_arm"},
    "encode_short": {"pack_plain", "ToPickle", "Serialized"},
    "FrameConnector.connect": {"dialling", "_taken_up", "arrival"},
    "FrameListener._greet": {"comm_class", "on_connection", "_overrides"},
    "report": {"MOST_LINKS", "MOST_BYTES"},
    "faults_of_link": {"Fault", "link"},
    "_Examination.run": {"resolve", "connect", "greet_tls", "greet_plain"},
}


def definition(tree: ast.AST, dotted: str) -> ast.AST | None:
    """The class, function or constant of that name, classes first."""
    name, _, rest = dotted.partition(".")
    for node in getattr(tree, "body", ()):
        named = [getattr(node, "name", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named = [target.id for target in targets if isinstance(target, ast.Name)]
        if name in named:
            return definition(node, rest) if rest else node
    return None


def used(node: ast.AST) -> set[str]:
    """Every name, attribute and definition in it."""
    found = set()
    for each in ast.walk(node):
        for field in ("id", "attr", "name", "arg"):
            if isinstance(value := getattr(each, field, None), str):
                found.add(value)
    return found


def test_every_row_of_the_table_is_read() -> None:
    table = TEXT.partition("## Where is")[2]
    assert len(PLACES) == len(re.findall(r"^\| ", table, re.MULTILINE)) - 1  # less its head
    assert sorted(name for _, _, name in PLACES) == sorted(USES)


@pytest.mark.parametrize(("what", "file", "name"), PLACES, ids=[name for _, _, name in PLACES])
def test_it_is_where_the_table_says(what: str, file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    node = definition(tree, name)
    assert node is not None, f"{what}: {file} defines no {name}"
    assert USES[name] <= used(node), f"{what}: {name} uses no {USES[name] - used(node)}"


def test_a_definition_that_is_not_there_is_noticed() -> None:
    tree = ast.parse("class A:\n    def f(self): pass\nB: int = 1\nC = 2\n")
    assert all(definition(tree, name) is not None for name in ("A", "A.f", "B", "C"))
    assert all(definition(tree, name) is None for name in ("f", "A.g", "D", "B.f"))


def test_an_expired_certificate_has_its_text_there() -> None:
    expired = 10  # X509_V_ERR_CERT_HAS_EXPIRED
    assert _VERDICTS[expired].kind == "expired"
    assert "expired" in _VERDICTS[expired].why


def test_only_readiness_registers_sockets() -> None:
    for path in (ROOT / "comm").rglob("*.py"):
        uses = used(ast.parse(path.read_text(encoding="utf-8")))
        registers = uses & {"add_reader", "add_writer", "remove_reader", "remove_writer"}
        assert bool(registers) == (path.name == "readiness.py"), path


LAYERS, INSIDE = TEXT.partition("## Layers")[2].split("```")[1:4:2]


def upwards(rows: list[list[str]], imports: list[Import]) -> list[str]:
    """The imports by something in one of the rows of what is in a row above it."""
    level = {name: number for number, row in enumerate(rows) for name in row}

    def place(module: str) -> int | None:
        parts = module.split(".")
        names = (".".join(parts[:number]) for number in range(len(parts), 1, -1))
        return next((level[name] for name in names if name in level), None)

    return [
        str(each)
        for each in imports
        if (by := place(each.by)) is not None and (of := place(each.of)) is not None and by > of
    ]


def test_the_figure_of_packages() -> None:
    rows = [
        [f"sealwire.{name}" for name in re.findall(r"\w+", line) if name in PACKAGES]
        for line in re.findall(r"^((?: {1,5}\w+){1,2})(?:  |$)", LAYERS, re.MULTILINE)
    ]
    assert sorted(name for row in rows for name in row) == sorted(f"sealwire.{p}" for p in PACKAGES)
    assert upwards(rows, all_imports()) == []
    assert upwards(rows[::-1], all_imports()) != []


@pytest.mark.parametrize(("package", "column"), [("comm", 0), ("security", 1)])
def test_the_figure_of_what_is_in_them(package: str, column: int) -> None:
    lines = INSIDE.strip("\n").splitlines()[1:]
    found = [re.split(r" {2,}(?=\|)", line.strip())[column] for line in lines]
    names = [re.findall(r"\w+", each[1:].strip().partition("  ")[0]) for each in found]
    rows = [[f"sealwire.{package}.{name}" for name in row] for row in names]
    for path in (f"{package}/{name}" for row in names for name in row):
        assert (ROOT / path).is_dir() or (ROOT / f"{path}.py").is_file(), path
    imports = [
        each
        for each in all_imports()
        if not (each.lazy and each.of == "sealwire.security.ca.authority")  # Security.temporary
    ]
    assert upwards(rows, imports) == []
    assert upwards(rows[::-1], imports) != []


def test_every_file_is_listed_in_its_folder() -> None:
    listed = []
    package = folder = ""
    block = TEXT.partition("## Files")[2].split("```")[1]
    for line in block.strip("\n").splitlines():
        indent = len(line) - len(line.lstrip())
        words = line.split()
        if words[0].endswith("/"):
            package, folder = (words[0], "") if indent == 0 else (package, words[0])
            continue
        if indent == 2:
            folder = ""
        listed += [f"{package}{folder}{word}" for word in words if word.endswith(".py")]
    there = [
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for path in (ROOT / name).rglob("*.py")
        if path.name != "__init__.py"
    ]
    assert sorted(listed) == sorted(there)


def test_the_figure_has_every_state() -> None:
    figure = TEXT.partition("## The states of a connection")[2].split("```")[1]
    assert set(re.findall(r"\b[A-Z]{4,}\b", figure)) == {state.name for state in State}


def test_every_file_of_the_transport_is_spoken_of() -> None:
    section = TEXT.partition("## The transport")[2].partition("## Where is")[0]
    files = {path.name for path in (ROOT / "comm" / "transport").glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"`(\w+\.py)`", section)) == files


def test_links_and_paths_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / "docs" / target).exists(), target
    for path in re.findall(r"`([\w]+/[\w/]+(?:\.py)?)`", TEXT):
        assert (ROOT / path).exists(), path
