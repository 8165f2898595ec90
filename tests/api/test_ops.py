"""What stands beside Stripe's API: the simulator's faults, money in doubt, and the log of refusals."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from good_calls import Stall

from tillway.testing.in_process import Inside


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def stall(data_dir: Path) -> AsyncIterator[Stall]:
    inside = await Inside.open(data_dir)
    yield Stall(inside, await inside.merchant())
    await inside.close()


async def test_faults_by_form_and_by_json(stall: Stall) -> None:
    rule = {"fault": "slow", "ms": 20, "probability": 0.5, "times": 3}
    by_form = await stall.post("/ops/v1/simulator", faults={"seed": 7, "rules": [rule]})
    sent = b'{"faults": {"seed": 7, "rules": [{"fault": "slow", "ms": 20, "probability": 0.5, "times": 3}]}}'
    answer = await stall.inside.send(
        "POST", "/ops/v1/simulator", key=stall.merchant.key, body=sent, content_type="application/json"
    )
    assert answer.json == by_form == await stall.inside.ok(stall.merchant, "GET", "/ops/v1/simulator")
    cleared = await stall.inside.send(
        "POST", "/ops/v1/simulator", key=stall.merchant.key, body=b'{"faults": {}}', content_type="application/json"
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
async def test_faults_that_cannot_be(stall: Stall, rule: dict[str, Any], param: str) -> None:
    answer = await stall.inside.call(stall.merchant, "POST", "/ops/v1/simulator", {"faults": {"rules": [rule]}})
    assert (answer.status, answer.json["error"]["param"]) == (400, param)


@pytest.mark.parametrize("fault", ["lose_answer", "reset_after", "half_body", "error_after"])
async def test_an_answer_that_was_lost_is_asked_for(stall: Stall, fault: str) -> None:
    rule = {"fault": fault, "operation": "authorize", "times": 1}
    await stall.post("/ops/v1/simulator", faults={"rules": [rule]})
    assert (await stall.paid())["status"] == "succeeded"
    ledger = await stall.inside.ok(stall.merchant, "GET", "/ops/v1/ledger")
    assert {"account": "receivable:simulator", "balance": 4200, "currency": "eur"} in ledger["accounts"]


async def test_a_doubt_is_resolved_by_a_person(stall: Stall) -> None:
    doubt = await stall.doubt()
    listed = await stall.inside.ok(stall.merchant, "GET", "/ops/v1/doubts")
    assert [(one["id"], one["state"], one["amount"]) for one in listed["data"]] == [(doubt, "pending", 24)]
    payment = listed["data"][0]["subject"]
    resolved = await stall.post(f"/ops/v1/doubts/{doubt}/resolve", outcome="succeeded")
    assert resolved["resolved"] == "succeeded"
    assert (await stall.inside.ok(stall.merchant, "GET", f"/v1/payment_intents/{payment}"))["status"] == "succeeded"
    assert (await stall.inside.ok(stall.merchant, "GET", "/ops/v1/doubts"))["data"] == []
    again = await stall.inside.call(stall.merchant, "POST", f"/ops/v1/doubts/{doubt}/resolve", {"outcome": "declined"})
    assert again.status == 404


async def test_what_takes_days_is_no_doubt_until_they_are_over(stall: Stall) -> None:
    """A card whose bank does not know yet is in doubt at once, a debit whose bank never tells after two weeks; a
    question about it that is lost meanwhile makes no doubt of it."""
    card = await stall.doubt()
    debit = await stall.paid(
        "pm_usBankAccount_processing",
        currency="usd",
        payment_method_types=["us_bank_account"],
        mandate_data={"customer_acceptance": {"type": "offline"}},
    )
    assert debit["status"] == "processing"

    async def doubts(**params: Any) -> Any:
        return await stall.inside.ok(stall.merchant, "GET", "/ops/v1/doubts", params)

    assert [one["id"] for one in (await doubts())["data"]] == [card]
    await stall.inside.wait(12 * 86_400)
    await stall.post("/ops/v1/simulator", faults={"rules": [{"fault": "error_before", "operation": "look_up"}]})
    await stall.inside.wait(86_400)
    assert (await doubts())["data"] == [], "the card has been asked about since, and the debit has a day left"
    await stall.inside.wait(86_400)
    other = await stall.doubt()
    overdue = f"att_{debit['latest_charge'].removeprefix('ch_')}"
    page = await doubts(limit=1)
    assert [(one["id"], one["needs_attention"]) for one in page["data"]] == [(overdue, True)]
    assert page["has_more"]
    assert [one["id"] for one in (await doubts(starting_after=overdue))["data"]] == [other]
