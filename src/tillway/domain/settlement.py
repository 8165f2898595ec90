"""Settlements: money that a provider has paid to the merchant's own bank, less the fee that it kept.

| | postings |
|---|---|
| amount | `receivable:<connector>` → `bank` |
| fee | `receivable:<connector>` → `provider_fees` |

A negative amount is money that the provider took from the bank, or the correction of a settlement; a negative fee is
one that it gave back. An amount of 0 books a fee alone, for providers that take fees as they go. A settlement changes
no balance of the merchant: it says where the money is, and so through which connectors it can be paid out.
"""

from tillway.domain.ledger import Entry, Posting
from tillway.domain.payout import PayoutGuard, move_guard
from tillway.domain.record import Changes, Moment, Record, Value
from tillway.domain.refusal import Refused

AMOUNT_MAX = 10**15
"""Largest amount of a settlement, in minor units: the sum of many payments."""

REFERENCE_MAX = 100
"""Longest reference of a settlement, in characters."""


class Reported(Value, frozen=True, kw_only=True):
    """A settlement as a provider's report tells it, in minor units; `where` is its file and first line."""

    reference: str
    currency: str
    amount_minor: int
    fee_minor: int
    where: str

    @property
    def moved_minor(self) -> int:
        """How much less the provider owes."""
        return self.amount_minor + self.fee_minor

    @property
    def is_payment(self) -> bool:
        return self.amount_minor > 0


class Settlement(Record, frozen=True, kw_only=True):
    """`amount_minor` arrived at the bank (negative: left it), and the provider kept `fee_minor` besides.

    `reference` is the provider's own id of the payment to the bank; one connector's is booked once. `entry` is the
    entry of the ledger, `by` the actor and `reason` their words.
    """

    connector: str
    currency: str
    amount_minor: int
    fee_minor: int = 0
    reference: str | None = None
    entry: str
    by: str
    reason: str


def settle(
    *,
    connector: str,
    currency: str,
    amount_minor: int,
    fee_minor: int,
    reference: str | None,
    by: str,
    reason: str,
    at_provider_minor: int,
    at_bank_minor: int,
    booked: Settlement | None,
    guard: PayoutGuard | None,
    at: Moment,
) -> Changes[Settlement]:
    """Move the money in the ledger.

    `at_provider_minor` is the connector's money less its payouts on the way, `at_bank_minor` that in the bank less what
    payouts have drawn, both read after `guard`. `booked` is the settlement of that reference. Refused
    `settlement_exists` if there is one, and `settlement_too_large` if there is not as much to move.
    """
    if booked is not None:
        raise Refused(
            "settlement_exists",
            f"The settlement {reference!r} of the connector {connector!r} was booked already, as {booked.id}: "
            f"{booked.amount_minor} {booked.currency}, in minor units.",
            param="reference",
        )
    moved_minor = amount_minor + fee_minor
    if moved_minor > max(at_provider_minor, 0):
        raise _too_large(moved_minor, currency, f"the connector {connector!r} has collected", at_provider_minor)
    if -amount_minor > max(at_bank_minor, 0):
        raise _too_large(-amount_minor, currency, "settlements have moved to your bank", at_bank_minor)
    entry = Entry(
        id=at.new_id("je"),
        created=at.created,
        currency=currency,
        source=(id := at.new_id("stl")),
        postings=(
            *((Posting(account="bank", amount_minor=amount_minor),) if amount_minor else ()),
            Posting(account=f"receivable:{connector}", amount_minor=-moved_minor),
            *((Posting(account="provider_fees", amount_minor=fee_minor),) if fee_minor else ()),
        ),
    )
    settlement = Settlement(
        id=id,
        created=at.created,
        connector=connector,
        currency=currency,
        amount_minor=amount_minor,
        fee_minor=fee_minor,
        reference=reference,
        entry=entry.id,
        by=by,
        reason=reason,
    )
    return Changes(result=settlement, records=(settlement, entry, move_guard(guard, currency, at)))


def _too_large(asked_minor: int, currency: str, there: str, there_minor: int) -> Refused:
    return Refused(
        "settlement_too_large",
        f"This settlement moves {asked_minor} {currency}, in minor units, and {there} {max(there_minor, 0)} that no "
        "payout has drawn or waits for. GET /ops/v1/balances shows the sums.",
        param="amount",
    )
