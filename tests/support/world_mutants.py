"""Bugs put into the engine on purpose, one at a time: what the worlds are worth is shown by their catching each.

A mutant is a context manager that replaces one attribute of one seam, and the checks of which one must find it.

`data/mutants_found.json` has the seed of the first world that catches each. The tests begin there, so that they run one
world where they would run dozens; a seed that no longer catches its mutant costs time and hides nothing. Running this
file finds the seeds anew.
"""

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

import msgspec

from tillway.api import balance as balance_api
from tillway.connectors.conversation import converse
from tillway.connectors.port import NeverSeen, Notice
from tillway.domain import audit, dispute, open_item, payment_intent, payout, refund, routing, stored_credit
from tillway.domain.attempt import Attempt, reference_of
from tillway.domain.audit import AuditBatch, Change
from tillway.domain.ledger import Entry
from tillway.domain.outcome import Declined, NotSent, Outcome, Pending, Succeeded, Unknown
from tillway.domain.payment_intent import PaymentIntent, Terms
from tillway.domain.record import NO_CHANGES, Changes, Record
from tillway.domain.refusal import Refused
from tillway.domain.routing import Routes
from tillway.engine import attempts, balance, later_words, notices, settlers
from tillway.engine.accounts import Price
from tillway.engine.attempts import Attempts
from tillway.engine.audit import chain
from tillway.engine.audit import entries as trail
from tillway.engine.caller import Caller
from tillway.engine.clock import Clock
from tillway.engine.core import Engine
from tillway.engine.events import Born
from tillway.engine.health import ConnectorHealth
from tillway.engine.ids import base62
from tillway.engine.plain_payments import PlainPayments
from tillway.engine.restores import RestoreWatch
from tillway.engine.settlers import terms_of
from tillway.engine.time_mark import TimeKeeper
from tillway.operations import balance_check, orders, payouts, settlements
from tillway.operations import notices as notice_operations
from tillway.operations.recovery import Found, Recovery
from tillway.sandbox import simulator
from tillway.simulation.world import BesideStore
from tillway.simulation.worlds import Report, run_worlds
from tillway.store.port import StorageFull, Write
from tillway.testing.memory_store import MemoryStore


@contextmanager
def replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def a_new_reference_for_every_sending() -> AbstractContextManager[None]:
    made: dict[str, int] = {}

    def another(scope_key: str, attempt: Attempt) -> str:
        made[attempt.id] = made.get(attempt.id, 0) + 1
        return f"{reference_of(scope_key, attempt)[:-1]}{made[attempt.id] % 10}"

    return replaced(attempts, "reference_of", another)


def a_time_out_means_declined() -> AbstractContextManager[None]:
    async def impatient(*arguments: Any) -> Any:
        outcome = await converse(*arguments)
        return Declined() if isinstance(outcome, Unknown) else outcome

    return replaced(attempts, "converse", impatient)


def never_seen_is_taken_for_no() -> AbstractContextManager[None]:
    """What the bank has not seen yet may still be on its way to it."""

    async def hasty(*arguments: Any) -> Any:
        outcome = await converse(*arguments)
        return Declined() if isinstance(outcome, NeverSeen) else outcome

    return replaced(attempts, "converse", hasty)


def a_pending_debit_counts_as_paid() -> AbstractContextManager[None]:
    async def hopeful(*arguments: Any) -> Any:
        outcome = await converse(*arguments)
        return Succeeded(outcome.bank_id, outcome.notices) if isinstance(outcome, Pending) else outcome

    return replaced(attempts, "converse", hopeful)


@contextmanager
def _on_every_way(name: str, value: object) -> Iterator[None]:
    """Replace a step of the engine that plain payments go around, and let these go the general way."""
    with replaced(Engine, name, value), replaced(PlainPayments, "_may_be_plain", lambda self, caller, command: False):
        yield


def _writes_without(dropped: Callable[[Write], bool]) -> AbstractContextManager[None]:
    original = Engine.commit

    async def fewer(self: Engine, caller: Any, writes: Sequence[Write], *told: Any, **named: Any) -> bool:
        rest = [write for write in writes if not dropped(write)]
        return not rest or await original(self, caller, rest, *told, **named)

    return _on_every_way("commit", fewer)


def the_attempt_is_never_written() -> AbstractContextManager[None]:
    return _writes_without(lambda write: "/att_" in write.key and write.body is not None)


def the_attempt_is_never_deleted() -> AbstractContextManager[None]:
    return _writes_without(lambda write: "/att_" in write.key and write.body is None)


def _in_a_commit_of_its_own(prefix: str) -> AbstractContextManager[None]:
    original = Engine.commit

    async def twice(
        self: Engine, caller: Any, writes: Sequence[Write], completes: Any, began_ns: int, *told: Any, **named: Any
    ) -> bool:
        apart = [write for write in writes if f"/{prefix}_" in write.key]
        rest = [write for write in writes if write not in apart]
        if rest and not await original(self, caller, rest, completes, began_ns, *told, **named):
            return False
        return not apart or await original(self, caller, apart, completes, began_ns)

    return _on_every_way("commit", twice)


def the_idempotency_record_has_a_commit_of_its_own() -> AbstractContextManager[None]:
    return _in_a_commit_of_its_own("idem")


def events_have_a_commit_of_their_own() -> AbstractContextManager[None]:
    return _in_a_commit_of_its_own("aud")


def a_plain_payment_tells_nobody_of_its_charge() -> AbstractContextManager[None]:
    """The straight way leaves out what the general way writes."""
    original = PlainPayments._last_writes

    def silent(
        self: PlainPayments, caller: Any, before: Any, attempt: Attempt, changes: Changes, at: Any
    ) -> tuple[list[Write], set[str], Born | None]:
        again = msgspec.structs.replace(changes, events=(changes.events[1], changes.events[1]))
        return original(self, caller, before, attempt, again, at)

    return replaced(PlainPayments, "_last_writes", silent)


def a_plain_payment_is_settled_by_other_terms() -> AbstractContextManager[None]:
    def late(self: PlainPayments, scope_key: str, connector: str, price: Price) -> Terms:
        return terms_of(connector, msgspec.structs.replace(price, settlement_days=price.settlement_days + 1))

    return replaced(PlainPayments, "_terms_of", late)


class CarelessStore(MemoryStore):
    """Takes a charge at whatever version it comes."""

    careless_of = "/ch_"

    async def commit(self, writes: Sequence[Write]) -> None:
        await super().commit([self._at_any_version(write) for write in writes])

    def _at_any_version(self, write: Write) -> Write:
        found = self._rows.get(write.key)
        if self.careless_of not in write.key or found is None:
            return write
        return msgspec.structs.replace(write, version=found.version)


class CarelessStoreOfCustomers(CarelessStore):
    """Takes a customer at whatever version they come: two that race spend the same credit."""

    careless_of = "/cus_"


def settling_twice_posts_twice() -> AbstractContextManager[None]:
    original = payment_intent.settle

    def forgetful(payment: PaymentIntent, attempt: Attempt, *arguments: Any, **named: Any) -> Changes:
        payment = msgspec.structs.replace(payment, attempt=attempt.id)
        return original(payment, attempt, *arguments, **named)

    return replaced(payment_intent, "settle", forgetful)


def the_security_code_is_kept_for_the_next_try() -> AbstractContextManager[None]:
    original = Attempts._converse
    kept: dict[str, str | None] = {}

    async def again(self: Attempts, connection: Any, scope: Any, attempt: Attempt, *rest: Any, **named: Any) -> Outcome:
        code = kept[attempt.id] = named["cvc"] or kept.get(attempt.id)
        return await original(self, connection, scope, attempt, *rest, **(named | {"cvc": code}))

    return replaced(Attempts, "_converse", again)


def _read_back_as(fate: str) -> AbstractContextManager[None]:
    async def guess(self: Engine, writes: Sequence[Write]) -> str:
        return fate

    return replaced(Engine, "_read_back", guess)


def an_unknown_commit_counts_as_done() -> AbstractContextManager[None]:
    return _read_back_as("happened")


def an_unknown_commit_is_decided_anew() -> AbstractContextManager[None]:
    return _read_back_as("beaten")


def a_commit_on_a_full_disk_counts_as_done() -> AbstractContextManager[None]:
    original = Engine.commit

    async def careless(self: Engine, *arguments: Any) -> bool:
        try:
            return await original(self, *arguments)
        except Refused as refused:
            if refused.code != StorageFull.code:
                raise
            return True

    return _on_every_way("commit", careless)


def an_outcome_that_the_store_did_not_take_is_a_decline() -> AbstractContextManager[None]:
    original = Attempts.begin_to_settle_later

    def declining(self: Attempts, caller: Any, attempt: Attempt, outcome: Outcome, connection: Any) -> None:
        original(self, caller, attempt, Declined(), connection)

    return replaced(Attempts, "begin_to_settle_later", declining)


def credit_is_spent_without_an_entry() -> AbstractContextManager[None]:
    original = stored_credit.spend

    def unbooked(*arguments: Any, **named: Any) -> Changes:
        changes = original(*arguments, **named)
        return msgspec.structs.replace(
            changes, records=tuple(record for record in changes.records if not isinstance(record, Entry))
        )

    return replaced(stored_credit, "spend", unbooked)


def a_failed_refund_stays_on_the_charge() -> AbstractContextManager[None]:
    original = refund.fail

    def halfway(owed: Any, charge: Any, *arguments: Any) -> Changes:
        changes = original(owed, charge, *arguments)
        return msgspec.structs.replace(
            changes, records=tuple(record for record in changes.records if record.id != charge.id)
        )

    return replaced(refund, "fail", halfway)


def payouts_move_no_guard() -> AbstractContextManager[None]:
    return _writes_without(lambda write: "/pog_" in write.key)


def a_payout_is_begun_without_a_commit() -> AbstractContextManager[None]:
    original = Attempts._claim

    async def at_once(
        self: Attempts, caller: Any, attempt: Attempt, state: Literal["new", "unknown"], **told: Any
    ) -> Attempt | None:
        if state == "new":
            return msgspec.structs.replace(attempt, state="new")
        return await original(self, caller, attempt, state, **told)

    return replaced(Attempts, "_claim", at_once)


def a_payout_under_way_can_be_cancelled() -> AbstractContextManager[None]:
    original = payout.cancel

    def late(paid_out: Any, attempt: Attempt | None, *arguments: Any) -> Changes:
        if attempt is not None:
            attempt = msgspec.structs.replace(attempt, state="scheduled")
        return original(paid_out, attempt, *arguments)

    return replaced(payout, "cancel", late)


def a_failed_payout_keeps_the_money() -> AbstractContextManager[None]:
    original = payout.fail

    def unbooked(*arguments: Any) -> Changes:
        changes = original(*arguments)
        return msgspec.structs.replace(
            changes, records=tuple(record for record in changes.records if not isinstance(record, Entry))
        )

    return replaced(payout, "fail", unbooked)


def a_further_capture_forgets_the_first() -> AbstractContextManager[None]:
    original = payment_intent._book_capture

    def alone(charge: Any, *arguments: Any, **named: Any) -> Any:
        return original(msgspec.structs.replace(charge, captured_minor=0), *arguments, **named)

    return replaced(payment_intent, "_book_capture", alone)


def a_settlement_is_booked_whenever_it_is_told() -> AbstractContextManager[None]:
    async def none(*arguments: Any) -> None:
        return None

    return replaced(settlements, "_find_booked", none)


class CarelessStoreOfProducts(CarelessStore):
    """Takes a product at whatever version it comes: two orders that race get the same item."""

    careless_of = "/prod_"


def versions_of_products_are_ignored() -> AbstractContextManager[None]:
    """With the store above. Orders take no turns then: these spare conflicts within a process, and would hide the bug
    from all but those that race between processes."""

    @asynccontextmanager
    async def at_once(*arguments: Any) -> AsyncIterator[None]:
        yield

    return replaced(orders, "_turn", at_once)


def an_order_is_noted_after_its_payment() -> AbstractContextManager[None]:
    return _in_a_commit_of_its_own("ord")


def a_failed_order_keeps_its_payment() -> AbstractContextManager[None]:
    async def keep(*arguments: Any) -> Changes:
        return NO_CHANGES

    return replaced(orders, "_give_back", keep)


def each_request_for_a_delivery_has_a_reference_of_its_own() -> AbstractContextManager[None]:
    original = orders.Order.delivery_reference
    asked: dict[str, int] = {}

    def another(*arguments: Any) -> str:
        reference = original(*arguments)
        asked[reference] = asked.get(reference, 0) + 1
        return f"{reference}{asked[reference]}"

    return replaced(orders.Order, "delivery_reference", another)


def stock_is_released_whether_or_not_it_was_held() -> AbstractContextManager[None]:
    original = orders._releasing

    def always(order_id: str, counts: dict[str, int]) -> Any:
        work = original(order_id, counts)

        async def release(load: Any, at: Any) -> Changes:
            changes = await work(load, at)
            if changes.records:
                return changes
            products = await orders._products(load, counts)
            freed = [
                msgspec.structs.replace(found, available_count=found.available_count + counts[found.product_id])
                for found in products.values()
                if found is not None
            ]
            return Changes(result=None, records=tuple(freed))

        return release

    return replaced(orders, "_releasing", always)


def a_write_that_the_audit_trail_does_not_tell() -> AbstractContextManager[None]:
    original = trail.change_of

    def silent(record: Record, *arguments: Any) -> Change | None:
        return None if record.id.startswith("re_") else original(record, *arguments)

    return replaced(trail, "change_of", silent)


def an_entry_is_lost_from_its_batch() -> AbstractContextManager[None]:
    original = chain.next_batch

    def fewer(scope_key: str, last: Any, entries: Any, *rest: Any) -> AuditBatch:
        return original(scope_key, last, entries[1:] if len(entries) > 1 else entries, *rest)

    return replaced(chain, "next_batch", fewer)


def a_ledger_entry_is_not_the_one_that_was_told() -> AbstractContextManager[None]:
    return replaced(trail, "digest_of", lambda body: audit.digest_of(body + b" "))


class _WallTime:
    """The wall clock in place of the mark of time."""

    falls = 0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def settled_until(self) -> str:
        return base62(self._clock.now_ns() // 1000, 9)

    def known_until(self) -> str:
        return "zzzzzzzzz"


class _WallTimeLedger:
    """A ledger of that time."""

    def __init__(self, ledger: Any) -> None:
        self.store, self.clock, self.settings = ledger.store, ledger.clock, ledger.settings
        self.time: Any = _WallTime(ledger.clock)


def _fold_by_wall_clock(ledger: Any, scope_key: str, until: str | None = None) -> Any:
    return balance.fold(_WallTimeLedger(ledger), scope_key, until)


@contextmanager
def checkpoints_end_where_the_wall_clock_stands() -> Iterator[None]:
    """The bug that doubled a balance: sums end at a point that entries still come before, and are believed."""
    with ExitStack() as stack:
        for module in (balance_api, payouts, balance_check):
            stack.enter_context(replaced(module, "fold", _fold_by_wall_clock))
        yield


def ids_follow_the_wall_clock_below_the_mark() -> AbstractContextManager[None]:
    def ignore(self: Clock, mark_us: int) -> None:
        pass

    return replaced(Clock, "raise_floor", ignore)


def both_stages_of_a_dispute_are_answered_under_one_key() -> AbstractContextManager[None]:
    original = simulator.answer_dispute
    return replaced(
        simulator, "answer_dispute", lambda reply: original(msgspec.structs.replace(reply, stage="chargeback"))
    )


def a_contradicted_outcome_is_dropped() -> AbstractContextManager[None]:
    return replaced(dispute, "_open_contradiction", lambda *arguments: NO_CHANGES)


def a_later_word_about_an_operation_is_dropped() -> AbstractContextManager[None]:
    async def agree(*arguments: Any, **more: Any) -> None:
        return None

    return replaced(later_words, "contradiction", agree)


@contextmanager
def captures_and_voids_leave_no_outcome() -> Iterator[None]:
    """And none is inferred from their charge, as that of an operation of an earlier version."""
    original = settlers._keep_outcome

    def only_of_authorizations(given: Any, changes: Any, *rest: Any, **named: Any) -> Any:
        return original(given, changes, *rest, **named) if given.attempt.kind == "authorize" else changes

    async def nothing(*arguments: Any, **named: Any) -> None:
        return None

    with ExitStack() as stack:
        stack.enter_context(replaced(settlers, "_keep_outcome", only_of_authorizations))
        for module in (later_words, notice_operations):
            stack.enter_context(replaced(module, "infer_settled", nothing))
        yield


def the_second_of_many_references_is_forgotten() -> AbstractContextManager[None]:
    original = settlers._keep_outcome

    def only_without_a_charge(given: Any, changes: Any, current: Any, *, subject: str, further: bool = False) -> Any:
        return original(given, changes, current, subject=subject)

    return replaced(settlers, "_keep_outcome", only_without_a_charge)


def the_newest_mark_is_final_at_once() -> AbstractContextManager[None]:
    return replaced(TimeKeeper, "settled_until", lambda self: self.known_until() or None)


def an_accepted_clock_is_not_believed() -> AbstractContextManager[None]:
    original = Clock.accept

    def only_at_the_start(self: Clock) -> None:
        if not hasattr(self, "_ahead_ns"):
            original(self)

    return replaced(Clock, "accept", only_at_the_start)


def each_report_of_a_dispute_opens_another() -> AbstractContextManager[None]:
    return replaced(dispute, "_under", lambda *arguments: None)


def a_lost_dispute_stays_open_in_the_ledger() -> AbstractContextManager[None]:
    original = dispute._lose

    def unbooked(*arguments: Any) -> Changes:
        changes = original(*arguments)
        return msgspec.structs.replace(
            changes, records=tuple(record for record in changes.records if not isinstance(record, Entry))
        )

    return replaced(dispute, "_lose", unbooked)


def references_do_not_follow_from_the_key() -> AbstractContextManager[None]:
    return replaced(Caller, "references", lambda self, after=0: None)


def names_of_orders_are_dropped() -> AbstractContextManager[None]:
    original = orders.domain.create

    def unnamed(*arguments: Any, **named: Any) -> Changes:
        changes = original(*arguments, **named)
        order = msgspec.structs.replace(changes.result, is_named=False)
        return msgspec.structs.replace(
            changes, result=order, records=tuple(order if one.id == order.id else one for one in changes.records)
        )

    return replaced(orders.domain, "create", unnamed)


def tokens_name_nothing() -> AbstractContextManager[None]:
    return replaced(Caller, "take_name", lambda self, name: None)


def a_later_try_by_the_same_name_is_not_looked_for() -> AbstractContextManager[None]:
    """The first try of an order's payment never reached the bank, and the second did."""
    return replaced(RestoreWatch, "was_followed", lambda self, scope_key, attempts, later: False)


def repeats_do_not_wait_for_the_recovery() -> AbstractContextManager[None]:
    return replaced(RestoreWatch, "check", lambda self, changes, *, repeatable: None)


def the_mark_is_not_kept_beside_the_store() -> AbstractContextManager[None]:
    return replaced(BesideStore, "write", lambda self, mark_us, *, durable=False: None)


def what_nothing_explains_is_dropped() -> AbstractContextManager[None]:
    async def dropped(self: Recovery, connection: Any, scope: Any, tail: str, notice: Notice) -> Found:
        return Found(verdict="unexplained", reference=notice.reference, kind="dropped")

    return replaced(Recovery, "_report_unexplained", dropped)


def later_words_about_what_waits_are_dropped() -> AbstractContextManager[None]:
    """Disputes of payments that were made after the backup."""
    return replaced(notices, "keep_notice", lambda item, notice: Changes(result=item))


def an_item_closed_by_hand_loses_its_disputes() -> AbstractContextManager[None]:
    return replaced(open_item, "_disputes_in", lambda item: {})


def a_notice_of_the_future_is_believed() -> AbstractContextManager[None]:
    original = notices.doubt_of_age

    def trusting(notice: Notice, now: int) -> str | None:
        return original(notice, max(now, notice.created or 0))

    return replaced(notices, "doubt_of_age", trusting)


def a_repeat_may_fail_although_it_was_performed() -> AbstractContextManager[None]:
    return replaced(RestoreWatch, "may_have_been_sent", lambda self, scope_key, attempt: False)


def a_payment_fails_over_after_unknown() -> AbstractContextManager[None]:
    original = Attempts.settle

    async def hopeful(
        self: Attempts, caller: Any, attempt: Attempt, outcome: Outcome, *, fails_over: bool = False, **named: Any
    ) -> Any:
        routes = await self.connections.for_payments(caller.scope)
        if fails_over and attempt.kind == "authorize" and isinstance(outcome, Unknown) and isinstance(routes, Routes):
            outcome = NotSent(outcome.reason)
        return await original(self, caller, attempt, outcome, fails_over=fails_over, **named)

    return replaced(Attempts, "settle", hopeful)


def the_attempt_at_the_first_connector_is_forgotten() -> AbstractContextManager[None]:
    original = payment_intent._settle_success

    def only_the_last(payment: PaymentIntent, *rest: Any) -> Changes:
        if payment.route is not None:
            payment = msgspec.structs.replace(payment, route=msgspec.structs.replace(payment.route, tried=()))
        return original(payment, *rest)

    return replaced(payment_intent, "_settle_success", only_the_last)


def a_repeated_request_draws_its_route_anew() -> AbstractContextManager[None]:
    chance = Random(1)
    original = routing._in_order
    return replaced(routing, "_in_order", lambda rule, seed: original(rule, str(chance.random())))


def a_question_goes_to_a_connector_drawn_anew() -> AbstractContextManager[None]:
    """And with it the resend, if that provider does not know the reference."""
    original = Attempts._converse
    chance = Random(1)

    async def anew(
        self: Attempts, connection: Any, scope: Any, attempt: Attempt, *rest: Any, cvc: Any, ask: bool
    ) -> Outcome:
        if ask and attempt.kind == "authorize":
            names = sorted(await self.connections.connectors_of(scope.mode))
            connection = await self.connections.named(chance.choice(names), scope)
        return await original(self, connection, scope, attempt, *rest, cvc=cvc, ask=ask)

    return replaced(Attempts, "_converse", anew)


def an_open_breaker_is_never_probed() -> AbstractContextManager[None]:
    async def wait(self: ConnectorHealth) -> None:
        pass

    return replaced(ConnectorHealth, "_watch_until_closed", wait)


CAUGHT_WITHIN = 300
"""How many worlds a seeded bug may survive. Most are found by the tenth."""

FOUND = Path(__file__).parent / "data" / "mutants_found.json"


class Mutant(NamedTuple):
    """`checks`: those of the worlds' checks that may be the first to find it. `store`: for a bug in the store."""

    bug: Callable[[], AbstractContextManager[None]] | None
    checks: tuple[str, ...]
    store: type[MemoryStore] = MemoryStore

    def __str__(self) -> str:
        return self.bug.__name__ if self.bug is not None else self.store.__name__

    def first_caught(self, first_seed: int = 0) -> Report | None:
        """Return the report of the first world that breaks a rule, `first_seed` before all others."""
        with self.bug() if self.bug is not None else nullcontext():
            seeds = [first_seed, *(seed for seed in range(CAUGHT_WITHIN) if seed != first_seed)]
            return run_worlds(seeds, self.store)[0]


MUTANTS = (
    Mutant(a_new_reference_for_every_sending, ("durable first", "performed once")),
    Mutant(a_time_out_means_declined, ("declined", "notice")),
    Mutant(never_seen_is_taken_for_no, ("declined", "money", "notice", "payouts", "route")),
    Mutant(a_pending_debit_counts_as_paid, ("declined", "bank", "money")),
    Mutant(the_attempt_is_never_written, ("durable first",)),
    Mutant(the_attempt_is_never_deleted, ("liveness",)),
    Mutant(
        the_idempotency_record_has_a_commit_of_its_own,
        ("one payment", "same answer", "liveness", "money", "performed once"),
    ),
    Mutant(events_have_a_commit_of_their_own, ("events", "audit")),
    Mutant(a_plain_payment_tells_nobody_of_its_charge, ("error inside",)),
    Mutant(a_plain_payment_is_settled_by_other_terms, ("error inside",)),
    Mutant(None, ("bounds", "bank", "money", "promise", "disputes"), CarelessStore),
    Mutant(settling_twice_posts_twice, ("events", "money", "final", "liveness", "error inside", "bounds")),
    Mutant(the_security_code_is_kept_for_the_next_try, ("cvc",)),
    Mutant(an_unknown_commit_counts_as_done, ("promise", "same answer", "durable first", "error inside")),
    Mutant(an_unknown_commit_is_decided_anew, ("one payment",)),
    Mutant(
        a_commit_on_a_full_disk_counts_as_done, ("promise", "same answer", "durable first", "one payment", "liveness")
    ),
    Mutant(an_outcome_that_the_store_did_not_take_is_a_decline, ("declined", "bank", "money", "payouts", "route")),
    Mutant(a_failed_refund_stays_on_the_charge, ("bank", "money")),
    Mutant(a_write_that_the_audit_trail_does_not_tell, ("audit",)),
    Mutant(an_entry_is_lost_from_its_batch, ("audit",)),
    Mutant(a_ledger_entry_is_not_the_one_that_was_told, ("audit",)),
    Mutant(None, ("credit",), CarelessStoreOfCustomers),
    Mutant(credit_is_spent_without_an_entry, ("credit",)),
    Mutant(payouts_move_no_guard, ("overdrawn", "one default")),
    Mutant(a_payout_is_begun_without_a_commit, ("cancelled", "declined", "money")),
    Mutant(a_payout_under_way_can_be_cancelled, ("cancelled", "declined", "money")),
    Mutant(a_failed_payout_keeps_the_money, ("money",)),
    Mutant(both_stages_of_a_dispute_are_answered_under_one_key, ("replies",)),
    Mutant(a_contradicted_outcome_is_dropped, ("contradictions", "money")),
    Mutant(a_later_word_about_an_operation_is_dropped, ("contradictions",)),
    Mutant(captures_and_voids_leave_no_outcome, ("contradictions",)),
    Mutant(the_second_of_many_references_is_forgotten, ("contradictions", "disputes", "notice")),
    Mutant(the_newest_mark_is_final_at_once, ("below the mark", "balances", "audit")),
    Mutant(an_accepted_clock_is_not_believed, ("liveness",)),
    Mutant(each_report_of_a_dispute_opens_another, ("disputes", "money")),
    Mutant(a_lost_dispute_stays_open_in_the_ledger, ("money",)),
    Mutant(versions_of_products_are_ignored, ("stock", "audit", "error inside"), CarelessStoreOfProducts),
    Mutant(an_order_is_noted_after_its_payment, ("one payment", "one order", "audit", "error inside")),
    Mutant(a_failed_order_keeps_its_payment, ("placed",)),
    Mutant(each_request_for_a_delivery_has_a_reference_of_its_own, ("deliveries",)),
    Mutant(checkpoints_end_where_the_wall_clock_stands, ("balances", "overdrawn")),
    Mutant(ids_follow_the_wall_clock_below_the_mark, ("below the mark", "balances")),
    Mutant(references_do_not_follow_from_the_key, ("performed twice",)),
    Mutant(names_of_orders_are_dropped, ("performed twice",)),
    Mutant(tokens_name_nothing, ("performed twice", "recovering")),
    Mutant(a_later_try_by_the_same_name_is_not_looked_for, ("performed twice",)),
    Mutant(repeats_do_not_wait_for_the_recovery, ("recovering",)),
    Mutant(the_mark_is_not_kept_beside_the_store, ("recovering",)),
    Mutant(what_nothing_explains_is_dropped, ("performed once", "bank", "money", "payouts")),
    Mutant(later_words_about_what_waits_are_dropped, ("disputes",)),
    Mutant(an_item_closed_by_hand_loses_its_disputes, ("disputes",)),
    Mutant(a_notice_of_the_future_is_believed, ("contradictions",)),
    Mutant(a_repeat_may_fail_although_it_was_performed, ("declined", "cvc")),
    Mutant(stock_is_released_whether_or_not_it_was_held, ("stock",)),
    Mutant(a_settlement_is_booked_whenever_it_is_told, ("settlements",)),
    Mutant(a_payment_fails_over_after_unknown, ("failover", "performed once")),
    Mutant(the_attempt_at_the_first_connector_is_forgotten, ("route",)),
    Mutant(a_repeated_request_draws_its_route_anew, ("same draw",)),
    Mutant(a_question_goes_to_a_connector_drawn_anew, ("one connector",)),
    Mutant(an_open_breaker_is_never_probed, ("breaker",)),
    Mutant(a_further_capture_forgets_the_first, ("bank", "money", "payments", "performed once", "notice")),
)


def seeds_found() -> dict[str, int]:
    """Return the seed of the world that catches each mutant, as last found."""
    return dict(json.loads(FOUND.read_text()))


if __name__ == "__main__":
    caught = {str(mutant): mutant.first_caught() for mutant in MUTANTS}
    FOUND.write_text(json.dumps({name: report.seed for name, report in caught.items() if report}, indent=1) + "\n")
    sys.exit(
        f"not caught: {[name for name, report in caught.items() if report is None]}" if None in caught.values() else 0
    )
