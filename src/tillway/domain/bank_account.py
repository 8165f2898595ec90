"""Facts about bank accounts: routing numbers, IBANs, and the reasons of returned debits.

Pure. A number that has passed `check_us_account` or `check_iban` travels as a `Secret`, which only the vault opens.
"""

from typing import Any, NamedTuple

import msgspec

from tillway.domain.cards import Secret
from tillway.domain.outcome import Declined
from tillway.domain.record import Value
from tillway.domain.refusal import Refused

TEST_ROUTING_NUMBER = "110000000"
TEST_HOLDER = {"email": "jenny.rosen@example.com", "name": "Jenny Rosen"}
"""The holder of the public test accounts."""

_BANK_NAMES = {TEST_ROUTING_NUMBER: "STRIPE TEST BANK"}
"""Banks with known routing numbers. No complete directory is free to use, so any other name stays open."""


class BankAccountFacts(Value, frozen=True, kw_only=True):
    """The facts of a bank account that may be stored outside the vault.

    `vault` names the sealed number. A public test account has none: `alias` names it in the table of test accounts.
    """

    last4: str
    country: str = "US"
    fingerprint: str = ""
    vault: str | None = None
    alias: str | None = None
    routing_number: str | None = None
    bank_name: str | None = None
    account_holder_type: str | None = None
    account_type: str | None = None
    bank_code: str | None = None
    branch_code: str | None = None


def without_number(bank: BankAccountFacts | None) -> BankAccountFacts | None:
    """The facts of an account in a charge or a detached method, without its place in the vault."""
    if bank is None or bank.vault is None:
        return bank
    return msgspec.structs.replace(bank, vault=None)


# Accounts in the United States.


def check_us_account(
    number: str, routing_number: str, holder_type: str | None, account_type: str | None, *, param: str
) -> tuple[Secret[str], BankAccountFacts]:
    """Check and return the account, or raise `Refused` with the field as the caller wrote it, the routing number first.

    An account number has 4 to 17 digits (the width of the field in an ACH entry) and may have spaces and dashes. By
    default the account is an individual's checking account, as with Stripe.
    """
    routing = _bare(routing_number)
    if not routing_valid(routing):
        raise Refused("routing_number_invalid", param=f"{param}[routing_number]")
    digits = _bare(number)
    if not (4 <= len(digits) <= 17 and digits.isascii() and digits.isdigit()):
        raise Refused(
            "account_number_invalid",
            "The bank account number must be 4 to 17 digits.",
            param=f"{param}[account_number]",
        )
    return Secret(digits), BankAccountFacts(
        last4=digits[-4:],
        routing_number=routing,
        bank_name=_BANK_NAMES.get(routing),
        account_holder_type=holder_type or "individual",
        account_type=account_type or "checking",
    )


def routing_valid(digits: str) -> bool:
    """Whether `digits` is an ABA routing number: nine digits whose sum, weighted 3 7 1, is a multiple of ten."""
    if not (len(digits) == 9 and digits.isascii() and digits.isdigit()) or digits == "0" * 9:
        return False
    return sum(int(digit) * weight for digit, weight in zip(digits, (3, 7, 1) * 3, strict=True)) % 10 == 0


# Accounts in Europe.


class _Iban(NamedTuple):
    """The form of a country's IBAN: its length, and the places of bank and branch."""

    length: int
    bank: tuple[int, int]
    branch: tuple[int, int] | None = None


_IBANS = {
    "AD": _Iban(24, (4, 8), (8, 12)),
    "AL": _Iban(28, (4, 7), (7, 11)),
    "AT": _Iban(20, (4, 9)),
    "BE": _Iban(16, (4, 7)),
    "BG": _Iban(22, (4, 8), (8, 12)),
    "CH": _Iban(21, (4, 9)),
    "CY": _Iban(28, (4, 7), (7, 12)),
    "CZ": _Iban(24, (4, 8)),
    "DE": _Iban(22, (4, 12)),
    "DK": _Iban(18, (4, 8)),
    "EE": _Iban(20, (4, 6)),
    "ES": _Iban(24, (4, 8), (8, 12)),
    "FI": _Iban(18, (4, 7)),
    "FR": _Iban(27, (4, 9), (9, 14)),
    "GB": _Iban(22, (4, 8), (8, 14)),
    "GI": _Iban(23, (4, 8)),
    "GR": _Iban(27, (4, 7), (7, 11)),
    "HR": _Iban(21, (4, 11)),
    "HU": _Iban(28, (4, 7), (7, 11)),
    "IE": _Iban(22, (4, 8), (8, 14)),
    "IS": _Iban(26, (4, 6), (6, 8)),
    "IT": _Iban(27, (5, 10), (10, 15)),
    "LI": _Iban(21, (4, 9)),
    "LT": _Iban(20, (4, 9)),
    "LU": _Iban(20, (4, 7)),
    "LV": _Iban(21, (4, 8)),
    "MC": _Iban(27, (4, 9), (9, 14)),
    "MD": _Iban(24, (4, 6)),
    "ME": _Iban(22, (4, 7)),
    "MK": _Iban(19, (4, 7)),
    "MT": _Iban(31, (4, 8), (8, 13)),
    "NL": _Iban(18, (4, 8)),
    "NO": _Iban(15, (4, 8)),
    "PL": _Iban(28, (4, 12)),
    "PT": _Iban(25, (4, 8), (8, 12)),
    "RO": _Iban(24, (4, 8)),
    "RS": _Iban(22, (4, 7)),
    "SE": _Iban(24, (4, 7)),
    "SI": _Iban(19, (4, 9)),
    "SK": _Iban(24, (4, 8)),
    "SM": _Iban(27, (5, 10), (10, 15)),
    "VA": _Iban(22, (4, 7)),
}
"""The countries and territories of the SEPA schemes (European Payments Council, EPC409-09), with the structure of their
IBANs as in the registry of ISO 13616."""


def check_iban(iban: str, *, param: str) -> tuple[Secret[str], BankAccountFacts]:
    """The account of `iban`, which may be written in groups and in lower case. Refused `invalid_bank_account_iban` with
    the field as the caller wrote it: for a country outside SEPA, a wrong length, or wrong check digits."""
    field = f"{param}[iban]"
    bare = _bare(iban).upper()
    country = bare[:2]
    form = _IBANS.get(country)
    if form is None:
        raise Refused(
            "invalid_bank_account_iban",
            "The IBAN you provided does not begin with a country of the Single Euro Payments Area.",
            param=field,
        )
    if len(bare) != form.length:
        raise Refused("invalid_bank_account_iban", f"An IBAN of {country} has {form.length} characters.", param=field)
    if not iban_valid(bare):
        raise Refused("invalid_bank_account_iban", param=field)
    return Secret(bare), BankAccountFacts(
        last4=bare[-4:],
        country=country,
        bank_code=bare[slice(*form.bank)],
        branch_code=bare[slice(*form.branch)] if form.branch is not None else None,
    )


def iban_valid(iban: str) -> bool:
    """Whether the check digits of `iban` (upper case, no spaces) are right: ISO 7064, mod 97-10."""
    if not (iban.isascii() and iban.isalnum() and iban[2:4].isdigit()):
        return False
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97 == 1


def _bare(written: str) -> str:
    return written.replace(" ", "").replace("-", "")


# Reasons of returned debits.

FAILURES: dict[str, str] = {
    "account_closed": "The customer's bank account has been closed.",
    "bank_account_restricted": "The customer's bank account does not allow debits of this kind.",
    "bank_ownership_changed": "The customer's bank account has moved to another bank.",
    "charge_exceeds_source_limit": "The payment exceeds the amount that may be debited from this account in a week.",
    "charge_exceeds_weekly_limit": "The payment exceeds how often this account may be debited in a week.",
    "could_not_process": "The customer's bank could not process the debit.",
    "debit_not_authorized": "The customer has told their bank that this debit was not authorized.",
    "generic_could_not_process": "The customer's bank could not process the debit, and did not say why.",
    "insufficient_funds": "The customer's bank account has not enough money for this payment.",
    "invalid_account_number": "The account number does not exist at the customer's bank.",
    "invalid_currency": "The customer's bank account does not take debits in this currency.",
    "no_account": "The customer's bank account could not be found.",
}
"""Stripe's codes for a bank debit that failed, in `failure_code` of a charge and `code` of `last_payment_error`."""


def failure(outcome: Declined) -> Declined:
    """A provider's refusal of a bank debit, with one of the codes above in place of a card's `card_declined`. An
    unknown reason is `could_not_process`; Tillway's own faults stay unchanged."""
    if outcome.alert is not None or outcome.code in FAILURES:
        return outcome
    reason = outcome.decline_code or outcome.code
    code = reason if reason in FAILURES else "could_not_process"
    return msgspec.structs.replace(outcome, code=code, decline_code=None, message=outcome.message or FAILURES[code])


def check_verification(type: str, options: dict[str, Any]) -> None:
    """Refused if `options`, the `payment_method_options` of a payment or setup, ask to verify the account: accounts are
    not verified."""
    wanted = (options.get(type) or {}).get("verification_method")
    if wanted in ("instant", "microdeposits"):
        raise Refused(
            "parameter_unsupported",
            "Tillway neither sends microdeposits nor connects to the customer's bank: an account is used without being "
            "verified. Leave verification_method out, or set it to automatic.",
            param=f"payment_method_options[{type}][verification_method]",
        )
