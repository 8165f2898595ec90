"""What Stripe documents of its test cards (https://docs.stripe.com/testing), by number and by alias."""

import pytest
import stripe
from sdk_shop import Shop, card

BRANDS = """
    4242424242424242    pm_card_visa                visa        credit   US
    4000056655665556    pm_card_visa_debit          visa        debit    US
    5555555555554444    pm_card_mastercard          mastercard  credit   US
    2223003122003222    -                           mastercard  credit   US
    5200828282828210    pm_card_mastercard_debit    mastercard  debit    US
    5105105105105100    pm_card_mastercard_prepaid  mastercard  prepaid  US
    378282246310005     pm_card_amex                amex        credit   US
    371449635398431     -                           amex        credit   US
    6011111111111117    pm_card_discover            discover    credit   US
    3056930009020004    pm_card_diners              diners      credit   US
    36227206271667      -                           diners      credit   US
    3566002020360505    -                           jcb         credit   JP
    6200000000000005    pm_card_unionpay            unionpay    credit   CN
    4000002760000016    pm_card_de                  visa        credit   DE
    4000002500000003    pm_card_fr                  visa        credit   FR
    4000008260000000    pm_card_gb                  visa        credit   GB
    4000003920000003    pm_card_jp                  visa        credit   JP
"""


@pytest.mark.parametrize("row", BRANDS.strip().splitlines(), ids=lambda row: row.split()[0])
def test_brands(shop: Shop, row: str) -> None:
    number, alias, brand, funding, country = row.split()
    code = "1234" if brand == "amex" else "123"
    data = {"type": "card", "card": card(number, cvc=code)}
    ways = [shop.pay(None, payment_method_data=data, expand=["payment_method"])]
    if alias != "-":
        ways.append(shop.pay(alias, expand=["payment_method"]))
    for paid in ways:
        method = paid.payment_method
        assert isinstance(method, stripe.PaymentMethod) and method.card is not None
        seen = method.card
        assert (paid.status, seen.brand, seen.last4) == ("succeeded", brand, number[-4:])
        assert (seen.funding, seen.country) == (funding, country)
        assert seen.checks is not None and seen.checks.cvc_check == "pass"


DECLINES = """
    4000000000000002  pm_card_visa_chargeDeclined                     card_declined     generic_decline
    4000000000009995  pm_card_visa_chargeDeclinedInsufficientFunds    card_declined     insufficient_funds
    4000000000009987  pm_card_visa_chargeDeclinedLostCard             card_declined     lost_card
    4000000000009979  pm_card_visa_chargeDeclinedStolenCard           card_declined     stolen_card
    4000000000000069  pm_card_chargeDeclinedExpiredCard               expired_card      -
    4000000000000127  pm_card_chargeDeclinedIncorrectCvc              incorrect_cvc     -
    4000000000000119  pm_card_chargeDeclinedProcessingError           processing_error  -
    4000000000006975  pm_card_visa_chargeDeclinedVelocityLimitExceeded  card_declined   card_velocity_exceeded
    4100000000000019  pm_card_chargeDeclinedFraudulent                card_declined     fraudulent
    4000000000000341  pm_card_chargeCustomerFail                      card_declined     generic_decline
"""


@pytest.mark.parametrize("way", ["number", "alias"])
@pytest.mark.parametrize("row", DECLINES.strip().splitlines(), ids=lambda row: row.split()[0])
def test_declines(shop: Shop, row: str, way: str) -> None:
    number, alias, code, decline_code = row.split()
    if way == "alias":
        error = shop.declined(alias)
    else:
        error = shop.declined(None, payment_method_data={"type": "card", "card": card(number)})
    assert (error.code, error.http_status) == (code, 402)
    told = error.error
    assert told is not None and told.type == "card_error" and told.message and told.doc_url
    if decline_code != "-":
        assert told.decline_code == decline_code
    payment = told.payment_intent
    assert (payment.status, payment.payment_method) == ("requires_payment_method", None)
    last = payment.last_payment_error
    assert (last.code, last.type, last.charge, last.payment_method.card.last4) == (
        code,
        "card_error",
        told.charge,
        number[-4:],
    )
    charge = shop.v1.charges.retrieve(told.charge)
    assert (charge.status, charge.paid, charge.captured, charge.failure_code) == ("failed", False, False, code)
    assert charge.outcome is not None
    assert charge.outcome.type == ("blocked" if decline_code == "fraudulent" else "issuer_declined")
    assert charge.balance_transaction is None


def test_insufficient_funds_says_so(shop: Shop) -> None:
    error = shop.declined("pm_card_visa_chargeDeclinedInsufficientFunds")
    assert error.user_message == "Your card has insufficient funds."


def test_a_declined_payment_can_be_paid_otherwise(shop: Shop) -> None:
    error = shop.declined()
    assert error.error is not None
    paid = shop.v1.payment_intents.confirm(
        error.error.payment_intent.id, {"payment_method": "pm_card_visa", "return_url": "https://shop.example/"}
    )
    assert (paid.status, paid.last_payment_error) == ("succeeded", None)
    found = shop.v1.charges.list({"payment_intent": paid.id})
    assert [charge.status for charge in found.data] == ["succeeded", "failed"]


def test_a_number_that_is_none(shop: Shop) -> None:
    error = shop.declined(None, payment_method_data={"type": "card", "card": card("4242424242424241")})
    assert (error.code, error.param) == ("incorrect_number", "payment_method_data[card][number]")


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("exp_month", 13, "invalid_expiry_month"),
        ("exp_month", 0, "invalid_expiry_month"),
        ("exp_year", 2019, "invalid_expiry_year"),
        ("exp_year", "1x", "invalid_expiry_year"),
        ("cvc", "99", "invalid_cvc"),
        ("number", "1234", "invalid_number"),
        ("number", "4242 4242 4242 42ab", "invalid_number"),
    ],
)
def test_card_data_that_cannot_be(shop: Shop, field: str, value: object, code: str) -> None:
    given = card("4242424242424242", **{field: value}) if field != "number" else card(str(value))
    error = shop.declined(None, payment_method_data={"type": "card", "card": given})
    assert error.code in (code, "incorrect_number")
    assert (error.param, error.http_status) == (f"payment_method_data[card][{field}]", 402)
    assert str(value) not in str(error) or len(str(value)) < 4


CHECKS = """
    pm_card_cvcCheckFail  -     -            fail
    4000000000000036      zip   postal_code  fail
    4000000000000028      line  line1        fail
    4000000000000010      both  postal_code  fail
    4000000000000044      both  postal_code  unavailable
"""


@pytest.mark.parametrize("row", CHECKS.strip().splitlines(), ids=lambda row: row.split()[0])
def test_checks_of_cvc_and_address(shop: Shop, row: str) -> None:
    source, address, checked, expected = row.split()
    if address == "-":
        paid = shop.pay(source, expand=["latest_charge"])
    else:
        paid = shop.pay(
            None,
            payment_method_data={
                "type": "card",
                "card": card(source),
                "billing_details": {"address": {"postal_code": "10115", "line1": "Allee 1"}},
            },
            expand=["latest_charge"],
        )
    charge = paid.latest_charge
    checks = charge.payment_method_details.card.checks
    if address == "-":
        assert checks.cvc_check == expected
    else:
        assert getattr(checks, f"address_{checked}_check") == expected


def test_elevated_risk_is_told(shop: Shop) -> None:
    charge = shop.pay("pm_card_riskLevelElevated", expand=["latest_charge"]).latest_charge
    assert isinstance(charge, stripe.Charge) and charge.outcome is not None
    assert (charge.outcome.risk_level, charge.outcome.type) == ("elevated", "authorized")


def test_money_that_is_available_at_once(shop: Shop) -> None:
    charge = shop.pay("pm_card_bypassPending", expand=["latest_charge.balance_transaction"]).latest_charge
    assert isinstance(charge, stripe.Charge)
    moved = charge.balance_transaction
    assert isinstance(moved, stripe.BalanceTransaction) and moved.status == "available"


def test_an_unknown_alias_is_no_method(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="No such PaymentMethod: 'pm_card_frobnicate'"):
        shop.pay("pm_card_frobnicate")


def test_a_card_that_declines_cannot_be_attached(shop: Shop) -> None:
    customer = shop.v1.customers.create()
    with pytest.raises(stripe.CardError) as caught:
        shop.v1.payment_methods.attach("pm_card_visa_chargeDeclined", {"customer": customer.id})
    assert caught.value.code == "card_declined"


def test_a_card_that_can_be_attached_and_then_declines(shop: Shop) -> None:
    customer = shop.v1.customers.create()
    method = shop.v1.payment_methods.attach("pm_card_chargeCustomerFail", {"customer": customer.id})
    assert shop.declined(method.id, customer=customer.id).code == "card_declined"
