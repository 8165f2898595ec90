"""The API as one function from request to response on plain values, which each kind of server adapts to."""

import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import lru_cache, partial
from typing import Any, Protocol
from urllib.parse import unquote_plus

import msgspec

from tillway.domain.cards import contains_card_number
from tillway.domain.operator import MAY, Role
from tillway.domain.record import Record
from tillway.domain.refusal import REPEATABLE, RULES, Refused
from tillway.engine.batched_log import new_line_id
from tillway.engine.caller import Caller
from tillway.engine.core import Done
from tillway.engine.platform import Platform
from tillway.engine.restores import RETRY_AFTER_SECONDS
from tillway.engine.siblings import Siblings
from tillway.engine.telemetry import Fact, begin_facts, end_facts, note, note_record
from tillway.http import late, plain_params
from tillway.http.authentication import (
    NOBODY,
    UNAUTHENTICATED_BODY_BYTES_MAX,
    Authenticator,
    admit_again,
    check_named,
    identify_at_once,
    identify_caller,
    refuse_large_body_without_header,
)
from tillway.http.card_testing import CardLimits, CardTries
from tillway.http.contract import Dialect
from tillway.http.ephemeral_keys import refuse_others_things
from tillway.http.errors import challenge, discreet, internal_error
from tillway.http.idempotency import answer_once
from tillway.http.masking import mask_personal
from tillway.http.messages import Request, Response, refuse_repeated
from tillway.http.methods import MethodNotAllowed, answer_options, browser_headers, route_for
from tillway.http.params import drop_nulls
from tillway.http.render import Renderer, encode, narrow_for
from tillway.http.request_log import RequestLog
from tillway.http.routes import (
    DIALECT_ROUTES,
    NO_PARAMS,
    OTHER_ROUTES,
    ROUTES,
    Answer,
    Call,
    Page,
    Plain,
    Route,
    Router,
)
from tillway.http.shapes import check_expansions, expand, render_record
from tillway.http.stored_throttle import SharedCounts
from tillway.http.throttle import Limits, Throttle, Throttled
from tillway.http.versions import CURRENT, check_parameters, check_version, has_older_shapes
from tillway.http.wire import FORM_TYPE, parse_body, parse_json, parse_query
from tillway.store.codec import RecordDamaged
from tillway.store.port import Unavailable

log = logging.getLogger(__name__)

UNMATCHED = "unmatched"
"""The name in logs and metrics for a path without a route."""

TELL_SECONDS = 10.0
"""The least time between two log lines about addresses that fail too often."""

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))

_MALFORMED = frozenset(("body_malformed", "body_too_large", "content_type_unsupported"))

_NOBODY_KEY = NOBODY.key

UPLOADS = "/v1/files"
"""The one address that takes a multipart body."""

_NO_STORE = ("cache-control", "no-store")
_NOSNIFF = ("x-content-type-options", "nosniff")
_NO_SERVER = ("server", "")
"""Without it, the HTTP server would name itself."""
_JSON = "application/json"
_OF_JSON = (_NOSNIFF, _NO_SERVER, ("content-type", _JSON))
_USUAL = (_NO_STORE, *_OF_JSON)
_NO_HEADERS: tuple[tuple[str, str], ...] = ()
_NO_FACTS: Mapping[str, Fact] = {}


class BrowserPages(Protocol):
    """Pages for the people of an installation, below the path `prefix`."""

    prefix: str

    async def respond(self, request: Request) -> tuple[Response, str]:
        """The response, and the pattern of its page for the metrics. Never raises."""

    async def knows(self, request: Request) -> bool:
        """Whether the request is of a person who has signed in. Never raises."""


class Api:
    def __init__(
        self,
        platform: Platform,
        renderer: Renderer,
        authenticator: Authenticator,
        request_log: RequestLog,
        throttle: Throttle | None = None,
        card_tries: CardTries | None = None,
        tells_addresses: bool = True,
    ) -> None:
        """`tells_addresses`: whether log lines have the callers' addresses."""
        self.platform = platform
        self.renderer = renderer
        self.authenticator = authenticator
        self.request_log = request_log
        self.throttle = throttle or Throttle(Limits())
        self.card_tries = card_tries or CardTries(CardLimits())
        self.tells_addresses = tells_addresses
        self.pages: BrowserPages | None = None
        """The dashboard, if this process serves it."""
        self.siblings: Siblings | None = None
        """The other processes of this server, if there are any."""
        self.counts: SharedCounts | None = None
        """The counts that servers and functions on one store share, if there may be several."""
        self._untold_refusals = 0
        self._told_refusals_at = -TELL_SECONDS
        self._misses_routes = late.are_left()
        self._router = Router(ROUTES + DIALECT_ROUTES + OTHER_ROUTES)

    def _routes_at(self, path: str) -> tuple[dict[str, Route], tuple[str, ...]] | None:
        found = self._router.find(path)
        if found is None and self._misses_routes:
            late.load_rest()
            self._misses_routes = False
            self._router = Router(ROUTES + DIALECT_ROUTES + OTHER_ROUTES)
            found = self._router.find(path)
        return found

    def _pages_at(self, path: str) -> BrowserPages | None:
        """The dashboard, for a path at or below its prefix: `/dashboards` is none."""
        pages = self.pages
        if pages is None or not path.startswith(pages.prefix):
            return None
        return pages if path[len(pages.prefix) : len(pages.prefix) + 1] in ("", "/") else None

    def handle(self, request: Request) -> Coroutine[Any, Any, Response]:
        """Answer `request`. Never raises: an unexpected exception is logged and answered with a 500."""
        began, engine = time.perf_counter(), self.platform.engine
        if self.siblings is not None:
            self.siblings.look()
        request_id = new_line_id("req", engine.clock.now_ms())
        if engine.telemetry.telling:
            return self._handle_in_span(request, request_id, began)
        return self._respond(request, request_id, began)

    async def answer(self, request: Request) -> Response:
        """Answer a call that a page of this process makes for the operator in `request.grant`. Never raises. It is part
        of the page's own request, so no metric counts it; the log of requests has those that change something."""
        request_id, began = new_line_id("req", self.platform.engine.clock.now_ms()), time.perf_counter()
        response = await self._respond(request, request_id)
        if request.method != "GET" and response.caller is not None:
            self.request_log.keep(request, response.caller, response, time.perf_counter() - began)
        return response

    def count_page(self, page: str | None, address: str | None) -> None:
        """Count a request for a payer's page, by the page and by a public address. Raises `Throttled`."""
        self.throttle.count_page(page, address)

    async def watch_card(self, call: Call, handle: Callable[[], Awaitable[Answer]]) -> Answer:
        """Handle a call of a payer's page that may try a card, and count it. Raises `Throttled`."""
        return await self.card_tries.watch(call, handle)

    async def reads_large_body(self, request: Request) -> bool:
        """Whether a body of more than UNAUTHENTICATED_BODY_BYTES_MAX bytes is worth reading: for a known credential.

        Where it is not, `handle` refuses the request without its body.
        """
        found = self._routes_at(request.path)
        route = found[0].get("GET" if request.method == "HEAD" else request.method) if found is not None else None
        if route is None:
            pages = self._pages_at(request.path)
            return pages is not None and await pages.knows(request)
        if route.access == "anyone":
            return True
        try:
            await self.authenticator.authenticate_header(request.headers.get("authorization"), now=time.time())
        except (Refused, Unavailable):
            return False
        return True

    def refuse_unread(self, path: str, refused: Refused) -> Response:
        """Refuse a request whose body was not read to its end, in the words of its contract."""
        request_id = new_line_id("req", self.platform.engine.clock.now_ms())
        found = self._routes_at(path)
        dialect = next(iter(found[0].values())).dialect if found is not None else None
        status, body = self._render_refusal(_nobody(request_id), dialect, refused)
        return Response(status, [("request-id", request_id), *_USUAL], body)

    async def _handle_in_span(self, request: Request, request_id: str, began: float) -> Response:
        """Respond within a span. Facts that the handler notes are gathered for it and for the line of the log."""
        telemetry, facts = self.platform.engine.telemetry, dict[str, Fact](request=request_id)
        token = begin_facts(facts)
        try:
            with telemetry.span("request", "request", request.headers) as span:
                response = await self._respond(request, request_id)
                caller = response.caller
                if caller is not None:
                    facts |= {
                        "account": caller.scope.account,
                        "mode": caller.scope.mode,
                        "source_api": caller.source_api.name,
                    }
                method = request.method if request.method in _METHODS else "OTHER"
                span.tell(method=method, route=response.route, status=response.status, **facts)
        finally:
            end_facts(token)
        if self.tells_addresses and request.client_ip is not None:
            facts["address"] = request.client_ip
        return self._told(request, response, began, facts)

    def _told(
        self, request: Request, response: Response, began: float, facts: Mapping[str, Fact] = _NO_FACTS
    ) -> Response:
        """Count a request that was answered, and keep it in the log of requests if its caller is known."""
        seconds, method = time.perf_counter() - began, request.method
        # The method of a request without a route may be any word.
        method = method if method in _METHODS else "OTHER"
        self.platform.engine.telemetry.request(method, response.route, response.status, seconds, facts)
        if response.caller is not None:
            self.request_log.keep(request, response.caller, response, seconds)
        return response

    async def _respond(self, request: Request, request_id: str, began: float | None = None) -> Response:
        """Return the response. With `began`, the time at which the request came, the request is also counted and
        logged: a coroutine around this one would be resumed as often as this one is."""
        found = self._router.find(request.path)
        pages = self._pages_at(request.path) if found is None else None
        if pages is not None:
            return await self._show_page(pages, request, began)
        caller: Caller | None = None
        headers: list[tuple[str, str]] = [("request-id", request_id)]
        pattern, dialect, content_type, own = UNMATCHED, None, _JSON, _NO_HEADERS
        refused: Refused | None = None
        try:
            methods, ids = found or self._find_routes(request)
            route = methods.get(request.method)
            first = route or next(iter(methods.values()))
            pattern, dialect = first.path, first.dialect
            if request.method == "OPTIONS":
                answer: Any = answer_options(request, methods)  # `Answer`, told apart by `type`: see decision 0031.
            else:
                route = route or route_for(request, methods)
                if route.access == "publishable":
                    headers += browser_headers(request)
                raw = None
                again = None
                if route.access != "anyone":
                    again = admit_again(self.authenticator, self.throttle, request, route, request_id)
                if again is None:
                    caller = _nobody(request_id)
                    unknown = self._identify(request, route, caller)
                    raw = await unknown if unknown is not None else None
                elif isinstance(again, Refused):
                    return self._refuse_key(again, request, request_id, pattern, headers, began)
                else:
                    caller = again
                answer = await self._call_handler(request, route, ids, caller, headers, raw)
            if type(answer) is Done:
                status, body, refused = answer.status, answer.body, answer.refusal
                note_record(answer.record)
                if refused is not None:
                    note("code", refused.code)
            elif type(answer) is Plain:
                status, body, content_type, own = answer.status, answer.body, answer.content_type, answer.headers
                headers += own
                if status == 401:
                    self._count_unknown_client(request)
            else:
                assert caller is not None, "only OPTIONS is answered for no caller, and plainly"
                shown = None
                if type(answer) is not dict and type(answer) is not Page:
                    shown = self.renderer.at_once(caller, answer, None)
                    note_record(answer)
                status, body = shown or await self._render_answer(caller, answer)
            if caller is not None and caller.role is not None and type(answer) is not Plain:
                body = _mask_for(caller.role, body)
        except (Refused, Unavailable, RecordDamaged) as stopped:
            caller = caller or _nobody(request_id)
            refused = self._refusal_of(request, caller, stopped)
            status, body = self._render_refusal(caller, dialect, refused)
            headers += self._tell_refused(refused)
        except Exception:
            caller = caller or _nobody(request_id)
            log.exception("a request failed inside", extra={"request": request_id, "route": pattern})
            note("code", "internal")
            status, body = self._render_internal(caller, dialect)
        known = None if caller is None or caller.scope is NOBODY else caller
        _add_common(headers, own, known, dialect, content_type)
        response = Response(status, headers, body, refused, pattern, known)
        return response if began is None else self._told(request, response, began)

    async def _show_page(self, pages: BrowserPages, request: Request, began: float | None) -> Response:
        """Return the response of the dashboard."""
        response, pattern = await pages.respond(request)
        response.route = pattern
        return response if began is None else self._told(request, response, began)

    def _refuse_key(
        self,
        refused: Refused,
        request: Request,
        request_id: str,
        pattern: str,
        headers: list[tuple[str, str]],
        began: float | None,
    ) -> Response:
        """Refuse a key that is known to be nowhere, as one that was looked for and not found is refused."""
        refused = self._count_failure(request, None, refused)
        status, body = self.renderer.refusal_to_all(request_id, refused)
        headers += self._tell_refused(refused)
        headers += _USUAL
        response = Response(status, headers, body, refused, pattern)
        return response if began is None else self._told(request, response, began)

    def _identify(self, request: Request, route: Route, caller: Caller) -> Awaitable[dict[str, Any] | None] | None:
        """Authenticate the caller. Return the rest of that work if something must be read for it. Its result are the
        parameters of a dialect's request."""
        if route.access != "anyone":
            refuse_large_body_without_header(request)
        if route.dialect is not None:
            return self._identify_in(route.dialect, request, route, caller)
        if route.access == "anyone" or identify_at_once(self.authenticator, self.throttle, request, route, caller):
            return None
        return identify_caller(self.authenticator, self.throttle, request, route, caller, None)

    async def _identify_in(self, dialect: Dialect, request: Request, route: Route, caller: Caller) -> dict[str, Any]:
        """Authenticate the caller of a dialect, and return the parameters of the request.

        A header is authenticated before the body is parsed. Only a small body is parsed first: one that may hold the
        key, or, in a dialect with `types_first`, a value of the wrong type.
        """
        caller.source_api, caller.presenter = dialect.source_api, route.presenter
        small = len(request.body) <= UNAUTHENTICATED_BODY_BYTES_MAX
        body_first = small and (dialect.types_first or not request.headers.get("authorization"))
        if not body_first:
            await identify_caller(self.authenticator, self.throttle, request, route, caller, None)
        parsed = self._parse_parameters(request, dialect)
        if dialect.types_first:
            route.params.check_types(parsed)
        raw: dict[str, Any] = drop_nulls(parsed, route.params)
        if body_first:
            await identify_caller(self.authenticator, self.throttle, request, route, caller, raw)
        if route.access != "anyone":
            await check_named(self.authenticator, dialect, caller, raw)
        return raw

    def _refusal_of(self, request: Request, caller: Caller, stopped: Refused | Unavailable | RecordDamaged) -> Refused:
        """Return the refusal to answer with. It is kept for the log of requests, and would keep the frames that it went
        through, which hold it too: only the cyclic garbage collector would ever free them."""
        stopped.__traceback__ = stopped.__context__ = stopped.__cause__ = None
        if isinstance(stopped, Refused):
            return self._count_failure(request, caller, stopped)
        log.error("the store cannot be read", extra={"request": caller.request_id, "why": str(stopped)})
        return Refused(stopped.code if isinstance(stopped, Unavailable) else "record_damaged")

    def _count_unknown_client(self, request: Request) -> None:
        """Count a client that a handler has not authenticated. Raises `Throttled`, which is answered in place of the
        401."""
        address = request.client_ip if self.tells_addresses else None
        self.platform.engine.security.authentication_failed(address, "client_invalid")
        self.throttle.count_failure(request.client_ip)

    def _count_failure(self, request: Request, caller: Caller | None, refused: Refused) -> Refused:
        """Count a request that failed to authenticate, or that an unknown sender malformed, for its address. `caller`
        is None where its credential is known to be none.

        Returns the refusal to answer with: `rate_limit` if there were too many.
        """
        status = RULES[refused.code].status
        if status == 401 or status == 403:
            address = request.client_ip if self.tells_addresses else None
            if caller is not None and caller.operation:  # Its credential is known.
                self.platform.engine.security.access_refused(caller, address, refused.code)
            else:
                self.platform.engine.security.authentication_failed(address, refused.code)
        if status != 401 and not (refused.code in _MALFORMED and (caller is None or caller.scope is NOBODY)):
            return refused
        try:
            self.throttle.count_failure(request.client_ip)
        except Throttled as throttled:
            self._tell_of_throttled(request)
            return throttled.with_traceback(None)
        return refused

    def _tell_of_throttled(self, request: Request) -> None:
        """Log that an address fails too often: a line for many, because an attacker decides how many there are."""
        self._untold_refusals += 1
        now = time.monotonic()
        if now - self._told_refusals_at >= TELL_SECONDS:
            facts: dict[str, Fact] = {"refused": self._untold_refusals}
            if self.tells_addresses and request.client_ip is not None:
                facts["address"] = request.client_ip
            log.warning("too many failed requests from an address", extra=facts)
            self._untold_refusals, self._told_refusals_at = 0, now

    def _tell_refused(self, refused: Refused) -> list[tuple[str, str]]:
        """Note a refusal for the log, and return its headers: when to retry, and how to authenticate."""
        note("code", refused.code)
        if type(refused) is Refused and not refused.details:
            return _headers_of_code(refused.code)
        headers: list[tuple[str, str]] = []
        if isinstance(refused, Throttled):
            self.platform.engine.telemetry.throttled(refused.limit)
            headers.append(("retry-after", str(refused.retry_after)))
        if isinstance(refused, MethodNotAllowed):
            headers.append(("allow", refused.allow))
        return headers + _headers_of_any(refused)

    def _render_refusal(self, caller: Caller, dialect: Dialect | None, refused: Refused) -> tuple[int, bytes]:
        if dialect is None:
            return self.renderer.refusal(caller, refused)
        refused.message = discreet(refused.message)
        status, answer = dialect.render_refusal(refused, caller.request_id or "")
        return status, encode(answer)

    def _render_internal(self, caller: Caller, dialect: Dialect | None) -> tuple[int, bytes]:
        if dialect is not None:
            return self._render_refusal(caller, dialect, Refused("internal"))
        status, document = internal_error(request_id=caller.request_id or "", base_url=self.renderer.base_url)
        return status, encode(document)

    def _find_routes(self, request: Request) -> tuple[dict[str, Route], tuple[str, ...]]:
        found = self._routes_at(request.path)
        if found is None:
            raise Refused(
                "route_unknown",
                f"Unrecognized request URL ({request.method}: {request.path[:200]}). The routes are listed at "
                "/openapi.json.",
            )
        return found

    def _call_handler(
        self,
        request: Request,
        route: Route,
        ids: tuple[str, ...],
        caller: Caller,
        headers: list[tuple[str, str]],
        raw: dict[str, Any] | None,
    ) -> Awaitable[Answer]:
        if route.access == "anyone":
            if route.params is NO_PARAMS:
                params = {}
            else:
                params = route.params.validate(raw if raw is not None else self._parse_parameters(request, None))
            caller.client_ip = request.client_ip
            is_head = request.method == "HEAD"
            return route.handler(Call(self.platform, caller, params, ids, request.headers, request.body, self, is_head))
        if request.unread:
            # Its key was unknown when it came, or the store away. Without its body it would be another request.
            raise Refused("busy")
        read, is_form, holds_no_code = None, False, False
        if raw is None:
            version = request.headers.get("stripe-version")
            if version is not None or caller.api_version is not None:
                version = check_version(version)
                caller.api_version = caller.api_version or version  # That of an ephemeral key goes before the header.
                caller.older_shapes = has_older_shapes(caller.api_version)
            if request.method == "GET" and not request.query and not request.body:
                raw = {}
            else:
                is_form = _is_form(request)
                known = plain_params.parse_known_form(route.params, request.body) if is_form else None
                raw, read, holds_no_code = known or (self._parse_parameters(request, None), None, False)
            if version is not None or caller.api_version is not None:
                check_parameters(raw, caller.api_version)
        caller.sent, caller.ids = raw, ids
        if read is not None:
            params = read(raw) or route.params.validate(raw)
        else:
            params = plain_params.validate(route.params, raw) if raw else route.params.validate(raw)
            if is_form:
                plain_params.keep_form(route.params, raw, request.body)
        expand = params.get("expand")
        if expand:
            caller.expand = tuple(expand)
            check_expansions(route.returns, caller.expand, of=route.of)
        call = Call(self.platform, caller, params, ids, {}, request.body, holds_no_code=holds_no_code)
        if caller.kind == "ephemeral":
            return self._handle_own(request, route, call, raw, headers)
        if request.method == "GET":
            return route.handler(call)
        if caller.publishable and request.method == "POST":
            return self.card_tries.watch(call, partial(self._handle_once, request, route, call, raw, headers))
        return self._handle_once(request, route, call, raw, headers)

    async def _handle_own(
        self, request: Request, route: Route, call: Call, raw: dict[str, Any], headers: list[tuple[str, str]]
    ) -> Answer:
        """Handle a call with an ephemeral key, which is about its customer's things alone."""
        await refuse_others_things(call, route)
        return await self._handle_once(request, route, call, raw, headers)

    def _handle_once(
        self, request: Request, route: Route, call: Call, raw: dict[str, Any], headers: list[tuple[str, str]]
    ) -> Awaitable[Answer]:
        """Handle the call, once under its Idempotency-Key."""
        key = request.headers.get("idempotency-key")
        if key is None or request.method not in ("POST", "PUT"):
            return route.handler(call)
        refuse_repeated(request, "idempotency-key")
        return answer_once(self.platform, request, route, call, key, raw, headers)

    def _parse_parameters(self, request: Request, dialect: Dialect | None) -> dict[str, Any]:
        if not request.body:
            if request.method in ("GET", "HEAD", "DELETE"):
                return parse_query(request.query)
        elif request.headers.get("content-encoding", "identity") != "identity":
            raise Refused("content_encoding_unsupported", param="Content-Encoding")
        if dialect is not None:
            return parse_json(request.headers.get("content-type"), request.body)
        content_type = request.headers.get("content-type")
        if request.path == UPLOADS and content_type is not None:
            body = _parse_upload(content_type, request.body)
        else:
            body = parse_body(content_type, request.body)
        if request.query:
            # Proxies and browsers keep addresses, and a card number must be in none of them.
            if contains_card_number(unquote_plus(request.query)):
                raise Refused(
                    "card_number_in_free_text",
                    "The address seems to hold a card number, and addresses are written to logs. Send it in the body.",
                )
            body = {**parse_query(request.query), **body}
        return body

    async def _render_answer(self, caller: Caller, answer: Answer) -> tuple[int, bytes]:
        if isinstance(answer, Record):
            return await self.renderer(caller, self.platform.engine.load(caller.scope_key), answer, None)
        view = self.renderer.view(caller)
        if isinstance(answer, Page):
            document: dict[str, Any] = {
                "object": answer.object,
                "data": [
                    render_record(record, view) if isinstance(record, Record) else record for record in answer.records
                ],
                "has_more": answer.has_more,
                "url": answer.url,
            }
            if answer.object == "search_result":
                document["next_page"] = answer.next_page
        else:
            assert isinstance(answer, dict), f"a handler answered with {type(answer).__name__}"
            document = answer
        load = self.platform.engine.load(caller.scope_key)
        if caller.expand:
            await expand(document, caller.expand, load, view)
        if caller.older_shapes and not caller.publishable:
            await self.renderer.render_older(document, load, view)
        return 200, encode(narrow_for(caller, document))


def _mask_for(role: Role, body: bytes) -> bytes:
    """Return an answer as an operator of that role may see it."""
    return body if "personal" in MAY[role] else encode(mask_personal(msgspec.json.decode(body)))


def _is_form(request: Request) -> bool:
    """Whether the parameters of the request are those of the form in its body, and nothing but these."""
    headers = request.headers
    return (
        headers.get("content-type") == FORM_TYPE
        and not request.query
        and headers.get("content-encoding") is None
        and len(request.body) > 0
    )


def _parse_upload(content_type: str, content: bytes) -> dict[str, Any]:
    from tillway.http.multipart import is_multipart, parse_multipart

    return (parse_multipart if is_multipart(content_type) else parse_body)(content_type, content)


def _headers_of_any(refused: Refused) -> list[tuple[str, str]]:
    headers: list[tuple[str, str]] = []
    if refused.code == "recovering":
        headers.append(("retry-after", str(RETRY_AFTER_SECONDS)))
    if refused.code in REPEATABLE:
        headers.append(("stripe-should-retry", "true"))
    if (asks_for := challenge(refused)) is not None:
        headers.append(("www-authenticate", asks_for))
    return headers


@lru_cache(len(RULES))
def _headers_of_code(code: str) -> list[tuple[str, str]]:
    """The headers of a refusal of which only the code counts. The caller must not change them."""
    return _headers_of_any(Refused(code))


def _nobody(request_id: str) -> Caller:
    """The caller of a request until its credential is known."""
    return Caller(scope=NOBODY, scope_key=_NOBODY_KEY, request_id=request_id)


def _add_common(
    headers: list[tuple[str, str]],
    own: tuple[tuple[str, str], ...],
    caller: Caller | None,
    dialect: Dialect | None,
    content_type: str,
) -> None:
    """Add the headers that every answer has. An answer whose `own` do not say how long it may be kept is kept
    nowhere."""
    if not own or "cache-control" not in dict(own):
        headers.append(_NO_STORE)
    headers += _OF_JSON if content_type == _JSON else (_NOSNIFF, _NO_SERVER, ("content-type", content_type))
    if caller is not None:
        if dialect is None:
            headers.append(("stripe-version", caller.api_version or CURRENT))
        if caller.idempotency_key is not None:
            headers.append(("idempotency-key", caller.idempotency_key))
