"""The common part of the providers' sandboxes: faults on command, and operations of the simulated bank."""

from collections.abc import Mapping
from typing import Any

from tillway.connectors.port import Transport
from tillway.sandbox.bank import Bank
from tillway.testing.far_side import Handler, Nowhere


class ProviderSide:
    """Half of a `FarSide`. `peer` plays the provider over `bank`."""

    bank: Bank
    peer: Handler

    async def strike(self, *rules: Mapping[str, Any]) -> None:
        self.peer.faults.replace({"rules": rules})

    async def performed(self) -> int:
        return len([done for done in self.bank.operations() if done.status == "Accepted" and done.kind != "dispute"])

    def nowhere(self) -> Transport:
        return Nowhere()
