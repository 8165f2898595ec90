"""What the platform tells of its own work: a port with one method for each thing that happens, and silence.

Nothing here decides anything or may fail: whoever listens (logs, metrics, traces; see `tillway.telemetry`) is wired in,
and where nobody does, `SILENT` stands in. What is told are names that the code or the operator chose, ids that we made,
numbers and times: never what a caller or a provider wrote.
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
    """A stretch of work, as a context manager. An exception that leaves it marks it as failed."""

    def __enter__(self) -> "Span": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def tell(self, **facts: Fact) -> None:
        """Add facts to it."""


class Telemetry(Protocol):
    """Seconds are wall-clock durations. `facts` are what `note` gathered, ready for one log line."""

    telling: bool
    """Whether anybody wants facts: where not, none need be gathered."""

    tracing: bool
    """Whether anybody wants spans: see `in_span`."""

    def request(self, method: str, route: str, status: int, seconds: float, facts: Mapping[str, Fact]) -> None:
        """A request was answered. `route` is the pattern, not the path."""

    def task(self, queue: str, outcome: str, seconds: float, facts: Mapping[str, Fact]) -> None:
        """A task was worked on: `done`, `refused` or `failed`."""

    def exchange(self, connector: str, operation: str, outcome: str, seconds: float) -> None:
        """One conversation with a provider has ended, with the outcome of that name or `never_seen`."""

    def settled(self, connector: str, operation: str, source_api: SourceApi, outcome: str) -> None:
        """The outcome of an attempt was committed, and the attempt is over."""

    def commit(self, outcome: str, seconds: float) -> None:
        """A commit returned: `done`, `conflict`, `unknown` or `unavailable`."""

    def delivery(self, outcome: str) -> None:
        """A webhook was `delivered`, `failed` (and comes again), was `put_off`, or was `given_up`."""

    def throttled(self, limit: str) -> None:
        """A request was refused by the limit of that name."""

    def span(self, name: str, kind: SpanKind, caller: Mapping[str, str] | None = None) -> Span:
        """A stretch of work that begins now, within the one around it. `caller`: headers that may name a trace."""

    def trace_headers(self) -> Mapping[str, str]:
        """What a request to somebody else carries so that its work joins this trace; empty where that is not wanted."""


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

    def settled(self, connector: str, operation: str, source_api: SourceApi, outcome: str) -> None: ...

    def commit(self, outcome: str, seconds: float) -> None: ...

    def delivery(self, outcome: str) -> None: ...

    def throttled(self, limit: str) -> None: ...

    def span(self, name: str, kind: SpanKind, caller: Mapping[str, str] | None = None) -> Span:
        return NO_SPAN

    def trace_headers(self) -> Mapping[str, str]:
        return NO_HEADERS


SILENT: Telemetry = _Silent()


def in_span(telemetry: Telemetry, name: str, kind: SpanKind, work: Awaitable[T]) -> Awaitable[T]:
    """`work`, in a span of its own. Where nobody traces it is left as it is: a payment has three such steps, and empty
    spans around them cost it one per cent."""
    return _run_in_span(telemetry, name, kind, work) if telemetry.tracing else work


async def _run_in_span(telemetry: Telemetry, name: str, kind: SpanKind, work: Awaitable[T]) -> T:
    with telemetry.span(name, kind):
        return await work


# The facts of the request or task that is being worked on: whoever knows one notes it, wherever that is.

_facts: ContextVar[dict[str, Fact] | None] = ContextVar("facts", default=None)


def begin_facts(facts: dict[str, Fact]) -> Token[dict[str, Fact] | None]:
    """Gather in `facts` what is noted from now on in this asyncio task and in those that it starts."""
    return _facts.set(facts)


def end_facts(token: Token[dict[str, Fact] | None]) -> None:
    _facts.reset(token)


def note(name: str, value: Fact | None) -> None:
    """Put a fact into the log line of the request or task that this is part of. What is None says nothing."""
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
    """Note the id of a record that was loaded or made (never one that only a caller wrote), by its kind."""
    facts = _facts.get()
    if facts is not None and id is not None:
        kind = _KINDS.get(id.partition("_")[0])
        if kind is not None:
            facts[kind] = id


def note_record(record: Record | None) -> None:
    """Note the id of a record and of those that it is about."""
    if record is None or _facts.get() is None:
        return
    for name in ("payment", "charge", "latest_charge", "id"):
        id = getattr(record, name, None)
        if isinstance(id, str):
            note_id(id)
