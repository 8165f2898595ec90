"""Settlements: read the sums of the ledger, and book the money that a provider has paid to the merchant's bank, by an
operator's word or by the provider's own report."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tillway.domain import settlement
from tillway.domain.close import Difference, differ_from_booked, differ_from_collected
from tillway.domain.payout import PayoutGuard, guard_id
from tillway.domain.record import Changes, Moment
from tillway.domain.refusal import Refused
from tillway.domain.settlement import Reported, Settlement
from tillway.engine.balance import fold
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations.funds import in_the_bank, payouts_on_the_way, receivables
from tillway.store.codec import by_settlement, decode


async def book(
    platform: Platform,
    caller: Caller,
    *,
    connector: str,
    currency: str,
    amount_minor: int,
    fee_minor: int = 0,
    reference: str | None = None,
    reason: str | None = None,
) -> Done[Settlement]:
    """Move `amount_minor` (negative: back) from a connector's receivable to the bank, and book the fee that the
    provider kept. The `reason` is the caller's unless another is given.

    Refused `resource_missing` for a connector that is not configured and has no money.
    """

    async def work(load: Load, at: Moment) -> Changes[Settlement]:
        # The sums are read after the guard: every payout from the balance changes the guard, and this commit conflicts.
        guard = await load.maybe(PayoutGuard, guard_id(currency))
        folded = await fold(platform.engine, load.scope_key)
        at_providers = receivables(folded.accounts, currency)
        if connector not in at_providers:
            known = await platform.connections.connectors_of(caller.scope.mode)
            if connector not in known:
                raise Refused("resource_missing", f"No such connector: '{connector[:100]}'", param="connector")
        on_the_way = await payouts_on_the_way(load, currency)
        return settlement.settle(
            connector=connector,
            currency=currency,
            amount_minor=amount_minor,
            fee_minor=fee_minor,
            reference=reference,
            by=caller.actor,
            reason=reason or caller.reason or "",
            at_provider_minor=at_providers.get(connector, 0) - on_the_way.get(connector, 0),
            at_bank_minor=in_the_bank(folded.accounts, on_the_way, currency),
            booked=await _find_booked(load, connector, reference),
            guard=guard,
            at=at,
        )

    async with platform.locks.at(f"{caller.scope_key}/{guard_id(currency)}"):
        return await platform.engine.run(caller, work)


class Taken(msgspec.Struct, frozen=True):
    """The reported settlements that were booked, and the differences of those that could not be."""

    booked: tuple[Settlement, ...]
    differences: tuple[Difference, ...]


async def book_reported(platform: Platform, caller: Caller, connector: str, told: Sequence[Reported]) -> Taken:
    """Book the settlements of a provider's report, each once: reports repeat each other, and operators book, too.

    Refused `resource_missing` for a connector that is not configured and has no money.
    """
    # Without the request's key, whose answer would be that of the first settlement. Its reference books each once.
    caller = msgspec.structs.replace(caller, idempotency=None)
    booked: list[Settlement] = []
    differences: list[Difference] = []
    load = platform.engine.load(caller.scope_key)
    for each in told:
        known = await _find_booked(load, connector, each.reference)
        try:
            if known is None:
                done = await book(
                    platform,
                    caller,
                    connector=connector,
                    currency=each.currency,
                    amount_minor=each.amount_minor,
                    fee_minor=each.fee_minor,
                    reference=each.reference,
                    reason=f"Report {each.where}",
                )
                booked.append(done.record)
        except Refused as refused:
            match refused.code:
                case "settlement_exists":
                    known = await _find_booked(load, connector, each.reference)
                case "settlement_too_large":
                    collected_minor = await _collected_minor(platform, caller, connector, each.currency)
                    differences.append(
                        differ_from_collected(connector, each, collected_minor=collected_minor, why=refused.message)
                    )
                case _:
                    raise
        if known is not None:
            differences += differ_from_booked(connector, each, known)
    return Taken(tuple(booked), tuple(differences))


async def _collected_minor(platform: Platform, caller: Caller, connector: str, currency: str) -> int:
    """The money at a connector less its payouts on the way, in minor units, at the moment."""
    folded = await fold(platform.engine, caller.scope_key)
    on_the_way = await payouts_on_the_way(platform.engine.load(caller.scope_key), currency)
    return receivables(folded.accounts, currency).get(connector, 0) - on_the_way.get(connector, 0)


async def _find_booked(load: Load, connector: str, reference: str | None) -> Settlement | None:
    """The settlement of that reference."""
    if reference is None:
        return None
    place = by_settlement(load.scope_key, connector, reference)
    for row in await load.store.query("kind", place, limit=1, order="oldest"):
        found = decode(row.key.partition("/")[2], row.body)
        assert isinstance(found, Settlement)
        return found
    return None


def describe(booked: Settlement) -> dict[str, Any]:
    """The JSON object of a settlement, for the API and commands."""
    return {
        "id": booked.id,
        "object": "settlement",
        "amount": booked.amount_minor,
        "booked_by": booked.by,
        "connector": booked.connector,
        "created": booked.created,
        "currency": booked.currency,
        "fee": booked.fee_minor,
        "reason": booked.reason,
        "reference": booked.reference,
    }
