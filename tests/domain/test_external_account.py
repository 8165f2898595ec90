"""The account that a payout goes to: a table of what was named, saved and asked for."""

import itertools

import msgspec
import pytest
from moments import moment_at

from tillway.domain.external_account import ExternalAccount, choose, create
from tillway.domain.refusal import Refused


def account(id: str, type: str, currency: str, *, default: bool = False) -> ExternalAccount:
    return ExternalAccount(
        id=id,
        created=1,
        type=type,  # type: ignore[arg-type]
        currency=currency,
        default_for_currency=default,
    )


MOMENT = moment_at(1000, map(str, itertools.count()).__next__)
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


def at_bank(
    id: str, currency: str, fingerprint: str, type: str = "bank_account", *, provided: bool = False
) -> ExternalAccount:
    made = account(id, type, currency)
    return msgspec.structs.replace(made, fingerprint=fingerprint, provided=provided)


NEW = at_bank("ba_new", "eur", "f1")
MADE = [
    # one that is there, and the account that is added -> saved or refused
    (at_bank("ba_old", "eur", "f1"), NEW, "bank_account_exists external_account[account_number]"),
    (at_bank("ba_old", "usd", "f1"), NEW, "ba_new"),
    (at_bank("ba_old", "eur", "f2"), NEW, "ba_new"),
    (at_bank("ba_old", "eur", "f1", provided=True), NEW, "ba_new"),
    (at_bank("ba_old", "eur", "f1", "card"), at_bank("ba_new", "eur", "f1", "card"), "ba_new"),
    (at_bank("ba_old", "eur", "", "email"), at_bank("ba_new", "eur", "", "email"), "ba_new"),
]


@pytest.mark.parametrize(("there", "new", "expected"), MADE)
def test_a_twin_is_refused_where_it_is_not_wanted(there: ExternalAccount, new: ExternalAccount, expected: str) -> None:
    try:
        result = create(new, [there], default=None, twins="refused", at=MOMENT).result.id
    except Refused as refused:
        result = f"{refused.code} {refused.param}"
        assert there.id in refused.message
    assert result == expected
    assert create(new, [there], default=None, at=MOMENT).result.id == "ba_new"
