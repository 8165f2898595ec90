"""What tests of every room may use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, settings
from tillway_server import ENVIRONMENT, TillwayServer, init

from tillway.crash import ministack, postgres_server

LONGEST_FIRST = ("tests/crash/", "tests/simulation/", "tests/store/", "tests/e2e/", "tests/bench/")
"""Files that take longest are handed out first, so that no worker is left alone with one at the end."""

STORE = os.environ.get("TILLWAY_TEST_STORE", "sqlite")
"""`sqlite`, `postgresql` or `dynamodb`: what the server that tests share runs on."""

# How fast examples are made says something about the machine and nothing about the code.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((n for n, start in enumerate(LONGEST_FIRST) if item.nodeid.startswith(start)), len(LONGEST_FIRST))

    items.sort(key=place)


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
