"""The runner shares its places: slow tasks of one merchant do not delay those of another, however many there are."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from mail_server import MailServerHere

from tillway.domain.account import Scope
from tillway.domain.payment_intent import AuthorizationExpiry
from tillway.domain.payment_method import CardExpiry
from tillway.engine import runner
from tillway.operations.accounts import create_account
from tillway.store.codec import write_of
from tillway.store.port import ABSENT, PAGE_MAX
from tillway.testing.in_process import LEASE_MS, InProcessApp

DAY_MS = 24 * 60 * 60 * 1000
MAILS = 2 * runner.AT_ONCE_MAX
WITHIN_SECONDS = 10.0
"""A second, and room for a busy machine. The slow mails take until the test ends."""


class SlowMailServer(MailServerHere):
    """Answers nothing about recipients whose address begins with `slow`."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:
        if address.startswith("slow"):
            self.waiting += 1
            await asyncio.sleep(60)
        return await super().handle_RCPT(server, session, envelope, address, options)


class Shops:
    def __init__(self, app: InProcessApp) -> None:
        self.app = app

    async def key(self) -> str:
        """The secret key of a new merchant."""
        _, keys = await create_account(self.app.store, self.app.clock)
        return keys[0].secret

    async def disburse(self, key: str, name: str) -> None:
        """Pay a customer, who is told by e-mail."""
        for path, more in (("customer", {}), ("payment", {"amount": 12, "currency": "USD"})):
            body = {"customer_id": f"{name:x<12}", "email": f"{name}@example.com", **more}
            answer = await self.app.send(
                "POST",
                f"/v1/api/{path}",
                key=key,
                body=msgspec.json.encode(body),
                content_type="application/json",
            )
            assert answer.status == 200, answer.body


@pytest.fixture
async def mail() -> AsyncIterator[SlowMailServer]:
    server = SlowMailServer()
    yield server
    server.stop()


@pytest.fixture
async def shops(tmp_path: Path, mail: SlowMailServer) -> AsyncIterator[Shops]:
    app = await InProcessApp.open(
        tmp_path, smtp_url=f"smtp://127.0.0.1:{mail.port}", smtp_from="pay@shop.example", payout_delay_seconds=0
    )
    yield Shops(app)
    for tasks in app.running.runner._busy.values():
        for task in tasks:
            task.cancel()
    await app.running.close(within_seconds=1)


async def test_slow_mails_of_one_merchant_do_not_delay_those_of_another(shops: Shops, mail: SlowMailServer) -> None:
    slow, quick, third = [await shops.key() for _ in range(3)]
    for number in range(MAILS):
        await shops.disburse(slow, f"slow{number}")
    shops.app.running.runner.start()
    deadline = time.monotonic() + WITHIN_SECONDS
    while mail.waiting < runner.AT_ONCE_MAX // 2:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    began = time.monotonic()
    for number in range(20):
        await shops.disburse(quick, f"quick{number}")
    await shops.disburse(third, "third0")
    while len(mail.messages) < 21:
        assert time.monotonic() < began + WITHIN_SECONDS, Counter(message["To"] for message in mail.messages)
        await asyncio.sleep(0.01)
    # Alone, the slow merchant has half of the places, and no more.
    assert mail.waiting == runner.AT_ONCE_MAX // 2
    assert max(shops.app.running.runner._places["mail"].values()) == runner.AT_ONCE_MAX // 2


async def test_tasks_that_were_passed_over_are_claimed_when_a_place_is_free(
    shops: Shops, mail: SlowMailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the next look at the queue."""
    monkeypatch.setattr(runner, "POLL_SECONDS", 60.0)
    shops.app.running.runner.looks._queues["mail"].poll_seconds = 60.0
    key = await shops.key()
    for number in range(MAILS):
        await shops.disburse(key, f"quick{number}")
    shops.app.running.runner.start()
    deadline = time.monotonic() + 2 * WITHIN_SECONDS
    while len(mail.messages) < MAILS:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("follow_ups", ["run", "leave"])
async def test_a_takeover_may_leave_the_tasks_that_follow_it(tmp_path: Path, follow_ups: Any) -> None:
    """As a function on AWS does whose caller waits for the payment, and not for its webhook."""
    app = await InProcessApp.open(tmp_path)
    try:
        shop = await app.merchant()
        hook = {"url": "http://127.0.0.1:1/", "enabled_events[]": "payment_intent.succeeded"}
        await app.ok(shop, "POST", "/v1/webhook_endpoints", hook)
        faults = (await app.simulator(shop)).faults
        faults.replace({"rules": [{"fault": "lose_answer"}, {"fault": "error_before", "operation": "look_up"}]})
        paid = {"amount": 700, "currency": "eur", "payment_method": "pm_card_bypassPending", "confirm": True}
        left = await app.ok(shop, "POST", "/v1/payment_intents", paid)
        assert left["status"] == "processing"
        faults.replace({})
        app.clock.ahead_seconds += 60
        until = asyncio.get_running_loop().time() + WITHIN_SECONDS
        done = await app.running.runner.drain(("attempts",), until=until, follow_ups=follow_ups)
        assert (await app.ok(shop, "GET", f"/v1/payment_intents/{left['id']}"))["status"] == "succeeded"
        assert done["attempts"] == 1 and done.get("deliveries", 0) == (follow_ups == "run")
        assert follow_ups == "run" or done == {"attempts": 1}
    finally:
        await app.close()


async def test_leases_below_a_thousand_cards_are_mended(tmp_path: Path) -> None:
    """A clock that was ten days ahead has leased the end of an authorization; no process would release it until then.
    The tasks of stored cards are due later, and are more than one look reads."""
    app = await InProcessApp.open(tmp_path)
    try:
        scope = Scope(account=(await app.merchant()).account, mode="test").key
        now_ms = app.clock.now_ms()
        at_month_ms = now_ms + 400 * DAY_MS
        for start in range(0, 2 * PAGE_MAX + 10, 100):
            cards = [
                CardExpiry(id=f"cxp_{number:017}", created=1, method="card_1", due_at_ms=at_month_ms + number // 700)
                for number in range(start, start + 100)
            ]
            await app.store.commit([write_of(scope, card, ABSENT) for card in cards])
        hold = AuthorizationExpiry(id="exp_1", created=1, payment="pi_1", due_at_ms=now_ms + DAY_MS)
        await app.store.commit([write_of(scope, hold, ABSENT)])
        ahead_ms = now_ms + 10 * DAY_MS
        assert len(await app.store.claim("expiries", now_ms=ahead_ms, lease_ms=LEASE_MS, limit=10)) == 1
        for _ in range(4):
            await app.running.runner._mend_leases_of_expiries()
        [first] = await app.store.peek("expiries", now_ms=now_ms, limit=1)
        assert (first.key, first.due_at_ms) == (f"{scope}/exp_1", hold.due_at_ms)
        last = await app.store.peek("expiries", now_ms=now_ms, limit=PAGE_MAX, order="latest")
        assert all(task.due_at_ms >= at_month_ms for task in last), "the cards' own times stay"
    finally:
        await app.close()
