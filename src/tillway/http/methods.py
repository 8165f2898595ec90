"""The methods of an address: HEAD, OPTIONS, `Allow`, and which calls a browser may make from a shop's page (CORS)."""

from collections.abc import Mapping

from tillway.domain.refusal import Refused
from tillway.http.messages import Request
from tillway.http.routes import Plain, Route

PREFLIGHT_SECONDS = 600
"""How long a browser may keep the answer to a preflight request."""

_REQUEST_HEADERS = "authorization, content-type, idempotency-key, stripe-version, x-stripe-client-user-agent"
_ANSWER_HEADERS = "idempotency-key, request-id, retry-after, stripe-should-retry, stripe-version"
_VARY = ("vary", "Origin")
_NO_ORIGIN = (_VARY,)
_VARY_PREFLIGHT = ("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")


class MethodNotAllowed(Refused):
    """The address has routes, but none for the method. `allow` is the header `Allow` (RFC 9110, 15.5.6)."""

    def __init__(self, path: str, allow: str) -> None:
        super().__init__("method_not_allowed", f"{path[:200]} answers {allow} only.")
        self.allow = allow


def route_for(request: Request, methods: Mapping[str, Route]) -> Route:
    """Return the route of the request's method; HEAD has that of GET. Raises `MethodNotAllowed`."""
    route = methods.get("GET" if request.method == "HEAD" else request.method)
    if route is None:
        raise MethodNotAllowed(request.path, allow(methods))
    return route


def allow(methods: Mapping[str, Route]) -> str:
    """Return the methods of an address, as the header `Allow` names them."""
    more = ("HEAD", "OPTIONS") if "GET" in methods else ("OPTIONS",)
    return ", ".join(sorted((*methods, *more)))


def answer_options(request: Request, methods: Mapping[str, Route]) -> Plain:
    """Answer OPTIONS: with `Allow`, and to a browser's preflight request with its permission.

    Only a method that takes a publishable key is permitted: a secret key has no place in a browser.
    """
    headers: list[tuple[str, str]] = [("allow", allow(methods))]
    if any(is_for_browsers(route) for route in methods.values()):
        headers.append(_VARY_PREFLIGHT)
        asked = request.headers.get("access-control-request-method")
        route = methods.get("GET" if asked == "HEAD" else asked or "")
        origin = request.headers.get("origin")
        if route is not None and origin is not None and is_for_browsers(route):
            headers += [
                ("access-control-allow-origin", origin),
                ("access-control-allow-methods", route.method),
                ("access-control-allow-headers", _REQUEST_HEADERS),
                ("access-control-max-age", str(PREFLIGHT_SECONDS)),
            ]
    return Plain(204, b"", headers=tuple(headers))


def is_for_browsers(route: Route) -> bool:
    """Whether a page of another origin may make the call: one that takes a publishable key."""
    return route.access == "publishable"


def browser_headers(request: Request) -> tuple[tuple[str, str], ...]:
    """Return the headers that let a page of another origin read the answer of a route for browsers.

    The origin is named and no credentials are allowed, so a cookie that the browser holds for another site is no use.
    """
    origin = request.headers.get("origin")
    if origin is None:
        return _NO_ORIGIN
    return _VARY, ("access-control-allow-origin", origin), ("access-control-expose-headers", _ANSWER_HEADERS)
