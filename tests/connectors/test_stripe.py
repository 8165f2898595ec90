"""The connector `stripe` keeps the contract, and Stripe's own rules."""

import time
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import pytest
import stripe
from bent_members import bent
from stripe_provider import SECRET, StripeFarSide, signed

from tillway.connectors.conversation import converse, listen
from tillway.connectors.port import (
    CardData,
    Declined,
    DisputeReply,
    NeverSeen,
    Notice,
    NoticeRejected,
    Operation,
    Outcome,
    Pending,
    PostalAddress,
    Recipient,
    Request,
    Response,
    Succeeded,
    Unknown,
)
from tillway.connectors.stripe import StripeConnector
from tillway.testing.connector_contract import Check, authorization, checks_for
from tillway.testing.far_side import Handler, Script, answer, in_process

CAPABILITIES = StripeFarSide().connector.capabilities

INTENT = {
    "id": "pi_1",
    "object": "payment_intent",
    "amount": 4200,
    "currency": "eur",
    "capture_method": "automatic",
    "status": "requires_payment_method",
    "metadata": {"tillway_reference": "r1"},
}
PATH = "/v1/payment_intents"
READ = f"{PATH}/pi_1?expand[]=latest_charge"


def operation(**fields: Any) -> Operation:
    return authorization(reference="r1", **fields)


def connector() -> StripeConnector:
    return StripeConnector("http://127.0.0.1:1", "sk_test_1", webhook_secret=SECRET)


@pytest.mark.parametrize("check", checks_for(CAPABILITIES), ids=lambda check: check.__name__)
@pytest.mark.parametrize("searches", [True, False], ids=["searched", "listed"])
async def test_contract(check: Check, searches: bool) -> None:
    await check(StripeFarSide(searches=searches))


async def _confirm(status: int, body: Any, **fields: Any) -> tuple[Outcome | NeverSeen, Script]:
    """The outcome of an authorization whose confirmation gets this answer."""
    far = Script()
    far.expect("POST", PATH).answers(200, INTENT)
    far.expect("GET", READ).answers(200, INTENT)
    far.expect("POST", f"{PATH}/pi_1/confirm").answers(status, body)
    outcome = await converse(connector().perform(operation(**fields)), in_process(far))
    far.verify()
    return outcome, far


async def test_an_authorization_is_created_read_and_confirmed() -> None:
    outcome, far = await _confirm(
        200,
        {**INTENT, "status": "succeeded"},
        email="ada@example.com",
        billing_address=PostalAddress(line1="1 High Street", country="GB"),
        return_url="https://shop.example/back",
    )
    assert outcome == Succeeded("pi_1")
    created, _, confirmed = far.requests
    assert created.headers["idempotency-key"] == "r1" and confirmed.headers["idempotency-key"] == "r1.confirm"
    assert dict(created.body.fields) == {  # type: ignore[union-attr]
        "metadata[tillway_reference]": "r1",
        "amount": "4200",
        "currency": "eur",
        "capture_method": "automatic",
        "payment_method_types[]": "card",
    }
    fields = dict(confirmed.body.fields)  # type: ignore[union-attr]
    assert fields["payment_method_data[card][number]"] == "4242424242424242"
    assert fields["payment_method_data[card][cvc]"] == "123"
    assert fields["payment_method_data[billing_details][address][line1]"] == "1 High Street"
    assert fields["payment_method_data[billing_details][email]"] == "ada@example.com"
    assert fields["return_url"] == "https://shop.example/back"


async def test_a_payment_without_the_customer_names_the_first_one() -> None:
    _, far = await _confirm(
        200,
        {**INTENT, "status": "succeeded"},
        off_session=True,
        network_transaction_id="net-1",
        return_url="https://a.b/",
    )
    fields = dict(far.requests[2].body.fields)  # type: ignore[union-attr]
    assert fields["off_session"] == "true" and "return_url" not in fields
    assert fields["payment_method_options[card][mit_exemption][network_transaction_id]"] == "net-1"


async def test_the_first_payment_with_a_card_that_is_kept_says_so() -> None:
    _, far = await _confirm(200, {**INTENT, "status": "succeeded"}, stores="off_session", return_url="https://a.b/")
    fields = dict(far.requests[2].body.fields)  # type: ignore[union-attr]
    assert fields["payment_method_options[card][setup_future_usage]"] == "off_session"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"amount": 5000}, Succeeded),
        ({"amount": 4200}, NeverSeen),
        ({"amount": 6000}, Unknown),
        ({"amount": 5000, "currency": "usd"}, Unknown),
        ({"status": "canceled"}, Declined),
        ({"status": "succeeded"}, Declined),
        ({"status": "perhaps"}, Unknown),
    ],
)
async def test_an_increment_is_read_off_its_intent(told: dict[str, Any], expected: type) -> None:
    fields: Any = {"kind": "increment", "amount_minor": 5000, "reference": "r2", "card": None}
    increment = msgspec.structs.replace(operation(capture=False), parent="r1", parent_bank_id="pi_1", **fields)
    far = Script()
    far.expect("GET", READ).answers(200, {**INTENT, "status": "requires_capture", **told})
    assert isinstance(await converse(connector().look_up(increment), in_process(far)), expected)


async def test_a_refused_increment_leaves_the_authorization() -> None:
    fields: Any = {"kind": "increment", "amount_minor": 5000, "reference": "r2", "card": None}
    increment = msgspec.structs.replace(operation(capture=False), parent="r1", parent_bank_id="pi_1", **fields)
    far = Script()
    error = {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds"}
    path = f"{PATH}/pi_1/increment_authorization"
    far.expect("POST", path, form={"amount": "5000"}).answers(402, {"error": error})
    outcome = await converse(connector().perform(increment), in_process(far))
    assert isinstance(outcome, Declined) and outcome.decline_code == "insufficient_funds"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "card_declined", "decline_code": "lost_card"}, ("card_declined", "lost_card", False)),
        ({"code": "expired_card"}, ("expired_card", None, False)),
        ({"code": "card_declined", "decline_code": "try_again_later"}, ("card_declined", "try_again_later", True)),
        ({"code": "processing_error"}, ("processing_error", None, True)),
        ({"code": "authentication_required"}, ("card_declined", "authentication_required", False)),
        ({"code": "<4242424242424242>"}, ("card_declined", None, False)),
    ],
)
async def test_declines_keep_stripes_codes(error: dict[str, Any], expected: tuple[str, str | None, bool]) -> None:
    declined = {**INTENT, "last_payment_error": error}
    outcome, _ = await _confirm(402, {"error": {"type": "card_error", **error, "payment_intent": declined}})
    assert isinstance(outcome, Declined) and outcome.alert is None
    assert (outcome.code, outcome.decline_code, outcome.soft) == expected


async def test_a_card_error_without_an_intent_is_a_decline() -> None:
    outcome, _ = await _confirm(402, {"error": {"type": "card_error", "code": "incorrect_number"}})
    assert outcome == Declined("incorrect_number", None)


async def test_the_first_answer_to_a_creation_says_nothing_of_the_state() -> None:
    """Stripe repeats the first answer; the intent may have been confirmed since, and the card is not sent again."""
    far = Script()
    far.expect("POST", PATH).answers(200, INTENT)
    far.expect("GET", READ).answers(200, {**INTENT, "status": "processing"})
    assert await converse(connector().perform(operation()), in_process(far)) == Pending("pi_1")
    far.verify()


async def test_a_confirmation_that_comes_second_takes_the_outcome_of_the_first() -> None:
    error = {"type": "invalid_request_error", "code": "payment_intent_unexpected_state"}
    outcome, _ = await _confirm(400, {"error": {**error, "payment_intent": {**INTENT, "status": "succeeded"}}})
    assert outcome == Succeeded("pi_1")


@pytest.mark.parametrize(
    "changed",
    [
        {"amount": 4201},
        {"currency": "usd"},
        {"metadata": {}},
        {"metadata": None},
        {"capture_method": "manual"},
        {"status": "requires_capture"},
        {"status": "fine"},
        {"id": None},
    ],
)
async def test_another_payment_is_unknown(changed: dict[str, Any]) -> None:
    outcome, _ = await _confirm(200, {**INTENT, "status": "succeeded", **changed})
    assert isinstance(outcome, Unknown), outcome


async def test_the_network_id_and_the_checks_are_kept() -> None:
    card = {"network_transaction_id": "net-2", "checks": {"cvc_check": "fail", "address_line1_check": "odd"}}
    charge = {"status": "succeeded", "payment_method_details": {"card": card}}
    outcome, _ = await _confirm(200, {**INTENT, "status": "succeeded", "latest_charge": charge})
    assert isinstance(outcome, Succeeded) and outcome.network_transaction_id == "net-2"
    assert outcome.checks is not None and (outcome.checks.cvc, outcome.checks.address_line1) == ("fail", None)


def child(kind: Any, amount_minor: int = 4200) -> Operation:
    return Operation(
        reference="r2", kind=kind, amount_minor=amount_minor, currency="eur", parent="r1", parent_bank_id="pi_1"
    )


@pytest.mark.parametrize(
    ("kind", "told", "expected"),
    [
        ("capture", {"status": "requires_capture"}, NeverSeen),
        (
            "capture",
            {"status": "succeeded", "amount_received": 4200, "metadata": {"tillway_captured_by": "r2"}},
            Succeeded,
        ),
        (
            "capture",
            {"status": "succeeded", "amount_received": 4100, "metadata": {"tillway_captured_by": "r2"}},
            Unknown,
        ),
        ("capture", {"status": "succeeded", "amount_received": 4200}, Declined),
        ("capture", {"status": "canceled"}, Declined),
        ("void", {"status": "canceled"}, Succeeded),
        ("void", {"status": "succeeded"}, Declined),
        ("void", {"status": "odd"}, Unknown),
    ],
)
async def test_captures_and_voids_are_read_off_their_intent(kind: Any, told: dict[str, Any], expected: type) -> None:
    far = Script()
    far.expect("GET", READ).answers(200, {**INTENT, **told})
    assert isinstance(await converse(connector().look_up(child(kind)), in_process(far)), expected)
    far = Script()
    refused = {"error": {"code": "payment_intent_unexpected_state"}}
    far.expect("POST", f"{PATH}/pi_1/{'capture' if kind == 'capture' else 'cancel'}").answers(400, refused)
    far.expect("GET", READ).answers(200, {**INTENT, **told})
    done = await converse(connector().perform(child(kind)), in_process(far))
    assert isinstance(done, Unknown if expected is NeverSeen else expected), done


@pytest.mark.parametrize(
    ("status", "received", "expected"),
    [
        ("requires_capture", 100, NeverSeen),  # What is known here was captured by the other one.
        ("requires_capture", 400, Unknown),
        ("succeeded", 400, Unknown),
        ("succeeded", 100, Declined),
    ],
)
async def test_a_capture_before_the_last_one_is_not_taken_for_one_that_never_came(
    status: str, received: int, expected: type
) -> None:
    """After a restore, the books have 100, and the client repeats a capture of 100; Stripe has 400 in three."""
    told = {"status": status, "amount_received": received, "metadata": {"tillway_captured_by": "r9"}}
    asked = msgspec.structs.replace(child("capture", 100), final=False, captured_minor=100)
    far = Script()
    far.expect("GET", READ).answers(200, {**INTENT, **told})
    assert isinstance(await converse(connector().look_up(asked), in_process(far)), expected)
    far.verify()


@pytest.mark.parametrize(
    ("currency", "amount_minor", "wire"),
    [("isk", 5000, 500000), ("ugx", 5000, 500000), ("mga", 500, 5), ("eur", 500, 500), ("idr", 10**11, 10**11)],
)
async def test_amounts_are_written_as_stripe_writes_them(currency: str, amount_minor: int, wire: int) -> None:
    """https://docs.stripe.com/currencies: ISK and UGX with two decimals, MGA with none."""
    paid = operation(amount_minor=amount_minor, currency=currency, capture=False)
    intent = {**INTENT, "amount": wire, "currency": currency, "capture_method": "manual", "status": "requires_capture"}
    far = Script()
    far.expect("POST", PATH, form={"amount": str(wire)}).answers(200, intent)
    far.expect("GET", READ).answers(200, intent)
    captured = {**intent, "status": "succeeded", "amount_received": wire, "metadata": {"tillway_captured_by": "r2"}}
    far.expect("POST", f"{PATH}/pi_1/capture", form={"amount_to_capture": str(wire)}).answers(200, captured)
    refund = {"id": "re_1", "amount": wire, "currency": currency, "status": "succeeded"}
    far.expect("POST", "/v1/refunds", form={"amount": str(wire)}).answers(
        200, {**refund, "metadata": {"tillway_reference": "r3"}}
    )
    assert isinstance(await converse(connector().perform(paid), in_process(far)), Succeeded)
    for kind, reference in (("capture", "r2"), ("refund", "r3")):
        fields: Any = {"kind": kind, "reference": reference, "parent": "r1", "parent_bank_id": "pi_1"}
        later = msgspec.structs.replace(paid, card=None, **fields)
        assert isinstance(await converse(connector().perform(later), in_process(far)), Succeeded), kind
    far.verify()
    told = {"id": "re_1", "object": "refund", **refund, "metadata": {"tillway_reference": "r3"}}
    [notice] = await listen(connector().notices(*signed(told)), in_process(Script()))
    assert (notice.amount_minor, notice.currency) == (amount_minor, currency)


def test_amounts_that_stripe_refuses_are_refused_before() -> None:
    steps = CAPABILITIES.steps
    assert steps is not None and (steps["mga"], steps["kwd"], steps["isk"], steps["eur"]) == (100, 10, 1, 1)


async def test_a_fraction_of_a_krona_is_no_answer() -> None:
    paid = operation(amount_minor=5000, currency="isk")
    far = Script()
    far.expect("POST", PATH).answers(200, {**INTENT, "amount": 500050, "currency": "isk"})
    assert isinstance(await converse(connector().perform(paid), in_process(far)), Unknown)


async def test_a_refund_is_found_by_its_payment() -> None:
    refund = {"id": "re_9", "amount": 100, "currency": "eur", "metadata": {}, "status": "succeeded"}
    ours = {**refund, "id": "re_1", "metadata": {"tillway_reference": "r2"}, "status": "failed"}
    path = "/v1/refunds?payment_intent=pi_1&limit=100"
    far = Script()
    far.expect("GET", path).answers(200, {"data": [refund], "has_more": True})
    far.expect("GET", f"{path}&starting_after=re_9").answers(200, {"data": [ours], "has_more": False})
    outcome = await converse(connector().look_up(child("refund", 100)), in_process(far))
    assert outcome == Declined("processing_error", None, bank_id="re_1")
    far.verify()


async def test_a_list_that_goes_on_and_on_answers_nothing() -> None:
    far = Script()
    page = {"data": [{"id": "po_9", "metadata": {}}], "has_more": True}
    for number in range(5):
        after = "&starting_after=po_9" if number else ""
        far.expect("GET", f"/v1/payouts?limit=100{after}").answers(200, page)
    payout = operation(kind="payout", card=None, recipient=Recipient("bank_account", "1"))
    assert isinstance(await converse(connector().look_up(payout), in_process(far)), Unknown)
    far.verify()


async def test_a_payout_to_another_bank_account_is_cancelled() -> None:
    side = StripeFarSide()
    side.destination = {"object": "bank_account", "last4": "9999"}
    payout = operation(kind="payout", card=None, recipient=Recipient("bank_account", "DE89370400440532013000"))
    outcome = await converse(side.connector.perform(payout), side.transport)
    assert isinstance(outcome, Declined) and outcome.decline_code == "invalid_account_number"
    assert side.objects["po_r1"]["status"] == "canceled"
    found = await converse(side.connector.look_up(payout), side.transport)
    assert isinstance(found, Declined)


async def test_evidence_and_acceptance() -> None:
    far = Script()
    far.expect(
        "POST", "/v1/disputes/dp_1", form={"evidence[uncategorized_text]": "we sent it", "submit": "true"}
    ).answers(200, {"id": "dp_1"})
    far.expect("POST", "/v1/disputes/dp_1/close").answers(200, {"id": "dp_1"})
    for reply in (
        DisputeReply(kind="evidence", reference="dp_1", text="we sent it"),
        DisputeReply(kind="accept", reference="dp_1"),
    ):
        assert await converse(connector().answer_dispute(reply), in_process(far)) == Succeeded()
    far.verify()
    assert len({request.headers["idempotency-key"] for request in far.requests}) == 2


# Notices.


async def _told(thing: dict[str, Any], intent: dict[str, Any] | None = None) -> list[Notice]:
    far = Script()
    if intent is not None:
        far.expect("GET", READ).answers(200, intent)
    headers, body = signed(thing)
    notices = await listen(connector().notices(headers, body), in_process(far))
    far.verify()
    return notices


async def test_an_event_about_an_intent_is_read_anew() -> None:
    """Events come out of order: a `processing` that is late must not undo a success."""
    [notice] = await _told({**INTENT, "status": "processing"}, {**INTENT, "status": "succeeded"})
    assert (notice.reference, notice.outcome, notice.operation) == ("r1", Succeeded("pi_1"), "authorize")
    assert await _told(INTENT, {**INTENT, "metadata": {}}) == [], "a payment that is not ours"
    assert await _told(INTENT, INTENT) == [], "an intent that was never confirmed is no news"


PAYOUT = {
    "id": "po_1",
    "object": "payout",
    "amount": 5,
    "currency": "eur",
    "status": "failed",
    "failure_code": "account_closed",
    "metadata": {"tillway_reference": "r3"},
}
DISPUTE = {
    "id": "dp_1",
    "object": "dispute",
    "payment_intent": "pi_1",
    "amount": 4200,
    "currency": "eur",
    "status": "needs_response",
    "reason": "fraudulent",
    "evidence_details": {"due_by": 1800000000},
    "payment_method_details": {"card": {"network_reason_code": "10.4"}},
}


async def test_refunds_and_payouts_tell_their_outcome() -> None:
    [notice] = await _told(PAYOUT)
    assert (notice.reference, notice.operation, notice.amount_minor) == ("r3", "payout", 5)
    assert notice.outcome == Declined("processing_error", "account_closed", bank_id="po_1")
    assert await _told({**PAYOUT, "status": "in_transit"}) == []
    [notice] = await _told({**PAYOUT, "object": "refund", "status": "succeeded"})
    assert (notice.operation, notice.outcome) == ("refund", Succeeded("po_1"))


@pytest.mark.parametrize(
    ("status", "stage", "verdict"),
    [
        ("needs_response", "chargeback", "opened"),
        ("warning_needs_response", "inquiry", "opened"),
        ("warning_closed", "inquiry", "won"),
        ("won", "chargeback", "won"),
        ("lost", "chargeback", "lost"),
    ],
)
async def test_disputes(status: str, stage: str, verdict: str) -> None:
    [notice] = await _told({**DISPUTE, "status": status}, {**INTENT, "status": "succeeded"})
    assert (notice.kind, notice.id, notice.reference) == ("dispute", "dp_1", "r1")
    assert (notice.stage, notice.verdict, notice.evidence_due) == (stage, verdict, 1800000000)
    assert notice.network_reason_code == "10.4"


def _says(document: dict[str, Any], request: Request) -> Response:
    return answer(200, document)


@pytest.mark.parametrize(
    "thing", [PAYOUT, {**PAYOUT, "object": "refund"}, DISPUTE, INTENT], ids=lambda thing: thing["object"]
)
async def test_members_of_another_type_are_read_or_rejected(thing: dict[str, Any]) -> None:
    intent = {**INTENT, "status": "succeeded"}
    told = [(changed, intent) for changed in bent(thing)] + [(thing, changed) for changed in bent(intent)]
    for event, read in told:
        far = Handler(partial(_says, read), lambda _: ("look_up", None))
        with suppress(NoticeRejected):
            await listen(connector().notices(*signed(event)), in_process(far))


async def test_the_official_library_signs_as_we_read() -> None:
    headers, body = signed({**INTENT, "status": "succeeded"})
    stripe.WebhookSignature.verify_header(body.decode(), headers["stripe-signature"], SECRET, tolerance=300)


@pytest.mark.parametrize("fault", ["none", "secret", "body", "old", "future", "no time", "v0"])
async def test_forged_and_old_events_are_rejected(fault: str) -> None:
    shift = {"old": -301, "future": 301}.get(fault, 0)
    headers, body = signed({**INTENT}, "whsec_other" if fault == "secret" else SECRET, at=time.time() + shift)
    header = headers["stripe-signature"]
    match fault:
        case "none":
            header = ""
        case "body":
            body += b" "
        case "no time":
            header = header.partition(",")[2]
        case "v0":
            header = header.replace("v1=", "v0=")
    with pytest.raises(NoticeRejected):
        connector().notices({"stripe-signature": header}, body)


async def test_one_right_signature_of_several_is_enough() -> None:
    """Stripe signs with both secrets while one is rolled."""
    headers, body = signed({"object": "balance", "id": "b"})
    header = headers["stripe-signature"].replace("v1=", f"v1={'0' * 64},v1=")
    assert await listen(connector().notices({"stripe-signature": header}, body), in_process(Script())) == []


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"type": 1, "data": {"object": {"id": "x"}}}'])
def test_signed_nonsense_is_rejected(body: bytes) -> None:
    import hashlib
    import hmac

    now = int(time.time())
    proof = hmac.new(SECRET.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    with pytest.raises(NoticeRejected):
        connector().notices({"stripe-signature": f"t={now},v1={proof}"}, body)


def test_without_a_secret_no_event_is_taken() -> None:
    headers, body = signed(INTENT)
    with pytest.raises(NoticeRejected):
        StripeConnector("http://127.0.0.1:1", "sk_test_1").notices(headers, body)


def test_nothing_secret_is_in_a_repr() -> None:
    request = next(connector().perform(operation(card=CardData("4242424242424242", 12, 2040, "987"))))
    assert "4242" not in repr(request) and "987" not in repr(msgspec.structs.asdict(request)["body"])
