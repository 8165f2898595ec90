"""The request log: each request with a known credential, and its answer.

A request only leaves itself in a buffer of its process. `flush` redacts the buffer (`http/redaction.py`) and writes it
down as one batch for each merchant: once a second in a server, before a process stops, and before the log is read. So
no payment waits for its line, and a busy second costs one write. A buffer that is full drops requests and says how
many; a process that is killed loses its last second.
"""

import asyncio
import logging
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from tillway.domain.account import SCOPE_KEY_LENGTH
from tillway.domain.refusal import RULES
from tillway.domain.request_log import SECONDS_PER_DAY, LoggedRequest, RequestBatch
from tillway.engine.caller import Caller
from tillway.engine.clock import Clock
from tillway.engine.ids import SUFFIX_LENGTH, base62, microseconds_of, random_text
from tillway.http.errors import discreet
from tillway.http.messages import Request, Response
from tillway.http.redaction import (
    KEPT_MAX,
    bytes_of,
    discreet_text,
    redacted_answer,
    redacted_body,
    redacted_parameters,
    redacted_query,
)
from tillway.http.request_log_words import WORDS
from tillway.store.codec import decode, write_of
from tillway.store.port import ABSENT, CommitUnknown, Conflict, Store, Unavailable

log = logging.getLogger(__name__)

PREFIX: Final = "rql"
EVERY_SECONDS: Final = 1.0
BUFFERED_MAX: Final = 5000
BUFFERED_BYTES_MAX: Final = 16 << 20
"""Most requests, and most bytes of their bodies, that wait in a process."""

BATCH_MAX: Final = 200
"""Most requests in one batch, so that a list reads no more than it needs."""

LATE_SECONDS: Final = 600
"""A batch is written within this time after its requests came: the longest request, and clocks that differ."""

LOOKED_AT_MAX: Final = 400
_LOOK_PAGE: Final = 20
"""Most batches that are read to find one request, and how many at a time."""

_TIME_LENGTH: Final = 9
_FEW: Final = 8

_encode = msgspec.json.Encoder().encode
_Bodies = list[tuple[Any, Any, Any]]
_decode_bodies = msgspec.json.Decoder(list[tuple[msgspec.Raw, msgspec.Raw, msgspec.Raw]]).decode


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    request: Request
    caller: Caller
    response: Response
    seconds: float


def new_request_id(now_ms: int) -> str:
    """The id of a request that came at that time. It holds the time, by which the log finds the request."""
    return f"req_{base62(now_ms * 1000, _TIME_LENGTH)}{random_text(5)}"


def came_at(id: str) -> int:
    """When the request of that id came, in epoch seconds."""
    return microseconds_of(id[4 : 4 + _TIME_LENGTH]) // 1_000_000


class RequestLog:
    """The requests of one process that are not written down yet. `days` is how long they are kept; 0: not at all."""

    def __init__(self, store: Store | None = None, clock: Clock | None = None, days: int = 0) -> None:
        self._store = store
        self._clock = clock or Clock()
        self._days = days if store is not None else 0
        self._waiting: list[_Waiting] = []
        self._bytes = 0
        self._dropped = 0
        self._flushing = asyncio.Lock()
        self._loop: asyncio.Task[None] | None = None

    def keep(self, request: Request, caller: Caller, response: Response, seconds: float) -> None:
        """Keep a request of a known credential, unless the buffer is full or the request reads this log."""
        if not self._days or request.path.startswith("/ops/v1/requests"):
            return
        size = len(request.body) + len(response.body)
        if len(self._waiting) >= BUFFERED_MAX or self._bytes + size > BUFFERED_BYTES_MAX:
            self._dropped += 1
            return
        self._bytes += size
        self._waiting.append(_Waiting(request, caller, response, seconds))

    def start(self) -> None:
        if self._days:
            self._loop = asyncio.ensure_future(self._flush_now_and_then())

    async def close(self) -> None:
        """Write the last requests down and stop."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            await self.flush()

    async def _flush_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.flush()
            except Exception:
                log.exception("requests were not logged")

    async def flush(self) -> None:
        """Write down all requests that wait. Requests that the store does not take are lost, and counted in the log."""
        async with self._flushing:
            waiting, self._waiting, self._bytes = self._waiting, [], 0
            dropped, self._dropped = self._dropped, 0
            by_scope: dict[str, list[_Waiting]] = {}
            for one in waiting:
                by_scope.setdefault(one.caller.scope.key, []).append(one)
            for scope_key, requests in by_scope.items():
                for first in range(0, len(requests), BATCH_MAX):
                    dropped += await self._write(scope_key, requests[first : first + BATCH_MAX])
            if dropped:
                log.warning("requests are missing in the request log", extra={"dropped": dropped})

    async def _write(self, scope_key: str, requests: list[_Waiting]) -> int:
        """Write one batch. Return how many requests are lost."""
        assert self._store is not None and len(scope_key) == SCOPE_KEY_LENGTH
        now_ms = self._clock.now_ms()
        few = len(requests) <= _FEW
        logged, bodies = _batch_of(requests) if few else await asyncio.to_thread(_batch_of, requests)
        batch = RequestBatch(
            id=f"{PREFIX}_{base62(now_ms * 1000, _TIME_LENGTH)}{random_text(SUFFIX_LENGTH - _TIME_LENGTH)}",
            created=now_ms // 1000,
            expires_at=now_ms // 1000 + self._days * SECONDS_PER_DAY,
            requests=logged,
            bodies=bodies,
        )
        try:
            await self._store.commit([write_of(scope_key, batch, ABSENT)])
        except (Conflict, CommitUnknown, Unavailable) as failed:
            log.info("a batch of requests was not written", extra={"why": str(failed)})
            return len(requests)
        return 0


def _batch_of(requests: Sequence[_Waiting]) -> tuple[tuple[LoggedRequest, ...], bytes]:
    """The requests as they are kept, and their bodies, packed."""
    logged, bodies = [], []
    for one in requests:
        content_type = dict(one.response.headers).get("content-type", "")
        answer = redacted_answer(one.request.path, one.response.status, content_type, one.response.body)
        logged.append(_logged(one, answer))
        query, body = _asked(one.request, one.caller)
        bodies.append((_bounded(query), _bounded(body), _bounded(answer)))
    return tuple(logged), _pack_bodies(bodies)


def _pack_bodies(bodies: _Bodies) -> bytes:
    packer = zlib.compressobj(6 if len(bodies) <= _FEW else 1, zdict=WORDS)
    return packer.compress(_encode(bodies)) + packer.flush()


def _asked(request: Request, caller: Caller) -> tuple[Any, Any]:
    """The parameters in the query and in the body of a request. Most were read when it was handled."""
    if caller.sent and not (request.body and request.query):
        if request.body:
            return None, redacted_parameters(request.path, caller.sent, request.body)
        return redacted_parameters(request.path, caller.sent, bytes_of(request.query)), None
    is_json, content_type = caller.source_api.name != "v1", request.headers.get("content-type")
    return redacted_query(request.path, request.query), redacted_body(
        request.path, content_type, request.body, is_json=is_json
    )


def _bounded(document: Any) -> Any:
    if not isinstance(document, dict):
        return document
    encoded = _encode(document)
    return msgspec.Raw(encoded) if len(encoded) <= KEPT_MAX else f"({len(encoded)} bytes)"


def unpack_bodies(batch: RequestBatch) -> list[tuple[msgspec.Raw, msgspec.Raw, msgspec.Raw]]:
    """The query, the body and the answer of each request in the batch, as JSON."""
    unpacker = zlib.decompressobj(zdict=WORDS)
    return _decode_bodies(unpacker.decompress(batch.bodies) + unpacker.flush())


def _logged(one: _Waiting, answer: Any) -> LoggedRequest:
    request, caller = one.request, one.caller
    assert caller.request_id is not None
    return LoggedRequest(
        id=caller.request_id,
        method=request.method[:10],
        path=request.path if one.response.status < 400 else discreet_text(request.path[:500]),
        status=one.response.status,
        milliseconds=round(one.seconds * 1000, 1),
        actor=caller.actor,
        hint=caller.hint,
        api_version=caller.api_version,
        idempotency_key=discreet_text(caller.idempotency_key) if caller.idempotency_key else None,
        source_api=caller.source_api.name,
        user_agent=discreet_text((request.headers.get("user-agent") or "")[:200]),
        error=_error(one.response, answer),
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


# Reading.


class Place(msgspec.Struct, frozen=True):
    """Where a request is: the key of its batch, and its place in it."""

    key: str
    batch: RequestBatch
    number: int


async def find(store: Store, scope_key: str, id: str, *, now: int) -> Place | None:
    """Return the place of the request with that id; None if the log of that scope does not have it at `now`."""
    suffix = id.removeprefix("req_")
    if len(suffix) != 14 or not suffix.isalnum() or not suffix.isascii():
        return None
    came = microseconds_of(suffix[:_TIME_LENGTH])
    prefix = f"{scope_key}/{PREFIX}_"
    after = prefix + base62(max(came - 5_000_000, 0), _TIME_LENGTH)
    until = prefix + base62(came + LATE_SECONDS * 1_000_000, _TIME_LENGTH)
    for _ in range(LOOKED_AT_MAX // _LOOK_PAGE):
        rows = await store.query(None, prefix, after=after, until=until, limit=_LOOK_PAGE, order="oldest")
        for row in rows:
            batch = batch_in(row.key, row.body)
            for number, request in enumerate(batch.requests):
                if request.id == id and batch.expires_at > now:
                    return Place(row.key, batch, number)
        if len(rows) < _LOOK_PAGE:
            return None
        after = rows[-1].key
    return None


def batch_in(key: str, body: bytes) -> RequestBatch:
    batch = decode(key.partition("/")[2], body)
    assert isinstance(batch, RequestBatch), f"{key} is no batch of requests"
    return batch


# Redaction of a customer or a payment.

_HIDDEN_BODIES: Final = (None, None, "****")


async def hide_requests(store: Store, scope_key: str, mentions: Callable[[bytes], bool]) -> int:
    """Hide the bodies of logged requests that name certain records, and return their number.

    `mentions` judges bytes in which ids stand in quotation marks, as JSON has them.
    """
    count, after = 0, None
    prefix = f"{scope_key}/{PREFIX}_"
    while rows := await store.query(None, prefix, after=after, limit=_LOOK_PAGE, order="oldest"):
        for row in rows:
            batch = batch_in(row.key, row.body)
            bodies: _Bodies = []
            hidden = 0
            for request, kept in zip(batch.requests, unpack_bodies(batch), strict=True):
                address = b'"%b"' % request.path.replace("/", '"').encode()
                if bytes(kept[2]) != b'"****"' and mentions(address + b"".join(map(bytes, kept))):
                    hidden += 1
                    bodies.append(_HIDDEN_BODIES)
                else:
                    bodies.append(kept)
            if hidden:
                after_it = msgspec.structs.replace(batch, bodies=_pack_bodies(bodies))
                await store.commit([write_of(scope_key, after_it, row.version)])
                count += hidden
        after = rows[-1].key
    return count
