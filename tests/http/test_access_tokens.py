"""Access tokens and whoever asks for them, against a server: what is let in, and everything that is not."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.jwk import ECKey, RSAKey
from sdk_shop import until
from tillway_server import TillwayServer, invoked, invoked_json

from tillway.cli.installation import records
from tillway.domain.credentials import LEEWAY_SECONDS, TOKEN_SECONDS, SigningKey, secret_digest
from tillway.engine.access_tokens import LOOK_AGAIN_SECONDS, TOKEN_LENGTH_MAX, VERIFIES_SECONDS
from tillway.installation import key_file, open_store
from tillway.operations.accounts import system_write
from tillway.settings import Settings
from tillway.vault.keyring import Keyring
from tillway.vault.signer import SIGNING_PURPOSE, Es256Signer

NOTICED_SECONDS = 2.1
"""After this a running server knows what a command has changed."""


class OAuthMerchant:
    """A merchant of the server with a client, and the installation's own signing key, to sign wrong things with."""

    def __init__(self, server: TillwayServer) -> None:
        self.server = server
        self.place = ("--data-dir", server.data_dir)
        self.account = server.new_account()["account"]
        self.client = self.add("--scope", "payments:read", "--scope", "payments:write", "--scope", "cards:write")
        self.http = httpx.Client(base_url=server.base_url, timeout=30)
        self.token = self.ask(self.client)["access_token"]
        key = asyncio.run(_signing_keys(server))[-1]
        self.kid = key.id
        self.signer = Es256Signer(Keyring.load(key_file(Settings(data_dir=server.data_dir))).derive(SIGNING_PURPOSE))
        self.private = self.signer._private(key)
        self.public = ECKey.import_key(dict(key.public))

    def add(self, *options: str, account: str | None = None) -> dict[str, Any]:
        made: dict[str, Any] = invoked_json(
            "oauth", "clients", "add", "--account", account or self.account, *options, *self.place
        )
        return made

    def ask(self, client: dict[str, Any], **fields: str) -> dict[str, Any]:
        answer = self.http.post(
            "/oauth2/token",
            data={"grant_type": "client_credentials", **fields},
            auth=(client["client_id"], client["client_secret"]),
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        granted: dict[str, Any] = answer.json()
        return granted

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of a good token; a change to None leaves the claim out."""
        now = int(time.time())
        good = {
            "iss": self.server.base_url,
            "aud": self.server.base_url,
            "sub": self.client["client_id"],
            "client_id": self.client["client_id"],
            "account": self.account,
            "mode": "test",
            "jti": "one",
            "iat": now,
            "nbf": now,
            "exp": now + 60,
            "scope": "payments:read",
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def sign(self, claims: dict[str, Any] | None = None, key: Any = None, **header: Any) -> str:
        full = {"typ": "at+jwt", "alg": "ES256", "kid": self.kid, **header}
        full = {name: value for name, value in full.items() if value is not None}
        return jwt.encode(
            full,
            claims or self.claims(),
            key or self.private,
            algorithms=["ES256", "RS256"],
            default_type=None,
        )

    def get(self, token: str, path: str = "/v1/charges") -> tuple[int, str | None]:
        answer = self.http.get(path, headers={"Authorization": f"Bearer {token}"})
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"].startswith('Bearer realm="Tillway"')
        return answer.status_code, answer.json().get("error", {}).get("code")


async def _signing_keys(server: TillwayServer) -> list[SigningKey]:
    store = await open_store(Settings(data_dir=server.data_dir))
    try:
        return sorted((key for key, _ in await records(store, SigningKey)), key=lambda key: (key.created, key.id))
    finally:
        await store.close()


@pytest.fixture(scope="module")
def merchant(tillway_server: TillwayServer) -> OAuthMerchant:
    return OAuthMerchant(tillway_server)


# What is let in.


def test_the_official_sdk_pays_with_a_token_in_the_place_of_a_key(merchant: OAuthMerchant) -> None:
    shop = merchant.server.client_with(merchant.token)
    paid = shop.v1.payment_intents.create(
        {"amount": 1200, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
    )
    assert paid.status == "succeeded" and paid.livemode is False
    with pytest.raises(stripe.PermissionError, match="refunds:write"):
        shop.v1.refunds.create({"payment_intent": paid.id})


def test_our_own_forgery_kit_makes_good_tokens(merchant: OAuthMerchant) -> None:
    """Else every refusal below would prove nothing."""
    assert merchant.get(merchant.sign()) == (200, None)
    ahead = int(time.time()) + LEEWAY_SECONDS - 2
    assert merchant.get(merchant.sign(merchant.claims(iat=ahead, nbf=ahead))) == (200, None)


def test_others_can_check_a_token_with_what_is_published(merchant: OAuthMerchant) -> None:
    about = merchant.http.get("/.well-known/oauth-authorization-server").json()
    assert about["issuer"] == merchant.server.base_url and about["token_endpoint"].endswith("/oauth2/token")
    published = httpx.get(about["jwks_uri"]).json()["keys"]
    key = next(key for key in published if key["kid"] == merchant.kid)
    assert not {"d", "sealed"} & key.keys() and key["alg"] == "ES256"
    token = jwt.decode(merchant.token, ECKey.import_key(key), algorithms=["ES256"])
    assert token.header == {"typ": "at+jwt", "alg": "ES256", "kid": merchant.kid}
    assert token.claims["aud"] == about["issuer"] and token.claims["exp"] - token.claims["iat"] == TOKEN_SECONDS
    assert token.claims["sub"] == merchant.client["client_id"] and token.claims["account"] == merchant.account


# What is not.


def _unsigned(merchant: OAuthMerchant, *, with_hmac_of: bytes | None = None, **header: Any) -> str:
    """Good claims without a signature, or with an HMAC in its place."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    full = {"typ": "at+jwt", "alg": "none", "kid": merchant.kid, **header}
    text = f"{part(json.dumps(full).encode())}.{part(json.dumps(merchant.claims()).encode())}"
    mac = hmac.digest(with_hmac_of, text.encode(), "sha256") if with_hmac_of is not None else b""
    return f"{text}.{part(mac)}"


def _resigned(merchant: OAuthMerchant, token: str) -> str:
    """The claims of somebody's choice under the signature of another token."""
    return ".".join((*merchant.sign(merchant.claims(scope="payouts:write")).split(".")[:2], token.split(".")[2]))


FORGED: dict[str, tuple[Callable[[OAuthMerchant], str], str]] = {
    "no algorithm": (lambda d: _unsigned(d), "access_token_invalid"),
    "no algorithm, other letters": (lambda d: _unsigned(d, alg="nOnE"), "access_token_invalid"),
    "no signature": (lambda d: d.sign().rpartition(".")[0] + ".", "access_token_invalid"),
    "HMAC with the public key as PEM": (
        lambda d: _unsigned(d, with_hmac_of=d.public.as_pem(private=False), alg="HS256"),
        "access_token_invalid",
    ),
    "HMAC with the public key as JWK": (
        lambda d: _unsigned(d, with_hmac_of=json.dumps(d.public.as_dict(private=False)).encode(), alg="HS256"),
        "access_token_invalid",
    ),
    "HMAC that says it is ours": (
        lambda d: _unsigned(d, with_hmac_of=d.public.as_pem(private=False), alg="ES256"),
        "access_token_invalid",
    ),
    "RSA": (lambda d: d.sign(key=RSAKey.generate_key(2048), alg="RS256"), "access_token_invalid"),
    "another's key under our kid": (lambda d: d.sign(key=ECKey.generate_key("P-256")), "access_token_invalid"),
    "another's key in the header": (
        lambda d: d.sign(key=(own := ECKey.generate_key("P-256")), jwk=own.as_dict(private=False)),
        "access_token_invalid",
    ),
    "unknown kid": (lambda d: d.sign(kid="jwk_unknown"), "access_token_invalid"),
    "kid that is a path": (lambda d: d.sign(kid="../key_x"), "access_token_invalid"),
    "no kid": (lambda d: d.sign(kid=None), "access_token_invalid"),
    "another type": (lambda d: d.sign(typ="JWT"), "access_token_invalid"),
    "another token's signature": (lambda d: _resigned(d, d.token), "access_token_invalid"),
    "expired": (lambda d: d.sign(d.claims(exp=int(time.time()) - 1)), "access_token_expired"),
    "expired long ago": (lambda d: d.sign(d.claims(exp=1)), "access_token_expired"),
    "never expires": (lambda d: d.sign(d.claims(exp=None)), "access_token_invalid"),
    "expires in words": (lambda d: d.sign(d.claims(exp="2100-01-01")), "access_token_invalid"),
    "not yet valid": (lambda d: d.sign(d.claims(nbf=int(time.time()) + 30)), "access_token_invalid"),
    "made in the future": (lambda d: d.sign(d.claims(iat=int(time.time()) + 30)), "access_token_invalid"),
    "another issuer": (lambda d: d.sign(d.claims(iss="https://elsewhere.example")), "access_token_invalid"),
    "no issuer": (lambda d: d.sign(d.claims(iss=None)), "access_token_invalid"),
    "another audience": (lambda d: d.sign(d.claims(aud="https://elsewhere.example")), "access_token_invalid"),
    "several audiences": (
        lambda d: d.sign(d.claims(aud=[d.server.base_url, "https://elsewhere.example"])),
        "access_token_invalid",
    ),
    "the audience of another contract": (
        lambda d: d.sign(d.claims(aud=f"{d.server.base_url}/online-payment-platform")),
        "access_token_invalid",
    ),
    "no audience": (lambda d: d.sign(d.claims(aud=None)), "access_token_invalid"),
    "no scope": (lambda d: d.sign(d.claims(scope=None)), "access_token_invalid"),
    "live mode for a test client": (lambda d: d.sign(d.claims(mode="live")), "access_token_invalid"),
    "another merchant": (lambda d: d.sign(d.claims(account=d.server.account)), "access_token_invalid"),
    "unknown client": (lambda d: d.sign(d.claims(sub="oac_unknown")), "access_token_invalid"),
    "client that is no client": (lambda d: d.sign(d.claims(sub=d.account)), "access_token_invalid"),
    "claims that are a list": (
        lambda d: jws.serialize_compact({"typ": "at+jwt", "alg": "ES256", "kid": d.kid}, b"[1]", d.private),
        "access_token_invalid",
    ),
    "claims that are no JSON": (
        lambda d: jws.serialize_compact({"typ": "at+jwt", "alg": "ES256", "kid": d.kid}, b"\xff{", d.private),
        "access_token_invalid",
    ),
    "claims that are deep": (
        lambda d: jws.serialize_compact(
            {"typ": "at+jwt", "alg": "ES256", "kid": d.kid}, b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}", d.private
        ),
        "access_token_invalid",
    ),
    "too long": (lambda d: d.sign(d.claims(jti="x" * TOKEN_LENGTH_MAX)), "access_token_invalid"),
    "two full stops": (lambda d: "..", "access_token_invalid"),
    "words": (lambda d: "not.a.token", "access_token_invalid"),
}


@pytest.mark.parametrize("name", FORGED)
def test_it_is_refused(merchant: OAuthMerchant, name: str) -> None:
    forge, code = FORGED[name]
    assert merchant.get(forge(merchant)) == (401, code)


@given(data=st.data())
def test_no_letter_of_a_token_can_be_changed(merchant: OAuthMerchant, data: st.DataObject) -> None:
    # The last letter of a signature has bits that mean nothing.
    place = data.draw(st.integers(0, len(merchant.token) - 2))
    letter = data.draw(st.sampled_from("Ab0-_.=~"))
    changed = merchant.token[:place] + letter + merchant.token[place + 1 :]
    status, code = merchant.get(changed)
    assert changed == merchant.token or (status == 401 and code in ("access_token_invalid", "api_key_invalid"))


# Who asks for tokens.


def test_a_client_may_send_its_secret_in_the_form_and_ask_for_less(merchant: OAuthMerchant) -> None:
    sent = {name: merchant.client[name] for name in ("client_id", "client_secret")}
    answer = merchant.http.post(
        "/oauth2/token", data={"grant_type": "client_credentials", "scope": "payments:read", "resource": "x", **sent}
    )
    granted = answer.json()
    assert (granted["token_type"], granted["expires_in"], granted["scope"]) == ("Bearer", 900, "payments:read")
    assert merchant.get(granted["access_token"]) == (200, None)
    refused = merchant.http.post("/v1/payment_intents", headers={"Authorization": f"Bearer {granted['access_token']}"})
    assert refused.status_code == 403 and refused.json()["error"]["scope"] == "payments:write"
    assert refused.headers["www-authenticate"] == (
        'Bearer realm="Tillway", error="insufficient_scope", scope="payments:write"'
    )


def test_a_session_of_stripes_command_line_ends_with_its_token(merchant: OAuthMerchant) -> None:
    client = merchant.add("--scope", "events:read")
    granted = merchant.ask(client)
    answer = merchant.http.post(
        "/v1/stripecli/sessions",
        data={"websocket_features[]": "webhooks"},
        headers={"Authorization": f"Bearer {granted['access_token']}"},
    )
    assert answer.status_code == 200, answer.text
    ends = int(answer.json()["websocket_id"].split(".")[4])
    assert ends <= time.time() + granted["expires_in"], "seven days are for keys"


FORM = "application/x-www-form-urlencoded"
# name, body with {id} and {secret} filled in, whether Basic credentials are sent, status, error
ASKED_WRONGLY = [
    ("nothing", "", False, 401, "invalid_client"),
    ("a secret alone", "grant_type=client_credentials&client_secret={secret}", False, 401, "invalid_client"),
    ("another secret", "grant_type=client_credentials&client_id={id}&client_secret=x", False, 401, "invalid_client"),
    (
        "an unknown client",
        "grant_type=client_credentials&client_id=oac_x&client_secret=x",
        False,
        401,
        "invalid_client",
    ),
    ("a key as client", "grant_type=client_credentials&client_id=key_x&client_secret=x", False, 401, "invalid_client"),
    ("both ways", "grant_type=client_credentials&client_secret={secret}", True, 400, "invalid_request"),
    ("two clients", "grant_type=client_credentials&client_id=oac_other", True, 400, "invalid_request"),
    ("no grant", "scope=payments:read", True, 400, "invalid_request"),
    ("a password", "grant_type=password&username=a&password=b", True, 400, "unsupported_grant_type"),
    ("a scope it has not", "grant_type=client_credentials&scope=payouts:write", True, 400, "invalid_scope"),
    ("a scope nobody has", "grant_type=client_credentials&scope=everything", True, 400, "invalid_scope"),
    ("a field twice", "grant_type=client_credentials&grant_type=client_credentials", True, 400, "invalid_request"),
    ("a field with members", "grant_type[a]=client_credentials", True, 400, "invalid_request"),
    ("a long scope", "grant_type=client_credentials&scope=" + "x" * 3000, True, 400, "invalid_request"),
    ("what is no form", "%", True, 400, "invalid_request"),
]


@pytest.mark.parametrize(("name", "body", "basic", "status", "error"), ASKED_WRONGLY, ids=lambda v: str(v)[:30])
def test_wrong_questions_get_the_answers_of_rfc_6749(
    merchant: OAuthMerchant, name: str, body: str, basic: bool, status: int, error: str
) -> None:
    id, secret = merchant.client["client_id"], merchant.client["client_secret"]
    answer = merchant.http.post(
        "/oauth2/token",
        content=body.replace("{id}", id).replace("{secret}", secret),
        headers={"content-type": FORM},
        auth=httpx.BasicAuth(id, secret) if basic else httpx.USE_CLIENT_DEFAULT,
    )
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["error_description"] and answer.headers["cache-control"] == "no-store"
    assert secret not in answer.text
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Basic")


def test_a_token_is_asked_for_in_a_form(merchant: OAuthMerchant) -> None:
    credentials = (merchant.client["client_id"], merchant.client["client_secret"])
    answer = merchant.http.post("/oauth2/token", json={"grant_type": "client_credentials"}, auth=credentials)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    basic = merchant.http.post(
        "/oauth2/token", content="x=1", headers={"content-type": FORM, "authorization": "Basic ?"}
    )
    assert (basic.status_code, basic.json()["error"]) == (401, "invalid_client")


# What is taken back, and what is replaced.


def test_what_was_taken_back_is_refused_and_what_overlaps_is_not(merchant: OAuthMerchant) -> None:
    """One wait of two seconds for everything that a running server has to notice, and one for the overlaps to end."""
    server, place = merchant.server, merchant.place
    gone = merchant.add("--scope", "payments:read")
    gone_token = merchant.ask(gone)["access_token"]
    turned = merchant.add("--scope", "payments:read")
    old_key = invoked_json("keys", "create", "--account", merchant.account, "--scope", "payments:read", *place)
    kept_key = invoked_json("keys", "create", "--account", merchant.account, *place)
    assert old_key["secret"].startswith("rk_test_")
    assert (
        merchant.get(gone_token) == merchant.get(old_key["secret"]) == merchant.get(kept_key["secret"]) == (200, None)
    )
    assert merchant.get(old_key["secret"], "/v1/refunds") == (403, "insufficient_scope")

    invoked_json("oauth", "clients", "revoke", gone["client_id"], *place)
    fresh = invoked_json("oauth", "clients", "rotate", turned["client_id"], "--overlap-seconds", "4", *place)
    assert merchant.ask(fresh) and merchant.ask(turned), "both are good during the overlap"
    rolled = invoked_json("keys", "roll", old_key["id"], "--overlap-seconds", "4", *place)
    overlapping = invoked_json("keys", "roll", kept_key["id"], *place)
    signing = invoked_json("keys", "rotate-signing", *place)
    # So are both keys, the new one at once.
    assert rolled["replaces"] == old_key["id"] and rolled["scopes"] == ["payments:read"]
    assert merchant.get(rolled["secret"]) == merchant.get(old_key["secret"]) == (200, None)

    time.sleep(NOTICED_SECONDS)
    assert merchant.get(gone_token) == (401, "access_token_invalid")
    until(lambda: merchant.get(old_key["secret"]) == (401, "api_key_invalid"))
    assert merchant.get(rolled["secret"]) == (200, None)
    assert merchant.get(rolled["secret"], "/v1/refunds") == (403, "insufficient_scope")
    assert merchant.get(kept_key["secret"]) == merchant.get(overlapping["secret"]) == (200, None)
    assert merchant.ask(fresh)
    with pytest.raises(AssertionError, match="invalid_client"):
        merchant.ask(turned)
    with pytest.raises(AssertionError, match="invalid_client"):
        merchant.ask(gone)
    # Another key signs, and what the old one signed is still good.
    new = merchant.ask(fresh)["access_token"]
    assert jws.extract_compact(new.encode()).headers()["kid"] == signing["id"] != merchant.kid
    assert merchant.get(new) == merchant.get(merchant.sign()) == (200, None)
    assert [kept["id"] for kept in signing["replaced"]] == [merchant.kid]
    assert abs(signing["replaced"][0]["verifies_until"] - time.time() - VERIFIES_SECONDS) < 30
    kids = [key["kid"] for key in merchant.http.get("/.well-known/jwks.json").json()["keys"]]
    assert sorted(kids) == sorted([signing["id"], merchant.kid])
    listed = invoked_json("oauth", "clients", "list", "--account", merchant.account, *place)
    assert {client["client_id"]: client["state"] for client in listed}[gone["client_id"]] == "revoked"
    assert gone["client_secret"] not in json.dumps(listed)
    # The refused credentials are told in counted lines, and no failure is.
    assert not [line for line in server.log[1:] if "logger=tillway.security" not in line], server.log
    # Who did all that is on record, and nothing that could be used.
    trail = invoked("audit", "export", *place).stdout
    for command in ("keys create", "keys roll", "keys rotate-signing", "oauth clients add", "oauth clients rotate"):
        assert f'"tillway {command}"' in trail, command
    assert secret_digest(gone["client_secret"]) not in trail


def test_a_replaced_key_verifies_no_longer_than_its_tokens_live(merchant: OAuthMerchant) -> None:
    now = int(time.time())
    keys = {}
    for name, expires_at in (("good", now + 60), ("over", now - 1)):
        key = merchant.signer.new_key(f"jwk_{name}{now}", created=now)
        keys[name] = msgspec.structs.replace(key, retired_at=now - 1, expires_at=expires_at)

    async def put() -> None:
        store = await open_store(Settings(data_dir=merchant.server.data_dir))
        await store.commit([system_write(key) for key in keys.values()])
        await store.close()

    asyncio.run(put())
    time.sleep(LOOK_AGAIN_SECONDS + 0.05)
    tokens = {name: merchant.signer.sign(key, merchant.claims()) for name, key in keys.items()}
    assert merchant.get(tokens["good"]) == (200, None)
    assert merchant.get(tokens["over"]) == (401, "access_token_invalid")
    kids = [key["kid"] for key in merchant.http.get("/.well-known/jwks.json").json()["keys"]]
    assert keys["good"].id in kids and keys["over"].id not in kids
    assert merchant.get(merchant.ask(merchant.client)["access_token"]) == (200, None)


def test_commands_that_cannot_be_meant(merchant: OAuthMerchant) -> None:
    for arguments, code, words in (
        (("oauth", "clients", "add", "--account", merchant.account), 2, "at least one --scope"),
        (("oauth", "clients", "add", "--account", merchant.account, "--scope", "fly"), 2, "'fly' is not a scope"),
        (("keys", "create", "--account", merchant.account, "--scope", "fly"), 2, "'fly' is not a scope"),
        (("keys", "create", "--kind", "publishable", "--scope", "payments:read"), 2, "--scope is for secret keys"),
        (("keys", "roll", "key_unknown"), 1, "no key 'key_unknown'"),
        (("oauth", "clients", "rotate", "oac_unknown"), 1, "no client 'oac_unknown'"),
        (("oauth", "clients", "revoke", "oac_unknown"), 1, "no client 'oac_unknown'"),
    ):
        done = invoked(*arguments, *merchant.place)
        assert done.returncode == code and words in done.stderr, done.stderr
