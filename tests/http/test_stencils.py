"""A stencil gives the bytes of the general rendering, whatever the records are that follow each other."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from tillway.api import events, payment_intents, payment_methods
from tillway.domain.cards import Secret
from tillway.domain.event import Event, EventReading
from tillway.domain.payment_intent import PaymentError, PaymentIntent, Status
from tillway.domain.payment_method import PaymentMethod
from tillway.engine.client_secrets import ClientSecrets
from tillway.http.shapes import View, render_record
from tillway.http.stencils import STENCILS, Stencils, render
from tillway.store.codec import encode

_SERIAL = count(1)

_REGISTERED = events, payment_intents, payment_methods
"""The files of the shapes and of the stencil."""


@pytest.fixture
def stencils() -> Iterator[Stencils]:
    """Stencils of payments that have none cut yet."""
    yield Stencils(STENCILS[PaymentIntent].fields)


def payment(status: Status = "succeeded", **fields: Any) -> PaymentIntent:
    n = next(_SERIAL)
    made = PaymentIntent(
        id=f"pi_{n}",
        created=1_700_000_000 + n,
        amount_minor=1_000 + n,
        received_minor=1_000 + n,
        currency="usd",
        status=status,
        method=f"pm_{n}",
        latest_charge=f"ch_{n}",
        references=(f"tail{n}",),
    )
    return msgspec.structs.replace(made, **fields)


def view(**fields: Any) -> View:
    secrets = ClientSecrets(Secret(b"k" * 32))
    return msgspec.structs.replace(View(False, "http://here", secrets, scope_key="acct_1.t"), **fields)


DIFFERENT: list[dict[str, Any]] = [
    {},
    {"metadata": {"order": 'a "quoted" name\\ with { braces } and 100 %s'}},
    {"metadata": {"mark0ofid": "mark0ofmetadata", "number": "7310000000000"}},
    {"description": "mark0ofid and mark1ofid"},
    {"description": ""},
    {"customer": "cus_1", "description": "Zwölf Äpfel\n\u2028"},
    {"shipping": {"name": "mark0ofmethod", "address": {"line1": "7310000000001"}}},
    {"amount_minor": 7_310_000_000_000},
    {"amount_minor": 0, "received_minor": 0},
    {"currency": "isk"},
    {"latest_charge": None},
    {"method": None, "status": "requires_payment_method", "latest_charge": None},
    {"status": "requires_action", "challenge": "https://bank/mark0ofid"},
    {"status": "requires_action", "challenge": "http://here/3ds/acct_1.t/pi_1"},
    {"status": "canceled", "canceled_at": 1_700_000_000},
    {"secret": "own"},
    {"method_options": {"card": {"request_three_d_secure": "any"}}},
    {"last_error": PaymentError(code="card_declined", message="%", method=PaymentMethod(id="pm_x", created=1))},
]


@pytest.mark.parametrize("fields", DIFFERENT, ids=lambda fields: ",".join(fields) or "plain")
def test_a_stencil_gives_the_general_answer(stencils: Stencils, fields: dict[str, Any]) -> None:
    seen = view()
    for _ in range(4):
        made = payment(**fields)
        assert stencils.render(made, seen) == render(made, seen)


def test_payments_of_all_sorts_may_follow_each_other(stencils: Stencils) -> None:
    views = view(), view(livemode=True), view(converts_amounts=False)
    for turn in range(3 * len(DIFFERENT)):
        for seen in views:
            for _ in range(1 + turn % 3):
                made = payment(**DIFFERENT[turn * 7 % len(DIFFERENT)])
                assert stencils.render(made, seen) == render(made, seen)


def test_a_field_that_no_one_declared_open_is_never_repeated(stencils: Stencils) -> None:
    seen = view()
    for word in ("one", "one", "one", "two", "two", "one"):
        made = payment(transfer_group=word)
        assert msgspec.json.decode(stencils.render(made, seen))["transfer_group"] == word


def test_the_object_of_an_event_is_rendered_by_its_stencil_alike() -> None:
    seen, encoded = view(), view(takes_encoded=True)
    for _ in range(4):
        made = payment(metadata={"order": "1"})
        event = Event(id="evt_1", created=made.created, type="payment_intent.succeeded", object=Raw(encode(made)))
        reading = EventReading.of(event, 1)
        shown = render_record(reading, encoded)
        assert isinstance(shown["data"]["object"], Raw)
        assert msgspec.json.encode(shown) == render(reading, seen)
