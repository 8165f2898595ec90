"""How much of each kind of test runs, by `--dose`: see `tests/conftest.py`."""

import os

import pytest

SHORTENED = pytest.StashKey[dict[str, str]]()
"""Test -> the part of its long dose that it took in this run."""


class Dose:
    """Chooses a number by `--dose`, and notes where the short one was taken."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def __call__(self, short: int, soak: int) -> int:
        if self._config.getoption("dose") != "short":
            return soak
        test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
        self._config.stash[SHORTENED][test] = f"{short:,} of {soak:,}"
        return short
