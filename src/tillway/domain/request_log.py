"""The request log: requests to the API with their answers, for those who build a client and those who help them.

Batches hold many requests each, because a row for each would cost a write of its own.
"""

from tillway.domain.record import Record, Value


class LoggedRequest(
    Value,
    frozen=True,
    kw_only=True,
    rename={
        "method": "m",
        "path": "p",
        "status": "s",
        "milliseconds": "ms",
        "actor": "a",
        "hint": "h",
        "api_version": "v",
        "idempotency_key": "k",
        "source_api": "c",
        "user_agent": "u",
        "error": "e",
    },
):
    """One request, without its bodies. `id` is that of the header `Request-Id`, and holds the time. The names in the
    store are short, because every request has them.

    `error` has the members `code`, `message`, `param`, `type` and `decline_code` of a refusal, as far as it has them.
    """

    id: str
    method: str
    path: str
    status: int
    milliseconds: float
    actor: str = ""
    hint: str = ""
    api_version: str | None = None
    idempotency_key: str | None = None
    source_api: str = "v1"
    user_agent: str = ""
    error: dict[str, str] = {}


class RequestBatch(Record, frozen=True, kw_only=True):
    """The requests of one merchant that one process has written down together, in the order of their answers.

    `bodies` is compressed (`http/request_log.py`). Only a redaction changes a batch; the store forgets it at
    `expires_at` (epoch seconds).
    """

    expires_at: int
    requests: tuple[LoggedRequest, ...]
    bodies: bytes = b""
