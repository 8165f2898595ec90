"""The memory of the simulated bank in the store, so that all processes on it have the same bank, with the same faults:
environments of functions, workers of a server, and servers. The simulated delivery service stays in the memory of one
process.
"""

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from tillway.domain.account import SCOPE_KEY_LENGTH, SYSTEM
from tillway.domain.simulated_operation import (
    FAULTS_ID,
    LIFETIME_SECONDS,
    SimulatedFaults,
    SimulatedOperation,
    place_of,
)
from tillway.sandbox.bank import BankOperation
from tillway.sandbox.simulator import Remembered
from tillway.store.codec import decode, write_of
from tillway.store.port import CommitUnknown, Conflict, Store, Unavailable, Write


class StoredBank:
    """The `BankMemory` of the simulator, in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, references: Sequence[str], scope_key: str) -> Remembered:
        places = {"/".join(place_of(reference)): reference for reference in references}
        # An address of the bank's may begin otherwise.
        own = (scope_key,) if len(scope_key) == SCOPE_KEY_LENGTH and scope_key.isalnum() else ()
        scopes = {f"{scope}/{FAULTS_ID}": scope for scope in (*own, SYSTEM)}
        found = await self._store.get_many([*places, *scopes])
        known = Remembered({}, {})
        for key, row in found.items():
            record = decode(key.partition("/")[2], row.body)
            if isinstance(record, SimulatedFaults):
                known.faults[scopes[key]] = (row.version, record.faults)
                continue
            assert isinstance(record, SimulatedOperation), key
            known.operations[places[key]] = (row.version, msgspec.convert(record.operation, BankOperation))
        return known

    async def write_faults(self, scope_key: str, version: int, faults: dict[str, Any]) -> bool:
        now = int(time.time())
        record = SimulatedFaults(id=FAULTS_ID, created=now, faults=faults, expires_at=now + LIFETIME_SECONDS)
        return await self._commit([write_of(scope_key, record, version)])

    async def write(self, operations: Sequence[tuple[int, BankOperation]]) -> bool:
        now, writes = int(time.time()), []
        for version, operation in operations:
            scope_key, id = place_of(operation.reference)
            record = SimulatedOperation(
                id=id, created=now, operation=msgspec.to_builtins(operation), expires_at=now + LIFETIME_SECONDS
            )
            writes.append(write_of(scope_key, record, version))
        return await self._commit(writes)

    async def _commit(self, writes: Sequence[Write]) -> bool:
        try:
            await self._store.commit(writes)
        except (Conflict, CommitUnknown, Unavailable):
            return False  # It decides anew from the records as they are then.
        return True
