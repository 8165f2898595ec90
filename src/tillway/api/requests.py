"""`/ops/v1/requests`: the request log of the key's own merchant and mode."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec

from tillway.domain.refusal import Refused
from tillway.domain.request_log import LoggedRequest, RequestBatch
from tillway.engine.batched_log import batches_within, began_at
from tillway.http.params import LIMIT_DEFAULT, Created, Enum, Id, Span, Text, list_params
from tillway.http.request_log import PREFIX, Place, find, unpack_bodies
from tillway.http.routes import Answer, Call, Page, route

METHODS: Final = ("DELETE", "GET", "HEAD", "POST", "PUT")
STATUSES: Final = ("2xx", "3xx", "4xx", "5xx")

LIST = list_params(
    created=Created(),
    key=Id(),
    method=Enum(*METHODS),
    path=Text(maximum=500),
    status=Text(maximum=3),
)

Keep = Callable[[LoggedRequest], bool]


@route("GET", "/ops/v1/requests", LIST, returns="list")
async def list_requests(call: Call) -> Answer:
    """List API requests, newest first, without their bodies. `status` is a code or a class such as `4xx`."""
    await call.platform.request_log.flush()
    params = call.params
    limit = params.get("limit", LIMIT_DEFAULT)
    forwards = params.get("ending_before")
    cursor = params.get("starting_after") or forwards
    place = await _place(call, cursor, "ending_before" if forwards else "starting_after") if cursor else None
    found: list[LoggedRequest] = []
    keep, span = _keep(params), params.get("created") or Span()
    async with call.platform.scans.begin(call.caller.scope_key) as scan:
        async for some in _requests(call, place, span, is_newest_first=not forwards):
            async with scan.turn(len(some)):
                found += [request for request in some if began_at(request.id) in span and keep(request)]
            if len(found) > limit:
                break
            await scan.go_on()
    shown = found[:limit]
    if forwards:
        shown.reverse()
    return Page([_document(call, request) for request in shown], len(found) > limit, "/ops/v1/requests")


@route("GET", "/ops/v1/requests/{id}", returns="request")
async def retrieve(call: Call) -> Answer:
    """Retrieve a request by the id in its answer's header `Request-Id`, with its redacted bodies."""
    await call.platform.request_log.flush()
    place = await _place(call, call.id, "id")
    query, body, answer = unpack_bodies(place.batch)[place.number]
    shown = _document(call, place.batch.requests[place.number])
    return {
        **shown,
        "query": msgspec.json.decode(query),
        "request_body": msgspec.json.decode(body),
        "response_body": msgspec.json.decode(answer),
    }


async def _place(call: Call, id: str, param: str) -> Place:
    now = call.platform.engine.clock.now_ms() // 1000
    place = await find(call.platform.store, call.caller.scope_key, id, now=now)
    if place is None:
        raise Refused("resource_missing", f"No such request: '{id[:100]}'", param=param)
    return place


async def _requests(
    call: Call, place: Place | None, span: Span, *, is_newest_first: bool
) -> AsyncIterator[list[LoggedRequest]]:
    """Yield requests in the order asked for, some at a time: first those beside the cursor in its own batch."""
    step = -1 if is_newest_first else 1
    if place is not None:
        held = place.batch.requests
        yield list(held[: place.number][::-1] if is_newest_first else held[place.number + 1 :])
    async for batches in batches_within(
        call.platform.store,
        call.caller.scope_key,
        PREFIX,
        RequestBatch,
        first=span.first,
        last=span.last,
        now=call.platform.engine.clock.now_ms() // 1000,
        cursor=place.key if place is not None else None,
        is_newest_first=is_newest_first,
    ):
        yield [request for batch in batches for request in batch.requests[::step]]


def _keep(params: dict[str, Any]) -> Keep:
    method, path, key, status = (params.get(name) for name in ("method", "path", "key", "status"))
    low, high = 0, 1000
    if status is not None:
        if status in STATUSES:
            low = int(status[0]) * 100
            high = low + 99
        elif len(status) == 3 and status.isascii() and status.isdigit():
            low = high = int(status)
        else:
            raise Refused(
                "parameter_invalid_string",
                f"Invalid status: {status}. Send a code such as 402, or 4xx.",
                param="status",
            )

    def keep(request: LoggedRequest) -> bool:
        return (
            low <= request.status <= high
            and (method is None or request.method == method)
            and (path is None or request.path.startswith(path))
            and (key is None or request.actor == key)
        )

    return keep


def _document(call: Call, request: LoggedRequest) -> dict[str, Any]:
    error = request.error
    return {
        "id": request.id,
        "object": "request",
        "api_version": request.api_version,
        "code": error.get("code"),
        "created": began_at(request.id),
        "decline_code": error.get("decline_code"),
        "duration_ms": request.milliseconds,
        "error_type": error.get("type"),
        "idempotency_key": request.idempotency_key,
        "key": {"id": request.actor, "hint": request.hint},
        "livemode": call.caller.scope.livemode,
        "message": error.get("message"),
        "method": request.method,
        "param": error.get("param"),
        "path": request.path,
        "source_api": request.source_api,
        "status": request.status,
        "user_agent": request.user_agent or None,
    }
