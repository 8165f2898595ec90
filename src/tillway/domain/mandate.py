"""Mandates: a customer's permission to debit their bank account, with the evidence of how it was given."""

from typing import Any, Literal

import msgspec

from tillway.domain.payment_method import PaymentMethod
from tillway.domain.record import NO_CHANGES, Changes, EventDraft, Moment, Record

REVOKED_BY = frozenset(("debit_not_authorized",))
"""Why a debit came back, where that says that there was no permission, or is none any more."""


class Mandate(Record, frozen=True, kw_only=True):
    """Permission to debit the account behind `method`: as often as the customer agreed to (`multi_use`), or once, over
    `amount_minor` of `currency`. `acceptance` is what the merchant told of it: `{"type": "online", "online": {…}}`."""

    method: str
    method_type: str
    type: Literal["multi_use", "single_use"]
    acceptance: dict[str, Any]
    accepted_at: int | None = None
    amount_minor: int | None = None
    currency: str | None = None
    status: Literal["active", "inactive", "pending"] = "active"

    @property
    def reference(self) -> str:
        """What the customer sees on a statement: at most 35 characters, as SEPA allows."""
        return reference_of(self.id)


def reference_of(id: str) -> str:
    """The reference of the mandate of that id."""
    return id.removeprefix("mandate_")[-35:].upper()


def accept(method: PaymentMethod, given: dict[str, Any], at: Moment, *, once: tuple[int, str] | None) -> Mandate:
    """The mandate that `given`, a `mandate_data[customer_acceptance]`, is the evidence of. `once`: amount and currency
    where it is for this one payment. An acceptance that does not say when it was given was given now."""
    return Mandate(
        id=at.new_id("mandate"),
        created=at.created,
        method=method.id,
        method_type=method.type,
        type="multi_use" if once is None else "single_use",
        acceptance={name: given[name] for name in ("type", "online") if given.get(name)},
        accepted_at=given.get("accepted_at") or at.now,
        amount_minor=once[0] if once is not None else None,
        currency=once[1] if once is not None else None,
    )


def revoked(mandate: Mandate) -> Changes[None]:
    """It permits nothing any more: the account's owner told their bank so. A second time it changes nothing."""
    if mandate.status == "inactive":
        return NO_CHANGES
    after = msgspec.structs.replace(mandate, status="inactive")
    return Changes(
        result=None, records=(after,), events=(EventDraft(type="mandate.updated", record=after, previous=mandate),)
    )
