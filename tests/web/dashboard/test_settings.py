"""Settings, connectors and the audit log of the installation at the dashboard."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dashboard_shop import DashboardShop
from dashboard_visitor import Visitor, form_of, text
from routed_shop import routed_shop

from tillway.domain.operator import Role
from tillway.testing.in_process import InProcessApp

SECRET = "a-secret-of-the-bank"
FORM = {
    "name": "nordbank",
    "kind": "http_bank",
    "set.base_url": "http://127.0.0.1:9",
    "secret.api_key": SECRET,
    "reason": "Their contract began",
}


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[DashboardShop]:
    app = await InProcessApp.open(tmp_path)
    yield DashboardShop(app, await app.merchant())
    await app.close()


async def test_a_connector_is_added_changed_and_its_secret_is_never_shown(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        admin = await Visitor.signed_in(shop.app, "admin", name="Everywhere")
        page = await admin.get("/dashboard/connectors/new?kind=http_bank")
        assert "Base URL" in text(page) and 'type="password"' in page.body.decode()
        wrong = await admin.submit(page, "/dashboard/connectors", FORM | {"set.base_url": "nowhere"})
        assert wrong.status == 400 and 'aria-invalid="true"' in wrong.body.decode() and "nowhere" in wrong.body.decode()
        assert SECRET not in wrong.body.decode()
        assert (await admin.submit(page, "/dashboard/connectors", FORM)).status == 303
        shown = await admin.get("/dashboard/connectors?of=nordbank")
        assert "Settings of nordbank" in text(shown) and "http://127.0.0.1:9" in text(shown)
        assert "Time-out 15 s Breaker opens after 3 failures in a row, probes after 5 s" in text(shown)
        assert "nordbank Healthy HTTP bank" in text(shown)
        assert "nordbank: added a connector" in text(shown) and "Their contract began" in text(shown)
        place = "/dashboard/connectors/nordbank"
        settings = await admin.get(place)
        assert SECRET not in shown.body.decode() + settings.body.decode()
        same = {"set.base_url": "http://127.0.0.1:9", "secret.api_key": ""}
        changed = await admin.submit(settings, place, same | {"set.timeout_seconds": "3"})
        assert changed.status == 303 and "3" in text(await admin.get(place))
        assert "Time-out 3 s Breaker" in text(await admin.get("/dashboard/connectors?of=nordbank"))
        moved = await admin.submit(settings, place, same | {"set.base_url": "http://127.0.0.1:10"})
        assert moved.status == 400 and "Give this secret again" in text(moved)
        shop.app.clock.ahead_seconds += 301
        asked = await admin.submit(settings, place, same)
        assert asked.status == 200 and "Save" not in text(asked), "a change of a connector takes a fresh proof"
        told = await admin.post(f"{place}/test", form_of(shown, f"{place}/drain"))
        assert "nordbank: " in text(told) and "failed" in text(told)


async def test_a_breaker_is_opened_and_closed_by_hand(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        operator = await Visitor.signed_in(shop.app, "operator", name="Everywhere")
        page = await operator.get("/dashboard/connectors")
        fields = form_of(page, "/dashboard/connectors/b/drain")
        path = "/dashboard/connectors/b/breaker"
        assert (await operator.post(path, fields | {"state": "open", "reason": "They rebuild"})).status == 303
        shown = text(await operator.get("/dashboard/connectors"))
        assert "Held open" in shown and "Close now" in shown
        assert (await operator.post(path, fields | {"state": "closed"})).status == 303
        assert "Held open" not in text(await operator.get("/dashboard/connectors"))
        only = await Visitor.signed_in(shop.app, "operator", shop.merchant.account, name="Only")
        token = form_of(await only.get("/dashboard"), "/dashboard/sign-out")["csrf"]
        assert (await only.post(path, {"csrf": token, "state": "open"})).status == 403
        admin = await Visitor.signed_in(shop.app, "admin", name="Reader")
        log = text(await admin.get("/dashboard/audit?owner=installation"))
        assert "Opened the breaker of b" in log and "Closed the breaker of b" in log and "They rebuild" in log
        assert "The installation" in log and "b: opened the breaker By" in text(
            await admin.get("/dashboard/connectors")
        )


async def test_checkout_has_a_tab_of_its_own(shop: DashboardShop) -> None:
    visitor = await shop.visitor("admin")
    page = await visitor.get("/dashboard/settings/checkout")
    fields = {"brand_colour": "#1f6f8b", "origins": "https://shop.example\nhttps://www.shop.example"}
    assert (await visitor.submit(page, "/dashboard/settings/checkout", fields)).status == 303
    shown = (await visitor.get("/dashboard/settings/checkout")).body.decode()
    assert "#1f6f8b" in shown and "https://www.shop.example" in shown
    merchant = await visitor.get("/dashboard/settings")
    assert (await visitor.submit(merchant, "/dashboard/settings", {"name": "Kettle & Leaf"})).status == 303
    assert "#1f6f8b" in (await visitor.get("/dashboard/settings/checkout")).body.decode(), "other tabs leave it"
    wrong = await visitor.submit(page, "/dashboard/settings/checkout", {"brand_colour": "red"})
    assert wrong.status == 400 and 'aria-invalid="true"' in wrong.body.decode()


async def test_the_limits_of_refunds_and_second_factors_are_settings(tmp_path: Path) -> None:
    limits = {"refund_limit_support": 20, "refund_limit_reauth": 30, "require_second_factor": "everyone"}
    app = await InProcessApp.open(tmp_path, **limits)
    shop = DashboardShop(app, await app.merchant())
    id = await shop.pay(9900)
    action = f"/dashboard/payments/{id}/refund"
    tries: list[tuple[Role, str, int]] = [("support", "20.01", 403), ("support", "20.00", 303)]
    for role, amount, status in (*tries, ("operator", "10.00", 303)):
        visitor = await shop.visitor(role, name=f"{role} {amount}")
        page = await visitor.get(action)
        assert (await visitor.submit(page, action, {"amount": amount, "preview": ""})).status == status, (role, amount)
    admin = await shop.visitor("admin")
    page = await admin.get(action)
    app.clock.ahead_seconds += 301
    asked = await admin.submit(page, action, {"amount": "0.01", "preview": ""})
    assert asked.status == 200 and "Refund" not in text(asked).partition("Skip")[0]
    users = text(await admin.get("/dashboard/settings/users"))
    assert "Refund up to 20.00 USD" in users and "above 30.00 USD" in users
    await app.close()


@pytest.mark.parametrize("everywhere", [True, False])
async def test_the_system_is_for_those_who_run_it_all(shop: DashboardShop, everywhere: bool) -> None:
    visitor = await Visitor.signed_in(shop.app, "admin", *(() if everywhere else (shop.merchant.account,)), name="Ines")
    page = await visitor.get("/dashboard/settings/system")
    assert ("Run the doctor" in text(page)) is everywhere and page.status == 200
    if everywhere:
        assert "Back up now" in text(page) and "This installation" in text(page) and "Outbox" in text(page)
    else:
        token = form_of(page, "/dashboard/sign-out")["csrf"]
        for action in ("doctor", "backup"):
            assert (await visitor.post(f"/dashboard/settings/system/{action}", {"csrf": token})).status == 403


async def test_live_mode_before_its_first_bank_is_a_checklist(shop: DashboardShop) -> None:
    admin = await Visitor.signed_in(shop.app, "admin", name="Ines Castro")
    page = text(await admin.get("/dashboard/live"))
    steps = ("Two people can sign in with a passkey", "Connect a bank", "Make a live key", "Take one euro")
    places = [page.index(step) for step in steps]
    assert places == sorted(places) and "Four things are missing" in page, page
    assert "Before real cards" in page and "PCI DSS" in page and "TLS" in page and "none in live mode yet" in page
    await shop.app.ok(await shop.app.operator("admin", mode="live"), "GET", "/ops/v1/connectors")
    token = form_of(await admin.get("/dashboard/live/developers"), "/dashboard/live/developers")
    made = await admin.post("/dashboard/live/developers", token | {"name": "Shop server", "kind": "secret"})
    assert made.status == 200 and "shown this once" in text(made)
    assert "Three things are missing" in text(await admin.get("/dashboard/live"))
    viewer = await shop.visitor("viewer", name="Viewer")
    seen = text(await viewer.get("/dashboard/live"))
    assert "Connect a bank" in seen and "passkey" not in seen.partition("Before real cards")[0]


async def test_a_connector_tells_its_exchanges_minute_by_minute(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        await shop.pay()
        (told,) = [
            one for one in (await shop.app.ok(shop.merchant, "GET", "/ops/v1/connectors"))["data"] if one["default"]
        ]
        assert len(told["minutes"]) == 60 and sum(one["answered"] for one in told["minutes"][-2:]) == 1
        paid = await shop.pay(capture_method="manual")
        await shop.app.ok(shop.merchant, "POST", f"/v1/payment_intents/{paid.json['id']}/capture")
        visitor = await Visitor.signed_in(shop.app, "viewer", shop.merchant.account, name="Viewer")
        assert "2 payments" in text(await visitor.get("/dashboard/connectors")), "a capture takes no other payment"
        assert (
            "the last hour: 0 of 3 exchanges not answered" in (await visitor.get("/dashboard/connectors")).body.decode()
        )
