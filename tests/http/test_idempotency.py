"""The space of a key: keys that a merchant gives away take no name from its server."""

import copy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from good_calls import CARD, MerchantObjects

from tillway.domain.idempotency import record_id
from tillway.domain.payment_intent import PaymentIntent
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


async def test_a_name_that_a_payer_used_changes_no_reference(objects: MerchantObjects) -> None:
    """After a restore, the server's repeat would have the payer's reference if it came first: the same request, but for
    the ids."""
    app, merchant = objects.app, objects.merchant
    by_payer, by_server = await objects.payment(), await objects.payment()

    async def confirm(payment: dict[str, Any], key: str) -> str:
        params = {"payment_method": "pm_card_visa", "client_secret": payment["client_secret"]}
        path = f"/v1/payment_intents/{payment['id']}/confirm"
        await app.ok(key, "POST", path, params, idempotency_key="order-1")
        row = await app.store.get(f"{merchant.account.removeprefix('acct_')}t/{payment['id']}")
        assert row is not None
        confirmed = decode(payment["id"], row.body)
        assert isinstance(confirmed, PaymentIntent)
        return confirmed.references[0]

    backup = copy.deepcopy(vars(app.store))
    alone = await confirm(by_server, merchant.key)
    vars(app.store).update(backup)
    assert await confirm(by_payer, merchant.public_key) != alone
    assert await confirm(by_server, merchant.key) == alone


async def test_while_the_version_before_runs_there_is_one_space(objects: MerchantObjects) -> None:
    app, merchant = objects.app, objects.merchant
    app.running.platform.engine.restores.writes_as_before = True
    made = await app.ok(merchant.public_key, "POST", "/v1/payment_methods", METHOD, idempotency_key="order-1")
    row = await app.store.get(f"{merchant.account.removeprefix('acct_')}t/{record_id('order-1')}")
    assert row is not None, "the version before finds the answer"
    again = await app.ok(merchant.public_key, "POST", "/v1/payment_methods", METHOD, idempotency_key="order-1")
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
