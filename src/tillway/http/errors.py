"""How a refusal looks from outside: Stripe's error object (https://docs.stripe.com/api/errors)."""

import re
from typing import Any, Final

from tillway.domain.bank_account import iban_valid
from tillway.domain.cards import without_card_numbers
from tillway.domain.refusal import RULES, Refused

OWN_DOCS: Final = "https://github.com/tillway/tillway/blob/main/docs/errors.md"

STRIPE_CODES: Final = frozenset(
    {
        "account_closed",
        "account_invalid",
        "account_number_invalid",
        "amount_too_large",
        "amount_too_small",
        "authentication_required",
        "balance_insufficient",
        "bank_account_restricted",
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
"""Codes that Stripe's own page explains. Every other code is explained by ours."""


def doc_url(code: str) -> str:
    """Where `code` is explained: on Stripe's page where that has it, else on our own."""
    dashed = code.replace("_", "-")
    return f"https://docs.stripe.com/error-codes/{dashed}" if code in STRIPE_CODES else f"{OWN_DOCS}#{dashed}"


_KEY: Final = re.compile(r"((?:sk|rk)_(?:test|live)_|whsec_)[0-9A-Za-z]{8,}")
_MAYBE_IBAN: Final = re.compile(r"(?<![0-9A-Za-z])[A-Za-z]{2}[0-9]{2}[0-9A-Za-z]{11,30}(?![0-9A-Za-z])")


def discreet(text: str) -> str:
    """`text` as an error may repeat it, also to who sent it: card numbers, IBANs and keys are written as ****."""
    text = _KEY.sub(r"\1****", without_card_numbers(text))
    return _MAYBE_IBAN.sub(lambda found: "****" if iban_valid(found[0].upper()) else found[0], text)


def render_refusal(refused: Refused, *, request_id: str, base_url: str) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the body that answer `refused`. `details` of the refusal become members of the error.

    A number or key that a caller wrote where none belongs is not repeated to it, for answers are kept and logged.
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
    """What the header `WWW-Authenticate` says beside a refusal (RFC 6750, 3); None where authentication is not the
    matter."""
    if refused.code == "insufficient_scope":
        scope = refused.details.get("scope")
        wanted = f', scope="{scope}"' if scope else ""
        return f'Bearer realm="Tillway", error="insufficient_scope"{wanted}'
    if refused.code in ("api_key_invalid", "access_token_invalid", "access_token_expired"):
        return 'Bearer realm="Tillway", error="invalid_token"'
    return 'Bearer realm="Tillway"' if RULES[refused.code].status == 401 else None


def internal_error(*, request_id: str, base_url: str) -> tuple[int, dict[str, Any]]:
    """The answer where Tillway itself failed. The cause is not in it, but in the log under the request id."""
    return render_refusal(
        Refused("internal", f"{RULES['internal'].message} It is {request_id}."),
        request_id=request_id,
        base_url=base_url,
    )
