"""The space of a key: keys that a merchant gives away take no name from its server."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from good_calls import CARD, MerchantObjects

from tillway.domain.idempotency import record_id
from tillway.store.codec import decode, write_of
from tillway.store.port import ABSENT, Write
from tillway.testing.in_process import InProcessApp

METHOD = {"type": "card", "card": CARD}


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(tmp_path)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


async def test_a_key_that_is_given_away_takes_no_name_from_the_merchant(objects: MerchantObjects) -> None:
    """A holder of the publishable key could use up the names of the server's keys for a day."""
    app, merchant = objects.app, objects.merchant
    by_payer = await app.call(merchant.public_key, "POST", "/v1/payment_methods", METHOD, idempotency_key="order-1")
    repeated = await app.call(merchant.public_key, "POST", "/v1/payment_methods", METHOD, idempotency_key="order-1")
    assert by_payer.status == 200 and repeated.body == by_payer.body
    made = await app.ok(merchant, "POST", "/v1/payment_methods", METHOD, idempotency_key="order-1")
    assert made["id"] != by_payer.json["id"]
    again = await app.ok(merchant, "POST", "/v1/payment_methods", METHOD, idempotency_key="order-1")
    assert again["id"] == made["id"]


async def test_a_key_of_an_earlier_version_is_answered_in_its_space(objects: MerchantObjects) -> None:
    app, merchant = objects.app, objects.merchant
    made = await app.ok(merchant.public_key, "POST", "/v1/payment_methods", METHOD, idempotency_key="order-1")
    scope_key = merchant.account.removeprefix("acct_") + "t"
    id, before = record_id("order-1", "publishable"), record_id("order-1")
    row = await app.store.get(f"{scope_key}/{id}")
    assert row is not None
    held = decode(id, row.body)
    await app.store.commit([write_of(scope_key, msgspec.structs.replace(held, id=before), ABSENT)])
    await app.store.commit([Write(row.key, row.version, None)])
    again = await app.ok(merchant.public_key, "POST", "/v1/payment_methods", METHOD, idempotency_key="order-1")
    assert again["id"] == made["id"]
    other = await app.call(merchant, "POST", "/v1/payment_methods", METHOD, idempotency_key="order-1")
    assert (other.status, other.json["error"]["code"]) == (400, "idempotency_key_reused")
