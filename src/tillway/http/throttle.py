"""Rate limits for a merchant, a key, and a client address that fails to authenticate, in requests a second.

A bucket is one number, the time at which it will be full again (the generic cell rate algorithm). A request moves it
on by one interval, and is refused if the new time lies further ahead than the burst allows. A time in the past is the
same as no entry, so full buckets can be dropped. The processes of one server share their buckets in memory, and those
of several servers or functions share them by the store (`stored_throttle.py`).
"""

import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from tillway.domain.account import Mode
from tillway.domain.refusal import Refused
from tillway.engine.siblings import SharedTimes, Siblings
from tillway.engine.webhooks.public_hosts import is_public
from tillway.http.client_address import counted_address

BUCKETS_MAX = 20_000
"""The most buckets of one kind. Beyond that, those that have been full the longest are dropped first."""

RETRY_SECONDS_MAX = 60
"""The official SDKs wait as long as `Retry-After` says, up to a minute."""


BATCHES_PER_BURST = 8
BATCHES_PER_SECOND = 100
BATCH_MAX = 8
"""A batch is an eighth of a burst, but at most BATCH_MAX requests, or a hundredth of those of a second."""


class Rate(msgspec.Struct, frozen=True):
    """A rate of requests a second, and the burst that may come at once. 0 a second means no limit."""

    per_second: float
    burst: int
    interval: float = 0.0
    """Seconds between two requests, and how far ahead the last of a burst may lie. Computed once."""
    slack: float = 0.0
    refill_seconds: float = 0.0
    """Seconds until an empty bucket is full again."""
    batch: int = 1
    """Requests that a process counts by itself before it tells processes of other servers."""

    def __post_init__(self) -> None:
        if self.per_second:
            interval = 1 / self.per_second
            msgspec.structs.force_setattr(self, "interval", interval)
            # Rounding errors in the sum of intervals must not count as one more request.
            msgspec.structs.force_setattr(self, "slack", interval * (self.burst - 1) + interval * 1e-6)
            msgspec.structs.force_setattr(self, "refill_seconds", interval * self.burst)
            most = max(BATCH_MAX, int(self.per_second / BATCHES_PER_SECOND))
            msgspec.structs.force_setattr(self, "batch", max(1, min(self.burst // BATCHES_PER_BURST, most)))


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    test: Rate = Rate(0, 0)
    live: Rate = Rate(0, 0)
    key: Rate = Rate(0, 0)
    failures: Rate = Rate(0, 0)


class Throttled(Refused):
    """Too many requests: Refused `rate_limit`, with the whole seconds after which the next request is accepted."""

    def __init__(self, limit: str, seconds: float, message: str | None = None) -> None:
        super().__init__("rate_limit", message)
        self.limit = limit
        self.retry_after = min(max(1, -int(-seconds // 1)), RETRY_SECONDS_MAX)


class Buckets:
    """The time at which each bucket will be full again, in seconds of the same clock as `now`."""

    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}

    def take(self, name: str, rate: Rate, now: float) -> float:
        """Take one from the bucket. Return 0.0 if there was one, else the seconds until there is one."""
        full_at = self._full_at.get(name, now)
        if full_at <= now:
            if len(self._full_at) >= BUCKETS_MAX and name not in self._full_at:
                self._make_room(now)
            self._full_at[name] = now + rate.interval
            return 0.0
        wait = full_at - now - rate.slack
        if wait > 0:
            return wait
        self._full_at[name] = full_at + rate.interval
        return 0.0

    def give_back(self, name: str, rate: Rate) -> None:
        """Put one back that was taken."""
        if name in self._full_at:
            self._full_at[name] -= rate.interval

    def full_at(self, name: str, since: float) -> float:
        """The time at which the bucket will be full again, or was; `since` at the earliest."""
        return max(self._full_at.get(name, since), since)

    def raise_to(self, name: str, full_at: float) -> None:
        """Others took so many that the bucket will be full only then."""
        if full_at > self._full_at.get(name, full_at):
            self._full_at[name] = full_at

    def _make_room(self, now: float) -> None:
        kept = {name: at for name, at in self._full_at.items() if at > now}
        if len(kept) >= BUCKETS_MAX:
            # Limits by address do not stop a client that uses so many addresses at once.
            nearest = sorted(kept, key=kept.__getitem__)[: BUCKETS_MAX // 2]
            for name in nearest:
                del kept[name]
        self._full_at = kept

    def __len__(self) -> int:
        return len(self._full_at)


class SharedBuckets:
    """The same in memory that the processes of a server share. `now` must come from a clock that they share too."""

    def __init__(self, siblings: Siblings, kind: str) -> None:
        self._full_at = SharedTimes(siblings, kind)

    def take(self, name: str, rate: Rate, now: float) -> float:
        full_at = self._full_at
        slot = full_at.slot(name)
        until = full_at[slot]
        if until <= now:
            full_at[slot] = now + rate.interval
            return 0.0
        wait = until - now - rate.slack
        if wait > 0:
            return wait
        full_at[slot] = until + rate.interval
        return 0.0

    def give_back(self, name: str, rate: Rate) -> None:
        self._full_at[self._full_at.slot(name)] -= rate.interval

    def full_at(self, name: str, since: float) -> float:
        return max(self._full_at[self._full_at.slot(name)], since)

    def raise_to(self, name: str, full_at: float) -> None:
        slot = self._full_at.slot(name)
        if full_at > self._full_at[slot]:
            self._full_at[slot] = full_at


class AnyBuckets(Protocol):
    """The buckets of one kind: `Buckets`, or those that processes share."""

    def take(self, name: str, rate: Rate, now: float) -> float: ...

    def give_back(self, name: str, rate: Rate) -> None: ...

    def full_at(self, name: str, since: float) -> float: ...

    def raise_to(self, name: str, full_at: float) -> None: ...


MakeBuckets = Callable[[str], AnyBuckets]
"""Makes the buckets of one kind."""


def own_buckets(kind: str) -> AnyBuckets:
    """Buckets of this process alone."""
    return Buckets()


PAGE = Rate(2, 60)
ADDRESS = Rate(5, 120)
"""The rates at which one payer's page may be asked for, and all of them from one public address. A payer needs a dozen
requests; the address may be that of a company or a mobile network."""


class Throttle:
    def __init__(
        self, limits: Limits, now: Callable[[], float] = time.monotonic, buckets: MakeBuckets = own_buckets
    ) -> None:
        self._limits = limits
        self._now = now
        self._accounts = buckets("account")
        self._keys = buckets("key")
        self._addresses = buckets("address")
        self._pages = buckets("page")

    def count(self, scope_key: str, mode: Mode, key_id: str, own: Rate | None = None) -> None:
        """Count a request of a merchant with that key. Raises `Throttled`.

        `own` is the account's own rate, if any. It applies to the account and to each of its keys.
        """
        limits, now = self._limits, self._now()
        # A key beyond its limit must not use up the limit of the account's other keys.
        rate = own or limits.key
        if rate.per_second and (wait := self._keys.take(key_id, rate, now)):
            raise Throttled("key", wait)
        rate = own or (limits.live if mode == "live" else limits.test)
        if rate.per_second and (wait := self._accounts.take(scope_key, rate, now)):
            raise Throttled("account", wait)

    def count_page(self, page: str | None, address: str | None) -> None:
        """Count a request for a payer's page; None for one that all payers share. Raises `Throttled`.

        An address that is not public may be a proxy's: it has no limit.
        """
        now = self._now()
        if page is not None and (wait := self._pages.take(page, PAGE, now)):
            raise Throttled("page", wait)
        if address and is_public(address) and (wait := self._pages.take(counted_address(address), ADDRESS, now)):
            raise Throttled("page", wait)

    def count_failure(self, address: str | None) -> None:
        """Count a request from that address that failed to authenticate, or that could not be read.

        Raises `Throttled` if too many did recently. A request that authenticates never comes here: behind a proxy or a
        NAT, all callers share one address, and one of them must not lock the others out.
        """
        rate = self._limits.failures
        if rate.per_second and address and (wait := self._addresses.take(counted_address(address), rate, self._now())):
            raise Throttled("address", wait)
