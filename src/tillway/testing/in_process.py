"""The API inside the test's process: requests as plain values, a store in memory, a clock that the test moves."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from tillway.domain.account import SYSTEM, Mode
from tillway.domain.operator import Role
from tillway.domain.time_mark import MARK_ID
from tillway.engine.clock import Clock
from tillway.engine.connections import SIMULATOR
from tillway.http.messages import Request
from tillway.installation import KEY_FILE
from tillway.operations.accounts import create_account, system_write
from tillway.operations.operators import new_operator, new_operator_keys
from tillway.sandbox.simulator import Simulator
from tillway.settings import Settings
from tillway.store.codec import decode
from tillway.store.port import Write
from tillway.testing.compared_payments import ComparedPayments
from tillway.testing.memory_store import MemoryStore
from tillway.vault.keyring import Keyring
from tillway.wiring import Running, assemble

FORM = "application/x-www-form-urlencoded"
LEASE_MS = 12_000


class Answer(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Merchant(msgspec.Struct, frozen=True):
    account: str
    key: str
    public_key: str
    live_key: str
    live_public_key: str
    operator_key: str
    """A test key of an operator with the role `operator` for this merchant."""
    admin_key: str = ""
    """The same of an `admin`."""


class ReadableStore(MemoryStore):
    """A store in memory that refuses records which cannot be decoded again. `commits` leaves out the mark of time and
    the request log."""

    async def commit(self, writes: Sequence[Write]) -> None:
        for write in writes:
            if write.body is not None:
                decode(write.key.partition("/")[2], write.body)
        await super().commit(writes)
        if [write.key for write in writes] == [f"{SYSTEM}/{MARK_ID}"] or "/rql_" in writes[0].key:
            self.commits -= 1  # These are written now and then, independent of requests.


class InProcessApp:
    """An installation without a server. `ahead_seconds` is how far its clock is ahead of the real one. Each plain
    payment is compared with the general way."""

    def __init__(self, running: Running, store: MemoryStore, clock: "MovedClock") -> None:
        self.running = running
        running.platform.plain_payments = ComparedPayments(running.platform.attempts)
        self.store = store
        self.clock = clock

    @classmethod
    async def open(cls, data_dir: Path, **settings: Any) -> "InProcessApp":
        """`data_dir` holds only the key file, which is made if it does not exist: several installations may share
        it."""
        if not (data_dir / KEY_FILE).exists():
            Keyring.create(data_dir / KEY_FILE)
        store, clock = ReadableStore(), MovedClock()
        return cls(await assemble(Settings(data_dir=data_dir, **settings), store, clock), store, clock)

    async def close(self) -> None:
        await self.running.close()

    async def merchant(self) -> Merchant:
        account, keys = await create_account(self.store, self.clock)
        secret, public, live, live_public = (key.secret for key in keys)
        operator = await self.operator("operator", account.id)
        admin = await self.operator("admin", account.id)
        return Merchant(account.id, secret, public, live, live_public, operator, admin)

    async def operator(self, role: Role, *accounts: str, mode: Mode = "test") -> str:
        """The key of a new operator, for these merchants or, without any, for the installation."""
        created = self.clock.now_ms() // 1000
        made = new_operator(f"{role}-{self.store.commits}", role, accounts or None, created=created)
        key = new_operator_keys(made.id, created=created)[mode == "live"]
        await self.store.commit([system_write(made), system_write(key.record)])
        return key.secret

    async def send(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        query: str = "",
        body: bytes = b"",
        content_type: str | None = FORM,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send one request, byte for byte as the test gives it."""
        sent = dict(headers or {})
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        if content_type is not None and method != "GET":
            sent["content-type"] = content_type
        answer = await self.running.api.handle(Request(method, path, query, sent, body, "127.0.0.1"))
        return Answer(answer.status, dict(answer.headers), answer.body)

    async def call(
        self, merchant: Merchant | str, method: str, path: str, params: dict[str, Any] | None = None, **headers: str
    ) -> Answer:
        """Send one request with `params` as a form or a query; nested ones are written with brackets."""
        encoded = urlencode(list(_flat(params or {})), quote_via=quote)
        key = merchant if isinstance(merchant, str) else merchant.key
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if method == "POST":
            return await self.send(method, path, key=key, body=encoded.encode(), headers=named)
        return await self.send(method, path, key=key, query=encoded, headers=named)

    async def ok(
        self, merchant: Merchant | str, method: str, path: str, params: dict[str, Any] | None = None, **headers: str
    ) -> Any:
        """The document of a call that must succeed."""
        answer = await self.call(merchant, method, path, params, **headers)
        assert answer.status == 200, f"{method} {path} {params}: {answer.body.decode()[:2000]}"
        return answer.json

    async def simulator(self, merchant: Merchant) -> Simulator:
        scope = (await self.running.api.authenticator.authenticate_header(f"Bearer {merchant.key}", now=time.time()))[1]
        connection = await self.running.platform.attempts.connections.named(SIMULATOR, scope)
        assert connection is not None and isinstance(connection.connector, Simulator)
        return connection.connector

    async def wait(self, seconds: int) -> None:
        """Move the clock, and run everything that is due, at most a thousand tasks."""
        self.clock.ahead_seconds += seconds
        for _ in range(1000):
            found = 0
            for queue in ("attempts", "notices", "mail"):
                rows = await self.store.claim(queue, now_ms=self.clock.now_ms(), lease_ms=LEASE_MS, limit=10)
                for row in rows:
                    await self.running.runner.carry(row)
                found += len(rows)
            if not found:
                return
        raise AssertionError("there is always something due")


class MovedClock(Clock):
    """A clock that a test moves. The monotonic clock moves with it, unless that is to stay real."""

    def __init__(self, *, real_monotonic: bool = False) -> None:
        self.ahead_seconds = 0
        monotonic_ns = time.monotonic_ns if real_monotonic else None
        super().__init__(lambda: time.time_ns() + self.ahead_seconds * 1_000_000_000, monotonic_ns=monotonic_ns)


def _flat(params: dict[str, Any], prefix: str = "") -> Any:
    for name, value in params.items():
        full = f"{prefix}[{name}]" if prefix else name
        if isinstance(value, dict):
            yield from _flat(value, full)
        elif isinstance(value, list | tuple):
            for i, element in enumerate(value):
                yield from _flat({str(i): element}, full)
        elif value is not None:
            yield full, str(value).lower() if isinstance(value, bool) else str(value)
