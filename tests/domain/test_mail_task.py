from itertools import count

import msgspec
import pytest
from moments import moment_at

from tillway.domain.mail import DELAYS_SECONDS, TRIES_MAX, EmailTask, announced, count_try
from tillway.domain.payout import Payout, Recipient
from tillway.domain.record import Changes, EventDraft

_numbers = count()
AT = moment_at(1_800_000_000_000, lambda: f"{next(_numbers):017d}")
PAID = Payout(
    id="po_1",
    created=0,
    amount_minor=1250,
    currency="usd",
    recipient=Recipient(type="email", email="anna@example.com"),
    customer="cus_1",
)


@pytest.mark.parametrize(
    ("type", "payout", "about"),
    [
        ("payout.paid", PAID, ["paid"]),
        ("payout.failed", PAID, ["failed"]),
        ("payout.updated", PAID, []),
        ("payout.created", PAID, []),
        ("payout.canceled", PAID, []),
        ("payout.paid", msgspec.structs.replace(PAID, customer=None), []),
        ("payout.paid", msgspec.structs.replace(PAID, recipient=Recipient(type="bank_account", vault="vlt_1")), []),
    ],
)
def test_who_is_told_of_what(type: str, payout: Payout, about: list[str]) -> None:
    changes = announced(Changes(result=payout, events=(EventDraft(type=type, record=payout),)), AT)
    assert [task.about for task in changes.tasks if isinstance(task, EmailTask)] == about
    assert all(task.payout == "po_1" and task.due_at_ms == AT.now_ms for task in changes.tasks)  # type: ignore[attr-defined]


def test_tries_are_counted_before_they_are_made_and_end() -> None:
    task: EmailTask | None = EmailTask(id="eml_1", created=0, payout="po_1", about="paid", due_at_ms=0)
    waits = []
    while task is not None and (task := count_try(task, AT)) is not None:
        waits.append((task.due_at_ms - AT.now_ms) // 1000)
    assert len(waits) == TRIES_MAX
    assert waits == sorted(waits) and waits[: len(DELAYS_SECONDS)] == list(DELAYS_SECONDS)
