"""Movements of the balance as people look for them: each with its payment, the customer, or the account paid out to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tillway.domain.charge import Charge
from tillway.domain.customer import Customer
from tillway.domain.dispute import Dispute
from tillway.domain.ledger import Entry
from tillway.domain.payout import Payout
from tillway.domain.refund import Refund
from tillway.engine.core import Load

READ_AT_ONCE: Final = 100


async def subjects_of(load: Load, entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """The `payment` that each movement is of, and the `destination` of a payout, by the movement's id. Both are null
    for movements of neither."""
    await _read(load, [entry.source for entry in entries])
    sources = {entry.id: load.held(Charge, entry.source) or _part_of(load, entry.source) for entry in entries}
    await _read(load, [source.charge for source in sources.values() if isinstance(source, Refund | Dispute)])
    charges = {
        id: load.held(Charge, source.charge) if isinstance(source, Refund | Dispute) else source
        for id, source in sources.items()
    }
    await _read(load, [charge.customer for charge in charges.values() if isinstance(charge, Charge)])
    return {id: _document(load, subject) for id, subject in charges.items()}


async def _read(load: Load, ids: Sequence[str | None]) -> None:
    wanted = sorted({id for id in ids if id is not None})
    for i in range(0, len(wanted), READ_AT_ONCE):
        await load.read(wanted[i : i + READ_AT_ONCE])


def _part_of(load: Load, id: str | None) -> Refund | Dispute | Payout | None:
    return load.held(Refund, id) or load.held(Dispute, id) or load.held(Payout, id)


def _document(load: Load, subject: Any) -> dict[str, Any]:
    if not isinstance(subject, Charge):
        return {"destination": subject.destination if isinstance(subject, Payout) else None, "payment": None}
    customer, given = load.held(Customer, subject.customer), subject.billing_details
    payment = {
        "id": subject.payment,
        "customer": {
            "id": subject.customer,
            "email": (customer.email if customer is not None else None) or given.get("email"),
            "name": (customer.name if customer is not None else None) or given.get("name"),
        },
        "description": subject.description,
    }
    return {"destination": None, "payment": payment}
