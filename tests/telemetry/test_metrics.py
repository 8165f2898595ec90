"""Counting, and the text that Prometheus reads, held to Prometheus' own reader."""

import re
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tillway.domain.account import Scope
from tillway.domain.source_api import SourceApi
from tillway.telemetry.metrics import TABLE, Metric, Metrics, totals
from tillway.telemetry.recorder import TOGETHER_MAX, Recorder

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"


def read(metrics: Metrics) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """The samples by name and sorted labels, as Prometheus reads them."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(metrics.exposition()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_the_document_has_every_metric_as_it_is() -> None:
    text = DOCUMENT.read_text().partition("<!-- metrics -->")[2].partition("<!-- /metrics -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "| `" in line]
    assert rows == [
        [f"`{metric.name}`", metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.what]
        for metric in TABLE
    ]


@pytest.mark.parametrize("metric", TABLE, ids=lambda metric: metric.name)
def test_names_are_as_prometheus_wants_them(metric: Metric) -> None:
    assert re.fullmatch(r"(tillway|process)_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") is (metric.kind == "counter")
    assert (metric.kind == "histogram") is bool(metric.bounds)
    assert list(metric.bounds) == sorted(metric.bounds)
    assert not {"account", "key", "customer"}.intersection(metric.labels), "the number of series is bounded"


SHOP = Scope(account="acct_0123456789abcdef", mode="live").key


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    metrics = Metrics((Metric("tillway_x_seconds", "histogram", ("queue",), "X.", (0.1, 1.0)),))
    histogram = metrics.histogram("tillway_x_seconds")
    histogram.observe(("q",), [7.0, 0.05, 0.2])
    histogram.observe(("q",), [1.0, 0.1])
    buckets = {dict(labels)["le"]: value for labels, value in _own(metrics, "tillway_x_seconds_bucket").items()}
    assert buckets == {"0.1": 2, "1": 4, "+Inf": 5}
    assert _own(metrics, "tillway_x_seconds_count") == {(("queue", "q"),): 5}
    assert _own(metrics, "tillway_x_seconds_sum") == {(("queue", "q"),): pytest.approx(8.35)}


def test_events_that_are_counted_together_are_all_counted() -> None:
    metrics = Metrics()
    recorder = Recorder(metrics)
    for number in range(2 * TOGETHER_MAX + 3):
        recorder.commit("done", 0.002 if number % 2 else 0.2)
        recorder.settled("bank", "authorize", SourceApi.v1, "succeeded", f"{number % 300:016}l")
    counted = 2 * TOGETHER_MAX + 3
    assert totals(metrics, "tillway_commits_total", outcome="done") == counted
    assert totals(metrics, "tillway_payments_total") == counted
    assert totals(metrics, "tillway_merchant_payments_total") == counted
    found = read(metrics)
    assert found["tillway_commit_seconds_count"] == {(): counted}
    assert found["tillway_commit_seconds_bucket"][("le", "0.0025"),] == TOGETHER_MAX + 1


def _own(metrics: Metrics, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    histogram = metrics.histogram("tillway_x_seconds")
    text = "# TYPE tillway_x_seconds histogram\n" + "\n".join(histogram.lines()) + "\n"
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {tuple(sorted(sample.labels.items())): sample.value for sample in samples if sample.name == name}


def test_labels_are_escaped() -> None:
    metrics = Metrics()
    odd = 'a"b\\c\nd'
    metrics.counter("tillway_payments_total").add((odd, "v1", "succeeded"))
    assert read(metrics)["tillway_payments_total"] == {
        (("connector", odd), ("outcome", "succeeded"), ("source_api", "v1")): 1
    }


def test_what_is_told_is_counted() -> None:
    metrics = Metrics()
    recorder = Recorder(metrics)
    recorder.request("POST", "/v1/charges/{id}", 200, 0.004, {})
    recorder.task("deliveries", "failed", 0.2, {})
    recorder.exchange("bank", "authorize", "unknown", 3.0)
    recorder.settled("bank", "authorize", SourceApi.gateway, "succeeded", SHOP)
    recorder.settled("bank", "refund", SourceApi.v1, "succeeded", SHOP)
    recorder.commit("conflict", 0.001)
    recorder.batch(5, 0.002)
    recorder.delivery("given_up", SHOP)
    recorder.throttled("key")
    recorder.balances(2)
    found = read(metrics)
    assert found["tillway_requests_total"] == {
        (("method", "POST"), ("route", "/v1/charges/{id}"), ("status", "200")): 1
    }
    assert found["tillway_request_seconds_count"] == {(("route", "/v1/charges/{id}"),): 1}
    assert found["tillway_tasks_total"][("outcome", "failed"), ("queue", "deliveries")] == 1
    assert found["tillway_connector_outcomes_total"] == {
        (("connector", "bank"), ("operation", "authorize"), ("outcome", "unknown")): 1
    }
    assert found["tillway_payments_total"] == {
        (("connector", "bank"), ("outcome", "succeeded"), ("source_api", "gateway")): 1
    }
    assert sum(found["tillway_operations_total"].values()) == 2
    assert found["tillway_commits_total"][("outcome", "conflict"),] == 1
    assert found["tillway_batch_commits_sum"] == {(): 5} and found["tillway_flush_seconds_count"] == {(): 1}
    assert found["tillway_webhook_deliveries_total"][("outcome", "given_up"),] == 1
    assert found["tillway_throttled_total"][("limit", "key"),] == 1
    assert found["tillway_balance_differences"] == {(): 2}
    assert time.time() - 60 < found["tillway_balance_checked_time_seconds"][()] <= time.time()
    # There from the beginning, so that the first failure is an increase.
    assert found["tillway_webhook_deliveries_total"][("outcome", "failed"),] == 0
    assert found["tillway_log_lines_dropped_total"] == {(): 0}
    assert found["process_resident_memory_bytes"][()] > 1 << 20
