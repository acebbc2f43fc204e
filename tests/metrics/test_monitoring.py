"""The alerts, the dashboard and the page on them: what they ask for is what the collector has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import prometheus_client
import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from sealwire import metrics
from sealwire.metrics import SERIES

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "examples" / "monitoring"
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text())
TARGETS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
BLOCKS = re.findall(r"```promql\n(.*?)\n```", PAGE, re.DOTALL)
QUERIES = [line for block in BLOCKS for line in block.splitlines()]
ASKED = [*(str(rule["expr"]) for rule in ALERTS.values()), *TARGETS, *QUERIES]

DASK = {"dask_worker_threads", "dask_scheduler_clients"}  # test_cluster.py finds them
SCRAPED = {"job", "instance"}  # labels that Prometheus adds
PARTS = {"histogram": ("_bucket", "_sum", "_count")}
KNOWN = {
    name + part: series
    for name, series in SERIES.items()
    for part in ("", *PARTS.get(series.type, ()))
}
NAME = re.compile(r"\b(?:sealwire|dask)_\w+")


@pytest.mark.parametrize("expression", ASKED)
def test_every_series_that_is_asked_for_exists(expression: str) -> None:
    names = set(NAME.findall(expression))
    assert names
    assert names <= KNOWN.keys() | DASK
    assert not {name for name in names if SERIES.get(name, (0, 0))[1] == "histogram"}
    labels = {"le"} if "_bucket" in expression else set()
    for name in names - DASK:
        labels |= {*KNOWN[name].labels, *SCRAPED}
    selectors = re.findall(r"\{(.*?)\}", expression)
    asked = {label for each in selectors for label in re.findall(r"(\w+)\s*(?:=|!)", each)}
    for grouping in re.findall(r"\b(?:by|on)\s*\((.*?)\)", expression):
        asked |= set(re.findall(r"\w+", grouping))
    assert asked <= labels


@pytest.mark.parametrize("expression", ASKED)
def test_it_is_promql(expression: str) -> None:
    """As Prometheus parses it, with the types of what functions are given."""
    assert promql_parser.parse(expression.replace("$__rate_interval", "5m"))


@pytest.mark.parametrize("expression", ["sum(", "rate(x)", "x)", "sum by (a) x[5m]", "a on b", ""])
def test_what_is_no_promql_is_told(expression: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        promql_parser.parse(expression)


@pytest.mark.parametrize("expression", ASKED)
def test_only_sums_are_asked_for_their_increase(expression: str) -> None:
    increasing = set(re.findall(r"(?:rate|increase)\(\s*(\w+)", expression))
    assert {KNOWN[name].type for name in increasing} <= {"counter", "histogram"}
    for name in set(NAME.findall(expression)) - DASK - increasing:
        assert KNOWN[name].type == "gauge"


def test_each_series_is_in_the_dashboard_and_each_panel_has_a_place() -> None:
    shown = {KNOWN[name].name for target in TARGETS for name in NAME.findall(target)}
    assert shown == SERIES.keys()
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({p["title"] for p in panels}) > 10
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["targets"]
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        apart = [
            one[at] + one[size] <= other[at] or other[at] + other[size] <= one[at]
            for at, size in (("x", "w"), ("y", "h"))
        ]
        assert any(apart), (one, other)
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"}
    assert used == variables


def test_each_alert_says_what_to_do_and_is_tested() -> None:
    for rule in ALERTS.values():
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
    fires: dict[str, Any] = {}
    quiet = set()
    for test in yaml.safe_load((FOLDER / "alerts.test.yml").read_text())["tests"]:
        for case in test["alert_rule_test"]:
            if case["exp_alerts"]:
                (fires[case["alertname"]],) = case["exp_alerts"]
            else:
                quiet.add(case["alertname"])
        for each in test["input_series"]:
            assert isinstance(promql_parser.parse(each["series"]), promql_parser.VectorSelector)
            assert set(NAME.findall(each["series"])) <= KNOWN.keys() | DASK
    assert fires.keys() == quiet == ALERTS.keys()
    for name, fired in fires.items():
        texts = ALERTS[name]["annotations"]
        assert fired["exp_annotations"]["description"] == texts["description"]
        plain = [re.escape(part) for part in re.split(r"\{\{.*?\}\}", texts["summary"])]
        assert re.fullmatch(".+".join(plain), fired["exp_annotations"]["summary"])


def test_promtool_agrees_where_it_is() -> None:
    """The tests above parse each expression, and compare names, labels and texts, without it."""
    promtool = shutil.which("promtool")
    for command in ("check", "test") if promtool else ():
        file = "alerts.yml" if command == "check" else "alerts.test.yml"
        subprocess.run([str(promtool), command, "rules", file], cwd=FOLDER, check=True, timeout=60)
    assert re.findall(r"^  - name: (\S+)$", (FOLDER / "alerts.yml").read_text(), re.MULTILINE)


def table(head: str) -> list[list[str]]:
    """The rows below a head, as lists of cells."""
    rows = PAGE.partition(head)[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_the_page_has_the_table_of_the_collector() -> None:
    registry = CollectorRegistry()
    metrics.register(registry)
    exported = generate_latest(registry).decode()
    rows = table("| series | type | labels | meaning |")
    assert [row[0].strip("`") for row in rows] == list(SERIES)
    for name, kind, labels, meaning in rows:
        series = SERIES[name.strip("`")]
        assert (kind, meaning) == (series.type, series.meaning)
        assert tuple(re.findall(r"`(\w+)`", labels)) == series.labels
        assert f"# TYPE {series.name} {series.type}\n" in exported


def test_the_page_has_every_alert() -> None:
    rows = {name.strip("`"): when for name, when, _ in table("| alert | when | what to do |")}
    assert list(rows) == list(ALERTS)
    lasting = {None: "", "5m": "for 5 minutes", "10m": "for 10 minutes", "1h": "for an hour"}
    for name, rule in ALERTS.items():
        assert rows[name].endswith(lasting[rule.get("for")]), name
        if not rule.get("for"):
            assert not re.search(r"for (?:an|\d+) \w+$", rows[name]), name
    asked = ALERTS["SealwireConnectionsRefused"]["expr"]
    (left_out,) = set(re.findall(r'kind!~"([\w|-]+)"', asked))
    assert re.findall("`([\\w-]+)`", rows["SealwireConnectionsRefused"]) == left_out.split("|")


def test_what_the_page_configures_and_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (configured,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert set(yaml.safe_load(configured)) == {"rule_files", "scrape_configs"}
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    started: list[tuple[Any, Any]] = []

    start = prometheus_client.start_http_server

    def start_anywhere(port: int, *more: Any) -> None:
        assert port == 9100
        started.append(start(0, *more))

    monkeypatch.setattr(prometheus_client, "start_http_server", start_anywhere)
    exec(code, {})
    ((server, thread),) = started
    try:
        with urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=30) as answer:
            assert b"\nsealwire_send_queue_bytes " in answer.read()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
