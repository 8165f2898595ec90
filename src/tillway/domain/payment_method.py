"""Payment methods, the tokens that become them, and where the card itself lies."""

from typing import Any

import msgspec

from tillway.domain.customer import Customer
from tillway.domain.record import Changes, EventDraft, Moment, Record, Value, changed
from tillway.domain.refusal import Refused

TOKEN_LIFETIME_SECONDS = 15 * 60
CVC_LIFETIME_SECONDS = 24 * 60 * 60
"""A CVC that no attempt has used is gone after a day."""


class CardFacts(Value, frozen=True, kw_only=True):
    """What may be known of a card outside the vault.

    `vault` names the sealed card, `cvc` the sealed security code while there is one. A public test card has neither:
    `alias` names it in the table of test cards. `three_d_secure` to `instant` are a test card's manners, in the words of
    `domain/test_cards.py`.
    """

    brand: str
    last4: str
    exp_month: int
    exp_year: int
    funding: str = "credit"
    country: str | None = "US"
    fingerprint: str = ""
    vault: str | None = None
    cvc: str | None = None
    alias: str | None = None
    cvc_check: str | None = None
    address_line1_check: str | None = None
    postal_code_check: str | None = None
    three_d_secure: str = "unenrolled"
    authentication: str = "challenge"
    attach_decline: tuple[str, str | None] | None = None
    risk_level: str = "normal"
    blocked: str | None = None
    instant: bool = False


class PaymentMethod(Record, frozen=True, kw_only=True):
    """A way to pay. Its id begins with `card_` where it was made from a token the old way, else with `pm_`."""

    type: str = "card"
    card: CardFacts | None = None
    customer: str | None = None
    billing_details: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    allow_redisplay: str = "unspecified"
    consumed: bool = False
    set_up: bool = False
    detached: bool = False
    door: str = "v1"


class Token(Record, frozen=True, kw_only=True):
    """Stands once, and for 15 minutes, for a card."""

    card: CardFacts
    card_id: str
    name: str | None = None
    address: dict[str, str] = {}
    used: bool = False
    client_ip: str | None = None
    door: str = "v1"

    @property
    def valid_until(self) -> int:
        return self.created + TOKEN_LIFETIME_SECONDS


class SealedRecord(Record, frozen=True, kw_only=True):
    """A card (`vlt_`) or a security code (`cvc_`) as the vault sealed it: bytes that nothing but the vault can open."""

    sealed: msgspec.Raw
    expires_at: int | None = None


def new_method(card: CardFacts, fields: dict[str, Any], at: Moment, *, prefix: str = "pm") -> PaymentMethod:
    return changed(PaymentMethod(id=at.new_id(prefix), created=at.now, card=card), fields)


def redeem(token: Token, at: Moment) -> tuple[Token, PaymentMethod]:
    """The token used, and the payment method that it becomes."""
    if token.used:
        raise Refused(
            "token_already_used",
            f"You cannot use a Tillway token more than once: {token.id}.",
            param="source",
        )
    if token.valid_until <= at.now:
        raise Refused("token_expired", param="source")
    billing = {"name": token.name, "address": token.address or None}
    method = PaymentMethod(
        id=token.card_id,
        created=token.created,
        card=token.card,
        billing_details={key: value for key, value in billing.items() if value},
        door=token.door,
    )
    return msgspec.structs.replace(token, used=True), method


def attach(method: PaymentMethod, customer: Customer) -> Changes:
    """Refuses a card that the issuer does not let be kept, one that was used up, and one that is another's."""
    if customer.deleted:
        raise Refused("resource_missing", f"No such customer: '{customer.id}'", param="customer")
    if method.customer == customer.id:
        return Changes(result=method)
    if method.customer is not None:
        raise Refused(
            "payment_method_unexpected_state",
            "The payment method you provided has already been attached to a customer.",
            param="payment_method",
        )
    if method.consumed or method.detached:
        raise Refused(
            "payment_method_unexpected_state",
            "This PaymentMethod was previously used without being attached to a Customer or was detached from a "
            "Customer, and may not be used again.",
            param="payment_method",
        )
    if method.card is not None and method.card.attach_decline is not None:
        code, decline_code = method.card.attach_decline
        raise Refused(code, decline_code=decline_code, payment_method=method)
    after = msgspec.structs.replace(method, customer=customer.id)
    return Changes(result=after, records=(after,), events=(EventDraft(type="payment_method.attached", record=after),))


def detach(method: PaymentMethod) -> Changes:
    """The card goes with it: a detached method can never be used again, so nothing may keep what it stood for."""
    if method.customer is None:
        raise Refused(
            "payment_method_unexpected_state",
            "The payment method you provided is not attached to a customer so detachment is impossible.",
            param="payment_method",
        )
    card = method.card
    bare = msgspec.structs.replace(card, vault=None, cvc=None) if card is not None else None
    after = msgspec.structs.replace(method, customer=None, detached=True, card=bare)
    sealed = tuple(name for name in (card.vault, card.cvc) if name) if card is not None else ()
    return Changes(
        result=after,
        records=(after,),
        deletes=sealed,
        events=(EventDraft(type="payment_method.detached", record=after, previous=method),),
    )


def update(method: PaymentMethod, fields: dict[str, Any]) -> Changes:
    """Expiry, billing details and metadata can change; the number never."""
    if method.customer is None and method.detached:
        raise Refused("payment_method_unexpected_state", "A detached payment method cannot be changed.")
    given = dict(fields)
    expiry = {name: given.pop(name) for name in ("exp_month", "exp_year") if name in given}
    if "billing_details" in given and given["billing_details"] is not None:
        given["billing_details"] = {**method.billing_details, **given["billing_details"]}
    after = changed(method, given)
    if expiry:
        if after.card is None:
            raise Refused("payment_method_unexpected_state", "This payment method has no card.", param="card")
        after = msgspec.structs.replace(after, card=msgspec.structs.replace(after.card, **expiry))
    if after == method:
        return Changes(result=method)
    return Changes(
        result=after,
        records=(after,),
        events=(EventDraft(type="payment_method.updated", record=after, previous=method),),
    )


def usable(method: PaymentMethod, *, customer: str | None) -> None:
    """Whether `method` may pay for `customer` (or for nobody in particular). Refused where not."""
    if method.detached or method.consumed:
        raise Refused(
            "payment_method_unexpected_state",
            "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment, or was "
            "detached from a Customer. It may not be used again. To use a PaymentMethod multiple times, attach it to a "
            "Customer first.",
            param="payment_method",
        )
    if method.customer is not None and method.customer != customer:
        owner = (
            "The customer you sent is not the one that the PaymentMethod belongs to."
            if customer
            else "Please include the Customer in the `customer` parameter of the request."
        )
        raise Refused(
            "payment_method_unexpected_state",
            f"The provided PaymentMethod belongs to a Customer. {owner}",
            param="payment_method",
        )
