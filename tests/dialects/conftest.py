"""What the tests of several dialects use."""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tillway_server import TillwayServer

from tillway.testing.in_process import InProcessApp

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    """An installation in this process, whose clock can be moved."""
    app = await InProcessApp.open(tmp_path)
    yield app
    await app.close()


@pytest.fixture
def example(tillway_server: TillwayServer) -> Callable[..., list[str]]:
    """Runs the example of that file name with a merchant's key, and gives the lines that it prints."""

    def run(name: str, key: str, account: str = "", **environment: str) -> list[str]:
        if name.endswith(".sh") and (shutil.which("sh") is None or shutil.which("curl") is None):
            pytest.skip("curl is not installed")
        environment |= {"PATH": os.environ["PATH"], "TILLWAY_URL": tillway_server.base_url, "TILLWAY_KEY": key}
        environment["TILLWAY_MERCHANT"] = account
        command = [sys.executable if name.endswith(".py") else "sh", str(EXAMPLES / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run
