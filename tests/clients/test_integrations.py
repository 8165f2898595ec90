"""Programs that others have written on Stripe's API, each as its registry has it, run unmodified against Tillway.

`docs/stripe-compatibility.md` names the versions that ran.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from own_environment import output_of, python_with
from tillway_server import TillwayServer

pytestmark = pytest.mark.soak

MODELS = ("Account", "BalanceTransaction", "Charge", "Customer", "PaymentIntent", "PaymentMethod", "Refund")
SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture
def account(tillway_server: TillwayServer) -> dict[str, str]:
    """A new account with two customers, three payments and a refund; the environment of a client of it."""
    made = tillway_server.new_account()
    key = made["secret_key"]

    def post(path: str, **params: Any) -> Any:
        status, answer = tillway_server.call("POST", path, params, key=key)
        assert status == 200, answer
        return answer

    customers = [post("/v1/customers", email=f"{name}@example.com", name=name) for name in ("ada", "bob")]
    for amount in (1000, 2000, 3000):
        method = post("/v1/payment_methods/pm_card_visa/attach", customer=customers[0]["id"])
        paid = post(
            "/v1/payment_intents",
            amount=amount,
            currency="eur",
            customer=customers[0]["id"],
            payment_method=method["id"],
            payment_method_types=["card"],
            confirm=True,
        )
    post("/v1/refunds", payment_intent=paid["id"], amount=500)
    return {"TILLWAY_URL": tillway_server.base_url, "TILLWAY_KEY": key, "TILLWAY_ACCOUNT": made["account"]}


def test_dj_stripe_copies_the_account(account: dict[str, str], tmp_path: Path) -> None:
    python = python_with(tmp_path / "environment", "dj-stripe==2.11.0", "django==5.2.19")
    told = output_of(python, SCRIPTS / "dj_stripe.py", *MODELS, cwd=tmp_path, **account)
    assert json.loads(told) == {
        "Account": 1,
        "BalanceTransaction": 4,
        "Charge": 3,
        "Customer": 2,
        "PaymentIntent": 3,
        "PaymentMethod": 3,
        "Refund": 1,
    }


def test_django_payments_opens_and_ends_a_checkout(account: dict[str, str], tmp_path: Path) -> None:
    python = python_with(tmp_path / "environment", "django-payments[stripe]==4.1.0", "django==5.2.19", "stripe==12.4.0")
    told = output_of(python, SCRIPTS / "django_payments.py", cwd=tmp_path, **account)
    expected = {"page": "c", "amount": 11900, "waits": "waiting", "token": "token-1", "end": "rejected"}
    assert json.loads(told) == expected
