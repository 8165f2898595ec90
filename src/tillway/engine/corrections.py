"""Notifications of change: a recipient's or payer's bank says how to name the account from now on.

The saved account is changed, so that the next payout or debit uses the new data, and the merchant hears of it by an
event. Payouts and payments that are under way keep the account that they were made with.
"""

import logging
from typing import Any

import msgspec

from tillway.connectors.file_port import Correction
from tillway.domain import external_account, payment_method
from tillway.domain.account import Scope
from tillway.domain.cards import Secret
from tillway.domain.external_account import ExternalAccount, check_bank_account
from tillway.domain.payment_file import FiledOperation
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.payout import Payout
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.card_vault import CardVault
from tillway.engine.core import Engine, Load
from tillway.engine.recipients import seal, unseal

log = logging.getLogger(__name__)


async def correct(
    engine: Engine, vault: CardVault, scope: Scope, filed: FiledOperation, correction: Correction, code: str
) -> None:
    """Apply a notification of change with that code to the account behind a filed operation. One that is repeated, or
    about an account that has been deleted, changes nothing; one that names no valid account is logged."""

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        if filed.method is not None:
            changes = await _correct_method(vault, load, filed.method, correction, at)
        else:
            changes = await _correct_recipient(vault, load, filed.subject, correction, at)
        return changes if changes is NO_CHANGES else msgspec.structs.replace(changes, detail={"code": code})

    caller = Caller.system(scope, "notification of change", actor=f"notice:{filed.connector}")
    try:
        await engine.run(caller, work)
    except Refused as refused:
        if refused.code not in ("account_number_invalid", "routing_number_invalid"):
            raise
        log.error(
            "a notification of change names no valid account",
            extra={"connector": filed.connector, "trace": filed.trace, "code": code, "why": refused.code},
        )


async def _correct_recipient(
    vault: CardVault, load: Load, id: str, correction: Correction, at: Moment
) -> Changes[Record | None]:
    sent_out = await load.maybe(Payout, id)
    account = await load.maybe(ExternalAccount, sent_out.destination) if sent_out is not None else None
    contents = await unseal(vault, load.scope_key, account.vault) if account is not None else None
    if account is None or contents is None:
        return NO_CHANGES
    number, routing = check_bank_account(
        correction.account_number or contents.number.reveal(),
        correction.routing_number or contents.routing,
        account.country,
    )
    name = correction.name or contents.name
    after = msgspec.structs.replace(
        account,
        last4=number[-4:],
        fingerprint=vault.vault.fingerprint(load.scope_key, Secret(f"{routing or ''}/{number}")),
        routing_number=routing,
        holder_name=correction.name or account.holder_name,
        account_type=correction.account_type or account.account_type,
    )
    if after == account:
        return NO_CHANGES
    sealed = seal(
        vault,
        load.scope_key,
        msgspec.structs.replace(contents, number=Secret(number), routing=routing, name=name),
        at,
    )
    return external_account.correct(account, msgspec.structs.replace(after, vault=sealed.id), sealed)


async def _correct_method(
    vault: CardVault, load: Load, id: str, correction: Correction, at: Moment
) -> Changes[Record | None]:
    method = await load.maybe(PaymentMethod, id)
    bank = method.bank if method is not None else None
    account = await vault.open_account(load.scope_key, method) if method is not None else None
    if method is None or bank is None or account is None or bank.alias is not None:
        return NO_CHANGES
    given: dict[str, Any] = {
        "account_number": correction.account_number or account.number,
        "routing_number": correction.routing_number or account.routing_number,
        "account_holder_type": account.account_holder_type,
        "account_type": correction.account_type or account.account_type,
    }
    facts, sealed = vault.take_in_account(load.scope_key, method.type, given, at, param=method.type)
    details = {**method.billing_details, **({"name": correction.name} if correction.name else {})}
    same = msgspec.structs.replace(facts, vault=bank.vault) == bank
    if same and details == method.billing_details:
        return NO_CHANGES
    return payment_method.correct(method, facts, details, sealed)
