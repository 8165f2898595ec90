"""The implementation of the telemetry port: it counts every event, and makes lines and spans of it if they are on."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tillway.domain.source_api import SourceApi
from tillway.engine.telemetry import NO_HEADERS, NO_SPAN, Fact, Span, SpanKind
from tillway.telemetry.lines import Lines
from tillway.telemetry.merchants import MERCHANTS_DEFAULT, MerchantCounters
from tillway.telemetry.metrics import Labels, Metrics

if TYPE_CHECKING:
    from tillway.telemetry.traces import Traces

_DONE: Labels = ("done",)
_V1 = SourceApi.v1  # Python 3.11 takes 0.1 µs for an access through the enumeration, or to a name in it.


class Recorder:
    """`lines` is None if the log's level leaves out requests and tasks, `traces` if traces are off. `merchants_max`
    merchants have series of their own."""

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
        # Every payment counts a dozen of these: an addition costs a fifth of a call that adds.
        self._requests = metrics.counter("tillway_requests_total").values
        self._request_seconds = metrics.histogram("tillway_request_seconds").observe
        self._tasks = metrics.counter("tillway_tasks_total").add
        self._task_seconds = metrics.histogram("tillway_task_seconds").observe
        self._connector_seconds = metrics.histogram("tillway_connector_seconds").observe
        self._connector_outcomes = metrics.counter("tillway_connector_outcomes_total").values
        self._payments = metrics.counter("tillway_payments_total").values
        self._operations = metrics.counter("tillway_operations_total").values
        self._commits = metrics.counter("tillway_commits_total").values
        self._commit_seconds = metrics.histogram("tillway_commit_seconds").observe
        self._deliveries = metrics.counter("tillway_webhook_deliveries_total").add
        self._throttled = metrics.counter("tillway_throttled_total").add
        self._flush_seconds = metrics.histogram("tillway_flush_seconds").observe
        self._batch_commits = metrics.histogram("tillway_batch_commits").observe

    def request(self, method: str, route: str, status: int, seconds: float, facts: Mapping[str, Fact]) -> None:
        self._requests[method, route, str(status)] += 1
        self._request_seconds(seconds, (route,))
        if self._lines is not None:
            ms = round(seconds * 1000, 1)
            self._lines.say("request", {"method": method, "route": route, "status": status, "ms": ms, **facts})

    def task(self, queue: str, outcome: str, seconds: float, facts: Mapping[str, Fact]) -> None:
        self._tasks((queue, outcome))
        self._task_seconds(seconds, (queue,))
        if self._lines is not None:
            ms = round(seconds * 1000, 1)
            self._lines.say("task", {"queue": queue, "outcome": outcome, "ms": ms, **facts})

    def exchange(self, connector: str, operation: str, outcome: str, seconds: float) -> None:
        self._connector_seconds(seconds, (connector, operation))
        self._connector_outcomes[connector, operation, outcome] += 1

    def settled(self, connector: str, operation: str, source_api: SourceApi, outcome: str, scope_key: str) -> None:
        self._operations[connector, operation, outcome] += 1
        if operation == "authorize":
            self._payments[connector, "v1" if source_api is _V1 else source_api.name, outcome] += 1
            self._merchants.payment(scope_key, outcome)

    def commit(self, outcome: str, seconds: float) -> None:
        self._commits[_DONE if outcome == "done" else (outcome,)] += 1
        self._commit_seconds(seconds)

    def batch(self, commits: int, seconds: float) -> None:
        """Record a flush of `commits` commits to the disk and its duration; only some stores report it."""
        self._batch_commits(commits)
        self._flush_seconds(seconds)

    def delivery(self, outcome: str, scope_key: str) -> None:
        self._deliveries((outcome,))
        self._merchants.delivery(scope_key, outcome)

    def throttled(self, limit: str) -> None:
        self._throttled((limit,))

    def balances(self, differences: int) -> None:
        self.metrics.counter("tillway_balance_differences").set((), differences)
        self.metrics.counter("tillway_balance_checked_time_seconds").set((), time.time())

    def span(self, name: str, kind: SpanKind, caller: Mapping[str, str] | None = None) -> Span:
        return NO_SPAN if self._traces is None else self._traces.span(name, kind, caller)

    def trace_headers(self) -> Mapping[str, str]:
        return NO_HEADERS if self._traces is None else self._traces.headers()
