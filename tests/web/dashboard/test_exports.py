import pytest

from tillway.web.dashboard.exports import safe_cell


@pytest.mark.parametrize("text", ["=SUM(A1)", "+49 30 1", "-1", "-2.50", "@here", "\tx", "\r=1"])
def test_a_text_that_a_spreadsheet_would_compute_gets_an_apostrophe(text: str) -> None:
    assert safe_cell(text, "description") == f"'{text}"


@pytest.mark.parametrize(("text", "column"), [("-2.50", "net"), ("-0.125", "balance"), ("-7", "credit"), ("a-b", "id")])
def test_an_amount_below_nothing_and_every_other_text_stay(text: str, column: str) -> None:
    assert safe_cell(text, column) == text
