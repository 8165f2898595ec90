"""A connector that sends a reply to a dispute once more, under another Idempotency-Key."""

from collections.abc import Generator
from typing import Any

from tillway.connectors import http_bank
from tillway.connectors.port import Request

answer = http_bank.answer_dispute


def answer_anew(reply: Any) -> Generator[Request, Any, Any]:
    outcome = yield from answer(reply)
    request = next(answer(reply))
    yield Request(
        request.method, request.path, request.body, {"idempotency-key": f"{request.headers['idempotency-key']}-2"}
    )
    return outcome


http_bank.answer_dispute = answer_anew
