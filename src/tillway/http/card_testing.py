"""Bounds on the cards that are tried with publishable keys.

A publishable key is public, so a thief of card numbers can try them at a shop: make tokens of them, or confirm the
shop's own payments and setups, and see which are declined. A try is a card number that is sent, or a confirmation that
fails; one that succeeds with a card kept before is none.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from tillway.domain.cards import Secret
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.refusal import RULES, Refused
from tillway.domain.setup_intent import SetupIntent
from tillway.engine.caller import Caller
from tillway.engine.core import Done
from tillway.engine.platform import Platform
from tillway.engine.webhooks.public_hosts import is_public
from tillway.http.client_address import counted_address
from tillway.http.routes import Answer, Call
from tillway.http.throttle import MakeBuckets, Rate, Throttled, own_buckets

SECONDS_PER_HOUR = 3600


class CardLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Most tries or failures in an hour; 0: no limit. An address that is not public may be a proxy's: it has none."""

    tries_per_address: int = 0
    failures_per_key: int = 0
    failures_per_card: int = 0


class CardTries:
    """Counts tries by address, publishable key and card. The processes of one server count together."""

    def __init__(
        self, limits: CardLimits, now: Callable[[], float] = time.monotonic, buckets: MakeBuckets = own_buckets
    ) -> None:
        self._now = now
        self._address = _Limit("card_address", limits.tries_per_address, buckets)
        self._key = _Limit("card_key", limits.failures_per_key, buckets)
        self._card = _Limit("card", limits.failures_per_card, buckets)

    async def watch(self, call: Call, handle: Callable[[], Any]) -> Answer:
        """Handle a call that a publishable key may make, and count it if it is a try. Raises `Throttled` before it is
        handled if there were too many."""
        caller, now = call.caller, self._now()
        address = caller.client_ip if caller.client_ip and is_public(caller.client_ip) else None
        card = await _card_of(call.platform, caller, call) if self._card.rate.per_second else None
        sent = _card_number(call.params) is not None
        limits = (
            (self._address, counted_address(address) if address else None),
            (self._key, caller.actor),
            (self._card, f"{caller.scope_key}/{card}" if card else None),
        )
        # Counted first and given back later: many requests at the same moment must not pass.
        counted: list[tuple[_Limit, str]] = []
        failed = True
        try:
            for limit, name in limits:
                if name is not None and limit.rate.per_second:
                    limit.count(name, now)
                    counted.append((limit, name))
        except Throttled:
            _give_back(counted)
            raise
        try:
            answer: Answer = await handle()
            failed = isinstance(answer, Done) and answer.refusal is not None and _is_about_card(answer.refusal)
            return answer
        except Refused as refused:
            failed = _is_about_card(refused)
            raise
        finally:
            if not failed:
                _give_back(one for one in counted if not (sent and one[0] is self._address))


class _Limit:
    def __init__(self, name: str, per_hour: int, buckets: MakeBuckets) -> None:
        self.rate = Rate(per_hour / SECONDS_PER_HOUR, per_hour)
        self._name = name
        self._buckets = buckets(name)

    def count(self, name: str, now: float) -> None:
        """Raises `Throttled` if the bucket is empty."""
        if wait := self._buckets.take(name, self.rate, now):
            raise Throttled(self._name, wait, "Too many cards were tried. Wait before you send another one.")

    def give_back(self, name: str) -> None:
        self._buckets.give_back(name, self.rate)


def _give_back(counted: Iterable[tuple[_Limit, str]]) -> None:
    for limit, name in counted:
        limit.give_back(name)


def _is_about_card(refused: Refused) -> bool:
    return RULES[refused.code].type == "card_error"


def _card_number(params: dict[str, Any]) -> str | None:
    """The digits of a card in the parameters; None if there is none."""
    for place in (params, params.get("payment_method_data") or {}):
        card = place.get("card")
        if isinstance(card, dict) and card.get("number"):
            return "".join(filter(str.isdigit, str(card["number"])))
    return None


async def _card_of(platform: Platform, caller: Caller, call: Call) -> str | None:
    """The fingerprint of the card that is sent or meant, or the id of a test card; None if there is none."""
    number = _card_number(call.params)
    if number is not None:
        return platform.cards.vault.fingerprint(caller.scope_key, Secret(number))
    load = platform.engine.load(caller.scope_key)
    id = call.params.get("payment_method")
    if id is None and call.ids:
        subject = await load.find(call.id)
        id = subject.method if isinstance(subject, PaymentIntent | SetupIntent) else None
    method = await load.maybe(PaymentMethod, id)
    return method.card.fingerprint if method is not None and method.card is not None else id
