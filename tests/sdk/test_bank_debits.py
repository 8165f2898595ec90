"""Bank accounts as a way to pay, with the official SDK as client."""

import time
from typing import Any

import pytest
import stripe
from sdk_shop import Shop

ACCEPTED = {
    "customer_acceptance": {
        "type": "online",
        "accepted_at": 1_700_000_000,
        "online": {"ip_address": "203.0.113.7", "user_agent": "test"},
    }
}
ACH = {"account_number": "000123456789", "routing_number": "110000000"}


def debit(shop: Shop, method: str = "pm_usBankAccount_success", **params: Any) -> Any:
    """A payment of 42.00 by a bank account, confirmed."""
    type = "sepa_debit" if "sepa" in method else "us_bank_account"
    given = {
        "amount": 4200,
        "currency": "eur" if type == "sepa_debit" else "usd",
        "payment_method": method,
        "allowed_payment_method_types": [type],
        "mandate_data": ACCEPTED,
        "confirm": True,
        **params,
    }
    return shop.v1.payment_intents.create({name: value for name, value in given.items() if value is not None})


def settled(shop: Shop, payment: stripe.PaymentIntent) -> Any:
    """The payment once the bank has settled or returned it."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = shop.v1.payment_intents.retrieve(payment.id, {"expand": ["latest_charge.balance_transaction"]})
        if found.status != "processing":
            return found
        time.sleep(0.2)
    raise AssertionError("the debit did not settle")


@pytest.fixture(scope="module", autouse=True)
def started(own_shop: Shop) -> dict[str, stripe.PaymentIntent]:
    """Debits that are begun together, because the bank takes its seconds for each."""
    scenarios = ("usBankAccount_success", "usBankAccount_accountClosed", "sepaDebit_insufficientFunds_de")
    return {
        **{name: debit(own_shop, f"pm_{name}") for name in (*scenarios, "usBankAccount_dispute")},
        "kept and not authorized": debit(
            own_shop,
            "pm_usBankAccount_debitNotAuthorized",
            customer=own_shop.v1.customers.create({"name": "Jenny"}).id,
            setup_future_usage="off_session",
        ),
    }


def test_a_debit_is_pending_until_the_bank_settles_it(own_shop: Shop, started: dict[str, Any]) -> None:
    payment = started["usBankAccount_success"]
    assert payment.status == "processing" and payment.processing is None and payment.amount_received == 0
    pending = own_shop.v1.charges.retrieve(str(payment.latest_charge))
    assert (pending.status, pending.paid, pending.captured) == ("pending", False, False)
    assert pending.balance_transaction is None

    paid: Any = settled(own_shop, payment)
    assert (paid.status, paid.amount_received) == ("succeeded", 4200)
    charge = paid.latest_charge
    assert (charge.id, charge.status, charge.balance_transaction.type) == (pending.id, "succeeded", "payment")
    shown = charge.payment_method_details.us_bank_account
    assert (shown.bank_name, shown.last4, shown.routing_number) == ("STRIPE TEST BANK", "6789", "110000000")
    told = [event.type for event in own_shop.v1.events.list({"limit": 100}).data if payment.id in str(event.data)][::-1]
    assert told == [
        "payment_intent.created",
        "charge.pending",
        "payment_intent.processing",
        "charge.succeeded",
        "payment_intent.succeeded",
    ]

    refund = own_shop.v1.refunds.create({"charge": charge.id, "amount": 1200})
    assert refund.status == "pending" and refund.destination_details is not None
    assert refund.destination_details.type == "us_bank_transfer"
    until = time.monotonic() + 20
    while own_shop.v1.refunds.retrieve(refund.id).status == "pending":
        assert time.monotonic() < until
        time.sleep(0.2)
    assert own_shop.v1.refunds.retrieve(refund.id).status == "succeeded"
    assert own_shop.ledger()["refunds/usd"] == 0


@pytest.mark.parametrize(
    ("scenario", "code"),
    [("usBankAccount_accountClosed", "account_closed"), ("sepaDebit_insufficientFunds_de", "insufficient_funds")],
)
def test_a_debit_that_comes_back(own_shop: Shop, started: dict[str, Any], scenario: str, code: str) -> None:
    failed: Any = settled(own_shop, started[scenario])
    assert failed.status == "requires_payment_method" and failed.payment_method is None
    assert failed.last_payment_error.code == code and failed.last_payment_error.charge == failed.latest_charge.id
    assert (failed.latest_charge.status, failed.latest_charge.failure_code) == ("failed", code)
    assert failed.latest_charge.balance_transaction is None


def test_what_cannot_be_done_while_a_debit_is_under_way(shop: Shop) -> None:
    stuck = debit(shop, "pm_usBankAccount_processing")
    for act in (shop.v1.payment_intents.confirm, shop.v1.payment_intents.capture, shop.v1.payment_intents.cancel):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            act(stuck.id)
        assert refused.value.code == "payment_intent_unexpected_state"
        assert "status of processing" in str(refused.value)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.refunds.create({"payment_intent": stuck.id})
    assert shop.v1.payment_intents.update(stuck.id, {"description": "order 7"}).description == "order 7"


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"currency": "eur"}, "parameter_invalid_string", "currency"),
        ({"capture_method": "manual"}, "parameter_invalid_enum", "capture_method"),
        ({"mandate_data": None}, "payment_intent_mandate_invalid", "mandate_data"),
        (
            {"payment_method_options": {"us_bank_account": {"verification_method": "microdeposits"}}},
            "parameter_unsupported",
            "payment_method_options[us_bank_account][verification_method]",
        ),
        ({"allowed_payment_method_types": ["card"]}, "payment_method_unexpected_state", "payment_method"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_debit_cannot_be(shop: Shop, params: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        debit(shop, **params)
    assert (refused.value.code, refused.value.param) == (code, param)


@pytest.mark.parametrize(
    ("data", "code", "param"),
    [
        ({"us_bank_account": {**ACH, "routing_number": "110000001"}}, "routing_number_invalid", "routing_number"),
        ({"us_bank_account": {**ACH, "account_number": "12x45"}}, "account_number_invalid", "account_number"),
        ({"us_bank_account": {"routing_number": "110000000"}}, "parameter_missing", "account_number"),
        ({"us_bank_account": ACH, "billing_details": {"email": "a@b.example"}}, "parameter_missing", "name"),
        ({"type": "sepa_debit", "sepa_debit": {"iban": "DE89370400440532013001"}}, "invalid_bank_account_iban", "iban"),
        ({"type": "sepa_debit", "sepa_debit": {"iban": "DE8937040044053201300"}}, "invalid_bank_account_iban", "iban"),
        ({"type": "sepa_debit", "sepa_debit": {"iban": "US89370400440532013000"}}, "invalid_bank_account_iban", "iban"),
    ],
)
def test_an_account_that_cannot_be_one(shop: Shop, data: dict[str, Any], code: str, param: str) -> None:
    holder = {"name": "Jenny Rosen", "email": "jenny@shop.example"}
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.payment_methods.create({"type": "us_bank_account", "billing_details": holder, **data})
    assert refused.value.code == code
    assert str(refused.value.param).endswith(f"[{param}]")
    assert "89370400440532013" not in str(refused.value.json_body)


def test_an_account_is_kept_for_a_customer_with_its_mandate(shop: Shop) -> None:
    """Set up once, debited again without the customer; the number is shown nowhere."""
    holder = {"name": "Jenny Rosen", "email": "jenny@shop.example"}
    made = shop.v1.payment_methods.create(
        {"type": "sepa_debit", "sepa_debit": {"iban": "de89 3704 0044 0532 0130 00"}, "billing_details": holder}
    )
    shown: Any = made.sepa_debit
    assert (shown.bank_code, shown.country, shown.last4) == ("37040044", "DE", "3000")
    assert "0532013000" not in str(made)
    customer = shop.v1.customers.create({"name": "Jenny"})
    setup: Any = shop.v1.setup_intents.create(
        {
            "customer": customer.id,
            "payment_method": made.id,
            "allowed_payment_method_types": ["sepa_debit"],
            "confirm": True,
            "mandate_data": ACCEPTED,
        }
    )
    assert setup.status == "succeeded"
    mandate: Any = shop.v1.mandates.retrieve(setup.mandate)
    assert (mandate.type, mandate.status, mandate.payment_method) == ("multi_use", "active", made.id)
    assert mandate.customer_acceptance.online.ip_address == "203.0.113.7"
    assert [
        method.id for method in shop.v1.customers.payment_methods.list(customer.id, {"type": "sepa_debit"}).data
    ] == [made.id]
    assert not shop.v1.customers.payment_methods.list(customer.id, {"type": "card"}).data
    again: Any = shop.v1.payment_intents.create(
        {
            "amount": 900,
            "currency": "eur",
            "customer": customer.id,
            "payment_method": made.id,
            "allowed_payment_method_types": ["sepa_debit"],
            "off_session": True,
            "confirm": True,
            "expand": ["latest_charge"],
        }
    )
    assert again.status == "processing"
    assert again.latest_charge.payment_method_details.sepa_debit.mandate == mandate.id
    assert shop.v1.payment_methods.detach(made.id).customer is None


def test_an_account_in_payment_method_data_and_its_holder(shop: Shop) -> None:
    payment: Any = shop.v1.payment_intents.create(
        {
            "amount": 900,
            "currency": "usd",
            "allowed_payment_method_types": ["us_bank_account"],
            "payment_method_data": {
                "type": "us_bank_account",
                "us_bank_account": {**ACH, "account_holder_type": "company"},
                "billing_details": {"name": "Jenny Rosen"},
            },
            "expand": ["payment_method"],
        }
    )
    assert payment.payment_method.us_bank_account.account_holder_type == "company"
    changed: Any = shop.v1.payment_methods.update(
        payment.payment_method.id, {"us_bank_account": {"account_holder_type": "individual"}}
    )
    assert changed.us_bank_account.account_holder_type == "individual"
    confirmed: Any = shop.v1.payment_intents.confirm(
        payment.id,
        {"mandate_data": ACCEPTED, "expand": ["latest_charge"]},
    )
    mandate: Any = shop.v1.mandates.retrieve(
        confirmed.latest_charge.payment_method_details.us_bank_account.mandate, {"expand": ["payment_method"]}
    )
    assert mandate.type == "single_use" and mandate.single_use.amount == 900
    assert mandate.payment_method.id == payment.payment_method.id


def test_a_debit_that_is_disputed(own_shop: Shop, started: dict[str, Any]) -> None:
    paid: Any = settled(own_shop, started["usBankAccount_dispute"])
    assert paid.status == "succeeded"
    until = time.monotonic() + 20
    while not own_shop.v1.charges.retrieve(paid.latest_charge.id).disputed:
        assert time.monotonic() < until
        time.sleep(0.2)
    assert mandate_of(own_shop, paid.latest_charge).status == "inactive"
    (dispute,) = own_shop.v1.disputes.list({"charge": paid.latest_charge.id}).data
    assert "payment_method_details" not in dispute.to_dict(), "it is no card's"


def mandate_of(shop: Shop, charge: Any) -> Any:
    return shop.v1.mandates.retrieve(charge.payment_method_details.us_bank_account.mandate)


def test_a_mandate_ends_with_the_word_that_there_was_none(own_shop: Shop, started: dict[str, Any]) -> None:
    """A debit that its account's owner did not authorize takes the mandate with it; another failure does not."""
    failed: Any = settled(own_shop, started["kept and not authorized"])
    mandate = mandate_of(own_shop, failed.latest_charge)
    assert (failed.last_payment_error.code, mandate.type, mandate.status) == (
        "debit_not_authorized",
        "multi_use",
        "inactive",
    )
    (told,) = [
        event
        for event in own_shop.v1.events.list({"type": "mandate.updated", "limit": 100}).data
        if event.data.object["id"] == mandate.id
    ]
    assert told.data.previous_attributes.status == "active"
    for given in ({"mandate_data": None}, {"mandate_data": None, "mandate": mandate.id}):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            debit(own_shop, mandate.payment_method, customer=failed.customer, off_session=True, **given)
        assert refused.value.code == "payment_intent_mandate_invalid"
    # The customer has agreed anew.
    assert debit(own_shop, mandate.payment_method, customer=failed.customer).status == "processing"

    closed: Any = settled(own_shop, started["usBankAccount_accountClosed"])
    assert mandate_of(own_shop, closed.latest_charge).status == "active"
