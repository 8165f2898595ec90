"""Stripe's own command line: the sessions and the websocket of `stripe listen` and `stripe logs tail`.

The protocol is that of github.com/stripe/stripe-cli (pkg/stripeauth, pkg/websocket, pkg/proxy, pkg/logtailing). A
session is signed and stored nowhere, so any process of a server may take its websocket. That process looks for new
events, or new lines of the request log, twice a second.
"""

import asyncio
import base64
import binascii
import hmac
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import msgspec

from tillway.api.events import list_events
from tillway.api.requests import list_requests
from tillway.domain.account import Scope, scope_of
from tillway.domain.cards import Secret
from tillway.domain.event import EventReading
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.ids import random_text
from tillway.engine.platform import Platform
from tillway.engine.webhooks.delivery import CONTENT_TYPE
from tillway.engine.webhooks.signing import SECRET_PREFIX, signature_header
from tillway.http.params import Array, Enum, Ignored, Params, Span, Text
from tillway.http.routes import Answer, Call, Page, route
from tillway.http.sockets import socket
from tillway.http.versions import CURRENT

PATH: Final = "/v1/stripecli/websocket"
LOOK_SECONDS: Final = 0.5
OVERLAP_SECONDS: Final = 5
"""An event may be committed so much later than the time in its id says."""

PAGES_MAX: Final = 10
SESSION_SECONDS: Final = 7 * 24 * 60 * 60
RECONNECT_SECONDS: Final = 3600
REMEMBERED_MAX: Final = 1000
FILTERS_MAX: Final = 4000

CREATE = Params(
    device_name=Text(maximum=500),
    filters=Text(maximum=FILTERS_MAX),
    forward_connect_to_url=Ignored(),
    forward_thin_connect_to_url=Ignored(),
    forward_thin_to_url=Ignored(),
    forward_to_url=Ignored(),
    websocket_features=Array(
        Enum("webhooks", "webhook_payloads", "request_logs", "v2_events"), minimum=1, maximum=4, required=True
    ),
)


class Filters(msgspec.Struct, frozen=True):
    """The filters of `stripe logs tail`, in the words of its `LogFilters`. Those of Connect and of addresses change
    nothing."""

    filter_http_method: list[str] = []
    filter_request_path: list[str] = []
    filter_request_status: list[str] = []
    filter_status_code: list[str] = []
    filter_status_code_type: list[str] = []

    def keep(self, request: dict[str, Any]) -> bool:
        status = str(request["status"])
        fate = "SUCCEEDED" if status < "400" else "FAILED"
        return (
            _is_one_of(request["method"], self.filter_http_method)
            and _is_one_of(request["path"], self.filter_request_path)
            and _is_one_of(fate, self.filter_request_status)
            and _is_one_of(status, self.filter_status_code)
            and _is_one_of(f"{status[0]}XX", self.filter_status_code_type)
        )


def _is_one_of(word: str, allowed: list[str]) -> bool:
    return not allowed or word.upper() in map(str.upper, allowed)


@route("POST", "/v1/stripecli/sessions", CREATE, returns="stripecli.session")
async def create_session(call: Call) -> Answer:
    """Open a session of Stripe's command line: the address of a websocket, and a signing secret."""
    platform, caller = call.platform, call.caller
    if not platform.serves_sockets:
        raise Refused(
            "parameter_unsupported",
            "This server has no websockets, as HTTP APIs of AWS have none: `stripe listen` and `stripe logs tail` do "
            "not work. Use `tillway listen` and `tillway logs tail`.",
            param="websocket_features",
        )
    feature = "request_logs" if "request_logs" in call.params["websocket_features"] else "webhooks"
    if feature == "request_logs" and caller.scopes is not None and "ops:read" not in caller.scopes:
        raise Refused("insufficient_scope", "`logs tail` needs the scope ops:read.", scope="ops:read")
    filters = call.params.get("filters") or "{}"
    _read_filters(filters)
    expires = platform.engine.clock.now_ms() // 1000 + SESSION_SECONDS
    if caller.expires_at is not None:
        expires = min(expires, caller.expires_at)
    encoded = base64.urlsafe_b64encode(filters.encode()).decode()
    told = f"{random_text(8)}.{caller.scope_key}.{caller.actor}.{feature}.{expires}.{encoded}"
    base = platform.engine.settings.public_url
    return {
        "object": "stripecli.session",
        "default_version": CURRENT,
        "device_token": "",
        "display_connect_filter_warning": False,
        "latest_version": CURRENT,
        "reconnect_delay": RECONNECT_SECONDS,
        "secret": _signing_secret(platform, caller.scope_key).reveal(),
        "websocket_authorized_feature": feature,
        "websocket_id": f"{told}.{_signature(platform, told)}",
        "websocket_url": f"ws{base.removeprefix('http')}{PATH}",
    }


def _signing_secret(platform: Platform, scope_key: str) -> Secret[str]:
    """The secret that signs all that a merchant's `stripe listen` forwards. It is the same in each session."""
    return Secret(SECRET_PREFIX + platform.engine.client_secrets.text_secret(f"stripe listen of {scope_key}"))


def _signature(platform: Platform, told: str) -> str:
    return platform.engine.client_secrets.text_secret(f"session of {told}")


def _read_filters(text: str) -> Filters:
    try:
        return msgspec.json.decode(text, type=Filters)
    except msgspec.MsgspecError as error:
        raise Refused("parameter_invalid_string", f"Invalid filters: {error}", param="filters") from None


class _Session(msgspec.Struct, frozen=True):
    id: str
    scope: Scope
    actor: str
    feature: str
    expires: int
    filters: Filters


def _read_session(platform: Platform, id: str) -> _Session | None:
    """The session of an id; None if the id is not ours or has expired."""
    told, _, signature = id.rpartition(".")
    if not hmac.compare_digest(signature.encode(), _signature(platform, told).encode()):
        return None
    _, scope_key, actor, feature, expires, encoded = told.split(".")
    if int(expires) <= platform.engine.clock.now_ms() // 1000:
        return None
    try:
        filters = base64.urlsafe_b64decode(encoded).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return _Session(id, scope_of(scope_key), actor, feature, int(expires), _read_filters(filters))


async def _is_open(platform: Platform, session: _Session) -> bool:
    """Whether the credential that opened the session would still be accepted."""
    now = platform.engine.clock.now_ms() // 1000
    account = await platform.authenticator.account(session.scope.account)
    if session.expires <= now or account is None or account.disabled_at is not None:
        return False
    return await platform.authenticator.issuer(session.actor, now=time.time()) is not None


class _Progress(msgspec.Struct):
    """How far a session has come: it has had all that is older than `since`, and the ids in `had`."""

    since: int
    had: OrderedDict[str, None]


_PROGRESS: OrderedDict[str, _Progress] = OrderedDict()
"""By the session, for its next websocket."""


@socket(PATH)
async def stream(platform: Platform, headers: Mapping[str, str]) -> AsyncIterator[str]:
    """The messages of a session, after an empty text."""
    session = _read_session(platform, headers.get("websocket-id") or "")
    if session is None or not await _is_open(platform, session):
        return
    progress = _PROGRESS.pop(session.id, None) or _Progress(platform.engine.clock.now_ms() // 1000 - 2, OrderedDict())
    _PROGRESS[session.id] = progress
    if len(_PROGRESS) > REMEMBERED_MAX:
        _PROGRESS.popitem(last=False)
    yield ""
    while await _is_open(platform, session):
        now = platform.engine.clock.now_ms() // 1000
        for record in reversed(await _new(platform, session, progress)):
            for text in await _messages(platform, session, record):
                yield text
        progress.since = max(progress.since, now - OVERLAP_SECONDS)
        await asyncio.sleep(LOOK_SECONDS)


async def _new(platform: Platform, session: _Session, progress: _Progress) -> list[Any]:
    """The events or requests that the session has not had, newest first."""
    found: list[Any] = []
    handler = list_requests if session.feature == "request_logs" else list_events
    params: dict[str, Any] = {"limit": 100, "created": Span(progress.since)}
    for _ in range(PAGES_MAX):
        caller = Caller(scope=session.scope, scope_key=session.scope.key)
        page = await handler(Call(platform, caller, dict(params), ()))
        assert isinstance(page, Page)
        found += [record for record in page.records if _id(record) not in progress.had]
        if not page.has_more:
            break
        params["starting_after"] = _id(page.records[-1])
    for record in found:
        progress.had[_id(record)] = None
    while len(progress.had) > REMEMBERED_MAX * PAGES_MAX:
        progress.had.popitem(last=False)
    return found


def _id(record: Any) -> str:
    id: str = record["id"] if isinstance(record, dict) else record.id
    return id


async def _messages(platform: Platform, session: _Session, record: Any) -> list[str]:
    if isinstance(record, EventReading):
        return await _event_messages(platform, session, record)
    return [_request_message(record)] if session.filters.keep(record) else []


async def _event_messages(platform: Platform, session: _Session, reading: EventReading) -> list[str]:
    """The event for those who listen to the account's default API version, and for those who listen to the latest."""
    engine, scope = platform.engine, session.scope
    caller = await engine.reader(scope)
    _, body = await engine.render(caller, engine.load(scope.key), reading, None)
    now = engine.clock.now_ms() // 1000
    headers = {
        "Accept": "*/*; q=0.5, application/xml",
        "Cache-Control": "no-cache",
        "Content-Type": CONTENT_TYPE,
        "Stripe-Signature": signature_header(body, _signing_secret(platform, scope.key), now=now),
        "User-Agent": "Tillway (webhooks)",
    }
    return [
        _encode(
            {
                "type": "webhook_event",
                "endpoint": {"api_version": version},
                "event_payload": body.decode(),
                "http_headers": headers,
                "webhook_conversation_id": f"wc_{reading.id.partition('_')[2]}",
                "webhook_id": f"wh_{reading.id.partition('_')[2]}",
            }
        )
        for version in (None, CURRENT)
    ]


def _request_message(request: dict[str, Any]) -> str:
    payload = {
        "created_at": request["created"],
        "livemode": request["livemode"],
        "method": request["method"],
        "request_id": request["id"],
        "status": request["status"],
        "url": request["path"],
        "error": {
            "type": request["error_type"] or "",
            "code": request["code"] or "",
            "decline_code": request["decline_code"] or "",
            "message": request["message"] or "",
            "param": request["param"] or "",
        },
    }
    return _encode(
        {
            "type": "request_log_event",
            "event_payload": _encode(payload),
            "request_log_id": f"resp_{request['id'].partition('_')[2]}",
        }
    )


def _encode(document: dict[str, Any]) -> str:
    return msgspec.json.encode(document).decode()
