"""The customer's next step, as a payment and a setup show it."""

from typing import Any

from tillway.api.method_types import transfer_kind
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.setup_intent import SetupIntent
from tillway.http.shapes import View


def next_action(record: PaymentIntent | SetupIntent, view: View) -> dict[str, Any] | None:
    """The customer's next step: a bank transfer, or the page of a challenge or a provider; None once there is no such
    page."""
    if isinstance(record, PaymentIntent) and record.awaits_funds:
        return _transfer(record)
    page_url = view.client_secrets.challenge(record)
    if page_url is None:
        return None
    if record.use_stripe_sdk:
        return {
            "type": "use_stripe_sdk",
            "use_stripe_sdk": {"type": "three_d_secure_redirect", "stripe_js": page_url, "source": record.id},
        }
    return {
        "type": "redirect_to_url",
        "redirect_to_url": {"return_url": record.return_url, "url": page_url},
    }


def _transfer(payment: PaymentIntent) -> dict[str, Any]:
    """There is no account to send money to: a test helper stands for the bank."""
    options = payment.method_options.get("customer_balance") or {}
    return {
        "type": "display_bank_transfer_instructions",
        "display_bank_transfer_instructions": {
            "amount_remaining": payment.amount_minor - payment.funded_minor,
            "currency": payment.currency,
            "hosted_instructions_url": None,
            "reference": payment.id.partition("_")[2],
            "type": (options.get("bank_transfer") or {}).get("type") or transfer_kind(payment.currency),
        },
    }
