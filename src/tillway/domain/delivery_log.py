"""The delivery log: each try to deliver a webhook, for those who look after its receiver."""

from tillway.domain.record import Record, Value


class LoggedDelivery(
    Value,
    frozen=True,
    kw_only=True,
    rename={
        "delivery": "d",
        "event": "ev",
        "type": "y",
        "endpoint": "w",
        "url": "l",
        "attempt": "n",
        "milliseconds": "ms",
        "status": "s",
        "error": "e",
        "next_at": "x",
        "signature": "g",
        "content_type": "c",
        "answer": "b",
        "api_version": "v",
    },
):
    """One try. `id` holds its time. `status` is that of the endpoint's answer; None: there was none, and `error` says
    why. `next_at` is the next try's time in epoch seconds; None: the last one. The names in the store are short,
    because every delivery has them."""

    id: str
    delivery: str
    event: str
    type: str
    endpoint: str
    url: str
    attempt: int
    milliseconds: float
    status: int | None = None
    error: str = ""
    next_at: int | None = None
    signature: str = ""
    content_type: str = ""
    answer: str = ""
    api_version: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class DeliveryBatch(Record, frozen=True, kw_only=True):
    """The tries of one merchant that one process has written down together. Only a redaction changes a batch; the store
    forgets it at `expires_at` (epoch seconds)."""

    expires_at: int
    deliveries: tuple[LoggedDelivery, ...]
