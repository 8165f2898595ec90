"""The breaker of a connector, as two processes of one server see it. Time is virtual."""

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from tillway.engine.health import (
    BLIND_PROBES,
    CHANGES_MAX,
    MINUTES,
    OPEN_AFTER,
    PROBE_SECONDS,
    RECENT_MAX,
    ConnectorHealth,
)
from tillway.engine.siblings import Siblings
from tillway.simulation.virtual_loop import VirtualLoop


class Provider:
    """A provider that answers questions, or does not, after so many `seconds`."""

    def __init__(self, *, answers: bool | None) -> None:
        self.answers = answers
        self.seconds = 0.0
        self.asked = 0

    async def ask(self) -> bool | None:
        self.asked += 1
        answers = self.answers
        await asyncio.sleep(self.seconds)
        return answers


def tell(
    health: ConnectorHealth, outcome: str, seconds: float, provider: Provider, *, is_payment: bool = False
) -> None:
    """Tell an exchange, and watch the breaker after a failure, as `Attempts` does."""
    health.tell(outcome, seconds, is_payment=is_payment)
    if outcome in ("not_sent", "unknown"):
        health.watch(provider.ask)


def two_processes() -> tuple[ConnectorHealth, ConnectorHealth]:
    siblings = Siblings()
    one, other = (ConnectorHealth("a", siblings.marks_of("test/a")) for _ in range(2))
    return one, other


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    # It has those parts of an event loop that this needs.
    VirtualLoop(Random(1)).run(work())  # type: ignore[abstract]


def test_failures_of_both_processes_open_the_breaker_of_both() -> None:
    async def work() -> None:
        one, other = two_processes()
        provider = Provider(answers=False)
        for n in range(OPEN_AFTER):
            assert (one.state, other.state) == ("closed", "closed")
            tell((one, other)[n % 2], "not_sent", 0.1, provider)
        assert (one.state, other.state) == ("open", "open")
        assert ConnectorHealth("b", Siblings().marks_of("test/b")).state == "closed"
        await one.close()
        await other.close()

    in_virtual_time(work)


def test_the_changes_of_the_breaker_are_told_with_their_age() -> None:
    async def work() -> None:
        health = ConnectorHealth("a")
        provider = Provider(answers=True)
        assert health.describe()["breaker_changes"] == []
        for _ in range(OPEN_AFTER):
            tell(health, "not_sent", 0.1, provider)
        await asyncio.sleep(2.2 * PROBE_SECONDS)
        told = [(one["breaker"], one["seconds_ago"]) for one in health.describe()["breaker_changes"]]
        assert told == [("open", 11), ("half_open", 6), ("closed", 1)]
        await health.close()

    in_virtual_time(work)


def test_both_processes_tell_the_same_rates_and_changes() -> None:
    async def work() -> None:
        one, other = two_processes()
        provider = Provider(answers=True)
        tell(one, "succeeded", 0.1, provider, is_payment=True)
        tell(other, "declined", 0.3, provider, is_payment=True)
        for n in range(OPEN_AFTER):
            tell((one, other)[n % 2], "not_sent", 9.0, provider)
        told = one.describe()
        assert told == other.describe()
        assert (told["exchanges"], told["payments"], told["success_rate"], told["answer_rate"]) == (5, 2, 0.2, 0.4)
        assert (told["latency_ms"], told["latency_p95_ms"]) == (300, 300)
        assert [one["breaker"] for one in told["breaker_changes"]] == ["open"]
        assert sum(one["answered"] for one in told["minutes"]) == 2
        assert sum(one["not_answered"] for one in told["minutes"]) == OPEN_AFTER
        await one.close()
        await other.close()

    in_virtual_time(work)


def test_more_answers_and_changes_than_are_kept_leave_the_newest() -> None:
    async def work() -> None:
        health = ConnectorHealth("a")
        provider = Provider(answers=True)
        for seconds in range(2 * RECENT_MAX):
            tell(health, "succeeded", seconds, provider)
        assert health.describe()["latency_ms"] == 1000 * (RECENT_MAX + RECENT_MAX // 2)
        for _ in range(CHANGES_MAX):
            for _ in range(OPEN_AFTER):
                tell(health, "unknown", 0.1, provider)
            health.close_now()
        told = [one["breaker"] for one in health.describe()["breaker_changes"]]
        assert told == ["open", "closed"] * (CHANGES_MAX // 2)
        assert health.describe()["exchanges"] == 2 * RECENT_MAX + OPEN_AFTER * CHANGES_MAX
        await health.close()

    in_virtual_time(work)


def test_what_is_older_than_an_hour_is_not_told() -> None:
    """The rates and latencies are those of the last minutes, also where another process has begun a minute."""
    now = 1_000_000.0
    marks = Siblings().marks_of("test/a")
    one, other = (ConnectorHealth("a", marks, monotonic=lambda: now) for _ in range(2))
    kinds = [("succeeded", 0.1, True), ("declined", 0.2, True), ("pending", 0.3, False), ("declined", 0.4, False)]
    kinds += [("unknown", 9.0, True), ("not_sent", 9.0, False)]
    for minute in range(MINUTES + 5):
        for number, (outcome, seconds, is_payment) in enumerate(kinds):
            (one, other)[(minute + number) % 2].tell(outcome, minute + seconds, is_payment=is_payment)
        now += 60

    def told() -> list[int]:
        described = one.describe()
        assert described == other.describe()
        assert (described["success_rate"], described["answer_rate"]) == (0.3333, 0.6667)
        return [described[name] for name in ("exchanges", "payments", "latency_ms", "latency_p95_ms")]

    # The minute that runs now is empty, and of 64 before it 59 are told, whose last 50 have the last 200 answers.
    assert told() == [6 * (MINUTES - 1), 3 * (MINUTES - 1), 40_100, 62_300]
    now += 60 * (MINUTES - 11)
    assert told() == [6 * 10, 3 * 10, 60_100, 64_300]
    assert [minute["answered"] for minute in one.describe()["minutes"]] == [4] * 10 + [0] * (MINUTES - 10)
    assert [minute["not_answered"] for minute in one.describe()["minutes"]] == [2] * 10 + [0] * (MINUTES - 10)
    now += 60 * 10
    assert one.describe()["exchanges"] == 0 and one.describe()["latency_ms"] is None


def test_it_closes_by_itself_when_the_process_that_opened_it_has_ended() -> None:
    async def work() -> None:
        one, other = two_processes()
        provider = Provider(answers=False)
        for _ in range(OPEN_AFTER):
            tell(one, "not_sent", 0.1, provider)
        await one.close()
        other.watch(provider.ask)
        await asyncio.sleep(10.5 * PROBE_SECONDS)
        assert other.state == "open"
        provider.answers = True
        await asyncio.sleep(PROBE_SECONDS)
        assert other.state == "half_open"
        await asyncio.sleep(PROBE_SECONDS)
        assert other.state == "closed"
        asked = provider.asked
        await asyncio.sleep(10 * PROBE_SECONDS)
        assert provider.asked == asked, "a closed breaker asks nothing"

    in_virtual_time(work)


def test_two_that_ask_leave_it_half_open_as_long_as_one() -> None:
    async def work() -> None:
        one, other = two_processes()
        provider = Provider(answers=True)
        for _ in range(OPEN_AFTER):
            tell(one, "unknown", 0.1, provider)
        await asyncio.sleep(0.1 * PROBE_SECONDS)
        other.watch(provider.ask)
        await asyncio.sleep(PROBE_SECONDS)
        assert one.state == "half_open"
        tell(other, "not_sent", 0.1, provider)
        assert one.state == "open", "the first failure opens it again"
        await asyncio.sleep(3 * PROBE_SECONDS)
        assert one.state == "closed"

    in_virtual_time(work)


def test_an_old_question_does_not_open_it_again() -> None:
    async def work() -> None:
        one, other = two_processes()
        provider = Provider(answers=False)
        provider.seconds = 3 * PROBE_SECONDS
        for _ in range(OPEN_AFTER):
            tell(one, "not_sent", 0.1, provider)
        await asyncio.sleep(2 * PROBE_SECONDS)
        tell(other, "succeeded", 0.1, provider)
        await asyncio.sleep(3 * PROBE_SECONDS)
        assert one.state == "closed" and provider.asked == 1

    in_virtual_time(work)


def test_a_provider_that_cannot_be_asked_is_tried_again() -> None:
    async def work() -> None:
        one, _ = two_processes()
        for _ in range(OPEN_AFTER):
            tell(one, "not_sent", 0.1, Provider(answers=None))
        await asyncio.sleep((BLIND_PROBES + 0.5) * PROBE_SECONDS)
        assert one.state == "half_open"
        await asyncio.sleep(BLIND_PROBES * PROBE_SECONDS)
        assert one.state == "closed"

    in_virtual_time(work)
