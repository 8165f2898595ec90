"""Numbers with their nouns in the output of commands."""

import pytest

from tillway.cli.terminal import counted


@pytest.mark.parametrize(
    ("count", "noun", "told"),
    [
        (1, "record", "1 record"),
        (0, "record", "0 records"),
        (2, "entry", "2 entries"),
        (1, "entry", "1 entry"),
        (3, "batch", "3 batches"),
        (2, "key", "2 keys"),
        (5, "open delivery", "5 open deliveries"),
    ],
)
def test_a_number_has_the_noun_that_fits_it(count: int, noun: str, told: str) -> None:
    assert counted(count, noun) == told
