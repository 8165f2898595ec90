"""The delivery log: tries wait in memory and are written down together (`engine/batched_log.py`)."""

from collections.abc import AsyncIterator
from typing import Final

import msgspec

from tillway.domain.delivery_log import DeliveryBatch, LoggedDelivery
from tillway.engine.batched_log import BatchedLog, Stamp, batches_about
from tillway.store.port import Store

PREFIX: Final = "whl"
ATTEMPT_PREFIX: Final = "wha"
_LINE_BYTES: Final = 500


class DeliveryLog(BatchedLog[LoggedDelivery]):
    prefix = PREFIX

    def keep(self, scope_key: str, delivery: LoggedDelivery) -> None:
        if self.keeps:
            self.add(scope_key, delivery, _LINE_BYTES + len(delivery.answer))

    async def batch_of(self, stamp: Stamp, lines: list[LoggedDelivery]) -> DeliveryBatch:
        return DeliveryBatch(id=stamp.id, created=stamp.created, expires_at=stamp.expires_at, deliveries=tuple(lines))


class Place(msgspec.Struct, frozen=True):
    """The place of a try: the key of its batch, and its number in it."""

    key: str
    batch: DeliveryBatch
    number: int

    @property
    def delivery(self) -> LoggedDelivery:
        return self.batch.deliveries[self.number]


async def find(store: Store, scope_key: str, id: str, *, now: int) -> Place | None:
    """Return the place of the try with that id; None if the log of that scope does not have it at `now`."""
    batches: AsyncIterator[tuple[str, DeliveryBatch]] = batches_about(
        store, scope_key, PREFIX, DeliveryBatch, id, now=now
    )
    async for key, batch in batches:
        for number, delivery in enumerate(batch.deliveries):
            if delivery.id == id:
                return Place(key, batch, number)
    return None
