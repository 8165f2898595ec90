"""Routing numbers, IBANs, reasons, and the table of test accounts."""

import pytest

from tillway.domain.bank_account import (
    FAILURES,
    check_iban,
    check_us_account,
    failure,
    iban_valid,
    routing_valid,
)
from tillway.domain.outcome import Declined
from tillway.domain.refusal import RULES, Refused
from tillway.sandbox.bank_accounts import all_accounts, by_account, by_account_alias

ROUTING = [
    ("110000000", True),
    ("021000021", True),
    ("011401533", True),
    ("110000001", False),
    ("120000000", False),
    ("000000000", False),
    ("11000000", False),
    ("1100000000", False),
    ("11000000a", False),
    ("\N{ARABIC-INDIC DIGIT ONE}" * 2 + "\N{ARABIC-INDIC DIGIT ZERO}" * 7, False),
]


@pytest.mark.parametrize(("digits", "valid"), ROUTING)
def test_routing_numbers(digits: str, valid: bool) -> None:
    assert routing_valid(digits) is valid


IBANS = [
    # As the registry of ISO 13616 gives them, one for each structure.
    ("DE89370400440532013000", "DE", "37040044", None),
    ("de89 3704 0044 0532 0130 00", "DE", "37040044", None),
    ("FR1420041010050500013M02606", "FR", "20041", "01005"),
    ("IE29AIBK93115212345678", "IE", "AIBK", "931152"),
    ("IT60X0542811101000000123456", "IT", "05428", "11101"),
    ("GB82WEST12345698765432", "GB", "WEST", "123456"),
    ("MT84MALT011000012345MTLCAST001S", "MT", "MALT", "01100"),
    ("NO9386011117947", "NO", "8601", None),
    ("NL91ABNA0417164300", "NL", "ABNA", None),
    ("CH9300762011623852957", "CH", "00762", None),
]


@pytest.mark.parametrize(("iban", "country", "bank", "branch"), IBANS)
def test_ibans(iban: str, country: str, bank: str, branch: str | None) -> None:
    number, facts = check_iban(iban, param="sepa_debit")
    assert number.reveal() == iban.replace(" ", "").upper()
    assert (facts.country, facts.bank_code, facts.branch_code) == (country, bank, branch)
    assert facts.last4 == number.reveal()[-4:]


@pytest.mark.parametrize(
    "iban",
    ["", "DE", "DE88370400440532013000", "DE8937040044053201300", "XX89370400440532013000", "DE8937040044053201300ü"],
)
def test_what_is_no_iban(iban: str) -> None:
    with pytest.raises(Refused) as refused:
        check_iban(iban, param="sepa_debit")
    assert (refused.value.code, refused.value.param) == ("invalid_bank_account_iban", "sepa_debit[iban]")
    assert len(iban) < 4 or iban not in refused.value.message


def test_a_transposition_is_noticed() -> None:
    """Two neighbours that change places, anywhere behind the country: what the check digits are for."""
    iban = "DE89370400440532013000"
    for place in range(2, len(iban) - 1):
        swapped = iban[:place] + iban[place + 1] + iban[place] + iban[place + 2 :]
        assert iban_valid(swapped) is (swapped == iban), swapped


ACCOUNTS = [
    ("000123456789", "110000000", None),
    ("1234", "110000000", None),
    ("00-0123 456789", "1100-00000", None),
    ("123", "110000000", "us_bank_account[account_number]"),
    ("123456789012345678", "110000000", "us_bank_account[account_number]"),
    ("12a45", "110000000", "us_bank_account[account_number]"),
    ("12a45", "123456789", "us_bank_account[routing_number]"),
]


@pytest.mark.parametrize(("number", "routing", "param"), ACCOUNTS)
def test_accounts(number: str, routing: str, param: str | None) -> None:
    if param is None:
        secret, facts = check_us_account(number, routing, None, None, param="us_bank_account")
        assert secret.reveal().isdigit() and repr(secret) == "****"
        assert (facts.account_holder_type, facts.account_type) == ("individual", "checking")
        return
    with pytest.raises(Refused) as refused:
        check_us_account(number, routing, None, None, param="us_bank_account")
    assert refused.value.param == param


def test_reasons() -> None:
    """What a provider says becomes one of our codes; what is our own fault is not put on the customer."""
    assert failure(Declined(decline_code="account_closed")).code == "account_closed"
    assert failure(Declined(decline_code="R99")).code == "could_not_process"
    assert failure(Declined(code="no_account", decline_code=None)).code == "no_account"
    ours = Declined("processing_error", None, alert="the bank answered 422")
    assert failure(ours) is ours
    assert FAILURES.keys() <= RULES.keys()


def test_the_table_of_test_accounts_can_be_used() -> None:
    for account in all_accounts():
        if account.type == "sepa_debit":
            check_iban(account.number, param="sepa_debit")
        else:
            check_us_account(account.number, account.routing_number or "", None, None, param="us_bank_account")
        assert account.failure is None or account.failure in FAILURES
        assert all(by_account_alias(alias) is account for alias in account.aliases)
        assert by_account(account.number) is account
