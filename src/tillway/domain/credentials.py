"""Permissions: scopes, OAuth 2 clients, the keys that sign access tokens, and the grant of a credential."""

import hashlib
from typing import Literal

from tillway.domain.account import Mode
from tillway.domain.api_key import ApiKey
from tillway.domain.operator import Role
from tillway.domain.record import Record, Value
from tillway.domain.refusal import Refused

SCOPES = (
    "account:read",
    "balance:read",
    "cards:read",
    "cards:write",
    "customers:read",
    "customers:write",
    "disputes:read",
    "disputes:write",
    "events:read",
    "ops:read",
    "ops:write",
    "orders:read",
    "orders:write",
    "payments:read",
    "payments:write",
    "payouts:read",
    "payouts:write",
    "refunds:read",
    "refunds:write",
    "webhooks:read",
    "webhooks:write",
)
"""The scopes of a restricted key, a client or a token. `:write` does not include `:read`."""

TOKEN_SECONDS = 900
"""The lifetime of an access token."""

LEEWAY_SECONDS = 5
"""By how much another server's clock may be ahead of this one's: for `nbf` and `iat`, never for `exp`."""

SECRETS_MAX = 5
"""Most valid secrets of one client at the same time."""

Audience = Literal["api", "online_platform"]
"""The calls that accept a token: all that accept a key, or only those of the online payment platform."""


class SigningKey(Record, frozen=True, kw_only=True):
    """A key that signs access tokens (`jwk_…`, which is also the token's `kid`).

    `public` is the JWK as it is published, `sealed` the private part, encrypted. From `retired_at` on another key
    signs; at `expires_at` the last token that this one can have signed has expired, and the key is deleted.
    """

    public: dict[str, str]
    sealed: bytes
    retired_at: int | None = None
    expires_at: int | None = None


class ClientSecret(Value, frozen=True, kw_only=True):
    """A secret of a client, stored only as its SHA-256 digest: it is 238 random bits, so no salt is needed."""

    digest: str
    hint: str
    created: int
    ends_at: int | None = None


class OAuthClient(Record, frozen=True, kw_only=True):
    """A client of OAuth 2 (`oac_…`): one merchant in one mode, and the scopes that its tokens may have."""

    account: str
    mode: Mode
    scopes: tuple[str, ...]
    secrets: tuple[ClientSecret, ...]
    name: str = ""
    revoked_at: int | None = None


class SignedInBy(Value, frozen=True, kw_only=True):
    """The sign-in behind an operator's action: the strongest proof (`domain/dashboard.py`), the role at that time, and
    the browser by its `User-Agent`."""

    factor: str
    role: str
    browser: str


class Grant(Value, frozen=True, kw_only=True):
    """The rights of a credential. `id` is the API key or the client behind it.

    `hint` shows its ends. An operator's grant has a `role`, no account of its own, and the `accounts` that
    the operator works for (None: all). `scopes` is None where everything is allowed. `customer` is the merchant's own
    id of the one customer that a token is for, or the id of the customer of an ephemeral key, whose answers have the
    shapes of `api_version`; `token` is the `jti` of a token. A token of the audience `online_platform` is
    accepted by that dialect alone. `signed_in` tells how an operator has signed in to the dashboard, for the
    audit trail.
    """

    id: str
    hint: str
    account: str
    mode: Mode
    kind: Literal["secret", "publishable", "operator", "ephemeral"] = "secret"
    role: Role | None = None
    accounts: tuple[str, ...] | None = None
    scopes: tuple[str, ...] | None = None
    customer: str | None = None
    audience: Audience = "api"
    token: str | None = None
    expires_at: int | None = None
    api_version: str | None = None
    signed_in: SignedInBy | None = None

    def needs(self, scope: str) -> None:
        """Refuses a call out of scope. `scope` is empty for a call that only unrestricted credentials may make."""
        if self.scopes is not None and scope not in self.scopes:
            held = " ".join(self.scopes) or "none"
            wanted = f"the scope {scope}" if scope else "an unrestricted secret key"
            raise Refused(
                "insufficient_scope", f"This call needs {wanted}; this credential has {held}.", scope=scope or None
            )


def grant_of(key: ApiKey) -> Grant:
    return Grant(
        id=key.id,
        hint=key.hint,
        account=key.account,
        mode=key.mode,
        kind=key.kind,
        scopes=key.scopes,
        expires_at=key.expires_at,
    )


def is_live(issuer: ApiKey | OAuthClient, now: float) -> bool:
    """Whether an API key or a client is good at `now` (epoch seconds), and so are the tokens made with it."""
    if issuer.revoked_at is not None and issuer.revoked_at <= now:
        return False
    return not (isinstance(issuer, ApiKey) and issuer.expires_at is not None and issuer.expires_at <= now)


def secret_digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def live_secrets(client: OAuthClient, now: float) -> tuple[ClientSecret, ...]:
    return tuple(secret for secret in client.secrets if secret.ends_at is None or secret.ends_at > now)
