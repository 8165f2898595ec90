"""Dialects: the HTTP contracts of other systems, served by the one engine.

A dialect declares its calls like all others (`@route(…, dialect=GATEWAY)`). Its `Dialect` says how it differs from
`/v1`: where a key may stand, how a merchant is named, and how a refusal looks. A presenter puts each result into the
dialect's words. The engine calls it before the commit, so that an Idempotency-Key stores the dialect's own answer, even
if another process finishes the request.
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
"""(load, record, refusal, caller) → HTTP status and a value to be encoded as JSON. It passes a refusal without special
words to the dialect's `render_refusal`."""


class Dialect(msgspec.Struct, frozen=True):
    """The contract of one source system.

    `source_api` marks every object made through it. `render_refusal` returns the HTTP status and the body of a refusal,
    given the request id. `key_field` is the member of the body that may hold the secret key instead of the header.
    `merchant_field` is the member that names the merchant, by id or handle: it must be the merchant of the key.
    `customer_field` is the member that names a customer: it must be the customer of a token that is for one customer.
    Access tokens for `audience` are accepted beside those for `/v1`. `types_first`: a value of the wrong type is
    refused before the caller is authenticated, as in the original. `made_ids` are the members that hold ids which
    Tillway has made, and which have no prefix by which they are known.
    """

    source_api: SourceApi
    title: str
    render_refusal: Callable[[Refused, str], tuple[int, Any]]
    key_field: str | None = None
    merchant_field: str | None = None
    customer_field: str | None = None
    audience: Audience = "api"
    types_first: bool = False
    made_ids: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.source_api.name


def message_with_field(refusal: Refused, fields: Mapping[str, str]) -> str:
    """Return the message of a refusal for a dialect whose errors have no member for the field.

    The field stands before the message unless the message names it. `fields` maps names of `/v1` to the dialect's own.
    """
    field = fields.get(refusal.param or "", refusal.param)
    return refusal.message if field is None or field in refusal.message else f"{field}: {refusal.message}"


def is_named(account: Account, name: Any) -> bool:
    """Whether `name` is the id of `account` or its handle."""
    return isinstance(name, str) and bool(name) and name in (account.id, account.handle)
