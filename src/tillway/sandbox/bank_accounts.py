"""The test bank accounts and IBANs that Stripe documents, their `pm_usBankAccount_*` and `pm_sepaDebit_*` aliases, and
their behaviour.

Source: https://docs.stripe.com/testing. The API uses the table (aliases), and so does the simulated bank (settled,
returned, disputed). An account that is not here behaves like the first of its type: its debit settles.
"""

from typing import Literal

import msgspec

from tillway.domain.bank_account import TEST_ROUTING_NUMBER


class TestAccount(msgspec.Struct, frozen=True, kw_only=True):
    """One documented test account. `number` is an account number or an IBAN.

    `failure`: the reason why a debit is returned; None settles it. `settles`: soon, or never, to try out a payment that
    stays `processing`. Accounts that Stripe settles after three minutes settle soon, too. `dispute`: the debit settles,
    and then a dispute takes the money back.
    """

    __test__ = False  # pytest would collect a class with this name.

    type: Literal["us_bank_account", "sepa_debit"]
    number: str
    aliases: tuple[str, ...] = ()
    routing_number: str | None = None
    failure: str | None = None
    settles: Literal["soon", "never"] = "soon"
    dispute: bool = False

    @property
    def parameters(self) -> dict[str, str]:
        """The account as the parameters of its payment method type. An IBAN names its bank itself."""
        if self.routing_number is None:
            return {"iban": self.number}
        return {"account_number": self.number, "routing_number": self.routing_number}


def by_account(number: str) -> TestAccount | None:
    """The documented account of this number or IBAN (no spaces, upper case), or None."""
    return _BY_NUMBER.get(number)


def by_account_alias(alias: str) -> TestAccount | None:
    """The account behind `pm_usBankAccount_success` and the like, or None. Aliases are case sensitive."""
    return _BY_ALIAS.get(alias)


def all_accounts() -> tuple[TestAccount, ...]:
    """The table, one account a number."""
    return tuple(_BY_NUMBER.values())


def _us(number: str, *scenarios: str, failure: str | None = None, **fields: object) -> TestAccount:
    aliases = tuple(f"pm_usBankAccount{f'_{name}' if name else ''}" for name in scenarios)
    return msgspec.convert(
        {
            "type": "us_bank_account",
            "number": number,
            "aliases": aliases,
            "routing_number": TEST_ROUTING_NUMBER,
            "failure": failure,
            **fields,
        },
        TestAccount,
    )


_US = (
    _us("000123456789", "success", ""),
    _us("000111111113", "accountClosed", failure="account_closed"),
    _us("000111111116", "noAccount", failure="no_account"),
    _us("000222222227", "insufficientFunds", failure="insufficient_funds"),
    _us("000333333335", "debitNotAuthorized", failure="debit_not_authorized"),
    _us("000444444440", "invalidCurrency", failure="invalid_currency"),
    _us("000555555559", "dispute", dispute=True),
    _us("000000000009", "processing", settles="never"),
    _us("000777777771", "weeklyLimitExceeded", failure="charge_exceeds_source_limit"),
)

_SEPA_SCENARIOS: tuple[tuple[str, dict[str, object]], ...] = (
    ("success", {}),
    ("successDelayed", {}),
    ("failed", {"failure": "generic_could_not_process"}),
    ("failedDelayed", {"failure": "generic_could_not_process"}),
    ("disputed", {"dispute": True}),
    ("exceedsWeeklyVolumeLimit", {"failure": "charge_exceeds_source_limit"}),
    ("exceedsWeeklyTransactionLimit", {"failure": "charge_exceeds_weekly_limit"}),
    ("insufficientFunds", {"failure": "insufficient_funds"}),
)

_IBANS = {
    "at": """AT611904300234573201 AT321904300235473204 AT861904300235473202 AT051904300235473205
             AT591904300235473203 AT981904300000343434 AT601904300000121212 AT981904300002222227""",
    "be": """BE62510007547061 BE78510007547064 BE68539007547034 BE51510007547065
             BE08510007547063 BE90510000343434 BE52510000121212 BE90510002222227""",
    "de": """DE89370400440532013000 DE08370400440532013003 DE62370400440532013001 DE78370400440532013004
             DE35370400440532013002 DE65370400440000343434 DE27370400440000121212 DE65370400440002222227""",
    "fr": """FR1420041010050500013M02606 FR3020041010050500013M02609 FR8420041010050500013M02607
             FR7920041010050500013M02600 FR5720041010050500013M02608 FR9720041010050000000343434
             FR5920041010050000000121212 FR9720041010050000002222227""",
    "ie": """IE29AIBK93115212345678 IE24AIBK93115212345671 IE02AIBK93115212345679 IE94AIBK93115212345672
             IE51AIBK93115212345670 IE10AIBK93115200343434 IE69AIBK93115200121212 IE10AIBK93115202222227""",
}
"""A country's IBANs, one a scenario, in the order of the scenarios."""


def _sepa(country: str, iban: str, scenario: str, fields: dict[str, object]) -> TestAccount:
    given = {"type": "sepa_debit", "number": iban, "aliases": (f"pm_sepaDebit_{scenario}_{country}",), **fields}
    return msgspec.convert(given, TestAccount)


_SEPA = tuple(
    _sepa(country, iban, scenario, fields)
    for country, ibans in _IBANS.items()
    for iban, (scenario, fields) in zip(ibans.split(), _SEPA_SCENARIOS, strict=True)
)

_BY_NUMBER = {account.number: account for account in _US + _SEPA}
_BY_ALIAS = {alias: account for account in _BY_NUMBER.values() for alias in account.aliases}
