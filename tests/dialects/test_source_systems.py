"""docs/source-systems.md: no endpoint and no gap of a source system is left out, and every test it names exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tillway.dialects import handlers
from tillway.http.routes import DIALECT_ROUTES

assert handlers.LOADED

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "source-systems.md"

SECTIONS = {"gateway": 1, "token_charge": 2, "online_platform": 3, "disbursements": 4, "orders": 5}
"""The section of each dialect."""

GAPS = {
    1: (
        "authentication and authorisation of merchants",
        "encryption at rest and tokenisation",
        "cost and latency of the compute",
        "the bank call and the store write not being atomic",
        "throttling per merchant",
        "tests and API documentation",
        "validation of each field",
        "metrics for failure modes between components, merchant alarms and dashboards",
        "listing a merchant's payments for a time window",
    ),
    2: ("more tests", "API authentication", "audit logs", "middleware that validates every body"),
    3: (
        "OAuth 2 or JWT authentication",
        "several payment gateways behind one API",
        "error handling and logs that help in an incident",
        "unit, integration and load tests",
        "monitoring and alerting",
        "encryption at rest and in transit",
        "idempotency",
        "an audit trail that reports and analysis can be made from",
    ),
    4: (
        "Stripe and ACH planned",
        "PayPal took longer than 3 s: how to process a payment quickly?",
        "secrets from a secret store, never from code or a command line",
        "the customer or merchant is notified after a payment completes",
    ),
    5: (
        "data access only through an API, never straight from the functions",
        "the code that functions share is one library",
        "the state machine is built by Terraform or Pulumi",
        "end-to-end tests of the deployed pipeline",
        "documentation built and published by CI",
        "functions can be deployed as container images",
        "every branch can deploy its own stack beside the others, and delete it",
    ),
}
"""What their authors listed, in their words, by section."""


def section(number: int) -> str:
    found = re.search(rf"^## {number}\. .*?(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/source-systems.md has lost its section {number}"
    return found.group(0)


def rows(number: int) -> dict[str, str]:
    """What shows each endpoint and gap of a section: the last cell, by the first one."""
    cells = [line.strip("| ").split(" | ") for line in section(number).splitlines() if line.startswith("| ")]
    found = {row[0].strip("`"): row[-1] for row in cells if row[0] not in ("endpoint", "gap")}
    assert len(found) == sum(row[0] not in ("endpoint", "gap") for row in cells), "something has two rows"
    return found


@cache
def functions(file: Path) -> frozenset[str]:
    """The tests in a file."""
    tree = ast.parse(file.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_"))


@pytest.mark.parametrize("dialect", SECTIONS)
def test_every_endpoint_has_its_row(dialect: str) -> None:
    calls = {
        f"{route.method} {route.path}" for route in DIALECT_ROUTES if route.dialect and route.dialect.name == dialect
    }
    told = {first for first in rows(SECTIONS[dialect]) if re.match(r"(GET|POST|PUT|DELETE) /", first)}
    assert told == calls


def test_every_dialect_has_its_section() -> None:
    assert {route.dialect.name for route in DIALECT_ROUTES if route.dialect} == set(SECTIONS)


@pytest.mark.parametrize("number", GAPS)
def test_every_gap_has_its_row(number: int) -> None:
    told = {first for first in rows(number) if not re.match(r"(GET|POST|PUT|DELETE) /", first)}
    assert told == set(GAPS[number])


@pytest.mark.parametrize("number", GAPS)
def test_every_row_names_tests_that_exist(number: int) -> None:
    for first, cell in rows(number).items():
        named = re.findall(r"`(tests/[^`]+)`", cell)
        assert named, f"{first}: names no test"
        for test in named:
            path, _, function = test.partition("::")
            assert (ROOT / path).is_file(), f"{first}: there is no {path}"
            assert not function or function in functions(ROOT / path), f"{first}: there is no {test}"
