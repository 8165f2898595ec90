"""Stored credit: what a merchant gives and takes back."""

from typing import Any

from tillway.domain import stored_credit
from tillway.domain.customer import Customer
from tillway.domain.record import Changes, Moment
from tillway.domain.refusal import Refused
from tillway.domain.stored_credit import CustomerBalanceTransaction
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations.customers import existing


async def adjust(
    platform: Platform,
    caller: Caller,
    customer_id: str,
    amount_minor: int,
    currency: str,
    *,
    description: str | None = None,
    metadata: dict[str, str | None] | None = None,
) -> Done[CustomerBalanceTransaction]:
    """Move a customer's credit by `amount_minor`: a negative amount gives credit, a positive one takes it back.

    The caller is shown the movement. Refused as `domain/stored_credit.py` says.
    """

    async def work(load: Load, at: Moment) -> Changes[CustomerBalanceTransaction]:
        customer = await existing(load, customer_id, "customer")
        fields: dict[str, Any] = {"description": description, "metadata": metadata or {}}
        return stored_credit.adjust(customer, amount_minor, currency, fields, at)

    return await platform.engine.run(caller, work)


async def set_to(
    platform: Platform,
    caller: Caller,
    customer_id: str,
    credit_minor: int,
    currency: str,
    *,
    description: str | None = None,
) -> Done[Customer]:
    """Bring a customer's credit to `credit_minor`, by one adjustment where it is not there already.

    The caller is shown the customer. Refused as `domain/stored_credit.py` says.
    """

    async def work(load: Load, at: Moment) -> Changes[Customer]:
        customer = await existing(load, customer_id, "customer")
        return set_in(customer, credit_minor, currency, at, description=description)

    return await platform.engine.run(caller, work)


def set_in(
    customer: Customer, credit_minor: int, currency: str, at: Moment, *, description: str | None = None
) -> Changes[Customer]:
    """The changes of `set_to`, for a commit that does more than that. The result is the customer."""
    stored_credit.check_currency_of(customer, currency)
    amount_minor = -credit_minor - customer.balance_minor
    if amount_minor == 0:
        return Changes(result=customer)
    changes = stored_credit.adjust(customer, amount_minor, currency, {"description": description}, at)
    after = next(record for record in changes.records if isinstance(record, Customer))
    return changes.then(Changes(result=after))


async def movement(load: Load, customer: str, id: str) -> CustomerBalanceTransaction:
    """A movement of that customer's credit. Refused where there is none, in the same words for another customer's."""
    await existing(load, customer, "customer")
    found = await load.maybe(CustomerBalanceTransaction, id)
    if found is None or found.customer != customer:
        raise Refused("resource_missing", f"No such customer balance transaction: '{id[:100]}'", param="id")
    return found


async def update(
    platform: Platform, caller: Caller, customer: str, id: str, fields: dict[str, Any]
) -> Done[CustomerBalanceTransaction]:
    async def work(load: Load, at: Moment) -> Changes[CustomerBalanceTransaction]:
        return stored_credit.update(await movement(load, customer, id), fields)

    return await platform.engine.run(caller, work)
