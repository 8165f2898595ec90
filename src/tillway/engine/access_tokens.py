"""Access tokens: short-lived JWTs for holders of a key and for clients, and the keys that sign them."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.credentials import SCOPES, TOKEN_SECONDS, Audience, Grant, SigningKey
from tillway.domain.refusal import Refused
from tillway.engine.audit.entries import Author, build_writes
from tillway.engine.clock import Clock
from tillway.engine.ids import random_text
from tillway.store.codec import decode
from tillway.store.port import ABSENT, Conflict, Store
from tillway.vault.port import TokenSigner, TokenUnfit

TOKEN_LENGTH_MAX = 4096
KEYS_CACHE_SECONDS = 2.0
LOOK_AGAIN_SECONDS = 0.2
"""Seconds until a token of an unknown key makes this process read the keys again: invented keys cost no more."""

SIGNING_KEYS_MAX = 100
VERIFIES_SECONDS = TOKEN_SECONDS + 60
"""How long a replaced key verifies: the lifetime of its last token, and the seconds in which a running server still
signs with it."""

ROTATIONS_MAX = 8
_FIRST = Author("system", "sign access tokens")
_AUDIENCES: dict[Audience, str] = {"api": "", "online_platform": "/online-payment-platform"}


class AccessTokens:
    """`issuer` is the installation's public URL; the audience of a token limits its use. `open_signer` is called once,
    for the first token."""

    def __init__(self, store: Store, open_signer: Callable[[], TokenSigner], clock: Clock, issuer: str) -> None:
        self.issuer = issuer
        self._clock = clock
        self._store = store
        self._open_signer = open_signer
        self._keys: dict[str, tuple[SigningKey, int]] = {}
        self._read_at = float("-inf")
        self._making = asyncio.Lock()

    @functools.cached_property
    def _signer(self) -> TokenSigner:
        return self._open_signer()

    async def issue(self, grant: Grant, *, now: float) -> str:
        """Make a token for TOKEN_SECONDS with the rights of `grant`, limited to its customer if it has one."""
        issued_at = int(now)
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.issuer + _AUDIENCES[grant.audience],
            "sub": grant.id,
            "client_id": grant.id,
            "account": grant.account,
            "mode": grant.mode,
            "jti": random_text(22),
            "iat": issued_at,
            "nbf": issued_at,
            "exp": issued_at + TOKEN_SECONDS,
            "scope": " ".join(grant.scopes if grant.scopes is not None else SCOPES),
        }
        if grant.customer is not None:
            claims |= {"merchant": grant.account, "customer": grant.customer}
        return self._signer.sign(await self._current(now), claims)

    async def read(self, token: str, *, now: float) -> Grant:
        """The grant in a token. The caller must still check that the key or client is valid.

        Raises Refused `access_token_invalid` or `access_token_expired`.
        """
        if len(token) > TOKEN_LENGTH_MAX:
            raise Refused("access_token_invalid", f"An access token has at most {TOKEN_LENGTH_MAX} characters.")
        audiences: dict[str, Audience] = {self.issuer + path: name for name, path in _AUDIENCES.items()}
        try:
            key = await self._find_key(self._signer.key_id(token), now)
            claims = self._signer.claims(token, key, issuer=self.issuer, audiences=list(audiences), now=int(now))
        except TokenUnfit as unfit:
            if unfit.expired:
                raise Refused("access_token_expired") from None
            raise Refused("access_token_invalid", f"The access token is refused: {unfit}.") from None
        scope, customer, audience = claims.get("scope"), claims.get("customer"), claims["aud"]
        if not isinstance(audience, str) or not isinstance(scope, str):
            raise Refused("access_token_invalid", "The access token is refused: it has one audience, and a scope.")
        return Grant(
            id=str(claims["sub"]),
            hint=str(claims["sub"]),
            account=str(claims.get("account")),
            mode="live" if claims.get("mode") == "live" else "test",
            scopes=tuple(scope.split()),
            customer=customer if isinstance(customer, str) else None,
            audience=audiences[audience],
            token=str(claims["jti"]),
            expires_at=int(claims["exp"]),
        )

    async def public_keys(self, *, now: float) -> list[dict[str, str]]:
        """The public keys of accepted tokens, newest first: a JWK set (RFC 7517)."""
        keys = await self._live(now)
        return [{**key.public, "kid": key.id, "alg": "ES256", "use": "sig"} for key in keys]

    async def rotate(self, by: Author, *, now: float) -> tuple[SigningKey, tuple[SigningKey, ...]]:
        """Make a new signing key. Earlier keys verify until the last token that they can have signed has expired.

        Return the new key, and those that it replaces. Raises Refused `busy` if others keep rotating.
        """
        for _ in range(ROTATIONS_MAX):
            await self._look()
            at = self._clock.moment()
            new = self._signer.new_key(f"jwk_{random_text(16)}", created=at.created)
            replaced = [(version, key, _retire(key, int(now))) for key, version in self._signing()]
            writes = build_writes(SYSTEM, by, at, (ABSENT, None, new), *replaced)
            try:
                await self._store.commit(writes)
            except Conflict:
                continue
            self.forget()
            return new, tuple(key for _, _, key in replaced)
        raise Refused("busy")

    def forget(self) -> None:
        """Read the signing keys again."""
        self._read_at = float("-inf")

    async def _current(self, now: float) -> SigningKey:
        """The key that signs, made here if there is none yet."""
        async with self._making:
            await self._live(now)
            if not self._signing():
                await self.rotate(_FIRST, now=now)
                await self._look()
            return max(self._signing(), key=lambda held: (held[0].created, held[0].id))[0]

    async def _find_key(self, id: str, now: float) -> SigningKey:
        keys = {key.id: key for key in await self._live(now)}
        if id not in keys and now - self._read_at >= LOOK_AGAIN_SECONDS:
            self.forget()
            keys = {key.id: key for key in await self._live(now)}
        if id not in keys:
            raise TokenUnfit("no key of this installation has its kid")
        return keys[id]

    async def _live(self, now: float) -> list[SigningKey]:
        if not 0 <= now - self._read_at < KEYS_CACHE_SECONDS:
            await self._look()
            self._read_at = now
        keys = [key for key, _ in self._keys.values() if key.expires_at is None or key.expires_at > now]
        return sorted(keys, key=lambda key: (key.created, key.id), reverse=True)

    async def _look(self) -> None:
        rows = await self._store.query(None, f"{SYSTEM}/jwk_", limit=SIGNING_KEYS_MAX)
        found = {}
        for row in rows:
            key = decode(row.key.partition("/")[2], row.body)
            assert isinstance(key, SigningKey)
            found[key.id] = (key, row.version)
        self._keys = found

    def _signing(self) -> list[tuple[SigningKey, int]]:
        return [(key, version) for key, version in self._keys.values() if key.retired_at is None]


def _retire(key: SigningKey, now: int) -> SigningKey:
    return msgspec.structs.replace(key, retired_at=now, expires_at=now + VERIFIES_SECONDS)
