"""The files in deploy/ speak of what the code has: every metric, label and value in an alert, a panel or a legend."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from debian_programs import debian_program

from tillway import settings
from tillway.store.codec import QUEUES
from tillway.telemetry.metrics import TABLE

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "tillway.json"
DOCUMENT = ROOT / "docs" / "operations.md"

PROMETHEUS_OWN = {"job", "instance"}
"""Labels that Prometheus adds itself."""

VALUES = {
    "queue": set(QUEUES.values()),
    "state": {"pending", "unknown", "doubtful"},
    "limit": {"account", "key", "address"},
    "outcome": {
        *("succeeded", "pending", "action_required", "declined", "not_sent", "unknown", "never_seen", "raised"),
        *("done", "conflict", "unavailable", "refused", "failed", "delivered", "put_off", "given_up"),
    },
}
"""What labels can say, of those with a fixed vocabulary."""


def series() -> dict[str, set[str]]:
    """The labels of every time series by its name."""
    found: dict[str, set[str]] = {"up": set(PROMETHEUS_OWN)}
    for metric in TABLE:
        labels = {*metric.labels, *PROMETHEUS_OWN}
        if metric.kind == "histogram":
            found |= {f"{metric.name}_bucket": {*labels, "le"}}
            found |= {f"{metric.name}_sum": labels, f"{metric.name}_count": labels}
        else:
            found[metric.name] = labels
    return found


def nodes(expression: Any) -> Iterator[Any]:
    yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        inner = getattr(expression, name, None)
        if inner is not None:
            yield from nodes(inner)
    for argument in getattr(expression, "args", None) or ():
        yield from nodes(argument)


def problems(text: str, legend: str = "") -> list[str]:
    """What an expression says that the code does not. `legend` holds {{label}}s of its result."""
    known, wrong = {**series(), **{name: set() for name in recorded()}}, []
    labels: set[str] = set()
    for node in nodes(promql_parser.parse(text.replace("$__rate_interval", "5m"))):
        if isinstance(node, promql_parser.VectorSelector):
            if node.name not in known:
                wrong.append(f"no metric {node.name}")
                continue
            labels |= known[node.name]
            for matcher in node.matchers.matchers:
                values = VALUES.get(matcher.name, set())
                asked = set(matcher.value.split("|")) if values else set()
                if matcher.name not in known[node.name]:
                    wrong.append(f"{node.name} has no label {matcher.name}")
                elif not asked <= values:
                    wrong.append(f"{node.name}: {matcher.name} is never {asked - values}")
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            app = set().union(
                *(
                    known.get(one.name or "", set())
                    for one in nodes(node.expr)
                    if isinstance(one, promql_parser.VectorSelector)
                )
            )
            wrong += [f"nothing in {text!r} has the label {label}" for label in set(node.modifier.labels) - app]
    wrong += [f"the legend names {label}" for label in set(re.findall(r"{{ *(\w+) *}}", legend)) - labels]
    return wrong


def all_rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def rules() -> list[dict[str, Any]]:
    """The alerts."""
    return [rule for rule in all_rules() if "alert" in rule]


def recorded() -> dict[str, str]:
    """The rules that record a series, by its name."""
    return {rule["record"]: rule["expr"] for rule in all_rules() if "record" in rule}


def targets() -> list[tuple[str, str, str]]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [(panel["title"], target["expr"], target["legendFormat"]) for panel in panels for target in panel["targets"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is_and_says_what_to_do(rule: dict[str, Any]) -> None:
    assert not problems(rule["expr"])
    assert rule["labels"]["severity"] in ("page", "ticket")
    named = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    assert not problems(rule["expr"], " ".join(f"{{{{{label}}}}}" for label in named))
    assert len(rule["annotations"]["runbook"].split()) >= 10
    assert f"| `{rule['alert']}` |" in DOCUMENT.read_text()


@pytest.mark.parametrize("expression", recorded().values())
def test_a_recorded_series_asks_for_what_there_is(expression: str) -> None:
    assert not problems(expression)


def test_the_document_has_no_other_alert() -> None:
    assert re.findall(r"^\| `(Tillway\w+)` \|", DOCUMENT.read_text(), re.MULTILINE) == [
        rule["alert"] for rule in rules()
    ]


@pytest.mark.parametrize(("title", "expression", "legend"), targets())
def test_a_panel_asks_for_what_there_is(title: str, expression: str, legend: str) -> None:
    assert not problems(expression, legend)


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    everything = " ".join([*(rule["expr"] for rule in rules()), *(expression for _, expression, _ in targets())])
    own = ("process_open_fds", "process_start_time_seconds")
    assert [metric.name for metric in TABLE if metric.name not in everything and metric.name not in own] == []


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("rate(tillway_payment_total[5m])", "no metric tillway_payment_total"),
        ('tillway_doubts{queue="x"}', "no label queue"),
        ('tillway_doubts{state="odd"}', "never {'odd'}"),
        ("sum by (route) (tillway_doubts)", "has the label route"),
        ("tillway_commit_seconds", "no metric tillway_commit_seconds"),
    ],
)
def test_the_check_itself(expression: str, says: str) -> None:
    assert says in " ".join(problems(expression))


def test_prometheus_own_tool_agrees() -> None:
    promtool = debian_program("prometheus", "promtool")
    for command in (("check", "rules", ALERTS), ("test", "rules", Path(__file__).parent / "alerts_test.yml")):
        done = subprocess.run([str(promtool), *map(str, command)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("proxy", ["nginx/tillway.conf", "caddy/Caddyfile"])
def test_the_proxies_name_flags_that_the_server_has(proxy: str) -> None:
    named = set(re.findall(r"--[a-z-]+", (ROOT / "deploy" / proxy).read_text()))
    assert {"--trusted-proxies", "--public-url"} <= named <= {row.flag for row in settings.TABLE}
