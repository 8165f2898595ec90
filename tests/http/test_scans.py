"""The budget of searches and filtered lists, and their fair share of a process."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tillway.domain.account import Scope
from tillway.engine.scans import SCANS_AT_ONCE
from tillway.operations.reports import transactions
from tillway.store.codec import decode, write_of
from tillway.store.port import ABSENT
from tillway.testing.in_process import InProcessApp, Merchant

ROWS = 1000
"""The budget of rows, the least that the settings allow."""

REPORT = "/ops/v1/reports/transactions"
CUSTOMERS = 1150


class Shop:
    """A merchant with CUSTOMERS customers, oldest first `Number 0`, and a store that takes `seconds` for a page.

    `at_once` counts the pages after the first that are read at a time, by merchant, and `most` is the most of them.
    """

    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app = app
        self.merchant = merchant
        self.seconds = 0.0
        self.at_once: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._query = app.store.query
        app.store.query = self.query  # type: ignore[method-assign]

    async def query(self, index: str | None, partition: str, *, after: str | None = None, **more: Any) -> Any:
        scope = partition.partition("/")[0]
        if after is None or not self.seconds:
            return await self._query(index, partition, after=after, **more)
        self.at_once[scope] += 1
        self.most[scope] = max(self.most[scope], self.at_once[scope])
        await asyncio.sleep(self.seconds)
        self.at_once[scope] -= 1
        return await self._query(index, partition, after=after, **more)

    async def fill(self) -> None:
        for number in range(CUSTOMERS):
            await self.app.ok(
                self.merchant,
                "POST",
                "/v1/customers",
                {"name": f"Number {number}", "metadata": {"number": str(number)}},
            )

    async def search(self, query: str, **params: Any) -> tuple[int, Any]:
        answer = await self.app.call(self.merchant, "GET", "/v1/customers/search", {"query": query, **params})
        return answer.status, answer.json


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    app = await InProcessApp.open(tmp_path, search_rows=ROWS, search_seconds=1)
    shop = Shop(app, await app.merchant())
    await shop.fill()
    yield shop
    await app.close()


async def test_a_search_that_exceeds_its_budget_says_so(shop: Shop) -> None:
    for query in ("name~'nobody'", "name:'Number 3'", "name:'Number 1149' OR name:'Number 3'"):
        status, body = await shop.search(query)
        assert (status, body["error"]["code"]) == (400, "search_too_broad")
        assert "1,000 records" in body["error"]["message"] and "created" in body["error"]["message"]
    # Within the budget it is answered: by fewer records, by a bound, by an index.
    status, body = await shop.search("name:'Number 1149' OR name:'Number 1148'", limit=1)
    assert status == 200 and [one["name"] for one in body["data"]] == ["Number 1149"] and body["has_more"]
    status, body = await shop.search("metadata['number']:'3'")
    assert status == 200 and [one["name"] for one in body["data"]] == ["Number 3"]
    status, body = await shop.search("name~'number'", limit=100)
    assert status == 200 and len(body["data"]) == 100


async def test_a_filtered_list_that_exceeds_its_budget_says_so(shop: Shop) -> None:
    async def events(**params: Any) -> tuple[int, Any]:
        answer = await shop.app.call(shop.merchant, "GET", "/v1/events", params)
        return answer.status, answer.json

    status, body = await events(delivery_success="false")
    assert (status, body["error"]["code"]) == (400, "search_too_broad")
    status, body = await events(delivery_success="true", limit=1)
    assert status == 200 and len(body["data"]) == 1
    newest = body["data"][0]["created"]
    status, body = await events(delivery_success="false", **{"created[gt]": newest})
    assert (status, body["data"]) == (200, [])


async def test_a_report_has_the_same_budget(shop: Shop) -> None:
    app, scope_key = shop.app, Scope(account=shop.merchant.account, mode="test").key
    paid = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
    await app.ok(shop.merchant, "POST", "/v1/payment_intents", {**paid, "return_url": "https://example.com"})
    [row] = await app.store.query(None, f"{scope_key}/txn_", limit=2)
    entry = decode(row.key.partition("/")[2], row.body)
    assert (await app.ok(shop.merchant, "GET", REPORT))["data"][0]["count"] == 1
    more = [msgspec.structs.replace(entry, id=f"{entry.id[:-4]}{number:04}") for number in range(1, ROWS)]
    for one in more:
        await app.store.commit([write_of(scope_key, one, ABSENT)])
    answer = await app.call(shop.merchant, "GET", REPORT)
    error = answer.json["error"]
    assert (answer.status, error["code"]) == (400, "search_too_broad")
    assert "1,000 records" in error["message"] and "`tillway reports transactions`" in error["message"]
    report = await transactions(app.store, scope_key, entry.created - 1, entry.created + 1)
    assert sum(line.count for line in report) == ROWS, "the command's has no bound"


async def test_a_search_that_takes_too_long_says_so(shop: Shop) -> None:
    shop.seconds = 0.3
    status, body = await shop.search("name~'nobody'")
    assert (status, body["error"]["code"]) == (400, "search_too_broad")
    assert "1 seconds" in body["error"]["message"]


async def test_searches_of_one_merchant_take_turns_and_leave_others_alone(shop: Shop) -> None:
    other = await shop.app.merchant()
    await shop.app.ok(other, "POST", "/v1/customers", {"name": "Theirs"})
    shop.seconds = 0.02
    searches = [asyncio.ensure_future(shop.search("name:'Number 200'")) for _ in range(12)]
    await asyncio.sleep(0.1)
    theirs = await shop.app.ok(other, "GET", "/v1/customers/search", {"query": "name:'Theirs'"})
    assert len(theirs["data"]) == 1
    await shop.app.ok(other, "POST", "/v1/payment_intents", {"amount": 100, "currency": "eur"})
    assert not all(search.done() for search in searches), "the other merchant has waited for all of them"
    statuses = [status for status, _ in await asyncio.gather(*searches)]
    assert max(shop.most.values()) == SCANS_AT_ONCE
    assert set(statuses) <= {200, 429, 400} and statuses.count(400) >= SCANS_AT_ONCE
