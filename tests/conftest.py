"""Options and fixtures for tests of every room.

`--dose short` (the default, `make test`) runs every kind of test. `--dose soak` (`make soak`) runs only the tests that
have a longer dose: those marked `soak`, those that ask the fixture `dose` for a number, and Hypothesis' tests.
`--dose whole` (`make e2e`) runs all tests, each in its longest dose.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from doses import SHORTENED, Dose
from hypothesis import HealthCheck, settings
from tillway_server import ENVIRONMENT, TillwayServer, init

from tillway.crash import ministack, postgres_server

LONGEST_FIRST = ("tests/crash/", "tests/simulation/", "tests/store/", "tests/e2e/", "tests/bench/")
"""Files that take longest are handed out first, so that no worker is left alone with one at the end."""

STORE = os.environ.get("TILLWAY_TEST_STORE", "sqlite")
"""`sqlite`, `postgresql` or `dynamodb`: what the server that tests share runs on."""

# How fast examples are made says something about the machine and nothing about the code.
_HOUSE: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("short", max_examples=100, **_HOUSE)
settings.register_profile("soak", max_examples=2000, **_HOUSE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--dose", choices=("short", "soak", "whole"), default="short", help="how much to run of each kind of test"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SHORTENED] = {}
    settings.load_profile("short" if config.getoption("dose") == "short" else "soak")
    # A process inherits an ignored SIGINT, and not a handler: the servers that tests start have to hear it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((n for n, start in enumerate(LONGEST_FIRST) if item.nodeid.startswith(start)), len(LONGEST_FIRST))

    items.sort(key=place)
    if config.getoption("dose") == "short":
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="left to `make soak`"))
    elif config.getoption("dose") == "soak":
        short = [item for item in items if not _has_a_long_dose(item)]
        config.hook.pytest_deselected(items=short)
        items[:] = [item for item in items if item not in set(short)]


def _has_a_long_dose(item: pytest.Item) -> bool:
    marked = item.get_closest_marker("soak") or item.get_closest_marker("hypothesis")
    return marked is not None or "dose" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def dose(pytestconfig: pytest.Config) -> Dose:
    """`dose(300, 3000)` is 300 under `make test` and 3000 under `make soak`."""
    return Dose(pytestconfig)


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Only a worker of pytest-xdist has an output, which reaches the main process.
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["shortened"] = session.config.stash[SHORTENED]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[SHORTENED].update(getattr(node, "workeroutput", {}).get("shortened", {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("dose") != "short":
        return
    skipped = [report for report in terminalreporter.stats.get("skipped", ()) if "make soak" in str(report.longrepr)]
    shortened = config.stash[SHORTENED]
    if skipped or shortened:
        terminalreporter.section("left to make soak")
        for test, part in sorted(shortened.items()):
            terminalreporter.line(f"{test}: {part}")
        for report in sorted(skipped, key=lambda report: report.nodeid):
            terminalreporter.line(f"{report.nodeid}: all of it")


@pytest.fixture(scope="session")
def tillway_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TillwayServer]:
    """One server for all tests of a worker: `base_url`, `secret_key`, `publishable_key`, `account`, `client` (the
    official SDK) and `new_account()`. Tests share it, so they look at their own objects, or take an account of their
    own."""
    data_dir = tmp_path_factory.mktemp("installation") / "data"
    with store_url() as url:
        server = TillwayServer(data_dir, init(data_dir, url), ["--store", url] if url else [])
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def store_url() -> Iterator[str]:
    match STORE:
        case "postgresql":
            database = postgres_server.own_server()
            try:
                yield postgres_server.fresh(database.url)
            finally:
                database.close()
        case "dynamodb":
            stack = ministack.start()
            credentials = {"AWS_ACCESS_KEY_ID": ministack.ACCOUNT, "AWS_SECRET_ACCESS_KEY": "test"}
            os.environ.update(credentials)
            ENVIRONMENT.update(credentials)
            try:
                yield stack.url("tillway")
            finally:
                stack.close()
        case "sqlite":
            yield ""
        case other:
            raise AssertionError(f"TILLWAY_TEST_STORE is {other!r}, not sqlite, postgresql or dynamodb")
