"""The expected success of payments that would go elsewhere, from counted outcomes."""

from fractions import Fraction

from tillway.domain.connector_success import LEAST_ENDED, Kind, Moved, Outcomes, forecast

GERMAN, FRENCH = Kind("eur", "visa", "DE"), Kind("eur", "visa", "FR")
MASTERCARD, DOLLARS = Kind("eur", "mastercard", "DE"), Kind("usd", "visa", "DE")


def counted(*rows: tuple[str, Kind, int, int]) -> Outcomes:
    outcomes = Outcomes()
    for connector, kind, succeeded, ended in rows:
        for number in range(ended):
            outcomes.add(connector, kind, succeeded=number < succeeded)
    return outcomes


def test_a_rate_is_that_of_the_most_alike_payments_that_are_enough() -> None:
    outcomes = counted(
        ("a", GERMAN, 18, 20),
        ("a", FRENCH, 0, 5),
        ("a", MASTERCARD, 5, 15),
        ("b", GERMAN, 10, LEAST_ENDED - 1),
    )
    assert outcomes.rate("a", GERMAN) == Fraction(18, 20)
    assert outcomes.rate("a", FRENCH) == Fraction(18, 25), "of every country"
    assert outcomes.rate("a", MASTERCARD) == Fraction(23, 40), "of every method"
    assert outcomes.rate("a", DOLLARS) is None and outcomes.rate("b", GERMAN) is None


def test_a_forecast_adds_up_the_payments_with_known_rates() -> None:
    outcomes = counted(("a", GERMAN, 10, 20), ("b", GERMAN, 15, 20))
    moved = {
        Moved("a", "b", GERMAN): (8, 8000),
        Moved("b", None, GERMAN): (4, 4000),
        Moved("a", "c", GERMAN): (2, 700),
    }
    told = forecast(outcomes, moved)
    assert (told.judged, told.unknown) == (12, 2)
    assert (told.before, told.after) == (8 * Fraction(1, 2) + 4 * Fraction(3, 4), 8 * Fraction(3, 4))
    assert told.more == {"eur": 8000 * Fraction(1, 4) - 4000 * Fraction(3, 4)}
