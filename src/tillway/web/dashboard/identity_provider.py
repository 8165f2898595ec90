"""Sign-in by an identity provider: OpenID Connect's code flow with PKCE (OpenID Connect Core 1.0, RFC 7636, RFC 9700).

State, nonce and verifier follow from one random token in a cookie of the browser that began, so that a code is taken
from that browser alone, and nothing is stored. Tokens are read by joserfc.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from tillway.domain.cards import Secret
from tillway.domain.dashboard import STRONG_SECONDS

if TYPE_CHECKING:
    from joserfc.jwk import Key, KeySet

log = logging.getLogger(__name__)

WITHIN_SECONDS: Final = 10.0
ANSWER_BYTES_MAX: Final = 1 << 18
METADATA_SECONDS: Final = 3600.0
KEYS_AGAIN_SECONDS: Final = 60.0
"""A token of an unknown key makes the keys be read again, at most so often."""

LEEWAY_SECONDS: Final = 60
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA", "Ed25519")
CALLBACK: Final = "/dashboard/sign-in/sso/callback"
SCOPE: Final = "openid email profile"


class ProviderFailed(Exception):
    """The provider did not sign anybody in. The text says why, for the log; it holds no token."""


class Identity(msgspec.Struct, frozen=True):
    """The person whom a provider has signed in. `email` is empty unless the provider has verified it; `is_fresh`: they
    proved who they are just now, and not only once before."""

    issuer: str
    subject: str
    email: str
    is_fresh: bool


class IdentityProvider:
    """The provider that the settings name. It sends browsers back to CALLBACK under `base_url`."""

    def __init__(self, issuer: str, client_id: str, client_secret: Secret[str], base_url: str) -> None:
        self.issuer = issuer
        self._client_id = client_id
        self._client_secret = client_secret
        self._callback = base_url + CALLBACK
        self._metadata: dict[str, Any] = {}
        self._metadata_until = 0.0
        self._keys: KeySet | None = None
        self._keys_at = float("-inf")
        self._reading = asyncio.Lock()

    async def address(self, token: str, *, again: bool) -> str:
        """The address at which the provider signs a browser in. `again`: also one that it has signed in before.

        `token` is the random token of the browser's cookie. Raises `ProviderFailed`.
        """
        begin = str((await self._described())["authorization_endpoint"])
        challenge = hashlib.sha256(_derived(token, "verifier").encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._callback,
            "scope": SCOPE,
            "state": _derived(token, "state"),
            "nonce": _derived(token, "nonce"),
            "code_challenge": _base64url(challenge),
            "code_challenge_method": "S256",
        }
        if again:
            asked |= {"prompt": "login", "max_age": "0"}
        return f"{begin}{'&' if '?' in begin else '?'}{urlencode(asked)}"

    async def identity(self, token: str, answer: dict[str, str], *, now: int) -> Identity:
        """Who signed in, by the parameters with which the provider sent the browser back. Raises `ProviderFailed`."""
        if not hmac.compare_digest(answer.get("state", "").encode(), _derived(token, "state").encode()):
            raise ProviderFailed("the state is not that of this browser")
        if answer.get("iss", self.issuer) != self.issuer:
            raise ProviderFailed("the answer is of another issuer")
        if "code" not in answer:
            raise ProviderFailed(f"the provider answered {answer.get('error', 'nothing')[:60]!r}")
        told = await self._redeem(answer["code"], _derived(token, "verifier"))
        id_token = told.get("id_token")
        if not isinstance(id_token, str):
            raise ProviderFailed("the provider sent no id_token")
        claims = await self._claims(id_token, _derived(token, "nonce"), now)
        auth_time = claims.get("auth_time")
        is_fresh = isinstance(auth_time, int) and now - STRONG_SECONDS < auth_time <= now + LEEWAY_SECONDS
        email = claims.get("email") if claims.get("email_verified") is True else ""
        return Identity(self.issuer, claims["sub"], email if isinstance(email, str) else "", is_fresh)

    async def _redeem(self, code: str, verifier: str) -> dict[str, Any]:
        """The tokens for a code (RFC 6749, 4.1.3), by `client_secret_basic` where the provider takes it."""
        described = await self._described()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._callback,
            "code_verifier": verifier,
        }
        methods = described.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        headers = {}
        if "client_secret_basic" in methods:
            pair = f"{quote(self._client_id, safe='')}:{quote(self._client_secret.reveal(), safe='')}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": self._client_id, "client_secret": self._client_secret.reveal()}
        return await self._ask("POST", str(described["token_endpoint"]), form, headers)

    async def _claims(self, id_token: str, nonce: str, now: int) -> dict[str, Any]:
        """The claims of a token after every check of OpenID Connect Core 1.0, 3.1.3.7."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        asked = jwt.JWTClaimsRegistry(
            now=now,
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": self.issuer},
            aud={"essential": True, "value": self._client_id},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            for again in (False, True):
                try:
                    read = jwt.decode(id_token, await self._key_set(again=again), algorithms=list(ALGORITHMS))
                    break
                except (JoseError, ValueError):
                    if again:
                        raise
            asked.validate(read.claims)
        except (JoseError, ValueError, TypeError, RecursionError) as unfit:
            raise ProviderFailed(f"the id_token is not good: {type(unfit).__name__}") from None
        claims, audience = read.claims, read.claims["aud"]
        if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != self._client_id:
            raise ProviderFailed("the id_token is for several audiences, and for another party")
        if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
            raise ProviderFailed("the id_token names nobody")
        return dict(claims)

    async def _key_set(self, *, again: bool) -> KeySet:
        from joserfc.jwk import KeySet

        async with self._reading:
            waited = time.monotonic() - self._keys_at
            if self._keys is None or (again and waited > KEYS_AGAIN_SECONDS):
                found = await self._ask("GET", str((await self._described())["jwks_uri"]))
                self._keys, self._keys_at = KeySet(list(_usable(found.get("keys")))), time.monotonic()
            return self._keys

    async def _described(self) -> dict[str, Any]:
        """The provider's own description (OpenID Connect Discovery 1.0)."""
        if time.monotonic() >= self._metadata_until:
            found = await self._ask("GET", f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != self.issuer:
                raise ProviderFailed("its description is of another issuer")
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                if urlsplit(str(found.get(name))).scheme != urlsplit(self.issuer).scheme:
                    raise ProviderFailed(f"its description has no {name} that is as safe as the issuer")
            self._metadata, self._metadata_until = found, time.monotonic() + METADATA_SECONDS
        return self._metadata

    async def _ask(
        self, method: str, address: str, form: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """The JSON object at an address of the provider. Redirects are not followed."""
        import aiohttp

        limit = aiohttp.ClientTimeout(total=WITHIN_SECONDS)
        sent = {"accept": "application/json", **(headers or {})}
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.request(method, address, data=form, headers=sent, allow_redirects=False) as answer,
            ):
                body = await answer.content.read(ANSWER_BYTES_MAX)
                while len(body) < ANSWER_BYTES_MAX and (more := await answer.content.read(ANSWER_BYTES_MAX)):
                    body += more
                if answer.status != 200:
                    raise ProviderFailed(f"{urlsplit(address).path} answered {answer.status}")
                found = msgspec.json.decode(body)
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError, ValueError) as failed:
            raise ProviderFailed(f"{urlsplit(address).path} failed: {type(failed).__name__}") from None
        if not isinstance(found, dict):
            raise ProviderFailed(f"{urlsplit(address).path} answered no object")
        return found


def _usable(keys: Any) -> Iterator[Key]:
    """The keys of a set that can sign here. Others, such as those on a curve that is not known here, are left out."""
    from joserfc.errors import JoseError
    from joserfc.jwk import JWKRegistry

    for key in keys if isinstance(keys, list) else ():
        if isinstance(key, dict) and key.get("use", "sig") == "sig":
            with contextlib.suppress(JoseError, LookupError, TypeError, ValueError):
                yield JWKRegistry.import_key(key)


def _derived(token: str, purpose: str) -> str:
    return _base64url(hmac.digest(token.encode(), f"tillway {purpose}".encode(), "sha256"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
