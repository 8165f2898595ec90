"""`/ops/v1/views`: filters of a list under a name, the tabs of the dashboard."""

from typing import Any

from tillway.domain.saved_view import NAME_MAX, QUERY_MAX, SavedView
from tillway.http.lists import list_page
from tillway.http.params import Enum, Params, Text, list_params
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import saved_views

SAVE = Params(
    name=Text(maximum=NAME_MAX, required=True),
    page=Enum("payments", required=True),
    query=Text(maximum=QUERY_MAX, required=True),
)


@route("GET", "/ops/v1/views", list_params(), returns="list")
async def list_views(call: Call) -> Answer:
    """List the merchant's saved views, newest first."""
    return await list_page(call, "view", noun="view")


@route("POST", "/ops/v1/views", SAVE, returns="view")
async def save(call: Call) -> Answer:
    """Save filters of a list under a name, for everyone at the merchant: `status=declined&min=200.00`.

    No filter that names a person can be saved, and there are at most 20 views.
    """
    params = call.params
    return await saved_views.save(call.platform, call.caller, params["name"], params["page"], params["query"])


@route("DELETE", "/ops/v1/views/{id}", returns="deleted_view")
async def delete(call: Call) -> Answer:
    """Delete a saved view."""
    await saved_views.delete(call.platform, call.caller, call.id)
    return {"id": call.id, "object": "view", "deleted": True}


@shape(SavedView, on_wire=False)
def view_shape(saved: SavedView, view: View) -> dict[str, Any]:
    return {
        "id": saved.id,
        "object": "view",
        "created": saved.created,
        "livemode": view.livemode,
        "name": saved.name,
        "page": saved.page,
        "query": saved.query,
        "saved_by": saved.by or None,
    }
