"""Bank accounts in answers, as every resource shows them."""

from typing import Any

from tillway.domain.bank_account import BankAccountFacts


def bank_object(type: str, bank: BankAccountFacts) -> dict[str, Any]:
    """Return the fields under the name of a payment method type, without those that a single payment adds."""
    if type == "sepa_debit":
        return {
            "bank_code": bank.bank_code,
            "branch_code": bank.branch_code,
            "country": bank.country,
            "fingerprint": bank.fingerprint,
            "last4": bank.last4,
        }
    return {
        "account_holder_type": bank.account_holder_type,
        "account_type": bank.account_type,
        "bank_name": bank.bank_name,
        "fingerprint": bank.fingerprint,
        "last4": bank.last4,
        "routing_number": bank.routing_number,
    }


def method_object(type: str, bank: BankAccountFacts) -> dict[str, Any]:
    """Return a bank account as a payment method shows it."""
    if type == "sepa_debit":
        return {**bank_object(type, bank), "generated_from": None}
    return {
        **bank_object(type, bank),
        "financial_connections_account": None,
        "networks": {"preferred": "ach", "supported": ["ach"]},
        "status_details": None,
    }
