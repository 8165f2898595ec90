"""Saved views of a list: filters under a name, which are tabs for everyone at the merchant."""

from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page

PATH = "/ops/v1/views"


@page("POST", "/payments/views", place="/payments")
async def save_view(visit: Visit) -> Reply:
    await visit.check_role("personal", PATH)
    params = {"name": visit.sent("name"), "page": "payments", "query": visit.sent("query")}
    try:
        made = await visit.door.post(PATH, params, reason=f"Saved the view {visit.sent('name')}"[:200])
    except CallRefused as refused:
        if refused.status == 403:
            raise
        return Shown("error.html", {"message": refused.message, "request": refused.request_id}, refused.status)
    return Redirect(f"{visit.url('/payments')}?{made['query']}&view={made['id']}")


@page("POST", "/payments/views/{id}/delete", place="/payments")
async def delete_view(visit: Visit) -> Reply:
    await visit.check_role("personal", PATH)
    await visit.door.delete(f"{PATH}/{visit.id}", reason="Deleted the view")
    return Redirect(visit.url("/payments"))
