"""What stands beside Stripe's API: the simulator's faults, money in doubt, and the log of refusals."""

from asyncio import gather
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from good_calls import MerchantObjects

from tillway.domain.account import Scope
from tillway.domain.attempt import Attempt
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.operations import doubts
from tillway.testing.in_process import InProcessApp


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def objects(data_dir: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(data_dir)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


async def test_faults_by_form_and_by_json(objects: MerchantObjects) -> None:
    rule = {"fault": "slow", "ms": 20, "probability": 0.5, "times": 3}
    by_form = await objects.post("/ops/v1/simulator", faults={"seed": 7, "rules": [rule]})
    sent = b'{"faults": {"seed": 7, "rules": [{"fault": "slow", "ms": 20, "probability": 0.5, "times": 3}]}}'
    answer = await objects.app.send(
        "POST", "/ops/v1/simulator", key=objects.merchant.key, body=sent, content_type="application/json"
    )
    assert answer.json == by_form == await objects.app.ok(objects.merchant, "GET", "/ops/v1/simulator")
    cleared = await objects.app.send(
        "POST", "/ops/v1/simulator", key=objects.merchant.key, body=b'{"faults": {}}', content_type="application/json"
    )
    assert cleared.json["faults"] == {"seed": 0, "rules": []}


@pytest.mark.parametrize(
    ("rule", "param"),
    [
        ({"fault": "frobnicate"}, "faults[rules][0][fault]"),
        ({"ms": "5"}, "faults[rules][0][fault]"),
        ({"fault": "slow", "ms": "600001"}, "faults[rules][0][ms]"),
        ({"fault": "slow", "probability": "1.1"}, "faults[rules][0][probability]"),
        ({"fault": "slow", "probability": "NaN"}, "faults[rules][0][probability]"),
        ({"fault": "slow", "probability": "x"}, "faults[rules][0][probability]"),
        ({"fault": "error_after", "status": "200"}, "faults[rules][0][status]"),
        ({"fault": "slow", "operation": "dance"}, "faults[rules][0][operation]"),
    ],
)
async def test_faults_that_cannot_be(objects: MerchantObjects, rule: dict[str, Any], param: str) -> None:
    answer = await objects.app.call(objects.merchant, "POST", "/ops/v1/simulator", {"faults": {"rules": [rule]}})
    assert (answer.status, answer.json["error"]["param"]) == (400, param)


@pytest.mark.parametrize("fault", ["lose_answer", "reset_after", "half_body", "error_after"])
async def test_an_answer_that_was_lost_is_asked_for(objects: MerchantObjects, fault: str) -> None:
    rule = {"fault": fault, "operation": "authorize", "times": 1}
    await objects.post("/ops/v1/simulator", faults={"rules": [rule]})
    assert (await objects.paid())["status"] == "succeeded"
    ledger = await objects.app.ok(objects.merchant, "GET", "/ops/v1/ledger")
    assert {"account": "receivable:simulator", "balance": 4200, "currency": "eur"} in ledger["accounts"]


async def test_a_doubt_is_resolved_by_a_person(objects: MerchantObjects) -> None:
    doubt = await objects.doubt()
    listed = await objects.app.ok(objects.merchant, "GET", "/ops/v1/doubts")
    assert [(one["id"], one["state"], one["amount"]) for one in listed["data"]] == [(doubt, "pending", 2400)]
    payment, fee = listed["data"][0]["subject"], listed["data"][0]["fee"]
    resolved = await objects.resolve(doubt, "succeeded")
    (booked,) = (await objects.app.ok(objects.merchant, "GET", "/v1/balance_transactions", {"limit": 1}))["data"]
    assert (booked["amount"], booked["fee"]) == (2400, fee)
    assert resolved["resolved"] == "succeeded"
    assert (await objects.app.ok(objects.merchant, "GET", f"/v1/payment_intents/{payment}"))["status"] == "succeeded"
    assert (await objects.app.ok(objects.merchant, "GET", "/ops/v1/doubts"))["data"] == []
    params = {"outcome": "failed", "reason": "The bank says otherwise."}
    again = await objects.app.call(objects.merchant.operator_key, "POST", f"/ops/v1/doubts/{doubt}/resolve", params)
    assert again.status == 404


async def test_a_settlement_by_hand_is_repeated_under_its_key(objects: MerchantObjects) -> None:
    """Of two requests under one key at the same time, one settles; another request under it is refused."""
    doubt = await objects.doubt()
    path, operator = f"/ops/v1/doubts/{doubt}/resolve", objects.merchant.operator_key
    params = {"outcome": "succeeded", "reason": "By telephone."}
    key = {"idempotency_key": "settle"}
    both = await gather(*(objects.app.call(operator, "POST", path, params, **key) for _ in range(2)))
    assert sorted(answer.status for answer in both) in ([200, 200], [200, 409]), [answer.body for answer in both]
    [first, *_] = [answer for answer in both if answer.status == 200]
    assert first.json["resolved"] == "succeeded"
    again = await objects.app.call(operator, "POST", path, params, **key)
    assert (again.status, again.body, again.headers["idempotent-replayed"]) == (200, first.body, "true")
    other = await objects.app.call(operator, "POST", path, {**params, "outcome": "failed"}, **key)
    assert (other.status, other.json["error"]["code"]) == (400, "idempotency_key_reused")


async def test_a_second_settlement_by_hand_is_told_that_it_was_not_made(objects: MerchantObjects) -> None:
    """Both operators have seen the doubt before either has settled it."""
    doubt = await objects.doubt()
    platform = objects.app.running.platform
    scope = Scope(account=objects.merchant.account, mode="test")
    seen = await platform.engine.load(scope.key).get(Attempt, doubt)
    await objects.resolve(doubt, "succeeded")
    with pytest.raises(Refused) as refused:
        await doubts.resolve(platform.attempts, Caller.system(scope), seen, "failed", None)
    assert refused.value.code == "resource_missing"


async def test_what_takes_days_is_no_doubt_until_they_are_over(objects: MerchantObjects) -> None:
    """A card whose bank does not know yet is in doubt at once, a debit whose bank never tells after two weeks; a
    question about it that is lost meanwhile makes no doubt of it."""
    card = await objects.doubt()
    debit = await objects.paid(
        "pm_usBankAccount_processing",
        currency="usd",
        payment_method_types=["us_bank_account"],
        mandate_data={"customer_acceptance": {"type": "offline"}},
    )
    assert debit["status"] == "processing"

    async def doubts(**params: Any) -> Any:
        return await objects.app.ok(objects.merchant, "GET", "/ops/v1/doubts", params)

    assert [one["id"] for one in (await doubts())["data"]] == [card]
    await objects.app.wait(12 * 86_400)
    await objects.post("/ops/v1/simulator", faults={"rules": [{"fault": "error_before", "operation": "look_up"}]})
    await objects.app.wait(86_400)
    assert (await doubts())["data"] == [], "the card has been asked about since, and the debit has a day left"
    await objects.app.wait(86_400)
    other = await objects.doubt()
    overdue = f"att_{debit['latest_charge'].removeprefix('ch_')}"
    page = await doubts(limit=1)
    assert [(one["id"], one["needs_attention"]) for one in page["data"]] == [(overdue, True)]
    assert page["has_more"]
    assert [one["id"] for one in (await doubts(starting_after=overdue))["data"]] == [other]
