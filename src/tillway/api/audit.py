"""`/ops/v1/audit`: the audit trail of the key's own merchant and mode, or that of the installation."""

from typing import Any

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.audit import AuditEntry
from tillway.domain.refusal import Refused
from tillway.engine.audit.entries import entry_document
from tillway.engine.ids import made_at
from tillway.http.lists import list_page
from tillway.http.params import Created, Enum, Params, Span, Text, list_params
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape

OWNER = Enum("installation", "merchant")
LIST = list_params(actor=Text(maximum=200), created=Created(), owner=OWNER, record=Text(maximum=200))


@route("GET", "/ops/v1/audit", LIST, returns="list")
async def list_entries(call: Call) -> Answer:
    """List audit entries, newest first. `record` and `actor` select those about one record or by one actor.

    With `owner=installation` they are those of keys, operators, settings, connectors and routing, for an operator of
    the whole installation.
    """
    params = call.params
    _choose_trail(call)
    actor, record = params.get("actor"), params.get("record")

    def keep(entry: AuditEntry) -> bool:
        return (actor is None or entry.actor == actor) and (
            record is None or any(change.id == record for change in entry.changes)
        )

    since = made_at(record) if record is not None else None
    if since is not None:
        # No entry about a record is older than the record.
        span: Span = params.get("created") or Span()
        params["created"] = Span(max(span.first, since), span.last)
    filtered = actor is not None or record is not None
    return await list_page(call, "aud", keep=keep if filtered else None, noun="audit entry")


@route("GET", "/ops/v1/audit/{id}", Params(owner=OWNER), returns="audit_entry")
async def retrieve(call: Call) -> Answer:
    """Retrieve one entry of the audit trail."""
    _choose_trail(call)
    return await call.platform.engine.load(call.caller.scope_key).get(AuditEntry, call.id, noun="audit entry")


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
