"""Cards in requests and answers, as every resource accepts and shows them."""

from typing import Any

from tillway.domain.payment_method import CardFacts
from tillway.http.params import (
    AccountField,
    Address,
    Boolean,
    CardField,
    Email,
    Enum,
    Ignored,
    Integer,
    Metadata,
    Object,
    Open,
    Text,
    Unsupported,
)

METHOD_TYPES = (
    "card",
    "us_bank_account",
    "sepa_debit",
    "customer_balance",
    "link",
    "paypal",
    "bancontact",
    "ideal",
    "klarna",
)
"""Payment method types that a request may name. Creating one that no connector supports is refused."""

NETWORK_NAMES = (
    "amex",
    "cartes_bancaires",
    "diners",
    "discover",
    "eftpos_au",
    "girocard",
    "interac",
    "jcb",
    "link",
    "mastercard",
    "unionpay",
    "unknown",
    "visa",
)
"""Networks that a request may choose for a co-branded card."""

BILLING = Object(
    address=Address(unsettable=True),
    email=Email(unsettable=True),
    name=Text(unsettable=True),
    phone=Text(unsettable=True),
    tax_id=Text(unsettable=True),
)

STRIPE_JS: dict[str, Any] = {
    name: Ignored()
    for name in (
        "_stripe_account",
        "_stripe_version",
        "client_attribution_metadata",
        "guid",
        "key",
        "muid",
        "pasted_fields",
        "payment_user_agent",
        "referrer",
        "sid",
        "time_on_page",
    )
}
"""Facts that Stripe.js reports about the browser or repeats from the headers. They decide nothing here."""

NETWORKS = Object(preferred=Enum("cartes_bancaires", "mastercard", "visa", unsettable=True))

CARD = Object(
    object=Enum("card"),
    number=CardField(required=True),
    exp_month=CardField(required=True),
    exp_year=CardField(required=True),
    cvc=CardField(),
    name=Text(unsettable=True),
    address_city=Text(unsettable=True),
    address_country=Text(unsettable=True),
    address_line1=Text(unsettable=True),
    address_line2=Text(unsettable=True),
    address_state=Text(unsettable=True),
    address_zip=Text(unsettable=True),
    currency=Ignored(),
    networks=NETWORKS,
)
"""A card as the old API accepts it, for a token or instead of one."""

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

_SETUP = Unsupported("setups by payment method type; say it of the whole payment")
_DATE = Unsupported("debits on a chosen date")
US_BANK_OPTIONS = Object(
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
SEPA_OPTIONS = Object(mandate_options=Open(), setup_future_usage=_SETUP, target_date=_DATE, unsettable=True)
"""The parameters of a bank account in `payment_method_options`."""

METHOD_DATA = Object(
    type=Enum(*METHOD_TYPES, required=True),
    card=Object(
        number=CardField(),
        exp_month=CardField(),
        exp_year=CardField(),
        cvc=CardField(),
        token=Text(),
        networks=NETWORKS,
    ),
    billing_details=BILLING,
    metadata=Metadata(),
    allow_redisplay=Enum("always", "limited", "unspecified"),
    radar_options=Open(),
    link=Ignored(),
    us_bank_account=Object(
        account_holder_type=Enum("company", "individual"),
        account_number=AccountField(),
        account_type=Enum("checking", "savings"),
        financial_connections_account=Unsupported("Financial Connections"),
        routing_number=Text(maximum=20),
    ),
    sepa_debit=Object(iban=CardField()),
    customer_balance=Object(),
    **STRIPE_JS,
)


def billing(details: dict[str, Any] | None) -> dict[str, Any]:
    """Return billing details with every field present, as Stripe shows them."""
    given = details or {}
    return {
        "address": postal(given.get("address")),
        "email": given.get("email"),
        "name": given.get("name"),
        "phone": given.get("phone"),
        "tax_id": given.get("tax_id"),
    }


def shipping(given: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a shipping address with every field present."""
    if given is None:
        return None
    return {
        "address": postal(given.get("address")),
        "carrier": given.get("carrier"),
        "name": given.get("name"),
        "phone": given.get("phone"),
        "tracking_number": given.get("tracking_number"),
    }


def postal(address: dict[str, Any] | None) -> dict[str, Any]:
    """Return a postal address with every field present."""
    given = address or {}
    return {name: given.get(name) for name in ("city", "country", "line1", "line2", "postal_code", "state")}


def checks(card: CardFacts) -> dict[str, Any]:
    return {
        "address_line1_check": card.address_line1_check,
        "address_postal_code_check": card.postal_code_check,
        "cvc_check": card.cvc_check,
    }


_BRANDS = {
    "visa": "Visa",
    "mastercard": "MasterCard",
    "amex": "American Express",
    "discover": "Discover",
    "diners": "Diners Club",
    "jcb": "JCB",
    "unionpay": "UnionPay",
}


def card_object(
    id: str,
    card: CardFacts,
    *,
    name: str | None,
    address: dict[str, Any],
    customer: str | None = None,
    metadata: dict[str, str] | None = None,
    allow_redisplay: str = "unspecified",
) -> dict[str, Any]:
    """Return the `card` object of a token or of a customer's source. The one of a token has no `customer` field."""
    shown = {
        "id": id,
        "object": "card",
        "address_city": address.get("city"),
        "address_country": address.get("country"),
        "address_line1": address.get("line1"),
        "address_line1_check": card.address_line1_check,
        "address_line2": address.get("line2"),
        "address_state": address.get("state"),
        "address_zip": address.get("postal_code"),
        "address_zip_check": card.postal_code_check,
        "allow_redisplay": allow_redisplay,
        "brand": _BRANDS.get(card.brand, "Unknown"),
        "country": card.country,
        "cvc_check": card.cvc_check,
        "dynamic_last4": None,
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
        "fingerprint": card.fingerprint,
        "funding": card.funding,
        "last4": card.last4,
        "metadata": metadata or {},
        "name": name,
        "networks": {"preferred": None},
        "regulated_status": "unregulated",
        "tokenization_method": None,
    }
    if customer is not None:
        shown["customer"] = customer
    return shown
