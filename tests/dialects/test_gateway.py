"""The gateway dialect: create, make and get a payment."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from inside import Answer, Inside, Merchant


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    inside = await Inside.open(tmp_path)
    yield inside
    await inside.close()


async def post(inside: Inside, merchant: Merchant, path: str, body: dict[str, object]) -> Answer:
    encoded = msgspec.json.encode(body)
    return await inside.send("POST", path, key=merchant.key, body=encoded, content_type="application/json")


async def test_a_payment_is_created(inside: Inside) -> None:
    merchant = await inside.merchant()
    answer = await post(inside, merchant, "/create-payment", {"merchantId": merchant.account})
    assert answer.status == 200 and answer.json["status"] == "Created"
    assert UUID(answer.json["paymentId"]).version == 4
    assert answer.json["creationTimestampSeconds"] == inside.clock.now_ms() // 1000


async def test_another_merchants_name_is_not_authorised(inside: Inside) -> None:
    merchant, other = await inside.merchant(), await inside.merchant()
    answer = await post(inside, merchant, "/create-payment", {"merchantId": other.account})
    assert answer.json["status"] == "NotAuthorised" and answer.json["failCode"] == 401


async def test_an_idempotency_key_holds_here_too(inside: Inside) -> None:
    merchant = await inside.merchant()
    body = msgspec.json.encode({"merchantId": merchant.account})
    answers = [
        await inside.send(
            "POST",
            "/create-payment",
            key=merchant.key,
            body=body,
            content_type=None,
            headers={"idempotency-key": "one"},
        )
        for _ in range(2)
    ]
    assert answers[0].body == answers[1].body
    assert answers[1].headers["idempotent-replayed"] == "true"
