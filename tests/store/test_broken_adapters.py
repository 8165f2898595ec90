"""Adapters that are broken on purpose, on real engines: the contract must find each.

The suite's own proof, on dozens of broken stores in memory, is test_store_contract.py.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from postgres_stores import PostgresContract

from tillway.crash import ministack
from tillway.crash.ministack import MiniStack, RealRegion
from tillway.crash.postgres_server import NamedServer, PostgresServer, any_server
from tillway.store import postgres
from tillway.store.dynamodb import DynamoStore
from tillway.store.port import Store, Write
from tillway.testing.store_contract import StoreContract

_numbers = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer | NamedServer]:
    server = any_server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def stack() -> Iterator[MiniStack | RealRegion]:
    stack = ministack.start_any()
    yield stack
    stack.close()


PROMISES = (
    "test_a_write_at_another_version_conflicts",
    "test_a_conflict_writes_nothing_of_its_commit",
    "test_a_write_replaces_the_index_entries",
    "test_a_task_is_what_its_last_write_says",
    "test_a_task_is_claimed_when_it_is_due",
    "test_no_update_is_lost",
    "test_a_write_that_must_be_the_first_in_a_partition",
)


async def first_broken(contract: StoreContract) -> str | None:
    """The first of PROMISES that the contract's store does not keep."""
    for promise in PROMISES:
        try:
            await getattr(contract, promise)()
        except Exception:
            return promise
    return None


STATEMENTS = {
    "whole": ("", "", None),
    "ignores versions": ("WHERE coalesce(held.version, 0) <> w.version", "WHERE false", PROMISES[0]),
    "tears commits": (
        "w.c NOT IN (SELECT c FROM moved UNION ALL SELECT c FROM taken)",
        "w.key NOT IN (SELECT key FROM moved UNION ALL SELECT key FROM taken)",
        PROMISES[1],
    ),
    "leaves terms behind": (
        "WHERE t.partition = o.partition",
        "WHERE false AND t.partition = o.partition",
        PROMISES[2],
    ),
    "lets anyone be the first": ("w.first_in IS NOT NULL AND", "false AND", PROMISES[6]),
    "asks in one index only": ("OR w.customer = w.first_in AND", "OR false AND", PROMISES[6]),
    "forgets tasks": ("queue = g.queue, due_at_ms = g.due_at_ms, ", "", PROMISES[3]),
}


@pytest.mark.parametrize("bug", STATEMENTS)
async def test_a_broken_statement_of_postgresql_is_found(
    bug: str, server: PostgresServer | NamedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong, promise = STATEMENTS[bug]
    assert right in postgres._COMMIT
    monkeypatch.setattr(postgres, "_COMMIT", postgres._COMMIT.replace(right, wrong))
    contract = PostgresContract()
    contract.url = server.url
    assert await first_broken(contract) == promise


class IgnoresVersions(DynamoStore):
    def _action(self, write: Write) -> Any:
        action, ahead, behind = super()._action(write)
        for request in action.values():
            request.pop("ConditionExpression", None)
            request.pop("ExpressionAttributeValues", None)
        return action, ahead, behind


class TearsCommits(DynamoStore):
    async def _transact(self, writes: Any, actions: Any) -> None:
        for write, action in zip(writes, actions, strict=True):
            await self._commit_one(write, action)


class LosesPointers(DynamoStore):
    async def _put_all(self, items: Any) -> None:
        await super()._put_all([item for item in items if not item["pk"]["S"].startswith("I#")] or items[:1])


class ForgetsTasks(DynamoStore):
    def _action(self, write: Write) -> Any:
        action, ahead, behind = super()._action(write)
        if "Put" in action and write.version:
            action["Put"]["Item"].pop("q", None)
        return action, ahead, behind


class ClaimsWithoutCondition(DynamoStore):
    async def _lease(self, task: Any, queue: str, now_ms: int, until_ms: int) -> Any:
        return task.due_at_ms, task.row


class DynamoContract(StoreContract):
    def __init__(self, kind: type[DynamoStore], stack: MiniStack | RealRegion) -> None:
        self.kind = kind
        self.stack = stack

    async def make_store(self) -> Store:
        return await self.kind.open(self.stack.url(f"tillway-broken-{next(_numbers)}"), create=True)


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (DynamoStore, None),
        (IgnoresVersions, PROMISES[0]),
        (TearsCommits, PROMISES[1]),
        (LosesPointers, PROMISES[2]),
        (ForgetsTasks, PROMISES[3]),
        (ClaimsWithoutCondition, PROMISES[3]),
    ],
)
async def test_a_broken_dynamodb_store_is_found(
    kind: type[DynamoStore], promise: str | None, stack: MiniStack | RealRegion
) -> None:
    assert await first_broken(DynamoContract(kind, stack)) == promise
