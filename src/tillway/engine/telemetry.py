"""The telemetry port: one method for each kind of event, and `SILENT`, an implementation that does nothing.

Telemetry decides nothing and must not fail. `wiring.py` connects listeners (logs, metrics, traces; see
`tillway.telemetry`); without one, `SILENT` takes their place. Events hold names chosen by the code or the operator,
Tillway's own ids, numbers and times: never text of a caller or a provider.
"""

from collections.abc import Awaitable, Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Literal, Protocol, TypeVar

from tillway.domain.record import Record
from tillway.domain.source_api import SourceApi

T = TypeVar("T")

Fact = str | int | float
SpanKind = Literal["request", "task", "call", "step"]


class Span(Protocol):
    """A unit of work, as a context manager. An exception that leaves it marks it as failed."""

    def __enter__(self) -> "Span": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def tell(self, **facts: Fact) -> None:
        """Add facts to it."""


class Telemetry(Protocol):
    """Seconds are wall-clock durations. `facts` are those gathered by `note`, ready for one log line."""

    telling: bool
    """Whether a listener uses facts; otherwise they need not be gathered."""

    tracing: bool
    """Whether a listener uses spans: see `in_span`."""

    def request(self, method: str, route: str, status: int, seconds: float, facts: Mapping[str, Fact]) -> None:
        """A request was answered. `route` is the pattern, not the path."""

    def task(self, queue: str, outcome: str, seconds: float, facts: Mapping[str, Fact]) -> None:
        """A task was worked on: `done`, `refused` or `failed`."""

    def exchange(self, connector: str, operation: str, outcome: str, seconds: float) -> None:
        """One conversation with a provider has ended, with the outcome of that name or `never_seen`."""

    def settled(self, connector: str, operation: str, source_api: SourceApi, outcome: str, scope_key: str) -> None:
        """The outcome of an attempt of the scope was committed, and the attempt is over."""

    def commit(self, outcome: str, seconds: float) -> None:
        """A commit returned: `done`, `conflict`, `unknown` or `unavailable`."""

    def delivery(self, outcome: str, scope_key: str) -> None:
        """A webhook of the scope was `delivered`, `failed` (it is tried again), was `put_off`, or was `given_up`."""

    def throttled(self, limit: str) -> None:
        """A request was refused by the limit of that name."""

    def balances(self, differences: int) -> None:
        """A pass over all ledger entries has ended: in how many places sums differ."""

    def span(self, name: str, kind: SpanKind, caller: Mapping[str, str] | None = None) -> Span:
        """A unit of work that begins now, within the enclosing one. `caller`: headers that may name a trace."""

    def trace_headers(self) -> Mapping[str, str]:
        """Headers for an outgoing request, by which its receiver joins this trace; empty if that is off."""


class _NoSpan:
    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def tell(self, **facts: Fact) -> None: ...


NO_SPAN: Span = _NoSpan()
NO_HEADERS: Mapping[str, str] = {}


class _Silent:
    telling = False
    tracing = False

    def request(self, method: str, route: str, status: int, seconds: float, facts: Mapping[str, Fact]) -> None: ...

    def task(self, queue: str, outcome: str, seconds: float, facts: Mapping[str, Fact]) -> None: ...

    def exchange(self, connector: str, operation: str, outcome: str, seconds: float) -> None: ...

    def settled(self, connector: str, operation: str, source_api: SourceApi, outcome: str, scope_key: str) -> None: ...

    def commit(self, outcome: str, seconds: float) -> None: ...

    def delivery(self, outcome: str, scope_key: str) -> None: ...

    def throttled(self, limit: str) -> None: ...

    def balances(self, differences: int) -> None: ...

    def span(self, name: str, kind: SpanKind, caller: Mapping[str, str] | None = None) -> Span:
        return NO_SPAN

    def trace_headers(self) -> Mapping[str, str]:
        return NO_HEADERS


SILENT: Telemetry = _Silent()


def in_span(
    telemetry: Telemetry, name: str, kind: SpanKind, work: Awaitable[T], facts: Mapping[str, Fact] = {}
) -> Awaitable[T]:
    """Run `work` in its own span, which is told the `facts` that are known at its end. Without traces it is returned
    unchanged: a payment has three such steps, and empty spans around them cost it one per cent."""
    return _run_in_span(telemetry, name, kind, work, facts) if telemetry.tracing else work


async def _run_in_span(
    telemetry: Telemetry, name: str, kind: SpanKind, work: Awaitable[T], facts: Mapping[str, Fact]
) -> T:
    with telemetry.span(name, kind) as span:
        done = await work
        span.tell(**facts)
        return done


# The facts of the current request or task: any code that knows one notes it.

_facts: ContextVar[dict[str, Fact] | None] = ContextVar("facts", default=None)


def begin_facts(facts: dict[str, Fact]) -> Token[dict[str, Fact] | None]:
    """Gather in `facts` the facts noted from now on in this asyncio task and in those that it starts."""
    return _facts.set(facts)


def end_facts(token: Token[dict[str, Fact] | None]) -> None:
    _facts.reset(token)


def note(name: str, value: Fact | None) -> None:
    """Add facts to the log line of the current request or task. A fact that is None is left out."""
    facts = _facts.get()
    if facts is not None and value is not None:
        facts[name] = value


_KINDS = {
    "pi": "payment",
    "dpi": "payment",
    "gwp": "payment",
    "ch": "charge",
    "re": "refund",
    "po": "payout",
    "cus": "customer",
    "du": "dispute",
    "ord": "order",
    "evt": "event",
    "we": "endpoint",
    "whd": "delivery",
}


def note_id(id: str | None) -> None:
    """Note the id of a record that was loaded or made, by its kind; never an id that only a caller wrote."""
    facts = _facts.get()
    if facts is not None and id is not None:
        kind = _KINDS.get(id.partition("_")[0])
        if kind is not None:
            facts[kind] = id


def note_record(record: Record | None) -> None:
    """Note the ids of a record and of its related records."""
    if record is None or _facts.get() is None:
        return
    for name in ("payment", "charge", "latest_charge", "id"):
        id = getattr(record, name, None)
        if isinstance(id, str):
            note_id(id)
