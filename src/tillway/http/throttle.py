"""How many requests a second a merchant, a key, and an address whose keys fail may make.

A bucket is one number, the time at which it will be full again (the generic cell rate algorithm): a request moves it
one interval on, and is refused where it would lie further ahead than the burst allows. What lies in the past is the
same as no entry at all, so that full buckets can be forgotten. Buckets are this process's own: of N processes each
lets through as much.
"""

import ipaddress
import time
from collections.abc import Callable

import msgspec

from tillway.domain.account import Mode
from tillway.domain.refusal import Refused

BUCKETS_MAX = 20_000
"""Most buckets of one kind. Beyond that, those that have been full the longest go first."""

RETRY_SECONDS_MAX = 60
"""The official SDKs wait for as long as `Retry-After` says, up to a minute."""


class Rate(msgspec.Struct, frozen=True):
    """So many a second, and so many at once; 0 a second is no limit."""

    per_second: int
    burst: int
    interval: float = 0.0
    """Seconds between two, and how far ahead the last of a burst may lie: worked out once."""
    slack: float = 0.0

    def __post_init__(self) -> None:
        if self.per_second:
            interval = 1 / self.per_second
            msgspec.structs.force_setattr(self, "interval", interval)
            # What adding up makes of whole intervals must not count as a request more.
            msgspec.structs.force_setattr(self, "slack", interval * (self.burst - 1) + interval * 1e-6)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    test: Rate = Rate(0, 0)
    live: Rate = Rate(0, 0)
    key: Rate = Rate(0, 0)
    failures: Rate = Rate(0, 0)


class Throttled(Refused):
    """Too many requests: refused `rate_limit`, with the whole seconds after which one will be let through."""

    def __init__(self, limit: str, seconds: float) -> None:
        super().__init__("rate_limit")
        self.limit = limit
        self.retry_after = min(max(1, -int(-seconds // 1)), RETRY_SECONDS_MAX)


class Buckets:
    """When each bucket will be full again, in seconds of the clock that `now` is of."""

    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}

    def take(self, name: str, rate: Rate, now: float) -> float:
        """Take one from the bucket: 0.0 where there was one, else the seconds until there is."""
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

    def empty(self, name: str, rate: Rate, now: float) -> float:
        """The seconds until `take` would get one, without taking it."""
        return max(0.0, self._full_at.get(name, now) - now - rate.slack)

    def _make_room(self, now: float) -> None:
        kept = {name: at for name, at in self._full_at.items() if at > now}
        if len(kept) >= BUCKETS_MAX:
            # Whoever comes from so many places at once is not held back by counting places.
            nearest = sorted(kept, key=kept.__getitem__)[: BUCKETS_MAX // 2]
            for name in nearest:
                del kept[name]
        self._full_at = kept

    def __len__(self) -> int:
        return len(self._full_at)


class Throttle:
    def __init__(self, limits: Limits, now: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._now = now
        self._accounts = Buckets()
        self._keys = Buckets()
        self._addresses = Buckets()

    def count(self, scope_key: str, mode: Mode, key_id: str, own: Rate | None = None) -> None:
        """Count a request of a merchant, made with that key. Raises `Throttled`.

        `own` is the rate of this account where it has one: it holds for the account and for each of its keys.
        """
        limits, now = self._limits, self._now()
        # A key beyond its limit takes nothing from the account's other keys.
        rate = own or limits.key
        if rate.per_second and (wait := self._keys.take(key_id, rate, now)):
            raise Throttled("key", wait)
        rate = own or (limits.live if mode == "live" else limits.test)
        if rate.per_second and (wait := self._accounts.take(scope_key, rate, now)):
            raise Throttled("account", wait)

    def admit(self, address: str | None) -> None:
        """Raises `Throttled` where too many keys of that address have failed of late."""
        if not self._addresses or not address:
            return
        if wait := self._addresses.empty(_network(address), self._limits.failures, self._now()):
            raise Throttled("address", wait)

    def count_failure(self, address: str | None) -> None:
        """A key from that address was no good."""
        rate = self._limits.failures
        if rate.per_second and address:
            self._addresses.take(_network(address), rate, self._now())


def _network(address: str) -> str:
    """An address as it is counted. Whoever has one of IPv6 has the other 2^64 of its network too."""
    if ":" not in address:
        return address
    try:
        network = ipaddress.ip_network((address.strip("[]").partition("%")[0], 64), strict=False)
    except ValueError:
        return address
    return str(network)
