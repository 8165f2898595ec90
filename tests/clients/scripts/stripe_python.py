"""A shop's calls by stripe-python, in words that every version since 5 has. It prints what it saw as JSON."""

import json
import os

import stripe

stripe.api_key = os.environ["TILLWAY_KEY"]
stripe.api_base = os.environ["TILLWAY_URL"]
CARD_ERROR = stripe.error.CardError if hasattr(stripe, "error") else stripe.CardError
METHODS = {"enabled": True, "allow_redirects": "never"}

customer = stripe.Customer.create(email="ada@example.com", name="Ada", metadata={"order": "7"})
method = stripe.PaymentMethod.attach("pm_card_visa", customer=customer.id)
payment = stripe.PaymentIntent.create(
    amount=4200,
    currency="eur",
    customer=customer.id,
    payment_method=method.id,
    automatic_payment_methods=METHODS,
    confirm=True,
    expand=["latest_charge"],
    idempotency_key="shop-7",
)
again = stripe.PaymentIntent.create(
    amount=4200,
    currency="eur",
    customer=customer.id,
    payment_method=method.id,
    automatic_payment_methods=METHODS,
    confirm=True,
    expand=["latest_charge"],
    idempotency_key="shop-7",
)
try:
    stripe.PaymentIntent.create(
        amount=100,
        currency="eur",
        payment_method="pm_card_chargeDeclinedInsufficientFunds",
        automatic_payment_methods=METHODS,
        confirm=True,
    )
    declined = ""
except CARD_ERROR as error:
    declined = error.json_body["error"]["decline_code"]
held = stripe.PaymentIntent.create(
    amount=900,
    currency="eur",
    payment_method="pm_card_visa",
    automatic_payment_methods=METHODS,
    capture_method="manual",
    confirm=True,
)
captured = stripe.PaymentIntent.capture(held.id, amount_to_capture=800)
refund = stripe.Refund.create(payment_intent=payment.id, amount=200)
for number in range(3):
    stripe.Customer.create(email=f"{number}@example.com")
listed = [one.id for one in stripe.Customer.list(limit=2).auto_paging_iter()]
events = stripe.Event.list(limit=100)
session = stripe.checkout.Session.create(
    mode="payment",
    success_url="https://shop.example/done",
    line_items=[
        {"price_data": {"currency": "eur", "unit_amount": 500, "product_data": {"name": "Tea"}}, "quantity": 1}
    ],
)
print(
    json.dumps(
        {
            "version": getattr(stripe, "VERSION", None) or stripe.version.VERSION,
            "payment": payment.status,
            "same": again.id == payment.id,
            "charge": payment.latest_charge.amount,
            "declined": declined,
            "captured": captured.amount_received,
            "refund": refund.status,
            "customers": len(set(listed)),
            "events": sorted({event.type for event in events.data} & {"payment_intent.succeeded", "charge.refunded"}),
            "session": session.url.split("/")[3],
            "deleted": stripe.Customer.delete(customer.id).deleted,
        }
    )
)
