"""Sign in with a password and a second factor, as a browser without JavaScript does it."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pyotp
import pytest
from dashboard_visitor import Visitor, form_of, text

from tillway.domain.account import SYSTEM
from tillway.domain.operator import Operator, Role
from tillway.domain.refusal import Refused
from tillway.domain.sign_in_proofs import SignInProofs
from tillway.domain.sign_in_tries import ACCOUNT_TRIES_MAX, ADDRESS_TRIES_MAX, WINDOW_SECONDS
from tillway.operations.accounts import system_write
from tillway.operations.operators import new_operator
from tillway.operations.password_sign_ins import CHECKS_AT_ONCE, NewProofs, new_proofs
from tillway.operations.sign_in_tries import count_try
from tillway.store.codec import decode
from tillway.testing.in_process import Answer, InProcessApp

PASSWORD = "seven green kettles sing"
EMAIL = "Mara@kettleandleaf.example"
SIGN_IN, CODE = "/dashboard/sign-in", "/dashboard/sign-in/code"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    app = await InProcessApp.open(tmp_path)
    await app.merchant()
    yield app
    await app.close()


async def person(app: InProcessApp, role: Role, *, second_factor: bool = False) -> NewProofs:
    """An operator with a password."""
    created = app.clock.now_ms() // 1000
    operator = new_operator("Mara Brandt", role, None, created=created)
    vault = app.running.platform.cards.vault
    made = new_proofs(operator, EMAIL, PASSWORD, vault, second_factor=second_factor, created=created)
    await app.store.commit([system_write(operator), system_write(made.proofs)])
    return made


def code_of(app: InProcessApp, made: NewProofs, later_seconds: int = 0) -> str:
    """The code that an authenticator shows, made from the address that it was given."""
    secret = parse_qs(urlsplit(made.address).query)["secret"][0]
    return pyotp.TOTP(secret).at(app.clock.now_ms() // 1000 + later_seconds)


async def enter(visitor: Visitor, password: str = PASSWORD, email: str = EMAIL) -> Answer:
    return await visitor.post(SIGN_IN, {"email": email, "password": password})


async def test_support_signs_in_with_a_password_alone(app: InProcessApp) -> None:
    made = await person(app, "support")
    assert made.address == "" and made.proofs.totp == ""
    visitor = Visitor(app)
    entered = await enter(visitor, email=EMAIL.lower())
    assert (entered.status, entered.headers["location"]) == (303, "/dashboard")
    assert "Mara Brandt" in text(await visitor.get("/dashboard"))


@pytest.mark.parametrize(
    ("asked", "leads_to"),
    [
        ("/dashboard/payments?status=declined&q=a%20b", None),
        ("/dashboard/live/audit/aud_1", None),
        ("https://thief.example/dashboard", "/dashboard"),
        ("//thief.example", "/dashboard"),
        ("/dashboard.thief.example", "/dashboard"),
        ("/dashboard/../v1/balance", "/dashboard"),
        ("/dashboard/%2e%2e/v1/balance", "/dashboard"),
        ("/dashboard\\..\\x", "/dashboard"),
        ("/dashboard/\r\nset-cookie: a=b", "/dashboard"),
        ("/v1/balance", "/dashboard"),
    ],
)
async def test_a_sign_in_leads_to_the_page_that_was_asked_for(
    app: InProcessApp, asked: str, leads_to: str | None
) -> None:
    """By password and code, also after a wrong try of each; never to another site or outside the dashboard."""
    made, visitor = await person(app, "admin"), Visitor(app)
    if leads_to is None:
        sent = await visitor.get(asked)
        assert (sent.status, parse_qs(urlsplit(sent.headers["location"]).query)["next"]) == (303, [asked])
    page = await visitor.get(f"{SIGN_IN}?{urlencode({'next': asked})}")
    wrong = await visitor.submit(page, SIGN_IN, {"email": EMAIL, "password": "not this one"})
    code = await visitor.submit(wrong, SIGN_IN, {"email": EMAIL, "password": PASSWORD})
    again = await visitor.submit(code, f"{SIGN_IN}/code", {"code": "000000"})
    entered = await visitor.submit(again, f"{SIGN_IN}/code", {"code": made.recovery_codes[0]})
    assert (entered.status, entered.headers["location"]) == (303, leads_to or asked)
    assert (await visitor.get(f"{SIGN_IN}?{urlencode({'next': asked})}")).headers["location"] == (leads_to or asked)


async def test_an_admin_needs_a_code_and_a_code_is_good_once(app: InProcessApp) -> None:
    made = await person(app, "admin")
    visitor = Visitor(app)
    page = await enter(visitor)
    assert page.status == 200 and "Enter the code from your app" in text(page) and EMAIL in text(page)
    assert not visitor.cookies and (await visitor.get("/dashboard")).status == 303
    ticket = form_of(page, CODE)
    wrong = await visitor.post(CODE, {**ticket, "code": "000000" if code_of(app, made) != "000000" else "000001"})
    assert wrong.status == 401 and "This code is wrong" in text(wrong) and form_of(wrong, CODE) == ticket
    used = code_of(app, made)  # A slow machine comes into the next half minute.
    right = await visitor.post(CODE, {**ticket, "code": used})
    assert (right.status, right.headers["location"]) == (303, "/dashboard")
    assert (await visitor.get("/dashboard")).status == 200
    other = Visitor(app)
    again = await other.post(CODE, {**form_of(await enter(other), CODE), "code": used})
    assert again.status == 401, "the code was used"
    ahead = code_of(app, made, 30)
    later = await other.post(CODE, {**form_of(again, CODE), "code": ahead})
    assert later.status == 303, "the next step's code, of a clock that is a little ahead"
    assert (await Visitor(app).post(CODE, {**ticket, "code": ahead})).status == 401


async def test_a_recovery_code_is_good_once(app: InProcessApp) -> None:
    made = await person(app, "operator")
    assert len(made.recovery_codes) == len(set(made.recovery_codes)) == 8
    assert all(re.fullmatch(r"([a-z0-9]{6}-){3}[a-z0-9]{6}", code) for code in made.recovery_codes)
    for expected in (303, 401):
        visitor = Visitor(app)
        form = await enter(visitor)
        fields = form_of(form, CODE) | {"code": made.recovery_codes[3].upper().replace("-", " ")}
        longest = re.search(rb'name="code"[^>]*maxlength="([0-9]+)"', form.body)
        assert longest is not None and len(fields["code"]) <= int(longest[1])
        assert (await visitor.post(CODE, fields)).status == expected


async def test_the_page_with_the_code_ends(app: InProcessApp) -> None:
    made = await person(app, "admin")
    visitor = Visitor(app)
    ticket = form_of(await enter(visitor), CODE)
    app.clock.ahead_seconds += 301
    assert (await visitor.post(CODE, {**ticket, "code": code_of(app, made)})).status == 401


async def test_wrong_tries_make_an_account_wait_whether_it_is_known_or_not(app: InProcessApp) -> None:
    await person(app, "support")
    for number in range(ACCOUNT_TRIES_MAX + 1):
        wrong = await enter(Visitor(app), "not the password")
        unknown = await enter(Visitor(app), "not the password", "nobody@kettleandleaf.example")
        assert wrong.status == unknown.status == (401 if number < ACCOUNT_TRIES_MAX else 429)
        assert text(wrong) == text(unknown)
        assert ("E-mail or password is wrong." in text(wrong)) is (number < ACCOUNT_TRIES_MAX)
        if number == 1:
            assert "After 3 more tries this waits 15 minutes." in text(wrong)
    waits = await enter(Visitor(app))
    assert waits.status == 429 and "Wait 15 minutes" in text(waits), "not even the right one"
    app.clock.ahead_seconds += WINDOW_SECONDS
    assert (await enter(Visitor(app))).status == 303


async def test_an_address_with_many_wrong_tries_waits(app: InProcessApp) -> None:
    await person(app, "support")
    # The others of these tries are counted without their passwords, each of which takes a tenth of a second.
    for number in range(ADDRESS_TRIES_MAX - 1):
        await count_try(app.running.platform.engine, email=f"guess{number}@shop.example", source="127.0.0.1")
    assert (await enter(Visitor(app), email="guess@shop.example")).status == 401
    assert (await enter(Visitor(app))).status == 429
    app.clock.ahead_seconds += WINDOW_SECONDS
    assert (await enter(Visitor(app))).status == 303


async def test_a_right_password_takes_the_tries_back(app: InProcessApp) -> None:
    await person(app, "support")
    for _ in range(2):
        for _ in range(ACCOUNT_TRIES_MAX - 1):
            await count_try(app.running.platform.engine, email=EMAIL, source="127.0.0.1")
        assert (await enter(Visitor(app))).status == 303


async def test_passwords_that_come_together_are_tried_no_more_often(app: InProcessApp) -> None:
    await person(app, "support")
    answers = await asyncio.gather(
        *(enter(Visitor(app), f"not the password {n}") for n in range(ACCOUNT_TRIES_MAX + 3))
    )
    assert sorted(one.status for one in answers) == [401] * ACCOUNT_TRIES_MAX + [429] * 3
    checking = [thread for thread in threading.enumerate() if thread.name.startswith("password")]
    assert 0 < len(checking) <= CHECKS_AT_ONCE


async def test_codes_that_come_together_are_tried_no_more_often(app: InProcessApp) -> None:
    made = await person(app, "admin")
    visitor, right = Visitor(app), {code_of(app, made, later) for later in (-30, 0, 30, 60)}
    ticket = form_of(await enter(visitor), CODE)
    wrong = [code for code in map(str, range(100_000, 100_020)) if code not in right][: ACCOUNT_TRIES_MAX + 3]
    answers = await asyncio.gather(*(Visitor(app).post(CODE, {**ticket, "code": code}) for code in wrong))
    assert sorted(one.status for one in answers) == [401] * ACCOUNT_TRIES_MAX + [429] * 3
    waits = await visitor.post(CODE, {**ticket, "code": code_of(app, made)})
    assert waits.status == 429, "not even the right one"


async def test_the_password_takes_no_wrong_codes_back(app: InProcessApp) -> None:
    """Who has the password could guess codes without end, with the password again after every fourth."""
    made = await person(app, "admin")
    visitor, right = Visitor(app), {code_of(app, made, later) for later in (-30, 0, 30, 60)}
    wrong = [code for code in map(str, range(100_000, 100_020)) if code not in right][:ACCOUNT_TRIES_MAX]
    for code in wrong:
        page = await enter(visitor)
        assert page.status == 200
        assert (await visitor.post(CODE, {**form_of(page, CODE), "code": code})).status == 401
    assert (await enter(visitor)).status == 429
    app.clock.ahead_seconds += WINDOW_SECONDS
    ticket = form_of(await enter(visitor), CODE)
    assert (await visitor.post(CODE, {**ticket, "code": code_of(app, made)})).status == 303


async def test_a_role_that_grew_needs_a_second_factor_first(app: InProcessApp) -> None:
    made = await person(app, "support")
    row = await app.store.get(f"{SYSTEM}/{made.proofs.operator}")
    assert row is not None
    operator = decode(made.proofs.operator, row.body)
    assert isinstance(operator, Operator)
    grown = Operator(id=operator.id, created=operator.created, name=operator.name, role="admin")
    await app.store.commit([system_write(grown, row.version)])
    assert (await enter(Visitor(app))).status == 401


async def test_the_store_has_no_password_and_no_code(app: InProcessApp) -> None:
    made = await person(app, "admin")
    row = await app.store.get(f"{SYSTEM}/{made.proofs.id}")
    assert row is not None and b"$argon2id$v=19$m=65536,t=3,p=4$" in row.body
    secret = parse_qs(urlsplit(made.address).query)["secret"][0]
    for hidden in (PASSWORD, secret, *made.recovery_codes):
        assert hidden.encode() not in row.body
    assert isinstance(decode(made.proofs.id, row.body), SignInProofs)


@pytest.mark.parametrize(
    ("password", "says"),
    [
        ("too short", "12 to 256"),
        ("x" * 257, "12 to 256"),
        ("password1234", "easily guessed"),
        ("abababababab", "easily guessed"),
        ("mara-mara-brandt", "easily guessed"),
    ],
)
async def test_a_password_that_is_easily_guessed_is_refused(app: InProcessApp, password: str, says: str) -> None:
    operator = new_operator("Mara", "support", None, created=1)
    with pytest.raises(Refused, match=says):
        vault = app.running.platform.cards.vault
        new_proofs(operator, "brandt@shop.example", password, vault, second_factor=False, created=1)
