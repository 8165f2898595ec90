"""The function behind API Gateway: `tillway.aws.api.handler`."""

import asyncio
import contextlib
from typing import Any, Final

from tillway.aws import boot
from tillway.aws.events import NotHttp, answer_of, public_url_of, request_of
from tillway.domain.refusal import Refused
from tillway.http.client_address import client_address
from tillway.http.wire import BODY_BYTES_MAX
from tillway.settings import networks_of
from tillway.store.port import Unavailable
from tillway.wiring import load_payments

load_payments()  # While Lambda starts the environment, before its first request.


TAKES_OVER_SECONDS: Final = 20.0
"""How long a repeated request may work on payments that a killed function has left. Lambda ends it after 29."""


def handler(event: dict[str, Any], context: Any = None) -> dict[str, Any]:
    """Answer one HTTP event. Raises nothing that a caller could cause."""
    return boot.run(_answer(event))


async def _answer(event: dict[str, Any]) -> dict[str, Any]:
    try:
        request = request_of(event)
    except NotHttp as refused:
        return {"statusCode": 400, "body": str(refused), "isBase64Encoded": False}
    running = await boot.environment.running(public_url_of(event))
    if request.client_ip is not None:
        trusted = networks_of(boot.environment.settings.trusted_proxies)
        request.client_ip = client_address(request.client_ip, request.headers.get("x-forwarded-for"), trusted)
    if len(request.body) > BODY_BYTES_MAX:
        return answer_of(event, running.api.refuse_unread(request.path, Refused("body_too_large")))
    response = await running.api.handle(request)
    if response.refused is not None and response.refused.code == "idempotency_key_in_use":
        # Its first try may have been killed. No loop of a server takes the payment over, so the repeat does.
        until = asyncio.get_running_loop().time() + TAKES_OVER_SECONDS
        with contextlib.suppress(Unavailable):  # Then the answer stays that the first request still runs.
            if await running.runner.drain(("attempts",), until=until, follow_ups="leave"):
                response = await running.api.handle(request)
    await boot.environment.end_invocation()
    return answer_of(event, response)
