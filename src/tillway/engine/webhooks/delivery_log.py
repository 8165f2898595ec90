"""The delivery log: tries wait in memory and are written down together (`engine/batched_log.py`)."""

from collections.abc import Collection
from typing import Final

import msgspec

from tillway.domain.audit import HIDDEN
from tillway.domain.delivery_log import DeliveryBatch, LoggedDelivery
from tillway.engine.batched_log import BatchedLog, Stamp, WrittenLog
from tillway.engine.events import entry_id_of
from tillway.store.codec import decode, write_of
from tillway.store.port import Store
from tillway.store.walk import rows_of

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


WRITTEN: Final = WrittenLog(PREFIX, DeliveryBatch, lambda batch: batch.deliveries)


async def hide_answers(store: Store, scope_key: str, entries: Collection[str]) -> int:
    """Hide the endpoints' answers to the events of these entries of the audit trail, and return their number: an answer
    may name the person that its event was about."""
    count = 0
    async for row in rows_of(store, f"{scope_key}/{PREFIX}_"):
        batch = decode(row.key.partition("/")[2], row.body)
        assert isinstance(batch, DeliveryBatch)
        after = tuple(
            _without_answer(each) if entry_id_of(each.event) in entries else each for each in batch.deliveries
        )
        if after != batch.deliveries:
            count += sum(map(LoggedDelivery.__ne__, after, batch.deliveries))
            await store.commit([write_of(scope_key, msgspec.structs.replace(batch, deliveries=after), row.version)])
    return count


def _without_answer(delivery: LoggedDelivery) -> LoggedDelivery:
    return msgspec.structs.replace(delivery, answer=HIDDEN) if delivery.answer else delivery
