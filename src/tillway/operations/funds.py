"""Whose money it is: the sums at each provider, and the part that a payout through one of them can draw on.

A provider pays out only the money that it has collected. Money that a settlement has moved to the merchant's own bank
can be paid out through any connector; payouts by file draw on that alone. The simulator's money counts as settled.
"""

from collections import defaultdict
from collections.abc import Mapping

from tillway.domain.attempt import Attempt
from tillway.domain.payout import Payout
from tillway.engine.connections import SIMULATOR
from tillway.engine.core import Load
from tillway.store.walk import records_of

BANK = "bank"
"""The ledger's account of money that settlements have moved to the merchant's bank."""

Sums = dict[str, int]


def receivables(accounts: Mapping[str, int], currency: str) -> Sums:
    """The money at each connector in a currency, in minor units, from the sums of the ledger's accounts
    (`<account>/<currency>`)."""
    found: Sums = {}
    for place, amount_minor in accounts.items():
        account, _, of_currency = place.rpartition("/")
        if of_currency == currency and account.startswith("receivable:"):
            found[account.removeprefix("receivable:")] = amount_minor
    return found


def in_the_bank(accounts: Mapping[str, int], on_the_way: Mapping[str, int], currency: str) -> int:
    """The settled money that payouts through any connector can draw on, in minor units; negative if payouts have drawn
    on more than is there."""
    return _split(accounts, on_the_way, currency)[1]


def reachable(accounts: Mapping[str, int], on_the_way: Mapping[str, int], connector: str, currency: str) -> int:
    """The money that a payout through `connector` can draw on, in minor units: the connector's own, and that in the
    merchant's bank, less the payouts `on_the_way` by connector.

    A connector that has paid out more than it collected has drawn on the bank's money.
    """
    left, settled = _split(accounts, on_the_way, currency)
    return max(left.get(connector, 0), 0) + settled


def _split(accounts: Mapping[str, int], on_the_way: Mapping[str, int], currency: str) -> tuple[Sums, int]:
    """The money at each provider, and the settled money, both less the payouts on the way."""
    left: Sums = defaultdict(int, receivables(accounts, currency))
    for name, amount_minor in on_the_way.items():
        left[name] -= amount_minor
    settled = accounts.get(f"{BANK}/{currency}", 0) + left.pop(SIMULATOR, 0)
    return left, settled + sum(min(amount_minor, 0) for amount_minor in left.values())


async def payouts_on_the_way(load: Load, currency: str) -> Sums:
    """The payouts from the balance that are not settled yet, by connector, in minor units."""
    found: Sums = defaultdict(int)
    async for attempt in records_of(load.store, load.scope_key, Attempt):
        if attempt.kind == "payout" and attempt.currency == currency:
            paid_out = await load.maybe(Payout, attempt.subject)
            if paid_out is not None and paid_out.funding == "balance":
                found[attempt.connector] += attempt.amount_minor
    return dict(found)


async def reachable_now(load: Load, accounts: Mapping[str, int], connector: str, currency: str, needed: int) -> int:
    """As `reachable`, at the moment. The payouts on the way are read only where `needed` may not be there."""
    under_way = -accounts.get(f"payouts/{currency}", 0)
    everything = reachable(accounts, {}, connector, currency)
    if not under_way or everything - under_way >= needed:
        return everything - under_way
    return reachable(accounts, await payouts_on_the_way(load, currency), connector, currency)
