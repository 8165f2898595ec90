"""`/ops/v1/audit`: the audit trail of the key's own merchant and mode, or that of the installation."""

from typing import Any, Final

import msgspec

from tillway.api.exports import enter_export
from tillway.domain.account import SYSTEM
from tillway.domain.audit import AuditEntry
from tillway.domain.operator import REASON_MAX
from tillway.domain.refusal import Refused
from tillway.engine.audit.chain import Unreadable, look_at_end, place_in_chain
from tillway.engine.audit.entries import entry_document
from tillway.engine.ids import made_at
from tillway.http.lists import list_page
from tillway.http.params import TIME_MAX, Array, Created, Enum, Parameter, Params, Span, Text, list_params
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape

OWNER = Enum("installation", "merchant")
AREAS: Final[dict[str, tuple[str, ...]]] = {
    "money": ("pi_", "ch_", "re_", "po_", "du_", "txn_", "je_", "stl_", "cls_", "oi_", "pog_"),
    "routing": ("rtg_", "con_"),
    "keys": ("key_", "opk_", "oac_", "ephkey_"),
    "users": ("opr_", "dsp_", "dpk_", "dsl_", "dss_", "dil_"),
}
"""The records of each area that `area` selects, by the beginnings of their ids."""

FILTERS: Final[dict[str, Parameter]] = {
    "actor": Text(maximum=200),
    "area": Array(Enum(*AREAS), maximum=len(AREAS)),
    "created": Created(),
    "operation": Array(Text(maximum=200), maximum=10),
    "owner": OWNER,
    "record": Text(maximum=200),
    "who": Text(maximum=200),
}
LIST = list_params(**FILTERS)
EXPORT = Params(reason=Text(maximum=REASON_MAX), **FILTERS)


@route("GET", "/ops/v1/audit", LIST, returns="list")
async def list_entries(call: Call) -> Answer:
    """List audit entries, newest first. `record` and `actor` select those about one record or by one actor.

    `who` selects those by an actor with this text in the id, the name or the key; `area` those that changed
    money, routing, keys or users; `operation` those of these calls or commands, named as entries name them. With
    `owner=installation` they are those of keys, operators, settings, connectors and routing, for an operator of the
    whole installation.
    """
    params = call.params
    _choose_trail(call)
    actor, record, who = params.get("actor"), params.get("record"), (params.get("who") or "").casefold()
    operations = frozenset(params.get("operation") or ())
    begins = tuple(begin for area in params.get("area") or () for begin in AREAS[area])

    def keep(entry: AuditEntry) -> bool:
        return (
            (actor is None or entry.actor == actor)
            and (record is None or any(change.id == record for change in entry.changes))
            and (not who or who in entry.actor.casefold() or who in (entry.hint or "").casefold())
            and (not operations or entry.operation in operations)
            and (not begins or any(change.id.startswith(begins) for change in entry.changes))
        )

    since = made_at(record) if record is not None else None
    if since is not None:
        # No entry about a record is older than the record.
        span: Span = params.get("created") or Span()
        params["created"] = Span(max(span.first, since), span.last)
    filtered = bool(actor is not None or record is not None or who or begins or operations)
    return await list_page(call, "aud", keep=keep if filtered else None, noun="audit entry")


@route("POST", "/ops/v1/audit/exports", EXPORT, returns="audit_export")
async def announce_export(call: Call) -> Answer:
    """Enter into the trail that its entries are exported, by these filters, before they are read at `/ops/v1/audit`.

    The entry is in the trail that is exported, with the filters in `detail.export`, and the caller's name and reason.
    """
    asked = call.caller
    await call.platform.engine.check_unanswered(asked)
    _choose_trail(call)
    filters = {name: _as_asked(value) for name, value in call.params.items() if name in FILTERS}
    return await enter_export(call, asked, "audit_export", {"export": filters}, filters=filters)


def _as_asked(value: Any) -> Any:
    """A filter as callers write it."""
    if not isinstance(value, Span):
        return value
    bounds = (("gte", value.first, 0), ("lte", value.last, TIME_MAX))
    return {name: second for name, second, none in bounds if second != none}


@route("GET", "/ops/v1/audit/{id}", Params(owner=OWNER), returns="audit_entry")
async def retrieve(call: Call) -> Answer:
    """Retrieve one entry of the audit trail, with its place in the chain, which is null until a batch has it."""
    _choose_trail(call)
    engine, scope = call.platform.engine, call.caller.scope_key
    entry = await engine.load(scope).get(AuditEntry, call.id, noun="audit entry")
    try:
        found = await place_in_chain(engine.store, scope, entry.id)
    except Unreadable:
        found = None
    place = None
    if found is not None:
        batch, position = found
        place = {"batch": batch.sequence, "position": position, "head": batch.head.hex()}
    return entry_document(entry) | {"place": place}


@route("GET", "/ops/v1/audit_chain", Params(owner=OWNER), returns="audit_chain")
async def chain(call: Call) -> Answer:
    """Compare the newest entries of the audit trail with its chain; `tillway audit verify` compares all of it."""
    _choose_trail(call)
    engine = call.platform.engine
    found = await look_at_end(engine.store, call.caller.scope_key)
    return {
        "object": "audit_chain",
        "checked_at": engine.clock.now_ms() // 1000,
        "compared": found.compared if found is not None else 0,
        "damage": (found.damage or None) if found is not None else None,
        "entries": found.entries if found is not None else 0,
        "head": found.head if found is not None else None,
        "linked_at": found.linked_at if found is not None else None,
        "sequence": found.sequence if found is not None else 0,
    }


def _choose_trail(call: Call) -> None:
    """Note that a trail is read, and turn to the installation's where that is asked for."""
    call.platform.engine.security.trail_read(call.caller)
    if call.params.get("owner") == "installation":
        if not call.caller.whole_installation:
            raise Refused("operator_forbidden", "Only an operator of the whole installation may do this.")
        call.caller = msgspec.structs.replace(call.caller, scope_key=SYSTEM)


@shape(AuditEntry)
def entry_shape(entry: AuditEntry, view: View) -> dict[str, Any]:
    return entry_document(entry)
