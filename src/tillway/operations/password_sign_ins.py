"""Sign in to the dashboard with a password and a second factor; set both for an operator."""

from __future__ import annotations

import asyncio
import hmac
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Literal

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.cards import Secret
from tillway.domain.dashboard import Factor
from tillway.domain.operator import Operator
from tillway.domain.record import Changes, Moment
from tillway.domain.sign_in_proofs import (
    RECOVERY_CODES,
    TICKET_SECONDS,
    SignInProofs,
    SignInTicket,
    check_email,
    check_password,
    needs_second_factor,
    proofs_id,
    recovery_digest,
    ticket_id,
)
from tillway.engine.core import Engine, Load
from tillway.engine.ids import random_text
from tillway.operations.sign_in_tries import OPERATION, count_try, take_back, tell_of_refusal
from tillway.operations.sign_ins import TOKEN_LENGTH, Browser, caller_of, open_session
from tillway.vault.port import Vault

if TYPE_CHECKING:
    import argon2

ISSUER = "Tillway"
STEP_SECONDS = 30
"""The step of a code (RFC 6238)."""

CHECKS_AT_ONCE = 2
"""Most passwords that a process checks at a time."""


class Opened(msgspec.Struct, frozen=True):
    """A session was opened; `token` is the cookie's."""

    token: str


class CodeNeeded(msgspec.Struct, frozen=True):
    """The password is right, and a code is needed: `ticket` goes into its form."""

    ticket: str
    email: str


Answer = Opened | CodeNeeded | Literal["wrong", "wait"]


class NewProofs(msgspec.Struct, frozen=True):
    """New proofs, with the texts that are shown once: the address for an authenticator and the recovery codes."""

    proofs: SignInProofs
    address: str = ""
    recovery_codes: tuple[str, ...] = ()


def new_proofs(
    operator: Operator, email: str, password: str, vault: Vault, *, second_factor: bool, created: int
) -> NewProofs:
    """Make the proofs of an operator. Those who need a second factor always get one.

    It takes some 50 ms of processor time. Refused `email_invalid`, or `parameter_invalid_string` for a password that is
    easily guessed.
    """
    email = check_email(email)
    hashed = hash_password(check_password(password, operator, email))
    proofs = SignInProofs(id=proofs_id(email), created=created, operator=operator.id, email=email, password=hashed)
    if not second_factor and not needs_second_factor(operator, for_all=False):
        return NewProofs(proofs)
    import pyotp

    secret, codes = pyotp.random_base32(), new_codes()
    proofs = msgspec.structs.replace(
        proofs,
        totp=vault.seal_text(SYSTEM, proofs.id, Secret(secret)),
        recovery=tuple(recovery_digest(code) for code in codes),
    )
    return NewProofs(proofs, authenticator_address(secret, email), codes)


def new_codes() -> tuple[str, ...]:
    """New recovery codes: RECOVERY_CODES of four groups of six characters, with hyphens between.

    24 such characters have over 120 random bits. With fewer than 112, their digests would need a slow hash (ASVS 5.0,
    6.5.2).
    """
    return tuple("-".join(random_text(6).lower() for _ in range(4)) for _ in range(RECOVERY_CODES))


def authenticator_address(secret: str, email: str) -> str:
    """The address that gives an authenticator its secret, `otpauth://totp/…`."""
    import pyotp

    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=ISSUER)


async def sign_in_by_password(engine: Engine, email: str, password: str, browser: Browser) -> Answer:
    """Try a password. The answer and its time are the same whether the address is known or not."""
    counted = await count_try(engine, email=email, source=browser.source)
    if counted is None:
        return "wait"
    load = engine.load(SYSTEM)
    proofs = await load.maybe(SignInProofs, proofs_id(email))
    operator = await load.maybe(Operator, proofs.operator) if proofs is not None else None
    hashed = proofs.password if proofs is not None else _nobodys_hash()
    right = await asyncio.get_running_loop().run_in_executor(_threads(), is_password, hashed, password)
    known = operator is not None and operator.disabled_at is None
    # A role that grew after the password was set needs a second factor first.
    for_all = engine.settings.second_factor_for_all
    lacks = proofs is not None and operator is not None and not proofs.totp
    lacks = lacks and operator is not None and needs_second_factor(operator, for_all=for_all)
    if proofs is None or operator is None or not known or not right or lacks:
        await tell_of_refusal(engine, operator, "password", browser.address)
        return "wrong"
    await take_back(engine, counted, forgets=not proofs.totp)
    if proofs.totp:
        return await _ask_for_code(engine, operator, proofs, browser.address)
    return Opened(await open_session(engine, operator, "password", browser, strong=False))


async def _ask_for_code(engine: Engine, operator: Operator, proofs: SignInProofs, address: str | None) -> CodeNeeded:
    token = random_text(TOKEN_LENGTH)

    async def work(load: Load, at: Moment) -> Changes[None]:
        ticket = SignInTicket(
            id=ticket_id(token), created=at.created, proofs=proofs.id, expires_at=at.now + TICKET_SECONDS
        )
        return Changes(result=None, records=(ticket,))

    await engine.run(caller_of(operator, OPERATION, address), work)
    return CodeNeeded(token, proofs.email)


async def sign_in_by_code(engine: Engine, vault: Vault, ticket: str, code: str, browser: Browser) -> Answer:
    """Try a code of the authenticator, or a recovery code, after the password. A code is good once."""
    load, now = engine.load(SYSTEM), engine.clock.now_ms() // 1000
    found = await load.maybe(SignInTicket, ticket_id(ticket))
    proofs = await load.maybe(SignInProofs, found.proofs) if found is not None and found.expires_at > now else None
    operator = await load.maybe(Operator, proofs.operator) if proofs is not None else None
    counted = await count_try(engine, email=proofs.email if proofs is not None else "", source=browser.source)
    if counted is None:
        return "wait"
    if proofs is None or operator is None or operator.disabled_at is not None or not proofs.totp:
        return "wrong"
    secret = vault.open_text(SYSTEM, proofs.id, proofs.totp).reveal()
    given = code.replace(" ", "")
    step = step_of(secret, given, now)
    factor: Factor = "totp" if step is not None else "recovery_code"
    rights: list[bool] = []

    async def work(load: Load, at: Moment) -> Changes[None]:
        current = await load.maybe(SignInProofs, proofs.id)
        pending = await load.maybe(SignInTicket, ticket_id(ticket))
        fits = current is not None and pending is not None and current.totp == proofs.totp
        after = after_code(current, step, given) if current is not None and fits else None
        rights.append(after is not None)
        if after is None or pending is None:
            return Changes(result=None)
        return Changes(result=None, records=(after,), deletes=(pending.id,))

    await engine.run(caller_of(operator, OPERATION, browser.address), work)
    if not rights[-1]:
        await tell_of_refusal(engine, operator, "code", browser.address)
        return "wrong"
    await take_back(engine, counted, forgets=True)
    return Opened(await open_session(engine, operator, factor, browser, strong=True))


def after_code(proofs: SignInProofs, step: int | None, code: str) -> SignInProofs | None:
    """The proofs after a code was used; None where it was used before, or is none."""
    if step is not None:
        if step <= proofs.totp_step:
            return None
        return msgspec.structs.replace(proofs, totp_step=step)
    digest = recovery_digest(code)
    if digest not in proofs.recovery:
        return None
    rest = tuple(each for each in proofs.recovery if each != digest)
    return msgspec.structs.replace(proofs, recovery=rest)


def step_of(secret: str, code: str, now: int) -> int | None:
    """The step that the code is of: this one, the one before, or the next; None if it is of none of these."""
    import pyotp

    if len(code) != 6 or not code.isdecimal() or not code.isascii():
        return None
    totp, current = pyotp.TOTP(secret), now // STEP_SECONDS
    matching = [
        step for step in (current - 1, current, current + 1) if hmac.compare_digest(totp.at(step * STEP_SECONDS), code)
    ]
    return matching[-1] if matching else None


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads of their own, and few: each check takes 64 MiB, and the store and the request log need threads too."""
    return ThreadPoolExecutor(CHECKS_AT_ONCE, thread_name_prefix="password")


@cache
def _hasher() -> argon2.PasswordHasher:
    """argon2id with the parameters of RFC 9106 for little memory: 64 MiB, three passes, four lanes."""
    import argon2

    return argon2.PasswordHasher.from_parameters(argon2.profiles.RFC_9106_LOW_MEMORY)


def hash_password(password: str) -> str:
    """The argon2id hash of a password. It takes some 50 ms of processor time."""
    return _hasher().hash(password)


@cache
def _nobodys_hash() -> str:
    """A hash that no password has, so that an unknown address takes as long as a known one."""
    return hash_password(random_text(TOKEN_LENGTH))


def is_password(hashed: str, password: str) -> bool:
    """Whether the password has that hash. It takes some 50 ms of processor time."""
    import argon2

    try:
        return _hasher().verify(hashed, password[:1000])
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False
