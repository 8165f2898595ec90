"""The capability of an operator that each call needs. A test compares the table with the routes."""

from functools import cache
from typing import Final

from tillway.domain.operator import Capability

WRITES: Final[dict[str, Capability]] = {
    "POST /v1/charges/{id}/capture": "refund",
    "POST /v1/charges/{id}/refund": "refund",
    "POST /v1/charges/{id}/refunds": "refund",
    "POST /v1/payment_intents": "settle",
    "POST /v1/payment_intents/{id}": "settle",
    "POST /v1/payment_intents/{id}/cancel": "refund",
    "POST /v1/payment_intents/{id}/capture": "refund",
    "POST /v1/refunds": "refund",
    "POST /v1/refunds/{id}/cancel": "refund",
    "POST /v1/customers": "personal",
    "DELETE /v1/customers/{id}": "configure",
    "POST /v1/customers/{customer}/balance_transactions": "settle",
    "POST /v1/disputes/{id}": "disputes",
    "POST /v1/files": "disputes",
    "POST /v1/disputes/{id}/close": "disputes",
    "POST /v1/events/{id}/retry": "settle",
    "POST /v1/payment_links": "configure",
    "POST /v1/payment_links/{id}": "configure",
    "POST /v1/payouts": "settle",
    "POST /v1/payouts/{id}/cancel": "settle",
    "PUT /ops/v1/routing": "configure",
    "DELETE /ops/v1/routing": "configure",
    "POST /v1/webhook_endpoints": "configure",
    "POST /v1/webhook_endpoints/{id}": "configure",
    "DELETE /v1/webhook_endpoints/{id}": "configure",
    "POST /v1/accounts/{account}/external_accounts": "configure",
    "POST /v1/accounts/{account}/external_accounts/{id}": "configure",
    "DELETE /v1/accounts/{account}/external_accounts/{id}": "configure",
    "POST /ops/v1/accounts": "configure",
    "POST /ops/v1/accounts/{id}": "configure",
    "POST /ops/v1/accounts/{id}/disable": "configure",
    "POST /ops/v1/accounts/{id}/enable": "configure",
    "DELETE /ops/v1/accounts/{id}": "configure",
    "POST /ops/v1/customers/{customer}/redact": "configure",
    "POST /ops/v1/payments/{payment}/redact": "configure",
    "POST /ops/v1/closes": "settle",
    "POST /ops/v1/closes/{day}/differences/{difference}": "settle",
    "POST /ops/v1/audit/exports": "export_audit",
    "POST /ops/v1/exports": "read",
    "POST /ops/v1/backups": "configure",
    "POST /ops/v1/connectors": "configure",
    "POST /ops/v1/connectors/{name}": "configure",
    "POST /ops/v1/connectors/{name}/breaker": "settle",
    "POST /ops/v1/connectors/{name}/drain": "settle",
    "POST /ops/v1/connectors/{name}/test": "settle",
    "POST /ops/v1/doctor": "configure",
    "POST /ops/v1/doubts/{id}/resolve": "settle",
    "POST /ops/v1/events/{id}/resend": "settle",
    "POST /ops/v1/keys": "configure",
    "POST /ops/v1/keys/{id}/revoke": "configure",
    "POST /ops/v1/views": "personal",
    "DELETE /ops/v1/views/{id}": "personal",
    "POST /ops/v1/keys/{id}/roll": "configure",
    "POST /ops/v1/webhook_deliveries/{id}/resend": "settle",
    "POST /ops/v1/webhook_endpoints/{id}/replay": "settle",
    "POST /ops/v1/webhook_endpoints/{id}/test": "settle",
    "POST /ops/v1/webhook_endpoints/{id}/roll_secret": "configure",
    "POST /ops/v1/open_items/{id}/close": "settle",
    "POST /ops/v1/operators": "configure",
    "POST /ops/v1/operators/{id}": "configure",
    "POST /ops/v1/operators/{id}/disable": "configure",
    "POST /ops/v1/operators/{id}/enable": "configure",
    "POST /ops/v1/operators/{id}/reset": "configure",
    "POST /ops/v1/operators/{id}/sign_out": "configure",
    "DELETE /ops/v1/operators/{id}/sessions/{session}": "configure",
    "POST /ops/v1/orders/{order_id}/steps/{step}": "settle",
    "POST /ops/v1/routing/simulate": "read",
    "POST /ops/v1/settlements": "settle",
    "POST /ops/v1/simulator": "configure",
    "POST /ops/v1/simulator/disputes": "configure",
}
"""Calls that change something and that some role may make. Every other write is a merchant's business."""

READS: Final[dict[str, Capability]] = {
    "GET /ops/v1/audit": "export_audit",
    "GET /ops/v1/audit/{id}": "export_audit",
    "GET /ops/v1/audit_chain": "export_audit",
    "GET /ops/v1/connectors/{name}": "configure",
    "GET /ops/v1/system": "configure",
    "GET /ops/v1/operators": "configure",
    "GET /ops/v1/operators/{id}": "configure",
    # No member of a file can be masked, and a link opens it to all who see its address.
    "GET /v1/files/{id}/contents": "personal",
    "GET /v1/file_links": "personal",
    "GET /v1/file_links/{id}": "personal",
}
"""Calls that read and need more than `read`."""


@cache
def capability_of(method: str, path: str) -> Capability | None:
    """Return the capability that `method` on the route `path` needs; None where no operator may make the call."""
    if not path.startswith(("/v1/", "/ops/v1/")):
        return None
    if method == "GET":
        return READS.get(f"GET {path}", "read")
    return WRITES.get(f"{method} {path}")
