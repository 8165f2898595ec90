"""Operations on test clocks: make one, advance it with what is due, delete it with its customers."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from tillway.domain import test_clock as domain
from tillway.domain.account import scope_of
from tillway.domain.charge import Charge
from tillway.domain.checkout import CheckoutSession, expiry_id
from tillway.domain.customer import Customer
from tillway.domain.dispute import Dispute
from tillway.domain.ledger import Entry
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_intent import expiry_id as hold_id
from tillway.domain.payment_method import PaymentMethod, last_month_of
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.domain.test_clock import Release, TestClock, TestClockTask, release_id
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations import checkout, customers, disputes, payment_intents
from tillway.store.codec import by_customer, by_parent, decode
from tillway.store.port import Row
from tillway.store.walk import rows_of


async def create(platform: Platform, caller: Caller, frozen_time: int, name: str | None) -> Done[TestClock]:
    async def work(load: Load, at: Moment) -> Changes[TestClock]:
        return domain.create(frozen_time, name, at)

    return await platform.engine.run(caller, work)


async def advance(platform: Platform, caller: Caller, id: str, target: int) -> Done[TestClock]:
    """Begin an advance; it has ended when the clock is `ready`."""

    async def work(load: Load, at: Moment) -> Changes[TestClock]:
        return domain.advance(await _clock(load, id), target, at)

    return await platform.engine.run(caller, work)


async def delete(platform: Platform, caller: Caller, id: str) -> None:
    """Delete a clock with its customers. Refused as the deletion of a customer may be, and while it advances. At the
    end of its life a customer with credit stays."""
    clock = await _clock(platform.engine.load(caller.scope_key), id)
    domain.check_ready(clock, "id")
    # Without the request's key: this is several commits, and may be sent again.
    once = msgspec.structs.replace(caller, idempotency=None)
    for customer in clock.customers:
        found = await platform.engine.load(caller.scope_key).maybe(Customer, customer)
        if found is None or found.deleted:
            continue
        try:
            await customers.delete(platform, once, customer)
        except Refused:
            if caller.kind != "system":
                raise

    async def work(load: Load, at: Moment) -> Changes[None]:
        return domain.delete(await _clock(load, id))

    await platform.engine.run(once, work)


async def carry(platform: Platform, row: Row) -> None:
    """Carry out a clock's task: run all that is due by its new time, the earliest first, or delete the clock."""
    scope_key, _, id = row.key.partition("/")
    task = decode(id, row.body)
    assert isinstance(task, TestClockTask), f"{row.key} is not the task of a test clock"
    caller = Caller.system(scope_of(scope_key), f"test clock {task.kind}")
    if task.kind == "delete":
        await delete(platform, caller, task.clock)
        return
    clock = await platform.engine.load(scope_key).maybe(TestClock, task.clock)
    if clock is None or clock.target is None:
        return  # Another worker has ended the advance.
    target = clock.target
    due = [(clock.due(record, deadline), record) async for record, deadline in _deadlines(platform, scope_key, clock)]
    released = await _has_released(platform, scope_key, clock, target)
    for time, record in sorted(due, key=lambda each: each[0]):
        if time <= target:
            await _end(platform, caller, record, target)
            released = released or isinstance(record, Entry)
    async for card in _expiring(platform, scope_key, clock, target):
        await customers.tell_expiring(platform.engine, caller, card)

    async def work(load: Load, at: Moment) -> Changes[TestClock]:
        return domain.arrive(await load.get(TestClock, task.clock), task, target, at, released=released)

    await platform.engine.run(caller, work)


async def _clock(load: Load, id: str) -> TestClock:
    return await load.get(TestClock, id, "test_clock")


async def _deadlines(platform: Platform, scope_key: str, clock: TestClock) -> AsyncIterator[tuple[Record, int]]:
    """The records of the clock's customers that end at a deadline, each with it (epoch seconds)."""
    store, load, now = platform.store, platform.engine.load(scope_key), platform.engine.clock.now_ms() // 1000
    for customer in clock.customers:
        async for row in rows_of(store, by_customer(scope_key, "pi", customer), index="customer"):
            payment = decode(row.key.partition("/")[2], row.body)
            if not isinstance(payment, PaymentIntent):
                continue
            charge = await load.maybe(Charge, payment.latest_charge)
            if charge is None:
                continue
            for id in _entries_of(charge):
                entry = await load.maybe(Entry, id)
                if entry is None or entry.available_on <= now:
                    continue
                if await load.maybe(Release, release_id(entry.id)) is None:
                    yield entry, entry.available_on
            if payment.status == "requires_capture" and charge.capture_before is not None:
                yield charge, charge.capture_before
            async for each in rows_of(store, by_parent(scope_key, "du", charge.id), index="parent"):
                dispute = decode(each.key.partition("/")[2], each.body)
                if isinstance(dispute, Dispute) and dispute.waits:
                    yield dispute, dispute.due_by
        async for row in rows_of(store, by_customer(scope_key, "cs", customer), index="customer"):
            session = decode(row.key.partition("/")[2], row.body)
            if isinstance(session, CheckoutSession) and session.status == "open":
                yield session, session.expires_at


async def _has_released(platform: Platform, scope_key: str, clock: TestClock, target: int) -> bool:
    """Whether a worker that died has released money in the advance to `target`, and told nobody."""
    store, load = platform.store, platform.engine.load(scope_key)
    for customer in clock.customers:
        async for row in rows_of(store, by_customer(scope_key, "pi", customer), index="customer"):
            payment = decode(row.key.partition("/")[2], row.body)
            charge = await load.maybe(Charge, payment.latest_charge) if isinstance(payment, PaymentIntent) else None
            for id in _entries_of(charge):
                release = await load.maybe(Release, release_id(id))
                if release is not None and release.target == target:
                    return True
    return False


def _entries_of(charge: Charge | None) -> list[str]:
    """The ledger entries of a charge's captures."""
    if charge is None:
        return []
    return [part.entry for part in charge.captures] or ([charge.entry] if charge.entry is not None else [])


async def _expiring(platform: Platform, scope_key: str, clock: TestClock, target: int) -> AsyncIterator[PaymentMethod]:
    """The cards of the older API whose last month begins in the time of the clock until `target`."""
    for customer in clock.customers:
        async for row in rows_of(platform.store, by_customer(scope_key, "pm", customer), index="customer"):
            method = decode(row.key.partition("/")[2], row.body)
            if not isinstance(method, PaymentMethod) or not method.is_source or method.card is None:
                continue
            if clock.frozen_time < last_month_of(method.card) <= target:
                yield method


async def _end(platform: Platform, caller: Caller, record: Record, target: int) -> None:
    """End a hold, a session or a dispute as its own task would, unless it has ended since."""
    match record:
        case Entry():

            async def release(load: Load, at: Moment) -> Changes[None]:
                # A worker before this one may have done it.
                if await load.maybe(Release, release_id(record.id)) is not None:
                    return NO_CHANGES
                return domain.release(record, target, at)

            await platform.engine.run(caller, release)
        case Dispute():
            await disputes.end_at_deadline(platform.engine, caller, record)
            return
        case Charge():
            row = await platform.store.get(f"{caller.scope_key}/{hold_id(record)}")
            if row is not None:
                await payment_intents.release_expired(platform.attempts, row)
        case CheckoutSession():
            row = await platform.store.get(f"{caller.scope_key}/{expiry_id(record)}")
            if row is not None:
                await checkout.carry_expiry(platform.engine, row)
        case _:
            raise AssertionError(f"{record.id} has no deadline")
