"""The kill -9 harness over the real server on every store.

TILLWAY_CRASH_KILLS, TILLWAY_CRASH_SEED and TILLWAY_CRASH_STORE change the number of kills (300) of the long run, what
everything is drawn from, and the store (sqlite).
"""

import asyncio
import os
from pathlib import Path

import pytest

from tillway.crash.run import Plan, describe, run
from tillway.crash.stores import StoreName

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("TILLWAY_CRASH_KILLS", "300"))
SEED = int(os.environ.get("TILLWAY_CRASH_SEED", "2027"))
STORE: StoreName = os.environ.get("TILLWAY_CRASH_STORE", "sqlite")  # type: ignore[assignment]


def test_no_kill_costs_a_cent_or_an_answer(tmp_path: Path) -> None:
    plan = Plan(directory=tmp_path / "run", store=STORE, kills=KILLS, seed=SEED)
    report = asyncio.run(run(plan, say=print))
    told = describe(report, plan)
    print(told)
    assert not report.violations, told
    assert sum(report.kills.values()) == KILLS
    assert report.operations["authorization Accepted"] > KILLS, "the clients did not get to trade"


@pytest.mark.parametrize(("store", "kills"), [("postgresql", 10), ("dynamodb", 8)])
def test_a_store_that_many_share_costs_no_cent_either(tmp_path: Path, store: StoreName, kills: int) -> None:
    """A short one: docs/testing-crashes.md tells of the long ones."""
    plan = Plan(directory=tmp_path / "run", store=store, kills=kills, seed=SEED, at_once=12, last_lease_seconds=3)
    report = asyncio.run(run(plan))
    told = describe(report, plan)
    print(told)
    assert not report.violations, told
    assert sum(report.kills.values()) == kills
    assert report.operations["authorization Accepted"] > kills // 2, "the clients did not get to trade"
    assert report.deliveries, "no event was delivered"
