"""A client of the online payment platform, talking to Tillway: a token, a payment, a card that is refused, a refund.

    TILLWAY_URL=http://127.0.0.1:8420 TILLWAY_MERCHANT=acct_… TILLWAY_KEY=sk_test_… python online_platform.py

It needs nothing but Python. `tillway init` prints the merchant and the key.
"""

import json
import os
import urllib.error
import urllib.request
from decimal import Decimal
from uuid import uuid4

URL = os.environ.get("TILLWAY_URL", "http://127.0.0.1:8420")
MERCHANT = os.environ["TILLWAY_MERCHANT"]
KEY = os.environ["TILLWAY_KEY"]
CUSTOMER = "customer-1"


def post(path, body, *, token=None, once=None):
    """One call. `once` is an Idempotency-Key: the call can be repeated with it and is done once."""
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    if once is not None:
        headers["Idempotency-Key"] = once
    request = urllib.request.Request(URL + path, data=json.dumps(body).encode(), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            # Amounts are decimals: a float would not be able to hold every one of them.
            return json.load(answer, parse_float=Decimal)
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        raise SystemExit(f"{path}: {problem['code']} {problem['message']}") from None


# The API key is sent once. What follows needs only a token, which is good for this customer and for 15 minutes.
token = post("/get-token", {"merchantId": MERCHANT, "apiKey": KEY, "customerId": CUSTOMER})["token"]
who = {"merchantId": MERCHANT, "customerId": CUSTOMER}
card = {"number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2034, "cvv": "123"}

paid = post("/process-payments", {**who, **card, "amount": 12.50, "currency": "USD"}, token=token, once=str(uuid4()))
print("paid:", paid["status"], paid["message"])

refused = post("/process-payments", {**who, **card, "amount": 12.50, "expiryYear": 2020}, token=token)
print("an old card:", refused["status"], refused["message"])

transaction = {**who, "transactionId": paid["transactionId"]}
refund = post("/process-refunds", {**transaction, "amount": 5}, token=token, once=str(uuid4()))
print("refund:", refund["status"], refund["message"])

details = post("/get-payment-details", transaction, token=token)
print("details:", details["amount"], details["cardNumber"], details["message"])
