"""`/ops/v1/requests`: the request log of the key's own merchant and mode."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from tillway.domain.refusal import Refused
from tillway.domain.request_log import LoggedRequest
from tillway.engine.batched_log import began_at
from tillway.http.log_pages import log_page, place_of
from tillway.http.params import Created, Enum, Id, Text, list_params
from tillway.http.request_log import WRITTEN, KeptRequest, unpack_bodies, with_found
from tillway.http.routes import Answer, Call, route

URL: Final = "/ops/v1/requests"

METHODS: Final = ("DELETE", "GET", "HEAD", "POST", "PUT")
STATUSES: Final = ("2xx", "3xx", "4xx", "5xx")

LIST = list_params(
    created=Created(),
    key=Id(),
    method=Enum(*METHODS),
    path=Text(maximum=500),
    status=Text(maximum=40),
    text=Text(maximum=200),
)

Keep = Callable[[KeptRequest], bool]


@route("GET", URL, LIST, returns="list")
async def list_requests(call: Call) -> Answer:
    """List API requests, newest first, without their bodies. `status` has codes or classes, as `402` or `4xx,5xx`.

    `text` selects those with this text in the path, the idempotency key, the error or the value of a parameter, which
    is then `found`.
    """
    await call.platform.request_log.catch_up()
    keep, text = _keep(call.params), call.params.get("text")
    if text is None:
        return await log_page(call, WRITTEN, "request", keep, lambda one: _document(call, one.line), URL)

    async def look(requests: list[KeptRequest]) -> list[KeptRequest]:
        looked = await with_found(requests, text)
        return [one for one in looked if one.found is not None or _tells(one.line, text)]

    def render(one: KeptRequest) -> dict[str, Any]:
        found = {"param": one.found.param, "value": one.found.value} if one.found is not None else None
        return _document(call, one.line) | {"found": found}

    return await log_page(call, WRITTEN, "request", keep, render, URL, look)


@route("GET", "/ops/v1/requests/{id}", returns="request")
async def retrieve(call: Call) -> Answer:
    """Retrieve a request by the id in its answer's header `Request-Id`, with its redacted bodies."""
    await call.platform.request_log.catch_up()
    place = await place_of(call, WRITTEN, "request", call.id, "id")
    query, body, answer = unpack_bodies(place.batch)[place.number]
    shown = _document(call, place.line.line)
    return {
        **shown,
        "query": msgspec.json.decode(query),
        "request_body": msgspec.json.decode(body),
        "response_body": msgspec.json.decode(answer),
    }


def _keep(params: dict[str, Any]) -> Keep:
    method, path, key, status = (params.get(name) for name in ("method", "path", "key", "status"))
    wanted = [_statuses(one.strip()) for one in status.split(",")] if status is not None else [range(1000)]

    def keep(one: KeptRequest) -> bool:
        request = one.line
        return (
            any(request.status in statuses for statuses in wanted)
            and (method is None or request.method == method)
            and (path is None or request.path.startswith(path))
            and (key is None or request.actor == key)
        )

    return keep


def _tells(request: LoggedRequest, text: str) -> bool:
    """Whether path, idempotency key or error have that text."""
    wanted = text.casefold()
    told = (request.path, request.idempotency_key or "", *request.error.values())
    return any(wanted in one.casefold() for one in told)


def _statuses(text: str) -> range:
    """The codes of a status. Refused if it is neither a code nor a class."""
    if text in STATUSES:
        return range(int(text[0]) * 100, int(text[0]) * 100 + 100)
    if len(text) == 3 and text.isascii() and text.isdigit():
        return range(int(text), int(text) + 1)
    told = f"Invalid status: {text}. Send codes such as 402, or classes such as 4xx, with commas between them."
    raise Refused("parameter_invalid_string", told, param="status")


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
