"""One good call of every route: the ids in its path, made anew each time, and parameters that it takes.

Tests that walk through the route table read this beside it, and `test_every_route.py` fails where a route is missing:
whoever adds one says here how it is called well.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from tillway.api import handlers
from tillway.connectors.port import Notice, Succeeded
from tillway.domain.account import SYSTEM
from tillway.domain.dashboard import session_id
from tillway.domain.operator import Operator
from tillway.domain.payment_intent import PaymentIntent
from tillway.http.capabilities import capability_of
from tillway.http.params import AnyOf, Array, Id, Object, Parameter
from tillway.http.routes import ROUTES, Route
from tillway.http.versions import CURRENT
from tillway.operations import notices, sign_ins
from tillway.operations.accounts import new_client, system_write
from tillway.operations.sign_ins import Browser
from tillway.testing.in_process import InProcessApp, Merchant

assert handlers.LOADED

CARD = {"number": "4242424242424242", "exp_month": "12", "exp_year": "2034", "cvc": "123"}
PNG = {"filename": "receipt.png", "data": "iVBORw0KGgoAAAANSUhEUgAA"}
"""A file as a JSON body has it: the first bytes of a PNG image."""

HOOK = "https://shop.example/hook"
BANK = {"object": "bank_account", "country": "DE", "currency": "eur", "account_number": "DE89370400440532013000"}


VERSIONED = {"stripe-version": CURRENT}
"""The header that a key for an app needs."""


class Good(msgspec.Struct):
    """`ids` go into the path in their order; `query` is sent beside the body. `statuses` are what may come of it.
    `headers` are sent with it."""

    ids: tuple[str, ...] = ()
    params: dict[str, Any] = {}
    query: str = ""
    statuses: tuple[int, ...] = (200,)
    headers: dict[str, str] = {}


SETTLEMENT = {"connector": "simulator", "amount": 1, "currency": "eur", "reason": "On the bank's statement."}
CLOSE: dict[str, Any] = {
    "day": "2026-01-05",
    "statements": [{"place": "bank", "content": "date,amount,currency,reference\n2026-01-05,0.12,eur,INTEREST"}],
}


class MerchantObjects:
    """A merchant's things, made through the API as they are needed."""

    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app = app
        self.merchant = merchant

    def key_for(self, route: Route) -> str:
        """The key of this merchant that may call the route."""
        if route.access != "operator":
            return self.merchant.key
        configures = capability_of(route.method, route.path) == "configure"
        return self.merchant.admin_key if configures else self.merchant.operator_key

    async def for_call(self, route_path: str) -> "MerchantObjects":
        """These objects, or those of a new merchant for a call that may disable the account: its keys open nothing
        afterwards."""
        if not route_path.startswith("/ops/v1/accounts/{id}"):
            return self
        return MerchantObjects(self.app, await self.app.merchant())

    async def open_item(self) -> str:
        """A payment in doubt that an operator settled as failed, and the bank then says that it took the money."""
        doubt = await self.doubt()
        await self.resolve(doubt, "failed")
        account = self.merchant.account.removeprefix("acct_")
        reference = f"{account}t{doubt.removeprefix('att_')}"
        late = Notice(id=f"late-{doubt}", kind="operation", reference=reference, outcome=Succeeded(bank_id="bank-1"))
        await notices.book(self.app.running.platform.attempts, late, "simulator", "test")
        return (await self.app.ok(self.merchant, "GET", "/ops/v1/open_items"))["data"][0]["id"]

    async def settlement(self) -> str:
        """The settlement of one unit of the simulator's money."""
        await self.paid()
        booked = await self.app.ok(self.merchant.operator_key, "POST", "/ops/v1/settlements", SETTLEMENT)
        return str(booked["id"])

    async def close(self) -> Any:
        """The close of a day on which the bank states what nobody knows."""
        return await self.app.ok(self.merchant.operator_key, "POST", "/ops/v1/closes", CLOSE)

    async def resolve(self, doubt: str, outcome: str) -> Any:
        """Settle an attempt in doubt, as an operator."""
        params = {"outcome": outcome, "reason": "The bank says so."}
        return await self.app.ok(self.merchant.operator_key, "POST", f"/ops/v1/doubts/{doubt}/resolve", params)

    async def post(self, path: str, **params: Any) -> Any:
        return await self.app.ok(self.merchant, "POST", path, params)

    async def payment(self, **params: Any) -> Any:
        return await self.post("/v1/payment_intents", **{"amount": 4200, "currency": "eur", **params})

    async def paid(self, method: str = "pm_card_visa", **params: Any) -> Any:
        return await self.payment(payment_method=method, confirm=True, **params)

    async def held(self) -> Any:
        return await self.paid(capture_method="manual")

    async def charge(self, **params: Any) -> str:
        return (await self.post("/v1/charges", amount=700, currency="eur", source="tok_visa", **params))["id"]

    async def spare_key(self) -> str:
        admin = await self.app.operator("admin", self.merchant.account)
        return (await self.app.ok(admin, "POST", "/ops/v1/keys", {"name": "Spare"}))["id"]

    async def colleague(self) -> str:
        """A new operator of this merchant."""
        admin = await self.app.operator("admin", self.merchant.account)
        params = {"name": f"Jonas {self.app.store.commits}", "role": "support", "accounts": [self.merchant.account]}
        return (await self.app.ok(admin, "POST", "/ops/v1/operators", params))["id"]

    async def signed_in_colleague(self) -> tuple[str, str]:
        """A new operator of this merchant, and a session of theirs."""
        id = await self.colleague()
        engine = self.app.running.platform.engine
        operator = await engine.load(SYSTEM).get(Operator, id)
        token = await sign_ins.open_session(engine, operator, "password", Browser(None, "", ""), strong=False)
        return id, session_id(token)

    async def told(self) -> str:
        await self.paid()
        return (await self.app.ok(self.merchant, "GET", "/ops/v1/audit", {"limit": 1}))["data"][0]["id"]

    async def saved_view(self) -> str:
        params = {"name": "Declined", "page": "payments", "query": "status=declined"}
        return (await self.post("/ops/v1/views", **params))["id"]

    async def refund(self) -> str:
        return (await self.post("/v1/refunds", charge=await self.charge()))["id"]

    async def external(self) -> tuple[str, str]:
        owner = self.merchant.account
        path = f"/v1/accounts/{owner}/external_accounts"
        listed = await self.app.ok(self.merchant, "GET", path, {"limit": 100})
        if len(listed["data"]) == 40:
            # A merchant has at most 50, and the default goes last.
            for account in listed["data"][:-1]:
                await self.app.ok(self.merchant, "DELETE", f"{path}/{account['id']}")
        return owner, (await self.post(path, external_account=BANK))["id"]

    async def own_account(self) -> str:
        return self.merchant.account

    async def disabled_account(self) -> str:
        path = f"/ops/v1/accounts/{self.merchant.account}/disable"
        await self.app.ok(self.merchant.admin_key, "POST", path, {"reason": "The contract ended."})
        return self.merchant.account

    async def funds(self) -> None:
        # Enough for what refunds of charges that are still pending have taken from it.
        await self.paid("pm_card_bypassPending", amount=900_000)

    async def payout(self) -> str:
        await self.funds()
        _, destination = await self.external()
        return (await self.post("/v1/payouts", amount=100, currency="eur", destination=destination))["id"]

    async def dispute(self) -> str:
        charge = (await self.paid("pm_card_createDispute"))["latest_charge"]
        await self.app.wait(5)
        found = await self.app.ok(self.merchant, "GET", "/v1/disputes", {"charge": charge})
        return found["data"][0]["id"]

    async def disputed(self) -> str:
        id = await self.dispute()
        return (await self.app.ok(self.merchant, "GET", f"/v1/disputes/{id}"))["charge"]

    async def warning(self) -> str:
        charge = (await self.paid("pm_card_createIssuerFraudRecord"))["latest_charge"]
        await self.app.wait(5)
        found = await self.app.ok(self.merchant, "GET", "/v1/radar/early_fraud_warnings", {"charge": charge})
        return found["data"][0]["id"]

    async def customer(self, **params: Any) -> Any:
        return await self.post("/v1/customers", **params)

    async def movement_of(self) -> tuple[str, str]:
        customer = (await self.customer())["id"]
        path = f"/v1/customers/{customer}/balance_transactions"
        return customer, (await self.post(path, amount=-500, currency="usd"))["id"]

    async def card_of(self) -> tuple[str, str]:
        customer = await self.customer(source="tok_visa")
        return customer["id"], customer["default_source"]

    async def method(self) -> str:
        return (await self.post("/v1/payment_methods", type="card", card=CARD))["id"]

    async def method_of(self) -> tuple[str, str]:
        customer = (await self.customer())["id"]
        attached = await self.post("/v1/payment_methods/pm_card_visa/attach", customer=customer)
        return customer, attached["id"]

    async def clock(self) -> str:
        return (await self.post("/v1/test_helpers/test_clocks", frozen_time=1_893_456_000))["id"]

    async def source(self) -> str:
        return (await self.post("/v1/sources", type="card", card=CARD))["id"]

    async def token(self) -> str:
        return (await self.post("/v1/tokens", card=CARD))["id"]

    async def funded(self) -> tuple[str, str]:
        customer = (await self.customer())["id"]
        path = f"/v1/test_helpers/customers/{customer}/fund_cash_balance"
        return customer, (await self.post(path, amount=500, currency="eur"))["id"]

    async def awaited(self) -> str:
        """A payment that waits for a bank transfer."""
        waiting = await self.payment(
            customer=(await self.customer())["id"],
            confirm=True,
            payment_method_types=["customer_balance"],
            payment_method_data={"type": "customer_balance"},
            payment_method_options={"customer_balance": {"funding_type": "bank_transfer"}},
        )
        return str(waiting["id"])

    async def linked(self) -> Any:
        return await self.post("/v1/file_links", file=await self.file())

    async def file_link(self) -> str:
        return (await self.linked())["id"]

    async def file(self) -> str:
        return (await self.post("/v1/files", purpose="dispute_evidence", file=PNG))["id"]

    async def confirmation_token(self, **params: Any) -> str:
        given = {"payment_method": "pm_card_visa", **params}
        return (await self.post("/v1/test_helpers/confirmation_tokens", **given))["id"]

    async def ephemeral_key(self) -> str:
        params = {"customer": (await self.customer())["id"]}
        return (await self.app.ok(self.merchant, "POST", "/v1/ephemeral_keys", params, **VERSIONED))["id"]

    async def setup(self, **params: Any) -> Any:
        return await self.post("/v1/setup_intents", **params)

    async def endpoint(self) -> str:
        listed = await self.app.ok(self.merchant, "GET", "/v1/webhook_endpoints")
        if len(listed["data"]) == 10:
            # A merchant has at most 16.
            await self.app.ok(self.merchant, "DELETE", f"/v1/webhook_endpoints/{listed['data'][0]['id']}")
        return (await self.post("/v1/webhook_endpoints", url=HOOK, enabled_events=["charge.failed"]))["id"]

    async def delivery(self) -> str:
        endpoint = await self.endpoint()
        await self.post(f"/v1/webhook_endpoints/{endpoint}", enabled_events=["payment_intent.created"])
        await self.payment()
        waiting = await self.app.ok(self.merchant, "GET", "/ops/v1/webhook_deliveries", {"status": "pending"})
        return waiting["data"][0]["id"]

    async def event(self) -> str:
        await self.payment()
        return (await self.app.ok(self.merchant, "GET", "/v1/events", {"limit": 1}))["data"][0]["id"]

    async def mandate(self) -> str:
        paid = await self.paid(
            "pm_usBankAccount_success",
            currency="usd",
            payment_method_types=["us_bank_account"],
            mandate_data={"customer_acceptance": {"type": "offline"}},
            expand=["latest_charge"],
        )
        return paid["latest_charge"]["payment_method_details"]["us_bank_account"]["mandate"]

    async def movement(self) -> str:
        await self.charge()
        return (await self.app.ok(self.merchant, "GET", "/v1/balance_transactions", {"limit": 1}))["data"][0]["id"]

    async def doubt(self) -> str:
        """The simulated bank's answer is that it does not know yet."""
        rules = [{"fault": "pend", "operation": "authorize", "times": 1}]
        await self.post("/ops/v1/simulator", faults={"rules": rules})
        assert (await self.paid(amount=2400))["status"] == "processing"
        listed = await self.app.ok(self.merchant, "GET", "/ops/v1/doubts", {"limit": 100})
        return listed["data"][-1]["id"]

    async def refused(self) -> str:
        answer = await self.app.call(self.merchant, "POST", "/v1/payment_intents")
        return answer.headers["request-id"]

    async def product(self) -> str:
        return (await self.post("/v1/products", name="Tea"))["id"]

    async def price(self) -> str:
        return (await self.post("/v1/prices", currency="eur", unit_amount=500, product=await self.product()))["id"]

    async def checkout(self) -> Any:
        return await self.post("/v1/checkout/sessions", line_items=[{"price": await self.price(), "quantity": 1}])

    async def link(self) -> Any:
        return await self.post("/v1/payment_links", line_items=[{"price": await self.price(), "quantity": 1}])

    async def order(self) -> None:
        """The order `order-1` for the product `book`."""
        product = {"name": "Book", "price": 12.5, "available_count": 9, "type": "book"}
        line = {"product_id": "book", "name": "Book", "price": 12.5, "requested_count": 1, "type": "book"}
        order = {
            "order_id": "order-1",
            "user_id": "user-1",
            "products": [{**line, "delivery_address": "1 Main Street"}],
            "payment": {"type": "card", "token": "tok_visa"},
        }
        for method, path, body in (("PUT", "/products/book", product), ("POST", "/orders", order)):
            sent, key = msgspec.json.encode(body), self.merchant.key
            made = await self.app.send(method, path, key=key, body=sent, content_type="application/json")
            assert made.status in (200, 202), made.body

    async def challenge(self) -> tuple[tuple[str, str], str]:
        waiting = await self.paid("pm_card_authenticationRequired", return_url="https://shop.example/back")
        path, _, query = waiting["next_action"]["redirect_to_url"]["url"].partition("/3ds/")[2].partition("?")
        scope, _, id = path.partition("/")
        return (scope, id), query


def _nothing(**params: Any) -> Callable[[MerchantObjects], Coroutine[Any, Any, Good]]:
    async def make(objects: MerchantObjects) -> Good:
        return Good(params=params)

    return make


async def _document(objects: MerchantObjects) -> Good:
    return Good(("gateway.json",))


def _on(
    make_id: Callable[[MerchantObjects], Awaitable[Any]], **params: Any
) -> Callable[[MerchantObjects], Coroutine[Any, Any, Good]]:
    """A call on what `make_id` makes: an id, a pair of ids, or a document."""

    async def make(objects: MerchantObjects) -> Good:
        made = await make_id(objects)
        ids = made if isinstance(made, tuple) else (made["id"] if isinstance(made, dict) else made,)
        return Good(ids, params)

    return make


async def _customers_method(objects: MerchantObjects) -> Good:
    return Good((await objects.method(),), {"customer": (await objects.customer())["id"]})


async def _attempts(objects: MerchantObjects) -> Good:
    return Good(params={"setup_intent": (await objects.setup())["id"]})


async def _refund(objects: MerchantObjects) -> Good:
    return Good(params={"charge": await objects.charge()})


async def _dispute_by_the_simulator(objects: MerchantObjects) -> Good:
    return Good(params={"charge": await objects.charge()})


async def _payout(objects: MerchantObjects) -> Good:
    await objects.funds()
    await objects.external()
    return Good(params={"amount": 100, "currency": "eur"})


async def _payout_that_is_pending(objects: MerchantObjects) -> Good:
    # None can be fetched back, and this one need not be.
    return Good((await objects.payout(),), statuses=(400,))


async def _receipt(objects: MerchantObjects) -> Good:
    charge = await objects.app.ok(objects.merchant, "GET", f"/v1/charges/{await objects.charge()}")
    path, _, query = charge["receipt_url"].partition("/receipts/")[2].partition("?")
    scope, id = path.split("/")
    return Good((scope, id), query=query)


async def _look(objects: MerchantObjects) -> Good:
    ids, query = await objects.challenge()
    return Good(ids, query=query)


async def _decide(objects: MerchantObjects) -> Good:
    ids, query = await objects.challenge()
    return Good(ids, {"outcome": "pass"}, query, (303,))


async def _come_back(objects: MerchantObjects) -> Good:
    ids, _ = await objects.challenge()
    secrets = objects.app.running.platform.engine.client_secrets
    payment = PaymentIntent(id=ids[1], created=0, amount_minor=1, currency="eur")
    return Good(ids, query=f"secret={secrets.return_secret(payment)}", statuses=(303,))


async def _notice(objects: MerchantObjects) -> Good:
    # The simulator takes no notices from outside; its refusal is all that this address has without another bank.
    return Good(("test", "simulator"), statuses=(400,))


async def _another_external(objects: MerchantObjects) -> Good:
    # The first one is the currency's default, which is the last to go.
    await objects.external()
    return Good(await objects.external())


async def _token(objects: MerchantObjects) -> Good:
    made = new_client(objects.merchant.account, "test", ("payments:read",), created=1)
    await objects.app.store.commit([system_write(made.record)])
    sent = {"grant_type": "client_credentials", "client_id": made.record.id, "client_secret": made.secret}
    return Good(params=sent)


async def _refund_that_waits(objects: MerchantObjects) -> Good:
    # No refund to a card ever waits for the customer.
    return Good((await objects.refund(),), statuses=(400,))


async def _step(objects: MerchantObjects) -> Good:
    """The first step of an order, done by hand."""
    await objects.order()
    return Good(("order-1", "check_stock"), {"error": {"type": "Late", "cause": "of no concern to a step that is due"}})


async def _drain(objects: MerchantObjects) -> Good:
    # A connector is the installation's, and these operators work for one merchant.
    return Good(("nordbank",), {"drained": True, "reason": "It is slow."}, statuses=(403,))


async def _endpoint_with_an_event(objects: MerchantObjects) -> Good:
    endpoint = await objects.endpoint()
    declined = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_chargeDeclined", "confirm": "true"}
    declined["return_url"] = "https://shop.example"
    assert (await objects.app.call(objects.merchant, "POST", "/v1/payment_intents", declined)).status == 402
    return Good((endpoint,))


async def _routing(objects: MerchantObjects) -> Good:
    body, key = b'{"otherwise": ["simulator"]}', objects.merchant.key
    put = await objects.app.send("PUT", "/ops/v1/routing", key=key, body=body, content_type="application/json")
    assert put.status == 200, put.body
    return Good()


async def _connector(objects: MerchantObjects) -> Good:
    return Good(("nordbank",), statuses=(403,))


async def _new_connector(objects: MerchantObjects) -> Good:
    settings = {"settings[base_url]": "https://api.nordbank.example"}
    return Good((), {"name": "nordbank", "kind": "http_bank", **settings}, statuses=(403,))


async def _breaker(objects: MerchantObjects) -> Good:
    return Good(("nordbank",), {"state": "open", "reason": "It is slow."}, statuses=(403,))


async def _installation(objects: MerchantObjects) -> Good:
    """A call for the whole installation: these operators work for one merchant."""
    return Good(statuses=(403,))


async def _close(objects: MerchantObjects) -> Good:
    return Good(((await objects.close())["day"],))


async def _difference(objects: MerchantObjects) -> Good:
    close = await objects.close()
    decided = {"decision": "difference", "reason": "Interest of the bank."}
    return Good((close["day"], close["differences"][0]["id"]), decided)


async def _session(objects: MerchantObjects) -> Good:
    objects.app.running.platform.serves_sockets = True
    return Good(params={"websocket_features": ["webhooks"]})


async def _settlement(objects: MerchantObjects) -> Good:
    await objects.paid()
    return Good(params=SETTLEMENT)


async def _page_of(objects: MerchantObjects) -> Good:
    return Good((_last_step(await objects.checkout()),))


async def _press(objects: MerchantObjects) -> Good:
    fields = {"turn": "0", "email": "a@shop.example", "number": "4242424242424242", "exp": "12/34", "cvc": "123"}
    return Good((_last_step(await objects.checkout()),), fields)


async def _visit(objects: MerchantObjects) -> Good:
    return Good((_last_step(await objects.link()),), statuses=(303,))


async def _another_merchant(objects: MerchantObjects) -> Good:
    return Good(params={"name": "Kettle & Leaf Japan"}, statuses=(403,))  # Only an admin of every merchant adds one.


async def _invited(objects: MerchantObjects) -> Good:
    return Good(
        params={"name": f"Li {objects.app.store.commits}", "role": "viewer", "accounts": [objects.merchant.account]}
    )


async def _card_frame(objects: MerchantObjects) -> Good:
    return Good(query=f"key={objects.merchant.public_key}")


async def _page(objects: MerchantObjects) -> Good:
    card = {"type": "card", "card": {"token": "tok_visa"}, "billing_details": {"email": "jane@example.com"}}
    method = await objects.post("/v1/payment_methods", **card)
    return Good(((await objects.checkout())["id"],), {"payment_method": method["id"], "expected_amount": 500})


async def _download(objects: MerchantObjects) -> Good:
    return Good((_last_step(await objects.linked()),))


async def _linked(objects: MerchantObjects) -> Good:
    return Good(params={"file": await objects.file()})


async def _cart(objects: MerchantObjects) -> Good:
    return Good(params={"line_items": [{"price": await objects.price(), "quantity": 2}]})


async def _session_of_a_customer(objects: MerchantObjects) -> Good:
    components = {"payment_element": {"enabled": "true"}}
    return Good(params={"customer": (await objects.customer())["id"], "components": components})


async def _key_of_a_customer(objects: MerchantObjects) -> Good:
    return Good(params={"customer": (await objects.customer())["id"]}, headers=VERSIONED)


async def _price(objects: MerchantObjects) -> Good:
    return Good(params={"currency": "eur", "unit_amount": 1200, "product": await objects.product()})


def _last_step(made: Any) -> str:
    return str(made["url"]).rpartition("/")[2]


GOOD: dict[str, Callable[[MerchantObjects], Coroutine[Any, Any, Good]]] = {
    "GET /.well-known/jwks.json": _nothing(),
    "GET /.well-known/oauth-authorization-server": _nothing(),
    "GET /3ds/{scope}/{id}": _look,
    "POST /3ds/{scope}/{id}": _decide,
    "GET /returns/{scope}/{id}": _come_back,
    "POST /connectors/{mode}/{name}/notices": _notice,
    "GET /c/{session}": _page_of,
    "POST /c/{session}": _press,
    "GET /p/{link}": _visit,
    "GET /js/v1": _nothing(),
    "GET /js/v1/card": _card_frame,
    "GET /js/v1/returned": _nothing(),
    "GET /js/v1/tillway.js": _nothing(),
    "GET /v1/products": _nothing(),
    "POST /v1/products": _nothing(name="Tea", default_price_data={"currency": "eur", "unit_amount": 900}),
    "GET /v1/products/{id}": _on(MerchantObjects.product),
    "POST /v1/products/{id}": _on(MerchantObjects.product, description="Green"),
    "DELETE /v1/products/{id}": _on(MerchantObjects.product),
    "GET /v1/prices": _nothing(),
    "POST /v1/prices": _price,
    "GET /v1/prices/{id}": _on(MerchantObjects.price),
    "POST /v1/prices/{id}": _on(MerchantObjects.price, nickname="Spring"),
    "GET /v1/customers/{customer}/cash_balance": _on(MerchantObjects.customer),
    "GET /v1/customers/{customer}/cash_balance_transactions": _on(MerchantObjects.customer),
    "GET /v1/customers/{customer}/cash_balance_transactions/{id}": _on(MerchantObjects.funded),
    "POST /v1/test_helpers/customers/{customer}/fund_cash_balance": _on(
        MerchantObjects.customer, amount=500, currency="eur"
    ),
    "POST /v1/payment_intents/{id}/apply_customer_balance": _on(MerchantObjects.awaited),
    "GET /v1/test_helpers/test_clocks": _nothing(),
    "POST /v1/test_helpers/test_clocks": _nothing(frozen_time=1_893_456_000),
    "GET /v1/test_helpers/test_clocks/{id}": _on(MerchantObjects.clock),
    "DELETE /v1/test_helpers/test_clocks/{id}": _on(MerchantObjects.clock),
    "POST /v1/test_helpers/test_clocks/{id}/advance": _on(MerchantObjects.clock, frozen_time=1_893_456_001),
    "POST /v1/test_helpers/refunds/{refund}/expire": _refund_that_waits,
    "GET /f/{link}": _download,
    "GET /v1/file_links": _nothing(),
    "POST /v1/file_links": _linked,
    "GET /v1/file_links/{id}": _on(MerchantObjects.file_link),
    "POST /v1/file_links/{id}": _on(MerchantObjects.file_link, expires_at="now"),
    "GET /v1/files": _nothing(),
    "POST /v1/files": _nothing(purpose="dispute_evidence", file=PNG),
    "GET /v1/files/{id}": _on(MerchantObjects.file),
    "GET /v1/files/{id}/contents": _on(MerchantObjects.file),
    "POST /v1/confirmation_tokens": _nothing(payment_method_data={"type": "card", "card": CARD}),
    "GET /v1/confirmation_tokens/{id}": _on(MerchantObjects.confirmation_token),
    "POST /v1/customer_sessions": _session_of_a_customer,
    "POST /v1/ephemeral_keys": _key_of_a_customer,
    "DELETE /v1/ephemeral_keys/{id}": _on(MerchantObjects.ephemeral_key),
    "POST /v1/test_helpers/confirmation_tokens": _nothing(payment_method="pm_card_visa"),
    "GET /v1/checkout/sessions": _nothing(),
    "POST /v1/checkout/sessions": _cart,
    "GET /v1/checkout/sessions/{id}": _on(MerchantObjects.checkout),
    "POST /v1/checkout/sessions/{id}": _on(MerchantObjects.checkout, metadata={"cart": "1"}),
    "POST /v1/checkout/sessions/{id}/expire": _on(MerchantObjects.checkout),
    "GET /v1/checkout/sessions/{id}/line_items": _on(MerchantObjects.checkout),
    "GET /v1/payment_links": _nothing(),
    "POST /v1/payment_links": _cart,
    "GET /v1/payment_links/{id}": _on(MerchantObjects.link),
    "POST /v1/payment_links/{id}": _on(MerchantObjects.link, active=False),
    "GET /v1/payment_links/{id}/line_items": _on(MerchantObjects.link),
    "GET /healthz": _nothing(),
    "POST /oauth2/token": _token,
    "GET /openapi.json": _nothing(),
    "GET /openapi/{dialect}": _document,
    "GET /readyz": _nothing(),
    "GET /ops/v1/accounts": _nothing(),
    "POST /ops/v1/accounts": _another_merchant,
    "GET /ops/v1/accounts/{id}": _on(MerchantObjects.own_account),
    "POST /ops/v1/accounts/{id}": _on(MerchantObjects.own_account, settlement_days=3),
    "POST /ops/v1/accounts/{id}/disable": _on(MerchantObjects.own_account, reason="The contract ended."),
    "POST /ops/v1/accounts/{id}/enable": _on(MerchantObjects.disabled_account, reason="It goes on."),
    "DELETE /ops/v1/accounts/{id}": _on(MerchantObjects.disabled_account, reason="The contract ended."),
    "GET /ops/v1/audit": _nothing(),
    "GET /ops/v1/audit_chain": _nothing(),
    "POST /ops/v1/audit/exports": _nothing(),
    "POST /ops/v1/exports": _nothing(list="payments", rows=2, filters={"currency": ["eur"]}),
    "GET /ops/v1/audit/{id}": _on(MerchantObjects.told),
    "GET /ops/v1/balances": _nothing(),
    "POST /ops/v1/backups": _installation,
    "GET /ops/v1/connector_kinds": _nothing(),
    "GET /ops/v1/connectors": _nothing(),
    "POST /ops/v1/connectors": _new_connector,
    "GET /ops/v1/connectors/{name}": _connector,
    "POST /ops/v1/connectors/{name}": _connector,
    "POST /ops/v1/connectors/{name}/breaker": _breaker,
    "POST /ops/v1/connectors/{name}/test": _connector,
    "POST /ops/v1/doctor": _installation,
    "GET /ops/v1/system": _installation,
    "GET /ops/v1/keys": _nothing(),
    "POST /ops/v1/keys": _nothing(name="Warehouse"),
    "POST /ops/v1/keys/{id}/revoke": _on(MerchantObjects.spare_key),
    "POST /ops/v1/keys/{id}/roll": _on(MerchantObjects.spare_key, overlap_seconds=60),
    "GET /ops/v1/doubts": _nothing(),
    "GET /ops/v1/doubts/{id}": _on(MerchantObjects.doubt),
    "GET /ops/v1/open_items": _nothing(),
    "GET /ops/v1/open_items/{id}": _on(MerchantObjects.open_item),
    "POST /ops/v1/open_items/{id}/close": _on(MerchantObjects.open_item, reason="The bank refunds it."),
    "POST /ops/v1/doubts/{id}/resolve": _on(MerchantObjects.doubt, outcome="failed", reason="The bank says so."),
    "POST /ops/v1/events/{id}/resend": _on(MerchantObjects.event),
    "POST /ops/v1/customers/{customer}/redact": _on(MerchantObjects.customer, reason="The customer asked for it."),
    "POST /ops/v1/payments/{payment}/redact": _on(MerchantObjects.paid, reason="The customer asked for it."),
    "GET /ops/v1/admins": _nothing(),
    "GET /ops/v1/operators": _nothing(),
    "POST /ops/v1/operators": _invited,
    "GET /ops/v1/operators/{id}": _on(MerchantObjects.colleague),
    "POST /ops/v1/operators/{id}": _on(MerchantObjects.colleague, role="operator"),
    "POST /ops/v1/operators/{id}/disable": _on(MerchantObjects.colleague, reason="She left."),
    "POST /ops/v1/operators/{id}/enable": _on(MerchantObjects.colleague, reason="She is back."),
    "POST /ops/v1/operators/{id}/reset": _on(MerchantObjects.colleague, reason="A lost phone."),
    "POST /ops/v1/operators/{id}/sign_out": _on(MerchantObjects.colleague),
    "DELETE /ops/v1/operators/{id}/sessions/{session}": _on(MerchantObjects.signed_in_colleague),
    "POST /ops/v1/connectors/{name}/drain": _drain,
    "GET /ops/v1/ledger": _nothing(),
    "GET /ops/v1/orders": _nothing(),
    "GET /ops/v1/products": _nothing(),
    "POST /ops/v1/orders/{order_id}/steps/{step}": _step,
    "GET /ops/v1/reports/transactions": _nothing(),
    "GET /ops/v1/customers": _nothing(),
    "GET /ops/v1/customers/{customer}": _on(MerchantObjects.customer),
    "GET /ops/v1/payments": _nothing(),
    "GET /ops/v1/payments/totals": _nothing(),
    "GET /ops/v1/payments/{payment}": _on(MerchantObjects.paid),
    "GET /ops/v1/payments/{payment}/timeline": _on(MerchantObjects.paid),
    "GET /ops/v1/payments/{payment}/route": _on(MerchantObjects.paid),
    "GET /ops/v1/disputes/{dispute}": _on(MerchantObjects.dispute),
    "GET /ops/v1/kept_cards": _nothing(),
    "GET /ops/v1/balance_transactions": _nothing(),
    "GET /ops/v1/payment_links": _nothing(),
    "GET /ops/v1/payment_links/{payment_link}": _on(MerchantObjects.link),
    "GET /ops/v1/payouts/contents": _nothing(),
    "GET /ops/v1/payouts/{payout}/contents": _on(MerchantObjects.payout),
    "GET /ops/v1/routing": _nothing(),
    "PUT /ops/v1/routing": _nothing(otherwise=["simulator"]),
    "DELETE /ops/v1/routing": _routing,
    "POST /ops/v1/routing/simulate": _nothing(otherwise=["simulator"]),
    "GET /ops/v1/requests": _nothing(),
    "GET /ops/v1/requests/{id}": _on(MerchantObjects.refused),
    "GET /ops/v1/closes": _nothing(),
    "GET /ops/v1/closes/{day}": _close,
    "POST /ops/v1/closes": _nothing(**CLOSE),
    "POST /ops/v1/closes/{day}/differences/{difference}": _difference,
    "GET /ops/v1/views": _nothing(),
    "POST /ops/v1/views": _nothing(name="Declined", page="payments", query="status=declined"),
    "DELETE /ops/v1/views/{id}": _on(MerchantObjects.saved_view),
    "GET /ops/v1/settlements": _nothing(),
    "GET /ops/v1/settlements/{id}": _on(MerchantObjects.settlement),
    "POST /ops/v1/settlements": _settlement,
    "GET /ops/v1/simulator": _nothing(),
    "POST /ops/v1/simulator": _nothing(faults={"rules": [{"fault": "slow"}]}),
    "POST /ops/v1/simulator/disputes": _dispute_by_the_simulator,
    "GET /v1/account": _nothing(),
    "GET /v1/accounts": _nothing(),
    "GET /v1/accounts/{id}": _on(MerchantObjects.own_account),
    "GET /v1/accounts/{account}/external_accounts": _on(lambda objects: _first(objects.external())),
    "POST /v1/accounts/{account}/external_accounts": _on(
        lambda objects: _first(objects.external()), external_account=BANK
    ),
    "GET /v1/accounts/{account}/external_accounts/{id}": _on(MerchantObjects.external),
    "POST /v1/accounts/{account}/external_accounts/{id}": _on(MerchantObjects.external, metadata={"a": "1"}),
    "DELETE /v1/accounts/{account}/external_accounts/{id}": _another_external,
    "GET /v1/balance": _nothing(),
    "GET /v1/balance_transactions": _nothing(),
    "GET /v1/balance_transactions/{id}": _on(MerchantObjects.movement),
    "GET /v1/charges": _nothing(),
    "POST /v1/charges": _nothing(amount=700, currency="eur", source="tok_visa"),
    "GET /v1/balance/history": _nothing(),
    "GET /v1/balance/history/{id}": _on(MerchantObjects.movement),
    "GET /v1/charges/{id}/dispute": _on(MerchantObjects.disputed),
    "POST /v1/charges/{id}/refund": _on(MerchantObjects.charge),
    "GET /receipts/{scope}/{id}": _receipt,
    "GET /v1/radar/early_fraud_warnings": _nothing(),
    "GET /v1/radar/early_fraud_warnings/{id}": _on(MerchantObjects.warning),
    "POST /v1/customers/{customer}/cards": _on(MerchantObjects.customer, source="tok_visa"),
    "GET /v1/customers/{customer}/cards": _on(MerchantObjects.customer),
    "GET /v1/customers/{customer}/cards/{id}": _on(MerchantObjects.card_of),
    "POST /v1/customers/{customer}/cards/{id}": _on(MerchantObjects.card_of, name="Anna"),
    "DELETE /v1/customers/{customer}/cards/{id}": _on(MerchantObjects.card_of),
    "GET /v1/customers/{customer}/bank_accounts": _on(MerchantObjects.customer),
    "GET /v1/charges/search": _nothing(query="amount>1"),
    "GET /v1/charges/{id}": _on(MerchantObjects.charge),
    "POST /v1/charges/{id}": _on(MerchantObjects.charge, description="Chair"),
    "POST /v1/charges/{id}/capture": _on(lambda objects: objects.charge(capture=False)),
    "GET /v1/charges/{id}/refunds": _on(MerchantObjects.charge),
    "POST /v1/charges/{id}/refunds": _on(MerchantObjects.charge),
    "GET /v1/customers": _nothing(),
    "POST /v1/customers": _nothing(name="Anna"),
    "GET /v1/customers/search": _nothing(query="name:'Anna'"),
    "GET /v1/customers/{customer}/balance_transactions": _on(MerchantObjects.customer),
    "POST /v1/customers/{customer}/balance_transactions": _on(MerchantObjects.customer, amount=-500, currency="usd"),
    "GET /v1/customers/{customer}/balance_transactions/{id}": _on(MerchantObjects.movement_of),
    "POST /v1/customers/{customer}/balance_transactions/{id}": _on(
        MerchantObjects.movement_of, description="A present"
    ),
    "GET /v1/customers/{customer}/payment_methods/{id}": _on(MerchantObjects.method_of),
    "GET /v1/customers/{customer}/sources": _on(MerchantObjects.customer),
    "POST /v1/customers/{customer}/sources": _on(MerchantObjects.customer, source="tok_visa"),
    "GET /v1/customers/{customer}/sources/{id}": _on(MerchantObjects.card_of),
    "POST /v1/customers/{customer}/sources/{id}": _on(MerchantObjects.card_of, name="Anna"),
    "DELETE /v1/customers/{customer}/sources/{id}": _on(MerchantObjects.card_of),
    "GET /v1/customers/{id}": _on(MerchantObjects.customer),
    "POST /v1/customers/{id}": _on(MerchantObjects.customer, name="Anna"),
    "DELETE /v1/customers/{id}": _on(MerchantObjects.customer),
    "GET /v1/customers/{id}/payment_methods": _on(MerchantObjects.customer),
    "GET /v1/disputes": _nothing(),
    "GET /v1/disputes/{id}": _on(MerchantObjects.dispute),
    "POST /v1/disputes/{id}": _on(MerchantObjects.dispute, metadata={"case": "7"}),
    "POST /v1/disputes/{id}/close": _on(MerchantObjects.dispute),
    "GET /v1/events": _nothing(),
    "GET /v1/events/{id}": _on(MerchantObjects.event),
    "POST /v1/events/{id}/retry": _on(MerchantObjects.event),
    "GET /v1/mandates/{id}": _on(MerchantObjects.mandate),
    "GET /v1/payment_intents": _nothing(),
    "POST /v1/payment_intents": _nothing(amount=700, currency="eur"),
    "GET /v1/payment_intents/search": _nothing(query="amount>1"),
    "GET /v1/payment_pages/{session}": _on(MerchantObjects.checkout),
    "POST /v1/payment_pages/{session}/confirm": _page,
    "GET /v1/payment_intents/{id}": _on(MerchantObjects.payment),
    "POST /v1/payment_intents/{id}": _on(MerchantObjects.payment, description="Chair"),
    "POST /v1/payment_intents/{id}/cancel": _on(MerchantObjects.payment),
    "POST /v1/payment_intents/{id}/capture": _on(MerchantObjects.held),
    "POST /v1/payment_intents/{id}/confirm": _on(MerchantObjects.payment, payment_method="pm_card_visa"),
    "POST /v1/payment_intents/{id}/increment_authorization": _on(MerchantObjects.held, amount=5000),
    "GET /v1/payment_methods": _nothing(),
    "POST /v1/payment_methods": _nothing(type="card", card=CARD),
    "GET /v1/payment_methods/{id}": _on(MerchantObjects.method),
    "POST /v1/payment_methods/{id}": _on(lambda objects: _second(objects.method_of()), metadata={"a": "1"}),
    "POST /v1/payment_methods/{id}/attach": _customers_method,
    "POST /v1/payment_methods/{id}/detach": _on(lambda objects: _second(objects.method_of())),
    "GET /v1/payouts": _nothing(),
    "POST /v1/payouts": _payout,
    "GET /v1/payouts/{id}": _on(MerchantObjects.payout),
    "POST /v1/payouts/{id}": _on(MerchantObjects.payout, metadata={"a": "1"}),
    "POST /v1/payouts/{id}/cancel": _on(MerchantObjects.payout),
    "POST /v1/payouts/{id}/reverse": _payout_that_is_pending,
    "GET /v1/refunds": _nothing(),
    "POST /v1/refunds": _refund,
    "GET /v1/refunds/{id}": _on(MerchantObjects.refund),
    "POST /v1/refunds/{id}": _on(MerchantObjects.refund, metadata={"a": "1"}),
    "POST /v1/refunds/{id}/cancel": _refund_that_waits,
    "GET /v1/setup_attempts": _attempts,
    "GET /v1/setup_intents": _nothing(),
    "POST /v1/setup_intents": _nothing(usage="on_session"),
    "GET /v1/setup_intents/{id}": _on(MerchantObjects.setup),
    "POST /v1/setup_intents/{id}": _on(MerchantObjects.setup, description="Later"),
    "POST /v1/setup_intents/{id}/cancel": _on(MerchantObjects.setup),
    "POST /v1/setup_intents/{id}/confirm": _on(MerchantObjects.setup, payment_method="pm_card_visa"),
    "POST /v1/sources": _nothing(type="card", token="tok_visa"),
    "GET /v1/sources/{id}": _on(MerchantObjects.source),
    "POST /v1/sources/{id}": _on(MerchantObjects.source, metadata={"a": "1"}),
    "POST /v1/tokens": _nothing(card=CARD),
    "GET /v1/tokens/{id}": _on(MerchantObjects.token),
    "GET /ops/v1/event_overviews": _nothing(events=["evt_0000000000000000"]),
    "GET /ops/v1/webhook_backlog": _nothing(),
    "GET /ops/v1/webhook_deliveries": _nothing(),
    "GET /ops/v1/webhook_deliveries/{id}": _on(MerchantObjects.delivery),
    "POST /ops/v1/webhook_deliveries/{id}/resend": _on(MerchantObjects.delivery),
    "POST /ops/v1/webhook_endpoints/{id}/test": _endpoint_with_an_event,
    "POST /ops/v1/webhook_endpoints/{id}/replay": _on(MerchantObjects.endpoint, since=0),
    "POST /ops/v1/webhook_endpoints/{id}/roll_secret": _on(MerchantObjects.endpoint, expires_in=60),
    "POST /v1/stripecli/sessions": _session,
    "GET /v1/webhook_endpoints": _nothing(),
    "POST /v1/webhook_endpoints": _nothing(url=HOOK, enabled_events=["charge.failed"]),
    "GET /v1/webhook_endpoints/{id}": _on(MerchantObjects.endpoint),
    "POST /v1/webhook_endpoints/{id}": _on(MerchantObjects.endpoint, description="Hook"),
    "DELETE /v1/webhook_endpoints/{id}": _on(MerchantObjects.endpoint),
}


async def _first(pair: Awaitable[tuple[str, str]]) -> str:
    return (await pair)[0]


async def _second(pair: Awaitable[tuple[str, str]]) -> str:
    return (await pair)[1]


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def routes(*methods: str) -> list[Route]:
    """The routes of the table with one of `methods` (all, where none is named), in a fixed order."""
    return sorted((entry for entry in ROUTES if not methods or entry.method in methods), key=name_of)


def path_of(route: Route, ids: tuple[str, ...]) -> str:
    """The route's path with `ids` in the places of its braces."""
    left = list(ids)
    path = "/".join(left.pop(0) if part.startswith("{") else part for part in route.path.split("/"))
    assert not left, f"{name_of(route)} has fewer ids than {ids}"
    return path


def references(route: Route) -> list[tuple[str, ...]]:
    """The parameters that name another object by its id, each as its path: `("invoice_settings",
    "default_payment_method")`."""
    return list(_references(route.params, ()))


def _references(parameter: Parameter, path: tuple[str, ...]) -> Any:
    match parameter:
        case Id():
            yield path
        case Object(members=members):
            for name, member in members.items():
                yield from _references(member, (*path, name))
        case AnyOf(definitions=definitions):
            for definition in definitions:
                yield from _references(definition, path)
        case Array(of=of):
            yield from _references(of, (*path, "0"))


# Ids in parameters that are not typed as such: what they hold may also be a token's or an alias.
LOOSE: dict[str, list[tuple[str, ...]]] = {
    "POST /v1/payment_methods": [("card", "token")],
    "POST /v1/payment_intents": [("payment_method_data", "card", "token")],
    "POST /v1/payment_intents/{id}/confirm": [("payment_method_data", "card", "token")],
    "POST /v1/setup_intents/{id}/confirm": [("payment_method_data", "card", "token")],
}
