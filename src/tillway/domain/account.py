"""Accounts, and the scopes that separate the records of merchants."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from msgspec.structs import force_setattr, replace

from tillway.domain.ledger import Fee
from tillway.domain.record import Moment, Record, Value, changed
from tillway.domain.refusal import Refused

SYSTEM = "sys"
"""The scope of records of the installation, which belong to no merchant."""

Mode = Literal["test", "live"]


class Account(Record, frozen=True, kw_only=True):
    """A merchant. `handle` is its name in requests of the dialects, unique among merchants; it gives no access, only
    keys do."""

    name: str = ""
    handle: str = ""
    default_currency: str = "usd"
    brand_colour: str = ""
    """The colour of the merchant's checkout pages, `#` and six small hexadecimal digits; empty: Tillway's own."""
    country: str = "US"
    online_platform_answers: Literal["described", "original"] = "described"
    """Whether the online platform's calls answer as its API description says, or as its original code did: success with
    the status "200", and a bank's refusal with HTTP 400."""
    requests_per_second: int | None = None
    """The request rate of the merchant and of each of its keys; None: that of the settings; 0: no limit."""
    requests_burst: int = 1
    amounts_on_v1: Literal["stripe", "stored"] = "stored"
    """How `/v1` writes ISK, UGX and MGA: as Stripe does (`domain/wire_amounts.py`), or in minor units as they are
    stored. The latter is for accounts that earlier versions made."""
    amounts_moved_at: int | None = None
    """Since when `/v1` writes them as Stripe does to an account that an earlier version made (epoch seconds)."""
    statement_descriptor: str = ""
    """The text on a payer's statement where the payment names none."""
    fee: Fee | None = None
    """The merchant's price of a charge; None: the connector's, or else that of the settings."""
    settlement_days: int | None = None
    """Whole days until the money of a charge becomes available; None: as in the settings."""
    time_zone: str = "UTC"
    """The zone of the IANA database in which payers and lists read the merchant's days."""
    website: str = ""
    """The address of the merchant's shop, to which the payer's pages lead back; empty: they know none."""
    origins: tuple[str, ...] = ()
    """The origins where the card frame of each publishable key shows itself, beside those of the key."""
    disabled_at: int | None = None
    """Since when no key of the merchant is accepted; None: they are. Its tasks go on: webhooks, payouts, settlement."""
    deleted_at: int | None = None
    """Since when the merchant is deleted. Its books, its records and its audit trail stay, under an id that nothing
    else ever gets."""

    @property
    def status(self) -> Literal["active", "disabled", "deleted"]:
        if self.deleted_at is not None:
            return "deleted"
        return "disabled" if self.disabled_at is not None else "active"

    def has_stored_amounts(self, at: float) -> bool:
        """Whether `/v1` writes ISK, UGX and MGA to this account as they are stored, at that moment (epoch seconds)."""
        if self.amounts_on_v1 == "stored":
            return True
        return self.amounts_moved_at is not None and at < self.amounts_moved_at


SETTINGS = (
    "brand_colour",
    "country",
    "default_currency",
    "fee",
    "name",
    "origins",
    "settlement_days",
    "statement_descriptor",
    "time_zone",
    "website",
)
"""The fields of an account that are its settings."""

NAME_MAX = 100
WEBSITE_MAX = 500
SETTLEMENT_DAYS_MAX = 365

AMOUNTS_MOVE_AFTER_SECONDS = 5
"""How long after its command a move of amounts takes effect: by then every process has read the account."""


def disable(account: Account, at: Moment) -> Account:
    """The account with its keys refused from now on. Refused `account_deleted`."""
    _refuse_deleted(account)
    return account if account.disabled_at is not None else replace(account, disabled_at=at.now)


def enable(account: Account) -> Account:
    """The account with its keys accepted again. Refused `account_deleted`."""
    _refuse_deleted(account)
    return replace(account, disabled_at=None)


def delete(account: Account, at: Moment) -> Account:
    """The rest of a deleted account: its id, its name and the facts that its books need.

    Refused `account_in_use` until it is disabled.
    """
    if account.deleted_at is not None:
        return account
    if account.disabled_at is None:
        raise Refused(
            "account_in_use", f"{account.id} takes payments. Disable it first: tillway accounts disable {account.id}"
        )
    return replace(account, deleted_at=at.now, handle="", origins=())


def move_amounts(account: Account, at: Moment) -> Account:
    """The account with Stripe's amounts on `/v1` from AMOUNTS_MOVE_AFTER_SECONDS on. Refused `account_deleted`."""
    _refuse_deleted(account)
    if account.amounts_on_v1 == "stripe":
        return account
    return replace(account, amounts_on_v1="stripe", amounts_moved_at=at.created + AMOUNTS_MOVE_AFTER_SECONDS)


def change_settings(account: Account, fields: Mapping[str, Any]) -> Account:
    """The account with these of its SETTINGS; None puts one back to its default. Refused `account_deleted`."""
    assert not set(fields) - set(SETTINGS), f"these are no settings of an account: {sorted(fields)}"
    _refuse_deleted(account)
    return changed(account, dict(fields))


def _refuse_deleted(account: Account) -> None:
    if account.deleted_at is not None:
        raise Refused("account_deleted", f"{account.id} is deleted. Its books stay as they are.")


def is_colour(text: str) -> bool:
    """Whether `text` is a colour as pages write it: `#` and six small hexadecimal digits."""
    return re.fullmatch(r"#[0-9a-f]{6}", text) is not None


def is_handle(text: str) -> bool:
    """Whether `text` can be a handle: 1 to 64 small letters, digits and dashes, a letter first."""
    return re.fullmatch(r"[a-z][a-z0-9-]{0,63}", text) is not None


class Scope(Value, frozen=True, kw_only=True):
    """One merchant in one mode: every record key begins with it, and a caller reaches only its records."""

    account: str
    mode: Mode
    key: str = ""
    """`<16 characters of the account id><t or l>`, 17 characters; also the head of every provider's reference. It is
    worked out once from the others: a payment asks four times."""

    def __post_init__(self) -> None:
        force_setattr(self, "key", self.account.removeprefix("acct_") + self.mode[0])

    @property
    def livemode(self) -> bool:
        return self.mode == "live"


SCOPE_KEY_LENGTH = 17

SCOPES_KNOWN = 1000
"""Scopes that are not made anew: a task asks for its own five times."""


def is_live(scope_key: str) -> bool:
    """Whether the scope with that key is of live mode."""
    return scope_key[-1] == "l"


@lru_cache(SCOPES_KNOWN)
def scope_of(key: str) -> Scope:
    """The scope behind its key, as `Scope.key` made it."""
    assert len(key) == SCOPE_KEY_LENGTH and key[-1] in "tl", f"not a scope key: {key!r}"
    return Scope(account=f"acct_{key[:-1]}", mode="live" if key[-1] == "l" else "test")
