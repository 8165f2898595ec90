"""Answers for operators who may not see personal data: names, e-mail addresses, phones and addresses are masked."""

import re
from typing import Any, Final

from tillway.domain.late_pattern import late_pattern

PERSONAL: Final = frozenset(
    (
        "accountholdername",
        "address",
        "addressline1",
        "addressline2",
        "billingaddress",
        "billingname",
        "birthdate",
        "businessname",
        "cardholder",
        "cardholdername",
        "cardname",
        "customeremail",
        "customeremailaddress",
        "customername",
        "customerpurchaseip",
        "dateofbirth",
        "deliveryaddress",
        "dob",
        "email",
        "emailaddress",
        "firstname",
        "fullname",
        "holder",
        "individualname",
        "instructionsemail",
        "lastname",
        "line1",
        "line2",
        "middlename",
        "mobile",
        "nameoncard",
        "payeremail",
        "phone",
        "phonenumber",
        "receiptemail",
        "shippingaddress",
        "street",
    )
)
"""Members that hold personal data in any object, in the words of every contract that Tillway serves, in small
letters and digits alone."""

_NAMED: Final = frozenset(
    (
        "bank_account",
        "billing_details",
        "card",
        "customer",
        "customer_details",
        "owner",
        "recipient",
        "shipping",
        "shipping_details",
    )
)
"""Objects with the `name` of a person. The name of a product or of an endpoint is not."""

_STATES: Final = frozenset(("before", "after", "previous_attributes"))
"""Members with the fields of a record, which the member beside them names."""

_WHO: Final = frozenset(("actor", "changed_by", "saved_by", "closed_by"))
"""Members that name who acted, as in `cli:root@host.example`."""

_EMAIL: Final = late_pattern(r"[^\s@<>()\[\],;:\"'=&?/]{1,64}@[^\s@<>()\[\],;:\"'=&?/]{1,190}\.[^\W\d_]{2,24}")


def word_of(name: str) -> str:
    """The name of a member in small letters and digits alone."""
    return "".join(filter(str.isalnum, name.lower()))


def mask(text: str) -> str:
    """Keep the first character, and of an e-mail address its domain."""
    local, at, domain = text.partition("@")
    return f"{local[:1]}***{at}{domain}"


def mask_personal(value: Any, inside: str = "") -> Any:
    """Return a document with personal data masked, and e-mail addresses within any text. `inside` is the name of the
    member that holds it."""
    match value:
        case dict():
            kind = _kind_of(value, inside)
            return {name: _mask_named(name, member, kind, inside) for name, member in value.items()}
        case list():
            return [mask_personal(member, inside) for member in value]
        case str() if "@" in value and inside not in _WHO:
            return _EMAIL.sub(_mask_found, value)
        case _:
            return value


def _mask_named(name: str, member: Any, kind: str, inside: str) -> Any:
    if word_of(name) in PERSONAL or (name == "name" and (kind in _NAMED or inside in _NAMED)):
        return _mask_member(member)
    return mask_personal(member, kind if name in _STATES else name)


def _kind_of(value: dict[str, Any], inside: str) -> str:
    """The kind of an object: a customer, also in the change of one and in the data of an event about one."""
    record, kind = value.get("record"), value.get("object")
    if isinstance(record, str) and record.startswith("cus_"):
        return "customer"
    if isinstance(kind, dict):
        kind = kind.get("object")
    return kind if isinstance(kind, str) else inside


def _mask_found(found: re.Match[str]) -> str:
    return mask(found.group())


def _mask_member(value: Any) -> Any:
    match value:
        case str() if value:
            return mask(value)
        case dict():
            return {name: _mask_member(member) for name, member in value.items()}
        case list():
            return [_mask_member(member) for member in value]
        case _:
            return value
