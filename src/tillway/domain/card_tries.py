"""Tries of a card after a decline: the card networks bound them, and forbid some.

The bounds are those within which neither network charges for excessive retries: at most 15 declines in 30 days (Visa
allowed as many until May 2025, and allows 20 since), and for Mastercard 10 in 24 hours and 35 in 30 days. After some
reasons the networks want no further try at all: Visa's category 1 ("issuer will never approve") and Mastercard's advice
codes 03 and 21. Both count by card number, so in live mode all payment methods of one number share a history. The
numbers of test cards belong to everybody: there each payment method has its own.

Sources: https://docs.adyen.com/development-resources/raw-acquirer-responses/visa-integrity-fees,
https://support.checkout.com/hc/en-us/articles/25482040901394, https://developers.tabapay.com/docs/excessive-retry-rules.
"""

from typing import Final

from msgspec.structs import replace

from tillway.domain.outcome import Declined
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.record import Record

DAY_SECONDS: Final = 24 * 60 * 60

_BOUNDS: Final = {"mastercard": ((10, DAY_SECONDS), (35, 30 * DAY_SECONDS))}
_ALL_OTHERS: Final = ((15, 30 * DAY_SECONDS),)
"""Most declines within so many seconds, by brand."""

DECLINES_KEPT: Final = 35
"""How many times of declines a payment method keeps: the largest bound."""

FORBIDDEN: Final = frozenset(
    (
        "incorrect_number",
        "invalid_account",
        "invalid_number",
        "lost_card",
        "pickup_card",
        "stolen_card",
        "transaction_not_allowed",
    )
)
"""Reasons after which the card is never tried again: no such card, a closed account, a lost or stolen card."""

REVOKED: Final = frozenset(("revocation_of_all_authorizations", "revocation_of_authorization", "stop_payment_order"))
"""Reasons after which the merchant does not try the card again without its holder, who may still pay with it."""


class CardTries(Record, frozen=True, kw_only=True):
    """The declines of one card number since its last success, in live mode: its id ends with the number's fingerprint.
    `barred` is as of a payment method, for the card with that `expiry` (year, month)."""

    declined_at: tuple[int, ...] = ()
    barred: str | None = None
    expiry: tuple[int, int] | None = None


def tries_id(method: PaymentMethod | None, *, livemode: bool) -> str | None:
    """The id of the shared history of the method's card number; None if it has none."""
    if not livemode or method is None or method.card is None or not method.card.fingerprint:
        return None
    return f"tries_{method.card.fingerprint}"


def with_history(method: PaymentMethod, tries: CardTries | None) -> PaymentMethod:
    """The method with the declines of its card number, also those under other payment methods."""
    if tries is None or method.card is None:
        return method
    same_card = tries.expiry == (method.card.exp_year, method.card.exp_month)
    return replace(
        method,
        declined_at=max(tries.declined_at, method.declined_at, key=len),
        barred=(tries.barred if same_card else None) or method.barred,
    )


def shared_history(method: PaymentMethod, tries: CardTries | None, *, id: str, created: int) -> CardTries:
    """The history to keep after a decline of the method, which `with_history` had completed before."""
    assert method.card is not None, "only cards have a history"
    kept = tries or CardTries(id=id, created=created)
    after = replace(kept, declined_at=method.declined_at)
    if method.barred is not None:
        after = replace(after, barred=method.barred, expiry=(method.card.exp_year, method.card.exp_month))
    return after


def note_decline(method: PaymentMethod, outcome: Declined, now: int) -> PaymentMethod:
    """The card after a provider has declined it at `now` (epoch seconds). A fault of ours is no decline of the card."""
    if method.card is None or outcome.alert is not None:
        return method
    reason = outcome.decline_code or outcome.code
    return replace(
        method,
        declined_at=(*method.declined_at, now)[-DECLINES_KEPT:],
        barred=reason if reason in FORBIDDEN or reason in REVOKED else method.barred,
    )


def objection(method: PaymentMethod, now: int, *, off_session: bool) -> Declined | None:
    """The decline of another try of this card, without asking a provider; None if it may be tried."""
    if method.card is None:
        return None
    barred = method.barred
    if barred in FORBIDDEN or (off_session and barred in REVOKED):
        return Declined(
            code="card_declined",
            decline_code=barred,
            message="Your card was declined before, for a reason after which card networks allow no further try. Use "
            "another card.",
        )
    for most, seconds in _BOUNDS.get(method.card.brand, _ALL_OTHERS):
        if sum(declined > now - seconds for declined in method.declined_at) >= most:
            return Declined(code="card_decline_rate_limit_exceeded", decline_code=None)
    return None
