"""Security events: what was refused, and which numbers were opened, told in bounded lines and entries."""

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from good_calls import MerchantObjects
from live_bank import live_merchant
from tillway_server import TillwayServer, init, invoked

from tillway.domain.account import Scope
from tillway.engine.caller import Caller
from tillway.engine.security_events import PLACES_MAX, SecurityEvents
from tillway.testing.in_process import InProcessApp


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(tmp_path)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


async def _tell(app: InProcessApp) -> None:
    engine = app.running.platform.engine
    await engine.security.tell(engine.note)


def test_a_server_tells_what_it_refused(tmp_path: Path) -> None:
    """Through the server's log and the exported trail, which names its own export and the reading of it."""
    server = TillwayServer(tmp_path, init(tmp_path), ("--log-level", "error"))
    try:
        for _ in range(3):
            assert server.call("GET", "/v1/charges", key="sk_test_wrong")[0] == 401
        assert server.call("POST", "/v1/refunds", {}, key=server.publishable_key)[0] == 401
        assert server.call("POST", "/ops/v1/doubts/att_1/resolve", {})[0] == 403
        assert server.call("GET", "/ops/v1/audit")[0] == 200
        notice = server.call("POST", "/connectors/test/simulator/notices", {})
        assert notice[0] == 400 and "not accepted" in notice[1]["error"]["message"]
    finally:
        server.stop()
    [failed] = [line for line in server.log if "authentication failed" in line]
    assert "address=127.0.0.1" in failed and "times=3" in failed and "names=api_key_invalid" in failed
    assert len([line for line in server.log if "access refused" in line and "times=1" in line]) == 2
    [rejected] = [line for line in server.log if "notice rejected" in line]
    assert "connector=simulator" in rejected and "mode=test" in rejected
    exported = invoked("audit", "export", "--data-dir", tmp_path, "--account", server.account).stdout
    entries = [json.loads(line) for line in exported.splitlines()]
    told = {(one["hint"][:7], one["operation"]): one["detail"] for one in entries if "times" in one["detail"]}
    assert told == {
        ("pk_test", "access refused"): {"times": 1, "operations": ["POST /v1/refunds (secret_key_required)"]},
        ("sk_test", "access refused"): {
            "times": 1,
            "operations": ["POST /ops/v1/doubts/{id}/resolve (operator_required)"],
        },
        ("sk_test", "audit trail read"): {"times": 1, "operations": ["GET /ops/v1/audit"]},
    }
    own = invoked("audit", "export", "--data-dir", tmp_path, "--account", "sys", "--format", "csv").stdout
    assert f'audit export,,,,,action,null,"{{""account"":""{server.account}""' in own
    assert "no entries" not in own and own.count("audit export") == 2, "its own export is in it too"


async def test_an_operator_is_in_the_merchants_trail_or_in_the_installations(objects: MerchantObjects) -> None:
    app, mine = objects.app, objects.merchant.account
    viewer = await app.operator("viewer", mine)
    await app.call(viewer, "POST", "/v1/refunds", {"charge": "ch_1"})
    await app.call(viewer, "GET", "/v1/balance", tillway_account="acct_0000000000000000")
    await _tell(app)
    rows = await app.store.query(None, "sys/aud_", limit=100)
    refused = [json.loads(row.body)["detail"] for row in rows if b"access refused" in row.body]
    operations = ["POST /v1/refunds (operator_forbidden)", "GET /v1/balance (operator_forbidden)"]
    assert refused == [{"times": 2, "operations": operations}]


async def test_opened_numbers_of_live_mode_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with live_merchant(tmp_path) as live:
        for _ in range(2):
            assert (await live.pay()).json["status"] == "succeeded"
        await _tell(live.app)
        [line] = [record for record in caplog.records if record.getMessage() == "account numbers opened"]
        assert (line.levelno, vars(line)["times"]) == (logging.INFO, 2)
        assert vars(line)["account"] == live.merchant.account


async def test_attackers_fill_neither_the_log_nor_the_trail(
    objects: MerchantObjects, caplog: pytest.LogCaptureFixture
) -> None:
    events = objects.app.running.platform.engine.security
    for number in range(50 * PLACES_MAX):
        events.authentication_failed(f"2001:db8::{number:x}", f"code_{number}")
    for _ in range(1000):
        await objects.app.call(objects.merchant.public_key, "POST", "/v1/refunds", {})
    await _tell(objects.app)
    failed = [vars(record) for record in caplog.records if record.getMessage() == "authentication failed"]
    assert len(failed) == PLACES_MAX + 1 and sum(line["times"] for line in failed) == 50 * PLACES_MAX
    assert failed[-1]["place"] == "others" and len(failed[-1]["names"]) < 200
    trail = (await objects.app.ok(objects.merchant, "GET", "/ops/v1/audit", {"limit": 100}))["data"]
    [entry] = [one for one in trail if one["operation"] == "access refused"]
    assert entry["detail"]["times"] == 1000 and len(entry["detail"]["operations"]) == 1


async def test_entries_that_could_not_be_written_are_kept(objects: MerchantObjects) -> None:
    events, told = SecurityEvents(), []

    async def fail(*_: object) -> None:
        raise OSError

    async def enter(caller: object, detail: dict[str, object]) -> None:
        told.append(detail)

    scope = Scope(account=objects.merchant.account, mode="test")
    caller = Caller(scope=scope, scope_key=scope.key, actor="key_1")
    events.access_refused(caller, None, "a")
    with pytest.raises(OSError):
        await events.tell(fail)
    events.access_refused(caller, None, "b")
    await events.tell(enter)
    assert told == [{"times": 2, "operations": [" (a)", " (b)"]}]
