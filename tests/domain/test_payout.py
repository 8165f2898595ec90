"""Payouts: when money arrives, why it does not, and whom the simulated bank knows."""

import re
from calendar import timegm
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest
from moments import moment_at

from tillway.domain.attempt import Attempt
from tillway.domain.external_account import check_bank_account
from tillway.domain.ledger import Entry
from tillway.domain.outcome import Declined, NotSent
from tillway.domain.payout import FAILURES, Payout, Recipient, arrival_date, fail, settle
from tillway.domain.refusal import Refused
from tillway.sandbox.recipients import recipient_of

AT = moment_at(1_800_000_000_000, map(str, count()).__next__)


def payout(**fields: Any) -> Payout:
    to = Recipient(type="email", email="anna@example.org")
    return Payout(id="po_1", created=1, amount_minor=5, currency="eur", recipient=to, **fields)


# Weekdays of November 2026: the 2nd is a Monday.
ARRIVALS = """
    2026-11-02 00:00  standard -> 2026-11-03 00:00
    2026-11-05 23:59  standard -> 2026-11-06 00:00
    2026-11-06 00:00  standard -> 2026-11-09 00:00
    2026-11-07 12:00  standard -> 2026-11-09 00:00
    2026-11-08 12:00  standard -> 2026-11-09 00:00
    2026-11-07 12:00  instant  -> 2026-11-07 12:00
"""


def _epoch(day: str, time: str) -> int:
    year, month, date = map(int, day.split("-"))
    hour, minute = map(int, time.split(":"))
    return timegm((year, month, date, hour, minute, 0))


@pytest.mark.parametrize("row", ARRIVALS.strip().splitlines())
def test_when_it_arrives(row: str) -> None:
    day, time, method, _, *then = row.split()
    assert arrival_date(_epoch(day, time), method) == _epoch(*then)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Declined(decline_code="no_account"), "no_account"),
        (Declined(decline_code="insufficient_funds"), "insufficient_funds"),
        (Declined(decline_code="generic_decline"), "could_not_process"),
        (Declined("processing_error", None, alert="a reference was used twice"), "could_not_process"),
    ],
)
def test_why_it_failed(outcome: Declined, code: str) -> None:
    after = fail(payout(), outcome, AT).result
    assert isinstance(after, Payout)
    assert (after.status, after.failure_code, after.failure_message) == ("failed", code, FAILURES[code])


@pytest.mark.parametrize(
    ("state", "sent", "status"), [("new", 4, "pending"), ("new", 5, "failed"), ("unknown", 5, "pending")]
)
def test_a_provider_that_is_not_there(state: Literal["new", "unknown"], sent: int, status: str) -> None:
    """It is given up only when it surely was never sent."""
    sending = Attempt(
        id="att_1",
        created=1,
        kind="payout",
        subject="po_1",
        amount_minor=5,
        currency="eur",
        connector="bank",
        state=state,
        sent=sent,
    )
    changes = settle(payout(attempt="att_1"), sending, NotSent("refused"), AT)
    assert isinstance(changes.result, Payout) and changes.result.status == status
    assert [type(record) for record in changes.records] == ([Payout, Entry] if status == "failed" else [])
    states = [task.state for task in changes.tasks if isinstance(task, Attempt)]
    assert states == ([state] if status == "pending" else [])


@pytest.mark.parametrize(
    ("number", "routing", "country", "bare"),
    [
        ("000-123 456789", "1100-00000", "US", ("000123456789", "110000000")),
        ("de89 3704 0044 0532 0130 00", None, "DE", ("DE89370400440532013000", None)),
        ("12345678", "108800", "GB", ("12345678", "108800")),
    ],
)
def test_an_account(number: str, routing: str | None, country: str, bare: tuple[str, str | None]) -> None:
    assert check_bank_account(number, routing, country) == bare


@pytest.mark.parametrize(
    "number", ["DE", "DE12", "DE8937040044053201300é", "DE89370400440532013000" * 2, "٣٣٣٣٣", "1-2"]
)
def test_no_account(number: str) -> None:
    with pytest.raises(Refused) as caught:
        check_bank_account(number, "110000000", number[:2] if number[:2].isascii() else "US")
    assert caught.value.code == "account_number_invalid" and number not in caught.value.message


def test_the_page_tells_whom_the_bank_knows() -> None:
    page = (Path(__file__).parents[2] / "docs" / "payouts.md").read_text()
    table = page.partition("## Recipients of the simulator")[2].partition("## In the ledger")[0]
    rows = [line.strip("|").split("|") for line in re.findall(r"^\|.*`.*\|$", table, re.MULTILINE)]
    assert len(rows) == 9
    for *cells, does in rows:
        for type, cell in zip(("bank_account", "bank_account", "card", "email"), cells, strict=True):
            value = cell.strip("` ")
            if not value:
                continue
            known = recipient_of(type, "anna@example.org" if value == "any" else value)
            if "fails" in does:
                assert f"`{known.failure}`" in does, value
            else:
                assert known.failure is None
                words = {"succeeds_later": "in_transit", "fails_later": "returned", "succeeds": "paid"}
                assert words[known.manner] in does, value
