"""A client of the gateway, talking to Tillway: a payment is created, made, made again while it is pending, looked at.

    TILLWAY_URL=http://127.0.0.1:8420 TILLWAY_MERCHANT=acct_… TILLWAY_KEY=sk_test_… python gateway.py

It needs nothing but Python. `tillway init` prints merchant and key; those of `make demo` stand in data/demo.json.
"""

import json
import os
import urllib.error
import urllib.parse
import urllib.request

URL = os.environ.get("TILLWAY_URL", "http://127.0.0.1:8420")
MERCHANT = os.environ["TILLWAY_MERCHANT"]
KEY = os.environ["TILLWAY_KEY"]

CARD = {
    "cardNumber": "1234432198761543",
    "expiryYear": 2000,
    "expiryMonth": 12,
    "cvv": "123",
    "cardName": "Ada Lovelace",
    "billingAddress": "12 St James's Square, London",
}


def call(path, body=None):
    """One call: a POST where there is a body. What fails in band is an answer, and not an exception."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(URL + path, data, headers), timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{path}: {json.load(error)['failReason']}") from None


def pay(amount, currency):
    """The id of a payment of that amount, made until it is no longer pending."""
    payment = call("/create-payment", {"merchantId": MERCHANT})["paymentId"]
    for _ in range(10):
        order = {"paymentId": payment, "merchantId": MERCHANT, "amount": amount, "currency": currency, **CARD}
        told = call("/make-payment", order)
        print(payment, amount, told["status"], told.get("failReason", ""))
        if told["status"] != "Pending":
            break
    return payment


# The simulated bank answers by amount: 1 declined, 2 insufficient funds, 24 pending at first, any other accepted.
for amount in (1, 2, 24):
    pay(amount, "GBP")
query = urllib.parse.urlencode({"merchantId": MERCHANT, "paymentId": pay(100, "GBP")})
found = call(f"/get-payment?{query}")
print(found["status"], found["cardNumber"], found["amount"], found["currency"])
