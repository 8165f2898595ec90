"""A stock that is kept is made only where nothing else lies."""

from pathlib import Path

import pytest

from bench.stock import stocked


def test_a_directory_with_something_else_in_it_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(SystemExit, match="something else"), stocked(tmp_path, 3, keep=True):
        pass
    assert (tmp_path / "letter").read_text() == "dear"
