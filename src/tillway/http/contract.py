"""Dialects: other systems' HTTP contracts as doors to the one engine.

A dialect declares its calls like every other (`@route(…, dialect=GATEWAY)`), and says here in what it differs from
`/v1`: where a key may stand, how a merchant is named, and how a refusal looks. What a call answers is put into the
dialect's words by a presenter, which the engine calls before it commits: so an Idempotency-Key stores the answer of the
dialect that it was sent to, whoever finishes the request.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from tillway.domain.account import Account
from tillway.domain.credentials import Audience
from tillway.domain.record import Record
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Load

DOORS = ("v1", "gateway", "charge", "platform", "disbursement", "orders")
"""The contracts that something can have been made by: `/v1`'s own, and the names of the dialects."""

Presenter = Callable[[Load, Record | None, Refused | None, Caller], Awaitable[tuple[int, Any]]]
"""(load, record, refusal, caller) → HTTP status and a value to be encoded as JSON. A refusal it has no words of its own
for, it hands to the dialect's `refused`."""


class Dialect(msgspec.Struct, frozen=True):
    """`name` is the `door` of everything made here. `refused` makes HTTP status and body of a refusal, given the
    request id. `key_field` is the member of the body in which a secret key may stand instead of in the header,
    `merchant_field` the one that names the merchant, by id or handle: it must be the merchant of the key.
    `customer_field` is the one that names a customer, who must be the one of a token that is for one customer.
    `audience` is that of the access tokens which are taken at this door beside those of `/v1`.
    """

    name: str
    title: str
    refused: Callable[[Refused, str], tuple[int, Any]]
    key_field: str | None = None
    merchant_field: str | None = None
    customer_field: str | None = None
    audience: Audience = "api"


def told(refusal: Refused, fields: Mapping[str, str]) -> str:
    """The message of a refusal for a dialect whose errors have no member for the field: it is put in front where the
    sentence does not name it. `fields` says what the dialect calls a parameter that goes by another name in `/v1`.
    """
    field = fields.get(refusal.param or "", refusal.param)
    return refusal.message if field is None or field in refusal.message else f"{field}: {refusal.message}"


def is_named(account: Account, name: Any) -> bool:
    """Whether `name` is what `account` goes by: its id, or the handle it chose."""
    return isinstance(name, str) and bool(name) and name in (account.id, account.handle)
