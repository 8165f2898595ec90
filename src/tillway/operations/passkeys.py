"""Passkeys of operators: register one, sign in with it, prove with it who one is, remove it."""

from __future__ import annotations

import ipaddress
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.cards import Secret
from tillway.domain.dashboard import IdentityLink
from tillway.domain.operator import Operator
from tillway.domain.passkey import (
    NAME_MAX,
    PASSKEYS_MAX,
    Passkey,
    UsedChallenge,
    challenge_until,
    new_challenge,
    passkey_id,
    used_id,
)
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.domain.sign_in_proofs import SignInProofs, needs_second_factor
from tillway.engine.core import Engine, Load
from tillway.operations.sign_ins import (
    Browser,
    Renewed,
    SignedIn,
    UseUp,
    caller_of,
    open_session_with,
    renew_session,
)
from tillway.store.walk import records_of

if TYPE_CHECKING:
    from fido2.server import Fido2Server
    from fido2.webauthn import AuthenticationResponse

CHALLENGES_PURPOSE = "passkey_challenges"
"""The purpose of the key that signs challenges."""

SITE = "Tillway"
_SIGN_IN = "sign in"

Answer = dict[str, Any]
"""The answer of a browser to a challenge, in WebAuthn's JSON form."""


ONLY_WAY_IN = (
    "This passkey is the only way in that you have. Set a password with a code from an app first, or add another "
    "passkey."
)


class Passkeys:
    """The passkeys for the pages at one origin, such as https://pay.example.com."""

    def __init__(self, engine: Engine, key: Secret[bytes], origin: str) -> None:
        """`key` signs challenges: 32 bytes."""
        self._engine = engine
        self._key = key
        self._origin = origin
        self._site = urlsplit(origin).hostname or ""

    @property
    def possible(self) -> bool:
        """Whether browsers make passkeys for the origin: it must have a name, and not only an address."""
        try:
            ipaddress.ip_address(self._site)
        except ValueError:
            return bool(self._site)
        return False

    async def are_there(self) -> bool:
        """Whether any operator has a passkey."""
        return self.possible and bool(await self._engine.store.query(None, f"{SYSTEM}/dpk_", limit=1))

    async def ask_for_new(self, signed: SignedIn) -> dict[str, Any]:
        """The options with which a browser makes a passkey for the operator."""
        from fido2.webauthn import PublicKeyCredentialUserEntity, ResidentKeyRequirement, UserVerificationRequirement

        operator = signed.operator
        user = PublicKeyCredentialUserEntity(id=operator.id.encode(), name=operator.name, display_name=operator.name)
        options, _ = self._server().register_begin(
            user,
            [_credential_of(one) for one in await passkeys_of(self._engine, operator)],
            resident_key_requirement=ResidentKeyRequirement.REQUIRED,
            user_verification=UserVerificationRequirement.REQUIRED,
            challenge=self._challenge(_register(signed)),
        )
        return dict(options.public_key)

    async def add(self, signed: SignedIn, name: str, answer: Answer, *, address: str | None) -> Passkey | None:
        """Keep a new passkey. None where the answer is not one to this session's challenge.

        Refused `parameter_invalid_string` where the operator has PASSKEYS_MAX of them already.
        """
        made = self._made(signed, answer)
        if made is None:
            return None
        credential, count = made
        id = passkey_id(bytes(credential.credential_id))
        kept = list[Passkey | None]()

        async def work(load: Load, at: Moment) -> Changes[None]:
            mine = await passkeys_of(self._engine, signed.operator)
            if len(mine) >= PASSKEYS_MAX:
                raise Refused("parameter_invalid_string", f"You have {PASSKEYS_MAX} passkeys already. Remove one.")
            if await load.maybe(Passkey, id) is not None:
                kept.append(None)
                return Changes(result=None)
            passkey = Passkey(
                id=id,
                created=at.created,
                operator=signed.operator.id,
                name=" ".join(name.split())[:NAME_MAX] or "Passkey",
                credential=_encode(bytes(credential)),
                count=count,
            )
            kept.append(passkey)
            detail = {"passkey": passkey.name, "name": signed.operator.name}
            return Changes(result=None, records=(passkey,), detail=detail)

        await self._engine.run(caller_of(signed.operator, "dashboard passkey add", address), work)
        return kept[-1]

    def ask(self, signed: SignedIn | None = None) -> dict[str, Any]:
        """The options with which a browser signs in, or, with a session, proves again who its operator is."""
        from fido2.webauthn import UserVerificationRequirement

        purpose = _SIGN_IN if signed is None else _prove(signed)
        options, _ = self._server().authenticate_begin(
            user_verification=UserVerificationRequirement.REQUIRED, challenge=self._challenge(purpose)
        )
        return dict(options.public_key)

    async def sign_in(self, answer: Answer, browser: Browser) -> str | None:
        """Open a session for the operator of the passkey that has signed. Return its token; None if it is no good."""
        judged = await self._judge(answer, _SIGN_IN)
        if judged is None:
            return None
        operator, use_up = judged
        return await open_session_with(self._engine, operator, "passkey", browser, use_up)

    async def prove(self, signed: SignedIn, answer: Answer, browser: Browser) -> Renewed | None:
        """Make a session strong after its operator's own passkey has signed. None where it is no good."""
        judged = await self._judge(answer, _prove(signed))
        if judged is None or judged[0].id != signed.operator.id:
            return None
        return await renew_session(self._engine, signed, "passkey", browser, judged[1])

    async def remove(self, signed: SignedIn, id: str, *, address: str | None) -> None:
        """Delete a passkey of the operator; another's stays.

        Refused `operator_forbidden` for the last one of an operator who has no other way to sign in.
        """

        async def work(load: Load, at: Moment) -> Changes[None]:
            passkey = await load.maybe(Passkey, id)
            if passkey is None or passkey.operator != signed.operator.id:
                return Changes(result=None)
            others = [one for one in await passkeys_of(self._engine, signed.operator) if one.id != id]
            if not others and not await _has_another_way(self._engine, signed.operator):
                raise Refused("operator_forbidden", ONLY_WAY_IN)
            detail = {"passkey": passkey.name, "name": signed.operator.name}
            return Changes(result=None, deletes=(id,), detail=detail)

        await self._engine.run(caller_of(signed.operator, "dashboard passkey remove", address), work)

    async def _judge(self, answer: Answer, purpose: str) -> tuple[Operator, UseUp] | None:
        """The operator of the passkey that has signed a challenge of that purpose, and the use of both for a commit."""
        read = _signed_by(answer)
        if read is None:
            return None
        now, challenge = self._engine.clock.now_ms() // 1000, bytes(read.response.client_data.challenge)
        until = challenge_until(self._key.reveal(), purpose, challenge, now)
        load = self._engine.load(SYSTEM)
        passkey = await load.maybe(Passkey, passkey_id(bytes(read.raw_id)))
        operator = await load.maybe(Operator, passkey.operator) if passkey is not None else None
        if until is None or passkey is None or operator is None or operator.disabled_at is not None:
            return None
        if read.response.user_handle not in (None, operator.id.encode()):
            return None
        try:
            self._server().authenticate_complete(_state(challenge), [_credential_of(passkey)], read)
        except ValueError:
            return None
        count = int(read.response.authenticator_data.counter)

        async def use_up(load: Load, at: Moment) -> tuple[Record, ...] | None:
            current = await load.maybe(Passkey, passkey.id)
            if current is None or await load.maybe(UsedChallenge, used_id(challenge)) is not None:
                return None
            if (count or current.count) and count <= current.count:
                return None  # The device has signed more since: this is a copy of it (WebAuthn, 6.1.1).
            used = msgspec.structs.replace(current, count=count, used_at=at.now)
            return used, UsedChallenge(id=used_id(challenge), created=at.created, expires_at=until)

        return operator, use_up

    def _made(self, signed: SignedIn, answer: Answer) -> tuple[Any, int] | None:
        """The credential that a browser has made for this session's challenge, and its counter."""
        from fido2.webauthn import RegistrationResponse

        try:
            read = RegistrationResponse.from_dict(answer)
            challenge, now = bytes(read.response.client_data.challenge), self._engine.clock.now_ms() // 1000
            if challenge_until(self._key.reveal(), _register(signed), challenge, now) is None:
                return None
            data = self._server().register_complete(_state(challenge), read)
        except Exception:  # The library lets errors of its parts through: an answer that it cannot read is none.
            return None
        return (data.credential_data, int(data.counter)) if data.credential_data is not None else None

    def _challenge(self, purpose: str) -> bytes:
        now = self._engine.clock.now_ms() // 1000
        return new_challenge(self._key.reveal(), purpose, secrets.token_bytes(16), now)

    def _server(self) -> Fido2Server:
        from fido2.server import Fido2Server
        from fido2.webauthn import PublicKeyCredentialRpEntity

        site = PublicKeyCredentialRpEntity(name=SITE, id=self._site)
        return Fido2Server(site, verify_origin=lambda origin: origin == self._origin)


def origin_of(url: str) -> str:
    """The origin of an address, as browsers write it: https://pay.example.com, with a port that is not the scheme's."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, usual) else "")


async def passkeys_of(engine: Engine, operator: Operator) -> list[Passkey]:
    """The passkeys of an operator, oldest first."""
    found = [one async for one in records_of(engine.store, SYSTEM, Passkey) if one.operator == operator.id]
    return sorted(found, key=lambda one: one.created)


def _signed_by(answer: Answer) -> AuthenticationResponse | None:
    from fido2.webauthn import AuthenticationResponse

    try:
        return AuthenticationResponse.from_dict(answer)
    except Exception:  # The library lets errors of its parts through: an answer that it cannot read is none.
        return None


def _register(signed: SignedIn) -> str:
    return f"register {signed.session.id}"


def _prove(signed: SignedIn) -> str:
    return f"prove {signed.session.id}"


def _state(challenge: bytes) -> dict[str, Any]:
    """The state of a ceremony as the library keeps it: the challenge is our own, and its user must be verified."""
    from fido2.webauthn import UserVerificationRequirement

    return {"challenge": _encode(challenge), "user_verification": UserVerificationRequirement.REQUIRED}


def _credential_of(passkey: Passkey) -> Any:
    from fido2.utils import websafe_decode
    from fido2.webauthn import AttestedCredentialData

    return AttestedCredentialData(websafe_decode(passkey.credential))


def _encode(data: bytes) -> str:
    from fido2.utils import websafe_encode

    return str(websafe_encode(data))


async def _has_another_way(engine: Engine, operator: Operator) -> bool:
    """Whether the operator can sign in without a passkey: by a password, with a code where the role needs one, or by
    the identity provider."""
    needs_code = needs_second_factor(operator, for_all=engine.settings.second_factor_for_all)
    async for proofs in records_of(engine.store, SYSTEM, SignInProofs):
        if proofs.operator == operator.id and (proofs.totp or not needs_code):
            return True
    return any([link.operator == operator.id async for link in records_of(engine.store, SYSTEM, IdentityLink)])
