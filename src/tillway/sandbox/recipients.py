"""Recipients that the simulated bank knows, and the outcome of a payout to each.

Bank accounts and debit cards: https://docs.stripe.com/connect/testing#payouts. Stripe has no numbers for a payout that
stays under way and one that is returned after it was paid; these, and all e-mail addresses, are Tillway's own. Every
other recipient is paid at once.
"""

from typing import Literal

import msgspec

from tillway.sandbox.bank_accounts import by_account

Manner = Literal["succeeds", "succeeds_later", "fails_later"]
"""`succeeds_later` is first pending; `fails_later` is paid, and returned soon after."""


class TestRecipient(msgspec.Struct, frozen=True, kw_only=True):
    """`failure` is the code of an immediate refusal; None: it is paid, in its `manner`."""

    __test__ = False  # pytest would collect a class with this name.

    failure: str | None = None
    manner: Manner = "succeeds"


def recipient_of(type: str, value: str) -> TestRecipient:
    """The bank's behaviour for a payout to `value`: an IBAN, `<routing>/<account>`, a card number or an address."""
    match type:
        case "email":
            local, _, domain = value.rpartition("@")
            return _NAMED.get(local, _PAID) if domain == "example.com" else _PAID
        case "card":
            return _CARDS.get(value, _PAID)
        case _:
            if value[:2].isalpha():
                return _IBANS.get(value[-10:], _PAID)
            number = value.rpartition("/")[2]
            if number in _ACCOUNTS:
                return _ACCOUNTS[number]
            known = by_account(number)
            return TestRecipient(failure=known.failure) if known is not None and known.failure else _PAID


_PAID = TestRecipient()
_LATER = TestRecipient(manner="succeeds_later")
_RETURNED = TestRecipient(manner="fails_later")

_ACCOUNTS = {"000888888883": _LATER, "000999999991": _RETURNED}
"""Tillway's own US accounts, behind any routing number. Those that fail are in `test_accounts`."""

_IBANS = {
    "0532013001": TestRecipient(failure="no_account"),
    "0532013002": TestRecipient(failure="account_closed"),
    "0532013003": TestRecipient(failure="insufficient_funds"),
    "0532013004": TestRecipient(failure="debit_not_authorized"),
    "0532013005": TestRecipient(failure="invalid_currency"),
    "0532013008": _LATER,
    "0532013009": _RETURNED,
}
"""By the last ten characters of the IBAN, in any country."""

_CARDS = {"4000056755665555": TestRecipient(failure="could_not_process")}

_NAMED = {
    "no_account": TestRecipient(failure="no_account"),
    "account_closed": TestRecipient(failure="account_closed"),
    "could_not_process": TestRecipient(failure="could_not_process"),
    "pending": _LATER,
    "returned": _RETURNED,
}
"""By the part before `@example.com`."""

NAMED_ADDRESSES = tuple(f"{name}@example.com" for name in _NAMED)
"""The e-mail addresses that stand for a failing or slow recipient."""
