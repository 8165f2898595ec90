"""The connector `adyen` keeps the contract, and Adyen's own rules."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from Adyen.util import is_valid_hmac_notification
from adyen_provider import ACCOUNT, KEY, AdyenFarSide, notification
from bent_members import bent
from provider_specs import judge, spec

from tillway.connectors.adyen import AdyenConnector
from tillway.connectors.conversation import converse, listen
from tillway.connectors.declines import ADYEN
from tillway.connectors.port import (
    Checks,
    Declined,
    NeverSeen,
    Notice,
    NoticeImpossible,
    NoticeRejected,
    NotSent,
    Operation,
    Outcome,
    Pending,
    PostalAddress,
    Request,
    Succeeded,
    Unknown,
)
from tillway.connectors.settings import SettingInvalid
from tillway.testing.connector_contract import Check, authorization, checks_for
from tillway.testing.far_side import Script, in_process

CAPABILITIES = AdyenFarSide().connector.capabilities
AMOUNT = {"currency": "EUR", "value": 4200}
AUTHORISED = {"pspReference": "P1", "merchantReference": "r1", "amount": AMOUNT, "resultCode": "Authorised"}


def connector() -> AdyenConnector:
    return AdyenConnector("http://127.0.0.1:1", "key", ACCOUNT, hmac_key=KEY)


def operation(**fields: Any) -> Operation:
    return authorization(reference="r1", **fields)


@pytest.mark.parametrize("check", checks_for(CAPABILITIES), ids=lambda check: check.__name__)
async def test_contract(check: Check) -> None:
    await check(AdyenFarSide())


async def _answered(
    status: int, body: Any, *, headers: Any = None, **fields: Any
) -> tuple[Outcome | NeverSeen, Request]:
    far = Script()
    far.expect("POST", "/payments", headers={"idempotency-key": "r1"}).answers(status, body, headers)
    outcome = await converse(connector().perform(operation(**fields)), in_process(far))
    far.verify()
    return outcome, far.requests[0]


async def test_a_payment() -> None:
    more = {"networkTxReference": "net-1", "cvcResult": "2 Doesn't match", "avsResult": "7 Both match"}
    outcome, request = await _answered(
        200,
        {**AUTHORISED, "additionalData": more},
        billing_address=PostalAddress(line1="1 High Street", city="London", country="gb", postal_code="E1"),
        email="ada@example.com",
        return_url="https://shop.example/back",
    )
    assert outcome == Succeeded(
        "P1", network_transaction_id="net-1", checks=Checks(cvc="fail", address_line1="pass", postal_code="pass")
    )
    sent = request.fields
    assert (sent["amount"], sent["reference"], sent["merchantAccount"]) == (AMOUNT, "r1", ACCOUNT)
    assert (sent["captureDelayHours"], sent["shopperInteraction"]) == (0, "Ecommerce")
    assert sent["paymentMethod"]["expiryMonth"] == "12" and sent["paymentMethod"]["cvc"] == "123"
    assert sent["billingAddress"]["country"] == "GB" and sent["returnUrl"] == "https://shop.example/back"


async def test_an_authorization_is_captured_by_hand() -> None:
    _, request = await _answered(200, AUTHORISED, capture=False)
    assert request.fields["additionalData"] == {"manualCapture": "true"} and "captureDelayHours" not in request.fields


async def test_the_merchant_initiates_a_payment_with_a_stored_card() -> None:
    _, request = await _answered(200, AUTHORISED, off_session=True, network_transaction_id="net-0")
    assert request.fields["shopperInteraction"] == "ContAuth"
    assert request.fields["recurringProcessingModel"] == "UnscheduledCardOnFile"
    assert request.fields["paymentMethod"]["networkPaymentReference"] == "net-0"


@pytest.mark.parametrize(("usage", "model"), [("off_session", "UnscheduledCardOnFile"), ("on_session", "CardOnFile")])
async def test_the_first_payment_with_a_card_that_is_kept_says_so(usage: Any, model: str) -> None:
    _, request = await _answered(200, AUTHORISED, stores=usage)
    assert request.fields["recurringProcessingModel"] == model
    assert request.fields["shopperInteraction"] == "Ecommerce"


@pytest.mark.parametrize(
    ("currency", "amount_minor", "value"), [("isk", 500, 50000), ("clp", 5, 500), ("idr", 1200, 12), ("jpy", 7, 7)]
)
async def test_amounts_have_adyens_decimals(currency: str, amount_minor: int, value: int) -> None:
    money = {"currency": currency.upper(), "value": value}
    outcome, request = await _answered(
        200, {**AUTHORISED, "amount": money}, currency=currency, amount_minor=amount_minor
    )
    assert request.fields["amount"] == money and isinstance(outcome, Succeeded)
    item = AdyenFarSide().item("AUTHORISATION", "r1", "P1", money, True)
    [notice] = await listen(connector().notices({}, notification(item)), in_process(Script()))
    assert (notice.amount_minor, notice.currency) == (amount_minor, currency)


def test_decimals_that_adyen_lacks_are_steps() -> None:
    assert CAPABILITIES.steps is not None
    assert (CAPABILITIES.steps["idr"], CAPABILITIES.steps["cve"], CAPABILITIES.steps["eur"]) == (100, 100, 1)


@pytest.mark.parametrize("code", ADYEN)
async def test_declines_follow_the_table(code: str) -> None:
    outcome, _ = await _answered(200, {**AUTHORISED, "resultCode": "Refused", "refusalReasonCode": code})
    assert isinstance(outcome, Declined) and outcome.alert is None
    assert (outcome.code, outcome.decline_code, outcome.soft) == ADYEN[code]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (422, {"errorCode": "101"}, Declined("incorrect_number", "incorrect_number")),
        (422, {"errorCode": "704"}, Unknown("Adyen still performs the first request under this key")),
        (422, {"errorCode": "14_030"}, Declined("processing_error", None, alert="Adyen answered 422 14_030")),
        (401, {"errorCode": "4242 4242"}, Declined("processing_error", None, alert="Adyen answered 401")),
        (500, {}, Unknown("Adyen answered 500", 3.0)),
        (429, None, NotSent("Adyen answered 429", 3.0)),
        (200, {**AUTHORISED, "resultCode": "Received"}, Pending("P1")),
        (200, {"resultCode": "RedirectShopper"}, Declined("card_declined", "authentication_required")),
    ],
)
async def test_answers(status: int, body: Any, expected: Outcome) -> None:
    outcome, _ = await _answered(status, body, headers={"Retry-After": "3"})
    assert outcome == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"amount": {"currency": "EUR", "value": 4201}},
        {"amount": {"currency": "USD", "value": 4200}},
        {"amount": None},
        {"merchantReference": "r2"},
        {"merchantReference": None},
        {"pspReference": None},
        {"resultCode": "PartiallyAuthorised"},
        {"resultCode": None},
    ],
)
async def test_another_payment_is_unknown(changed: dict[str, Any]) -> None:
    outcome, _ = await _answered(200, {**AUTHORISED, **changed})
    assert isinstance(outcome, Unknown), outcome


@pytest.mark.parametrize(("given", "path"), [("http://a.b", "http://a.b/v71"), ("http://a.b/v72", "http://a.b/v72")])
def test_the_version_is_part_of_the_address(given: str, path: str) -> None:
    connector = AdyenConnector(given, "key", ACCOUNT)
    assert connector._base_url == path


def test_a_key_that_is_none_is_named() -> None:
    settings = {"base_url": "http://a.b", "api_key": "k", "merchant_account": ACCOUNT}
    for wrong in ("secret", "00", "zz" * 32):
        with pytest.raises(SettingInvalid, match="hmac_key") as invalid:
            AdyenConnector.from_settings({**settings, "hmac_key": wrong})
        assert wrong not in str(invalid.value)
    assert AdyenConnector.from_settings({**settings, "hmac_key": KEY.hex().upper()}).capabilities.livemode


# Notifications.


async def _told(*items: dict[str, Any]) -> list[Notice]:
    return await listen(connector().notices({}, notification(*items)), in_process(Script()))


def item(kind: str, *, success: bool = True, **more: Any) -> dict[str, Any]:
    return {**AdyenFarSide().item(kind, "r1", "M1", AMOUNT, success), **more}


@pytest.mark.parametrize(
    ("kind", "success", "operation", "outcome"),
    [
        ("AUTHORISATION", True, "authorize", Succeeded),
        ("AUTHORISATION", False, "authorize", Declined),
        ("CAPTURE", True, "capture", Succeeded),
        ("CAPTURE", False, "capture", Declined),
        ("CAPTURE_FAILED", True, "capture", Declined),
        ("CANCELLATION", True, "void", Succeeded),
        ("REFUND", True, "refund", Succeeded),
        ("REFUND_FAILED", True, "refund", Declined),
        ("REFUNDED_REVERSED", True, "refund", Declined),
    ],
)
async def test_notifications(kind: str, success: bool, operation: str, outcome: type) -> None:
    [notice] = await _told(item(kind, success=success))
    assert (notice.reference, notice.operation, type(notice.outcome)) == ("r1", operation, outcome)
    assert (notice.amount_minor, notice.currency) == (4200, "eur")


async def test_a_refusal_in_words_has_its_code() -> None:
    [notice] = await _told(item("AUTHORISATION", success=False, reason="Not enough balance"))
    assert isinstance(notice.outcome, Declined) and notice.outcome.decline_code == "insufficient_funds"


async def test_several_items_and_strangers() -> None:
    told = await _told(item("CAPTURE"), item("REPORT_AVAILABLE"), item("REFUND", merchantReference=""))
    assert [notice.operation for notice in told] == ["capture"]


@pytest.mark.parametrize(
    ("kind", "stage", "verdict"),
    [
        ("CHARGEBACK", "chargeback", "opened"),
        ("REQUEST_FOR_INFORMATION", "inquiry", "opened"),
        ("NOTIFICATION_OF_FRAUD", "warning", "opened"),
        ("CHARGEBACK_REVERSED", "chargeback", "won"),
        ("SECOND_CHARGEBACK", "chargeback", "lost"),
    ],
)
async def test_disputes(kind: str, stage: str, verdict: str) -> None:
    [notice] = await _told(item(kind, additionalData={"chargebackReasonCode": "10.4"}))
    assert (notice.kind, notice.stage, notice.verdict) == ("dispute", stage, verdict)
    assert (notice.reason, notice.network_reason_code) == ("fraudulent", "10.4")
    with pytest.raises(NoticeImpossible):
        await _told(item(kind, amount={"currency": "EUR", "value": 0}))


@pytest.mark.parametrize("kind", ["AUTHORISATION", "CAPTURE_FAILED", "REFUND", "CHARGEBACK", "REQUEST_FOR_INFORMATION"])
async def test_members_of_another_type_are_read_or_rejected(kind: str) -> None:
    more = {
        "chargebackReasonCode": "10.4",
        "cvcResult": "1 Matches",
        "avsResult": "4 No",
        "disputeStatus": "Undefended",
    }
    for success in (True, False):
        for changed in bent(item(kind, success=success, reason="Refused", additionalData=more)):
            if isinstance(changed["additionalData"], dict):  # It holds the signature.
                with suppress(NoticeRejected):
                    await _told(changed)


def test_the_official_library_signs_as_we_read() -> None:
    body = msgspec.json.decode(notification(item("CAPTURE", originalReference="P1")))
    assert is_valid_hmac_notification(body, KEY.hex())
    body["notificationItems"][0]["NotificationRequestItem"]["amount"]["value"] += 1
    assert not is_valid_hmac_notification(body, KEY.hex()), "the library refuses another amount"


@pytest.mark.parametrize("fault", ["key", "amount", "success", "no signature", "account", "one of two", "nonsense"])
async def test_forged_notifications_are_rejected(fault: str) -> None:
    good = item("CAPTURE")
    body = notification(good, key=bytes(32) if fault == "key" else KEY)
    match fault:
        case "amount":
            body = body.replace(b"4200", b"4201")
        case "success":
            body = notification(item("CAPTURE", success=False)).replace(b'"false","add', b'"true","add')
        case "no signature":
            body = body.replace(b"hmacSignature", b"other")
        case "account":
            body = notification({**good, "merchantAccountCode": "Other"})
        case "one of two":
            body = notification(good, {**good, "pspReference": "M2"}).replace(b'"M2"', b'"M3"')
        case "nonsense":
            body = b'{"notificationItems": [{}]}'
    with pytest.raises(NoticeRejected):
        await listen(connector().notices({}, body), in_process(Script()))


# Adyen's own file.


async def test_requests_fit_adyens_openapi_file() -> None:
    document = spec("adyen", "CheckoutService-v71.json")
    requests = []
    for check in checks_for(CAPABILITIES):
        far = AdyenFarSide()
        await check(far)
        requests += far.requests
    for request in requests:
        judge(document, "POST", request.path).validate(request.fields)
    assert len(requests) > 30
    wrong = {"amount": {"currency": "EUR", "value": "1"}, "merchantAccount": 1, "reference": "r"}
    assert not judge(document, "POST", "/payments").is_valid(wrong), "the judge refuses nothing"
