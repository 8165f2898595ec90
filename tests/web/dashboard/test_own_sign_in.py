"""Your sign-in: an operator's sessions, password, authenticator and recovery codes."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pyotp
import pytest
from dashboard_visitor import Visitor, form_of, text

from tillway.domain.account import SYSTEM
from tillway.domain.audit import AuditEntry
from tillway.domain.connector_config import ConnectorConfig, setting_owner
from tillway.domain.dashboard import STRONG_SECONDS, DashboardSession
from tillway.domain.operator import Role
from tillway.domain.sign_in_tries import ACCOUNT_TRIES_MAX
from tillway.operations.accounts import system_write
from tillway.operations.operators import new_operator
from tillway.operations.password_sign_ins import NewProofs, new_proofs
from tillway.operations.sealed_fields import SEALED_SECONDS
from tillway.operations.sign_ins import change_session
from tillway.store.walk import records_of
from tillway.testing.in_process import Answer, InProcessApp

SECRET = "a-secret-of-the-bank"
PASSWORD, OTHER = "seven green kettles sing", "nine blue teapots whisper"
EMAIL = "mara@kettleandleaf.example"
SIGN_IN, PAGE = "/dashboard/sign-in", "/dashboard/security"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile/15E148 Safari/604.1"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    app = await InProcessApp.open(tmp_path)
    await app.merchant()
    yield app
    await app.close()


async def person(app: InProcessApp, role: Role = "support", *, second_factor: bool = False) -> NewProofs:
    """An operator with a password."""
    created = app.clock.now_ms() // 1000
    operator = new_operator("Mara Brandt", role, None, created=created)
    vault = app.running.platform.cards.vault
    made = new_proofs(operator, EMAIL, PASSWORD, vault, second_factor=second_factor, created=created)
    await app.store.commit([system_write(operator), system_write(made.proofs)])
    return made


async def enter(app: InProcessApp, password: str = PASSWORD, code: str = "", agent: str = FIREFOX) -> Visitor:
    """A browser that has signed in with a password, and a code if there is one."""
    visitor = Visitor(app)
    answer = await visitor.post(SIGN_IN, {"email": EMAIL, "password": password}, user_agent=agent)
    if code:
        answer = await visitor.post(f"{SIGN_IN}/code", form_of(answer, f"{SIGN_IN}/code") | {"code": code})
    assert answer.status == 303, text(answer)
    return visitor


def code_now(app: InProcessApp, secret: str, later_seconds: int = 0) -> str:
    return pyotp.TOTP(secret).at(app.clock.now_ms() // 1000 + later_seconds)


def wrong_code(app: InProcessApp, secret: str) -> str:
    """Six digits that are no code of about now."""
    right = {code_now(app, secret, 30 * steps) for steps in range(-3, 4)}
    return next(code for code in (f"{number:06}" for number in range(10)) if code not in right)


def secret_on(page: Answer) -> str:
    """The authenticator's secret on the page that shows it."""
    found = re.search(r'data-copy="([A-Z2-7]{32})"', page.body.decode())
    assert found is not None, text(page)
    return found[1]


def codes_on(page: Answer) -> list[str]:
    return re.findall(r'<li class="mono">((?:[0-9a-z]{6}-){3}[0-9a-z]{6})</li>', page.body.decode())


async def operations(app: InProcessApp) -> list[tuple[str, str]]:
    """The operation and the actor of each entry of the audit trail."""
    return [(entry.operation, entry.actor) async for entry in records_of(app.store, SYSTEM, AuditEntry)]


async def let_proofs_age(app: InProcessApp) -> None:
    """Make every session's last proof too old. Keys live by the machine's clock, so this moves none."""
    async for session in records_of(app.store, SYSTEM, DashboardSession):
        await change_session(app.running.platform.engine, session, strong_until=0)


async def test_sessions_are_listed_and_ended(app: InProcessApp) -> None:
    made = await person(app)
    other = await Visitor.signed_in(app, name="Other")
    one, two, three = await enter(app), await enter(app, agent=PHONE), await enter(app)
    home = await one.get("/dashboard")
    assert f'<a class="me" href="{PAGE}">' in home.body.decode()
    page = await one.get(PAGE)
    assert text(page).count("Firefox on Linux") == 2 + 1 and text(page).count("Firefox on Linux, this one") == 1
    assert "Safari on iPhone" in text(page)
    phone = re.search(rf'Safari on iPhone.*?action="({PAGE}/sessions/dss_[0-9a-f]+/end)"', page.body.decode(), re.S)
    assert phone is not None
    assert (await one.submit(page, phone[1])).headers["location"] == PAGE
    assert (await two.get(PAGE)).status == 303 and (await three.get(PAGE)).status == 200
    assert (await other.submit(await other.get(PAGE), "/dashboard/sign-out")).status == 303
    await one.submit(await one.get(PAGE), f"{PAGE}/sessions/end")
    assert (await three.get(PAGE)).status == 303
    alone = await one.get(PAGE)
    assert alone.status == 200 and "End all others" not in text(alone)
    done = await operations(app)
    assert ("dashboard sessions end", made.proofs.operator) in done
    assert ("dashboard sign-out", made.proofs.operator) in done


async def test_nobody_ends_the_session_of_another(app: InProcessApp) -> None:
    await person(app)
    mine, other = await enter(app), await Visitor.signed_in(app, name="Other")
    one = await enter(app)
    place = re.search(rf'action="({PAGE}/sessions/dss_[0-9a-f]+/end)"', (await one.get(PAGE)).body.decode())
    assert place is not None
    csrf = form_of(await other.get(PAGE), "/dashboard/sign-out")
    await other.post(place[1], csrf)
    await other.post(f"{PAGE}/sessions/end", csrf)
    assert [(await each.get(PAGE)).status for each in (mine, one, other)] == [200, 200, 200]


async def test_the_password_is_changed_with_the_present_one(app: InProcessApp) -> None:
    made = await person(app)
    one, two = await enter(app), await enter(app)
    action = f"{PAGE}/password"
    page = await one.get(PAGE)
    assert "The one you have" in text(page)
    wrong = await one.submit(page, action, {"present": "not the password", "password": OTHER})
    assert wrong.status == 422 and "This is not your password." in text(wrong)
    none = await one.submit(page, action, {"password": OTHER})
    assert none.status == 422 and "Enter the password that you have." in text(none)
    weak = await one.submit(page, action, {"present": PASSWORD, "password": "password1234"})
    assert weak.status == 422 and "easily guessed" in text(weak)
    assert (await two.get(PAGE)).status == 200
    changed = await one.submit(page, action, {"present": PASSWORD, "password": OTHER})
    assert changed.status == 200 and "Your password is changed" in text(changed)
    assert (await two.get(PAGE)).status == 303 and (await one.get(PAGE)).status == 200
    assert (await Visitor(app).post(SIGN_IN, {"email": EMAIL, "password": PASSWORD})).status == 401
    await enter(app, OTHER)
    assert ("dashboard password", made.proofs.operator) in await operations(app)


async def test_wrong_passwords_make_an_operator_wait_here_too(app: InProcessApp) -> None:
    await person(app)
    visitor = await enter(app)
    page, action = await visitor.get(PAGE), f"{PAGE}/password"
    for _ in range(ACCOUNT_TRIES_MAX):
        await visitor.submit(page, action, {"present": "not the password", "password": OTHER})
    waits = await visitor.submit(page, action, {"present": PASSWORD, "password": OTHER})
    assert waits.status == 429 and "Wait 15 minutes" in text(waits)


async def test_a_fresh_second_factor_stands_for_the_present_password(app: InProcessApp) -> None:
    made = await person(app, "admin")
    visitor = await enter(app, code=made.recovery_codes[0])
    page = await visitor.get(PAGE)
    assert "The one you have" not in text(page) and "For where no passkey works. Seven of eight recovery codes" in text(
        page
    )
    app.clock.ahead_seconds += STRONG_SECONDS + 1
    late = await visitor.submit(page, f"{PAGE}/password", {"password": OTHER})
    assert late.status == 422 and "The one you have" in text(late)
    again = await enter(app, code=made.recovery_codes[1])
    changed = await again.submit(await again.get(PAGE), f"{PAGE}/password", {"password": OTHER})
    assert changed.status == 200


async def test_an_authenticator_is_switched_on_and_off(app: InProcessApp) -> None:
    made = await person(app)
    visitor = await enter(app)
    begin, confirm = f"{PAGE}/authenticator", f"{PAGE}/authenticator/confirm"
    asked = await visitor.submit(await visitor.get(PAGE), begin)
    assert asked.status == 200 and "Confirm that it is you" in text(asked)
    refused = await visitor.submit(asked, begin, {"proof": "not the password"})
    assert refused.status == 401 and "This is not your password." in text(refused)
    shown = await visitor.submit(refused, begin, {"proof": PASSWORD})
    secret = secret_on(shown)
    assert f"otpauth://totp/Tillway:{EMAIL.replace('@', '%40')}?secret={secret}" in text(shown)
    await enter(app)  # The second factor is not on yet.
    wrong = await visitor.submit(shown, confirm, {"code": wrong_code(app, secret)})
    assert wrong.status == 422 and "This code is wrong" in text(wrong) and secret not in wrong.body.decode()
    on = await visitor.submit(wrong, confirm, {"code": code_now(app, secret)})
    codes = codes_on(on)
    assert on.status == 200 and len(set(codes)) == 8 and "Eight of eight recovery codes" in text(on)
    assert not codes_on(await visitor.get(PAGE)), "shown once"
    await enter(app, code=codes[0])
    row = await app.store.get(f"{SYSTEM}/{made.proofs.id}")
    assert row is not None and secret.encode() not in row.body
    fresh = await visitor.submit(await visitor.get(PAGE), f"{PAGE}/recovery-codes")
    assert len(codes_on(fresh)) == 8 and not set(codes_on(fresh)) & set(codes)
    off = await visitor.submit(fresh, f"{PAGE}/authenticator/off")
    assert off.headers["location"] == PAGE
    await enter(app)
    done = [operation for operation, actor in await operations(app) if actor == made.proofs.operator]
    for operation in ("re-authentication", "authenticator", "recovery codes", "authenticator off"):
        assert f"dashboard {operation}" in done


async def test_new_recovery_codes_need_a_fresh_proof_and_end_the_old_ones(app: InProcessApp) -> None:
    made = await person(app, "admin")
    visitor, action = await enter(app, code=made.recovery_codes[0]), f"{PAGE}/recovery-codes"
    app.clock.ahead_seconds += STRONG_SECONDS + 1
    asked = await visitor.submit(await visitor.get(PAGE), action)
    assert "Six digits from your app, or a recovery code" in text(asked) and not codes_on(asked)
    used = await visitor.submit(asked, action, {"proof": made.recovery_codes[0]})
    assert used.status == 401 and "was used" in text(used)
    shown = await visitor.submit(asked, action, {"proof": made.recovery_codes[1]})
    (first, *_) = codes_on(shown)
    old = Visitor(app)
    page = await old.post(SIGN_IN, {"email": EMAIL, "password": PASSWORD})
    fields = form_of(page, f"{SIGN_IN}/code")
    assert (await old.post(f"{SIGN_IN}/code", fields | {"code": made.recovery_codes[2]})).status == 401
    assert (await old.post(f"{SIGN_IN}/code", fields | {"code": first})).status == 303


async def test_a_role_that_needs_a_second_factor_keeps_it(app: InProcessApp) -> None:
    made = await person(app, "operator")
    visitor = await enter(app, code=made.recovery_codes[0])
    page = await visitor.get(PAGE)
    assert "Switch off" not in text(page) and "Another app" in text(page)
    refused = await visitor.post(f"{PAGE}/authenticator/off", form_of(page, "/dashboard/sign-out"))
    assert refused.status == 403
    await enter(app, code=made.recovery_codes[1])


async def test_without_a_password_the_page_has_a_form_for_the_first_one(app: InProcessApp) -> None:
    visitor = await Visitor.signed_in(app, "viewer", name="By address")
    page = await visitor.get(PAGE)
    assert page.status == 200 and "You have none yet." in text(page)
    app.clock.ahead_seconds += STRONG_SECONDS + 1
    csrf = form_of(page, "/dashboard/sign-out")
    for action in (
        "password",
        "password/first",
        "authenticator",
        "authenticator/confirm",
        "recovery-codes",
        "authenticator/off",
    ):
        answer = await visitor.post(f"{PAGE}/{action}", csrf | {"password": OTHER, "proof": "x"})
        assert answer.status in (200, 303, 403), (action, text(answer))
    assert "tillway operators sign-in NAME" in text(await visitor.post(f"{PAGE}/authenticator", csrf))


async def test_nobody_takes_the_address_that_another_was_invited_with(app: InProcessApp) -> None:
    """Single sign-on would find two operators with it, and let neither in."""
    boss = new_operator("Boss", "admin", None, created=app.clock.now_ms() // 1000, email="boss@shop.example")
    await app.store.commit([system_write(boss)])
    visitor = await Visitor.signed_in(app, "viewer", name="By address")
    csrf = form_of(await visitor.get(PAGE), "/dashboard/sign-out")
    fields = csrf | {"email": "Boss@shop.example", "password": OTHER}
    refused = await visitor.post(f"{PAGE}/password/first", fields)
    assert "Another operator signs in with this address." in text(refused)
    made = await visitor.post(f"{PAGE}/password/first", fields | {"email": "mine@shop.example"})
    assert "You have a password now" in text(made)


async def test_keys_need_a_fresh_proof_and_the_form_is_sent_again(app: InProcessApp) -> None:
    made = await person(app, "admin")
    visitor, action = await enter(app, code=made.recovery_codes[0]), "/dashboard/developers"
    await let_proofs_age(app)
    asked = await visitor.submit(await visitor.get(action), action, {"name": "Tea <house>", "kind": "secret"})
    assert asked.status == 200 and "Confirm that it is you" in text(asked)
    assert "Tea" not in text(await visitor.get(action))
    refused = await visitor.submit(asked, action, {"proof": "abcde-fghij"})
    assert refused.status == 401 and "Tea" not in text(await visitor.get(action))
    shown = await visitor.submit(refused, action, {"proof": made.recovery_codes[1]})
    assert shown.status == 200 and "shown this once" in text(shown) and "Tea <house>" in text(shown)
    place = re.search(r'Tea &lt;house&gt;.*?action="([^"]*/revoke)"', shown.body.decode(), re.DOTALL)
    assert place is not None
    await let_proofs_age(app)
    asked = await visitor.submit(shown, place[1])
    assert asked.status == 200 and "Confirm that it is you" in text(asked)
    secret = re.search(r'data-copy="(sk_test_\w+)"', shown.body.decode())
    assert secret is not None
    assert (await app.call(secret[1], "GET", "/v1/balance")).status == 200, "not revoked yet"
    revoked = await visitor.submit(asked, place[1], {"proof": made.recovery_codes[2]})
    assert revoked.headers["location"] == action
    assert (await app.call(secret[1], "GET", "/v1/balance")).status == 401


async def test_a_payout_to_an_account_that_none_has_reached_needs_a_fresh_proof(app: InProcessApp) -> None:
    merchant = await app.merchant()
    card = {"payment_method": "pm_card_bypassPending", "confirm": "true", "return_url": "https://shop.example"}
    await app.ok(merchant, "POST", "/v1/payment_intents", {"amount": 50_000, "currency": "eur"} | card)
    account = {"object": "bank_account", "country": "DE", "currency": "eur", "account_number": "DE89370400440532013000"}
    path = f"/v1/accounts/{merchant.account}/external_accounts"
    bank = await app.ok(merchant, "POST", path, {"external_account": account})
    made = await person(app, "admin")
    visitor, action = await enter(app, code=made.recovery_codes[0]), "/dashboard/balance/payout"
    await visitor.submit(await visitor.get("/dashboard"), "/dashboard/merchant", {"account": merchant.account})
    app.clock.ahead_seconds += STRONG_SECONDS + 1
    fields = {"currency": "eur", "amount": "100.00", "destination": bank["id"]}
    previewed = await visitor.submit(await visitor.get(action), action, fields)
    asked = await visitor.submit(previewed, action, fields)
    assert "Confirm that it is you" in text(asked)
    assert not (await app.ok(merchant, "GET", "/v1/payouts", {}))["data"]
    paid = await visitor.submit(asked, action, {"proof": made.recovery_codes[1]})
    assert paid.headers["location"].startswith("/dashboard/payouts/po_")
    (payout,) = (await app.ok(merchant, "GET", "/v1/payouts", {}))["data"]
    assert (payout["amount"], payout["destination"]) == (10_000, bank["id"])


async def test_the_page_that_asks_for_a_proof_has_no_secret_of_the_form(app: InProcessApp) -> None:
    made = await person(app, "admin")
    visitor, to = await enter(app, code=made.recovery_codes[0]), "/dashboard/connectors"
    form = {"name": "nordbank", "kind": "http_bank", "set.base_url": "http://127.0.0.1:9", "secret.api_key": SECRET}
    page = await visitor.get(f"{to}/new?kind=http_bank")
    await let_proofs_age(app)
    asked = await visitor.submit(page, to, form)
    assert "Confirm that it is you" in text(asked) and SECRET not in asked.body.decode()
    kept = form_of(asked, to)
    elsewhere = await visitor.post(f"{to}/nordbank", kept)
    assert elsewhere.status == 409 and "open the form again" in text(elsewhere), "sealed for its own form"
    other = await Visitor.signed_in(app, "admin", name="Other")
    csrf = {"csrf": form_of(await other.get("/dashboard"), "/dashboard/sign-out")["csrf"]}
    assert (await other.post(to, kept | csrf)).status == 409, "sealed for its own operator"
    wrong = await visitor.submit(asked, to, {"proof": "abcde-fghij"})
    assert wrong.status == 401 and SECRET not in wrong.body.decode()
    added = await visitor.submit(wrong, to, {"proof": made.recovery_codes[1]})
    assert added.status == 303, text(added)
    (config,) = [one async for one in records_of(app.store, SYSTEM, ConnectorConfig)]
    owner, stored = setting_owner(config.id, "api_key"), config.settings["api_key"]
    assert app.running.platform.cards.vault.open_text(SYSTEM, owner, stored).reveal() == SECRET
    await let_proofs_age(app)
    late = await visitor.submit(await visitor.get(f"{to}/new?kind=http_bank"), to, form | {"name": "other"})
    app.clock.ahead_seconds += SEALED_SECONDS + 1
    refused = await visitor.submit(late, to, {"proof": made.recovery_codes[2]})
    assert refused.status == 409 and "open the form again" in text(refused)
