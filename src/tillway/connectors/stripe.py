"""Connector `stripe`: payments, refunds and payouts through an account at Stripe.

An authorization is three requests: create a PaymentIntent under the reference's key, read it, and confirm it with the
card. A resend after a crash has no security code, and Stripe refuses other parameters under a used key; but the created
intent never changes, and its state says whether it was confirmed. So the card is sent to each intent at most once.

Stripe's sources: https://docs.stripe.com/api (objects and errors), /api/idempotent_requests (keys are kept for 24
hours at least), /declines/codes, /webhooks#verify-manually (signatures).
"""

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, Unpack
from urllib.parse import quote

import msgspec

from tillway.connectors.declines import STRIPE_SOFT
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
    NeverSeen,
    Notice,
    NoticeRejected,
    Notices,
    NoticeUndecided,
    NotSent,
    Operation,
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
from tillway.domain.dispute import EVIDENCE_DUE_MAX, Verdict
from tillway.domain.money import MINOR_UNITS
from tillway.domain.refusal import Refused
from tillway.domain.wire_amounts import CONVERTED, from_wire, to_wire

API_VERSION = "2024-06-20"
"""Sent with every request, so that the shapes below hold whatever the account's own version is."""

SETTINGS = (
    Setting(
        name="base_url",
        read=http_url,
        default="https://api.stripe.com",
        description="where Stripe answers; another address for its test doubles",
    ),
    Setting(
        name="api_key", read=text(500), required=True, secret=True, description="secret or restricted key (sk_, rk_)"
    ),
    Setting(
        name="webhook_secret",
        read=text(200),
        secret=True,
        description="signing secret of the webhook endpoint (whsec_); without it all notices are refused",
    ),
    Setting(
        name="multicapture",
        read=yes_or_no,
        default=False,
        description="yes: Stripe lets this account capture a payment several times",
    ),
    ASK_AFTER_SECONDS,
    TIMEOUT_SECONDS,
)

STEPS: dict[str, int] = {
    currency: {3: 10}.get(decimals, 100 if currency == "mga" else 1) for currency, decimals in MINOR_UNITS.items()
}
"""Steps of amounts in minor units: Stripe takes no fraction of an ariary, and no last digit but zero where a currency
has three decimals (https://docs.stripe.com/currencies#special-cases)."""

SIGNATURE_TOLERANCE_SECONDS = 300
"""How far the time in a signature may lie from the clock: Stripe's libraries take the same."""

PAGES_MAX = 5
"""Pages of 100 objects that a look-up reads where Stripe has no search for the object."""


class StripeConnector(HttpConnector):
    """One account at Stripe. Make it with `from_settings`."""

    settings = SETTINGS

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        webhook_secret: str | None = None,
        multicapture: bool = False,
        now: Callable[[], float] = time.time,
        **times: Unpack[Times],
    ) -> None:
        promises = Capabilities(
            operations=frozenset(
                (
                    *("authorize", "capture", "void", "increment", "refund", "payout", "verify"),
                    *(("multicapture",) if multicapture else ()),
                )
            ),
            deduplicates=True,
            looks_up=True,
            livemode=True,
            authenticates=True,
            disputes=True,
            recipients=frozenset(("bank_account",)),
            steps=STEPS,
        )
        headers = {"authorization": f"Bearer {api_key}", "stripe-version": API_VERSION}
        super().__init__(base_url, promises, headers, **times)
        self._webhook_secret, self._multicapture, self._now = webhook_secret, multicapture, now

    def perform(self, operation: Operation) -> Conversation:
        match operation.kind:
            case "authorize":
                return _authorize(operation, self._multicapture)
            case "capture":
                return _capture(operation)
            case "void":
                return _void(operation)
            case "refund":
                return _refund(operation)
            case "payout":
                return _pay_out(operation)
            case "increment":
                return _increment(operation)
            case "verify":
                return _verify(operation)

    def look_up(self, operation: Operation) -> LookUp:
        match operation.kind:
            case "authorize":
                return _find_authorization(operation)
            case "capture" | "void":
                return _find_change(operation)
            case "refund":
                return _find_by_kind(operation, f"/v1/refunds?payment_intent={_id(operation.parent_bank_id)}&", _REFUND)
            case "payout":
                return _find_by_kind(operation, "/v1/payouts?", _PAYOUT)
            case "increment":
                return _find_increment(operation)
            case "verify":
                return _find_setup(operation)

    def withdraw(self, operation: Operation) -> Conversation:
        return _withdraw_setup(operation) if operation.kind == "verify" else _withdraw(operation)

    def answer_dispute(self, reply: DisputeReply) -> Conversation:
        return _answer_dispute(reply)

    def list_operations(self, since: int, after: str | None) -> Listing:
        raise AssertionError("it gives no list: the references of a restored installation find what Stripe knows")

    def notices(self, headers: Mapping[str, str], body: bytes) -> Notices:
        if self._webhook_secret is None:
            raise NoticeRejected("this connector has no webhook_secret")
        _check_signature(headers.get("stripe-signature", ""), body, self._webhook_secret, self._now())
        return _read_event(body)


# Authorizations.


def _authorize(operation: Operation, multicapture: bool) -> Conversation:
    assert operation.card is not None, "stripe takes cards only"
    made = yield _post("/v1/payment_intents", operation, _intent_fields(operation))
    intent = made.body
    if made.status != 200 or intent is None:
        return _outcome_of_refusal(made)
    id = intent.get("id")
    if not isinstance(id, str) or not _is_ours(operation, intent):
        return Unknown("the created intent is not about our operation")
    # Under a used key Stripe repeats the answer to the first creation, so the state is read anew.
    found = yield _read_intent(id)
    if found.status != 200 or found.body is None:
        return Unknown(f"Stripe answered {found.status} to a question")
    known = _authorization(operation, found.body)
    if not isinstance(known, NeverSeen):
        return known
    answer = yield _post(
        f"/v1/payment_intents/{id}/confirm", operation, _confirm_fields(operation, multicapture), "confirm"
    )
    error = _error(answer)
    refused = error.get("payment_intent")
    if answer.status == 402 and isinstance(refused, dict):
        return _authorization_or_unknown(operation, refused)
    if answer.status == 400 and error.get("code") == "payment_intent_unexpected_state" and isinstance(refused, dict):
        return _authorization_or_unknown(operation, refused)  # A request from before has arrived after all.
    if answer.status == 200 and answer.body is not None:
        return _authorization_or_unknown(operation, answer.body)
    return _outcome_of_refusal(answer)


def _find_authorization(operation: Operation) -> LookUp:
    """Search by our reference, then read the current state: the search lags behind by up to a minute.

    A lag does no harm: after `NeverSeen` the operation is performed again, and within 24 hours Stripe answers its
    creation with the first intent. Accounts without search (India's, and test doubles) are listed instead.
    """
    if operation.bank_id is not None:
        found = yield _read_intent(_id(operation.bank_id))
        if found.status != 200 or found.body is None:
            return Unknown(f"Stripe answered {found.status} to a question")
        return _authorization(operation, found.body)
    query = quote(f"metadata['{_REFERENCE}']:'{operation.reference}'")
    answer = yield Request("GET", f"/v1/payment_intents/search?query={query}&limit=1", moves_money=False)
    if answer.status in (400, 404):
        id: str | NeverSeen | Unknown = yield from _find_id("/v1/payment_intents?", operation.reference)
    else:
        id = _first_id(answer)
    if not isinstance(id, str):
        return id
    found = yield _read_intent(id)
    if found.status != 200 or found.body is None:
        return Unknown(f"Stripe answered {found.status} to a question")
    return _authorization(operation, found.body)


def _intent_fields(operation: Operation) -> dict[str, Any]:
    """The parameters of a creation. They follow from the operation alone, so that each resend repeats them."""
    return {
        "amount": to_wire(operation.amount_minor, operation.currency),
        "currency": operation.currency,
        "capture_method": "automatic" if operation.capture else "manual",
        "payment_method_types": ["card"],
    }


def _method_data(operation: Operation) -> dict[str, Any]:
    card = operation.card
    assert card is not None
    billing: dict[str, Any] = {"name": card.name, "email": operation.email}
    if operation.billing_address is not None:
        billing["address"] = msgspec.structs.asdict(operation.billing_address)
    return {
        "type": "card",
        "card": {
            "number": card.number,
            "exp_month": card.exp_month,
            "exp_year": card.exp_year,
            "cvc": card.cvc,
        },
        "billing_details": billing,
    }


def _confirm_fields(operation: Operation, multicapture: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "payment_method_data": _method_data(operation),
        "return_url": operation.return_url,
        "expand": ["latest_charge"],
    }
    options: dict[str, Any] = {}
    if operation.off_session:
        fields["off_session"] = True
        fields["return_url"] = None
        if operation.network_transaction_id is not None:
            options["mit_exemption"] = {"network_transaction_id": operation.network_transaction_id}
    elif operation.return_url is None:
        fields["error_on_requires_action"] = True
    if not operation.capture:
        options["request_incremental_authorization"] = "if_available"
        if multicapture:
            options["request_multicapture"] = "if_available"
    if operation.stores is not None:
        options["setup_future_usage"] = operation.stores
    if operation.three_d_secure != "automatic":
        options["request_three_d_secure"] = operation.three_d_secure
    if options:
        fields["payment_method_options"] = {"card": options}
    return fields


def _withdraw(operation: Operation) -> Conversation:
    """Cancel the intent, which Stripe refuses once it is paid: then its state is the outcome."""
    id = operation.bank_id
    if id is None:
        return Unknown("the id of the intent is not known")
    answer = yield _post(f"/v1/payment_intents/{_id(id)}/cancel", operation, {}, "withdraw")
    if answer.status not in (200, 400):
        return Unknown(f"Stripe answered {answer.status} to a cancellation")
    found = yield _read_intent(_id(id))
    if found.status != 200 or found.body is None:
        return Unknown(f"Stripe answered {found.status} to a question")
    return _authorization_or_unknown(operation, found.body)


def _redirect_of(intent: Mapping[str, Any]) -> Any:
    """The address to which an intent sends the customer."""
    action = intent.get("next_action")
    redirect = action.get("redirect_to_url") if isinstance(action, dict) else None
    return redirect.get("url") if isinstance(redirect, dict) else None


def _is_ours(operation: Operation, intent: Mapping[str, Any]) -> bool:
    """Whether an intent has our reference, amount, currency and way of capture."""
    method = "automatic" if operation.capture else "manual"
    asked = (operation.reference, operation.amount_minor, operation.currency)
    return _facts_of(intent) == asked and intent.get("capture_method") in (method, None)


def _facts_of(thing: Mapping[str, Any]) -> tuple[Any, int | None, Any]:
    """Our reference, the amount in minor units, and the currency of an object."""
    metadata = thing.get("metadata")
    reference = metadata.get(_REFERENCE) if isinstance(metadata, dict) else None
    return reference, _minor(thing.get("amount"), thing.get("currency")), thing.get("currency")


def _minor(amount: Any, currency: Any) -> int | None:
    """The minor units of an amount as Stripe writes it, which differs in three currencies; None for no such amount."""
    if type(amount) is not int or not isinstance(currency, str):
        return None
    if currency not in CONVERTED:
        return amount
    try:
        return from_wire(amount, currency)
    except Refused:
        return None


def _authorization_or_unknown(operation: Operation, intent: Mapping[str, Any]) -> Outcome:
    known = _authorization(operation, intent)
    return (
        Unknown("Stripe answered a confirmation with an unconfirmed intent") if isinstance(known, NeverSeen) else known
    )


def _authorization(operation: Operation, intent: Mapping[str, Any]) -> Outcome | NeverSeen:
    """The outcome that an intent tells; `NeverSeen` if it was created and never confirmed."""
    id = intent.get("id")
    if not isinstance(id, str):
        return Unknown("the intent has no id")
    if not _is_ours(operation, intent):
        return Unknown("the intent is not about our operation")
    match intent.get("status"):
        case "succeeded":
            return _read_success(intent, id)
        case "requires_capture":
            if operation.capture:
                return Unknown("the intent waits for a capture, although the money was to be taken at once")
            return _read_success(intent, id)
        case "processing":
            return Pending(id)
        case "requires_action":
            return action_required(_redirect_of(intent), id)
        case "canceled":
            # Released after it was authorized, by a void or by time; or never paid.
            return (
                _read_success(intent, id)
                if _charge_succeeded(intent)
                else Declined("processing_error", None, bank_id=id)
            )
        case "requires_payment_method" | "requires_confirmation":
            error = intent.get("last_payment_error")
            return _read_decline(error, id) if isinstance(error, dict) else NeverSeen()
    return Unknown("the intent has a status that is not documented")


def _read_success(intent: Mapping[str, Any], id: str) -> Succeeded:
    return _success_with_card(intent.get("latest_charge"), id)


def _success_with_card(charge: Any, id: str) -> Succeeded:
    """The success of the object `id`, with the details of the card that its charge or attempt tells."""
    details = charge.get("payment_method_details") if isinstance(charge, dict) else None
    card = details.get("card") if isinstance(details, dict) else None
    if not isinstance(card, dict):
        return Succeeded(id)
    network_id = card.get("network_transaction_id")
    return Succeeded(
        id,
        network_transaction_id=network_id if isinstance(network_id, str) else None,
        checks=_checks(card.get("checks")),
    )


def _charge_succeeded(intent: Mapping[str, Any]) -> bool:
    charge = intent.get("latest_charge")
    return isinstance(charge, dict) and charge.get("status") == "succeeded"


def _checks(told: Any) -> Checks | None:
    if not isinstance(told, dict):
        return None
    values = {
        "address_line1": told.get("address_line1_check"),
        "postal_code": told.get("address_postal_code_check"),
        "cvc": told.get("cvc_check"),
    }
    known = {name: value for name, value in values.items() if value in ("pass", "fail", "unavailable", "unchecked")}
    return Checks(**known) if known else None


# Set-ups: a card is verified without a payment.


def _verify(operation: Operation) -> Conversation:
    """Create a setup intent, read it and confirm it, for the reasons of `_authorize`."""
    fields = {"payment_method_types": ["card"], "usage": operation.stores or "off_session"}
    made = yield _post("/v1/setup_intents", operation, fields)
    setup = made.body
    if made.status != 200 or setup is None:
        return _outcome_of_refusal(made)
    id = setup.get("id")
    if not isinstance(id, str) or _facts_of(setup)[0] != operation.reference:
        return Unknown("the created setup is not about our operation")
    known = yield from _read_setup(operation, id)
    if not isinstance(known, NeverSeen):
        return known
    confirmed: dict[str, Any] = {
        "payment_method_data": _method_data(operation),
        "return_url": operation.return_url,
        "expand": ["latest_attempt"],
    }
    if operation.three_d_secure != "automatic":
        confirmed["payment_method_options"] = {"card": {"request_three_d_secure": operation.three_d_secure}}
    answer = yield _post(f"/v1/setup_intents/{_id(id)}/confirm", operation, confirmed, "confirm")
    refused = _error(answer).get("setup_intent")
    if answer.status in (400, 402) and isinstance(refused, dict):
        return _setup_or_unknown(operation, refused)
    if answer.status == 200 and answer.body is not None:
        return _setup_or_unknown(operation, answer.body)
    return _outcome_of_refusal(answer)


def _find_setup(operation: Operation) -> LookUp:
    """Stripe has no search for setups: the latest are listed."""
    id: str | NeverSeen | Unknown
    if operation.bank_id is not None:
        id = operation.bank_id
    else:
        id = yield from _find_id("/v1/setup_intents?", operation.reference)
    return (yield from _read_setup(operation, id)) if isinstance(id, str) else id


def _withdraw_setup(operation: Operation) -> Conversation:
    """Cancel the setup, which Stripe refuses once it is over: then its state is the outcome."""
    if operation.bank_id is None:
        return Unknown("the id of the setup is not known")
    id = _id(operation.bank_id)
    answer = yield _post(f"/v1/setup_intents/{id}/cancel", operation, {}, "withdraw")
    if answer.status not in (200, 400):
        return Unknown(f"Stripe answered {answer.status} to a cancellation")
    known = yield from _read_setup(operation, operation.bank_id)
    return Unknown("the setup was not cancelled") if isinstance(known, NeverSeen) else known


def _read_setup(operation: Operation, id: str) -> LookUp:
    found = yield Request("GET", f"/v1/setup_intents/{_id(id)}?expand[]=latest_attempt", moves_money=False)
    if found.status != 200 or found.body is None:
        return Unknown(f"Stripe answered {found.status} to a question")
    return _setup(operation, found.body)


def _setup_or_unknown(operation: Operation, setup: Mapping[str, Any]) -> Outcome:
    known = _setup(operation, setup)
    return (
        Unknown("Stripe answered a confirmation with an unconfirmed setup") if isinstance(known, NeverSeen) else known
    )


def _setup(operation: Operation, setup: Mapping[str, Any]) -> Outcome | NeverSeen:
    """The outcome that a setup tells; `NeverSeen` if it was created and never confirmed."""
    id = setup.get("id")
    if not isinstance(id, str) or _facts_of(setup)[0] != operation.reference:
        return Unknown("the setup is not about our operation")
    match setup.get("status"):
        case "succeeded":
            return _success_with_card(setup.get("latest_attempt"), id)
        case "processing":
            return Pending(id)
        case "requires_action":
            return action_required(_redirect_of(setup), id)
        case "canceled":
            return Declined("processing_error", None, bank_id=id)
        case "requires_payment_method" | "requires_confirmation":
            error = setup.get("last_setup_error")
            return _read_decline(error, id) if isinstance(error, dict) else NeverSeen()
    return Unknown("the setup has a status that is not documented")


# Captures and voids.


def _capture(operation: Operation) -> Conversation:
    amount = to_wire(operation.amount_minor, operation.currency)
    fields: dict[str, Any] = {"amount_to_capture": amount, "metadata": {_CAPTURED_BY: operation.reference}}
    if not operation.final:
        fields["final_capture"] = False
    answer = yield _post(f"/v1/payment_intents/{_id(operation.parent_bank_id)}/capture", operation, fields)
    return (yield from _change_outcome(operation, answer))


def _void(operation: Operation) -> Conversation:
    answer = yield _post(f"/v1/payment_intents/{_id(operation.parent_bank_id)}/cancel", operation, {})
    return (yield from _change_outcome(operation, answer))


def _increment(operation: Operation) -> Conversation:
    """Authorize a larger total. Stripe refuses cards and accounts that cannot do it; the authorization then stands."""
    fields = {"amount": to_wire(operation.amount_minor, operation.currency)}
    path = f"/v1/payment_intents/{_id(operation.parent_bank_id)}/increment_authorization"
    answer = yield _post(path, operation, fields)
    if answer.status == 200 and answer.body is not None:
        known = _read_increment(operation, answer.body)
        return Unknown("the answer is not about our operation") if isinstance(known, NeverSeen) else known
    if answer.status == 400 and _error(answer).get("code") == "payment_intent_unexpected_state":
        return _WRONG_STATE
    return _outcome_of_refusal(answer)


def _find_increment(operation: Operation) -> LookUp:
    answer = yield _read_intent(_id(operation.parent_bank_id))
    if answer.status != 200 or answer.body is None:
        return Unknown(f"Stripe answered {answer.status} to a question")
    return _read_increment(operation, answer.body)


def _read_increment(operation: Operation, intent: Mapping[str, Any]) -> Outcome | NeverSeen:
    """Whether the intent has the larger total. `NeverSeen` if it waits for a capture with a smaller one."""
    if intent.get("id") != operation.parent_bank_id or intent.get("currency") != operation.currency:
        return Unknown("the intent is not the parent of our operation")
    amount = _minor(intent.get("amount"), operation.currency)
    match intent.get("status"):
        case "requires_capture" if amount == operation.amount_minor:
            return _SUCCEEDED
        case "requires_capture" if amount is not None and amount < operation.amount_minor:
            return NeverSeen()
        case "canceled" | "succeeded":
            return _WRONG_STATE
    return Unknown("the intent has a total or a status that we did not ask for")


def _change_outcome(operation: Operation, answer: Response) -> Conversation:
    if answer.status == 200 and answer.body is not None:
        known = _read_change(operation, answer.body)
        return Unknown("the answer is not about our operation") if isinstance(known, NeverSeen) else known
    if answer.status == 400 and _error(answer).get("code") == "payment_intent_unexpected_state":
        # Done before, by this operation or by another one: the intent says which.
        found = yield _read_intent(_id(operation.parent_bank_id))
        known = _read_change(operation, found.body) if found.status == 200 and found.body is not None else Unknown("")
        if isinstance(known, Succeeded | Declined):
            return known
        return Unknown("Stripe says that the intent is in another state, and does not say in which")
    return _outcome_of_refusal(answer)


def _find_change(operation: Operation) -> LookUp:
    answer = yield _read_intent(_id(operation.parent_bank_id))
    if answer.status != 200 or answer.body is None:
        return Unknown(f"Stripe answered {answer.status} to a question")
    return _read_change(operation, answer.body)


def _read_change(operation: Operation, intent: Mapping[str, Any]) -> Outcome | NeverSeen:
    """The outcome of a capture or void that its intent tells; `NeverSeen` if the authorization still stands."""
    id, status = intent.get("id"), intent.get("status")
    if id != operation.parent_bank_id or intent.get("currency") != operation.currency:
        return Unknown("the intent is not the parent of our operation")
    metadata = intent.get("metadata")
    captured_by = metadata.get(_CAPTURED_BY) if isinstance(metadata, dict) else None
    received = _minor(intent.get("amount_received"), operation.currency)
    by_another = captured_by is not None and captured_by != operation.reference
    if operation.kind == "capture" and not operation.final and by_another and received != operation.captured_minor:
        # The intent names the last of its captures only. Where the store was restored, this one may be before that.
        return Unknown("Stripe has captured more than is known here, and this capture may be part of that")
    match status:
        case "requires_capture" if operation.kind == "capture" and captured_by == operation.reference:
            if operation.final or received != operation.captured_minor + operation.amount_minor:
                return Unknown("another amount was captured than we asked for")
            return _SUCCEEDED
        case "requires_capture":
            return NeverSeen()
        case "processing":
            return Pending(operation.parent_bank_id)
        case "canceled" | "succeeded":
            if operation.kind == "void":
                ended = status == "canceled" or 0 < operation.captured_minor == received
                return _SUCCEEDED if ended else _WRONG_STATE
            if status == "canceled" or captured_by != operation.reference:
                return _WRONG_STATE
            if received != operation.captured_minor + operation.amount_minor:
                return Unknown("another amount was captured than we asked for")
            return _SUCCEEDED
    return Unknown("the intent has a status that is not documented")


# Refunds and payouts: objects of their own, found by listing.


class _Kind(msgspec.Struct, frozen=True):
    """The statuses of an object that is done, still under way, or failed."""

    done: frozenset[str]
    open: frozenset[str]
    failed: frozenset[str]


_REFUND = _Kind(
    done=frozenset(("succeeded",)),
    open=frozenset(("pending", "requires_action")),
    failed=frozenset(("failed", "canceled")),
)
_PAYOUT = _Kind(
    done=frozenset(("paid",)),
    open=frozenset(("pending", "in_transit")),
    failed=frozenset(("failed", "canceled")),
)


def _refund(operation: Operation) -> Conversation:
    amount = to_wire(operation.amount_minor, operation.currency)
    fields = {"payment_intent": _id(operation.parent_bank_id), "amount": amount}
    answer = yield _post("/v1/refunds", operation, fields)
    return _object_outcome(operation, answer, _REFUND)


def _pay_out(operation: Operation) -> Conversation:
    """Pay out to the account's own bank account, which is the only one that Stripe pays to.

    Stripe chooses that bank account. If it says that the last digits are not the recipient's, the payout is cancelled.
    """
    recipient = operation.recipient
    assert recipient is not None and recipient.type == "bank_account", "stripe pays out to bank accounts"
    amount = to_wire(operation.amount_minor, operation.currency)
    fields = {"amount": amount, "currency": operation.currency, "expand": ["destination"]}
    answer = yield _post("/v1/payouts", operation, fields)
    outcome = _object_outcome(operation, answer, _PAYOUT)
    if not isinstance(outcome, Pending | Succeeded) or _goes_to(answer, recipient.value):
        return outcome
    undone = yield _post(f"/v1/payouts/{_id(outcome.bank_id)}/cancel", operation, {}, "cancel")
    if undone.status == 200 and undone.body is not None and undone.body.get("status") == "canceled":
        return Declined("processing_error", "invalid_account_number", "Stripe pays out to another bank account.")
    return Unknown("Stripe pays out to another bank account, and did not cancel the payout")


def _goes_to(answer: Response, account: str) -> bool:
    """Whether the last digits of the payout's destination, where they are told, are those of `account`."""
    destination = (answer.body or {}).get("destination")
    last4 = destination.get("last4") if isinstance(destination, dict) else None
    return last4 is None or account.endswith(str(last4))


def _object_outcome(operation: Operation, answer: Response, kind: "_Kind") -> Outcome:
    if answer.status != 200 or answer.body is None:
        return _outcome_of_refusal(answer)
    return _state(operation, answer.body, kind)


def _state(operation: Operation, found: Mapping[str, Any], kind: "_Kind") -> Outcome:
    """The outcome that a refund or payout tells about our operation."""
    id, status = found.get("id"), found.get("status")
    if not isinstance(id, str):
        return Unknown("the object has no id")
    if _facts_of(found) != (operation.reference, operation.amount_minor, operation.currency):
        return Unknown("the object is not about our operation")
    return _status(status, found, id, kind)


def _status(status: Any, found: Mapping[str, Any], id: str, kind: "_Kind") -> Outcome:
    if not isinstance(status, str):
        return Unknown("the object has no status")
    if status in kind.done:
        return Succeeded(id)
    if status in kind.open:
        return Pending(id)
    if status in kind.failed:
        reason = found.get("failure_code") or found.get("failure_reason")
        return Declined("processing_error", reason if isinstance(reason, str) else None, bank_id=id)
    return Unknown("the object has a status that is not documented")


def _find_by_kind(operation: Operation, path: str, kind: "_Kind") -> LookUp:
    found = yield from _find_in_pages(path, operation.reference)
    return _state(operation, found, kind) if isinstance(found, dict) else found


def _find_id(path: str, reference: str) -> Generator[Request, Response, "str | NeverSeen | Unknown"]:
    found = yield from _find_in_pages(path, reference)
    if not isinstance(found, dict):
        return found
    id = found.get("id")
    return id if isinstance(id, str) else Unknown("the listed object has no id")


def _find_in_pages(path: str, reference: str) -> Generator[Request, Response, "dict[str, Any] | NeverSeen | Unknown"]:
    """The object with our reference among the latest PAGES_MAX pages; `Unknown` if there are more pages than that."""
    after = ""
    for _ in range(PAGES_MAX):
        answer = yield Request("GET", f"{path}limit=100{after}", moves_money=False)
        page = _page(answer)
        if page is None:
            return Unknown(f"Stripe answered {answer.status} to a question")
        for found in page:
            if _facts_of(found)[0] == reference:
                return found
        if not page or (answer.body or {}).get("has_more") is not True:
            return NeverSeen()
        after = f"&starting_after={page[-1].get('id')}"
    return Unknown("the reference is not among the latest objects, and there are more")


def _page(answer: Response) -> list[dict[str, Any]] | None:
    data = answer.body.get("data") if answer.status == 200 and answer.body is not None else None
    return data if isinstance(data, list) and all(isinstance(found, dict) for found in data) else None


def _first_id(answer: Response) -> "str | NeverSeen | Unknown":
    page = _page(answer)
    if page is None:
        return Unknown(f"Stripe answered {answer.status} to a question")
    if not page:
        return NeverSeen()
    id = page[0].get("id")
    return id if isinstance(id, str) else Unknown("the found object has no id")


# Disputes.


def _answer_dispute(reply: DisputeReply) -> Conversation:
    """Send evidence, or close the dispute, which accepts it."""
    id = _id(reply.reference)
    if reply.kind == "evidence":
        path, fields = f"/v1/disputes/{id}", {"evidence": {"uncategorized_text": reply.text}, "submit": True}
    else:
        path, fields = f"/v1/disputes/{id}/close", {}
    # An inquiry and its chargeback are one dispute at Stripe, and take evidence one after the other.
    key = "-".join(part for part in (reply.kind, reply.stage, reply.reference) if part)
    answer = yield Request("POST", path, _form(fields), {"idempotency-key": key})
    if answer.status == 200 and answer.body is not None and answer.body.get("id") == reply.reference:
        return Succeeded()
    return _outcome_of_refusal(answer)


_VERDICTS: dict[str, Verdict] = {
    "warning_needs_response": "opened",
    "warning_under_review": "opened",
    "warning_closed": "won",
    "needs_response": "opened",
    "under_review": "opened",
    "won": "won",
    "lost": "lost",
}


# Notices.


def _check_signature(header: str, body: bytes, secret: str, now: float) -> None:
    """Raise `NoticeRejected` unless one `v1` signature of the header is right and its time is close to `now`."""
    told = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in told if name == "t"]
    if len(times) != 1 or not re.fullmatch("[0-9]{1,12}", times[0]):
        raise NoticeRejected("Stripe-Signature names no time")
    expected = hmac.new(secret.encode(), times[0].encode() + b"." + body, hashlib.sha256).hexdigest()
    signatures = [value for name, _, value in told if name == "v1"]
    if not any(hmac.compare_digest(value.encode(), expected.encode()) for value in signatures):
        raise NoticeRejected("Stripe-Signature does not match the body")
    if abs(now - int(times[0])) > SIGNATURE_TOLERANCE_SECONDS:
        raise NoticeRejected(f"the signature is more than {SIGNATURE_TOLERANCE_SECONDS} s from the clock")


def _read_event(body: bytes) -> Notices:
    event = decode_notice(body)
    data, kind = event.get("data"), event.get("type")
    thing = data.get("object") if isinstance(data, dict) else None
    id = thing.get("id") if isinstance(thing, dict) else None
    if not isinstance(thing, dict) or not isinstance(kind, str) or not isinstance(id, str) or not id:
        raise NoticeRejected("the body is not an event")
    match thing.get("object"):
        case "payment_intent":
            return _ask_about(thing["id"])
        case "setup_intent":
            reference = _facts_of(thing)[0]
            known = isinstance(reference, str)
            return tell([Notice(id=thing["id"], kind="operation", reference=str(reference))] if known else [])
        case "refund" | "payout":
            return tell(_object_notice(thing, _REFUND if thing["object"] == "refund" else _PAYOUT))
        case "dispute":
            return _ask_about_dispute(thing, event.get("created"))
    return tell([])


def _ask_about(id: str) -> Notices:
    """Read the intent anew: events come out of order, and only the current state is the outcome."""
    intent = yield from _fetch_intent(id)
    reference, amount, currency = _facts_of(intent)
    if not isinstance(reference, str) or amount is None or not isinstance(currency, str):
        return []  # A payment that is not Tillway's.
    operation = Operation(
        reference=reference,
        kind="authorize",
        amount_minor=amount,
        currency=currency,
        capture=intent.get("capture_method") != "manual",
    )
    outcome = _authorization(operation, intent)
    if isinstance(outcome, NeverSeen | Unknown | Pending | ActionRequired):
        return []
    return [
        Notice(
            id=f"{id}:{type(outcome).__name__}",
            kind="operation",
            reference=reference,
            outcome=outcome,
            operation="authorize",
            amount_minor=amount,
            currency=currency,
        )
    ]


def _fetch_intent(id: str) -> Generator[Request, Response, dict[str, Any]]:
    answer = yield _read_intent(_id(id))
    if answer.status == 404:
        raise NoticeRejected("Stripe does not know the payment")
    if answer.status != 200 or answer.body is None:
        raise NoticeUndecided(f"Stripe answered {answer.status}")
    return answer.body


def _object_notice(thing: dict[str, Any], kind: "_Kind") -> list[Notice]:
    reference, amount, currency = _facts_of(thing)
    outcome = _status(thing.get("status"), thing, thing["id"], kind)
    if not isinstance(reference, str) or isinstance(outcome, Unknown | Pending):
        return []
    return [
        Notice(
            id=f"{thing['id']}:{thing['status']}",
            kind="operation",
            reference=reference,
            outcome=outcome,
            operation="refund" if kind is _REFUND else "payout",
            amount_minor=amount,
            currency=currency if isinstance(currency, str) else None,
        )
    ]


def _ask_about_dispute(dispute: dict[str, Any], created: Any) -> Notices:
    """A dispute names the intent; the intent names our reference."""
    id = dispute.get("payment_intent")
    if not isinstance(id, str) or not id:
        return []
    intent = yield from _fetch_intent(id)
    reference, status = _facts_of(intent)[0], dispute.get("status")
    amount = _minor(dispute.get("amount"), dispute.get("currency"))
    if not isinstance(reference, str):
        return []
    verdict = _VERDICTS.get(str(status))
    if verdict is None or amount is None or amount <= 0:
        raise NoticeRejected("the dispute has a status or amount that is not documented")
    details, code = dispute.get("evidence_details"), None
    due = details.get("due_by") if isinstance(details, dict) else None
    by_method = dispute.get("payment_method_details")
    if isinstance(by_method, dict) and isinstance(by_method.get("card"), dict):
        code = by_method["card"].get("network_reason_code")
    return [
        Notice(
            id=dispute["id"],
            kind="dispute",
            reference=reference,
            amount_minor=amount,
            currency=str(dispute.get("currency")),
            created=created if type(created) is int else None,
            reason=str(dispute.get("reason", "general"))[:100],
            stage="inquiry" if str(status).startswith("warning") else "chargeback",
            verdict=verdict,
            network_reason_code=code if isinstance(code, str) else None,
            evidence_due=due if type(due) is int and 0 < due <= EVIDENCE_DUE_MAX else None,
        )
    ]


# Requests and refusals.

_REFERENCE = "tillway_reference"
_CAPTURED_BY = "tillway_captured_by"
"""The members of Stripe's metadata that hold our references."""

_SUCCEEDED = Succeeded()
_WRONG_STATE = Declined("processing_error", None, "Another operation has ended the authorization.")


def _post(path: str, operation: Operation, fields: Mapping[str, Any], step: str = "") -> Request:
    """A request that moves money, under a key of the reference (at most 35 characters) and the step."""
    key = f"{operation.reference}.{step}" if step else operation.reference
    named = {"metadata": {_REFERENCE: operation.reference}} if not step and operation.kind in _NAMED else {}
    return Request("POST", path, _form({**named, **fields}), {"idempotency-key": key})


_NAMED = ("authorize", "refund", "payout", "verify")
"""The operations that make an object of their own, whose metadata has our reference."""


def _read_intent(id: str) -> Request:
    return Request("GET", f"/v1/payment_intents/{id}?expand[]=latest_charge", moves_money=False)


def _id(id: str | None) -> str:
    """An id as a part of a path."""
    assert id, "Stripe needs its own id of the parent"
    return quote(id, safe="")


def _form(fields: Mapping[str, Any]) -> Form:
    return Form(tuple(_flatten("", fields)))


def _flatten(prefix: str, value: Any) -> Generator[tuple[str, str]]:
    """The fields of nested values in the way of Stripe's forms: `a[b]=1`, `a[]=1`; None is left out."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flatten(f"{prefix}[{name}]" if prefix else name, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _flatten(f"{prefix}[]", inner)
    elif isinstance(value, bool):
        yield prefix, "true" if value else "false"
    elif value is not None:
        yield prefix, str(value)


def _error(answer: Response) -> dict[str, Any]:
    error = answer.body.get("error") if answer.body is not None else None
    return error if isinstance(error, dict) else {}


def _outcome_of_refusal(answer: Response) -> Outcome:
    """The outcome of an answer that is not about an object."""
    match answer.status:
        case 402 if _error(answer):
            return _read_decline(_error(answer), None)
        case 404 if _error(answer).get("code") != "resource_missing":
            return Unknown("Stripe answered 404, and does not say what is missing")
        case 400 | 401 | 402 | 403 | 404 | 422:
            # The message may repeat what we sent: only the code is told.
            code = str(_error(answer).get("code") or _error(answer).get("type"))[:60]
            return Declined("processing_error", None, alert=f"Stripe answered {answer.status} {code}")
        case 429:
            return NotSent("Stripe answered 429", read_retry_after(answer))
        case _:
            # 409 says that the first request under this key is still being performed.
            return Unknown(f"Stripe answered {answer.status}")


def _read_decline(error: Mapping[str, Any], id: str | None) -> Declined:
    """Stripe's codes are ours: they pass unchanged, if they have the form of a code."""
    code, reason = error.get("code"), error.get("decline_code")
    code = code if isinstance(code, str) and _CODE.fullmatch(code) else "card_declined"
    reason = reason if isinstance(reason, str) and _CODE.fullmatch(reason) else None
    if code == "authentication_required" or reason == "authentication_required":
        code, reason = "card_declined", "authentication_required"
    return Declined(code, reason, bank_id=id, soft=(reason or code) in STRIPE_SOFT)


_CODE = re.compile("[a-z0-9_]{1,60}")
