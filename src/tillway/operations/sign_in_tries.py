"""Counts the tries to sign in, each before it is judged: of those that come together, no more are judged either."""

from __future__ import annotations

from typing import Any

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.operator import Operator
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.sign_in_tries import (
    ACCOUNT_TRIES_MAX,
    ADDRESS_TRIES_MAX,
    SignInTries,
    account_tries_id,
    address_tries_id,
    must_wait,
    with_try,
    without_try,
)
from tillway.engine.caller import Caller
from tillway.engine.core import Engine, Load
from tillway.operations.sign_ins import NOWHERE, caller_of

OPERATION = "dashboard sign-in"


class CountedTry(msgspec.Struct, frozen=True):
    """A try that was counted at `at` (epoch seconds), under the ids of its account and its address."""

    account: str
    address: str
    at: int


async def count_try(engine: Engine, *, email: str, source: str) -> CountedTry | None:
    """Count a try of the account with that e-mail address, whether there is one or not, and of the address that it
    comes from. None: one of them has to wait, and nothing is judged. An empty text is not counted."""
    account = account_tries_id(email) if email else ""
    address = address_tries_id(source) if source else ""
    counted = list[CountedTry | None]()

    async def work(load: Load, at: Moment) -> Changes[None]:
        records: list[Record] = []
        for id, most in ((account, ACCOUNT_TRIES_MAX), (address, ADDRESS_TRIES_MAX)):
            tries = await load.maybe(SignInTries, id) if id else None
            if must_wait(tries, most, at.now):
                counted.append(None)
                return Changes(result=None)
            records += [with_try(tries, id, at.now, at.created)] if id else []
        counted.append(CountedTry(account, address, at.now))
        return Changes(result=None, records=tuple(records))

    await engine.run(_unknown(None), work)
    return counted[-1]


async def tries_left(engine: Engine, email: str) -> int:
    """How many more wrong tries make the account with that e-mail address wait, whether there is one or not."""
    tries = await engine.load(SYSTEM).maybe(SignInTries, account_tries_id(email))
    return ACCOUNT_TRIES_MAX - (len(tries.failures) if tries is not None else 0)


async def take_back(engine: Engine, counted: CountedTry, *, forgets: bool) -> None:
    """The try was right: its address, and the account, have one less. `forgets`: it was the whole proof, so that the
    account's wrong ones are forgotten. A password beside which a code is needed is none: the wrong codes count on."""

    async def work(load: Load, at: Moment) -> Changes[None]:
        account = await load.maybe(SignInTries, counted.account) if counted.account else None
        address = await load.maybe(SignInTries, counted.address) if counted.address else None
        rests, gone = list[SignInTries](), list[str]()
        for tries, forgotten in ((account, forgets), (address, False)):
            rest = without_try(tries, counted.at) if tries is not None and not forgotten else None
            rests += [rest] if rest is not None else []
            gone += [tries.id] if tries is not None and rest is None else []
        return Changes(result=None, records=tuple(rests), deletes=tuple(gone))

    await engine.run(_unknown(None), work)


async def tell_of_refusal(engine: Engine, operator: Operator | None, what: str, address: str | None) -> None:
    """Enter a wrong try into the audit trail: with the operator, if the account is one's."""
    detail: dict[str, Any] = {"refused": what}
    if operator is None:
        await engine.note(_unknown(address), detail)
    else:
        await engine.note(caller_of(operator, OPERATION, address), {**detail, "name": operator.name})


def _unknown(address: str | None) -> Caller:
    caller = Caller(scope=NOWHERE, scope_key=SYSTEM, operation=OPERATION, actor="dashboard")
    caller.client_ip = address
    return caller
