"""Seeded bugs that lose money, make it up or move it twice."""

from pathlib import Path

import pytest
from seeded_bugs import OF_MONEY, Bug, assert_caught

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("bug", OF_MONEY, ids=str)
def test_it_is_caught(tmp_path: Path, bug: Bug) -> None:
    assert_caught(bug, tmp_path)
