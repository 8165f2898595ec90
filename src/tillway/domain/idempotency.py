"""Idempotency records: the request of a key, and its answer.

The first commit of the request writes the record, so that a key is never used up without its request, and no request
happens without its key. The last one completes it, unless the answer follows from the payment.
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
    """The kind of credential of the request; only the same kind gets the answer again. Empty: a record of an earlier
    version without it."""
    in_minor_units: bool = False
    """Whether the request and its answer have minor units in every currency."""
    presenter: str = ""
    """The dialect's call that renders the answer; empty for `/v1`."""
    subject: str = ""
    begun: str = ""
    """The payment and its attempt that the request began, if its answer may follow from these: then `status` stays 0,
    and the audit entry of the commit that settled the attempt has the payment as the answer shows it."""


GIVEN_AWAY: frozenset[str] = frozenset(("publishable", "ephemeral"))
"""The kinds of credentials that a merchant gives away. Their holders choose keys in a space of their own for each kind:
they take no name from the merchant's server. An operator's key shares the space of secret keys, so that the same
request under the same key is not performed by both."""


def record_id(key: str, kind: str = "secret") -> str:
    """The id of the record of a key that a credential of that kind sends."""
    digest = _SPACES.get(kind, _OF_MERCHANT).copy()  # Every payment comes here, and a new digest takes a third more.
    digest.update(key.encode())
    return f"idem_{digest.hexdigest()}"


_OF_MERCHANT = hashlib.blake2b(digest_size=16)
_SPACES = {kind: hashlib.blake2b(digest_size=16, person=kind.encode()) for kind in GIVEN_AWAY}
"""The digests of nothing in the space of each kind."""
