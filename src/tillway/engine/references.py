"""Find the records that a provider's reference is about.

A reference is the scope's key and a tail. A tail of TAIL_LENGTH characters follows from a key or name and stands
in the index of the payment, refund or payout that it belongs to. Every other tail is the suffix that an attempt shares
with its charge, refund or payout.
"""

import msgspec

from tillway.domain.account import SCOPE_KEY_LENGTH, Scope, scope_of
from tillway.domain.attempt import TAIL_LENGTH, Attempt, reference_from_name
from tillway.domain.charge import Charge
from tillway.domain.outcome import OperationKind
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payout import Payout
from tillway.domain.refund import Refund
from tillway.domain.settled_operation import SettledOperation, settled_id
from tillway.engine.core import Load
from tillway.store.codec import ALL_REFERENCE_INDEXES, by_parent, by_reference, decode
from tillway.store.port import PAGE_MAX, Row, Store
from tillway.store.walk import records_of


class Known(msgspec.Struct, frozen=True):
    """The records behind a tail. `attempt` is there while it is under way. `subject` is its refund or payout, or its
    payment where the tail follows from a key; `charge` is the one that it authorized. `operation` is left of an
    operation without a record of its own."""

    attempt: Attempt | None = None
    subject: PaymentIntent | Refund | Payout | None = None
    charge: Charge | None = None
    operation: SettledOperation | None = None

    @property
    def settled(self) -> Charge | Refund | Payout | SettledOperation | None:
        """The record that remains when the attempt is settled."""
        return self.subject if isinstance(self.subject, Refund | Payout) else self.charge or self.operation


def split(reference: str) -> tuple[Scope, str] | None:
    """The scope of a reference and its tail; None where it cannot be one of ours."""
    try:
        return scope_of(reference[:SCOPE_KEY_LENGTH]), reference[SCOPE_KEY_LENGTH:]
    except AssertionError:
        return None


def reference_of_record(scope_key: str, record: Charge | Refund | Payout) -> str:
    """The provider's reference of the attempt that authorized a charge, or that carries a refund or payout."""
    return reference_from_name(scope_key, record.reference or record.id.partition("_")[2])


async def find_by_tail(load: Load, tail: str) -> Known:
    """The records of the load's scope that a reference with that tail is about; an empty `Known` where there are
    none."""
    if len(tail) != TAIL_LENGTH:
        attempt = await load.maybe(Attempt, f"att_{tail}")
        refund = await load.maybe(Refund, f"re_{tail}")
        subject = refund or await load.maybe(Payout, f"po_{tail}")
        charge = await load.maybe(Charge, f"ch_{tail}")
        if attempt is not None or subject is not None or charge is not None:
            return Known(attempt, subject, charge)
        return await _known_by_operation(load, tail)
    partition = by_reference(load.scope_key, tail)
    rows: list[Row] = []
    for index in ALL_REFERENCE_INDEXES:
        rows = rows or await load.store.query(index, partition, limit=1)
    if not rows:
        # A payment with many operations is found by its first and its latest.
        return await _known_by_operation(load, tail)
    id = rows[0].key.partition("/")[2]
    found = decode(id, rows[0].body)
    assert isinstance(found, PaymentIntent | Refund | Payout), f"{id} stands in the index of references"
    load.seen.setdefault(id, (rows[0].version, found))
    attempt = await load.maybe(Attempt, found.attempt)
    if attempt is not None and attempt.reference != tail:
        attempt = None
    charge = None
    if isinstance(found, PaymentIntent) and (attempt is None or found.latest_charge is not None):
        charge = await _charge_of(load, found, tail)
    if attempt is not None or charge is not None or not isinstance(found, PaymentIntent):
        return Known(attempt, found, charge)
    return Known(None, found, None, await load.maybe(SettledOperation, settled_id(tail)))


async def _known_by_operation(load: Load, tail: str) -> Known:
    """The records of a reference that stands in no index: the settled operation, and the charge that it authorized."""
    operation = await load.maybe(SettledOperation, settled_id(tail))
    if operation is None or operation.kind != "authorize":
        return Known(operation=operation)
    charge = await load.maybe(Charge, operation.subject) if operation.subject.startswith("ch_") else None
    if charge is None or charge.reference != tail:
        return Known(operation=operation)
    return Known(None, await load.maybe(PaymentIntent, charge.payment), charge)


async def infer_settled(
    load: Load, tail: str, known: Known, kind: OperationKind | None, *, parent: str | None, amount_minor: int | None
) -> SettledOperation | None:
    """The outcome of an operation that settled before settled operations were kept, as its charge or payment tells it.
    It is not stored. None where nothing here is about it.

    `known` are the records behind the tail, `kind` and `amount_minor` are the provider's words, and `parent` is the
    reference of the authorization in them.
    """
    payment = known.subject if isinstance(known.subject, PaymentIntent) else None
    if kind == "authorize" and payment is not None:
        return SettledOperation(
            id=settled_id(tail),
            created=payment.created,
            kind=kind,
            subject=payment.id,
            status="canceled" if payment.status == "canceled" else "failed",
            amount_minor=payment.amount_minor,
            currency=payment.currency,
            connector="",
            capture=payment.captures_at_once,
        )
    if kind not in ("capture", "void", "increment"):
        return None
    charge = None
    if payment is not None:
        charge = await load.maybe(Charge, payment.latest_charge)
    elif len(tail) != TAIL_LENGTH and (parts := split(parent or "")) is not None and parts[0].key == load.scope_key:
        # One with a key that is not in the index may be repeated by its client.
        charge = (await find_by_tail(load, parts[1])).charge
    if charge is None or charge.status != "succeeded":
        return None
    done, of_minor = _tells(charge, tail, kind, amount_minor)
    if kind == "capture" and not charge.captures and payment is not None and tail in payment.references[:-1]:
        # No operation follows the only capture of a charge. One with a follower was declined.
        done = False
    return SettledOperation(
        id=settled_id(tail),
        created=charge.created,
        kind=kind,
        subject=charge.id,
        status="succeeded" if done else "failed",
        amount_minor=of_minor,
        currency=charge.currency,
        connector=charge.connector,
        parent=charge.reference,
        parent_bank_id=charge.bank_id,
    )


def _tells(charge: Charge, tail: str, kind: OperationKind, amount_minor: int | None) -> tuple[bool, int]:
    """Whether the charge shows such an operation as done, and its amount in minor units."""
    told_minor = amount_minor or charge.amount_minor
    match kind:
        case "capture" if charge.captures:
            parts = [part for part in charge.captures if part.reference.removeprefix("att_") == tail]
            return (True, parts[0].amount_minor) if parts else (False, told_minor)
        case "capture" if charge.captured_minor:
            return True, charge.captured_minor
        case "void":
            return charge.released_minor > 0 and (bool(charge.captures) or not charge.captured), told_minor
        case "increment":
            return charge.authorized_minor is not None and told_minor <= charge.amount_minor, told_minor
        case _:
            return False, told_minor


async def ids_by_reference(store: Store, scope_key: str) -> dict[str, str]:
    """The ids of all charges, refunds and payouts of a scope by their references. It reads every one of them."""
    ids: dict[str, str] = {}
    kinds: tuple[type[Charge | Refund | Payout], ...] = (Charge, Refund, Payout)
    for kind in kinds:
        async for record in records_of(store, scope_key, kind):
            ids[reference_of_record(scope_key, record)] = record.id
    return ids


async def _charge_of(load: Load, payment: PaymentIntent, tail: str) -> Charge | None:
    """The charge of the payment that was authorized under that tail: the latest, as a rule.

    A payment that has gone on to another connector has no latest one, but the charges that were declined before.
    """
    latest = await load.maybe(Charge, payment.latest_charge)
    if latest is not None and latest.reference == tail:
        return latest
    for row in await load.store.query("parent", by_parent(load.scope_key, "ch", payment.id), limit=PAGE_MAX):
        id = row.key.partition("/")[2]
        charge = decode(id, row.body)
        if isinstance(charge, Charge) and charge.reference == tail:
            load.seen.setdefault(id, (row.version, charge))
            return charge
    return None
