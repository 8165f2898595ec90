"""Words that mean something in test mode: live mode refuses each, or treats it like any other word.

The live bank here accepts all orders and keeps them, so that it shows what Tillway made of a word.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tillway.connectors.http_bank import signature
from tillway.connectors.port import Request, Response
from tillway.domain.account import SYSTEM
from tillway.domain.cards import luhn_valid
from tillway.domain.connector_config import ConnectorConfig
from tillway.engine.connections import REFRESH_MS
from tillway.sandbox.bank import BY_AMOUNT
from tillway.sandbox.bank_accounts import all_accounts
from tillway.sandbox.cards import all_cards
from tillway.sandbox.recipients import NAMED_ADDRESSES
from tillway.store.codec import write_of
from tillway.store.port import ABSENT
from tillway.testing.far_side import Handler, answer, over_http
from tillway.testing.in_process import Answer, InProcessApp, Merchant

SECRET = "live-notices"
# A number with a wrong check digit is refused in both modes.
CARDS = {card.number: card for card in all_cards() if luhn_valid(card.number)}
ACCOUNTS = {account.number: account for account in all_accounts()}
ALIASES = [alias for known in (*all_cards(), *ACCOUNTS.values()) for alias in known.aliases]
ACCEPTED = {"customer_acceptance": {"type": "offline"}}
HOLDER = {"name": "Ada", "email": "ada@example.org"}


class Live:
    """A merchant in live mode and the orders that its bank got."""

    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app, self.merchant = app, merchant
        self.orders: list[dict[str, Any]] = []
        self.peer = Handler(self._accept, lambda request: ("authorize", None))

    def _accept(self, request: Request) -> Response:
        body = dict(request.fields)
        self.orders.append(body)
        kinds = {"authorizations": "authorization", "payouts": "payout"}
        kind = kinds[request.path.rpartition("/")[2]]
        told = {name: body[name] for name in ("reference", "amount", "currency")}
        return answer(200, {**told, "kind": kind, "status": "Accepted", "bank_id": "b"})

    async def call(self, path: str, params: dict[str, Any]) -> Answer:
        return await self.app.call(self.merchant.live_key, "POST", path, params)

    async def post_json(self, path: str, body: dict[str, Any]) -> Any:
        sent = await self.app.send(
            "POST", path, key=self.merchant.live_key, body=json.dumps(body).encode(), content_type="application/json"
        )
        assert sent.status == 200, sent.body
        return sent.json

    async def pay(self, **params: Any) -> Answer:
        given = {"amount": 4200, "currency": "eur", "confirm": True, "return_url": "https://example.com/", **params}
        return await self.call("/v1/payment_intents", given)

    async def notice(self, **body: Any) -> Answer:
        content = msgspec.json.encode(body)
        headers = {"x-bank-signature": signature(SECRET, content)}
        return await self.app.send(
            "POST", "/connectors/live/bank/notices", body=content, content_type="application/json", headers=headers
        )


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    app = await InProcessApp.open(tmp_path)
    made = Live(app, await app.merchant())
    async with over_http(made.peer) as url:
        settings = {"base_url": url, "notice_secret": SECRET, "debits": "us_bank_account,sepa_debit"}
        config = ConnectorConfig(
            id="con_live_bank", created=0, name="bank", kind="http_bank", mode="live", settings=settings, default=True
        )
        await app.store.commit([write_of(SYSTEM, config, ABSENT)])
        app.clock.ahead_seconds += 1 + REFRESH_MS // 1000
        yield made
    await app.close()


async def test_aliases_are_unknown(live: Live) -> None:
    for alias in ALIASES:
        if alias.startswith("tok_"):
            refused = await live.call("/v1/charges", {"amount": 4200, "currency": "eur", "source": alias})
        else:
            refused = await live.pay(payment_method=alias)
        assert (refused.status, refused.json["error"]["code"]) == (404, "resource_missing"), alias
    assert not live.orders


@pytest.mark.parametrize("number", CARDS)
async def test_card_numbers_are_the_banks_to_judge(live: Live, number: str) -> None:
    card = {"number": number, "exp_month": 12, "exp_year": 2040, "cvc": "1234" if number[:2] in ("34", "37") else "123"}
    paid = await live.pay(payment_method_data={"type": "card", "card": card})
    assert (paid.status, paid.json.get("status")) == (200, "succeeded"), paid.body
    await live.app.wait(10)
    [order] = live.orders
    assert order["card"]["number"] == number and "by_amount" not in order
    shown = await live.app.ok(live.merchant.live_key, "GET", f"/v1/charges/{paid.json['latest_charge']}")
    assert not shown["disputed"] and not shown["payment_method_details"]["card"].get("three_d_secure")


@pytest.mark.parametrize("number", ACCOUNTS)
async def test_accounts_are_the_banks_to_judge(live: Live, number: str) -> None:
    known = ACCOUNTS[number]
    details = {"type": known.type, known.type: known.parameters, "billing_details": HOLDER}
    if known.type == "us_bank_account":
        details[known.type] |= {"account_holder_type": "individual"}
    paid = await live.pay(
        currency="usd" if known.type == "us_bank_account" else "eur",
        payment_method_types=[known.type],
        payment_method_data=details,
        mandate_data=ACCEPTED,
    )
    assert (paid.status, paid.json.get("status")) == (200, "succeeded"), paid.body
    assert [order["account"]["number"] for order in live.orders] == [number]


@pytest.mark.parametrize("amount", BY_AMOUNT)
async def test_amounts_are_ordinary(live: Live, amount: int) -> None:
    account = live.merchant.account
    number = (await live.post_json("/create-payment", {"merchantId": account}))["paymentId"]
    body = {
        "paymentId": number,
        "merchantId": account,
        "cardNumber": "4242424242424242",
        "expiryYear": 2040,
        "expiryMonth": 12,
        "currency": "EUR",
        "amount": amount,
        "cardName": "Ada",
        "billingAddress": "1 Road",
        "cvv": 123,
    }
    assert await live.post_json("/make-payment", body) == {"status": "Accepted"}
    assert [(order["amount"], "by_amount" in order) for order in live.orders] == [(amount, False)]


@pytest.mark.parametrize("address", NAMED_ADDRESSES)
async def test_recipients_are_ordinary(live: Live, address: str) -> None:
    person = {"customer_id": "C00000001", "email": address}
    await live.post_json("/v1/api/customer", person)
    await live.post_json("/v1/api/payment", person | {"amount": 5, "currency": "EUR"})
    await live.app.wait(10)
    assert [order["recipient"]["value"] for order in live.orders] == [address]


@pytest.mark.parametrize("word", ["winning_evidence", "losing_evidence"])
async def test_evidence_decides_nothing(live: Live, word: str) -> None:
    card = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040}
    paid = (await live.pay(payment_method_data={"type": "card", "card": card})).json
    [order] = live.orders
    opened = await live.notice(
        reference="d-1",
        kind="dispute",
        parent=order["reference"],
        status="Opened",
        amount=4200,
        currency="eur",
        reason="fraudulent",
        dispute="chargeback",
    )
    assert opened.status == 200, opened.body
    key = live.merchant.live_key
    [dispute] = (await live.app.ok(key, "GET", "/v1/disputes", {"payment_intent": paid["id"]}))["data"]
    moved = await live.app.ok(key, "GET", "/v1/balance")
    path = f"/v1/disputes/{dispute['id']}"
    answered = await live.app.ok(key, "POST", path, {"evidence": {"uncategorized_text": word}})
    assert answered["status"] not in ("won", "lost")
    assert await live.app.ok(key, "GET", "/v1/balance") == moved
