"""Seeded bugs that lose money, make it up or move it twice."""

from pathlib import Path

import pytest
from seeded_bugs import OF_MONEY, Bug, assert_caught, cases


@pytest.mark.parametrize("bug", cases(OF_MONEY))
def test_it_is_caught(tmp_path: Path, bug: Bug) -> None:
    assert_caught(bug, tmp_path)
