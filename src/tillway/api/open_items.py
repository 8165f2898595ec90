"""`/ops/v1/open_items`: accounts of the same money that do not agree, and their clearing by an operator."""

from typing import Any

from tillway.domain.open_item import OpenItem
from tillway.domain.operator import REASON_MAX, check_reason
from tillway.http.lists import keep_equal, list_page
from tillway.http.params import Created, Enum, Params, Text, list_params, pick
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import open_items as operations

LIST = list_params(created=Created(), status=Enum("open", "closed"))
CLOSE = Params(reason=Text(maximum=REASON_MAX))


@route("GET", "/ops/v1/open_items", LIST, returns="list")
async def list_open_items(call: Call) -> Answer:
    """List open items, newest first. `status` selects those that are open or closed."""
    return await list_page(call, "oi", keep=keep_equal(pick(call.params, "status")), noun="open item")


@route("GET", "/ops/v1/open_items/{id}", returns="open_item")
async def retrieve(call: Call) -> Answer:
    """Retrieve an open item."""
    return await call.platform.engine.load(call.caller.scope_key).get(OpenItem, call.id)


@route("POST", "/ops/v1/open_items/{id}/close", CLOSE, returns="open_item", access="operator")
async def close(call: Call) -> Answer:
    """Close an open item after it has been cleared up. Only an operator may, and says how."""
    return await operations.close(call.platform, call.caller, call.id, check_reason(call.params.get("reason")))


@shape(OpenItem, on_wire=False)
def open_item_shape(item: OpenItem, view: View) -> dict[str, Any]:
    return {
        "id": item.id,
        "object": "open_item",
        "amount": item.amount_minor,
        "closed_at": item.closed_at,
        "closed_by": item.closed_by,
        "connector": item.connector,
        "created": item.created,
        "currency": item.currency,
        "kind": item.kind,
        "livemode": view.livemode,
        "notices": [_notice_shape(notice) for notice in item.notices],
        "operation": item.operation,
        "ours": item.ours,
        "reference": item.reference,
        "resolution": item.resolution,
        "status": item.status,
        "subject": item.subject,
        "theirs": item.theirs,
    }


def _notice_shape(notice: dict[str, Any]) -> dict[str, Any]:
    """A word of the provider that the item keeps."""
    outcome = notice.get("outcome")
    return {
        "amount": notice.get("amount_minor"),
        "currency": notice.get("currency"),
        "evidence_due": notice.get("evidence_due"),
        "kind": notice["kind"],
        "reason": notice.get("reason"),
        "reference": notice["id"] if notice["kind"] == "dispute" else notice["reference"],
        "stage": notice.get("stage") if notice["kind"] == "dispute" else None,
        "status": notice.get("verdict") if notice["kind"] == "dispute" else (outcome or {}).get("type", "").lower(),
    }
