"""`door`: by which contract something was made, on the object, in its events and as a filter of lists."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tillway.testing.in_process import Inside, Merchant

CARD = {"card_number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvv": "123", "card_holder": "Ada"}
V1 = {"amount": 100, "currency": "eur"}


class Street:
    """A merchant with two doors: charges by `charge` and by `v1`, in turns."""

    def __init__(self, inside: Inside, merchant: Merchant) -> None:
        self.inside = inside
        self.merchant = merchant

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        encoded = msgspec.json.encode(body)
        answer = await self.inside.send("POST", path, key=self.merchant.key, body=encoded, content_type=None)
        assert answer.status == 200, answer.body
        return answer.json["data"]

    async def charge(self) -> str:
        token = (await self.post("/token", CARD))["token"]
        id: str = (await self.post("/charge", {"token": token, **V1}))["id"]
        return id

    async def v1(self, method: str, path: str, **params: Any) -> Any:
        return await self.inside.ok(self.merchant, method, path, params)

    async def ids(self, path: str = "/v1/charges", **params: Any) -> list[str]:
        return [one["id"] for one in (await self.v1("GET", path, **params))["data"]]


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    inside = await Inside.open(tmp_path)
    yield Street(inside, await inside.merchant())
    await inside.close()


async def test_every_page_of_one_door(street: Street) -> None:
    by = {"charge": list[str](), "v1": list[str]()}
    for _ in range(5):
        by["charge"].append(await street.charge())
        by["v1"].append((await street.v1("POST", "/v1/charges", **V1, source="tok_visa"))["id"])
    for door, made in by.items():
        newest_first, after = [], {}
        while True:
            page = await street.v1("GET", "/v1/charges", door=door, limit=2, **after)
            newest_first += [one["id"] for one in page["data"]]
            assert {one["door"] for one in page["data"]} == {door}
            if not page["has_more"]:
                break
            after = {"starting_after": newest_first[-1]}
        assert newest_first == made[::-1]
        assert await street.ids(door=door, limit=2, ending_before=made[1]) == made[3:1:-1]
    assert await street.ids(door="gateway") == []


async def test_it_goes_with_the_other_filters(street: Street) -> None:
    charge = await street.charge()
    payment = await street.v1("POST", "/v1/payment_intents", **V1, payment_method="pm_card_visa", confirm=True)
    ours, theirs = [
        (await street.v1("POST", "/v1/refunds", charge=one, amount=10))["id"]
        for one in (charge, payment["latest_charge"])
    ]
    mine = (await street.post("/refund", {"id": charge, "amount": 10}))["id"]
    assert await street.ids("/v1/refunds", charge=charge) == [mine, ours]
    assert await street.ids("/v1/refunds", charge=charge, door="charge") == [mine]
    assert await street.ids("/v1/refunds", door="charge") == [mine]
    assert await street.ids("/v1/refunds", door="v1") == [theirs, ours]
    assert await street.ids(payment_intent=payment["id"], door="charge") == []
    assert await street.ids(payment_intent=payment["id"], door="v1") == [payment["latest_charge"]]
    assert await street.ids("/v1/payment_intents", door="charge") == [], "a charge of old has none"
    window = {"gte": 0, "lt": 1}
    assert await street.ids(door="charge", created=window) == await street.ids(door="v1", created=window) == []


async def test_an_unknown_door_is_refused(street: Street) -> None:
    for path in ("/v1/charges", "/v1/payment_intents", "/v1/refunds"):
        answer = await street.inside.call(street.merchant, "GET", path, {"door": "cellar"})
        assert answer.status == 400 and answer.json["error"]["param"] == "door"


async def test_events_and_customers_say_it_and_a_publishable_key_does_not_see_it(street: Street) -> None:
    await street.charge()
    [event] = (await street.v1("GET", "/v1/events", type="charge.succeeded"))["data"]
    assert event["data"]["object"]["door"] == "charge"
    assert (await street.v1("POST", "/v1/customers", email="ada@example.com"))["door"] == "v1"
    payment = await street.v1("POST", "/v1/payment_intents", **V1)
    seen = await street.inside.ok(
        street.merchant.public_key,
        "GET",
        f"/v1/payment_intents/{payment['id']}",
        {"client_secret": payment["client_secret"]},
    )
    assert payment["door"] == "v1" and "door" not in seen
