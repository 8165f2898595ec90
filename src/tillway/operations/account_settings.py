"""The settings of merchants' accounts, and their disabling and deletion by an operator.

The account is a record of the installation, so each change is one entry of the installation's audit trail. It is in
force within two seconds on every process (`engine/accounts.py`).
"""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tillway.domain import account as accounts
from tillway.domain.account import NAME_MAX, SETTLEMENT_DAYS_MAX, SYSTEM, WEBSITE_MAX, Account, Scope, is_colour
from tillway.domain.account_state import AccountTask, changed_task
from tillway.domain.alias import Alias, alias_id
from tillway.domain.api_key import ApiKey
from tillway.domain.charge import STATEMENT_DESCRIPTOR_MAX, descriptor_fault
from tillway.domain.country import COUNTRIES
from tillway.domain.credentials import OAuthClient
from tillway.domain.ledger import Fee
from tillway.domain.money import BASIS_POINTS, check_currency
from tillway.domain.origins import ORIGINS_MAX, OriginUnfit, parse_origin
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.engine.audit.entries import task_write
from tillway.engine.balance import Ledger, fold
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.engine.time_zones import zone_named
from tillway.operations import key_requests
from tillway.operations.accounts import MODES, new_account
from tillway.store.codec import decode
from tillway.store.port import Conflict, Store
from tillway.store.walk import versions_of

FEE_FIXED_MAX = 1_000_000
"""The largest fixed part of a fee, in minor units."""

Decision = Callable[[Account, Moment], Account]


def read_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check settings, and return them as fields of an account; None and "" put one back to its default.

    `fee` is an object of `rate_bps` and `fixed_minor`. Raises `Refused` with the name of the wrong one.
    """
    return {name: _READ[name](value) if value not in (None, "", []) else None for name, value in given.items()}


def _wrong(param: str, why: str) -> Refused:
    return Refused("parameter_invalid_string", why, param=param)


def _name(value: str) -> str:
    if not value.strip() or len(value) > NAME_MAX:
        raise _wrong("name", f"The name has 1 to {NAME_MAX} characters.")
    return value.strip()


def _colour(value: str) -> str:
    if not is_colour(value.lower()):
        raise _wrong("brand_colour", "A colour is # and six hexadecimal digits, such as #2f4f3a.")
    return value.lower()


def _country(value: str) -> str:
    if value.upper() not in COUNTRIES:
        raise _wrong("country", "A country is a two-letter code of ISO 3166-1, such as DE or US.")
    return value.upper()


def _descriptor(value: str) -> str:
    fault = descriptor_fault(value)
    if len(value) > STATEMENT_DESCRIPTOR_MAX:
        fault = f"The statement descriptor has at most {STATEMENT_DESCRIPTOR_MAX} characters."
    if fault:
        raise _wrong("statement_descriptor", fault)
    return value


def _fee(value: Mapping[str, int]) -> Fee:
    rate, fixed = value.get("rate_bps", 0), value.get("fixed_minor", 0)
    if not (0 <= rate <= BASIS_POINTS and 0 <= fixed <= FEE_FIXED_MAX):
        raise Refused(
            "parameter_invalid_integer",
            f"A fee has a rate_bps of 0 to {BASIS_POINTS} hundredths of a percent and a fixed_minor of 0 to "
            f"{FEE_FIXED_MAX} minor units.",
            param="fee",
        )
    return Fee(rate_bps=rate, fixed_minor=fixed)


def _days(value: int) -> int:
    if not 0 <= value <= SETTLEMENT_DAYS_MAX:
        raise Refused(
            "parameter_invalid_integer",
            f"The money of a charge becomes available after 0 to {SETTLEMENT_DAYS_MAX} days.",
            param="settlement_days",
        )
    return value


def _zone(value: str) -> str:
    zone_named(value)
    return value


def _origins(value: list[str]) -> tuple[str, ...]:
    if len(value) > ORIGINS_MAX:
        raise Refused("parameter_invalid_array", f"An account has at most {ORIGINS_MAX} origins.", param="origins")
    try:
        return tuple(dict.fromkeys(parse_origin(each, livemode=True) for each in value))
    except OriginUnfit as unfit:
        raise _wrong("origins", str(unfit)) from None


def _website(value: str) -> str:
    wrong = _wrong(
        "website", f"A website is an address of at most {WEBSITE_MAX} characters, such as https://shop.example."
    )
    if len(value) > WEBSITE_MAX or not value.isprintable() or any(sign in value for sign in " \\@"):
        raise wrong
    try:
        parts = urlsplit(value)
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise wrong
    return value


_READ: dict[str, Callable[[Any], Any]] = {
    "brand_colour": _colour,
    "country": _country,
    "default_currency": lambda value: check_currency(value, "default_currency"),
    "fee": _fee,
    "name": _name,
    "origins": _origins,
    "settlement_days": _days,
    "statement_descriptor": _descriptor,
    "time_zone": _zone,
    "website": _website,
}

assert _READ.keys() == set(accounts.SETTINGS)


def describe(account: Account) -> dict[str, Any]:
    """An account for operators, with its settings as `read_settings` takes them."""
    fee = account.fee
    return {
        "id": account.id,
        "object": "merchant",
        "brand_colour": account.brand_colour or None,
        "country": account.country,
        "created": account.created,
        "default_currency": account.default_currency,
        "deleted_at": account.deleted_at,
        "disabled_at": account.disabled_at,
        "fee": {"fixed_minor": fee.fixed_minor, "rate_bps": fee.rate_bps} if fee is not None else None,
        "handle": account.handle or None,
        "name": account.name or None,
        "origins": list(account.origins),
        "settlement_days": account.settlement_days,
        "statement_descriptor": account.statement_descriptor or None,
        "status": account.status,
        "time_zone": account.time_zone,
        "website": account.website or None,
    }


async def refuse_unless_settled(ledger: Ledger, account: Account) -> None:
    """Raise Refused `account_in_use` while the merchant has live money, or live money is on its way: deletion waits."""
    scope_key = Scope(account=account.id, mode="live").key
    folded = await fold(ledger, scope_key)
    owed = sorted(
        place for place, amount in folded.accounts.items() if amount and place.partition("/")[0] in _TO_BE_SETTLED
    )
    if owed:
        name, _, currency = owed[0].partition("/")
        raise Refused(
            "account_in_use",
            f"{account.id} has money in its live books ({name}, {currency}). Pay it out, end what is "
            "open, and delete the account then.",
        )
    if await ledger.store.query(None, f"{scope_key}/att_", limit=1):
        raise Refused("account_in_use", f"{account.id} has operations at providers whose outcome is open. Wait for it.")


_TO_BE_SETTLED = frozenset(("merchant", "refunds", "disputes", "payouts", "credits"))
"""Accounts of the ledger that hold debts to the merchant, to its payers or to a bank."""


async def belongings_of(store: Store, account: Account) -> list[tuple[int, Record]]:
    """The belongings of a deleted account: valid keys and clients, and its handle, each with its version."""
    found: list[tuple[int, Record]] = []
    async for key, version in versions_of(store, SYSTEM, ApiKey):
        if key.account == account.id and key.revoked_at is None:
            found.append((version, key))
    async for client, version in versions_of(store, SYSTEM, OAuthClient):
        if client.account == account.id and client.revoked_at is None:
            found.append((version, client))
    id = alias_id("handle", account.handle)
    row = await store.get(f"{SYSTEM}/{id}") if account.handle else None
    if row is not None:
        found.append((row.version, decode(id, row.body)))
    return found


def ended(record: Record, at: Moment) -> Record | None:
    """A belonging of an account from its deletion on; None: it is no more."""
    if isinstance(record, ApiKey | OAuthClient):
        return msgspec.structs.replace(record, revoked_at=at.now)
    assert isinstance(record, Alias), f"{record.id} belongs to no account"
    return None


async def create(platform: Platform, caller: Caller, fields: Mapping[str, Any]) -> Account:
    """Make a merchant's account without keys, with these settings, as `read_settings` returns them.

    Refused `operator_forbidden` unless the caller works for every merchant. A repetition under the caller's
    Idempotency-Key returns the account that was made; Refused `idempotency_key_reused` for other settings.
    """
    if not caller.whole_installation:
        raise Refused("operator_forbidden", "Only an admin of the whole installation may do this.")
    place, made = f"{SYSTEM}/{caller.actor}", list[Account]()

    async def work(load: Load, at: Moment) -> Changes[None]:
        before = await key_requests.made_before(load, caller, place, at)
        if before is not None:
            made.append(await load.get(Account, before))
            return Changes(result=None)
        account = accounts.change_settings(new_account(created=at.created), fields)
        made.append(account)
        return Changes(result=None, records=(account, *key_requests.marks(caller, place, account.id, at)))

    await platform.engine.run(msgspec.structs.replace(caller, scope_key=SYSTEM, idempotency=None), work)
    for mode in MODES:
        try:
            await platform.store.commit(
                [task_write(Scope(account=made[-1].id, mode=mode).key, made[-1].created * 1000)]
            )
        except Conflict:
            continue  # A request before this one has made it.
    return made[-1]


async def alter(platform: Platform, caller: Caller, id: str, decide: Decision, *, reason: str = "") -> Done[Account]:
    """Change an account by a decision of `domain/account.py`, in one commit with its belongings where it ends.

    Refused `resource_missing` where the operator works for no such merchant, and as the decision refuses.
    """

    async def work(load: Load, at: Moment) -> Changes[Account]:
        before = await find(load, caller, id)
        after = decide(before, at)
        if after == before:
            return Changes(result=before)
        if after.deleted_at is None:
            return Changes(result=after, records=(after,), tasks=tasks_of(before, after, at))
        await refuse_unless_settled(platform.engine, before)
        kept: list[Record] = [after]
        gone: list[str] = []
        for version, belonging in await belongings_of(platform.store, before):
            load.seen[belonging.id] = (version, belonging)
            later = ended(belonging, at)
            kept += [later] if later is not None else []
            gone += [belonging.id] if later is None else []
        return Changes(result=after, records=tuple(kept), deletes=tuple(gone))

    by = msgspec.structs.replace(caller, scope_key=SYSTEM, idempotency=None, reason=reason)
    done = await platform.engine.run(by, work)
    platform.authenticator.forget()
    return done


def tasks_of(before: Account, after: Account, at: Moment) -> tuple[AccountTask, ...]:
    """The task that tells the merchant of changed settings, if they have changed."""
    if all(getattr(before, name) == getattr(after, name) for name in accounts.SETTINGS):
        return ()
    return (changed_task(before, after, at.new_id("acst"), at.now_ms),)


async def find(load: Load, caller: Caller, id: str) -> Account:
    """The account, for an operator who works for it. Refused `resource_missing`, as for one that never was."""
    found = await load.get(Account, id, noun="account")
    if caller.works_for is not None and id not in caller.works_for:
        raise Refused("resource_missing", f"No such account: '{id[:100]}'", param="id")
    return found
