"""The memory of the simulated bank in the store, so that every environment of every function has the same bank.

Faults that `/ops/v1/simulator` sets, and the simulated delivery service, stay in the memory of one environment.
"""

import time
from collections.abc import Sequence

import msgspec

from tillway.domain.simulated_operation import LIFETIME_SECONDS, SimulatedOperation, place_of
from tillway.sandbox.bank import BankOperation
from tillway.store.codec import decode, write_of
from tillway.store.port import CommitUnknown, Conflict, Store, Unavailable


class StoredBank:
    """The `BankMemory` of the simulator, in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, references: Sequence[str]) -> dict[str, tuple[int, BankOperation]]:
        places = {"/".join(place_of(reference)): reference for reference in references}
        found = await self._store.get_many(list(places))
        known: dict[str, tuple[int, BankOperation]] = {}
        for key, row in found.items():
            record = decode(key.partition("/")[2], row.body)
            assert isinstance(record, SimulatedOperation), key
            known[places[key]] = (row.version, msgspec.convert(record.operation, BankOperation))
        return known

    async def write(self, operations: Sequence[tuple[int, BankOperation]]) -> bool:
        now, writes = int(time.time()), []
        for version, operation in operations:
            scope_key, id = place_of(operation.reference)
            record = SimulatedOperation(
                id=id, created=now, operation=msgspec.to_builtins(operation), expires_at=now + LIFETIME_SECONDS
            )
            writes.append(write_of(scope_key, record, version))
        try:
            await self._store.commit(writes)
        except (Conflict, CommitUnknown, Unavailable):
            return False  # It decides anew from the records as they are then.
        return True
