"""Lists: pages both ways, filters by time, and searches."""

import time

import pytest
import stripe
from sdk_shop import Shop


@pytest.fixture(scope="module")
def seven(own_shop: Shop) -> list[str]:
    """Seven payments, newest first."""
    shop = own_shop
    made = [
        shop.v1.payment_intents.create({"amount": 100 + i, "currency": "eur", "metadata": {"i": str(i), "Who": "Änne"}})
        for i in range(7)
    ]
    return [one.id for one in reversed(made)]


def test_newest_first(own_shop: Shop, seven: list[str]) -> None:
    page = own_shop.v1.payment_intents.list({"limit": 3})
    assert ([one.id for one in page.data], page.has_more, page.url) == (seven[:3], True, "/v1/payment_intents")


def test_ten_by_default(own_shop: Shop, seven: list[str]) -> None:
    page = own_shop.v1.payment_intents.list()
    assert ([one.id for one in page.data], page.has_more) == (seven, False)


def test_starting_after(own_shop: Shop, seven: list[str]) -> None:
    page = own_shop.v1.payment_intents.list({"limit": 3, "starting_after": seven[2]})
    assert ([one.id for one in page.data], page.has_more) == (seven[3:6], True)
    last = own_shop.v1.payment_intents.list({"limit": 3, "starting_after": seven[5]})
    assert ([one.id for one in last.data], last.has_more) == (seven[6:], False)


def test_ending_before(own_shop: Shop, seven: list[str]) -> None:
    page = own_shop.v1.payment_intents.list({"limit": 3, "ending_before": seven[5]})
    assert ([one.id for one in page.data], page.has_more) == (seven[2:5], True)
    first = own_shop.v1.payment_intents.list({"limit": 3, "ending_before": seven[2]})
    assert ([one.id for one in first.data], first.has_more) == (seven[:2], False)


def test_auto_paging(own_shop: Shop, seven: list[str]) -> None:
    page = own_shop.v1.payment_intents.list({"limit": 2})
    assert [one.id for one in page.auto_paging_iter()] == seven


def test_auto_paging_backwards(own_shop: Shop, seven: list[str]) -> None:
    page = own_shop.v1.payment_intents.list({"limit": 2, "ending_before": seven[-1]})
    assert [one.id for one in page.auto_paging_iter()] == seven[-2::-1]


def test_next_and_previous_page(own_shop: Shop, seven: list[str]) -> None:
    page = own_shop.v1.payment_intents.list({"limit": 2})
    assert [one.id for one in page.next_page().data] == seven[2:4]
    middle = own_shop.v1.payment_intents.list({"limit": 2, "ending_before": seven[4]})
    assert [one.id for one in middle.previous_page().data] == seven[:2]


@pytest.mark.parametrize("name", ["starting_after", "ending_before"])
def test_a_place_that_is_none(own_shop: Shop, name: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        own_shop.v1.payment_intents.list({name: "pi_frobnicate"})
    assert (caught.value.code, caught.value.param) == ("resource_missing", name)


def test_two_places_at_once(own_shop: Shop, seven: list[str]) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        own_shop.v1.payment_intents.list({"starting_after": seven[0], "ending_before": seven[1]})


@pytest.mark.parametrize("limit", [0, 101, -1, "x"])
def test_a_limit_that_is_none(own_shop: Shop, limit: object) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        own_shop.v1.payment_intents.list({"limit": limit})
    assert caught.value.param == "limit"


def test_created(own_shop: Shop, seven: list[str]) -> None:
    payments = own_shop.v1.payment_intents
    stamp = payments.retrieve(seven[0]).created
    oldest = payments.retrieve(seven[-1]).created
    assert [one.id for one in payments.list({"created": {"gte": oldest}}).data] == seven
    assert [one.id for one in payments.list({"created": {"gte": oldest, "lte": stamp}}).data] == seven
    assert payments.list({"created": {"gt": stamp}}).data == []
    assert payments.list({"created": {"lt": oldest}}).data == []
    assert seven[0] in [one.id for one in payments.list({"created": stamp}).data]
    assert payments.list({"created": {"gte": int(time.time()) + 60}}).data == []


def test_created_while_paging(own_shop: Shop, seven: list[str]) -> None:
    oldest = own_shop.v1.payment_intents.retrieve(seven[-1]).created
    page = own_shop.v1.payment_intents.list({"limit": 2, "created": {"gte": oldest}})
    assert [one.id for one in page.auto_paging_iter()] == seven


def test_by_customer(own_shop: Shop) -> None:
    customer = own_shop.v1.customers.create()
    made = own_shop.v1.payment_intents.create({"amount": 100, "currency": "usd", "customer": customer.id})
    assert [one.id for one in own_shop.v1.payment_intents.list({"customer": customer.id}).data] == [made.id]
    assert own_shop.v1.payment_intents.list({"customer": "cus_frobnicate"}).data == []


# Searching.

QUERIES = """
    metadata['i']:'3'                                             3
    metadata['Who']:'änne'                                        6 5 4 3 2 1 0
    metadata['i']:'3' AND metadata['Who']:'Änne'                  3
    metadata['i']:'3' OR metadata['i']:'5'                        5 3
    -metadata['i']:'3' AND metadata['Who']:'Änne'                 6 5 4 2 1 0
    status:'requires_payment_method' AND metadata['i']:'3'        3
    status:'succeeded' AND metadata['Who']:'Änne'
    amount>104 AND metadata['Who']:'Änne'                         6 5
    amount:104                                                    4
    amount<=101 AND currency:'eur'                                1 0
    created>0 AND metadata['i']:'2'                               2
    -metadata['Who']:null AND amount<102                          1 0
"""


@pytest.mark.parametrize("row", QUERIES.strip().splitlines(), ids=lambda row: row.strip().split("  ")[0])
def test_search(own_shop: Shop, seven: list[str], row: str) -> None:
    query, _, places = row.strip().partition("  ")
    found = own_shop.v1.payment_intents.search({"query": query})
    assert [one.id for one in found.data] == [seven[6 - int(place)] for place in places.split()]


def test_search_pages(own_shop: Shop, seven: list[str]) -> None:
    query = {"query": "metadata['Who']:'Änne'", "limit": 3}
    page = own_shop.v1.payment_intents.search(query)
    assert ([one.id for one in page.data], page.has_more) == (seven[:3], True)
    second = own_shop.v1.payment_intents.search({**query, "page": page.next_page})
    assert [one.id for one in second.data] == seven[3:6]
    assert [one.id for one in page.auto_paging_iter()] == seven


@pytest.mark.parametrize(
    "query", ["amount", "frobnicate:'1'", "status:'a' AND status:'b' OR amount>1", "amount~'1'", "status:'a", "", "AND"]
)
def test_a_query_that_cannot_be_read(own_shop: Shop, query: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        own_shop.v1.payment_intents.search({"query": query})
    assert caught.value.param == "query"


def test_search_charges(own_shop: Shop) -> None:
    paid = own_shop.pay(metadata={"kind": "chair"})
    found = own_shop.v1.charges.search({"query": "metadata['kind']:'chair' AND amount:4200"})
    assert [one.id for one in found.data] == [paid.latest_charge]
    by_card = own_shop.v1.charges.search({"query": "payment_method_details.card.last4:'4242'", "limit": 1})
    assert [one.id for one in by_card.data] == [paid.latest_charge]


def test_search_customers(own_shop: Shop) -> None:
    made = own_shop.v1.customers.create({"email": "Search@Example.com", "name": "Jane Doe"})
    for query in ("email:'search@example.com'", "email~'search'", "name~'jane'"):
        found = own_shop.v1.customers.search({"query": query})
        assert made.id in [one.id for one in found.data], query
    own_shop.v1.customers.delete(made.id)
    assert own_shop.v1.customers.search({"query": "email:'search@example.com'"}).data == []
