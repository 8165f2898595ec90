"""The program that `test_kill.py` kills: it commits without end and says on standard output what was acknowledged.

python killed_store.py DATABASE ROUND
"""

import asyncio
import os
import sys
from pathlib import Path

from tillway.store.port import ABSENT, PAGE_MAX, Write
from tillway.store.sqlite import SqliteStore

WORKERS = 16
COMMITS_MAX = 100_000


def acknowledge(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def work(store: SqliteStore, name: str) -> None:
    for n in range(COMMITS_MAX):
        key = f"a/{name}-{n:06}"
        partner = f"b/{name}-{n:06}"
        task = Write(f"task/{name}-{n:06}", ABSENT, b"x", queue=f"q{name}", due_at_ms=n)
        await store.commit(
            [Write(key, ABSENT, os.urandom(300), index=(("term", name),)), Write(partner, ABSENT, b""), task]
        )
        acknowledge(f"created {key}")
        if n % 3 == 0:
            await store.commit([Write(key, 1, None), Write(partner, 1, None)])
            acknowledge(f"deleted {key}")
        if n % 5 == 0:
            for row in await store.claim(f"q{name}", now_ms=n, lease_ms=50, limit=PAGE_MAX):
                acknowledge(f"claimed {row.key} {row.version}")


async def main(path: Path, turn: str) -> None:
    store = await SqliteStore.open(path, create=True)
    acknowledge("ready")
    await asyncio.gather(*(work(store, f"{turn}-{n:02}") for n in range(WORKERS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
