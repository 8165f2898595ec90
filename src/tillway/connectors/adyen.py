"""Connector `adyen`: cards through Adyen's Checkout API, version 71.

A payment is answered at once. Captures, cancellations and refunds are only received, and a signed notification tells
their outcome. Adyen cannot be asked about a reference; it answers a repeat under the same `Idempotency-Key` with the
first answer, so the connector repeats a request whose outcome is unknown.

Adyen's sources: https://docs.adyen.com/api-explorer/Checkout/71, /development-resources/api-idempotency,
/development-resources/currency-codes, /development-resources/webhooks/secure-webhooks/verify-hmac-signatures.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any, Literal, Unpack
from urllib.parse import quote, urlsplit

import msgspec

from tillway.connectors.declines import ADYEN, decline
from tillway.connectors.http_connector import HttpConnector, Times
from tillway.connectors.port import (
    Capabilities,
    Checks,
    Conversation,
    Declined,
    DisputeReply,
    Listing,
    LookUp,
    Notice,
    NoticeImpossible,
    NoticeRejected,
    Notices,
    NotSent,
    Operation,
    OperationKind,
    Outcome,
    Pending,
    Request,
    Response,
    Succeeded,
    Unknown,
    action_required,
    decode_notice,
    read_retry_after,
    tell,
)
from tillway.connectors.settings import (
    ASK_AFTER_SECONDS,
    TIMEOUT_SECONDS,
    Setting,
    http_url,
    text,
    yes_or_no,
)
from tillway.domain.dispute import Verdict
from tillway.domain.money import MINOR_UNITS

VERSION = "/v71"


def currency(value: str) -> str:
    """A currency of ISO 4217, in lower case."""
    if value.strip().lower() not in MINOR_UNITS:
        raise ValueError("not a currency of ISO 4217, such as eur")
    return value.strip().lower()


def hmac_key(value: str) -> bytes:
    """The key of notifications, 64 hexadecimal digits as Adyen shows it, as bytes."""
    try:
        key = binascii.a2b_hex(value.strip())
    except (binascii.Error, ValueError):
        raise ValueError("not a key of hexadecimal digits") from None
    if len(key) != 32:
        raise ValueError("not a key of 64 hexadecimal digits")
    return key


SETTINGS = (
    Setting(
        name="base_url",
        read=http_url,
        required=True,
        description="where Checkout answers: https://checkout-test.adyen.com, or your live address; /v71 is added",
    ),
    Setting(name="api_key", read=text(500), required=True, secret=True, description="sent as `X-API-Key`"),
    Setting(name="merchant_account", read=text(80), required=True, description="the merchant account that is paid"),
    Setting(
        name="hmac_key",
        read=hmac_key,
        secret=True,
        description="HMAC key of the standard webhook (hexadecimal); without it all notices are refused",
    ),
    Setting(
        name="multicapture",
        read=yes_or_no,
        default=False,
        description="yes: Adyen has enabled multiple partial captures for the merchant account",
    ),
    Setting(
        name="setup_currency",
        read=currency,
        default="eur",
        description="currency of the zero-value authorizations that verify cards: that of the later payments",
    ),
    ASK_AFTER_SECONDS,
    TIMEOUT_SECONDS,
)

EXPONENTS = {**MINOR_UNITS, "clp": 2, "cve": 0, "idr": 0, "isk": 2}
"""Adyen's decimals; four currencies differ from ISO 4217 (https://docs.adyen.com/development-resources/currency-codes)."""

STEPS: dict[str, int] = {
    currency: 10 ** max(decimals - EXPONENTS[currency], 0) for currency, decimals in MINOR_UNITS.items()
}

DEDUPLICATES_SECONDS = 6.5 * 24 * 3600
"""Half a day less than the seven days for which Adyen keeps a key at least."""


class AdyenConnector(HttpConnector):
    """One merchant account at Adyen. Make it with `from_settings`."""

    settings = SETTINGS

    def __init__(
        self,
        base_url: str,
        api_key: str,
        merchant_account: str,
        *,
        hmac_key: bytes | None = None,
        multicapture: bool = False,
        setup_currency: str = "eur",
        **times: Unpack[Times],
    ) -> None:
        promises = Capabilities(
            operations=frozenset(
                ("authorize", "capture", "void", "refund", "verify", *(("multicapture",) if multicapture else ()))
            ),
            deduplicates=True,
            deduplicates_seconds=DEDUPLICATES_SECONDS,
            looks_up=False,
            livemode=True,
            authenticates=True,
            recipients=frozenset(),
            steps=STEPS,
        )
        versioned = re.search(r"/v[0-9]+$", urlsplit(base_url).path) is not None
        super().__init__(base_url if versioned else base_url + VERSION, promises, {"x-api-key": api_key}, **times)
        self._account, self._hmac_key, self._setup_currency = merchant_account, hmac_key, setup_currency

    def perform(self, operation: Operation) -> Conversation:
        if operation.kind == "authorize":
            return _authorize(operation, self._account)
        if operation.kind == "verify":
            # A zero-value authorization (https://docs.adyen.com/payment-methods/cards/bin-data-and-card-verification).
            verification = msgspec.structs.replace(operation, currency=self._setup_currency)
            return _authorize(verification, self._account)
        assert operation.kind in self.capabilities.operations, f"adyen cannot {operation.kind}"
        return _modify(operation, self._account)

    def look_up(self, operation: Operation) -> LookUp:
        raise AssertionError("adyen is asked by a repeat")

    def list_operations(self, since: int, after: str | None) -> Listing:
        raise AssertionError("it gives no list")

    def withdraw(self, operation: Operation) -> Conversation:
        return _withdraw(operation, self._account)

    def answer_dispute(self, reply: DisputeReply) -> Conversation:
        raise AssertionError("it takes no replies to disputes here: answer in Adyen's Customer Area")

    def notices(self, headers: Mapping[str, str], body: bytes) -> Notices:
        if self._hmac_key is None:
            raise NoticeRejected("this connector has no hmac_key")
        told: list[Notice] = []
        for item in _items(body):
            _check_signature(item, self._hmac_key)
            if item.get("merchantAccountCode") != self._account:
                raise NoticeRejected("the notification is for another merchant account")
            told += _notice(item)
        return tell(told)


# Payments.


def _authorize(operation: Operation, account: str) -> Conversation:
    if operation.returned is not None:
        seen = yield _details(operation, operation.returned)
        if seen.status == 200 and seen.body is not None:
            return _payment_outcome(operation, seen.body)
        if seen.status not in (400, 422):
            return _outcome_of_refusal(seen)
        # The text was not Adyen's, or for another payment. The payment still waits, and a repeat says so.
    answer = yield _post("/payments", operation, _payment(operation, account))
    if answer.status != 200 or answer.body is None:
        return _outcome_of_refusal(answer)
    return _payment_outcome(operation, answer.body)


def _details(operation: Operation, returned: str) -> Request:
    """Submit the result of a redirect. Its key follows from the result: a wrong one does not use up the key."""
    part = hashlib.blake2b(returned.encode(), digest_size=8).hexdigest()
    body = {"details": {"redirectResult": returned}}
    return Request("POST", "/payments/details", body, {"idempotency-key": f"{operation.reference}.{part}"})


def _withdraw(operation: Operation, account: str) -> Conversation:
    """Cancel a payment that waits for its shopper. Adyen authorizes it only when the result of the redirect is
    submitted; the cancellation, which is only received, makes sure of that."""
    body = {"merchantAccount": account, "paymentReference": operation.reference, "reference": operation.reference}
    answer = yield Request("POST", "/cancels", body, {"idempotency-key": f"{operation.reference}.cancel"})
    if answer.status in (200, 201) and answer.body is not None and answer.body.get("status") == "received":
        return Declined("payment_intent_authentication_failure", None)
    return Unknown(f"Adyen answered {answer.status} to a cancellation")


def _payment(operation: Operation, account: str) -> dict[str, Any]:
    card = operation.card
    assert card is not None, "adyen takes cards"
    method: dict[str, Any] = {
        "type": "scheme",
        "number": card.number,
        "expiryMonth": f"{card.exp_month:02d}",
        "expiryYear": f"{card.exp_year:04d}",
        "cvc": card.cvc,
        "holderName": card.name,
    }
    body: dict[str, Any] = {
        "amount": amount_of(operation.amount_minor, operation.currency),
        "merchantAccount": account,
        "reference": operation.reference,
        "paymentMethod": method,
        # Adyen demands an address to return to also where there is no redirect.
        "returnUrl": operation.return_url or "https://localhost/",
        "shopperInteraction": "ContAuth" if operation.off_session else "Ecommerce",
        "shopperEmail": operation.email,
        "shopperStatement": operation.statement_descriptor,
        "billingAddress": _address(operation),
    }
    if operation.kind == "verify":
        pass  # There is nothing to capture.
    elif operation.capture:
        body["captureDelayHours"] = 0
    else:
        body["additionalData"] = {"manualCapture": "true"}
    if operation.off_session or operation.stores == "off_session":
        # Also of the first payment, whose network transaction id later ones name.
        body["recurringProcessingModel"] = "UnscheduledCardOnFile"
    elif operation.stores is not None:
        body["recurringProcessingModel"] = "CardOnFile"
    if operation.off_session and operation.network_transaction_id is not None:
        method["networkPaymentReference"] = operation.network_transaction_id
    if not operation.off_session and operation.return_url is not None:
        # The page of a native authentication would need Adyen's own components.
        secure: dict[str, Any] = {"threeDSRequestData": {"nativeThreeDS": "disabled"}}
        if operation.three_d_secure != "automatic":
            secure["attemptAuthentication"] = "always"
        body |= {"channel": "Web", "authenticationData": secure}
    return _without_none({**body, "paymentMethod": _without_none(method)})


def amount_of(amount_minor: int, currency: str) -> dict[str, Any]:
    """Minor units of ISO 4217 in Adyen's form, which has other decimals for four currencies."""
    shift = EXPONENTS[currency] - MINOR_UNITS[currency]
    value = amount_minor * 10**shift if shift >= 0 else amount_minor // 10**-shift
    return {"currency": currency.upper(), "value": value}


def _minor(amount: Any) -> tuple[int | None, str]:
    """Minor units of ISO 4217 and currency of an amount that Adyen tells; None if it has no such amount."""
    told = amount if isinstance(amount, dict) else {}
    currency, value = str(told.get("currency")).lower(), told.get("value")
    if currency not in EXPONENTS or type(value) is not int:
        return None, currency
    shift = EXPONENTS[currency] - MINOR_UNITS[currency]
    if shift > 0 and value % 10**shift:
        return None, currency
    return (value // 10**shift if shift >= 0 else value * 10**-shift), currency


def _address(operation: Operation) -> dict[str, Any] | None:
    """The payer's address; None if a part is missing that Adyen demands."""
    told = operation.billing_address
    if told is None or not (told.line1 and told.city and told.country and told.postal_code):
        return None
    return _without_none(
        {
            "street": told.line1,
            "houseNumberOrName": told.line2 or "-",
            "city": told.city,
            "postalCode": told.postal_code,
            "country": told.country.upper(),
            "stateOrProvince": told.state,
        }
    )


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _payment_outcome(operation: Operation, told: Mapping[str, Any]) -> Outcome:
    id = told.get("pspReference")
    bank_id = id if isinstance(id, str) else None
    if told.get("merchantReference", operation.reference) != operation.reference:
        return Unknown("the answer is not about our operation")
    asked = amount_of(operation.amount_minor, operation.currency)
    more = told.get("additionalData")
    more = more if isinstance(more, dict) else {}
    match told.get("resultCode"):
        case "Authorised" if bank_id is None or told.get("merchantReference") is None:
            return Unknown("the answer does not name our operation")
        case "Authorised" if told.get("amount") != asked:
            return Unknown("the answer has another amount or currency than we asked for")
        case "Authorised":
            network = more.get("networkTxReference")
            network_id = network if isinstance(network, str) else None
            return Succeeded(bank_id, network_transaction_id=network_id, checks=_checks(more))
        case "Pending" | "Received":
            return Pending(bank_id)
        case "Refused" | "Error" | "Cancelled":
            return decline(ADYEN, told.get("refusalReasonCode"), bank_id=bank_id, checks=_checks(more))
        case "RedirectShopper":
            action = told.get("action")
            if isinstance(action, dict) and action.get("method", "GET") == "GET" and action.get("url") is not None:
                return action_required(action["url"], bank_id)
            return Declined("card_declined", "authentication_required", bank_id=bank_id)
        case "ChallengeShopper" | "IdentifyShopper":
            return Declined("card_declined", "authentication_required", bank_id=bank_id)
    return Unknown("the answer has a result that is not documented")


_CVC: dict[str, Any] = {"1": "pass", "2": "fail", "3": "unchecked", "4": "unavailable", "5": "unavailable"}
_AVS: dict[str, Any] = {"1": ("pass", "fail"), "2": ("fail", "fail"), "6": ("fail", "pass"), "7": ("pass", "pass")}
"""The first digits of `cvcResult` and `avsResult` (https://docs.adyen.com/risk-management/avs-checks)."""


def _checks(more: Mapping[str, Any]) -> Checks | None:
    cvc = _CVC.get(str(more.get("cvcResult", "")).partition(" ")[0])
    line1, postal_code = _AVS.get(str(more.get("avsResult", "")).partition(" ")[0], (None, None))
    known = cvc is not None or line1 is not None
    return Checks(cvc=cvc, address_line1=line1, postal_code=postal_code) if known else None


# Modifications: captures, cancellations and refunds.

_PLACES = {"capture": "captures", "void": "cancels", "refund": "refunds"}


def _modify(operation: Operation, account: str) -> Conversation:
    assert operation.parent_bank_id, "Adyen needs its own reference of the payment"
    body: dict[str, Any] = {"merchantAccount": account, "reference": operation.reference}
    if operation.kind != "void":
        body["amount"] = amount_of(operation.amount_minor, operation.currency)
    path = f"/payments/{quote(operation.parent_bank_id, safe='')}/{_PLACES[operation.kind]}"
    answer = yield _post(path, operation, body)
    if answer.status not in (200, 201) or answer.body is None:
        return _outcome_of_refusal(answer)
    told = answer.body
    id = told.get("pspReference")
    if not isinstance(id, str) or told.get("reference", operation.reference) != operation.reference:
        return Unknown("the answer is not about our operation")
    if operation.kind != "void" and told.get("amount", body["amount"]) != body["amount"]:
        return Unknown("the answer has another amount or currency than we asked for")
    return Pending(id) if told.get("status") == "received" else Unknown("the answer has an undocumented status")


# Notifications.

_SIGNED = ("pspReference", "originalReference", "merchantAccountCode", "merchantReference")


def _items(body: bytes) -> list[dict[str, Any]]:
    items = decode_notice(body).get("notificationItems")
    if not isinstance(items, list) or not items:
        raise NoticeRejected("the body has no notificationItems")
    found = [item.get("NotificationRequestItem") if isinstance(item, dict) else None for item in items]
    if not all(isinstance(item, dict) for item in found):
        raise NoticeRejected("a notification item has no NotificationRequestItem")
    return [item for item in found if item is not None]


def signature(item: Mapping[str, Any], key: bytes) -> str:
    """The signature of a notification item: base64(HMAC-SHA256(key, its eight signed values with colons between))."""
    amount = item.get("amount")
    amount = amount if isinstance(amount, dict) else {}
    values = [item.get(name, "") for name in _SIGNED]
    values += [amount.get("value", ""), amount.get("currency", ""), item.get("eventCode", ""), item.get("success", "")]
    words = ":".join(str(value) for value in values)
    return base64.b64encode(hmac.new(key, words.encode(), hashlib.sha256).digest()).decode()


def _check_signature(item: Mapping[str, Any], key: bytes) -> None:
    more = item.get("additionalData")
    given = more.get("hmacSignature") if isinstance(more, dict) else None
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), signature(item, key).encode()):
        raise NoticeRejected("hmacSignature does not match the notification")


_OPERATIONS: dict[str, OperationKind] = {
    "AUTHORISATION": "authorize",
    "CAPTURE": "capture",
    "CAPTURE_FAILED": "capture",
    "CANCELLATION": "void",
    "REFUND": "refund",
    "REFUND_FAILED": "refund",
    "REFUNDED_REVERSED": "refund",
}
_REVERSALS = ("CAPTURE_FAILED", "REFUND_FAILED", "REFUNDED_REVERSED")
"""Successful notifications of these say that the operation failed after all."""

_DISPUTES: dict[str, tuple[Literal["warning", "inquiry", "chargeback"], Verdict]] = {
    "NOTIFICATION_OF_FRAUD": ("warning", "opened"),
    "REQUEST_FOR_INFORMATION": ("inquiry", "opened"),
    "NOTIFICATION_OF_CHARGEBACK": ("chargeback", "opened"),
    "CHARGEBACK": ("chargeback", "opened"),
    "CHARGEBACK_REVERSED": ("chargeback", "won"),
    "PREARBITRATION_WON": ("chargeback", "won"),
    "SECOND_CHARGEBACK": ("chargeback", "lost"),
    "PREARBITRATION_LOST": ("chargeback", "lost"),
}


def _notice(item: Mapping[str, Any]) -> list[Notice]:
    """The notice of an item; none if it is about something that Tillway does not book, such as a report."""
    kind, reference, id = item.get("eventCode"), item.get("merchantReference"), item.get("pspReference")
    amount_minor, currency = _minor(item.get("amount"))
    if not isinstance(kind, str) or not isinstance(id, str) or not isinstance(reference, str) or not reference:
        return []
    if kind in _DISPUTES:
        return [_dispute(item, kind, reference, id, amount_minor, currency)]
    if kind not in _OPERATIONS:
        return []
    if kind == "AUTHORISATION" and amount_minor == 0:
        # A card was verified. The answer to a repeat tells the outcome, with the network's id.
        return [Notice(id=f"{kind}:{id}", kind="operation", reference=reference)]
    done = str(item.get("success")).lower() == "true"
    if kind in _REVERSALS and not done:
        return []
    outcome: Outcome = Succeeded(id)
    if kind in _REVERSALS:
        outcome = Declined("processing_error", None, bank_id=id)
    elif not done:
        outcome = decline(ADYEN, _CODES.get(str(item.get("reason")), ""), bank_id=id)
    if kind == "AUTHORISATION" and done:
        more = item.get("additionalData")
        outcome = Succeeded(id, checks=_checks(more if isinstance(more, dict) else {}))
    return [
        Notice(
            id=f"{kind}:{id}:{done}",
            kind="operation",
            reference=reference,
            outcome=outcome,
            operation=_OPERATIONS[kind],
            amount_minor=amount_minor,
            currency=currency,
        )
    ]


_CODES = {
    "Refused": "2",
    "Referral": "3",
    "Acquirer Error": "4",
    "Blocked Card": "5",
    "Expired Card": "6",
    "Invalid Card Number": "8",
    "Issuer Unavailable": "9",
    "Not enough balance": "12",
    "FRAUD": "20",
    "CVC Declined": "24",
    "Restricted Card": "25",
}
"""Reasons of a refused authorization in words, which notifications have in place of the code."""


def _dispute(
    item: Mapping[str, Any], kind: str, reference: str, id: str, amount_minor: int | None, currency: str
) -> Notice:
    if not amount_minor or amount_minor < 0:
        raise NoticeImpossible("the amount of a dispute must be positive")
    more = item.get("additionalData")
    code = more.get("chargebackReasonCode") if isinstance(more, dict) else None
    stage, verdict = _DISPUTES[kind]
    return Notice(
        id=id,
        kind="dispute",
        reference=reference,
        amount_minor=amount_minor,
        currency=currency,
        reason=_REASONS.get(str(code).split(".")[0], "fraudulent" if str(code).startswith("10.") else "general"),
        stage=stage,
        verdict=verdict,
        network_reason_code=code if isinstance(code, str) and re.fullmatch(r"[A-Za-z0-9.]{1,16}", code) else None,
    )


_REASONS = {
    "10": "fraudulent",
    "4837": "fraudulent",
    "4863": "unrecognized",
    "4834": "duplicate",
    "4855": "product_not_received",
}
"""Network reason codes (of Visa before the dot, of Mastercard whole) as reasons of disputes."""


# Requests and refusals.


def _post(path: str, operation: Operation, body: dict[str, Any]) -> Request:
    return Request("POST", path, body, {"idempotency-key": operation.reference})


_ABOUT_THE_CARD = {"101": "8", "103": "24", "129": "6", "137": "7", "138": "10"}
"""Error codes of a 422 that are about the card or amount, as codes of refusal reasons. All others are our fault."""


def _outcome_of_refusal(answer: Response) -> Outcome:
    """The outcome of an answer that is not about a payment."""
    code = (answer.body or {}).get("errorCode")
    code = code if isinstance(code, str) and re.fullmatch("[A-Za-z0-9_]{1,12}", code) else ""
    match answer.status:
        case 409 | 422 if code == "704":
            return Unknown("Adyen still performs the first request under this key")
        case 422 if code in _ABOUT_THE_CARD:
            return decline(ADYEN, _ABOUT_THE_CARD[code])
        case 400 | 401 | 403 | 422:
            # The message may repeat what we sent: only the code is told.
            return Declined("processing_error", None, alert=f"Adyen answered {answer.status} {code}".strip())
        case 429:
            return NotSent("Adyen answered 429", read_retry_after(answer))
        case _:
            return Unknown(f"Adyen answered {answer.status}")
