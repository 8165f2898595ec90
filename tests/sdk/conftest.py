"""The merchants of these tests."""

from collections.abc import Iterator

import pytest
from sdk_shop import Shop
from tillway_server import TillwayServer


@pytest.fixture(scope="session")
def shop(tillway_server: TillwayServer) -> Iterator[Shop]:
    """A merchant that all tests of a worker share: whoever counts things asks for `own_shop`."""
    made = {
        "account": tillway_server.account,
        "secret_key": tillway_server.secret_key,
        "publishable_key": tillway_server.publishable_key,
        "live_secret_key": tillway_server.live_secret_key,
    }
    found = Shop(tillway_server, made)
    yield found
    found.http.close()


@pytest.fixture(scope="module")
def own_shop(tillway_server: TillwayServer) -> Iterator[Shop]:
    """A merchant of this file's own."""
    found = Shop(tillway_server, tillway_server.new_account())
    yield found
    found.http.close()
