"""One test on each kind of store: SQLite, PostgreSQL and DynamoDB."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tillway.crash import ministack, postgres_server
from tillway.installation import open_store
from tillway.settings import Settings
from tillway.store.port import Store

KINDS = ("sqlite", "postgresql", "dynamodb")


@contextmanager
def store_url_of(kind: str) -> Iterator[str]:
    """The URL of a new, empty store of that kind; the empty text for SQLite. Skips where the emulator is missing."""
    match kind:
        case "postgresql":
            server = postgres_server.any_server()
            try:
                yield postgres_server.fresh(server.url)
            finally:
                server.close()
        case "dynamodb":
            stack = ministack.start_any()
            try:
                with pytest.MonkeyPatch.context() as environment:
                    environment.setenv("AWS_ACCESS_KEY_ID", ministack.ACCOUNT)
                    environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
                    yield stack.url("tillway")
            finally:
                stack.close()
        case _:
            yield ""


@pytest.fixture(params=KINDS)
def any_store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with store_url_of(request.param) as url:
        yield url


@pytest.fixture
async def any_store(any_store_url: str, tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(Settings(data_dir=tmp_path, store=any_store_url), create=True)
    yield store
    await store.close()
