"""Bank accounts in requests and answers: the parameters and shapes of the payment method types that debit them."""

from typing import Any

from tillway.domain.bank_account import BankAccountFacts
from tillway.domain.charge import Charge
from tillway.domain.mandate import Mandate
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.refund import Refund
from tillway.domain.setup_intent import SetupAttempt
from tillway.http.params import (
    AccountField,
    Boolean,
    CardField,
    Enum,
    Integer,
    Object,
    Open,
    Text,
    Unsupported,
)

MANDATE_DATA = Object(
    customer_acceptance=Object(
        accepted_at=Integer(minimum=0),
        offline=Open(),
        online=Object(ip_address=Text(maximum=100), user_agent=Text(maximum=500), infer_from_client=Boolean()),
        type=Enum("offline", "online", required=True),
    ),
    unsettable=True,
)
"""The customer's consent to debits of their bank account."""

_HOLDER_TYPE = Enum("company", "individual")
_ACCOUNT_TYPE = Enum("checking", "savings")
_SETUP = Unsupported("setups by payment method type; say it of the whole payment")
_DATE = Unsupported("debits on a chosen date")

US_ACCOUNT = Object(
    account_holder_type=_HOLDER_TYPE,
    account_number=AccountField(),
    account_type=_ACCOUNT_TYPE,
    financial_connections_account=Unsupported("Financial Connections"),
    routing_number=Text(maximum=20),
)
US_ACCOUNT_CHANGES = Object(account_holder_type=_HOLDER_TYPE, account_type=_ACCOUNT_TYPE)
US_ACCOUNT_OPTIONS = Object(
    financial_connections=Open(),
    mandate_options=Open(),
    networks=Open(),
    preferred_settlement_speed=Enum("fastest", "standard", unsettable=True),
    setup_future_usage=_SETUP,
    target_date=_DATE,
    transaction_purpose=Open(),
    verification_method=Enum("automatic", "instant", "microdeposits"),
    unsettable=True,
)
SEPA_ACCOUNT = Object(iban=CardField())
SEPA_OPTIONS = Object(mandate_options=Open(), setup_future_usage=_SETUP, target_date=_DATE, unsettable=True)


def us_account_of_method(method: PaymentMethod) -> dict[str, Any] | None:
    """The account of a payment method; None where there is none."""
    if method.bank is None:
        return None
    return {
        **_us_account(method.bank),
        "financial_connections_account": None,
        "networks": {"preferred": "ach", "supported": ["ach"]},
        "status_details": None,
    }


def us_account_of_charge(charge: Charge) -> dict[str, Any]:
    """The account of a charge, with this payment's mandate and reference; empty where the method has been deleted."""
    return {**_us_account(charge.bank), **_debit(charge)} if charge.bank is not None else {}


def sepa_account_of_method(method: PaymentMethod) -> dict[str, Any] | None:
    """The account of a payment method; None where there is none."""
    return {**_sepa_account(method.bank), "generated_from": None} if method.bank is not None else None


def sepa_account_of_charge(charge: Charge) -> dict[str, Any]:
    """The account of a charge, with this payment's mandate and reference; empty where the method has been deleted."""
    return {**_sepa_account(charge.bank), **_debit(charge)} if charge.bank is not None else {}


def _us_account(bank: BankAccountFacts) -> dict[str, Any]:
    return {
        "account_holder_type": bank.account_holder_type,
        "account_type": bank.account_type,
        "bank_name": bank.bank_name,
        "fingerprint": bank.fingerprint,
        "last4": bank.last4,
        "routing_number": bank.routing_number,
    }


def _sepa_account(bank: BankAccountFacts) -> dict[str, Any]:
    return {
        "bank_code": bank.bank_code,
        "branch_code": bank.branch_code,
        "country": bank.country,
        "fingerprint": bank.fingerprint,
        "last4": bank.last4,
    }


def _debit(charge: Charge) -> dict[str, Any]:
    return {"mandate": charge.mandate, "payment_reference": charge.bank_id}


def account_of_setup(attempt: SetupAttempt) -> dict[str, Any] | None:
    """Nothing: Stripe shows no account in an attempt to set one up."""
    return None


def us_mandate(mandate: Mandate) -> dict[str, Any]:
    """The mandate's details of its type: none."""
    return {}


def sepa_mandate(mandate: Mandate) -> dict[str, Any]:
    """The mandate's details of its type: the reference that the customer sees on a statement."""
    return {"reference": mandate.reference, "url": None}


def us_refund(refund: Refund) -> dict[str, Any]:
    """Where a refund to an account in the United States goes."""
    return _transfer("us_bank_transfer", refund)


def sepa_refund(refund: Refund) -> dict[str, Any]:
    """Where a refund to an account in Europe goes."""
    return _transfer("eu_bank_transfer", refund)


def _transfer(name: str, refund: Refund) -> dict[str, Any]:
    status = "pending" if refund.status == "pending" else "available"
    return {name: {"reference": refund.id, "reference_status": status}, "type": name}
