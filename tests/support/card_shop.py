"""A merchant inside the test's process who keeps cards: every answer that it gets is held to Stripe's shapes."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from stripe_shapes import problems

from tillway.domain.account import scope_of
from tillway.domain.setup_intent import SetupIntent
from tillway.operations import setup_intents
from tillway.testing.in_process import InProcessApp, Merchant

VISA: dict[str, Any] = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123"}
DECLINED = {**VISA, "number": "4000000000000002"}


def card(number: str, **fields: Any) -> dict[str, Any]:
    return {**VISA, "number": number, **fields}


class CardShop:
    """`ok` gives the document of a call that must succeed, `refused` status, code and param of one that must not."""

    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app = app
        self.merchant = merchant
        self.other: Merchant | None = None

    async def call(
        self, method: str, path: str, params: dict[str, Any] | None = None, *, key: str = "", **headers: str
    ) -> tuple[int, Any]:
        answer = await self.app.call(key or self.merchant.key, method, path, params, **headers)
        if (key or self.merchant.key).startswith("sk_"):  # A publishable key sees less than the shapes have.
            wrong = problems(answer.json)
            assert not wrong, "\n".join(wrong)
        return answer.status, answer.json

    async def ok(
        self, method: str, path: str, params: dict[str, Any] | None = None, *, key: str = "", **headers: str
    ) -> Any:
        status, document = await self.call(method, path, params, key=key, **headers)
        assert status == 200, (method, path, params, document)
        return document

    async def error(
        self, method: str, path: str, params: dict[str, Any] | None = None, *, key: str = "", **headers: str
    ) -> dict[str, Any]:
        status, document = await self.call(method, path, params, key=key, **headers)
        assert status != 200, (method, path, params, document)
        error: dict[str, Any] = {"status": status, **document["error"]}
        return error

    async def refused(
        self, method: str, path: str, params: dict[str, Any] | None = None, *, key: str = "", **headers: str
    ) -> tuple[int, str, str | None]:
        error = await self.error(method, path, params, key=key, **headers)
        return error["status"], error["code"], error.get("param")

    async def customer(self, **params: Any) -> str:
        id: str = (await self.ok("POST", "/v1/customers", params))["id"]
        return id

    async def token(self, number: str = VISA["number"], **fields: Any) -> str:
        id: str = (await self.ok("POST", "/v1/tokens", {"card": card(number, **fields)}))["id"]
        return id

    async def method(self, number: str = VISA["number"], **fields: Any) -> str:
        given = {"type": "card", "card": card(number), **fields}
        id: str = (await self.ok("POST", "/v1/payment_methods", given))["id"]
        return id

    async def attached(self, customer: str, alias: str = "pm_card_visa") -> str:
        """A new payment method of that test card, attached."""
        id: str = (await self.ok("POST", f"/v1/payment_methods/{alias}/attach", {"customer": customer}))["id"]
        return id

    async def foreign_key(self) -> str:
        """The key of another merchant of the installation."""
        if self.other is None:
            self.other = await self.app.merchant()
        return self.other.key

    async def types(self) -> list[str]:
        """The types of all events so far, oldest first."""
        page = await self.ok("GET", "/v1/events", {"limit": 100})
        return [event["type"] for event in reversed(page["data"])]

    async def ids(self, *prefixes: str) -> list[str]:
        """The ids of all records of the merchant's test mode that begin so, straight from the store."""
        scope = self.merchant.account.removeprefix("acct_") + "t"
        found = []
        for prefix in prefixes:
            rows = await self.app.store.query(None, f"{scope}/{prefix}_", limit=1000)
            found += [row.key.partition("/")[2] for row in rows]
        return found

    async def challenge(self, setup: dict[str, Any], *, passed: bool) -> SetupIntent:
        """What the challenge page does when its visitor presses a button."""
        url: str = setup["next_action"]["redirect_to_url"]["url"]
        path, _, secret = url.partition("?secret=")
        _, scope_key, id = path.rsplit("/", 2)
        platform = self.app.running.platform
        return await setup_intents.challenge(platform, scope_of(scope_key), id, secret, passed=passed)


@contextlib.asynccontextmanager
async def opened(data_dir: Path) -> AsyncIterator[CardShop]:
    app = await InProcessApp.open(data_dir)
    try:
        yield CardShop(app, await app.merchant())
    finally:
        await app.close()
