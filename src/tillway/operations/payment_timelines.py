"""The story of a payment: each attempt at each connector, captures, refunds and disputes, oldest first.

The audit trail has the actor, the reason and the milliseconds of each step. It is read in short windows around the
times that stand in the ids of the payment's records, so that an old payment costs no more than a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tillway.domain.audit import AuditEntry
from tillway.domain.charge import Charge
from tillway.domain.dispute import Dispute
from tillway.domain.ledger import Entry
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import Record
from tillway.domain.refund import Refund
from tillway.engine.core import Load
from tillway.engine.ids import base62, microseconds_of
from tillway.engine.references import reference_of_record
from tillway.store.codec import by_kind, by_parent, decode
from tillway.store.port import Store

WINDOW_SECONDS: Final = 60
"""How long after the begin of a step its outcome is looked for in the trail."""

WINDOW_ROWS: Final = 500
STEPS_MAX: Final = 100


class Timeline(msgspec.Struct):
    """The records of a payment's story, of the scope with that key."""

    scope_key: str
    payment: PaymentIntent
    charges: list[Charge]
    refunds: list[Refund]
    disputes: list[Dispute]
    ledger: list[Entry]
    trail: list[AuditEntry]

    def document(self) -> dict[str, Any]:
        steps = sorted(self._steps(), key=lambda step: step["at_ms"])
        return {
            "object": "payment_timeline",
            "payment": self.payment.id,
            "steps": steps,
            "ledger": [line for entry in self.ledger for line in _lines(entry)],
            "balanced": all(sum(posting.amount_minor for posting in entry.postings) == 0 for entry in self.ledger),
        }

    def _steps(self) -> list[dict[str, Any]]:
        return [
            self._tell_created(),
            *(step for charge in self.charges for step in self._of_charge(charge)),
            *(self._of_refund(refund) for refund in self.refunds),
            *(self._of_dispute(dispute) for dispute in self.disputes),
            *self._tell_canceled(),
        ]

    def _tell_created(self) -> dict[str, Any]:
        return {
            "kind": "created",
            "at_ms": _at_ms(self.payment.id),
            **_author(self._entry_of_creation(self.payment.id)),
        }

    def _of_charge(self, charge: Charge) -> list[dict[str, Any]]:
        begun_ms, settled = _at_ms(charge.id), self._entry_of_outcome(charge)
        tried = self.payment.route.tried if self.payment.route is not None else ()
        if charge.id != self.payment.latest_charge:
            tried = ()
        names, took = [*(step.connector for step in tried[1:]), charge.connector], self._passed_over_ms()
        steps: list[dict[str, Any]] = [
            {
                "kind": "not_sent" if step.outcome == "not_sent" else "passed_on",
                "at_ms": begun_ms - 1,
                "connector": step.connector,
                "milliseconds": took[place] if place < len(took) else None,
                "next": names[place],
            }
            for place, step in enumerate(tried)
            if step.outcome != "succeeded"
        ]
        steps.append(
            {
                "kind": {"failed": "declined", "pending": "asked"}.get(charge.status, "authorized"),
                "at_ms": settled.at_ms if settled is not None else begun_ms,
                "amount": charge.amount_minor,
                "bank_id": charge.bank_id,
                "card": {"brand": charge.card.brand, "last4": charge.card.last4} if charge.card is not None else None,
                "charge": charge.id,
                "connector": charge.connector,
                "milliseconds": max(settled.at_ms - begun_ms, 0) if settled is not None else None,
                "reason": charge.decline_code or charge.failure_code,
                "message": charge.failure_message,
                "captured": charge.captured_minor,
                "at_once": charge.captured_minor == charge.amount_minor and self.payment.captures_at_once,
                "sent": self._tell_sent(charge) if charge.connector else None,
                "answered": _tell_answered(charge) if charge.connector and charge.status != "pending" else None,
            }
        )
        if charge.captured_minor and not self.payment.captures_at_once and charge.entry is not None:
            steps.append(
                {
                    "kind": "captured",
                    "at_ms": _at_ms(charge.entry),
                    "amount": charge.captured_minor,
                    "connector": charge.connector,
                    **_author(self._entry_of_change(charge.id, "captured_minor")),
                }
            )
        return steps

    def _tell_sent(self, charge: Charge) -> dict[str, Any]:
        """The request of an authorization in the words of every connector, without numbers of cards and accounts."""
        sent: dict[str, Any] = {
            "operation": "authorize",
            "reference": reference_of_record(self.scope_key, charge),
            "amount": charge.authorized_minor or charge.amount_minor,
            "currency": charge.currency,
            "capture": self.payment.captures_at_once,
        }
        if charge.card is not None:
            sent["card"] = {"brand": charge.card.brand, "number": f"****{charge.card.last4}"}
        if charge.bank is not None:
            sent["account"] = {"type": charge.method_type, "number": f"****{charge.bank.last4}"}
        return sent

    def _passed_over_ms(self) -> list[int]:
        """The milliseconds of each attempt that another connector followed, from the commits that went on."""
        found = []
        for entry in self.trail:
            for change in entry.changes:
                ended = change.changed.get("attempt", (None, None))[0] if "route" in change.changed else None
                if change.id == self.payment.id and ended:
                    found.append(max(entry.at_ms - _at_ms(str(ended)), 0))
        return found

    def _of_refund(self, refund: Refund) -> dict[str, Any]:
        return {
            "kind": "refunded",
            "at_ms": _at_ms(refund.id),
            "amount": refund.amount_minor,
            "refund": refund.id,
            "status": refund.status,
            "reason": refund.reason,
            **_author(self._entry_of_creation(refund.id)),
        }

    def _of_dispute(self, dispute: Dispute) -> dict[str, Any]:
        return {
            "kind": "disputed",
            "at_ms": _at_ms(dispute.id),
            "amount": dispute.amount_minor,
            "dispute": dispute.id,
            "reason": dispute.reason,
            "status": dispute.status,
        }

    def _tell_canceled(self) -> list[dict[str, Any]]:
        if self.payment.canceled_at is None:
            return []
        entry = self._entry_of_change(self.payment.id, "canceled_at")
        at_ms = entry.at_ms if entry is not None else self.payment.canceled_at * 1000
        return [{"kind": "canceled", "at_ms": at_ms, "reason": self.payment.cancellation_reason, **_author(entry)}]

    def _entry_of_creation(self, id: str) -> AuditEntry | None:
        """The entry of the commit that made the record."""
        return next((entry for entry in self.trail if any(c.id == id and c.version == 1 for c in entry.changes)), None)

    def _entry_of_change(self, id: str, field: str) -> AuditEntry | None:
        """The latest entry that changed a field of the record."""
        return next(
            (
                entry
                for entry in reversed(self.trail)
                if any(change.id == id and field in change.changed for change in entry.changes)
            ),
            None,
        )

    def _entry_of_outcome(self, charge: Charge) -> AuditEntry | None:
        """The entry of the outcome of a charge: of its first commit, or of the one that ended its waiting."""
        return self._entry_of_change(charge.id, "status") or self._entry_of_creation(charge.id)


async def timeline_of(load: Load, payment: PaymentIntent) -> Timeline:
    """Read the story of a payment: at most STEPS_MAX charges, refunds and disputes of each."""
    store, scope = load.store, load.scope_key
    charges = {
        charge.id: charge for charge in await _list_records(store, "parent", by_parent(scope, "ch", payment.id), Charge)
    }
    latest = await load.maybe(Charge, payment.latest_charge)
    if latest is not None:
        charges[latest.id] = latest
    refunds = await _list_records(store, "kind", by_kind(scope, "re", payment.id), Refund)
    disputes = [
        dispute
        for charge in charges.values()
        if charge.disputed
        for dispute in await _list_records(store, "parent", by_parent(scope, "du", charge.id), Dispute)
    ]
    ledger = await _ledger(load, list(charges.values()), refunds, disputes)
    about = (*refunds, *disputes)
    story = [payment.id, *charges, *(one.id for one in about), *(entry.id for entry in ledger)]
    seconds = {_at_ms(id) // 1000 for id in story}
    if payment.canceled_at is not None:
        seconds.add(payment.canceled_at)
    ours = {payment.id, *charges, *(one.id for one in about)}
    trail = [
        entry
        for entry in await _trail(store, scope, sorted(seconds))
        if any(change.id in ours for change in entry.changes)
    ]
    # Entries that are no balance transactions are in no index: the commits of these steps name them.
    named = {change.id for entry in trail for change in entry.changes if change.id.startswith("je_")}
    transfers = [await load.maybe(Entry, id) for id in sorted(named - {entry.id for entry in ledger})]
    ledger += [entry for entry in transfers if entry is not None]
    ledger.sort(key=lambda entry: entry.id.partition("_")[2])
    return Timeline(scope, payment, [charges[id] for id in sorted(charges)], refunds, disputes, ledger, trail)


async def _list_records(store: Store, index: str, partition: str, kind: type[Any]) -> list[Any]:
    rows = await store.query(index, partition, limit=STEPS_MAX, order="oldest")
    found: list[Record] = [decode(row.key.partition("/")[2], row.body) for row in rows]
    return [record for record in found if isinstance(record, kind)]


async def _ledger(
    load: Load, charges: Sequence[Charge], refunds: Sequence[Refund], disputes: Sequence[Dispute]
) -> list[Entry]:
    ids = [charge.entry for charge in charges]
    ids += [capture.entry for charge in charges for capture in charge.captures]
    ids += [id for refund in refunds for id in (refund.entry, refund.failure_entry)]
    entries = [await load.maybe(Entry, id) for id in dict.fromkeys(ids) if id]
    found = {entry.id: entry for entry in entries if entry is not None}
    found |= {entry.id: entry for dispute in disputes for entry in dispute.entries}
    for subject in (*charges, *refunds, *disputes):
        for entry in await _list_records(load.store, "parent", by_parent(load.scope_key, "txn", subject.id), Entry):
            found[entry.id] = entry
    return [found[id] for id in sorted(found, key=lambda id: id.partition("_")[2])]


async def _trail(store: Store, scope: str, seconds: Sequence[int]) -> list[AuditEntry]:
    """The entries of the windows that begin a second before each of `seconds`, which ascend."""
    found: list[AuditEntry] = []
    read_until = ""
    for second in seconds:
        after = max(f"{scope}/aud_{base62((second - 1) * 1_000_000, 9)}", read_until)
        until = f"{scope}/aud_{base62((second + WINDOW_SECONDS) * 1_000_000, 9)}"
        if after >= until:
            continue
        rows = await store.query(None, f"{scope}/aud_", after=after, until=until, limit=WINDOW_ROWS, order="oldest")
        for row in rows:
            entry = decode(row.key.partition("/")[2], row.body)
            if isinstance(entry, AuditEntry):
                found.append(entry)
        if len(rows) == WINDOW_ROWS or rows:
            read_until = rows[-1].key
    return found


def _tell_answered(charge: Charge) -> dict[str, Any]:
    """The provider's answer to an authorization, as its connector has read it."""
    return {
        "outcome": "declined" if charge.status == "failed" else "succeeded",
        "code": charge.failure_code,
        "decline_code": charge.decline_code,
        "bank_id": charge.bank_id,
        "network_transaction_id": charge.network_transaction_id,
    }


def _at_ms(id: str) -> int:
    """The millisecond in which a record's id was made."""
    return microseconds_of(id.partition("_")[2][:9]) // 1000


def _author(entry: AuditEntry | None) -> dict[str, Any]:
    if entry is None:
        return {"actor": None, "hint": None, "request": None, "why": None}
    return {
        "actor": entry.actor,
        "hint": entry.hint or None,
        "request": entry.request,
        "why": entry.detail.get("reason"),
    }


def _lines(entry: Entry) -> list[dict[str, Any]]:
    return [
        {
            "entry": entry.id,
            "at_ms": _at_ms(entry.id),
            "account": posting.account,
            "for": entry.type or "transfer",
            "amount": posting.amount_minor,
            "currency": entry.currency,
        }
        for posting in entry.postings
    ]
