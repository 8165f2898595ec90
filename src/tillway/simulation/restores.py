"""Restores in a world: the store is put back to an earlier moment, and the bank knows more than the store.

Traders make keyed requests about the objects of a world at rest. Then every process dies, the store is as it was
before, the next process notices it, and the recovery takes the bank's list. Most traders repeat their requests. Nothing
may be performed at the bank that it had not performed before, and each operation has its record or an open item. Buyers
make requests that have no key of their own: orders, and payments by tokens that pay once.
"""

import asyncio
from collections.abc import Collection
from random import Random
from typing import Any

import msgspec

from tillway.connectors.port import NoticeUndecided
from tillway.domain.charge import Charge
from tillway.domain.connector_config import ConnectorConfig
from tillway.domain.open_item import OpenItem, tail_of
from tillway.domain.order import Order
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.settled_operation import settled_id
from tillway.engine.audit.entries import Author
from tillway.engine.caller import Caller
from tillway.engine.restores import find_generation, recovered_writes
from tillway.http.messages import Request
from tillway.operations import open_items as operations
from tillway.operations.recovery import OVERLAP_SECONDS, Recovery, survey
from tillway.sandbox.bank import BankOperation
from tillway.simulation.clients import DEBITS, HOLDER, Client
from tillway.simulation.jumps import accept_clocks, troubled
from tillway.simulation.world import RESTART_MAX_SECONDS, Asked, Merchant, Violation, World
from tillway.store.codec import decode
from tillway.store.port import PAGE_MAX, Write
from tillway.testing.memory_store import MemoryStore

REQUESTS_MAX = 8
COMES_BACK = 0.8
"""How likely a trader is to repeat a request after the restore."""

CLEARED_UP = 0.3
"""How likely an operator closes an item that keeps words of the bank, before clients repeat their requests."""

FOLLOWED_UP = 0.5
"""How likely a payment by a trader is followed by a capture, cancellation or refund of it."""

NAMED = 0.5
"""In this part of the restored worlds, buyers make requests with names of their own in place of keys."""

STOCK = 20
"""So many items that no order of a buyer lacks one."""

_FOLLOWED = ("succeeded", "requires_capture")

PAID = ("Accepted", "Pending")

SIMULATOR = ConnectorConfig(id="con_test_simulator", created=0, name="simulator", kind="simulator", mode="test")


class Repeater(Client):
    """A client that makes each of its requests again after the restore."""

    def __init__(self, world: World, merchant: Merchant, name: str) -> None:
        super().__init__(world, merchant, name)
        self.made: list[Asked] = []

    async def _expect_waiting(self, asked: Asked) -> None:
        """Repeat a request during the recovery. Raises Violation unless it is asked to wait."""
        headers = {"authorization": f"Bearer {self.merchant.secret}", "content-type": "application/json"}
        if asked.key is not None:
            headers["idempotency-key"] = asked.key
        request = Request("POST", asked.path, "", headers, msgspec.json.encode(asked.params))
        response = await self._send(asked, request, await self.world.reachable(), patience=60.0)
        if response is None or response.status != 503 or b'"recovering"' not in response.body:
            told = None if response is None else (response.status, response.body[:200])
            raise Violation("recovering", f"{asked.who} {asked.path} had to wait for the recovery, and got {told}")


class Trader(Repeater):
    """A client that makes each of its requests under a key, one after the other, and makes them again later."""

    def __init__(self, world: World, merchant: Merchant, name: str) -> None:
        super().__init__(world, merchant, name)
        self.about: dict[str, tuple[Asked, str]] = {}
        """The request that made the payment which a request is about, and the payment's id then; by `Asked.who`."""

    async def live(self) -> None:
        for path, params in await self._wishes():
            asked = await self._ask(path, params)
            payment = _answer_of(asked) if path == "/v1/payment_intents" else None
            if payment is not None and payment["status"] in _FOLLOWED and self.random.random() < FOLLOWED_UP:
                followed = await self._ask(*self._follow_up(payment))
                self.about[followed.who] = (asked, payment["id"])

    async def _ask(self, path: str, params: dict[str, Any]) -> Asked:
        who = f"{self.name}.{len(self.made) + 1}"
        if "metadata" in params:
            params["metadata"] = {"request": who}
        asked = Asked(who, self.merchant.scope, path, params, who, [])
        self.world.asked.append(asked)
        self.made.append(asked)
        await self._insist(asked, leaves=False)
        return asked

    async def repeat(self) -> None:
        """Repeat the requests that succeeded, all but a few. One about a payment that was made anew names that."""
        for asked in self.made:
            again = _answer_of(asked) is not None and self.random.random() < COMES_BACK
            asked.answers.clear()  # Those objects are not there any more.
            if asked.who in self.about:
                payment, id = self.about[asked.who]
                anew = _answer_of(payment)
                again = again and anew is not None
                if anew is not None:
                    asked.path = asked.path.replace(id, anew["id"])
                    asked.params = {name: anew["id"] if it == id else it for name, it in asked.params.items()}
            if again:
                await self._insist(asked, leaves=False)

    async def probe(self) -> None:
        """Repeat one request that moves money while the recovery lasts: it has to wait."""
        asked = next((one for one in self.made if _answer_of(one) and one.who not in self.about), None)
        if asked is not None:
            await self._expect_waiting(asked)

    async def _wishes(self) -> list[tuple[str, dict[str, Any]]]:
        """New payments, and at most one operation on each payment that is there."""
        random = self.random
        wishes: list[tuple[str, dict[str, Any]]] = []
        for payment in await _payments(self.world, self.merchant.scope.key):
            if payment.status == "requires_capture":
                what = random.choice(("capture", "cancel"))
                wishes.append((f"/v1/payment_intents/{payment.id}/{what}", {}))
            elif payment.status == "succeeded" and payment.received_minor > 0:
                amount = random.choice((1, payment.received_minor))
                wishes.append(("/v1/refunds", {"payment_intent": payment.id, "amount": amount, "metadata": {}}))
        for _ in range(random.choice((1, 2, 3))):
            wishes.append(random.choice((self._card_payment, self._card_payment, self._debit_payment, self._payout))())
        random.shuffle(wishes)
        return wishes[:REQUESTS_MAX]

    def _follow_up(self, payment: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        if payment["status"] == "requires_capture":
            return f"/v1/payment_intents/{payment['id']}/{self.random.choice(('capture', 'cancel'))}", {}
        amount = self.random.choice((1, payment["amount"]))
        return "/v1/refunds", {"payment_intent": payment["id"], "amount": amount, "metadata": {}}

    def _card_payment(self) -> tuple[str, dict[str, Any]]:
        params = {"amount": 4200, "currency": "usd", "payment_method": "pm_card_bypassPending", "confirm": True}
        if self.random.random() < 0.5:
            params["capture_method"] = "manual"
        return "/v1/payment_intents", {**params, "metadata": {}}

    def _debit_payment(self) -> tuple[str, dict[str, Any]]:
        account = {"account_number": DEBITS["us_bank_account"][0], "routing_number": "110000000"}
        details = {"type": "us_bank_account", "us_bank_account": account, "billing_details": HOLDER}
        means = {"payment_method_types": ["us_bank_account"], "payment_method_data": details, "confirm": True}
        accepted = {"mandate_data": {"customer_acceptance": {"type": "offline"}}}
        return "/v1/payment_intents", {"amount": 4200, "currency": "usd", **means, **accepted, "metadata": {}}

    def _payout(self) -> tuple[str, dict[str, Any]]:
        return "/v1/payouts", {"amount": 900, "currency": self.random.choice(("usd", "eur", "jpy")), "metadata": {}}


class NamedBuyer(Repeater):
    """A client with names in place of keys: it places orders, with a key or without, and pays without a key by tokens
    from before the backup. It repeats the same afterwards. Its chance is a source of its own."""

    def __init__(self, world: World, merchant: Merchant, name: str, chance: Random) -> None:
        super().__init__(world, merchant, name)
        self.random = chance
        self.product = f"{name}.p"
        self.tokens: list[str] = []
        self.placed: set[str] = set()
        """The orders that were placed before the store was put back, by `Asked.who`."""

    async def prepare(self) -> None:
        """Before the backup: stock the product, and get tokens."""
        self.world.stocked[self.merchant.scope.key, self.product] = STOCK
        product = {"name": "Book", "price": 1, "available_count": STOCK, "type": "book", "currency": "jpy"}
        await self._say(f"/products/{self.product}", product, method="PUT", keyed=True)
        for _ in range(self.random.choice((1, 2))):
            asked = await self._say("/v1/tokens", {"card": self._card()}, keyed=True)
            self.tokens.append(asked.answers[0].document["id"])

    async def live(self) -> None:
        for number in range(1, self.random.choice((1, 2)) + 1):
            order = self._order(f"{self.name}.{number}.order")
            self.made.append(await self._say("/orders", order, keyed=self.random.random() < 0.5))
        for token in self.tokens:
            params = {"amount": 4200, "currency": "usd", "source": token, "metadata": {}}
            self.made.append(await self._say("/v1/charges", params, keyed=False))

    async def look(self) -> None:
        """See which orders were placed."""
        rows = await self.world.store.query(None, f"{self.merchant.scope.key}/ord_", limit=PAGE_MAX)
        orders = [decode(row.key.partition("/")[2], row.body) for row in rows]
        placed = {one.order_id for one in orders if isinstance(one, Order) and one.status == "placed"}
        self.placed = {asked.who for asked in self.made if asked.params.get("order_id") in placed}

    async def probe(self) -> None:
        """Repeat one request: it has to wait for the recovery, also without a key."""
        asked = next((one for one in self.made if self._was_performed(one)), None)
        if asked is not None:
            await self._expect_waiting(asked)

    async def repeat(self) -> None:
        """Repeat most of the requests that were performed."""
        for asked in self.made:
            again = self._was_performed(asked) and self.random.random() < COMES_BACK
            asked.answers.clear()  # Those objects are not there any more.
            if again:
                self.world.met["repeated by name"] += 1
                await self._insist(asked, leaves=False)

    def _was_performed(self, asked: Asked) -> bool:
        return asked.who in self.placed or _answer_of(asked) is not None

    async def _say(self, path: str, params: dict[str, Any], *, method: str = "POST", keyed: bool) -> Asked:
        self.asked += 1
        who = f"{self.name}.{self.asked}"
        if "metadata" in params:
            params["metadata"] = {"request": who}
        asked = Asked(who, self.merchant.scope, path, params, who if keyed else None, [], method=method, named=True)
        self.world.asked.append(asked)
        await self._insist(asked, leaves=False)
        return asked

    def _order(self, order_id: str) -> dict[str, Any]:
        line = {"product_id": self.product, "name": "Book", "price": 4200, "requested_count": 1, "type": "book"}
        lines = [{**line, "delivery_address": f"{number} Main Street"} for number in self.random.choice(((1,), (1, 2)))]
        payment = {"type": "card", "token": "tok_visa"}
        return {"order_id": order_id, "user_id": self.name, "currency": "jpy", "products": lines, "payment": payment}


def traders_of(world: World) -> list[Trader]:
    return [Trader(world, merchant, f"t{number}") for number, merchant in enumerate(world.merchants, 1)]


def named_buyers_of(world: World) -> list[NamedBuyer]:
    chance = Random(world.seed + 7)
    if chance.random() >= NAMED:
        return []
    return [NamedBuyer(world, merchant, f"n{number}", chance) for number, merchant in enumerate(world.merchants, 1)]


def delivered(world: World) -> set[str]:
    """The references of the deliveries that the service makes."""
    return {reference for reference, told in world.courier.known.items() if told.arranged and not told.cancelled}


def performed(world: World) -> dict[str, tuple[str, int]]:
    """The operations of the bank that moved or hold money: kind and amount by reference."""
    return {
        operation.reference: (operation.kind, operation.amount)
        for operation in world.operations()
        if operation.status in PAID and operation.kind != "dispute"
    }


async def put_back(world: World, store: MemoryStore, kept: dict[str, Write]) -> None:
    """Kill every process, and put the store back."""
    await asyncio.sleep(RESTART_MAX_SECONDS + 1.0)
    for process in list(world.processes):
        process.life.ended = True
        process.waiting.clear()
    world.processes.clear()
    store.put_back(kept)
    world.restored = True
    world.met["restore"] += 1
    world.tell("world", "the store is put back to an earlier moment")
    world.observer.restored()
    for _ in range(world.processes_wanted):
        world.start_process()
    for process in list(world.processes):
        assert process.beginning is not None, "it looks for the restore first"
        await process.beginning
    # The store has forgotten, too, that an operator accepted the clock.
    while troubled(world):
        await accept_clocks(world)
        await asyncio.sleep(1.0)


async def recover(world: World) -> None:
    """Take the bank's list, as `tillway recover --yes` does. Raises Violation if no restore was noticed."""
    process = await world.reachable()
    engine = process.platform.engine
    held, _ = await find_generation(world.store)
    if held is None or not held.recovering:
        raise Violation("recovering", "the store was put back, and no process has noticed")
    world.tell("world", f"recovers from {held.recovering}")
    found = Recovery(process.attempts, actor="cli:world")
    since = min(held.since, world.time_ns() // 1_000_000_000) - OVERLAP_SECONDS
    try:
        [report] = await survey(found, process.attempts, [SIMULATOR], max(since, 0))
    except NoticeUndecided as undecided:
        raise Violation("recovering", f"the bank gave no list: {undecided}") from undecided
    if report.error:
        raise Violation("recovering", report.error)
    by = Author("cli:world", "tillway recover")
    await world.store.commit(
        await recovered_writes(world.store, at=engine.clock.moment(), by=by, detail=dict(report.counts), relied_on=())
    )
    world.tell("world", f"recovered: {report.counts}")
    await asyncio.sleep(3.0)


async def close_by_hand(world: World) -> None:
    """An operator clears up some of the items that keep words of the bank, whether or not a client comes back."""
    for merchant in world.merchants:
        for item in (await _open_items(world, merchant.scope.key)).values():
            if item.notices and world.random.random() < CLEARED_UP:
                process = await world.reachable()
                caller = Caller.system(merchant.scope, "close", actor="cli:world")
                await operations.close(process.platform, caller, item.id, "It was cleared up.")
                world.met["item closed by hand"] += 1
                world.tell("operator", f"closes {item.id}")


def check_performed(before: dict[str, tuple[str, int]], delivered_before: set[str], world: World) -> None:
    """Raises Violation where a repeat was performed. An order whose delivery failed only now is refunded once."""
    parents = {one.reference: one.parent for one in world.operations()}
    refunded = {parents[reference] for reference, (kind, _) in before.items() if kind == "refund"}
    for reference, told in performed(world).items():
        if reference in before or (told[0] == "refund" and parents[reference] in before.keys() - refunded):
            continue
        raise Violation("performed twice", f"after the restore the bank performed {told} anew, as {reference}")
    for reference in delivered(world) - delivered_before:
        raise Violation("performed twice", f"after the restore the delivery service delivers {reference}")


async def explained_by_items(
    world: World, scope_key: str, operations: list[BankOperation], booked: Collection[str]
) -> list[BankOperation]:
    """The bank's operations without those that open items stand for, and without refused ones that nobody repeated.
    `booked` are the references that the books have. Raises Violation if a dispute of a payment without a booked capture
    is not kept. One of more than is booked of several captures is kept too, with the item of a lost capture. One that a
    person took out of a lost capture's item, by closing that, has an item of its own and waits for the person, also
    where the capture is repeated afterwards."""
    if not world.restored:
        return operations
    waiting = await _open_items(world, scope_key, booked=booked)
    items = {reference: item for reference, item in waiting.items() if item.operation != "dispute"}
    kept = {
        one.reference: msgspec.structs.replace(one)
        for one in operations
        if one.reference not in items and (one.status in PAID or one.reference in booked)
    }
    for lost in operations:
        parent = kept.get(lost.parent or "")
        if lost.reference not in items or parent is None or lost.status not in PAID:
            continue
        match lost.kind:
            case "capture":
                parent.captured -= lost.amount
            case "refund":
                parent.refunded -= lost.amount
            case _:
                pass
    told = {
        (notice["id"], notice["amount_minor"])
        for item in waiting.values()
        if item.status == "open"
        for notice in item.notices
    }
    alone = {notice["id"] for item in waiting.values() if item.operation == "dispute" for notice in item.notices}
    for dispute in [one for one in kept.values() if one.kind == "dispute"]:
        parent = kept.get(dispute.parent or "")
        waits = (dispute.reference, dispute.amount) in told
        if dispute.reference in alone and dispute.reference not in booked and world.met["item closed by hand"]:
            del kept[dispute.reference]
        elif parent is None or parent.captured == 0 or (waits and dispute.amount > parent.captured):
            del kept[dispute.reference]
            if not waits:
                raise Violation("disputes", f"{dispute.reference} of {dispute.parent} waits for no repeat")
    return list(kept.values())


async def _open_items(world: World, scope_key: str, *, booked: Collection[str] | None = None) -> dict[str, OpenItem]:
    """The open items of a merchant about unexplained operations, by their references. With the references that are
    `booked`, those too of others that an operator has closed."""
    rows = await world.store.query(None, f"{scope_key}/oi_", limit=PAGE_MAX)
    found = {}
    for row in rows:
        item = decode(row.key.partition("/")[2], row.body)
        if not isinstance(item, OpenItem) or item.kind != "unexplained":
            continue
        if item.status == "closed":
            if booked is None or item.reference in booked or item.closed_by == "system":
                continue
            # A capture that was repeated leaves its outcome.
            if await world.store.get(f"{scope_key}/{settled_id(tail_of(item.id))}") is not None:
                continue
        found[item.reference] = item
    return found


async def _payments(world: World, scope_key: str) -> list[PaymentIntent]:
    """The listed payments by card of a merchant, oldest first, that are no order's and were never disputed or
    refunded."""
    rows = await world.store.query(None, f"{scope_key}/pi_", limit=PAGE_MAX, order="oldest")
    found = []
    for row in rows:
        payment = decode(row.key.partition("/")[2], row.body)
        assert isinstance(payment, PaymentIntent)
        charge_row = await world.store.get(f"{scope_key}/{payment.latest_charge}")
        charge = decode(payment.latest_charge or "", charge_row.body) if charge_row is not None else None
        plain = isinstance(charge, Charge) and charge.method_type == "card" and not charge.disputes
        if plain and isinstance(charge, Charge) and charge.refunded_minor == 0 and payment.order is None:
            found.append(payment)
    return found


def _answer_of(asked: Asked) -> dict[str, Any] | None:
    """The answer to the request, if the bank has performed it or will."""
    for answer in asked.answers:
        if answer.status == 200:
            told = answer.document
            failed = told.get("status") in ("failed", "requires_payment_method")
            canceled = told.get("status") == "canceled" and not asked.path.endswith("/cancel")
            return None if failed or canceled else told
    return None
