"""Counters by merchant, bounded: the busiest merchants have series of their own, and the others share `other`.

A merchant that becomes twice as busy as the least busy of them takes its place. Its series begins at 0: its earlier
counts stay in `other`, and those of the merchant that it replaces go there. No series ever falls, but one may end.
"""

from collections import Counter as Tally
from typing import Final

from tillway.domain.account import scope_of
from tillway.telemetry.metrics import Metrics

OTHER: Final = "other"
"""The label of all merchants without series of their own."""

MERCHANTS_DEFAULT: Final = 20
"""Merchants with series of their own, where the settings say nothing else."""

HALVED_EVERY: Final = 10_000
"""After so many counts the past weighs half, so that the busiest merchants are those of late."""


class MerchantCounters:
    """Counts payments and deliveries by merchant; at most `limit` merchants have series of their own."""

    def __init__(self, metrics: Metrics, limit: int) -> None:
        self._limit = limit
        self._counters = {
            name: metrics.counter(name)
            for name in ("tillway_merchant_payments_total", "tillway_merchant_deliveries_total")
        }
        self._shown: set[str] = set()
        self._recent: Tally[str] = Tally()
        self._counted = 0

    def payment(self, scope_key: str, outcome: str) -> None:
        """Count a payment that was settled."""
        self._count("tillway_merchant_payments_total", scope_key, outcome)

    def delivery(self, scope_key: str, outcome: str) -> None:
        """Count a try to deliver a webhook."""
        self._count("tillway_merchant_deliveries_total", scope_key, outcome)

    def _count(self, name: str, scope_key: str, outcome: str) -> None:
        if not self._limit:
            return
        self._recent[scope_key] += 1
        self._counted += 1
        if self._counted % HALVED_EVERY == 0:
            self._recent = Tally({key: count // 2 for key, count in self._recent.items() if count > 1})
        if scope_key not in self._shown:
            self._admit(scope_key)
        self._counters[name].add((*self._labels(scope_key), outcome))

    def _labels(self, scope_key: str) -> tuple[str, str]:
        scope = scope_of(scope_key)
        return (scope.account if scope_key in self._shown else OTHER), scope.mode

    def _admit(self, scope_key: str) -> None:
        """Give the merchant series of its own, if there is room or it is busier than one that has them."""
        if len(self._shown) < self._limit:
            self._shown.add(scope_key)
            return
        least = min(self._shown, key=lambda key: self._recent[key])
        if self._recent[scope_key] <= 2 * self._recent[least]:
            return
        place = self._labels(least)
        for counter in self._counters.values():
            for labels in [labels for labels in counter.values if labels[:2] == place]:
                counter.add((OTHER, *labels[1:]), counter.values.pop(labels))
        self._shown.remove(least)
        self._shown.add(scope_key)
