"""HTTP events of Lambda, to and from the request and response of `http/messages.py`.

Three doors call a function with two forms of an event: an HTTP API and a function URL with payload version 2.0, a REST
API (or an HTTP API set to it) with 1.0. Source: "Working with AWS Lambda proxy integrations for HTTP APIs" and "Lambda
proxy integrations in API Gateway" in the Amazon API Gateway developer guide.
"""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from typing import Any
from urllib.parse import quote_plus

from tillway.http.messages import Request, Response


class NotHttp(Exception):
    """The event is not an HTTP request; the text names the reason."""


def request_of(event: dict[str, Any]) -> Request:
    """Raises `NotHttp`."""
    context = event.get("requestContext")
    if not isinstance(context, dict):
        raise NotHttp("The event is no HTTP request: it has no requestContext.")
    return _request_2(event, context) if event.get("version") == "2.0" else _request_1(event, context)


def answer_of(event: dict[str, Any], response: Response) -> dict[str, Any]:
    """The response in the form of the event that asked."""
    try:
        body, encoded = response.body.decode(), False
    except UnicodeDecodeError:
        body, encoded = b64encode(response.body).decode(), True
    answer: dict[str, Any] = {"statusCode": response.status, "body": body, "isBase64Encoded": encoded}
    many: dict[str, list[str]] = {}
    for name, value in response.headers:
        if value:  # An empty one keeps a server from naming itself, and there is none here.
            many.setdefault(name, []).append(value)
    if event.get("version") == "2.0":
        cookies = many.pop("set-cookie", None)
        if cookies:
            answer["cookies"] = cookies
        answer["headers"] = {name: ", ".join(values) for name, values in many.items()}
    else:
        answer["multiValueHeaders"] = many
    return answer


def public_url_of(event: dict[str, Any]) -> str:
    """The URL at which the caller reached the API, by the name that API Gateway gave it; empty where it has none.

    The name is the API's own or a custom domain's, never one that only a caller has written.
    """
    context = event.get("requestContext") or {}
    name = context.get("domainName")
    if not name:
        return ""
    stage = context.get("stage")
    in_path = stage and stage != "$default" and _own_path(event, context).startswith(f"/{stage}/")
    return f"https://{name}/{stage}" if in_path else f"https://{name}"


def _own_path(event: dict[str, Any], context: dict[str, Any]) -> str:
    """The path with the stage that API Gateway puts before it, if it does."""
    return str(event.get("rawPath") or context.get("path") or "/")


def _request_2(event: dict[str, Any], context: dict[str, Any]) -> Request:
    http = context.get("http")
    if not isinstance(http, dict):
        raise NotHttp("The event is no HTTP request: its requestContext has no http.")
    headers = {str(name).lower(): str(value) for name, value in (event.get("headers") or {}).items()}
    if event.get("cookies"):
        headers["cookie"] = "; ".join(event["cookies"])
    path = _without_stage(str(event.get("rawPath") or "/"), context)
    query = str(event.get("rawQueryString") or "")
    return Request(str(http.get("method", "GET")), path, query, headers, _body(event), http.get("sourceIp"))


def _request_1(event: dict[str, Any], context: dict[str, Any]) -> Request:
    many = event.get("multiValueHeaders")
    if many is None:
        many = {name: [value] for name, value in (event.get("headers") or {}).items()}
    headers = {str(name).lower(): ", ".join(map(str, values)) for name, values in many.items()}
    asked = event.get("multiValueQueryStringParameters")
    if asked is None:
        asked = {name: [value] for name, value in (event.get("queryStringParameters") or {}).items()}
    # They come decoded.
    query = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, values in asked.items() for value in values)
    # A custom domain's base path stands in `path`, and nowhere else.
    path = _without_stage(str(event.get("path") or "/"), context)
    address = (context.get("identity") or {}).get("sourceIp")
    return Request(str(event.get("httpMethod", "GET")), path, query, headers, _body(event), address)


def _without_stage(path: str, context: dict[str, Any]) -> str:
    stage = context.get("stage", "$default")
    return path[len(stage) + 1 :] if stage != "$default" and path.startswith(f"/{stage}/") else path


def _body(event: dict[str, Any]) -> bytes:
    body = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return str(body).encode()
    try:
        return b64decode(body, validate=True)
    except (Base64Error, ValueError):
        raise NotHttp("The body of the event is no base64.") from None
