"""A client of token and charge, talking to Tillway: a card becomes a token, the token is charged, the charge refunded.

    TILLWAY_URL=http://127.0.0.1:8420 TILLWAY_KEY=sk_test_… python token_charge.py

It needs nothing but Python. `tillway init` prints the key; of `make demo`, it stands in data/demo.json.
"""

import json
import os
import urllib.error
import urllib.request
from uuid import uuid4

URL = os.environ.get("TILLWAY_URL", "http://127.0.0.1:8420")
KEY = os.environ["TILLWAY_KEY"]

CARD = {
    "card_number": "4242424242424242",
    "exp_month": 12,
    "exp_year": 2040,
    "cvv": "123",
    "card_holder": "Grace Hopper",
}


class Refused(Exception):
    """What stands in `error`; `data` is the charge or refund that failed, where there is one."""

    def __init__(self, envelope):
        error = envelope["error"]
        where = f" ({error['field']})" if "field" in error else ""
        super().__init__(f"{error['code']}{where}: {error['message']}")
        self.data = envelope["data"]


def call(path, body=None, once=None):
    """The `data` of one call. `once` is an Idempotency-Key: the call can be repeated with it and is done once."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    if once is not None:
        headers["Idempotency-Key"] = once
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(URL + path, data, headers), timeout=60) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        # Errors have the same envelope.
        raise Refused(json.load(error)) from None


token = call("/token", CARD)["token"]
charge = call("/charge", {"token": token, "amount": 4200, "currency": "EUR", "reference": "order-7"}, once=str(uuid4()))
print("charged:", charge["status"], charge["amount"], charge["card_number"])

try:
    call("/charge", {"token": token, "amount": 4200, "currency": "EUR"})
except Refused as refused:
    print("a token is good for one charge:", refused)

try:
    declined = call("/token", CARD | {"card_number": "4000000000000002"})["token"]
    call("/charge", {"token": declined, "amount": 4200, "currency": "EUR"})
except Refused as refused:
    print("the bank says no:", refused, f"[{refused.data['status']}]")

refund = call("/refund", {"charge_id": charge["id"], "amount": 1200}, once=str(uuid4()))
print("refunded:", refund["amount"], "and left:", refund["refundable"])

found = call(f"/charge/{charge['id']}")
print("now:", found["status"], found["refundable"], [one["amount"] for one in found["refunds"]])
