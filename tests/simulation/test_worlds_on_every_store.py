"""The worlds in which everything goes wrong, on the stores that real installations have.

A world takes a second or three here.
"""

import itertools
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from doses import Dose

from tillway.crash import ministack
from tillway.crash.postgres_server import any_server, fresh
from tillway.simulation.bridged_store import BridgedStore
from tillway.simulation.worlds import run_world
from tillway.store.dynamodb import DynamoStore
from tillway.store.port import Store
from tillway.store.postgres import PostgresStore
from tillway.store.sqlite import SqliteStore

Opening = Callable[[], Coroutine[Any, Any, Store]]

_numbers = itertools.count(1)


def run_on(opening: Opening, seeds: range) -> None:
    for seed in seeds:
        store = BridgedStore(opening)
        try:
            report = run_world(seed, lambda store=store: store)  # type: ignore[misc]
        finally:
            store.shut()
        assert report.violation is None, report.text()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Opening]:
    server = any_server()
    yield lambda: PostgresStore.open(fresh(server.url), create=True)
    server.close()


@pytest.fixture(scope="module")
def dynamodb() -> Iterator[Opening]:
    stack = ministack.start_any()
    yield lambda: DynamoStore.open(stack.url(f"tillway-world-{next(_numbers)}"), create=True)
    stack.close()


def test_on_a_file(tmp_path: Path, dose: Dose) -> None:
    files = (tmp_path / f"{number}.db" for number in itertools.count())
    run_on(lambda: SqliteStore.open(next(files), create=True), range(dose(5, 200)))


def test_on_postgresql(postgres: Opening, dose: Dose) -> None:
    run_on(postgres, range(2000, 2000 + dose(3, 200)))


def test_on_dynamodb(dynamodb: Opening, dose: Dose) -> None:
    run_on(dynamodb, range(4000, 4000 + dose(1, 60)))


def test_the_same_seed_is_the_same_world_on_every_store(tmp_path: Path, postgres: Opening, dynamodb: Opening) -> None:
    traces = []
    for opening in (partial(SqliteStore.open, tmp_path / "one.db", create=True), postgres, dynamodb):
        store = BridgedStore(opening)
        traces.append(run_world(9, lambda store=store: store).trace)  # type: ignore[misc]
        store.shut()
    assert traces[0] == traces[1] == traces[2]
