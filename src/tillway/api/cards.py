"""Cards in requests and answers, as every resource accepts and shows them."""

from typing import Any

from tillway.domain.charge import Charge
from tillway.domain.payment_method import CardFacts, PaymentMethod
from tillway.domain.refund import Refund
from tillway.domain.setup_intent import SetupAttempt
from tillway.http.params import (
    Address,
    Boolean,
    CardField,
    Email,
    Enum,
    Ignored,
    Integer,
    Object,
    Text,
    Unsupported,
)
from tillway.http.shapes import View

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

METHOD = Object(
    number=CardField(),
    exp_month=CardField(),
    exp_year=CardField(),
    cvc=CardField(),
    token=Text(),
    networks=NETWORKS,
)
"""The card of a new payment method."""

CHANGES = Object(exp_month=Integer(minimum=0), exp_year=Integer(minimum=0, maximum=9999), networks=NETWORKS)

PAYMENT_OPTIONS = Object(
    request_three_d_secure=Enum("any", "automatic", "challenge"),
    setup_future_usage=Enum("none", "off_session", "on_session", unsettable=True),
    capture_method=Enum("manual", unsettable=True),
    moto=Unsupported("orders by mail and telephone"),
    cvc_token=Unsupported("CVC tokens"),
    network=Enum(*NETWORK_NAMES),
    installments=Unsupported("instalments"),
    mandate_options=Unsupported("mandates"),
    statement_descriptor_suffix_kana=Text(unsettable=True),
    statement_descriptor_suffix_kanji=Text(unsettable=True),
    request_extended_authorization=Enum("if_available", "never"),
    request_incremental_authorization=Enum("if_available", "never"),
    request_multicapture=Enum("if_available", "never"),
    request_overcapture=Enum("if_available", "never"),
    require_cvc_recollection=Boolean(),
    three_d_secure=Unsupported("authentication results from elsewhere"),
    unsettable=True,
)

SETUP_OPTIONS = Object(
    request_three_d_secure=Enum("any", "automatic", "challenge"),
    moto=Unsupported("orders by mail and telephone"),
    network=Enum(*NETWORK_NAMES),
    mandate_options=Unsupported("mandates"),
    setup_credential_usage=Enum("installment", "recurring", "unscheduled"),
    three_d_secure=Unsupported("authentication results from elsewhere"),
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
    of_charge: bool = False,
) -> dict[str, Any]:
    """Return the `card` object of a token, of a customer's source or of a charge.

    The one of a token has no `customer` field; the one `of_charge` has it also without a customer.
    """
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
    if customer is not None or of_charge:
        shown["customer"] = customer
    return shown


def source_object(method: PaymentMethod, view: View) -> dict[str, Any]:
    """Return the Source behind `src_…`: a card with its owner."""
    card = method.card
    assert card is not None, "a Source has a card"
    details = method.billing_details
    owner = {name: details.get(name) for name in ("email", "name", "phone")}
    verified = dict.fromkeys(("verified_address", "verified_email", "verified_name", "verified_phone"))
    address = postal(details["address"]) if details.get("address") else None
    facts = card_object(method.id, card, name=owner["name"], address={})
    shown = {
        "id": method.id,
        "object": "source",
        "allow_redisplay": method.allow_redisplay,
        "amount": None,
        "card": {name: facts[name] for name in _SOURCE_CARD} | {"three_d_secure": _three_d_secure(card)},
        "client_secret": view.client_secrets.of(method),
        "created": method.created,
        "currency": None,
        "flow": "none",
        "livemode": view.livemode,
        "metadata": method.metadata,
        "owner": {"address": address, **owner, **verified},
        "statement_descriptor": None,
        "status": "consumed" if method.consumed or method.detached else "chargeable",
        "type": "card",
        "usage": "reusable",
    }
    if method.customer is not None:
        shown["customer"] = method.customer
    return shown


_SOURCE_CARD = (
    *("address_line1_check", "address_zip_check", "brand", "country", "cvc_check", "dynamic_last4", "exp_month"),
    *("exp_year", "fingerprint", "funding", "last4", "name", "tokenization_method"),
)


def _three_d_secure(card: CardFacts) -> str:
    if card.three_d_secure.startswith("required"):
        return "required"
    return "not_supported" if card.three_d_secure == "not_supported" else "optional"


def card_of_method(method: PaymentMethod) -> dict[str, Any] | None:
    """The card of a payment method; None where there is none."""
    card = method.card
    if card is None:
        return None
    return {
        "brand": card.brand,
        "checks": checks(card),
        "country": card.country,
        "display_brand": card.brand,
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
        "fingerprint": card.fingerprint,
        "funding": card.funding,
        "generated_from": None,
        "last4": card.last4,
        "networks": {"available": [card.brand], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": card.three_d_secure != "not_supported"},
        "wallet": None,
    }


def card_of_charge(charge: Charge) -> dict[str, Any]:
    """The card of a charge, with its results for this payment; empty where the payment method has been deleted."""
    card = charge.card
    if card is None:
        return {}
    secure = None
    if charge.authenticated:
        secure = {
            "authentication_flow": card.authentication,
            "electronic_commerce_indicator": "05",
            "exemption_indicator": None,
            "result": "authenticated",
            "result_reason": None,
            "transaction_id": None,
            "version": "2.2.0",
        }
    shown = {
        "amount_authorized": charge.amount_minor if charge.status == "succeeded" else None,
        "authorization_code": None,
        "brand": card.brand,
        "checks": checks(card),
        "country": card.country,
        "electronic_commerce_indicator": "05" if charge.authenticated else None,
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
        "extended_authorization": {"status": "disabled"},
        "fingerprint": card.fingerprint,
        "funding": card.funding,
        "incremental_authorization": {"status": "available" if charge.capture_before else "unavailable"},
        "installments": None,
        "last4": card.last4,
        "mandate": None,
        "multicapture": {"status": "unavailable"},
        "network": card.brand,
        "network_token": {"used": False},
        "network_transaction_id": charge.network_transaction_id,
        "overcapture": {"maximum_amount_capturable": charge.amount_minor, "status": "unavailable"},
        "regulated_status": "unregulated",
        "three_d_secure": secure,
        "transaction_link_id": None,
        "wallet": None,
    }
    if charge.capture_before is not None:
        shown["capture_before"] = charge.capture_before
    return shown


def card_of_setup(attempt: SetupAttempt) -> dict[str, Any] | None:
    """The card of a try to set a payment method up; None where there is none."""
    card = attempt.method.card
    if card is None:
        return None
    secure = None
    if attempt.authenticated:
        secure = {
            "authentication_flow": "frictionless" if card.authentication == "frictionless" else "challenge",
            "electronic_commerce_indicator": "05",
            "result": "authenticated",
            "result_reason": None,
            "transaction_id": None,
            "version": "2.2.0",
        }
    return {
        "brand": card.brand,
        "checks": checks(card),
        "country": card.country,
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
        "fingerprint": card.fingerprint,
        "funding": card.funding,
        "last4": card.last4,
        "network": card.brand,
        "three_d_secure": secure,
        "wallet": None,
    }


def card_refund(refund: Refund) -> dict[str, Any]:
    """Where a refund to a card goes."""
    return {
        "card": {
            "reference_status": "pending" if refund.status == "pending" else "available",
            "reference_type": "acquirer_reference_number",
            "type": "refund",
        },
        "type": "card",
    }
