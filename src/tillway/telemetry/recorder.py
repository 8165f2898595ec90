"""The implementation of the telemetry port: it counts every event, and makes lines and spans of it if they are on."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from tillway.domain.source_api import SourceApi
from tillway.engine.telemetry import NO_HEADERS, NO_SPAN, Fact, Span, SpanKind
from tillway.telemetry.lines import Lines
from tillway.telemetry.merchants import MERCHANTS_DEFAULT, MerchantCounters
from tillway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from tillway.telemetry.traces import Traces

_V1 = SourceApi.v1  # Python 3.11 takes 0.1 µs for an access through the enumeration, or to a name in it.

TOGETHER_MAX = 256
"""How many events of one kind are kept before they are counted."""

K = TypeVar("K")


class _Kept(dict[K, list[float]]):
    """The seconds that events took, by what they have in common."""

    def __missing__(self, key: K) -> list[float]:
        kept = self[key] = []
        return kept


class Recorder:
    """`lines` is None if the log's level leaves out requests and tasks, `traces` if traces are off. `merchants_max`
    merchants have series of their own.

    An event of a payment is only kept, under what it has in common with others. Those that are alike are counted
    together: before the metrics are read, and after TOGETHER_MAX.
    """

    def __init__(
        self,
        metrics: Metrics,
        lines: Lines[Any] | None = None,
        traces: "Traces | None" = None,
        merchants_max: int = MERCHANTS_DEFAULT,
    ) -> None:
        self.metrics = metrics
        self.telling = lines is not None or traces is not None
        self.tracing = traces is not None
        self._merchants = MerchantCounters(metrics, merchants_max)
        self._lines = lines
        self._traces = traces
        self._kept_requests = _Kept[tuple[str, str, int]]()
        self._kept_tasks = _Kept[tuple[str, str]]()
        self._kept_exchanges = _Kept[tuple[str, str, str]]()
        self._kept_commits = _Kept[str]()
        self._kept_settled: dict[tuple[str, str, str, str, str], int] = {}
        self._kept_deliveries: dict[tuple[str, str], int] = {}
        counter, histogram = metrics.counter, metrics.histogram
        self._requests, self._request_seconds = counter("tillway_requests_total"), histogram("tillway_request_seconds")
        self._tasks, self._task_seconds = counter("tillway_tasks_total"), histogram("tillway_task_seconds")
        self._outcomes = counter("tillway_connector_outcomes_total")
        self._connector_seconds = histogram("tillway_connector_seconds")
        self._commits, self._commit_seconds = counter("tillway_commits_total"), histogram("tillway_commit_seconds")
        self._payments = counter("tillway_payments_total")
        self._operations = counter("tillway_operations_total")
        self._deliveries = counter("tillway_webhook_deliveries_total").add
        self._throttled = counter("tillway_throttled_total").add
        self._flush_seconds = histogram("tillway_flush_seconds")
        self._batch_commits = histogram("tillway_batch_commits")
        metrics.complete = self._count_kept

    def request(self, method: str, route: str, status: int, seconds: float, facts: Mapping[str, Fact]) -> None:
        kept = self._kept_requests[method, route, status]
        kept.append(seconds)
        if len(kept) >= TOGETHER_MAX:
            self._count_kept()
        if self._lines is not None:
            ms = round(seconds * 1000, 1)
            self._lines.say("request", {"method": method, "route": route, "status": status, "ms": ms, **facts})

    def task(self, queue: str, outcome: str, seconds: float, facts: Mapping[str, Fact]) -> None:
        kept = self._kept_tasks[queue, outcome]
        kept.append(seconds)
        if len(kept) >= TOGETHER_MAX:
            self._count_kept()
        if self._lines is not None:
            ms = round(seconds * 1000, 1)
            self._lines.say("task", {"queue": queue, "outcome": outcome, "ms": ms, **facts})

    def exchange(self, connector: str, operation: str, outcome: str, seconds: float) -> None:
        kept = self._kept_exchanges[connector, operation, outcome]
        kept.append(seconds)
        if len(kept) >= TOGETHER_MAX:
            self._count_kept()

    def settled(self, connector: str, operation: str, source_api: SourceApi, outcome: str, scope_key: str) -> None:
        kept = self._kept_settled
        alike = connector, operation, "v1" if source_api is _V1 else source_api.name, outcome, scope_key
        kept[alike] = kept.get(alike, 0) + 1
        if len(kept) >= TOGETHER_MAX:
            self._count_kept()

    def commit(self, outcome: str, seconds: float) -> None:
        kept = self._kept_commits[outcome]
        kept.append(seconds)
        if len(kept) >= TOGETHER_MAX:
            self._count_kept()

    def _count_kept(self) -> None:
        """Count the events that are kept."""
        for (method, route, status), seconds in self._kept_requests.items():
            self._requests.add((method, route, str(status)), len(seconds))
            self._request_seconds.observe((route,), seconds)
        for (queue, outcome), seconds in self._kept_tasks.items():
            self._tasks.add((queue, outcome), len(seconds))
            self._task_seconds.observe((queue,), seconds)
        for (connector, operation, outcome), seconds in self._kept_exchanges.items():
            self._outcomes.add((connector, operation, outcome), len(seconds))
            self._connector_seconds.observe((connector, operation), seconds)
        for outcome, seconds in self._kept_commits.items():
            self._commits.add((outcome,), len(seconds))
            self._commit_seconds.observe((), seconds)
        for (connector, operation, source_api, outcome, scope_key), times in self._kept_settled.items():
            self._operations.add((connector, operation, outcome), times)
            if operation == "authorize":
                self._payments.add((connector, source_api, outcome), times)
                self._merchants.payment(scope_key, outcome, times)
        for (outcome, scope_key), times in self._kept_deliveries.items():
            self._deliveries((outcome,), times)
            self._merchants.delivery(scope_key, outcome, times)
        for kept in (self._kept_requests, self._kept_tasks, self._kept_exchanges, self._kept_commits):
            kept.clear()
        self._kept_settled.clear()
        self._kept_deliveries.clear()

    def batch(self, commits: int, seconds: float) -> None:
        """Record a flush of `commits` commits to the disk and its duration; only some stores report it."""
        self._batch_commits.observe((), [commits])
        self._flush_seconds.observe((), [seconds])

    def delivery(self, outcome: str, scope_key: str) -> None:
        kept = self._kept_deliveries
        alike = outcome, scope_key
        kept[alike] = kept.get(alike, 0) + 1
        if len(kept) >= TOGETHER_MAX:
            self._count_kept()

    def throttled(self, limit: str) -> None:
        self._throttled((limit,))

    def balances(self, differences: int) -> None:
        self.metrics.counter("tillway_balance_differences").set((), differences)
        self.metrics.counter("tillway_balance_checked_time_seconds").set((), time.time())

    def span(self, name: str, kind: SpanKind, caller: Mapping[str, str] | None = None) -> Span:
        return NO_SPAN if self._traces is None else self._traces.span(name, kind, caller)

    def trace_headers(self) -> Mapping[str, str]:
        return NO_HEADERS if self._traces is None else self._traces.headers()
