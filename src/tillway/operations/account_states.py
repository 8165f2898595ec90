"""The state of a merchant's account: for answers, and for the events about its changes."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import msgspec

from tillway.domain.account import SYSTEM, Account, Scope
from tillway.domain.account_state import AccountState, AccountTask
from tillway.domain.record import NO_CHANGES, Changes, EventDraft, Moment
from tillway.engine.caller import Caller
from tillway.engine.core import Load
from tillway.engine.platform import Platform
from tillway.operations import external_accounts
from tillway.operations.accounts import MODES
from tillway.store.codec import decode
from tillway.store.port import Row


async def state_of(platform: Platform, caller: Caller, account: Account) -> AccountState:
    """The account in the mode of the caller, as it is now."""
    return AccountState(
        id=f"acs_{account.id.partition('_')[2]}",
        created=account.created,
        account=account,
        external=tuple(await external_accounts.newest_first(platform, caller)),
        ready=await platform.connections.default_name(caller.scope.mode) is not None,
        settlement_days=(await platform.engine.price(caller.scope)).settlement_days,
    )


async def tell(platform: Platform, row: Row) -> None:
    """Carry out the task of a changed account: an event in each mode. A repetition after a crash may make one again."""
    task = decode(row.key.partition("/")[2], row.body)
    assert isinstance(task, AccountTask), f"{row.key} is not the task of an account"
    for mode in MODES:
        caller = Caller.system(Scope(account=task.after.id, mode=mode), "tell of a changed account")
        after = await state_of(platform, caller, task.after)
        before = msgspec.structs.replace(after, account=task.before)
        if task.after.settlement_days != task.before.settlement_days and task.before.settlement_days is not None:
            before = msgspec.structs.replace(before, settlement_days=task.before.settlement_days)
        event = EventDraft(type="account.updated", record=after, previous=before)

        async def told(load: Load, at: Moment, event: EventDraft = event) -> Changes[None]:
            return Changes(result=None, events=(event,))

        await platform.engine.run(caller, told)

    async def end(load: Load, at: Moment) -> Changes[None]:
        found = await load.maybe(AccountTask, task.id)
        return Changes(result=None, deletes=(task.id,)) if found is not None else NO_CHANGES

    caller = Caller.system(Scope(account=task.after.id, mode="test"), "tell of a changed account")
    await platform.engine.run(msgspec.structs.replace(caller, scope_key=SYSTEM), end)
