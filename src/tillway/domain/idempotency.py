"""Idempotency records: what a key was used for, and what was answered.

A record is written in the first commit of the request it protects and completed in the last one, so that a key can
never be spent without its request, nor a request happen without its key.
"""

import hashlib

import msgspec

from tillway.domain.record import NOTHING, Record

KEY_LENGTH_MAX = 255
LIFETIME_SECONDS = 24 * 60 * 60


class IdempotencyRecord(Record, frozen=True, kw_only=True):
    """`fingerprint` digests method, path and parameters. `status` is 0 while the request is under way."""

    fingerprint: str
    expires_at: int
    request: str
    status: int = 0
    body: msgspec.Raw = NOTHING
    api_version: str | None = None
    expand: tuple[str, ...] = ()
    credential: str = ""
    """What kind of credential the request came with; only the same kind is given the answer again. Empty: a record of
    an earlier version, which did not say."""
    presenter: str = ""
    """The dialect's call whose words the answer is put into; empty for `/v1`."""


def record_id(key: str) -> str:
    return "idem_" + hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
