"""Redaction: take the personal data of one customer or payment out of records, events, answers and the audit trail.

The members below hold data about a person wherever they stand in a record of the subject. Amounts, states, times, ids,
the last digits and the country of a card are the books' and stay.
"""

from collections.abc import Collection
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from tillway.domain.audit import HIDDEN, AuditEntry, Change
from tillway.domain.dispute import FILE_EVIDENCE
from tillway.domain.event import Event, JournalEvent
from tillway.domain.record import NOTHING, Record

R = TypeVar("R", bound=Record)

PERSONAL: Final = frozenset(
    (
        "acceptance",
        "address",
        "address_city",
        "address_country",
        "address_line1",
        "address_line2",
        "address_state",
        "address_zip",
        "billing_details",
        "business_name",
        "client_ip",
        "client_reference_id",
        "customer_email",
        "delivery_address",
        "description",
        "email",
        "evidence",
        "filename",
        "individual_name",
        "instructions_email",
        "metadata",
        "name",
        "payment_data",
        "phone",
        "preferred_locales",
        "receipt_email",
        "shipping",
        "user_id",
    )
)
"""Members of the subject's records and of answers with data about a person, or with free text that may name one."""

_OF_TRANSFERS: Final = PERSONAL | {"reference"}
"""The same of bank transfers: the payer wrote their reference."""

_OF_LINES: Final = frozenset(("delivery_address",))
"""The same within the lines of a cart, where names and descriptions are those of products."""


class Redacted(Record, frozen=True, kw_only=True):
    """The proof that a linked entry of the audit trail was redacted, and not edited (`red_` and the entry's suffix).

    `leaf` is the digest of the entry as it stands since, and `by` is the entry of the redaction, which tells the same.
    `signature` is by the public key `signer` of the trail's heads, over `redaction_text`.
    """

    by: str
    leaf: bytes
    signer: str = ""
    signature: bytes = b""


def redacted_id(entry: str) -> str:
    """The id of the proof about an entry of the audit trail."""
    return f"red_{entry.partition('_')[2]}"


def redaction_text(scope_key: str, entry: str, leaf: bytes, by: str) -> bytes:
    """The bytes that the signature of a redaction covers: a JSON array that begins with its purpose."""
    return msgspec.json.encode(["tillway audit redaction", scope_key, entry, leaf.hex(), by])


def without_personal(record: R) -> R:
    """The record without its personal members: each has its default, or is hidden where it has none."""
    kind = type(record)
    personal = _personal_of(record.id)
    kept = _hide_personal(msgspec.to_builtins(record), personal)
    needed = {field.encode_name for field in msgspec.structs.fields(kind) if field.required}
    for name in personal & kept.keys() - needed:
        del kept[name]
    return msgspec.convert(kept, kind)


def without_personal_text(entry: AuditEntry, ids: Collection[str]) -> AuditEntry:
    """The entry with the personal members of the records `ids` hidden in its changes and events; itself if it has
    none."""
    changes = tuple([_hide_in_change(change) if change.id in ids else change for change in entry.changes])
    places = {place for place, change in enumerate(entry.changes) if change.id in ids}
    events = tuple([_hide_in_event(event, places, ids) for event in entry.events])
    if changes == entry.changes and events == entry.events:
        return entry
    return replace(entry, changes=changes, events=events, ip=None if entry.actor == "customer" else entry.ip)


def hide_in_event(event: Event, ids: Collection[str]) -> Event:
    """The same for an event with a row of its own."""
    return replace(event, object=_hide_in_raw(event.object, ids), previous=_hide_in_raw(event.previous, ids))


def hide_in_answer(body: msgspec.Raw, ids: Collection[str]) -> msgspec.Raw:
    """The answer of a key with null in place of personal members of the objects `ids` in it."""
    answer = msgspec.json.decode(body)
    hidden = _null_personal(answer, ids, frozenset())
    return msgspec.Raw(msgspec.json.encode(hidden)) if hidden != answer else body


def _personal_of(id: str) -> frozenset[str]:
    """The personal members of the record with that id."""
    return _OF_TRANSFERS if id.startswith("ccsbtxn_") else PERSONAL


def _hide_in_change(change: Change) -> Change:
    personal = _personal_of(change.id)
    changed = {
        name: (old, new) if name not in personal else (_hidden(name, old), _hidden(name, new))
        for name, (old, new) in (
            (name, (_hide_personal(old, PERSONAL), _hide_personal(new, PERSONAL)))
            for name, (old, new) in change.changed.items()
        )
    }
    return replace(change, new=_hide_in_record(change.new), gone=_hide_in_record(change.gone), changed=changed)


def _hide_in_event(event: JournalEvent, places: Collection[int], ids: Collection[str]) -> JournalEvent:
    differs = event.differs
    if bytes(event.object) == bytes(NOTHING) and event.change in places:
        differs = _hide_personal(differs, PERSONAL)
    after = replace(
        event,
        object=_hide_in_raw(event.object, ids),
        previous=_hide_in_raw(event.previous, ids),
        differs=differs,
    )
    return after if after != event else event


def _hide_in_raw(body: msgspec.Raw, ids: Collection[str]) -> msgspec.Raw:
    """A record in the store's encoding, hidden if it is one of `ids`."""
    if bytes(body) == bytes(NOTHING) or msgspec.json.decode(body).get("id") not in ids:
        return body
    return _hide_in_record(body)


def _hide_in_record(body: msgspec.Raw) -> msgspec.Raw:
    if bytes(body) == bytes(NOTHING):
        return body
    fields = msgspec.json.decode(body)
    hidden = _hide_personal(fields, _personal_of(fields["id"]))
    return msgspec.Raw(msgspec.json.encode(hidden)) if hidden != fields else body


def _hide_personal(value: Any, personal: Collection[str]) -> Any:
    """A value in the form of JSON with its personal members hidden, whatever they are nested in."""
    match value:
        case dict():
            return {
                name: _hidden(name, member)
                if name in personal
                else _hide_personal(member, _OF_LINES if name == "lines" else personal)
                for name, member in value.items()
            }
        case list() | tuple():
            return [_hide_personal(member, personal) for member in value]
        case _:
            return value


def _hidden(name: str, value: Any) -> Any:
    """A value of the same type that tells nothing: a record with it can still be read. Evidence keeps the ids of its
    files, as the record does: a redaction that is sent again finds the files by them."""
    match value:
        case dict() if name == "evidence":
            return {name: id for name, id in value.items() if name in FILE_EVIDENCE}
        case str() if value:
            return HIDDEN
        case dict():
            return {}
        case list() | tuple():
            return []
        case _:
            return value


def _null_personal(value: Any, ids: Collection[str], personal: frozenset[str]) -> Any:
    """The value with null in place of the members `personal`, and of those of the objects `ids` in it."""
    match value:
        case dict():
            if value.get("id") in ids:
                personal = _personal_of(value["id"])
            return {
                name: _null(member)
                if name in personal
                else _null_personal(member, ids, personal if name != "lines" else frozenset())
                for name, member in value.items()
            }
        case list():
            return [_null_personal(member, ids, personal) for member in value]
        case _:
            return value


def _null(value: Any) -> Any:
    """A member of an answer without its content: an object keeps its members, and metadata has none."""
    return {name: None for name in value if name in _PARTS} if isinstance(value, dict) else None


_PARTS: Final = frozenset(("address", "carrier", "email", "name", "phone", "tax_id", "tracking_number"))
