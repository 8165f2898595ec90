"""The health of connectors: how often and how fast they answer, and a breaker that passes over one that cannot be
reached.

Each process counts for itself. The breaker opens after OPEN_AFTER requests in a row that were not sent or not answered,
counted over all payments. While it is open, other candidates go first. A question every PROBE_SECONDS finds out when
the provider answers again: the first answer half-opens the breaker, so that payments go there again, the next one
closes it, and a payment that cannot be sent meanwhile opens it at once.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Literal

log = logging.getLogger(__name__)

OPEN_AFTER = 3
PROBE_SECONDS = 5.0
BLIND_PROBES = 3
"""After how many PROBE_SECONDS a provider that cannot be asked counts as answering, until a payment shows otherwise."""

RECENT_MAX = 200
"""How many of the last exchanges the success rate and the latency are counted over."""

BREAKER_OPENS = "a connector cannot be reached; others go first"
"""The line of the log."""

BreakerState = Literal["closed", "open", "half_open"]

Probe = Callable[[], Awaitable[bool | None]]
"""Asks the provider something that moves no money. Returns whether it answered; None if it cannot be asked."""


class ConnectorHealth:
    """The health of one connector, as this process has seen it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: BreakerState = "closed"
        self._failed = 0
        self._recent: deque[tuple[str, float]] = deque(maxlen=RECENT_MAX)
        self._watch: asyncio.Task[None] | None = None
        self._probe: Probe | None = None

    @property
    def open(self) -> bool:
        return self.state == "open"

    def tell(self, outcome: str, seconds: float, probe: Probe) -> None:
        """Count an exchange that moves money. `probe` is used if the breaker opens."""
        self._recent.append((outcome, seconds))
        if outcome == "not_sent" or outcome == "unknown":
            self._failed += 1
            if self._failed >= OPEN_AFTER and self.state != "open":
                self._open(probe)
        elif self._failed:
            self._close()

    def answered(self) -> None:
        """The provider has answered a question."""
        if self._failed and self.state == "closed":
            self._failed = 0

    def describe(self) -> dict[str, Any]:
        """The state of the breaker, and rates over the last RECENT_MAX exchanges; None where there were none."""
        told = list(self._recent)
        seconds = sorted(each for outcome, each in told if outcome not in ("not_sent", "unknown"))
        succeeded = sum(outcome in ("succeeded", "pending", "action_required") for outcome, _ in told)
        sent = sum(outcome not in ("not_sent", "unknown") for outcome, _ in told)
        return {
            "breaker": self.state,
            "exchanges": len(told),
            "success_rate": round(succeeded / len(told), 4) if told else None,
            "answer_rate": round(sent / len(told), 4) if told else None,
            "latency_ms": _percentile(seconds, 0.5),
            "latency_p95_ms": _percentile(seconds, 0.95),
        }

    async def close(self) -> None:
        """Stop probing."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None

    def _open(self, probe: Probe) -> None:
        log.warning(BREAKER_OPENS, extra={"connector": self.name})
        self.state, self._probe = "open", probe
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_until_closed())

    def _close(self) -> None:
        if self.state != "closed":
            log.warning("a connector can be reached again", extra={"connector": self.name})
        self.state, self._failed = "closed", 0

    async def _is_open_later(self) -> bool:
        """Wait, and return whether no payment has shown meanwhile that the provider answers."""
        await asyncio.sleep(PROBE_SECONDS)
        return self.state != "closed"

    async def _watch_until_closed(self) -> None:
        blind = 0
        while await self._is_open_later():
            assert self._probe is not None, "a breaker opens with its probe"
            try:
                answered = await self._probe()
            except Exception:
                log.exception("a connector cannot be probed", extra={"connector": self.name})
                answered = False
            if answered is None:
                blind += 1
                answered = blind % BLIND_PROBES == 0
                if not answered:
                    continue
            if not answered:
                self.state = "open"
            elif self.state == "open":
                # One failure more opens it again.
                self.state, self._failed = "half_open", OPEN_AFTER - 1
            elif self.state == "half_open":
                self._close()


def _percentile(seconds: list[float], share: float) -> int | None:
    """Milliseconds that `share` of the sorted exchanges took at most."""
    return round(seconds[min(int(len(seconds) * share), len(seconds) - 1)] * 1000) if seconds else None
