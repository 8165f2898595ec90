"""Ephemeral keys: for an hour, a customer's own app may look after that customer's means of payment."""

import hashlib
from typing import Final

from tillway.domain.account import SCOPE_KEY_LENGTH, Scope, scope_of
from tillway.domain.cards import Secret
from tillway.domain.late_pattern import late_pattern
from tillway.domain.record import Reading, Record

LIFETIME_SECONDS: Final = 60 * 60

RANDOM_LENGTH: Final = 32
"""Characters of base 62 behind the account in a secret: 190 bits."""

_SECRET: Final = late_pattern(rf"ek_(test|live)_([0-9A-Za-z]{{{SCOPE_KEY_LENGTH - 1}}})[0-9A-Za-z]{{{RANDOM_LENGTH}}}")


class EphemeralKey(Record, frozen=True, kw_only=True):
    """A key of one customer, stored only as a digest of its secret (`ephkey_` and 24 hexadecimal characters of
    SHA-256). `made_with` is the key or client that made it: it ends with that, and its `scopes` are those of that. Its
    answers have the shapes of `api_version`."""

    customer: str
    api_version: str
    hint: str
    made_with: str
    expires_at: int
    scopes: tuple[str, ...] | None = None


class EphemeralKeyReading(Reading, frozen=True, kw_only=True):
    """An ephemeral key as an answer shows it. Only the answer that makes it holds its secret."""

    key: EphemeralKey
    shown: Secret[str] | None = None

    @classmethod
    def of(cls, key: EphemeralKey, shown: Secret[str] | None = None) -> "EphemeralKeyReading":
        return cls(id=key.id, created=key.created, key=key, shown=shown)


def secret_of(scope: Scope, random: str) -> str:
    """The secret of a new key. It names its merchant, in whose scope the key is kept."""
    assert len(random) == RANDOM_LENGTH
    return f"ek_{scope.mode}_{scope.key[:-1]}{random}"


def scope_in(secret: str) -> Scope | None:
    """The scope in which the key with that secret is kept; None if it is no secret of an ephemeral key."""
    found = _SECRET.fullmatch(secret)
    return scope_of(found[2] + found[1][0]) if found is not None else None


def ephemeral_key_id(secret: str) -> str:
    return f"ephkey_{hashlib.sha256(secret.encode()).hexdigest()[:24]}"
