"""Payouts: money out, to the merchant's own account or to a customer. Never more than is available, even with
concurrent requests.

| step | postings (`balance`) | postings (`provider`) |
|---|---|---|
| created | `merchant` → `payouts` | `disbursements` → `payouts` |
| paid | `payouts` → `receivable:<connector>`, or `bank` | `payouts` → `provider:<connector>` |
| failed before | `payouts` → `merchant` | `payouts` → `disbursements` |
| returned after it was paid | the same account → `merchant` | `provider:<connector>` → `disbursements` |

`balance` takes the merchant's available balance. `provider` takes the merchant's own money at the provider, so it needs
no balance and changes none. A payout in a file (`nacha`, `pain001`) is an order to the merchant's own bank and takes
the money from `bank`.
"""

from typing import Literal, NoReturn, assert_never

import msgspec

from tillway.domain.attempt import BANK_DAYS_SECONDS, AskLater, Attempt, GiveUp, Retry, next_step
from tillway.domain.commands import CreatePayout, UpdatePayout
from tillway.domain.ledger import SECONDS_PER_DAY, Entry, EntryType, balance_entry, transfer_entry
from tillway.domain.money import spell
from tillway.domain.outcome import ActionRequired, Declined, NotSent, Outcome, Pending, Succeeded, Unknown
from tillway.domain.record import Changes, EventDraft, Moment, Record, Value, changed, merged_metadata
from tillway.domain.refusal import Refused
from tillway.domain.source_api import SourceApi

Funding = Literal["balance", "provider"]
RecipientType = Literal["bank_account", "card", "email"]
Status = Literal["pending", "in_transit", "paid", "failed", "canceled"]

FAILURES: dict[str, str] = {
    "account_closed": "The bank account has been closed.",
    "account_frozen": "The bank account has been frozen.",
    "bank_account_restricted": "The bank account has restrictions on the kind or number of payouts it takes.",
    "bank_ownership_changed": "The bank account has changed its owner.",
    "could_not_process": "The provider could not process this payout.",
    "debit_not_authorized": "The bank account does not allow this transaction.",
    "declined": "The recipient's bank declined this payout. The recipient should ask the bank why.",
    "incorrect_account_holder_name": "The account holder's name is not the one that the bank has on file.",
    "insufficient_funds": "The account that pays at the provider does not hold enough money for this payout.",
    "invalid_account_number": "The account number is not one of that bank.",
    "invalid_currency": "The bank account does not take this currency.",
    "no_account": "There is no account with these details at that bank.",
    "unsupported_card": "The card does not take payouts.",
}
"""Why a payout failed, in the words of https://docs.stripe.com/api/payouts/failures as far as a provider uses them."""


class Recipient(Value, frozen=True, kw_only=True):
    """The recipient, as far as it may be stored outside the vault: an `email`, or the sealed copy in `vault`, which
    belongs to this payout and is deleted when it settles. A bank account has the types of its holder and of itself, if
    the merchant told them."""

    type: RecipientType
    email: str | None = None
    vault: str | None = None
    name: str | None = None
    holder_type: str | None = None
    account_type: str | None = None


class Payout(Record, frozen=True, kw_only=True):
    """Its attempt at the provider has the id's own suffix, and `reference` where a key gave it one.

    `destination` is the external account it goes to, if saved. `drawn_on` tells where a payout of the `balance` takes
    the money.

    `entry` and `failure_entry` are its entries in the merchant's balance; a payout funded at the provider has neither.
    """

    amount_minor: int
    currency: str
    recipient: Recipient
    funding: Funding = "balance"
    drawn_on: Literal["provider", "bank"] = "provider"
    status: Status = "pending"
    destination: str | None = None
    customer: str | None = None
    method: Literal["standard", "instant"] = "standard"
    arrival_date: int = 0
    description: str | None = None
    statement_descriptor: str | None = None
    metadata: dict[str, str] = {}
    entry: str | None = None
    failure_entry: str | None = None
    failure_code: str | None = None
    failure_message: str | None = None
    returned: bool = False
    """Whether it had been paid before it failed."""
    attempt: str | None = None
    connector: str = ""
    bank_id: str | None = None
    reference: str = ""
    payment_id: str | None = None
    """The id of a disbursement in its own contract: the instant of its request."""
    source_api: SourceApi = SourceApi.v1


class PayoutGuard(Record, frozen=True, kw_only=True):
    """Changes with every withdrawal from a merchant's balance in one currency, so that two that would overdraw it
    conflict; and with every change of the external accounts.

    `latest` is the latest time of any payout, in epoch seconds: a worker with a slow clock then counts the withdrawals
    of one with a fast clock.
    """

    latest: int = 0
    last: str | None = None


def guard_id(currency: str) -> str:
    return f"pog_{currency}"


def move_guard(guard: PayoutGuard | None, currency: str, at: Moment, last: str | None = None) -> PayoutGuard:
    """The guard of that currency, with a new version."""
    before = guard or PayoutGuard(id=guard_id(currency), created=at.created)
    return msgspec.structs.replace(before, latest=max(before.latest, at.now), last=last or before.last)


def arrival_date(now: int, method: str) -> int:
    """The expected arrival: at once, or on the next weekday, at midnight (UTC)."""
    if method == "instant":
        return now
    day = now // SECONDS_PER_DAY + 1
    # The first of January 1970 was a Thursday: 5 and 6 are Saturday and Sunday.
    while (day + 3) % 7 > 4:
        day += 1
    return day * SECONDS_PER_DAY


def create(
    command: CreatePayout,
    at: Moment,
    *,
    recipient: Recipient,
    destination: str | None,
    connector: str,
    available_minor: int,
    reachable_minor: int,
    drawn_on: Literal["provider", "bank"] = "provider",
    guard: PayoutGuard | None,
    delay_ms: int,
) -> Changes[Payout]:
    """Take the money off the balance, and write the attempt that sends it in `delay_ms`.

    `destination` is the external account of `recipient`, if there is one. `available_minor` is the balance, read after
    `guard` was, and `reachable_minor` the part of its money that the connector can pay out. None of them counts if the
    money is the merchant's own at the provider.
    """
    funding, amount_minor, currency = command.funding, command.amount_minor, command.currency
    if funding == "balance":
        _check_funds(amount_minor, currency, connector, available_minor, reachable_minor)
    # From here the payout must be tried.
    suffix = at.new_suffix()
    id = f"po_{suffix}"
    payout = Payout(
        id=id,
        created=at.created,
        amount_minor=amount_minor,
        currency=currency,
        recipient=recipient,
        funding=funding,
        drawn_on=drawn_on,
        destination=destination,
        customer=command.customer,
        method=command.method,
        arrival_date=arrival_date(at.now, command.method),
        description=command.description,
        statement_descriptor=command.statement_descriptor,
        metadata=merged_metadata({}, command.metadata),
        attempt=f"att_{suffix}",
        reference=at.new_reference(),
        connector=connector,
        payment_id=command.payment_id,
        source_api=command.source_api,
    )
    taken = _movement_entry(payout, "payout", -amount_minor, "payouts", at)
    if funding == "balance":
        payout = msgspec.structs.replace(payout, entry=taken.id)
    attempt = Attempt(
        id=f"att_{suffix}",
        created=at.created,
        kind="payout",
        subject=id,
        amount_minor=amount_minor,
        currency=currency,
        connector=connector,
        state="scheduled",
        due_at_ms=at.now_ms + delay_ms,
        patience_seconds=BANK_DAYS_SECONDS,
        reference=payout.reference,
    )
    return Changes(
        result=payout,
        records=(payout, taken, *((move_guard(guard, currency, at, id),) if funding == "balance" else ())),
        tasks=(attempt,),
        events=(EventDraft(type="payout.created", record=payout),),
    )


def _check_funds(amount_minor: int, currency: str, connector: str, available_minor: int, reachable_minor: int) -> None:
    """Refused `balance_insufficient` unless the balance has the amount, and its connector can pay that out."""
    if amount_minor > available_minor:
        raise Refused(
            "balance_insufficient",
            f"You have insufficient available funds for this payout: {spell(max(available_minor, 0), currency)} of "
            f"{spell(amount_minor, currency)}. GET /v1/balance shows what is available and what is still pending.",
            param="amount",
        )
    if amount_minor > reachable_minor:
        raise Refused(
            "balance_insufficient",
            f"The connector {connector!r} can pay out {spell(max(reachable_minor, 0), currency)} of these "
            f"{spell(amount_minor, currency)}: the money that it has collected, and that in your bank. The rest of "
            "your balance is at other providers; GET /ops/v1/balances shows where. When one of them has paid it to "
            "your bank, book that with `tillway settlements read` of its report, or with `settlements book`.",
            param="amount",
        )


def settle(
    payout: Payout, attempt: Attempt, outcome: Outcome, at: Moment, *, first_ask_seconds: float = 5.0
) -> Changes[Payout]:
    """Book the provider's outcome; a second time it changes nothing."""
    if payout.attempt != attempt.id:
        return Changes(result=payout, deletes=(attempt.id,))
    match outcome:
        case Succeeded():
            return _pay(payout, attempt, outcome, at)
        case Declined():
            return fail(payout, outcome, at)
        case NotSent() | Pending() | Unknown():
            match next_step(attempt, outcome, at, first_ask_seconds=first_ask_seconds):
                case GiveUp(declined=declined):
                    return fail(payout, declined, at)
                case Retry(attempt=again) | AskLater(attempt=again):
                    return _waiting(payout, again, outcome)
        case ActionRequired():
            raise AssertionError("a payout cannot need an action of the customer")
        case _:
            assert_never(outcome)


def _waiting(payout: Payout, attempt: Attempt, outcome: NotSent | Pending | Unknown) -> Changes[Payout]:
    """`attempt` continues. A payout that the provider has accepted is in transit from then on."""
    if not isinstance(outcome, Pending) or payout.status != "pending":
        return Changes(result=payout, tasks=(attempt,))
    after = msgspec.structs.replace(payout, status="in_transit", bank_id=outcome.bank_id or payout.bank_id)
    return Changes(result=after, records=(after,), tasks=(attempt,), events=_update_events(payout, after))


def _pay(payout: Payout, attempt: Attempt, outcome: Succeeded, at: Moment) -> Changes[Payout]:
    after = msgspec.structs.replace(
        payout,
        status="paid",
        attempt=None,
        bank_id=outcome.bank_id or payout.bank_id,
        recipient=msgspec.structs.replace(payout.recipient, vault=None),
    )
    handed_over = transfer_entry(
        source=payout.id,
        debit="payouts",
        credit=_source(payout),
        amount_minor=payout.amount_minor,
        currency=payout.currency,
        at=at,
    )
    return Changes(
        result=after,
        records=(after, handed_over),
        deletes=(attempt.id, *_sealed_ids(payout)),
        events=_update_events(payout, after, "payout.paid"),
    )


def fail(payout: Payout, outcome: Declined, at: Moment) -> Changes[Payout]:
    """Return the money to its origin, also for a payout that was returned after it had been paid."""
    if payout.status in ("failed", "canceled"):
        return Changes(result=payout)
    code = outcome.decline_code if outcome.decline_code in FAILURES else "could_not_process"
    assert code is not None
    returned = _movement_entry(
        payout, "payout_failure", payout.amount_minor, _source(payout) if payout.status == "paid" else "payouts", at
    )
    after = msgspec.structs.replace(
        payout,
        status="failed",
        attempt=None,
        failure_code=code,
        failure_message=FAILURES[code],
        returned=payout.status == "paid",
        failure_entry=returned.id if payout.funding == "balance" else None,
        recipient=msgspec.structs.replace(payout.recipient, vault=None),
    )
    return Changes(
        result=after,
        records=(after, returned),
        deletes=(*((payout.attempt,) if payout.attempt is not None else ()), *_sealed_ids(payout)),
        events=_update_events(payout, after, "payout.failed"),
    )


def cancel(payout: Payout, attempt: Attempt | None, at: Moment) -> Changes[Payout]:
    """Cancel a payout that has not been sent yet. The same commit deletes the attempt, so that no process can send it
    afterwards."""
    if payout.status != "pending" or attempt is None or attempt.state != "scheduled":
        raise Refused(
            "payout_unexpected_state",
            f"Payout {payout.id} cannot be canceled because it is already on its way to the provider."
            if payout.status == "pending"
            else f"Payout {payout.id} cannot be canceled because it has a status of {payout.status}.",
        )
    returned = _movement_entry(payout, "payout_cancel", payout.amount_minor, "payouts", at)
    after = msgspec.structs.replace(
        payout,
        status="canceled",
        attempt=None,
        failure_entry=returned.id if payout.funding == "balance" else None,
        recipient=msgspec.structs.replace(payout.recipient, vault=None),
    )
    return Changes(
        result=after,
        records=(after, returned),
        deletes=(attempt.id, *_sealed_ids(payout)),
        events=_update_events(payout, after, "payout.canceled"),
    )


def reverse(payout: Payout) -> NoReturn:
    """Raise `Refused`: a provider cannot take back sent money."""
    if payout.status == "pending":
        raise Refused("payout_unexpected_state", f"Payout {payout.id} is pending. Cancel it instead of reversing it.")
    raise Refused(
        "connector_unsupported",
        f"Payout {payout.id} cannot be reversed: no connector can fetch back what it has sent. Ask the recipient to "
        "return it; the payout then becomes failed, and the money available again.",
    )


def update(payout: Payout, command: UpdatePayout) -> Changes[Payout]:
    after = changed(payout, command.given())
    if after == payout:
        return Changes(result=payout)
    return Changes(result=after, records=(after,), events=_update_events(payout, after))


def _movement_entry(payout: Payout, type: EntryType, amount_minor: int, against: str, at: Moment) -> Entry:
    """Money that leaves (negative) or returns to (positive) the origin of the payout."""
    if payout.funding == "balance":
        return balance_entry(
            type=type,
            source=payout.id,
            amount_minor=amount_minor,
            currency=payout.currency,
            against=against,
            description=payout.description or _DESCRIPTIONS[type],
            reporting_category="payout" if type == "payout" else "payout_reversal",
            at=at,
        )
    leaves = amount_minor < 0
    return transfer_entry(
        source=payout.id,
        debit="disbursements" if leaves else against,
        credit=against if leaves else "disbursements",
        amount_minor=abs(amount_minor),
        currency=payout.currency,
        at=at,
    )


_DESCRIPTIONS = {"payout": "PAYOUT", "payout_failure": "PAYOUT FAILURE", "payout_cancel": "PAYOUT CANCELLATION"}


def _source(payout: Payout) -> str:
    """The account of the money that is paid out."""
    if payout.funding == "provider":
        return f"provider:{payout.connector}"
    return "bank" if payout.drawn_on == "bank" else f"receivable:{payout.connector}"


def _sealed_ids(payout: Payout) -> tuple[str, ...]:
    return (payout.recipient.vault,) if payout.recipient.vault is not None else ()


def _update_events(before: Payout, after: Payout, type: str | None = None) -> tuple[EventDraft, ...]:
    updated = EventDraft(type="payout.updated", record=after, previous=before)
    return (EventDraft(type=type, record=after), updated) if type is not None else (updated,)
