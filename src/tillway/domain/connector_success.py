"""The expected success of payments through a connector, from the counted outcomes of others like them."""

from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

LEAST_ENDED = 20
"""Fewest outcomes that a rate is taken from. With fewer, payments that are less alike count too."""


class Kind(NamedTuple):
    """A kind of payments that tend to fare alike. `method` is the brand of a card, or else the type of the method."""

    currency: str
    method: str
    country: str | None


class Counted(NamedTuple):
    """How many of the payments of a kind that ended at a connector succeeded."""

    connector: str
    kind: Kind
    succeeded: int
    ended: int


class Outcomes:
    """Counted outcomes of attempts by connector and kind."""

    def __init__(self) -> None:
        self._by_kind: dict[tuple[str, Kind], list[int]] = defaultdict(lambda: [0, 0])

    def add(self, connector: str, kind: Kind, *, succeeded: bool) -> None:
        counts = self._by_kind[connector, kind]
        counts[0] += succeeded
        counts[1] += 1

    def rate(self, connector: str, kind: Kind) -> Fraction | None:
        """The share of such payments that succeeded there: of that kind; if these are fewer than LEAST_ENDED, of every
        country; then of every method. None if these are too few as well."""
        for length in range(len(kind), 0, -1):
            alike = kind[:length]
            counts = [
                one for (name, other), one in self._by_kind.items() if (name, other[:length]) == (connector, alike)
            ]
            succeeded, ended = sum(one[0] for one in counts), sum(one[1] for one in counts)
            if ended >= LEAST_ENDED:
                return Fraction(succeeded, ended)
        return None

    def __iter__(self) -> Iterator[Counted]:
        for (connector, kind), (succeeded, ended) in sorted(self._by_kind.items(), key=lambda one: _order(*one[0])):
            yield Counted(connector, kind, succeeded, ended)


def _order(connector: str, kind: Kind) -> tuple[str, str, str, str]:
    return connector, kind.currency, kind.method, kind.country or ""


class Moved(NamedTuple):
    """Payments of a kind that would go from one connector to another; None: to none, so that they are refused."""

    before: str
    after: str | None
    kind: Kind


class Forecast(NamedTuple):
    """The expected effect of another way on `judged` payments: how many of them succeed `before` and `after`, and how
    much more money is taken, in minor units by currency. For `unknown` others no rate is known."""

    judged: int
    unknown: int
    before: Fraction
    after: Fraction
    more: dict[str, Fraction]


def forecast(outcomes: Outcomes, moved: dict[Moved, tuple[int, int]]) -> Forecast:
    """The forecast for moved payments: for each kind their number, and the sum of their amounts in minor units."""
    judged = unknown = 0
    before, after, more = Fraction(), Fraction(), dict[str, Fraction]()
    for move, (payments, amount_minor) in moved.items():
        here = outcomes.rate(move.before, move.kind)
        there = outcomes.rate(move.after, move.kind) if move.after is not None else Fraction()
        if here is None or there is None:
            unknown += payments
            continue
        judged += payments
        before += payments * here
        after += payments * there
        currency = move.kind.currency
        more[currency] = more.get(currency, Fraction()) + amount_minor * (there - here)
    return Forecast(judged, unknown, before, after, more)
