"""Notes when each credential was last used: for those who decide which key is needed no more.

Requests only put the time into memory. A loop beside them writes it down, at most once a minute for each credential, so
no payment's commit grows and none waits for it.
"""

import logging
from typing import Final

from tillway.domain.account import SYSTEM
from tillway.domain.key_use import KeyUse, use_id
from tillway.engine.repeating import Repeating
from tillway.store.codec import decode, write_of
from tillway.store.port import ABSENT, CommitUnknown, Conflict, Store, Unavailable

log = logging.getLogger(__name__)

WRITE_EVERY_SECONDS: Final = 60
"""How old the time in the store may be, at most, while a credential is in use, and until the next look."""

LOOK_EVERY_SECONDS: Final = 60
KEYS_MAX: Final = 10_000
"""Credentials in memory; uses of others are not noted until the next look."""


class KeyUses:
    """The uses that one process has seen. From `start` to `close` they are written down."""

    def __init__(self, store: Store, write_every_seconds: int = WRITE_EVERY_SECONDS) -> None:
        self._store = store
        self._write_every_seconds = write_every_seconds
        self._seen: dict[str, int] = {}
        self._written: dict[str, int] = {}
        self._loop = Repeating("uses of keys", self.write, LOOK_EVERY_SECONDS)

    def note(self, credential: str, now: float) -> None:
        """The credential of that id was used at `now` (epoch seconds)."""
        if credential in self._seen or len(self._seen) < KEYS_MAX:
            self._seen[credential] = int(now)

    def start(self) -> None:
        self._loop.start()

    async def close(self) -> None:
        """Write the last uses and stop."""
        await self._loop.stop()
        await self.write()

    async def write(self) -> None:
        """Write the uses with a stored time that is too old. One that cannot be written is tried at the next look."""
        seen, self._seen = self._seen, {}
        for credential, at in seen.items():
            if at - self._written.get(credential, 0) < self._write_every_seconds:
                continue
            try:
                await self._write(credential, at)
            except (Conflict, CommitUnknown, Unavailable) as failed:
                log.info("the last use of a key was not written", extra={"key": credential, "why": str(failed)})
        if len(self._written) > KEYS_MAX:
            self._written.clear()

    async def _write(self, credential: str, at: int) -> None:
        id = use_id(credential)
        row = await self._store.get(f"{SYSTEM}/{id}")
        held = decode(id, row.body) if row is not None else None
        if isinstance(held, KeyUse) and at - held.last_used_at < self._write_every_seconds:
            self._written[credential] = held.last_used_at
            return
        use = KeyUse(id=id, created=held.created if held is not None else at, last_used_at=at)
        await self._store.commit([write_of(SYSTEM, use, row.version if row is not None else ABSENT)])
        self._written[credential] = at
