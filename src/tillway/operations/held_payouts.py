"""Payouts that were scheduled when the store was backed up. One may have been cancelled since, so each is held until a
person cancels it or lets it be sent."""

from collections.abc import AsyncIterator, Iterable

import msgspec

from tillway.domain.account import scope_of
from tillway.domain.attempt import Attempt
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record
from tillway.engine.attempts import NO_KEY
from tillway.engine.caller import Caller
from tillway.engine.core import Engine, Load
from tillway.store.walk import records_of


class HeldPayout(msgspec.Struct, frozen=True):
    """A payout that waits for a person, or, while the recovery lasts, one that will."""

    payout: str
    account: str
    mode: str
    amount_minor: int
    currency: str
    held: bool


async def find_held(engine: Engine, scopes: Iterable[str], *, scheduled: bool) -> list[HeldPayout]:
    """The held payouts of these scopes, and with `scheduled` those that are scheduled besides."""
    return [
        HeldPayout(
            attempt.subject,
            scope_of(scope).account,
            scope_of(scope).mode,
            attempt.amount_minor,
            attempt.currency,
            attempt.held,
        )
        async for scope, attempt in _find_scheduled(engine, scopes)
        if attempt.held or scheduled
    ]


async def hold_scheduled(engine: Engine, scopes: Iterable[str], actor: str) -> None:
    """Hold every scheduled payout. No server may be sending: the store is recovering."""
    async for scope, attempt in _find_scheduled(engine, scopes):
        if not attempt.held:
            await _change(engine, scope, attempt, actor, held=True)


async def release(engine: Engine, scopes: Iterable[str], payouts: Iterable[str], actor: str) -> list[str]:
    """Let held payouts be sent, after the provider was asked whether it has them. Return the ids of those that were
    held."""
    wanted, released = set(payouts), []
    async for scope, attempt in _find_scheduled(engine, scopes):
        if attempt.held and attempt.subject in wanted:
            await _change(engine, scope, attempt, actor, held=False)
            released.append(attempt.subject)
    return released


async def _find_scheduled(engine: Engine, scopes: Iterable[str]) -> AsyncIterator[tuple[str, Attempt]]:
    for scope in scopes:
        async for attempt in records_of(engine.store, scope, Attempt):
            if attempt.state == "scheduled":
                yield scope, attempt


async def _change(engine: Engine, scope: str, attempt: Attempt, actor: str, *, held: bool) -> None:
    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        current = await load.maybe(Attempt, attempt.id)
        if current is None or current.state != "scheduled" or current.held == held:
            return NO_CHANGES
        after = msgspec.structs.replace(current, held=held)
        if not held:
            # It may have been sent before the store was put back.
            after = msgspec.structs.replace(after, state="unknown", due_at_ms=at.now_ms)
        told = {"payout": attempt.subject, "held": held}
        return Changes(result=None, tasks=(after,), detail=told)

    # It begins nothing and uses up no key, so it need not wait for the end of the recovery.
    await engine.run(Caller.system(scope_of(scope), "recover", actor=actor), work, completes=NO_KEY)
