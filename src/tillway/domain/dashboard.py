"""Sign-ins to the dashboard: addresses that sign in once, and the sessions of browsers.

A session belongs to an operator, as keys do: role and merchants are the operator's own, read anew with each request.
The store knows links and sessions by digests alone, so that nobody signs in with a copy of it.
"""

import hashlib
from typing import Final, Literal

from tillway.domain.record import Record

LINK_SECONDS: Final = 60 * 60
"""How long an address that signs in once is good."""

INVITED_SECONDS: Final = 5 * 24 * 60 * 60
"""The same for the address of an invitation."""

SESSION_SECONDS: Final = 12 * 60 * 60
STRONG_SECONDS: Final = 5 * 60
"""How long a sign-in, or a second factor, stands for the re-authentication that grave actions need."""

SEEN_SECONDS: Final = 60
"""How much later a request must be for the session to note that it is still in use."""

Factor = Literal["link", "password", "totp", "passkey", "recovery_code", "oidc"]


class SignInLink(Record, frozen=True, kw_only=True):
    """An address that signs an operator in once (`dsl_…`); the sign-in deletes it."""

    operator: str
    expires_at: int


class DashboardSession(Record, frozen=True, kw_only=True):
    """A browser that an operator has signed in (`dss_…`), until `expires_at` (epoch seconds).

    `factor` is the strongest proof of the sign-in, `strong_until` until when it stands for re-authentication. `account`
    is the merchant that the pages show; empty: the operator's first. `seen_at` is when it was last used, up to
    SEEN_SECONDS too early.
    """

    operator: str
    expires_at: int
    factor: Factor
    strong_until: int = 0
    account: str = ""
    address: str | None = None
    agent: str = ""
    seen_at: int = 0


class IdentityLink(Record, frozen=True, kw_only=True):
    """A person at an identity provider is this operator (`dil_…`, a digest of the provider's own id)."""

    operator: str
    issuer: str


def identity_link_id(issuer: str, subject: str) -> str:
    """The id of the link of the person with the id `subject` at `issuer`."""
    return f"dil_{_digest(f'{issuer} {subject}')}"


def link_id(token: str) -> str:
    """The id of the link with that token."""
    return f"dsl_{_digest(token)}"


def session_id(token: str) -> str:
    """The id of the session that a cookie holds the token of."""
    return f"dss_{_digest(token)}"


def csrf_token(token: str) -> str:
    """The proof that a form was sent by a page of this session. It follows from the cookie's token, which no page can
    read, and says nothing about it."""
    return hashlib.sha256(f"tillway csrf {token}".encode()).hexdigest()[:40]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:40]
