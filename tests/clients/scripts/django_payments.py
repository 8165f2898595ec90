"""The Stripe provider of django-payments opens a session, looks at it, expires it and hears of it: what it saw."""

import json
import os
from decimal import Decimal
from types import SimpleNamespace

import django
import stripe
from django.conf import settings

settings.configure(INSTALLED_APPS=["payments"], PAYMENT_HOST="shop.example", USE_I18N=False)
django.setup()
stripe.api_base = os.environ["TILLWAY_URL"]

from payments import PaymentStatus, RedirectNeeded  # noqa: E402 - Django comes first.
from payments.stripe.providers import StripeProviderV3  # noqa: E402


class Payment(SimpleNamespace):
    def get_success_url(self) -> str:
        return "https://shop.example/done"

    def get_failure_url(self) -> str:
        return "https://shop.example/again"

    def save(self) -> None:
        pass

    def change_status(self, status: str, message: str = "") -> None:
        self.status = status


payment = Payment(
    attrs=SimpleNamespace(),
    transaction_id="",
    token="token-1",
    pk=1,
    billing_email="ada@example.com",
    billing_first_name="Ada",
    billing_last_name="L",
    currency="EUR",
    total=Decimal("119.00"),
    status=PaymentStatus.WAITING,
)
provider = StripeProviderV3(api_key=os.environ["TILLWAY_KEY"], secure_endpoint=False)
try:
    provider.get_form(payment)
except RedirectNeeded as needed:
    address = str(needed)
amount = payment.attrs.session["amount_total"]
waits = provider.status(payment).status
provider.cancel(payment)
stripe.api_key = os.environ["TILLWAY_KEY"]
event = stripe.Event.list(type="checkout.session.expired").data[0]
request = SimpleNamespace(body=json.dumps(event.to_dict()), headers={})
token = provider.get_token_from_request(payment, request)
provider.process_data(payment, request)
told = {"page": address.split("/")[3], "amount": amount, "waits": waits, "token": token, "end": payment.status}
print(json.dumps(told))
