"""An authorization that nobody captures is released after seven days, at the bank and in the records."""

from pathlib import Path

from calendar_shop import Calendar, call, opened

from tillway.domain.payment_intent import AUTHORIZATION_LIFETIME_SECONDS
from tillway.wiring import Running


async def due(running: Running, calendar: Calendar) -> int:
    rows = await running.store.claim("expiries", now_ms=calendar() // 1_000_000, lease_ms=1000, limit=10)
    for row in rows:
        await running.runner.carry(row)
    return len(rows)


AUTHORIZE = "amount=4200&currency=eur&confirm=true&payment_method=pm_card_visa&capture_method=manual"


async def test_an_uncaptured_authorization_is_released(tmp_path: Path) -> None:
    calendar = Calendar()
    running, headers = await opened(tmp_path, calendar)
    payment = await call(running, headers, "/v1/payment_intents", AUTHORIZE)
    assert payment["status"] == "requires_capture"
    assert await due(running, calendar) == 0

    calendar.ahead_ns = (AUTHORIZATION_LIFETIME_SECONDS + 5) * 1_000_000_000
    assert await due(running, calendar) == 1
    found = await call(running, headers, f"/v1/payment_intents/{payment['id']}")
    assert (found["status"], found["cancellation_reason"]) == ("canceled", "expired")
    charge = await call(running, headers, f"/v1/charges/{payment['latest_charge']}")
    assert (charge["captured"], charge["refunded"], charge["amount_refunded"]) == (False, True, 4200)
    ledger = await call(running, headers, "/ops/v1/ledger")
    assert ledger["entries"] == 0
    assert await due(running, calendar) == 0
    await running.close()


async def test_a_captured_one_is_left_alone(tmp_path: Path) -> None:
    calendar = Calendar()
    running, headers = await opened(tmp_path, calendar)
    payment = await call(running, headers, "/v1/payment_intents", AUTHORIZE)
    captured = await call(running, headers, f"/v1/payment_intents/{payment['id']}/capture", "amount_to_capture=4000")
    assert captured["status"] == "succeeded"
    calendar.ahead_ns = (AUTHORIZATION_LIFETIME_SECONDS + 5) * 1_000_000_000
    assert await due(running, calendar) == 1, "the money became available, and nothing was released"
    found = await call(running, headers, f"/v1/payment_intents/{payment['id']}")
    assert (found["status"], found["amount_received"]) == ("succeeded", 4000)
    await running.close()
