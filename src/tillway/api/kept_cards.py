"""`/ops/v1/kept_cards`: the cards that customers have kept, found by what people see of a card."""

from typing import Any, Final

from tillway.domain.customer import Customer
from tillway.domain.payment_method import PaymentMethod
from tillway.http.lists import SCAN_PAGE
from tillway.http.params import LIMIT_DEFAULT, LIMIT_MAX, Limit, Params, Text
from tillway.http.routes import Answer, Call, route
from tillway.store.codec import decode

LOOKED_AT_MAX: Final = 20_000
"""How many of the newest payment methods are looked at: no index holds what is on a card."""

FIND = Params(fingerprint=Text(maximum=40), last4=Text(maximum=4), limit=Limit(LIMIT_MAX))


@route("GET", "/ops/v1/kept_cards", FIND, returns="list")
async def list_kept_cards(call: Call) -> Answer:
    """List kept cards with their customers, newest first, by `last4` or `fingerprint`.

    The newest 20,000 payment methods are looked at; `has_more` says that there are more cards, or more to look at.
    """
    scope, store, limit = call.caller.scope_key, call.platform.store, call.params.get("limit", LIMIT_DEFAULT)
    found: list[PaymentMethod] = []
    looked_at, after = 0, None
    async with call.platform.scans.begin(scope) as scan:
        while True:
            rows = await store.query(None, f"{scope}/pm_", after=after, limit=SCAN_PAGE, order="newest")
            async with scan.turn(len(rows)):
                methods = [decode(row.key.partition("/")[2], row.body) for row in rows]
                found += [one for one in methods if isinstance(one, PaymentMethod) and _fits(one, call.params)]
            looked_at += len(rows)
            if len(rows) < SCAN_PAGE or len(found) > limit or looked_at >= LOOKED_AT_MAX:
                break
            after = rows[-1].key
            await scan.go_on()
    has_more = len(found) > limit or looked_at >= LOOKED_AT_MAX
    shown = [await _document(call, one) for one in found[:limit]]
    return {"object": "list", "data": shown, "has_more": has_more, "url": "/ops/v1/kept_cards"}


def _fits(method: PaymentMethod, asked: dict[str, Any]) -> bool:
    card = method.card
    return (
        card is not None
        and method.customer is not None
        and not method.detached
        and asked.get("last4") in (None, card.last4)
        and asked.get("fingerprint") in (None, card.fingerprint)
    )


async def _document(call: Call, method: PaymentMethod) -> dict[str, Any]:
    assert method.card is not None
    customer = await call.platform.engine.load(call.caller.scope_key).maybe(Customer, method.customer)
    return {
        "id": method.id,
        "object": "kept_card",
        "created": method.created,
        "customer": {
            "id": method.customer,
            "object": "customer",
            "name": customer.name if customer is not None else None,
            "email": customer.email if customer is not None else None,
        },
        "card": {
            "brand": method.card.brand,
            "last4": method.card.last4,
            "exp_month": method.card.exp_month,
            "exp_year": method.card.exp_year,
            "fingerprint": method.card.fingerprint,
        },
    }
