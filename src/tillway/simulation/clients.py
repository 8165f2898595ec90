"""The clients of a world: their requests, their patience, and their behaviour when no answer comes."""

import asyncio
from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec

from tillway.domain.commands import CreatePayout
from tillway.domain.method_types import METHOD_TYPES
from tillway.domain.payment_intent import REFERENCES_MAX
from tillway.domain.source_api import SourceApi
from tillway.engine.connections import SIMULATOR
from tillway.http.messages import Request, Response
from tillway.simulation.world import Answer, Asked, Merchant, World

ORDERS_MAX = 3
ROUTED_MORE = 2
"""So many clients more has a routed world: a breaker opens after some payments."""

TRIES_MAX = 200
"""How often a client repeats a request before it counts as never answered."""

BACKOFF_MAX_SECONDS = 10.0

TRANSIENT = (409, 429, 503)
"""Answers that ask to come back: a client sends the same again."""

ALIASES = ("pm_card_visa",) * 6 + (
    "pm_card_mastercard",
    "pm_card_chargeDeclined",
    "pm_card_visa_chargeDeclinedInsufficientFunds",
    "pm_card_refundFail",
    "pm_card_pendingRefund",
    "pm_card_createDispute",
    "pm_card_createDisputeInquiry",
    "pm_card_threeDSecure2Required",
)
SOFTLY_DECLINED = ("pm_card_visa_chargeDeclinedProcessingError",) * 2
"""Of routed worlds: each bank declines it, so that the next one is tried."""

DEBITS = {
    "us_bank_account": ("000123456789", "000987654321", "000111111113", "000222222227", "000555555559"),
    "sepa_debit": ("DE89370400440532013000", "AT611904300234573201", "DE65370400440002222227", "BE08510007547063"),
}
"""Bank accounts that pay: some settle, some come back, and one of each kind is disputed."""

AMOUNTS = (24, 60, 100, 240, 500, 999, 4200, 4200, 4200, 77_000)
PARTS = (1, 2, 24, 500, 2000, 4200)
CURRENCIES = ("usd", "eur", "jpy")


RECIPIENTS = ("000123456789", "000123456780", "000111111116", "000888888883", "000999999991")
"""Bank accounts: two that are paid, one that is not there, one that takes its time, one that sends the money back."""

ADDRESSES = ("anna@example.org", "pending@example.com", "no_account@example.com", "returned@example.com")

_JSON = {"content-type": "application/json"}


def clients_of(world: World) -> list["Client"]:
    """Who wants something in this world, each an order of its own."""
    more = ROUTED_MORE if world.routed else 0
    names = [f"o{number}" for number in range(1, world.random.randint(1, ORDERS_MAX) + more + 1)]
    kinds = (Client, Client, Client, Treasurer)
    clients = [world.random.choice(kinds)(world, world.random.choice(world.merchants), name) for name in names]
    if world.weather["dispute"] and world.random.random() < 0.7:
        clients += [Clerk(world, merchant, f"clerk of {merchant.scope.account}") for merchant in world.merchants]
    if world.stubborn:
        clients.append(Stubborn(world, world.random.choice(world.merchants), "stubborn"))
    return clients


class Client:
    """A client that pays, and perhaps captures, cancels or refunds, alone or against a second client."""

    def __init__(self, world: World, merchant: Merchant, name: str) -> None:
        self.world = world
        self.random: Random = world.random
        self.merchant = merchant
        self.name = name
        self.asked = 0
        self.paid: dict[str, Any] | None = None
        self.gives_up = self.random.random() < 0.3
        """Whether this one accepts disputes too."""

    async def live(self) -> None:
        random = self.random
        await asyncio.sleep(random.choice((0.0, 0.0, 0.5, 3.0)))
        paid = await self._pay()
        for _ in range(3):
            if paid is None or paid.get("status") not in ("requires_payment_method", "requires_action"):
                break
            if paid["status"] == "requires_action":
                paid = await self._pass_challenge(paid)
            else:
                # Declined: another card, on the same payment.
                paid = await self._confirm(paid["id"])
        self.paid = paid
        for _ in range(random.choice((1, 1, 2))):
            if random.random() < 0.3:
                await asyncio.sleep(random.choice((0.1, 1.0, 5.0)))
            await self.come_back()

    async def come_back(self) -> None:
        """Ask for one to three things about the payment at the same time."""
        if self.paid is not None:
            await asyncio.gather(*[self._one(path, params) for path, params in self._follow_ups(self.paid)])
        await asyncio.gather(*[self._one(path, params) for path, params in await self._replies()])

    async def _replies(self) -> list[tuple[str, dict[str, Any]]]:
        """Answers to some of the merchant's disputes: evidence, acceptance, or both at once. Other clients may too."""
        random = self.random
        if not self.world.disputed:
            return []
        scope = self.merchant.scope.key
        found = await self.world.store.query(None, f"{scope}/du_", limit=10)
        replies: list[tuple[str, dict[str, Any]]] = []
        for row in found:
            path = f"/v1/disputes/{row.key.partition('/')[2]}"
            evidence = (path, {"evidence": {"uncategorized_text": f"{self.name} delivered it."}})
            close: tuple[str, dict[str, Any]] = (f"{path}/close", {})
            replies += random.choice(
                [[], [evidence], [evidence], *([[close], [evidence, close]] if self.gives_up else [])]
            )
        return replies

    async def _pay(self) -> dict[str, Any] | None:
        random = self.random
        params: dict[str, Any] = {
            "amount": random.choice(AMOUNTS),
            "currency": random.choice(CURRENCIES),
            "metadata": {},
        }
        match random.choice(("intent", "intent", "customer", "debit", "credit", "two steps", "charge")):
            case "charge":
                params["source"] = await self._source()
                if random.random() < 0.5:
                    params["capture"] = False
                return await self._one("/v1/charges", params)
            case "intent":
                if random.random() < 0.5:
                    params["capture_method"] = "manual"
                means = await self._means()
                return await self._one("/v1/payment_intents", {**params, **means, "confirm": True})
            case "customer":
                # The card is kept for a customer; and perhaps removed while it pays.
                customer = await self._one("/v1/customers", {})
                if customer is not None:
                    params |= {"customer": customer["id"], "setup_future_usage": "off_session"}
                means = await self._means()
                return await self._one("/v1/payment_intents", {**params, **means, "confirm": True})
            case "credit":
                return await self._pay_with_credit(params)
            case "debit":
                return await self._debit(params)
            case _:
                if random.random() < 0.5:
                    params["capture_method"] = "manual"
                made = await self._one("/v1/payment_intents", params)
                if made is None:
                    return None
                racing = [self._confirm(made["id"]) for _ in range(random.choice((1, 2)))]
                paid = [answer for answer in await asyncio.gather(*racing) if answer is not None]
                return paid[0] if paid else made

    async def _debit(self, params: dict[str, Any]) -> dict[str, Any] | None:
        """A bank account pays: a public test account, one that is told with the payment, or one that is kept for a
        customer, and perhaps removed while it pays."""
        random = self.random
        type = random.choice(tuple(DEBITS))
        details = {"type": type, type: _account(type, random.choice(DEBITS[type])), "billing_details": HOLDER}
        means: dict[str, Any] = {"payment_method_data": details}
        match random.choice(("alias", "told", "kept")):
            case "alias":
                scenario = random.choice(("success", "insufficientFunds"))
                alias = f"pm_usBankAccount_{scenario}" if type == "us_bank_account" else f"pm_sepaDebit_{scenario}_de"
                means = {"payment_method": alias}
            case "kept":
                customer = await self._one("/v1/customers", {})
                if customer is not None:
                    means |= {"customer": customer["id"], "setup_future_usage": "off_session"}
            case _:
                pass
        accepted = {"mandate_data": {"customer_acceptance": {"type": "offline"}}}
        params |= {"currency": METHOD_TYPES[type].currency, "payment_method_types": ["card", type], "confirm": True}
        return await self._one("/v1/payment_intents", {**params, **means, **accepted})

    async def _pay_with_credit(self, params: dict[str, Any]) -> dict[str, Any] | None:
        """Give a customer credit, perhaps too little, then pay with it and take it back at the same time."""
        random = self.random
        customer = await self._one("/v1/customers", {})
        if customer is None:
            return None
        movements = f"/v1/customers/{customer['id']}/balance_transactions"
        amount, currency = params["amount"], params["currency"]
        for part in random.choice(((amount,), (amount * 2,), (amount, amount), (amount, 24), (24,))):
            await self._one(movements, {"amount": -part, "currency": currency, "metadata": {}})
        params |= {
            "customer": customer["id"],
            "payment_method_types": ["card", "customer_balance"],
            "payment_method_data": {"type": "customer_balance"},
            "confirm": True,
        }
        racing = [self._one("/v1/payment_intents", {**params}) for _ in range(random.choice((1, 2, 3)))]
        if random.random() < 0.5:
            racing.append(self._one(movements, {"amount": amount, "currency": currency, "metadata": {}}))
        paid = [answer for answer in await asyncio.gather(*racing) if answer is not None]
        return paid[0] if paid else None

    async def _confirm(self, id: str) -> dict[str, Any] | None:
        return await self._one(f"/v1/payment_intents/{id}/confirm", await self._means())

    async def _pass_challenge(self, paid: dict[str, Any]) -> dict[str, Any] | None:
        """Complete or fail the 3-D Secure challenge, perhaps in two windows, then retrieve the payment."""
        url: str = paid["next_action"]["redirect_to_url"]["url"]
        path, _, secret = url.removeprefix("http://world").partition("?secret=")
        decisions = self.random.choice((("pass",), ("fail",), ("pass", "pass"), ("pass", "fail")))
        asked = Asked(f"{self.name}.3ds", self.merchant.scope, path, {}, None, [])
        requests = [
            Request("POST", path, "", _JSON, msgspec.json.encode({"secret": secret, "outcome": decision}))
            for decision in decisions
        ]
        process = await self.world.reachable()
        await asyncio.gather(*(self._send(asked, request, process) for request in requests))
        return await self._one(f"/v1/payment_intents/{paid['id']}", {"metadata": {f"{self.name}.challenge": "seen"}})

    async def _means(self) -> dict[str, Any]:
        """Draw a payment method: a public test card, card data sent with the payment, or a stored method."""
        match self.random.choice(("alias", "alias", "alias", "told", "told before")):
            case "alias":
                return {"payment_method": self.random.choice(self._aliases())}
            case "told":
                return {"payment_method_data": {"type": "card", "card": self._card()}}
            case _:
                method = await self._one("/v1/payment_methods", {"type": "card", "card": self._card()})
                return {"payment_method": method["id"] if method is not None else ALIASES[0]}

    async def _source(self) -> Any:
        """The same for a direct charge."""
        match self.random.choice(("alias", "alias", "alias", "told", "told before")):
            case "alias":
                return self.random.choice(self._aliases()).replace("pm_card", "tok")
            case "told":
                return self._card()
            case _:
                token = await self._one("/v1/tokens", {"card": self._card()})
                return token["id"] if token is not None else "tok_visa"

    def _aliases(self) -> tuple[str, ...]:
        return ALIASES + SOFTLY_DECLINED if self.world.routed else ALIASES

    def _card(self) -> dict[str, Any]:
        return {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": self.world.new_cvc()}

    def _follow_ups(self, paid: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Some of these make no sense: that is for the engine to say."""
        random, id = self.random, paid["id"]
        direct = id.startswith("ch_")
        captured = paid.get("captured") if direct else paid.get("status") == "succeeded"
        for nth in range(random.choice((1, 1, 2, 3))):
            part = random.choice((None, None, *PARTS))
            if random.random() < 0.1:
                noun = "charges" if direct else "payment_intents"
                yield f"/v1/{noun}/{id}", {"metadata": {f"{self.name}.{self.asked}.{nth}": "seen"}}
                continue
            if paid.get("customer") and paid.get("payment_method") and random.random() < 0.3:
                yield f"/v1/payment_methods/{paid['payment_method']}/detach", {}
                continue
            if captured or random.random() < 0.1:
                params: dict[str, Any] = {"charge" if direct else "payment_intent": id}
                if part is not None:
                    params["amount"] = part
                yield "/v1/refunds", params
                continue
            match random.choice(("capture", "capture", "cancel", "increment")):
                case "capture" if direct:
                    yield f"/v1/charges/{id}/capture", {"amount": part} if part else {}
                case "capture":
                    again = {"final_capture": False} if random.random() < 0.3 else {}
                    yield f"/v1/payment_intents/{id}/capture", {"amount_to_capture": part, **again} if part else again
                case "cancel" if not direct:
                    yield f"/v1/payment_intents/{id}/cancel", {}
                case "increment" if not direct:
                    more = paid.get("amount", 0) + random.choice((1, 24, 700))
                    yield f"/v1/payment_intents/{id}/increment_authorization", {"amount": more}
                case _:
                    yield f"/v1/charges/{id}/capture", {}

    async def _one(self, path: str, params: dict[str, Any]) -> dict[str, Any] | None:
        """Ask for one thing, perhaps twice at the same time. The object that came of it, also in an error; or None."""
        self.asked += 1
        world, random = self.world, self.random
        who = f"{self.name}.{self.asked}"
        if params.get("metadata") == {}:
            params["metadata"] = {"request": who}
        key = f"{who}" if random.random() < 0.85 else None
        asked = Asked(who, self.merchant.scope, path, params, key, [])
        world.asked.append(asked)
        copies = random.choice((1, 1, 1, 1, 1, 1, 2, 3)) if key is not None else 1
        leaves = random.random() < 0.1
        answers = await asyncio.gather(*(self._insist(asked, leaves) for _ in range(copies)))
        shown = [answer.document for answer in answers if answer is not None]
        for document in shown:
            document = document.get("error", {}).get("payment_intent") or document
            if document.get("object") in _OBJECTS:
                return document
        return None

    async def _insist(self, asked: Asked, leaves: bool) -> Answer | None:
        """Repeat under the same key or name until there is an answer. Who has neither, or `leaves`, asks once."""
        world, random = self.world, self.random
        headers = {"authorization": f"Bearer {self.merchant.secret}", **_JSON}
        if asked.key is not None:
            headers["idempotency-key"] = asked.key
        request = Request(asked.method, asked.path, "", headers, msgspec.json.encode(asked.params))
        for tries in range(TRIES_MAX):
            process = await world.reachable()
            response = await self._send(asked, request, process)
            if response is not None and response.status not in TRANSIENT:
                answer = Answer(response.status, response.body)
                asked.answers.append(answer)
                return answer
            if leaves or (asked.key is None and not asked.named):
                asked.given_up = True
                return None
            await asyncio.sleep(random.random() * min(0.5 * 1.6 ** min(tries, 30), BACKOFF_MAX_SECONDS))
        world.violate("liveness", f"{asked.who} got no answer in {TRIES_MAX} tries")
        return None

    async def _send(
        self, asked: Asked, request: Request, process: Any, patience: float | None = None
    ) -> Response | None:
        """One request, one answer, or None where none came in time."""
        world, random = self.world, self.random
        patience = patience or random.choice((0.05, 2.0, 5.0, 12.0))
        if world.strikes("client's request lost"):
            await asyncio.sleep(patience)
            return None
        world.tell(asked.who, f"-> {process.name} {asked.path} {_short(asked.params)}")
        answer: asyncio.Future[Response | None] = world.loop.create_future()
        process.serve(asked, request, answer)
        world.later(patience, _nothing_came, answer)
        response = await answer
        world.tell(asked.who, f"<- {_summarize(response)}")
        return response


HOLDER = {"name": "Anna", "email": "anna@example.org"}


def _account(type: str, number: str) -> dict[str, Any]:
    if type == "sepa_debit":
        return {"iban": number}
    return {"account_number": number, "routing_number": "110000000"}


_OBJECTS = (
    "payment_intent",
    "charge",
    "refund",
    "payment_method",
    "token",
    "customer",
    "bank_account",
    "payout",
)


class Clerk(Client):
    """A client that answers the merchant's disputes, at each stage that the bank opens."""

    async def live(self) -> None:
        for _ in range(10):
            await asyncio.sleep(self.random.choice((0.5, 2.0, 4.0)))
            await self.come_back()

    async def come_back(self) -> None:
        """Answer each dispute that there is, or leave it for now."""
        await asyncio.gather(*[self._one(path, params) for path, params in await self._replies()])


class Stubborn(Client):
    """A client that tries a declined card and then a good one, and captures it in more parts than a payment keeps
    references of: the good authorization is in the middle of them."""

    async def live(self) -> None:
        options = {"card": {"request_multicapture": "if_available"}}
        params = {"amount": 77_000, "currency": "usd", "capture_method": "manual", "payment_method_options": options}
        self.paid = await self._one("/v1/payment_intents", {**params, "metadata": {}})
        if self.paid is None:
            return
        path = f"/v1/payment_intents/{self.paid['id']}"
        for alias in ("pm_card_chargeDeclined", "pm_card_visa"):
            await self._one(f"{path}/confirm", {"payment_method": alias})
        for _ in range(REFERENCES_MAX + 2):
            await self._one(f"{path}/capture", {"amount_to_capture": 24, "final_capture": False})


class Treasurer(Client):
    """A client that takes payments whose money is available at once and pays it out again: too much, in parallel, with
    cancellations. It also pays customers from the merchant's own money at the bank."""

    async def live(self) -> None:
        random = self.random
        self.currency = random.choice(CURRENCIES)
        await asyncio.sleep(random.choice((0.0, 0.0, 0.5, 3.0)))
        numbers = random.choice((RECIPIENTS[:1], random.sample(RECIPIENTS, 2)))
        await asyncio.gather(*[self._add_account(number) for number in numbers])
        for _ in range(random.choice((1, 1, 2))):
            paid = {"amount": 4200, "currency": self.currency, "payment_method": "pm_card_bypassPending"}
            await self._one("/v1/payment_intents", {**paid, "confirm": True, "metadata": {}})
        for _ in range(random.choice((1, 1, 2))):
            await self.come_back()

    async def come_back(self) -> None:
        """One to four payouts and settlements at once."""
        ways = [self.random.choice((self._pay_out, self._pay_out, self._disburse, self._settle)) for _ in range(4)]
        await asyncio.gather(*[way() for way in ways[: self.random.choice((1, 2, 3, 4))]])

    async def _add_account(self, number: str) -> None:
        account = {"object": "bank_account", "country": "US", "currency": self.currency, "account_number": number}
        path = f"/v1/accounts/{self.merchant.scope.account}/external_accounts"
        await self._one(path, {"external_account": {**account, "routing_number": "110000000"}})

    async def _pay_out(self) -> None:
        random = self.random
        amount = random.choice((1, 2, 24, 900, 3000, 3000, 3000, 3000, 3000))
        made = await self._one("/v1/payouts", {"amount": amount, "currency": self.currency, "metadata": {}})
        if made is None or made["object"] != "payout" or random.random() < 0.4:
            return
        await asyncio.sleep(random.choice((0.0, 0.0, 0.4, 1.0, 3.0)))
        await self._one(f"/v1/payouts/{made['id']}/cancel", {})

    async def _settle(self) -> None:
        """Book a settlement of the bank, or its correction, until it is certain that it is booked or refused."""
        self.asked += 1
        amount, fee = self.random.choice(((1, 0), (3000, 0), (900, 24), (-1, 0), (-900, 0)))
        who = f"{self.name}.{self.asked}"
        connector = self.random.choice([*self.world.banks]) if self.world.routed else SIMULATOR
        given = {"connector": connector, "currency": self.currency, "amount_minor": amount, "fee_minor": fee}
        for _ in range(TRIES_MAX):
            done: asyncio.Future[bool | None] = self.world.loop.create_future()
            process = await self.world.reachable()
            self.world.tell(who, f"-> {process.name} books a settlement of {amount} and {fee}")
            process.settle(self.merchant.scope, {**given, "reference": who}, done)
            if await done:
                return
            await asyncio.sleep(self.random.random())
        self.world.violate("liveness", f"{who} got no settlement booked in {TRIES_MAX} tries")

    async def _disburse(self) -> None:
        """Ask once: this call takes no Idempotency-Key, so a client cannot know whether to repeat it."""
        self.asked += 1
        amount = self.random.choice((1, 24, 500, 3000))
        command = CreatePayout(
            amount_minor=amount,
            currency=self.currency,
            source_api=SourceApi.disbursements,
            funding="provider",
            metadata={"request": f"{self.name}.{self.asked}"},
        )
        done: asyncio.Future[None] = self.world.loop.create_future()
        process = await self.world.reachable()
        self.world.tell(f"{self.name}.{self.asked}", f"-> {process.name} pays a customer {amount}")
        process.disburse(self.merchant.scope, command, self.random.choice(ADDRESSES), done)
        await done


def _nothing_came(answer: "asyncio.Future[Response | None]") -> None:
    if not answer.done():
        answer.set_result(None)


def _short(params: dict[str, Any]) -> str:
    shown = {
        name: "a card" if name == "payment_method_data" or isinstance(value, dict) else value
        for name, value in params.items()
        if name != "metadata"
    }
    return " ".join(f"{name}={value}" for name, value in shown.items())


def _summarize(response: Response | None) -> str:
    if response is None:
        return "nothing"
    if not response.body.startswith(b"{"):
        return f"{response.status} a page"
    document = msgspec.json.decode(response.body)
    error = document.get("error")
    if error is not None:
        return f"{response.status} {error.get('code')}"
    return f"{response.status} {document.get('id')} {document.get('status')}"
