"""The way of a payment through a process that imports as a function on AWS does: only what it needs.

`python first_payment.py DIRECTORY` prints, as JSON, the modules that were imported after each of its steps. The first
step is the import of the handlers, so nothing else of Tillway stands above it.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tillway.aws import api, worker

HANDLERS = (api.handler, worker.handler)


def imported() -> list[str]:
    return sorted(sys.modules)


async def walk(directory: Path) -> dict[str, Any]:
    steps: dict[str, Any] = {"start": imported()}
    from tillway.http.routes import DIALECT_ROUTES, OTHER_ROUTES, ROUTES, Route, Router
    from tillway.installation import KEY_FILE
    from tillway.settings import Settings
    from tillway.testing.in_process import InProcessApp, MovedClock
    from tillway.testing.memory_store import MemoryStore
    from tillway.vault.keyring import Keyring
    from tillway.wiring import assemble

    def declared() -> list[Route]:
        return [*ROUTES, *DIALECT_ROUTES, *OTHER_ROUTES]

    Keyring.create(directory / KEY_FILE)
    store, clock = MemoryStore(), MovedClock()
    running = await assemble(Settings(data_dir=directory), store, clock, loads="payments")
    app = InProcessApp(running, store, clock)
    try:
        shop = await app.merchant()
        payment = {
            "amount": 4200,
            "currency": "eur",
            "payment_method": "pm_card_visa",
            "confirm": "true",
            "capture_method": "manual",
            "return_url": "https://shop.example/back",
        }
        held = await app.ok(shop, "POST", "/v1/payment_intents", payment)
        paid = await app.ok(shop, "POST", f"/v1/payment_intents/{held['id']}/capture")
        assert paid["status"] == "succeeded"
        steps["payment"] = imported()

        few = Router(declared())
        shown = await app.ok(shop, "GET", f"/v1/payment_intents/{held['id']}", {"expand[]": "latest_charge"})
        assert shown["latest_charge"]["object"] == "charge"
        for path in ("/v1/customers", "/v1/charges", "/v1/events"):
            assert (await app.ok(shop, "GET", path))["object"] == "list"
        assert (await app.send("GET", "/dashboard/sign-in")).status == 200
        assert (await app.send("GET", "/nowhere")).status == 404
        steps["all"] = imported()
        everything = Router(declared())
        paths = {route.path for route in declared()}
        steps["hidden"] = sorted(path for path in paths if few.find(path) not in (None, everything.find(path)))
        steps["found"] = sum(few.find(path) is not None for path in paths)
    finally:
        await app.close()
    return steps


if __name__ == "__main__":
    print(json.dumps(asyncio.run(walk(Path(sys.argv[1])))))
