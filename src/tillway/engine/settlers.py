"""One settler for each type of record that has attempts: it books the outcome of an attempt on its subject.

A settler loads the records that the decision needs and calls the domain. `Attempts` runs it inside one commit.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, TypeVar

import msgspec

from tillway.domain import card_tries, payment_intent, payout, refund, setup_intent
from tillway.domain.account import is_live
from tillway.domain.attempt import Attempt
from tillway.domain.bank_account import failure
from tillway.domain.card_tries import CardTries
from tillway.domain.charge import Charge
from tillway.domain.customer import Customer
from tillway.domain.mail import announced
from tillway.domain.mandate import REVOKED_BY, Mandate, revoke
from tillway.domain.open_item import OpenItem, item_id, open_item
from tillway.domain.order import OrderTask, task_id, wake
from tillway.domain.outcome import Declined, NotSent, Outcome, Succeeded
from tillway.domain.payment_intent import PaymentIntent, Terms
from tillway.domain.payment_method import PaymentMethod, gone
from tillway.domain.payout import Payout
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record
from tillway.domain.refund import Refund
from tillway.domain.routing import ConnectorTerms
from tillway.domain.settled_operation import SettledOperation, settled_operation
from tillway.domain.setup_intent import SetupAttempt, SetupIntent
from tillway.engine import checkouts
from tillway.engine.accounts import Price
from tillway.engine.caller import Settings
from tillway.engine.core import Load
from tillway.engine.notices import Settled, kind_of
from tillway.engine.references import find_by_tail
from tillway.store.codec import TYPES

R = TypeVar("R", bound=Record)


class Settling(msgspec.Struct, frozen=True, kw_only=True):
    """One outcome to book. `attempt` is as in the store, or as it was begun if it has been deleted. `price` is
    the merchant's or its connector's."""

    load: Load
    attempt: Attempt
    outcome: Outcome
    at: Moment
    settings: Settings
    first_ask_seconds: float
    price: Price
    connectors: Mapping[str, ConnectorTerms] | None = None
    """The connectors to which a payment may go on; None: to none."""


class Settler(msgspec.Struct, frozen=True):
    """`settle` books an outcome. `take_back` books a decline that a provider sends after an acceptance; None if no
    provider does that."""

    settle: Callable[[Settling], Awaitable[Changes[Record | None]]]
    take_back: Callable[[Load, str, Declined, Moment, Settings], Awaitable[Changes[Record | None]]] | None = None


async def contradiction(
    load: Load,
    tail: str,
    about: Settled,
    outcome: Outcome,
    connector: str,
    at: Moment,
    *,
    returns: Literal["booked", "kept"] = "booked",
) -> Changes[Record | None] | None:
    """Open an item if a provider's late report contradicts a settled outcome, else None.

    `tail` is that of the reference. `about` was read before; it is read again, unless it was inferred. A decline of a
    refund or payout that had succeeded is no contradiction where such `returns` are booked, because providers return
    that money; a report that is not believed books nothing.
    """
    if not isinstance(outcome, Succeeded | Declined):
        return None
    theirs = "succeeded" if isinstance(outcome, Succeeded) else "declined"
    subject = (await find_by_tail(load, tail)).settled or about
    failed = subject.status in ("failed", "canceled")
    books = returns == "booked" and isinstance(subject, Refund | Payout)
    if not (failed and theirs == "succeeded") and not (not failed and theirs == "declined" and not books):
        return None
    if await load.maybe(OpenItem, item_id(tail, theirs)) is not None:
        return NO_CHANGES
    item = OpenItem(
        id=item_id(tail, theirs),
        created=at.created,
        kind="contradiction",
        connector=connector,
        reference=f"{load.scope_key}{tail}",
        ours=subject.status,
        theirs=theirs,
        subject=subject.subject if isinstance(subject, SettledOperation) else subject.id,
        operation=kind_of(subject),
        amount_minor=subject.amount_minor,
        currency=subject.currency,
    )
    return open_item(item)


def terms_of(connector: str, price: Price) -> Terms:
    """The terms by which an outcome is booked."""
    return Terms(connector=connector, fee=price.fee, settlement_days=price.settlement_days, descriptor=price.descriptor)


async def _settle_payment(given: Settling) -> Changes[Record | None]:
    load, attempt, outcome, at = given.load, given.attempt, given.outcome, given.at
    payment = load.held(PaymentIntent, attempt.subject) or await load.get(PaymentIntent, attempt.subject)
    charge_id = _charge_id(payment, attempt)
    charge = None if charge_id is None else await load.maybe(Charge, charge_id)
    method = load.held(PaymentMethod, attempt.method) or await load.maybe(PaymentMethod, attempt.method)
    if method is None and attempt.method is not None:
        method = gone(attempt.method, attempt.created)
    tries = await _tries_of(load, attempt, method) if is_live(load.scope_key) else None
    kind = type(outcome)  # Every payment comes here, and `isinstance` costs ten times as much where it is false.
    if method is not None and kind is Declined:
        method = card_tries.with_history(method, tries)
    changes = payment_intent.settle(
        payment,
        attempt,
        outcome,
        terms_of(attempt.connector, given.price),
        at,
        first_ask_seconds=given.first_ask_seconds,
        charge=charge,
        method=method,
        connectors=given.connectors,
    )
    if method is not None and type(outcome) is Succeeded and payment.attempt == attempt.id:
        customer = await load.maybe(Customer, payment.customer) if payment.future_usage else None
        refusal = changes.refusal
        changes = changes.then(payment_intent.keep_method(payment, method, customer, outcome))
        if refusal is not None:
            changes = msgspec.structs.replace(changes, refusal=refusal)
    if tries is not None or kind is Declined:
        changes = _count_try(given, method, tries, changes)
    if type(outcome) is Declined and failure(outcome).code in REVOKED_BY:
        over = changes.records and not _goes_on(changes)
        changes = (await revoke_mandate(load, charge)).then(changes) if over else changes
    if payment.order is not None and attempt.id in changes.deletes and not _goes_on(changes):
        waiting = await load.maybe(OrderTask, task_id(payment.order))
        woken = () if waiting is None else (wake(waiting, at),)
        changes = msgspec.structs.replace(changes, tasks=(*changes.tasks, *woken))
    if payment.checkout is not None:
        changes = await _follow_checkout(given, changes)
    # The payment forgets a further reference after some more, and then its charge would not be found by it.
    further = attempt.reference and attempt.reference not in payment.references[:1]
    if further or attempt.kind != "authorize" or attempt.withdrawn is not None or kind is NotSent:
        subject = charge.id if charge is not None else payment.id
        changes = _keep_outcome(given, changes, payment.attempt, subject=subject, further=bool(further))
    if attempt.shows == "refund":
        assert charge is not None, "a refund releases a charge"
        return await _with_release(load, charge, changes, over=attempt.id in changes.deletes)
    return payment_intent.as_charge(changes, charge) if attempt.shows == "charge" else changes


def _keep_outcome(
    given: Settling, changes: Changes[R], current: str | None, *, subject: str, further: bool = False
) -> Changes[R]:
    """The changes, with the outcome of an attempt that ends here without a record of its own, or with a charge that its
    payment will not find for ever (`further`). `current` is the attempt of its payment or setup: an attempt that is not
    this one has ended before."""
    attempt = given.attempt
    if current != attempt.id or attempt.id not in changes.deletes:
        return changes
    own = payment_intent.charge_id_of(attempt.id)
    if any(record.id == own for record in changes.records):
        if not further:
            return changes
        subject = own
    kept = settled_operation(attempt, given.outcome, given.at, subject=subject)
    return msgspec.structs.replace(changes, records=(*changes.records, kept))


async def _tries_of(load: Load, attempt: Attempt, method: PaymentMethod | None) -> CardTries | None:
    """The shared history of the card number that an authorization is about; None if there is none."""
    tried = attempt.kind in ("authorize", "verify")
    id = card_tries.tries_id(method, livemode=is_live(load.scope_key)) if tried else None
    return await load.maybe(CardTries, id)


def _count_try(
    given: Settling, method: PaymentMethod | None, tries: CardTries | None, changes: Changes[R]
) -> Changes[R]:
    """The changes, with the history of the card number: a decline adds to it, a success ends it."""
    if tries is not None and isinstance(given.outcome, Succeeded) and given.attempt.id in changes.deletes:
        return msgspec.structs.replace(changes, deletes=(*changes.deletes, tries.id))
    if type(given.outcome) is not Declined or method is None:
        return changes
    id = card_tries.tries_id(method, livemode=is_live(given.load.scope_key))
    if id is None:
        return changes
    declined = [record for record in changes.records if record.id == method.id]
    after = declined[-1] if declined else method
    if not isinstance(after, PaymentMethod) or after.declined_at == method.declined_at:
        return changes
    kept = card_tries.shared_history(after, tries, id=id, created=given.at.created)
    return msgspec.structs.replace(changes, records=(*changes.records, kept))


async def _with_release(
    load: Load, charge: Charge, changes: Changes[Record | None], *, over: bool
) -> Changes[Record | None]:
    """Add the end of the refund that stands for a void, if the void is `over`; the answer shows that refund."""
    owed = await load.get(Refund, charge.last_refund or "")
    if not over:
        return msgspec.structs.replace(changes, result=owed)
    settled = refund.settle_release(owed, status="failed" if changes.refusal is not None else "succeeded")
    return msgspec.structs.replace(changes.then(settled), refusal=changes.refusal)


async def _follow_checkout(given: Settling, changes: Changes[PaymentIntent]) -> Changes[PaymentIntent]:
    """The changes, with those of the payment's session of hosted checkout."""
    after = next((record for record in changes.records if isinstance(record, PaymentIntent)), None)
    if after is None or _goes_on(changes):
        return changes
    followed = await checkouts.follow(given.load, after, given.at, mails=given.settings.mails_customers)
    return msgspec.structs.replace(changes.then(followed), refusal=changes.refusal)


def _goes_on(changes: Changes[Record | None]) -> bool:
    """Whether another attempt follows: the payment is not settled yet."""
    for task in changes.tasks:  # noqa: SIM110 - every payment comes here, and a generator costs more.
        if isinstance(task, Attempt):
            return True
    return False


async def _settle_refund(given: Settling) -> Changes[Record | None]:
    owed = await given.load.get(Refund, given.attempt.subject)
    charge = await given.load.get(Charge, owed.charge)
    return refund.settle(
        owed, charge, given.attempt, given.outcome, given.at, first_ask_seconds=given.first_ask_seconds
    )


async def _settle_setup(given: Settling) -> Changes[Record | None]:
    load, attempt = given.load, given.attempt
    setup = await load.get(SetupIntent, attempt.subject)
    method = await load.maybe(PaymentMethod, attempt.method)
    tries = await _tries_of(load, attempt, method)
    if method is not None and isinstance(given.outcome, Declined):
        method = card_tries.with_history(method, tries)
    changes = setup_intent.settle(
        setup,
        attempt,
        given.outcome,
        given.at,
        method=method,
        customer=await load.maybe(Customer, setup.customer),
        tried=await load.get(SetupAttempt, setup.latest_attempt or ""),
        first_ask_seconds=given.first_ask_seconds,
    )
    changes = _keep_outcome(given, changes, setup.attempt, subject=setup.id)
    return _count_try(given, method, tries, changes)


async def _take_refund_back(
    load: Load, id: str, declined: Declined, at: Moment, settings: Settings
) -> Changes[Record | None]:
    owed = await load.get(Refund, id)
    return refund.fail(owed, await load.get(Charge, owed.charge), declined, at)


async def _settle_payout(given: Settling) -> Changes[Record | None]:
    sent_out = await given.load.get(Payout, given.attempt.subject)
    changes = payout.settle(sent_out, given.attempt, given.outcome, given.at, first_ask_seconds=given.first_ask_seconds)
    return _announce(changes, given.at, given.settings)


async def _take_payout_back(
    load: Load, id: str, declined: Declined, at: Moment, settings: Settings
) -> Changes[Record | None]:
    return _announce(payout.fail(await load.get(Payout, id), declined, at), at, settings)


def _announce(changes: Changes[Record | None], at: Moment, settings: Settings) -> Changes[Record | None]:
    """Add an e-mail to the customer of a disbursement, if the installation has a mail server."""
    return announced(changes, at) if settings.mails_customers else changes


SETTLERS: Final[dict[type[Record], Settler]] = {
    PaymentIntent: Settler(_settle_payment),
    Payout: Settler(_settle_payout, _take_payout_back),
    Refund: Settler(_settle_refund, _take_refund_back),
    SetupIntent: Settler(_settle_setup),
}
"""The settler of each type of record that an attempt can be about."""


def settler_of(subject: str) -> Settler:
    """The settler for the record with the id `subject`."""
    return SETTLERS[TYPES[subject.partition("_")[0]]]


async def charge_of(load: Load, payment: PaymentIntent, attempt: Attempt) -> Charge | None:
    """Load the charge of an attempt: its own, which a direct charge and a debit have from the start, or the authorized
    one."""
    return await load.maybe(Charge, _charge_id(payment, attempt))


def _charge_id(payment: PaymentIntent, attempt: Attempt) -> str | None:
    if attempt.kind != "authorize":
        return payment.latest_charge
    if attempt.shows != "charge" and payment.latest_charge is None:
        return None
    own = f"ch_{attempt.suffix}"
    return own if attempt.shows == "charge" or payment.latest_charge == own else None


async def revoke_mandate(load: Load, charge: Charge | None) -> Changes[Record | None]:
    """End the mandate behind a debit; no changes if the charge has none."""
    if charge is None or charge.mandate is None:
        return NO_CHANGES
    return revoke(await load.get(Mandate, charge.mandate))
