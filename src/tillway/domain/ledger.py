"""Double entry: every movement of money is an entry with postings that add up to zero.

An account belongs to a merchant's scope and holds one currency. Debits are positive, credits negative, so the platform
owes a merchant the negated sum of its `merchant` postings. Entries are append only; balances are sums of them.

| account | kind | content |
|---|---|---|
| `merchant` | liability | the platform's debt to the merchant; pending until `available_on`, available after |
| `fees` | income | the platform's part of each charge |
| `receivable:<connector>` | asset | money at a provider, not yet paid out; negative: it paid out money of the `bank` |
| `bank` | asset | money that settlements have moved to the merchant's own bank, less payouts by file |
| `provider_fees` | expense | fees that providers kept from settlements |
| `differences` | expense | what statements have more (negative) or less than the books, as a daily close decided |
| `refunds` | clearing | refunds on their way: zero when none is under way |
| `disputes` | clearing | money withheld while a dispute is open |
| `payouts` | clearing | payouts on their way: zero when none is under way |
| `provider:<connector>` | asset | the merchant's own money at a provider, less disbursements |
| `disbursements` | expense | disbursements paid from that money |
| `credits` | liability | customers' stored credit |
| `credit_funding` | asset | the merchant's money behind it |
| `test_clocks` | clearing | always zero: money that test clocks make available early passes through it |
"""

from typing import Literal

from tillway.domain.record import Moment, Record, Value

SECONDS_PER_DAY = 86_400


class Posting(Value, frozen=True, kw_only=True):
    account: str
    amount_minor: int


class Fee(Value, frozen=True, kw_only=True):
    """How a charge is priced: `rate_bps` hundredths of a percent, plus `fixed_minor` minor units."""

    rate_bps: int = 290
    fixed_minor: int = 30


class FeeDetail(Value, frozen=True, kw_only=True):
    amount_minor: int
    description: str
    type: str = "stripe_fee"


EntryType = Literal[
    "charge",
    "refund",
    "refund_failure",
    "adjustment",
    "payment",
    "payment_refund",
    "payout",
    "payout_failure",
    "payout_cancel",
]


class Entry(Record, frozen=True, kw_only=True):
    """A journal entry. With a `type` it is also a balance transaction of the merchant.

    `amount_minor` is gross from the merchant's view, signed; the balance changes by `amount_minor - fee_minor`.
    """

    currency: str
    postings: tuple[Posting, ...]
    type: EntryType | None = None
    amount_minor: int = 0
    fee_minor: int = 0
    fee_details: tuple[FeeDetail, ...] = ()
    available_on: int = 0
    source: str | None = None
    description: str | None = None
    reporting_category: str | None = None

    def __post_init__(self) -> None:
        total = 0
        for posting in self.postings:
            total += posting.amount_minor
        assert total == 0, "an entry's postings must add up to nothing"

    @property
    def net_minor(self) -> int:
        return self.amount_minor - self.fee_minor


class Balances(Record, frozen=True, kw_only=True):
    """A checkpoint: the sums over all entries with id suffixes below `until`; see `engine/balance.py`."""

    accounts: dict[str, int]
    merchant: dict[str, int]
    until: str
    entries: int
    proven: bool = False
    """Whether `until` is a mark below which nothing could be committed any more. Earlier versions used the wall
    clock."""


def charge_entry(
    *,
    type: EntryType = "charge",
    source: str,
    amount_minor: int,
    fee_minor: int,
    currency: str,
    connector: str,
    description: str | None,
    available_on: int,
    at: Moment,
) -> Entry:
    """Book a charge: the provider owes the gross to the platform, the platform owes the net to the merchant and keeps
    the fee."""
    gross = Posting(account=f"receivable:{connector}", amount_minor=amount_minor)
    net = Posting(account="merchant", amount_minor=fee_minor - amount_minor)
    return Entry(
        id=at.new_id("txn"),
        created=at.created,
        type=type,
        currency=currency,
        amount_minor=amount_minor,
        fee_minor=fee_minor,
        fee_details=(FeeDetail(amount_minor=fee_minor, description="Tillway processing fees"),) if fee_minor else (),
        available_on=available_on,
        source=source,
        description=description,
        reporting_category="charge",
        postings=(gross, net, Posting(account="fees", amount_minor=-fee_minor)) if fee_minor else (gross, net),
    )


def balance_entry(
    *,
    type: EntryType,
    source: str,
    amount_minor: int,
    currency: str,
    against: str,
    description: str | None,
    reporting_category: str,
    at: Moment,
    fee_minor: int = 0,
    fee_description: str = "",
) -> Entry:
    """Money that leaves (negative) or enters (positive) the merchant's balance at once, against a clearing account."""
    return Entry(
        id=at.new_id("txn"),
        created=at.created,
        type=type,
        currency=currency,
        amount_minor=amount_minor,
        fee_minor=fee_minor,
        fee_details=(FeeDetail(amount_minor=fee_minor, description=fee_description),) if fee_minor else (),
        available_on=at.now,
        source=source,
        description=description,
        reporting_category=reporting_category,
        postings=(
            Posting(account="merchant", amount_minor=fee_minor - amount_minor),
            Posting(account=against, amount_minor=amount_minor),
            *((Posting(account="fees", amount_minor=-fee_minor),) if fee_minor else ()),
        ),
    )


def transfer_entry(*, source: str, debit: str, credit: str, amount_minor: int, currency: str, at: Moment) -> Entry:
    """Money that moves between accounts without changing the merchant's balance."""
    return Entry(
        id=at.new_id("je"),
        created=at.created,
        currency=currency,
        source=source,
        postings=(
            Posting(account=debit, amount_minor=amount_minor),
            Posting(account=credit, amount_minor=-amount_minor),
        ),
    )


def early_entries(entry: Entry, at: Moment) -> tuple[Entry, Entry]:
    """Make the money of `entry`, which is pending, available now. The first takes it from the amounts that become
    available with it, the second puts it among those that are."""
    net_minor = entry.net_minor

    def moved(amount_minor: int, available_on: int) -> Entry:
        return Entry(
            id=at.new_id("je"),
            created=at.created,
            currency=entry.currency,
            source=entry.id,
            available_on=available_on,
            postings=(
                Posting(account="merchant", amount_minor=amount_minor),
                Posting(account="test_clocks", amount_minor=-amount_minor),
            ),
        )

    return moved(net_minor, entry.available_on), moved(-net_minor, 0)


def available_on(now: int, *, settlement_days: int) -> int:
    """When a charge made `now` becomes available: the midnight (UTC) that follows `settlement_days` whole days."""
    return (now // SECONDS_PER_DAY + settlement_days) * SECONDS_PER_DAY
