"""HTTP events in the forms of the three doors, and the answers in theirs."""

from base64 import b64encode
from typing import Any

import pytest

from tillway.aws.events import NotHttp, answer_of, public_url_of, request_of
from tillway.http.messages import Response

HTTP_API: dict[str, Any] = {
    "version": "2.0",
    "rawPath": "/v1/charges",
    "rawQueryString": "limit=2&expand[]=data.customer",
    "cookies": ["a=1", "b=2"],
    "headers": {"Content-Type": "application/json", "X-Forwarded-For": "203.0.113.7"},
    "requestContext": {
        "domainName": "abc.execute-api.eu-central-1.amazonaws.com",
        "stage": "$default",
        "http": {"method": "POST", "path": "/v1/charges", "sourceIp": "203.0.113.7"},
    },
    "body": '{"amount": 1}',
    "isBase64Encoded": False,
}
REST_API: dict[str, Any] = {
    "httpMethod": "GET",
    "path": "/v1/charges",
    "headers": {"Accept": "a"},
    "multiValueHeaders": {"Accept": ["a", "b"]},
    "multiValueQueryStringParameters": {"expand[]": ["data.customer", "data.a b&c"]},
    "requestContext": {
        "stage": "live",
        "path": "/live/v1/charges",
        "domainName": "abc.execute-api.eu-central-1.amazonaws.com",
        "identity": {"sourceIp": "203.0.113.7"},
    },
    "body": None,
    "isBase64Encoded": False,
}


def staged(event: dict[str, Any], stage: str, path: str) -> dict[str, Any]:
    return {**event, "rawPath": path, "requestContext": {**event["requestContext"], "stage": stage}}


def test_an_http_api_and_a_function_url() -> None:
    request = request_of(HTTP_API)
    assert (request.method, request.path, request.query) == ("POST", "/v1/charges", "limit=2&expand[]=data.customer")
    assert request.headers["content-type"] == "application/json" and request.headers["cookie"] == "a=1; b=2"
    assert (request.body, request.client_ip) == (b'{"amount": 1}', "203.0.113.7")
    assert public_url_of(HTTP_API) == "https://abc.execute-api.eu-central-1.amazonaws.com"


def test_a_named_stage_is_no_part_of_the_path_and_stands_in_the_public_url() -> None:
    event = staged(HTTP_API, "live", "/live/v1/charges")
    assert request_of(event).path == "/v1/charges"
    assert public_url_of(event) == "https://abc.execute-api.eu-central-1.amazonaws.com/live"
    # A custom domain that leads to the stage has no such part.
    event = staged(HTTP_API, "live", "/v1/charges")
    assert request_of(event).path == "/v1/charges"
    assert public_url_of(event) == "https://abc.execute-api.eu-central-1.amazonaws.com"


def test_a_rest_api() -> None:
    request = request_of(REST_API)
    assert (request.method, request.path, request.body) == ("GET", "/v1/charges", b"")
    assert request.query == "expand%5B%5D=data.customer&expand%5B%5D=data.a+b%26c"
    assert request.headers["accept"] == "a, b" and request.client_ip == "203.0.113.7"
    assert public_url_of(REST_API) == "https://abc.execute-api.eu-central-1.amazonaws.com/live"


def test_a_body_in_base64() -> None:
    event = {**HTTP_API, "body": b64encode(b"\xff\x00").decode(), "isBase64Encoded": True}
    assert request_of(event).body == b"\xff\x00"


@pytest.mark.parametrize(
    "event",
    [{}, {"version": "2.0", "requestContext": {}}, {**HTTP_API, "body": "%", "isBase64Encoded": True}, {"Records": []}],
)
def test_another_event_is_named(event: dict[str, Any]) -> None:
    with pytest.raises(NotHttp, match="event"):
        request_of(event)


def test_answers() -> None:
    response = Response(
        201,
        [("content-type", "text/html"), ("vary", "origin"), ("vary", "accept"), ("server", ""), ("set-cookie", "c=3")],
        b"<p>",
    )
    assert answer_of(HTTP_API, response) == {
        "statusCode": 201,
        "headers": {"content-type": "text/html", "vary": "origin, accept"},
        "cookies": ["c=3"],
        "body": "<p>",
        "isBase64Encoded": False,
    }
    rest = answer_of(REST_API, response)
    assert rest["multiValueHeaders"] == {
        "content-type": ["text/html"],
        "vary": ["origin", "accept"],
        "set-cookie": ["c=3"],
    }
    assert "headers" not in rest and "cookies" not in rest
    binary = answer_of(HTTP_API, Response(200, [], b"\xff\xfe"))
    assert binary["isBase64Encoded"] and binary["body"] == b64encode(b"\xff\xfe").decode()
