"""Pages of the next payments are read ahead: those of the random places and no others, up to a bound, until the end."""

import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from tillway.store.codec import by_reference
from tillway.store.pages_ahead import PART_ENTRIES, PagesAhead
from tillway.store.port import ABSENT, WRITES_MAX, Write
from tillway.store.sqlite import SqliteStore, _connect

SCOPE = "0123456789abcdef0"
PAYMENTS = 3 * PART_ENTRIES


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store with payments: of each an idempotency record, its reference, and a large record that has no place."""
    opened, choose = await SqliteStore.open(tmp_path / "tillway.db", create=True), random.Random(3)
    writes = []
    for number in range(PAYMENTS):
        reference = ("kind", by_reference(SCOPE, f"{choose.getrandbits(72):018x}"))
        writes.append(Write(f"{SCOPE}/idem_{choose.getrandbits(128):032x}", ABSENT, b"{}"))
        writes.append(Write(f"{SCOPE}/pi_{number:017}", ABSENT, b"{}", (reference,)))
        writes.append(Write(f"{SCOPE}/evt_{number:017}", ABSENT, b"{}" * 500))
    for place in range(0, len(writes), WRITES_MAX):
        await opened.commit(writes[place : place + WRITES_MAX])
    yield opened
    await opened.close()


def reader(store: SqliteStore, *scopes: str, bytes_max: int = 1 << 30) -> PagesAhead:
    return PagesAhead(partial(_connect, store.path, reads_only=True), scopes, bytes_max=bytes_max)


def read(ahead: PagesAhead) -> PagesAhead:
    ahead.start()
    ahead.join()
    return ahead


async def test_the_places_of_payments_are_read_and_nothing_else(store: SqliteStore) -> None:
    ahead = read(reader(store, "another0123456780", SCOPE))
    places = PAYMENTS * (len(f"{SCOPE}/idem_") + 32 + len(by_reference(SCOPE, "")) + 18 + len(f"{SCOPE}/pi_") + 17)
    assert ahead.ended
    # Pages of an index that were filled in no order are two thirds full.
    assert places < ahead.bytes < 2 * places < store.path.stat().st_size / 2


async def test_nothing_is_read_for_scopes_without_payments(store: SqliteStore) -> None:
    ahead = read(reader(store, "another0123456780"))
    assert ahead.ended and 0 < ahead.bytes < 20 * 8192


async def test_it_ends_at_its_bound(store: SqliteStore) -> None:
    bound = 400_000
    ahead = read(reader(store, SCOPE, bytes_max=bound))
    assert not ahead.ended
    assert bound <= ahead.bytes < bound + 100 * PART_ENTRIES


async def test_it_stops_after_the_part_that_is_being_read(store: SqliteStore) -> None:
    ahead = reader(store, SCOPE)
    ahead.stop()
    assert not read(ahead).ended
    assert ahead.bytes < 100 * PART_ENTRIES


async def test_a_store_that_is_closed_ends_it_first(store: SqliteStore) -> None:
    ahead = store.read_ahead([SCOPE])
    await store.close()
    ahead.join()
    assert not store.path.with_name("tillway.db-wal").exists(), "the last connection to close empties the log"


async def test_a_file_that_is_gone_is_left_to_those_who_need_it(store: SqliteStore, tmp_path: Path) -> None:
    ahead = read(PagesAhead(partial(_connect, tmp_path / "none.db", reads_only=True), [SCOPE]))
    assert not ahead.ended and ahead.bytes == 0
