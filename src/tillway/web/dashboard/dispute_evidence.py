"""The evidence that wins a dispute of each reason, and the part of it that the payment already tells."""

from typing import Any, Final

FIELDS: Final = (
    ("product_description", "What was sold"),
    ("customer_name", "The customer’s name"),
    ("customer_email_address", "The customer’s e-mail"),
    ("shipping_address", "Where it went"),
    ("shipping_carrier", "Carrier"),
    ("shipping_tracking_number", "Tracking number"),
    ("shipping_date", "Day of sending"),
    ("duplicate_charge_explanation", "Why it is not the same order"),
    ("refund_refusal_explanation", "Why you did not refund"),
    ("cancellation_rebuttal", "When it was canceled, and what was due"),
)
"""The texts of evidence, with their labels."""

FILES: Final = (
    ("shipping_documentation", "Proof of delivery"),
    ("customer_communication", "What you wrote to the customer"),
    ("receipt", "Receipt or invoice"),
    ("refund_policy", "Your terms of refunds"),
    ("cancellation_policy", "Your terms of cancellation"),
)
WORDS: Final = "uncategorized_text"

WHO: Final = ("Who bought what, and when", "", ("product_description", "customer_name"), "any")
WHERE: Final = ("Where it went", "", ("shipping_address",), "all")
TRACKING: Final = ("Carrier and tracking number", "", ("shipping_carrier", "shipping_tracking_number"), "all")
PROOF: Final = (
    "Proof that it was handed over",
    "The carrier’s page with the name or signature. This decides most of these cases.",
    ("shipping_documentation",),
    "all",
)
LETTERS: Final = (
    "What you wrote to the customer",
    "Optional. Letters that ask, and their answers.",
    ("customer_communication",),
    "all",
)
RECEIPT: Final = ("Receipt or invoice", "With what was bought and its price.", ("receipt",), "all")
OTHER_ORDER: Final = (
    "Why it is not the same order",
    "The two orders, with what each was for.",
    ("duplicate_charge_explanation",),
    "all",
)
REFUND_TERMS: Final = (
    "Why nothing had to be refunded",
    "Your terms as the customer saw them, and why they hold here.",
    ("refund_policy", "refund_refusal_explanation"),
    "any",
)
CANCELLATION_TERMS: Final = (
    "When it was canceled, and what was due",
    "Your terms as the customer saw them, and the day on which they canceled.",
    ("cancellation_policy", "cancellation_rebuttal"),
    "any",
)

WINS: Final = {
    "product_not_received": (WHO, WHERE, TRACKING, PROOF, LETTERS),
    "fraudulent": (WHO, WHERE, TRACKING, PROOF, LETTERS),
    "unrecognized": (WHO, RECEIPT, WHERE, PROOF, LETTERS),
    "product_unacceptable": (WHO, RECEIPT, REFUND_TERMS, LETTERS),
    "credit_not_processed": (WHO, RECEIPT, REFUND_TERMS, LETTERS),
    "duplicate": (WHO, RECEIPT, OTHER_ORDER, LETTERS),
    "subscription_canceled": (WHO, CANCELLATION_TERMS, RECEIPT, LETTERS),
}
OTHERS: Final = (WHO, RECEIPT, PROOF, LETTERS)
"""The evidence for each reason, and for all others: title, hint, the fields, and how many of them it takes."""

SAYS: Final = {
    "product_not_received": "says that it never came",
    "fraudulent": "says that they did not make this payment",
    "unrecognized": "does not recognize this payment",
    "product_unacceptable": "says that it is not what was ordered, or broken",
    "credit_not_processed": "says that a refund is due and has not come",
    "duplicate": "says that they paid twice",
    "subscription_canceled": "says that they had canceled",
}


def says(reason: str, name: str) -> str:
    """The customer's complaint as a sentence; empty where the reason tells of none."""
    return f"{name or 'The customer'} {SAYS[reason]}." if reason in SAYS else ""


def known_of_payment(charge: dict[str, Any]) -> dict[str, str]:
    """The evidence that a charge of the API tells by itself, with its customer where that is expanded."""
    billing, shipping = charge.get("billing_details") or {}, charge.get("shipping") or {}
    customer = charge["customer"] if isinstance(charge.get("customer"), dict) else {}
    address = shipping.get("address") or {}
    place = " ".join(filter(None, (address.get("postal_code"), address.get("city"))))
    lines = (address.get("line1"), address.get("line2"), place, address.get("state"), address.get("country"))
    return {
        "product_description": charge.get("description") or "",
        "customer_name": billing.get("name") or customer.get("name") or shipping.get("name") or "",
        "customer_email_address": billing.get("email") or charge.get("receipt_email") or customer.get("email") or "",
        "shipping_address": ", ".join(line for line in lines if line),
        "shipping_carrier": shipping.get("carrier") or "",
        "shipping_tracking_number": shipping.get("tracking_number") or "",
    }


def wanted_for(reason: str) -> frozenset[str]:
    """The names of the evidence that wins a dispute of that reason, and of the customer's address."""
    names = {name for _, _, fields, _ in WINS.get(reason, OTHERS) for name in fields}
    return frozenset(names | {"customer_email_address"})


def checklist_of(reason: str, evidence: dict[str, Any], known: dict[str, str]) -> list[dict[str, Any]]:
    """The evidence that wins a dispute of that reason: how much of each is there, and where it is from.

    `evidence` is that of the dispute, `known` that of its payment. `field` is the first that is missing, or else the
    first.
    """
    items = []
    for title, hint, fields, takes in WINS.get(reason, OTHERS):
        there = [name for name in fields if evidence.get(name) or known.get(name)]
        done = bool(there) if takes == "any" else len(there) == len(fields)
        missing = next((name for name in fields if name not in there), fields[0])
        of_payment = bool(there) and not any(evidence.get(name) for name in there)
        files = {name for name, _ in FILES}
        texts = (str(evidence.get(name) or known[name]) for name in there if name not in files)
        told = (", " if takes == "any" else " ").join(texts)
        items.append(
            {
                "title": title,
                "hint": hint,
                "done": done,
                "optional": hint.startswith("Optional"),
                "of_payment": of_payment,
                "told": told,
                "field": fields[0] if done else missing,
                "is_file": (fields[0] if done else missing) in files,
            }
        )
    return items
