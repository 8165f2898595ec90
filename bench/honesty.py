"""Whether the server told the truth: what it acknowledged, against what its database holds."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from bench.payment import AMOUNT_MINOR
from tillway.domain.account import Scope
from tillway.domain.ledger import Entry
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import Record
from tillway.engine.ids import time_prefix
from tillway.installation import open_store
from tillway.settings import Settings
from tillway.store.codec import decode
from tillway.store.port import PAGE_MAX, Store

PAGES_MAX = 10_000


class Untruth(Exception):
    """The database does not hold what the answers said."""


def check(data_dir: Path, account: str, *, since: float, acknowledged: Sequence[str], store: str = "") -> None:
    """Every acknowledged id is a payment that succeeded, nothing else was made `since` (epoch seconds), and the ledger
    has one charge of the right amount for each. `store`: the URL of a database. Raises `Untruth`."""
    asyncio.run(check_accounts(Settings(data_dir=data_dir, store=store), [account], acknowledged, since=since))


async def check_accounts(
    settings: Settings, accounts: Sequence[str], acknowledged: Sequence[str], *, since: float = 0.0
) -> None:
    """The same of the payments of several accounts, in a running loop. Raises `Untruth`."""
    store = await open_store(settings)
    made: dict[str, str] = {}
    charged: list[int] = []
    try:
        for account in accounts:
            scope, start = Scope(account=account, mode="test").key, time_prefix(int(since))
            async for payment in walk(store, None, f"{scope}/pi_", f"{scope}/pi_{start}"):
                if isinstance(payment, PaymentIntent):
                    made[payment.id] = payment.status
            async for entry in walk(store, None, f"{scope}/txn_", f"{scope}/txn_{start}"):
                if isinstance(entry, Entry) and entry.type == "charge":
                    charged.append(entry.amount_minor)
    finally:
        await store.close()
    if len(set(acknowledged)) != len(acknowledged):
        raise Untruth("two answers named the same payment")
    if set(made) != set(acknowledged):
        raise Untruth(
            f"{len(acknowledged)} payments were acknowledged and {len(made)} are there; "
            f"{len(set(acknowledged) - set(made))} are missing"
        )
    if set(made.values()) - {"succeeded"}:
        raise Untruth(f"acknowledged as succeeded, but in the database: {set(made.values())}")
    if charged != [AMOUNT_MINOR] * len(made):
        raise Untruth(f"{len(made)} payments, but the ledger has {len(charged)} charges over {sum(charged)}")


async def walk(store: Store, index: str | None, partition: str, after: str) -> AsyncIterator[Record]:
    """The records of an index, or those whose keys begin with `partition`, behind the key `after`."""
    for _ in range(PAGES_MAX):
        rows = await store.query(index, partition, after=after, limit=PAGE_MAX, order="oldest")
        for row in rows:
            yield decode(row.key.partition("/")[2], row.body)
        if len(rows) < PAGE_MAX:
            return
        after = rows[-1].key
    raise Untruth("more payments than this check can read")


def next_second() -> float:
    """Wait until a new second begins, and return it: ids tell the second they were made in."""
    now = time.time()
    time.sleep(1.0 - now % 1.0)
    return float(int(now) + 1)
