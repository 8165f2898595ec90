"""Users and roles: an admin invites, changes, resets and disables people, at the page and by the same calls."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dashboard_shop import DashboardShop
from dashboard_visitor import Visitor, form_of, text

from tillway.domain.account import SYSTEM
from tillway.domain.dashboard import DashboardSession
from tillway.operations.accounts import system_write
from tillway.operations.operator_changes import BELONGINGS_MAX
from tillway.operations.sign_ins import change_session
from tillway.store.walk import records_of
from tillway.testing.in_process import Answer, InProcessApp

PAGE, API = "/dashboard/settings/users", "/ops/v1/operators"
PASSWORD = "seven green kettles sing"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[DashboardShop]:
    app = await InProcessApp.open(tmp_path)
    yield DashboardShop(app, await app.merchant())
    await app.close()


def address_on(page: Answer) -> str:
    """The address that signs in on the page that shows it."""
    found = re.search(r'data-copy="(http[^"]*/dashboard/sign-in/\w+)"', page.body.decode())
    assert found is not None, text(page)
    return found[1]


async def known(shop: DashboardShop, name: str) -> Any:
    """An operator as the API has them."""
    listed = await shop.app.ok(shop.merchant.admin_key, "GET", API)
    return next(one for one in listed["data"] if one["name"] == name)


async def let_proofs_age(app: InProcessApp) -> None:
    async for session in records_of(app.store, SYSTEM, DashboardSession):
        await change_session(app.running.platform.engine, session, strong_until=0)


async def invited(shop: DashboardShop, visitor: Visitor, name: str, role: str = "support") -> str:
    """An address that signs a new user of the merchant in."""
    fields = {"name": name, "email": f"{name.lower()}@shop.example", "role": role, "accounts": [shop.merchant.account]}
    return address_on(await visitor.submit(await visitor.get(PAGE), PAGE, fields))


async def test_a_user_is_invited_sets_a_password_and_signs_in_with_it(shop: DashboardShop) -> None:
    mara = await shop.visitor()
    page = await mara.get(PAGE)
    assert "Users and roles" in page.body.decode() and "What each role may do" in text(page)
    address = await invited(shop, mara, "Jonas")
    listed = await mara.get(PAGE)
    assert address not in listed.body.decode(), "shown once"
    assert "Jonas jonas@shop.example Support invited, until" in text(listed)
    jonas = Visitor(shop.app)
    assert (await jonas.post(address)).status == 303 and (await Visitor(shop.app).post(address)).status == 404
    security = await jonas.get("/dashboard/security")
    assert 'value="jonas@shop.example"' in security.body.decode()
    first = "/dashboard/security/password/first"
    weak = await jonas.submit(security, first, {"email": "jonas@shop.example", "password": "password"})
    assert weak.status == 422 and "12 to 256" in text(weak)
    done = await jonas.submit(security, first, {"email": "jonas@shop.example", "password": PASSWORD})
    assert done.status == 200 and "You have a password now" in text(done)
    again = await Visitor(shop.app).post("/dashboard/sign-in", {"email": "jonas@shop.example", "password": PASSWORD})
    assert again.status == 303
    assert "Jonas jonas@shop.example Support password" in text(await mara.get(PAGE))
    everywhere = await Visitor.signed_in(shop.app, "admin", name="Everywhere")
    assert "Invited Jonas as support" in text(await everywhere.get("/dashboard/audit?owner=installation"))


async def test_a_wrong_invitation_comes_back_with_what_was_typed(shop: DashboardShop) -> None:
    mara = await shop.visitor()
    await invited(shop, mara, "Jonas")
    page = await mara.get(PAGE)
    for fields, told in (
        ({"name": "jonas", "role": "viewer"}, "There is an operator jonas already."),
        ({"name": "Li", "email": "li", "role": "viewer"}, "Invalid email"),
        ({"name": "Li", "email": "jonas@shop.example", "role": "viewer"}, "this e-mail address already"),
        ({"name": "", "role": "viewer"}, "name"),
        ({"name": "Li", "role": "king"}, "role"),
    ):
        nowhere = await mara.submit(page, PAGE, fields)
        assert nowhere.status == 422 and "Choose the merchants" in text(nowhere)
        refused = await mara.submit(page, PAGE, fields | {"accounts": [shop.merchant.account]})
        assert refused.status == 400 and told in text(refused), text(refused)
        assert f'value="{fields["name"]}"' in refused.body.decode()


async def test_a_role_is_changed_and_counts_at_once(shop: DashboardShop) -> None:
    mara = await shop.visitor()
    jonas = Visitor(shop.app)
    await jonas.post(await invited(shop, mara, "Jonas", "viewer"))
    id = (await known(shop, "Jonas"))["id"]
    page = await mara.get(f"{PAGE}/{id}")
    assert "Where they are signed in" in text(page) and "Role and merchants" in text(page)
    fields = {"role": "admin", "accounts": [shop.merchant.account], "reason": "She runs the shop now."}
    assert (await mara.submit(page, f"{PAGE}/{id}", fields)).status == 303
    assert (await jonas.get(PAGE)).body.decode().count("Invite</a>") == 1
    trail = await shop.app.ok(shop.merchant.admin_key, "GET", API)
    assert next(one for one in trail["data"] if one["id"] == id)["role"] == "admin"


async def test_sessions_of_a_user_end_one_by_one_and_all_at_once(shop: DashboardShop) -> None:
    mara = await shop.visitor()
    jonas = Visitor(shop.app)
    await jonas.post(await invited(shop, mara, "Jonas"))
    id = (await known(shop, "Jonas"))["id"]
    page = await mara.get(f"{PAGE}/{id}")
    place = re.search(rf'action="({PAGE}/{id}/sessions/dss_[0-9a-f]+/end)"', page.body.decode())
    assert place is not None and (await jonas.get("/dashboard")).status == 200
    assert (await mara.submit(page, place[1])).status == 303
    assert (await jonas.get("/dashboard")).status == 303
    again = Visitor(shop.app)
    shown = await mara.submit(await mara.get(f"{PAGE}/{id}"), f"{PAGE}/{id}/reset")
    await again.post(address_on(shown))
    await mara.submit(await mara.get(f"{PAGE}/{id}"), f"{PAGE}/{id}/sign-out")
    assert (await again.get("/dashboard")).status == 303 and (await known(shop, "Jonas"))["sessions"] == []


async def test_a_reset_ends_all_that_a_user_signs_in_with(shop: DashboardShop) -> None:
    mara = await shop.visitor()
    jonas = Visitor(shop.app)
    await jonas.post(await invited(shop, mara, "Jonas"))
    fields = {"email": "jonas@shop.example", "password": PASSWORD}
    await jonas.submit(await jonas.get("/dashboard/security"), "/dashboard/security/password/first", fields)
    id = (await known(shop, "Jonas"))["id"]
    assert (await known(shop, "Jonas"))["signs_in_with"] == ["password"]
    address_on(await mara.submit(await mara.get(f"{PAGE}/{id}"), f"{PAGE}/{id}/reset"))
    assert (await jonas.get("/dashboard")).status == 303
    assert (await Visitor(shop.app).post("/dashboard/sign-in", fields)).status == 401
    assert (await known(shop, "Jonas"))["signs_in_with"] == []


async def test_a_disabled_user_is_out_until_enabled(shop: DashboardShop) -> None:
    mara = await shop.visitor()
    jonas, address = Visitor(shop.app), await invited(shop, mara, "Jonas")
    await jonas.post(address)
    id = (await known(shop, "Jonas"))["id"]
    assert (await mara.submit(await mara.get(f"{PAGE}/{id}"), f"{PAGE}/{id}/disable")).status == 303
    assert (await jonas.get("/dashboard")).status == 303 and "Disabled" in text(await mara.get(PAGE))
    refused = await shop.app.call(shop.merchant.admin_key, "POST", f"{API}/{id}/reset")
    assert refused.status == 403 and "Enable them first" in refused.json["error"]["message"]
    assert (await mara.submit(await mara.get(f"{PAGE}/{id}"), f"{PAGE}/{id}/enable")).status == 303
    assert (await known(shop, "Jonas"))["status"] == "active"


async def test_the_last_admin_stays(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    merchant = await app.merchant()
    for one in (await app.ok(merchant.admin_key, "GET", API))["data"]:
        if one["role"] == "admin":
            mine = one["id"]
    params: dict[str, Any]
    for action, params in (("/disable", {}), ("", {"role": "viewer"})):
        refused = await app.call(merchant.admin_key, "POST", f"{API}/{mine}{action}", params)
        assert refused.status == 403 and "is the last admin" in refused.json["error"]["message"], refused.body
    everywhere = await app.operator("admin")
    assert (await app.call(everywhere, "POST", f"{API}/{mine}/disable")).status == 200
    rest = (await app.ok(everywhere, "GET", API))["data"]
    last = next(one["id"] for one in rest if one["accounts"] is None)
    for action, params in (("/disable", {}), ("", {"accounts": [merchant.account]})):
        refused = await app.call(everywhere, "POST", f"{API}/{last}{action}", params)
        assert refused.status == 403 and "of the installation" in refused.json["error"]["message"]
    await app.close()


async def test_an_admin_of_one_merchant_has_no_power_over_others(shop: DashboardShop) -> None:
    app, other = shop.app, await shop.app.merchant()
    await app.operator("admin")
    admin, listed = shop.merchant.admin_key, (await app.ok(other.admin_key, "GET", API))["data"]
    own = {one["id"] for one in (await app.ok(admin, "GET", API))["data"]}
    theirs = next(one for one in listed if one["id"] not in own)
    everywhere = next(one for one in listed if one["accounts"] is None)
    for action in ("", "/disable", "/enable", "/reset", "/sign_out"):
        assert (await app.call(admin, "POST", f"{API}/{theirs['id']}{action}")).status == 404
        assert (await app.call(admin, "POST", f"{API}/{everywhere['id']}{action}")).status == 403
    for accounts in ([other.account], ["all"], [shop.merchant.account, other.account]):
        params = {"name": "Li", "role": "viewer", "accounts": accounts}
        assert (await app.call(admin, "POST", API, params)).status == 403
    assert (await app.call(admin, "POST", API, {"name": "Li", "role": "viewer"})).status == 403
    unknown = {"name": "Li", "role": "viewer", "accounts": ["acct_0000000000000000"]}
    assert (await app.call(await app.operator("admin"), "POST", API, unknown)).status == 400


async def test_a_change_of_users_needs_a_fresh_proof_and_gives_a_new_session(shop: DashboardShop) -> None:
    mara = await shop.visitor()
    jonas = Visitor(shop.app)
    await jonas.post(await invited(shop, mara, "Jonas", "support"))
    fields = {"email": "jonas@shop.example", "password": PASSWORD}
    await jonas.submit(await jonas.get("/dashboard/security"), "/dashboard/security/password/first", fields)
    id = (await known(shop, "Jonas"))["id"]
    await shop.app.ok(shop.merchant.admin_key, "POST", f"{API}/{id}", {"role": "admin"})
    await let_proofs_age(shop.app)
    page = await jonas.get(PAGE)
    action = {"name": "Li Wen", "email": "li@shop.example", "role": "viewer", "accounts": [shop.merchant.account]}
    asked = await jonas.submit(page, PAGE, action)
    assert asked.status == 200 and "Confirm that it is you" in text(asked)
    before = dict(jonas.cookies)
    made = await jonas.submit(asked, PAGE, {"accounts": action["accounts"], "proof": PASSWORD})
    assert "Li Wen" in text(made) and address_on(made)
    assert jonas.cookies != before, "a fresh proof gives the session a new id"
    old = Visitor(shop.app)
    old.cookies = before
    assert (await old.get("/dashboard")).status == 303
    token = form_of(made, "/dashboard/sign-out")["csrf"]
    assert token != form_of(page, "/dashboard/sign-out")["csrf"]
    assert (await jonas.get("/dashboard")).status == 200


async def test_an_unused_session_ends_where_the_setting_says_so(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path, session_idle_minutes=30)
    await app.merchant()
    visitor = await Visitor.signed_in(app)
    for _ in range(3):
        app.clock.ahead_seconds += 29 * 60
        assert (await visitor.get("/dashboard/security")).status == 200
    for _ in range(3):  # A page that refreshes itself is no use of it.
        app.clock.ahead_seconds += 11 * 60
        last = await visitor.get("/dashboard/security", sec_fetch_dest="empty")
    assert last.status == 303
    await app.close()


async def test_a_large_refund_needs_a_fresh_proof(shop: DashboardShop) -> None:
    id, visitor = await shop.pay(90_000), await shop.visitor("operator")
    await let_proofs_age(shop.app)
    action = f"/dashboard/payments/{id}/refund"
    form = await visitor.get(action)
    part = await visitor.submit(form, action, {"amount": "500.00", "previewed": "50000"})
    assert part.status == 303
    again = await visitor.get(action)
    asked = await visitor.submit(again, action, {"amount": "1.00", "previewed": "100"})
    assert asked.status == 200 and "Confirm that it is you" in text(asked), "501.00 of one payment"
    assert (await shop.get(f"/v1/payment_intents/{id}"))["amount_received"] == 90_000
    assert [one["amount"] for one in (await shop.get("/v1/refunds"))["data"]] == [50_000]


async def test_a_reset_ends_more_than_one_commit_can(shop: DashboardShop) -> None:
    mara = await shop.visitor()
    jonas = Visitor(shop.app)
    await jonas.post(await invited(shop, mara, "Jonas"))
    fields = {"email": "jonas@shop.example", "password": PASSWORD}
    await jonas.submit(await jonas.get("/dashboard/security"), "/dashboard/security/password/first", fields)
    id = (await known(shop, "Jonas"))["id"]
    mine = [one async for one in records_of(shop.app.store, SYSTEM, DashboardSession) if one.operator == id]
    copies = [msgspec.structs.replace(mine[0], id=f"dss_{place:040x}") for place in range(BELONGINGS_MAX + 5)]
    await shop.app.store.commit([system_write(one) for one in copies])
    address = address_on(await mara.submit(await mara.get(f"{PAGE}/{id}"), f"{PAGE}/{id}/reset"))
    assert (await jonas.get("/dashboard")).status == 303
    assert (await Visitor(shop.app).post("/dashboard/sign-in", fields)).status == 401, "the password has ended too"
    after = await known(shop, "Jonas")
    assert after["sessions"] == [] and after["signs_in_with"] == []
    assert (await Visitor(shop.app).post(address)).status == 303
