"""Payment methods, the tokens that become them, and their sealed cards."""

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from tillway.domain.bank_account import BankAccountFacts, without_number
from tillway.domain.cards import YEARS_AHEAD_MAX, expired
from tillway.domain.commands import UpdatePaymentMethod, UpdateSource
from tillway.domain.customer import Customer
from tillway.domain.method_types import METHOD_TYPES
from tillway.domain.outcome import Checks
from tillway.domain.record import Changes, EventDraft, Moment, Record, Value, changed
from tillway.domain.refusal import RULES, Refused
from tillway.domain.source_api import SourceApi

TOKEN_LIFETIME_SECONDS = 15 * 60
CVC_LIFETIME_SECONDS = 24 * 60 * 60
"""An unused CVC is deleted after a day."""


ThreeDSecure = Literal[
    "required", "required_unless_set_up", "required_on_session", "optional", "unenrolled", "not_supported"
]
"""The payments for which the issuer of a test card requires authentication."""

Authentication = Literal["challenge", "frictionless", "error"]
"""The course of an authentication: by a challenge page, without one, or not at all."""


class CardFacts(Value, frozen=True, kw_only=True):
    """The facts of a card that may be stored outside the vault.

    `vault` names the sealed card, `cvc` the sealed security code while there is one. A public test card has neither:
    `alias` names it in the table of test cards. `three_d_secure` to `instant` are a test card's behaviour, with the
    values of `sandbox/cards.py`.
    """

    brand: str
    last4: str
    exp_month: int
    exp_year: int
    funding: str = "credit"
    country: str | None = "US"
    fingerprint: str = ""
    bin: str = ""
    """The first digits of its number, as many as may be stored: eight, or six of a shorter number than 16 (PCI SSC,
    FAQ 1091). Empty on cards that earlier versions took in."""
    vault: str | None = None
    cvc: str | None = None
    alias: str | None = None
    cvc_check: str | None = None
    address_line1_check: str | None = None
    postal_code_check: str | None = None
    three_d_secure: ThreeDSecure = "unenrolled"
    authentication: Authentication = "challenge"
    attach_decline: tuple[str, str | None] | None = None
    risk_level: str = "normal"
    blocked: str | None = None
    instant: bool = False


class PaymentMethod(Record, frozen=True, kw_only=True):
    """A way to pay: a `card`, a `bank` account, or only its `type`. Its id begins with `card_` if the older API made it
    from a token, with `src_` if it is a Source, else with `pm_`. `mandate` is the permission to debit the account again
    and again.

    `network_transaction_id` is the card network's id of the first payment with a stored card. It is sent with later
    payments, through any provider, so that the issuer sees that the customer once agreed.

    `declined_at` are the times (epoch seconds) of its latest declines, oldest first, since its last success, and
    `barred` is the reason of one after which the card networks allow no further try (`card_tries.py`).

    `shown_as` is "card" or "source" only in the copy in an answer or an event of the older API; it is never stored.
    """

    type: str = "card"
    card: CardFacts | None = None
    bank: BankAccountFacts | None = None
    mandate: str | None = None
    customer: str | None = None
    billing_details: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    allow_redisplay: str = "unspecified"
    consumed: bool = False
    set_up: bool = False
    detached: bool = False
    network_transaction_id: str | None = None
    declined_at: tuple[int, ...] = ()
    barred: str | None = None
    shown_as: Literal["payment_method", "card", "source"] = "payment_method"
    source_api: SourceApi = SourceApi.v1

    @property
    def is_source(self) -> bool:
        """Whether it can be one of its customer's `sources`: a card of the older API, or a Source."""
        return self.id.startswith(("card_", "src_"))

    @property
    def source_kind(self) -> Literal["card", "source"]:
        """The `object` that the older API shows."""
        return "source" if self.id.startswith("src_") else "card"


class CardExpiry(Record, frozen=True, kw_only=True):
    """A task: tell the merchant when the last month of a customer's card of the older API begins."""

    method: str
    due_at_ms: int


class Token(Record, frozen=True, kw_only=True):
    """A reference to a card, valid once and for 15 minutes."""

    card: CardFacts
    card_id: str
    name: str | None = None
    address: dict[str, str] = {}
    used: bool = False
    client_ip: str | None = None
    source_api: SourceApi = SourceApi.v1

    @property
    def valid_until(self) -> int:
        return self.created + TOKEN_LIFETIME_SECONDS


def new_method(card: CardFacts, fields: dict[str, Any], at: Moment, *, prefix: str = "pm") -> PaymentMethod:
    method = PaymentMethod(id=at.new_id(prefix), created=at.created, card=card)
    return changed(method, fields) if fields else method


def new_bank_method(type: str, bank: BankAccountFacts, fields: dict[str, Any], at: Moment) -> PaymentMethod:
    return changed(PaymentMethod(id=at.new_id("pm"), created=at.created, type=type, bank=bank), fields)


def new_token(
    card: CardFacts,
    at: Moment,
    *,
    name: str | None,
    address: dict[str, str],
    client_ip: str | None,
    source_api: SourceApi = SourceApi.v1,
) -> Token:
    return Token(
        id=at.new_id("tok"),
        created=at.created,
        card=card,
        card_id=at.new_id("card"),
        name=name,
        address=address,
        client_ip=client_ip,
        source_api=source_api,
    )


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
    method = PaymentMethod(
        id=token.card_id,
        created=token.created,
        card=token.card,
        billing_details=holder(token.name, token.address),
        source_api=token.source_api,
    )
    return msgspec.structs.replace(token, used=True), method


def holder(name: str | None, address: dict[str, str]) -> dict[str, Any]:
    """The billing details of a card of the older API."""
    return {key: value for key, value in (("name", name), ("address", address)) if value}


def as_source(method: PaymentMethod) -> PaymentMethod:
    """The copy that the older API shows: a card, or a Source."""
    return msgspec.structs.replace(method, shown_as=method.source_kind)


def gone(id: str, created: int) -> PaymentMethod:
    """A placeholder for a method that was deleted during an attempt, with its customer for instance."""
    return PaymentMethod(id=id, created=created, detached=True)


def attach(method: PaymentMethod, customer: Customer) -> Changes[PaymentMethod]:
    """Attach `method` to `customer`. Refuses a used-up method and one of another customer. If the card's issuer does
    not allow storing it, the result is a decline, which writes nothing but uses up an idempotency key.

    The customer is written with it: every change of a customer's methods changes the customer's version, so that a
    concurrent attachment and deletion of the customer conflict.
    """
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
    attach_refusal = METHOD_TYPES[method.type].attach_refusal
    if attach_refusal:
        raise Refused("payment_method_unexpected_state", attach_refusal, param="payment_method")
    decline = issuer_objection(method)
    if decline is not None:
        return Changes(result=method, refusal=decline)
    after = msgspec.structs.replace(method, customer=customer.id)
    event = (
        EventDraft(type="customer.source.created", record=as_source(after))
        if method.is_source
        else EventDraft(type="payment_method.attached", record=after)
    )
    return Changes(result=after, records=(after, customer), tasks=_expiry_of(after), events=(event,))


def _expiry_of(method: PaymentMethod) -> tuple[CardExpiry, ...]:
    if not method.is_source or method.card is None:
        return ()
    due_at_ms = last_month_of(method.card) * 1000
    return (CardExpiry(id=expiry_id(method.id), created=method.created, method=method.id, due_at_ms=due_at_ms),)


def expiry_id(method: str) -> str:
    return f"cxp_{method.partition('_')[2]}"


def last_month_of(card: CardFacts) -> int:
    """When the last month of a card begins, in epoch seconds."""
    return int(datetime(card.exp_year, card.exp_month, 1, tzinfo=UTC).timestamp())


def expire(method: PaymentMethod | None, task: CardExpiry, at: Moment, *, early: bool = False) -> Changes[None]:
    """Tell that a card will expire at the end of this month. One that was renewed is told of later, one that was
    removed never. `early`: a test clock says that the month begins."""
    if method is None or method.customer is None or method.card is None:
        return Changes(result=None, deletes=(task.id,))
    begins = last_month_of(method.card)
    if begins > at.now and not early:
        return Changes(result=None, tasks=(msgspec.structs.replace(task, due_at_ms=begins * 1000),))
    event = EventDraft(type="customer.source.expiring", record=as_source(method))
    return Changes(result=None, deletes=(task.id,), events=(event,))


def issuer_objection(method: PaymentMethod) -> Refused | None:
    """The decline of a card whose issuer does not allow storing it; None for any other."""
    if method.card is None or method.card.attach_decline is None:
        return None
    code, decline_code = method.card.attach_decline
    message = "Your card has insufficient funds." if decline_code == "insufficient_funds" else RULES[code].message
    return Refused(code, message, decline_code=decline_code)


def detach(method: PaymentMethod) -> Changes[PaymentMethod]:
    """Detach it and delete the card or account: a detached method can never be used again, so its number must not be
    kept."""
    if method.customer is None:
        raise Refused(
            "payment_method_unexpected_state",
            "The payment method you provided is not attached to a customer so detachment is impossible.",
            param="payment_method",
        )
    card = method.card
    bare = msgspec.structs.replace(card, vault=None, cvc=None) if card is not None else None
    after = msgspec.structs.replace(
        method,
        customer=None,
        detached=True,
        card=bare,
        bank=without_number(method.bank),
        mandate=None,
        network_transaction_id=None,
    )
    sealed = tuple(name for name in (card.vault, card.cvc) if name) if card is not None else ()
    if method.bank is not None and method.bank.vault is not None:
        sealed = (method.bank.vault,)
    event = (
        EventDraft(type="customer.source.deleted", record=as_source(method))
        if method.is_source
        else EventDraft(type="payment_method.detached", record=after, previous=method)
    )
    return Changes(result=after, records=(after,), deletes=sealed, events=(event,))


def with_checks(card: CardFacts | None, checks: Checks | None) -> CardFacts | None:
    """The card with the results that a provider sent; other results stay unchanged."""
    if card is None or checks is None:
        return card
    cvc = checks.cvc or card.cvc_check
    line1 = checks.address_line1 or card.address_line1_check
    postal_code = checks.postal_code or card.postal_code_check
    if cvc == card.cvc_check and line1 == card.address_line1_check and postal_code == card.postal_code_check:
        return card
    return msgspec.structs.replace(card, cvc_check=cvc, address_line1_check=line1, postal_code_check=postal_code)


def without_cvc(method: PaymentMethod) -> Changes[PaymentMethod]:
    """`method` after the only use of its security code."""
    if method.card is None or method.card.cvc is None:
        return Changes(result=method)
    after = msgspec.structs.replace(method, card=msgspec.structs.replace(method.card, cvc=None))
    return Changes(result=after, records=(after,), deletes=(method.card.cvc,))


def update(method: PaymentMethod, command: UpdatePaymentMethod, now: int) -> Changes[PaymentMethod]:
    """Change expiry, billing details, metadata, or the facts of an account. The number never changes. `now` is epoch
    seconds."""
    if method.detached:
        raise Refused(
            "payment_method_unexpected_state", "A detached payment method cannot be changed.", param="payment_method"
        )
    given = command.given()
    month, year = given.pop("exp_month", None), given.pop("exp_year", None)
    accounts: dict[str, dict[str, Any]] = given.pop("account", {})
    if given.get("billing_details") is not None:
        merged = {**method.billing_details, **given["billing_details"]}
        given["billing_details"] = {name: value for name, value in merged.items() if value is not None}
    after = changed(method, given)
    if month is not None or year is not None:
        # A card with another date is a renewed one.
        renewed = _with_expiry(method, month, year, now)
        after = msgspec.structs.replace(after, card=renewed, barred=method.barred if renewed == method.card else None)
    for type, facts in accounts.items():
        if method.type != type or method.bank is None:
            raise Refused(
                "payment_method_unexpected_state",
                f"A payment method of the type {method.type} has no {type}.",
                param=type,
            )
        after = msgspec.structs.replace(after, bank=msgspec.structs.replace(method.bank, **facts))
    if after == method:
        return Changes(result=method)
    events: tuple[EventDraft, ...] = (EventDraft(type="payment_method.updated", record=after, previous=method),)
    if method.is_source:
        event = EventDraft(type="customer.source.updated", record=as_source(after), previous=as_source(method))
        events = (event,) if method.customer is not None else ()
    return Changes(result=after, records=(after,), events=events)


def correct(
    method: PaymentMethod, bank: BankAccountFacts, details: dict[str, Any], sealed: tuple[Record, ...]
) -> Changes[PaymentMethod]:
    """Name the account as its bank asks from now on: `sealed` has the new number, and the old one is deleted."""
    after = msgspec.structs.replace(method, bank=bank, billing_details=details)
    old = method.bank.vault if method.bank is not None else None
    return Changes(
        result=after,
        records=(after, *sealed),
        deletes=(old,) if old is not None else (),
        events=(EventDraft(type="payment_method.automatically_updated", record=after, previous=method),),
    )


def update_source(method: PaymentMethod, command: UpdateSource, now: int) -> Changes[PaymentMethod]:
    """Change a card like the older API: its holder's name and address, its expiry and its metadata."""
    address = {**(method.billing_details.get("address") or {}), **command.address}
    details: dict[str, Any] = {} if command.name is UNSET else {"name": command.name}
    details["address"] = {name: value for name, value in address.items() if value is not None} or None
    changes = UpdatePaymentMethod(
        billing_details=details, exp_month=command.exp_month, exp_year=command.exp_year, metadata=command.metadata
    )
    return update(method, changes, now)


def _with_expiry(method: PaymentMethod, month: int | None, year: int | None, now: int) -> CardFacts:
    """The card with another date. The bounds are those of `cards.check_card`; two digits are a year of this century."""
    card = method.card
    if card is None:
        raise Refused("payment_method_unexpected_state", "This payment method has no card.", param="card")
    month = card.exp_month if month is None else month
    year = card.exp_year if year is None else year if year > 99 else 2000 + year
    prefix = ("exp_month", "exp_year") if method.is_source else ("card[exp_month]", "card[exp_year]")
    this_year = datetime.fromtimestamp(now, UTC).year
    if not 1 <= month <= 12:
        raise Refused("invalid_expiry_month", param=prefix[0])
    if not this_year <= year <= this_year + YEARS_AHEAD_MAX:
        raise Refused("invalid_expiry_year", param=prefix[1])
    if expired(month, year, now):
        raise Refused("invalid_expiry_month", param=prefix[0])
    return msgspec.structs.replace(card, exp_month=month, exp_year=year)


def usable(method: PaymentMethod, *, customer: str | None) -> None:
    """Refused unless `method` may pay for `customer` (None: for a payment without a customer)."""
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
