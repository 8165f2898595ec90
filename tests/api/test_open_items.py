"""Open items: a provider that contradicts a settled outcome is heard, and an operator clears it up."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from good_calls import MerchantObjects

from tillway.connectors.port import Declined, Notice, Outcome, Succeeded
from tillway.operations import notices
from tillway.testing.in_process import InProcessApp


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def objects(data_dir: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(data_dir)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


async def tell(objects: MerchantObjects, suffix: str, outcome: Outcome) -> None:
    reference = f"{objects.merchant.account.removeprefix('acct_')}t{suffix}"
    notice = Notice(id=f"late-{suffix}", kind="operation", reference=reference, outcome=outcome)
    await notices.book(objects.app.running.platform.attempts, notice, "simulator", "test")


async def test_a_word_against_a_resolution_is_never_dropped(objects: MerchantObjects) -> None:
    id = await objects.open_item()
    item = await objects.app.ok(objects.merchant, "GET", f"/ops/v1/open_items/{id}")
    assert (item["kind"], item["ours"], item["theirs"], item["status"]) == (
        "contradiction",
        "failed",
        "succeeded",
        "open",
    )
    assert item["subject"].startswith("ch_") and (item["amount"], item["connector"]) == (2400, "simulator")
    events = (await objects.app.ok(objects.merchant, "GET", "/v1/events", {"type": "open_item.created"}))["data"]
    assert [event["data"]["object"]["id"] for event in events] == [id]
    ledger = await objects.app.ok(objects.merchant, "GET", "/ops/v1/ledger")
    assert ledger["entries"] == 0, "nothing is booked before a person has decided"


async def test_said_again_it_is_the_same_item(objects: MerchantObjects) -> None:
    id = await objects.open_item()
    await tell(objects, id.removeprefix("oi_").partition(".")[0], Succeeded(bank_id="bank-1"))
    listed = (await objects.app.ok(objects.merchant, "GET", "/ops/v1/open_items"))["data"]
    assert [item["id"] for item in listed] == [id]


async def test_a_bank_that_declines_what_it_had_approved(objects: MerchantObjects) -> None:
    paid = await objects.paid()
    await tell(objects, paid["latest_charge"].removeprefix("ch_"), Succeeded(bank_id="bank-1"))
    assert (await objects.app.ok(objects.merchant, "GET", "/ops/v1/open_items"))["data"] == []
    await tell(objects, paid["latest_charge"].removeprefix("ch_"), Declined())
    (item,) = (await objects.app.ok(objects.merchant, "GET", "/ops/v1/open_items"))["data"]
    assert (item["ours"], item["theirs"]) == ("succeeded", "declined")
    kept = await objects.app.ok(objects.merchant, "GET", f"/v1/payment_intents/{paid['id']}")
    assert kept["status"] == "succeeded"


async def test_an_operator_closes_it_once_and_says_why(objects: MerchantObjects) -> None:
    id = await objects.open_item()
    path, key = f"/ops/v1/open_items/{id}/close", objects.merchant.operator_key
    assert (await objects.app.call(objects.merchant, "POST", path, {"reason": "mine"})).status == 403
    assert (await objects.app.call(key, "POST", path)).json["error"]["param"] == "reason"
    closed = await objects.app.ok(key, "POST", path, {"reason": "The bank gave it back."})
    assert (closed["status"], closed["resolution"]) == ("closed", "The bank gave it back.")
    assert closed["closed_by"].startswith("opr_")
    again = await objects.app.call(key, "POST", path, {"reason": "Once more."})
    assert (again.status, again.json["error"]["code"]) == (400, "open_item_closed")
    assert (await objects.app.ok(objects.merchant, "GET", "/ops/v1/open_items", {"status": "open"}))["data"] == []
