"""Usual payments are told by comparison with those before as by the search in each."""

import random
from pathlib import Path

import msgspec
import pytest

from tillway.http.usual_payment import UsualPayments, usual_payment
from tillway.testing.in_process import InProcessApp

DOSE = 400
"""Batches of requests, of up to 30 answers each."""

PAYMENT = {"amount": 2000, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
OTHERS = (
    {"amount": 1000},
    {"amount": 99},
    {"currency": "eur"},
    {"currency": "chf"},
    {"confirm": False},
    {"capture_method": "manual"},
    {"description": "Jane Doe"},
    {"statement_descriptor_suffix": "TEA"},
    {"metadata[name]": "Jane Doe"},
    {"receipt_email": "jane@example.com"},
    {"expand[]": "latest_charge"},
    {"shipping[name]": "Jane Doe", "shipping[address][line1]": "Main Street 7"},
)
SWAPS = (
    (b'"description":null', b'"description":"Ja"'),
    (b'"shipping":null', b'"shipping":"Ja"'),
    (b'"receipt_email":null', b'"receipt_email":"j@"'),
    (b'"metadata":{}', b'"metadata":[]'),
    (b'"currency":"usd","customer":null', b'"currency":"","object":"","cus":1'),
    (b'"latest_charge":"ch_', b'"latest_charge":"","'),
    (b'"amount":2000', b'"amount":null'),
)
"""Pieces of an answer, and others as long."""


@pytest.fixture
async def answers(tmp_path: Path) -> list[bytes]:
    app = await InProcessApp.open(tmp_path)
    merchant = await app.merchant()
    made = []
    for other in (*({},) * 3, *OTHERS, {"currency": "eur", "amount": 1234}):
        answer = await app.call(merchant, "POST", "/v1/payment_intents", {**PAYMENT, **other})
        assert answer.status == 200, answer.body
        made.append(answer.body)
    await app.close()
    return made


async def test_they_are_told_as_by_a_search(answers: list[bytes]) -> None:
    assert [usual_payment(body) is not None for body in answers].count(True) == 11
    chance, compared = random.Random(5), 0
    for _ in range(DOSE):
        usual = UsualPayments().find
        for _ in range(chance.randint(2, 30)):
            body = chance.choice(answers)
            if chance.random() < 0.3:
                old, new = chance.choice(SWAPS)
                body = body.replace(old, new)
            if chance.random() < 0.2:
                place = chance.randrange(len(body))
                body = body[:place] + chance.choice((b'"', b"a", b"0", b",")) + body[place + 1 :]
            kept = usual(body)
            assert kept == usual_payment(body), body
            compared += kept is not None
    assert compared > DOSE


async def test_their_secret_alone_is_hidden(answers: list[bytes]) -> None:
    usual = UsualPayments().find
    for body in answers * 2:
        around, document = usual(body), msgspec.json.decode(body)
        assert around is None or msgspec.json.decode(b"****".join(around)) == {**document, "client_secret": "****"}
