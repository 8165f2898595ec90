"""The simulated delivery service of test mode: it delivers nothing, and accepts each reference at most once.

The address decides its behaviour, as a test card decides that of the simulated bank:

    "12 Undeliverable Road"        it never delivers there
    "12 Courier Down 3 Road"       it cannot be reached the first 3 times (2 without a number)
    "12 Courier Silent 3 Road"     it accepts the consignment, and its first 3 answers are lost

Its state is in memory and ends with the process. It makes ids from references, so a repeat after a restart is the same
delivery.
"""

import hashlib
import re
from collections import OrderedDict

import msgspec

from tillway.connectors.port import Arranged, Consignment, Undeliverable, Unreachable
from tillway.domain.late_pattern import late_pattern

CONSIGNMENTS_MAX = 10_000
"""Most references in memory; the oldest are dropped first."""

_MANNER = late_pattern(r"courier (down|silent)(?: (\d{1,3}))?\b", re.IGNORECASE)


class Consigned(msgspec.Struct):
    """The state of a reference: how often it was requested, and whether it is arranged or cancelled."""

    asked: int = 0
    arranged: bool = False
    cancelled: bool = False


class SimulatedCourier:
    def __init__(self) -> None:
        self.known: OrderedDict[str, Consigned] = OrderedDict()

    async def arrange(self, consignment: Consignment) -> Arranged | Undeliverable | Unreachable:
        consigned = self._consign(consignment.reference)
        consigned.asked += 1
        address = consignment.address if isinstance(consignment.address, str) else str(consignment.address)
        if consigned.cancelled:
            return Undeliverable("The delivery was cancelled.")
        if "undeliverable" in address.lower():
            return Undeliverable("No courier goes to this address.")
        manner = _MANNER.search(address)
        struck = manner is not None and consigned.asked <= int(manner[2] or 2)
        if struck and manner is not None and manner[1].lower() == "down":
            return Unreachable("The delivery service cannot be reached.")
        consigned.arranged = True
        if struck:
            return Unreachable("The delivery service did not answer.")
        return Arranged(delivery_id(consignment.reference))

    async def cancel(self, reference: str) -> bool:
        self._consign(reference).cancelled = True
        return True

    def _consign(self, reference: str) -> Consigned:
        consigned = self.known.setdefault(reference, Consigned())
        if len(self.known) > CONSIGNMENTS_MAX:
            self.known.popitem(last=False)
        return consigned


def delivery_id(reference: str) -> str:
    return "dlv_" + hashlib.blake2b(reference.encode(), digest_size=10).hexdigest()
