"""The contract's table, row by row: what a bank answers and what becomes of it."""

import hashlib
import hmac
from contextlib import suppress

import msgspec
import pytest
from bank_peers import read_at_once
from bent_members import bent

from tillway.connectors.http_bank import HttpBank, list_operations, signature
from tillway.connectors.port import (
    BankAccountData,
    CardData,
    Declined,
    NeverSeen,
    Notice,
    NoticeRejected,
    NoticeUndecided,
    NotSent,
    Operation,
    Pending,
    Recipient,
    Response,
    Succeeded,
    Unknown,
)

BANK = HttpBank("http://127.0.0.1:1", notice_secret="s3cret")
OPERATION = Operation(
    reference="att_1",
    kind="authorize",
    amount_minor=4200,
    currency="eur",
    card=CardData("4242424242424242", 12, 2040, "123", "Ada"),
)
ACCEPTED = {
    "reference": "att_1",
    "kind": "authorization",
    "status": "Accepted",
    "amount": 4200,
    "currency": "eur",
    "bank_id": "b1",
}


def play(conversation, *answers):
    """Its requests and its outcome, given the answers one by one."""
    requests = [next(conversation)]
    for answer in answers:
        try:
            requests.append(conversation.send(answer))
        except StopIteration as end:
            return requests, end.value
    raise AssertionError("the conversation goes on")


def outcome(*answers, operation=OPERATION):
    return play(BANK.perform(operation), *answers)[1]


def ok(**change):
    return Response(200, {**ACCEPTED, **change})


def declined(decline_code):
    return ok(status="Declined", decline_code=decline_code)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ok(), Succeeded("b1")),
        (ok(bank_id=None), Succeeded(None)),
        (ok(bank_id="b" * 400_000), Succeeded("b" * 255)),
        (ok(kind="authorize", currency="EUR"), Succeeded("b1")),
        (ok(kind="Sale"), Succeeded("b1")),
        (ok(status="Pending"), Pending("b1")),
        (ok(status="InsufficientFunds"), Declined("card_declined", "insufficient_funds", bank_id="b1")),
        (declined("lost_card"), Declined("card_declined", "lost_card", bank_id="b1")),
        (declined(None), Declined("card_declined", "generic_decline", bank_id="b1")),
        (declined("Not A Code"), Declined("card_declined", "generic_decline", bank_id="b1")),
        (declined("expired_card"), Declined("expired_card", None, bank_id="b1")),
        (declined("incorrect_cvc"), Declined("incorrect_cvc", None, bank_id="b1")),
        (declined("incorrect_number"), Declined("incorrect_number", None, bank_id="b1")),
        (declined("processing_error"), Declined("processing_error", None, bank_id="b1", soft=True)),
        (declined("try_again_later"), Declined("card_declined", "try_again_later", bank_id="b1", soft=True)),
        (Response(429), NotSent("the bank answered 429", None)),
        (Response(429, None, {"retry-after": "12"}), NotSent("the bank answered 429", 12.0)),
        (Response(429, None, {"retry-after": "999999"}), NotSent("the bank answered 429", 3600.0)),
        (Response(429, None, {"retry-after": "soon"}), NotSent("the bank answered 429", None)),
    ],
)
def test_outcomes(answer, expected):
    assert outcome(answer) == expected


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599, 201, 202, 204, 301, 302, 404, 405, 408, 418])
def test_what_may_have_happened(status):
    assert isinstance(outcome(Response(status, ACCEPTED)), Unknown)


@pytest.mark.parametrize(
    "body",
    [
        {"operations": [ACCEPTED]},
        {"operations": [ACCEPTED], "has_more": "false"},
        {"operations": {}, "has_more": False},
        {"operations": [], "has_more": True},
    ],
)
def test_a_list_that_may_not_be_whole_is_none(body):
    with pytest.raises(NoticeUndecided, match="list"):
        play(list_operations(0, None), Response(200, body))


@pytest.mark.parametrize("status", [400, 401, 403, 422])
def test_our_fault(status):
    said = outcome(Response(status, {"message": "number 4242 4242 4242 4242 is no good " + "x" * 500}))
    assert isinstance(said, Declined)
    assert (said.code, said.decline_code) == ("processing_error", None)
    assert said.alert.startswith(f"the bank answered {status}: number **** is no good") and len(said.alert) < 260


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (ok(), Succeeded("b1")),
        (ok(status="Pending"), Pending("b1")),
        (ok(status="Declined", decline_code="lost_card"), Declined("card_declined", "lost_card", bank_id="b1")),
        (ok(amount=4201), "alert"),
        (ok(currency="usd"), "alert"),
        (ok(kind="refund"), "alert"),
        (Response(404), "alert"),
        (ok(reference="other"), Unknown),
        (Response(500), Unknown),
        (Response(429), Unknown),
        (Response(200), Unknown),
    ],
)
def test_other_contents(found, expected):
    """The bank knows the reference with other contents: what it did with it is the answer, if that was ours."""
    requests, said = play(BANK.perform(OPERATION), Response(409, {"message": "used"}), found)
    assert [request.method for request in requests] == ["POST", "GET"]
    assert not requests[1].moves_money
    if expected == "alert":
        assert isinstance(said, Declined) and said.alert and said.code == "processing_error"
    elif expected is Unknown:
        assert isinstance(said, Unknown)
    else:
        assert said == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Response(404), NeverSeen()),
        (ok(), Succeeded("b1")),
        (ok(status="Declined"), Declined("card_declined", "generic_decline", bank_id="b1")),
        *((Response(status, ACCEPTED), Unknown) for status in (400, 401, 403, 409, 422, 429, 500, 503)),
        (Response(200, None), Unknown),
        (ok(reference="other"), Unknown),
        (ok(amount=1), Unknown),
    ],
)
def test_looking_up(answer, expected):
    requests, said = play(BANK.look_up(OPERATION), answer)
    assert [(request.method, request.path, request.moves_money) for request in requests] == [
        ("GET", "/v1/operations/att_1", False)
    ]
    assert isinstance(said, Unknown) if expected is Unknown else said == expected


@pytest.mark.parametrize(
    ("fields", "path", "body"),
    [
        (
            {},
            "/v1/authorizations",
            {
                "amount": 4200,
                "currency": "eur",
                "capture": True,
                "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123", "name": "Ada"},
            },
        ),
        (
            {"card": CardData("4242424242424242", 1, 2041), "capture": False},
            "/v1/authorizations",
            {
                "amount": 4200,
                "currency": "eur",
                "capture": False,
                "card": {"number": "4242424242424242", "exp_month": 1, "exp_year": 2041},
            },
        ),
        (
            {"kind": "capture", "parent": "att_0"},
            "/v1/captures",
            {"authorization": "att_0", "amount": 4200, "currency": "eur"},
        ),
        ({"kind": "void", "parent": "att_0"}, "/v1/voids", {"authorization": "att_0"}),
        ({"kind": "refund", "parent": "att_0"}, "/v1/refunds", {"payment": "att_0", "amount": 4200, "currency": "eur"}),
        (
            {"kind": "payout", "recipient": Recipient("card", "4000056655665556")},
            "/v1/payouts",
            {"amount": 4200, "currency": "eur", "recipient": {"type": "card", "value": "4000056655665556"}},
        ),
    ],
)
def test_requests(fields, path, body):
    request = next(BANK.perform(msgspec.structs.replace(OPERATION, **fields)))
    assert (request.method, request.path, request.moves_money) == ("POST", path, True)
    assert request.body == {"reference": "att_1", **body}
    assert request.headers == {"idempotency-key": "att_1"}


def test_a_bank_account_stands_in_the_place_of_the_card():
    account = BankAccountData("sepa_debit", "DE89370400440532013000", name="Ada", mandate="M1")
    debit = msgspec.structs.replace(OPERATION, card=None, account=account)
    request = next(BANK.perform(debit))
    assert (request.path, request.body) == (
        "/v1/authorizations",
        {
            "reference": "att_1",
            "amount": 4200,
            "currency": "eur",
            "capture": True,
            "account": {"type": "sepa_debit", "number": "DE89370400440532013000", "name": "Ada", "mandate": "M1"},
        },
    )
    assert "DE89" not in f"{request!r} {debit!r}"


def test_what_it_cannot_do():
    with pytest.raises(AssertionError):
        BANK.perform(msgspec.structs.replace(OPERATION, kind="increment"))
    with pytest.raises(AssertionError):
        next(BANK.perform(msgspec.structs.replace(OPERATION, reference="r" * 36)))


# Notices.


def notice(said, secret="s3cret", **headers):
    body = said if isinstance(said, bytes) else msgspec.json.encode(said)
    signed = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    [told] = read_at_once(BANK.notices({"x-bank-signature": signed, **headers}, body))
    return told


DISPUTE = {
    "reference": "dp_1",
    "kind": "dispute",
    "status": "Accepted",
    "amount": 4200,
    "currency": "eur",
    "parent": "att_1",
    "reason": "fraudulent",
    "dispute": "inquiry",
}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            ACCEPTED,
            Notice(
                id="att_1:Accepted",
                kind="operation",
                reference="att_1",
                outcome=Succeeded("b1"),
                operation="authorize",
                amount_minor=4200,
                currency="eur",
            ),
        ),
        (
            {**ACCEPTED, "kind": "refund", "status": "Declined", "decline_code": "expired_or_canceled_card"},
            Notice(
                id="att_1:Declined",
                kind="operation",
                reference="att_1",
                outcome=Declined("card_declined", "expired_or_canceled_card", bank_id="b1"),
                operation="refund",
                amount_minor=4200,
                currency="eur",
            ),
        ),
        (
            DISPUTE,
            Notice(
                id="dp_1",
                kind="dispute",
                reference="att_1",
                amount_minor=4200,
                currency="eur",
                reason="fraudulent",
                stage="inquiry",
            ),
        ),
    ],
)
def test_notices(said, expected):
    assert notice(said) == expected


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"{nope",
        b'{"reference": "\xff"}',
        b"[" * 60_000,
        {},
        {**ACCEPTED, "reference": ""},
        {**ACCEPTED, "reference": 7},
        {**ACCEPTED, "reference": "r" * 36},
        {**ACCEPTED, "status": "Fine"},
        {**ACCEPTED, "kind": None},
        {key: DISPUTE[key] for key in DISPUTE if key != "parent"},
        b" " * 70_000,
    ],
)
def test_rejected_notices(said):
    with pytest.raises(NoticeRejected):
        notice(said)


@pytest.mark.parametrize(
    "said", [ACCEPTED, {**DISPUTE, "network_reason_code": "10.4", "evidence_due": 1, "created": 1}]
)
def test_members_of_another_type_are_read_or_rejected(said):
    for changed in bent(said):
        with suppress(NoticeRejected):
            notice(changed)


def test_signatures():
    body = msgspec.json.encode(ACCEPTED)
    assert read_at_once(BANK.notices({"x-bank-signature": signature("s3cret", body).upper()}, body))
    for headers in (
        {},
        {"x-bank-signature": ""},
        {"x-bank-signature": "ü"},
        {"x-bank-signature": signature("x", body)},
    ):
        with pytest.raises(NoticeRejected):
            BANK.notices(headers, body)
    with pytest.raises(NoticeRejected):
        BANK.notices({"x-bank-signature": signature("s3cret", body)}, body + b" ")
    with pytest.raises(NoticeRejected, match="notice_secret"):
        HttpBank("http://127.0.0.1:1").notices({"x-bank-signature": signature("", body)}, body)
