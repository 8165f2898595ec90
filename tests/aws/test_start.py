"""The imports of a cold start."""

import json
import re
import subprocess
import sys
from typing import Any

import first_payment
import pytest

from bench.instructions import CannotCount, check_machine

HEAVY = {
    "aiohttp",
    "aiosmtplib",
    "apsw",
    "boto3",
    "csv",
    "difflib",
    "email.message",
    "granian",
    "importlib.metadata",
    "jinja2",
    "joserfc",
    "tillway.api.handlers",
    "tillway.data_directory",
    "tillway.dialects.handlers",
    "tillway.http.openapi",
    "tillway.http.search",
    "tillway.operations.closes",
    "tillway.operations.password_sign_ins",
    "tillway.telemetry.traces",
    "tillway.web.dashboard",
    "tomllib",
    "typer",
    "uvloop",
    "xml.etree.ElementTree",
    "yarl",
    "zoneinfo",
}
"""Modules that no function needs before its first payment. Together they take longer to import than the rest."""

OWN_MAX = 220
"""The files of Tillway that a payment imports. They were 337 when each function imported every route, and 226 before
the operations of tasks came with their tasks. The file of each record is among them, since any record may come from the
store."""


INSTRUCTIONS_MAX = 550_000_000
"""The instructions of an interpreter that imports the api function, compiled. The import of asyncio alone takes 174
million, and an interpreter that imports nothing 32. CPython 3.11 took 534 million for both and Tillway's."""

COLLECTIONS = """
import asyncio, gc
def runs():
    return sum(generation["collections"] for generation in gc.get_stats())
before = runs()
import tillway.aws.api
print(runs() - before, gc.get_freeze_count(), *gc.get_threshold())
"""


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The modules that are imported after each step of `first_payment.py`."""
    command = [sys.executable, "-I", str(first_payment.__file__), str(tmp_path_factory.mktemp("keys"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_cold_start_imports_nothing_heavy(steps: dict[str, Any]) -> None:
    assert HEAVY & set(steps["start"]) == set()
    assert "tillway.api.payment_intents" in steps["start"]


def test_a_payment_imports_what_it_needs(steps: dict[str, Any]) -> None:
    came = set(steps["payment"]) - set(steps["start"])
    assert {name for name in came if not name.startswith("tillway.testing")} <= {"tillway.operations.operators"}
    own = [name for name in steps["start"] if name.startswith("tillway.")]
    assert len(own) <= OWN_MAX, f"{len(own)} files: which of them does a payment not need?"


def test_other_routes_come_when_they_are_asked_for(steps: dict[str, Any]) -> None:
    assert {"tillway.api.handlers", "tillway.dialects.handlers", "tillway.web.dashboard.app"} <= set(steps["all"])
    # No route of another file may lie on a path that a payment's routes match.
    assert steps["found"] > 5 and steps["hidden"] == []


def test_the_collector_waits_for_the_imports() -> None:
    """It takes a tenth of their time otherwise. What was imported is not looked at again."""
    done = subprocess.run([sys.executable, "-I", "-c", COLLECTIONS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    runs, frozen, *thresholds = map(int, done.stdout.split())
    # One may fall between the first file of Tillway and the one that holds the collector.
    assert runs <= 1 and frozen > 20_000 and thresholds == [50_000, 20, 50]


@pytest.mark.soak
def test_a_cold_start_takes_no_more_instructions() -> None:
    try:
        check_machine()
    except CannotCount as reason:
        pytest.skip(str(reason))
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the bound was counted with CPython 3.11")
    start = [sys.executable, "-I", "-c", "import tillway.aws.api, os; os._exit(0)"]
    subprocess.run(start, check=True, timeout=120)  # Leaves the compiled files.
    counted = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *start]
    done = subprocess.run(counted, capture_output=True, text=True, timeout=600)
    (found,) = re.findall(r"Collected : (\d+)", done.stderr)
    assert INSTRUCTIONS_MAX / 2 < int(found) <= INSTRUCTIONS_MAX, f"{int(found):,}"
