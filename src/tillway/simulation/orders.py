"""Orders in a world: their buyers, a delivery service that can be late or silent, and the rules that hold at the end.

Stock is conserved: available, reserved and sold counts add up to the count that the buyer stocked. An order is placed
only if its payment was taken and kept; each of its lines is delivered once. No other order delivers anything.
"""

import asyncio
from collections import Counter
from typing import Any

import msgspec

from tillway.domain.charge import Charge
from tillway.domain.event import Event
from tillway.domain.order import Order
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.product import Product
from tillway.sandbox.courier import delivery_id
from tillway.simulation.checks import Books, fail
from tillway.simulation.clients import ALIASES, Client
from tillway.simulation.world import Asked, World

ADDRESSES = ("1 Main Street",) * 6 + ("Undeliverable", "Courier Down 2", "Courier Down 9", "Courier Silent 1")
STOCKS = (1, 1, 2, 5)
PRICES = (1, 24, 4200)
"""In minor units: yen have no others."""


def buyers_of(world: World) -> list[Client]:
    """Draw the buyers of this world; most worlds have none."""
    names = [f"b{number}" for number in range(1, world.random.choice((0, 0, 0, 1, 1, 2)) + 1)]
    return [Buyer(world, world.random.choice(world.merchants), name) for name in names]


class Buyer(Client):
    """A client that stocks a few products and orders them several times at once: more than there are, the same order
    twice, with too little credit; perhaps it also calls the steps by itself, beside the engine."""

    async def live(self) -> None:
        random = self.random
        await asyncio.sleep(random.choice((0.0, 0.0, 0.5, 3.0)))
        self.products = [f"{self.name}.p{number}" for number in range(random.choice((1, 1, 2)))]
        for product in self.products:
            stock = random.choice(STOCKS)
            self.world.stocked[self.merchant.scope.key, product] = stock
            await self._put(
                f"/products/{product}",
                {"name": "Book", "price": 1, "available_count": stock, "type": "book", "currency": "jpy"},
            )
        if random.random() < 0.5:
            await self._put(f"/users/{self.name}/credit", {"amount": random.choice((24, 4200)), "currency": "jpy"})
        await asyncio.gather(*[self._buy() for _ in range(random.choice((1, 2, 3)))])

    async def come_back(self) -> None:
        await self._buy()

    async def _put(self, path: str, params: dict[str, Any]) -> None:
        """Repeat until the server confirms: a late PUT would reset stock that has been ordered from meanwhile."""
        asked = self._asking("PUT", path, params, keyed=True)
        await self._insist(asked, leaves=False)

    async def _buy(self) -> None:
        random = self.random
        order = await self._order()
        for _ in range(random.choice((1, 1, 2))):
            asked = [
                self._asking("POST", "/orders", order, keyed=random.random() < 0.7)
                for _ in range(random.choice((1, 1, 2)))
            ]
            await asyncio.gather(*(self._insist(one, leaves=random.random() < 0.1) for one in asked))
            await asyncio.sleep(random.choice((0.0, 0.1, 2.0)))
        if random.random() < 0.3:
            for step in ("check_stock", "take_payment", "arrange_delivery", "place_order"):
                path = f"/ops/v1/orders/{order['order_id']}/steps/{step}"
                await self._insist(self._asking("POST", path, {}, keyed=False), leaves=True)

    async def _order(self) -> dict[str, Any]:
        random = self.random
        self.asked += 1
        lines = [
            {
                "product_id": random.choice(self.products),
                "name": "Book",
                "price": random.choice(PRICES),
                "requested_count": random.choice((1, 1, 2)),
                "type": "book",
                "delivery_address": random.choice(ADDRESSES),
            }
            for _ in range(random.choice((1, 1, 2)))
        ]
        payment: dict[str, Any] = {"type": "credit"}
        if random.random() < 0.75:
            token = random.choice(ALIASES).replace("pm_card", "tok")
            if random.random() < 0.3:
                made = await self._one("/v1/tokens", {"card": self._card()})
                token = made["id"] if made is not None else token
            payment = {"type": "card", "token": token}
        order_id = f"{self.name}.{self.asked}.order"
        return {
            "order_id": order_id,
            "user_id": self.name,
            "currency": "jpy",
            "products": lines,
            "payment": payment,
        }

    def _asking(self, method: str, path: str, params: dict[str, Any], *, keyed: bool) -> Asked:
        self.asked += 1
        who = f"{self.name}.{self.asked}"
        asked = Asked(who, self.merchant.scope, path, params, who if keyed else None, [], method=method)
        self.world.asked.append(asked)
        return asked


def check_orders(world: World, books: Books) -> None:
    """Orders, their payments, their stock and their deliveries say the same. Raises Violation."""
    orders = books.of(Order)
    named = Counter(order.order_id for order in orders.values())
    if any(count > 1 for count in named.values()):
        fail("one order", f"{[name for name, count in named.items() if count > 1]} twice")
    paying: dict[str, list[str]] = {}
    for payment in books.of(PaymentIntent).values():
        if payment.order is not None:
            paying.setdefault(payment.order, []).append(payment.id)
    told = Counter(
        (event.type, msgspec.json.decode(event.object)["id"])
        for event in books.of(Event).values()
        if event.type.startswith("order.")
    )
    sold: Counter[str] = Counter()
    for order in orders.values():
        if paying.get(order.id, []) != ([order.payment] if order.payment is not None else []):
            fail("one payment", f"{order.id} has {order.payment}, and there are {paying.get(order.id)}")
        _check_end(world, books, order)
        for type in ("order.placed", "order.payment_failed"):
            if told[type, order.id] != int(type == f"order.{order.status}"):
                fail("events", f"{order.id} is {order.status}, and {type} was told {told[type, order.id]} times")
        if order.status == "placed":
            sold.update(order.counts)
    for product in books.of(Product).values():
        stocked = world.stocked[books.scope_key, product.product_id]
        counts = (product.available_count, product.reserved_count, product.sold_count)
        due = (stocked - sold[product.product_id], 0, sold[product.product_id])
        if counts != due:
            fail("stock", f"{product.product_id}: available, reserved, sold are {counts}; they should be {due}")


def _check_end(world: World, books: Books, order: Order) -> None:
    payment = books.of(PaymentIntent).get(order.payment or "")
    charge = books.of(Charge).get(payment.latest_charge or "") if payment is not None else None
    kept = charge is not None and charge.captured and not charge.refunded
    references = [order.delivery_reference(books.scope_key, number) for number in range(1, len(order.lines) + 1)]
    delivered = [
        reference
        for reference in references
        if (known := world.courier.known.get(reference)) is not None and known.arranged and not known.cancelled
    ]
    match order.status:
        case "placed":
            if not kept or charge is None or charge.captured_minor != order.total_minor or order.stock != "sold":
                fail("placed", f"{order.id} is placed with its stock {order.stock} and its charge {charge}")
            if delivered != references or [line.delivery for line in order.lines] != list(map(delivery_id, references)):
                fail("deliveries", f"{order.id} is placed, and of {references} the service delivers {delivered}")
        case "payment_failed":
            # Money that a bank would not take back is with the merchant again, and they know by its refund; what is
            # disputed is with the bank, which may give it back after the order has ended.
            if kept and order.refund is None and charge is not None and not charge.disputed:
                fail("placed", f"{order.id} has failed, and {charge} was kept")
            if payment is not None and payment.status not in ("canceled", "succeeded"):
                fail("placed", f"{order.id} has failed, and {payment.id} can still be paid: {payment.status}")
            if order.error is None or order.stock not in ("none", "released"):
                fail("placed", f"{order.id} has failed with {order.error} and its stock is {order.stock}")
            if delivered:
                fail("deliveries", f"{order.id} has failed, and the service delivers {delivered}")
        case _:
            fail("liveness", f"{order.id} is {order.status}")
    beyond = order.delivery_reference(books.scope_key, len(order.lines) + 1)
    if beyond in world.courier.known:
        fail("deliveries", f"{order.id}: the service knows {beyond}, where {references} were to be asked for")
