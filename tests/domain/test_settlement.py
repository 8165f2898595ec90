"""Settlements: the postings, and the sums that bound them."""

from itertools import count
from typing import Any

import pytest
from moments import moment_at

from tillway.domain.attempt import Attempt
from tillway.domain.ledger import Entry
from tillway.domain.outcome import Declined, Succeeded
from tillway.domain.payout import Payout, PayoutGuard, Recipient, fail
from tillway.domain.payout import settle as settle_payout
from tillway.domain.record import Changes, Moment
from tillway.domain.refusal import Refused
from tillway.domain.settlement import Settlement, settle

# The columns: amount, fee, the money at the provider and at the bank before, and what moves or why not.
SCENARIOS = """
    1000    0  1000     0  ->  bank 1000, receivable:a -1000
     970   30  1000     0  ->  bank 970, provider_fees 30, receivable:a -1000
     970   31  1000     0  ->  settlement_too_large
    1000    0   999  5000  ->  settlement_too_large
       1    0    -5     0  ->  settlement_too_large
   -1000    0     0  1000  ->  bank -1000, receivable:a 1000
   -1000   30     0  1000  ->  bank -1000, provider_fees 30, receivable:a 970
   -1000    0  5000   999  ->  settlement_too_large
      -1    0     0    -5  ->  settlement_too_large
     -10   20     9   100  ->  settlement_too_large
     -10   20    10   100  ->  bank -10, provider_fees 20, receivable:a -10
"""


def moment() -> Moment:
    return moment_at(1_800_000_000_000, map(str, count()).__next__)


def moved(changes: Changes[Any]) -> str:
    (entry,) = [record for record in changes.records if isinstance(record, Entry)]
    assert entry.type is None, "no balance transaction of the merchant"
    sums = {posting.account: posting.amount_minor for posting in entry.postings}
    return ", ".join(f"{account} {sums[account]}" for account in sorted(sums))


def book(amount: int, fee: int, at_provider: int, at_bank: int, **given: Any) -> Changes[Settlement]:
    return settle(
        connector="a",
        currency="eur",
        amount_minor=amount,
        fee_minor=fee,
        by="opr_1",
        reason="statement",
        at_provider_minor=at_provider,
        at_bank_minor=at_bank,
        guard=None,
        at=moment(),
        **{"reference": None, "booked": None, **given},
    )


@pytest.mark.parametrize("row", SCENARIOS.strip().splitlines())
def test_a_settlement(row: str) -> None:
    given, _, expected = row.partition("->")
    try:
        changes = book(*map(int, given.split()))
    except Refused as refused:
        assert refused.code == expected.strip()
        return
    assert moved(changes) == expected.strip()
    assert [type(record) for record in changes.records] == [Settlement, Entry, PayoutGuard]


def test_a_reference_is_booked_once() -> None:
    booked = book(1, 0, 1, 0, reference="po_1").result
    with pytest.raises(Refused) as caught:
        book(1, 0, 1, 0, reference="po_1", booked=booked)
    assert caught.value.code == "settlement_exists" and booked.id in caught.value.message


def test_a_payout_by_file_takes_the_money_of_the_bank_and_brings_it_back() -> None:
    to = Recipient(type="bank_account", vault="vlt_1")
    names: dict[str, Any] = {"connector": "sepa", "attempt": "att_1", "entry": "txn_1"}
    payout = Payout(id="po_1", created=1, amount_minor=5, currency="eur", recipient=to, drawn_on="bank", **names)
    attempt = Attempt(
        id="att_1", created=1, kind="payout", subject="po_1", amount_minor=5, currency="eur", connector="sepa"
    )
    paid = settle_payout(payout, attempt, Succeeded("1"), moment())
    assert moved(paid) == "bank -5, payouts 5"
    returned = fail(paid.result, Declined(decline_code="account_closed"), moment())
    sums = next(record.postings for record in returned.records if isinstance(record, Entry))
    assert {posting.account: posting.amount_minor for posting in sums} == {"merchant": -5, "bank": 5}
