"""Pages of the navigation that are not built yet: each says so, and where its data is meanwhile."""

from tillway.web.dashboard.visit import Reply, Shown, Visit, page

ELSEWHERE = {
    "customers": ("Customers", "GET /v1/customers"),
    "balance": ("Balance & payouts", "GET /v1/balance and /ops/v1/balances"),
    "disputes": ("Disputes", "GET /v1/disputes"),
    "doubts": ("Money in doubt", "GET /ops/v1/doubts"),
    "links": ("Payment links", "GET /v1/payment_links"),
    "connectors": ("Connectors", "GET /ops/v1/connectors"),
    "routing": ("Routing", "GET /ops/v1/routing"),
    "developers": ("Developers", "GET /ops/v1/keys"),
    "audit": ("Audit log", "GET /ops/v1/audit"),
    "settings": ("Settings", "GET /v1/account"),
}


def _declare(path: str, title: str, call: str) -> None:
    @page("GET", f"/{path}", place=f"/{path}")
    async def unbuilt(visit: Visit) -> Reply:
        return Shown("unbuilt.html", {"title": title, "call": call})


for _path, (_title, _call) in ELSEWHERE.items():
    _declare(_path, _title, _call)
