"""Mandates: a customer's permission to debit their bank account, with the evidence of how it was given."""

from typing import Any, Literal

import msgspec

from tillway.domain.payment_method import PaymentMethod
from tillway.domain.record import NO_CHANGES, Changes, EventDraft, Moment, Record
from tillway.domain.refusal import Refused

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

    `known` is the named mandate, or else the method's own. Gives the mandate's id, None where there is none that is
    active, the method with the mandate, and the changes that make a new one. One for this payment alone (`once`:
    amount and currency) is not kept with the method.
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
    """It permits nothing any more: the account's owner told their bank so. A second time it changes nothing."""
    if mandate.status == "inactive":
        return NO_CHANGES
    after = msgspec.structs.replace(mandate, status="inactive")
    return Changes(
        result=None, records=(after,), events=(EventDraft(type="mandate.updated", record=after, previous=mandate),)
    )
