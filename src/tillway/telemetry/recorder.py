"""The implementation of the telemetry port: it counts every event, and makes lines and spans of it if they are on."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from tillway.domain.source_api import SourceApi
from tillway.engine.telemetry import NO_HEADERS, NO_SPAN, Fact, Span, SpanKind
from tillway.telemetry.lines import Lines
from tillway.telemetry.merchants import MERCHANTS_DEFAULT, MerchantCounters
from tillway.telemetry.metrics import Cell, Metrics

if TYPE_CHECKING:
    from tillway.telemetry.traces import Traces

_V1 = SourceApi.v1  # Python 3.11 takes 0.1 µs for an access through the enumeration, or to a name in it.

K = TypeVar("K")
V = TypeVar("V")


class _Made(dict[K, V]):
    """Makes what it does not hold yet."""

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make

    def __missing__(self, key: K) -> V:
        made = self[key] = self._make(key)
        return made


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
        # Every payment counts a dozen of these, so the cells of each event are found at once.
        counter, histogram = metrics.counter, metrics.histogram
        requests, self._request_seconds = counter("tillway_requests_total"), histogram("tillway_request_seconds")
        self._requests = _Made[tuple[str, str, int], tuple[Cell, Cell]](
            lambda key: (requests.cell((key[0], key[1], str(key[2]))), self._request_seconds.cell((key[1],)))
        )
        tasks, self._task_seconds = counter("tillway_tasks_total"), histogram("tillway_task_seconds")
        self._tasks = _Made[tuple[str, str], tuple[Cell, Cell]](
            lambda key: (tasks.cell(key), self._task_seconds.cell((key[0],)))
        )
        outcomes = counter("tillway_connector_outcomes_total")
        self._connector_seconds = histogram("tillway_connector_seconds")
        self._exchanges = _Made[tuple[str, str, str], tuple[Cell, Cell]](
            lambda key: (outcomes.cell(key), self._connector_seconds.cell(key[:2]))
        )
        commits, self._commit_seconds = counter("tillway_commits_total"), histogram("tillway_commit_seconds")
        self._commits = _Made[str, tuple[Cell, Cell]](
            lambda outcome: (commits.cell((outcome,)), self._commit_seconds.cell())
        )
        self._payments = _Made(counter("tillway_payments_total").cell)
        self._operations = _Made(counter("tillway_operations_total").cell)
        self._deliveries = _Made(counter("tillway_webhook_deliveries_total").cell)
        self._throttled = counter("tillway_throttled_total").add
        self._flush_seconds = histogram("tillway_flush_seconds")
        self._batch_commits = histogram("tillway_batch_commits")

    def request(self, method: str, route: str, status: int, seconds: float, facts: Mapping[str, Fact]) -> None:
        requests, took = self._requests[method, route, status]
        requests[0] += 1
        self._request_seconds.observe(seconds, took)
        if self._lines is not None:
            ms = round(seconds * 1000, 1)
            self._lines.say("request", {"method": method, "route": route, "status": status, "ms": ms, **facts})

    def task(self, queue: str, outcome: str, seconds: float, facts: Mapping[str, Fact]) -> None:
        tasks, took = self._tasks[queue, outcome]
        tasks[0] += 1
        self._task_seconds.observe(seconds, took)
        if self._lines is not None:
            ms = round(seconds * 1000, 1)
            self._lines.say("task", {"queue": queue, "outcome": outcome, "ms": ms, **facts})

    def exchange(self, connector: str, operation: str, outcome: str, seconds: float) -> None:
        outcomes, took = self._exchanges[connector, operation, outcome]
        outcomes[0] += 1
        self._connector_seconds.observe(seconds, took)

    def settled(self, connector: str, operation: str, source_api: SourceApi, outcome: str, scope_key: str) -> None:
        self._operations[connector, operation, outcome][0] += 1
        if operation == "authorize":
            self._payments[connector, "v1" if source_api is _V1 else source_api.name, outcome][0] += 1
            self._merchants.payment(scope_key, outcome)

    def commit(self, outcome: str, seconds: float) -> None:
        commits, took = self._commits[outcome]
        commits[0] += 1
        self._commit_seconds.observe(seconds, took)

    def batch(self, commits: int, seconds: float) -> None:
        """Record a flush of `commits` commits to the disk and its duration; only some stores report it."""
        self._batch_commits.observe(commits, self._batch_commits.cell())
        self._flush_seconds.observe(seconds, self._flush_seconds.cell())

    def delivery(self, outcome: str, scope_key: str) -> None:
        self._deliveries[outcome,][0] += 1
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
