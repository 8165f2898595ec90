"""An engine that writes the attempt down, but not into the queue: nobody finds it once its worker has died."""

import msgspec

from tillway.domain.attempt import Attempt
from tillway.domain.record import Record
from tillway.engine import core
from tillway.store.port import ABSENT, Write

write_of = core.write_of


def forgetful(scope_key: str, record: Record, version: int) -> Write:
    write = write_of(scope_key, record, version)
    if isinstance(record, Attempt) and version == ABSENT:
        return msgspec.structs.replace(write, queue=None, due_at_ms=None)
    return write


core.write_of = forgetful
