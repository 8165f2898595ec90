"""Operators as an admin sees and changes them: invite, change the role, reset, disable, end sessions.

An admin of some merchants sees who works for one of them, and changes those who work for no other. Each change is an
entry of the installation's audit trail.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec

from tillway.domain.account import SYSTEM, Account
from tillway.domain.dashboard import INVITED_SECONDS, DashboardSession, IdentityLink, SignInLink, link_id
from tillway.domain.key_use import KeyUse, use_id
from tillway.domain.operator import NAME_MAX, Operator, OperatorKey, Role, lost_places
from tillway.domain.passkey import Passkey
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.domain.sign_in_proofs import SignInProofs, check_email
from tillway.engine.caller import Caller
from tillway.engine.core import Engine, Load
from tillway.operations import key_requests
from tillway.operations.operators import new_operator
from tillway.operations.sign_ins import new_link
from tillway.store.codec import decode
from tillway.store.port import Store
from tillway.store.walk import records_of

OPERATORS_MAX = 500
"""Most operators of an installation that may be invited at the API; a list shows them all."""

GET_MAX = 100
"""Most records that a store reads at once."""

BELONGINGS_MAX = 80
"""Records of an operator that one commit ends."""


PROOFS: tuple[type[Record], ...] = (SignInProofs, Passkey, IdentityLink)
"""The records that an operator signs in by."""


class Known(msgspec.Struct, frozen=True):
    """An operator with how they sign in, as the store has it now. `seen_at` and the times of links are epoch
    seconds; `sessions` are those that are open, the last used first."""

    operator: Operator
    proofs: SignInProofs | None
    links: tuple[SignInLink, ...]
    sessions: tuple[DashboardSession, ...]
    keys: int
    passkeys: int
    identities: int
    seen_at: int | None

    @property
    def email(self) -> str:
        return self.proofs.email if self.proofs is not None else self.operator.email

    @property
    def signs_in_with(self) -> list[str]:
        """How they prove who they are: `passkey`, `password`, `totp`, `oidc`."""
        proofs = self.proofs
        totp = proofs is not None and proofs.totp
        all_of = (("passkey", self.passkeys), ("password", proofs), ("totp", totp), ("oidc", self.identities))
        return [word for word, has in all_of if has]


class Linked(msgspec.Struct, frozen=True):
    """An operator with the token of a new address that signs them in once. It is empty where a request is repeated
    under its Idempotency-Key."""

    operator: Operator
    token: str


async def operators_of(engine: Engine, caller: Caller) -> list[Known]:
    """The operators that the caller may see, in the order of their names."""
    found = [one async for one in records_of(engine.store, SYSTEM, Operator) if _sees(caller, one)]
    known = await _describe(engine, found)
    return sorted(known, key=lambda one: (one.operator.disabled_at is not None, one.operator.name.lower()))


async def operator_of(engine: Engine, caller: Caller, id: str) -> Known:
    """One operator. Refused `resource_missing` where the caller may not see them, as for one that never was."""
    return (await _describe(engine, [await _find(engine.load(SYSTEM), caller, id)]))[0]


async def invite(
    engine: Engine, caller: Caller, *, name: str, email: str, role: Role, accounts: tuple[str, ...] | None
) -> Linked:
    """Make an operator, and an address that signs them in once within INVITED_SECONDS.

    Refused `parameter_invalid_string` for a name that is taken, `email_invalid`, `resource_missing` for an unknown
    merchant, and `operator_forbidden` for one that the caller does not work for. A repetition under the caller's
    Idempotency-Key returns the operator that was made, without a token.
    """
    name = _name(name)
    email = check_email(email) if email else ""
    place, made = f"{SYSTEM}/{caller.actor}", list[Linked]()

    async def work(load: Load, at: Moment) -> Changes[None]:
        before = await key_requests.made_before(load, caller, place, at)
        if before is not None:
            made.append(Linked(await _find(load, caller, before), ""))
            return Changes(result=None)
        there = [one async for one in records_of(engine.store, SYSTEM, Operator)]
        if any(one.name.lower() == name.lower() for one in there):
            raise _wrong("name", f"There is an operator {name} already.")
        if email and any(one.email.lower() == email.lower() for one in there):
            raise Refused("email_invalid", "There is an operator with this e-mail address already.", param="email")
        if len(there) >= OPERATORS_MAX:
            raise _wrong("name", f"An installation has at most {OPERATORS_MAX} operators; disabled ones count.")
        await _check_accounts(load, caller, accounts)
        operator = new_operator(name, role, accounts, created=at.created, email=email)
        token, link = _invitation(operator, at)
        made.append(Linked(operator, token))
        marks = key_requests.marks(caller, place, operator.id, at)
        return Changes(result=None, records=(operator, link, *marks), detail={"name": name})

    await engine.run(_for_installation(caller), work)
    return made[-1]


async def change(
    engine: Engine, caller: Caller, id: str, *, role: Role | None, accounts: tuple[str, ...] | None, everywhere: bool
) -> Operator:
    """Change the role, or the merchants that an operator works for. `accounts` None: leave them, or, with `everywhere`,
    every merchant.

    Refused `operator_forbidden` for an operator of other merchants, and where no admin would be left.
    """

    def decide(before: Operator, at: Moment) -> Operator:
        works_for = accounts if accounts is not None or everywhere else before.accounts
        return msgspec.structs.replace(before, role=role or before.role, accounts=works_for)

    async def work(load: Load, at: Moment) -> Changes[None]:
        if accounts is not None or everywhere:
            await _check_accounts(load, caller, accounts)
        before = await _find(load, caller, id, to_change=True)
        after = decide(before, at)
        guards = await _check_admins(engine.store, load, before, after)
        changed.append(after)
        return Changes(result=None, records=(after, *guards) if after != before else ())

    changed = list[Operator]()
    await engine.run(_for_installation(caller), work)
    return changed[-1]


async def disable(engine: Engine, caller: Caller, id: str) -> Operator:
    """Refuse an operator's keys and sign-ins from now on, and end the sessions. The last admin stays."""
    disabled = list[Operator]()

    async def work(load: Load, at: Moment) -> Changes[None]:
        before = await _find(load, caller, id, to_change=True)
        after = msgspec.structs.replace(before, disabled_at=before.disabled_at or at.now)
        guards = await _check_admins(engine.store, load, before, after)
        ended = await _belongings(engine.store, load, id, SignInLink, DashboardSession)
        disabled.append(after)
        records = (after, *guards) if after != before else ()
        detail = _detail_of(before, ended) if records or ended else {}
        return Changes(result=None, records=records, deletes=ended, detail=detail)

    await engine.run(_for_installation(caller), work)
    await _end_rest(engine, caller, disabled[-1], SignInLink, DashboardSession)
    return disabled[-1]


async def enable(engine: Engine, caller: Caller, id: str) -> Operator:
    """Let a disabled operator in again, with the keys and the password that they had."""
    enabled = list[Operator]()

    async def work(load: Load, at: Moment) -> Changes[None]:
        before = await _find(load, caller, id, to_change=True)
        after = msgspec.structs.replace(before, disabled_at=None)
        enabled.append(after)
        return Changes(result=None, records=(after,) if after != before else ())

    await engine.run(_for_installation(caller), work)
    return enabled[-1]


async def reset(engine: Engine, caller: Caller, id: str) -> Linked:
    """End all that an operator signs in with, keys included, and make an address that signs them in once.

    For a lost phone, or a key that others have seen. A disabled operator stays disabled. Refused as `change`. A
    repetition under the caller's Idempotency-Key ends nothing that came after the first, and returns no token.
    """
    place, made = f"{SYSTEM}/{caller.actor}", list[Linked]()

    async def work(load: Load, at: Moment) -> Changes[None]:
        operator = await _find(load, caller, id, to_change=True)
        if await key_requests.made_before(load, caller, place, at) is not None:
            made.append(Linked(operator, ""))
            return Changes(result=None)
        if operator.disabled_at is not None:
            raise Refused("operator_forbidden", f"{operator.name} is disabled. Enable them first.")
        revoked: list[Record] = []
        async for key in records_of(engine.store, SYSTEM, OperatorKey):
            if key.operator == id and key.revoked_at is None:
                current = await load.maybe(OperatorKey, key.id)
                revoked += [msgspec.structs.replace(current, revoked_at=at.now)] if current is not None else []
        ended = await _belongings(engine.store, load, id, *PROOFS, SignInLink, DashboardSession)
        token, link = _invitation(operator, at)
        made.append(Linked(operator, token))
        detail = _detail_of(operator, ended) | {"keys": len(revoked)}
        marks = key_requests.marks(caller, place, operator.id, at)
        return Changes(result=None, records=(*revoked, link, *marks), deletes=ended, detail=detail)

    await engine.run(_for_installation(caller), work)
    if made[-1].token:
        await _end_rest(
            engine, caller, made[-1].operator, *PROOFS, SignInLink, DashboardSession, but=link_id(made[-1].token)
        )
    return made[-1]


async def sign_out(engine: Engine, caller: Caller, id: str, session: str | None) -> Operator:
    """End a session of an operator, or all of them. Refused `resource_missing` for a session of another one."""
    found = list[Operator]()

    async def work(load: Load, at: Moment) -> Changes[None]:
        operator = await _find(load, caller, id, to_change=True)
        found.append(operator)
        if session is None:
            ended = await _belongings(engine.store, load, id, DashboardSession)
        else:
            one = await load.maybe(DashboardSession, session)
            if one is None or one.operator != id:
                raise Refused("resource_missing", f"No such session: '{session[:100]}'", param="session")
            ended = (one.id,)
        return Changes(result=None, deletes=ended, detail=_detail_of(operator, ended) if ended else {})

    await engine.run(_for_installation(caller), work)
    if session is None:
        await _end_rest(engine, caller, found[-1], DashboardSession)
    return found[-1]


async def _end_rest(engine: Engine, caller: Caller, operator: Operator, *kinds: type[Record], but: str = "") -> None:
    """End the records of an operator that one commit had no room for, except `but`."""
    left = [True]

    async def work(load: Load, at: Moment) -> Changes[None]:
        ended = await _belongings(engine.store, load, operator.id, *kinds, but=but)
        left.append(bool(ended))
        return Changes(result=None, deletes=ended, detail=_detail_of(operator, ended) if ended else {})

    while left[-1]:
        await engine.run(_for_installation(caller), work)


def _invitation(operator: Operator, at: Moment) -> tuple[str, SignInLink]:
    return new_link(operator.id, created=at.created, now=at.now, good_seconds=INVITED_SECONDS)


def _detail_of(operator: Operator, ended: tuple[str, ...]) -> dict[str, object]:
    """The detail of an audit entry: the operator, and how many records of their sign-ins ended."""
    return {"operator": operator.id, "name": operator.name, "ended": len(ended)}


async def _belongings(store: Store, load: Load, operator: str, *kinds: type[Record], but: str = "") -> tuple[str, ...]:
    """The ids of an operator's records of these types except `but`, at most BELONGINGS_MAX, read for the commit."""
    ids: list[str] = []
    for kind in kinds:
        async for record in records_of(store, SYSTEM, kind):
            mine = getattr(record, "operator", "") == operator and record.id != but
            if mine and len(ids) < BELONGINGS_MAX:
                ids += [record.id] if await load.find(record.id) is not None else []
    return tuple(ids)


async def _describe(engine: Engine, operators: list[Operator]) -> list[Known]:
    store, now = engine.store, engine.clock.now_ms() // 1000
    proofs = {one.operator: one async for one in records_of(store, SYSTEM, SignInProofs)}
    links: defaultdict[str, list[SignInLink]] = defaultdict(list)
    async for link in records_of(store, SYSTEM, SignInLink):
        links[link.operator] += [link] if link.expires_at > now else []
    sessions: defaultdict[str, list[DashboardSession]] = defaultdict(list)
    async for session in records_of(store, SYSTEM, DashboardSession):
        sessions[session.operator] += [session] if session.expires_at > now else []
    keys: defaultdict[str, int] = defaultdict(int)
    async for key in records_of(store, SYSTEM, OperatorKey):
        keys[key.operator] += key.revoked_at is None
    passkeys = Counter([one.operator async for one in records_of(store, SYSTEM, Passkey)])
    identities = Counter([one.operator async for one in records_of(store, SYSTEM, IdentityLink)])
    uses = await _uses(store, operators)
    known = []
    for one in operators:
        open_now = sorted(sessions[one.id], key=lambda session: session.seen_at, reverse=True)
        seen = [*(session.seen_at for session in open_now), *([uses[one.id]] if one.id in uses else [])]
        known.append(
            Known(
                one,
                proofs.get(one.id),
                tuple(links[one.id]),
                tuple(open_now),
                keys[one.id],
                passkeys[one.id],
                identities[one.id],
                max(seen, default=None),
            )
        )
    return known


async def _uses(store: Store, operators: list[Operator]) -> dict[str, int]:
    """When each operator was last seen, by their ids, as far as it is written down."""
    used: dict[str, int] = {}
    for first in range(0, len(operators), GET_MAX):
        part = operators[first : first + GET_MAX]
        for row in (await store.get_many([f"{SYSTEM}/{use_id(one.id)}" for one in part])).values():
            use = decode(row.key.partition("/")[2], row.body)
            if isinstance(use, KeyUse):
                used[use.id.removeprefix(use_id(""))] = use.last_used_at
    return used


async def _find(load: Load, caller: Caller, id: str, *, to_change: bool = False) -> Operator:
    found = await load.maybe(Operator, id)
    if found is None or not _sees(caller, found):
        raise Refused("resource_missing", f"No such operator: '{id[:100]}'", param="id")
    mine = caller.works_for
    if to_change and mine is not None and (found.accounts is None or not set(found.accounts) <= set(mine)):
        raise Refused("operator_forbidden", f"{found.name} works for merchants that you do not work for.")
    return found


def _sees(caller: Caller, operator: Operator) -> bool:
    mine = caller.works_for
    return mine is None or operator.accounts is None or not set(operator.accounts).isdisjoint(mine)


async def _check_accounts(load: Load, caller: Caller, accounts: tuple[str, ...] | None) -> None:
    """Refuse merchants that are none, or that the caller does not work for."""
    mine = caller.works_for
    if mine is not None and (accounts is None or not set(accounts) <= set(mine)):
        raise Refused("operator_forbidden", "You do not work for each of these merchants.", param="accounts")
    for id in accounts or ():
        await load.get(Account, id, param="accounts", noun="account")


async def _check_admins(store: Store, load: Load, before: Operator, after: Operator) -> tuple[Operator, ...]:
    """Refuse a change that takes the last admin of a merchant, or of the installation, away.

    Return admins who stay: they are rewritten unchanged, so that of two admins who take each other away only one can.
    """
    guards: dict[str, Operator] = {}
    for place in lost_places(before, after):
        others = [
            one async for one in records_of(store, SYSTEM, Operator) if one.id != before.id and one.governs(place)
        ]
        current = [one for each in others[:1] if (one := await load.maybe(Operator, each.id)) is not None]
        if not current or not current[0].governs(place):
            of = f"the merchant {place}" if place is not None else "the installation"
            raise Refused("operator_forbidden", f"{before.name} is the last admin of {of}. Make another one first.")
        guards[current[0].id] = current[0]
    return tuple(guards.values())


def _name(name: str) -> str:
    text = " ".join(name.split())
    if not text or len(text) > NAME_MAX or not text.isprintable():
        raise _wrong("name", f"The name has 1 to {NAME_MAX} characters.")
    return text


def _wrong(param: str, why: str) -> Refused:
    return Refused("parameter_invalid_string", why, param=param)


def _for_installation(caller: Caller) -> Caller:
    """The caller, for a change of the installation's own records."""
    return msgspec.structs.replace(caller, scope_key=SYSTEM, idempotency=None)
