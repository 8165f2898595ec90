"""`/ops/v1/audit`: the audit trail of the key's own merchant and mode."""

from typing import Any

from tillway.domain.audit import AuditEntry
from tillway.engine.audit.entries import entry_document
from tillway.engine.ids import made_at
from tillway.http.lists import list_page
from tillway.http.params import Created, Params, Span, Text, list_params
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape

LIST = list_params(actor=Text(maximum=200), created=Created(), record=Text(maximum=200))


@route("GET", "/ops/v1/audit", LIST, returns="list")
async def list_entries(call: Call) -> Answer:
    """List audit entries, newest first. `record` and `actor` select those about one record or by one actor."""
    params = call.params
    call.platform.engine.security.trail_read(call.caller)
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


@route("GET", "/ops/v1/audit/{id}", Params(), returns="audit_entry")
async def retrieve(call: Call) -> Answer:
    """Retrieve one entry of the audit trail."""
    call.platform.engine.security.trail_read(call.caller)
    return await call.platform.engine.load(call.caller.scope_key).get(AuditEntry, call.id, noun="audit entry")


@shape(AuditEntry)
def entry_shape(entry: AuditEntry, view: View) -> dict[str, Any]:
    return entry_document(entry)
