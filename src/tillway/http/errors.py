"""Renders refusals as Stripe's error object (https://docs.stripe.com/api/errors)."""

from functools import lru_cache
from typing import Any, Final

from tillway.domain.bank_account import iban_valid
from tillway.domain.cards import without_card_numbers
from tillway.domain.late_pattern import late_pattern
from tillway.domain.refusal import RULES, Refused

OWN_DOCS: Final = "https://github.com/tillway/tillway/blob/main/docs/errors.md"

STRIPE_CODES: Final = frozenset(
    {
        "account_closed",
        "account_invalid",
        "account_number_invalid",
        "amount_too_large",
        "amount_too_small",
        "api_key_expired",
        "authentication_required",
        "balance_insufficient",
        "bank_account_exists",
        "bank_account_restricted",
        "card_decline_rate_limit_exceeded",
        "card_declined",
        "charge_already_captured",
        "charge_already_refunded",
        "charge_disputed",
        "charge_exceeds_source_limit",
        "charge_expired_for_capture",
        "charge_not_refundable",
        "country_code_invalid",
        "debit_not_authorized",
        "email_invalid",
        "expired_card",
        "idempotency_key_in_use",
        "incorrect_address",
        "incorrect_cvc",
        "incorrect_number",
        "incorrect_zip",
        "insufficient_funds",
        "invalid_cvc",
        "invalid_expiry_month",
        "invalid_expiry_year",
        "invalid_number",
        "livemode_mismatch",
        "lock_timeout",
        "missing",
        "no_account",
        "parameter_invalid_empty",
        "parameter_invalid_integer",
        "parameter_invalid_string_blank",
        "parameter_invalid_string_empty",
        "parameter_missing",
        "parameter_unknown",
        "parameters_exclusive",
        "payment_intent_action_required",
        "payment_intent_authentication_failure",
        "payment_intent_incompatible_payment_method",
        "payment_intent_mandate_invalid",
        "payment_intent_unexpected_state",
        "payment_method_unexpected_state",
        "payouts_not_allowed",
        "processing_error",
        "rate_limit",
        "resource_missing",
        "routing_number_invalid",
        "secret_key_required",
        "setup_intent_authentication_failure",
        "setup_intent_unexpected_state",
        "token_already_used",
        "token_in_use",
        "url_invalid",
    }
)
"""Codes that Stripe's page explains. docs/errors.md explains all others."""


@lru_cache(len(STRIPE_CODES) * 8)
def doc_url(code: str) -> str:
    """Return the address that explains `code`: Stripe's page if it has the code, else Tillway's."""
    dashed = code.replace("_", "-")
    return f"https://docs.stripe.com/error-codes/{dashed}" if code in STRIPE_CODES else f"{OWN_DOCS}#{dashed}"


_KEY: Final = late_pattern(r"((?:sk|rk|ek)_(?:test|live)_|whsec_)[0-9A-Za-z]{8,}")
_MAYBE_IBAN: Final = late_pattern(r"(?<![0-9A-Za-z])[A-Za-z]{2}[0-9]{2}[0-9A-Za-z]{11,30}(?![0-9A-Za-z])")
# Nearly every text has none of these. They begin with one character or a set, which is quick to look for; the exact
# patterns above try every position, and cost a refusal as much as the rest of it.
_IN_KEYS: Final = late_pattern(r"_[0-9A-Za-z]{8}")
_IN_IBANS: Final = late_pattern(r"[0-9][0-9][0-9A-Za-z]{11}")
_DIGIT: Final = late_pattern(r"[0-9]")


def discreet(text: str) -> str:
    """Return `text` as an error may repeat it: card numbers, IBANs and keys become ****."""
    # Digits of other scripts are for the detector of card numbers to find.
    has_digits = not text.isascii() or _DIGIT.search(text) is not None
    if has_digits:
        text = without_card_numbers(text)
    if _IN_KEYS.search(text) is not None:
        text = _KEY.sub(r"\1****", text)
    if has_digits and _IN_IBANS.search(text) is not None:
        text = _MAYBE_IBAN.sub(lambda found: "****" if iban_valid(found[0].upper()) else found[0], text)
    return text


def render_refusal(refused: Refused, *, request_id: str, base_url: str) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and the body for `refused`. The `details` of the refusal become members of the error.

    The answer does not repeat a card number or key that the caller sent in a wrong place, because answers are stored
    and logged.
    """
    rule = RULES[refused.code]
    error: dict[str, Any] = {
        "type": rule.type,
        "code": refused.code,
        "message": discreet(refused.message),
        "doc_url": doc_url(refused.code),
        "request_log_url": f"{base_url}/ops/v1/requests/{request_id}",
    }
    if refused.decline_code is not None:
        error["decline_code"] = refused.decline_code
    if refused.param is not None:
        error["param"] = discreet(refused.param)
    for name, value in refused.details.items():
        assert name not in error, f"a detail of a refusal cannot replace {name!r}"
        if value is not None:
            error[name] = value
    return rule.status, {"error": error}


def challenge(refused: Refused) -> str | None:
    """Return the header `WWW-Authenticate` for a refusal (RFC 6750, 3); None if it is not about authentication."""
    if refused.code == "insufficient_scope":
        scope = refused.details.get("scope")
        wanted = f', scope="{scope}"' if scope else ""
        return f'Bearer realm="Tillway", error="insufficient_scope"{wanted}'
    if refused.code in ("api_key_invalid", "api_key_expired", "access_token_invalid", "access_token_expired"):
        return 'Bearer realm="Tillway", error="invalid_token"'
    return 'Bearer realm="Tillway"' if RULES[refused.code].status == 401 else None


def internal_error(*, request_id: str, base_url: str) -> tuple[int, dict[str, Any]]:
    """Return the answer to an internal failure. The log has the cause under the request id; the answer has not."""
    return render_refusal(
        Refused("internal", f"{RULES['internal'].message} It is {request_id}."),
        request_id=request_id,
        base_url=base_url,
    )
