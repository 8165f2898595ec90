"""The kill -9 harness over the real server on every store. `python -m tillway.crash.run` is the same with options."""

import asyncio
from pathlib import Path

import pytest
from doses import Dose

from tillway.crash.run import Plan, Report, describe, run
from tillway.crash.stores import StoreName

SEED = 2027


def run_without_violation(plan: Plan) -> tuple[Report, str]:
    """The report of a run, which must break no rule, and its text."""
    report = asyncio.run(run(plan, say=print))
    told = describe(report, plan)
    print(told)
    assert not report.violations, told
    return report, told


def test_no_kill_costs_a_cent_or_an_answer(tmp_path: Path, dose: Dose) -> None:
    kills = dose(12, 300)
    plan = Plan(directory=tmp_path / "run", store="sqlite", kills=kills, seed=SEED)
    report, _ = run_without_violation(plan)
    assert sum(report.kills.values()) == kills
    assert report.operations["authorization Accepted"] > kills, "the clients did not get to trade"


@pytest.mark.soak
def test_failover_between_two_banks_takes_the_money_once(tmp_path: Path) -> None:
    """Payments, kills of either bank and of the server, and 2 % of every fault."""
    plan = Plan(directory=tmp_path / "run", store="sqlite", kills=150, seed=SEED, failover=True)
    report, _ = run_without_violation(plan)
    assert report.bank_kills == 37
    assert report.failovers > 10, "no payment went on to the other bank"


@pytest.mark.soak
def test_shoppers_who_authenticate_at_the_bank_pay_once(tmp_path: Path) -> None:
    plan = Plan(directory=tmp_path / "run", store="sqlite", kills=100, seed=SEED, redirects=True)
    report, told = run_without_violation(plan)
    assert report.answers["authenticate 200"] > 20, told


@pytest.mark.soak
@pytest.mark.parametrize("store", ["sqlite", "sqlite_workers", "postgresql"])
def test_clocks_that_jump_cost_no_cent(tmp_path: Path, store: StoreName) -> None:
    plan = Plan(directory=tmp_path / "run", store=store, kills=100, seed=SEED, clocks=True)
    report, told = run_without_violation(plan)
    assert report.jumps > 10, told


@pytest.mark.soak
@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_a_full_disk_costs_no_cent(tmp_path: Path, store: StoreName) -> None:
    plan = Plan(directory=tmp_path / "run", store=store, kills=100, seed=SEED, full_disk=True)
    report, told = run_without_violation(plan)
    assert report.full_disks > 10, told


@pytest.mark.parametrize(
    ("store", "short", "soak"), [("sqlite_workers", 4, 100), ("postgresql", 4, 100), ("dynamodb", 3, 40)]
)
def test_a_store_that_many_share_costs_no_cent_either(
    tmp_path: Path, dose: Dose, store: StoreName, short: int, soak: int
) -> None:
    kills = dose(short, soak)
    plan = Plan(directory=tmp_path / "run", store=store, kills=kills, seed=SEED, at_once=12, last_lease_seconds=3)
    report, _ = run_without_violation(plan)
    assert sum(report.kills.values()) == kills
    assert report.operations["authorization Accepted"] > kills // 2, "the clients did not get to trade"
    assert report.deliveries, "no event was delivered"
