"""What tests of every room may use."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from tillway_server import TillwayServer, init

# How fast examples are made says something about the machine and nothing about the code.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


@pytest.fixture(scope="session")
def tillway_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TillwayServer]:
    """One server for all tests of a worker: `base_url`, `secret_key`, `publishable_key`, `account`, `client` (the
    official SDK) and `new_account()`. Tests share it, so they look at their own objects, or take an account of their
    own."""
    data_dir = tmp_path_factory.mktemp("installation") / "data"
    server = TillwayServer(data_dir, init(data_dir))
    try:
        yield server
    finally:
        server.stop()
