"""The audit log at the dashboard: filters, an entry field by field, the state of the chain, and its export."""

import json
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from dashboard_shop import DashboardShop
from dashboard_visitor import Visitor, text
from good_calls import MerchantObjects

from tillway.domain.account import Scope
from tillway.domain.audit import TASK_ID, AuditEntry
from tillway.domain.operator import ROLES, Role
from tillway.engine.audit.chain import AuditChain
from tillway.engine.audit.entries import task_write
from tillway.store.codec import decode, write_of
from tillway.store.port import StorageFull, Write
from tillway.testing.in_process import InProcessApp
from tillway.web.dashboard.visit import PAGES

PAGE = "/dashboard/audit"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[DashboardShop]:
    app = await InProcessApp.open(tmp_path)
    yield DashboardShop(app, await app.merchant())
    await app.close()


async def refunded(shop: DashboardShop) -> str:
    """A payment that Mara refunded in part."""
    visitor, id = await shop.visitor(), await shop.pay()
    action = f"/dashboard/payments/{id}/refund"
    fields = {"amount": "1.01", "preview": "", "why": "The lid arrived chipped"}
    assert (await visitor.submit(await visitor.get(action), action, fields)).status == 303
    return id


class EverythingIsSettled:
    """No commit comes below any id any more."""

    def settled_until(self) -> str:
        return "z"


async def linked(shop: DashboardShop) -> str:
    """Link all entries so far; the merchant's scope."""
    scope, store = Scope(account=shop.merchant.account, mode="test").key, shop.app.store
    if (row := await store.get(f"{scope}/{TASK_ID}")) is None:
        await store.commit([task_write(scope, 0)])
        row = await store.get(f"{scope}/{TASK_ID}")
    assert row is not None
    await AuditChain(store, shop.app.clock, EverythingIsSettled()).run(row)
    return scope


async def test_entries_are_filtered_by_who_what_and_date(shop: DashboardShop) -> None:
    await refunded(shop)
    visitor = await shop.visitor("viewer", name="Tax office")
    assert "Refunded 1.01 EUR" in text(await visitor.get(PAGE))
    await shop.pay(6000, capture_method="manual")
    taken = text(await visitor.get(PAGE))
    assert re.search(r"Reserved a payment of 60\.00 EUR .* Took a payment of [\d.]+ EUR", taken), taken[:2000]
    for query, there in (
        ("who=mara", True),
        ("who=nobody", False),
        ("area=money", True),
        ("area=routing&area=users", False),
        (f"from={datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}", True),
        (f"to={datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}", False),
        ("from=yesterday", True),
    ):
        shown = text(await visitor.get(f"{PAGE}?{query}"))
        assert ("Refunded 1.01 EUR" in shown) is there, query
        assert there or "No entry matches" in shown, query


async def test_an_entry_is_shown_field_by_field_beside_the_list(shop: DashboardShop) -> None:
    payment = await refunded(shop)
    visitor = await shop.visitor("viewer", name="Tax office")
    entries = (await shop.get("/ops/v1/audit", who="Mara", limit=100))["data"]
    made = [(one, change["record"]) for one in entries for change in one["changes"] if change["what"] == "made"]
    entry = next(one for one, record in made if record.startswith("re_"))
    page = await visitor.get(f"{PAGE}/{entry['id']}?who=Mara")
    words = text(page)
    assert "Why “The lid arrived chipped”" in words and "Mara Brandt" in words
    assert "+ After amount_minor 101" in words and "Refund" in words
    assert f"/dashboard/audit/{entry['id']}?who=Mara" in page.body.decode().replace("&amp;", "&"), "the list stays"
    changed = (await shop.get("/ops/v1/audit", record=payment))["data"]
    shown = [text(await visitor.get(f"{PAGE}/{one['id']}")) for one in changed]
    assert any("\N{MINUS SIGN} Before status" in words and "+ After status" in words for words in shown)
    assert any("Open the payment" in words for words in shown)


async def test_an_action_says_how_its_author_had_signed_in(shop: DashboardShop) -> None:
    await refunded(shop)
    (made, *_) = (await shop.get("/ops/v1/audit", who="Mara"))["data"]
    assert made["detail"]["signed_in"] == {"factor": "link", "role": "admin", "browser": ""}
    entry = text(await (await shop.visitor()).get(f"{PAGE}/{made['id']}"))
    assert "Who Mara Brandt, admin, with an address that signs in once" in entry
    assert ", A browser" in entry


@pytest.mark.parametrize("role", ROLES)
async def test_the_navigation_leads_to_the_log_where_the_role_reads_it(shop: DashboardShop, role: Role) -> None:
    visitor = await shop.visitor(role)
    home, there = (await visitor.get("/dashboard")).body.decode(), (await visitor.get(PAGE)).status
    assert (f'<a href="{PAGE}">' in home) is (there == 200)
    assert '<a href="/dashboard/settings/users">' in home


async def test_the_chain_is_compared_and_an_edit_is_named(shop: DashboardShop) -> None:
    await refunded(shop)
    visitor = await shop.visitor("viewer", name="Tax office")
    assert "Not linked yet" in text(await visitor.get(f"{PAGE}/{(await shop.get('/ops/v1/audit'))['data'][0]['id']}"))
    scope = await linked(shop)
    told = await shop.get("/ops/v1/audit_chain")
    assert told["damage"] is None and told["compared"] > 0 and told["sequence"] > 0
    assert "Chain whole, checked " in text(await visitor.get(PAGE))
    (first,) = [one for one in (await shop.get("/ops/v1/audit", who="Mara"))["data"] if "/refunds" in one["operation"]][
        :1
    ]
    place = (await shop.get(f"/ops/v1/audit/{first['id']}"))["place"]
    assert f"In batch {place['batch']} at position {place['position']}" in text(
        await visitor.get(f"{PAGE}/{first['id']}")
    )
    row = await shop.app.store.get(f"{scope}/{first['id']}")
    assert row is not None
    entry = decode(first["id"], row.body)
    assert isinstance(entry, AuditEntry)
    forged = msgspec.structs.replace(entry, hint="Somebody else")
    await shop.app.store.commit([write_of(scope, forged, row.version)])
    told = await shop.get("/ops/v1/audit_chain")
    assert told["damage"] == f"{first['id']} was edited"
    assert f"Chain damaged: {first['id']} was edited" in text(await visitor.get(PAGE))


async def test_the_export_has_what_the_filters_show(shop: DashboardShop) -> None:
    await refunded(shop)
    visitor = await shop.visitor("viewer", name="Tax office")
    whole, some = await visitor.get("/dashboard/audit.jsonl"), await visitor.get("/dashboard/audit.jsonl?who=Mara")
    lines = [json.loads(line) for line in some.body.decode().splitlines()]
    assert lines and all(line["hint"] == "Mara Brandt" for line in lines)
    assert len(whole.body.decode().splitlines()) > len(lines)
    assert 'filename="audit.jsonl"' in some.headers["content-disposition"]
    support = await shop.visitor("support", name="Support")
    assert (await support.get("/dashboard/audit.jsonl")).status == 403


async def test_an_export_is_an_entry_of_the_trail_that_it_exports(shop: DashboardShop) -> None:
    await refunded(shop)
    visitor = await shop.visitor("viewer", name="Tax office")
    first = json.loads((await visitor.get("/dashboard/audit.jsonl?area=money&from=2020-01-01")).body.splitlines()[0])
    assert first["changes"], "the filter leaves the entry about the export out"
    (newest, *_) = (await shop.get("/ops/v1/audit", who="Tax"))["data"]
    assert (newest["operation"], newest["hint"]) == ("POST /ops/v1/audit/exports", "Tax office")
    assert newest["detail"]["export"] == {"area": ["money"], "created": {"gte": 1577836800}}
    assert "Exported the audit log" in text(await visitor.get(PAGE))
    whole = await Visitor.signed_in(shop.app, "admin", name="Ines Castro")
    lines = (await whole.get("/dashboard/audit.jsonl?owner=installation")).body.splitlines()
    assert json.loads(lines[0])["detail"]["export"] == {"owner": "installation"}


async def test_every_csv_is_an_entry_with_who_what_filters_and_rows(shop: DashboardShop) -> None:
    objects = MerchantObjects(shop.app, shop.merchant)
    payment, payout = await shop.pay(9900), await objects.payout()
    await objects.dispute()
    await shop.post("/v1/customers", name="Anna Thal", email="anna@shop.example")
    doubt, delivery, link = await objects.doubt(), await objects.delivery(), (await objects.link())["id"]
    events = {"type": "payment_intent.*", "delivery_success": "false"}
    queries = {
        "/payments.csv": ("payments", "?min=50&status=succeeded", {"amount_min": "50", "state": ["succeeded"]}),
        "/customers.csv": ("customers", "?q=anna@shop.example", {"text": "a***@shop.example"}),
        "/balance.csv": ("balance_transactions", "", {}),
        "/disputes.csv": ("disputes", "?status=need", {"status": ["needs_response", "warning_needs_response"]}),
        "/payouts/{id}/contents.csv": ("payout_transactions", "", {"payout": payout}),
        "/doubts.csv": ("doubts", "", {}),
        "/events.csv": ("events", "?type=payment_intent.*&delivery=waiting", events),
        "/links.csv": ("payment_links", "", {}),
        "/requests.csv": ("requests", "?status=2xx&path=/v1/", {"status": "2xx", "path": "/v1/"}),
        "/webhooks.csv": ("webhook_deliveries", "?status=pending", {"status": "pending"}),
    }
    assert queries.keys() == {page.path for page in PAGES if page.path.endswith(".csv")}
    viewer, admin = await shop.visitor("viewer", name="Tax office"), await shop.visitor()
    for path, (kind, query, filters) in queries.items():
        table = await viewer.get(f"/dashboard{path.replace('{id}', payout)}{query}")
        rows = table.body.decode().splitlines()[1:]
        (newest, *_) = (await shop.get("/ops/v1/audit"))["data"]
        assert (newest["operation"], newest["hint"]) == ("POST /ops/v1/exports", "Tax office")
        assert newest["detail"]["export"] == {"list": kind, "filters": filters, "rows": len(rows)}
        assert newest["detail"]["reason"] == "Exported at the dashboard" and rows, table.body
        shown = {"doubts": doubt, "payment_links": link, "webhook_deliveries": delivery}.get(kind, "")
        assert shown in rows[-1], f"{path} has {shown}: {rows}"
    assert "Exported 1 dispute" in text(await admin.get(PAGE))
    await admin.get(f"/dashboard/payments.csv?id={payment}")
    (newest, *_) = (await shop.get("/ops/v1/audit"))["data"]
    assert newest["detail"]["export"] == {"list": "payments", "filters": {"id": [payment]}, "rows": 1}
    assert f'Filters {{"id":["{payment}"]}}' in text(await admin.get(f"{PAGE}/{newest['id']}"))


async def test_nobody_gets_a_csv_that_the_trail_does_not_name(shop: DashboardShop) -> None:
    await shop.pay(9900)
    visitor, was = await shop.visitor(), shop.app.store.commit
    await visitor.get("/dashboard/payments")

    async def commit(writes: Sequence[Write]) -> None:
        if any("/aud_" in write.key for write in writes):
            raise StorageFull
        await was(writes)

    shop.app.store.commit = commit  # type: ignore[method-assign]
    refused = await visitor.get("/dashboard/payments.csv")
    assert refused.status == 503 and b"pi_" not in refused.body
