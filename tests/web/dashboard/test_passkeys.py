"""Passkeys: which answers of browsers are taken, and which are not."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_visitor import Visitor, form_of, text
from soft_passkey import SoftPasskey

from tillway.domain.account import SYSTEM
from tillway.domain.dashboard import DashboardSession
from tillway.domain.passkey import CHALLENGE_SECONDS
from tillway.operations.sign_ins import change_session
from tillway.store.walk import records_of
from tillway.testing.in_process import Answer, InProcessApp

PAGE, SIGN_IN = "/dashboard/security", "/dashboard/sign-in/passkey"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    app = await InProcessApp.open(tmp_path, public_url="http://localhost:8420")
    await app.merchant()
    yield app
    await app.close()


async def add(visitor: Visitor, passkey: SoftPasskey, name: str = "Laptop") -> Answer:
    begun = await visitor.submit(await visitor.get(PAGE), f"{PAGE}/passkeys/add", {"name": name})
    answer = passkey.register((await visitor.get(f"{PAGE}/passkeys/new")).json)
    return await visitor.submit(begun, f"{PAGE}/passkeys", {"passkey": answer})


async def with_passkey(app: InProcessApp, name: str = "Mara") -> tuple[Visitor, SoftPasskey]:
    """A browser of an admin who has a passkey."""
    visitor, passkey = await Visitor.signed_in(app, name=name), SoftPasskey()
    added = await add(visitor, passkey)
    assert added.status == 200 and "The passkey Laptop is added" in text(added)
    return visitor, passkey


async def options(visitor: Visitor) -> Any:
    return (await visitor.get(SIGN_IN)).json


async def test_a_passkey_signs_in_as_both_factors_and_once_for_each_challenge(app: InProcessApp) -> None:
    _, passkey = await with_passkey(app)
    visitor = Visitor(app)
    answer = passkey.sign(await options(visitor))
    entered = await visitor.post(SIGN_IN, {"passkey": answer})
    assert (entered.status, entered.headers["location"]) == (303, "/dashboard")
    assert "by passkey since" in text(await visitor.get(PAGE))
    again = await Visitor(app).post(SIGN_IN, {"passkey": answer, "next": "/dashboard/audit"})
    assert again.status == 401 and "This passkey is not known here." in text(again)
    assert form_of(again, SIGN_IN)["next"] == "/dashboard/audit"
    onward = await Visitor(app).post(
        SIGN_IN, {"passkey": passkey.sign(await options(visitor)), "next": "/dashboard/audit"}
    )
    assert onward.headers["location"] == "/dashboard/audit"
    passkey.count -= 1
    assert (await Visitor(app).post(SIGN_IN, {"passkey": passkey.sign(await options(visitor))})).status == 401


async def test_answers_of_other_sites_times_and_purposes_are_refused(app: InProcessApp) -> None:
    mara, passkey = await with_passkey(app)
    visitor, asked = Visitor(app), await options(Visitor(app))
    passkey.origin = "https://evil.example"
    assert (await visitor.post(SIGN_IN, {"passkey": passkey.sign(asked)})).status == 401
    passkey.origin, passkey.site = "http://localhost:8420", "evil.example"
    assert (await visitor.post(SIGN_IN, {"passkey": passkey.sign(asked)})).status == 401
    passkey.site, passkey.verifies = "localhost", False
    assert (await visitor.post(SIGN_IN, {"passkey": passkey.sign(asked)})).status == 401
    passkey.verifies = True
    for other in ("passkeys/prove", "passkeys/new"):
        foreign = (await mara.get(f"{PAGE}/{other}")).json
        assert (await visitor.post(SIGN_IN, {"passkey": passkey.sign(foreign)})).status == 401
    made_up = {"challenge": "A" * 75}
    assert (await visitor.post(SIGN_IN, {"passkey": passkey.sign(made_up)})).status == 401
    for malformed in ("", "x", "[]", "{}", '{"id":1}', '{"response":{}}', "[" * 5000):
        assert (await visitor.post(SIGN_IN, {"passkey": malformed})).status == 401, malformed[:20]
    stranger = SoftPasskey()
    stranger.user = passkey.user
    assert (await visitor.post(SIGN_IN, {"passkey": stranger.sign(asked)})).status == 401
    stranger.id = passkey.id
    assert (await visitor.post(SIGN_IN, {"passkey": stranger.sign(asked)})).status == 401, "another key"
    late = passkey.sign(asked)
    app.clock.ahead_seconds += CHALLENGE_SECONDS
    assert (await visitor.post(SIGN_IN, {"passkey": late})).status == 401
    assert (await visitor.post(SIGN_IN, {"passkey": passkey.sign(await options(visitor))})).status == 303


async def test_a_passkey_proves_again_and_only_ones_own(app: InProcessApp) -> None:
    mara, passkey = await with_passkey(app)
    _, others = await with_passkey(app, "Jonas")
    place = re.search(rf'action="({PAGE}/passkeys/dpk_[0-9a-f]+/remove)"', (await mara.get(PAGE)).body.decode())
    assert place is not None
    assert (await add(mara, SoftPasskey(), "Phone")).status == 200
    async for session in records_of(app.store, SYSTEM, DashboardSession):
        await change_session(app.running.platform.engine, session, strong_until=0)
    asked = await mara.submit(await mara.get(PAGE), place[1])
    assert asked.status == 200 and "Use a passkey" in text(asked) and "data-passkey" in asked.body.decode()
    prove = (await mara.get(f"{PAGE}/passkeys/prove")).json
    refused = await mara.submit(asked, place[1], {"passkey": others.sign(prove)})
    assert refused.status == 401 and "This passkey is not yours." in text(refused)
    assert (await mara.submit(asked, place[1], {"passkey": passkey.sign(prove)})).status == 303
    assert place[1] not in (await mara.get(PAGE)).body.decode()
    assert (await Visitor(app).post(SIGN_IN, {"passkey": passkey.sign(await options(mara))})).status == 401


async def test_a_passkey_is_added_once_after_a_fresh_proof_and_never_anothers_removed(app: InProcessApp) -> None:
    mara, passkey = await with_passkey(app)
    jonas, _ = await with_passkey(app, "Jonas")
    twice = await add(mara, passkey, "Again")
    assert twice.status == 422 and "no passkey that can be used here" in text(twice)
    ids = [one.id async for one in records_of(app.store, SYSTEM, DashboardSession)]
    assert len(ids) == 2
    keys = re.findall(rf'action="({PAGE}/passkeys/dpk_[0-9a-f]+/remove)"', (await mara.get(PAGE)).body.decode())
    assert len(keys) == 1
    token = form_of(await jonas.get(PAGE), "/dashboard/sign-out")
    assert (await jonas.post(keys[0], token)).status == 303
    assert keys[0] in (await mara.get(PAGE)).body.decode()
    async for session in records_of(app.store, SYSTEM, DashboardSession):
        await change_session(app.running.platform.engine, session, strong_until=0)
    fresh = SoftPasskey()
    answer = fresh.register((await mara.get(f"{PAGE}/passkeys/new")).json)
    token = form_of(await mara.get(PAGE), "/dashboard/sign-out")
    assert (await mara.post(f"{PAGE}/passkeys", token | {"passkey": answer})).status == 303
    assert "Laptop" in text(await mara.get(PAGE)) and len(keys) == 1


async def test_the_only_way_in_is_not_removed(app: InProcessApp) -> None:
    mara, passkey = await with_passkey(app)
    (remove,) = re.findall(rf'action="({PAGE}/passkeys/dpk_[0-9a-f]+/remove)"', (await mara.get(PAGE)).body.decode())
    token = form_of(await mara.get(PAGE), "/dashboard/sign-out")
    kept = await mara.post(remove, token)
    assert kept.status == 422 and "the only way in that you have" in text(kept)
    entered = await Visitor(app).post(SIGN_IN, {"passkey": passkey.sign(await options(mara))})
    assert entered.status == 303
    assert (await add(mara, SoftPasskey(), "Phone")).status == 200
    assert (await mara.post(remove, token)).status == 303
    assert "Laptop" not in text(await mara.get(PAGE)) and "Phone" in text(await mara.get(PAGE))


async def test_browsers_make_none_for_an_address_of_numbers(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    await app.merchant()
    page = await (await Visitor.signed_in(app)).get(PAGE)
    assert "Browsers make passkeys for names alone" in text(page)
    await app.close()
