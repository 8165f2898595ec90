"""Hosted checkout: sessions, in which one payer pays one cart, and payment links, which open a session for a visitor.

A session has at most one payment that can take money, made in the commit in which the payer first presses the button.
That commit changes the session's version and its `turn`, so that a second press of the same form finds another turn
and takes nothing.
"""

from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from tillway.domain import catalog
from tillway.domain.amount_limits import check_charge
from tillway.domain.catalog import CatalogProduct, Price
from tillway.domain.commands import CartLine, CheckoutTerms, CreateCheckout, CreateLink, CreatePayment, UpdateLink
from tillway.domain.mail import EmailTask
from tillway.domain.method_types import METHOD_TYPES
from tillway.domain.money import spell
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.record import Changes, EventDraft, Moment, Record, Value, changed, merged_metadata
from tillway.domain.refusal import Refused
from tillway.domain.source_api import SourceApi

LIFETIME_SECONDS = 24 * 3600
LIFETIME_MIN_SECONDS = 30 * 60
"""How long a session is open unless it says so itself, and how long at least
(https://docs.stripe.com/api/checkout/sessions/create, `expires_at`)."""

TURNS_MAX = 20
"""How often the button of a session takes effect. A payer who knows a card needs fewer, one who guesses needs more."""

LINES_MAX = 100

AGAIN_MS = 60_000
"""How long an expired session waits for a payment that is under way before it looks again."""

_COMPLETED = "checkout.session.completed"


class LineItem(Value, frozen=True, kw_only=True):
    """One line of a cart, with its price as it was when the line was made. `amount_minor` is of the whole line."""

    id: str
    description: str
    price: Price
    quantity: int
    amount_minor: int
    detail: str | None = None


class CheckoutSession(Record, frozen=True, kw_only=True):
    """`turn` counts the presses of the button. `email` and `name` are the payer's. `payment_data` has fields for the
    payment to come, `link` is the payment link that opened the session."""

    currency: str
    amount_minor: int
    expires_at: int
    lines: tuple[LineItem, ...] = ()
    status: Literal["open", "complete", "expired"] = "open"
    payment_status: Literal["unpaid", "paid"] = "unpaid"
    payment: str | None = None
    turn: int = 0
    cancel_url: str | None = None
    client_reference_id: str | None = None
    customer: str | None = None
    customer_email: str | None = None
    email: str | None = None
    link: str | None = None
    locale: str | None = None
    metadata: dict[str, str] = {}
    method_options: dict[str, Any] = {}
    method_types: tuple[str, ...] = ("card",)
    name: str | None = None
    payment_data: dict[str, Any] = {}
    spoken: str = "en"
    """The language of the page that the payer paid on, for the receipt."""
    submit_type: str | None = None
    success_url: str | None = None


class CheckoutExpiry(Record, frozen=True, kw_only=True):
    """A task: expire `session` unless it is complete by then."""

    session: str
    due_at_ms: int


class PaymentLink(Record, frozen=True, kw_only=True):
    """An address that opens a session for each visitor until `expires_at`. `completed` counts the sessions that were
    paid; those that are paying now are in `paying`, where there is a `limit`, so that no more than that can ever
    complete."""

    currency: str
    lines: tuple[LineItem, ...] = ()
    active: bool = True
    completed: int = 0
    expires_at: int | None = None
    inactive_message: str | None = None
    limit: int | None = None
    message: str | None = None
    metadata: dict[str, str] = {}
    method_options: dict[str, Any] = {}
    method_types: tuple[str, ...] = ("card",)
    payment_data: dict[str, Any] = {}
    paying: tuple[str, ...] = ()
    submit_type: str | None = None
    success_url: str | None = None

    def status(self, now: int) -> Literal["open", "held", "closed", "expired"]:
        """Held: sessions that are paying hold every place that is left. Expired: it would still be open, were its time
        not over."""
        if not self.is_closed(now):
            return "open" if self.is_open(now) else "held"
        used_up = self.limit is not None and self.completed >= self.limit
        return "expired" if self.active and not used_up else "closed"

    def has_expired(self, now: int) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now

    def is_open(self, now: int) -> bool:
        """Whether a new session may begin to pay."""
        return not self.is_closed(now) and (self.limit is None or self.completed + len(self.paying) < self.limit)

    def is_closed(self, now: int) -> bool:
        """Whether it can never be paid again, unless the merchant changes it."""
        used_up = self.limit is not None and self.completed >= self.limit
        return not self.active or used_up or self.has_expired(now)


class Catalogue(msgspec.Struct, frozen=True):
    """The prices and products that the lines of a cart name, by id."""

    prices: dict[str, Price]
    products: dict[str, CatalogProduct]


# Sessions.


def create(command: CreateCheckout, catalogue: Catalogue, at: Moment) -> Changes[CheckoutSession]:
    """Open a session. Its expiry is a task."""
    if command.customer is None and _takes_credit(command.terms):
        raise Refused("parameter_missing", "Stored credit is a customer's: send `customer`.", param="customer")
    made, lines = _lines(command.terms.lines, catalogue, at)
    if command.currency not in (None, lines[0].price.currency):
        raise Refused("parameter_invalid_string", "The line items are in another currency.", param="currency")
    expires_at = command.expires_at if command.expires_at is not None else at.now + LIFETIME_SECONDS
    if not at.now + LIFETIME_MIN_SECONDS - 60 <= expires_at <= at.now + LIFETIME_SECONDS + 60:
        raise Refused(
            "parameter_invalid_integer",
            "The `expires_at` timestamp must be at least 30 minutes and at most 24 hours from now.",
            param="expires_at",
        )
    session = CheckoutSession(
        id=at.new_id("cs"),
        created=at.created,
        expires_at=expires_at,
        cancel_url=command.cancel_url,
        client_reference_id=command.client_reference_id,
        customer=command.customer,
        customer_email=command.customer_email,
        locale=command.locale,
        success_url=command.success_url,
        **_terms(command.terms, lines),
    )
    return made.then(Changes(result=session, records=(session,), tasks=(_expiry(session, at),)))


def open_from(link: PaymentLink, at: Moment) -> Changes[CheckoutSession]:
    """Open a session for a visitor of `link`. It does not outlive the link."""
    lifetime_end = at.now + LIFETIME_SECONDS
    session = CheckoutSession(
        id=at.new_id("cs"),
        created=at.created,
        expires_at=lifetime_end if link.expires_at is None else min(lifetime_end, link.expires_at),
        currency=link.currency,
        amount_minor=sum(line.amount_minor for line in link.lines),
        lines=link.lines,
        link=link.id,
        metadata=link.metadata,
        method_options=link.method_options,
        method_types=link.method_types,
        payment_data=link.payment_data,
        submit_type=link.submit_type,
        success_url=link.success_url,
    )
    return Changes(result=session, records=(session,), tasks=(_expiry(session, at),))


def update(session: CheckoutSession, metadata: dict[str, str | None] | None) -> Changes[CheckoutSession]:
    after = changed(session, {"metadata": metadata})
    return Changes(result=after, records=(after,) if after != session else ())


def may_pay(session: CheckoutSession, turn: int, at: Moment) -> None:
    """Refuse a press of the button that takes nothing: of an earlier form, of a session that is over or expired."""
    if session.status != "open" or session.expires_at <= at.now:
        raise Refused("checkout_session_over", param="session")
    if turn != session.turn:
        raise Refused("checkout_form_used", param="turn")
    if session.turn >= TURNS_MAX:
        raise Refused("rate_limit", "Too many cards were tried in this session.")


def check_payable(session: CheckoutSession, method: PaymentMethod, expected_minor: int | None) -> None:
    """Refuse a saved payment method that the session does not take, and an expected amount that is not the session's.
    `expected_minor` is None where the caller expects none."""
    if expected_minor is not None and expected_minor != session.amount_minor:
        raise Refused(
            "parameter_invalid_integer",
            f"The session is about {spell(session.amount_minor, session.currency)}, not "
            f"{spell(expected_minor, session.currency)}.",
            param="expected_amount",
        )
    if method.type not in session.method_types:
        raise Refused(
            "parameter_invalid_string",
            f"This session takes {', '.join(session.method_types)}; the payment method is of the type {method.type}.",
            param="payment_method",
        )
    if method.customer != session.customer:
        raise Refused(
            "resource_missing",
            f"No such PaymentMethod: '{method.id}' of the session's customer, or of none where it has none.",
            param="payment_method",
        )


def payment_of(session: CheckoutSession, email: str, return_url: str) -> CreatePayment:
    """The payment to make for a session."""
    return CreatePayment(
        amount_minor=session.amount_minor,
        currency=session.currency,
        source_api=SourceApi.v1,
        **{
            "customer": session.customer,
            "method_types": session.method_types,
            "method_options": session.method_options,
            "receipt_email": email,
            **session.payment_data,
            "return_url": return_url,
            "checkout": session.id,
        },
    )


def pressed(
    session: CheckoutSession,
    payment: str,
    email: str,
    name: str | None,
    spoken: str,
    link: PaymentLink | None,
    now: int,
) -> Changes[None]:
    """Note that the payer pressed the button: a session of a link with a limit takes one of its places."""
    after = replace(session, payment=payment, turn=session.turn + 1, email=email, name=name, spoken=spoken)
    if link is None or session.id in link.paying:
        return Changes(result=None, records=(after,))
    if not link.is_open(now):
        held = "Payments that are not finished hold every place that is left. Try again later."
        raise Refused("payment_link_closed", held if link.status(now) == "held" else "", param="payment_link")
    if link.limit is None:
        return Changes(result=None, records=(after,))
    return Changes(result=None, records=(after, replace(link, paying=(*link.paying, session.id))))


def follow(
    session: CheckoutSession, payment: PaymentIntent, link: PaymentLink | None, at: Moment, *, mails: bool
) -> Changes[None]:
    """The changes of a session and its link after its payment has changed. `mails`: send a receipt once it is paid."""
    if session.payment != payment.id:
        return Changes(result=None)
    after, happened = session, ""
    paid = payment.status == "succeeded"
    if session.status != "complete" and (paid or payment.status == "requires_capture" or _is_debiting(payment)):
        after = replace(session, status="complete", payment_status="paid" if paid else "unpaid")
        happened = _COMPLETED
    elif session.status == "complete" and session.payment_status == "unpaid" and paid:
        after = replace(session, payment_status="paid")
        happened = "checkout.session.async_payment_succeeded" if payment.captures_at_once else ""
    elif session.status == "complete" and payment.status in ("requires_payment_method", "canceled"):
        lost = session.payment_status == "unpaid" and _last_declined(payment)
        happened = "checkout.session.async_payment_failed" if lost else ""
    records: tuple[Record, ...] = (after,) if after != session else ()
    if link is not None and link.limit is not None:
        records = (*records, *_places(link, session, payment, completes=happened == _COMPLETED))
    elif link is not None and happened == _COMPLETED:
        records = (*records, replace(link, completed=link.completed + 1))
    tasks: tuple[Record, ...] = ()
    if mails and after.payment_status == "paid" != session.payment_status and after.email is not None:
        tasks = (
            EmailTask(
                id=at.new_id("eml"), created=at.created, about="receipt", session=session.id, due_at_ms=at.now_ms
            ),
        )
    events = (EventDraft(type=happened, record=after),) if happened else ()
    return Changes(result=None, records=records, tasks=tasks, events=events)


def _is_debiting(payment: PaymentIntent) -> bool:
    return payment.status == "processing" and payment.debiting


def _last_declined(payment: PaymentIntent) -> bool:
    return payment.last_error is not None and payment.captures_at_once


def _places(
    link: PaymentLink, session: CheckoutSession, payment: PaymentIntent, *, completes: bool
) -> tuple[PaymentLink, ...]:
    """The link after one of its sessions completed, or gave its place back because its payment was declined."""
    without = tuple(id for id in link.paying if id != session.id)
    if completes:
        return (replace(link, paying=without, completed=link.completed + 1),)
    if payment.status in ("requires_payment_method", "canceled") and without != link.paying:
        return (replace(link, paying=without),)
    return ()


def expire(session: CheckoutSession, link: PaymentLink | None) -> Changes[CheckoutSession]:
    """End an open session that has taken nothing. The payment that it may have is cancelled beside this."""
    if session.status != "open":
        raise Refused(
            "checkout_session_over",
            f'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session\'s status is '
            f"{session.status}.",
            param="session",
        )
    after = replace(session, status="expired")
    records: tuple[Record, ...] = (after,)
    if link is not None and session.id in link.paying:
        records = (after, replace(link, paying=tuple(id for id in link.paying if id != session.id)))
    event = EventDraft(type="checkout.session.expired", record=after)
    return Changes(result=after, records=records, deletes=(expiry_id(session),), events=(event,))


def look_again(session: CheckoutSession, at: Moment) -> Changes[CheckoutSession]:
    """Leave an expired session open a little longer: its payment is at the bank."""
    task = CheckoutExpiry(id=expiry_id(session), created=at.created, session=session.id, due_at_ms=at.now_ms + AGAIN_MS)
    return Changes(result=session, tasks=(task,))


def expiry_id(session: CheckoutSession) -> str:
    return f"cse_{session.id.partition('_')[2]}"


def _expiry(session: CheckoutSession, at: Moment) -> CheckoutExpiry:
    return CheckoutExpiry(
        id=expiry_id(session), created=at.created, session=session.id, due_at_ms=session.expires_at * 1000
    )


# Payment links.


def create_link(command: CreateLink, catalogue: Catalogue, at: Moment) -> Changes[PaymentLink]:
    if _takes_credit(command.terms):
        raise Refused(
            "parameter_unsupported",
            "Stored credit is one customer's; a link is for anyone.",
            param="payment_method_types",
        )
    _check_end(command.expires_at, at)
    made, lines = _lines(command.terms.lines, catalogue, at)
    terms = _terms(command.terms, lines)
    terms.pop("amount_minor")
    link = PaymentLink(
        id=at.new_id("plink"),
        created=at.created,
        expires_at=command.expires_at,
        inactive_message=command.inactive_message,
        limit=command.limit,
        message=command.message,
        success_url=command.success_url,
        **terms,
    )
    event = EventDraft(type="payment_link.created", record=link)
    return made.then(Changes(result=link, records=(link,), events=(event,)))


def update_link(link: PaymentLink, command: UpdateLink, at: Moment) -> Changes[PaymentLink]:
    after = changed(link, command.given())
    if after == link:
        return Changes(result=link)
    if after.expires_at != link.expires_at:
        _check_end(after.expires_at, at)
    event = EventDraft(type="payment_link.updated", record=after, previous=link)
    return Changes(result=after, records=(after,), events=(event,))


def _check_end(expires_at: int | None, at: Moment) -> None:
    """Refuse an end of a link that is over: `active` closes a link now."""
    if expires_at is not None and expires_at <= at.now:
        raise Refused(
            "parameter_invalid_integer",
            "The `expires_at` timestamp must be in the future. To close a payment link now, send `active=false`.",
            param="expires_at",
        )


# Carts.


def _takes_credit(terms: CheckoutTerms) -> bool:
    return any(METHOD_TYPES[name].performed_by == "platform" for name in terms.method_types)


def _terms(terms: CheckoutTerms, lines: tuple[LineItem, ...]) -> dict[str, Any]:
    """The fields of a session or link that its terms give."""
    currency, total = lines[0].price.currency, sum(line.amount_minor for line in lines)
    check_charge(total, currency)
    return {
        "currency": currency,
        "amount_minor": total,
        "lines": lines,
        "metadata": merged_metadata({}, terms.metadata),
        "method_options": terms.method_options,
        "method_types": terms.method_types,
        "payment_data": terms.payment,
        "submit_type": terms.submit_type,
    }


def _lines(
    wanted: tuple[CartLine, ...], catalogue: Catalogue, at: Moment
) -> tuple[Changes[None], tuple[LineItem, ...]]:
    """The lines of a cart, and the changes that make their new prices and products."""
    made, lines = Changes[None](result=None), []
    for i, line in enumerate(wanted):
        if isinstance(line.price, str):
            price = catalogue.prices[line.price]
            product = catalogue.products[price.product]
            if not price.active:
                raise Refused(
                    "parameter_invalid_string",
                    f"The price {price.id} is inactive. Use an active one.",
                    param=f"line_items[{i}][price]",
                )
        else:
            named = catalogue.products.get(line.price.product or "")
            created = catalog.create_price(line.price, named, at)
            price = created.result
            product = named or next(record for record in created.records if isinstance(record, CatalogProduct))
            made = made.then(Changes(result=None, records=created.records, events=created.events))
        lines.append(
            LineItem(
                id=at.new_id("li"),
                description=product.name,
                detail=product.description,
                price=price,
                quantity=line.quantity,
                amount_minor=price.unit_amount_minor * line.quantity,
            )
        )
    currencies = {line.price.currency for line in lines}
    if len(currencies) > 1:
        raise Refused(
            "parameter_invalid_string",
            f"All line items must have the same currency, and these have {', '.join(sorted(currencies))}.",
            param="line_items",
        )
    return made, tuple(lines)
