"""Connector `paypal`: cards and wallets through Orders v2 and Payments v2, and payouts by e-mail through Payouts v1.

PayPal answers a repeat under the same `PayPal-Request-Id` with the present state of the first request, and a repeated
`sender_batch_id` with the address of the first batch. So a repeat is the question about an unknown outcome, for as long
as PayPal keeps the ids: six hours for orders.

PayPal's sources: https://developer.paypal.com/docs/api/orders/v2, /payments/v2, /payments.payouts-batch/v1,
/payment-tokens/v3, /webhooks/v1; https://developer.paypal.com/api/rest/reference/idempotency.
"""

import asyncio
import base64
import re
import time
from collections.abc import Generator, Mapping
from typing import Any, Literal, Unpack
from urllib.parse import quote, urlsplit

import msgspec

from tillway.connectors.declines import PAYPAL, decline
from tillway.connectors.http_connector import HttpConnector, Times
from tillway.connectors.port import (
    ActionRequired,
    Capabilities,
    Checks,
    Conversation,
    Declined,
    DisputeReply,
    Form,
    Listing,
    LookUp,
    Notice,
    NoticeRejected,
    Notices,
    NoticeUndecided,
    NotSent,
    Operation,
    OperationKind,
    Outcome,
    Pending,
    Request,
    Response,
    Succeeded,
    Transport,
    TransportError,
    Unknown,
    action_required,
    decode_notice,
    read_retry_after,
)
from tillway.connectors.settings import ASK_AFTER_SECONDS, TIMEOUT_SECONDS, Setting, http_url, text, yes_or_no
from tillway.domain.dispute import Verdict
from tillway.domain.money import MINOR_UNITS, major_to_minor, minor_to_major
from tillway.domain.refusal import Refused

SETTINGS = (
    Setting(
        name="base_url",
        read=http_url,
        default="https://api-m.paypal.com",
        description="where PayPal answers; https://api-m.sandbox.paypal.com for its sandbox",
    ),
    Setting(name="client_id", read=text(500), required=True, description="client id of the REST app"),
    Setting(name="client_secret", read=text(500), required=True, secret=True, description="its secret"),
    Setting(
        name="webhook_id",
        read=text(50),
        description="id of the app's webhook; without it all notices are refused",
    ),
    Setting(
        name="verifications",
        read=yes_or_no,
        default=False,
        description="yes: PayPal lets this account verify cards without a payment (setup tokens)",
    ),
    ASK_AFTER_SECONDS,
    TIMEOUT_SECONDS,
)

STEPS: dict[str, int] = {
    **dict.fromkeys(
        ("aud", "brl", "cad", "chf", "cny", "czk", "dkk", "eur", "gbp", "hkd", "ils", "jpy", "mxn", "myr", "nok"), 1
    ),
    **dict.fromkeys(("nzd", "php", "pln", "sek", "sgd", "thb", "usd"), 1),
    "huf": 100,
    "twd": 100,
}
"""The currencies of https://developer.paypal.com/api/rest/reference/currency-codes. PayPal refuses decimals of forint
and Taiwan dollar."""

DEDUPLICATES_SECONDS = 5.5 * 3600
"""Half an hour less than PayPal keeps the id of an order's request."""

TOKEN_MARGIN_SECONDS = 60.0


class PayPalConnector(HttpConnector):
    """One REST app at PayPal. Make it with `from_settings`."""

    settings = SETTINGS

    def __init__(
        self,
        base_url: str,
        client_id: str,
        client_secret: str,
        *,
        webhook_id: str | None = None,
        verifications: bool = False,
        **times: Unpack[Times],
    ) -> None:
        promises = Capabilities(
            operations=frozenset(
                (
                    *("authorize", "capture", "multicapture", "void", "refund", "payout"),
                    *(("verify",) if verifications else ()),
                )
            ),
            deduplicates=True,
            deduplicates_seconds=DEDUPLICATES_SECONDS,
            looks_up=False,
            livemode=True,
            authenticates=True,
            wallets=frozenset(("paypal",)),
            disputes=True,
            recipients=frozenset(("email",)),
            steps=STEPS,
        )
        super().__init__(base_url, promises, **times)
        self._client_id, self._client_secret, self._webhook_id = client_id, client_secret, webhook_id

    def transport(self) -> "WithToken":
        return WithToken(super().transport(), self._client_id, self._client_secret)

    def perform(self, operation: Operation) -> Conversation:
        match operation.kind:
            case "authorize":
                return _authorize(operation)
            case "capture":
                return _capture(operation)
            case "void":
                return _void(operation)
            case "refund":
                return _refund(operation)
            case "payout":
                return _pay_out(operation)
            case "verify":
                return _verify(operation)
            case "increment":
                raise AssertionError("paypal cannot increment")

    def look_up(self, operation: Operation) -> LookUp:
        raise AssertionError("paypal is asked by a repeat")

    def list_operations(self, since: int, after: str | None) -> Listing:
        raise AssertionError("it gives no list")

    def withdraw(self, operation: Operation) -> Conversation:
        return _withdraw_setup(operation) if operation.kind == "verify" else _withdraw(operation)

    def answer_dispute(self, reply: DisputeReply) -> Conversation:
        return _answer_dispute(reply)

    def notices(self, headers: Mapping[str, str], body: bytes) -> Notices:
        if self._webhook_id is None:
            raise NoticeRejected("this connector has no webhook_id")
        return _read_event(self._webhook_id, headers, body)


class WithToken:
    """Sends requests with an OAuth token, which it fetches before the first, before its end, and after a 401.

    A request that was answered with 401 was not performed, so it is sent once more.
    """

    def __init__(self, inner: Transport, client_id: str, client_secret: str) -> None:
        self.inner = inner
        self._basic = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        self._token: str | None = None
        self._until = 0.0
        self._fetching = asyncio.Lock()

    async def send(self, request: Request) -> Response:
        token, refused = await self._fresh(None)
        if token is None:
            return refused
        answer = await self.inner.send(_with_token(request, token))
        if answer.status != 401:
            return answer
        token, refused = await self._fresh(token)
        return refused if token is None else await self.inner.send(_with_token(request, token))

    async def close(self) -> None:
        await self.inner.close()

    async def _fresh(self, old: str | None) -> tuple[str | None, Response]:
        """A token other than `old`; or None, and the answer that refused one. Raises `TransportError` as not spoken:
        without a token, the request itself was not sent."""
        async with self._fetching:
            if self._token is not None and self._token != old and time.monotonic() < self._until:
                return self._token, _NO_ANSWER
            asking = Request(
                "POST",
                "/v1/oauth2/token",
                Form((("grant_type", "client_credentials"),)),
                {"authorization": f"Basic {self._basic}"},
                moves_money=False,
            )
            try:
                answer = await self.inner.send(asking)
            except TransportError as error:
                raise TransportError(f"no token: {error.reason}", spoken=False) from error
            token, lives = (answer.body or {}).get("access_token"), (answer.body or {}).get("expires_in")
            if answer.status in (400, 401, 403):
                return None, Response(401)  # Wrong credentials: an alert for a person.
            if answer.status != 200 or not isinstance(token, str) or not token.isascii() or not token.isprintable():
                raise TransportError(f"no token: PayPal answered {answer.status}", spoken=False)
            life = float(lives) if isinstance(lives, int | float) else 0.0
            self._token, self._until = token, time.monotonic() + max(life - TOKEN_MARGIN_SECONDS, 0.0)
            return token, _NO_ANSWER


_NO_ANSWER = Response(0)


def _with_token(request: Request, token: str) -> Request:
    return msgspec.structs.replace(request, headers={**request.headers, "authorization": f"Bearer {token}"})


# Orders.


def _authorize(operation: Operation) -> Conversation:
    """One request makes, authorizes and, with `capture`, captures an order by card.

    If the payer of a card or wallet has to act first, the order waits: it is seen through by a second request when the
    payer is back.
    """
    if operation.bank_id is not None:
        found = yield _read_order(operation.bank_id)
        if found.status != 200 or found.body is None:
            return Unknown(f"PayPal answered {found.status} to a question")
        return (yield from _see_through(operation, found.body))
    unit: dict[str, Any] = {
        "custom_id": operation.reference,
        "invoice_id": operation.reference,
        "amount": _amount(operation),
    }
    if operation.statement_descriptor is not None:
        unit["soft_descriptor"] = operation.statement_descriptor
    body = {
        "intent": "CAPTURE" if operation.capture else "AUTHORIZE",
        "purchase_units": [unit],
        "payment_source": _source(operation),
    }
    answer = yield _post("/v2/checkout/orders", operation, body)
    if answer.status not in (200, 201) or answer.body is None:
        return _outcome_of_refusal(answer)
    return (yield from _see_through(operation, answer.body))


def _source(operation: Operation) -> dict[str, Any]:
    """The card, or PayPal's wallet, whose payer approves the order at PayPal's page."""
    if operation.wallet is None:
        return {"card": _card_source(operation)}
    context = {
        "payment_method_preference": "IMMEDIATE_PAYMENT_REQUIRED",
        "shipping_preference": "NO_SHIPPING",
        "user_action": "PAY_NOW",
    }
    if operation.return_url is not None:
        context |= _way_back(operation.return_url)
    wallet: dict[str, Any] = {"experience_context": context}
    if operation.email is not None:
        wallet["email_address"] = operation.email
    return {"paypal": wallet}


def _card_source(operation: Operation) -> dict[str, Any]:
    card = operation.card
    assert card is not None, "paypal takes cards"
    source: dict[str, Any] = {"number": card.number, "expiry": f"{card.exp_year:04d}-{card.exp_month:02d}"}
    if card.cvc is not None:
        source["security_code"] = card.cvc
    if card.name is not None:
        source["name"] = card.name[:300]
    address = _address(operation)
    if address is not None:
        source["billing_address"] = address
    if operation.off_session:
        source["stored_credential"] = _initiated_by_merchant(operation)
    elif operation.stores is not None:
        source["stored_credential"] = {"payment_initiator": "CUSTOMER", "payment_type": "UNSCHEDULED", "usage": "FIRST"}
    if not operation.off_session and operation.return_url is not None:
        method = "SCA_WHEN_REQUIRED" if operation.three_d_secure == "automatic" else "SCA_ALWAYS"
        source["attributes"] = {"verification": {"method": method}}
        source["experience_context"] = _way_back(operation.return_url)
    return source


def _way_back(return_url: str) -> dict[str, str]:
    """Where the payer returns to: our page, which also hears that the payer has given up."""
    return {"return_url": return_url, "cancel_url": f"{return_url}&gave_up=true"}


def _see_through(operation: Operation, order: Mapping[str, Any]) -> Conversation:
    """The outcome of an order. One that its payer has approved is completed first; one that its payer did not
    authenticate for is left alone, and takes no money."""
    id = order.get("id")
    if not isinstance(id, str):
        return Unknown("the order has no id")
    if _is_paid(order):
        return _order_outcome(operation, order)
    unit = _single(order.get("purchase_units"))
    if unit is not None and unit.get("custom_id", operation.reference) != operation.reference:
        return Unknown("the order is not about our operation")
    match _authentication(order):
        case "failed":
            return Declined("payment_intent_authentication_failure", None, bank_id=id)
        case "waits":
            url = _link(order, ("payer-action", "approve"))
            if url is None:
                return _order_outcome(operation, order)
            return action_required(url, id)
    noun = "capture" if operation.capture else "authorize"
    answer = yield _post(f"/v2/checkout/orders/{quote(id, safe='')}/{noun}", operation, None, "complete")
    if answer.status in (200, 201) and answer.body is not None:
        return _order_outcome(operation, answer.body)
    if answer.status == 422 and _issue(answer) in _COMPLETED_BEFORE:
        found = yield _read_order(id)
        if found.status == 200 and found.body is not None and _is_paid(found.body):
            return _order_outcome(operation, found.body)
        return Unknown("PayPal says that the order was completed, and does not show its payment")
    if answer.status == 422 and _issue(answer) in ("ORDER_NOT_APPROVED", "PAYER_ACTION_REQUIRED"):
        return Unknown("PayPal shows an order as approved, and will not complete it")
    return _outcome_of_refusal(answer)


_COMPLETED_BEFORE = ("ORDER_ALREADY_CAPTURED", "ORDER_ALREADY_AUTHORIZED", "ORDER_COMPLETED_OR_VOIDED")


def _withdraw(operation: Operation) -> Conversation:
    """Leave an order that waits for its payer alone: PayPal has no call to cancel one, and takes no money unless it is
    asked to complete it. PayPal forgets the order after some hours."""
    if operation.bank_id is None:
        return Unknown("the id of the order is not known")
    found = yield _read_order(operation.bank_id)
    if found.status != 200 or found.body is None:
        return Unknown(f"PayPal answered {found.status} to a question")
    if _is_paid(found.body):
        return _order_outcome(operation, found.body)
    return Declined("payment_intent_authentication_failure", None, bank_id=operation.bank_id)


def _read_order(id: str) -> Request:
    return Request("GET", f"/v2/checkout/orders/{quote(id, safe='')}", moves_money=False)


def _is_paid(order: Mapping[str, Any]) -> bool:
    """Whether the order has a payment, in whatever state."""
    unit = _single(order.get("purchase_units"))
    payments = unit.get("payments") if unit is not None else None
    return isinstance(payments, dict) and bool(payments.get("captures") or payments.get("authorizations"))


def _authentication(order: Mapping[str, Any]) -> Literal["passed", "failed", "waits"]:
    """The state of the payer's part, by PayPal's table of recommended actions
    (https://developer.paypal.com/docs/checkout/advanced/customize/3d-secure/response-parameters/)."""
    source = order.get("payment_source")
    card = source.get("card") if isinstance(source, dict) else None
    result = card.get("authentication_result") if isinstance(card, dict) else None
    secure = result.get("three_d_secure") if isinstance(result, dict) else None
    if isinstance(secure, dict) and secure.get("authentication_status") not in (None, "C"):
        assert isinstance(result, dict)
        return "passed" if result.get("liability_shift") in ("POSSIBLE", "YES") else "failed"
    if isinstance(secure, dict) and secure.get("enrollment_status") in ("N", "U", "B"):
        return "passed"  # The card takes no part in 3-D Secure: PayPal says to go on.
    return "passed" if order.get("status") == "APPROVED" else "waits"


def _link(order: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for link in order.get("links") or []:
        if isinstance(link, dict) and link.get("rel") in names and isinstance(link.get("href"), str):
            href: str = link["href"]
            return href
    return None


def _initiated_by_merchant(operation: Operation) -> dict[str, Any]:
    stored: dict[str, Any] = {"payment_initiator": "MERCHANT", "payment_type": "UNSCHEDULED", "usage": "SUBSEQUENT"}
    if operation.network_transaction_id is not None:
        stored["previous_network_transaction_reference"] = {"id": operation.network_transaction_id}
    return stored


def _address(operation: Operation) -> dict[str, str] | None:
    """The payer's address in PayPal's form; None without a country, which PayPal demands."""
    told = operation.billing_address
    if told is None or told.country is None:
        return None
    parts = {
        "address_line_1": told.line1,
        "address_line_2": told.line2,
        "admin_area_2": told.city,
        "admin_area_1": told.state,
        "postal_code": told.postal_code,
        "country_code": told.country.upper(),
    }
    return {name: value for name, value in parts.items() if value is not None}


def _order_outcome(operation: Operation, order: Mapping[str, Any]) -> Outcome:
    id = order.get("id")
    unit = _single(order.get("purchase_units"))
    if not isinstance(id, str) or unit is None:
        return Unknown("the order has no id, or not one purchase unit")
    payments = unit.get("payments")
    noun = "captures" if operation.capture else "authorizations"
    found = _single(payments.get(noun) if isinstance(payments, dict) else None)
    if found is None:
        if order.get("status") == "PAYER_ACTION_REQUIRED":
            return Declined("card_declined", "authentication_required", bank_id=id)
        return Unknown("the order was not paid, and PayPal does not say why")
    if found.get("custom_id") not in (operation.reference, None) or unit.get("custom_id") not in (
        operation.reference,
        None,
    ):
        return Unknown("the order is not about our operation")
    if operation.reference not in (found.get("custom_id"), unit.get("custom_id"), found.get("invoice_id")):
        return Unknown("the order does not name our operation")
    if found.get("amount") != _amount(operation):
        return Unknown("the order has another amount or currency than we asked for")
    return _payment_outcome(found, id)


def _payment_outcome(found: Mapping[str, Any], id: str) -> Outcome:
    """The outcome of a capture or authorization of the order `id`."""
    processor = found.get("processor_response")
    processor = processor if isinstance(processor, dict) else {}
    match found.get("status"):
        case "COMPLETED" | "CREATED" | "CAPTURED" | "PARTIALLY_CAPTURED" | "PARTIALLY_REFUNDED" | "REFUNDED" | "VOIDED":
            network = found.get("network_transaction_reference")
            network_id = network.get("id") if isinstance(network, dict) else None
            return Succeeded(
                id,
                network_transaction_id=network_id if isinstance(network_id, str) else None,
                checks=_checks(processor),
            )
        case "PENDING":
            return Pending(id)
        case "DECLINED" | "DENIED" | "FAILED":
            return decline(PAYPAL, processor.get("response_code"), bank_id=id, checks=_checks(processor))
    return Unknown("the payment has a status that is not documented")


def _checks(processor: Mapping[str, Any]) -> Checks | None:
    cvc = {"M": "pass", "N": "fail", "P": "unchecked", "S": "unavailable", "U": "unavailable", "X": "unavailable"}
    address = {
        **dict.fromkeys(("X", "Y", "D", "M", "F"), ("pass", "pass")),
        **dict.fromkeys(("A", "B"), ("pass", "fail")),
        **dict.fromkeys(("W", "Z", "P"), ("fail", "pass")),
        **dict.fromkeys(("N", "C"), ("fail", "fail")),
        **dict.fromkeys(("E", "G", "I", "R", "S", "U"), ("unavailable", "unavailable")),
    }
    line1, postal_code = address.get(str(processor.get("avs_code")), (None, None))
    told: dict[str, Any] = {
        "cvc": cvc.get(str(processor.get("cvv_code"))),
        "address_line1": line1,
        "postal_code": postal_code,
    }
    return Checks(**told) if any(told.values()) else None


# Set-ups: PayPal keeps the token for three days, and Tillway makes no payment method of it.

_SETUP_TOKENS = "/v3/vault/setup-tokens"


def _verify(operation: Operation) -> Conversation:
    """Let PayPal ask the issuer about the card, with an authorization that it releases, and 3-D Secure where the issuer
    demands that. The token is left to end by itself."""
    if operation.bank_id is not None:
        return (yield from _find_setup(operation, operation.bank_id))
    card = _card_source(msgspec.structs.replace(operation, stores=None, return_url=None))
    card["verification_method"] = "SCA_WHEN_REQUIRED" if operation.three_d_secure == "automatic" else "SCA_ALWAYS"
    if operation.return_url is not None:
        card["experience_context"] = _way_back(operation.return_url)
    answer = yield _post(_SETUP_TOKENS, operation, {"payment_source": {"card": card}})
    if answer.status not in (200, 201) or answer.body is None:
        return _outcome_of_refusal(answer)
    return _setup_outcome(operation, answer.body)


def _find_setup(operation: Operation, id: str) -> Generator[Request, Response, Outcome]:
    found = yield Request("GET", f"{_SETUP_TOKENS}/{quote(id, safe='')}", moves_money=False)
    if found.status != 200 or found.body is None:
        return Unknown(f"PayPal answered {found.status} to a question")
    return _setup_outcome(operation, found.body)


def _withdraw_setup(operation: Operation) -> Conversation:
    """Leave a token that waits for its cardholder alone: it ends by itself."""
    if operation.bank_id is None:
        return Unknown("the id of the token is not known")
    known = yield from _find_setup(operation, operation.bank_id)
    if isinstance(known, ActionRequired):
        return Declined("payment_intent_authentication_failure", None, bank_id=operation.bank_id)
    return known


def _setup_outcome(operation: Operation, token: Mapping[str, Any]) -> Outcome:
    """The outcome that a setup token tells: that of the verification in it, if there was one."""
    id, source = token.get("id"), token.get("payment_source")
    if not isinstance(id, str):
        return Unknown("the token has no id")
    card = source.get("card") if isinstance(source, dict) else None
    told = card.get("verification") if isinstance(card, dict) else None
    told = told if isinstance(told, dict) else {}
    processor, secure = told.get("processor_response"), told.get("three_d_secure")
    processor = processor if isinstance(processor, dict) else {}
    if processor.get("response_code") not in (None, "0000"):
        return decline(PAYPAL, processor["response_code"], bank_id=id, checks=_checks(processor))
    match token.get("status"):
        case "APPROVED" | "VAULTED" | "TOKENIZED":
            network_id = told.get("network_transaction_id")
            return Succeeded(
                id,
                network_transaction_id=network_id if isinstance(network_id, str) else None,
                checks=_checks(processor),
            )
        case "PAYER_ACTION_REQUIRED" if isinstance(secure, dict) and secure.get("authentication_status") in ("N", "R"):
            return Declined("payment_intent_authentication_failure", None, bank_id=id)
        case "PAYER_ACTION_REQUIRED" if operation.return_url is not None:
            return action_required(_link(token, ("payer-action", "approve")), id)
        case "PAYER_ACTION_REQUIRED":
            return Declined("card_declined", "authentication_required", bank_id=id)
    return Unknown("the token has a status that is not documented")


# Captures, voids and refunds: they address the order's authorization or capture, which the order names.


def _fetch_payments(operation: Operation) -> Generator[Request, Response, "dict[str, Any] | Outcome"]:
    """The payments of the parent order, by noun."""
    assert operation.parent_bank_id, "PayPal needs the id of the parent order"
    answer = yield _read_order(operation.parent_bank_id)
    if answer.status != 200 or answer.body is None:
        if answer.status in (401, 403, 404, 429):
            return _outcome_of_refusal(answer)
        return Unknown(f"PayPal answered {answer.status} to a question")
    unit = _single(answer.body.get("purchase_units"))
    payments = unit.get("payments") if unit is not None else None
    return payments if isinstance(payments, dict) else Unknown("the order names no payment")


def _first_id(payments: Mapping[str, Any], noun: str) -> str | None:
    """The id of the order's only authorization, or of its capture, as part of a path."""
    for found in payments.get(noun) or []:
        if isinstance(found, dict) and isinstance(found.get("id"), str):
            return quote(found["id"], safe="")
    return None


def _capture(operation: Operation) -> Conversation:
    payments = yield from _fetch_payments(operation)
    if not isinstance(payments, dict):
        return payments
    authorization = _first_id(payments, "authorizations")
    if authorization is None:
        return Unknown("the order names no authorization")
    body = {"amount": _amount(operation), "invoice_id": operation.reference, "final_capture": operation.final}
    answer = yield _post(f"/v2/payments/authorizations/{authorization}/capture", operation, body)
    return _change_outcome(operation, answer)


def _void(operation: Operation) -> Conversation:
    payments = yield from _fetch_payments(operation)
    if not isinstance(payments, dict):
        return payments
    found = _single(payments.get("authorizations"))
    if found is not None and found.get("status") == "VOIDED":
        return Succeeded(operation.parent_bank_id)
    authorization = _first_id(payments, "authorizations")
    if authorization is None:
        return Unknown("the order names no authorization")
    answer = yield _post(f"/v2/payments/authorizations/{authorization}/void", operation, None)
    if answer.status == 204 or (answer.status == 200 and (answer.body or {}).get("status") == "VOIDED"):
        return Succeeded(operation.parent_bank_id)
    return Unknown("the answer to a void says nothing") if answer.status == 200 else _outcome_of_refusal(answer)


def _refund(operation: Operation) -> Conversation:
    payments = yield from _fetch_payments(operation)
    if not isinstance(payments, dict):
        return payments
    captures = [found for found in payments.get("captures") or [] if isinstance(found, dict)]
    if not captures:
        return Unknown("the order names no capture")
    if len(captures) > 1:
        return (yield from _refund_of_several(operation, captures, payments.get("refunds") or []))
    return (yield from _refund_part(operation, captures[0], custom_id=operation.reference))


def _refund_part(
    operation: Operation, capture: Mapping[str, Any], *, custom_id: str, nth: int = 1
) -> Generator[Request, Response, Outcome]:
    """Refund `operation.amount_minor` of one capture: the `nth` of its order, from 1."""
    body = {"amount": _amount(operation), "custom_id": custom_id, "invoice_id": operation.reference}
    path = f"/v2/payments/captures/{quote(str(capture.get('id')), safe='')}/refund"
    answer = yield _post(path, operation, body, str(nth) if nth > 1 else "")
    return _change_outcome(operation, answer)


PART = ".part"
"""The end of the `custom_id` of a part of a refund: its notice tells that part's amount, and not the refund's."""


def _refund_of_several(operation: Operation, captures: list[dict[str, Any]], refunds: list[Any]) -> Conversation:
    """Refund from the oldest capture, as much as it has left, then from the next: a refund at PayPal belongs to one
    capture.

    The order shows the parts that this refund has taken before, so a repeat goes on where the first try ended.
    """
    captures = sorted(captures, key=lambda capture: str(capture.get("create_time")))
    left = _refundable_rests(captures, refunds, operation.currency)
    mine = [refund for refund in refunds if refund.get("invoice_id") == operation.reference and _holds(refund)]
    taken = [_minor_of(refund, operation.currency) for refund in mine]
    if left is None or None in taken:
        return Unknown("the order shows an amount that is not documented")
    rest = operation.amount_minor - sum(amount or 0 for amount in taken)
    if sum(left) < rest and not mine:
        return Declined("processing_error", None, alert="the captures of the order have less left than the refund")
    outcomes: list[Outcome] = [
        Pending(str(refund.get("id"))) if refund.get("status") == "PENDING" else Succeeded(str(refund.get("id")))
        for refund in mine
    ]
    for nth, capture in enumerate(captures, 1):
        share = min(left[nth - 1], rest)
        if share <= 0:
            continue
        part = msgspec.structs.replace(operation, amount_minor=share)
        outcome = yield from _refund_part(part, capture, custom_id=f"{operation.reference}{PART}", nth=nth)
        if not isinstance(outcome, Succeeded | Pending):
            return Unknown("only a part of the refund was made") if outcomes else outcome
        outcomes.append(outcome)
        rest -= share
    if rest:
        return Unknown("only a part of the refund was made")
    return next((outcome for outcome in outcomes if isinstance(outcome, Pending)), outcomes[0])


def _refundable_rests(captures: list[dict[str, Any]], refunds: list[Any], currency: str) -> list[int] | None:
    """The refundable rest of each capture, in minor units; None if an amount cannot be read. A refund links to its
    capture with the relation `up`."""
    left: list[int] = []
    for capture in captures:
        amount = _minor_of(capture, currency)
        back = [
            _minor_of(refund, currency)
            for refund in refunds
            if _holds(refund) and str(_link(refund, ("up",))).endswith(f"/{capture.get('id')}")
        ]
        if amount is None or None in back:
            return None
        left.append(amount - sum(part or 0 for part in back) if _holds(capture) else 0)
    return left


def _holds(payment: Mapping[str, Any]) -> bool:
    """Whether a capture or refund has moved its money, or still may."""
    return payment.get("status") not in ("DECLINED", "FAILED", "CANCELLED")


def _minor_of(payment: Mapping[str, Any], currency: str) -> int | None:
    money = payment.get("amount")
    if not isinstance(money, dict) or str(money.get("currency_code")).lower() != currency:
        return None
    return _minor(money.get("value"), currency)


def _change_outcome(operation: Operation, answer: Response) -> Outcome:
    """The outcome of a capture or refund."""
    if answer.status not in (200, 201) or answer.body is None:
        return _outcome_of_refusal(answer)
    found = answer.body
    id = found.get("id")
    if not isinstance(id, str) or found.get("amount", _amount(operation)) != _amount(operation):
        return Unknown("the answer has another amount or currency than we asked for")
    if found.get("invoice_id", operation.reference) != operation.reference:
        return Unknown("the answer is not about our operation")
    match found.get("status"):
        case "COMPLETED" | "PARTIALLY_REFUNDED" | "REFUNDED":
            return Succeeded(id)
        case "PENDING":
            return Pending(id)
        case "DECLINED" | "FAILED" | "CANCELLED":
            processor = found.get("processor_response")
            return decline(PAYPAL, processor.get("response_code") if isinstance(processor, dict) else None, bank_id=id)
    return Unknown("the answer has a status that is not documented")


# Payouts.


def _pay_out(operation: Operation) -> Conversation:
    recipient = operation.recipient
    assert recipient is not None and recipient.type == "email", "paypal pays out by e-mail"
    item = {
        "recipient_type": "EMAIL",
        "receiver": recipient.value,
        "amount": {"value": _amount(operation)["value"], "currency": operation.currency.upper()},
        "sender_item_id": operation.reference,
    }
    header = {"sender_batch_id": operation.reference, "email_subject": "You have a payout"}
    body = {"sender_batch_header": header, "items": [item]}
    answer = yield _post("/v1/payments/payouts", operation, body)
    found = answer.body or {}
    batch: str | None = None
    if answer.status in (200, 201, 202):
        told = found.get("batch_header")
        id = told.get("payout_batch_id") if isinstance(told, dict) else None
        batch = id if isinstance(id, str) else None
    elif answer.status == 400:
        batch = _first_batch(found)
        if batch is None and found.get("name") in _MAY_BE_A_REPEAT:
            return Unknown("PayPal refuses the batch, and may have made it at an earlier request")
        if batch is None:
            return _outcome_of_refusal(answer)
    else:
        return _outcome_of_refusal(answer)
    if batch is None:
        return Unknown("the answer names no batch")
    seen = yield Request("GET", f"/v1/payments/payouts/{quote(batch, safe='')}", moves_money=False)
    if seen.status != 200 or seen.body is None:
        return Pending(batch)  # The batch exists; a repeat or a notice tells its state.
    return _batch_outcome(operation, seen.body, batch)


_MAY_BE_A_REPEAT = ("USER_BUSINESS_ERROR", "DUPLICATE_REQUEST_ID", "DUPLICATE_TRANSACTION")
"""The names of the refusal of a `sender_batch_id` that was used before: the first request may have paid."""


def _first_batch(refusal: Mapping[str, Any]) -> str | None:
    """The id of the batch that was made under the same `sender_batch_id` before: the refusal links to it."""
    for link in refusal.get("links") or []:
        href = link.get("href") if isinstance(link, dict) else None
        if isinstance(href, str):
            found = re.search(r"/v1/payments/payouts/([A-Za-z0-9_-]{1,64})$", urlsplit(href).path)
            if found is not None:
                return found[1]
    return None


def _batch_outcome(operation: Operation, batch: Mapping[str, Any], id: str) -> Outcome:
    item = _single(batch.get("items"))
    if item is None:
        header = batch.get("batch_header")
        status = header.get("batch_status") if isinstance(header, dict) else None
        return Declined("processing_error", "declined", bank_id=id) if status in _BATCH_FAILED else Pending(id)
    told = item.get("payout_item")
    if not isinstance(told, dict) or told.get("sender_item_id", operation.reference) != operation.reference:
        return Unknown("the batch is not about our payout")
    amount = told.get("amount")
    asked = {"value": _amount(operation)["value"], "currency": operation.currency.upper()}
    if not isinstance(amount, dict) or {name: amount.get(name) for name in asked} != asked:
        return Unknown("the batch has another amount or currency than we asked for")
    return _item_outcome(item, id)


_BATCH_FAILED = ("DENIED", "CANCELED")


def _item_outcome(item: Mapping[str, Any], id: str) -> Outcome:
    errors = item.get("errors")
    name = errors.get("name") if isinstance(errors, dict) else None
    match item.get("transaction_status"):
        case "SUCCESS":
            return Succeeded(id)
        case "FAILED" | "RETURNED" | "BLOCKED" | "REFUNDED" | "REVERSED" | "DENIED":
            return Declined("processing_error", _PAYOUT_FAILURES.get(str(name), "could_not_process"), bank_id=id)
        case "UNCLAIMED" | "ONHOLD" | "PENDING" | "NEW":
            return Pending(id)
    return Unknown("the payout has a status that is not documented")


_PAYOUT_FAILURES = {
    "INSUFFICIENT_FUNDS": "insufficient_funds",
    "RECEIVER_UNREGISTERED": "no_account",
    "RECEIVER_UNCONFIRMED": "no_account",
    "RECEIVER_ACCOUNT_LOCKED": "account_frozen",
    "RECEIVER_ACCOUNT_LIMITATION": "bank_account_restricted",
    "RECEIVER_COUNTRY_NOT_ALLOWED": "bank_account_restricted",
    "RECEIVER_REFUSED": "declined",
    "CURRENCY_NOT_SUPPORTED_FOR_RECEIVER": "invalid_currency",
}
"""PayPal's names of payout errors, as failure codes of payouts."""


# Disputes.


def _answer_dispute(reply: DisputeReply) -> Conversation:
    id = quote(reply.reference, safe="")
    if reply.kind == "accept":
        body: Any = {"note": "The merchant accepts the dispute."}
        answer = yield Request("POST", f"/v1/customer/disputes/{id}/accept-claim", body)
    else:
        form, content_type = _multipart({"evidences": [{"evidence_type": "OTHER", "notes": reply.text[:2000]}]})
        path = f"/v1/customer/disputes/{id}/provide-evidence"
        answer = yield Request("POST", path, form, content_type=content_type)
    return Succeeded() if answer.status in (200, 202) else _outcome_of_refusal(answer)


def _multipart(document: Mapping[str, Any]) -> tuple[bytes, str]:
    """A form with the one part `input`. JSON has no line of its own that begins like the boundary."""
    boundary = "tillway-evidence"
    head = f'--{boundary}\r\ncontent-disposition: form-data; name="input"\r\ncontent-type: application/json\r\n\r\n'
    body = head.encode() + msgspec.json.encode(document) + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


# Notices.

_SIGNED = ("auth-algo", "cert-url", "transmission-id", "transmission-sig", "transmission-time")


def _read_event(webhook_id: str, headers: Mapping[str, str], body: bytes) -> Notices:
    """Ask PayPal whether the event is its own, then read it. The event goes back byte by byte: the signature is over
    these bytes."""
    event = decode_notice(body)
    proof = {name.replace("-", "_"): headers.get(f"paypal-{name}", "") for name in _SIGNED}
    if not all(proof.values()):
        raise NoticeRejected("a header of the event's signature is missing")
    proof["webhook_id"] = webhook_id
    asked = msgspec.json.encode(proof)[:-1] + b',"webhook_event":' + body.strip() + b"}"
    path = "/v1/notifications/verify-webhook-signature"
    answer = yield Request("POST", path, asked, moves_money=False, content_type="application/json")
    if answer.status != 200 or answer.body is None:
        if answer.status in (400, 422):
            raise NoticeRejected("PayPal cannot verify the event")
        raise NoticeUndecided(f"PayPal answered {answer.status} to the question about an event")
    if answer.body.get("verification_status") != "SUCCESS":
        raise NoticeRejected("PayPal says that the event is not its own")
    kind, thing = event.get("event_type"), event.get("resource")
    if not isinstance(kind, str) or not isinstance(thing, dict):
        raise NoticeRejected("the body is not an event")
    return _notices(kind, thing)


def _notices(kind: str, thing: dict[str, Any]) -> list[Notice]:
    reference = thing.get("custom_id")
    if kind == "CHECKOUT.ORDER.APPROVED":
        return _read_approval(thing)
    if kind.startswith("CUSTOMER.DISPUTE."):
        return _dispute(thing)
    if kind.startswith("PAYMENT.PAYOUTS-ITEM."):
        item = thing.get("payout_item")
        if not isinstance(item, dict) or not isinstance(thing.get("payout_batch_id"), str):
            return []
        money = item.get("amount") if isinstance(item.get("amount"), dict) else {}
        outcome = _item_outcome(thing, thing["payout_batch_id"])
        return _notice("payout", item.get("sender_item_id"), outcome, money)
    if kind in ("PAYMENT.CAPTURE.COMPLETED", "PAYMENT.CAPTURE.DENIED", "PAYMENT.CAPTURE.DECLINED"):
        invoice = thing.get("invoice_id")
        if isinstance(invoice, str) and invoice != reference:
            # A capture keeps the `custom_id` of its authorization, and has an invoice of its own.
            return _notice("capture", invoice, _payment_outcome(thing, str(thing.get("id"))), thing.get("amount"))
        return _notice("authorize", reference, _payment_outcome(thing, _order_of(thing)), thing.get("amount"))
    if kind in ("PAYMENT.CAPTURE.REFUNDED", "PAYMENT.REFUND.COMPLETED", "PAYMENT.REFUND.FAILED"):
        failed = kind.endswith("FAILED")
        id = str(thing.get("id"))
        if isinstance(reference, str) and reference.endswith(PART):
            reference = reference.removesuffix(PART)
            if not failed:
                # The refund is asked about as a whole.
                return [Notice(id=f"refund:{reference}:{id}:{kind}", kind="operation", reference=reference)]
            # The amount is that of the part: where it is not the whole refund's, nothing is booked unasked.
        outcome = Declined("processing_error", None, bank_id=id) if failed else Succeeded(id)
        return _notice("refund", reference, outcome, thing.get("amount"))
    return []


def _read_approval(order: Mapping[str, Any]) -> list[Notice]:
    """The payer has approved an order: it is to be completed now."""
    unit = _single(order.get("purchase_units"))
    reference = unit.get("custom_id") if unit is not None else None
    if not isinstance(reference, str):
        return []
    return [Notice(id=f"approved:{reference}", kind="operation", reference=reference)]


def _order_of(thing: Mapping[str, Any]) -> str:
    """The order of a payment, which events name beside it; else the payment's own id."""
    data = thing.get("supplementary_data")
    ids = data.get("related_ids") if isinstance(data, dict) else None
    order = ids.get("order_id") if isinstance(ids, dict) else None
    return order if isinstance(order, str) else str(thing.get("id"))


def _notice(operation: OperationKind, reference: Any, outcome: Outcome, money: Any) -> list[Notice]:
    if not isinstance(reference, str) or not isinstance(money, dict) or isinstance(outcome, Unknown | Pending):
        return []
    currency = str(money.get("currency_code") or money.get("currency")).lower()
    return [
        Notice(
            id=f"{operation}:{reference}:{type(outcome).__name__}",
            kind="operation",
            reference=reference,
            outcome=outcome,
            operation=operation,
            amount_minor=_minor(money.get("value"), currency),
            currency=currency,
        )
    ]


def _minor(value: Any, currency: str) -> int | None:
    if not isinstance(value, str) or currency not in MINOR_UNITS:
        return None
    try:
        return major_to_minor(value.removesuffix(".00") if MINOR_UNITS[currency] == 0 else value, currency)
    except Refused:
        return None


_DISPUTE_REASONS = {
    "MERCHANDISE_OR_SERVICE_NOT_RECEIVED": "product_not_received",
    "MERCHANDISE_OR_SERVICE_NOT_AS_DESCRIBED": "product_unacceptable",
    "UNAUTHORISED": "fraudulent",
    "CREDIT_NOT_PROCESSED": "credit_not_processed",
    "DUPLICATE_TRANSACTION": "duplicate",
    "CANCELED_RECURRING_BILLING": "subscription_canceled",
}

_RESOLVED: dict[str, Verdict] = {
    "RESOLVED_SELLER_FAVOUR": "won",
    "CANCELED_BY_BUYER": "won",
    "DENIED": "won",
    "RESOLVED_BUYER_FAVOUR": "lost",
    "RESOLVED_WITH_PAYOUT": "won",
    "ACCEPTED": "accepted",
}


def _dispute(thing: dict[str, Any]) -> list[Notice]:
    """A dispute names the transactions with our own references."""
    parts = thing.get("disputed_transactions")
    transaction = next((part for part in parts if isinstance(part, dict)), {}) if isinstance(parts, list) else {}
    reference, money, id = transaction.get("custom"), thing.get("dispute_amount"), thing.get("dispute_id")
    if not isinstance(reference, str) or not isinstance(id, str) or not isinstance(money, dict):
        return []
    currency = str(money.get("currency_code")).lower()
    amount = _minor(money.get("value"), currency)
    if not amount:
        raise NoticeRejected("the dispute has an amount that is not documented")
    verdict: Verdict = "opened"
    if thing.get("status") == "RESOLVED":
        outcome = thing.get("dispute_outcome")
        code = str(outcome.get("outcome_code")) if isinstance(outcome, dict) else ""
        if code not in _RESOLVED:
            raise NoticeRejected("the dispute has an outcome that is not documented")
        verdict = _RESOLVED[code]
    inquiry = thing.get("dispute_life_cycle_stage") == "INQUIRY"
    return [
        Notice(
            id=id,
            kind="dispute",
            reference=reference,
            amount_minor=amount,
            currency=currency,
            reason=_DISPUTE_REASONS.get(str(thing.get("reason")), "general"),
            stage="inquiry" if inquiry else "chargeback",
            verdict=verdict,
        )
    ]


# Requests and refusals.


def _post(path: str, operation: Operation, body: dict[str, Any] | None, step: str = "") -> Request:
    key = f"{operation.reference}.{step}" if step else operation.reference
    headers = {"paypal-request-id": key, "prefer": "return=representation"}
    return Request("POST", path, body if body is not None else b"", headers, content_type="application/json")


def _amount(operation: Operation) -> dict[str, str]:
    """An amount in PayPal's form. Forint and Taiwan dollar have no decimals there."""
    value = minor_to_major(operation.amount_minor, operation.currency)
    if STEPS.get(operation.currency, 1) == 100:
        value = value.removesuffix(".00")
    return {"currency_code": operation.currency.upper(), "value": value}


def _single(found: Any) -> dict[str, Any] | None:
    """The only object of a list."""
    return found[0] if isinstance(found, list) and len(found) == 1 and isinstance(found[0], dict) else None


_ISSUES: dict[str, str | None] = {
    "INSTRUMENT_DECLINED": None,
    "PAYER_CANNOT_PAY": None,
    "CARD_EXPIRED": "5400",
    "CARD_CLOSED": "5140",
    "INVALID_SECURITY_CODE_LENGTH": "5110",
    "TRANSACTION_REFUSED": "5700",
    "TRANSACTION_LIMIT_EXCEEDED": "5710",
    "CARD_BRAND_NOT_SUPPORTED": "8030",
    "VALIDATION_ERROR": "1330",
}
"""Issues of a 422 that are the answer of a bank or about the card, as response codes. All others are our fault."""


def _outcome_of_refusal(answer: Response) -> Outcome:
    """The outcome of an answer that is not about an order or payment."""
    match answer.status:
        case 422 if _issue(answer) in _ISSUES:
            return decline(PAYPAL, _ISSUES[_issue(answer)])
        case 404 if not (answer.body or {}).get("name"):
            return Unknown("PayPal answered 404, and does not say what is missing")
        case 400 | 401 | 403 | 404 | 422:
            # The message may repeat what we sent: only the issue is told.
            return Declined("processing_error", None, alert=f"PayPal answered {answer.status} {_issue(answer)}".strip())
        case 429:
            return NotSent("PayPal answered 429", read_retry_after(answer))
        case _:
            return Unknown(f"PayPal answered {answer.status}")


def _issue(answer: Response) -> str:
    details = (answer.body or {}).get("details")
    first = details[0] if isinstance(details, list) and details and isinstance(details[0], dict) else {}
    issue = first.get("issue") or (answer.body or {}).get("name")
    return issue if isinstance(issue, str) and re.fullmatch("[A-Z_]{1,60}", issue) else ""
