"""Whether answers are held to Stripe's shapes at all: the SDK client of these tests checks each one of them."""

import pytest
from stripe_shapes import FILE, problems, shapes


def test_a_copy_of_the_shapes_is_there() -> None:
    if not FILE.exists():
        pytest.skip(f"no copy of Stripe's shapes at {FILE}: the answers in tests/sdk were not held to them")
    assert {"payment_intent", "charge", "refund", "error"} <= shapes().keys()


@pytest.mark.skipif(not FILE.exists(), reason="no copy of Stripe's shapes beside the project")
def test_a_wrong_shape_is_seen() -> None:
    refund = {"id": 7, "object": "refund", "status": "gone", "frobnicate": 1, "amount": True, "currency": None}
    found = " ".join(problems({"object": "list", "data": [refund], "has_more": False, "url": "/v1/refunds"}))
    for piece in ("data[0].id: string expected", "frobnicate", "lacks 'charge'", "amount: integer expected", "is null"):
        assert piece in found
