"""A client of customers and disbursements, talking to Tillway: a customer, money to them, and what became of it.

    TILLWAY_URL=http://127.0.0.1:8420 TILLWAY_KEY=sk_test_… python disbursements.py

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
CUSTOMER = os.environ.get("CUSTOMER", "anna0001")
EMAIL = f"{CUSTOMER}@example.com"


def call(path, body=None, *, once=None):
    """One call. `once` is an Idempotency-Key: the call can be repeated with it and is done once."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    if once is not None:
        headers["Idempotency-Key"] = once
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(URL + path, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            # Amounts are decimals: a float would not be able to hold every one of them.
            return json.load(answer, parse_float=Decimal)
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        raise SystemExit(f"{path}: {problem['code']} {problem['message']}") from None


customer = call("/v1/api/customer", {"customer_id": CUSTOMER, "email": EMAIL})
print("customer:", customer["customer_id"], customer["email"])

body = {"customer_id": CUSTOMER, "email": EMAIL, "amount": 12.50, "currency": "USD"}
made = call("/v1/api/payment", body, once=str(uuid4()))
print("accepted:", made["status"], made["amount"], made["currency"])

# It settles in the background. A webhook (payout.paid, payout.failed) tells when; asking does, too.
for _ in range(100):
    last = call(f"/v1/api/payment/{CUSTOMER}")[-1]
    if last["status"] != "pending":
        break
    time.sleep(0.1)
print("settled:", last["status"], last["amount"], last["currency"])
