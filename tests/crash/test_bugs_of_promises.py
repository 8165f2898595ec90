"""Seeded bugs that say what is not so, or forget what was promised."""

from pathlib import Path

import pytest
from seeded_bugs import MUTANTS, OF_MONEY, OF_PROMISES, Bug, assert_caught, cases


@pytest.mark.parametrize("bug", cases(OF_PROMISES))
def test_it_is_caught(tmp_path: Path, bug: Bug) -> None:
    assert_caught(bug, tmp_path)


def test_every_mutant_is_run() -> None:
    assert {bug.mutant for bug in OF_MONEY + OF_PROMISES} == {file.stem for file in MUTANTS.glob("*.py")}
