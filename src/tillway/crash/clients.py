"""The clients of the crash harness: shops that pay, capture, refund and answer disputes, and record the answers.

A client sends every order with an Idempotency-Key and, when the connection breaks, repeats the order with the same key
until it gets an answer. Some orders are sent several times at once, some are abandoned, and refunds, captures and
cancellations race. The seed decides everything except the effects of kills and the network.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec

ANSWER_SECONDS = 8.0
"""How long a client waits for one answer before it treats the connection as broken."""

DECISIONS_MAX = 600
"""How often a shopper presses a button at the bank's page until the bank answers."""

LOOKS_MAX = 600
"""How often a shopper looks whether a payment leads to the bank's page."""

RETRY_SECONDS = (0.02, 0.2)
"""The pause after a broken connection, drawn between these."""

BUSY_SECONDS = (0.3, 0.9)
"""The pause after an answer that the order, or another one about the same object, is still under way."""

SEVERAL = 3
"""Most copies of one order that are sent at the same time."""

BUSY_CODES = ("idempotency_key_in_use", "lock_timeout", "busy", "rate_limit", "storage_full", "clock_off")
CURRENCIES = ("usd", "eur", "jpy")
DECLINED, NO_FUNDS, PENDING = 101, 102, 124
"""Amounts that the rules `ANSWERED` make the bank treat specially."""

ANSWERED = (
    {"fault": "decline", "operation": "authorize", "amount": DECLINED},
    {"fault": "no_funds", "operation": "authorize", "amount": NO_FUNDS},
    {"fault": "pend", "amount": PENDING},
)

DISBURSEMENTS = "/v1/api/"
"""Prefix of the dialect's paths for disbursements to customers."""

IN_JSON = (DISBURSEMENTS, "/orders", "/products/")
"""Prefixes of the paths that take no forms."""

IBAN = "DE89370400440532013000"

CHALLENGED = {"number": "4000002760003184", "exp_month": "12", "exp_year": "2040", "cvc": "314"}
"""A card whose issuer asks its holder at the bank's page."""

CARD = {"number": "4242424242424242", "exp_month": "12", "exp_year": "2040", "cvc": "314"}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A request of a client. `story` is its shopper, `key` the Idempotency-Key."""

    story: str
    what: str
    path: str
    params: dict[str, Any]
    key: str
    method: Literal["POST", "PUT"] = "POST"


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, unchanged. `at` is seconds since the harness began; `why` is the failure if `status` is 0.
    `replayed`: the server marks the answer as a replay."""

    at: float
    order: Order
    status: int
    body: bytes = b""
    replayed: bool = False
    why: str = ""

    @property
    def document(self) -> dict[str, Any]:
        return msgspec.json.decode(self.body) if self.body else {}

    @property
    def code(self) -> str:
        """The error's code, or the empty text."""
        if self.status in (200, 202) or not self.body:
            return ""
        refusal = _refusal(self.document)
        return refusal.get("code") or refusal.get("type") or ""

    @property
    def final(self) -> bool:
        """Whether the key has its answer: a success or a decline."""
        return self.status in (200, 402)


class Shop:
    """All clients of one merchant. `told` has their answers, in order; `given_up` their abandoned orders. They send
    each order, and each repetition, to any of `urls`."""

    def __init__(
        self,
        urls: Sequence[str],
        secret_key: str,
        seed: int,
        journal: Path,
        *,
        account: str,
        began: float,
        redirects: bool = False,
    ) -> None:
        self.told: list[Reply] = []
        self.given_up: dict[str, Order] = {}
        self.unanswered: list[Order] = []
        self.stories = 0
        self.failure: BaseException | None = None
        """A fault of the client itself, which makes the run worthless."""
        self._urls = urls
        self._seed = seed
        self._url_choice = random.Random(f"doors {seed}")
        self._account, self._redirects = account, redirects
        self._began = began
        self._journal = journal.open("ab", buffering=1 << 16)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers={"authorization": f"Bearer {secret_key}"},
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
        )
        self._closing = False
        self._until: float | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._session.close()
        self._journal.close()

    def elapsed(self) -> float:
        return time.monotonic() - self._began

    async def trade(self, *, at_once: int, per_second: float) -> None:
        """Begin new stories, at most `at_once` under way, until `wind_up`."""
        while not self._closing:
            if len(self._under_way) < at_once:
                self.stories += 1
                task = asyncio.create_task(self._live(self.stories))
                self._under_way.add(task)
                task.add_done_callback(self._on_task_done)
            await asyncio.sleep(1 / per_second)

    def _on_task_done(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.failure = self.failure or task.exception()

    async def wind_up(self, *, within_seconds: float) -> None:
        """Start no new stories, and wait until every order that was not abandoned has an answer."""
        self._closing = True
        self._until = time.monotonic() + within_seconds
        if self._under_way:
            await asyncio.wait(set(self._under_way))
        if self.failure is not None:
            raise self.failure

    async def come_back(self, orders: Sequence[Order], *, within_seconds: float) -> None:
        """Repeat the abandoned orders with the same keys, like a client that later finds them in its records."""
        self._until = time.monotonic() + within_seconds
        await self._many([self.send_until_answered(order, random.Random(order.key)) for order in orders])

    async def ask_again(self, orders: Sequence[Order], *, within_seconds: float) -> list[Reply]:
        """The current answers to repeats of `orders`, which were answered before."""
        self._until = time.monotonic() + within_seconds
        before = len(self.told)
        await self._many([self.send_until_answered(order, random.Random(order.key)) for order in orders])
        return self.told[before:]

    async def _many(self, asking: list[Any]) -> None:
        for first in range(0, len(asking), 16):
            await asyncio.gather(*asking[first : first + 16])

    # One order.

    async def send_until_answered(self, order: Order, chance: random.Random) -> Reply | None:
        """Send `order` until it gets an answer other than "not now"; None when the time is up."""
        while self._until is None or time.monotonic() < self._until:
            told = await self._send(order)
            if told.status == 0:
                await asyncio.sleep(chance.uniform(*RETRY_SECONDS))
            elif told.code in BUSY_CODES:
                await asyncio.sleep(chance.uniform(*BUSY_SECONDS))
            else:
                return told
        self.unanswered.append(order)
        return None

    async def _send(self, order: Order) -> Reply:
        try:
            in_json = order.path.startswith(IN_JSON)
            body = msgspec.json.encode(order.params) if in_json else urlencode(_flat(order.params)).encode()
            kind = "application/json" if in_json else "application/x-www-form-urlencoded"
            headers = {"idempotency-key": order.key, "content-type": kind}
            url = self._url_choice.choice(self._urls) + order.path
            async with self._session.request(order.method, url, data=body, headers=headers) as answer:
                body = await answer.read()
                replayed = answer.headers.get("idempotent-replayed") == "true"
                return self._record_reply(order, answer.status, body, replayed=replayed)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return self._record_reply(order, 0, why=type(error).__name__)

    def _record_reply(
        self, order: Order, status: int, body: bytes = b"", *, replayed: bool = False, why: str = ""
    ) -> Reply:
        told = Reply(at=round(self.elapsed(), 4), order=order, status=status, body=body, replayed=replayed, why=why)
        # A broken connection or a "not now" is recorded only in the journal.
        if status and told.code not in BUSY_CODES:
            self.told.append(told)
        self._journal.write(
            msgspec.json.encode(
                {
                    "at": told.at,
                    "story": order.story,
                    "what": order.what,
                    "path": order.path,
                    "params": order.params,
                    "key": order.key,
                    "status": status,
                    "body": body.decode(errors="replace"),
                    "replayed": replayed,
                    "why": why,
                }
            )
            + b"\n"
        )
        return told

    async def _order(self, story: "_Purchase", what: str, path: str, params: dict[str, Any]) -> dict[str, Any] | None:
        """Send an order in one of the ways of clients. Return the document of the answer, or None."""
        story.orders += 1
        order = Order(story=story.name, what=what, path=path, params=params, key=f"{story.name}-{story.orders}-{what}")
        chance = story.chance
        manner = chance.choices(("once", "several", "give up"), (80, 12, 8))[0]
        match manner:
            case "several":
                copies = chance.randint(2, SEVERAL)
                chances = [random.Random(chance.random()) for _ in range(copies)]
                heard = await asyncio.gather(*(self.send_until_answered(order, own) for own in chances))
                told = next((one for one in heard if one is not None and one.final), heard[0])
            case "give up":
                self.given_up[order.key] = order
                try:
                    async with asyncio.timeout(chance.choice((0.002, 0.005, 0.01, 0.03))):
                        told = await self.send_until_answered(order, chance)
                except TimeoutError:
                    return None
                del self.given_up[order.key]
            case _:
                told = await self.send_until_answered(order, chance)
        return told.document if told is not None and told.status == 200 else None

    # The stories.

    async def _live(self, number: int) -> None:
        name = f"{self._seed}-{number}"
        story = _Purchase(name, random.Random(f"story {name}"))
        plots = {
            self._buys: 22,
            self._buys_in_two_steps: 12,
            self._reserves: 22,
            self._is_declined_first: 8,
            self._waits_for_the_bank: 8,
            self._confirms_twice: 10,
            self._pays_as_of_old: 12,
            self._reserves_and_is_torn: 6,
            self._pays_out: 14,
            self._pays_a_customer: 8,
            self._sells_the_last_ones: 12,
            self._answers_disputes: 12,
        }
        if self._redirects:
            plots[self._authenticates_at_the_bank] = 60
        plot = story.chance.choices(list(plots), list(plots.values()))[0]
        await plot(story)

    async def _buys(self, story: "_Purchase") -> None:
        payment = await self._pay(story)
        await self._refund(story, payment)

    async def _buys_in_two_steps(self, story: "_Purchase") -> None:
        created = await self._order(story, "create", "/v1/payment_intents", self._purchase(story) | story.means())
        payment = await self._then(story, created, "confirm")
        await self._refund(story, payment)

    async def _reserves(self, story: "_Purchase") -> None:
        payment = await self._pay(story, capture_method="manual")
        if payment is None or payment["status"] != "requires_capture":
            return
        if story.chance.random() < 0.3:
            await self._then(story, payment, "cancel")
            return
        captured = await self._then(story, payment, "capture", self._part(story, payment))
        await self._refund(story, captured)

    async def _reserves_and_is_torn(self, story: "_Purchase") -> None:
        """Captures and cancels at the same time: one of them wins."""
        payment = await self._pay(story, capture_method="manual")
        if payment is None or payment["status"] != "requires_capture":
            return
        outcomes = await asyncio.gather(
            self._then(story, payment, "capture", self._part(story, payment)), self._then(story, payment, "cancel")
        )
        for outcome in outcomes:
            if outcome is not None and outcome["status"] == "succeeded":
                await self._refund(story, outcome)

    async def _is_declined_first(self, story: "_Purchase") -> None:
        amount = story.amount
        story.amount = story.chance.choice((DECLINED, NO_FUNDS))
        created = await self._order(story, "create", "/v1/payment_intents", self._purchase(story) | story.means())
        await self._then(story, created, "confirm")
        await self._then(story, created, "update", {"amount": amount})
        payment = await self._then(story, created, "confirm", {"payment_method": "pm_card_visa"})
        await self._refund(story, payment)

    async def _authenticates_at_the_bank(self, story: "_Purchase") -> None:
        """The bank asks the shopper at its page. They pass or fail there, and return or not; or the merchant cancels
        while they are on their way."""
        params = self._purchase(story) | {
            "confirm": True,
            "payment_method_data": {"type": "card", "card": CHALLENGED},
            "return_url": "https://shop.example/",
            "capture_method": story.chance.choice(("automatic", "manual")),
        }
        # Until it is certain: an abandoned payment would wait for its shopper for an hour.
        pay = Order(
            story=story.name, what="authenticate", path="/v1/payment_intents", params=params, key=f"{story.name}-3ds"
        )
        told = await self.send_until_answered(pay, story.chance)
        if told is None or told.status != 200:
            return
        payment = told.document
        for _ in range(LOOKS_MAX):
            # Where the bank's answer was lost, the server asks, and hears of the page later.
            if payment["status"] != "processing":
                break
            await asyncio.sleep(0.2)
            payment = await self._look(f"/v1/payment_intents/{payment['id']}") or payment
        if payment["status"] != "requires_action":
            return
        page = payment["next_action"]["redirect_to_url"]["url"]
        chance = random.Random(story.chance.random())
        if chance.random() < 0.25:
            await asyncio.gather(self._then(story, payment, "cancel"), self._decide(page, chance))
        else:
            await self._decide(page, chance)

    async def _decide(self, page: str, chance: random.Random) -> None:
        """Press a button at the bank's page until the bank answers, and mostly go where it sends the shopper."""
        form, back = {"outcome": chance.choice(("pass", "pass", "fail"))}, None
        for _ in range(DECISIONS_MAX):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with self._session.post(page, data=form, headers=_STRANGER, allow_redirects=False) as answer:
                    back = answer.headers.get("location")
            if back is not None:
                break
            await asyncio.sleep(chance.uniform(*RETRY_SECONDS))
        parts = urlsplit(back or "")
        if not parts.path or chance.random() < 0.3:
            return
        # A browser gives up where the server is down: the payment is seen through all the same.
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            url = f"{self._url_choice.choice(self._urls)}{parts.path}?{parts.query}"
            async with self._session.get(url, headers=_STRANGER, allow_redirects=False) as answer:
                await answer.read()

    async def _waits_for_the_bank(self, story: "_Purchase") -> None:
        story.amount = PENDING
        await self._pay(story)

    async def _confirms_twice(self, story: "_Purchase") -> None:
        """Two browser tabs: two keys, one payment."""
        created = await self._order(story, "create", "/v1/payment_intents", self._purchase(story) | story.means())
        first, second = await asyncio.gather(
            self._then(story, created, "confirm"), self._then(story, created, "confirm")
        )
        await self._refund(story, first or second)

    async def _pays_as_of_old(self, story: "_Purchase") -> None:
        capture = story.chance.random() < 0.7
        source = {"amount": story.amount, "currency": story.currency, "source": "tok_visa", "capture": capture}
        charge = await self._order(story, "charge", "/v1/charges", source | {"metadata": {"story": story.name}})
        if charge is None or self._closing:
            return
        if not capture and charge["status"] == "succeeded":
            charge = await self._order(story, "capture", f"/v1/charges/{charge['id']}/capture", {})
        await self._refund(story, charge)

    async def _pays_out(self, story: "_Purchase") -> None:
        """Available money is paid out, in parts that together exceed it; some payouts are cancelled."""
        bank = {"object": "bank_account", "country": "DE", "currency": story.currency, "account_number": IBAN}
        path = f"/v1/accounts/{self._account}/external_accounts"
        key = f"{self._seed}-account-{story.currency}"
        account = Order(story=story.name, what="account", path=path, params={"external_account": bank}, key=key)
        if await self.send_until_answered(account, story.chance) is None:
            return
        paid = await self._pay(story, payment_method="pm_card_bypassPending")
        if paid is None or paid["status"] != "succeeded" or self._closing:
            return
        part = max(3, story.amount * story.chance.choice((2, 4)) // 5)
        await asyncio.gather(*(self._pay_out(story, part) for _ in range(story.chance.choice((1, 2, 3)))))

    async def _pay_out(self, story: "_Purchase", amount: int) -> None:
        chance = random.Random(story.chance.random())
        params = {"amount": amount, "currency": story.currency, "metadata": {"story": story.name}}
        made = await self._order(story, "payout", "/v1/payouts", params)
        if made is not None and chance.random() < 0.4:
            await asyncio.sleep(chance.choice((0.0, 0.5, 1.0, 1.5, 2.5)))
            if not self._closing:
                await self._order(story, "cancel payout", f"/v1/payouts/{made['id']}/cancel", {})

    async def _pays_a_customer(self, story: "_Purchase") -> None:
        """By the dialect of disbursements, which needs no balance."""
        person = {"customer_id": f"C{story.name.replace('-', 'n'):0>8}", "email": "anna@example.org"}
        known = await self._order(story, "customer", f"{DISBURSEMENTS}customer", person)
        if known is None or self._closing:
            return
        money = {"amount": story.chance.choice((1, 24, 500)), "currency": story.currency.upper()}
        await self._order(story, "disburse", f"{DISBURSEMENTS}payment", person | money)

    async def _sells_the_last_ones(self, story: "_Purchase") -> None:
        """A few items, and concurrent orders for more than these; some go to an address without a courier."""
        chance, product = story.chance, f"book-{story.name}"
        stock = {"name": "Book", "type": "book", "currency": story.currency, "price": 1}
        # Until it is certain: if this were abandoned, the stock would be unknown.
        put = Order(
            story=story.name,
            what="stock",
            path=f"/products/{product}",
            params={**stock, "available_count": chance.randint(1, 3)},
            key=f"{story.name}-stock",
            method="PUT",
        )
        if await self.send_until_answered(put, chance) is None or self._closing:
            return
        wanted = []
        for number in range(chance.randint(1, 3)):
            line = {
                "product_id": product,
                "name": "Book",
                "price": story.amount // 100 + 1,
                "requested_count": chance.choice((1, 1, 2)),
                "type": "book",
                "delivery_address": chance.choice(("1 Main Street", "1 Main Street", "Undeliverable")),
            }
            order = {
                "order_id": f"{story.name}-{number}",
                "user_id": f"user-{story.name}",
                "currency": story.currency,
                "products": [line],
                "payment": {"type": "card", "token": chance.choice(("tok_visa", "tok_mastercard"))},
            }
            wanted += [order] * chance.choice((1, 1, 2))
        await asyncio.gather(*(self._order(story, "order", "/orders", order) for order in wanted))

    async def _answers_disputes(self, story: "_Purchase") -> None:
        """A merchant answers some open disputes: with evidence, by acceptance, or with both at once."""
        page = await self._look("/v1/disputes", limit=20)
        disputes = [one for one in page["data"] if one["status"].endswith("needs_response")] if page else []
        for dispute in story.chance.sample(disputes, min(3, len(disputes))):
            if self._closing:
                return
            path = f"/v1/disputes/{dispute['id']}"
            text = {"evidence": {"uncategorized_text": f"It was delivered, says {story.name}."}}
            answers = story.chance.choice((("evidence",), ("evidence",), ("accept",), ("evidence", "accept")))
            await asyncio.gather(
                *(
                    self._order(story, what, *((path, text) if what == "evidence" else (f"{path}/close", {})))
                    for what in answers
                )
            )

    async def _look(self, path: str, **params: Any) -> dict[str, Any] | None:
        """A document of the API from any server; None if it could not be had."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.get(self._url_choice.choice(self._urls) + path, params=params) as answer:
                document: dict[str, Any] = await answer.json()
                return document if answer.status == 200 else None
        return None

    async def _pay(self, story: "_Purchase", **more: str) -> dict[str, Any] | None:
        means = {} if "payment_method" in more else story.means()
        params = self._purchase(story) | means | {"confirm": True} | more
        return await self._order(story, "pay", "/v1/payment_intents", params)

    async def _then(
        self, story: "_Purchase", payment: dict[str, Any] | None, what: str, params: dict[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """The next step with `payment`, if there is one and the shop is still open."""
        if payment is None or self._closing:
            return None
        path = f"/v1/payment_intents/{payment['id']}"
        return await self._order(story, what, path if what == "update" else f"{path}/{what}", params or {})

    async def _refund(self, story: "_Purchase", paid: dict[str, Any] | None) -> None:
        """Refund some of the money: several refunds at once, which together may exceed the charge."""
        if paid is None or paid["status"] != "succeeded" or self._closing:
            return
        chance = story.chance
        taken = paid["amount_received"] if paid["object"] == "payment_intent" else paid["amount_captured"]
        if taken == 0:
            return  # A direct charge that is only authorized has succeeded, too.
        wanted: list[dict[str, Any]] = []
        match chance.choices(("none", "whole", "part", "race", "crowd"), (30, 15, 15, 25, 15))[0]:
            case "whole":
                wanted = [{}]
            case "part":
                wanted = [{"amount": chance.randint(3, taken)}] if taken > 3 else []
            case "race":
                wanted = [{}, {"amount": chance.randint(1, taken)}]
            case "crowd":
                wanted = [{"amount": max(3, taken * 2 // 5)} for _ in range(4)]
        of = {"payment_intent" if paid["object"] == "payment_intent" else "charge": paid["id"]}
        await asyncio.gather(*(self._order(story, "refund", "/v1/refunds", of | amount) for amount in wanted))

    def _purchase(self, story: "_Purchase") -> dict[str, Any]:
        return {"amount": story.amount, "currency": story.currency, "metadata": {"story": story.name}}

    def _part(self, story: "_Purchase", payment: dict[str, Any]) -> dict[str, Any]:
        if story.chance.random() < 0.5:
            return {}
        return {"amount_to_capture": story.chance.randint(100, payment["amount_capturable"])}


class _Purchase:
    """One shopper, and its random generator."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self.name = name
        self.chance = chance
        self.orders = 0
        self.amount = chance.randint(100, 99_999)
        self.currency = chance.choice(CURRENCIES)

    def means(self) -> dict[str, Any]:
        """A test card by its alias, or one by its number, with a CVC that the server may use once."""
        if self.chance.random() < 0.6:
            return {"payment_method": "pm_card_visa"}
        return {"payment_method_data": {"type": "card", "card": CARD}}


_STRANGER = {"authorization": ""}
"""The headers of a shopper's browser, which has no key."""


def _refusal(document: dict[str, Any]) -> dict[str, Any]:
    """The error object; the disbursements dialect sends it without an envelope."""
    found: dict[str, Any] = document.get("error", document)
    return found


def _flat(params: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Parameters as a form has them: `metadata[story]=7-1`."""
    pairs: list[tuple[str, str]] = []
    for name, value in params.items():
        place = f"{prefix}[{name}]" if prefix else name
        if isinstance(value, Mapping):
            pairs += _flat(value, place)
        elif isinstance(value, bool):
            pairs.append((place, "true" if value else "false"))
        else:
            pairs.append((place, str(value)))
    return pairs
