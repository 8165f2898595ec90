"""Connectors through the API, by those who run the installation: added, changed, asked, breakers held open."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tillway.domain.connector_config import ConnectorConfig
from tillway.store.codec import decode
from tillway.testing.in_process import Answer, InProcessApp, Merchant

PATH = "/ops/v1/connectors"
SECRET = "a-secret-that-only-the-bank-knows"
BANK = {"settings[base_url]": "http://127.0.0.1:9", "settings[api_key]": SECRET}
NEW = {"name": "nordbank", "kind": "http_bank", "reason": "Their contract began.", **BANK}


class Installation:
    def __init__(self, app: InProcessApp, merchant: Merchant, admin: str, operator: str) -> None:
        self.app = app
        self.merchant = merchant
        self.admin = admin
        self.operator = operator

    async def call(self, key: str, method: str, path: str, params: dict[str, Any] | None = None) -> Answer:
        return await self.app.call(key, method, path, params, tillway_account=self.merchant.account)

    async def ok(self, key: str, method: str, path: str, params: dict[str, Any] | None = None) -> Any:
        answer = await self.call(key, method, path, params)
        assert answer.status == 200, answer.body
        return answer.json

    async def refused(self, path: str, params: dict[str, Any]) -> tuple[int, str, str | None]:
        answer = await self.call(self.admin, "POST", path, params)
        error = answer.json["error"]
        return answer.status, error["code"], error.get("param")


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    app = await InProcessApp.open(tmp_path)
    yield Installation(app, await app.merchant(), await app.operator("admin"), await app.operator("operator"))
    await app.close()


async def test_a_connector_is_added_with_its_secrets_sealed(installation: Installation) -> None:
    added = await installation.call(installation.admin, "POST", PATH, NEW)
    assert added.status == 200 and SECRET.encode() not in added.body
    assert added.json["settings"] == ["api_key", "base_url"] and added.json["default"] is False
    assert await installation.refused(PATH, NEW) == (400, "parameter_invalid_string", "name")
    shown = await installation.call(installation.admin, "GET", f"{PATH}/nordbank")
    rows = {row["name"]: row for row in shown.json["settings"]}
    assert rows["base_url"]["value"] == "http://127.0.0.1:9" and SECRET.encode() not in shown.body
    assert rows["api_key"] == {"name": "api_key", "secret": True, "set": True, "value": None}
    assert rows["notice_secret"]["set"] is False
    await installation.app.running.api.request_log.flush()
    store = installation.app.store
    kept = [row for row in await store.query(None, "", limit=1000) if SECRET.encode() in row.body]
    assert kept == [], "in no record, no audit entry and no logged request"
    (entry,) = [row for row in await store.query(None, "sys/aud_", limit=100) if b"Their contract began." in row.body]
    assert b"POST /ops/v1/connectors" in entry.body
    operator = await installation.call(installation.operator, "POST", PATH, {**NEW, "name": "other"})
    assert operator.status == 403, "it takes an admin"


async def test_of_two_new_defaults_at_one_moment_one_is_the_default(installation: Installation) -> None:
    names = ("first", "second", "third")
    made = await asyncio.gather(
        *[installation.ok(installation.admin, "POST", PATH, {**NEW, "name": name, "default": True}) for name in names]
    )
    assert [one["default"] for one in made] == [True] * 3, "each was the default when it was answered"
    found = (await installation.ok(installation.admin, "GET", PATH))["data"]
    assert len(found) == 3 and sum(one["default"] for one in found) == 1
    changed = [
        installation.ok(installation.admin, "POST", f"{PATH}/{one['name']}", {"default": True})
        for one in found
        if not one["default"]
    ]
    await asyncio.gather(*changed)
    found = (await installation.ok(installation.admin, "GET", PATH))["data"]
    assert sum(one["default"] for one in found) == 1


async def test_the_default_is_one_at_a_time(installation: Installation) -> None:
    for name in ("first", "second"):
        await installation.ok(installation.admin, "POST", PATH, {**NEW, "name": name, "default": True})
    found = (await installation.ok(installation.admin, "GET", PATH))["data"]
    assert [one["name"] for one in found if one["default"]] == ["second"]
    await installation.ok(installation.admin, "POST", f"{PATH}/first", {"default": True})
    found = (await installation.ok(installation.admin, "GET", PATH))["data"]
    assert [one["name"] for one in found if one["default"]] == ["first"]
    no_more = await installation.refused(f"{PATH}/first", {"default": False})
    assert no_more == (400, "parameter_invalid_boolean", "default"), "it would stay the default"
    await installation.ok(installation.admin, "POST", f"{PATH}/second", {"default": False})


async def test_settings_that_are_not_given_stay_and_secrets_stay_with_their_address(installation: Installation) -> None:
    await installation.ok(installation.admin, "POST", PATH, NEW)
    place = f"{PATH}/nordbank"
    await installation.ok(installation.admin, "POST", place, {"settings[timeout_seconds]": "3"})
    moved = {"settings[base_url]": "http://127.0.0.1:10"}
    assert await installation.refused(place, moved) == (400, "parameter_missing", "settings[api_key]")
    await installation.ok(installation.admin, "POST", place, {**moved, "settings[api_key]": "the-new-one"})
    rows = {row["name"]: row for row in (await installation.ok(installation.admin, "GET", place))["settings"]}
    assert (rows["base_url"]["value"], rows["timeout_seconds"]["value"]) == ("http://127.0.0.1:10", "3")
    await installation.ok(installation.admin, "POST", place, {"settings[timeout_seconds]": ""})
    rows = {row["name"]: row for row in (await installation.ok(installation.admin, "GET", place))["settings"]}
    assert rows["timeout_seconds"]["set"] is False and rows["api_key"]["set"] is True


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"settings[base_url]": "nowhere"}, "settings[base_url]"),
        ({"settings[colour]": "blue"}, "settings[colour]"),
        ({"settings[api_key]": "file:/etc/hostname"}, "settings[api_key]"),
        ({"settings[api_key]": "env:HOME"}, "settings[api_key]"),
        ({"kind": "nobody"}, "kind"),
        ({"kind": "nacha"}, "kind"),
        ({"kind": "simulator"}, "name"),
        ({"name": "Nord bank"}, "name"),
        ({"name": "new"}, "name"),
    ],
)
async def test_what_cannot_be_is_named(installation: Installation, change: dict[str, str], param: str) -> None:
    assert await installation.refused(PATH, {**NEW, **change}) == (400, "parameter_invalid_string", param)
    rows = await installation.app.store.query(None, "sys/con_", limit=10)
    assert rows == []


async def test_a_required_setting_is_asked_for_in_words_of_the_api(installation: Installation) -> None:
    given = {name: value for name, value in NEW.items() if name != "settings[base_url]"}
    answer = await installation.call(installation.admin, "POST", PATH, given)
    error = answer.json["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "parameter_missing", "settings[base_url]")
    assert "where the bank answers" in error["message"] and "--set" not in error["message"], "no command was run"


async def test_a_test_says_whether_it_answers(installation: Installation) -> None:
    await installation.ok(installation.admin, "POST", PATH, NEW)
    told = await installation.ok(installation.operator, "POST", f"{PATH}/nordbank/test")
    assert told["answers"] is False and "failed" in told["why"] and SECRET not in str(told)
    missing = await installation.call(installation.operator, "POST", f"{PATH}/nobody/test")
    assert missing.status == 404


async def test_a_breaker_is_held_open_until_it_is_closed(installation: Installation) -> None:
    await installation.ok(installation.admin, "POST", PATH, {**NEW, "default": True})
    held = {"state": "open", "reason": "They repair something."}
    await installation.ok(installation.operator, "POST", f"{PATH}/nordbank/breaker", held)
    (shown,) = (await installation.ok(installation.operator, "GET", PATH))["data"]
    assert shown["breaker"] == "open" and shown["held_open"] is True
    terms = await installation.app.running.connections.connectors_of("test")
    assert terms["nordbank"].open and not terms["simulator"].open
    assert await installation.refused(f"{PATH}/nordbank/breaker", {"state": "open"}) == (
        400,
        "parameter_missing",
        "reason",
    )
    closed = {"state": "closed", "reason": "They are back."}
    await installation.ok(installation.operator, "POST", f"{PATH}/nordbank/breaker", closed)
    (shown,) = (await installation.ok(installation.operator, "GET", PATH))["data"]
    assert shown["breaker"] == "closed"
    (row,) = await installation.app.store.query(None, "sys/con_", limit=10)
    record = decode(row.key.partition("/")[2], row.body)
    assert isinstance(record, ConnectorConfig) and not record.held_open


async def test_operators_of_one_merchant_change_no_connector(installation: Installation) -> None:
    only = installation.merchant.admin_key
    for path, params in (("", NEW), ("/x", {}), ("/x/test", {}), ("/x/breaker", {"state": "open", "reason": "No."})):
        assert (await installation.call(only, "POST", f"{PATH}{path}", params)).status == 403, path
    assert (await installation.call(only, "GET", f"{PATH}/x")).status == 403
