"""A database with many payments in it, made fast: copies of payments that a running server made.

The server makes some thousands over HTTP. Then their rows are copied, with new ids, times and idempotency keys, until
there are enough: through the store's own schema, with all its indexes in place. The times of the copies lie evenly over
the last 12 hours, so that their idempotency records, which live for 24, are all still there. That is the worst case:
these are the only rows whose keys come in no order.

    python -m bench.stock /var/tmp/stock --stored 3000000

makes one beforehand, for `--stock /var/tmp/stock` of the benchmarks, which leave it where it is. It serves for half a
day: as long as its idempotency records live.
"""

import argparse
import asyncio
import os
import random
import re
import shutil
import sys
import time
from binascii import crc32
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import msgspec

from bench.load import press
from bench.payment import SUCCEEDED, payment
from bench.servers import Merchant, install, tillway
from tillway.domain.account import Scope
from tillway.domain.idempotency import LIFETIME_SECONDS
from tillway.domain.ledger import Balances
from tillway.engine.audit.chain import last_batch
from tillway.engine.balance import BALANCES_ID, PAGES_A_PASS, PAUSE_SECONDS
from tillway.engine.ids import base62
from tillway.engine.runner import FOLD_EVERY_SECONDS
from tillway.installation import DATABASE, open_store
from tillway.settings import Settings
from tillway.store.codec import decode, has_checksum

TEMPLATES = 2000
BYTES_PER_STORED = 8000
"""What a stored payment takes on the disk, at most, for the check before it is filled."""
SPREAD_SECONDS = 12 * 3600
TRANSACTION_PAYMENTS = 2000
CACHE_KIB = 2_000_000
LOG_PAGES = 100_000

SETTLED_AFTER_SECONDS = 1.5 * (FOLD_EVERY_SECONDS + PAGES_A_PASS * PAUSE_SECONDS)
"""A server whose trail and balance have not moved for so long has nothing left to link or to add up."""

_HEAD = re.compile(r"_([0-9A-Za-z]{15})[0-9A-Za-z]{2}\Z")
"""What all ids of one commit have in common: 9 characters of time and 6 of randomness (see `engine/clock.py`)."""

_REQUEST = re.compile(rb'"request":"(req_\w+)"')
_CREATED = re.compile(r'"created":\d+')
_CHECKED = b'{"~":"'


class Stock(msgspec.Struct, frozen=True):
    """An installation with that many payments. `made_at` is epoch seconds."""

    directory: str
    merchant: Merchant
    stored: int
    made_at: float

    @property
    def data_dir(self) -> Path:
        return Path(self.directory) / "data"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stock", description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--stored", type=int, default=1_000_000, help="payments in it")
    given = parser.parse_args()
    with stocked(given.directory, given.stored, keep=True) as stock:
        print(f"{stock.stored:,} payments in {given.directory}, for --stock; delete it afterwards.")


@contextmanager
def stocked(directory: Path, stored: int, *, keep: bool, settled: bool = True) -> Iterator[Stock]:
    """A stock of that many payments in `directory`, deleted at the end. `keep`: take the one that is there, if it is
    of that size and less than half a day old, and leave it there. `settled`: see `settle`."""
    note = directory / "stock.json"
    stock = msgspec.json.decode(note.read_bytes(), type=Stock) if keep and note.exists() else None
    try:
        if stock is None or stock.stored != stored or time.time() > stock.made_at + SPREAD_SECONDS:
            if keep and not note.exists() and directory.exists() and any(directory.iterdir()):
                sys.exit(f"{directory} holds something else than a stock, or one being made: it stays.")
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            stock = _make(directory, stored, settled=settled)
            note.write_bytes(msgspec.json.encode(stock))
        yield stock
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


def _make(directory: Path, stored: int, *, settled: bool) -> Stock:
    free = shutil.disk_usage(directory).free
    if free < 2 * stored * BYTES_PER_STORED:
        sys.exit(f"{stored:,} stored payments need {2 * stored * BYTES_PER_STORED / 1e9:.0f} GB free in {directory}.")
    data_dir, began = directory / "data", time.monotonic()
    merchant = install(data_dir)
    asyncio.run(make_templates(data_dir, merchant))
    rows = multiply(data_dir, Scope(account=merchant.account, mode="test").key, stored) if stored else 0
    made = time.monotonic()
    if settled:
        with tillway("settling", data_dir):
            settle(data_dir, merchant)
    size = (data_dir / DATABASE).stat().st_size
    print(
        f"stocked with {stored:,} payments ({rows:,} rows, {size / 1e9:.1f} GB) in {made - began:.0f} seconds; linked "
        f"its trail and added up its balance in {time.monotonic() - made:.0f} more",
        file=sys.stderr,
        flush=True,
    )
    return Stock(str(directory), merchant, stored, time.time())


def settle(data_dir: Path, merchant: Merchant) -> None:
    """Wait until the running server has linked the audit trail of the copies and added up their entries, which a server
    does in the background as payments come, so that none of it is left for the measured minutes."""
    scope_key, known, since = Scope(account=merchant.account, mode="test").key, (0, 0), time.monotonic()
    while not all(known) or time.monotonic() - since < SETTLED_AFTER_SECONDS:
        time.sleep(1)
        now = asyncio.run(_progress(data_dir, scope_key))
        if now != known:
            known, since = now, time.monotonic()


async def _progress(data_dir: Path, scope_key: str) -> tuple[int, int]:
    """How many batches of the trail there are, and how many entries are added up."""
    store = await open_store(Settings(data_dir=data_dir))
    try:
        row, batch = await store.get(f"{scope_key}/{BALANCES_ID}"), await last_batch(store, scope_key)
    finally:
        await store.close()
    checkpoint = decode(BALANCES_ID, row.body) if row is not None else None
    entries = checkpoint.entries if isinstance(checkpoint, Balances) else 0
    return batch.sequence if batch is not None else 0, entries


class Template(msgspec.Struct):
    """The rows of one payment as they stand in the database, and what is different in each copy: the heads of its ids
    (one a commit), the times its records name, and the id of its idempotency record, which is a hash."""

    rows: list[tuple[Any, ...]] = []
    heads: list[str] = []
    created: set[str] = set()
    expires_at: int = 0
    idempotency: str = ""
    texts: str = ""
    """All texts of all rows, with a zero byte between them: replacing in one text is faster than in fifty."""


async def make_templates(data_dir: Path, merchant: Merchant) -> None:
    """Let a server make at least TEMPLATES payments in the installation at `data_dir`."""
    request = payment(merchant.secret_key, "pm_card_visa")
    made = 0
    with tillway("stock", data_dir) as server:
        while made < TEMPLATES:
            pressed = await press(
                server.port, request, connections=16, warm_up=0, seconds=1, name=f"stock-{made}", expect=SUCCEEDED
            )
            if pressed.wrong:
                raise RuntimeError(f"a payment for the stock failed: {pressed.wrong[0]}")
            made += pressed.answered


def multiply(data_dir: Path, scope: str, stored: int) -> int:
    """Copy the payments in `scope` until there are `stored`, and bring them to the disk; how many rows they have. No
    server may be running."""
    connection = apsw.Connection(os.fspath(data_dir / DATABASE), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        # What is lost with the power here is made again; what is measured later is written by the server itself.
        connection.pragma("synchronous", "OFF")
        connection.pragma("cache_size", -CACHE_KIB)
        connection.pragma("wal_autocheckpoint", LOG_PAGES)
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(record)") if name != "id"]
        templates = _templates(connection, scope, columns)
        insert = f"INSERT INTO record ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        copies = stored - len(templates)
        begun = time.time() - SPREAD_SECONDS
        for first in range(0, copies, TRANSACTION_PAYMENTS):
            with connection:
                for i in range(first, min(first + TRANSACTION_PAYMENTS, copies)):
                    at = begun + SPREAD_SECONDS * i / copies
                    connection.executemany(insert, _copy(templates[i % len(templates)], at))
        connection.pragma("wal_checkpoint(TRUNCATE)")
        rows: int = connection.execute("SELECT count(*) FROM record").get
    finally:
        connection.close()
    file = os.open(data_dir / DATABASE, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
    return rows


def _templates(connection: apsw.Connection, scope: str, columns: list[str]) -> list[Template]:
    """Every payment of `scope`. Its events and its idempotency record name the request that made it, and the ids of the
    events show what else was written in the same commits."""
    rows = list(
        connection.execute(f"SELECT {', '.join(columns)} FROM record WHERE key GLOB ? ORDER BY id", (f"{scope}/*",))
    )
    key_at, body_at = columns.index("key"), columns.index("body")
    templates: dict[bytes, Template] = {}
    of_head: dict[str, Template] = {}
    for row in rows:
        request = _REQUEST.search(row[body_at])
        if request is None:
            continue
        template = templates.setdefault(request[1], Template())
        head = _HEAD.search(row[key_at])
        if head is None:
            template.idempotency = row[key_at].partition("/")[2]
            template.expires_at = row[columns.index("expires_at")]
            template.rows.append(row)
        elif head[1] not in of_head:
            of_head[head[1]] = template
            template.heads.append(head[1])
    for row in rows:
        head = _HEAD.search(row[key_at])
        if head is not None and head[1] in of_head:
            of_head[head[1]].rows.append(row)
    for template in templates.values():
        assert len(template.heads) == 2 and template.idempotency, "a payment is two commits under one idempotency key"
        template.texts = "\0".join(
            value.decode() if isinstance(value, bytes) else value
            for row in template.rows
            for value in row
            if isinstance(value, str | bytes)
        )
        template.created = set(_CREATED.findall(template.texts))
    return list(templates.values())


def _checked(text: str) -> str:
    """The body of a record with the checksum of what it holds now (see `store/codec.py`); any other text as it is."""
    return f"{text[:6]}{crc32(text[16:].encode()):08x}{text[14:]}" if has_checksum(text.encode()) else text


def _copy(template: Template, at: float) -> Iterator[tuple[Any, ...]]:
    """The rows of `template` as if it had been made at `at` (epoch seconds)."""
    texts = template.texts.replace(template.idempotency, f"idem_{random.randbytes(16).hex()}")
    for i, head in enumerate(template.heads):
        # The second commit of a payment comes some milliseconds after the first.
        texts = texts.replace(head, base62(int(at * 1_000_000) + 5000 * i, 9) + base62(random.getrandbits(35), 6))
    for created in template.created:
        texts = texts.replace(created, f'"created":{int(at)}')
    expires_at = int(at) + LIFETIME_SECONDS
    fresh = map(
        _checked, texts.replace(f'"expires_at":{template.expires_at}', f'"expires_at":{expires_at}').split("\0")
    )
    for row in template.rows:
        yield tuple(
            next(fresh)
            if type(value) is str
            else _with_its_checksum(next(fresh).encode())
            if type(value) is bytes
            else expires_at
            if value == template.expires_at
            else value
            for value in row
        )


def _with_its_checksum(body: bytes) -> bytes:
    """The body of a row with the checksum of what it holds now, if it has one (`store/codec.py`)."""
    if not body.startswith(_CHECKED):
        return body
    rest = body[len(_CHECKED) + 10 :]
    return b'%b%08x",%b' % (_CHECKED, crc32(rest), rest)


if __name__ == "__main__":
    main()
