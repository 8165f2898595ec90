"""Late tasks and attempts in doubt, as a line that alarms read where no metrics are scraped."""

import asyncio
import logging
from pathlib import Path

import pytest

from tillway.telemetry.waiting import LATE_SECONDS, warn
from tillway.testing.in_process import InProcessApp

TEMPLATE = Path(__file__).parents[2] / "deploy" / "aws" / "template.yaml"


async def test_a_line_tells_of_doubts_and_late_tasks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = await InProcessApp.open(tmp_path)
    try:
        shop = await app.merchant()

        async def told() -> list[tuple[str, int, int]]:
            caplog.clear()
            with caplog.at_level(logging.WARNING, "tillway.telemetry.waiting"):
                await warn(app.store, app.clock.now_ms())
            return [(line.message, line.doubts, line.oldest_due_seconds) for line in caplog.records]  # type: ignore[attr-defined]

        faults = (await app.simulator(shop)).faults
        faults.replace({"rules": [{"fault": "lose_answer"}, {"fault": "error_before", "operation": "look_up"}]})
        paid = {"amount": 700, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
        back = {"return_url": "https://shop.example/back"}
        made = await app.ok(shop, "POST", "/v1/payment_intents", paid | back)
        assert made["status"] == "processing" and await told() == []
        until = asyncio.get_running_loop().time() + 60
        for _ in range(20):
            app.clock.ahead_seconds += 900
            await app.running.runner.drain(app.running.runner.queues, until=until)
        ((message, doubts, oldest),) = await told()
        assert (doubts, oldest < LATE_SECONDS) == (1, True)
        faults.replace({})
        app.clock.ahead_seconds += 900
        await app.running.runner.drain(app.running.runner.queues, until=until)
        assert await told() == []
        hook = {"url": "http://127.0.0.1:1/", "enabled_events[]": "payment_intent.succeeded"}
        await app.ok(shop, "POST", "/v1/webhook_endpoints", hook)
        await app.ok(shop, "POST", "/v1/payment_intents", paid | back)
        app.clock.ahead_seconds += LATE_SECONDS + 1
        ((message, doubts, oldest),) = await told()
        assert doubts == 0 and oldest >= LATE_SECONDS
        # The alarms count these lines, and read these numbers of them.
        for number in ("doubts", "oldest_due_seconds"):
            assert f'$.message = "{message}"' in TEMPLATE.read_text() and f'"$.{number}"' in TEMPLATE.read_text()
    finally:
        await app.close()
