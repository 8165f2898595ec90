"""Who may see the dashboard: sign-in addresses, sessions, forms that are genuine, and headers."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dashboard_visitor import Visitor, form_of, sign_in_address, text

from tillway.domain.account import SYSTEM
from tillway.domain.dashboard import DashboardSession, session_id
from tillway.engine.audit.records import compare
from tillway.installation import KEY_FILE
from tillway.settings import Settings
from tillway.store.codec import decode, write_of
from tillway.store.port import ABSENT, Row, Unavailable
from tillway.testing.in_process import InProcessApp, MovedClock, ReadableStore
from tillway.vault.keyring import Keyring
from tillway.web.dashboard.app import FIELDS_MAX
from tillway.wiring import assemble

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    app = await InProcessApp.open(tmp_path)
    await app.merchant()
    yield app
    await app.close()


async def test_an_address_signs_in_once(app: InProcessApp) -> None:
    address = await sign_in_address(app, "support", name="Mara Brandt")
    visitor = Visitor(app)
    asked = await visitor.get(address)
    assert asked.status == 200 and "Sign in as Mara Brandt" in text(asked) and not visitor.cookies
    await visitor.get(address)  # To look at it uses nothing up: mail programs look.
    entered = await visitor.post(address)
    assert (entered.status, entered.headers["location"]) == (303, "/dashboard")
    cookie = entered.headers["set-cookie"]
    assert re.fullmatch(r"tillway=[0-9A-Za-z]{43}; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax", cookie)
    home = await visitor.get("/dashboard")
    assert home.status == 200 and "Mara Brandt" in text(home) and "Sign out" in text(home)
    again = await Visitor(app).post(address)
    assert again.status == 404 and "used already" in text(again)


async def test_an_address_ends_after_an_hour(app: InProcessApp) -> None:
    address = await sign_in_address(app, "viewer")
    app.clock.ahead_seconds += 3601
    assert (await Visitor(app).post(address)).status == 404


async def test_without_a_session_nothing_is_shown(app: InProcessApp) -> None:
    for path in ("/dashboard", "/dashboard/payments?status=declined", "/dashboard/live", "/dashboard/payments.csv"):
        sent = await Visitor(app).get(path)
        assert sent.status == 303 and sent.headers["location"].startswith("/dashboard/sign-in") and not sent.body
    shown = await Visitor(app).get("/dashboard/sign-in")
    assert shown.status == 200 and re.search(r"<h1>Sign in", shown.body.decode())
    for label in ("E-mail", "Password"):
        assert f">{label}</label>" in shown.body.decode()
    posted = await Visitor(app).post("/dashboard/payments/pi_1/refund", {"amount": "1.00"})
    assert posted.status == 401 and "Nothing was changed" in text(posted)
    forged = Visitor(app)
    forged.cookies["tillway"] = "0" * 43
    assert (await forged.get("/dashboard")).status == 303


async def test_a_session_ends_at_sign_out_after_twelve_hours_and_with_its_operator(app: InProcessApp) -> None:
    one, two = await Visitor.signed_in(app, name="One"), await Visitor.signed_in(app, name="Two")
    home = await one.get("/dashboard")
    kept = dict(one.cookies)
    out = await one.submit(home, "/dashboard/sign-out")
    assert out.headers["location"] == "/dashboard/sign-in" and "Max-Age=0" in out.headers["set-cookie"]
    one.cookies = kept
    assert (await one.get("/dashboard")).status == 303, "the cookie of a session that was ended is worth nothing"
    assert (await two.get("/dashboard")).status == 200
    app.clock.ahead_seconds += 12 * 3600 + 1
    assert (await two.get("/dashboard")).status == 303


async def test_each_answer_has_the_strict_headers(app: InProcessApp) -> None:
    visitor = await Visitor.signed_in(app)
    for path in ("/dashboard", "/dashboard/payments", "/dashboard/nothing", "/dashboard/live", "/dashboard/sign-in/x"):
        answer = await visitor.get(path)
        headers = answer.headers
        assert headers["content-security-policy"] == POLICY, path
        assert headers["referrer-policy"] == "same-origin" and headers["cache-control"] == "no-store"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        page = answer.body.decode()
        assert (
            " style=" not in page and "<style" not in page and not re.search(r"<script(?! type=\"module\" src=)", page)
        )
        assert not re.search(r"\son\w+=", page)
        for address in re.findall(r'(?:src|href|action)="([^"]*)"', page):
            assert address.startswith(("/", "#")), address


async def test_the_style_and_the_module_are_kept_by_browsers(app: InProcessApp) -> None:
    page = (await Visitor(app).get("/dashboard/sign-in")).body.decode()
    for address in re.findall(r'(?:href|src)="(/dashboard/static/[^"]+)"', page):
        file = await Visitor(app).get(address)
        assert file.status == 200 and "immutable" in file.headers["cache-control"], address
        other = await Visitor(app).get(re.sub("static/[0-9a-f]+", "static/000000000000", address))
        assert other.status == 404


async def test_a_form_must_be_of_this_session_and_of_this_site(app: InProcessApp) -> None:
    one, two = await Visitor.signed_in(app, name="One"), await Visitor.signed_in(app, name="Two")
    home, others = await one.get("/dashboard"), await two.get("/dashboard")
    token = form_of(home, "/dashboard/sign-out")["csrf"]
    assert token != form_of(others, "/dashboard/sign-out")["csrf"]
    for fields, headers in (
        ({}, {}),
        ({"csrf": ""}, {}),
        ({"csrf": form_of(others, "/dashboard/sign-out")["csrf"]}, {}),
        ({"csrf": token}, {"sec_fetch_site": "cross-site"}),
        ({"csrf": token}, {"sec_fetch_site": "same-site"}),
        ({"csrf": token}, {"origin": "https://evil.example"}),
        ({"csrf": token}, {"origin": "null"}),
    ):
        refused = await one.post("/dashboard/sign-out", fields, **headers)
        assert refused.status == 403 and "Nothing was changed" in text(refused), (fields, headers)
    assert (await one.get("/dashboard")).status == 200
    fine = {"sec_fetch_site": "same-origin", "origin": "http://127.0.0.1:8420"}
    assert (await one.post("/dashboard/sign-out", {"csrf": token}, **fine)).status == 303


async def test_a_wrong_password_is_refused_in_the_same_words(app: InProcessApp) -> None:
    wrong = await Visitor(app).post("/dashboard/sign-in", {"email": "ada@example.com", "password": "guess"})
    assert wrong.status == 401 and "E-mail or password is wrong" in text(wrong)
    assert 'value="ada@example.com"' in wrong.body.decode() and "guess" not in wrong.body.decode()


async def test_an_address_with_too_many_fields_is_refused(app: InProcessApp) -> None:
    visitor = await Visitor.signed_in(app)
    refused = await visitor.get(f"/dashboard?{'&'.join(['a=1'] * (FIELDS_MAX + 1))}")
    assert refused.status == 400 and f"at most {FIELDS_MAX} fields" in text(refused)


async def test_the_theme_comes_from_a_cookie_and_leads_back(app: InProcessApp) -> None:
    visitor = await Visitor.signed_in(app)
    page = await visitor.get("/dashboard/payments?status=declined")
    assert "data-theme" not in page.body.decode().partition("<body")[0]
    switched = await visitor.submit(page, "/dashboard/theme", {"theme": "dark"})
    assert switched.headers["location"] == "/dashboard/payments?status=declined"
    assert 'data-theme="dark"' in (await visitor.get("/dashboard")).body.decode().partition("<body")[0]
    forged = await visitor.post("/dashboard/theme", {"theme": "light", "csrf": "0" * 40})
    assert forged.status == 403 and "set-cookie" not in forged.headers
    away = await visitor.submit(page, "/dashboard/theme", {"theme": "dark", "back": "//evil.example"})
    assert away.headers["location"] == "/dashboard"


async def test_a_browser_switches_its_shortcuts_off_and_on(app: InProcessApp) -> None:
    visitor = await Visitor.signed_in(app)
    for shown, value, marked in (("Switch shortcuts off", "off", True), ("Switch shortcuts on", "on", False)):
        page = await visitor.get("/dashboard/security")
        assert shown in text(page)
        switched = await visitor.submit(page, "/dashboard/shortcuts", {"shortcuts": value})
        assert switched.headers["location"] == "/dashboard/security"
        assert ('data-shortcuts="off"' in (await visitor.get("/dashboard")).body.decode()) is marked


async def test_it_can_be_switched_off(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path, dashboard="off")
    assert (await app.send("GET", "/dashboard")).status == 404
    await app.close()


async def test_cookies_need_tls_except_on_this_host(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path, public_url="https://pay.example.com")
    await app.merchant()
    entered = await Visitor(app).post(await sign_in_address(app, "admin"))
    cookie = entered.headers["set-cookie"]
    assert cookie.startswith("__Host-tillway=") and cookie.endswith("; Secure") and "; Path=/;" in cookie
    await app.close()


async def test_sign_ins_stand_in_the_audit_trail(app: InProcessApp) -> None:
    await Visitor.signed_in(app, name="Mara")
    rows = await app.store.query(None, "sys/aud_", limit=10)
    assert any(b"dashboard sign-in" in row.body and b'"factor":"link"' in row.body for row in rows)


async def test_a_session_put_into_the_database_is_named(app: InProcessApp) -> None:
    """Who writes to the database makes an admin's session, or makes a support's session an admin's, and longer."""
    await Visitor.signed_in(app, "support", name="Mara")
    await (await Visitor.signed_in(app, name="Ada")).get("/dashboard")
    assert await _wrong_sessions(app) == {}

    rows = await app.store.query(None, f"{SYSTEM}/dss_", limit=10)
    versions = {row.key: row.version for row in rows}
    sessions = [decode(row.key.partition("/")[2], row.body) for row in rows]
    mara, ada = [one for one in sessions if isinstance(one, DashboardSession)]
    if b"Mara" not in (await app.store.get(f"{SYSTEM}/{mara.operator}")).body:  # type: ignore[union-attr]
        mara, ada = ada, mara
    put_in = msgspec.structs.replace(ada, id=session_id("chosen by a thief"))
    theirs = msgspec.structs.replace(mara, operator=ada.operator)
    longer = msgspec.structs.replace(ada, expires_at=ada.expires_at + 3600)
    await app.store.commit(
        [
            write_of(SYSTEM, put_in, ABSENT),
            *(write_of(SYSTEM, each, versions[f"{SYSTEM}/{each.id}"]) for each in (theirs, longer)),
        ]
    )
    assert await _wrong_sessions(app) == {
        put_in.id: f"{put_in.id} was put in: no sign-in of the trail opened this session",
        mara.id: f"{mara.id} was edited: {mara.operator} signed in, and the session is of {ada.operator}",
        ada.id: f"{ada.id} was edited: the session is too long",
    }


async def _wrong_sessions(app: InProcessApp) -> dict[str, str]:
    """What `tillway audit verify` says of sessions. The test makes operators without an entry."""
    found = (await compare(app.store, SYSTEM)).differences
    return {one.record: one.text for one in found if one.record.startswith("dss_")}


async def test_an_operator_of_several_merchants_switches_between_them(app: InProcessApp) -> None:
    second = await app.merchant()
    visitor = await Visitor.signed_in(app)
    home = await visitor.get("/dashboard")
    assert second.account in home.body.decode()
    await visitor.submit(home, "/dashboard/merchant", {"account": second.account})
    payment = await app.ok(second, "POST", "/v1/payment_intents", {"amount": 500, "currency": "eur"})
    assert payment["id"] in (await visitor.get("/dashboard/payments")).body.decode()
    only = await Visitor.signed_in(app, "viewer", second.account, name="Only")
    assert "Accounts" not in text(await only.get("/dashboard"))
    await only.submit(await only.get("/dashboard"), "/dashboard/merchant", {"account": "acct_other"})
    assert payment["id"] in (await only.get("/dashboard/payments")).body.decode()


async def test_a_form_without_a_session_keeps_what_was_typed(app: InProcessApp) -> None:
    one = await Visitor.signed_in(app, name="One")
    form, home = await one.get("/dashboard/links/new"), await one.get("/dashboard")
    await one.submit(home, "/dashboard/sign-out")
    typed = {"name": "<b>Tea</b>", "amount": "12.50", "currency": "EUR"}
    refused = await one.submit(form, "/dashboard/links/new", typed)
    assert refused.status == 401 and "12.50" in text(refused) and "<b>Tea</b>" in text(refused)
    early = await one.submit(refused, "/dashboard/again")
    assert early.status == 401 and "12.50" in text(early), "not signed in yet: it is kept on"
    assert (
        await one.post("/dashboard/again", {"kept_to": "//evil.example"}, origin="https://evil.example")
    ).status == 403
    two = await Visitor.signed_in(app, name="Two")
    again = await two.submit(early, "/dashboard/again")
    assert again.status == 200 and "You are signed in as Two" in text(again)
    made = await two.submit(again, "/dashboard/links/new")
    assert made.status == 303 and "12.50" in text(await two.get(made.headers["location"]))
    stray = await two.post("/dashboard/again", {"kept_to": "//evil.example", "password": "secret words"})
    assert "evil.example" not in stray.body.decode() and "secret words" not in stray.body.decode()


class StoreInReach(ReadableStore):
    """A store that can be out of reach."""

    away = False

    async def get(self, key: str) -> Row | None:
        self._reach()
        return await super().get(key)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Row]:
        self._reach()
        return await super().get_many(keys)

    async def query(self, index: str | None, partition: str, **more: Any) -> list[Row]:
        self._reach()
        return await super().query(index, partition, **more)

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("the store is away")


async def test_while_the_database_is_away_the_last_page_is_shown_dimmed(tmp_path: Path) -> None:
    Keyring.create(tmp_path / KEY_FILE)
    store, clock = StoreInReach(), MovedClock()
    app = InProcessApp(await assemble(Settings(data_dir=tmp_path), store, clock), store, clock)
    await app.merchant()
    one, two = await Visitor.signed_in(app, name="One"), await Visitor.signed_in(app, name="Two")
    assert "No payment matches" in text(await one.get("/dashboard/payments?status=declined"))
    store.away = True
    shown = await one.get("/dashboard/payments?status=declined")
    assert shown.status == 503 and '<html class="stale"' in shown.body.decode()
    assert re.search(r"what was here at \d\d:\d\d:\d\d UTC", text(shown)) and "No payment matches" in text(shown)
    for other in (await one.get("/dashboard/payments"), await two.get("/dashboard/payments?status=declined")):
        assert other.status == 503 and "No payment matches" not in text(other), "another page, or another person's"
        assert "Try now See the checks" in text(other)
    assert "Try now See the checks" in text(shown)
    checks = ""
    async with asyncio.timeout(30):  # The answer of before holds for a second.
        while "The store does not answer" not in checks:
            checks = text(await one.get("/dashboard/settings/system"))
            await asyncio.sleep(0.05)
    assert "See the checks" not in checks
    store.away = False
    home = await one.get("/dashboard/payments?status=declined")
    assert home.status == 200 and "what was here" not in text(home)
    await one.submit(home, "/dashboard/sign-out")
    store.away = True
    assert "No payment matches" not in text(await one.get("/dashboard/payments?status=declined"))
    await app.close()


async def test_while_the_database_is_away_a_form_keeps_what_was_typed(tmp_path: Path) -> None:
    Keyring.create(tmp_path / KEY_FILE)
    store, clock = StoreInReach(), MovedClock()
    app = InProcessApp(await assemble(Settings(data_dir=tmp_path), store, clock), store, clock)
    await app.merchant()
    one = await Visitor.signed_in(app, name="One")
    action = "/dashboard/links/new"
    form = await one.get(action)
    store.away = True
    refused = await one.submit(form, action, {"name": "<b>Tea</b>", "amount": "12.50", "currency": "EUR"})
    words = text(refused)
    assert refused.status == 503 and "12.50" in words and "<b>Tea</b>" in words and "it is done once" in words
    assert "new payments are refused too" in words and "req_" in words
    early = await one.submit(refused, "/dashboard/again")
    assert early.status == 503 and "12.50" in text(early), "still away: it is kept on"
    store.away = False
    again = await one.submit(early, "/dashboard/again")
    assert again.status == 200 and "this page has changed nothing" in text(again)
    places = {(await one.submit(again, action)).headers["location"] for _ in range(2)}
    assert len(places) == 1 and "12.50" in text(await one.get(places.pop()))
    store.away = True
    entering = await Visitor(app).post("/dashboard/sign-in", {"email": "one@shop.example", "password": "secret words"})
    assert entering.status == 503 and "secret words" not in entering.body.decode()
    foreign = await one.submit(form, action, {"name": "Tea"}, origin="https://evil.example")
    assert foreign.status == 403 and "Tea" not in text(foreign)
    await app.close()


async def test_a_form_of_one_merchant_does_nothing_at_another(app: InProcessApp) -> None:
    merchants, mine = [await app.merchant() for _ in range(2)], await app.operator("admin")
    visitor = await Visitor.signed_in(app)
    form, home = await visitor.get("/dashboard/links/new"), await visitor.get("/dashboard")
    # Merchants are in the order of their ids, which those of one second have by chance.
    first = form_of(form, "/dashboard/links/new")["merchant"]
    second = next(merchant for merchant in merchants if merchant.account != first)
    await visitor.submit(home, "/dashboard/merchant", {"account": second.account})
    typed = {"name": "Tea", "amount": "12.50", "currency": "EUR"}
    refused = await visitor.submit(form, "/dashboard/links/new", typed)
    assert refused.status == 409 and "choose the merchant at the top" in text(refused)
    fresh = await visitor.get("/dashboard/links/new")
    await visitor.submit(home, "/dashboard/sign-out")
    kept = await visitor.submit(fresh, "/dashboard/links/new", typed)
    # The new session begins at the first merchant: what was typed for the second one is not done there.
    two = await Visitor.signed_in(app, name="Two")
    again = await two.submit(kept, "/dashboard/again")
    assert (await two.submit(again, "/dashboard/links/new")).status == 409
    for merchant in (first, second.account):
        assert (await app.ok(mine, "GET", "/v1/payment_links", tillway_account=merchant))["data"] == []
    await two.submit(await two.get("/dashboard"), "/dashboard/merchant", {"account": second.account})
    assert (await two.submit(again, "/dashboard/links/new")).status == 303


async def test_only_its_own_addresses_lead_to_the_dashboard(app: InProcessApp) -> None:
    visitor = await Visitor.signed_in(app)
    assert (await visitor.get("/dashboard/payments")).status == 200
    for path in ("/dashboardpayments", "/dashboardx", "/dashboard.html"):
        assert (await visitor.get(path)).status == 404, path


async def test_a_form_with_a_file_is_not_sent_again_without_it(app: InProcessApp) -> None:
    typed = {"uncategorized_text": "The parcel was signed for.", "do": "send"}
    refused = await Visitor(app).post_file("/dashboard/disputes/du_1", typed, "receipt", "r.png", b"\x89PNG")
    assert refused.status == 401 and "The parcel was signed for." in text(refused)
    assert "Files are not kept" in text(refused) and "/dashboard/again" not in refused.body.decode()
