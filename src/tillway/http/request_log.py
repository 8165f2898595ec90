"""The request log: each request with a known credential, and its answer.

A request leaves itself in a buffer of its process (`engine/batched_log.py`). Bodies are redacted
(`http/redaction.py`) and packed when the buffer is written down.
"""

import asyncio
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from tillway.domain.refusal import RULES
from tillway.domain.request_log import LoggedRequest, RequestBatch
from tillway.domain.source_api import SourceApi
from tillway.engine.batched_log import BatchedLog, Stamp, WrittenLog
from tillway.engine.caller import Caller
from tillway.http.errors import discreet
from tillway.http.messages import Request, Response
from tillway.http.redaction import (
    HIDDEN,
    KEPT_MAX,
    bytes_of,
    discreet_text,
    redacted_answer,
    redacted_body,
    redacted_parameters,
    redacted_query,
)
from tillway.http.request_log_words import WORDS
from tillway.http.usual_payment import UsualPayments
from tillway.store.codec import decode, write_of
from tillway.store.port import Store

PREFIX: Final = "rql"

_FEW: Final = 8
"""So many requests are packed at once and well, more of them in another thread and fast."""

_MANY_MEMORY: Final = 5
"""The `memLevel` of the packing of many: the search for repetitions uses a table of 4,096 places, which zlib goes over
for each 32 KiB. With its usual one of 32,768, a line takes half as many instructions more, and is not shorter."""

_V1: Final = SourceApi.v1  # An access through the enumeration, and one to a member's name, run Python code.
_JSON: Final = ("content-type", "application/json")

_LOOK_PAGE: Final = 20
"""Batches that a redaction reads at a time."""

_HIDDEN: Final = HIDDEN.encode()

_encode = msgspec.json.Encoder().encode
_decode_bodies = msgspec.json.Decoder(list[tuple[msgspec.Raw, msgspec.Raw, msgspec.Raw]]).decode


class Waiting(msgspec.Struct, frozen=True, gc=False):
    request: Request
    caller: Caller
    response: Response
    seconds: float


class RequestLog(BatchedLog[Waiting]):
    prefix = PREFIX

    def keep(self, request: Request, caller: Caller, response: Response, seconds: float) -> None:
        """Keep a request of a known credential, unless the buffer is full or the request reads this log."""
        if self.keeps and not request.path.startswith("/ops/v1/requests"):
            size = len(request.body) + len(response.body)
            self.add(caller.scope.key, Waiting(request, caller, response, seconds), size)

    async def batch_of(self, stamp: Stamp, lines: list[Waiting]) -> RequestBatch:
        few = len(lines) <= _FEW
        requests, bodies = _pack(lines) if few else await asyncio.to_thread(_pack, lines)
        return RequestBatch(
            id=stamp.id, created=stamp.created, expires_at=stamp.expires_at, requests=requests, bodies=bodies
        )


def _pack(requests: Sequence[Waiting]) -> tuple[tuple[LoggedRequest, ...], bytes]:
    """The requests as they are kept, and their bodies, packed."""
    logged: list[LoggedRequest] = []
    bodies: list[bytes] = []
    usual_payments = UsualPayments()
    for one in requests:
        request, response = one.request, one.response
        query, body = _parameters_of(request, one.caller)
        is_json, answered = _JSON in response.headers, len(response.body)
        usual = (
            usual_payments.find(response.body) if response.status == 200 and is_json and answered < KEPT_MAX else None
        )
        if usual is not None:
            logged.append(_line_of(one, None))
            sent = _encode((query, body))
            if len(sent) + answered < KEPT_MAX:  # Without the copies that the encoder would make.
                bodies += (sent[:-1], b",", usual[0], _HIDDEN, usual[1], b"]", b",")
            else:
                bodies += (_encode_bodies(query, body, msgspec.Raw(_HIDDEN.join(usual))), b",")
            continue
        content_type = "application/json" if is_json else dict(response.headers).get("content-type", "")
        answer = redacted_answer(request.path, response.status, content_type, response.body)
        logged.append(_line_of(one, answer))
        bodies += (_encode_bodies(query, body, answer), b",")
    return tuple(logged), _pack_bodies(bodies, len(requests))


def _encode_bodies(query: Any, body: Any, answer: Any) -> bytes:
    """The bodies of a request as JSON. Too long ones are left out."""
    encoded = _encode((query, body, answer))
    if len(encoded) <= KEPT_MAX:
        return encoded
    return _encode((_bound(query), _bound(body), _bound(answer)))


def _pack_bodies(bodies: list[bytes], count: int) -> bytes:
    """The bodies of so many requests, each with a comma behind it."""
    few = count <= _FEW
    packer = zlib.compressobj(6 if few else 1, memLevel=8 if few else _MANY_MEMORY, zdict=WORDS)
    # Joined once: a batch is some hundred kilobytes, which each copy takes through the memory.
    bodies[0], bodies[-1] = b"[" + bodies[0], b"]"
    return packer.compress(b"".join(bodies)) + packer.flush()


def _parameters_of(request: Request, caller: Caller) -> tuple[Any, Any]:
    """The parameters in the query and in the body of a request. Most were read when it was handled."""
    if caller.sent and not (request.body and request.query):
        if request.body:
            return None, redacted_parameters(request.path, caller.sent, request.body)
        return redacted_parameters(request.path, caller.sent, bytes_of(request.query)), None
    is_json, content_type = caller.source_api.name != "v1", request.headers.get("content-type")
    return redacted_query(request.path, request.query), redacted_body(
        request.path, content_type, request.body, is_json=is_json
    )


def _bound(document: Any) -> Any:
    if not isinstance(document, dict):
        return document
    encoded = _encode(document)
    return msgspec.Raw(encoded) if len(encoded) <= KEPT_MAX else f"({len(encoded)} bytes)"


def unpack_bodies(batch: RequestBatch) -> list[tuple[msgspec.Raw, msgspec.Raw, msgspec.Raw]]:
    """The query, the body and the answer of each request in the batch, as JSON."""
    return _decode_bodies(_unpacked(batch))


def _unpacked(batch: RequestBatch) -> bytes:
    unpacker = zlib.decompressobj(zdict=WORDS)
    return unpacker.decompress(batch.bodies) + unpacker.flush()


def _line_of(one: Waiting, answer: Any) -> LoggedRequest:
    request, caller, response = one.request, one.caller, one.response
    status, key, agent = response.status, caller.idempotency_key, request.headers.get("user-agent")
    assert caller.request_id is not None
    return LoggedRequest(
        id=caller.request_id,
        method=request.method[:10],
        path=request.path if status < 400 else discreet_text(request.path[:500]),
        status=status,
        milliseconds=round(one.seconds * 10_000) / 10,  # `round` to a digit takes ten times as long.
        actor=caller.actor,
        hint=caller.hint,
        api_version=caller.api_version,
        idempotency_key=discreet_text(key) if key else None,
        source_api="v1" if caller.source_api is _V1 else caller.source_api.name,
        user_agent=discreet_text(agent[:200]) if agent else "",
        error=_error(response, answer) if status >= 400 else {},
    )


def _error(response: Response, answer: Any) -> dict[str, str]:
    """The members of a refusal."""
    refused = response.refused
    if refused is not None:
        error: dict[str, Any] = {
            "type": RULES[refused.code].type,
            "code": refused.code,
            "decline_code": refused.decline_code,
            "message": refused.message,
            "param": refused.param,
        }
    elif response.status >= 400 and isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        error = answer["error"]  # The stored answer of a repeated Idempotency-Key.
    else:
        return {}
    names = ("type", "code", "decline_code", "message", "param")
    return {name: discreet(error[name]) for name in names if isinstance(error.get(name), str)}


# Reading and searching.


class Sent(msgspec.Struct, frozen=True):
    """A parameter of a request, named as `metadata[order]`, and its value or the part of it around a text."""

    param: str
    value: str


class KeptRequest(msgspec.Struct, frozen=True):
    """A request and its place in its batch. `found` is the parameter that has the text which is looked for."""

    line: LoggedRequest
    batch: RequestBatch
    number: int
    found: Sent | None = None

    @property
    def id(self) -> str:
        return self.line.id


def _requests_of(batch: RequestBatch) -> list[KeptRequest]:
    return [KeptRequest(line, batch, number) for number, line in enumerate(batch.requests)]


WRITTEN: Final = WrittenLog(PREFIX, RequestBatch, _requests_of)


async def with_found(requests: Sequence[KeptRequest], text: str) -> list[KeptRequest]:
    """The same requests, each with the first of its parameters that has `text` in small or capital letters.

    The bodies of one batch at a time are unpacked, in another thread: they may be some megabytes.
    """
    found: dict[str, dict[int, Sent]] = {}
    for one in requests:
        if one.batch.id not in found:
            found[one.batch.id] = await asyncio.to_thread(_find_sent, one.batch, text.casefold())
    return [msgspec.structs.replace(one, found=found[one.batch.id].get(one.number)) for one in requests]


def _find_sent(batch: RequestBatch, wanted: str) -> dict[int, Sent]:
    """The first parameter with that text of each request in the batch that has one, by the request's number."""
    in_json = _encode(wanted)[1:-1].decode()
    bodies = _unpacked(batch)
    if in_json not in bodies.decode().casefold():
        return {}
    found: dict[int, Sent] = {}
    for number, (query, body, _) in enumerate(_decode_bodies(bodies)):
        for kept in (query, body):
            if number not in found and in_json in bytes(kept).decode().casefold():
                document = msgspec.json.decode(kept)
                # A text in the place of a document says why it was not kept.
                sent = next(_sent_with(wanted, "", document), None) if isinstance(document, dict) else None
                found |= {number: sent} if sent is not None else {}
    return found


def _sent_with(wanted: str, name: str, value: Any) -> Iterator[Sent]:
    """The parameters within `value`, which is that of the parameter `name`, that have the text."""
    match value:
        case dict():
            for key, member in value.items():
                yield from _sent_with(wanted, f"{name}[{key}]" if name else key, member)
        case list():
            for place, member in enumerate(value):
                yield from _sent_with(wanted, f"{name}[{place}]", member)
        case str() | int() | float() if value is not True and value is not False:
            place = str(value).casefold().find(wanted)
            if place >= 0:
                begin = max(place - _AROUND, 0)
                yield Sent(name, str(value)[begin : place + len(wanted) + _AROUND])


_AROUND: Final = 80
"""Most characters of a value that are shown before and behind the text that was looked for."""


# Redaction of a customer or a payment.

_HIDDEN_BODIES: Final = _encode((None, None, "****"))


async def hide_requests(store: Store, scope_key: str, mentions: Callable[[bytes], bool]) -> int:
    """Hide the bodies of logged requests that name certain records, and return their number.

    `mentions` judges bytes in which ids stand in quotation marks, as JSON has them.
    """
    count, after = 0, None
    prefix = f"{scope_key}/{PREFIX}_"
    while rows := await store.query(None, prefix, after=after, limit=_LOOK_PAGE, order="oldest"):
        for row in rows:
            batch = decode(row.key.partition("/")[2], row.body)
            assert isinstance(batch, RequestBatch)
            bodies: list[bytes] = []
            hidden = 0
            for request, kept in zip(batch.requests, unpack_bodies(batch), strict=True):
                address = b'"%b"' % request.path.replace("/", '"').encode()
                if bytes(kept[2]) != b'"****"' and mentions(address + b"".join(map(bytes, kept))):
                    hidden += 1
                    bodies += (_HIDDEN_BODIES, b",")
                else:
                    bodies += (_encode(kept), b",")
            if hidden:
                after_it = msgspec.structs.replace(batch, bodies=_pack_bodies(bodies, len(batch.requests)))
                await store.commit([write_of(scope_key, after_it, row.version)])
                count += hidden
        after = rows[-1].key
    return count
