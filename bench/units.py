"""What a payment costs on DynamoDB: write units and round trips, counted from the requests by DynamoDB's own rules.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html: a write unit is 1 KB of an
item, twice that in a transaction; a change of an indexed item costs the index one more, and two where its key moves.
"""

import asyncio
import math
import os
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from statistics import median_low
from typing import Any

import msgspec

from tillway.crash import ministack
from tillway.engine.clock import Clock
from tillway.http.authentication import CACHE_SECONDS
from tillway.installation import KEY_FILE
from tillway.operations.accounts import create_account
from tillway.settings import Settings
from tillway.store.dynamodb import DynamoStore
from tillway.vault.keyring import Keyring
from tillway.wiring import assemble

PAYMENTS = 20
KB = 1024

PAUSE_SECONDS = CACHE_SECONDS + 0.1
"""A merchant's pause, longer than what was read for the last payment is known."""

PAUSES_MAX = 5
"""Pauses until the payment behind one took no more requests than the others. A machine that stalls for seconds lets the
background reads come late."""

_paying = ContextVar("_paying", default=False)
"""Whether a request to DynamoDB belongs to a payment, and not to the server's background work."""


class Units(msgspec.Struct):
    """The median of PAYMENTS captured payments, without what the server does in the background."""

    units: int
    requests: int
    steps: int
    requests_after_pause: int
    """Of the first payment after PAUSE_SECONDS without any, while the server runs; the fewest of PAUSES_MAX."""

    by_type: dict[str, int]
    """Units by the type of record; `pointers` are index entries, `index of tasks` the due-time index."""


class UnitCounter:
    """Counts the write units of requests, and remembers the sizes of items: a change costs as much as the larger."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._due: dict[str, tuple[str, str]] = {}

    def count(self, operation: str, body: dict[str, Any], units: Counter[str]) -> None:
        """Add the units of a request to those of each type of record."""
        match operation:
            case "TransactWriteItems":
                for action in body["TransactItems"]:
                    self._write(action, units, times=2)
            case "PutItem":
                self._write({"Put": body}, units, times=1)
            case "DeleteItem":
                self._write({"Delete": body}, units, times=1)
            case "BatchWriteItem":
                for table in body["RequestItems"].values():
                    for request in table:
                        one = {name.removesuffix("Request"): body for name, body in request.items()}
                        self._write(one, units, times=1)
            case "UpdateItem":
                key = body["Key"]["sk"]["S"]
                units[_type(key)] += math.ceil(self._sizes.get(key, KB) / KB)
                units["index of tasks"] += 2

    def _write(self, action: dict[str, Any], units: Counter[str], *, times: int) -> None:
        if unsized := action.get("ConditionCheck") or action.get("Update"):
            key = unsized["Key"]["sk"]["S"]
            units[_type(key)] += times * math.ceil(self._sizes.get(key, KB) / KB)
            return
        if "Delete" in action:
            key = action["Delete"]["Key"]["sk"]["S"]
            units[_type(key)] += times * math.ceil(self._sizes.pop(key, KB) / KB)
            if self._due.pop(key, None) is not None:
                units["index of tasks"] += 1
            return
        item = action["Put"]["Item"]
        key, size = item["sk"]["S"], _size(item)
        if item["pk"]["S"].startswith("I#"):
            units["pointers"] += times * math.ceil(size / KB)
            return
        units[_type(key)] += times * math.ceil(max(size, self._sizes.get(key, 0)) / KB)
        self._sizes[key] = size
        before, after = self._due.get(key), (item["q"]["S"], item["d"]["N"]) if "q" in item else None
        if before != after:
            units["index of tasks"] += (before is not None) + (after is not None)
        if after is not None:
            self._due[key] = after
        else:
            self._due.pop(key, None)


class Meter:
    """Stands where the store's client stood, and counts what passes for payments."""

    def __init__(self, store: DynamoStore) -> None:
        self._call = store.client.call
        self.units: Counter[str] = Counter()
        self._background: Counter[str] = Counter()
        self.requests = 0
        self.steps = 0
        self._under_way = 0
        self._counter = UnitCounter()
        store.client.call = self.call  # type: ignore[method-assign]

    def start(self) -> None:
        self.units.clear()
        self.requests = self.steps = 0

    def counted(self) -> Units:
        """The cost of the payments since `start`."""
        by_type = dict(self.units.most_common())
        return Units(
            units=self.units.total(),
            requests=self.requests,
            steps=self.steps,
            requests_after_pause=0,
            by_type=by_type,
        )

    async def call(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._counted() if _paying.get() else nullcontext():
            answer = await self._call(operation, body)
        self._counter.count(operation, body, self.units if _paying.get() else self._background)
        return answer

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.requests += 1
        if self._under_way == 0:
            self.steps += 1  # Requests that are under way together are one round trip.
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1


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
        return await measured_at(stack.url("tillway-units"), directory)
    finally:
        stack.close()


async def measured_at(url: str, directory: Path) -> Units:
    """Payments on the table of `url`, which is made."""
    store = await DynamoStore.open(url, create=True)
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / KEY_FILE).exists():
        Keyring.create(directory / KEY_FILE)
    _, keys = await create_account(store, Clock())
    running = await assemble(Settings(data_dir=directory), store)
    running.runner.start()
    running.keep_settings_fresh()
    try:
        meter, payments = Meter(store), []
        for number in range(PAYMENTS + 1):
            meter.start()
            await _pay(running.api, keys[0].secret, number)
            payments.append(meter.counted())
        payments = payments[1:]  # The first pays for what is then remembered: the key, the connector.
        units = sorted(payments, key=lambda one: (one.units, one.requests))[PAYMENTS // 2]
        units.requests = median_low(one.requests for one in payments)
        for pause in range(1, PAUSES_MAX + 1):
            await asyncio.sleep(PAUSE_SECONDS)
            meter.start()
            await _pay(running.api, keys[0].secret, PAYMENTS + pause)
            units.requests_after_pause = min(units.requests_after_pause or meter.requests, meter.requests)
            if units.requests_after_pause <= units.requests:
                break
        return units
    finally:
        await running.close()


async def _pay(api: Any, key: str, number: int) -> None:
    from tillway.http.messages import Request

    headers = {
        "authorization": f"Bearer {key}",
        "content-type": "application/x-www-form-urlencoded",
        "idempotency-key": f"units-{number}",
    }
    body = b"amount=2000&currency=usd&payment_method=pm_card_visa&confirm=true"
    token = _paying.set(True)
    try:
        answer = await api.handle(Request("POST", "/v1/payment_intents", "", headers, body))
    finally:
        _paying.reset(token)
    assert b'"status":"succeeded"' in answer.body, answer.body


def markdown(units: Units) -> str:
    rows = ["| what is written | write units a payment |", "|---|---|"]
    rows += [
        f"| {name if ' ' in name or name == 'pointers' else f'`{name}`'} | {n} |" for name, n in units.by_type.items()
    ]
    rows.append(f"| **together** | **{units.units}** |")
    return (
        "\n".join(rows) + f"\n\nRequests a payment: {units.requests}; round trips one after another: {units.steps}; "
        f"requests of the first payment after a pause: {units.requests_after_pause}."
    )


def main() -> None:
    print(markdown(asyncio.run(measured(Path(__file__).parents[1] / "build" / "bench" / "units"))))


if __name__ == "__main__":
    main()
