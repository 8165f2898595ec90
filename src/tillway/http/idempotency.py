"""Answer a request once under its Idempotency-Key, and repeat that answer if the key is sent again."""

import re
from typing import Any

import msgspec

from tillway.domain.cards import without_card_numbers
from tillway.domain.idempotency import GIVEN_AWAY, KEY_LENGTH_MAX, IdempotencyRecord, record_id
from tillway.domain.refusal import STORE_CODES, Refused
from tillway.engine.caller import Caller
from tillway.engine.core import IdempotencyRace
from tillway.engine.platform import Platform
from tillway.http.messages import Request
from tillway.http.params import SECURITY_CODES
from tillway.http.routes import Answer, Call, Plain, Route
from tillway.store.port import ABSENT

_OUR_IDS = re.compile(rb"_(?:[0-9A-Za-z]{17}(?![0-9A-Za-z])|secret_[0-9A-Za-z]+)")
"""The suffixes of the ids in a request, and client secrets. They begin with the underscore, which is quick to find."""

_REPLAYED = ("idempotent-replayed", "true")


async def answer_once(
    platform: Platform,
    request: Request,
    route: Route,
    call: Call,
    key: str,
    raw: dict[str, Any],
    headers: list[tuple[str, str]],
) -> Answer:
    """Repeat the stored answer if the key was used before; else handle the request under that key."""
    if len(key) > KEY_LENGTH_MAX:
        raise Refused("idempotency_key_too_long")
    caller = call.caller
    id = record_id(key)
    if caller.kind in GIVEN_AWAY and not await _has_older(platform, caller, id):
        id = record_id(key, caller.kind)
    # A keyed digest: the parameters may hold a card number, which an attacker who knows the others could find by trial.
    asked = encode_sorted([request.method, request.path, raw if call.holds_no_code else _without_codes(raw)])
    digest = platform.cards.vault.digest(caller.scope_key, asked)
    lasting = _without_ids(asked, request, route, raw)
    caller.lasting = digest if lasting == asked else platform.cards.vault.digest(caller.scope_key, lasting)
    # The key is copied into events and headers, which must not hold a card number.
    caller.idempotency, caller.idempotency_key = (id, digest), without_card_numbers(key)
    try:
        return await route.handler(call)
    except (IdempotencyRace, Refused) as stopped:
        # Another request used the key, or this one is refused, perhaps because the other one succeeded.
        held, version = await _load_record(platform, caller, id)
        if held is not None:
            try:
                return await _replay(platform, held, digest, caller, headers)
            except Refused as refused:
                # An operation was begun, and the store does not take its outcome: say that, and not "in use".
                if refused.code == "idempotency_key_in_use" and isinstance(stopped, Refused):
                    raise (stopped if stopped.code in STORE_CODES else refused) from None
                raise
        if isinstance(stopped, Refused):
            raise
        if version == ABSENT:
            raise Refused("idempotency_key_in_use") from None
        caller.replaces = version  # The record expired after 24 hours, but the store has not deleted it yet.
    try:
        return await route.handler(call)
    except IdempotencyRace:
        raise Refused("idempotency_key_in_use") from None


def _without_ids(asked: bytes, request: Request, route: Route, raw: dict[str, Any]) -> bytes:
    """Return the encoded request without the ids of objects, which a repeat after a restore names anew."""
    if route.dialect is not None and any(name in raw for name in route.dialect.made_ids):
        kept = {name: value for name, value in raw.items() if name not in route.dialect.made_ids}
        asked = encode_sorted([request.method, request.path, _without_codes(kept)])
    return asked if _OUR_IDS.search(asked) is None else _OUR_IDS.sub(b"", asked)


async def _has_older(platform: Platform, caller: Caller, id: str) -> bool:
    """Whether an earlier version, which had one space of keys, has answered this kind of credential there, or may still
    run."""
    if platform.engine.restores.writes_as_before:
        return True
    held, _ = await _load_record(platform, caller, id)
    return held is not None and held.credential == caller.kind


async def _load_record(platform: Platform, caller: Caller, id: str) -> tuple[IdempotencyRecord | None, int]:
    """Return the record of a key, None if it has expired, and the version of an expired one (else ABSENT)."""
    load = platform.engine.load(caller.scope_key)
    held = await load.maybe(IdempotencyRecord, id)
    if held is None or held.expires_at > platform.engine.clock.now_ms() // 1000:
        return held, ABSENT
    return None, load.seen[id][0]


async def _replay(
    platform: Platform, held: IdempotencyRecord, digest: str, caller: Caller, headers: list[tuple[str, str]]
) -> Plain:
    """Return the answer of a key. Raises Refused if the request differs, or if there is no answer yet.

    An answer holds as much as the credential of its request may see, so it is given to that kind of credential only.
    """
    if held.fingerprint != digest:
        raise Refused("idempotency_key_reused")
    if held.credential != (caller.kind if held.credential else "") or (not held.credential and caller.kind != "secret"):
        raise Refused(
            "idempotency_key_reused",
            "This Idempotency-Key was used with another kind of credential. Send the request with that kind, or under "
            "another key.",
        )
    answer = await platform.engine.answer_of(caller, held)
    if answer is None:
        raise Refused("idempotency_key_in_use")
    headers += (_REPLAYED, ("original-request", held.request))
    return Plain(*answer)


encode_sorted = msgspec.json.Encoder(order="sorted", decimal_format="string").encode


def _without_codes(value: Any) -> Any:
    """Return parameters without security codes, because nothing derived from one may outlive its first attempt.

    A repeat that differs only in its code therefore counts as the same request.
    """
    if type(value) is dict:
        for name, member in value.items():
            if type(member) is not str or name in SECURITY_CODES:
                break
        else:
            return value
        kept: dict[str, Any] = {}
        for name, member in value.items():
            if name not in SECURITY_CODES:
                kept[name] = member if type(member) is str else _without_codes(member)
        return kept
    return [_without_codes(member) for member in value] if type(value) is list else value
