"""Operations of hosted checkout: products, prices, sessions, payment links, and the payer's press of the button."""

import msgspec

from tillway.domain import catalog, checkout, payment_intent
from tillway.domain.account import SYSTEM, Account, Scope, scope_of
from tillway.domain.catalog import CatalogProduct, Price
from tillway.domain.checkout import Catalogue, CheckoutExpiry, CheckoutSession, PaymentLink
from tillway.domain.commands import (
    Cancel,
    CartLine,
    Confirm,
    CreateCheckout,
    CreateLink,
    CreatePrice,
    CreateProduct,
    PayCheckout,
    UpdateLink,
    UpdatePayment,
    UpdatePrice,
    UpdateProduct,
)
from tillway.domain.customer import Customer, must_exist
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.engine import checkouts
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Engine, Load
from tillway.engine.platform import Platform
from tillway.operations.payment_intents import gather
from tillway.operations.payment_methods import find_given
from tillway.store.codec import by_customer, by_parent, decode
from tillway.store.port import Row

METHODS_SHOWN_MAX = 10
"""Most stored cards of a customer that a page offers."""

_NOTHING_BEGUN = ("requires_payment_method", "requires_confirmation", "requires_action")
"""The statuses of a payment that ends with its session."""


# Products and prices.


async def create_product(platform: Platform, caller: Caller, command: CreateProduct) -> Done[CatalogProduct]:
    async def work(load: Load, at: Moment) -> Changes[CatalogProduct]:
        return catalog.create_product(command, at)

    return await platform.engine.run(caller, work)


async def update_product(platform: Platform, caller: Caller, id: str, command: UpdateProduct) -> Done[CatalogProduct]:
    async def work(load: Load, at: Moment) -> Changes[CatalogProduct]:
        if isinstance(command.default_price, str):
            price = await load.get(Price, command.default_price, "default_price")
            if price.product != id:
                raise Refused("resource_missing", "This price is of another product.", param="default_price")
        return catalog.update_product(await load.get(CatalogProduct, id), command, at)

    return await platform.engine.run(caller, work)


async def delete_product(platform: Platform, caller: Caller, id: str) -> None:
    """Delete a product without prices."""

    async def work(load: Load, at: Moment) -> Changes[CatalogProduct]:
        product = await load.get(CatalogProduct, id)
        prices = await platform.store.query("parent", by_parent(caller.scope_key, "price", id), limit=1)
        return catalog.delete_product(product, bool(prices))

    await platform.engine.run(caller, work)


async def create_price(platform: Platform, caller: Caller, command: CreatePrice) -> Done[Price]:
    async def work(load: Load, at: Moment) -> Changes[Price]:
        product = await load.get(CatalogProduct, command.product, "product") if command.product else None
        return catalog.create_price(command, product, at)

    return await platform.engine.run(caller, work)


async def update_price(platform: Platform, caller: Caller, id: str, command: UpdatePrice) -> Done[Price]:
    async def work(load: Load, at: Moment) -> Changes[Price]:
        return catalog.update_price(await load.get(Price, id), command)

    return await platform.engine.run(caller, work)


# Sessions and links, for the merchant.


async def create(platform: Platform, caller: Caller, command: CreateCheckout) -> Done[CheckoutSession]:
    """Open a session."""

    async def work(load: Load, at: Moment) -> Changes[CheckoutSession]:
        if command.customer is not None:
            must_exist(await load.get(Customer, command.customer, "customer"))
        return checkout.create(command, await _catalogue(load, command.terms.lines), at)

    return await platform.engine.run(caller, work)


async def update(
    platform: Platform, caller: Caller, id: str, metadata: dict[str, str | None] | None
) -> Done[CheckoutSession]:
    async def work(load: Load, at: Moment) -> Changes[CheckoutSession]:
        return checkout.update(await load.get(CheckoutSession, id, "session"), metadata)

    return await platform.engine.run(caller, work)


async def expire(platform: Platform, caller: Caller, id: str) -> Done[CheckoutSession]:
    """Expire an open session now. Refused `checkout_session_over`, or while its payment is at the bank."""
    mails = platform.engine.settings.mails_customers

    async def work(load: Load, at: Moment) -> Changes[CheckoutSession]:
        session = await load.get(CheckoutSession, id, "session")
        changes = await _expire_with_payment(load, session, at, mails=mails)
        if changes.result.status == "open":
            raise Refused(
                "checkout_session_over", "The payment of this session is at the bank. Ask again when it is over."
            )
        return changes

    return await platform.engine.run(caller, work)


async def carry_expiry(engine: Engine, row: Row) -> None:
    """Carry out the task that expires a session."""
    scope_key, _, id = row.key.partition("/")
    task = decode(id, row.body)
    assert isinstance(task, CheckoutExpiry), f"{row.key} is not a session's expiry"

    async def work(load: Load, at: Moment) -> Changes[CheckoutSession | None]:
        found = await load.maybe(CheckoutSession, task.session)
        if found is None or found.status != "open":
            return Changes(result=None, deletes=(id,))
        return await _expire_with_payment(load, found, at, mails=engine.settings.mails_customers)

    await engine.run(Caller.system(scope_of(scope_key), "expire a checkout session"), work)


async def _expire_with_payment(
    load: Load, session: CheckoutSession, at: Moment, *, mails: bool
) -> Changes[CheckoutSession]:
    """Expire an open session together with its payment. A payment that is at the bank is waited for."""
    link = await load.maybe(PaymentLink, session.link)
    payment = await load.maybe(PaymentIntent, session.payment)
    if session.status == "open" and payment is not None and payment.status != "canceled":
        if payment.attempt is None and payment.status in _NOTHING_BEGUN:
            cancelled = payment_intent.cancel(payment, None, Cancel(reason="abandoned"), at)
            return cancelled.then(checkout.expire(session, link))
        followed = checkout.follow(session, payment, link, at, mails=mails)
        if followed.records:
            return followed.then(
                Changes(
                    result=_session_after(followed, session),
                    records=followed.records,
                    deletes=(checkout.expiry_id(session),),
                )
            )
        return checkout.look_again(session, at)
    return checkout.expire(session, link)


def _session_after(changes: Changes[None], session: CheckoutSession) -> CheckoutSession:
    return next((record for record in changes.records if isinstance(record, CheckoutSession)), session)


async def create_link(platform: Platform, caller: Caller, command: CreateLink) -> Done[PaymentLink]:
    async def work(load: Load, at: Moment) -> Changes[PaymentLink]:
        return checkout.create_link(command, await _catalogue(load, command.terms.lines), at)

    return await platform.engine.run(caller, work)


async def update_link(platform: Platform, caller: Caller, id: str, command: UpdateLink) -> Done[PaymentLink]:
    async def work(load: Load, at: Moment) -> Changes[PaymentLink]:
        return checkout.update_link(await load.get(PaymentLink, id, "payment_link"), command, at)

    return await platform.engine.run(caller, work)


async def _catalogue(load: Load, lines: tuple[CartLine, ...]) -> Catalogue:
    """The prices and products that the lines name. Refused `resource_missing`, with the line."""
    prices: dict[str, Price] = {}
    products: dict[str, CatalogProduct] = {}
    for i, line in enumerate(lines):
        if isinstance(line.price, str):
            prices[line.price] = price = await load.get(Price, line.price, f"line_items[{i}][price]")
            products[price.product] = await load.get(CatalogProduct, price.product, f"line_items[{i}][price]")
        elif line.price.product is not None:
            param = f"line_items[{i}][price_data][product]"
            products[line.price.product] = await load.get(CatalogProduct, line.price.product, param)
    return Catalogue(prices, products)


# The payer.


async def merchant(platform: Platform, scope: Scope) -> Account | None:
    """The account that the payer pays, None where it is no more."""
    return await platform.engine.load(SYSTEM).maybe(Account, scope.account)


async def open_from(platform: Platform, scope: Scope, link: PaymentLink) -> CheckoutSession:
    """Open a session for a visitor of a payment link that is open."""

    async def work(load: Load, at: Moment) -> Changes[CheckoutSession]:
        return checkout.open_from(link, at)

    return (await platform.engine.run(Caller.system(scope, "open a payment link", actor="customer"), work)).record


async def look(platform: Platform, scope: Scope, id: str) -> tuple[CheckoutSession, PaymentIntent | None] | None:
    """The session and its payment, if it has one. A session that is behind its payment, or that is past its time, is
    brought up to date first."""
    engine, now = platform.engine, platform.engine.clock.now_ms() // 1000
    load = engine.load(scope.key)
    session = await load.maybe(CheckoutSession, id)
    if session is None:
        return None
    payment = await load.maybe(PaymentIntent, session.payment)
    mails = engine.settings.mails_customers
    link = await load.maybe(PaymentLink, session.link)
    at = engine.clock.moment()
    late = session.status == "open" and session.expires_at <= now
    behind = payment is not None and bool(checkout.follow(session, payment, link, at, mails=mails).records)
    if not late and not behind:
        return session, payment

    async def work(load: Load, at: Moment) -> Changes[CheckoutSession | None]:
        session = await load.get(CheckoutSession, id)
        payment = await load.maybe(PaymentIntent, session.payment)
        changes = await checkouts.follow(load, payment, at, mails=mails) if payment is not None else None
        if changes is not None and changes.records:
            return changes
        if session.status == "open" and session.expires_at <= at.now:
            return await _expire_with_payment(load, session, at, mails=mails)
        return Changes(result=None)

    await engine.run(Caller.system(scope, "checkout page", actor="customer"), work)
    load = engine.load(scope.key)
    session = await load.get(CheckoutSession, id)
    return session, await load.maybe(PaymentIntent, session.payment)


async def pay(
    platform: Platform, caller: Caller, id: str, command: PayCheckout, *, return_url: str, spoken: str
) -> Done[Record | None]:
    """Take the payment of a session. The first commit holds session, payment and attempt: of two presses of one form
    the second is refused `checkout_form_used`, and takes nothing. Refused also as `checkout.may_pay` says."""
    scope = caller.scope
    terms = await platform.attempts.terms(scope)

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        session = await load.get(CheckoutSession, id)
        checkout.may_pay(session, command.turn, at)
        link = await load.maybe(PaymentLink, session.link)
        payment = await load.maybe(PaymentIntent, session.payment)
        if payment is not None and payment.status == "canceled":
            payment = None
        method, made = await find_given(platform, load, command.method, command.method_data, at)
        if command.method is not None and (method is None or method.customer != session.customer):
            raise Refused("resource_missing", "No such payment method.", param="method")
        keeps = "on_session" if command.keep and session.customer is not None else None
        confirm = Confirm(acceptance=command.acceptance)
        means = await gather(load, method, made, confirm, customer=session.customer)
        if payment is None:
            wanted = checkout.payment_of(session, command.email, return_url)
            if keeps is not None and wanted.setup_future_usage is None:
                wanted = msgspec.structs.replace(wanted, setup_future_usage=keeps)
            changes = payment_intent.create(
                msgspec.structs.replace(wanted, confirm=confirm, method="given"),
                means,
                at,
                terms=terms,
                idem=caller.idem,
            )
        else:
            update = UpdatePayment(method="given", receipt_email=command.email, return_url=return_url)
            confirm = Confirm(update=update, acceptance=command.acceptance)
            changes = payment_intent.confirm(payment, confirm, means, terms, at, idem=caller.idem)
        refusal, made_payment = changes.refusal, changes.result
        noted = checkout.pressed(session, made_payment.id, command.email, command.name, spoken, link, at.now)
        both = changes.then(noted)
        return msgspec.structs.replace(both, refusal=refusal) if refusal is not None else both

    return await platform.attempts.operate(caller, work)


async def stored_cards(platform: Platform, scope: Scope, customer: str | None) -> list[PaymentMethod]:
    """The customer's cards that may be offered again, newest first: those with `allow_redisplay` `always`."""
    if customer is None:
        return []
    rows = await platform.store.query("customer", by_customer(scope.key, "pm", customer), limit=METHODS_SHOWN_MAX)
    methods = [decode(row.key.partition("/")[2], row.body) for row in rows]
    return [
        method
        for method in methods
        if isinstance(method, PaymentMethod) and method.card is not None and method.allow_redisplay == "always"
    ]
