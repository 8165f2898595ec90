"""What enters the audit trail and what never does, and what links it."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from tillway.domain.account import Account
from tillway.domain.attempt import Attempt
from tillway.domain.audit import BATCH_MAX, HIDDEN, REDACTED, TASK_ID, UNCHANGING, AuditEntry, redact, root_of
from tillway.domain.connector_config import ConnectorConfig
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import Record
from tillway.engine.audit.chain import IDLE_SECONDS, LINK_EVERY_SECONDS, AuditChain, Walked, walk
from tillway.engine.audit.entries import (
    LEFT_OUT,
    Author,
    build_writes,
    changes_of,
    entry_document,
    entry_write,
    task_write,
)
from tillway.engine.clock import Clock
from tillway.engine.time_mark import SETTLED_SECONDS, TimeKeeper
from tillway.store.codec import TYPES, encode, write_of
from tillway.store.port import ABSENT, Write
from tillway.testing.memory_store import MemoryStore

SCOPE = "0123456789abcdeft"
BY = Author("cli:ada", "tillway test")

SOUNDS_SECRET = frozenset(
    (
        *("challenge", "code", "credentials", "cvc", "digest", "fingerprint", "hash", "iban", "number", "password"),
        *("pin", "private", "sealed", "secret", "secrets", "settings", "token"),
    )
)

HARMLESS: dict[str, set[str]] = {
    "Charge": {"decline_code", "failure_code"},
    "Customer": {"invoice_settings"},
    "Dispute": {"network_reason_code"},
    "ExternalAccount": {"fingerprint", "routing_number"},
    "File": {"digest"},
    "GatewayPayment": {"number"},
    "Payout": {"failure_code"},
}
"""Fields that sound as if they held a secret and hold none, by type."""


# What never enters.


def test_no_field_that_sounds_secret_enters() -> None:
    """Whoever adds such a field to a record says in REDACTED that it is hidden, or here why it may be seen."""
    for kind in set(TYPES.values()) - LEFT_OUT - UNCHANGING:
        sounding = {field for field in kind.__struct_fields__ if SOUNDS_SECRET.intersection(field.split("_"))}
        hidden = set(REDACTED.get(kind, ()))
        assert sounding - HARMLESS.get(kind.__name__, set()) <= hidden, kind.__name__
        assert hidden <= set(kind.__struct_fields__), kind.__name__


@pytest.mark.parametrize(
    ("record", "field", "secret"),
    [
        (PaymentIntent(id="pi_1", created=1, amount_minor=1, currency="eur", secret="hush"), "secret", "hush"),
        (
            ConnectorConfig(id="con_1", created=1, name="b", kind="b", mode="test", settings={"k": "hush"}),
            "settings",
            "hush",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Record) else "",
)
def test_hidden_when_made_changed_and_deleted(record: Any, field: str, secret: str) -> None:
    kinds: dict[type, Any] = {str: "other", dict: {"k": "other"}}
    after = msgspec.structs.replace(record, **{field: kinds[type(getattr(record, field))]})
    clock = Clock()
    for version, before, then in ((ABSENT, None, record), (1, record, after), (1, record, None)):
        writes = build_writes(SCOPE, BY, clock.moment(), (version, before, then))
        assert len(writes) == 2
        told = (writes[-1].body or b"").decode()
        assert secret not in told and "other" not in told and HIDDEN in told
    assert secret not in encode(redact(record)).decode()


# What enters.


def _written(record: Record, version: int) -> list[Write]:
    return [write_of(SCOPE, record, version)]


def test_what_a_task_does_next_is_no_entry() -> None:
    attempt = Attempt(
        id="att_1", created=1, kind="authorize", subject="pi_1", amount_minor=1, currency="eur", connector="b"
    )
    assert changes_of({}, [attempt], _written(attempt, ABSENT)) == []
    later = msgspec.structs.replace(attempt, due_at_ms=9, asked=2, sent=1)
    assert changes_of({"att_1": (1, attempt)}, [later], _written(later, 1)) == []
    doubted = msgspec.structs.replace(later, state="unknown")
    [change] = changes_of({"att_1": (1, attempt)}, [doubted], _written(doubted, 1))
    assert change.changed["state"] == ("new", "unknown")


def test_a_record_that_is_held_is_told_with_its_version() -> None:
    account = Account(id="acct_1", created=1)
    [change] = changes_of({"acct_1": (4, account)}, [account], _written(account, 4))
    assert (change.version, change.changed) == (5, {})
    entry = AuditEntry(id="aud_1", created=1, at_ms=1, actor="a", operation="o", changes=(change,))
    assert entry_document(entry)["changes"][0]["what"] == "held"


# The chain.


class Trail:
    """A store with the entries of one scope, under a clock that stands where it is put."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.store = MemoryStore()
        self.clock = Clock(lambda: int(self.now * 1e9))
        self.time = TimeKeeper(self.store, self.clock)
        self.chain = AuditChain(self.store, self.clock, self.time)

    async def begin(self) -> None:
        await self.store.commit([task_write(SCOPE, self.clock.now_ms())])

    async def tell(self, count: int, *, behind_seconds: float = 0.0) -> list[str]:
        """Entries of this process, or of one whose clock is so far behind and that does not know the store's mark."""
        clock = Clock(lambda: int((self.now - behind_seconds) * 1e9)) if behind_seconds else self.clock
        writes = [entry_write(SCOPE, BY, clock.moment(), (), {"number": number}) for number in range(count)]
        for start in range(0, count, 100):
            await self.store.commit(writes[start : start + 100])
        await self.time.refresh()
        return [write.key.partition("/")[2] for write in writes]

    async def run(self) -> None:
        row = await self.store.get(f"{SCOPE}/{TASK_ID}")
        assert row is not None
        await self.time.refresh()
        await self.chain.run(row)

    async def walk(self) -> Walked:
        return await walk(self.store, SCOPE)


@pytest.fixture
async def trail() -> Trail:
    trail = Trail()
    await trail.begin()
    return trail


async def test_young_entries_wait(trail: Trail) -> None:
    await trail.tell(3)
    trail.now += SETTLED_SECONDS - 1
    await trail.run()
    assert (await trail.walk()).waiting == 3
    trail.now += 2
    await trail.run()
    walked = await trail.walk()
    assert (walked.batches, walked.entries, walked.waiting, walked.damage) == (1, 3, 0, None)


async def test_an_entry_of_a_process_whose_clock_is_behind_comes_after_the_mark(trail: Trail) -> None:
    await trail.tell(2)
    trail.now += SETTLED_SECONDS + 1
    await trail.run()
    behind = Clock(lambda: int((trail.now - 250) * 1e9))
    keeper = TimeKeeper(trail.store, behind)
    await keeper.refresh()
    await trail.store.commit([entry_write(SCOPE, BY, behind.moment(), (), {})])
    await keeper.refresh()
    await trail.time.refresh()
    trail.now += SETTLED_SECONDS + 1
    await trail.run()
    walked = await trail.walk()
    assert (walked.batches, walked.entries, walked.damage) == (2, 3, None)


async def test_an_entry_below_the_mark_was_put_in(trail: Trail) -> None:
    await trail.tell(2)
    trail.now += 300
    await trail.run()
    assert (await trail.walk()).damage is None
    [late] = await trail.tell(1, behind_seconds=350)
    await trail.run()
    damage = (await trail.walk()).damage
    assert damage is not None and (damage.kind, damage.entry) == ("inserted", late)


async def test_more_than_a_batch(trail: Trail) -> None:
    await trail.tell(BATCH_MAX * 2 + 7)
    trail.now += 200
    await trail.run()
    await trail.tell(1)
    trail.now += 200
    await trail.run()
    walked = await trail.walk()
    assert (walked.batches, walked.entries, walked.damage) == (4, BATCH_MAX * 2 + 8, None)


async def test_two_processes_link_the_same_entries_once(trail: Trail) -> None:
    await trail.tell(5)
    trail.now += 200
    row = await trail.store.get(f"{SCOPE}/{TASK_ID}")
    assert row is not None
    await trail.chain.run(row)
    await AuditChain(trail.store, trail.clock, trail.time).run(
        row
    )  # It has claimed the task before, and looks only now.
    walked = await trail.walk()
    assert (walked.batches, walked.entries, walked.damage) == (1, 5, None)


async def test_where_nothing_happens_it_is_looked_at_seldom(trail: Trail) -> None:
    await trail.time.refresh()
    trail.now += SETTLED_SECONDS
    pauses = []
    for count in (0, 1, 0):
        await trail.tell(count)
        await trail.run()
        row = await trail.store.get(f"{SCOPE}/{TASK_ID}")
        assert row is not None
        due = msgspec.json.decode(row.body)["due_at_ms"] / 1000
        pauses.append(round(due - trail.now))
        trail.now = due
    assert pauses == [IDLE_SECONDS, LINK_EVERY_SECONDS, LINK_EVERY_SECONDS], "one entry waits"


async def test_old_scopes_get_their_task(trail: Trail) -> None:
    await trail.store.commit([write_of("sys", Account(id="acct_0000000000000000", created=1), ABSENT)])
    await trail.chain.ensure()
    await trail.chain.ensure()
    for scope in ("sys", "0000000000000000t", "0000000000000000l"):
        assert await trail.store.get(f"{scope}/{TASK_ID}") is not None


def _root_by_definition(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1: split at the largest power of two below the count."""
    import hashlib

    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = _root_by_definition(leaves[:split]), _root_by_definition(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


@pytest.mark.parametrize("count", [*range(1, 34), 255, 256, 257, 500])
def test_the_root_is_that_of_the_rfc(count: int) -> None:
    leaves = [number.to_bytes(32) for number in range(count)]
    assert root_of(b"".join(leaves)) == _root_by_definition(leaves)
