"""Settings are refused by name, and connectors are found and built by name."""

from pathlib import Path

import pytest

from tillway.connectors import registry
from tillway.connectors.http_bank import HttpBank, signature
from tillway.connectors.port import NoticeRejected
from tillway.connectors.settings import SettingInvalid, resolved
from tillway.connectors.transport import SocketTransport
from tillway.sandbox.simulator import Simulator

URL = {"base_url": "http://127.0.0.1:4545"}


@pytest.mark.parametrize(
    ("settings", "name", "says"),
    [
        ({}, "base_url", "missing"),
        ({"base_url": ""}, "base_url", "missing"),
        ({"base_url": "127.0.0.1:4545"}, "base_url", "http://"),
        ({"base_url": "ftp://bank"}, "base_url", "http://"),
        ({"base_url": "http://"}, "base_url", "http://"),
        ({"base_url": "http://bank:99999"}, "base_url", "not a URL"),
        ({"base_url": "http://me:secret@bank"}, "base_url", "credentials"),
        ({"base_url": "http://bank?x=1"}, "base_url", "only scheme"),
        ({"base_url": "http://ba nk"}, "base_url", "only scheme"),
        ({**URL, "baseurl": "x"}, "baseurl", "base_url, notice_secret, api_key, ask_after_seconds, timeout_seconds"),
        ({"port": "1"}, "port", "unknown"),
        ({**URL, "ask_after_seconds": "soon"}, "ask_after_seconds", "seconds"),
        ({**URL, "ask_after_seconds": "-1"}, "ask_after_seconds", "from 0.05"),
        ({**URL, "timeout_seconds": "nan"}, "timeout_seconds", "seconds"),
        ({**URL, "timeout_seconds": "inf"}, "timeout_seconds", "seconds"),
        ({**URL, "api_key": "line\nbreak"}, "api_key", "printable"),
        ({**URL, "details": "maybe"}, "details", "yes or no"),
    ],
)
def test_refused_by_name(settings, name, says):
    with pytest.raises(SettingInvalid) as refused:
        HttpBank.from_settings(settings)
    assert refused.value.name == name
    assert says in str(refused.value)
    assert "secret@" not in str(refused.value) and "break" not in str(refused.value)


def test_taken():
    bank = HttpBank.from_settings({**URL, "ask_after_seconds": "2", "timeout_seconds": "1.5", "api_key": ""})
    assert (bank.capabilities.ask_after_seconds, bank.capabilities.timeout_seconds) == (2.0, 1.5)
    assert bank.capabilities.livemode
    with pytest.raises(SettingInvalid, match="base_url: unknown setting; known are ask_after_seconds"):
        Simulator.from_settings(URL)
    assert not Simulator.from_settings({}).capabilities.livemode


def test_a_silent_provider_is_a_doubt_within_20_seconds():
    """Unless the operator gives more time to answer."""
    for kind in registry.kinds():
        times = {row.name: row.default for row in registry.kind(kind).describe()}
        assert times.get("timeout_seconds", 0) <= 15, kind


def test_registry():
    assert set(registry.kinds()) >= {"http_bank", "simulator"}
    connector, transport = registry.build("http_bank", URL)
    assert isinstance(connector, HttpBank) and isinstance(transport, SocketTransport)
    with pytest.raises(SettingInvalid, match="http_bank"):
        registry.build("a_bank_that_nobody_made", {})
    described = {row.name: row for row in registry.kind("http_bank").describe()}
    assert described["base_url"].required and described["notice_secret"].secret
    assert all(row.description for row in described.values())


def test_a_secret_stays_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept names its place; what the connector gets is what lies there when it is set up."""
    (tmp_path / "secret").write_text("first\n")
    monkeypatch.setenv("BANK_KEY", "from the environment")
    kept = {**URL, "notice_secret": f"file:{tmp_path}/secret", "api_key": "env:BANK_KEY"}
    table = registry.kind("http_bank").describe()
    assert resolved(kept, table) == {**URL, "notice_secret": "first", "api_key": "from the environment"}
    (tmp_path / "secret").write_text("second")
    assert resolved(kept, table)["notice_secret"] == "second"
    body = b'{"reference": "x"}'
    connector, _ = registry.build("http_bank", kept)
    with pytest.raises(NoticeRejected, match="X-Bank-Signature"):
        connector.notices({"x-bank-signature": signature("first", body)}, body)
    with pytest.raises(NoticeRejected) as rejected:
        connector.notices({"x-bank-signature": signature("second", body)}, body)
    assert "Signature" not in str(rejected.value)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"api_key": "file:secret"}, "whole path"),
        ({"api_key": "file:/nowhere/secret"}, "/nowhere/secret cannot be read"),
        ({"api_key": "env:NO_SUCH_VARIABLE"}, "the environment has no NO_SUCH_VARIABLE"),
        ({"base_url": "file:/etc/hostname"}, "http://"),
    ],
)
def test_places_that_hold_no_secret(setting: dict[str, str], says: str) -> None:
    with pytest.raises(SettingInvalid, match=says) as refused:
        registry.build("http_bank", {**URL, **setting})
    assert refused.value.name in setting
