"""Disbursements: find the merchant's customer, and make a payout to them, which the runner sends."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from tillway.domain import customer as domain
from tillway.domain import payout
from tillway.domain.alias import Alias, alias_id, new_alias
from tillway.domain.amount_limits import check_steps
from tillway.domain.commands import CreatePayout, CustomerFields
from tillway.domain.customer import Customer
from tillway.domain.disbursement import NamedCustomer, check_taken, payment_id, recipient_of
from tillway.domain.payout import Payout
from tillway.domain.record import Changes, Moment
from tillway.domain.refusal import Refused
from tillway.engine.attempts import Connection
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations import customers
from tillway.operations.payouts import check_can_pay_out
from tillway.store.codec import by_customer, decode

LATER_MAX = 1000
"""Most disbursements to one customer in one millisecond: each is named a millisecond later than the previous one."""


async def create_customer(platform: Platform, caller: Caller, name: str, email: str) -> Done[NamedCustomer]:
    """Find the customer with the merchant's own id `name`, or make it; a repeat finds the same.

    Refused if the customer has another e-mail address: money goes to that address, so a repeated call must not change
    it. `POST /v1/customers/{id}` changes it.
    """

    async def work(load: Load, at: Moment) -> Changes[NamedCustomer]:
        changes = await customers.find_or_create(load, caller, name, at, email)
        customer = changes.result
        check_taken(name, customer, email)
        if customer.email is None:
            # A customer made through another API, with an order for instance, gets the address here.
            changes = domain.update(customer, CustomerFields(email=email))
            customer = changes.result
        return changes.then(Changes(result=NamedCustomer.of(name, customer)))

    return await platform.engine.run(caller, work)


async def find_customer(load: Load, name: str) -> Customer:
    """The customer with the merchant's own id `name`. Refused if there is none or it was deleted."""
    found = await customers.known_as(load, name)
    if found is None:
        raise Refused("resource_missing", f"No such customer: '{name[:100]}'", param="customer_id")
    return found


async def create(
    platform: Platform, caller: Caller, *, name: str, email: str, amount_minor: int, currency: str
) -> Done[Payout]:
    """Accept a disbursement in one commit, without a provider; the runner sends it. The result is the payout."""
    connection = await _connection(platform, caller)

    async def work(load: Load, at: Moment) -> Changes[Payout]:
        customer = await find_customer(load, name)
        recipient = recipient_of(customer, email)
        check_can_pay_out(connection, recipient.type)
        check_steps(connection.connector.capabilities.steps, connection.name, amount_minor, currency)
        alias = await _instant(load, customer, at)
        command = CreatePayout(
            amount_minor=amount_minor,
            currency=currency,
            source_api=caller.source_api,
            funding="provider",
            customer=customer.id,
            metadata={"customer_id": name, "payment_id": alias},
            payment_id=alias,
        )
        changes = payout.create(
            command,
            at,
            recipient=recipient,
            destination=None,
            connector=connection.name,
            available_minor=0,
            reachable_minor=0,
            guard=None,
            delay_ms=0,
        )
        taken = new_alias(_kind(customer), alias, changes.result.id, at)
        return changes.then(Changes(result=None, records=(taken,)))

    return await platform.engine.run(caller, work)


async def _connection(platform: Platform, caller: Caller) -> Connection:
    """The connector of disbursements: that of the setting, or the mode's default."""
    chosen = platform.engine.settings.disbursement_connector
    if not chosen:
        connection: Connection | None = await platform.connections.default(caller.scope)
    else:
        connection = await platform.connections.named(chosen, caller.scope)
    if connection is None:
        raise Refused(
            "connector_unsupported",
            f"Disbursements go through the connector {chosen!r}, and there is none of that name in "
            f"{caller.scope.mode} mode. Add it with `tillway connectors add`.",
        )
    return connection


async def _instant(load: Load, customer: Customer, at: Moment) -> str:
    """The instant that names this disbursement: now, or the first later one that is free for this customer."""
    for later in range(LATER_MAX):
        name = payment_id(at.now_ms + later)
        if await load.maybe(Alias, alias_id(_kind(customer), name)) is None:
            return name
    raise Refused("lock_timeout")


def _kind(customer: Customer) -> str:
    return f"disbursement of {customer.id}"


async def list_of(load: Load, customer: Customer, *, after: str | None, limit: int) -> list[Payout]:
    """Up to `limit` disbursements to the customer, oldest first, after the one named `after`."""
    cursor = None
    if after is not None:
        alias = await load.maybe(Alias, alias_id(_kind(customer), after))
        if alias is None:
            raise Refused("resource_missing", f"No such disbursement: '{after[:100]}'", param="starting_after")
        cursor = f"{load.scope_key}/{alias.target}"
    found: list[Payout] = []
    while len(found) < limit:
        rows = await load.store.query(
            "customer",
            by_customer(load.scope_key, "po", customer.id),
            after=cursor,
            limit=min(limit, 200),
            order="oldest",
        )
        for row in rows:
            record = decode(row.key.partition("/")[2], row.body)
            if isinstance(record, Payout) and record.payment_id is not None:
                found.append(record)
        if len(rows) < min(limit, 200):
            break
        cursor = rows[-1].key
    return found[:limit]
