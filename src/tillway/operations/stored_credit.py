"""Stored credit: amounts that a merchant gives and takes back."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from tillway.domain import stored_credit
from tillway.domain.commands import AdjustCredit, UpdateCreditMovement
from tillway.domain.customer import Customer
from tillway.domain.record import Changes, Moment
from tillway.domain.refusal import Refused
from tillway.domain.stored_credit import CustomerBalanceTransaction
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations.customers import existing


async def adjust(
    platform: Platform, caller: Caller, customer_id: str, command: AdjustCredit
) -> Done[CustomerBalanceTransaction]:
    """Move a customer's credit. The result is the movement. `domain/stored_credit.py` lists the refusals."""

    async def work(load: Load, at: Moment) -> Changes[CustomerBalanceTransaction]:
        return stored_credit.adjust(await existing(load, customer_id, "customer"), command, at)

    return await platform.engine.run(caller, work)


def set_in(customer: Customer, credit_minor: int, currency: str, at: Moment) -> Changes[Customer]:
    """Set a customer's credit to `credit_minor`, by one adjustment if it differs. The result is the customer.
    `domain/stored_credit.py` lists the refusals."""
    stored_credit.check_currency_of(customer, currency)
    amount_minor = -credit_minor - customer.balance_minor
    if amount_minor == 0:
        return Changes(result=customer)
    changes = stored_credit.adjust(customer, AdjustCredit(amount_minor=amount_minor, currency=currency), at)
    after = next(record for record in changes.records if isinstance(record, Customer))
    return changes.then(Changes(result=after))


async def movement(load: Load, customer: str, id: str) -> CustomerBalanceTransaction:
    """A movement of that customer's credit. Refused if there is none, with the same message for another customer's."""
    await existing(load, customer, "customer")
    found = await load.maybe(CustomerBalanceTransaction, id)
    if found is None or found.customer != customer:
        raise Refused("resource_missing", f"No such customer balance transaction: '{id[:100]}'", param="id")
    return found


async def update(
    platform: Platform, caller: Caller, customer: str, id: str, command: UpdateCreditMovement
) -> Done[CustomerBalanceTransaction]:
    async def work(load: Load, at: Moment) -> Changes[CustomerBalanceTransaction]:
        return stored_credit.update(await movement(load, customer, id), command)

    return await platform.engine.run(caller, work)
