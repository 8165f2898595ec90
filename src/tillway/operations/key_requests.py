"""The mark that a request under an Idempotency-Key leaves where its answer holds a secret, and so is not kept.

A repetition finds the mark, makes nothing again, and is answered without the secret.
"""

from tillway.domain.api_key import KeyRequest, key_request_id
from tillway.domain.idempotency import LIFETIME_SECONDS
from tillway.domain.record import Moment, Record
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Load


async def made_before(load: Load, caller: Caller, place: str, at: Moment) -> str | None:
    """The id of what a request under the caller's Idempotency-Key has made in `place`, a scope or an operator; None
    where there was none. Refused `idempotency_key_reused` if that was another request."""
    if caller.idempotency is None:
        return None
    id, fingerprint = caller.idempotency
    mark = await load.maybe(KeyRequest, key_request_id(place, id))
    if mark is None or mark.expires_at <= at.now:
        return None
    if mark.fingerprint != fingerprint:
        raise Refused("idempotency_key_reused")
    return mark.key


def marks(caller: Caller, place: str, made: str, at: Moment) -> tuple[Record, ...]:
    """The mark that the caller's request has made the record with the id `made`, if it has an Idempotency-Key."""
    if caller.idempotency is None:
        return ()
    id, fingerprint = caller.idempotency
    mark_id, until = key_request_id(place, id), at.now + LIFETIME_SECONDS
    return (KeyRequest(id=mark_id, created=at.created, key=made, fingerprint=fingerprint, expires_at=until),)
