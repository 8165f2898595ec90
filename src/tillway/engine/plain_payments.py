"""The straight way of a plain payment: created and confirmed in one request with a public test card, and taken.

It is the general way (`Engine.run`, `Attempts.carry`) made short, with the same decisions of the domain: where these
are those of a plain payment, it is known which rows they make, and nothing has to be looked for. A payment that turns
out not to be plain goes the general way from where it stands: from the start while nothing is written, and afterwards
from its attempt, with the provider's outcome. Both ways write the same bytes: the worlds and the tests in process
compare them commit by commit.
"""

import time
from collections.abc import Awaitable, Callable

import msgspec

from tillway.connectors.port import Succeeded
from tillway.domain import payment_intent
from tillway.domain.attempt import Attempt
from tillway.domain.audit import Change, digest_of
from tillway.domain.balance import AvailabilityTask
from tillway.domain.charge import Charge
from tillway.domain.commands import CreatePayment
from tillway.domain.event import JournalEvent
from tillway.domain.idempotency import IdempotencyRecord
from tillway.domain.ledger import Entry
from tillway.domain.payment_intent import Means, PaymentIntent, Terms, charge_id_of
from tillway.domain.payment_method import PaymentMethod, new_method
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import STORE_CODES, Refused
from tillway.engine.accounts import Price
from tillway.engine.attempts import TERMS_MAX, Attempts, Connection, note_attempt
from tillway.engine.availability import foresee, unforeseen
from tillway.engine.caller import Caller
from tillway.engine.core import FAULTS, Done, Seen
from tillway.engine.events import Born
from tillway.engine.settlers import terms_of
from tillway.sandbox.cards import by_alias
from tillway.store.codec import QUEUES, by_reference, row_of
from tillway.store.port import ABSENT, Write

Generally = Callable[[], Awaitable[Done[Record | None]]]
"""Does the whole request in the general way."""


class PlainPayments:
    def __init__(self, attempts: Attempts) -> None:
        self.attempts = attempts
        self.engine = attempts.engine
        self._terms: dict[str, tuple[Price, str, Terms]] = {}
        """The last terms of each scope's settlements, with the price and the connector behind them."""

    def take(self, caller: Caller, command: CreatePayment, generally: Generally) -> Awaitable[Done[Record | None]]:
        """Take a payment that `command` creates and confirms."""
        return self._take(caller, command, generally) if self._may_be_plain(caller, command) else generally()

    def _may_be_plain(self, caller: Caller, command: CreatePayment) -> bool:
        """Whether no record is looked up for the request, and nothing is asked beside the payment."""
        confirm = command.confirm
        return (
            confirm is not None
            and command.method is not None
            and by_alias(command.method) is not None
            and command.method_data is None
            and command.customer is None
            and confirm.token is None
            and confirm.mandate is None
            and caller.kind == "secret"
            and caller.idempotency is not None
            and caller.scope.mode == "test"
            and not (caller.replaces or caller.attempts_begun or caller.named or caller.expects)
            and not (caller.expand or caller.presenter or caller.older_shapes or caller.reason)
            and caller.signed_in is None
            and self._is_quiet()
        )

    def _is_quiet(self) -> bool:
        """Whether nothing is the matter with the installation that a payment would have to mind."""
        engine = self.engine
        return (
            engine.clock.monotonic_ns() < engine.time.fresh_until_ns
            and not (engine.time.trouble or engine.telemetry.tracing)
            and engine.restores.quiet
        )

    async def _take(self, caller: Caller, command: CreatePayment, generally: Generally) -> Done[Record | None]:
        engine, attempts, scope_key = self.engine, self.attempts, caller.scope_key
        terms = attempts.known_terms(caller.scope)
        if terms is None:
            terms = await attempts.terms(caller.scope)
            if not self._is_quiet():
                return await generally()
        if terms.routes is not None:
            return await generally()
        began_ns = engine.clock.monotonic_ns()
        at = engine.clock.moment(caller.first_reference())
        card = attempts.vault.of_alias(scope_key, command.method or "", at)
        assert card is not None, "the card of a test alias is known"
        assert caller.idempotency is not None, "a plain payment has a key"
        method = new_method(card, {}, at)
        # The decision writes the method as it is used, so no other change has to make it.
        begun = payment_intent.create(command, Means(method=method), at, terms=terms, idem=caller.idempotency[0])
        plain = _plain_beginning(begun)
        if plain is None:
            engine.clock.give_back(at)
            return await generally()
        payment, method = begun.result, plain[0]
        attempt = msgspec.structs.replace(plain[1], due_at_ms=at.now_ms + engine.settings.lease_ms)
        key = self._key_of(caller, payment, attempt, at)
        if engine.known_endpoints(scope_key) is None:
            await engine.endpoints(scope_key)
            if not self._is_quiet() or engine.is_late(began_ns):
                return await generally()
        writes, queues, born = self._first_writes(caller, begun, attempt, key, at)
        committed, tried = False, time.perf_counter()
        try:
            # `Engine.commit` without a coroutine, where nothing goes wrong.
            await engine.store.commit(writes)
            committed = True
            engine.telemetry.commit("done", time.perf_counter() - tried)
        except FAULTS as fault:
            committed = await engine.commit(caller, writes, None, began_ns, 1, fault=fault)
        finally:
            engine.end_commit(scope_key, queues, born, committed)
        if not committed:
            return await generally()
        caller.attempts_begun += 1
        waits_since_ns = engine.clock.monotonic_ns()
        place = scope_key, attempt.id
        attempts.held[place] = attempt.due_at_ms
        try:
            known = attempts.connections.known(attempt.connector, caller.scope)
            connection = known or await attempts.connections.named(attempt.connector, caller.scope)
            price = engine.known_price(caller.scope, connection.fee) if connection is not None else None
            outcome = None
            # Otherwise `send` reads the price, and asks about what may have been sent before a restore.
            if connection is not None and price is not None and engine.restores.quiet:
                outcome = attempts.at_once(connection, caller.scope, attempt, payment, method, price)
            if outcome is None:
                price = None
                outcome = await attempts.send(connection, caller.scope, attempt, _seen(payment, method, attempt, key))
            if connection is not None and type(outcome) is Succeeded:
                done = await self._settle(caller, payment, method, attempt, outcome, connection, price)
                if done is not None:
                    return done
        finally:
            attempts.held.pop(place, None)
        seen = _seen(payment, method, attempt, key)
        return await attempts.finish(caller, attempt, seen, first=(connection, outcome), began_ns=waits_since_ns)

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
        """Book a success as `Attempts.settle` does; None if it is not plain, and nothing was written. `price` is the
        one of this moment, if it is known."""
        engine, attempts = self.engine, self.attempts
        if price is None:
            known = engine.known_price(caller.scope, connection.fee)
            price = known or await engine.price(caller.scope, connection.fee)
        if outcome.notices or not self._is_quiet():
            return None
        began_ns = engine.clock.monotonic_ns()
        at = engine.clock.moment()
        changes = payment_intent.settle(
            payment, attempt, outcome, self._terms_of(caller.scope_key, attempt.connector, price), at, method=method
        )
        if not _is_plain_end(payment, method, attempt, changes):
            engine.clock.give_back(at)
            return None
        shown = engine.render.at_once(caller, changes.result, None)
        assert shown is not None, "the payment of a plain request is shown at once"
        entry = unforeseen(attempts.foreseen, caller.scope_key, changes, at)
        if entry is not None or engine.known_endpoints(caller.scope_key) is None:
            if entry is not None:
                load = engine.load(caller.scope_key)
                foreseen = await foresee(attempts.foreseen, load, changes, entry, at)
                changes = msgspec.structs.replace(changes, tasks=foreseen.tasks)
            await engine.endpoints(caller.scope_key)
            if not self._is_quiet() or engine.is_late(began_ns):
                return None
        writes, queues, born = self._last_writes(caller, payment, attempt, changes, at)
        committed, tried = False, time.perf_counter()
        try:
            await engine.store.commit(writes)
            committed = True
            engine.telemetry.commit("done", time.perf_counter() - tried)
        except FAULTS as fault:
            try:
                committed = await engine.commit(caller, writes, attempt.idem, began_ns, fault=fault)
            except Refused as refused:
                if refused.code in STORE_CODES:
                    attempts.begin_to_settle_later(caller, attempt, outcome, connection)
                raise
        finally:
            engine.end_commit(caller.scope_key, queues, born, committed)
        if not committed:
            return await attempts.finish(caller, attempt, None, first=(connection, outcome))
        if engine.telemetry.telling:
            note_attempt(attempt)
        engine.telemetry.settled(attempt.connector, attempt.kind, payment.source_api, "succeeded", caller.scope_key)
        return Done(changes.result, None, shown[0], shown[1], (), {})

    def _terms_of(self, scope_key: str, connector: str, price: Price) -> Terms:
        known = self._terms.get(scope_key)
        if known is not None and known[0] is price and known[1] == connector:
            return known[2]
        if len(self._terms) >= TERMS_MAX:
            self._terms.clear()
        terms = terms_of(connector, price)
        self._terms[scope_key] = price, connector, terms
        return terms

    def _key_of(self, caller: Caller, payment: PaymentIntent, attempt: Attempt, at: Moment) -> IdempotencyRecord:
        """The record of the request's key, with the attempt from which its answer will follow."""
        assert caller.idempotency is not None, "a plain payment has a key"
        return IdempotencyRecord(
            id=caller.idempotency[0],
            created=at.created,
            fingerprint=caller.idempotency[1],
            expires_at=at.created + self.engine.settings.answer_seconds,
            request=caller.request_id or "",
            api_version=caller.api_version,
            in_minor_units=caller.in_minor_units,
            subject=payment.id,
            begun=attempt.id,
        )

    def _first_writes(
        self,
        caller: Caller,
        begun: Changes[PaymentIntent],
        attempt: Attempt,
        key: IdempotencyRecord,
        at: Moment,
    ) -> tuple[list[Write], set[str], Born | None]:
        """The writes of the first commit, the queues of its due tasks, and the deliveries that begin with it."""
        scope, event, (payment, method) = caller.scope_key, begun.events[0], begun.records
        drafted = event.record
        assert isinstance(drafted, PaymentIntent)
        paid, paid_plain = row_of(scope, payment, ABSENT)
        used, used_plain = row_of(scope, method, ABSENT)
        paid = msgspec.structs.replace(paid, first_in=by_reference(scope, attempt.reference))
        writes = [row_of(scope, key, ABSENT)[0], paid, used, row_of(scope, attempt, ABSENT)[0]]
        told = (
            Change(id=payment.id, version=1, new=msgspec.Raw(paid_plain)),
            Change(id=method.id, version=1, new=msgspec.Raw(used_plain)),
        )
        kept = [JournalEvent(type=event.type, differs={"status": drafted.status})]
        queues: set[str] = set()
        born = self.engine.add_entry(caller, told, begun, kept, writes, queues, at)
        return writes, queues, born

    def _last_writes(
        self,
        caller: Caller,
        before: PaymentIntent,
        attempt: Attempt,
        changes: Changes[PaymentIntent],
        at: Moment,
    ) -> tuple[list[Write], set[str], Born | None]:
        """The same of the second commit."""
        scope, after, (_, charge, entry) = caller.scope_key, changes.result, changes.records
        paid, paid_plain = row_of(scope, after, 1)
        charged, charged_plain = row_of(scope, charge, ABSENT)
        booked, _ = row_of(scope, entry, ABSENT)
        writes = [paid, charged, booked]
        changed = {
            "status": (before.status, after.status),
            "attempt": (before.attempt, None),
            "latest_charge": (None, after.latest_charge),
            "received_minor": (before.received_minor, after.received_minor),
        }
        told = (
            Change(id=after.id, version=2, changed=changed),
            Change(id=charge.id, version=1, new=msgspec.Raw(charged_plain)),
            Change(id=entry.id, version=1, digest=digest_of(booked.body or b"")),
        )
        succeeded, paid_event = changes.events
        kept = [
            JournalEvent(type=succeeded.type, change=1),
            JournalEvent(type=paid_event.type, object=msgspec.Raw(paid_plain)),
        ]
        queues: set[str] = set()
        for task in changes.tasks:
            assert isinstance(task, AvailabilityTask), "a plain end has no other task"
            writes.append(row_of(scope, task, ABSENT)[0])
            if task.due_at_ms <= at.now_ms:
                queues.add(QUEUES[AvailabilityTask])
        born = self.engine.add_entry(caller, told, changes, kept, writes, queues, at)
        writes.append(Write(f"{scope}/{attempt.id}", 1, None))
        return writes, queues, born


def _seen(*records: Record) -> Seen:
    """The records of a first commit, as they are known after it."""
    return {record.id: (1, record) for record in records}


def _plain_beginning(begun: Changes[PaymentIntent]) -> tuple[PaymentMethod, Attempt] | None:
    """The method and the attempt of a decision that begins to take a new payment with a new card, and does nothing
    else; None of any other decision."""
    if len(begun.tasks) != 1 or len(begun.records) != 2 or len(begun.events) != 1:
        return None
    if begun.refusal is not None or begun.deletes or begun.code is not None or begun.detail:
        return None
    payment, attempt, event = begun.result, begun.tasks[0], begun.events[0]
    written, used = begun.records
    if type(attempt) is not Attempt or type(used) is not PaymentMethod or type(event.record) is not PaymentIntent:
        return None
    begins = msgspec.structs.replace(
        event.record, status="processing", attempt=attempt.id, references=(attempt.reference,)
    )
    is_plain = (
        attempt.kind == "authorize"
        and attempt.state == "new"
        and attempt.shows == "subject"
        and attempt.due_at_ms == 0
        and bool(attempt.reference)
        and payment.id.startswith("pi_")
        and written is payment
        and event.previous is None
        and payment == begins
        and payment.status != event.record.status
        and not (payment.secret or payment.challenge)
    )
    return (used, attempt) if is_plain else None


def _is_plain_end(
    before: PaymentIntent, method: PaymentMethod, attempt: Attempt, changes: Changes[PaymentIntent]
) -> bool:
    """Whether a decision books the money of a payment that an attempt took at once, and does nothing else."""
    if len(changes.records) != 3 or len(changes.events) != 2 or changes.deletes != (attempt.id,):
        return False
    if changes.refusal is not None or changes.tasks or changes.code is not None or changes.detail:
        return False
    # A success has more to follow where one of these is set.
    if before.customer is not None or before.order is not None or before.checkout is not None:
        return False
    (after, charge, entry), (succeeded, paid) = changes.records, changes.events
    if type(charge) is not Charge or type(entry) is not Entry or after is not changes.result:
        return False
    ends = msgspec.structs.replace(
        before, status="succeeded", attempt=None, latest_charge=charge.id, received_minor=changes.result.received_minor
    )
    return (
        method.customer is None
        and before.latest_charge is None
        and before.received_minor != changes.result.received_minor
        and charge.id == charge_id_of(attempt.id)
        and charge.entry == entry.id
        and succeeded.record is charge
        and paid.record is after
        and succeeded.previous is None
        and paid.previous is None
        and after == ends
    )
