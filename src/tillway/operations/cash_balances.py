"""Operations on cash balances: a customer's bank transfers in test mode."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from tillway.domain import cash_balance
from tillway.domain.cash_balance import CashTransaction
from tillway.domain.record import Changes, Moment
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations.customers import existing


async def fund(
    platform: Platform, caller: Caller, customer: str, amount_minor: int, currency: str, reference: str | None
) -> Done[CashTransaction]:
    async def work(load: Load, at: Moment) -> Changes[CashTransaction]:
        return cash_balance.fund(await existing(load, customer, "customer"), amount_minor, currency, reference, at)

    return await platform.engine.run(caller, work)


async def transaction(load: Load, customer: str, id: str) -> CashTransaction:
    """A transfer of that customer. Refused if there is none, with the same message for another customer's."""
    await existing(load, customer, "customer")
    found = await load.maybe(CashTransaction, id)
    if found is None or found.customer != customer:
        raise Refused("resource_missing", f"No such customer cash balance transaction: '{id[:100]}'", param="id")
    return found
