"""Notices of a provider that is asked whether they are its own, over the API's address for them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from plugins import install

from tillway.connectors import registry
from tillway.domain.account import SYSTEM
from tillway.domain.connector_config import ConnectorConfig
from tillway.engine.connections import REFRESH_SECONDS
from tillway.store.codec import write_of
from tillway.store.port import ABSENT
from tillway.testing.example_provider import ExampleFarSide
from tillway.testing.far_side import over_http
from tillway.testing.in_process import InProcessApp

CARD = {"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123"}}
NOTICES = "/connectors/test/acme/notices"
PENDING = 24


@pytest.fixture
async def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[InProcessApp]:
    """An installation where a package has brought the tutorial connector as the kind `acme`."""
    source = "from tillway.connectors.example import ExampleConnector\n"
    install(tmp_path, "tillway_acme", source, group=registry.GROUP, points={"acme": "tillway_acme:ExampleConnector"})
    monkeypatch.syspath_prepend(str(tmp_path))
    opened = await InProcessApp.open(tmp_path)
    yield opened
    await opened.close()


async def add(app: InProcessApp, url: str) -> None:
    settings = {"base_url": url, "api_key": "key", "timeout_seconds": "1"}
    config = ConnectorConfig(
        id="con_test_acme", created=0, name="acme", kind="acme", mode="test", settings=settings, default=True
    )
    await app.store.commit([write_of(SYSTEM, config, ABSENT)])
    app.clock.ahead_seconds += 1 + REFRESH_SECONDS


async def test_a_provider_is_asked_before_its_notice_is_believed(app: InProcessApp) -> None:
    merchant, far = await app.merchant(), ExampleFarSide()
    async with over_http(far.peer) as url:
        await add(app, url)
        await far.strike({"fault": "duplicate_notice"})
        payment = await app.ok(
            merchant,
            "POST",
            "/v1/payment_intents",
            {"amount": 4200, "currency": "eur", "confirm": "true", "payment_method_data": CARD},
        )
        assert payment["status"] == "succeeded"
        [(_, first)] = await far.notices(None, 1)
        for body, status in ((b"{}", 400), (b'{"event":"answer-unknown"}', 400), (first, 200), (first, 200)):
            answer = await app.send("POST", NOTICES, body=body, content_type="application/json")
            assert answer.status == status, answer.body
    # Nobody can be asked now: the notice must come again.
    answer = await app.send("POST", NOTICES, body=first, content_type="application/json")
    assert answer.status == 503 and answer.json["error"]["message"].endswith("Send it again.")


async def test_a_notice_settles_what_is_pending(app: InProcessApp) -> None:
    merchant, far = await app.merchant(), ExampleFarSide()
    async with over_http(far.peer) as url:
        await add(app, url)
        given = {"amount": PENDING, "currency": "krw", "confirm": "true", "payment_method_data": CARD}
        payment = await app.ok(merchant, "POST", "/v1/payment_intents", given)
        assert payment["status"] == "processing"
        far.settle()
        [(_, body)] = await far.notices(None, 1)
        answer = await app.send("POST", NOTICES, body=body, content_type="application/json")
        assert answer.status == 200
        payment = await app.ok(merchant, "GET", f"/v1/payment_intents/{payment['id']}")
        assert payment["status"] == "succeeded"
