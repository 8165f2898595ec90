"""The database file, its log and a backup hold no secret that the API or a command ever showed or was given."""

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tillway_server import ENVIRONMENT, StartServer, TillwayServer, init, invoked, invoked_json

from tillway.domain.account import SYSTEM, Scope
from tillway.domain.connector_config import ConnectorConfig
from tillway.domain.event import WebhookEndpoint
from tillway.domain.record import SEALED_PREFIX
from tillway.installation import open_store
from tillway.settings import Settings
from tillway.store.codec import decode, encode, write_of
from tillway.store.port import ABSENT

FORMS = re.compile(
    r"(?:sk|pk|rk|ok)_(?:test|live)_[0-9A-Za-z]{20,}|whsec_\w+|ocs_[0-9A-Za-z]+|eyJ[\w-]+\.[\w-]+\.[\w-]+"
    r"|_secret_([0-9a-f]{32})|\?secret=([0-9a-f]{32})"
)
"""The forms of secrets in answers and in what commands print."""

NUMBER = "4000002500003155"
CARD = {"number": NUMBER, "exp_month": 12, "exp_year": 2040, "cvc": "737"}
BACK = "https://shop.example/back"
API_KEY, NOTICE_SECRET = "bank-key-4f1c9d0e7a", "notices-8c22b6d1f5"


def secrets_in(text: str) -> set[str]:
    return {next(part for part in (*found.groups(), found.group()) if part) for found in FORMS.finditer(text)}


class Client:
    """Sends requests, and keeps each secret among their answers."""

    def __init__(self, server: TillwayServer, shown: set[str]) -> None:
        self.server = server
        self.shown = shown

    def post(self, path: str, body: Any, key: str = "") -> Any:
        headers = {"Authorization": f"Bearer {self.server.secret_key}", "Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = key
        request = urllib.request.Request(self.server.base_url + path, json.dumps(body).encode(), headers, method="POST")
        with urllib.request.urlopen(request, timeout=240) as answer:
            text = answer.read().decode()
        self.shown |= secrets_in(text)
        return json.loads(text)


def fill(server: TillwayServer, shown: set[str], bank_key: Path) -> dict[str, Any]:
    """Make one of everything that has a secret, each under an Idempotency-Key."""
    place = ("--data-dir", server.data_dir)
    shown |= {API_KEY, NOTICE_SECRET, NUMBER}
    given = subprocess.run(
        [
            *(sys.executable, "-m", "tillway.cli.main", "connectors", "add", "bank", "--kind", "http_bank"),
            *("--set", "base_url=http://127.0.0.1:9", "--set", f"api_key=@{bank_key}", "--set", "notice_secret=-"),
            *map(str, place),
        ],
        input=NOTICE_SECRET,
        text=True,
        capture_output=True,
        timeout=240,
        env=ENVIRONMENT,
    )
    assert given.returncode == 0 and "visible" not in given.stderr, given.stderr
    for command in (
        ("keys", "create", "--scope", "payments:read"),
        ("accounts", "create"),
        ("operators", "add", "ada"),
        ("oauth", "clients", "add", "--scope", "payments:read", "--account", server.account),
    ):
        arguments = (*command, "--account", server.account) if command[0] == "keys" else command
        shown |= secrets_in(json.dumps(made := invoked_json(*arguments, *place)))
    client = Client(server, shown)
    endpoint = {"url": "http://127.0.0.1:9/hook", "enabled_events": ["*"]}
    pay = {"amount": 1099, "currency": "eur", "confirm": True, "return_url": BACK}
    method = client.post("/v1/payment_methods", {"type": "card", "card": CARD})["id"]
    customer = client.post("/v1/customers", {})["id"]
    who = {"merchantId": server.account, "apiKey": server.secret_key, "customerId": "customer-1"}
    made = {
        "endpoint": client.post("/v1/webhook_endpoints", endpoint, "hook"),
        "payment": client.post("/v1/payment_intents", {**pay, "payment_method": method}, "pay"),
        "setup": client.post("/v1/setup_intents", {"payment_method": method, "customer": customer}, "set up"),
        "token": client.post("/get-token", who, "token"),
    }
    assert made["payment"]["status"] == "requires_action"
    # Each is replayed as it was given.
    assert client.post("/v1/webhook_endpoints", endpoint, "hook") == made["endpoint"]
    assert client.post("/v1/payment_intents", {**pay, "payment_method": method}, "pay") == made["payment"]
    return made


def holders(directory: Path, secrets: set[str]) -> list[tuple[str, str]]:
    """The files below `directory` with a secret in them, except the key file."""
    return [
        (path.name, secret)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "keys.json"
        for content in [path.read_bytes()]
        for secret in secrets
        if secret.encode() in content
    ]


def test_no_file_holds_a_secret_that_was_shown(tmp_path: Path, start_server: StartServer) -> None:
    data_dir, bank_key = tmp_path / "data", tmp_path / "bank-key"
    bank_key.write_text(API_KEY + "\n")
    made = init(data_dir)
    shown = secrets_in(json.dumps(made))
    server = start_server(data_dir, made)
    objects = fill(server, shown, bank_key)
    kinds = {re.match(r"[a-z]+(_test|_live)?_|eyJ|", secret).group() for secret in shown}  # type: ignore[union-attr]
    assert kinds >= {"sk_test_", "sk_live_", "pk_test_", "pk_live_", "rk_test_", "ok_test_", "ok_live_", "whsec_"}
    assert kinds >= {"ocs_", "eyJ"} and objects["setup"]["client_secret"].partition("_secret_")[2] in shown
    assert holders(data_dir, shown) == []
    assert invoked("backup", tmp_path / "backup", "--data-dir", data_dir).returncode == 0
    assert server.stop() == 0
    for directory in (data_dir, tmp_path / "backup"):
        assert (directory / "tillway.db").exists() and holders(directory, shown) == []
    verified = invoked("audit", "verify", "--data-dir", data_dir)
    assert verified.returncode == 0, verified.stderr


OLD_SECRET, OLD_KEY = "whsec_0123456789abcdefghijABCDEFGHIJ45", "old-bank-key-7d0f"


async def put_in_the_clear(data_dir: Path, account: str) -> list[str]:
    """Write an endpoint and a connector as versions before sealing stored them."""
    scope = Scope(account=account, mode="test").key
    endpoint = WebhookEndpoint(
        id="we_old", created=1, url="http://127.0.0.1:9/", secret=OLD_SECRET, enabled_events=("charge.failed",)
    )
    settings = {"base_url": "http://127.0.0.1:9", "api_key": OLD_KEY}
    config = ConnectorConfig(id="con_test_old", created=1, name="old", kind="http_bank", mode="test", settings=settings)
    store = await open_store(Settings(data_dir=data_dir))
    try:
        await store.commit([write_of(scope, endpoint, ABSENT), write_of(SYSTEM, config, ABSENT)])
    finally:
        await store.close()
    return [f"{scope}/we_old", f"{SYSTEM}/con_test_old"]


async def sealed_under(data_dir: Path, keys: list[str]) -> set[str]:
    """The keys that the records are sealed under; each must open to its old secret."""
    from tillway.engine.connections import open_settings
    from tillway.installation import open_keys
    from tillway.vault.envelope import EnvelopeVault, sealed_text

    held = open_keys(Settings(data_dir=data_dir))
    vault = EnvelopeVault(held, held.fingerprint_key)
    store = await open_store(Settings(data_dir=data_dir))
    try:
        found = await store.get_many(keys)
    finally:
        await store.close()
    endpoint, config = (decode(key.partition("/")[2], found[key].body) for key in keys)
    assert isinstance(endpoint, WebhookEndpoint) and isinstance(config, ConnectorConfig)
    assert vault.open_text(keys[0].partition("/")[0], "we_old", endpoint.secret).reveal() == OLD_SECRET
    assert open_settings(vault, config)["api_key"] == OLD_KEY
    texts = [endpoint.secret, *config.settings.values()]
    return {sealed.key_id for text in texts if (sealed := sealed_text("", text)) is not None}


def test_secrets_of_before_are_sealed_by_migrate_and_rotated(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    keys = asyncio.run(put_in_the_clear(data_dir, init(data_dir)["account"]))
    both = {OLD_SECRET, OLD_KEY}
    assert {secret for _, secret in holders(data_dir, both)} == both
    assert asyncio.run(sealed_under(data_dir, keys)) == set()
    migrated = invoked("migrate", "--data-dir", data_dir)
    assert migrated.returncode == 0 and "The secrets of 2 webhook endpoints and connectors" in migrated.stderr
    assert holders(data_dir, both) == []
    [first] = asyncio.run(sealed_under(data_dir, keys))
    assert invoked_json("vault", "seal", "--data-dir", data_dir) == {"sealed": 0}
    rotated = invoked_json("vault", "rotate", "--data-dir", data_dir)
    assert rotated["moved"] == 2 and rotated["retired"] == [first] and rotated["damaged"] == []
    assert asyncio.run(sealed_under(data_dir, keys)) == {rotated["key_id"]}
    assert invoked("vault", "forget", first, "--data-dir", data_dir).returncode == 0
    assert asyncio.run(sealed_under(data_dir, keys)) == {rotated["key_id"]}


def test_a_sealed_secret_opens_in_its_own_place_only(tmp_path: Path) -> None:
    from tillway.engine.connections import open_settings, seal_settings
    from tillway.installation import open_keys
    from tillway.vault.envelope import EnvelopeVault
    from tillway.vault.port import VaultTampered

    init(tmp_path)
    held = open_keys(Settings(data_dir=tmp_path))
    vault = EnvelopeVault(held, held.fingerprint_key)
    plain = ConnectorConfig(
        id="con_test_a", created=1, name="a", kind="k", mode="test", settings={"one": "x", "two": "y"}
    )
    sealed = seal_settings(vault, plain)
    assert all(value.startswith(SEALED_PREFIX) for value in sealed.settings.values())
    assert open_settings(vault, sealed) == plain.settings
    swapped = msgspec.structs.replace(sealed, settings={"one": sealed.settings["two"], "two": sealed.settings["one"]})
    elsewhere = msgspec.structs.replace(sealed, id="con_live_a")
    cut = msgspec.structs.replace(sealed, settings={"one": sealed.settings["one"][:-9]})
    for wrong in (swapped, elsewhere, cut):
        with pytest.raises(VaultTampered):
            open_settings(vault, decode(wrong.id, encode(wrong)))  # type: ignore[arg-type]
