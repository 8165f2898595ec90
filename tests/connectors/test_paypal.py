"""The connector `paypal` keeps the contract, and PayPal's own rules."""

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from bent_members import bent
from paypal_provider import PROOF, PayPalFarSide
from provider_specs import judge, spec

from tillway.connectors.conversation import converse, listen
from tillway.connectors.declines import PAYPAL
from tillway.connectors.paypal import PayPalConnector, WithToken
from tillway.connectors.port import (
    Checks,
    Declined,
    DisputeReply,
    NeverSeen,
    Notice,
    NoticeRejected,
    NoticeUndecided,
    NotSent,
    Operation,
    Outcome,
    Pending,
    PostalAddress,
    Recipient,
    Request,
    Succeeded,
    Unknown,
)
from tillway.testing.connector_contract import Check, authorization, checks_for
from tillway.testing.far_side import Nowhere, Script, in_process

CAPABILITIES = PayPalFarSide().connector.capabilities
AMOUNT = {"currency_code": "EUR", "value": "42.00"}
ORDERS = "/v2/checkout/orders"


def connector() -> PayPalConnector:
    return PayPalConnector("http://127.0.0.1:1", "client", "secret", webhook_id="WH-1", verifications=True)


def operation(**fields: Any) -> Operation:
    return authorization(reference="r1", **fields)


def order(status: str = "COMPLETED", noun: str = "captures", **payment: Any) -> dict[str, Any]:
    paid = {"id": "C-1", "status": "COMPLETED", "amount": AMOUNT, "custom_id": "r1", **payment}
    return {"id": "O-1", "status": status, "purchase_units": [{"payments": {noun: [paid]}}]}


@pytest.mark.parametrize("check", checks_for(CAPABILITIES), ids=lambda check: check.__name__)
async def test_contract(check: Check) -> None:
    await check(PayPalFarSide())


async def _answered(
    status: int, body: Any, *, headers: Any = None, **fields: Any
) -> tuple[Outcome | NeverSeen, Request]:
    far = Script()
    far.expect("POST", ORDERS, headers={"paypal-request-id": "r1"}).answers(status, body, headers)
    outcome = await converse(connector().perform(operation(**fields)), in_process(far))
    far.verify()
    return outcome, far.requests[0]


async def test_an_order_carries_the_payment() -> None:
    outcome, request = await _answered(
        201,
        order(processor_response={"cvv_code": "N", "avs_code": "Z"}, network_transaction_reference={"id": "net-1"}),
        billing_address=PostalAddress(line1="1 High Street", city="London", country="gb"),
        statement_descriptor="SHOP",
    )
    assert outcome == Succeeded(
        "O-1", network_transaction_id="net-1", checks=Checks(cvc="fail", address_line1="fail", postal_code="pass")
    )
    [unit] = request.fields["purchase_units"]
    assert (unit["custom_id"], unit["amount"], unit["soft_descriptor"]) == ("r1", AMOUNT, "SHOP")
    card = request.fields["payment_source"]["card"]
    assert (card["number"], card["expiry"], card["security_code"]) == ("4242424242424242", "2040-12", "123")
    assert card["billing_address"]["country_code"] == "GB" and "stored_credential" not in card


async def test_the_merchant_initiates_a_payment_with_a_stored_card() -> None:
    _, request = await _answered(201, order(), off_session=True, network_transaction_id="net-0")
    stored = request.fields["payment_source"]["card"]["stored_credential"]
    assert stored["payment_initiator"] == "MERCHANT"
    assert stored["previous_network_transaction_reference"] == {"id": "net-0"}


async def test_the_first_payment_with_a_card_that_is_kept_says_so() -> None:
    _, request = await _answered(201, order(), stores="off_session")
    stored = request.fields["payment_source"]["card"]["stored_credential"]
    assert stored == {"payment_initiator": "CUSTOMER", "payment_type": "UNSCHEDULED", "usage": "FIRST"}


@pytest.mark.parametrize(
    ("currency", "amount_minor", "value"),
    [("jpy", 4200, "4200"), ("huf", 420000, "4200"), ("twd", 100, "1"), ("usd", 5, "0.05")],
)
async def test_amounts_are_written_as_paypal_writes_them(currency: str, amount_minor: int, value: str) -> None:
    money = {"currency_code": currency.upper(), "value": value}
    outcome, request = await _answered(201, order(amount=money), currency=currency, amount_minor=amount_minor)
    assert request.fields["purchase_units"][0]["amount"] == money
    assert isinstance(outcome, Succeeded)


@pytest.mark.parametrize("code", PAYPAL)
async def test_declines_follow_the_table(code: str) -> None:
    outcome, _ = await _answered(201, order(status="DECLINED", processor_response={"response_code": code}) | {})
    assert isinstance(outcome, Succeeded), "the status of the payment decides, not the order's"
    declined = order(processor_response={"response_code": code})
    declined["purchase_units"][0]["payments"]["captures"][0]["status"] = "DECLINED"
    outcome, _ = await _answered(201, declined)
    assert isinstance(outcome, Declined) and outcome.alert is None
    assert (outcome.code, outcome.decline_code, outcome.soft) == PAYPAL[code]


@pytest.mark.parametrize(
    ("code", "decline_code"),
    [
        ("0500", "do_not_honor"),
        ("5120", "insufficient_funds"),
        ("5400", "expired_card"),
        ("5110", "incorrect_cvc"),
        ("9520", "lost_card"),
        ("9500", "fraudulent"),
        ("1330", "incorrect_number"),
    ],
)
def test_the_declines_that_merchants_ask_about(code: str, decline_code: str) -> None:
    assert PAYPAL[code].decline_code == decline_code and not PAYPAL[code].soft


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (422, {"details": [{"issue": "INSTRUMENT_DECLINED"}]}, Declined("card_declined", "generic_decline")),
        (422, {"details": [{"issue": "CARD_EXPIRED"}]}, Declined("expired_card", "expired_card")),
        (
            400,
            {"name": "INVALID_REQUEST"},
            Declined("processing_error", None, alert="PayPal answered 400 INVALID_REQUEST"),
        ),
        (
            422,
            {"details": [{"issue": "4242424242424242"}]},
            Declined("processing_error", None, alert="PayPal answered 422"),
        ),
        (503, None, Unknown("PayPal answered 503", 9.0)),
        (404, None, Unknown("PayPal answered 404, and does not say what is missing")),
        (429, None, NotSent("PayPal answered 429", 9.0)),
    ],
)
async def test_refusals(status: int, body: Any, expected: Outcome) -> None:
    outcome, _ = await _answered(status, body, headers={"Retry-After": "9"})
    assert outcome == expected


@pytest.mark.parametrize(
    "told",
    [
        order(amount={"currency_code": "EUR", "value": "42.01"}),
        order(amount={"currency_code": "USD", "value": "42.00"}),
        order(custom_id="r2"),
        order(custom_id=None),
        order(status="ODD") | {"purchase_units": []},
        order(noun="authorizations"),
        order() | {"id": None},
        {
            **order(),
            "purchase_units": [{"payments": {"captures": [{"status": "ODD", "amount": AMOUNT, "custom_id": "r1"}]}}],
        },
    ],
)
async def test_another_payment_is_unknown(told: dict[str, Any]) -> None:
    outcome, _ = await _answered(201, told)
    assert isinstance(outcome, Unknown), outcome


async def test_a_payment_that_needs_the_customer_is_declined() -> None:
    outcome, _ = await _answered(201, {"id": "O-1", "status": "PAYER_ACTION_REQUIRED", "purchase_units": [{}]})
    assert outcome == Declined("card_declined", "authentication_required", bank_id="O-1")


# Payouts.


def payout(**fields: Any) -> Operation:
    return operation(kind="payout", card=None, recipient=Recipient("email", "ada@example.com"), **fields)


def batch(status: str, error: str | None = None) -> dict[str, Any]:
    item = {"sender_item_id": "r1", "receiver": "ada@example.com", "amount": {"currency": "EUR", "value": "42.00"}}
    return {"items": [{"transaction_status": status, "payout_item": item, "errors": {"name": error}}]}


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        ("SUCCESS", None, Succeeded("B1")),
        ("FAILED", "INSUFFICIENT_FUNDS", Declined("processing_error", "insufficient_funds", bank_id="B1")),
        ("RETURNED", None, Declined("processing_error", "could_not_process", bank_id="B1")),
        ("BLOCKED", "RECEIVER_ACCOUNT_LOCKED", Declined("processing_error", "account_frozen", bank_id="B1")),
        ("UNCLAIMED", None, Pending("B1")),
        ("ONHOLD", None, Pending("B1")),
    ],
)
@pytest.mark.parametrize("again", [False, True], ids=["first", "repeated"])
async def test_payouts_settle_by_their_item(status: str, error: str | None, expected: Outcome, again: bool) -> None:
    far = Script()
    made = far.expect("POST", "/v1/payments/payouts", headers={"paypal-request-id": "r1"})
    if again:
        link = "https://api.sandbox.paypal.com/v1/payments/payouts/B1"
        made.answers(400, {"name": "USER_BUSINESS_ERROR", "links": [{"href": link}]})
    else:
        made.answers(201, {"batch_header": {"payout_batch_id": "B1", "batch_status": "PENDING"}})
    far.expect("GET", "/v1/payments/payouts/B1").answers(200, batch(status, error))
    assert await converse(connector().perform(payout()), in_process(far)) == expected
    far.verify()
    header = far.requests[0].fields["sender_batch_header"]
    assert header["sender_batch_id"] == "r1"


@pytest.mark.parametrize("links", [None, [], [{"href": "https://api.sandbox.paypal.com/elsewhere"}], ["nonsense"]])
async def test_a_repeated_batch_without_its_link_is_unknown(links: Any) -> None:
    """The first request may have paid: a payout that failed would be paid a second time."""
    far = Script()
    far.expect("POST", "/v1/payments/payouts").answers(400, {"name": "USER_BUSINESS_ERROR", "links": links})
    assert isinstance(await converse(connector().perform(payout()), in_process(far)), Unknown)
    far = Script()
    far.expect("POST", "/v1/payments/payouts").answers(400, {"name": "VALIDATION_ERROR", "links": links})
    assert isinstance(await converse(connector().perform(payout()), in_process(far)), Declined)


async def test_a_batch_over_another_amount_is_unknown() -> None:
    far = Script()
    far.expect("POST", "/v1/payments/payouts").answers(201, {"batch_header": {"payout_batch_id": "B1"}})
    told = batch("SUCCESS")
    told["items"][0]["payout_item"]["amount"]["value"] = "24.00"
    far.expect("GET", "/v1/payments/payouts/B1").answers(200, told)
    assert isinstance(await converse(connector().perform(payout()), in_process(far)), Unknown)


# Tokens.


async def test_a_token_serves_many_requests_and_is_fetched_again_after_a_401() -> None:
    far = PayPalFarSide()
    for _ in range(3):
        assert isinstance(await converse(far.connector.perform(authorization()), far.transport), Succeeded)
    assert far.tokens == 1
    far.token_is_good = False
    assert isinstance(await converse(far.connector.perform(authorization()), far.transport), Succeeded)
    assert far.tokens == 2 and await far.performed() == 4


async def test_wrong_credentials_are_an_alert() -> None:
    far = PayPalFarSide()
    transport = WithToken(in_process(far.peer), "client", "wrong")
    outcome = await converse(far.connector.perform(authorization()), transport)
    assert isinstance(outcome, Declined) and outcome.alert == "PayPal answered 401"
    assert await far.performed() == 0


async def test_without_a_token_nothing_was_sent() -> None:
    outcome = await converse(connector().perform(operation()), WithToken(Nowhere(), "client", "secret"))
    assert isinstance(outcome, NotSent)
    far = Script()
    far.expect("POST", "/v1/oauth2/token").answers(503)
    outcome = await converse(connector().perform(operation()), WithToken(in_process(far), "client", "secret"))
    assert isinstance(outcome, NotSent)


# Notices.


async def _told(event: Any, status: int = 200, verdict: str = "SUCCESS") -> list[Notice]:
    far = Script()
    asked = far.expect("POST", "/v1/notifications/verify-webhook-signature")
    asked.answers(status, {"verification_status": verdict})
    body = msgspec.json.encode(event)
    notices = await listen(connector().notices(PROOF, body), in_process(far))
    [request] = far.requests
    assert isinstance(request.body, bytes) and body in request.body, "the event goes back byte by byte"
    assert json.loads(request.body)["webhook_id"] == "WH-1"
    return notices


def capture(**fields: Any) -> dict[str, Any]:
    resource = {"id": "C-1", "status": "COMPLETED", "amount": AMOUNT, "custom_id": "r1", **fields}
    return {"event_type": "PAYMENT.CAPTURE.COMPLETED", "resource": resource}


async def test_a_capture_is_told() -> None:
    [notice] = await _told(capture(supplementary_data={"related_ids": {"order_id": "O-1"}}))
    assert (notice.reference, notice.outcome, notice.amount_minor, notice.currency) == (
        "r1",
        Succeeded("O-1"),
        4200,
        "eur",
    )
    assert await _told(capture(custom_id=None)) == [], "a payment that is not ours"
    assert await _told(capture(status="PENDING")) == []


async def test_one_of_several_captures_is_told_by_its_invoice() -> None:
    money = {"currency_code": "EUR", "value": "10.00"}
    part = {"id": "C-2", "status": "COMPLETED", "amount": money, "custom_id": "r1", "invoice_id": "r2"}
    [notice] = await _told({"event_type": "PAYMENT.CAPTURE.COMPLETED", "resource": part})
    assert (notice.reference, notice.operation, notice.outcome) == ("r2", "capture", Succeeded("C-2"))
    assert notice.amount_minor == 1000


async def test_a_part_of_a_refund_only_asks_to_look_unless_it_failed() -> None:
    money = {"currency_code": "EUR", "value": "10.00"}
    refund = {"id": "X-1", "amount": money, "custom_id": "r3.part", "invoice_id": "r3"}
    [notice] = await _told({"event_type": "PAYMENT.CAPTURE.REFUNDED", "resource": refund})
    assert (notice.reference, notice.outcome, notice.amount_minor) == ("r3", None, None)
    [notice] = await _told({"event_type": "PAYMENT.REFUND.FAILED", "resource": refund})
    assert (notice.reference, notice.amount_minor) == ("r3", 1000) and isinstance(notice.outcome, Declined)


async def test_a_payout_is_told() -> None:
    resource = {**batch("UNCLAIMED")["items"][0], "payout_batch_id": "B1"}
    assert await _told({"event_type": "PAYMENT.PAYOUTS-ITEM.UNCLAIMED", "resource": resource}) == []
    resource["transaction_status"] = "RETURNED"
    [notice] = await _told({"event_type": "PAYMENT.PAYOUTS-ITEM.RETURNED", "resource": resource})
    assert (notice.operation, notice.reference) == ("payout", "r1") and isinstance(notice.outcome, Declined)


DISPUTE = {
    "dispute_id": "PP-1",
    "dispute_amount": AMOUNT,
    "reason": "MERCHANDISE_OR_SERVICE_NOT_RECEIVED",
    "status": "RESOLVED",
    "dispute_life_cycle_stage": "CHARGEBACK",
    "dispute_outcome": {"outcome_code": "RESOLVED_SELLER_FAVOUR"},
    "disputed_transactions": [{"custom": "r1"}],
}


@pytest.mark.parametrize(
    ("status", "outcome", "stage", "verdict"),
    [
        ("OPEN", None, "INQUIRY", ("inquiry", "opened")),
        ("OPEN", None, "CHARGEBACK", ("chargeback", "opened")),
        ("RESOLVED", "RESOLVED_SELLER_FAVOUR", "CHARGEBACK", ("chargeback", "won")),
        ("RESOLVED", "RESOLVED_BUYER_FAVOUR", "CHARGEBACK", ("chargeback", "lost")),
    ],
)
async def test_disputes(status: str, outcome: str | None, stage: str, verdict: tuple[str, str]) -> None:
    dispute = {
        **DISPUTE,
        "status": status,
        "dispute_life_cycle_stage": stage,
        "dispute_outcome": {"outcome_code": outcome},
    }
    [notice] = await _told({"event_type": "CUSTOMER.DISPUTE.UPDATED", "resource": dispute})
    assert (notice.id, notice.reference, notice.amount_minor) == ("PP-1", "r1", 4200)
    assert (notice.stage, notice.verdict) == verdict and notice.reason == "product_not_received"


@pytest.mark.parametrize(
    ("event_type", "resource"),
    [
        ("PAYMENT.CAPTURE.COMPLETED", capture(supplementary_data={"related_ids": {"order_id": "O-1"}})["resource"]),
        ("PAYMENT.CAPTURE.COMPLETED", capture(invoice_id="r2")["resource"]),
        ("PAYMENT.REFUND.FAILED", capture(invoice_id="r2")["resource"]),
        ("PAYMENT.PAYOUTS-ITEM.RETURNED", {**batch("RETURNED")["items"][0], "payout_batch_id": "B1"}),
        ("CUSTOMER.DISPUTE.UPDATED", DISPUTE),
    ],
)
async def test_members_of_another_type_are_read_or_rejected(event_type: str, resource: dict[str, Any]) -> None:
    for changed in bent({"event_type": event_type, "resource": resource}):
        with suppress(NoticeRejected):
            await _told(changed)


async def test_what_paypal_does_not_confirm_is_rejected() -> None:
    with pytest.raises(NoticeRejected):
        await _told(capture(), verdict="FAILURE")
    with pytest.raises(NoticeUndecided):
        await _told(capture(), status=503)
    for headers, body in (({}, b"{}"), (PROOF, b"{"), (PROOF, b"[]")):
        with pytest.raises(NoticeRejected):
            await listen(connector().notices(headers, body), in_process(Script()))
    with pytest.raises(NoticeRejected):
        PayPalConnector("http://127.0.0.1:1", "client", "secret").notices(PROOF, b"{}")


async def test_evidence_and_acceptance() -> None:
    far = Script()
    far.expect("POST", "/v1/customer/disputes/PP-1/provide-evidence").answers(200, {})
    far.expect("POST", "/v1/customer/disputes/PP-1/accept-claim").answers(200, {})
    for reply in (
        DisputeReply(kind="evidence", reference="PP-1", text="we sent it"),
        DisputeReply(kind="accept", reference="PP-1"),
    ):
        assert await converse(connector().answer_dispute(reply), in_process(far)) == Succeeded()
    evidence = far.requests[0]
    assert evidence.content_type == "multipart/form-data; boundary=tillway-evidence"
    assert isinstance(evidence.body, bytes) and b'"notes":"we sent it"' in evidence.body


# A refund of several captures.


def _with_captures(*captures: tuple[str, str], refunds: tuple[tuple[str, str, str, str], ...] = ()) -> dict[str, Any]:
    """An order with captures (id, value) and refunds (invoice, capture, value, status)."""
    money = [{"currency_code": "EUR", "value": value} for _, value in captures]
    payments = {
        "captures": [
            {"id": id, "status": "COMPLETED", "amount": amount, "create_time": f"2026-01-0{nth}T00:00:00Z"}
            for nth, ((id, _), amount) in enumerate(zip(captures, money, strict=True), 1)
        ],
        "refunds": [
            {
                "id": f"X-{invoice}-{capture}",
                "status": status,
                "amount": {"currency_code": "EUR", "value": value},
                "invoice_id": invoice,
                "links": [{"rel": "up", "href": f"https://api-m.paypal.com/v2/payments/captures/{capture}"}],
            }
            for invoice, capture, value, status in refunds
        ],
    }
    return {"id": "O-1", "purchase_units": [{"payments": payments}]}


def _refund(amount_minor: int) -> Operation:
    return operation(kind="refund", card=None, amount_minor=amount_minor, parent="r0", parent_bank_id="O-1")


def _refunds(far: Script, capture: str, key: str, status: int = 201, state: str = "COMPLETED") -> None:
    path = f"/v2/payments/captures/{capture}/refund"
    body = {"id": f"X-{capture}", "status": state, "invoice_id": "r1"}
    far.expect("POST", path, headers={"paypal-request-id": key}).answers(status, body)


CAPTURES = (("C-1", "10.00"), ("C-2", "12.00"), ("C-3", "5.00"))


async def _refunded(far: Script, amount_minor: int) -> tuple[Outcome | NeverSeen, list[str]]:
    outcome = await converse(connector().perform(_refund(amount_minor)), in_process(far))
    far.verify()
    return outcome, [request.fields["amount"]["value"] for request in far.requests if request.method == "POST"]


async def test_a_refund_takes_from_one_capture_after_the_other() -> None:
    far = Script()
    far.expect("GET", f"{ORDERS}/O-1").answers(
        200, _with_captures(*CAPTURES, refunds=(("before", "C-1", "4.00", "COMPLETED"),))
    )
    _refunds(far, "C-1", "r1")
    _refunds(far, "C-2", "r1.2", state="PENDING")
    outcome, values = await _refunded(far, 1500)
    assert (outcome, values) == (Pending("X-C-2"), ["6.00", "9.00"])
    assert {request.fields["custom_id"] for request in far.requests[1:]} == {"r1.part"}


async def test_a_repeated_refund_goes_on_where_it_ended() -> None:
    seen = _with_captures(*CAPTURES, refunds=(("r1", "C-1", "10.00", "COMPLETED"), ("other", "C-2", "11.00", "FAILED")))
    far = Script()
    far.expect("GET", f"{ORDERS}/O-1").answers(200, seen)
    _refunds(far, "C-2", "r1.2")
    assert await _refunded(far, 1500) == (Succeeded("X-r1-C-1"), ["5.00"])
    far = Script()
    done = _with_captures(*CAPTURES, refunds=(("r1", "C-1", "10.00", "COMPLETED"), ("r1", "C-2", "5.00", "COMPLETED")))
    far.expect("GET", f"{ORDERS}/O-1").answers(200, done)
    assert await _refunded(far, 1500) == (Succeeded("X-r1-C-1"), [])


async def test_a_refund_of_which_only_a_part_was_made_is_in_doubt() -> None:
    far = Script()
    far.expect("GET", f"{ORDERS}/O-1").answers(200, _with_captures(*CAPTURES))
    _refunds(far, "C-1", "r1")
    _refunds(far, "C-2", "r1.2", status=422)
    outcome, _ = await _refunded(far, 1500)
    assert outcome == Unknown("only a part of the refund was made")
    far = Script()
    far.expect("GET", f"{ORDERS}/O-1").answers(200, _with_captures(*CAPTURES))
    outcome, values = await _refunded(far, 2701)
    assert isinstance(outcome, Declined) and values == [], "nothing is sent of a refund of too much"


# PayPal's own files.


async def test_requests_fit_paypals_openapi_files() -> None:
    far = PayPalFarSide()
    files = [
        spec("paypal", name)
        for name in ("checkout_orders_v2.json", "payments_payment_v2.json", "payments_payouts_batch_v1.json")
    ]
    for check in checks_for(CAPABILITIES):
        side = PayPalFarSide()
        await check(side)
        far.requests += side.requests
    judged = 0
    for request in far.requests:
        if request.method != "POST" or not request.path.startswith(("/v2/", "/v1/payments/")) or not request.fields:
            continue
        [document] = [file for file in files if any(_fits(path, request.path) for path in file["paths"])]
        judge(document, "POST", request.path).validate(request.fields)
        judged += 1
    assert judged > 30
    wrong = {"intent": "CAPTURE", "purchase_units": [{"amount": {"currency_code": "EURO", "value": "1"}}]}
    assert not judge(files[0], "POST", ORDERS).is_valid(wrong), "the judge refuses nothing"


def _fits(template: str, path: str) -> bool:
    parts, given = template.split("/"), path.split("/")
    return len(parts) == len(given) and all(
        part == word or part.startswith("{") for part, word in zip(parts, given, strict=True)
    )
