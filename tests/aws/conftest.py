"""One emulator for all files of this folder, and a stage of its own for each file."""

from collections.abc import Iterator

import pytest
from aws_stage import Stage

from tillway.crash import ministack
from tillway.crash.ministack import MiniStack


@pytest.fixture(scope="session")
def stack() -> Iterator[MiniStack]:
    """The emulator. Skips the test where it cannot be installed."""
    stack = ministack.start()
    yield stack
    stack.close()


@pytest.fixture(scope="module")
def stage(stack: MiniStack, request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = Stage(stack, request.module.__name__.rpartition("test_")[2].replace("_", "-"))
    yield stage
    stage.close()
