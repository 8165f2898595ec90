"""Sign-ins to the dashboard: make an address that signs in once, open, read and end sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from tillway.domain.account import SYSTEM, Account, Scope
from tillway.domain.dashboard import (
    LINK_SECONDS,
    SEEN_SECONDS,
    SESSION_SECONDS,
    STRONG_SECONDS,
    DashboardSession,
    Factor,
    SignInLink,
    link_id,
    session_id,
)
from tillway.domain.operator import Operator
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Engine, Load
from tillway.engine.ids import random_text
from tillway.store.codec import decode
from tillway.store.walk import records_of

TOKEN_LENGTH = 43
"""Characters of base 62: 256 random bits."""

AGENT_MAX = 300
ACCOUNTS_MAX = 100

NOWHERE = Scope(account="acct_" + "0" * 16, mode="test")


class Browser(msgspec.Struct, frozen=True):
    """Where a sign-in comes from: its address, the address as tries are counted by it, and the browser's own words."""

    address: str | None
    source: str
    agent: str


class SignedIn(msgspec.Struct, frozen=True):
    """A session with its operator, as the store has both now."""

    session: DashboardSession
    operator: Operator


class Renewed(msgspec.Struct, frozen=True):
    """A session under a new token, which goes into the cookie."""

    token: str
    signed: SignedIn


UseUp = Callable[[Load, Moment], Awaitable[tuple[Record, ...] | None]]
"""Reads a proof for a commit, and returns the records that its use changes; None where it is none."""


def new_link(operator: str, *, created: int, now: int, good_seconds: int = LINK_SECONDS) -> tuple[str, SignInLink]:
    """The token of a new link for the operator with that id, and its record. `now` is epoch seconds."""
    token = random_text(TOKEN_LENGTH)
    return token, SignInLink(id=link_id(token), created=created, operator=operator, expires_at=now + good_seconds)


async def operator_of_link(engine: Engine, token: str) -> Operator | None:
    """The operator that a link would sign in; None if it was used, has expired or never was."""
    load = engine.load(SYSTEM)
    link = await load.maybe(SignInLink, link_id(token))
    if link is None or link.expires_at <= engine.clock.now_ms() // 1000:
        return None
    operator = await load.maybe(Operator, link.operator)
    return operator if operator is not None and operator.disabled_at is None else None


async def sign_in_by_link(engine: Engine, token: str, browser: Browser) -> str | None:
    """Use a link up and open a session. Return the session's token; None where the link is no good."""
    operator = await operator_of_link(engine, token)
    if operator is None:
        return None
    opened = random_text(TOKEN_LENGTH)
    caller = caller_of(operator, "dashboard sign-in", browser.address)

    async def work(load: Load, at: Moment) -> Changes[None]:
        link = await load.maybe(SignInLink, link_id(token))
        if link is None:
            raise Refused("resource_missing", "This address was used already.")
        session = _session(opened, operator, "link", at, browser)
        return Changes(
            result=None,
            records=(session,),
            deletes=(link.id,),
            detail={"factor": "link", "session": session.id, "name": operator.name},
        )

    try:
        await engine.run(caller, work)
    except Refused as refused:
        if refused.code == "resource_missing":
            return None
        raise
    return opened


async def open_session_with(
    engine: Engine, operator: Operator, factor: Factor, browser: Browser, use_up: UseUp, *, strong: bool = True
) -> str | None:
    """Open a session in the commit that uses the proof up. Return its token; None where `use_up` finds none."""
    opened = random_text(TOKEN_LENGTH)
    done = list[bool]()

    async def work(load: Load, at: Moment) -> Changes[None]:
        used = await use_up(load, at)
        done.append(used is not None)
        if used is None:
            return Changes(result=None)
        session = _session(opened, operator, factor, at, browser, strong=strong)
        detail = {"factor": factor, "session": session.id, "name": operator.name}
        return Changes(result=None, records=(*used, session), detail=detail)

    await engine.run(caller_of(operator, "dashboard sign-in", browser.address), work)
    return opened if done[-1] else None


async def open_session(engine: Engine, operator: Operator, factor: Factor, browser: Browser, *, strong: bool) -> str:
    """Open a session after a proof. Return its token. `strong`: the proof stands for re-authentication, too."""
    opened = random_text(TOKEN_LENGTH)

    async def work(load: Load, at: Moment) -> Changes[None]:
        session = _session(opened, operator, factor, at, browser, strong=strong)
        detail = {"factor": factor, "session": session.id, "name": operator.name}
        return Changes(result=None, records=(session,), detail=detail)

    await engine.run(caller_of(operator, "dashboard sign-in", browser.address), work)
    return opened


def _session(
    token: str,
    operator: Operator,
    factor: Factor,
    at: Moment,
    browser: Browser,
    *,
    strong: bool = True,
) -> DashboardSession:
    return DashboardSession(
        id=session_id(token),
        created=at.created,
        operator=operator.id,
        expires_at=at.now + SESSION_SECONDS,
        factor=factor,
        strong_until=at.now + STRONG_SECONDS if strong else 0,
        address=browser.address,
        agent=browser.agent[:AGENT_MAX],
        seen_at=at.now,
    )


async def signed_in(engine: Engine, token: str, *, idle_seconds: int = 0) -> SignedIn | None:
    """The session of a cookie and its operator; None if it has ended or its operator is disabled.

    `idle_seconds`: how long a session may be unused; 0: for as long as it lasts.
    """
    load, now = engine.load(SYSTEM), engine.clock.now_ms() // 1000
    session = await load.maybe(DashboardSession, session_id(token))
    if session is None or session.expires_at <= now:
        return None
    if idle_seconds and session.seen_at + SEEN_SECONDS + idle_seconds <= now:
        return None
    operator = await load.maybe(Operator, session.operator)
    if operator is None or operator.disabled_at is not None:
        return None
    return SignedIn(session, operator)


async def change_session(engine: Engine, session: DashboardSession, **fields: object) -> None:
    """Change fields of a session that is open. It makes no entry of the audit trail."""
    operator = await engine.load(SYSTEM).maybe(Operator, session.operator)
    if operator is None:
        return

    async def work(load: Load, at: Moment) -> Changes[None]:
        current = await load.maybe(DashboardSession, session.id)
        records = (msgspec.structs.replace(current, **fields),) if current is not None else ()
        return Changes(result=None, records=records)

    await engine.run(caller_of(operator, "dashboard", None), work)


async def renew_session(
    engine: Engine, signed: SignedIn, factor: Factor, browser: Browser, use_up: UseUp
) -> Renewed | None:
    """Give a session a new token after a proof, and make it strong for STRONG_SECONDS. It ends when it would have.

    `use_up` returns the records that the proof changes; None: it is none, and then nothing is done and None returned.
    """
    token = random_text(TOKEN_LENGTH)
    made = list[DashboardSession]()

    async def work(load: Load, at: Moment) -> Changes[None]:
        made.clear()
        used = await use_up(load, at)
        before = await load.maybe(DashboardSession, signed.session.id)
        if used is None or before is None:
            return Changes(result=None)
        strong = msgspec.structs.replace(
            before, id=session_id(token), strong_until=at.now + STRONG_SECONDS, seen_at=at.now
        )
        made.append(strong)
        detail = {"factor": factor, "session": strong.id, "before": before.id, "name": signed.operator.name}
        return Changes(result=None, records=(*used, strong), deletes=(before.id,), detail=detail)

    await engine.run(caller_of(signed.operator, "dashboard re-authentication", browser.address), work)
    return Renewed(token, SignedIn(made[0], signed.operator)) if made else None


async def note_use(engine: Engine, session: DashboardSession) -> None:
    """Note that a session is in use, at most once in SEEN_SECONDS."""
    now = engine.clock.now_ms() // 1000
    if now >= session.seen_at + SEEN_SECONDS:
        await change_session(engine, session, seen_at=now)


async def end_session(engine: Engine, signed: SignedIn, id: str, address: str | None) -> None:
    """End a session of the operator: the own one, or another one by its id."""

    async def work(load: Load, at: Moment) -> Changes[None]:
        session = await load.maybe(DashboardSession, id)
        if session is None or session.operator != signed.operator.id:
            return Changes(result=None)
        return Changes(result=None, deletes=(id,), detail={"session": id, "name": signed.operator.name})

    await engine.run(caller_of(signed.operator, "dashboard sign-out", address), work)


async def accounts_of(engine: Engine, operator: Operator) -> list[Account]:
    """The merchants that an operator works for, oldest first and at most ACCOUNTS_MAX. Refused if there is none."""
    store, only = engine.store, operator.accounts
    if only is None:
        rows = await store.query(None, f"{SYSTEM}/acct_", limit=ACCOUNTS_MAX, order="oldest")
    else:
        found = await store.get_many([f"{SYSTEM}/{id}" for id in only[:ACCOUNTS_MAX]])
        rows = [found[key] for key in sorted(found)]
    accounts = [decode(row.key.partition("/")[2], row.body) for row in rows]
    mine = [account for account in accounts if isinstance(account, Account)]
    if not mine:
        raise Refused("operator_forbidden", "You do not work for any merchant of this installation.")
    return sorted(mine, key=lambda account: account.created)


async def admins_of(engine: Engine, account: str) -> list[Operator]:
    """The admins of a merchant: first those with an e-mail address, then those of single merchants."""
    found = [one async for one in records_of(engine.store, SYSTEM, Operator) if one.governs(account)]
    return sorted(found, key=lambda one: (not one.email, one.accounts is None, one.created, one.id))


def caller_of(operator: Operator, operation: str, address: str | None) -> Caller:
    """The operator as the author of a change that no merchant's call makes."""
    caller = Caller(scope=NOWHERE, scope_key=SYSTEM, operation=operation, actor=operator.id)
    caller.hint, caller.client_ip = operator.name, address
    return caller
