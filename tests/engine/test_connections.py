"""A connector that cannot be set up: nothing new goes through it, what waits for it waits, and it comes back alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from inside import Inside

from tillway.domain.account import SYSTEM, ConnectorConfig
from tillway.store.codec import encode
from tillway.store.port import ABSENT, Write


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    inside = await Inside.open(tmp_path)
    yield inside
    await inside.close()


async def test_a_secret_that_is_gone_is_no_mistake_of_ours(
    inside: Inside, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "secret"
    settings = {"base_url": "http://127.0.0.1:1", "api_key": f"file:{secret}"}
    config = ConnectorConfig(
        id="con_test_bank", created=0, name="bank", kind="http_bank", mode="test", settings=settings, default=True
    )
    await inside.store.commit([Write(f"{SYSTEM}/{config.id}", ABSENT, encode(config))])
    merchant = await inside.merchant()
    pay = {"amount": 700, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
    refused = await inside.call(merchant, "POST", "/v1/payment_intents", pay)
    assert (refused.status, refused.json["error"]["code"]) == (503, "busy")
    assert "'bank' cannot be set up" in refused.json["error"]["message"]
    assert (await inside.ok(merchant, "GET", "/v1/payment_intents"))["data"] == []
    assert any(getattr(record, "why", "").startswith("api_key:") for record in caplog.records)
    secret.write_text("s3cret")
    # The bank itself is not there: but it is asked.
    asked = await inside.call(merchant, "POST", "/v1/payment_intents", pay)
    assert (asked.status, asked.json["error"]["code"]) == (402, "processing_error")
    assert "s3cret" not in caplog.text
