"""`tillway.js` and the card frame over HTTP; `tests/e2e/test_tillway_js.py` has them in a browser."""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path

import msgspec
import pytest

from tillway.domain.account import SYSTEM
from tillway.domain.api_key import ApiKey, key_id
from tillway.operations.accounts import system_write
from tillway.store.codec import decode
from tillway.testing.in_process import Answer, InProcessApp, Merchant


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    app = await InProcessApp.open(tmp_path)
    yield app
    await app.close()


@pytest.fixture
async def merchant(app: InProcessApp) -> Merchant:
    return await app.merchant()


def policy(answer: Answer) -> dict[str, str]:
    parts = [part.strip().partition(" ") for part in answer.headers["content-security-policy"].split(";")]
    return {name: value for name, _, value in parts}


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def alter(app: InProcessApp, secret: str, **fields: object) -> None:
    """Change a stored key, as the command does."""
    id = key_id(secret)
    row = await app.store.get(f"{SYSTEM}/{id}")
    assert row is not None
    key = decode(id, row.body)
    assert isinstance(key, ApiKey)
    await app.store.commit([system_write(msgspec.structs.replace(key, **fields), row.version)])


@pytest.mark.parametrize("path", ["/js/v1/", "/js/v1", "/js/v1/tillway.js"])
async def test_one_small_script_that_any_page_may_load(app: InProcessApp, path: str) -> None:
    answer = await app.send("GET", path, query="v=1")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert len(gzip.compress(answer.body)) < 25_000
    assert b"import " not in answer.body and b"eval(" not in answer.body


async def test_the_frame_runs_its_own_script_inside_registered_origins_only(
    app: InProcessApp, merchant: Merchant
) -> None:
    answer = await app.send("GET", "/js/v1/card", query=f"key={merchant.live_public_key}")
    assert answer.status == 200 and policy(answer)["frame-ancestors"] == "'none'"
    await alter(app, merchant.live_public_key, origins=("https://shop.example", "https://www.shop.example"))
    answer = await app.send("GET", "/js/v1/card", query=f"key={merchant.live_public_key}")
    page = answer.body.decode()
    [script], [style] = (
        re.findall(r"<script>(.*?)</script>", page, re.S),
        re.findall(r"<style>(.*?)</style>", page, re.S),
    )
    assert policy(answer) == {
        "default-src": "'none'",
        "script-src": digest(script),
        "style-src": digest(style),
        "connect-src": "'self'",
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "https://shop.example https://www.shop.example",
    }
    [given] = re.findall(r'data-given="([^"]*)"', page)
    facts = json.loads(unescape(given))
    assert facts["origins"] == ["https://shop.example", "https://www.shop.example"] and facts["loopback"] is False
    assert answer.headers["cache-control"] == "no-store" and answer.headers["referrer-policy"] == "no-referrer"
    assert "set-cookie" not in answer.headers


async def test_a_test_key_allows_pages_of_this_machine(app: InProcessApp, merchant: Merchant) -> None:
    answer = await app.send("GET", "/js/v1/card", query=f"key={merchant.public_key}")
    assert "http://127.0.0.1:*" in policy(answer)["frame-ancestors"].split()


async def test_its_labels_are_those_of_checkout_in_the_payers_language(app: InProcessApp, merchant: Merchant) -> None:
    query = f"key={merchant.public_key}"
    english = (await app.send("GET", "/js/v1/card", query=query)).body.decode()
    for label in ("Card number", "Expiry", "Security code", "Name on the card"):
        assert f">{label}</label>" in english
    for fills in ("cc-number", "cc-exp", "cc-csc", "cc-name"):
        assert f"autocomplete={fills}" in english
    german = await app.send("GET", "/js/v1/card", query=query, headers={"accept-language": "de"})
    assert b"<html lang=de>" in german.body and b">Kartennummer</label>" in german.body
    assert b"<html lang=fr>" in (await app.send("GET", "/js/v1/card", query=f"{query}&locale=fr-CA")).body


async def test_only_a_publishable_key_that_is_good_shows_fields(app: InProcessApp, merchant: Merchant) -> None:
    await alter(app, merchant.live_public_key, revoked_at=1)
    for key in (merchant.key, merchant.live_public_key, "pk_test_unknown"):
        answer = await app.send("GET", "/js/v1/card", query=f"key={key}")
        assert (answer.status, answer.json["error"]["code"]) == (401, "api_key_invalid")
        assert merchant.key not in answer.body.decode()
    answer = await app.send("GET", "/js/v1/card")
    assert (answer.status, answer.json["error"]["param"]) == (400, "key")


async def test_the_end_of_a_challenge_says_nothing_but_that(app: InProcessApp) -> None:
    answer = await app.send("GET", "/js/v1/returned", query="payment_intent=pi_1&payment_intent_client_secret=x")
    assert answer.status == 200 and b"pi_1" not in answer.body
    assert policy(answer)["script-src"].startswith("'sha256-") and policy(answer)["default-src"] == "'none'"
