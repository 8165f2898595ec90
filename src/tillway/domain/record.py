"""The parts of every noun of the domain: records, events about them, and the changes that a decision asks for."""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, overload

import msgspec

from tillway.domain.refusal import Refused
from tillway.domain.source_api import STORED_FIELD

NOTHING = msgspec.Raw(b"null")
"""Not a JSON value: the default of fields with a value in encoded form, since such a field cannot be None."""


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A part of a record that is never stored alone. Records are trees, so the cycle collector may skip them."""


class Record(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, rename={"source_api": STORED_FIELD}
):
    """A thing with an id, kept under `<scope>/<id>`. `created` is epoch seconds.

    The scope, one merchant in one mode, stands in the key alone: a record cannot be read from another's scope.
    """

    id: str
    created: int


class SealedRecord(Record, frozen=True, kw_only=True):
    """A card or a bank account (`vlt_`), or a security code (`cvc_`), sealed by the vault: only the vault can open the
    bytes."""

    sealed: msgspec.Raw
    expires_at: int | None = None


SEALED_PREFIX = "sealed:"
"""Begins a text that the vault has sealed. No secret that was stored in the clear begins so."""


def is_sealed(stored: str) -> bool:
    return stored.startswith(SEALED_PREFIX)


class Reading(Record, frozen=True, kw_only=True):
    """A record as one answer shows it, made of others for that answer. It is never stored."""


class Moment(msgspec.Struct, frozen=True):
    """The time of a decision, and the source of its ids. The domain has no clock and no randomness."""

    now_ms: int
    now: int
    """The same in epoch seconds: a decision asks a dozen times."""
    created: int
    """Epoch seconds that new records carry. They agree with the ids and never go back; `now` follows the clock, and due
    times count from it."""
    head: str
    ends: Iterator[str]
    """The suffixes of new ids are the head and the next of these."""
    references: Callable[[], str] | None = None
    """The references of this request's attempts, in their order; None where no key was named."""
    entry: str = ""
    """The id of the audit entry of the decision's commit."""
    as_before: bool = False
    """Whether processes of the version before may change the records: a field that they do not know would be lost."""

    def new_suffix(self) -> str:
        return f"{self.head}{next(self.ends)}"

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{self.head}{next(self.ends)}"

    def new_reference(self) -> str:
        """The reference of the next attempt, without the scope key; empty where the attempt's own suffix serves."""
        return self.references() if self.references is not None else ""


R = TypeVar("R", bound=Record)

METADATA_KEYS_MAX = 50
"""Stripe's bound, https://docs.stripe.com/api/metadata."""


class EventDraft(Value, frozen=True, kw_only=True):
    """A change of `record`; `previous` is the record before, if the event shows the difference."""

    type: str
    record: Record
    previous: Record | None = None


Result = TypeVar("Result", bound=Record | None, covariant=True)
Later = TypeVar("Later", bound=Record)


class Changes(Value, Generic[Result], frozen=True, kw_only=True, gc=True):
    """The records that a decision writes, in one commit or not at all.

    `result` is the record for the caller, None if the decision has none. `refusal` is a refusal with effects, a
    declined card for instance: its records are committed, and then the caller gets the error. `tasks` are new or moved;
    `deletes` are ids of records or tasks. `detail` goes into the audit trail beside the changed records. `code` is the
    card's security code for the attempt among the tasks: it is opened after the commit, sent once, and never written.
    """

    result: Result
    records: tuple[Record, ...] = ()
    tasks: tuple[Record, ...] = ()
    deletes: tuple[str, ...] = ()
    events: tuple[EventDraft, ...] = ()
    refusal: Refused | None = None
    detail: dict[str, Any] = {}
    code: SealedRecord | None = None

    @overload
    def then(self, later: "Changes[None]", *, between: tuple[EventDraft, ...] = ()) -> "Changes[Result]": ...

    @overload
    def then(self, later: "Changes[Later]", *, between: tuple[EventDraft, ...] = ()) -> "Changes[Later]": ...

    @overload
    def then(
        self, later: "Changes[Later | None]", *, between: tuple[EventDraft, ...] = ()
    ) -> "Changes[Result | Later]": ...

    def then(self, later: "Changes[Any]", *, between: tuple[EventDraft, ...] = ()) -> "Changes[Any]":
        """Join both, in order, with the events `between` them: a record that `later` writes again replaces the earlier
        one. The result is the one of `later`, or the earlier where that has none; the refusal is the one of `later`, or
        none."""
        if self is NO_CHANGES:
            return msgspec.structs.replace(later, events=between + later.events) if between else later
        if not between and later is NO_CHANGES:
            return self if self.refusal is None else msgspec.structs.replace(self, refusal=None)
        records, tasks = self.records, self.tasks
        if records or tasks:
            # Every payment comes here, and comprehensions would cost twice as much.
            rewritten = [*later.deletes]
            for record in later.records:
                rewritten.append(record.id)
            for task in later.tasks:
                rewritten.append(task.id)
            records = _without(records, rewritten)
            tasks = _without(tasks, rewritten) if tasks else tasks
        return Changes(
            result=later.result or self.result,
            records=records + later.records,
            tasks=tasks + later.tasks,
            deletes=self.deletes + later.deletes,
            events=self.events + between + later.events,
            refusal=later.refusal,
            detail=later.detail or self.detail,
            code=later.code or self.code,
        )


def _without(records: tuple[Record, ...], ids: list[str]) -> tuple[Record, ...]:
    """The records that have none of these ids."""
    kept = []
    for record in records:  # As above.
        if record.id not in ids:
            kept.append(record)
    return tuple(kept)


NO_CHANGES: Changes[None] = Changes(result=None)
"""Nothing to write and nothing to show."""


def merged_metadata(old: dict[str, str], given: dict[str, str | None] | None) -> dict[str, str]:
    """Stripe's rule: given keys replace, a key given as None is removed, None for the whole removes all.

    Refuses metadata that would then have more than METADATA_KEYS_MAX keys.
    """
    if given is None:
        return {}
    merged = {key: value for key, value in {**old, **given}.items() if value is not None}
    if len(merged) > METADATA_KEYS_MAX:
        raise Refused("parameter_invalid_object", f"Metadata holds at most {METADATA_KEYS_MAX} keys.", param="metadata")
    return merged


def changed(record: R, fields: dict[str, Any]) -> R:
    """`record` with `fields`, of which `metadata` is merged and a None puts the field back to its default."""
    if not fields:
        return record
    given = dict(fields)
    if "metadata" in given:
        given["metadata"] = merged_metadata(record.metadata, given["metadata"])  # type: ignore[attr-defined]  # The field is sent.
    defaults = _defaults(type(record))
    return msgspec.structs.replace(
        record, **{name: defaults[name] if value is None else value for name, value in given.items()}
    )


def _defaults(kind: type[Record]) -> dict[str, Any]:
    known = _DEFAULTS.get(kind)
    if known is None:
        known = _DEFAULTS[kind] = {
            field.name: field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
            for field in msgspec.structs.fields(kind)
        }
    return known


_DEFAULTS: dict[type[Record], dict[str, Any]] = {}
