"""The health of connectors: how often and how fast they answer, and a breaker that passes over one that cannot be
reached.

The breaker opens after OPEN_AFTER requests in a row that were not sent or not answered, counted over all payments.
While it is open, other candidates go first. A question every PROBE_SECONDS finds out when the provider answers again:
the first answer half-opens the breaker, so that payments go there again, the next one closes it, and a payment that
cannot be sent meanwhile opens it at once.

The processes of one server share the breaker, the rates and the changes, so that each of them tells the same. Each that
has seen the breaker open asks: if one ends, another closes it.
"""

import asyncio
import logging
import math
import operator
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple, get_args

from tillway.engine.siblings import MARKS, Marks, own_marks

log = logging.getLogger(__name__)

OPEN_AFTER = 3
PROBE_SECONDS = 5.0
BLIND_PROBES = 3
"""After how many PROBE_SECONDS a provider that cannot be asked counts as answering, until a payment shows otherwise."""

MINUTES = 60
"""The rates are those of so many minutes, each of which is told apart."""

RECENT_MAX = 200
"""How many of their last answered exchanges the latency is taken from."""

CHANGES_MAX = 20
"""How many of the last changes of a breaker are told."""

BREAKER_OPENS = "a connector cannot be reached; others go first"
"""The line of the log."""

BreakerState = Literal["closed", "open", "half_open"]

_STATES: tuple[BreakerState, ...] = get_args(BreakerState)
_STATE, _FAILED, _CHANGES, _CHANGED_AT, _ANSWERED = range(5)
"""The marks: the place of the state, requests that failed in a row, how often the state has changed, and when, and how
many exchanges were answered. Rings of the last changes, answers and minutes follow."""
_RING_OF_CHANGES = _ANSWERED + 1
"""The state and the time (seconds on the loop's clock) of each."""
_RING_OF_ANSWERS = _RING_OF_CHANGES + 2 * CHANGES_MAX
"""The seconds of each."""
_RING_OF_MINUTES = _RING_OF_ANSWERS + RECENT_MAX
_MINUTE, _SUCCEEDED, _REFUSED, _UNANSWERED = range(4)
"""A minute since the system's start, and its exchanges other than those to take a payment: answered with a success or
otherwise, or not answered. The same three of those to take a payment follow, so that each adds to one number."""
_OF_PAYMENTS = _UNANSWERED
_MINUTE_WIDTH = _OF_PAYMENTS + _UNANSWERED + 1
_MARKS_USED = _RING_OF_MINUTES + _MINUTE_WIDTH * MINUTES
assert _MARKS_USED <= MARKS, "the health of a connector has room in the memory that processes share"

_SUCCESSES = ("succeeded", "pending", "action_required")

Probe = Callable[[], Awaitable[bool | None]]
"""Asks the provider something that moves no money. Returns whether it answered; None if it cannot be asked."""


class ConnectorHealth:
    """The health of one connector. `marks` has it all, which other processes may share."""

    def __init__(
        self, name: str, marks: Marks | None = None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._marks = own_marks() if marks is None else marks
        self._monotonic = monotonic
        self._minute_place = 0
        self._minute_ends = -math.inf
        self._watch: asyncio.Task[None] | None = None
        self._probe: Probe | None = None

    @property
    def state(self) -> BreakerState:
        return _STATES[int(self._marks[_STATE])]

    @property
    def open(self) -> bool:
        return self.state == "open"

    def tell(self, outcome: str, seconds: float, *, is_payment: bool = False) -> None:
        """Count an exchange that moves money, or `is_payment`, one to take a payment. Every payment comes here. One
        that fails may open the breaker, which the caller watches then."""
        marks, now = self._marks, self._monotonic()
        if now >= self._minute_ends:
            self._begin_minute(now)
        place = self._minute_place + _OF_PAYMENTS if is_payment else self._minute_place
        if outcome in _SUCCESSES:
            marks[place + _SUCCEEDED] += 1.0
        elif outcome == "not_sent" or outcome == "unknown":
            marks[place + _UNANSWERED] += 1.0
            self._fail()
            return
        else:
            marks[place + _REFUSED] += 1.0
        answers = marks[_ANSWERED]
        marks[_RING_OF_ANSWERS + int(answers) % RECENT_MAX] = seconds
        marks[_ANSWERED] = answers + 1.0
        if marks[_FAILED]:
            self._close()

    def _begin_minute(self, now: float) -> None:
        """Find the place of the minute, and empty it unless another process has."""
        marks, minute = self._marks, int(now // 60)
        place = _RING_OF_MINUTES + minute % MINUTES * _MINUTE_WIDTH
        if marks[place] != minute:
            marks[place] = minute
            for each in range(1, _MINUTE_WIDTH):
                marks[place + each] = 0.0
        self._minute_place, self._minute_ends = place, (minute + 1) * 60

    def _fail(self) -> None:
        self._marks[_FAILED] += 1
        if self._marks[_FAILED] >= OPEN_AFTER and not self.open:
            log.warning(BREAKER_OPENS, extra={"connector": self.name})
            self._change("open")

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
        """The state of the breaker, and rates over the last MINUTES; None where there were no exchanges."""
        minutes = self._last_minutes()
        succeeded, answered, not_answered, payments = (sum(counts) for counts in zip(*minutes, strict=True))
        told, seconds = answered + not_answered, self._last_seconds(answered)
        return {
            "breaker": self.state,
            "breaker_seconds": self._seconds_in_state(),
            "breaker_changes": self._last_changes(),
            "exchanges": told,
            "payments": payments,
            "success_rate": round(succeeded / told, 4) if told else None,
            "answer_rate": round(answered / told, 4) if told else None,
            "latency_ms": _percentile(seconds, 0.5),
            "latency_p95_ms": _percentile(seconds, 0.95),
            "minutes": [{"answered": one.answered, "not_answered": one.not_answered} for one in minutes],
        }

    def _seconds_in_state(self) -> int | None:
        """How long the breaker is in its state; None if it was never in another."""
        if not self._marks[_CHANGES]:
            return None
        return max(int(asyncio.get_running_loop().time() - self._marks[_CHANGED_AT]), 0)

    def _last_changes(self) -> list[dict[str, Any]]:
        """The last changes, oldest first, each with how long ago it was."""
        changes, found = int(self._marks[_CHANGES]), list[dict[str, Any]]()
        for number in range(max(changes - CHANGES_MAX, 0), changes):
            place = _RING_OF_CHANGES + number % CHANGES_MAX * 2
            ago = asyncio.get_running_loop().time() - self._marks[place + 1]
            found.append({"breaker": _STATES[int(self._marks[place])], "seconds_ago": max(int(ago), 0)})
        return found

    def _last_minutes(self) -> list["_Minute"]:
        """The counts of each of the last MINUTES, oldest first."""
        now, found = int(self._monotonic() // 60), []
        for minute in range(now - MINUTES + 1, now + 1):
            place = _RING_OF_MINUTES + minute % MINUTES * _MINUTE_WIDTH
            if self._marks[place] != minute:
                found.append(_Minute(0, 0, 0, 0))
                continue
            counts = [int(self._marks[at]) for at in range(place + 1, place + _MINUTE_WIDTH)]
            succeeded, refused, unanswered = map(operator.add, counts[:_OF_PAYMENTS], counts[_OF_PAYMENTS:])
            found.append(_Minute(succeeded, succeeded + refused, unanswered, sum(counts[_OF_PAYMENTS:])))
        return found

    def _last_seconds(self, answered: int) -> list[float]:
        """How long the last RECENT_MAX answers took, sorted, of so many."""
        answers = int(self._marks[_ANSWERED])
        last = range(max(answers - min(answered, RECENT_MAX), 0), answers)
        return sorted(self._marks[_RING_OF_ANSWERS + number % RECENT_MAX] for number in last)

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
        place = _RING_OF_CHANGES + int(marks[_CHANGES]) % CHANGES_MAX * 2
        marks[place], marks[place + 1] = marks[_STATE], marks[_CHANGED_AT]
        marks[_CHANGES] += 1

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


class _Minute(NamedTuple):
    """The exchanges of a minute: of those that were answered the successes, and of all those to take a payment."""

    succeeded: int
    answered: int
    not_answered: int
    payments: int


def _percentile(seconds: list[float], share: float) -> int | None:
    """Milliseconds that `share` of the sorted exchanges took at most."""
    return round(seconds[min(int(len(seconds) * share), len(seconds) - 1)] * 1000) if seconds else None
