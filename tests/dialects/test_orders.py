"""The order workflow through HTTP on a real server: its contract, its races, its failures and what they undo."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from tillway_server import TillwayServer

from tillway.domain.cards import luhn_valid

ENDED = ("placed", "payment_failed")
WITHIN_SECONDS = 30.0


class Shop:
    """A merchant's shop on the tests' server. Its ids are its own."""

    def __init__(self, server: TillwayServer) -> None:
        self.server = server
        self.tag = uuid4().hex[:12]

    def product(self, name: str, available: int, price: str = "12.50") -> str:
        product_id = f"{name}-{self.tag}"
        body = {"name": name.title(), "price": Decimal(price), "available_count": available, "type": "book"}
        status, shown = self.call("PUT", f"/products/{product_id}", body)
        assert (status, shown["available_count"]) == (200, available), shown
        return product_id

    def stock(self, product_id: str, available: int) -> tuple[int, int, int]:
        """Its counts, read by putting it as it is."""
        body = {"name": "Book", "price": 12.5, "available_count": available, "type": "book"}
        _, shown = self.call("PUT", f"/products/{product_id}", body)
        return shown["available_count"], shown["reserved_count"], shown["sold_count"]

    def order(self, *lines: dict[str, Any], id: str | None = None, payment: Any = None, **more: Any) -> dict[str, Any]:
        return {
            "order_id": id or f"order-{uuid4().hex}",
            "user_id": more.pop("user_id", f"user-{self.tag}"),
            "products": list(lines),
            "payment": payment or {"type": "card", "token": "tok_visa"},
            **more,
        }

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        plain = {name: float(value) if isinstance(value, Decimal) else value for name, value in (body or {}).items()}
        return self.server.call(method, path, plain if body is not None else None)

    def post(self, order: dict[str, Any]) -> Any:
        status, shown = self.call("POST", "/orders", order)
        assert status == 202, shown
        return shown

    def ended(self, order_id: str) -> Any:
        return self.until(order_id, *ENDED)

    def until(self, order_id: str, *statuses: str) -> Any:
        """The order, as soon as it has one of these statuses."""
        give_up_at = time.monotonic() + WITHIN_SECONDS
        while True:
            status, shown = self.call("GET", f"/orders/{order_id}")
            assert status == 200, shown
            if shown["status"] in statuses:
                return shown
            assert time.monotonic() < give_up_at, f"still {shown['status']}: {shown['steps']}"
            time.sleep(0.05)

    def through(self, order: dict[str, Any]) -> Any:
        self.post(order)
        return self.ended(order["order_id"])

    def payments(self, order_id: str) -> list[Any]:
        query = f'metadata["order_id"]:"{order_id}"'
        return self.server.client.v1.payment_intents.search({"query": query}).data


def line(product_id: str, count: int = 1, price: Any = 12.5, address: Any = "1 Main Street") -> dict[str, Any]:
    named = {"product_id": product_id, "name": "Book", "price": price, "type": "book"}
    return {**named, "requested_count": count, "delivery_address": address}


@pytest.fixture
def shop(tillway_server: TillwayServer) -> Shop:
    return Shop(tillway_server)


def test_an_order_is_accepted_at_once_and_placed(shop: Shop) -> None:
    book, pen = shop.product("book", 5), shop.product("pen", 9, "0.99")
    home, office = "1 Main Street", {"street": "2 High Street", "city": "Bristol"}
    order = shop.order(line(book, 2), line(pen, 3, 0.99, office), line(book, 1, 10, office))
    accepted = shop.post(order)
    assert (accepted["status"], accepted["currency"], accepted["total"]) == ("checking", "EUR", 37.97)
    assert accepted["products"] == order["products"]
    assert accepted["charge"] is None and accepted["deliveries"] == [] and accepted["error"] is None
    placed = shop.ended(order["order_id"])
    assert placed["status"] == "placed" and placed["error"] is None
    steps = ["check_stock", "take_payment", "arrange_delivery", "place_order"]
    assert [(step["step"], step["status"]) for step in placed["steps"]] == [(step, "done") for step in steps]
    times = [time for step in placed["steps"] for time in (step["started_at"], step["ended_at"])]
    assert times == sorted(times)
    assert placed["charge"]["status"] == "succeeded" and placed["charge"]["amount"] == 37.97
    assert [(made["product_id"], made["delivery_address"], made["status"]) for made in placed["deliveries"]] == [
        (book, home, "arranged"),
        (pen, office, "arranged"),
        (book, office, "arranged"),
    ]
    assert len({made["id"] for made in placed["deliveries"]}) == 3
    assert shop.stock(book, 2) == (2, 0, 3) and shop.stock(pen, 6) == (6, 0, 3)


def test_its_payment_is_one_like_any_other(shop: Shop) -> None:
    placed = shop.through(shop.order(line(shop.product("book", 1))))
    client = shop.server.client
    payment = client.v1.payment_intents.retrieve(placed["charge"]["payment_intent"], {"expand": ["customer"]})
    assert (payment.amount, payment.currency, payment.status) == (1250, "eur", "succeeded")
    assert payment.metadata["order_id"] == placed["order_id"] and payment.latest_charge == placed["charge"]["id"]
    assert payment.customer.metadata["customer_id"] == placed["user_id"]
    again = shop.through(shop.order(line(shop.product("pen", 1))))
    assert client.v1.payment_intents.retrieve(again["charge"]["payment_intent"]).customer == payment.customer.id
    told = client.v1.events.list({"type": "order.placed", "limit": 20}).data
    assert placed["order_id"] in [event.data.object["order_id"] for event in told]


def test_of_many_orders_for_the_last_item_one_is_placed(shop: Shop) -> None:
    last = shop.product("last", 1)
    racing = [shop.order(line(last), user_id=f"racer-{number}-{shop.tag}") for number in range(12)]
    with ThreadPoolExecutor(len(racing)) as clients:
        list(clients.map(shop.post, racing))
    ended = [shop.ended(order["order_id"]) for order in racing]
    placed = [order for order in ended if order["status"] == "placed"]
    assert len(placed) == 1
    assert {order["error"]["type"] for order in ended if order not in placed} == {"OutOfStock"}
    assert all(order["charge"] is None for order in ended if order not in placed)
    assert shop.stock(last, 0) == (0, 0, 1)


def test_the_same_order_id_many_times_at_once_is_one_order_and_one_payment(shop: Shop) -> None:
    book = shop.product("book", 50)
    order = shop.order(line(book))
    with ThreadPoolExecutor(10) as clients:
        answers = list(clients.map(shop.post, [order] * 10))
    assert len({(answer["order_id"], answer["created"]) for answer in answers}) == 1
    placed = shop.ended(order["order_id"])
    assert [payment.id for payment in shop.payments(order["order_id"])] == [placed["charge"]["payment_intent"]]
    assert shop.stock(book, 49) == (49, 0, 1)
    # Other words under the same name change nothing: the order that exists is shown.
    shown = shop.post(shop.order(line(book, 7), id=order["order_id"]))
    assert shown["total"] == 12.5 and shown["status"] == "placed"


def test_a_delivery_service_that_is_down_is_asked_again_ever_later(shop: Shop) -> None:
    placed = shop.through(shop.order(line(shop.product("book", 1), address="3 Courier Down 2 Road")))
    step = placed["steps"][2]
    assert (placed["status"], step["step"], step["failures"]) == (
        "placed",
        "arrange_delivery",
        {"CourierUnavailable": 2},
    )
    assert step["ended_at"] - step["started_at"] >= 2, "waits of one and two seconds"
    assert len(placed["deliveries"]) == 1


def test_a_delivery_whose_answer_was_lost_is_made_once(shop: Shop) -> None:
    placed = shop.through(shop.order(line(shop.product("book", 1), address="3 Courier Silent 1 Road")))
    assert placed["status"] == "placed" and len(placed["deliveries"]) == 1


DECLINED = {"type": "card", "token": "tok_chargeDeclinedInsufficientFunds"}
CREDIT = {"type": "credit"}


@pytest.mark.parametrize(
    ("lines", "payment", "step", "error", "money"),
    [
        ([("nothing", 1, "1 Main Street")], None, "check_stock", "ProductUnknown", "none"),
        ([("book", 1, "1 Main Street"), ("pen", 4, "1 Main Street")], None, "check_stock", "OutOfStock", "none"),
        ([("book", 2, "1 Main Street"), ("book", 2, "Elsewhere")], None, "check_stock", "OutOfStock", "none"),
        ([("book", 1, "1 Main Street")], DECLINED, "take_payment", "PaymentDeclined", "failed"),
        ([("book", 1, "1 Main Street")], CREDIT, "take_payment", "PaymentDeclined", "failed"),
        (
            [("book", 1, "1 Main Street"), ("pen", 1, "Undeliverable")],
            None,
            "arrange_delivery",
            "DeliveryRefused",
            "refunded",
        ),
    ],
)
def test_whatever_fails_is_undone_and_told(
    shop: Shop, lines: list[tuple[str, int, str]], payment: Any, step: str, error: str, money: str
) -> None:
    ids = {"book": shop.product("book", 3), "pen": shop.product("pen", 3), "nothing": f"nothing-{shop.tag}"}
    user = f"user-{uuid4().hex[:8]}"
    order = shop.order(*(line(ids[name], n, 5, to) for name, n, to in lines), payment=payment, user_id=user)
    failed = shop.through(order)
    assert (failed["status"], failed["error"]["type"]) == ("payment_failed", error)
    assert failed["error"]["cause"]
    states = {record["step"]: record["status"] for record in failed["steps"]}
    assert states[step] == "failed" and states["handle_failure"] == "done" and "place_order" not in states
    assert (failed["charge"] or {"status": "none"})["status"] == money
    assert all(made["status"] == "cancelled" for made in failed["deliveries"])
    for name in ("book", "pen"):
        assert shop.stock(ids[name], 3) == (3, 0, 0), f"{name} is not back"
    client = shop.server.client
    for left in shop.payments(order["order_id"]):
        assert left.status == ("succeeded" if money == "refunded" else "canceled")
    if money == "refunded":
        back = client.v1.refunds.retrieve(failed["charge"]["refund"])
        assert (back.amount, back.charge, back.status) == (1000, failed["charge"]["id"], "succeeded")


def test_a_bank_account_is_debited_while_the_order_waits(shop: Shop) -> None:
    account = {"type": "bank_account", "account_number": "000123456789", "routing_number": "110000000"}
    paying = shop.order(line(shop.product("book", 1)), payment=account)
    returned = shop.order(line(shop.product("pen", 1)), payment={**account, "account_number": "000111111116"})
    for order in (paying, returned):
        shop.post(order)
        waiting = shop.until(order["order_id"], "paying", *ENDED)
        assert waiting["status"] == "paying" and waiting["error"] is None
    assert shop.ended(paying["order_id"])["status"] == "placed"
    failed = shop.ended(returned["order_id"])
    assert (failed["status"], failed["error"]["type"]) == ("payment_failed", "PaymentDeclined")


def test_stored_credit_is_set_spent_and_given_back(shop: Shop) -> None:
    user, book = f"user-{uuid4().hex[:8]}", shop.product("book", 9)
    for _ in range(2):
        status, shown = shop.call("PUT", f"/users/{user}/credit", {"amount": 30, "currency": "EUR"})
        assert (status, shown["amount"], shown["currency"], shown["user_id"]) == (200, 30, "EUR", user)
    client = shop.server.client
    moved = client.v1.customers.balance_transactions.list(shown["customer"]).data
    assert [movement.amount for movement in moved] == [-3000], "the second changed nothing"
    placed = shop.through(shop.order(line(book, 2), payment=CREDIT, user_id=user))
    assert placed["status"] == "placed" and client.v1.customers.retrieve(shown["customer"]).balance == -500
    failed = shop.through(shop.order(line(book, 1, 4, "Undeliverable"), payment=CREDIT, user_id=user))
    assert failed["charge"]["status"] == "refunded"
    assert client.v1.customers.retrieve(shown["customer"]).balance == -500
    status, shown = shop.call("PUT", f"/users/{user}/credit", {"amount": 0.5, "currency": "EUR"})
    assert shown["amount"] == 0.5


@pytest.mark.parametrize("id", ["ada@example.com", "Zoë 李 #7?", "100%25", "a;b=c&d+e"])
def test_ids_are_any_text_that_can_stand_in_a_path(shop: Shop, id: str) -> None:
    id = f"{id}-{shop.tag}"
    path = quote(id, safe="")
    status, shown = shop.call("PUT", f"/users/{path}/credit", {"amount": 5, "currency": "EUR"})
    assert (status, shown["user_id"]) == (200, id), shown
    product = {"name": "Book", "price": 5, "available_count": 1, "type": "book"}
    assert shop.call("PUT", f"/products/{path}", product)[1]["product_id"] == id
    shop.post(shop.order(line(id, price=5), id=id, user_id=id, payment=CREDIT))
    placed = shop.ended(path)
    assert (placed["status"], placed["order_id"]) == ("placed", id)


def test_ids_may_pass_for_card_numbers(shop: Shop) -> None:
    digits = f"424242{uuid4().int % 10**9:09}"
    digits += next(last for last in "0123456789" if luhn_valid(digits + last))
    status, shown = shop.call("PUT", f"/users/{digits}/credit", {"amount": 5, "currency": "EUR"})
    assert (status, shown["user_id"]) == (200, digits)
    product = {"name": "Book", "price": 5, "available_count": 1, "type": "book"}
    assert shop.call("PUT", f"/products/{digits}", product)[0] == 200
    placed = shop.through(shop.order(line(digits, price=5), id=digits, user_id=digits, payment=CREDIT))
    assert (placed["status"], placed["order_id"]) == ("placed", digits)


ORDER_ID = "refused-order"


@pytest.mark.parametrize(
    ("change", "status", "error", "param"),
    [
        ({"order_id": None}, 400, "parameter_missing", "order_id"),
        ({"order_id": "a/b"}, 400, "parameter_invalid_string", "order_id"),
        ({"order_id": ".."}, 400, "parameter_invalid_string", "order_id"),
        ({"order_id": "*"}, 400, "parameter_invalid_string", "order_id"),
        ({"user_id": " ada"}, 400, "parameter_invalid_string", "user_id"),
        ({"user_id": "ada\n"}, 400, "parameter_invalid_string", "user_id"),
        ({"currency": "XXQ"}, 400, "invalid_currency", "currency"),
        ({"products": []}, 400, "parameter_invalid_array", "products"),
        ({"products": [line("book")] * 41}, 400, "parameter_invalid_array", "products"),
        ({"products": [line("book", price=12.505)]}, 400, "parameter_invalid_string", "products[0][price]"),
        ({"products": [line("book", price=-1)]}, 400, "amount_too_small", "products[0][price]"),
        ({"products": [line("book", price="12.50")]}, 400, "parameter_invalid_string", "products[0][price]"),
        ({"products": [line("book", price=1_000_000)]}, 400, "amount_too_large", "products[0][price]"),
        ({"products": [line("book", price=999_999), line("pen")]}, 400, "amount_too_large", "products"),
        ({"products": [line("book", price=0)]}, 400, "amount_too_small", "products"),
        ({"products": [line("book", 0)]}, 400, "parameter_invalid_integer", "products[0][requested_count]"),
        ({"products": [line("book", address={})]}, 400, "parameter_invalid_object", "products[0][delivery_address]"),
        ({"currency": "jpy"}, 400, "parameter_invalid_string", "products[0][price]"),
        ({"payment": {"type": "cash"}}, 400, "parameter_invalid_enum", "payment[type]"),
        ({"payment": {"type": "card"}}, 400, "parameter_missing", "payment[token]"),
        ({"payment": {"type": "credit", "token": "tok_visa"}}, 400, "parameter_unknown", "payment[token]"),
        ({"payment": {"type": "card", "token": "tok_of_nobody"}}, 404, "resource_missing", "payment[token]"),
        (
            {"payment": {"type": "bank_account", "account_number": "1", "routing_number": "110000000"}},
            400,
            None,
            "payment[account_number]",
        ),
        ({"unknown": 1}, 400, "parameter_unknown", "unknown"),
    ],
)
def test_what_is_wrong_is_named_and_makes_no_order(
    shop: Shop, change: dict[str, Any], status: int, error: str | None, param: str
) -> None:
    order = shop.order(line("book"), id=f"{ORDER_ID}-{uuid4().hex}") | change
    refused, shown = shop.call("POST", "/orders", order)
    assert (refused, shown["error"]["param"]) == (status, param), shown
    assert error is None or shown["error"]["type"] == error
    assert shown["error"]["cause"] and shown["error"]["request_id"]
    if order["order_id"] is not None and "/" not in order["order_id"]:
        assert shop.call("GET", f"/orders/{order['order_id']}")[0] == 404


def test_an_order_of_forty_lines_fits_into_its_commits(shop: Shop) -> None:
    lines = [line(shop.product(f"book{number}", 1), price=0.5) for number in range(40)]
    placed = shop.through(shop.order(*lines))
    assert placed["status"] == "placed" and placed["total"] == 20 and len(placed["deliveries"]) == 40
    lines[-1] = lines[-1] | {"delivery_address": "Undeliverable"}
    for made in lines:
        shop.stock(made["product_id"], 1)
    assert shop.through(shop.order(*lines))["charge"]["status"] == "refunded"


def test_another_merchant_sees_none_of_it(shop: Shop) -> None:
    placed = shop.through(shop.order(line(shop.product("book", 1))))
    live = shop.server.call("GET", f"/orders/{placed['order_id']}", key=shop.server.live_secret_key)
    assert live[0] == 404
    assert shop.server.call("GET", f"/orders/{placed['order_id']}", key="sk_test_" + "0" * 40)[0] == 401
    status, shown = shop.server.call("POST", "/orders", shop.order(line("book")), key=shop.server.live_secret_key)
    assert (status, shown["error"]["type"]) == (400, "delivery_not_configured")


def test_the_examples_run(shop: Shop, example: Callable[..., list[str]]) -> None:
    assert example("orders.py", shop.server.secret_key) == [
        "accepted: checking 25.00 EUR",
        "by card: placed succeeded 1 delivery",
        "too many: payment_failed OutOfStock",
        "with credit: placed 12.50",
    ]
    product, order, _ = example("orders.sh", shop.server.secret_key)
    assert '"available_count":10' in product and '"status":"checking"' in order
