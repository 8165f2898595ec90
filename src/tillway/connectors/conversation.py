"""Carries a connector's conversation over a transport, and turns the transport's failures into outcomes.

A request that surely was not seen (refused, no such host, TLS failed, no connection in time) is `spoken=False`; one
that may have been seen (no answer in time, reset, half an answer) is `spoken=True`.
"""

from collections.abc import Generator
from typing import TypeVar

from tillway.connectors.port import (
    Conversation,
    LookUp,
    NeverSeen,
    NoticeUndecided,
    NotSent,
    Outcome,
    Request,
    Response,
    Transport,
    TransportError,
    Unknown,
    read_retry_after,
)

T = TypeVar("T")

REQUESTS_MAX = 20
"""Most requests in one conversation."""

_REQUESTS = range(REQUESTS_MAX)  # A range takes 700 instructions to make.


async def converse(conversation: Conversation | LookUp, transport: Transport) -> Outcome | NeverSeen:
    """Carry a conversation to its end, in at most REQUESTS_MAX requests.

    If a request that moves money surely was not seen, the outcome is `NotSent`, unless an earlier one of the same
    conversation was sent; then, and if a request may have been seen, it is `Unknown`. A question that could not be sent
    has no answer, so a failed look-up is `Unknown` after any failure. An exception of the connector itself passes
    through.
    """
    money_sent = False
    answer: Response | None = None
    try:
        for _ in _REQUESTS:
            try:
                request = next(conversation) if answer is None else conversation.send(answer)
            except StopIteration as end:
                outcome: Outcome | NeverSeen = end.value
                return outcome if answer is None else _with_wait(outcome, answer)
            try:
                answer = await transport.send(request)
            except TransportError as error:
                if request.moves_money and not error.spoken and not money_sent:
                    return NotSent(error.reason)
                return Unknown(error.reason)
            money_sent = money_sent or request.moves_money
        return Unknown(f"the conversation did not end within {REQUESTS_MAX} requests")
    finally:
        conversation.close()


def _with_wait(outcome: Outcome | NeverSeen, last: Response) -> Outcome | NeverSeen:
    """The outcome, with the time that the last answer asks to wait where it is an error of the provider's."""
    if isinstance(outcome, Unknown) and (last.status == 429 or last.status >= 500):
        return Unknown(outcome.reason, read_retry_after(last))
    return outcome


async def listen(conversation: Generator[Request, Response, T], transport: Transport) -> T:
    """Carry the conversation over a notice or a list to its end, in at most REQUESTS_MAX requests.

    Raises `NoticeRejected` if the connector does not accept the notice, and `NoticeUndecided` if the provider could not
    be asked.
    """
    answer: Response | None = None
    try:
        for _ in _REQUESTS:
            try:
                request = next(conversation) if answer is None else conversation.send(answer)
            except StopIteration as end:
                told: T = end.value
                return told
            assert not request.moves_money, f"{request!r}: a question moves no money"
            try:
                answer = await transport.send(request)
            except TransportError as error:
                raise NoticeUndecided(error.reason) from error
        raise NoticeUndecided(f"the conversation did not end within {REQUESTS_MAX} requests")
    finally:
        conversation.close()
