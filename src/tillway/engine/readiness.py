"""Readiness: whether this process could take a payment now, and if not, why.

The checks run when a caller asks, at most once a second, and callers that ask together share one round. One of them is
a commit, because only a write tells that the store takes writes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from tillway.engine.core import Engine
from tillway.store.port import StorageFull, StorageReadOnly, Unavailable

log = logging.getLogger(__name__)

ANSWER_KEPT_SECONDS: Final = 1.0
CHECK_SECONDS_MAX: Final = 5.0
"""How long the store may take over its check."""

REFUSED_SECONDS: Final = 5.0
"""How long a full store counts as full after it refused a commit: a small one may succeed where a payment's fails."""


class Trouble(msgspec.Struct, frozen=True):
    """A reason why no payment can be taken. Both fields are shown to anyone, so they hold no secrets and no paths."""

    code: str
    reason: str


Check = Callable[[], Awaitable[Trouble | None]]

STORAGE_FULL: Final = Trouble("storage_full", "the disk of the store is full, or nearly so")
STORAGE_READ_ONLY: Final = Trouble("storage_read_only", "the store takes no writes")
STORAGE_UNAVAILABLE: Final = Trouble("storage_unavailable", "the store does not answer")


class Readiness:
    """`checks` run in their order. Without checks, a process is always ready."""

    def __init__(self, checks: Sequence[Check] = ()) -> None:
        self._checks = checks
        self._asking = asyncio.Lock()
        self._known_until = -1.0
        self._troubles: tuple[Trouble, ...] = ()

    async def troubles(self) -> tuple[Trouble, ...]:
        """Every reason why no payment can be taken now; empty if one can. At most ANSWER_KEPT_SECONDS old."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() >= self._known_until:
                found = [await check() for check in self._checks]
                self._tell(tuple(dict.fromkeys(trouble for trouble in found if trouble is not None)))
                self._known_until = loop.time() + ANSWER_KEPT_SECONDS
        return self._troubles

    def _tell(self, troubles: tuple[Trouble, ...]) -> None:
        """Keep the answer, and log it if it is another than before."""
        if troubles and troubles != self._troubles:
            log.error("this server is not ready", extra={"why": "; ".join(trouble.reason for trouble in troubles)})
        elif self._troubles and not troubles:
            log.warning("this server is ready again")
        self._troubles = troubles


def check_store(engine: Engine) -> Check:
    """Check that the store takes a commit: the mark of time, which is raised anyway."""

    async def check() -> Trouble | None:
        try:
            async with asyncio.timeout(CHECK_SECONDS_MAX):
                await engine.time.refresh(anyway=True)
        except StorageFull:
            return STORAGE_FULL
        except StorageReadOnly:
            return STORAGE_READ_ONLY
        except (Unavailable, TimeoutError):
            return STORAGE_UNAVAILABLE
        except Exception:
            log.exception("the store could not be checked")
            return STORAGE_UNAVAILABLE
        since_ns = engine.clock.monotonic_ns() - engine.full_at_ns if engine.full_at_ns is not None else None
        return STORAGE_FULL if since_ns is not None and since_ns < REFUSED_SECONDS * 1e9 else None

    return check


def check_restore(engine: Engine) -> Check:
    """Check that the store was not put back: until the recovery, payouts and repeats wait."""

    async def check() -> Trouble | None:
        why = engine.restores.reason
        return Trouble("recovering", f"recovering: {why}; `tillway recover` ends this") if why else None

    return check


def check_clock(engine: Engine) -> Check:
    """Check that the clock can be trusted. It goes after `check_store`, which reads the store's mark."""

    async def check() -> Trouble | None:
        return Trouble("clock_off", engine.time.trouble) if engine.time.trouble else None

    return check
