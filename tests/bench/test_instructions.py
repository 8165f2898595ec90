"""A payment takes no more instructions, rows and bytes than when its figures were last recorded.

`bench/instructions.json` holds the figures. Where a change needs more and is worth it, record anew with
`python -m bench.instructions --record` and say why in the commit.
"""

import pytest

from bench.instructions import (
    RISE_MAX,
    CannotCount,
    check_machine,
    instructions,
    instructions_a_payment,
    interpreter,
    last_recorded,
    recorded,
    stored_a_payment,
)

REQUESTS = ("healthz", "refused", "retrieve", "logged")
"""The other work that is counted here as well. Deliveries take longer to count than all of it."""


def countable() -> None:
    """Skip where instructions cannot be counted."""
    try:
        check_machine()
    except CannotCount as reason:
        pytest.skip(str(reason))


def test_a_payment_takes_no_more_instructions_than_recorded() -> None:
    countable()
    record = last_recorded(interpreter())
    if record is None:
        pytest.skip(f"no figure of this kind of interpreter ({interpreter()}) is in bench/instructions.json")
    counted = {work: then for work, then in record.figures.other_work.items() if work in REQUESTS}
    before, now = counted | {"payment": record.figures.instructions}, instructions(*counted)
    assert now.keys() == before.keys()
    for work, then in before.items():
        assert now[work] <= then * (1 + RISE_MAX), f"{work}: {now[work]:,}, {now[work] / then - 1:+.1%}: {record}"
        # A count of nothing would pass the line above.
        assert now[work] > then / 4


def test_a_payment_writes_no_more_rows_and_bytes_than_recorded() -> None:
    record = recorded()[-1]
    now, then = stored_a_payment(), record.figures
    assert then.bytes / 4 < now["bytes"] <= then.bytes * (1 + RISE_MAX), f"{then.bytes:,} at {record.commit}: {now}"
    assert 1 < now["rows_added"] <= now["rows_written"] <= then.rows_written, f"{then} at {record.commit}: {now}"


@pytest.mark.soak
def test_two_counts_differ_by_less_than_half_a_percent() -> None:
    countable()
    one, other = instructions_a_payment(), instructions_a_payment()
    assert abs(one - other) < 0.005 * min(one, other), (one, other)
