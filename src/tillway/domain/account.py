"""Accounts, and the scopes that separate the records of merchants."""

import re
from typing import Literal

from msgspec.structs import force_setattr

from tillway.domain.record import Record, Value

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


def is_live(scope_key: str) -> bool:
    """Whether the scope with that key is of live mode."""
    return scope_key[-1] == "l"


def scope_of(key: str) -> Scope:
    """The scope behind its key, as `Scope.key` made it."""
    assert len(key) == SCOPE_KEY_LENGTH and key[-1] in "tl", f"not a scope key: {key!r}"
    return Scope(account=f"acct_{key[:-1]}", mode="live" if key[-1] == "l" else "test")
