"""`stripe_shapes` finds every kind of fault in an answer. The SDK client of these tests holds each answer to it."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import stripe_sdk
from sdk_shop import Shop
from stripe_shapes import CLOSED, NOT_IN_V1, NULL_HERE, NULLS, OWN_FIELDS, UNTYPED, problems

from tillway.http.versions import CURRENT

Path = tuple[str | int, ...]

_OPEN = ("metadata", "use_stripe_sdk")
"""Objects whose fields the merchant or the client library chooses."""

_GONE = object()

# (place, what stands there instead, what is said of it), in the answer that `payment` gives.
FAULTS: list[tuple[str, Any, str]] = [
    ("id", _GONE, "payment_intent: lacks 'id'"),
    ("id", 7, "payment_intent.id: string expected"),
    ("id", None, "payment_intent.id: is null"),
    ("amount", True, "payment_intent.amount: integer expected"),
    ("amount", "4200", "payment_intent.amount: integer expected"),
    ("amount", 42.5, "payment_intent.amount: integer expected"),
    ("canceled_at", _GONE, "payment_intent: lacks 'canceled_at'"),
    ("frobnicate", 1, "payment_intent: has 'frobnicate', which Stripe does not have"),
    ("livemode", 0, "payment_intent.livemode: boolean expected"),
    ("metadata", {"order": 7}, "payment_intent.metadata[order]: string expected"),
    ("metadata", [], "payment_intent.metadata: object expected"),
    ("payment_details", None, "payment_intent.payment_details: is null"),
    ("status", "gone", "payment_intent.status: 'gone' is none of"),
    ("allowed_payment_method_types", "card", "payment_intent.allowed_payment_method_types: array expected"),
    ("allowed_payment_method_types", ["card", None], "allowed_payment_method_types[1]: None is none of"),
    ("customer", 7, "payment_intent.customer: string expected"),
    ("latest_charge.object", "payment", "latest_charge.object: 'payment' is none of"),
    ("latest_charge.currency", None, "payment_intent.latest_charge.currency: is null"),
    ("latest_charge.deleted", True, "payment_intent.latest_charge: has 'deleted'"),
    ("latest_charge.billing_details.email", _GONE, "latest_charge.billing_details: lacks 'email'"),
    ("latest_charge.outcome.type", _GONE, "latest_charge.outcome: lacks 'type'"),
    ("latest_charge.payment_method_details.card.checks", 7, "payment_method_details.card.checks: object expected"),
    ("latest_charge.payment_method_details.card.funding", 7, "payment_method_details.card.funding: string expected"),
    ("latest_charge.refunds.data", _GONE, "latest_charge.refunds: lacks 'data'"),
    ("latest_charge.refunds.has_more", "no", "latest_charge.refunds.has_more: boolean expected"),
    ("latest_charge.refunds.pages", 1, "latest_charge.refunds: has 'pages'"),
    ("latest_charge.refunds.data.0.reason", "gone", "refunds.data[0].reason: 'gone' is none of"),
    ("latest_charge.balance_transaction.fee_details.0.type", _GONE, "fee_details[0]: lacks 'type'"),
    ("latest_charge.balance_transaction.exchange_rate", "1", "balance_transaction.exchange_rate: number expected"),
    ("payment_method.card.exp_year", "2034", "payment_method.card.exp_year: integer expected"),
]


@pytest.fixture(scope="module")
def payment(own_shop: Shop) -> dict[str, Any]:
    """A payment of a customer, partly refunded, with everything expanded: the objects that most answers are made of."""
    customer = own_shop.v1.customers.create({"email": "a@shop.example"})
    paid = own_shop.pay(customer=customer.id, metadata={"order": "7"})
    own_shop.v1.refunds.create({"payment_intent": paid.id, "amount": 100})
    expand = ("customer", "payment_method", "latest_charge.balance_transaction", "latest_charge.refunds")
    answer = own_shop.http.get(f"/v1/payment_intents/{paid.id}", params=[("expand[]", one) for one in expand])
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    assert not problems(document)
    return document


def places(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every place in a document at which a shape stands, with what it holds."""
    yield path, value
    if isinstance(value, list) or (isinstance(value, dict) and (not path or path[-1] not in _OPEN)):
        for key, member in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(member, (*path, key))


def broken(document: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """A copy of `document` with `value` at `path`; without what is there, where `value` is `_GONE`."""
    found: Any = copy.deepcopy(document)
    parent = found
    for key in path[:-1]:
        parent = parent[key]
    if value is _GONE:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return found


def test_the_sdk_describes_the_version_that_tillway_speaks() -> None:
    assert stripe_sdk.VERSION == CURRENT


@pytest.mark.parametrize(("place", "value", "says"), FAULTS, ids=lambda one: one if isinstance(one, str) else "")
def test_a_fault_is_found(payment: dict[str, Any], place: str, value: Any, says: str) -> None:
    path = tuple(int(key) if key.isdigit() else key for key in place.split("."))
    found = problems(broken(payment, path, value))
    assert any(says in one for one in found), found


def test_a_wrong_type_is_found_wherever_it_stands(payment: dict[str, Any]) -> None:
    missed = []
    for path, value in places(payment):
        if path and path[-1] != "object":
            for wrong in ([], {}, {"frobnicate": 1}, ["frobnicate"], 7.5):
                same = type(wrong) is type(value) or (isinstance(value, float) and wrong == 7.5)
                known = path[-1] in _OPEN and isinstance(wrong, dict)
                if value is not None and not same and not known and not problems(broken(payment, path, wrong)):
                    missed.append((path, wrong))
    assert not missed


def test_an_unknown_field_is_found_wherever_it_stands(payment: dict[str, Any]) -> None:
    objects = [path for path, value in places(payment) if isinstance(value, dict) and path[-1:] != ("metadata",)]
    assert len(objects) > 20
    assert not [path for path in objects if not problems(broken(payment, (*path, "frobnicate"), "x"))]


def test_a_missing_or_null_id_is_found_wherever_it_stands(payment: dict[str, Any]) -> None:
    named = [path for path, value in places(payment) if path[-1:] == ("id",) and path[-2:-1] != ("metadata",)]
    assert len(named) >= 6
    assert not [path for path in named if not problems(broken(payment, path, _GONE))]
    assert not [path for path in named if not problems(broken(payment, path, None))]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"error": {"message": "No."}}, "answer.error: lacks 'type'"),
        ({"error": {"type": "gone"}}, "answer.error.type: 'gone' is none of"),
        ({"error": {"type": "card_error", "param": None}}, "answer.error.param: is null"),
        ({"error": {"type": "card_error", "frobnicate": 1}}, "answer.error: has 'frobnicate'"),
        ({"error": {"type": "card_error", "user_message": "No."}}, "answer.error: has 'user_message'"),
        ({"error": {"type": "card_error"}, "request": "req_1"}, "answer: has 'request'"),
        ({"error": "No."}, "answer.error: object expected"),
        ({"id": "cus_1", "object": "customer", "deleted": True, "email": None}, "customer: has 'email'"),
        ({"object": "customer", "deleted": True}, "customer: lacks 'id'"),
        ({"object": "list", "data": [], "has_more": False}, "list: lacks 'url'"),
        ({"object": "list", "data": 7, "has_more": False, "url": "/v1/refunds"}, "list.data: array expected"),
        ({"object": "search_result", "data": [], "url": "/v1/charges/search"}, "search_result: lacks 'has_more'"),
    ],
)
def test_a_fault_is_found_in_errors_lists_and_deleted_objects(document: dict[str, Any], says: str) -> None:
    found = problems(document)
    assert any(says in one for one in found), found


def test_good_errors_lists_and_deleted_objects_pass() -> None:
    assert not problems({"error": {"type": "card_error", "code": "card_declined", "message": "No."}})
    assert not problems({"id": "cus_1", "object": "customer", "deleted": True})
    assert not problems({"id": "card_1", "object": "card", "deleted": True, "currency": None})
    assert not problems({"object": "list", "data": [], "has_more": False, "url": "/v1/refunds"})
    page = {"object": "search_result", "data": [], "has_more": False, "url": "/v1/charges/search", "next_page": None}
    assert not problems(page)


def test_the_tables_name_only_what_the_sdk_has() -> None:
    """A fact about a field that the SDK has lost, or no longer calls optional, is dropped from `stripe_nulls.json`."""
    for name, facts in NULLS.items():
        has = stripe_sdk.fields(stripe_sdk.class_named(name))
        listed = [field for names in facts.values() for field in names]
        assert facts.keys() <= {"null", "null or absent", "never null"}
        assert len(listed) == len(set(listed)), name
        assert not [field for field in listed if field not in has or not stripe_sdk.may_be_none(has[field])], name
    for name, field in (*CLOSED, *NOT_IN_V1, *NULL_HERE):
        assert field in stripe_sdk.fields(stripe_sdk.class_named(name))
    for name, field in (*OWN_FIELDS, *UNTYPED):
        assert field not in stripe_sdk.fields(stripe_sdk.class_named(name)), "the SDK has it now"
