"""Mandates: a customer's permission to debit their bank account, with the evidence for it."""

from typing import Any, Literal

import msgspec

from tillway.domain.payment_method import PaymentMethod
from tillway.domain.record import NO_CHANGES, Changes, EventDraft, Moment, Record
from tillway.domain.refusal import Refused

REVOKED_BY = frozenset(("debit_not_authorized",))
"""Reasons of a returned debit that mean that there is no permission, or no longer one."""


class Mandate(Record, frozen=True, kw_only=True):
    """Permission to debit the account behind `method`: as often as the customer agreed to (`multi_use`), or once, over
    `amount_minor` of `currency`. `acceptance` is the merchant's evidence: `{"type": "online", "online": {…}}`."""

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
        """The text on the customer's statement: at most 35 characters, as SEPA allows."""
        return reference_of(self.id)


def reference_of(id: str) -> str:
    """The reference of the mandate of that id."""
    return id.removeprefix("mandate_")[-35:].upper()


def accept(method: PaymentMethod, given: dict[str, Any], at: Moment, *, once: tuple[int, str] | None) -> Mandate:
    """The mandate of `given`, the evidence in `mandate_data[customer_acceptance]`. `once`: amount and currency if it is
    for this one payment. An acceptance without a time was given now."""
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


def permit(
    method: PaymentMethod,
    known: Mandate | None,
    at: Moment,
    *,
    named: str | None,
    acceptance: dict[str, Any] | None,
    once: tuple[int, str] | None,
) -> tuple[str | None, PaymentMethod, Changes[None]]:
    """Find the customer's permission to debit `method`: the mandate that a request `named`, the one that `acceptance`
    is the evidence of, or the one that came with the method when it was set up.

    `known` is the named mandate, or else the method's own. Returns the mandate's id (None if there is no active one),
    the method with the mandate, and the changes that make a new one. A mandate for one payment (`once`: amount and
    currency) is not stored with the method.
    """
    if named is not None:
        if known is None or known.method != method.id or known.status != "active" or known.type != "multi_use":
            raise Refused(
                "payment_intent_mandate_invalid",
                f"The mandate {named} is not one to debit this payment method with. Send one of its own, or "
                "mandate_data.",
                param="mandate",
            )
        return known.id, method, NO_CHANGES
    if acceptance is None:
        return known.id if known is not None and known.status == "active" else None, method, NO_CHANGES
    new = accept(method, acceptance, at, once=once)
    if once is not None:
        return new.id, method, Changes(result=None, records=(new,))
    method = msgspec.structs.replace(method, mandate=new.id)
    return new.id, method, Changes(result=None, records=(new, method))


def revoke(mandate: Mandate) -> Changes[None]:
    """End the mandate: the account's owner has withdrawn it at their bank. A second time it changes nothing."""
    if mandate.status == "inactive":
        return NO_CHANGES
    after = msgspec.structs.replace(mandate, status="inactive")
    return Changes(
        result=None, records=(after,), events=(EventDraft(type="mandate.updated", record=after, previous=mandate),)
    )
