"""Heads that go to a place outside: all of them arrive, and show a chain that was made anew."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from tillway.connectors.audit_heads import FilePlace, UrlPlace
from tillway.connectors.transport import SocketTransport
from tillway.domain.account import SYSTEM, Account
from tillway.domain.audit import AuditBatch, batch_id
from tillway.domain.cards import Secret
from tillway.engine.audit.chain import last_batch
from tillway.engine.audit.heads import SENT_AT_ONCE, Head, HeadSender, compare_heads
from tillway.store.codec import write_of
from tillway.store.port import ABSENT
from tillway.testing.memory_store import MemoryStore
from tillway.vault.head_signer import Ed25519HeadSigner

SIGNER = Ed25519HeadSigner(Secret(b"a key file's own" * 2))


def _batch(sequence: int, head: bytes = b"h" * 32) -> AuditBatch:
    return AuditBatch(
        id=batch_id(sequence),
        created=1,
        sequence=sequence,
        entries=("a",),
        leaves=b"",
        until="a",
        total=sequence,
        root=b"",
        previous=b"",
        head=head,
    )


class Fails:
    """A place that fails so many times, and then keeps what it gets."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.kept: list[dict[str, Any]] = []

    async def send(self, heads: Sequence[dict[str, Any]]) -> None:
        if self.times:
            self.times -= 1
            raise OSError("no space left on device")
        self.kept += heads

    async def close(self) -> None:
        pass


async def test_heads_wait_for_a_place_that_is_away() -> None:
    place = Fails(1)
    sender = HeadSender(MemoryStore(), place)
    sender.add("a", _batch(1))
    for _ in range(2):
        try:
            await sender.send()
        except OSError:
            sender.add("a", _batch(2))
            sender.add("b", _batch(1))
    assert [(one["scope"], one["sequence"]) for one in place.kept] == [("a", 2), ("b", 1)]
    await sender.send()
    assert len(place.kept) == 2


async def test_more_heads_than_one_sending_has() -> None:
    place = Fails(0)
    sender = HeadSender(MemoryStore(), place)
    for number in range(SENT_AT_ONCE + 1):
        sender.add(str(number), _batch(1))
    await sender.send()
    assert len(place.kept) == SENT_AT_ONCE + 1


async def test_a_start_sends_every_last_head_to_a_file(tmp_path: Path) -> None:
    store = MemoryStore()
    account = Account(id="acct_0123456789abcdef", created=1)
    scope = "0123456789abcdeft"
    await store.commit([write_of(SYSTEM, account, ABSENT), write_of(scope, _batch(1), ABSENT)])
    path = tmp_path / "heads"
    for _ in range(2):
        sender = HeadSender(store, FilePlace(path))
        await sender.add_all()
        await sender.send()
    kept = [msgspec.json.decode(line, type=Head) for line in path.read_bytes().splitlines()]
    assert [(head.scope, head.sequence) for head in kept] == [(scope, 1)] * 2
    assert await compare_heads(store, kept, SIGNER) == []
    last = await last_batch(store, scope)
    assert last is not None
    await store.commit([write_of(scope, _batch(1, head=b"x" * 32), 1)])
    assert [fault.text for fault in await compare_heads(store, kept[:1], SIGNER)] == [
        "batch 1 is not the one with the exported head"
    ]


async def test_heads_go_to_an_address() -> None:
    statuses = [500, 200]
    bodies: list[tuple[str | None, Any]] = []

    async def take(request: web.Request) -> web.Response:
        bodies.append((request.headers.get("authorization"), await request.json()))
        return web.Response(status=statuses.pop(0))

    app = web.Application()
    app.router.add_post("/heads", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}/heads"
    place = UrlPlace(SocketTransport(address, headers={"authorization": "Bearer k"}))
    try:
        sender = HeadSender(MemoryStore(), place)
        sender.add("a", _batch(1))
        for _ in range(2):
            try:
                await sender.send()
            except OSError as failed:
                raise AssertionError from failed
            except Exception as failed:
                assert "500" in str(failed)
    finally:
        await place.close()
        await runner.cleanup()
    assert len(bodies) == 2 and bodies[0] == bodies[1]
    authorization, body = bodies[0]
    assert authorization == "Bearer k" and [head["scope"] for head in body["heads"]] == ["a"]
