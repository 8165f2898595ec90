"""The API as one function from request to response on plain values; every server is a thin door to it."""

import logging
import re
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from tillway.api.access import Access
from tillway.api.dialect import Dialect, is_named
from tillway.api.errors import challenge, discreet, internal_error
from tillway.api.params import without_nulls
from tillway.api.refusals import Refusals
from tillway.api.render import Renderer, encode, narrowed
from tillway.api.routes import DIALECT_ROUTES, NO_PARAMS, ROUTES, Answer, Call, Page, Plain, Route, Router
from tillway.api.scopes import scope_of
from tillway.api.shapes import check_expansions, expand, shaped
from tillway.api.throttle import Limits, Rate, Throttle, Throttled
from tillway.api.versions import CURRENT, check_parameters, check_version
from tillway.api.wire import parse_body, parse_json, parse_query
from tillway.domain.account import Account, Scope
from tillway.domain.cards import without_card_numbers
from tillway.domain.idempotency import KEY_LENGTH_MAX, IdempotencyRecord, record_id
from tillway.domain.record import Record
from tillway.domain.refusal import RULES, Refused
from tillway.engine.clock import random_text
from tillway.engine.core import Caller, Done, IdempotencyRace
from tillway.engine.platform import Platform
from tillway.engine.telemetry import Fact, begin_facts, end_facts, note, note_record
from tillway.store.port import ABSENT, Unavailable

log = logging.getLogger(__name__)

UNMATCHED = "unmatched"
"""Stands for the route in logs and metrics where no route has the path."""

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))

NOBODY = Scope(account="acct_" + "0" * 16, mode="test")
"""The scope of calls that need no key: nothing is ever kept in it."""

_NOBODY_KEY = NOBODY.key

_REPLAYED = ("idempotent-replayed", "true")


class Request(msgspec.Struct):
    """What a door hands in. Header names are lower case; `query` is without its question mark."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = {}
    body: bytes = b""
    client_ip: str | None = None


class Response(msgspec.Struct):
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Api:
    def __init__(
        self,
        platform: Platform,
        renderer: Renderer,
        access: Access,
        refusals: Refusals,
        throttle: Throttle | None = None,
    ) -> None:
        self.platform = platform
        self.renderer = renderer
        self.access = access
        self.refusals = refusals
        self.throttle = throttle or Throttle(Limits())
        self.router = Router(ROUTES + DIALECT_ROUTES)

    async def handle(self, request: Request) -> Response:
        """The answer to `request`. Never raises: what is ours to answer for is logged and becomes a 500."""
        telemetry, began = self.platform.engine.telemetry, time.perf_counter()
        request_id = f"req_{random_text(14)}"
        caller = Caller(scope=NOBODY, scope_key=_NOBODY_KEY, request_id=request_id)
        # The method of a request that no route has may be any word.
        method = request.method if request.method in _METHODS else "OTHER"
        facts: dict[str, Fact] = {}
        if telemetry.telling:
            response, route = await self._told(request, request_id, caller, method, facts)
        else:
            response, route = await self._handled(request, request_id, caller)
        telemetry.request(method, route, response.status, time.perf_counter() - began, facts)
        return response

    def turned_away(self, path: str, refused: Refused) -> Response:
        """The answer to a request whose body was not read to its end, in the words of the contract that it came by."""
        request_id = f"req_{random_text(14)}"
        found = self.router.find(path)
        dialect = next(iter(found[0].values())).dialect if found is not None else None
        status, body = self._refusal(
            Caller(scope=NOBODY, scope_key=NOBODY.key, request_id=request_id), dialect, refused
        )
        return Response(status, [("request-id", request_id), ("content-type", "application/json")], body)

    async def _told(
        self, request: Request, request_id: str, caller: Caller, method: str, facts: dict[str, Fact]
    ) -> tuple[Response, str]:
        """As `_handled`, in a span, with the facts that are noted meanwhile in `facts`."""
        facts["request"] = request_id
        token = begin_facts(facts)
        try:
            with self.platform.engine.telemetry.span("request", "request", request.headers) as span:
                response, route = await self._handled(request, request_id, caller)
                if caller.scope is not NOBODY:
                    facts |= {"account": caller.scope.account, "mode": caller.scope.mode, "door": caller.door}
                span.tell(method=method, route=route, status=response.status, **facts)
        finally:
            end_facts(token)
        return response, route

    async def _handled(self, request: Request, request_id: str, caller: Caller) -> tuple[Response, str]:
        """The answer, and the pattern of the route that gave it."""
        pattern = UNMATCHED
        headers: list[tuple[str, str]] = [("request-id", request_id)]
        content_type = "application/json"
        dialect: Dialect | None = None
        try:
            methods, ids = self._routes(request)
            pattern = next(iter(methods.values())).path
            dialect = next(iter(methods.values())).dialect
            route = _of_method(request, methods)
            raw: dict[str, Any] | None = None
            if dialect is not None:
                caller.door, caller.presenter = dialect.name, route.presenter
                raw = without_nulls(self._raw(request, dialect), route.params)
            await self._authenticate(request, route, caller, raw)
            answer = await self._answer(request, route, ids, caller, headers, raw)
            if isinstance(answer, Plain):
                status, body, content_type = answer.status, answer.body, answer.content_type
                headers += answer.headers
                if status == 401:
                    self.throttle.failed(request.client_ip)
            else:
                status, body = await self._body(route, caller, answer)
                if isinstance(answer, Done | Record):
                    note_record(answer.record if isinstance(answer, Done) else answer)
                if isinstance(answer, Done) and answer.refusal is not None:
                    note("code", answer.refusal.code)
        except (Refused, Unavailable) as stopped:
            refused = stopped if isinstance(stopped, Refused) else Refused("busy")
            if isinstance(stopped, Unavailable):
                log.error("the store cannot be read", extra={"request": request_id, "why": str(stopped)})
            status, body = self._refusal(caller, dialect, refused)
            self._remember(request, caller, refused, status)
            note("code", refused.code)
            if isinstance(refused, Throttled):
                self.platform.engine.telemetry.throttled(refused.limit)
                headers.append(("retry-after", str(refused.retry_after)))
            elif RULES[refused.code].status == 401:
                self.throttle.failed(request.client_ip)
            if refused.code in ("busy", "lock_timeout", "idempotency_key_in_use", "rate_limit"):
                headers.append(("stripe-should-retry", "true"))
            if (asks_for := challenge(refused)) is not None:
                headers.append(("www-authenticate", asks_for))
        except Exception:
            log.exception("a request failed inside", extra={"request": request_id, "route": pattern})
            note("code", "internal")
            if dialect is not None:
                status, body = self._refusal(caller, dialect, Refused("internal"))
            else:
                status, document = internal_error(request_id=request_id, base_url=self.renderer.base_url)
                body = encode(document)
        headers.append(("content-type", content_type))
        if caller.scope is not NOBODY:
            if dialect is None:
                headers.append(("stripe-version", caller.api_version or CURRENT))
            if caller.idempotency_key is not None:
                headers.append(("idempotency-key", caller.idempotency_key))
        return Response(status, headers, body), pattern

    def _remember(self, request: Request, caller: Caller, refused: Refused, status: int) -> None:
        """Keep what `request_log_url` will be asked for: nothing of the parameters but the name of the wrong one."""
        if caller.scope is not NOBODY and caller.request_id is not None:
            self.refusals.keep(
                caller.scope_key,
                caller.request_id,
                {
                    "id": caller.request_id,
                    "object": "request",
                    "code": refused.code,
                    "created": int(time.time()),
                    "message": discreet(refused.message),
                    "method": request.method,
                    "param": discreet(refused.param) if refused.param is not None else None,
                    "path": discreet(request.path[:500]),
                    "status": status,
                },
            )

    def _refusal(self, caller: Caller, dialect: Dialect | None, refused: Refused) -> tuple[int, bytes]:
        if dialect is None:
            return self.renderer.refusal(caller, refused)
        refused.message = discreet(refused.message)
        status, answer = dialect.refused(refused, caller.request_id or "")
        return status, encode(answer)

    def _routes(self, request: Request) -> tuple[dict[str, Route], tuple[str, ...]]:
        found = self.router.find(request.path)
        if found is None:
            raise Refused(
                "route_unknown",
                f"Unrecognized request URL ({request.method}: {request.path[:200]}). The routes are listed at "
                "/openapi.json.",
            )
        return found

    async def _authenticate(self, request: Request, route: Route, caller: Caller, raw: dict[str, Any] | None) -> None:
        """Whose request it is. In a dialect (`raw` is given), the key may stand in the body, and a merchant who is
        named there must be the key's."""
        if route.access == "anyone":
            if request.method != "GET":
                self.throttle.admit(request.client_ip)
            return
        dialect = route.dialect
        header = _authorization(request)
        if header is None and dialect is not None and raw is not None and dialect.key_field in raw:
            header = f"Bearer {raw[dialect.key_field]}"
        try:
            self.throttle.admit(request.client_ip)
        except Throttled:
            # Behind a proxy, everybody comes from one address: whose key was good before is not to suffer.
            if not self.access.knows(header):
                raise
        key, scope = await self.access.key(header, now=time.time())
        account = await self.access.account(scope.account, now=time.time())
        scope_key = scope.key
        self.throttle.count(scope_key, scope.mode, key.id, _own_rate(account))
        if key.kind == "publishable" and route.access != "publishable":
            raise Refused("secret_key_required")
        caller.scope, caller.scope_key = scope, scope_key
        caller.publishable, caller.customer, caller.scopes = key.kind == "publishable", key.customer, key.scopes
        caller.client_ip, caller.actor = request.client_ip, key.id
        caller.hint, caller.operation = key.token or key.hint, f"{route.method} {route.path}"
        if key.audience != "api" and (dialect is None or key.audience != dialect.audience):
            raise Refused("access_token_invalid", "This access token is for the calls of another door.")
        if key.scopes is not None:
            key.needs(scope_of(route.method, route.path))
        if dialect is not None and raw is not None and dialect.merchant_field in raw:
            named = raw[dialect.merchant_field]
            # An empty name names nobody: the parameters say that it is missing.
            if named not in (None, "") and (account is None or not is_named(account, named)):
                raise Refused("merchant_mismatch", param=dialect.merchant_field)
        # Here and not in a handler: what a key or token may not see is not replayed to it either.
        only = key.customer
        if only is not None and dialect is not None and (raw or {}).get(dialect.customer_field or "", only) != only:
            raise Refused("customer_mismatch", param=dialect.customer_field)
        # Done in this account, it would not be what was asked for: another account's money is meant.
        if request.headers.get("stripe-account", scope.account) != scope.account:
            raise Refused("account_invalid", param="Stripe-Account")

    async def _answer(
        self,
        request: Request,
        route: Route,
        ids: tuple[str, ...],
        caller: Caller,
        headers: list[tuple[str, str]],
        raw: dict[str, Any] | None,
    ) -> Answer:
        if route.access == "anyone":
            if route.params is NO_PARAMS:
                params = {}
            else:
                params = route.params.validate(raw if raw is not None else self._raw(request, None))
            return await route.handler(Call(self.platform, caller, params, ids, dict(request.headers), request.body))
        if raw is None:
            caller.api_version = check_version(request.headers.get("stripe-version"))
            raw = self._raw(request, None)
            check_parameters(raw, caller.api_version)
        params = route.params.validate(raw)
        caller.expand = tuple(params.get("expand") or ())
        if caller.expand:
            check_expansions(route.returns, caller.expand)
        call = Call(self.platform, caller, params, ids, {}, request.body)
        key = request.headers.get("idempotency-key")
        if key is None or request.method not in ("POST", "PUT"):
            return await route.handler(call)
        return await self._once(request, route, call, key, raw, headers)

    def _raw(self, request: Request, dialect: Dialect | None) -> dict[str, Any]:
        if request.method in ("GET", "DELETE") and not request.body:
            return parse_query(request.query)
        if dialect is not None:
            return parse_json(request.headers.get("content-type"), request.body)
        body = parse_body(request.headers.get("content-type"), request.body)
        if request.query:
            body = {**parse_query(request.query), **body}
        return body

    async def _once(
        self, request: Request, route: Route, call: Call, key: str, raw: dict[str, Any], headers: list[tuple[str, str]]
    ) -> Answer:
        """Answer as before where the key was used before; else handle the request under that key."""
        if len(key) > KEY_LENGTH_MAX:
            raise Refused("idempotency_key_too_long")
        caller = call.caller
        id = record_id(key)
        # Keyed, since the parameters may hold a card number, and whoever knows the rest of them could try all numbers.
        asked = encode_sorted([request.method, request.path, _lasting(raw)])
        digest = self.platform.cards.vault.digest(caller.scope_key, asked)
        # The key goes into events and headers, where a card number has no business.
        caller.idempotency, caller.idempotency_key = (id, digest), without_card_numbers(key)
        try:
            return await route.handler(call)
        except (IdempotencyRace, Refused) as stopped:
            # The key was used before, or the request cannot be granted, perhaps because it was granted before.
            held, version = await self._held(caller, id)
            if held is not None:
                return _replay(held, digest, headers)
            if isinstance(stopped, Refused):
                raise
            if version == ABSENT:
                raise Refused("idempotency_key_in_use") from None
            caller.replaces = version  # Its 24 hours are over, and the store has not forgotten it yet.
        try:
            return await route.handler(call)
        except IdempotencyRace:
            raise Refused("idempotency_key_in_use") from None

    async def _held(self, caller: Caller, id: str) -> tuple[IdempotencyRecord | None, int]:
        """The record of a key, unless it has expired, and the version at which it lies in the store."""
        load = self.platform.engine.load(caller.scope_key)
        held = await load.maybe(IdempotencyRecord, id)
        if held is None or held.expires_at > self.platform.engine.clock.now_ms() // 1000:
            return held, ABSENT
        return None, load.seen[id][0]

    async def _body(self, route: Route, caller: Caller, answer: Answer) -> tuple[int, bytes]:
        if isinstance(answer, Done):
            return answer.status, answer.body
        if isinstance(answer, Record):
            return await self.renderer(caller, self.platform.engine.load(caller.scope_key), answer, None)
        view = self.renderer.view(caller)
        if isinstance(answer, Page):
            document: dict[str, Any] = {
                "object": answer.object,
                "data": [shaped(record, view) if isinstance(record, Record) else record for record in answer.records],
                "has_more": answer.has_more,
                "url": answer.url,
            }
            if answer.object == "search_result":
                document["next_page"] = answer.next_page
        else:
            assert isinstance(answer, dict), f"{route.path} answered with {type(answer).__name__}"
            document = answer
        if caller.expand:
            await expand(document, caller.expand, self.platform.engine.load(caller.scope_key), view)
        return 200, encode(narrowed(document) if caller.publishable else document)


def _own_rate(account: Account | None) -> Rate | None:
    """The rate of an account that was given one of its own; 0 a second is no limit."""
    if account is None or account.requests_per_second is None:
        return None
    return Rate(account.requests_per_second, account.requests_burst)


def _of_method(request: Request, methods: dict[str, Route]) -> Route:
    route = methods.get(request.method)
    if route is None:
        raise Refused("method_not_allowed", f"{request.path[:200]} answers {', '.join(sorted(methods))} only.")
    return route


def _replay(held: IdempotencyRecord, digest: str, headers: list[tuple[str, str]]) -> Plain:
    """The answer that a key got the first time. Refused where it was used for something else or has no answer yet."""
    if held.fingerprint != digest:
        raise Refused("idempotency_key_reused")
    if held.status == 0:
        raise Refused("idempotency_key_in_use")
    headers += (_REPLAYED, ("original-request", held.request))
    return Plain(held.status, bytes(held.body))


encode_sorted = msgspec.json.Encoder(order="sorted", decimal_format="string").encode


_CODES = ("cvc", "cvv")


def _lasting(value: Any) -> Any:
    """Parameters without security codes: nothing that is made from one may outlive its first attempt. A repeat that
    differs in its code alone is therefore answered as the same request."""
    match value:
        case dict():
            return {
                name: member if type(member) is str else _lasting(member)
                for name, member in value.items()
                if name not in _CODES
            }
        case list():
            return [_lasting(member) for member in value]
        case _:
            return value


def _authorization(request: Request) -> str | None:
    header = request.headers.get("authorization")
    if header:
        return header
    # Browsers send a publishable key as a parameter, because Stripe.js does.
    found = re.search(
        r"(?:^|&)key=(pk_(?:test|live)_[0-9A-Za-z]+)", request.query or request.body[-4096:].decode("latin-1")
    )
    return f"Bearer {found.group(1)}" if found else None
