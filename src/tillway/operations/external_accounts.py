"""The external accounts that a merchant's payouts go to. Every change writes their currency's guard, so a currency with
accounts always has exactly one default."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from typing import Any

import msgspec

from tillway.domain import external_account as domain
from tillway.domain.account import SYSTEM, Account
from tillway.domain.commands import CreateExternalAccount, UpdateExternalAccount
from tillway.domain.external_account import ACCOUNTS_MAX, DeletedAccount, ExternalAccount
from tillway.domain.payment_method import Token, redeem
from tillway.domain.payout import PayoutGuard, guard_id, move_guard
from tillway.domain.record import NO_CHANGES, Changes, Moment, merged_metadata
from tillway.domain.refusal import Refused
from tillway.engine import recipients
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations import test_bank_accounts
from tillway.store.codec import decode


async def accounts_of(load: Load) -> list[ExternalAccount]:
    """All external accounts of the scope, oldest first, each at the version that the commit will check."""
    rows = await load.store.query(None, f"{load.scope_key}/ba_", limit=ACCOUNTS_MAX + 1, order="oldest")
    found = []
    for row in rows:
        id = row.key.partition("/")[2]
        account = decode(id, row.body)
        assert isinstance(account, ExternalAccount)
        load.seen[id] = (row.version, account)
        found.append(account)
    return found


async def create(platform: Platform, caller: Caller, command: CreateExternalAccount) -> Done[ExternalAccount]:
    """Save an external account."""
    given = command.account

    async def work(load: Load, at: Moment) -> Changes[ExternalAccount]:
        account, made = await _build_account(platform, load, given, await _currency(platform, caller, given), at)
        account = msgspec.structs.replace(account, metadata=merged_metadata({}, command.metadata))
        guard = await load.maybe(PayoutGuard, guard_id(account.currency))
        others = await accounts_of(load)
        kept = domain.create(account, others, default=command.default, twins=command.twins, at=at)
        return made.then(kept).then(_with_guard(guard, account.currency, at))

    return await platform.engine.run(caller, work)


async def provided(platform: Platform, caller: Caller) -> list[ExternalAccount]:
    """The test bank accounts of the merchant that are not stored."""
    saved = await accounts_of(platform.engine.load(caller.scope_key))
    return await test_bank_accounts.listed(platform, caller.scope_key, saved)


async def newest_first(platform: Platform, caller: Caller) -> list[ExternalAccount]:
    """Every external account, newest first, and then the test bank accounts that are not stored."""
    saved = await accounts_of(platform.engine.load(caller.scope_key))
    return [*reversed(saved), *await test_bank_accounts.listed(platform, caller.scope_key, saved)]


async def retrieve(platform: Platform, caller: Caller, id: str) -> ExternalAccount:
    """The external account of that id."""
    load = platform.engine.load(caller.scope_key)
    made = await test_bank_accounts.of_id(platform, load, id, platform.engine.clock.moment())
    return made.account if made else await load.get(ExternalAccount, id, noun="external account")


async def update(platform: Platform, caller: Caller, id: str, command: UpdateExternalAccount) -> Done[ExternalAccount]:
    """Change the holder's name and type, the metadata, or the default of the currency."""

    async def work(load: Load, at: Moment) -> Changes[ExternalAccount]:
        made = await test_bank_accounts.of_id(platform, load, id, at)
        account = made.account if made else await load.get(ExternalAccount, id, noun="external account")
        guard = await load.maybe(PayoutGuard, guard_id(account.currency))
        changes = domain.update(account, await accounts_of(load), command)
        if not changes.records:
            return changes
        if made is not None:
            changes = changes.then(Changes(result=None, records=(made.sealed,)))
        return changes.then(_with_guard(guard, account.currency, at))

    return await platform.engine.run(caller, work)


async def delete(platform: Platform, caller: Caller, id: str) -> Done[DeletedAccount]:
    async def work(load: Load, at: Moment) -> Changes[DeletedAccount]:
        if await test_bank_accounts.of_id(platform, load, id, at) is not None:
            raise Refused(
                "external_account_default", "A merchant keeps this account in test mode until it adds one of its own."
            )
        account = await load.get(ExternalAccount, id, noun="external account")
        guard = await load.maybe(PayoutGuard, guard_id(account.currency))
        changes = domain.delete(account, await accounts_of(load))
        return changes.then(_with_guard(guard, account.currency, at))

    return await platform.engine.run(caller, work)


def _with_guard(guard: PayoutGuard | None, currency: str, at: Moment) -> Changes[None]:
    return Changes(result=None, records=(move_guard(guard, currency, at),))


async def _currency(platform: Platform, caller: Caller, given: dict[str, Any] | str) -> str:
    """The currency of the request, by default the merchant's own."""
    named = given.get("currency") if isinstance(given, dict) else None
    if named is not None:
        return str(named)
    account = await platform.engine.load(SYSTEM).maybe(Account, caller.scope.account)
    return account.default_currency if account is not None else "usd"


async def _build_account(
    platform: Platform, load: Load, given: dict[str, Any] | str, currency: str, at: Moment
) -> tuple[ExternalAccount, Changes[None]]:
    """The account in `given`, and the writes that it needs besides itself."""
    scope_key = load.scope_key
    if isinstance(given, str):
        return await _of_token(platform, load, given, currency, at)
    match given["object"]:
        case "bank_account":
            account, sealed = recipients.bank_account(platform.cards, scope_key, given, currency, at)
        case "card":
            account, sealed = recipients.card(platform.cards, scope_key, given, currency, at)
        case _:
            account = ExternalAccount(
                id=at.new_id("ba"),
                created=at.created,
                type="email",
                currency=currency,
                email=given["email"],
                holder_name=given.get("account_holder_name"),
            )
            return account, NO_CHANGES
    return account, Changes(result=None, records=(sealed,))


async def _of_token(
    platform: Platform, load: Load, id: str, currency: str, at: Moment
) -> tuple[ExternalAccount, Changes[None]]:
    """The card behind a token, which is then used up; a public test token never is."""
    facts = platform.cards.of_alias(load.scope_key, id, at) if id.startswith("tok_") else None
    if facts is not None:
        token = Token(id=id, created=at.created, card=facts, card_id=f"card_{id.removeprefix('tok_')}")
        account, sealed = await recipients.card_of_token(platform.cards, load.scope_key, token, currency, at)
        return account, Changes(result=None, records=(sealed,))
    token = await load.get(Token, id, "external_account", "token")
    used, _ = redeem(token, at)
    account, sealed = await recipients.card_of_token(platform.cards, load.scope_key, token, currency, at)
    gone = tuple(name for name in (token.card.vault, token.card.cvc) if name is not None)
    return account, Changes(result=None, records=(used, sealed), deletes=gone)


def refuse_other(caller: Caller, account: str) -> None:
    """Refuse another account: a merchant reaches only its own."""
    if account != caller.scope.account:
        raise Refused("resource_missing", f"No such account: '{account[:100]}'", param="account")
