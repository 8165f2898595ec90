"""A merchant and the people at its dashboard."""

from typing import Any

from dashboard_visitor import Visitor

from tillway.domain.operator import Role
from tillway.testing.in_process import InProcessApp, Merchant


class DashboardShop:
    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app = app
        self.merchant = merchant

    async def pay(self, amount: int = 9900, currency: str = "eur", card: str = "pm_card_visa", **more: Any) -> str:
        """A payment, and its id."""
        params = {"amount": amount, "currency": currency, "payment_method": card, "confirm": "true"}
        params |= {"return_url": "https://shop.example"} | more
        answer = (await self.app.call(self.merchant, "POST", "/v1/payment_intents", params)).json
        id: str = (answer["error"]["payment_intent"] if "error" in answer else answer)["id"]
        return id

    async def get(self, path: str, **params: Any) -> Any:
        return await self.app.ok(self.merchant, "GET", path, params)

    async def post(self, path: str, **params: Any) -> Any:
        return await self.app.ok(self.merchant, "POST", path, params)

    async def available(self, currency: str) -> int:
        found: int = next(
            one["amount"] for one in (await self.get("/v1/balance"))["available"] if one["currency"] == currency
        )
        return found

    async def faults(self, *rules: dict[str, Any]) -> None:
        """Let the simulated bank commit these faults, and no others."""
        await self.app.ok(self.merchant, "POST", "/ops/v1/simulator", {"faults": {"rules": list(rules)}})

    async def visitor(self, role: Role = "admin", name: str = "Mara Brandt") -> Visitor:
        """A browser of a new operator of this merchant."""
        return await Visitor.signed_in(self.app, role, self.merchant.account, name=name)
