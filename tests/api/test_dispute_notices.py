"""Disputes as a live bank tells them: stages, outcomes, amounts, and reports that cannot be true."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from live_bank import LiveMerchant, live_merchant

from tillway.domain.account import SCOPE_KEY_LENGTH
from tillway.domain.dispute import DisputeTask
from tillway.operations.closes import movements_of
from tillway.operations.disputes import UNDECIDED_SECONDS, repair_deadlines
from tillway.store.codec import write_of
from tillway.store.port import ABSENT, Write

FEE = 1500
LONG_TEXTS = (
    "access_activity_log",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "duplicate_charge_explanation",
    "product_description",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "uncategorized_text",
)
"""Fields of evidence with up to 20,000 characters."""


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[LiveMerchant]:
    async with live_merchant(tmp_path, disputes="yes") as made:
        yield made


class Disputed:
    """A payment of 42.00 EUR, and what the bank says about it."""

    def __init__(self, live: LiveMerchant, payment: dict[str, Any]) -> None:
        self.live, self.payment, self.reference = live, payment, live.orders[-1]["reference"]

    async def told(self, **change: Any) -> int:
        told = {
            "kind": "dispute",
            "reference": "d-1",
            "parent": self.reference,
            "dispute": "chargeback",
            "status": "Opened",
            "amount": 4200,
            "currency": "eur",
            "reason": "product_not_received",
        }
        status: int = (await self.live.notice(**told | change)).status
        return status

    async def disputes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.live.get("/v1/disputes", {"payment_intent": self.payment["id"]}))[
            "data"
        ]
        return found

    async def only(self) -> dict[str, Any]:
        [found] = await self.disputes()
        return found

    async def taken(self) -> int:
        """What disputes and their fees have taken from the balance."""
        moves = [move for one in await self.disputes() for move in one["balance_transactions"]]
        return -sum(move["net"] for move in moves)


@pytest.fixture
async def disputed(live: LiveMerchant) -> Disputed:
    return Disputed(live, (await live.pay()).json)


async def test_the_same_report_twice_changes_nothing(disputed: Disputed) -> None:
    for _ in range(3):
        assert await disputed.told(created=disputed.live.app.clock.now_ms() // 1000) == 200
    one = await disputed.only()
    assert (one["status"], one["amount"], one["reason"]) == ("needs_response", 4200, "product_not_received")
    assert one["payment_method_details"]["card"]["network_reason_code"] == "13.1"
    assert await disputed.taken() == 4200 + FEE


async def test_an_inquiry_becomes_a_chargeback(disputed: Disputed) -> None:
    assert await disputed.told(dispute="inquiry") == 200
    assert (await disputed.only())["status"] == "warning_needs_response" and await disputed.taken() == 0
    due = disputed.live.app.clock.now_ms() // 1000 + 86_400
    assert await disputed.told(amount=4000, evidence_due=due, network_reason_code="13.1") == 200
    assert await disputed.told(dispute="inquiry") == 200
    one = await disputed.only()
    assert (one["status"], one["amount"], one["evidence_details"]["due_by"]) == ("needs_response", 4000, due)
    assert await disputed.taken() == 4000 + FEE


@pytest.mark.parametrize(
    ("verdict", "status", "taken"), [("Won", "won", 0), ("Lost", "lost", 4200 + FEE), ("Accepted", "lost", 4200 + FEE)]
)
async def test_the_outcome_is_the_banks(disputed: Disputed, verdict: str, status: str, taken: int) -> None:
    await disputed.told()
    for _ in range(2):
        assert await disputed.told(status=verdict) == 200
    assert (await disputed.only())["status"] == status and await disputed.taken() == taken
    assert await disputed.told() == 200, "a late report"
    assert (await disputed.only())["status"] == status and await disputed.taken() == taken


async def test_an_outcome_without_a_beginning(disputed: Disputed) -> None:
    assert await disputed.told(status="Lost") == 200
    assert (await disputed.only())["status"] == "lost" and await disputed.taken() == 4200 + FEE


async def test_another_outcome_becomes_an_open_item(disputed: Disputed) -> None:
    await disputed.told(status="Lost")
    for _ in range(2):
        assert await disputed.told(status="Won") == 200
    assert (await disputed.only())["status"] == "lost" and await disputed.taken() == 4200 + FEE
    [item] = (await disputed.live.get("/ops/v1/open_items"))["data"]
    assert (item["ours"], item["theirs"], item["amount"]) == ("lost", "won", 4200)


async def test_a_later_deadline_holds(disputed: Disputed) -> None:
    live, clock = disputed.live, disputed.live.app.clock
    due = clock.now_ms() // 1000 + 86_400
    for each in (due, due + 86_400, due):
        assert await disputed.told(evidence_due=each) == 200
    assert (await disputed.only())["evidence_details"]["due_by"] == due + 86_400
    clock.ahead_seconds += 86_400 + 60
    await live.run_due()
    assert (await disputed.only())["status"] == "needs_response", "the first deadline ends nothing"
    clock.ahead_seconds += 86_400
    await live.run_due()
    assert (await disputed.only())["status"] == "lost"


@pytest.mark.parametrize("status", ["Opened", "Won"])
async def test_another_amount_becomes_an_open_item(
    disputed: Disputed, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Tillway cannot know which of the bank's two amounts is right, so it books no other than the first."""
    await disputed.told()
    for _ in range(2):
        assert await disputed.told(status=status, amount=4000) == 200
    assert (await disputed.only())["status"] == "needs_response" and await disputed.taken() == 4200 + FEE
    [item] = (await disputed.live.get("/ops/v1/open_items"))["data"]
    assert (item["kind"], item["ours"]) == ("contradiction", "needs_response, 42.00 EUR")
    assert item["theirs"] == f"{status.lower()}, 40.00 EUR"
    assert "a provider contradicts what is booked of a dispute" in caplog.text
    assert await disputed.told(status="Won") == 200
    assert (await disputed.only())["status"] == "won" and await disputed.taken() == 0


async def test_several_for_one_payment_after_a_refund(disputed: Disputed) -> None:
    """The amounts are the bank's, also above what is left of the payment; the balance says so."""
    live = disputed.live
    refunded = await live.call("/v1/refunds", {"payment_intent": disputed.payment["id"], "amount": 3000})
    assert refunded.json["status"] == "succeeded"
    assert await disputed.told() == 200 and await disputed.told(reference="d-2", amount=4000) == 200
    assert sorted(one["amount"] for one in await disputed.disputes()) == [4000, 4200]
    balance = await live.get("/v1/balance")
    assert sum(row["amount"] for kind in ("available", "pending") for row in balance[kind]) < -6000
    assert await disputed.told(status="Won") == 200
    again = await live.call("/v1/refunds", {"payment_intent": disputed.payment["id"]})
    assert again.json["error"]["code"] == "charge_disputed", "the other dispute has the money"


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "negative": {"amount": -1},
    "zero": {"amount": 0},
    "fraction": {"amount": 42.5},
    "no amount": {"amount": None},
    "more than was paid": {"amount": 4201},
    "other currency": {"currency": "usd"},
    "unknown kind": {"dispute": "complaint"},
    "unknown status": {"status": "Fine"},
    "a list as kind": {"dispute": []},
    "an object as status": {"status": {}},
    "reference of two lines": {"reference": "d\r\n1"},
    "due in words": {"evidence_due": "soon"},
    "due in milliseconds": {"evidence_due": 1_800_000_000_000},
    "due never": {"evidence_due": 2**63},
    "no payment of ours": {"parent": "x" * 30},
}


@pytest.mark.parametrize("change", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
async def test_what_cannot_be_is_refused_with_an_alarm(
    disputed: Disputed, caplog: pytest.LogCaptureFixture, change: dict[str, Any]
) -> None:
    if "parent" in change:
        change = {"parent": disputed.reference[:17] + "0" * 16}
    assert await disputed.told(**change) == 400
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["a notice cannot be true"]
    assert await disputed.disputes() == []


@pytest.mark.parametrize(("age", "why"), [(7200, "older than an hour"), (-7200, "dated in the future")])
async def test_a_report_of_another_time_is_taken_with_an_alarm(
    disputed: Disputed, caplog: pytest.LogCaptureFixture, age: int, why: str
) -> None:
    assert await disputed.told(created=disputed.live.app.clock.now_ms() // 1000 - age) == 200
    [alarm] = [one for one in caplog.records if one.message == "a dispute is taken although its notice is no proof"]
    assert why in vars(alarm)["why"]
    assert (await disputed.only())["status"] == "needs_response"


@pytest.mark.parametrize("told_again", [False, True])
async def test_a_report_waits_a_day_for_a_capture_that_may_explain_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, told_again: bool
) -> None:
    """10.00 are captured, 20.00 may be, and the authorization has 42.00. The report's item is closed by hand, or by the
    same report when it can be booked."""
    async with live_merchant(tmp_path, disputes="yes", multicapture="yes") as live:
        options = {"card": {"request_multicapture": "if_available"}}
        held = (await live.pay(capture_method="manual", payment_method_options=options)).json
        disputed = Disputed(live, held)
        path = f"/v1/payment_intents/{held['id']}/capture"
        assert (await live.call(path, {"amount_to_capture": 1000, "final_capture": False})).status == 200
        assert await disputed.told(amount=1001) == 400, "no capture is under way"
        live.refuses = 500
        waiting = (await live.call(path, {"amount_to_capture": 2000, "final_capture": False})).json
        assert waiting["status"] == "processing"
        for amount, status in ((3000, 503), (3001, 400), (4201, 400)):
            assert await disputed.told(amount=amount) == status, amount
        assert await disputed.told(amount=3000, currency="usd") == 400
        live.app.clock.ahead_seconds += 1 + UNDECIDED_SECONDS
        caplog.clear()
        for _ in range(2):
            assert await disputed.told(amount=3000) == 200
        assert "a dispute cannot be booked" in caplog.messages
        [item] = (await live.get("/ops/v1/open_items"))["data"]
        assert (item["operation"], item["reference"], item["amount"]) == ("dispute", "d-1", 3000)
        assert (item["subject"], item["theirs"], len(item["notices"])) == (held["id"], "opened", 1)
        assert await disputed.disputes() == []
        # The bank answers again, and the capture is booked.
        live.refuses = None
        await live.run_due()
        assert (await live.get(f"/v1/payment_intents/{held['id']}"))["amount_received"] == 3000
        if told_again:
            assert await disputed.told(amount=3000) == 200
        else:
            operator = await live.app.operator("operator", live.merchant.account, mode="live")
            closing = {"reason": "The capture is booked."}
            await live.app.ok(operator, "POST", f"/ops/v1/open_items/{item['id']}/close", closing)
        await live.app.wait(0)
        assert (await disputed.only())["amount"] == 3000
        [closed] = (await live.get("/ops/v1/open_items"))["data"]
        assert (closed["status"], closed["closed_by"] == "system") == ("closed", told_again)


async def test_a_bank_that_knows_no_outcomes(tmp_path: Path) -> None:
    """Its disputes are always `Accepted`, which means that they were opened."""
    async with live_merchant(tmp_path) as live:
        disputed = Disputed(live, (await live.pay()).json)
        for _ in range(2):
            assert await disputed.told(status="Accepted", reason="my own word") == 200
        one = await disputed.only()
        assert (one["status"], one["reason"]) == ("needs_response", "general")


async def test_evidence_goes_out_until_the_bank_has_it(disputed: Disputed) -> None:
    live = disputed.live
    await disputed.told()
    dispute = await disputed.only()
    evidence = {"uncategorized_text": "winning_evidence", "customer_name": "Ada"}
    answered = (await live.call(f"/v1/disputes/{dispute['id']}", {"evidence": evidence})).json
    assert answered["status"] == "under_review" and live.replies == []
    live.reply_status = 503
    await live.run_due()
    live.reply_status = 200
    for _ in range(3):
        live.app.clock.ahead_seconds += 60
        await live.run_due()
    text = "customer_name: Ada\nuncategorized_text: winning_evidence"
    sent = ("/v1/disputes/d-1/evidence", "chargeback-evidence-d-1", {"reference": "d-1", "text": text})
    assert live.replies == [sent, sent], "once more after the 503, and never after it was taken"
    live.app.clock.ahead_seconds += 30 * 86_400
    await live.run_due()
    assert (await disputed.only())["status"] == "under_review", "the deadline was for an answer"
    assert await disputed.told(status="Won") == 200
    assert (await disputed.only())["status"] == "won"


async def test_an_inquiry_and_its_chargeback_are_answered_apart(disputed: Disputed) -> None:
    """A bank that takes each key once must not take the second answer for the first."""
    live = disputed.live
    for stage in ("inquiry", "chargeback"):
        assert await disputed.told(reference="fall/ö 1", dispute=stage) == 200
        path = f"/v1/disputes/{(await disputed.only())['id']}"
        assert (await live.call(path, {"evidence": {"uncategorized_text": "He got it."}})).status == 200
    await live.run_due()
    sent = [(path, key) for path, key, _ in live.replies]
    reference = "fall%2F%C3%B6%201"
    assert sorted(sent) == [
        (f"/v1/disputes/{reference}/evidence", f"{stage}-evidence-{reference}") for stage in ("chargeback", "inquiry")
    ]


async def test_a_reply_that_an_earlier_version_began_keeps_its_key(disputed: Disputed) -> None:
    live = disputed.live
    await disputed.told()
    dispute = await disputed.only()
    task = DisputeTask(id="dut_old", created=0, kind="evidence", dispute=dispute["id"], due_at_ms=0, text="old")
    await live.app.store.commit([write_of(disputed.reference[:SCOPE_KEY_LENGTH], task, ABSENT)])
    await live.run_due()
    assert [key for _, key, _ in live.replies] == ["evidence-d-1"]


@pytest.mark.parametrize(("verdict", "moved"), [("Opened", [-4200]), ("Won", [-4200, 4200]), ("Lost", [-4200])])
async def test_the_daily_close_has_it_when_the_bank_moved_the_money(
    disputed: Disputed, verdict: str, moved: list[int]
) -> None:
    clock, scope_key = disputed.live.app.clock, disputed.reference[:SCOPE_KEY_LENGTH]
    days = [datetime.fromtimestamp(clock.now_ms() / 1000, UTC).date().isoformat()]
    await disputed.told()
    await disputed.told(status=verdict)
    days.append(datetime.fromtimestamp(clock.now_ms() / 1000, UTC).date().isoformat())
    found = [
        each for day in dict.fromkeys(days) for each in await movements_of(disputed.live.app.store, scope_key, day)
    ]
    of_dispute = [each for each in found if "d-1" in each.references]
    assert [(each.place, each.amount_minor) for each in of_dispute] == [("bank", amount) for amount in moved]


async def test_acceptance_goes_out(disputed: Disputed) -> None:
    live = disputed.live
    await disputed.told()
    lost = (await live.call(f"/v1/disputes/{(await disputed.only())['id']}/close", {})).json
    assert lost["status"] == "lost"
    await live.run_due()
    assert [path for path, _, _ in live.replies] == ["/v1/disputes/d-1/accept"]
    assert await disputed.told(status="Accepted") == 200
    assert (await live.get("/ops/v1/open_items"))["data"] == []


@pytest.mark.parametrize(("stage", "status"), [("chargeback", "lost"), ("inquiry", "warning_closed")])
async def test_a_deadline_passes(disputed: Disputed, stage: str, status: str) -> None:
    live = disputed.live
    due = live.app.clock.now_ms() // 1000 + 3600
    assert await disputed.told(dispute=stage, evidence_due=due) == 200
    live.app.clock.ahead_seconds += 3500
    await live.run_due()
    assert "needs_response" in (await disputed.only())["status"]
    live.app.clock.ahead_seconds += 200
    await live.run_due()
    assert (await disputed.only())["status"] == status and live.replies == []


async def test_a_chargeback_has_a_deadline_where_the_same_one_closed_its_inquiry(disputed: Disputed) -> None:
    live = disputed.live
    due = live.app.clock.now_ms() // 1000 + 3600
    assert await disputed.told(dispute="inquiry", evidence_due=due) == 200
    live.app.clock.ahead_seconds += 3700
    await live.run_due()
    assert (await disputed.only())["status"] == "warning_closed"
    assert await disputed.told(evidence_due=due) == 200
    await live.run_due()
    assert (await disputed.only())["status"] == "lost"


@pytest.mark.parametrize("waits", [True, False])
async def test_a_dispute_that_lost_its_deadline_gets_it_back(disputed: Disputed, waits: bool) -> None:
    """An earlier version made no deadline for a chargeback whose inquiry had closed at the same one."""
    live, scope_key = disputed.live, disputed.reference[:SCOPE_KEY_LENGTH]
    await disputed.told(dispute="inquiry", evidence_due=live.app.clock.now_ms() // 1000 + 86_400)
    await disputed.told(evidence_due=live.app.clock.now_ms() // 1000 + 86_400)
    if not waits:
        await disputed.told(status="Won")
    for row in await live.app.store.query(None, f"{scope_key}/dut_", limit=10):
        await live.app.store.commit([Write(row.key, row.version, None)])
    for _ in range(2):
        await repair_deadlines(live.app.running.platform.engine)
    made = await live.app.store.query(None, f"{scope_key}/dut_", limit=10)
    assert len(made) == (1 if waits else 0)
    live.app.clock.ahead_seconds += 2 * 86_400
    await live.run_due()
    assert (await disputed.only())["status"] == ("lost" if waits else "won")


async def test_a_chargeback_is_put_off_to_the_deadline_of_its_inquiry(disputed: Disputed) -> None:
    due = disputed.live.app.clock.now_ms() // 1000 + 7200
    assert await disputed.told(dispute="inquiry", evidence_due=due) == 200
    for each in (due - 3600, due):
        assert await disputed.told(evidence_due=each) == 200
    assert (await disputed.only())["evidence_details"]["due_by"] == due


async def test_a_reference_that_two_payments_share_is_an_alarm(
    live: LiveMerchant, caplog: pytest.LogCaptureFixture
) -> None:
    """Both are booked: the bank has taken the money of both."""
    first = Disputed(live, (await live.pay()).json)
    assert await first.told() == 200 and await first.told() == 200
    second = Disputed(live, (await live.pay()).json)
    assert not [record for record in caplog.records if "one reference" in record.getMessage()]
    assert await second.told() == 200
    [alarm] = [record for record in caplog.records if "one reference" in record.getMessage()]
    assert (alarm.levelname, vars(alarm)["dispute"], vars(alarm)["others"]) == (
        "ERROR",
        "d-1",
        (await first.only())["id"],
    )
    assert await second.told() == 200 and await first.taken() == await second.taken() == 4200 + FEE
    assert len([record for record in caplog.records if "one reference" in record.getMessage()]) == 1


async def test_all_evidence_together_has_a_bound(disputed: Disputed) -> None:
    await disputed.told()
    path = f"/v1/disputes/{(await disputed.only())['id']}"
    full = dict.fromkeys(LONG_TEXTS[:7], "x" * 20000)
    staged = await disputed.live.call(path, {"evidence": full, "submit": False})
    assert staged.status == 200
    more = {LONG_TEXTS[7]: "x" * 10_001}
    refused = await disputed.live.call(path, {"evidence": more, "submit": False})
    error = refused.json["error"]
    assert (refused.status, error["param"]) == (400, "evidence") and "150,001" in error["message"]
    more[LONG_TEXTS[0]] = ""
    assert (await disputed.live.call(path, {"evidence": more, "submit": False})).status == 200, "a cleared one is gone"
