"""The accounts of merchants as this process knows them: each at most two seconds old, read when it is needed."""

from typing import Final

import msgspec

from tillway.domain.account import SYSTEM, Account
from tillway.domain.ledger import Fee
from tillway.engine.clock import Clock
from tillway.store.codec import decode
from tillway.store.port import Store

CACHE_SECONDS: Final = 2
"""How soon a change of an account by another process counts here."""

ACCOUNTS_MAX: Final = 10_000


class Price(msgspec.Struct, frozen=True):
    """A merchant's terms of a charge. `descriptor` is the text on a payer's statement if the payment has none."""

    fee: Fee
    settlement_days: int
    descriptor: str | None


class Accounts:
    """Accounts by id, each with the time on the monotonic clock until which it is known."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[str, tuple[int, Account | None]] = {}

    async def get(self, id: str) -> Account | None:
        """The account of that id as it was at most CACHE_SECONDS ago; None if there is none. Raises `Unavailable`."""
        known = self.fresh(id)
        if known is not None:
            return known[1]
        until_ns = self._until_ns()
        row = await self._store.get(f"{SYSTEM}/{id}")
        record = decode(id, row.body) if row is not None else None
        account = record if isinstance(record, Account) else None
        if len(self._known) >= ACCOUNTS_MAX:
            self._known.clear()
        self._known[id] = (until_ns, account)
        return account

    def fresh(self, id: str) -> tuple[int, Account | None] | None:
        """The account as it is known here, if `get` would read nothing; None if it would."""
        known = self._known.get(id)
        return known if known is not None and known[0] > self._clock.monotonic_ns() else None

    def held(self, id: str) -> tuple[int, Account | None] | None:
        """The account as it is known here, for `renew`."""
        return self._known.get(id)

    def renew(self, id: str, held: tuple[int, Account | None], account: Account) -> None:
        """Note an account that was read ahead of time, unless `held` was forgotten or read anew meanwhile."""
        if self._known.get(id) is held:
            self._known[id] = (self._until_ns(), account)

    def forget(self) -> None:
        """Read every account again, after this process has changed one."""
        self._known.clear()

    def _until_ns(self) -> int:
        return self._clock.monotonic_ns() + CACHE_SECONDS * 1_000_000_000
