"""API keys: the credentials of a merchant's programs."""

import hashlib
from typing import Literal

from tillway.domain.account import Mode
from tillway.domain.record import Record


class ApiKey(Record, frozen=True, kw_only=True):
    """An API key, stored only as a digest of its secret (`key_` and 24 hexadecimal characters of SHA-256).

    A restricted key is limited to its `scopes`; one without scopes may make every call. `origins` are those of the
    shops' pages in which the card frame of a publishable key shows itself (`domain/origins.py`).
    """

    account: str
    mode: Mode
    kind: Literal["secret", "publishable"]
    hint: str
    name: str = ""
    scopes: tuple[str, ...] | None = None
    expires_at: int | None = None
    revoked_at: int | None = None
    origins: tuple[str, ...] = ()


class KeyRequest(Record, frozen=True, kw_only=True):
    """The mark that a request under an Idempotency-Key has made `key` (`kyr_…`), until `expires_at` (epoch seconds).
    `key` is the id of an API key, or that of a new merchant's account.

    The answer itself is not kept, because it holds the key's secret.
    """

    key: str
    fingerprint: str
    expires_at: int


def key_request_id(scope_key: str, idempotency: str) -> str:
    """The id of the mark of an Idempotency-Key in the scope of a merchant. `idempotency` is the id of its record."""
    return "kyr_" + hashlib.sha256(f"{scope_key} {idempotency}".encode()).hexdigest()[:40]


def key_id(secret: str) -> str:
    return "key_" + hashlib.sha256(secret.encode()).hexdigest()[:24]


def hint_of(secret: str) -> str:
    """Return the part of a key that lists show: eight characters, which tell its kind and mode, and the last four."""
    return f"{secret[:8]}…{secret[-4:]}"
