"""The scope that each call needs, found by path and method in one table. A test compares it with the route table."""

from functools import cache
from typing import Final

NOUNS: Final[dict[str, str]] = {
    "ops": "ops",
    "orders": "orders",
    "products": "orders",
    "users": "customers",
    "v1/account": "account",
    "v1/accounts": "account",
    "v1/accounts/*/external_accounts": "payouts",
    "v1/balance": "balance",
    "v1/balance_transactions": "balance",
    "v1/charges": "payments",
    "v1/charges/*/dispute": "disputes",
    "v1/charges/*/refund": "refunds",
    "v1/charges/*/refunds": "refunds",
    "v1/checkout": "payments",
    "v1/confirmation_tokens": "cards",
    "v1/customers": "customers",
    "v1/customers/*/payment_methods": "cards",
    "v1/customers/*/bank_accounts": "cards",
    "v1/customers/*/cards": "cards",
    "v1/customers/*/sources": "cards",
    "v1/customer_sessions": "cards",
    "v1/disputes": "disputes",
    "v1/ephemeral_keys": "customers",
    "v1/events": "events",
    "v1/file_links": "disputes",
    "v1/files": "disputes",
    "v1/mandates": "payments",
    "v1/payment_intents": "payments",
    "v1/payment_links": "payments",
    "v1/payment_methods": "cards",
    "v1/payment_pages": "payments",
    "v1/payouts": "payouts",
    "v1/prices": "payments",
    "v1/products": "payments",
    "v1/radar/early_fraud_warnings": "disputes",
    "v1/refunds": "refunds",
    "v1/setup_attempts": "cards",
    "v1/setup_intents": "cards",
    "v1/sources": "cards",
    "v1/test_helpers/confirmation_tokens": "cards",
    "v1/test_helpers/customers": "customers",
    "v1/test_helpers/refunds": "refunds",
    "v1/test_helpers/test_clocks": "customers",
    "v1/tokens": "cards",
    "v1/webhook_endpoints": "webhooks",
    # The dialects.
    "create-payment": "payments",
    "make-payment": "payments",
    "get-payment": "payments",
    "payments": "payments",
    "token": "cards",
    "charge": "payments",
    "refund": "refunds",
    "process-payments": "payments",
    "process-refunds": "refunds",
    "v1/api/customer": "customers",
    "v1/api/payment": "payouts",
    "v1/api/payments": "payouts",
}
"""The noun of all calls below a path; the longest path wins. `*` stands for an id."""

EXACTLY: Final[dict[str, str]] = {
    "POST /v1/stripecli/sessions": "events:read",
    "POST /v1/events/{id}/retry": "webhooks:write",
    "POST /get-token": "payments:read",
    "POST /get-payment-details": "payments:read",
}
"""Calls that their method alone does not classify as reading or writing."""


@cache
def scope_of(method: str, path: str) -> str:
    """Return the scope that `method` on the route `path` needs.

    It is empty if the table does not have the path; no restricted credential may then make the call.
    """
    exactly = EXACTLY.get(f"{method} {path}")
    if exactly is not None:
        return exactly
    parts = ["*" if part.startswith("{") else part for part in path.strip("/").split("/")]
    for length in range(len(parts), 0, -1):
        noun = NOUNS.get("/".join(parts[:length]))
        if noun is not None:
            return f"{noun}:{'read' if method == 'GET' else 'write'}"
    return ""
