"""A provider's later word that contradicts a settled outcome: an alarm, an event and an open item with both sides.

Each operation settles in each way, and then its bank says the opposite: by a notice, when it is asked, in an answer
that comes late, and in its list of operations. Nothing else changes, and the same word again changes nothing at all.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from live_bank import LiveMerchant, live_merchant
from provider_shop import provider_shop

from tillway.connectors.port import Declined, Outcome, Succeeded
from tillway.domain.account import SYSTEM, Scope, scope_of
from tillway.domain.attempt import TAIL_LENGTH, Attempt
from tillway.domain.charge import Charge
from tillway.domain.connector_config import ConnectorConfig
from tillway.domain.open_item import OpenItem
from tillway.domain.payment_intent import REFERENCES_MAX
from tillway.domain.payout import Payout
from tillway.domain.refund import Refund
from tillway.domain.settled_operation import SettledOperation
from tillway.engine.caller import Caller
from tillway.engine.connections import REFRESH_SECONDS
from tillway.engine.references import reference_of_record
from tillway.operations.notices import UNCONFIRMED_SECONDS
from tillway.operations.recovery import Recovery, survey
from tillway.store.port import Write
from tillway.store.walk import records_of
from tillway.testing.in_process import Answer

CHALLENGE = "ActionRequired"
KINDS = {"authorization": "authorize", "verification": "verify"}
"""The bank's words for kinds of operations, where they are not ours."""

BANK = {
    "object": "bank_account",
    "country": "DE",
    "currency": "eur",
    "account_number": "DE89370400440532013000",
    "account_holder_name": "A Shop",
}


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[LiveMerchant]:
    settings = {"redirects": "yes", "increments": "yes", "multicapture": "yes", "verifications": "yes", "list": "yes"}
    async with live_merchant(tmp_path, **settings) as made:
        yield made


class Shop:
    """One merchant, who sends each request under an Idempotency-Key if it is `keyed`."""

    def __init__(self, live: LiveMerchant, *, keyed: bool) -> None:
        self.live, self.keyed, self.requests = live, keyed, 0

    async def post(self, path: str, expects: int = 200, **params: Any) -> dict[str, Any]:
        self.requests += 1
        key = {"idempotency_key": f"request {self.requests}"} if self.keyed else {}
        sent: Answer = await self.live.app.call(self.live.key, "POST", path, params, **key)
        assert sent.status == expects, sent.body
        return dict(sent.json)

    async def pay(self, expects: int = 200, **params: Any) -> dict[str, Any]:
        card = {"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040}}
        given = {"amount": 4200, "currency": "eur", "confirm": True, "return_url": "https://example.com/"}
        return await self.post("/v1/payment_intents", expects, payment_method_data=card, **{**given, **params})

    async def held(self) -> str:
        options = {"request_incremental_authorization": "if_available", "request_multicapture": "if_available"}
        held = await self.pay(capture_method="manual", payment_method_options={"card": options})
        return str(held["id"])

    async def after_hold(self, path: str, status: str = "Accepted", **params: Any) -> None:
        held = await self.held()
        self.live.status = status
        await self.post(f"/v1/payment_intents/{held}/{path}", 200 if status == "Accepted" else 402, **params)
        self.live.status = "Accepted"

    def said(self, kind: str) -> dict[str, Any]:
        """The bank's answer to the latest order of that kind."""
        return next(told for told in reversed(self.live.told.values()) if KINDS.get(told["kind"], told["kind"]) == kind)

    # One operation each, which then has settled.

    async def paid(self) -> None:
        await self.pay()

    async def declined(self) -> None:
        self.live.status = "Declined"
        await self.pay(402)
        self.live.status = "Accepted"

    async def cancelled_before_the_charge(self) -> None:
        self.live.status = CHALLENGE
        waiting = await self.pay()
        self.live.status = "Accepted"
        await self.post(f"/v1/payment_intents/{waiting['id']}/cancel")

    async def resolved(self) -> None:
        self.live.refuses = 500
        waiting = await self.pay()
        self.live.refuses = None
        (doubt,) = (await self.live.app.ok(self.live.key, "GET", "/ops/v1/doubts"))["data"]
        assert doubt["subject"] == waiting["id"]
        order = {"reference": doubt["reference"], "amount": 4200, "currency": "eur"}
        self.live.orders.append(order)
        self.live.told[order["reference"]] = {**order, "kind": "authorization", "status": "Declined", "bank_id": "b"}
        resolved = {"outcome": "failed", "reason": "The bank says so."}
        path = f"/ops/v1/doubts/{doubt['id']}/resolve"
        operator = await self.live.app.operator("operator", self.live.merchant.account, mode="live")
        await self.live.app.ok(operator, "POST", path, resolved)

    async def captured(self) -> None:
        await self.after_hold("capture")

    async def captured_in_part(self) -> None:
        await self.after_hold("capture", amount_to_capture=1000, final_capture="false")

    async def not_captured(self) -> None:
        await self.after_hold("capture", "Declined")

    async def voided(self) -> None:
        await self.after_hold("cancel")

    async def not_voided(self) -> None:
        await self.after_hold("cancel", "Declined")

    async def released(self) -> None:
        held = await self.held()
        charge = (await self.live.get(f"/v1/payment_intents/{held}"))["latest_charge"]
        await self.post("/v1/refunds", charge=charge)

    async def increased(self) -> None:
        await self.after_hold("increment_authorization", amount=5000)

    async def paid_in_steps(self) -> None:
        """An authorization that was incremented and captured: the bank tells the amount of each operation."""
        held = await self.held()
        await self.post(f"/v1/payment_intents/{held}/increment_authorization", amount=5000)
        await self.post(f"/v1/payment_intents/{held}/increment_authorization", amount=5500)
        await self.post(f"/v1/payment_intents/{held}/capture")

    async def not_increased(self) -> None:
        await self.after_hold("increment_authorization", "Declined", amount=5000)

    async def not_refunded(self) -> None:
        paid = await self.pay()
        self.live.status = "Declined"
        await self.post("/v1/refunds", payment_intent=paid["id"])
        self.live.status = "Accepted"

    async def returned(self) -> None:
        """A refund that the bank accepted and then returned."""
        paid = await self.pay()
        await self.post("/v1/refunds", payment_intent=paid["id"])
        returned = self.said("refund")
        returned["status"] = "Declined"
        assert (await self.live.notice(**returned)).status == 200
        assert (await self.live.get("/v1/refunds", {"limit": 1}))["data"][0]["status"] == "failed"

    async def payout(self) -> str:
        await self.pay(amount=90_000)
        self.live.app.clock.ahead_seconds += 8 * 24 * 3600
        account = self.live.merchant.account
        destination = (await self.post(f"/v1/accounts/{account}/external_accounts", external_account=BANK))["id"]
        return str((await self.post("/v1/payouts", amount=100, currency="eur", destination=destination))["id"])

    async def not_paid_out(self) -> None:
        await self.payout()
        self.live.status = "Declined"
        await self.live.run_due()
        self.live.app.clock.ahead_seconds += 60
        await self.live.run_due()
        self.live.status = "Accepted"

    async def cancelled_payout(self) -> None:
        """One that was never sent, and that the bank says it has paid."""
        id = await self.payout()
        await self.post(f"/v1/payouts/{id}/cancel")
        scope_key = Scope(account=self.live.merchant.account, mode="live").key
        cancelled = await self.live.app.running.platform.engine.load(scope_key).get(Payout, id)
        reference = reference_of_record(scope_key, cancelled)
        told = {"reference": reference, "amount": 100, "currency": "eur", "kind": "payout", "bank_id": "b"}
        self.live.told[reference] = {**told, "status": "Declined"}

    async def verified(self, status: str = "Accepted", expects: int = 200) -> None:
        self.live.status = status
        card = {"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040}}
        await self.post(
            "/v1/setup_intents", expects, confirm=True, payment_method_data=card, return_url="https://example.com/"
        )
        self.live.status = "Accepted"

    async def not_verified(self) -> None:
        await self.verified("Declined", 402)


class Settled(NamedTuple):
    """An operation that settled as `ours`, and the opposite word. `kind` is the operation's at the provider."""

    settle: Callable[[Shop], Awaitable[None]]
    kind: str
    ours: str
    theirs: str


TABLE = [
    Settled(Shop.paid, "authorize", "succeeded", "declined"),
    Settled(Shop.declined, "authorize", "failed", "succeeded"),
    Settled(Shop.resolved, "authorize", "failed", "succeeded"),
    Settled(Shop.cancelled_before_the_charge, "authorize", "canceled", "succeeded"),
    Settled(Shop.captured, "capture", "succeeded", "declined"),
    Settled(Shop.captured_in_part, "capture", "succeeded", "declined"),
    Settled(Shop.not_captured, "capture", "failed", "succeeded"),
    Settled(Shop.voided, "void", "succeeded", "declined"),
    Settled(Shop.not_voided, "void", "failed", "succeeded"),
    Settled(Shop.released, "void", "succeeded", "declined"),
    Settled(Shop.increased, "increment", "succeeded", "declined"),
    Settled(Shop.paid_in_steps, "authorize", "succeeded", "declined"),
    Settled(Shop.not_increased, "increment", "failed", "succeeded"),
    Settled(Shop.not_refunded, "refund", "failed", "succeeded"),
    Settled(Shop.returned, "refund", "failed", "succeeded"),
    Settled(Shop.cancelled_payout, "payout", "canceled", "succeeded"),
    Settled(Shop.not_paid_out, "payout", "failed", "succeeded"),
    Settled(Shop.verified, "verify", "succeeded", "declined"),
    Settled(Shop.not_verified, "verify", "failed", "succeeded"),
]


async def by_notice(live: LiveMerchant, said: dict[str, Any], row: Settled, subject: str) -> None:
    assert (await live.notice(**said)).status == 200


async def by_asking(live: LiveMerchant, said: dict[str, Any], row: Settled, subject: str) -> None:
    """A notice without an amount, or about none, is no proof: the bank is asked."""
    kind = "authorization" if row.kind == "void" else said["kind"]
    assert (await live.notice(**{**said, "kind": kind, "amount": None})).status == 200


async def by_late_answer(live: LiveMerchant, said: dict[str, Any], row: Settled, subject: str) -> None:
    await late_answer(live, said, row, subject)
    await hear_notices(live)


async def late_answer(live: LiveMerchant, said: dict[str, Any], row: Settled, subject: str) -> None:
    """Another worker had asked before it settled, and gets its answer now."""
    scope, tail = scope_of(said["reference"][:17]), said["reference"][17:]
    named = {"reference": tail} if len(tail) == TAIL_LENGTH else {}
    attempt = Attempt(
        id=f"att_{'0' * 17 if named else tail}",
        created=0,
        kind=row.kind,  # type: ignore[arg-type]
        subject=subject,
        amount_minor=said["amount"] or 0,
        currency=said["currency"] or "eur",
        connector="bank",
        **named,
    )
    outcome: Outcome = Succeeded("b") if row.theirs == "succeeded" else Declined()
    await live.app.running.platform.attempts.settle(Caller.system(scope), attempt, outcome)


async def by_report(live: LiveMerchant, said: dict[str, Any], row: Settled, subject: str) -> None:
    """The list of the bank's operations, which a restored installation reads."""
    if row.kind == "verify":
        return await by_notice(live, said, row, subject)  # It moves no money, so no list has it.
    attempts, told = live.app.running.platform.attempts, {**live.told}
    live.told = {reference: one for reference, one in told.items() if one is said}
    config = ConnectorConfig(id="con_1", created=0, name="bank", kind="http_bank", mode="live")
    (report,) = await survey(Recovery(attempts, actor="recovery"), attempts, [config], 0)
    live.told = told
    assert not report.error and [found.verdict for found in report.found] == ["booked"]
    return None


async def hear_notices(live: LiveMerchant) -> None:
    for row in await live.app.store.claim("notices", now_ms=live.app.clock.now_ms(), lease_ms=60_000, limit=10):
        await live.app.running.runner.carry(row)


SHORT = {(by_notice, False), (by_asking, True), (by_late_answer, False), (by_report, True)}
"""The ways of `make test`: each once."""

WAYS = [
    pytest.param(
        keyed,
        way,
        id=f"{way.__name__}-{'key' if keyed else 'no_key'}",
        marks=() if (way, keyed) in SHORT else pytest.mark.soak,
    )
    for way in (by_notice, by_asking, by_late_answer, by_report)
    for keyed in (False, True)
]


@pytest.mark.parametrize(("keyed", "way"), WAYS)
async def test_a_word_against_what_settled_is_kept(
    live: LiveMerchant, keyed: bool, way: Any, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(live, keyed=keyed)
    for row in TABLE:
        name = f"{row.settle.__name__}, then {row.theirs}"
        await row.settle(shop)
        said, before = shop.said(row.kind), await _everything(live)
        said["status"] = "Accepted" if row.theirs == "succeeded" else "Declined"
        subject = await _subject_of(live, said["reference"], row)
        caplog.clear()
        for time in ("first", "again"):
            await way(live, said, row, subject)
            items = (await live.get("/ops/v1/open_items", {"limit": 100}))["data"]
            told = [item for item in items if item["reference"] == said["reference"]]
            assert len(told) == 1, f"{name}, {time}: {told}"
            (item,) = told
            sides = (item["kind"], item["operation"], item["ours"], item["theirs"], item["status"])
            assert sides == ("contradiction", row.kind, row.ours, row.theirs, "open"), name
            assert item["subject"] is not None and item["connector"] == "bank", name
        alarms = [one for one in caplog.records if "contradicts" in one.message and one.levelno == logging.ERROR]
        assert [vars(one)["open_item"] for one in alarms] == [item["id"]], name
        after = await _everything(live)
        events = [event for event in after.pop("events") if event not in before["events"]]
        before.pop("events")
        assert [event["type"] for event in events] == ["open_item.created"], name
        assert events[0]["data"]["object"]["id"] == item["id"], name
        assert after == before, f"{name}: something else has changed"


async def test_a_word_is_heard_again_where_the_bank_could_not_be_asked(live: LiveMerchant) -> None:
    """The notice of a verification only asks to look. One that is taken would not be repeated."""
    shop = Shop(live, keyed=False)
    await shop.not_verified()
    said = shop.said("verify")
    said["status"], live.refuses = "Accepted", 500
    assert (await live.notice(**said)).status == 503
    live.refuses = None
    assert (await live.notice(**said)).status == 200
    (item,) = (await live.get("/ops/v1/open_items"))["data"]
    assert (item["kind"], item["theirs"]) == ("contradiction", "succeeded")


async def test_a_late_word_is_kept_although_its_connector_was_removed(live: LiveMerchant) -> None:
    shop = Shop(live, keyed=False)
    await shop.declined()
    said = shop.said("authorize")
    row = next(row for row in TABLE if row.settle == Shop.declined)
    scope_key = Scope(account=live.merchant.account, mode="live").key
    await late_answer(live, said, row, await _subject_of(live, said["reference"], row))
    config = await live.app.store.get(f"{SYSTEM}/con_live_bank")
    assert config is not None
    await live.app.store.commit([Write(config.key, config.version, None)])
    live.app.clock.ahead_seconds += 1 + REFRESH_SECONDS
    await hear_notices(live)
    (item,) = [item async for item in records_of(live.app.store, scope_key, OpenItem)]
    assert (item.kind, item.ours, item.theirs) == ("contradiction", "failed", "succeeded")


@pytest.mark.parametrize("amount", [4200, 5500])
async def test_a_bank_may_tell_the_first_amount_of_an_authorization_or_the_latest(
    live: LiveMerchant, amount: int
) -> None:
    """Some banks tell an authorization as it was made, others with its increments."""
    await Shop(live, keyed=False).paid_in_steps()
    said = next(told for told in live.told.values() if told["kind"] == "authorization")
    said.update(status="Declined", amount=amount)
    assert (await live.notice(**{**said, "amount": None})).status == 200
    (item,) = (await live.get("/ops/v1/open_items"))["data"]
    assert (item["kind"], item["operation"], item["theirs"]) == ("contradiction", "authorize", "declined")


@pytest.mark.parametrize("by", ["notice", "task"])
async def test_a_late_word_that_its_bank_never_confirms_becomes_an_open_item(live: LiveMerchant, by: str) -> None:
    """While the bank can tell more, nothing is said. After a day, a person has to know."""
    shop = Shop(live, keyed=False)
    await shop.declined()
    said = shop.said("authorize")
    row = next(row for row in TABLE if row.settle == Shop.declined)
    await late_answer(live, said, row, await _subject_of(live, said["reference"], row))
    said["amount"] = 1
    old = {**said, "status": "Accepted", "created": live.app.clock.now_ms() // 1000}
    await hear_notices(live)
    assert (await live.notice(**old)).status == 503
    assert (await live.get("/ops/v1/open_items"))["data"] == []
    live.app.clock.ahead_seconds += 1 + UNCONFIRMED_SECONDS
    await (live.notice(**old) if by == "notice" else hear_notices(live))
    (item,) = (await live.get("/ops/v1/open_items"))["data"]
    assert (item["kind"], item["ours"], item["theirs"]) == ("contradiction", "failed", "succeeded")
    await hear_notices(live)
    now_ms = live.app.clock.now_ms() + 3_600_000
    assert await live.app.store.claim("notices", now_ms=now_ms, lease_ms=1, limit=10) == []


LOST: list[tuple[Settled, bool]] = [
    (row, keyed)
    for row in TABLE
    if row.kind in ("capture", "void", "increment") or row.settle is Shop.cancelled_before_the_charge
    for keyed in (False, True)
    if keyed or row.kind != "authorize"
]
"""Operations that leave no record but a settled operation. The reference of an authorization without a charge leads to
its payment only where it follows from a key."""


@pytest.mark.parametrize("keyed", [False, True])
async def test_a_word_against_what_settled_before_its_outcome_was_kept(live: LiveMerchant, keyed: bool) -> None:
    """An earlier version kept no settled operations: the charge, or the payment, tells what was booked."""
    shop = Shop(live, keyed=keyed)
    scope_key = Scope(account=live.merchant.account, mode="live").key
    for row in [row for row, of in LOST if of is keyed]:
        name = f"{row.settle.__name__}, then {row.theirs}"
        await row.settle(shop)
        for kept in [one async for one in records_of(live.app.store, scope_key, SettledOperation)]:
            found = await live.app.store.get(f"{scope_key}/{kept.id}")
            assert found is not None
            await live.app.store.commit([Write(found.key, found.version, None)])
        said = shop.said(row.kind)
        agreeing = {**said, "parent": shop.said("authorize")["reference"]}
        assert (await live.notice(**agreeing)).status == 200
        items = (await live.get("/ops/v1/open_items", {"limit": 100}))["data"]
        assert [item for item in items if item["reference"] == said["reference"]] == [], name
        word = "Accepted" if row.theirs == "succeeded" else "Declined"
        for _ in range(2):
            assert (await live.notice(**{**agreeing, "status": word})).status == 200
        items = (await live.get("/ops/v1/open_items", {"limit": 100}))["data"]
        told = [item for item in items if item["reference"] == said["reference"]]
        sides = [(item["kind"], item["operation"], item["ours"], item["theirs"]) for item in told]
        assert sides == [("contradiction", row.kind, row.ours, row.theirs)], name


async def test_a_capture_that_was_declined_before_another_is_not_taken_for_it(live: LiveMerchant) -> None:
    """An earlier version kept neither outcome, and the bank repeats the first: that is no contradiction."""
    shop = Shop(live, keyed=True)
    scope_key = Scope(account=live.merchant.account, mode="live").key
    live.status = "Accepted"
    held = await shop.pay(capture_method="manual")
    path = f"/v1/payment_intents/{held['id']}/capture"
    live.status = "Declined"
    await shop.post(path, 402)
    declined = shop.said("capture")
    live.status = "Accepted"
    await shop.post(path)
    accepted = shop.said("capture")
    assert declined["reference"] != accepted["reference"]
    for kept in [one async for one in records_of(live.app.store, scope_key, SettledOperation)]:
        found = await live.app.store.get(f"{scope_key}/{kept.id}")
        assert found is not None
        await live.app.store.commit([Write(found.key, found.version, None)])
    for said, agrees, contradicts in ((declined, "Declined", "Accepted"), (accepted, "Accepted", "Declined")):
        told = {**said, "parent": shop.said("authorize")["reference"]}
        assert (await live.notice(**{**told, "status": agrees})).status == 200
        items = (await live.get("/ops/v1/open_items"))["data"]
        assert [item for item in items if item["reference"] == said["reference"]] == []
        assert (await live.notice(**{**told, "status": contradicts})).status == 200
        items = (await live.get("/ops/v1/open_items"))["data"]
        assert [item["theirs"] for item in items if item["reference"] == said["reference"]] == [
            "succeeded" if contradicts == "Accepted" else "declined"
        ]


@pytest.mark.parametrize("first", ["Accepted", "Declined"])
async def test_a_charge_in_the_middle_of_many_references_is_found(live: LiveMerchant, first: str) -> None:
    """A payment stands in the index by its first reference and its latest: the second authorization has neither."""
    shop = Shop(live, keyed=True)
    options = {"card": {"request_multicapture": "if_available"}}
    live.status = "Declined"
    declined = await shop.pay(402, capture_method="manual", payment_method_options=options)
    id = declined["error"]["payment_intent"]["id"]
    card = {"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040}}
    confirm: dict[str, Any] = {"payment_method_data": card, "return_url": "https://example.com/"}
    live.status = first
    await shop.post(f"/v1/payment_intents/{id}/confirm", 200 if first == "Accepted" else 402, **confirm)
    said = shop.said("authorize")
    live.status = "Accepted"
    if first == "Declined":
        await shop.post(f"/v1/payment_intents/{id}/confirm", **confirm)
    for _ in range(REFERENCES_MAX):
        await shop.post(f"/v1/payment_intents/{id}/capture", amount_to_capture=100, final_capture="false")
    if first == "Accepted":
        dispute = {"kind": "dispute", "reference": "d-1", "parent": said["reference"], "amount": 500, "currency": "eur"}
        assert (await live.notice(**dispute, dispute="chargeback", status="Accepted")).status == 200
        (found,) = (await live.get("/v1/disputes"))["data"]
        assert (found["payment_intent"], found["amount"]) == (id, 500)
    word = "Declined" if first == "Accepted" else "Accepted"
    assert (await live.notice(**{**said, "status": word})).status == 200
    (item,) = (await live.get("/ops/v1/open_items"))["data"]
    ours = "succeeded" if first == "Accepted" else "failed"
    assert (item["operation"], item["ours"], item["subject"][:3]) == ("authorize", ours, "ch_")


async def test_a_provider_is_asked_about_what_settled_as_it_was_sent(tmp_path: Path) -> None:
    """Stripe compares the way of capture, and what was captured before; and it finds a refund by its payment."""
    async with provider_shop(tmp_path, default="stripe") as shop:
        card = {"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040}}
        given = {"amount": 4200, "currency": "eur", "confirm": True, "payment_method_data": card}
        held = await shop.post("/v1/payment_intents", {**given, "capture_method": "manual"})
        await shop.post(f"/v1/payment_intents/{held['id']}/capture", {"amount_to_capture": 1000})
        await shop.post("/v1/refunds", {"payment_intent": held["id"], "amount": 400})
        released = await shop.post("/v1/payment_intents", {**given, "capture_method": "manual"})
        await shop.post(f"/v1/payment_intents/{released['id']}/cancel", {})
        await shop.post("/v1/payment_intents", given)
        scope, store = Scope(account=shop.merchant.account, mode="live"), shop.app.store
        kinds: tuple[type[Charge | Refund | SettledOperation], ...] = (Charge, Refund, SettledOperation)
        settled = [one for kind in kinds async for one in records_of(store, scope.key, kind)]
        for one in settled:
            if isinstance(one, SettledOperation):
                tail = one.id.removeprefix("sop_")
            else:
                tail = reference_of_record(scope.key, one).removeprefix(scope.key)
            outcome = await shop.app.running.platform.attempts.ask_about_settled(scope, tail, one, "stripe")
            assert isinstance(outcome, Succeeded), f"{one}: {outcome}"
        assert [type(one).__name__ for one in settled] == ["Charge"] * 3 + ["Refund"] + ["SettledOperation"] * 2


async def _subject_of(live: LiveMerchant, reference: str, row: Settled) -> str:
    """The id of the payment, refund, payout or setup that the operation belonged to: the latest of its kind."""
    if row.kind in ("refund", "payout", "verify"):
        path = {"refund": "/v1/refunds", "payout": "/v1/payouts", "verify": "/v1/setup_intents"}[row.kind]
        return str((await live.get(path, {"limit": 1}))["data"][0]["id"])
    return str((await live.get("/v1/payment_intents", {"limit": 1}))["data"][0]["id"])


async def _everything(live: LiveMerchant) -> dict[str, Any]:
    """The merchant's payments, refunds, payouts and setups, its ledger and its events."""
    paths = ("payment_intents", "charges", "refunds", "payouts", "setup_intents", "events")
    found = {path: (await live.get(f"/v1/{path}", {"limit": 100}))["data"] for path in paths}
    return {**found, "ledger": await live.app.ok(live.key, "GET", "/ops/v1/ledger")}
