"""Words that mean something in test mode: live mode refuses each, or treats it like any other word."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from live_bank import LiveMerchant, live_merchant

from tillway.domain.cards import luhn_valid
from tillway.sandbox.bank import BY_AMOUNT
from tillway.sandbox.bank_accounts import all_accounts
from tillway.sandbox.cards import all_cards
from tillway.sandbox.recipients import NAMED_ADDRESSES

# A number with a wrong check digit is refused in both modes.
CARDS = {card.number: card for card in all_cards() if luhn_valid(card.number)}
ACCOUNTS = {account.number: account for account in all_accounts()}
ALIASES = [
    *(alias for card in all_cards() for alias in card.aliases),
    *(alias for account in ACCOUNTS.values() for alias in account.aliases),
]
ACCEPTED = {"customer_acceptance": {"type": "offline"}}
HOLDER = {"name": "Ada", "email": "ada@example.org"}


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[LiveMerchant]:
    async with live_merchant(tmp_path) as made:
        yield made


async def test_aliases_are_unknown(live: LiveMerchant) -> None:
    for alias in ALIASES:
        if alias.startswith("tok_"):
            refused = await live.call("/v1/charges", {"amount": 4200, "currency": "eur", "source": alias})
        else:
            refused = await live.pay(payment_method=alias)
        assert (refused.status, refused.json["error"]["code"]) == (400, "resource_missing"), alias
    assert not live.orders


@pytest.mark.parametrize("number", CARDS)
async def test_card_numbers_are_the_banks_to_judge(live: LiveMerchant, number: str) -> None:
    card = {"number": number, "exp_month": 12, "exp_year": 2040, "cvc": "1234" if number[:2] in ("34", "37") else "123"}
    paid = await live.pay(payment_method_data={"type": "card", "card": card})
    assert (paid.status, paid.json.get("status")) == (200, "succeeded"), paid.body
    await live.app.wait(10)
    [order] = live.orders
    assert order["card"]["number"] == number and "by_amount" not in order
    shown = await live.app.ok(live.key, "GET", f"/v1/charges/{paid.json['latest_charge']}")
    assert not shown["disputed"] and not shown["payment_method_details"]["card"].get("three_d_secure")


@pytest.mark.parametrize("number", ACCOUNTS)
async def test_accounts_are_the_banks_to_judge(live: LiveMerchant, number: str) -> None:
    known = ACCOUNTS[number]
    holder_type = {"account_holder_type": "individual"} if known.type == "us_bank_account" else {}
    account = {**known.parameters, **holder_type}
    details = {"type": known.type, known.type: account, "billing_details": HOLDER}
    paid = await live.pay(
        currency="usd" if known.type == "us_bank_account" else "eur",
        payment_method_types=[known.type],
        payment_method_data=details,
        mandate_data=ACCEPTED,
    )
    assert (paid.status, paid.json.get("status")) == (200, "succeeded"), paid.body
    assert [order["account"]["number"] for order in live.orders] == [number]


@pytest.mark.parametrize("amount", BY_AMOUNT)
async def test_amounts_are_ordinary(live: LiveMerchant, amount: int) -> None:
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
async def test_recipients_are_ordinary(live: LiveMerchant, address: str) -> None:
    person = {"customer_id": "C00000001", "email": address}
    await live.post_json("/v1/api/customer", person)
    await live.post_json("/v1/api/payment", person | {"amount": 5, "currency": "EUR"})
    await live.app.wait(10)
    assert [order["recipient"]["value"] for order in live.orders] == [address]


@pytest.mark.parametrize("word", ["winning_evidence", "losing_evidence"])
async def test_evidence_decides_nothing(live: LiveMerchant, word: str) -> None:
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
    key = live.key
    [dispute] = (await live.app.ok(key, "GET", "/v1/disputes", {"payment_intent": paid["id"]}))["data"]
    moved = await live.app.ok(key, "GET", "/v1/balance")
    path = f"/v1/disputes/{dispute['id']}"
    answered = await live.app.ok(key, "POST", path, {"evidence": {"uncategorized_text": word}})
    assert answered["status"] not in ("won", "lost")
    assert await live.app.ok(key, "GET", "/v1/balance") == moved
