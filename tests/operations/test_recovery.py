"""A bank's list against the store: what explains what, and lists that do not end."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from live_bank import CARD, LiveMerchant, live_merchant

from tillway.domain.connector_config import ConnectorConfig
from tillway.operations import recovery
from tillway.operations.recovery import Recovery, Report, survey

CONFIG = ConnectorConfig(id="con_1", created=0, name="bank", kind="http_bank", mode="live")


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[LiveMerchant]:
    async with live_merchant(tmp_path, list="yes") as made:
        yield made


async def held(live: LiveMerchant) -> str:
    paid = await live.pay(capture_method="manual")
    assert paid.status == 200, paid.body
    return str(paid.json["id"])


async def look(live: LiveMerchant, *, book: bool) -> Report:
    attempts = live.app.running.platform.attempts
    (report,) = await survey(Recovery(attempts, actor="recovery" if book else None), attempts, [CONFIG], 0)
    return report


def lost(told: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """The same operation once more, under a reference of which the store knows nothing."""
    return {**told, "reference": told["reference"][:17] + "0" * 17, **changed}


@pytest.mark.parametrize("book", [False, True])
@pytest.mark.parametrize("place", ["before", "after"])
async def test_a_capture_that_is_known_explains_its_charge_wherever_it_is_listed(
    live: LiveMerchant, place: str, book: bool
) -> None:
    """Another capture of the same amount was lost, so it is the one that a person must look at."""
    id = await held(live)
    assert (await live.call(f"/v1/payment_intents/{id}/capture", {})).status == 200
    authorization, known = live.told.values()
    parent = {"parent": authorization["reference"]}
    unknown = lost({**known, **parent})
    both = [unknown, {**known, **parent}]
    listed = [authorization, *(both if place == "before" else reversed(both))]
    live.told = {told["reference"]: told for told in listed}
    report = await look(live, book=book)
    verdicts = {found.reference: found.verdict for found in report.found}
    assert verdicts == {
        authorization["reference"]: "agrees",
        known["reference"]: "agrees",
        unknown["reference"]: "unexplained",
    }
    items = (await live.get("/ops/v1/open_items"))["data"]
    assert [item["reference"] for item in items] == ([unknown["reference"]] if book else [])


@pytest.mark.parametrize("kind", ["verification", "verifications"])
async def test_a_verification_in_the_list_stops_no_recovery(tmp_path: Path, kind: str) -> None:
    """The contract lets a bank list more than was asked for. It moved no money, and tells no outcome."""
    async with live_merchant(tmp_path, list="yes", verifications="yes") as live:
        method = (await live.call("/v1/payment_methods", {"type": "card", "card": CARD})).json["id"]
        await live.call("/v1/setup_intents", {"payment_method": method, "confirm": True})
        await live.pay()
        verified, _ = live.told.values()
        verified["kind"] = kind
        for book in (False, True):
            report = await look(live, book=book)
            assert [(found.kind, found.verdict) for found in report.found] == [
                ("verify", "no_money"),
                ("authorize", "agrees"),
            ]


async def test_a_declined_capture_takes_no_place_of_the_one_that_was_accepted(live: LiveMerchant) -> None:
    """Neither is known by its reference: both are of a version that kept none."""
    id = await held(live)
    assert (await live.call(f"/v1/payment_intents/{id}/capture", {})).status == 200
    authorization, known = live.told.values()
    parent = {"parent": authorization["reference"]}
    declined = lost({**known, **parent}, status="Declined")
    accepted = lost({**known, **parent})
    accepted["reference"] = accepted["reference"][:-1] + "1"
    live.told = {told["reference"]: told for told in (authorization, declined, accepted)}
    report = await look(live, book=True)
    verdicts = [(found.reference, found.verdict) for found in report.found]
    assert verdicts[1:] == [(accepted["reference"], "agrees"), (declined["reference"], "no_money")]
    assert (await live.get("/ops/v1/open_items"))["data"] == []


async def test_a_dispute_outlives_the_item_that_kept_it(tmp_path: Path) -> None:
    """A payment was lost in a restore, and disputed. An operator clears the payment up; the dispute goes on."""
    async with live_merchant(tmp_path, list="yes", disputes="yes") as live:
        await live.pay()
        [known] = live.told.values()
        taken = lost(known)
        told = {"kind": "dispute", "reference": "d-1", "parent": taken["reference"], "dispute": "chargeback"}
        opened = {**told, "status": "Opened", "amount": 4200, "currency": "eur", "reason": "fraudulent"}
        live.told = {"1": taken, "2": opened}
        assert [found.verdict for found in (await look(live, book=True)).found] == ["unexplained", "decide"]
        [item] = (await live.get("/ops/v1/open_items"))["data"]
        shown = [(one["kind"], one["reference"], one["stage"], one["status"]) for one in item["notices"]]
        assert shown == [("dispute", "d-1", "chargeback", "opened")]
        operator = await live.app.operator("operator", live.merchant.account, mode="live")

        async def close(id: str) -> None:
            await live.app.ok(operator, "POST", f"/ops/v1/open_items/{id}/close", {"reason": "Paid back by hand."})
            await live.app.wait(0)

        async def still_open() -> list[tuple[Any, ...]]:
            items = (await live.get("/ops/v1/open_items", {"status": "open"}))["data"]
            return [(one["operation"], one["reference"], one["amount"], len(one["notices"])) for one in items]

        await close(item["id"])
        assert await still_open() == [("dispute", "d-1", 4200, 1)]
        created = (await live.get("/v1/events", {"type": "open_item.created"}))["data"]
        assert created[0]["data"]["object"]["operation"] == "dispute"
        assert (await live.notice(**{**opened, "status": "Lost"})).status == 200
        assert (await live.notice(**{**opened, "reference": "d-2", "amount": 100})).status == 200
        assert sorted(await still_open()) == [("dispute", "d-1", 4200, 2), ("dispute", "d-2", 100, 1)]
        for one in (await live.get("/ops/v1/open_items", {"status": "open"}))["data"]:
            await close(one["id"])
        assert await still_open() == []
        assert (await live.get("/v1/disputes"))["data"] == []


@pytest.mark.parametrize(
    ("page", "bounds", "why"),
    [
        (lambda n: [f"r{n % 3}"], {}, "its list does not end: it comes back to r0"),
        (lambda n: [f"r{n}"], {"PAGES_MAX": 5}, "within 5 pages"),
        (lambda n: [f"r{n}.{each}" for each in range(4)], {"OPERATIONS_MAX": 10}, "within 10 operations"),
        (lambda n: [f"r{n}"], {"LIST_SECONDS_MAX": -1.0}, "seconds; ask for less: --since"),
    ],
)
async def test_a_list_without_an_end_is_left_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Any, bounds: dict[str, Any], why: str
) -> None:
    for name, value in bounds.items():
        monkeypatch.setattr(recovery, name, value)
    async with live_merchant(tmp_path, list="yes") as live:
        asked = 0

        def endless() -> dict[str, Any]:
            nonlocal asked
            asked += 1
            told = {"kind": "refund", "status": "Accepted", "amount": 1, "currency": "eur"}
            return {"operations": [{**told, "reference": one} for one in page(asked - 1)], "has_more": True}

        live.page = endless
        report = await look(live, book=True)
        assert why in report.error
        assert asked <= 6
