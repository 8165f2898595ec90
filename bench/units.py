"""What a payment costs on DynamoDB: write units and round trips, counted from the requests by DynamoDB's own rules.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html: a write unit is 1 KB of an
item, twice that in a transaction; a change of an indexed item costs the index one more, and two where its key moves.
"""

import asyncio
import math
import os
from base64 import b64decode
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from tillway.crash import ministack
from tillway.engine.clock import Clock
from tillway.installation import KEY_FILE
from tillway.operations.accounts import create_account
from tillway.settings import Settings
from tillway.store.dynamodb import DynamoStore
from tillway.vault.keyring import Keyring
from tillway.wiring import assemble

PAYMENTS = 20
KB = 1024


class Units(msgspec.Struct):
    """Means over PAYMENTS captured payments."""

    units: float
    requests: float
    steps: float
    by_type: dict[str, float]
    """Units by the type of record; `pointers` are index entries, `index of tasks` the due-time index."""


class Meter:
    """Stands where the store's client stood, and counts what passes."""

    def __init__(self, store: DynamoStore) -> None:
        self._call = store.client.call
        self.units: Counter[str] = Counter()
        self.requests = 0
        self.steps = 0
        self._under_way = 0
        self._sizes: dict[str, int] = {}
        self._due: dict[str, tuple[str, str]] = {}
        store.client.call = self.call  # type: ignore[method-assign]

    def start(self) -> None:
        self.units.clear()
        self.requests = self.steps = 0

    async def call(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        self.requests += 1
        if self._under_way == 0:
            self.steps += 1  # Requests that are under way together are one round trip.
        self._under_way += 1
        try:
            answer = await self._call(operation, body)
        finally:
            self._under_way -= 1
        match operation:
            case "TransactWriteItems":
                for action in body["TransactItems"]:
                    self._write(action, times=2)
            case "PutItem":
                self._write({"Put": body}, times=1)
            case "DeleteItem":
                self._write({"Delete": body}, times=1)
            case "BatchWriteItem":
                for table in body["RequestItems"].values():
                    for request in table:
                        self._write({"Put": request["PutRequest"]}, times=1)
            case "UpdateItem":
                key = body["Key"]["sk"]["S"]
                self.units[_type(key)] += math.ceil(self._sizes.get(key, KB) / KB)
                self.units["index of tasks"] += 2
        return answer

    def _write(self, action: dict[str, Any], *, times: int) -> None:
        if "Delete" in action:
            key = action["Delete"]["Key"]["sk"]["S"]
            self.units[_type(key)] += times * math.ceil(self._sizes.pop(key, KB) / KB)
            if self._due.pop(key, None) is not None:
                self.units["index of tasks"] += 1
            return
        item = action["Put"]["Item"]
        key, size = item["sk"]["S"], _size(item)
        if item["pk"]["S"].startswith("I#"):
            self.units["pointers"] += times * math.ceil(size / KB)
            return
        self.units[_type(key)] += times * math.ceil(max(size, self._sizes.get(key, 0)) / KB)
        self._sizes[key] = size
        before, after = self._due.get(key), (item["q"]["S"], item["d"]["N"]) if "q" in item else None
        if before != after:
            self.units["index of tasks"] += (before is not None) + (after is not None)
        if after is not None:
            self._due[key] = after
        else:
            self._due.pop(key, None)


def _type(key: str) -> str:
    return key.partition("/")[2].partition("_")[0]


def _size(item: dict[str, dict[str, Any]]) -> int:
    """The size of an item as DynamoDB counts it, to within a byte or two a number."""
    size = 0
    for name, value in item.items():
        ((kind, content),) = value.items()
        size += len(name)
        size += {"S": len(str(content).encode()), "N": len(str(content)) // 2 + 1}.get(kind, 0)
        if kind == "B":
            size += len(b64decode(content))
    return size


async def measured(directory: Path) -> Units:
    """Payments in this process against the emulator: created and confirmed with a test card, captured at once."""
    stack = ministack.start()
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = ministack.ACCOUNT, "test"
    try:
        store = await DynamoStore.open(stack.url("tillway-units"), create=True)
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / KEY_FILE).exists():
            Keyring.create(directory / KEY_FILE)
        _, keys = await create_account(store, Clock())
        running = await assemble(Settings(data_dir=directory), store)
        meter = Meter(store)
        for number in range(PAYMENTS + 1):
            if number == 1:
                meter.start()  # The first pays for what is then remembered: the key, the connector.
            await _pay(running.api, keys[0].secret, number)
        await running.close()
    finally:
        stack.close()
    return Units(
        units=sum(meter.units.values()) / PAYMENTS,
        requests=meter.requests / PAYMENTS,
        steps=meter.steps / PAYMENTS,
        by_type={name: units / PAYMENTS for name, units in meter.units.most_common()},
    )


async def _pay(api: Any, key: str, number: int) -> None:
    from tillway.http.messages import Request

    headers = {
        "authorization": f"Bearer {key}",
        "content-type": "application/x-www-form-urlencoded",
        "idempotency-key": f"units-{number}",
    }
    body = b"amount=2000&currency=usd&payment_method=pm_card_visa&confirm=true"
    answer = await api.handle(Request("POST", "/v1/payment_intents", "", headers, body))
    assert b'"status":"succeeded"' in answer.body, answer.body


def markdown(units: Units) -> str:
    rows = ["| what is written | write units a payment |", "|---|---|"]
    rows += [
        f"| {name if ' ' in name or name == 'pointers' else f'`{name}`'} | {n:.1f} |"
        for name, n in units.by_type.items()
    ]
    rows.append(f"| **together** | **{units.units:.1f}** |")
    return (
        "\n".join(rows)
        + f"\n\nRequests a payment: {units.requests:.1f}; round trips one after another: {units.steps:.1f}."
    )


def main() -> None:
    print(markdown(asyncio.run(measured(Path(__file__).parents[1] / "build" / "bench" / "units"))))


if __name__ == "__main__":
    main()
