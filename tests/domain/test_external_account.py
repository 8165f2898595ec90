"""The account that a payout goes to: a table of what was named, saved and asked for."""

import pytest

from tillway.domain.external_account import ExternalAccount, choose
from tillway.domain.refusal import Refused


def account(id: str, type: str, currency: str, *, default: bool = False) -> ExternalAccount:
    return ExternalAccount(
        id=id,
        created=1,
        type=type,  # type: ignore[arg-type]
        currency=currency,
        default_for_currency=default,
    )


BANK = account("ba_bank", "bank_account", "eur")
HOME = account("ba_home", "bank_account", "eur", default=True)
CARD = account("ba_card", "card", "usd", default=True)
SAVED = (BANK, HOME, CARD)

PAYOUTS = [
    # named, saved, currency, method      -> account or refusal
    (BANK, (), "eur", "standard", "ba_bank"),
    (None, SAVED, "eur", "standard", "ba_home"),
    (None, SAVED, "usd", "instant", "ba_card"),
    (CARD, (), "usd", "instant", "ba_card"),
    (BANK, (), "usd", "standard", "parameter_invalid_string destination"),
    (BANK, (), "usd", "instant", "parameter_invalid_string destination"),
    (None, (BANK,), "eur", "standard", "payouts_not_allowed currency"),
    (None, SAVED, "jpy", "instant", "payouts_not_allowed currency"),
    (BANK, (), "eur", "instant", "instant_payouts_unsupported method"),
]


@pytest.mark.parametrize(("named", "saved", "currency", "method", "expected"), PAYOUTS)
def test_the_account_of_a_payout(
    named: ExternalAccount | None, saved: tuple[ExternalAccount, ...], currency: str, method: str, expected: str
) -> None:
    try:
        result = choose(named, saved, currency, method).id  # type: ignore[arg-type]
    except Refused as refused:
        result = f"{refused.code} {refused.param}"
    assert result == expected
