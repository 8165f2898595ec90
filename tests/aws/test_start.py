"""The imports of a cold start."""

import json
import subprocess
import sys
from typing import Any

import first_payment
import pytest

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
    "tillway.dialects.handlers",
    "tillway.http.openapi",
    "tillway.operations.closes",
    "tillway.operations.password_sign_ins",
    "tillway.web.dashboard",
    "tomllib",
    "typer",
    "uvloop",
    "xml.etree.ElementTree",
    "yarl",
    "zoneinfo",
}
"""Modules that no function needs before its first payment. Together they take longer to import than the rest."""

OWN_MAX = 231
"""The files of Tillway that a payment imports. They were 337 when each function imported every route. The file of each
record is among them, since any record may come from the store."""


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
