"""`tillway doctor`: what is wrong, and the remedy; each remedy is then followed."""

import asyncio
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from mail_server import MailServerHere
from tillway_server import TillwayServer, init, tillway

from tillway.cli.doctor import Finding, examine
from tillway.domain.ledger import Balances
from tillway.engine.balance import BALANCES_ID
from tillway.settings import Settings
from tillway.store.codec import encode
from tillway.store.port import Write
from tillway.store.sqlite import SqliteStore


def doctor(data_dir: Path) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """The exit code, and the findings by their check."""
    import json

    done = tillway("doctor", "--data-dir", data_dir, "--json")
    findings: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(done.stdout)["findings"]:
        findings.setdefault(finding["check"], []).append(finding)
    return done.returncode, findings


def failures(data_dir: Path) -> list[Finding]:
    return [finding for finding in examine(Settings(data_dir=data_dir)) if finding.state == "fail"]


def test_a_new_installation_is_well(tmp_path: Path) -> None:
    init(tmp_path / "data")
    code, findings = doctor(tmp_path / "data")
    assert code == 0
    assert {"directory", "key file", "database", "clock", "disk", "python", "sqlite", "granian", "tls"} <= set(findings)
    assert [finding["state"] for finding in findings["live mode"]] == ["warn"]
    assert "tillway connectors add" in findings["live mode"][0]["remedy"]


def test_it_looks_at_an_installation_that_serves(tillway_server: TillwayServer) -> None:
    code, findings = doctor(tillway_server.data_dir)
    assert code == 0
    assert str(tillway_server.process.pid) in findings["server"][0]["what"]


def test_deep_adds_up_the_ledger(tmp_path: Path) -> None:
    server = TillwayServer(tmp_path / "data", init(tmp_path / "data"))
    try:
        paid = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
        assert [server.call("POST", "/v1/payment_intents", paid)[0] for _ in range(2)] == [200, 200]
        done = tillway("doctor", "--deep", "--data-dir", server.data_dir)
        assert done.returncode == 0, done.stdout
        assert "ok    balances: 2 entries add up to the balances shown and to the reports" in done.stdout
    finally:
        server.stop()
    scope = f"{server.account.removeprefix('acct_')}t"
    wrong = Balances(
        id=BALANCES_ID, created=0, accounts={"merchant/eur": 5}, merchant={}, until="0", entries=1, proven=True
    )

    async def spoil() -> None:
        store = await SqliteStore.open(server.data_dir / "tillway.db")
        await store.commit([Write(f"{scope}/{BALANCES_ID}", 0, encode(wrong))])
        await store.close()

    asyncio.run(spoil())
    done = tillway("doctor", "--deep", "--data-dir", server.data_dir)
    assert done.returncode == 1
    assert f"{scope}: the entries of merchant/eur add up to -8096, and the balance shows -8091" in done.stdout
    assert tillway("doctor", "--data-dir", server.data_dir).returncode == 0


def test_a_key_file_that_others_can_read(tmp_path: Path) -> None:
    init(tmp_path / "data")
    key_file = tmp_path / "data" / "keys.json"
    key_file.chmod(0o644)
    code, findings = doctor(tmp_path / "data")
    assert code == 1
    assert findings["key file"][0]["state"] == "fail"
    assert "0644" in findings["key file"][0]["what"]
    assert findings["key file"][0]["remedy"] == f"Run: chmod 600 {key_file}"
    key_file.chmod(0o600)
    assert doctor(tmp_path / "data")[0] == 0


def test_each_failure_is_found(tmp_path: Path) -> None:
    assert [finding.check for finding in failures(tmp_path / "none")] == ["directory", "key file", "database"]

    data_dir = tmp_path / "data"
    init(data_dir)
    assert failures(data_dir) == []

    data_dir.chmod(0o755)
    assert [finding.remedy for finding in failures(data_dir)] == [f"Run: chmod 700 {data_dir}"]
    data_dir.chmod(0o700)

    (data_dir / "tillway.db").chmod(0o644)
    assert [finding.check for finding in failures(data_dir)] == ["database"]
    (data_dir / "tillway.db").chmod(0o600)

    key_file = (data_dir / "keys.json").read_bytes()
    (data_dir / "keys.json").write_bytes(key_file[:50])
    assert ["damaged" in finding.what for finding in failures(data_dir)] == [True]
    (data_dir / "keys.json").write_bytes(key_file)

    later = time.time() + 3600
    os.utime(data_dir / "tillway.db", (later, later))
    assert [finding.check for finding in failures(data_dir)] == ["clock"]
    os.utime(data_dir / "tillway.db")

    settings = Settings(data_dir=data_dir, tls_cert=data_dir / "none.pem", tls_key=data_dir / "none.pem")
    assert [finding.check for finding in examine(settings) if finding.state == "fail"] == ["tls"]
    assert failures(data_dir) == []


def test_an_older_schema_is_sent_to_migrate(tmp_path: Path) -> None:
    init(tmp_path)
    connection = sqlite3.connect(tmp_path / "tillway.db")
    connection.execute("PRAGMA journal_mode = delete")
    connection.close()
    wrong = failures(tmp_path)
    assert [finding.check for finding in wrong] == ["database"] and "tillway migrate" in wrong[0].remedy
    refused = tillway("serve", "--data-dir", tmp_path, "--port", "0")
    assert refused.returncode == 1 and "tillway migrate" in refused.stderr
    assert tillway("migrate", "--data-dir", tmp_path).returncode == 0
    assert failures(tmp_path) == []


def test_the_text_names_remedies(tmp_path: Path) -> None:
    done = tillway("doctor", "--data-dir", tmp_path / "none")
    assert done.returncode == 1
    assert "fail  directory" in done.stdout and f"Run: tillway init --data-dir {tmp_path / 'none'}" in done.stdout


def test_a_mail_server_that_is_not_there(tmp_path: Path) -> None:
    mail = MailServerHere()
    there: dict[str, Any] = {"data_dir": tmp_path / "data", "smtp_from": "pay@shop.example"}
    init(tmp_path / "data")
    url = f"smtp://127.0.0.1:{mail.port}"
    found = [finding for finding in examine(Settings(smtp_url=url, **there)) if finding.check == "mail"]
    assert [finding.state for finding in found] == ["ok"]
    mail.stop()
    for settings in (
        Settings(smtp_url="smtp://127.0.0.1:1", **there),
        Settings(smtp_url=url, smtp_password_file=tmp_path / "nowhere", **there),
    ):
        (finding,) = [finding for finding in examine(settings) if finding.check == "mail"]
        assert finding.state == "warn" and "smtp_password_file" in finding.remedy
    assert "nowhere cannot be read" in finding.what


@pytest.mark.parametrize(
    ("settings", "state"),
    [
        ({}, "ok"),
        ({"host": "::1"}, "ok"),
        ({"host": "0.0.0.0"}, "fail"),
        ({"host": "192.0.2.1"}, "fail"),
        ({"host": "192.0.2.1", "trusted_proxies": "192.0.2.2"}, "ok"),
        ({"host": "192.0.2.1", "public_url": "https://pay.example.com"}, "ok"),
    ],
)
def test_a_public_address_needs_tls(tmp_path: Path, settings: dict[str, str], state: str) -> None:
    init(tmp_path)
    (found,) = (one for one in examine(Settings(data_dir=tmp_path, **settings)) if one.check == "tls")  # type: ignore[arg-type]
    assert found.state == state and bool(found.remedy) == (state == "fail")
