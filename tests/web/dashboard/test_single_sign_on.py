"""Sign-in by an identity provider: one that the test runs on loopback, and the answers of wrong ones."""

import base64
import hashlib
import html
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from aiohttp import web
from dashboard_visitor import Visitor, text
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey

from tillway.domain.account import SYSTEM
from tillway.domain.dashboard import DashboardSession
from tillway.domain.operator import Role
from tillway.operations.accounts import system_write
from tillway.operations.operators import new_operator
from tillway.store.walk import records_of
from tillway.testing.in_process import Answer, InProcessApp

CLIENT, SECRET = "tillway", "a secret & a half"
SIGN_IN = "/dashboard/sign-in/sso"


class Provider:
    """An identity provider. `changes` replace claims of its next id token; None leaves one out."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "k1"})
        self.signs_with: Any = self.key
        self.algorithm = "ES256"
        self.changes: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.person: dict[str, Any] = {"sub": "person-1", "email": "mara@shop.example", "email_verified": True}
        self.issuer = ""
        self.refusals: list[str] = []

    async def start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._describe)
        app.router.add_get("/jwks", self._keys)
        app.router.add_post("/token", self._redeem)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    def authorize(self, address: str) -> str:
        """Sign the person in, and return where their browser is sent: what a page of the provider would do."""
        parts = urlsplit(address)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert f"{parts.scheme}://{parts.netloc}" == self.issuer and parts.path == "/authorize"
        assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT)
        assert asked["code_challenge_method"] == "S256" and "openid" in asked["scope"].split()
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return f"{urlsplit(asked['redirect_uri']).path}?code={code}&state={asked['state']}&iss={self.issuer}"

    async def _describe(self, request: web.Request) -> web.Response:
        names = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/jwks"}
        return web.json_response({"issuer": self.issuer, **{name: self.issuer + path for name, path in names.items()}})

    async def _keys(self, request: web.Request) -> web.Response:
        strange: list[Any] = [{"kty": "EC", "crv": "later-1", "x": "AA", "y": "AA", "kid": "k2"}, {"kty": "AKP"}, "k3"]
        return web.json_response({"keys": [*strange, *KeySet([self.key]).as_dict(private=False)["keys"]]})

    async def _redeem(self, request: web.Request) -> web.Response:
        form = await request.post()
        asked = self.codes.pop(str(form["code"]), None)
        challenge = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
        pair = base64.b64encode(b"tillway:a%20secret%20%26%20a%20half").decode()
        wrong = [
            name
            for name, fits in (
                ("client", request.headers.get("authorization") == f"Basic {pair}"),
                ("code", asked is not None),
                ("verifier", asked is not None and _base64url(challenge) == asked["code_challenge"]),
                ("address", asked is not None and form["redirect_uri"] == asked["redirect_uri"]),
            )
            if not fits
        ]
        if wrong or asked is None:
            self.refusals += wrong
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": asked["nonce"]}
        claims |= self.person | self.changes
        kept = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": self.algorithm, "kid": "k1"}
        token = jwt.encode(header, kept, self.signs_with, algorithms=[self.algorithm])
        return web.json_response({"id_token": token, "token_type": "Bearer", "access_token": "x"})


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    runner = await provider.start()
    yield provider
    await runner.cleanup()


@pytest.fixture
async def app(tmp_path: Path, provider: Provider) -> AsyncIterator[InProcessApp]:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    settings = {"oidc_issuer": provider.issuer, "oidc_client_id": CLIENT, "oidc_client_secret_file": secret}
    app = await InProcessApp.open(tmp_path, **settings)
    await app.merchant()
    yield app
    await app.close()


async def person(app: InProcessApp, name: str = "Mara", email: str = "mara@shop.example", role: Role = "admin") -> str:
    made = new_operator(name, role, None, created=app.clock.now_ms() // 1000, email=email)
    await app.store.commit([system_write(made)])
    return made.id


async def enter(provider: Provider, visitor: Visitor) -> Answer:
    begun = await visitor.get(SIGN_IN)
    assert begun.status == 303, text(begun)
    return await visitor.get(provider.authorize(begun.headers["location"]))


async def test_a_person_whom_the_provider_knows_is_signed_in(app: InProcessApp, provider: Provider) -> None:
    await person(app)
    visitor = Visitor(app)
    assert f'href="{SIGN_IN}"' in (await visitor.get("/dashboard/sign-in")).body.decode()
    entered = await enter(provider, visitor)  # Keys that are not known here are left out.
    assert (entered.status, entered.headers["location"]) == (303, "/dashboard"), text(entered)
    security = await visitor.get("/dashboard/security")
    assert security.status == 200 and "by oidc since" in text(security)
    provider.person["email"] = "mara.brandt@shop.example"
    assert (await enter(provider, Visitor(app))).status == 303, "known by the provider's own id from then on"


@pytest.mark.parametrize("asked", ["/dashboard/payments?status=declined", "https://thief.example"])
async def test_it_leads_to_the_page_that_was_asked_for(app: InProcessApp, provider: Provider, asked: str) -> None:
    await person(app)
    visitor = Visitor(app)
    page = (await visitor.get(f"/dashboard/sign-in?{urlencode({'next': asked})}")).body.decode()
    begin = html.unescape(re.findall(rf'href="({SIGN_IN}[^"]*)"', page)[0])
    begun = await visitor.get(begin)
    entered = await visitor.get(provider.authorize(begun.headers["location"]))
    assert entered.headers["location"] == (asked if asked.startswith("/") else "/dashboard")


async def test_an_address_that_now_belongs_to_another_opens_nothing(app: InProcessApp, provider: Provider) -> None:
    await person(app)
    assert (await enter(provider, Visitor(app))).status == 303
    provider.person["sub"] = "person-2"
    refused = await enter(provider, Visitor(app))
    assert refused.status == 403 and "no user here has your verified e-mail address" in text(refused)


@pytest.mark.parametrize(
    "changes",
    [
        {"email_verified": False},
        {"email_verified": None},
        {"email_verified": "true"},
        {"email": "stranger@shop.example"},
        {"email": None},
    ],
)
async def test_only_a_verified_address_of_a_user_counts(
    app: InProcessApp, provider: Provider, changes: dict[str, Any]
) -> None:
    await person(app)
    provider.changes = changes
    assert (await enter(provider, Visitor(app))).status == 403


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"aud": "another client"},
        {"aud": ["tillway", "another client"]},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"nonce": "of another browser"},
        {"nonce": None},
        {"sub": None},
        {"sub": 7},
        {"iat": None},
    ],
)
async def test_an_id_token_that_is_not_for_this_sign_in_is_refused(
    app: InProcessApp, provider: Provider, changes: dict[str, Any]
) -> None:
    await person(app)
    provider.changes = changes
    visitor = Visitor(app)
    refused = await enter(provider, visitor)
    assert refused.status == 401 and "Single sign-on did not work." in text(refused)
    assert (await visitor.get("/dashboard")).status == 303


async def test_a_token_that_others_have_signed_is_refused(app: InProcessApp, provider: Provider) -> None:
    await person(app)
    provider.signs_with = ECKey.generate_key("P-256", {"kid": "k1"})
    assert (await enter(provider, Visitor(app))).status == 401
    provider.signs_with, provider.algorithm = OctKey.import_key("a" * 32), "HS256"
    assert (await enter(provider, Visitor(app))).status == 401
    provider.signs_with, provider.algorithm = provider.key, "ES256"
    assert (await enter(provider, Visitor(app))).status == 303


async def test_an_answer_counts_in_the_browser_that_asked_alone_and_once(app: InProcessApp, provider: Provider) -> None:
    await person(app)
    one, two = Visitor(app), Visitor(app)
    mine = provider.authorize((await one.get(SIGN_IN)).headers["location"])
    await two.get(SIGN_IN)
    assert (await two.get(mine)).status == 401, "of another browser"
    assert (await Visitor(app).get(mine)).status == 401, "of a browser that began nothing"
    state = parse_qs(urlsplit(mine).query)["state"][0]
    for wrong in ("state=x&code=code-0", "code=code-0", f"state={state}", f"state={state}&error=access_denied"):
        assert (await one.get(f"{SIGN_IN}/callback?{wrong}")).status == 401, wrong
    assert (await one.get(f"{SIGN_IN}/callback?state={state}&code=code-0&iss=https://evil.example")).status == 401
    assert provider.refusals == [] and (await one.get(mine)).status == 303


async def test_a_code_is_good_once(app: InProcessApp, provider: Provider) -> None:
    await person(app)
    visitor = Visitor(app)
    back = provider.authorize((await visitor.get(SIGN_IN)).headers["location"])
    assert (await visitor.get(back)).status == 303
    assert (await visitor.get(back)).status == 401


async def test_a_sign_in_from_long_ago_is_no_proof_for_grave_actions(app: InProcessApp, provider: Provider) -> None:
    await person(app)
    visitor = Visitor(app)
    await enter(provider, visitor)
    page = await visitor.get("/dashboard/developers")
    asked = await visitor.submit(page, "/dashboard/developers", {"name": "Warehouse"})
    assert "Sign in again by single sign-on" in text(asked)
    again = await visitor.get(f"{SIGN_IN}?again=1")
    query = parse_qs(urlsplit(again.headers["location"]).query)
    assert (query["prompt"], query["max_age"]) == (["login"], ["0"])
    provider.changes = {"auth_time": int(time.time())}
    earlier = Visitor(app)
    earlier.cookies = dict(visitor.cookies)
    assert (await visitor.get(provider.authorize(again.headers["location"]))).status == 303
    assert (await earlier.get("/dashboard")).status == 303, "the proof gave a new session, and the one before has ended"
    assert len([one async for one in records_of(app.store, SYSTEM, DashboardSession)]) == 1
    once_more = await visitor.submit(asked, "/dashboard/again")
    assert "This is what you typed" in text(once_more) and "Warehouse" in text(once_more)
    made = await visitor.submit(once_more, "/dashboard/developers")
    assert "shown this once" in text(made) and "Warehouse" in text(made)


async def test_a_form_and_its_secrets_are_kept_while_one_signs_in_again(app: InProcessApp, provider: Provider) -> None:
    await person(app)
    visitor = Visitor(app)
    await enter(provider, visitor)
    path = "/dashboard/connectors"
    page = await visitor.get(f"{path}/new?kind=http_bank")
    given = {"name": "nordbank", "set.base_url": "https://bank.example", "secret.notice_secret": "kept-but-unseen"}
    asked = await visitor.submit(page, path, given)
    assert "what you typed is kept here" in text(asked)
    provider.changes = {"auth_time": int(time.time())}
    begun = await visitor.get(f"{SIGN_IN}?again=1")
    assert (await visitor.get(provider.authorize(begun.headers["location"]))).status == 303
    once_more = await visitor.submit(asked, "/dashboard/again")
    assert "nordbank" in text(once_more)
    assert all(b"kept-but-unseen" not in one.body for one in (asked, once_more))
    assert (await visitor.submit(once_more, path)).status == 303
    row = await app.store.get(f"{SYSTEM}/con_test_nordbank")
    assert row is not None


async def test_a_provider_that_is_away_leaves_the_other_ways(app: InProcessApp, provider: Provider) -> None:
    provider_gone = "http://127.0.0.1:9"
    assert app.running.api.pages is not None
    app.running.api.pages._provider.issuer = provider_gone  # type: ignore[attr-defined]
    refused = await Visitor(app).get(SIGN_IN)
    assert refused.status == 401 and "Single sign-on did not work." in text(refused)
    assert "Password" in text(refused)
