"""Answers for operators who may not see personal data: names, e-mail addresses, phones and addresses are masked."""

from typing import Any, Final

PERSONAL: Final = frozenset(
    ("address", "customer_email", "email", "instructions_email", "line1", "line2", "phone", "receipt_email")
)
"""Members that hold personal data wherever they stand."""

_NAMED: Final = frozenset(("card", "billing_details", "customer", "owner", "recipient", "shipping"))
"""Objects whose `name` is a person's. The name of a product or of an endpoint is not."""


def mask(text: str) -> str:
    """Keep the first character, and of an e-mail address its domain."""
    local, at, domain = text.partition("@")
    return f"{local[:1]}***{at}{domain}"


def mask_personal(value: Any, inside: str = "") -> Any:
    """Return a document with personal data masked. `inside` is the name of the member that holds it."""
    match value:
        case dict():
            kind = value.get("object") if isinstance(value.get("object"), str) else inside
            return {
                name: _mask_member(member)
                if name in PERSONAL or (name == "name" and (kind in _NAMED or inside in _NAMED))
                else mask_personal(member, name)
                for name, member in value.items()
            }
        case list():
            return [mask_personal(member, inside) for member in value]
        case _:
            return value


def _mask_member(value: Any) -> Any:
    match value:
        case str() if value:
            return mask(value)
        case dict():
            return {name: _mask_member(member) for name, member in value.items()}
        case _:
            return value
