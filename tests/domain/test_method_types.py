"""The rows of the payment method types: that each is whole, and the payments that each refuses."""

import pytest

from tillway.domain.method_types import DEBITS, METHOD_TYPES, MethodType, check_payment
from tillway.domain.refusal import Refused
from tillway.sandbox.bank_accounts import all_accounts

PAYMENTS = """
card              usd automatic -> takes it
card              eur manual    -> takes it
us_bank_account   usd automatic -> takes it
us_bank_account   eur automatic -> currency
us_bank_account   eur manual    -> currency
us_bank_account   usd manual    -> capture_method
sepa_debit        eur automatic -> takes it
sepa_debit        usd automatic -> currency
sepa_debit        eur manual    -> capture_method
paypal            usd automatic -> takes it
paypal            eur manual    -> takes it
customer_balance  jpy automatic -> takes it
customer_balance  jpy manual    -> capture_method
"""


@pytest.mark.parametrize("line", PAYMENTS.strip().splitlines())
def test_the_payments_that_a_type_takes(line: str) -> None:
    given, _, expected = line.partition(" -> ")
    name, currency, capture_method = given.split()
    try:
        check_payment(METHOD_TYPES[name], currency, capture_method)
        result = "takes it"
    except Refused as refused:
        result = refused.param or ""
    assert result == expected


@pytest.mark.parametrize("row", METHOD_TYPES.values(), ids=lambda row: row.name)
def test_a_row_is_whole(row: MethodType) -> None:
    assert (row.read_account is not None) == row.debits, f"{row.name}: a type that holds a bank account reads one"
    assert bool(row.needs) == (row.holds is not None), f"{row.name}: name the parameters of what it holds, in needs"
    assert not (row.performed_by == "platform" and (row.needs_mandate or row.patience_seconds)), (
        f"{row.name}: the platform books its payments in one commit, without a mandate and without waiting"
    )
    assert row.captured == "now" or not row.patience_seconds, f"{row.name}: a debit is captured when it settles"


@pytest.mark.parametrize("name", DEBITS)
def test_every_debit_reads_its_test_accounts(name: str) -> None:
    row = METHOD_TYPES[name]
    accounts = [account for account in all_accounts() if account.type == name]
    assert accounts, f"{name} has no test accounts in sandbox/bank_accounts.py"
    for account in accounts:
        assert row.read_account is not None and set(row.needs) == account.parameters.keys()
        number, facts = row.read_account(account.parameters, name)
        assert number.reveal() == account.number and facts.last4 == account.number[-4:]
