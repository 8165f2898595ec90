"""The bank accounts that every merchant has in test mode: one for its default currency and for each that it holds money
in, so that a payout works before an external account was added.

Such an account is worked out from the merchant and the currency, and is stored with the first change that needs it: a
payout to it, or a change of its metadata. An external account that the merchant adds takes its place.
"""

from typing import Any, NamedTuple

import msgspec

from tillway.domain.account import SYSTEM, Account, scope_of
from tillway.domain.cards import Secret
from tillway.domain.external_account import ExternalAccount
from tillway.domain.money import MINOR_UNITS
from tillway.domain.record import Moment, SealedRecord
from tillway.engine import recipients
from tillway.engine.balance import available_and_pending, fold
from tillway.engine.core import Load
from tillway.engine.ids import time_prefix
from tillway.engine.platform import Platform
from tillway.vault.port import AccountContents


class TestBankAccount(NamedTuple):
    """An account that is not stored yet, the record of its sealed number, and the number, for a payout's own copy."""

    account: ExternalAccount
    sealed: SealedRecord
    contents: AccountContents


_MARK = "0test"
"""The characters of an id after its time and before its currency."""

_US = {"account_number": "000123456789", "routing_number": "110000000", "country": "US"}
_IBAN = {"account_number": "DE89370400440532013000", "country": "DE"}


async def listed(platform: Platform, scope_key: str, saved: list[ExternalAccount]) -> list[ExternalAccount]:
    """Return the test bank accounts in currencies that none of the `saved` external accounts is for.

    There are none in live mode, and none to a merchant who has added an external account.

    They are ordered by currency, the merchant's default currency first.
    """
    merchant = await _merchant(platform, scope_key)
    if merchant is None or not all(account.provided for account in saved):
        return []
    now = platform.engine.clock.now_ms() // 1000
    available, pending = available_and_pending(await fold(platform.engine, scope_key), now)
    held = sorted({*available, *pending} - {merchant.default_currency})
    taken = {account.currency for account in saved}
    at = platform.engine.clock.moment()
    found = [currency for currency in (merchant.default_currency, *held) if currency not in taken]
    return [_build(platform, scope_key, merchant, currency, at).account for currency in found]


async def of_id(platform: Platform, load: Load, id: str, at: Moment) -> TestBankAccount | None:
    """Return the test bank account of that id and its sealed number, if it is not stored yet; None for any other id."""
    merchant = await _merchant(platform, load.scope_key)
    currency = id[-3:]
    if merchant is None or currency not in MINOR_UNITS or id != _id(merchant, currency):
        return None
    if await load.maybe(ExternalAccount, id) is not None:
        return None
    return _build(platform, load.scope_key, merchant, currency, at)


async def of_currency(platform: Platform, load: Load, currency: str, at: Moment) -> TestBankAccount | None:
    """Return the test bank account of a currency and its sealed number, to be stored; None in live mode."""
    merchant = await _merchant(platform, load.scope_key)
    return None if merchant is None else _build(platform, load.scope_key, merchant, currency, at)


async def _merchant(platform: Platform, scope_key: str) -> Account | None:
    scope = scope_of(scope_key)
    return await platform.engine.load(SYSTEM).maybe(Account, scope.account) if scope.mode == "test" else None


def _id(merchant: Account, currency: str) -> str:
    return f"ba_{time_prefix(merchant.created)}{_MARK}{currency}"


def _build(platform: Platform, scope_key: str, merchant: Account, currency: str, at: Moment) -> TestBankAccount:
    given: dict[str, Any] = {**(_IBAN if currency == "eur" else _US), "account_holder_type": "company"}
    account, sealed = recipients.bank_account(platform.cards, scope_key, given, currency, at)
    id = _id(merchant, currency)
    kept = msgspec.structs.replace(account, id=id, created=merchant.created, default_for_currency=True, provided=True)
    contents = AccountContents(number=Secret(given["account_number"]), routing=given.get("routing_number"), name=None)
    return TestBankAccount(kept, sealed, contents)
