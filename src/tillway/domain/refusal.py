"""Refusals: one table of error codes for every source API.

`Refused` means that the caller has to change something; it is always raised before anything is written. The table gives
each code its HTTP status, its error type (Stripe's vocabulary, https://docs.stripe.com/error-codes) and a default
message, for a refusal that has no more exact one.
"""

from typing import Any, NamedTuple


class Rule(NamedTuple):
    status: int
    type: str
    message: str


_INVALID = "invalid_request_error"

RULES: dict[str, Rule] = {
    # Authentication.
    "api_key_missing": Rule(401, _INVALID, "No API key. Send it as `Authorization: Bearer sk_test_…`."),
    "api_key_expired": Rule(401, _INVALID, "The API key has expired. Make a new one with `tillway keys create`."),
    "api_key_invalid": Rule(401, _INVALID, "Invalid API key. List the keys with `tillway keys list`."),
    "access_token_invalid": Rule(401, _INVALID, "The access token is not valid. Request a new one at /oauth2/token."),
    "access_token_expired": Rule(401, _INVALID, "The access token has expired. Request a new one at /oauth2/token."),
    "insufficient_scope": Rule(403, _INVALID, "This credential does not have the scope that the call needs."),
    "secret_key_required": Rule(
        401, _INVALID, "This call needs a secret key (sk_…); a publishable key (pk_…) was sent."
    ),
    "ephemeral_key_forbidden": Rule(
        403,
        _INVALID,
        "An ephemeral key opens only what its customer's app needs. Make this call on your server, with a secret key.",
    ),
    "operator_required": Rule(
        403, _INVALID, "This call takes an operator's key (ok_…); `tillway operators add` makes one."
    ),
    "operator_forbidden": Rule(403, _INVALID, "Your role may not do this."),
    "operator_account_required": Rule(
        400, _INVALID, "You work for several merchants. Name one in the header Tillway-Account (acct_…)."
    ),
    "refund_limit_exceeded": Rule(403, _INVALID, "This refund is above the limit of your role."),
    "open_item_closed": Rule(400, _INVALID, "The open item was closed already."),
    "difference_decided": Rule(400, _INVALID, "The difference was decided already."),
    "statement_invalid": Rule(400, _INVALID, "A statement cannot be read."),
    "settlement_exists": Rule(400, _INVALID, "The settlement of this reference was booked already."),
    "settlement_too_large": Rule(400, _INVALID, "There is not as much money as this settlement moves."),
    "transaction_exists": Rule(400, _INVALID, "This transaction exists: the payment of this token was made before."),
    "doubt_unexpected_state": Rule(400, _INVALID, "This attempt is not in doubt, so there is nothing to resolve."),
    "client_secret_invalid": Rule(401, _INVALID, "The client_secret does not belong to this object."),
    "account_invalid": Rule(
        403, _INVALID, "This key reaches only its own account; there are no connected accounts. Leave the header out."
    ),
    "account_disabled": Rule(
        403,
        _INVALID,
        "This account is disabled, and its keys with it. Ask the operator of the installation.",
    ),
    "account_deleted": Rule(400, _INVALID, "This account is deleted."),
    "account_in_use": Rule(400, _INVALID, "This account is in use and cannot be deleted."),
    "merchant_mismatch": Rule(401, _INVALID, "The merchant named in the request is not the merchant of its key."),
    "redaction_waits": Rule(400, _INVALID, "Money of this customer is under way."),
    "test_clock_advancing": Rule(400, _INVALID, "This test clock is advancing. Go on when its status is `ready`."),
    "customer_mismatch": Rule(401, _INVALID, "The customer named in the request is not the one of its access token."),
    "livemode_mismatch": Rule(
        401, _INVALID, "A test key cannot reach live objects, and a live key cannot reach test objects."
    ),
    "live_mode_not_configured": Rule(
        400, _INVALID, "Live mode has no connector. Add one with `tillway connectors add NAME --kind KIND --mode live`."
    ),
    # Routes, objects and limits.
    "route_unknown": Rule(404, _INVALID, "Unrecognized request URL. The routes are listed at /openapi.json."),
    "method_not_allowed": Rule(405, _INVALID, "This URL exists, but not with this method."),
    "resource_missing": Rule(404, _INVALID, "No such object."),
    "record_changed": Rule(
        409, _INVALID, "The record has changed since the version in Tillway-Expect. Look at it again before you act."
    ),
    "rate_limit": Rule(429, _INVALID, "Too many requests. Wait the number of seconds in Retry-After."),
    "lock_timeout": Rule(429, _INVALID, "Another request is changing this object. Send the request again shortly."),
    # Bodies and parameters.
    "body_too_large": Rule(413, _INVALID, "The request body is larger than 1 MiB."),
    "body_malformed": Rule(400, _INVALID, "The request body cannot be read."),
    "content_type_unsupported": Rule(
        415, _INVALID, "Send the body as application/x-www-form-urlencoded or as application/json."
    ),
    "content_encoding_unsupported": Rule(
        415, _INVALID, "Send the body as it is, without compression: this server decodes no Content-Encoding."
    ),
    "host_missing": Rule(400, _INVALID, "Send exactly one Host header (RFC 9112, section 3.2)."),
    "header_repeated": Rule(400, _INVALID, "Send this header once."),
    "parameter_unknown": Rule(400, _INVALID, "Received an unknown parameter."),
    "parameter_missing": Rule(400, _INVALID, "A required parameter is missing."),
    "parameter_invalid_empty": Rule(400, _INVALID, "This parameter cannot be empty."),
    "parameter_invalid_integer": Rule(400, _INVALID, "This parameter must be an integer."),
    "parameter_invalid_string": Rule(400, _INVALID, "This parameter is not a valid string."),
    "parameter_invalid_string_blank": Rule(400, _INVALID, "This parameter cannot be blank."),
    "parameter_invalid_boolean": Rule(400, _INVALID, "This parameter must be true or false."),
    "parameter_invalid_enum": Rule(400, _INVALID, "This parameter has a value outside its list."),
    "parameter_invalid_object": Rule(400, _INVALID, "This parameter must be an object."),
    "parameter_invalid_array": Rule(400, _INVALID, "This parameter must be an array."),
    "parameters_exclusive": Rule(400, _INVALID, "These two parameters exclude each other. Send one of them."),
    "parameter_unsupported": Rule(400, _INVALID, "Tillway does not support this parameter."),
    "payment_method_types_no_longer_supported": Rule(400, _INVALID, "payment_method_types is no longer supported."),
    "domain_unsupported": Rule(400, _INVALID, "Tillway covers the payments domain, and this noun is of another one."),
    "email_invalid": Rule(400, _INVALID, "This is not an e-mail address."),
    "url_invalid": Rule(400, _INVALID, "This is not a URL that can be used here."),
    "invalid_currency": Rule(400, _INVALID, "This is not an ISO 4217 currency."),
    "amount_too_small": Rule(400, _INVALID, "The amount must be at least 1 minor unit."),
    "amount_too_large": Rule(400, _INVALID, "The amount must be no more than 99,999,999 minor units."),
    "api_version_invalid": Rule(400, _INVALID, "This is no supported Stripe-Version."),
    "page_invalid": Rule(400, _INVALID, "There is no such page of this search."),
    "query_invalid": Rule(400, _INVALID, "The search query cannot be read."),
    "search_too_broad": Rule(400, _INVALID, "Too few of the records that one search may read match. Narrow it."),
    "card_number_in_free_text": Rule(
        400, _INVALID, "This field seems to hold a card number. Send card numbers only in the card's own field."
    ),
    # Idempotency.
    "idempotency_key_reused": Rule(
        400,
        "idempotency_error",
        "This Idempotency-Key was used before with other parameters. Use a new key for a new request.",
    ),
    "idempotency_key_in_use": Rule(
        409, "idempotency_error", "A request with this Idempotency-Key is still running. Send it again shortly."
    ),
    "idempotency_key_too_long": Rule(400, "idempotency_error", "An Idempotency-Key has at most 255 characters."),
    # Cards and tokens.
    "incorrect_number": Rule(402, "card_error", "Your card number is incorrect."),
    "invalid_number": Rule(402, "card_error", "The card number is not a valid credit card number."),
    "invalid_expiry_month": Rule(402, "card_error", "Your card's expiration month is invalid."),
    "invalid_expiry_year": Rule(402, "card_error", "Your card's expiration year is invalid."),
    "invalid_cvc": Rule(402, "card_error", "Your card's security code is invalid."),
    "incorrect_cvc": Rule(402, "card_error", "Your card's security code is incorrect."),
    "incorrect_zip": Rule(402, "card_error", "Your card's postal code is incorrect."),
    "expired_card": Rule(402, "card_error", "Your card has expired."),
    "card_declined": Rule(402, "card_error", "Your card was declined."),
    "card_decline_rate_limit_exceeded": Rule(
        402, "card_error", "This card was declined too many times. The card networks allow another try later."
    ),
    "processing_error": Rule(
        402, "card_error", "An error occurred while processing your card. Try again in a little bit."
    ),
    "authentication_required": Rule(402, "card_error", "This payment requires authentication."),
    "insufficient_funds": Rule(402, "card_error", "The balance is too low for this payment."),
    # Hosted checkout.
    "checkout_form_used": Rule(409, _INVALID, "This form was sent already. Load the page again."),
    "checkout_session_over": Rule(400, _INVALID, "This checkout session is complete or has expired."),
    "payment_link_closed": Rule(400, _INVALID, "This payment link is closed."),
    # Bank accounts, and the reasons why a debit is returned.
    "account_number_invalid": Rule(400, _INVALID, "The bank account number you provided is invalid."),
    "routing_number_invalid": Rule(400, _INVALID, "The bank routing number you provided is invalid."),
    "invalid_bank_account_iban": Rule(400, _INVALID, "The IBAN you provided is invalid."),
    "payment_intent_mandate_invalid": Rule(400, _INVALID, "There is no mandate that allows this payment."),
    "setup_intent_mandate_invalid": Rule(400, _INVALID, "There is no mandate that allows this setup."),
    "account_closed": Rule(402, "card_error", "The customer's bank account has been closed."),
    "bank_account_restricted": Rule(402, "card_error", "The bank account does not allow debits of this kind."),
    "bank_ownership_changed": Rule(402, "card_error", "The bank account has moved to another bank."),
    "charge_exceeds_source_limit": Rule(402, "card_error", "The payment exceeds the account's limit for a week."),
    "charge_exceeds_weekly_limit": Rule(402, "card_error", "The account has been debited too often this week."),
    "could_not_process": Rule(402, "card_error", "The customer's bank could not process the debit."),
    "debit_not_authorized": Rule(402, "card_error", "The customer says that the debit was not authorized."),
    "generic_could_not_process": Rule(402, "card_error", "The customer's bank could not process the debit."),
    "invalid_account_number": Rule(402, "card_error", "The bank does not know the account number."),
    "no_account": Rule(402, "card_error", "The customer's bank account could not be found."),
    "token_already_used": Rule(400, _INVALID, "You cannot use a token more than once."),
    "token_expired": Rule(400, _INVALID, "This token has expired. Make a new one."),
    # States of objects.
    "payment_intent_unexpected_state": Rule(400, _INVALID, "The PaymentIntent's status does not allow this."),
    "payment_intent_authentication_failure": Rule(
        402, "card_error", "The provided payment method has failed authentication."
    ),
    "payment_intent_incompatible_payment_method": Rule(
        400, _INVALID, "The payment method cannot do what this PaymentIntent asks for."
    ),
    "payment_intent_action_required": Rule(402, "card_error", "This payment requires an action of the customer."),
    "payment_method_unexpected_state": Rule(400, _INVALID, "The payment method's state does not allow this."),
    "setup_intent_unexpected_state": Rule(400, _INVALID, "The SetupIntent's status does not allow this."),
    "setup_intent_authentication_failure": Rule(
        402, "card_error", "The provided payment method has failed authentication."
    ),
    "charge_already_captured": Rule(400, _INVALID, "This charge has already been captured."),
    "charge_already_refunded": Rule(400, _INVALID, "This charge has already been refunded."),
    "charge_not_refundable": Rule(400, _INVALID, "This charge cannot be refunded."),
    "charge_disputed": Rule(400, _INVALID, "This charge has been charged back."),
    "charge_expired_for_capture": Rule(400, _INVALID, "The authorization of this charge has expired."),
    "refund_unexpected_state": Rule(400, _INVALID, "The refund's status does not allow this."),
    "refund_amount_too_large": Rule(400, _INVALID, "The refund is larger than what is left of the charge."),
    "refund_failed": Rule(402, "card_error", "The bank refused the refund. The charge can be refunded again."),
    "payout_unexpected_state": Rule(400, _INVALID, "The payout's status does not allow this."),
    "balance_insufficient": Rule(400, _INVALID, "There is not enough available balance for this payout."),
    "payouts_not_allowed": Rule(400, _INVALID, "There is no external account in this currency to pay out to."),
    "instant_payouts_unsupported": Rule(400, _INVALID, "This external account does not take instant payouts."),
    "bank_account_exists": Rule(400, _INVALID, "This bank account is already an external account of the merchant."),
    "external_account_default": Rule(400, _INVALID, "The default external account of a currency cannot be deleted."),
    "external_account_limit": Rule(400, _INVALID, "An account has at most 50 external accounts in each mode."),
    "dispute_unexpected_state": Rule(400, _INVALID, "The dispute's status does not allow this."),
    "missing": Rule(402, "card_error", "The customer has no such payment source."),
    "customer_id_taken": Rule(409, _INVALID, "Another customer has this id."),
    "email_not_the_customers": Rule(
        400, _INVALID, "The e-mail address is not the customer's. Money goes only to the customer's own address."
    ),
    "customer_credit_insufficient": Rule(400, _INVALID, "The customer has less stored credit than this amount."),
    "customer_currency_mismatch": Rule(400, _INVALID, "The customer's stored credit is in another currency."),
    "customer_has_credit": Rule(
        400,
        _INVALID,
        "The customer has stored credit. Take it back with a balance transaction before you delete the customer.",
    ),
    "capture_amount_too_large": Rule(400, _INVALID, "The amount to capture is larger than what was authorized."),
    "routing_invalid": Rule(400, _INVALID, "This word of the routing document is wrong."),
    "routing_version_conflict": Rule(409, _INVALID, "The routing document was changed meanwhile."),
    "connector_unavailable": Rule(
        503, "api_error", "No connector takes this payment now. Send the request again later."
    ),
    "connector_unsupported": Rule(400, _INVALID, "The connector of this payment cannot do this."),
    "order_step_unexpected": Rule(400, _INVALID, "The order is not at this step."),
    "order_step_failed": Rule(409, _INVALID, "This step of the order failed."),
    "delivery_not_configured": Rule(400, _INVALID, "Live mode has no delivery service and takes no orders."),
    "webhook_endpoint_limit": Rule(400, _INVALID, "An account has at most 16 webhook endpoints."),
    # Tillway's own failures: no request causes them, and each is logged with its cause.
    "internal": Rule(500, "api_error", "Something went wrong inside Tillway. The request id finds it in the log."),
    "clock_off": Rule(
        503,
        "api_error",
        "This server's clock cannot be trusted, so it begins no payments. Send the request again in a while.",
    ),
    "record_damaged": Rule(
        500,
        "api_error",
        "A stored record is damaged. The operator finds it with `tillway doctor --deep`.",
    ),
    "recovering": Rule(
        503,
        "api_error",
        "The store was restored from a backup, and what the providers did since is being booked. Send the request "
        "again, unchanged, when that is done.",
    ),
    "busy": Rule(503, "api_error", "Tillway could not finish this in time. Send the request again."),
    "storage_full": Rule(
        503,
        "api_error",
        "The disk of the server is full, so nothing can be written. Send the request again, with the same "
        "Idempotency-Key, when the operator has made room.",
    ),
    "storage_read_only": Rule(
        503,
        "api_error",
        "The server's store takes no writes. Send the request again, with the same Idempotency-Key, when the operator "
        "has made it writable.",
    ),
}

STORE_CODES = frozenset(("busy", "lock_timeout", "storage_full", "storage_read_only"))
"""Refusals for a fault of the store, or of the moment: the same work may succeed a little later."""

REPEATABLE = STORE_CODES | {"idempotency_key_in_use", "rate_limit", "clock_off", "recovering"}
"""Refusals after which the same request may be sent again."""


class Refused(Exception):
    """A request that Tillway refuses. `param` is spelled as the caller spelled it: `card[number]`.

    `decline_code` accompanies `card_declined` and similar codes. `details` are further members of the error object,
    such as `charge` or `payment_intent`.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        param: str | None = None,
        decline_code: str | None = None,
        **details: Any,
    ) -> None:
        assert code in RULES, f"no rule for refusal code {code!r}"
        self.code = code
        self.message = message or RULES[code].message
        self.param = param
        self.decline_code = decline_code
        self.details = details

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
