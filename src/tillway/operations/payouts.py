"""Payouts: find the recipient, check the balance, and send the money in the background."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from typing import NoReturn

import msgspec

from tillway.domain import payout
from tillway.domain.amount_limits import check_steps
from tillway.domain.attempt import Attempt
from tillway.domain.commands import CreatePayout, UpdatePayout
from tillway.domain.external_account import ExternalAccount, account_form, choose, default_of
from tillway.domain.payout import Payout, PayoutGuard, Recipient, RecipientType
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.domain.source_api import SourceApi
from tillway.engine.attempts import Connection
from tillway.engine.balance import available_and_pending, fold
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.engine.recipients import seal, unseal
from tillway.operations import test_bank_accounts
from tillway.operations.external_accounts import accounts_of
from tillway.operations.funds import reachable_now
from tillway.vault.port import AccountContents


async def create(
    platform: Platform, caller: Caller, command: CreatePayout, *, recipient: Recipient | None = None
) -> Done[Payout]:
    """Commit a payout, its entry and the attempt that will send it. The answer is a pending payout, or a refusal.

    `recipient` gets the money by e-mail; without one it goes to an external account. A payout of `/v1` waits for
    `payout_delay_ms`, in which it can be cancelled.
    """
    delay_ms = platform.engine.settings.payout_delay_ms if command.source_api is SourceApi.v1 else 0
    currency = command.currency

    async def work(load: Load, at: Moment) -> Changes[Payout]:
        to, destination, form = recipient, None, None
        sealed: tuple[Record, ...] = ()
        if to is None:
            to, account, sealed = await _recipient_of_saved_account(platform, load, command, at)
            destination, form = account.id, account_form(account)
        connection = await platform.connections.for_payout(caller.scope, to.type, currency, form)
        check_can_pay_out(connection, to.type)
        check_steps(connection.connector.capabilities.steps, connection.name, command.amount_minor, currency)
        guard = await load.maybe(PayoutGuard, payout.guard_id(currency))
        available_minor, reachable_minor = 0, 0
        if command.funding == "balance":
            # The balance is read after the guard: every later withdrawal changes the guard, and this commit conflicts.
            now = max(at.now, guard.latest if guard is not None else 0)
            folded = await fold(platform.engine, load.scope_key)
            available_minor = available_and_pending(folded, now)[0].get(currency, 0)
            reachable_minor = await reachable_now(
                load, folded.accounts, connection.name, currency, command.amount_minor
            )
        changes = payout.create(
            command,
            at,
            recipient=to,
            destination=destination,
            connector=connection.name,
            available_minor=available_minor,
            reachable_minor=reachable_minor,
            drawn_on="bank" if connection.connector.capabilities.by_file else "provider",
            guard=guard,
            delay_ms=delay_ms,
        )
        return msgspec.structs.replace(changes, records=(*changes.records, *sealed))

    if command.funding == "provider":
        return await platform.engine.run(caller, work)
    async with platform.locks.at(f"{caller.scope_key}/{payout.guard_id(currency)}"):
        return await platform.engine.run(caller, work)


def check_can_pay_out(connection: Connection, recipient: RecipientType | None) -> None:
    """Raise `Refused` connector_unsupported if the connector pays out nothing, or nothing to such a recipient."""
    capabilities = connection.connector.capabilities
    if "payout" not in capabilities.operations:
        raise Refused(
            "connector_unsupported", f"The connector {connection.name!r} cannot pay out. Configure one that can."
        )
    if recipient is not None and recipient not in capabilities.recipients:
        takes = " or ".join(sorted(capabilities.recipients)).replace("_", " ")
        raise Refused(
            "connector_unsupported",
            f"The connector {connection.name!r} pays out to a recipient of type {takes} only, and this one is of type "
            f"{recipient.replace('_', ' ')}. Choose another destination, or configure another connector.",
            param="destination",
        )


async def update(platform: Platform, caller: Caller, id: str, command: UpdatePayout) -> Done[Payout]:
    """Change a payout's metadata."""

    async def work(load: Load, at: Moment) -> Changes[Payout]:
        return payout.update(await load.get(Payout, id), command)

    return await platform.engine.run(caller, work)


async def cancel(platform: Platform, caller: Caller, id: str) -> Done[Payout]:
    """Cancel a payout that has not been sent yet."""

    async def work(load: Load, at: Moment) -> Changes[Payout]:
        found = await load.get(Payout, id)
        return payout.cancel(found, await load.maybe(Attempt, found.attempt), at)

    return await platform.engine.run(caller, work)


async def reverse(platform: Platform, caller: Caller, id: str) -> NoReturn:
    """Refuse to reverse a payout."""
    payout.reverse(await platform.engine.load(caller.scope_key).get(Payout, id))


async def _recipient_of_saved_account(
    platform: Platform, load: Load, command: CreatePayout, at: Moment
) -> tuple[Recipient, ExternalAccount, tuple[Record, ...]]:
    """The recipient behind a saved account, with this payout's own sealed copy of the number: the payout can still be
    sent after the account is deleted, and the copy is deleted when it has settled."""
    named: ExternalAccount | None = None
    saved: list[ExternalAccount] = []
    if command.destination is not None:
        made = await test_bank_accounts.of_id(platform, load, command.destination, at)
        if made is None:
            named = await load.get(ExternalAccount, command.destination, "destination", "external account")
        else:
            named = made.account
    else:
        saved = await accounts_of(load)
        made = None
        if default_of(saved, command.currency) is None:
            made = await test_bank_accounts.of_currency(platform, load, command.currency, at)
            named = made.account if made is not None else None
    account = choose(named, saved, command.currency, command.method)
    if account.type == "email":
        return Recipient(type="email", email=account.email, name=account.holder_name), account, ()
    if made is not None:
        contents: AccountContents | None = made.contents
    else:
        contents = await unseal(platform.cards, load.scope_key, account.vault)
    if contents is None:
        raise Refused("resource_missing", f"No such external account: '{account.id}'", param="destination")
    sealed = seal(platform.cards, load.scope_key, contents, at)
    to = Recipient(
        type=account.type, vault=sealed.id, holder_type=account.holder_type, account_type=account.account_type
    )
    return to, account, (sealed,) if made is None else (sealed, made.account, made.sealed)
