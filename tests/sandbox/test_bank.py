"""The bank's rules, asked directly. Scenarios are tables of calls; the last word is what the bank says."""

import itertools

import msgspec
import pytest
from bent_members import bent

from tillway.connectors.port import Request
from tillway.sandbox.bank import Bank, BankOperation

CARD = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123"}
PATHS = {
    "authorize": "authorizations",
    "capture": "captures",
    "void": "voids",
    "increment": "increments",
    "refund": "refunds",
    "payout": "payouts",
}


def order(kind, reference, amount=4200, *, parent=None, card=CARD, capture=True, currency="eur", **more):
    body = {"reference": reference, "amount": amount, "currency": currency}
    match kind:
        case "authorize":
            body |= {"card": card, "capture": capture, "by_amount": True}
        case "payout":
            body |= {"recipient": {"type": "email", "value": "ada@example.com"}}
        case "refund":
            body |= {"payment": parent}
        case _:
            body |= {"authorization": parent}
    if kind == "void":
        del body["amount"], body["currency"]
    return Request("POST", f"/v1/{PATHS[kind]}", body | more)


def say(bank, *args, **kwargs):
    """The status of the answer, with its decline code where there is one; or the HTTP status of a refusal to answer."""
    response = bank.handle(order(*args, **kwargs)).response
    if response.status != 200:
        return response.status
    code = response.body.get("decline_code")
    return f"{response.body['status']} {code}" if code else response.body["status"]


def ask(bank, reference):
    response = bank.handle(Request("GET", f"/v1/operations/{reference}")).response
    return response.body["status"] if response.status == 200 else response.status


SCENARIO = """
authorize a1 4200          -> Accepted
authorize a1 4200          -> Accepted
authorize a1 4201          -> 409
authorize a2 1             -> Declined generic_decline
authorize a3 2             -> InsufficientFunds insufficient_funds
authorize h1 5000 hold     -> Accepted
capture   c1 h1 3000       -> Accepted
capture   c1 h1 3000       -> Accepted
capture   c2 h1 2001       -> Declined capture_exceeds_authorization
capture   c3 h1 2000       -> Accepted
void      v1 h1            -> Declined authorization_captured
increment i1 h1 6000       -> Declined authorization_captured
refund    r1 h1 4999       -> Accepted
refund    r2 h1 3          -> Declined refund_exceeds_capture
refund    r3 h1 1          -> Accepted
authorize h2 5000 hold     -> Accepted
increment i2 h2 5000       -> Declined increment_not_larger
increment i3 h2 7000       -> Accepted
capture   c4 h2 7000       -> Accepted
refund    r4 h2 7001       -> Declined refund_exceeds_capture
authorize h3 5000 hold     -> Accepted
void      v2 h3            -> Accepted
void      v3 h3            -> Declined authorization_voided
capture   c5 h3 5000       -> Declined authorization_voided
refund    r5 h3 5000       -> Declined authorization_voided
refund    r6 c4 10         -> Declined not_an_authorization
capture   c6 a2 10         -> Declined not_an_authorization
payout    p1 9000          -> Accepted
payout    p2 2             -> Accepted
"""


def test_scenario():
    bank = Bank(knows_all=True, operations_max=None)
    for line in SCENARIO.strip().splitlines():
        call, _, expected = line.partition("->")
        kind, reference, *words = call.split()
        parent = words.pop(0) if words and not words[0].isdigit() else None
        amount = int(words.pop(0)) if words else 0
        said = say(bank, kind, reference, amount, parent=parent, capture="hold" not in words)
        assert str(said) == expected.strip(), line
    totals = bank.totals()["eur"]
    assert totals["captured"] == {"count": 4, "amount": 4200 + 3000 + 2000 + 7000}
    assert totals["refund"] == {"count": 2, "amount": 5000}


def test_pending_settles_on_the_next_question_or_resend():
    bank = Bank()
    assert say(bank, "authorize", "by-ask", 24) == "Pending"
    assert ask(bank, "by-ask") == "Accepted"
    assert say(bank, "authorize", "by-resend", 24) == "Pending"
    assert say(bank, "authorize", "by-resend", 24) == "Accepted"
    assert ask(bank, "by-resend") == "Accepted"
    assert ask(bank, "never") == 404


def test_a_pending_capture_is_not_promised_twice():
    bank = Bank()
    say(bank, "authorize", "h", 30, capture=False)
    pended = bank.handle(order("capture", "c1", 24, parent="h"), "Pending")
    assert pended.response.body["status"] == "Pending"
    assert say(bank, "capture", "c2", 24, parent="h") == "Declined capture_exceeds_authorization"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("4000000000000002", "Declined generic_decline"),
        ("4000000000009995", "InsufficientFunds insufficient_funds"),
        ("4000000000000069", "Declined expired_card"),
        ("4000000000000127", "Declined incorrect_cvc"),
        ("4000000000000119", "Declined processing_error"),
        ("4000000000006975", "Declined card_velocity_exceeded"),
        ("4100000000000019", "Declined fraudulent"),
        ("4012888888881881", "Accepted"),
        ("5454545454545454", "Accepted"),
    ],
)
def test_cards(number, said):
    assert say(Bank(), "authorize", "a", card=CARD | {"number": number}) == said


def test_what_is_forgotten_and_what_cannot_exist():
    forgetful, witness = Bank(), Bank(knows_all=True, operations_max=None)
    for kind in ("capture", "void", "refund", "increment"):
        assert say(forgetful, kind, f"x-{kind}", parent="of-another-life") == "Accepted"
        assert say(witness, kind, f"x-{kind}", parent="of-another-life") == "Declined unknown_authorization"


def test_memory_is_bounded():
    bank = Bank(operations_max=10)
    for number in range(25):
        say(bank, "authorize", f"a{number}")
    assert [operation.reference for operation in bank.operations()] == [f"a{number}" for number in range(15, 25)]


def test_a_resend_with_another_cvc_is_another_order():
    bank = Bank()
    say(bank, "authorize", "a")
    assert say(bank, "authorize", "a", card={**CARD, "cvc": "124"}) == 409
    assert say(bank, "authorize", "a", card={key: CARD[key] for key in CARD if key != "cvc"}) == 409
    assert say(bank, "capture", "a", parent="b") == 409


GOOD = order("authorize", "a").body
BAD = [
    ({"reference": ""}, 422, "reference"),
    ({"reference": "r" * 36}, 422, "reference"),
    ({"reference": 7}, 422, "reference"),
    ({"reference": "a\n"}, 422, "reference"),
    ({"amount": 0}, 422, "amount"),
    ({"amount": -5}, 422, "amount"),
    ({"amount": True}, 422, "amount"),
    ({"amount": "4200"}, 422, "amount"),
    ({"amount": 4200.0}, 422, "amount"),
    ({"amount": 10**12}, 422, "amount"),
    ({"currency": "euro"}, 422, "currency"),
    ({"currency": None}, 422, "currency"),
    ({"capture": 1}, 422, "capture"),
    ({"card": None}, 422, "card"),
    ({"card": "4242424242424242"}, 422, "card"),
    ({"card": {}}, 400, "card.exp_month"),
    ({"card": CARD | {"number": "4242 4242"}}, 422, "card.number"),
    ({"card": CARD | {"number": 4242424242424242}}, 422, "card.number"),
    ({"card": CARD | {"exp_month": 13}}, 422, "card.exp_month"),
    ({"card": CARD | {"exp_year": 30}}, 422, "card.exp_year"),
    ({"card": CARD | {"cvc": "12"}}, 422, "card.cvc"),
    ({"card": CARD | {"cvc": 123}}, 422, "card.cvc"),
    ({"card": CARD | {"name": "x" * 201}}, 422, "card.name"),
    ({"card": CARD | {"pin": "1234"}}, 400, "unknown field"),
    ({"extra": 1}, 400, "unknown field"),
]


@pytest.mark.parametrize(("change", "status", "named"), BAD)
def test_bad_bodies(change, status, named):
    bank = Bank()
    response = bank.handle(Request("POST", "/v1/authorizations", GOOD | change)).response
    assert response.status == status
    assert named in response.body["message"]
    assert CARD["number"] not in response.body["message"]
    assert list(bank.operations()) == []


@pytest.mark.parametrize("field", sorted(GOOD.keys() - {"by_amount"}))
def test_missing_fields(field):
    response = (
        Bank().handle(Request("POST", "/v1/authorizations", {k: v for k, v in GOOD.items() if k != field})).response
    )
    assert (response.status, response.body["message"]) == (400, f"missing: {field}")


def test_bad_calls():
    bank = Bank()
    assert bank.handle(Request("POST", "/v1/nothing", {})).response.status == 404
    assert bank.handle(Request("GET", "/v1/nothing")).response.status == 404
    assert bank.handle(Request("POST", "/v1/authorizations")).response.status == 400
    assert bank.handle(Request("POST", "/v1/authorizations", GOOD, {"idempotency-key": "b"})).response.status == 400
    recipient = {"type": "carrier pigeon", "value": "x"}
    assert bank.handle(order("payout", "p", recipient=recipient)).response.status == 422


@pytest.mark.parametrize("kind", PATHS)
def test_members_of_another_type_are_answered(kind):
    bank = Bank()
    assert say(bank, "authorize", "a", capture=kind == "refund") == "Accepted"
    right = order(kind, "b", parent="a")
    for body in bent(right.body):
        if isinstance(body.get("reference"), str):
            body["reference"] = f"{body['reference']}{len(list(bank.operations()))}"
        assert bank.handle(Request("POST", right.path, body)).response.status in (200, 400, 404, 409, 422)


def notices(bank, reference):
    return [(told.after_ms, bank.foretell(told)) for told in bank.forthcoming(bank.find(reference))]


def test_a_dispute_follows_what_was_captured():
    disputed = CARD | {"number": "4000000000000259"}
    bank = Bank()
    say(bank, "authorize", "at-once", card=disputed)
    [(_, body)] = notices(bank, "at-once")
    assert (body["kind"], body["parent"], body["amount"]) == ("dispute", "at-once", 4200)
    say(bank, "authorize", "held", card=disputed, capture=False)
    assert notices(bank, "held") == []
    say(bank, "capture", "c", 3000, parent="held")
    [(_, body)] = notices(bank, "c")
    assert (body["parent"], body["amount"], body["reason"], body["dispute"]) == (
        "held",
        3000,
        "fraudulent",
        "chargeback",
    )
    # It is told once, however often it is announced.
    [announcement] = bank.forthcoming(bank.find("c"))
    first, effect = bank.announce(announcement)
    again, nothing = bank.announce(announcement)
    assert first == again == body and effect is not None and nothing is None


def test_several_disputes():
    bank = Bank()
    say(bank, "authorize", "a", card=CARD | {"number": "4000000404000079"})
    assert len({body["reference"] for _, body in notices(bank, "a")}) == 2


def test_a_declined_dispute_card_is_not_disputed():
    bank = Bank()
    say(bank, "authorize", "a", 1, card=CARD | {"number": "4000000000000259"})
    assert notices(bank, "a") == []


def test_a_refund_comes_back():
    bank = Bank()
    say(bank, "authorize", "a", card=CARD | {"number": "4000000000005126"})
    assert say(bank, "refund", "r", 4200, parent="a") == "Accepted"
    [(_, body)] = notices(bank, "r")
    assert (body["status"], body["decline_code"]) == ("Declined", "expired_or_canceled_card")
    assert ask(bank, "r") == "Accepted"
    [announcement] = bank.forthcoming(bank.find("r"))
    assert bank.announce(announcement)[0] == body
    assert ask(bank, "r") == "Declined"
    # What came back can be refunded once more.
    assert say(bank, "refund", "r2", 4200, parent="a") == "Accepted"


def test_a_pending_refund():
    bank = Bank()
    say(bank, "authorize", "a", card=CARD | {"number": "4000000000007726"})
    assert say(bank, "refund", "r", 4200, parent="a") == "Pending"
    assert ask(bank, "r") == "Accepted"


def test_a_journal_makes_the_same_bank():
    """Whatever it did, a bank that is told its effects one by one knows the same and answers the same."""
    bank, copy = (Bank(knows_all=True, operations_max=None, key=b"k" * 32) for _ in range(2))
    calls = []
    for number, amount in itertools.product(
        ("4242424242424242", "4000000000000259", "4000000000005126"), (4200, 24, 1)
    ):
        reference = f"{number[-4:]}-{amount}"
        calls += [
            order("authorize", reference, amount, card=CARD | {"number": number}, capture=False),
            Request("GET", f"/v1/operations/{reference}"),
            order("increment", f"i-{reference}", amount + 100, parent=reference),
            order("capture", f"c-{reference}", 24, parent=reference),
            order("refund", f"r-{reference}", 10, parent=reference),
            Request("GET", f"/v1/operations/c-{reference}"),
            order("refund", f"s-{reference}", 11, parent=reference),
            order("void", f"v-{reference}", parent=reference),
        ]
    lines = []
    for call in calls:
        effect = bank.handle(call).effect
        if effect is not None:
            lines.append(msgspec.json.encode(effect))
    for operation in list(bank.operations()):
        for announcement in bank.forthcoming(operation):
            effect = bank.announce(announcement)[1]
            if effect is not None:
                lines.append(msgspec.json.encode(effect))
    for line in lines:
        copy.remember(msgspec.json.decode(line, type=BankOperation))
    assert list(copy.operations()) == list(bank.operations())
    assert copy.totals() == bank.totals()
    for call in calls:
        assert copy.handle(call).response == bank.handle(call).response


def reply(bank, reference, kind, key, **body):
    request = Request(
        "POST", f"/v1/disputes/{reference}/{kind}", {"reference": reference, **body}, {"idempotency-key": key}
    )
    return bank.handle(request).response.status


def tell(bank, **report):
    response = bank.tell_dispute(report).response
    return response.body if response.status == 200 else response.status


def test_a_dispute_on_demand_moves_and_ends():
    bank = Bank(knows_all=True, operations_max=None)
    say(bank, "authorize", "a")
    opened = tell(bank, parent="a", dispute="inquiry")
    reference = opened["reference"]
    assert (opened["status"], opened["dispute"], opened["amount"]) == ("Opened", "inquiry", 4200)
    moved = tell(bank, reference=reference, dispute="chargeback", amount=4000, network_reason_code="13.1")
    assert (moved["status"], moved["dispute"], moved["amount"]) == ("Opened", "chargeback", 4000)
    assert tell(bank, parent="a")["reference"] != reference
    # It may contradict itself, and owes a notice of each report.
    for verdict in ("Won", "Lost", "Lost"):
        assert tell(bank, reference=reference, status=verdict)["status"] == verdict
    [announcement] = bank.forthcoming(bank.find(reference))
    assert announcement.nth == 5 and bank.announce(announcement) == (bank.find(reference).answer(), None)


@pytest.mark.parametrize(
    ("report", "status"),
    [
        ({}, 400),
        ({"parent": "nobody"}, 404),
        ({"parent": "held"}, 422),
        ({"parent": "a", "amount": 0}, 422),
        ({"parent": "a", "dispute": "quarrel"}, 422),
        ({"parent": "a", "status": "Declined"}, 422),
        ({"parent": "a", "evidence_due": "soon"}, 422),
        ({"parent": "a", "extra": 1}, 400),
        ({"parent": "a", "reference": "held"}, 409),
    ],
)
def test_a_report_that_cannot_be(report, status):
    bank = Bank(knows_all=True, operations_max=None)
    say(bank, "authorize", "a")
    say(bank, "authorize", "held", capture=False)
    assert tell(bank, **report) == status


def test_replies_are_taken_once_per_key():
    bank = Bank(knows_all=True, operations_max=None)
    say(bank, "authorize", "a")
    reference = tell(bank, parent="a")["reference"]
    assert reply(bank, "nobody", "evidence", "k", text="So.") == 404
    assert reply(bank, reference, "evidence", "", text="So.") == 400
    assert reply(bank, reference, "evidence", "k") == 400
    assert [reply(bank, reference, "evidence", "k", text="So.") for _ in range(2)] == [200, 200]
    assert reply(bank, reference, "evidence", "k", text="No.") == 409
    assert reply(bank, reference, "evidence", "k2", text="4242 4242 4242 4242 paid") == 200
    assert [one.text for one in bank.operations() if one.kind == "evidence"] == ["So.", "**** paid"]
    assert [reply(bank, reference, "accept", "k3") for _ in range(2)] == [200, 200]
    assert bank.find(reference).answer()["status"] == "Accepted"
    assert reply(bank, reference, "evidence", "k4", text="Late.") == 422
