"""Customers and their means of payment: cards of the older API (`sources`) and payment methods.

Every change of a customer's methods also writes the customer. So a customer's default never points at a deleted card,
and no method is attached while its customer is being deleted.
"""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from tillway.domain import customer as domain
from tillway.domain import payment_method
from tillway.domain.account import scope_of
from tillway.domain.alias import Alias, alias_id, new_alias
from tillway.domain.commands import AddSource, CreateCustomer, CustomerFields, UpdateCustomer, UpdateSource
from tillway.domain.customer import Customer, must_exist
from tillway.domain.payment_method import CardExpiry, PaymentMethod, Token, as_source, attach, holder, new_method
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record, merged_metadata
from tillway.domain.refusal import Refused
from tillway.domain.test_clock import TestClock, join
from tillway.engine.caller import Caller
from tillway.engine.card_vault import postal
from tillway.engine.core import Done, Engine, Load
from tillway.engine.platform import Platform
from tillway.operations.payment_methods import find_existing, redeem_token
from tillway.store.codec import by_customer, decode
from tillway.store.port import Row, prefix_end

R = TypeVar("R", bound=Record)

METHODS_PER_COMMIT = 4
"""Each deleted method needs up to 19 writes: itself, its card, its security code, and a delivery of its event to each
of 16 webhook endpoints. Four of them, the customer's own 17, the key's record and the audit trail's entry are 95 of a
commit's 100."""

DELETE_ROUNDS_MAX = 1000
"""Commits of one deletion; the next request continues the rest."""


async def existing(load: Load, id: str, param: str = "id") -> Customer:
    """The customer of that id. A deleted one is refused like an unknown one."""
    customer = await load.get(Customer, id, param)
    must_exist(customer, param)
    return customer


async def known_as(load: Load, name: str) -> Customer | None:
    """The customer with the merchant's own id `name`; None if there is none or it was deleted."""
    alias = await load.maybe(Alias, alias_id("customer", name))
    known = await load.maybe(Customer, alias.target) if alias is not None else None
    return known if known is not None and not known.deleted else None


async def find_or_create(
    load: Load, caller: Caller, name: str, at: Moment, email: str | None = None
) -> Changes[Customer]:
    """Find the customer with the merchant's own id `name`; if there is none, make one with that `email`."""
    known = await known_as(load, name)
    if known is not None:
        return Changes(result=known)
    fields = CustomerFields(email=email, metadata={"customer_id": name})
    created = domain.create(fields, at, source_api=caller.source_api)
    found = new_alias("customer", name, created.result.id, at)
    return created.then(Changes(result=None, records=(found,)))


async def create(platform: Platform, caller: Caller, command: CreateCustomer) -> Done[Customer | PaymentMethod]:
    """Create a customer with the given payment method or card attached. If the card is declined, no customer is
    made."""

    async def work(load: Load, at: Moment) -> Changes[Customer | PaymentMethod]:
        fields = command.fields
        given: list[PaymentMethod] = []
        made = NO_CHANGES
        if command.payment_method is not None:
            method, new = await find_existing(platform, load, command.payment_method, at, param="payment_method")
            given.append(method)
            made = made.then(new)
            if fields.default_method == command.payment_method:
                settings = {**(fields.invoice_settings or {}), "default_payment_method": method.id}
                fields = msgspec.structs.replace(fields, invoice_settings=settings)
        if command.source is not None:
            method, new = await _source(platform, load, command.source, at)
            given.append(method)
            made = made.then(new)
            fields = msgspec.structs.replace(fields, default_source=method.id)
        wanted = fields.default_method
        if wanted is not None and wanted not in (method.id for method in given):
            raise await _not_theirs(load, wanted)
        created = domain.create(fields, at, source_api=command.source_api)
        if command.test_clock is not None:
            clock = await load.get(TestClock, command.test_clock, "test_clock", "test clock")
            created = join(clock, created.result)
        customer = created.result
        changes: Changes[Customer | PaymentMethod] = made.then(created)
        for method in given:
            attached = attach(method, customer)
            if attached.refusal is not None:
                return attached
            changes = changes.then(attached)
        return _with_result(changes, customer)

    return await platform.engine.run(caller, work)


async def update(
    platform: Platform, caller: Caller, id: str, command: UpdateCustomer
) -> Done[Customer | PaymentMethod]:
    """Change a customer. A new `source` becomes the default in place of the old one, which is removed."""

    async def work(load: Load, at: Moment) -> Changes[Customer | PaymentMethod]:
        customer = await existing(load, id)
        fields = command.fields
        wanted = fields.default_method
        if wanted is not None:
            method = await load.maybe(PaymentMethod, wanted)
            if method is None or method.customer != id:
                raise await _not_theirs(load, wanted)
        if fields.default_source:
            await source_of(load, customer, fields.default_source, "default_source")
        changes: Changes[PaymentMethod | None] = NO_CHANGES
        if command.source is not None:
            method, made = await _source(platform, load, command.source, at)
            attached = attach(method, customer)
            if attached.refusal is not None:
                return attached
            changes = made.then(attached)
            replaced = await load.maybe(PaymentMethod, customer.default_source)
            if replaced is not None and replaced.customer == id:
                changes = changes.then(payment_method.detach(replaced))
            fields = msgspec.structs.replace(fields, default_source=method.id)
        return changes.then(domain.update(customer, fields))

    return await platform.engine.run(caller, work)


async def _not_theirs(load: Load, method: str) -> Refused:
    """The reason why `method` cannot be a customer's default: it does not exist, or is not attached to the customer."""
    param = "invoice_settings[default_payment_method]"
    await load.get(PaymentMethod, method, param)
    return Refused(
        "resource_missing",
        f"The customer does not have a payment method with the ID {method}. The payment method must be attached to the "
        "customer.",
        param=param,
    )


async def delete(platform: Platform, caller: Caller, id: str) -> Done[Customer]:
    """Remove a customer with all payment methods and their sealed cards.

    Each commit removes a few methods, the last one also the customer: after an interruption the customer has fewer
    methods, and a repeat finishes the deletion.
    """

    async def work(load: Load, at: Moment) -> Changes[Customer]:
        customer = await existing(load, id)
        domain.must_have_no_credit(customer)
        partition = by_customer(load.scope_key, "pm", id)
        rows = await load.store.query("customer", partition, limit=METHODS_PER_COMMIT + 1)
        changes: Changes[PaymentMethod | None] = NO_CHANGES
        for row in rows[:METHODS_PER_COMMIT]:
            method = await load.maybe(PaymentMethod, row.key.partition("/")[2])
            if method is not None and method.customer == id:
                changes = changes.then(payment_method.detach(method))
        if len(rows) <= METHODS_PER_COMMIT:
            return changes.then(domain.delete(customer))
        bare = msgspec.structs.replace(customer, default_source=None, invoice_settings={})
        return changes.then(Changes(result=bare, records=(bare,)))

    for _ in range(DELETE_ROUNDS_MAX):
        done = await platform.engine.run(caller, work)
        if isinstance(done.record, Customer) and done.record.deleted:
            return done
    raise Refused("busy", "This customer has very many payment methods. Send the request again to delete the rest.")


# Cards of the older API.


async def add_source(platform: Platform, caller: Caller, id: str, command: AddSource) -> Done[PaymentMethod]:
    """Attach a token's card or a Source; it becomes the default if there is none. The caller is shown it."""

    async def work(load: Load, at: Moment) -> Changes[PaymentMethod]:
        customer = await existing(load, id)
        method, made = await _source(platform, load, command.source, at)
        if command.metadata:
            method = msgspec.structs.replace(method, metadata=merged_metadata({}, command.metadata))
        attached = attach(method, customer)
        if attached.refusal is not None:
            return attached
        after = attached.result
        changes: Changes[Record | None] = made.then(attached)
        if customer.default_source is None:
            changes = changes.then(domain.update(customer, CustomerFields(default_source=after.id)))
        return _with_result(changes, as_source(after))

    return await platform.engine.run(caller, work)


async def update_source(
    platform: Platform, caller: Caller, customer: str, id: str, command: UpdateSource
) -> Done[PaymentMethod]:
    async def work(load: Load, at: Moment) -> Changes[PaymentMethod]:
        method = await source_of(load, await existing(load, customer), id)
        changes = payment_method.update_source(method, command, at.now)
        return _with_result(changes, as_source(changes.result))

    return await platform.engine.run(caller, work)


async def delete_source(platform: Platform, caller: Caller, customer: str, id: str) -> Done[PaymentMethod]:
    """Remove a card; if it was the default, the most recent of the others becomes the default."""

    async def work(load: Load, at: Moment) -> Changes[PaymentMethod]:
        changes = await _release(load, await source_of(load, await existing(load, customer), id))
        return _with_result(changes, as_source(changes.result))

    return await platform.engine.run(caller, work)


async def source_of(load: Load, customer: Customer, id: str, param: str = "id") -> PaymentMethod:
    """The customer's card or Source of that id. Refused if there is none, as for another
    customer's."""
    method = await load.maybe(PaymentMethod, id)
    if method is None or not method.is_source or method.customer != customer.id:
        raise Refused("resource_missing", f"No such source: '{id[:100]}'", param=param)
    return method


async def sources_of(load: Load, customer: str, limit: int) -> list[PaymentMethod]:
    """The newest `limit` (at most 100) cards and Sources of a customer, from the store or from the writes that `load`
    knows."""
    rows: list[Row] = []
    for head in (f"{load.scope_key}/card_", f"{load.scope_key}/src_"):
        rows += await load.store.query(
            "customer",
            by_customer(load.scope_key, "pm", customer),
            after=prefix_end(head),
            until=head,
            limit=limit + min(len(load.seen), 100),
        )
    found = {row.key.partition("/")[2]: decode(row.key.partition("/")[2], row.body) for row in rows}
    for id, (_, record) in load.seen.items():
        if isinstance(record, PaymentMethod) and record.is_source:
            found[id] = record
    theirs = [record for record in found.values() if isinstance(record, PaymentMethod) and record.customer == customer]
    return sorted(theirs, key=lambda method: (method.created, method.id), reverse=True)[:limit]


async def _source(
    platform: Platform, load: Load, given: str | dict[str, Any], at: Moment
) -> tuple[PaymentMethod, Changes[None]]:
    """The card behind a token, a test token, raw card data or a Source, and the writes that make it."""
    if isinstance(given, dict):
        address = postal(given)
        facts, sealed = platform.cards.take_in(load.scope_key, given, address, at, param="source")
        method = new_method(facts, {"billing_details": holder(given.get("name"), address)}, at, prefix="card")
        return method, Changes(result=None, records=(method, *sealed))
    if given.startswith("src_"):
        return await load.get(PaymentMethod, given, "source", "source"), NO_CHANGES
    if not given.startswith("tok_"):
        remedy = ""
        if given.startswith("pm_"):
            remedy = f" A payment method is attached with POST /v1/payment_methods/{given[:100]}/attach."
        raise Refused("resource_missing", f"No such token: '{given[:100]}'.{remedy}", param="source")
    facts_of_alias = platform.cards.of_alias(load.scope_key, given, at)
    if facts_of_alias is not None:
        method = new_method(facts_of_alias, {}, at, prefix="card")
        return method, Changes(result=None, records=(method,))
    return await redeem_token(load, await load.get(Token, given, "source", "token"), at)


async def carry_expiry(engine: Engine, row: Row) -> None:
    """Carry out the task of a card that will expire."""
    scope_key, _, id = row.key.partition("/")

    async def work(load: Load, at: Moment) -> Changes[None]:
        task = await load.maybe(CardExpiry, id)
        if task is None or task.due_at_ms > at.now_ms:
            return NO_CHANGES
        return payment_method.expire(await load.maybe(PaymentMethod, task.method), task, at)

    await engine.run(Caller.system(scope_of(scope_key), "tell of an expiring card"), work)


async def tell_expiring(engine: Engine, caller: Caller, method: PaymentMethod) -> None:
    """Carry out the task of a card whose last month begins by a test clock, unless it was done."""

    async def work(load: Load, at: Moment) -> Changes[None]:
        task = await load.maybe(CardExpiry, payment_method.expiry_id(method.id))
        if task is None:
            return NO_CHANGES
        return payment_method.expire(await load.maybe(PaymentMethod, method.id), task, at, early=True)

    await engine.run(caller, work)


# Payment methods.


async def attach_method(platform: Platform, caller: Caller, id: str, customer: str) -> Done[PaymentMethod]:
    """Attach a payment method, or a new one of a public test card. If the card is declined, no method is made."""

    async def work(load: Load, at: Moment) -> Changes[PaymentMethod]:
        owner = await existing(load, customer, "customer")
        method, made = await find_existing(platform, load, id, at, param="payment_method")
        attached = attach(method, owner)
        return attached if attached.refusal is not None else made.then(attached)

    return await platform.engine.run(caller, work)


async def detach_method(platform: Platform, caller: Caller, id: str) -> Done[PaymentMethod]:
    async def work(load: Load, at: Moment) -> Changes[PaymentMethod]:
        return await _release(load, await load.get(PaymentMethod, id, "payment_method"))

    return await platform.engine.run(caller, work)


async def method_of(load: Load, customer: str, id: str) -> PaymentMethod:
    """The customer's payment method of that id. Refused if there is none, or it is another customer's."""
    await existing(load, customer, "customer")
    method = await load.get(PaymentMethod, id, "payment_method")
    if method.customer != customer:
        raise Refused("resource_missing", f"No such PaymentMethod: '{id[:100]}'", param="payment_method")
    return method


async def _release(load: Load, method: PaymentMethod) -> Changes[PaymentMethod]:
    """Detach a method, and update its customer."""
    detached = payment_method.detach(method)
    customer = await load.maybe(Customer, method.customer)
    if customer is None or customer.deleted:
        return detached
    others = []
    if customer.default_source == method.id:
        others = [other for other in await sources_of(load, customer.id, 2) if other.id != method.id]
    lost = domain.lose_method(customer, method.id, next_source=others[0].id if others else None)
    return _with_result(detached.then(lost), detached.result)


def _with_result(changes: Changes[Record | None], record: R) -> Changes[R]:
    """The same changes, with `record` as their result."""
    return changes.then(Changes(result=record))
