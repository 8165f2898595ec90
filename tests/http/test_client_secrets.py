"""Client secrets are derived: the store holds none of them, and stored answers get them back when they are replayed."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tillway.domain.account import Scope
from tillway.domain.payment_intent import PaymentIntent
from tillway.installation import KEY_FILE
from tillway.store.codec import decode, write_of
from tillway.store.port import Row
from tillway.testing.in_process import InProcessApp, Merchant
from tillway.vault.keyring import Keyring

CHALLENGED = {
    "amount": 1099,
    "currency": "eur",
    "payment_method": "pm_card_threeDSecure2Required",
    "confirm": "true",
    "return_url": "https://shop.example/back",
}


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    app = await InProcessApp.open(tmp_path)
    yield app
    await app.close()


async def rows(app: InProcessApp, merchant: Merchant) -> list[Row]:
    page: list[Row] = []
    for prefix in ("pi", "seti", "evt", "idem", "aud", "whd", "setatt"):
        scope = Scope(account=merchant.account, mode="test").key
        page += await app.store.query(None, f"{scope}/{prefix}_", limit=100)
    return page


async def secrets_of(app: InProcessApp, merchant: Merchant) -> tuple[list[dict[str, Any]], list[str]]:
    """A payment and a setup with open challenges, made under keys, and every secret part that they have shown."""
    payment = await app.ok(merchant, "POST", "/v1/payment_intents", CHALLENGED, idempotency_key="pay")
    customer = await app.ok(merchant, "POST", "/v1/customers")
    setup = await app.ok(
        merchant,
        "POST",
        "/v1/setup_intents",
        {
            "customer": customer["id"],
            "payment_method": "pm_card_authenticationRequired",
            "confirm": "true",
            "return_url": "https://shop.example/back",
        },
        idempotency_key="set up",
    )
    shown = []
    for subject in (payment, setup):
        assert subject["status"] == "requires_action"
        part = subject["client_secret"].partition("_secret_")[2]
        assert len(part) == 32
        url = subject["next_action"]["redirect_to_url"]["url"]
        assert url.endswith(f"/{subject['id']}?secret={part}")
        shown.append(part)
    assert shown[0] != shown[1]
    return [payment, setup], shown


async def test_the_store_holds_no_secret(app: InProcessApp) -> None:
    merchant = await app.merchant()
    subjects, shown = await secrets_of(app, merchant)
    held = await rows(app, merchant)
    assert {row.key.partition("/")[2].partition("_")[0] for row in held} >= {"pi", "seti", "idem", "aud"}
    for row in held:
        assert not any(part.encode() in row.body for part in shown), row.key
    # A stored answer is replayed byte for byte as it was given.
    first = await app.call(merchant, "POST", "/v1/payment_intents", CHALLENGED, idempotency_key="pay")
    assert first.headers["idempotent-replayed"] == "true"
    assert first.json == subjects[0]
    # Events show the secret, as Stripe's do.
    events = await app.ok(merchant, "GET", "/v1/events", {"type": "payment_intent.requires_action"})
    assert events["data"][0]["data"]["object"]["client_secret"] == subjects[0]["client_secret"]


async def test_the_secret_opens_its_own_object_only(app: InProcessApp) -> None:
    merchant = await app.merchant()
    (payment, setup), (part, other) = await secrets_of(app, merchant)
    for path, subject in (("payment_intents", payment), ("setup_intents", setup)):
        asked = f"/v1/{path}/{subject['id']}"
        right = {"client_secret": subject["client_secret"]}
        assert (await app.ok(merchant.public_key, "GET", asked, right))["id"] == subject["id"]
        for wrong in (setup["client_secret"] if subject is payment else payment["client_secret"], "", part[:-1]):
            assert (await app.call(merchant.public_key, "GET", asked, {"client_secret": wrong})).status in (400, 401)
    scoped = payment["next_action"]["redirect_to_url"]["url"].partition("/3ds/")[2].partition("?")[0]
    page = f"/3ds/{scoped}"
    assert (await app.send("GET", page, query=f"secret={other}")).status == 404
    assert (await app.send("GET", page, query="secret=")).status in (400, 404)
    done = await app.send("POST", page, body=f"secret={part}&outcome=pass".encode())
    assert done.status == 303
    assert f"payment_intent_client_secret={payment['client_secret']}" in done.headers["location"]


async def test_a_caller_cannot_write_a_mark(app: InProcessApp) -> None:
    """Text that reads like the mark of another object comes back as it was sent, at once and when replayed."""
    merchant = await app.merchant()
    victim = await app.ok(merchant, "POST", "/v1/payment_intents", {"amount": 500, "currency": "eur"})
    part = victim["client_secret"].partition("_secret_")[2]
    tries = [
        victim["id"] + between + mark
        for between in ("_secret_", "?secret=")
        for mark in (r"\/derived\/", r"\\/derived\\/", "/derived/", r"\u002fderived\u002f")
    ]
    params = {"amount": 500, "currency": "eur", "metadata": {f"k{n}": text for n, text in enumerate(tries)}}
    for _ in range(2):
        answer = await app.call(merchant, "POST", "/v1/payment_intents", params, idempotency_key="marks")
        assert answer.json["metadata"] == params["metadata"]
        assert part.encode() not in answer.body
    assert answer.headers["idempotent-replayed"] == "true"


async def test_secrets_made_before_go_on_working(app: InProcessApp) -> None:
    merchant = await app.merchant()
    made = await app.ok(merchant, "POST", "/v1/payment_intents", {"amount": 500, "currency": "eur"})
    [row] = [row for row in await rows(app, merchant) if row.key.endswith(f"/{made['id']}")]
    record = decode(made["id"], row.body)
    assert isinstance(record, PaymentIntent) and record.secret == ""
    old = msgspec.structs.replace(record, secret="abcdefghijklmnopqrstuvwx")
    await app.store.commit([write_of(row.key.partition("/")[0], old, row.version)])
    asked = f"/v1/payment_intents/{made['id']}"
    right = {"client_secret": f"{made['id']}_secret_abcdefghijklmnopqrstuvwx"}
    assert (await app.ok(merchant.public_key, "GET", asked, right))["client_secret"] == right["client_secret"]
    assert (await app.call(merchant.public_key, "GET", asked, {"client_secret": made["client_secret"]})).status == 401


async def test_the_rotation_of_keys_changes_no_secret(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    merchant = await app.merchant()
    subjects, _ = await secrets_of(app, merchant)
    Keyring.load(tmp_path / KEY_FILE).add_kek()
    again = await InProcessApp.open(tmp_path)
    for subject, name in zip(subjects, ("payment_intents", "setup_intents"), strict=True):
        shown = await app.ok(merchant, "GET", f"/v1/{name}/{subject['id']}")
        assert shown["client_secret"] == subject["client_secret"]
        secrets = again.running.platform.engine.client_secrets
        assert secrets.write_in(rb'"%b_secret_\/derived\/"' % subject["id"].encode()) == (
            b'"%b"' % subject["client_secret"].encode()
        )
    await again.close()
    await app.close()
