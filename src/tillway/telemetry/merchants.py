"""Counters by merchant, bounded: the busiest merchants have series of their own, and the others share `other`.

A merchant that becomes twice as busy as the least busy of them takes its place. Its series begins at 0: its earlier
counts stay in `other`, and those of the merchant that it replaces go there. No series ever falls, but one may end.
"""

from typing import Final

from tillway.domain.account import scope_of
from tillway.telemetry.metrics import Metrics

OTHER: Final = "other"
"""The label of all merchants without series of their own."""

MERCHANTS_DEFAULT: Final = 20
"""Merchants with series of their own, where the settings say nothing else."""

HALVED_EVERY: Final = 10_000
"""After so many counts, earlier counts weigh half: the busiest merchants are those of recent hours."""


class MerchantCounters:
    """Counts payments and deliveries by merchant; at most `limit` merchants have series of their own."""

    def __init__(self, metrics: Metrics, limit: int) -> None:
        self._limit = limit
        self._counters = {
            name: metrics.counter(name)
            for name in ("tillway_merchant_payments_total", "tillway_merchant_deliveries_total")
        }
        self._shown: dict[str, tuple[str, str]] = {}
        """The labels of the merchants with series of their own, by scope key."""
        self._recent: dict[str, int] = {}
        self._counted = 0

    def payment(self, scope_key: str, outcome: str, times: int = 1) -> None:
        """Count payments that were settled."""
        self._count("tillway_merchant_payments_total", scope_key, outcome, times)

    def delivery(self, scope_key: str, outcome: str, times: int = 1) -> None:
        """Count tries to deliver webhooks."""
        self._count("tillway_merchant_deliveries_total", scope_key, outcome, times)

    def _count(self, name: str, scope_key: str, outcome: str, times: int) -> None:
        if not self._limit:
            return
        recent = self._recent
        recent[scope_key] = recent.get(scope_key, 0) + times
        self._counted += times
        if self._counted >= HALVED_EVERY:
            self._counted = 0
            self._recent = {key: count // 2 for key, count in recent.items() if count > 1}
        labels = self._shown.get(scope_key)
        if labels is None:
            labels = self._admit(scope_key)
        self._counters[name].add((labels[0], labels[1], outcome), times)

    def _admit(self, scope_key: str) -> tuple[str, str]:
        """The labels of a merchant without series of its own. It is given them if there is room, or if it is busier
        than one that has them."""
        scope = scope_of(scope_key)
        labels = (scope.account, scope.mode)
        if len(self._shown) < self._limit:
            self._shown[scope_key] = labels
            return labels
        least = min(self._shown, key=lambda key: self._recent.get(key, 0))
        if self._recent.get(scope_key, 0) <= 2 * self._recent.get(least, 0):
            return OTHER, scope.mode
        place = self._shown.pop(least)
        for counter in self._counters.values():
            for moved in [labels for labels in counter.values if labels[:2] == place]:
                counter.add((OTHER, *moved[1:]), counter.values.pop(moved))
        self._shown[scope_key] = labels
        return labels
