"""A shop on the order workflow: stock is set, an order is accepted and placed, one for the last item comes too late.

    TILLWAY_URL=http://127.0.0.1:8420 TILLWAY_KEY=sk_test_… python orders.py

It needs nothing but Python. `tillway init` prints the key.
"""

import json
import os
import time
import urllib.error
import urllib.request
from decimal import Decimal
from uuid import uuid4

URL = os.environ.get("TILLWAY_URL", "http://127.0.0.1:8420")
KEY = os.environ["TILLWAY_KEY"]


def call(method, path, body=None):
    request = urllib.request.Request(
        URL + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            # Prices are decimals: a float would not be able to hold every one of them.
            return json.load(answer, parse_float=Decimal)
    except urllib.error.HTTPError as error:
        problem = json.load(error)["error"]
        raise SystemExit(f"{path}: {problem['type']}: {problem['cause']}") from None


def ended(order_id):
    """The order, once it has been placed or has failed: it was accepted at once, and is carried meanwhile."""
    while True:
        order = call("GET", f"/orders/{order_id}")
        if order["status"] in ("placed", "payment_failed"):
            return order
        time.sleep(0.1)


book = f"book-{uuid4().hex[:8]}"
call("PUT", f"/products/{book}", {"name": "Book", "price": 12.50, "available_count": 3, "type": "book"})
call("PUT", "/users/user-1/credit", {"amount": 50, "currency": "EUR"})


def order(count, payment):
    line = {"product_id": book, "name": "Book", "price": 12.50, "type": "book", "requested_count": count}
    return {
        "order_id": f"order-{uuid4().hex}",  # The same id again returns the order that exists.
        "user_id": "user-1",
        "products": [{**line, "delivery_address": "1 Main Street"}],
        "payment": payment,
    }


by_card = call("POST", "/orders", order(2, {"type": "card", "token": "tok_visa"}))
print("accepted:", by_card["status"], by_card["total"], by_card["currency"])
placed = ended(by_card["order_id"])
print("by card:", placed["status"], placed["charge"]["status"], len(placed["deliveries"]), "delivery")

too_many = ended(call("POST", "/orders", order(2, {"type": "credit"}))["order_id"])
print("too many:", too_many["status"], too_many["error"]["type"])

with_credit = ended(call("POST", "/orders", order(1, {"type": "credit"}))["order_id"])
print("with credit:", with_credit["status"], with_credit["charge"]["amount"])
