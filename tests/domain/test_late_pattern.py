"""Regular expressions that are compiled at their first use."""

import re

import pytest

from tillway.domain.late_pattern import late_pattern


def test_it_is_the_pattern_of_re() -> None:
    text, octets = late_pattern(r"[a-z]+", re.IGNORECASE), late_pattern(rb"(\d)(\d)")
    assert text.fullmatch("Card") is not None and text.fullmatch("4242") is None
    assert octets.sub(rb"\2\1", b"1234") == b"2143"
    assert [found[0] for found in text.finditer("a1B2")] == ["a", "B"] and text.pattern == "[a-z]+"


def test_nothing_is_compiled_before_its_first_use() -> None:
    wrong = late_pattern("(")
    with pytest.raises(re.error):
        wrong.search("")
