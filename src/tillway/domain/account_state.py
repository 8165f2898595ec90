"""A merchant's account as `/v1` shows it, and the tasks that tell of its changes."""

from tillway.domain.account import Account
from tillway.domain.external_account import ExternalAccount
from tillway.domain.record import Record


class AccountState(Record, frozen=True, kw_only=True):
    """An account at one moment in one mode, with its external accounts, newest first. `ready`: it can take payments.
    Only events and answers hold it."""

    account: Account
    external: tuple[ExternalAccount, ...] = ()
    ready: bool = False
    settlement_days: int = 0


class AccountTask(Record, frozen=True, kw_only=True):
    """A task: tell the merchant in both modes that the account has changed from `before` to `after`. It is born in the
    commit of the change, in the scope of the installation."""

    before: Account
    after: Account
    due_at_ms: int


def changed_task(before: Account, after: Account, id: str, now_ms: int) -> AccountTask:
    return AccountTask(id=id, created=now_ms // 1000, before=before, after=after, due_at_ms=now_ms)
