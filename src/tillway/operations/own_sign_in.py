"""An operator's own sign-in: proofs of who they are, sessions, the password, and the second factor."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.cards import Secret
from tillway.domain.dashboard import DashboardSession, Factor
from tillway.domain.operator import Operator
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.domain.sign_in_proofs import (
    SignInProofs,
    check_email,
    check_password,
    needs_second_factor,
    proofs_id,
    recovery_digest,
)
from tillway.engine.core import Engine, Load
from tillway.operations.password_sign_ins import (
    after_code,
    authenticator_address,
    hash_password,
    is_password,
    new_codes,
    step_of,
)
from tillway.operations.sign_in_tries import count_try, take_back, tell_of_refusal
from tillway.operations.sign_ins import Browser, Renewed, SignedIn, caller_of, renew_session
from tillway.store.walk import records_of
from tillway.vault.port import Vault

ENDED_AT_ONCE = 50
"""Sessions that one commit ends."""

Outcome = Literal["right", "wrong", "wait", "unable"]
"""The outcome of a proof. `wait`: there were too many wrong tries; `unable`: the operator has no password."""


class NewSecret(msgspec.Struct, frozen=True):
    """An authenticator's new secret (base32), and the address (`otpauth://…`) with it. Both are shown once."""

    secret: str
    address: str


async def proofs_of(engine: Engine, operator: Operator) -> SignInProofs | None:
    """The proofs of an operator; None if they have no password."""
    async for proofs in records_of(engine.store, SYSTEM, SignInProofs):
        if proofs.operator == operator.id:
            return proofs
    return None


def is_strong(engine: Engine, signed: SignedIn) -> bool:
    """Whether the operator has proved within STRONG_SECONDS who they are."""
    return signed.session.strong_until > engine.clock.now_ms() // 1000


async def prove_again(
    engine: Engine, vault: Vault, signed: SignedIn, given: str, browser: Browser
) -> Renewed | Outcome:
    """Try a code of the authenticator or a recovery code; the password where there is no second factor. The right one
    makes the session strong for STRONG_SECONDS, and gives it a new token."""
    proofs, now = await proofs_of(engine, signed.operator), engine.clock.now_ms() // 1000
    if proofs is None:
        return "unable"
    counted = await count_try(engine, email=proofs.email, source=browser.source)
    if counted is None:
        return "wait"
    code, fits = given.replace(" ", ""), True
    factor: Factor = "password"
    step: int | None = None
    if proofs.totp:
        step = step_of(vault.open_text(SYSTEM, proofs.id, proofs.totp).reveal(), code, now)
        factor = "recovery_code" if step is None else "totp"
    else:
        fits = await asyncio.to_thread(is_password, proofs.password, given)

    async def use_up(load: Load, at: Moment) -> tuple[Record, ...] | None:
        current = await load.maybe(SignInProofs, proofs.id)
        if not fits or current is None or (current.password, current.totp) != (proofs.password, proofs.totp):
            return None
        after = after_code(current, step, code) if current.totp else current
        return None if after is None else (after,)

    renewed = await renew_session(engine, signed, factor, browser, use_up)
    if renewed is None:
        await tell_of_refusal(engine, signed.operator, "code" if proofs.totp else "password", browser.address)
        return "wrong"
    await take_back(engine, counted, forgets=True)
    return renewed


async def sessions_of(engine: Engine, operator: Operator) -> list[DashboardSession]:
    """The operator's sessions that are open, the last used first."""
    now = engine.clock.now_ms() // 1000
    found = [one for one in await _all_sessions(engine, operator) if one.expires_at > now]
    return sorted(found, key=lambda one: one.seen_at, reverse=True)


async def _all_sessions(engine: Engine, operator: Operator) -> list[DashboardSession]:
    return [
        session
        async for session in records_of(engine.store, SYSTEM, DashboardSession)
        if session.operator == operator.id
    ]


async def end_other_sessions(engine: Engine, signed: SignedIn, *, address: str | None) -> None:
    """End each session of the operator but this one."""
    ids = [one.id for one in await _all_sessions(engine, signed.operator) if one.id != signed.session.id]
    for first in range(0, len(ids), ENDED_AT_ONCE):
        part = tuple(ids[first : first + ENDED_AT_ONCE])

        async def work(load: Load, at: Moment, part: tuple[str, ...] = part) -> Changes[None]:
            open_still = tuple([id for id in part if await load.maybe(DashboardSession, id) is not None])
            detail = {"sessions": len(open_still), "name": signed.operator.name}
            return Changes(result=None, deletes=open_still, detail=detail if open_still else {})

        await engine.run(caller_of(signed.operator, "dashboard sessions end", address), work)


async def change_password(engine: Engine, signed: SignedIn, present: str, new: str, browser: Browser) -> Outcome:
    """Change the password, and end each other session. A session that is not strong needs the present one.

    Refused `parameter_invalid_string` for a new one that is easily guessed.
    """
    proofs = await proofs_of(engine, signed.operator)
    if proofs is None:
        return "unable"
    check_password(new, signed.operator, proofs.email)
    if not is_strong(engine, signed):
        if not present:
            return "wrong"
        counted = await count_try(engine, email=proofs.email, source=browser.source)
        if counted is None:
            return "wait"
        if not await asyncio.to_thread(is_password, proofs.password, present):
            await tell_of_refusal(engine, signed.operator, "password", browser.address)
            return "wrong"
        await take_back(engine, counted, forgets=not proofs.totp)
    hashed = await asyncio.to_thread(hash_password, new)
    changed = False

    async def work(load: Load, at: Moment) -> Changes[None]:
        nonlocal changed
        current = await load.maybe(SignInProofs, proofs.id)
        changed = current is not None and current.password == proofs.password
        if current is None or not changed:
            return Changes(result=None)
        after = msgspec.structs.replace(current, password=hashed)
        return Changes(result=None, records=(after,), detail={"name": signed.operator.name})

    await engine.run(caller_of(signed.operator, "dashboard password", browser.address), work)
    if not changed:
        return "wrong"
    await end_other_sessions(engine, signed, address=browser.address)
    return "right"


async def set_first_password(
    engine: Engine, signed: SignedIn, email: str, new: str, *, address: str | None
) -> Literal["right", "unable"]:
    """Give an operator who has no password their first one, and the address to sign in with. `unable`: there is one.

    Refused `email_invalid` for an address that is none or another operator's, and `parameter_invalid_string` for a
    password that is easily guessed.
    """
    if await proofs_of(engine, signed.operator) is not None:
        return "unable"
    email = check_email(email)
    check_password(new, signed.operator, email)
    hashed = await asyncio.to_thread(hash_password, new)

    async def work(load: Load, at: Moment) -> Changes[None]:
        taken = await load.maybe(SignInProofs, proofs_id(email)) is not None or await _is_anothers(
            engine, signed, email
        )
        if taken:
            raise Refused("email_invalid", "Another operator signs in with this address.", param="email")
        made = SignInProofs(
            id=proofs_id(email), created=at.created, operator=signed.operator.id, email=email, password=hashed
        )
        return Changes(result=None, records=(made,), detail={"name": signed.operator.name})

    await engine.run(caller_of(signed.operator, "dashboard password", address), work)
    return "right"


async def _is_anothers(engine: Engine, signed: SignedIn, email: str) -> bool:
    """Whether another operator was invited with the address: by it, single sign-on finds that one."""
    async for one in records_of(engine.store, SYSTEM, Operator):
        if one.id != signed.operator.id and one.email.lower() == email.lower():
            return True
    return False


async def begin_authenticator(
    engine: Engine, vault: Vault, signed: SignedIn, *, address: str | None
) -> NewSecret | None:
    """Make a secret for an authenticator. It counts from its confirmation on. None if there is no password."""
    import pyotp

    proofs = await proofs_of(engine, signed.operator)
    if proofs is None:
        return None
    secret = pyotp.random_base32()
    pending = vault.seal_text(SYSTEM, proofs.id, Secret(secret))
    await _change(engine, signed, proofs, "dashboard authenticator begin", address, pending=pending)
    return NewSecret(secret, authenticator_address(secret, proofs.email))


async def confirm_authenticator(
    engine: Engine, vault: Vault, signed: SignedIn, code: str, browser: Browser
) -> tuple[str, ...] | Outcome:
    """Turn the authenticator on with its first code. Return new recovery codes, which are shown once."""
    proofs, now = await proofs_of(engine, signed.operator), engine.clock.now_ms() // 1000
    if proofs is None or not proofs.pending:
        return "unable"
    counted = await count_try(engine, email=proofs.email, source=browser.source)
    if counted is None:
        return "wait"
    step = step_of(vault.open_text(SYSTEM, proofs.id, proofs.pending).reveal(), code.replace(" ", ""), now)
    if step is None:
        await tell_of_refusal(engine, signed.operator, "code", browser.address)
        return "wrong"
    await take_back(engine, counted, forgets=True)
    codes = new_codes()
    fields = {"totp": proofs.pending, "totp_step": step, "pending": "", "recovery": _digests(codes)}
    done = await _change(engine, signed, proofs, "dashboard authenticator", browser.address, **fields)
    return codes if done else "wrong"


async def new_recovery_codes(engine: Engine, signed: SignedIn, *, address: str | None) -> tuple[str, ...]:
    """New recovery codes in place of the earlier ones. None at all if there is no second factor."""
    proofs = await proofs_of(engine, signed.operator)
    if proofs is None or not proofs.totp:
        return ()
    codes = new_codes()
    done = await _change(engine, signed, proofs, "dashboard recovery codes", address, recovery=_digests(codes))
    return codes if done else ()


async def switch_authenticator_off(engine: Engine, signed: SignedIn, *, address: str | None) -> None:
    """Take the second factor away. Refused `operator_forbidden` for a role that needs one."""
    if needs_second_factor(signed.operator, for_all=engine.settings.second_factor_for_all):
        raise Refused("operator_forbidden", f"The role {signed.operator.role} needs a second factor.")
    proofs = await proofs_of(engine, signed.operator)
    if proofs is not None:
        operation = "dashboard authenticator off"
        await _change(engine, signed, proofs, operation, address, totp="", pending="", recovery=())


async def _change(
    engine: Engine, signed: SignedIn, proofs: SignInProofs, operation: str, address: str | None, **fields: object
) -> bool:
    """Change fields of the proofs, unless another change of the second factor came first."""
    done = False

    async def work(load: Load, at: Moment) -> Changes[None]:
        nonlocal done
        current = await load.maybe(SignInProofs, proofs.id)
        done = current is not None and (current.totp, current.pending) == (proofs.totp, proofs.pending)
        if current is None or not done:
            return Changes(result=None)
        after = msgspec.structs.replace(current, **fields)
        return Changes(result=None, records=(after,), detail={"name": signed.operator.name})

    await engine.run(caller_of(signed.operator, operation, address), work)
    return done


def _digests(codes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(recovery_digest(code) for code in codes)
