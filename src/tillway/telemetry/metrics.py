"""Counters and histograms of this process, and their text for Prometheus.

One table lists all metrics; tests compare docs/operations.md and the files in deploy/ with it. Only the event loop's
thread counts, so counting needs no lock. The code or the operator chooses every label, never a caller, so the number of
series is bounded; that of merchants is bounded by `telemetry/merchants.py`.
"""

import math
import os
import platform
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from tillway import __version__
from tillway.store.codec import QUEUES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The text format, https://prometheus.io/docs/instrumenting/exposition_formats/."""

_HTTP_SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_FLUSH_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_TASK_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)
_COMMITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)

Labels = tuple[str, ...]


class Metric(msgspec.Struct, frozen=True):
    """One row of the table. `bounds` are the upper ends of a histogram's buckets. `starts` are series that exist from
    the beginning, at 0: an alert sees no rate in a series that first appears with its first failure."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: Labels
    what: str
    bounds: tuple[float, ...] = ()
    starts: tuple[Labels, ...] = ()


TABLE = (
    Metric("tillway_payments_total", "counter", ("connector", "source_api", "outcome"), "Payments that were settled."),
    Metric(
        "tillway_merchant_payments_total",
        "counter",
        ("merchant", "mode", "outcome"),
        "Payments that were settled, of the busiest merchants; `other` are all others.",
    ),
    Metric(
        "tillway_merchant_deliveries_total",
        "counter",
        ("merchant", "mode", "outcome"),
        "Tries to deliver an event, of the busiest merchants; `other` are all others.",
    ),
    Metric(
        "tillway_operations_total",
        "counter",
        ("connector", "operation", "outcome"),
        "Attempts of every kind that were settled: authorizations, captures, refunds, payouts.",
    ),
    Metric(
        "tillway_connector_seconds",
        "histogram",
        ("connector", "operation"),
        "Conversations with a provider, from the first request to the last answer.",
        _HTTP_SECONDS,
    ),
    Metric(
        "tillway_connector_outcomes_total",
        "counter",
        ("connector", "operation", "outcome"),
        "Conversations with a provider, by outcome; `unknown` is a lost or unreadable answer.",
    ),
    Metric(
        "tillway_doubts",
        "gauge",
        ("connector", "state"),
        "Attempts without a known outcome: pending, unknown, or doubtful (it is time to ask).",
    ),
    Metric(
        "tillway_commit_seconds", "histogram", (), "Commits, from the decision to the flushed answer.", _FLUSH_SECONDS
    ),
    Metric(
        "tillway_commits_total",
        "counter",
        ("outcome",),
        "Commits: done, conflict, unknown or unavailable.",
        starts=(("done",), ("conflict",), ("unknown",), ("unavailable",)),
    ),
    Metric("tillway_flush_seconds", "histogram", (), "Flushes of a batch of commits to the disk.", _FLUSH_SECONDS),
    Metric("tillway_batch_commits", "histogram", (), "Commits that shared one flush.", _COMMITS),
    Metric(
        "tillway_task_oldest_due_seconds",
        "gauge",
        ("queue",),
        "How long the task that waits longest has been due; 0 where none is.",
    ),
    Metric(
        "tillway_tasks_total",
        "counter",
        ("queue", "outcome"),
        "Tasks worked on: done, refused or failed.",
        starts=tuple((queue, outcome) for queue in QUEUES.values() for outcome in ("done", "refused", "failed")),
    ),
    Metric("tillway_task_seconds", "histogram", ("queue",), "Work on one task.", _TASK_SECONDS),
    Metric(
        "tillway_webhook_deliveries_total",
        "counter",
        ("outcome",),
        "Tries to deliver an event: delivered, failed (it comes again), put_off (the endpoint is busy) or given_up.",
        starts=(("delivered",), ("failed",), ("put_off",), ("given_up",)),
    ),
    Metric(
        "tillway_throttled_total",
        "counter",
        ("limit",),
        "Requests refused with `rate_limit`, by the limit: account, key, address, page, card_address, card_key, card.",
        starts=(("account",), ("key",), ("address",), ("page",), ("card_address",), ("card_key",), ("card",)),
    ),
    Metric(
        "tillway_balance_differences",
        "gauge",
        (),
        "Sums that differ between all ledger entries, the balances shown and the reports, in the last whole pass.",
    ),
    Metric(
        "tillway_balance_checked_time_seconds",
        "gauge",
        (),
        "When the last whole pass over the ledger ended, in seconds since 1970.",
    ),
    Metric(
        "tillway_requests_total", "counter", ("method", "route", "status"), "Requests answered, by the route's pattern."
    ),
    Metric(
        "tillway_request_seconds",
        "histogram",
        ("route",),
        "Requests, from the read body to the whole answer.",
        _HTTP_SECONDS,
    ),
    Metric(
        "tillway_log_lines_dropped_total",
        "counter",
        (),
        "Log lines dropped because their reader was too slow.",
        starts=((),),
    ),
    Metric(
        "tillway_scrape_failures_total", "counter", (), "Looks at the store for a scrape that failed.", starts=((),)
    ),
    Metric("tillway_info", "gauge", ("version", "python"), "1, with the versions that run."),
    Metric("process_cpu_seconds_total", "counter", (), "Processor time of the server, user and system."),
    Metric("process_resident_memory_bytes", "gauge", (), "Resident memory of the server."),
    Metric("process_open_fds", "gauge", (), "Open file descriptors of the server."),
    Metric("process_start_time_seconds", "gauge", (), "When the server was started, in seconds since 1970."),
)


class Counter:
    """A number by labels: a counter, or, when set, a gauge."""

    __slots__ = ("metric", "values")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.values: dict[Labels, float] = {}

    def add(self, labels: Labels = (), by: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + by

    def set(self, labels: Labels, value: float) -> None:
        self.values[labels] = value

    def lines(self) -> Iterable[str]:
        for labels, value in self.values.items():
            yield f"{_series(self.metric.name, self.metric.labels, labels)} {_number(value)}"


class Histogram:
    """The number of values in each bucket, and the sum of all values."""

    __slots__ = ("bounds", "cells", "metric")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.bounds = metric.bounds
        self.cells: dict[Labels, list[float]] = {}
        """By labels: a count for each bucket, one for values above all buckets, and the sum of all values."""

    def observe(self, labels: Labels, values: list[float]) -> None:
        """Count these values, which are sorted in place: then each bucket takes one search, however many there are."""
        cell = self.cells.get(labels)
        if cell is None:
            cell = self.cells[labels] = [0] * (len(self.bounds) + 2)
        values.sort()
        below = 0
        for bucket, bound in enumerate(self.bounds):
            up_to = bisect_right(values, bound, below)
            cell[bucket] += up_to - below
            below = up_to
        cell[-2] += len(values) - below
        cell[-1] += sum(values)

    def lines(self) -> Iterable[str]:
        name, names = self.metric.name, (*self.metric.labels, "le")
        for labels, cell in self.cells.items():
            below: float = 0
            for bound, count in zip((*self.bounds, math.inf), cell, strict=False):
                below += count
                yield f"{_series(f'{name}_bucket', names, (*labels, _number(bound)))} {_number(below)}"
            yield f"{_series(f'{name}_sum', self.metric.labels, labels)} {_number(cell[-1])}"
            yield f"{_series(f'{name}_count', self.metric.labels, labels)} {_number(below)}"


def _nothing() -> None:
    """Nothing was kept."""


class Metrics:
    """All metrics of the table, by name."""

    def __init__(self, table: Iterable[Metric] = TABLE) -> None:
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        for metric in table:
            if metric.kind == "histogram":
                self._histograms[metric.name] = Histogram(metric)
            else:
                self._counters[metric.name] = Counter(metric)
        self.complete: Callable[[], None] = _nothing
        """Called before metrics are read: counts the events that were kept and not yet counted."""
        self._began = time.time()
        for counter in self._counters.values():
            for labels in counter.metric.starts:
                counter.add(labels, 0)

    def counter(self, name: str) -> Counter:
        self.complete()
        return self._counters[name]

    def histogram(self, name: str) -> Histogram:
        self.complete()
        return self._histograms[name]

    def exposition(self) -> str:
        """Render all metrics in Prometheus' text format."""
        self.complete()
        self._look_at_the_process()
        lines: list[str] = []
        everything: list[Counter | Histogram] = [*self._counters.values(), *self._histograms.values()]
        for one in everything:
            metric = one.metric
            lines.append(f"# HELP {metric.name} {metric.what}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += one.lines()
        return "\n".join(lines) + "\n"

    def _look_at_the_process(self) -> None:
        self.counter("tillway_info").set((__version__, platform.python_version()), 1)
        self.counter("process_cpu_seconds_total").set((), time.process_time())
        self.counter("process_start_time_seconds").set((), self._began)
        if sys.platform == "linux":
            resident = int(Path("/proc/self/statm").read_text().split()[1])
            self.counter("process_resident_memory_bytes").set((), resident * os.sysconf("SC_PAGE_SIZE"))
            self.counter("process_open_fds").set((), len(os.listdir("/proc/self/fd")))


def totals(metrics: Metrics, name: str, **labels: str) -> float:
    """Sum the series of a counter or gauge that have these labels."""
    counter = metrics.counter(name)
    places: Mapping[str, int] = {label: i for i, label in enumerate(counter.metric.labels)}
    return sum(
        value
        for found, value in counter.values.items()
        if all(found[places[label]] == wanted for label, wanted in labels.items())
    )


def _series(name: str, names: Labels, values: Labels) -> str:
    if not names:
        return name
    pairs = [f'{label}="{_escape(value)}"' for label, value in zip(names, values, strict=True)]
    return f"{name}{{{','.join(pairs)}}}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if value == math.inf:
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
