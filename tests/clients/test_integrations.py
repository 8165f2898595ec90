"""Programs that others have written on Stripe's API, each as its registry has it, run unmodified against Tillway.

`docs/stripe-compatibility.md` names the versions that ran.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from own_environment import node_with, output_of, python_with
from tillway_server import TillwayServer

from tillway.crash import postgres_server

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


def test_medusas_provider_takes_and_refunds_a_payment(account: dict[str, str], tmp_path: Path) -> None:
    place = tmp_path / "environment"
    node = node_with(place, "@medusajs/payment-stripe@2.21.2", "@medusajs/framework@2.21.2")
    told = _run_node(node, place, "medusa.js", account)
    assert told == {
        "started": "pending",
        "raised": 5000,
        "authorized": "authorized",
        "captured": "succeeded",
        "left": 50,
        "declined": "error",
        "cancelled": "canceled",
        "saved": "succeeded",
        "methods": 1,
        "told": "captured",
    }


@pytest.mark.parametrize(
    ("engine", "version"), [("@supabase/stripe-sync-engine", "0.48.5"), ("stripe-replit-sync", "1.0.0")]
)
def test_a_sync_engine_copies_the_account(account: dict[str, str], tmp_path: Path, engine: str, version: str) -> None:
    place = tmp_path / "environment"
    node = node_with(place, f"{engine}@{version}")
    try:
        database = postgres_server.own_server()
    except postgres_server.SkipTest as missing:
        pytest.skip(str(missing))
    try:
        told = _run_node(node, place, "sync_engine.js", account, engine, database.url)
    finally:
        database.close()
    copied = {"charges": 3, "customers": 2, "payment_intents": 3, "payment_methods": 3, "refunds": 1}
    assert told == {**copied, "products": 0, "invoices": 0}


def test_singers_tap_reads_the_account(account: dict[str, str], tmp_path: Path) -> None:
    python = python_with(tmp_path / "environment", "tap-stripe==3.3.0")
    told = json.loads(output_of(python, SCRIPTS / "singer_tap.py", cwd=tmp_path, **account))
    # It reads what was updated from the events once more.
    least = {"charges": 3, "customers": 2, "payment_intents": 3, "balance_transactions": 4, "events": 17}
    assert told.keys() == least.keys() and all(told[name] >= count for name, count in least.items()), told


def test_airbytes_source_reads_every_stream(account: dict[str, str], tmp_path: Path) -> None:
    python = python_with(tmp_path / "environment", "airbyte-source-stripe==5.14.1")
    told = json.loads(output_of(python, SCRIPTS / "airbyte_source.py", cwd=tmp_path, **account))
    assert told == {
        "events": 17,
        "balance_transactions": 4,
        "charges": 3,
        "customers": 2,
        "payment_intents": 3,
        "refunds": 1,
        "external_account_bank_accounts": 2,
        "payment_methods": 3,
    }


def _run_node(node: str, place: Path, script: str, account: dict[str, str], *arguments: str) -> Any:
    """Run a script among the packages of `place`. Return the JSON in the last line that it prints."""
    copy = place / script
    copy.write_text((SCRIPTS / script).read_text())
    return json.loads(output_of(node, copy, *arguments, cwd=place, **account).splitlines()[-1])
