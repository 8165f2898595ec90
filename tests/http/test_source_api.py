"""`source_api`: the contract that an object was made through, on the object, in its events and as a filter of lists."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tillway.domain.account import Scope
from tillway.domain.source_api import SOURCE_API_NAMES
from tillway.store.port import ABSENT, Write
from tillway.testing.in_process import InProcessApp, Merchant

CARD = {"card_number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvv": "123", "card_holder": "Ada"}
V1 = {"amount": 100, "currency": "eur"}

STORED_WORDS = {
    "v1": "v1",
    "gateway": "gateway",
    "token_charge": "charge",
    "online_platform": "platform",
    "disbursements": "disbursement",
    "orders": "orders",
}
"""The words of rows and index terms as commit fab317c wrote them, by public name."""

OLD_CHARGE = (
    '{"id":"%(id)s","created":1795928190,"amount_minor":100,"currency":"eur","status":"succeeded",'
    '"payment":"dpi_8DyK1GtAwB1BLPJ00","captured":true,"captured_minor":100,"method":"card_8DyK1GrQusjsI7P03",'
    '"card":{"brand":"visa","last4":"4242","exp_month":12,"exp_year":2040,"fingerprint":"RDaH2Ri2Wl3NWXrT",'
    '"cvc_check":"pass"},"billing_details":{"name":"Ada"},"connector":"simulator",'
    '"reference":"att_8DyK1GtAwB1BLPJ01"%(door)s}'
)
"""A charge as commit fab317c wrote it. It left `door` out where that was `v1`."""

OLD_EVENT = '{"id":"%(id)s","created":1795928190,"type":"charge.succeeded","object":%(object)s}'


class Shop:
    """A merchant who charges through the token and charge dialect and through `/v1`."""

    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app = app
        self.merchant = merchant
        self.scope = Scope(account=merchant.account, mode="test").key

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        encoded = msgspec.json.encode(body)
        answer = await self.app.send("POST", path, key=self.merchant.key, body=encoded, content_type=None)
        assert answer.status == 200, answer.body
        return answer.json["data"]

    async def charge(self) -> str:
        token = (await self.post("/token", CARD))["token"]
        id: str = (await self.post("/charge", {"token": token, **V1}))["id"]
        return id

    async def v1(self, method: str, path: str, **params: Any) -> Any:
        return await self.app.ok(self.merchant, method, path, params)

    async def ids(self, path: str = "/v1/charges", **params: Any) -> list[str]:
        return [one["id"] for one in (await self.v1("GET", path, **params))["data"]]

    async def check_pages(self, source_api: str, made: list[str]) -> None:
        """Walk the charges of `source_api`, two a page, in both directions; `made` are their ids, oldest first."""
        newest_first, after = list[str](), dict[str, str]()
        while True:
            page = await self.v1("GET", "/v1/charges", source_api=source_api, limit=2, **after)
            newest_first += [one["id"] for one in page["data"]]
            assert {one["source_api"] for one in page["data"]} == {source_api}
            if not page["has_more"]:
                break
            after = {"starting_after": newest_first[-1]}
        assert newest_first == made[::-1]
        assert await self.ids(source_api=source_api, limit=2, ending_before=made[1]) == made[3:1:-1]

    async def store_old(self, id: str, body: str, *terms: str) -> None:
        write = Write(f"{self.scope}/{id}", ABSENT, body.encode(), tuple(("term", term) for term in terms))
        await self.app.store.commit([write])


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    app = await InProcessApp.open(tmp_path)
    yield Shop(app, await app.merchant())
    await app.close()


async def test_every_page_of_one_source_api(shop: Shop) -> None:
    by = {"token_charge": list[str](), "v1": list[str]()}
    for _ in range(5):
        by["token_charge"].append(await shop.charge())
        by["v1"].append((await shop.v1("POST", "/v1/charges", **V1, source="tok_visa"))["id"])
    for source_api, made in by.items():
        await shop.check_pages(source_api, made)
    assert await shop.ids(source_api="gateway") == []


async def test_it_goes_with_the_other_filters(shop: Shop) -> None:
    charge = await shop.charge()
    payment = await shop.v1("POST", "/v1/payment_intents", **V1, payment_method="pm_card_visa", confirm=True)
    by_v1, other_by_v1 = [
        (await shop.v1("POST", "/v1/refunds", charge=one, amount=10))["id"]
        for one in (charge, payment["latest_charge"])
    ]
    by_dialect = (await shop.post("/refund", {"id": charge, "amount": 10}))["id"]
    assert await shop.ids("/v1/refunds", charge=charge) == [by_dialect, by_v1]
    assert await shop.ids("/v1/refunds", charge=charge, source_api="token_charge") == [by_dialect]
    assert await shop.ids("/v1/refunds", source_api="token_charge") == [by_dialect]
    assert await shop.ids("/v1/refunds", source_api="v1") == [other_by_v1, by_v1]
    assert await shop.ids(payment_intent=payment["id"], source_api="token_charge") == []
    assert await shop.ids(payment_intent=payment["id"], source_api="v1") == [payment["latest_charge"]]
    assert await shop.ids("/v1/payment_intents", source_api="token_charge") == [], "a charge of old has none"
    window = {"gte": 0, "lt": 1}
    for source_api in ("token_charge", "v1"):
        assert await shop.ids(source_api=source_api, created=window) == []


@pytest.mark.parametrize("value", ["cellar", "charge", "platform", "disbursement", "TOKEN_CHARGE"])
async def test_an_unknown_source_api_is_refused(shop: Shop, value: str) -> None:
    for path in ("/v1/charges", "/v1/payment_intents", "/v1/refunds"):
        answer = await shop.app.call(shop.merchant, "GET", path, {"source_api": value})
        assert answer.status == 400 and answer.json["error"]["param"] == "source_api"


async def test_events_and_customers_say_it_and_a_publishable_key_does_not_see_it(shop: Shop) -> None:
    await shop.charge()
    [event] = (await shop.v1("GET", "/v1/events", type="charge.succeeded"))["data"]
    assert event["data"]["object"]["source_api"] == "token_charge"
    assert (await shop.v1("POST", "/v1/customers", email="ada@example.com"))["source_api"] == "v1"
    payment = await shop.v1("POST", "/v1/payment_intents", **V1)
    seen = await shop.app.ok(
        shop.merchant.public_key,
        "GET",
        f"/v1/payment_intents/{payment['id']}",
        {"client_secret": payment["client_secret"]},
    )
    assert payment["source_api"] == "v1" and "source_api" not in seen


@pytest.mark.parametrize("source_api", SOURCE_API_NAMES)
async def test_rows_of_the_release_before_are_listed_with_new_ones(shop: Shop, source_api: str) -> None:
    word = STORED_WORDS[source_api]
    old = [f"ch_0000000000000000{number}" for number in range(3)]
    for id in old:
        door = "" if source_api == "v1" else f',"door":"{word}"'
        terms = () if source_api == "v1" else (f"{shop.scope}/ch=door={word}",)
        await shop.store_old(id, OLD_CHARGE % {"id": id, "door": door}, *terms)
    new = list[str]()
    if source_api == "token_charge":
        new = [await shop.charge() for _ in range(3)]
    elif source_api == "v1":
        new = [(await shop.v1("POST", "/v1/charges", **V1, source="tok_visa"))["id"] for _ in range(3)]
    else:
        # No two rows between which a page could break: three more of the old ones do as well.
        new = [f"ch_8DyK1GtAwB1BLPJ0{number}" for number in range(3)]
        for id in new:
            await shop.store_old(
                id, OLD_CHARGE % {"id": id, "door": f',"door":"{word}"'}, f"{shop.scope}/ch=door={word}"
            )
    await shop.check_pages(source_api, old + new)
    assert (await shop.v1("GET", f"/v1/charges/{old[0]}"))["source_api"] == source_api
    # A change by this version keeps the row where both versions find it.
    await shop.v1("POST", f"/v1/charges/{old[1]}", description="changed")
    await shop.check_pages(source_api, old + new)


async def test_an_event_of_the_release_before_shows_the_new_words(shop: Shop) -> None:
    charge = OLD_CHARGE % {"id": "ch_00000000000000001", "door": ',"door":"platform"'}
    await shop.store_old("evt_00000000000000001", OLD_EVENT % {"id": "evt_00000000000000001", "object": charge})
    event = await shop.v1("GET", "/v1/events/evt_00000000000000001")
    assert event["data"]["object"]["source_api"] == "online_platform" and "door" not in event["data"]["object"]


async def test_an_older_process_finds_what_this_one_stores(shop: Shop) -> None:
    charge = await shop.charge()
    [row] = await shop.app.store.query("term", f"{shop.scope}/ch=door=charge")
    assert row.key == f"{shop.scope}/{charge}" and msgspec.json.decode(row.body)["door"] == "charge"


async def test_the_audit_trail_says_it(shop: Shop) -> None:
    charge = await shop.charge()
    entries = (await shop.v1("GET", "/ops/v1/audit", record=charge))["data"]
    made = next(change for change in entries[-1]["changes"] if change["record"] == charge)
    assert made["after"]["source_api"] == "token_charge" and "door" not in made["after"]
