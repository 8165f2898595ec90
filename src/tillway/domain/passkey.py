"""Passkeys: public keys of an operator's devices (WebAuthn, https://www.w3.org/TR/webauthn-3/).

A passkey counts as both factors, because its device verifies its user, and as a proof before grave actions. The
installation signs each challenge, so that asking for one stores nothing; it is good for CHALLENGE_SECONDS and for one
sign-in.
"""

import hashlib
import hmac
from typing import Final

from tillway.domain.record import Record

CHALLENGE_SECONDS: Final = 5 * 60
PASSKEYS_MAX: Final = 20
"""Most passkeys of an operator."""

NAME_MAX: Final = 60

_NONCE_BYTES: Final = 16
_TAG_BYTES: Final = 32


class Passkey(Record, frozen=True, kw_only=True):
    """A passkey of an operator (`dpk_…`). `credential` is WebAuthn's attested credential data in base64url, `count` the
    device's last counter of signatures; 0: the device does not count."""

    operator: str
    name: str
    credential: str
    count: int = 0
    used_at: int | None = None


class UsedChallenge(Record, frozen=True, kw_only=True):
    """The mark of a challenge that has opened a session (`duc_…`)."""

    expires_at: int


def passkey_id(credential: bytes) -> str:
    """The id of the passkey with that credential id."""
    return f"dpk_{hashlib.sha256(credential).hexdigest()[:40]}"


def used_id(challenge: bytes) -> str:
    return f"duc_{hashlib.sha256(challenge).hexdigest()[:40]}"


def new_challenge(key: bytes, purpose: str, nonce: bytes, now: int) -> bytes:
    """A challenge for one purpose, good until CHALLENGE_SECONDS after `now` (epoch seconds). The nonce has 16 bytes."""
    body = (now + CHALLENGE_SECONDS).to_bytes(8, "big") + nonce
    return body + _tag(key, purpose, body)


def challenge_until(key: bytes, purpose: str, challenge: bytes, now: int) -> int | None:
    """Until when a challenge is good (epoch seconds); None where it is of another purpose or too old."""
    body, tag = challenge[: 8 + _NONCE_BYTES], challenge[8 + _NONCE_BYTES :]
    if len(tag) != _TAG_BYTES or not hmac.compare_digest(tag, _tag(key, purpose, body)):
        return None
    until = int.from_bytes(body[:8], "big")
    return until if until > now else None


def _tag(key: bytes, purpose: str, body: bytes) -> bytes:
    return hmac.digest(key, b"tillway challenge\0" + purpose.encode() + b"\0" + body, "sha256")
