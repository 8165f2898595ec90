"""The daily close: equal books and statements tie, and any single line that is altered is found."""

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moments import moment_at

from tillway.domain import close
from tillway.domain.close import Close, Line, Movement
from tillway.domain.ledger import Entry
from tillway.domain.record import Changes
from tillway.domain.refusal import Refused

DAY = "2026-05-12"
SUFFIXES = (f"00000000000000{number:03}" for number in range(1_000))
AT = moment_at(1_778_630_400_000, lambda: next(SUFFIXES))


def movement(number: int, amount_minor: int, place: str = "stripe", currency: str = "eur", **more: Any) -> Movement:
    source = f"ch_{number}"
    return Movement(
        **{
            "place": place,
            "entry": f"txn_{number}",
            "source": source,
            "day": DAY,
            "amount_minor": amount_minor,
            "currency": currency,
            "references": (source, f"ref{number}"),
            **more,
        }
    )


def line_of(each: Movement, number: int) -> Line:
    return Line(
        place=each.place,
        where=f"file:{number}",
        day=each.day,
        amount_minor=each.amount_minor,
        currency=each.currency,
        references=(each.references[-1],),
    )


def closed(own: list[Movement], lines: list[Line], before: Close | None = None, **more: Any) -> Close:
    given = {"carried": (), "ledger": (), "statements": (), "by": "system", **more}
    made: Changes[Close] = close.make(DAY, own=own, lines=lines, before=before, at=AT, **given)
    return made.result


amounts = st.integers(-10_000, 10_000).filter(bool)
days = st.lists(
    st.tuples(amounts, st.sampled_from(("stripe", "adyen", "bank")), st.sampled_from(("eur", "usd", "jpy"))),
    min_size=1,
    max_size=12,
)


@given(days)
def test_a_day_whose_lines_are_its_movements_is_tied(rows: list[tuple[int, str, str]]) -> None:
    own = [movement(number, *row) for number, row in enumerate(rows)]
    made = closed(own, [line_of(each, number) for number, each in enumerate(own)])
    assert (made.status, made.differences, made.waiting) == ("tied", (), ())
    assert all(part.books_minor == part.statement_minor for part in made.sums)


@given(days, st.data())
def test_any_single_altered_line_is_found(rows: list[tuple[int, str, str]], data: st.DataObject) -> None:
    """Deleted, doubled, or with another amount, currency, reference, date or place."""
    own = [movement(number, *row) for number, row in enumerate(rows)]
    lines = [line_of(each, number) for number, each in enumerate(own)]
    at = data.draw(st.integers(0, len(lines) - 1))
    altered = lines[at]
    replace = _fields(altered)
    match data.draw(st.sampled_from(("delete", "double", "amount", "sign", "currency", "reference", "day", "place"))):
        case "delete":
            del lines[at]
        case "double":
            lines.append(Line(**{**replace, "where": "file:again"}))
        case "amount":
            lines[at] = Line(**{**replace, "amount_minor": altered.amount_minor + data.draw(amounts)})
        case "sign":
            lines[at] = Line(**{**replace, "amount_minor": -altered.amount_minor})
        case "currency":
            lines[at] = Line(**{**replace, "currency": "gbp"})
        case "reference":
            lines[at] = Line(**{**replace, "references": ("another",)})
        case "day":
            lines[at] = Line(**{**replace, "day": "2026-05-13"})
        case "place":
            lines[at] = Line(**{**replace, "place": "paypal"})
    made = closed(own, lines)
    assert made.status in ("differences", "incomplete")
    # The only line of a place that is deleted leaves a place without a statement, and that is said.
    assert made.differences or made.without_statement == [altered.place]


def test_each_difference_is_named() -> None:
    own = [movement(number, 100 * number) for number in range(1, 6)]
    one, two, three, four, _ = (line_of(each, number) for number, each in enumerate(own, 1))
    lines = [
        one,
        line_of(movement(2, 250), 2),
        line_of(movement(3, 300, currency="usd"), 3),
        Line(**{**_fields(four), "day": "2026-05-14"}),
        line_of(movement(1, 100), 9),
        line_of(movement(77, 7_700), 10),
    ]
    made = closed(own, lines)
    assert two.amount_minor == 200 and three.currency == "eur"
    told = {(each.kind, each.source, each.line): (each.books_minor, each.statement_minor) for each in made.differences}
    assert told == {
        ("amount_differs", "ch_2", "file:2"): (200, 250),
        ("currency_differs", "ch_3", "file:3"): (300, 300),
        ("other_day", "ch_4", "file:4"): (400, 400),
        ("duplicate_line", None, "file:9"): (None, 100),
        ("unknown_line", None, "file:10"): (None, 7_700),
        ("missing_line", "ch_5", None): (500, None),
    }
    assert [each.source for each in made.waiting] == ["ch_5"]


def test_a_line_that_comes_a_day_late_is_expected() -> None:
    late, other = movement(1, 500), movement(2, 600)
    first = closed([late, other], [line_of(other, 2)])
    assert [each.source for each in first.waiting] == ["ch_1"]
    second = closed([], [line_of(late, 1)], carried=first.waiting)
    assert (second.status, second.differences, second.waiting) == ("tied", (), ())


def test_a_place_without_a_statement_leaves_the_day_incomplete() -> None:
    made = closed([movement(1, 500), movement(2, 700, "adyen")], [line_of(movement(1, 500), 1)])
    assert (made.status, made.without_statement, made.differences) == ("incomplete", ["adyen"], ())


def test_the_fees_of_a_settlements_lines_are_compared_with_its_own() -> None:
    settled = movement(9, -970, source="stl_9", references=("po_1",), fee_minor=30)
    paid = Line(
        place="stripe",
        where="f:1",
        day=DAY,
        amount_minor=1_000,
        currency="eur",
        references=("ref1",),
        settlement="po_1",
    )
    other = {name: getattr(paid, name) for name in paid.__struct_fields__}
    for fee_minor, found in ((30, []), (31, ["fee_differs"])):
        lines = [Line(**{**other, "fee_minor": fee_minor}), line_of(settled, 2)]
        assert [each.kind for each in closed([movement(1, 1_000), settled], lines).differences] == found


def test_a_decision_books_the_excess_once_and_holds_when_the_day_is_closed_again() -> None:
    own, lines = [movement(1, 500)], [line_of(movement(1, 480), 1)]
    made = closed(own, lines)
    difference = made.differences[0]
    changes = close.decide(made, difference.id, "difference", reason="Fee of the bank", by="op_1", at=AT)
    entry = changes.records[1]
    assert isinstance(entry, Entry)
    assert [(part.account, part.amount_minor) for part in entry.postings] == [
        ("receivable:stripe", -20),
        ("differences", 20),
    ]
    assert changes.result.status == "tied" and changes.result.differences[0].booked == entry.id
    with pytest.raises(Refused, match="decided already"):
        close.decide(changes.result, difference.id, "explained", reason="again", by="op_1", at=AT)
    again = closed(own, lines, before=changes.result)
    assert again.status == "tied" and again.differences == changes.result.differences
    worse = closed(own, [line_of(movement(1, 470), 1)], before=changes.result)
    assert worse.status == "differences" and [each.decision for each in worse.differences] == ["difference", None]
    rest = close.decide(worse, worse.differences[1].id, "difference", reason="More", by="op_1", at=AT).records[1]
    assert isinstance(rest, Entry)
    assert [part.amount_minor for part in rest.postings] == [-10, 10], "20 of the 30 are booked"


def test_a_decision_holds_for_a_line_in_another_file_and_after_a_close_without_it() -> None:
    line = Line(place="bank", where="b.csv:2", day=DAY, amount_minor=12, currency="eur", references=("INTEREST",))
    made = closed([], [line])
    decided = close.decide(made, made.differences[0].id, "difference", reason="x", by="op_1", at=AT).result
    moved = Line(**{**_fields(line), "where": "b.1.csv:7"})
    assert closed([], [moved], before=decided).status == "tied"
    without = closed([], [], before=decided)
    assert without.differences == decided.differences, "what is booked stays told"
    assert closed([], [moved], before=without).status == "tied"
    twice = closed([], [moved, line], before=without)
    assert [each.decision for each in twice.differences] == ["difference", None], "the same line twice is two lines"


def test_more_differences_than_a_close_keeps_come_when_the_first_are_decided() -> None:
    lines = [line_of(movement(number, 100), number) for number in range(close.DIFFERENCES_MAX + 1)]
    made = closed([], lines)
    assert (len(made.differences), made.more) == (close.DIFFERENCES_MAX, 1)
    one = close.decide(made, made.differences[0].id, "explained", reason="x", by="op_1", at=AT).result
    again = closed([], lines, before=one)
    assert (len(again.differences), again.more) == (close.DIFFERENCES_MAX + 1, 0)


def test_a_difference_of_nothing_cannot_be_booked() -> None:
    made = closed([movement(1, 500)], [Line(**{**_fields(line_of(movement(1, 500), 1)), "day": "2026-05-11"})])
    id = made.differences[0].id
    with pytest.raises(Refused, match="nothing to book"):
        close.decide(made, id, "difference", reason="No", by="op_1", at=AT)
    assert close.decide(made, id, "explained", reason="Booked at night", by="op_1", at=AT).result.status == "tied"


def _fields(line: Line) -> dict[str, Any]:
    return {name: getattr(line, name) for name in line.__struct_fields__}


@pytest.mark.parametrize("text", ["2026-05-13", "2026-5-1", "yesterday", "20260512", ""])
def test_only_a_day_that_is_over_is_closed(text: str) -> None:
    with pytest.raises(Refused):
        close.check_day(text, today=date(2026, 5, 13))
    assert close.check_day(DAY, today=date(2026, 5, 13)) == DAY
