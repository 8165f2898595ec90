"""Dialects: the HTTP contracts of other systems, served by the one engine.

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
from tillway.domain.source_api import SourceApi
from tillway.engine.caller import Caller
from tillway.engine.core import Load

Presenter = Callable[[Load, Record | None, Refused | None, Caller], Awaitable[tuple[int, Any]]]
"""(load, record, refusal, caller) → HTTP status and a value to be encoded as JSON. A refusal it has no words of its own
for, it hands to the dialect's `render_refusal`."""


class Dialect(msgspec.Struct, frozen=True):
    """The contract of one source system.

    `source_api` marks every object made through it. `render_refusal` returns the HTTP status and the body of a refusal,
    given the request id. `key_field` is the member of the body that may hold the secret key instead of the header.
    `merchant_field` is the member that names the merchant, by id or handle: it must be the merchant of the key.
    `customer_field` is the member that names a customer: it must be the customer of a token that is for one customer.
    Access tokens for `audience` are accepted beside those for `/v1`.
    """

    source_api: SourceApi
    title: str
    render_refusal: Callable[[Refused, str], tuple[int, Any]]
    key_field: str | None = None
    merchant_field: str | None = None
    customer_field: str | None = None
    audience: Audience = "api"

    @property
    def name(self) -> str:
        return self.source_api.name


def message_with_field(refusal: Refused, fields: Mapping[str, str]) -> str:
    """The message of a refusal for a dialect whose errors have no member for the field: it is put in front where the
    sentence does not name it. `fields` says what the dialect calls a parameter that goes by another name in `/v1`.
    """
    field = fields.get(refusal.param or "", refusal.param)
    return refusal.message if field is None or field in refusal.message else f"{field}: {refusal.message}"


def is_named(account: Account, name: Any) -> bool:
    """Whether `name` is what `account` goes by: its id, or the handle it chose."""
    return isinstance(name, str) and bool(name) and name in (account.id, account.handle)
