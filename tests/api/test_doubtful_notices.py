"""Notices that may be wrong: compared with the operation like an answer, and asked about where they differ."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from live_bank import LiveMerchant, live_merchant

from tillway.engine.ids import SKEW_SECONDS

HOUR = 3600


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[LiveMerchant]:
    async with live_merchant(tmp_path, ask_after_seconds="600") as made:
        yield made


async def pending(live: LiveMerchant) -> tuple[str, dict[str, Any]]:
    """A payment that the bank has not decided, and the bank's answer once it has."""
    live.status = "Pending"
    paid = (await live.pay(amount=2400)).json
    assert paid["status"] == "processing"
    told = live.told[live.orders[-1]["reference"]]
    return paid["id"], {**told, "status": "Accepted"}


async def status(live: LiveMerchant, payment: str) -> str:
    found: str = (await live.get(f"/v1/payment_intents/{payment}"))["status"]
    return found


def now(live: LiveMerchant) -> int:
    return live.app.clock.now_ms() // 1000


WRONG = {
    "amount": {"amount": 100},
    "no amount": {"amount": None},
    "fraction": {"amount": 2400.0},
    "currency": {"currency": "usd"},
    "no currency": {"currency": None},
    "kind": {"kind": "refund"},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
async def test_a_notice_over_something_else_is_asked_about(live: LiveMerchant, change: dict[str, Any]) -> None:
    payment, news = await pending(live)
    for _ in range(2):
        assert (await live.notice(**news | change)).status == 200
        assert await status(live, payment) == "processing"
    [doubt] = (await live.get("/ops/v1/doubts"))["data"]
    assert (doubt["state"], live.asked) == ("unknown", [])
    live.told[news["reference"]] = news
    await live.app.wait(0)
    assert live.asked == [news["reference"]] and await status(live, payment) == "succeeded"


@pytest.mark.parametrize(
    ("age", "believed"),
    [
        (0, True),
        (HOUR - 60, True),
        (HOUR + 60, False),
        (30 - SKEW_SECONDS, True),
        (-60 - SKEW_SECONDS, False),
        (-365 * 24 * HOUR, False),
        (None, True),
    ],
)
async def test_a_notice_of_another_time_is_asked_about(live: LiveMerchant, age: int | None, believed: bool) -> None:
    payment, news = await pending(live)
    created: dict[str, Any] = {} if age is None else {"created": now(live) - age}
    assert (await live.notice(**news, **created)).status == 200
    assert await status(live, payment) == ("succeeded" if believed else "processing")
    await live.app.wait(0)
    assert (live.asked == []) is believed and await status(live, payment) in ("processing", "succeeded")


async def test_the_other_mode_moves_no_live_money(live: LiveMerchant) -> None:
    payment, news = await pending(live)
    assert (await live.notice(to="test", **news)).status == 200
    assert await status(live, payment) == "processing"


async def test_a_refund_returned_by_a_doubtful_notice(live: LiveMerchant) -> None:
    """The bank is asked, and its answer counts."""
    paid = (await live.pay()).json
    refund = (await live.call("/v1/refunds", {"payment_intent": paid["id"], "amount": 1200})).json
    told = live.told[live.orders[-1]["reference"]]
    returned = {**told, "status": "Declined"}
    for wrong in ({"amount": 1}, {"created": now(live) - 2 * HOUR}, {"created": now(live) + 2 * HOUR}):
        assert (await live.notice(**returned | wrong)).status == 200
        assert (await live.get(f"/v1/refunds/{refund['id']}"))["status"] == "succeeded"
    live.told[told["reference"]] = returned
    assert (await live.notice(**returned, created=now(live) - 2 * HOUR)).status == 200
    assert (await live.get(f"/v1/refunds/{refund['id']}"))["status"] == "failed"


async def test_created_is_a_time(live: LiveMerchant) -> None:
    _, news = await pending(live)
    for created in ("today", -1, 1.5, True):
        assert (await live.notice(**news, created=created)).status == 400
