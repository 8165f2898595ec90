"""The health of connectors: how often and how fast they answer, and a breaker that passes over one that cannot be
reached.

The breaker opens after OPEN_AFTER requests in a row that were not sent or not answered, counted over all payments.
While it is open, other candidates go first. A question every PROBE_SECONDS finds out when the provider answers again:
the first answer half-opens the breaker, so that payments go there again, the next one closes it, and a payment that
cannot be sent meanwhile opens it at once.

The processes of one server share the breaker, and each that has seen it open asks: if one ends, another closes it. The
rates are each process's own.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Literal, get_args

from tillway.engine.siblings import Marks, own_marks

log = logging.getLogger(__name__)

OPEN_AFTER = 3
PROBE_SECONDS = 5.0
BLIND_PROBES = 3
"""After how many PROBE_SECONDS a provider that cannot be asked counts as answering, until a payment shows otherwise."""

RECENT_MAX = 200
"""How many of the last exchanges the success rate and the latency are counted over."""

MINUTES = 60
"""How many minutes are told apart."""

CHANGES_MAX = 20
"""How many of the last changes of a breaker are told."""

BREAKER_OPENS = "a connector cannot be reached; others go first"
"""The line of the log."""

BreakerState = Literal["closed", "open", "half_open"]

_STATES: tuple[BreakerState, ...] = get_args(BreakerState)
_STATE, _FAILED, _CHANGES, _CHANGED_AT = range(4)
"""The marks: the place of the state, requests that failed in a row, how often the state has changed, and when."""

Probe = Callable[[], Awaitable[bool | None]]
"""Asks the provider something that moves no money. Returns whether it answered; None if it cannot be asked."""


class ConnectorHealth:
    """The health of one connector. `marks` has its breaker, which other processes may share."""

    def __init__(self, name: str, marks: Marks | None = None) -> None:
        self.name = name
        self._marks = own_marks() if marks is None else marks
        self._recent: deque[tuple[str, float, bool]] = deque(maxlen=RECENT_MAX)
        """Outcome and seconds of the last exchanges, and whether each was to take a payment."""
        self._minutes: deque[list[int]] = deque(maxlen=MINUTES)
        """The minutes with exchanges, each with how many were answered, and how many were not."""
        self._changed: deque[tuple[BreakerState, float]] = deque(maxlen=CHANGES_MAX)
        """The changes of the breaker that this process made, each with its time on the loop's clock."""
        self._watch: asyncio.Task[None] | None = None
        self._probe: Probe | None = None

    @property
    def state(self) -> BreakerState:
        return _STATES[int(self._marks[_STATE])]

    @property
    def open(self) -> bool:
        return self.state == "open"

    def tell(self, outcome: str, seconds: float, probe: Probe, *, is_payment: bool = False) -> None:
        """Count an exchange that moves money, or `is_payment`, one to take a payment. `probe` is used if the breaker
        opens."""
        self._recent.append((outcome, seconds, is_payment))
        minute = int(time.monotonic() // 60)
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append([minute, 0, 0])
        self._minutes[-1][1 if outcome not in ("not_sent", "unknown") else 2] += 1
        if outcome == "not_sent" or outcome == "unknown":
            self._marks[_FAILED] += 1
            if self._marks[_FAILED] >= OPEN_AFTER and not self.open:
                log.warning(BREAKER_OPENS, extra={"connector": self.name})
                self._change("open")
            self.watch(probe)
        elif self._marks[_FAILED]:
            self._close()

    def answered(self) -> None:
        """The provider has answered a question."""
        if self._marks[_FAILED] and self.state == "closed":
            self._marks[_FAILED] = 0

    def watch(self, probe: Probe) -> None:
        """Ask by `probe` until the breaker is closed, whichever process opened it."""
        if self.state != "closed" and (self._watch is None or self._watch.done()):
            self._probe = probe
            self._watch = asyncio.create_task(self._watch_until_closed())

    def describe(self) -> dict[str, Any]:
        """The state of the breaker, and rates over the last RECENT_MAX exchanges; None where there were none."""
        told = list(self._recent)
        seconds = sorted(each for outcome, each, _ in told if outcome not in ("not_sent", "unknown"))
        succeeded = sum(outcome in ("succeeded", "pending", "action_required") for outcome, _, _ in told)
        sent = sum(outcome not in ("not_sent", "unknown") for outcome, _, _ in told)
        return {
            "breaker": self.state,
            "breaker_seconds": self._seconds_in_state(),
            "breaker_changes": self._last_changes(),
            "exchanges": len(told),
            "payments": sum(is_payment for _, _, is_payment in told),
            "success_rate": round(succeeded / len(told), 4) if told else None,
            "answer_rate": round(sent / len(told), 4) if told else None,
            "latency_ms": _percentile(seconds, 0.5),
            "latency_p95_ms": _percentile(seconds, 0.95),
            "minutes": self._last_minutes(),
        }

    def _seconds_in_state(self) -> int | None:
        """How long the breaker is in its state; None if it was never in another."""
        if not self._marks[_CHANGES]:
            return None
        return max(int(asyncio.get_running_loop().time() - self._marks[_CHANGED_AT]), 0)

    def _last_changes(self) -> list[dict[str, Any]]:
        """The last changes that this process made, oldest first, each with how long ago it was."""
        if not self._changed:
            return []
        now = asyncio.get_running_loop().time()
        return [{"breaker": state, "seconds_ago": max(int(now - at), 0)} for state, at in self._changed]

    def _last_minutes(self) -> list[dict[str, int]]:
        """The exchanges of each of the last MINUTES, oldest first."""
        told = {minute: (answered, failed) for minute, answered, failed in self._minutes}
        now, none = int(time.monotonic() // 60), (0, 0)
        last = [told.get(minute, none) for minute in range(now - MINUTES + 1, now + 1)]
        return [{"answered": answered, "not_answered": failed} for answered, failed in last]

    def close_now(self) -> None:
        """Close the breaker, as an operator says: the next failures are counted anew."""
        self._close()

    async def close(self) -> None:
        """Stop probing."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None

    def _change(self, state: BreakerState) -> None:
        marks = self._marks
        marks[_STATE], marks[_CHANGED_AT] = _STATES.index(state), asyncio.get_running_loop().time()
        marks[_CHANGES] += 1
        self._changed.append((state, marks[_CHANGED_AT]))

    def _close(self) -> None:
        self._marks[_FAILED] = 0
        if self.state != "closed":
            log.warning("a connector can be reached again", extra={"connector": self.name})
            self._change("closed")

    async def _is_open_later(self) -> bool:
        """Wait, and return whether no payment has shown meanwhile that the provider answers."""
        await asyncio.sleep(PROBE_SECONDS)
        return self.state != "closed"

    async def _watch_until_closed(self) -> None:
        blind = 0
        while await self._is_open_later():
            assert self._probe is not None, "a breaker is watched with its probe"
            changes = self._marks[_CHANGES]
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
            # A payment or another process has changed the state during the question: that is newer than the answer.
            if changes == self._marks[_CHANGES]:
                self._take(answered)

    def _take(self, answered: bool) -> None:
        """Count the answer to a question. Two processes that ask in turn keep the breaker half open as long as one."""
        settled_seconds = asyncio.get_running_loop().time() - self._marks[_CHANGED_AT]
        if not answered:
            if self.state == "half_open":
                self._change("open")
        elif settled_seconds < PROBE_SECONDS / 2:
            pass
        elif self.state == "open":
            # One failure more opens it again.
            self._marks[_FAILED] = OPEN_AFTER - 1
            self._change("half_open")
        else:
            self._close()


def _percentile(seconds: list[float], share: float) -> int | None:
    """Milliseconds that `share` of the sorted exchanges took at most."""
    return round(seconds[min(int(len(seconds) * share), len(seconds) - 1)] * 1000) if seconds else None
