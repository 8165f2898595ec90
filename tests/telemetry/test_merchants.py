"""Series of merchants: bounded, of the busiest, and none that falls while it lives."""

import random

from tillway.domain.account import Scope
from tillway.telemetry.merchants import OTHER, MerchantCounters
from tillway.telemetry.metrics import Metrics, totals

PAYMENTS = "tillway_merchant_payments_total"


def shop(number: int) -> str:
    return Scope(account=f"acct_{number:016}", mode="live").key


def shown(metrics: Metrics) -> dict[str, float]:
    """The payments by merchant."""
    found: dict[str, float] = {}
    for labels, value in metrics.counter(PAYMENTS).values.items():
        found[labels[0]] = found.get(labels[0], 0) + value
    return found


def test_merchants_beyond_the_bound_are_other() -> None:
    metrics = Metrics()
    counters = MerchantCounters(metrics, 2)
    for number in (1, 1, 2, 2, 3):
        counters.payment(shop(number), "succeeded")
    assert shown(metrics) == {"acct_0000000000000001": 2, "acct_0000000000000002": 2, OTHER: 1}


def test_a_busier_merchant_takes_the_place_of_the_least_busy_one() -> None:
    metrics = Metrics()
    counters = MerchantCounters(metrics, 2)
    for number in (1, 1, 1, 2, 3, 3, 3, 3):
        counters.payment(shop(number), "declined")
    assert shown(metrics) == {"acct_0000000000000001": 3, "acct_0000000000000003": 2, OTHER: 3}


def test_whatever_comes_nothing_is_lost_the_bound_holds_and_other_never_falls() -> None:
    metrics, chance = Metrics(), random.Random(7)
    counters = MerchantCounters(metrics, 5)
    other = 0.0
    for count in range(1, 30_001):
        counters.payment(shop(int(chance.paretovariate(0.8)) % 400), chance.choice(("succeeded", "declined")))
        if count % 97 == 0:
            found = shown(metrics)
            assert sum(found.values()) == count and len(found) <= 6
            assert found.get(OTHER, 0) >= other
            other = found.get(OTHER, 0)


def test_without_room_nothing_is_counted() -> None:
    metrics = Metrics()
    MerchantCounters(metrics, 0).delivery(shop(1), "failed")
    assert totals(metrics, "tillway_merchant_deliveries_total") == 0
