"""The delivery service of live mode: the plainest courier, over the wire contract of docs/http-courier.md.

It has no state of its own. Every request carries the consignment's reference as Idempotency-Key, so that the service
takes a consignment at most once, however often it is sent.
"""

import logging
from urllib.parse import quote

import msgspec

from tillway.connectors.port import (
    Arranged,
    Consignment,
    Request,
    Response,
    Transport,
    TransportError,
    Undeliverable,
    Unreachable,
)

log = logging.getLogger(__name__)

ID_MAX = 200
REASON_MAX = 500
"""Longest id and reason, in characters, that are taken from an answer."""


class HttpCourier:
    """`transport` carries the requests, and the credentials with them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def arrange(self, consignment: Consignment) -> Arranged | Undeliverable | Unreachable:
        """Ask for a delivery. An answer that is not of the contract leaves it open: the same reference is asked
        again."""
        answer = await self._send("/v1/deliveries", consignment.reference, msgspec.to_builtins(consignment))
        if isinstance(answer, Unreachable):
            return answer
        document = answer.body if isinstance(answer.body, dict) else {}
        match answer.status, document.get("status"):
            case 200, "Arranged" if _is_text(document.get("id"), ID_MAX):
                if document.get("reference") != consignment.reference:
                    return Unreachable("The delivery service answered for another reference.")
                return Arranged(document["id"])
            case 200, "Undeliverable":
                return Undeliverable(_reason(document) or "The delivery service does not deliver this.")
            case ((400 | 422), _):
                return Undeliverable(_reason(document) or "The delivery service does not take this consignment.")
            case ((401 | 403 | 409), _):
                log.error(
                    "the delivery service refuses our request",
                    extra={"status": answer.status, "reference": consignment.reference},
                )
                return Unreachable(f"The delivery service refused the request with {answer.status}.")
            case _:
                return Unreachable(f"The delivery service answered {answer.status}.")

    async def cancel(self, reference: str) -> bool:
        answer = await self._send(f"/v1/deliveries/{quote(reference, safe='')}/cancel", reference, {})
        if isinstance(answer, Unreachable) or not isinstance(answer.body, dict):
            return False
        return answer.status == 200 and answer.body.get("status") == "Cancelled"

    async def _send(self, path: str, reference: str, body: dict[str, object]) -> Response | Unreachable:
        try:
            return await self._transport.send(Request("POST", path, body, {"idempotency-key": reference}))
        except TransportError as error:
            return Unreachable(error.reason)

    async def close(self) -> None:
        await self._transport.close()


def _is_text(value: object, longest: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= longest


def _reason(document: dict[str, object]) -> str | None:
    reason = document.get("reason")
    return reason[:REASON_MAX] if isinstance(reason, str) and reason else None
