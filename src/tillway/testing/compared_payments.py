"""Plain payments that are compared with the general way: the worlds take every payment so."""

from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any, TypeVar

import msgspec

from tillway.connectors.port import Outcome, Succeeded
from tillway.domain.attempt import Attempt
from tillway.domain.balance import availability_task
from tillway.domain.idempotency import IdempotencyRecord
from tillway.domain.payment_intent import PaymentIntent, Terms
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.record import Changes, Moment, Record
from tillway.engine.accounts import Price
from tillway.engine.attempts import Connection
from tillway.engine.availability import unforeseen
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load, ask_to_be_first, first_references
from tillway.engine.events import Born
from tillway.engine.ids import ENTRY_ENDS, PAIRS
from tillway.engine.plain_payments import PlainPayments
from tillway.engine.settlers import Settling, settler_of
from tillway.store.port import Write

T = TypeVar("T")

_price: ContextVar[Price] = ContextVar("price")
"""The price by which the current task settles a payment. The account may be another one before it is written."""


class ComparedPayments(PlainPayments):
    """Raises AssertionError where the writes of a commit are not those of the general way."""

    compared = 0
    """How many commits were compared."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._keys: dict[str, IdempotencyRecord] = {}
        self._settling: dict[str, tuple[PaymentMethod, Outcome, Connection]] = {}

    def _first_writes(
        self,
        caller: Caller,
        begun: Changes[PaymentIntent],
        attempt: Attempt,
        key: IdempotencyRecord,
        at: Moment,
    ) -> tuple[list[Write], set[str], Born | None]:
        engine = self.engine
        made = super()._first_writes(caller, begun, attempt, key, at)
        again = _again(at, after=attempt.id)
        load = Load(engine.store, caller.scope_key, {})
        attempts = engine.claim_new_attempts(begun, again)
        held = engine.new_key(caller, load, attempts, 0, b"", again)
        firsts = first_references(load, begun, attempts)
        expected = self._generally(made, caller, load, begun, attempts, held, again)
        ask_to_be_first(expected[0], firsts, 1)
        _compare(made, expected)
        self._keys[attempt.id] = key
        return made

    async def _settle(
        self,
        caller: Caller,
        payment: PaymentIntent,
        method: PaymentMethod,
        attempt: Attempt,
        outcome: Succeeded,
        connection: Connection,
        price: Price | None,
    ) -> Done[Record | None] | None:
        self._settling[attempt.id] = method, outcome, connection
        try:
            return await super()._settle(caller, payment, method, attempt, outcome, connection, price)
        finally:
            del self._settling[attempt.id]

    def _terms_of(self, scope_key: str, connector: str, price: Price) -> Terms:
        _price.set(price)
        return super()._terms_of(scope_key, connector, price)

    def _last_writes(
        self,
        caller: Caller,
        before: PaymentIntent,
        attempt: Attempt,
        changes: Changes[PaymentIntent],
        at: Moment,
    ) -> tuple[list[Write], set[str], Born | None]:
        engine = self.engine
        made = super()._last_writes(caller, before, attempt, changes, at)
        method, outcome, connection = self._settling[attempt.id]
        key = self._keys.pop(attempt.id)
        load = Load(
            engine.store,
            caller.scope_key,
            {record.id: (1, record) for record in (before, method, attempt, key)},
        )
        again = _again(at)
        settling = Settling(
            load=load,
            attempt=attempt,
            outcome=outcome,
            at=again,
            settings=engine.settings,
            first_ask_seconds=connection.connector.capabilities.ask_after_seconds,
            price=_price.get(),
        )
        decided = _now(settler_of(attempt.subject).settle(settling))
        entry = unforeseen({}, caller.scope_key, decided, again)
        assert entry is not None
        if changes.tasks:
            decided = msgspec.structs.replace(decided, tasks=(availability_task(entry, again),))
        assert decided == changes, f"the general way decides otherwise about {before.id}: {decided} and {changes}"
        assert engine.answer_follows(load, key.id, decided, 200, again), f"the answer of {key.id} does not follow"
        _compare(made, self._generally(made, caller, load, decided, (), None, again))
        return made

    def _generally(
        self,
        made: tuple[list[Write], set[str], Born | None],
        caller: Caller,
        load: Load,
        changes: Changes[Any],
        attempts: tuple[Attempt, ...],
        held: IdempotencyRecord | None,
        at: Moment,
    ) -> tuple[list[Write], set[str], Born | None]:
        """The writes of the general way, which finds as many places for deliveries as the straight one."""
        places, self.engine.places = self.engine.places, _Found(made[2] is not None)
        try:
            return self.engine.writes(caller, load, changes, attempts, held, at)
        finally:
            self.engine.places = places


class _Found:
    """Places that are free, or not."""

    def __init__(self, free: bool) -> None:
        self._free = free

    def reserve(self, scope_key: str, count: int) -> bool:
        return self._free

    def release(self, scope_key: str, count: int) -> None: ...

    def begin(self, born: Born) -> None: ...


def _again(at: Moment, *, after: str = "") -> Moment:
    """The same moment with its ids from the first on, or from the one behind the id `after`."""
    ends = PAIRS[PAIRS.index(after[-len(ENTRY_ENDS) :]) + 1 :] if after else PAIRS
    return msgspec.structs.replace(at, ends=iter(ends))


def _now(work: Awaitable[T]) -> T:
    """The result of work that need not wait."""
    try:
        work.__await__().__next__()
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("the general way reads something for a plain payment")


def _compare(
    made: tuple[list[Write], set[str], Born | None], expected: tuple[list[Write], set[str], Born | None]
) -> None:
    ComparedPayments.compared += 1
    assert made == expected, f"a plain payment writes\n{made}\nand the general way\n{expected}"
