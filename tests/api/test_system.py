"""The system through the API, where a directory is not as it should be; tests/e2e/test_system.py has the rest."""

from pathlib import Path

from tillway.testing.in_process import InProcessApp


async def test_a_directory_of_backups_that_cannot_be_looked_at_hides_nothing_else(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path, backup_directory=tmp_path / ("x" * 300))
    answer = await app.call(await app.operator("admin"), "GET", "/ops/v1/system")
    assert answer.status == 200 and answer.json["backup"] is None and answer.json["store"] == "file"
    await app.close()


async def test_the_oldest_delivery_that_waits_tells_how_long(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    merchant = await app.merchant()
    given = {"url": "https://shop.example/hook", "enabled_events": ["payment_intent.created"]}
    await app.ok(merchant, "POST", "/v1/webhook_endpoints", given)
    for ahead in (0, 90):
        app.clock.ahead_seconds += ahead
        await app.ok(merchant, "POST", "/v1/payment_intents", {"amount": 100, "currency": "eur"})
    told = (await app.call(await app.operator("admin"), "GET", "/ops/v1/system")).json["outbox"]
    assert told["waiting"] == 2 and 90 <= told["oldest_seconds"] < 600
    await app.close()
