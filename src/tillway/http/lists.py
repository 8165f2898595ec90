"""Lists and searches: pages of records in the order of ids, which is the order of time, newest first."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tillway.domain.record import Record
from tillway.domain.refusal import Refused
from tillway.domain.source_api import SourceApi
from tillway.engine.ids import time_prefix
from tillway.http.params import LIMIT_DEFAULT, Span
from tillway.http.routes import Call, Page
from tillway.http.shapes import View, render_record
from tillway.store.codec import RECORD_TYPES, TYPES, by_source_api, by_term, decode
from tillway.store.port import Row

if TYPE_CHECKING:
    from tillway.http.search import Resource

SCAN_PAGE = 100
"""The records that a filtered list or search reads and compares at a time: some milliseconds of the loop."""

Keep = Callable[[Any], bool]


def keep_equal(wanted: Mapping[str, Any]) -> Keep | None:
    """The filter for records whose fields have these values; None, which accepts all, if none is wanted."""
    if not wanted:
        return None
    return lambda record: all(getattr(record, name) == value for name, value in wanted.items())


async def list_page(
    call: Call,
    prefix: str,
    *,
    index: str | None = None,
    partition: str | None = None,
    keep: Keep | None = None,
    noun: str | None = None,
    also: Sequence[Record] = (),
    url: str | None = None,
) -> Page:
    """Return one page of the records that `keep` accepts.

    They are those with ids `<prefix>_…`, or those in `partition` of `index` and `also`, which need not be in it. If the
    call names a `source_api`, the page has only records that were made through it. `url` is the address of a list
    within an object. Refused `resource_missing` if the cursor is no record of the same list.
    """
    params, scope = call.params, call.caller.scope_key
    within = (index, partition) if index in ("parent", "customer") else None
    if "source_api" in params:
        index, partition, keep = _by_source_api(scope, prefix, SourceApi[params["source_api"]], index, partition, keep)
    asked = await asked_page(call, prefix, noun or "object", within, also)
    records = await collect_asked(call, prefix, asked, index=index, partition=partition, keep=keep)
    added = [record for record in also if asked.has(record) and (keep is None or keep(record))]
    if added:
        found = {record.id: record for record in (*records, *added)}
        records = [found[id] for id in sorted(found, reverse=asked.order == "newest")]
    return asked.page(records, url or LIST_URLS.get(prefix, "/v1"))


class AskedPage(msgspec.Struct, frozen=True):
    """The page of a list that a call asks for: at most `limit` records in `order` after the one with the id `cursor`,
    created within `span`."""

    limit: int
    cursor: str | None
    order: Literal["newest", "oldest"]
    span: Span | None

    def has(self, record: Record) -> bool:
        """Whether a record lies behind the cursor and within the span."""
        if self.span is not None and record.created not in self.span:
            return False
        if self.cursor is None:
            return True
        return record.id < self.cursor if self.order == "newest" else record.id > self.cursor

    def page(self, records: list[Any], url: str) -> Page:
        """The page of `records`, which are in `order`, and one more than `limit` if there are more."""
        shown = records[: self.limit]
        if self.order == "oldest":
            shown.reverse()
        return Page(shown, len(records) > self.limit, url)


Within = tuple[str | None, str | None]
"""The index and the partition of a list within an object."""


async def asked_page(
    call: Call, prefix: str, noun: str, within: Within | None = None, also: Sequence[Record] = ()
) -> AskedPage:
    """Read the parameters that every list has. Refuses a cursor that is no record of the list."""
    params, scope = call.params, call.caller.scope_key
    forwards = params.get("ending_before")
    cursor = params.get("starting_after") or forwards
    if cursor is not None and all(cursor != record.id for record in also):
        found = await call.platform.engine.load(scope).find(cursor)
        if not _is_listed(found, prefix, scope, within):
            name = "ending_before" if forwards else "starting_after"
            raise Refused("resource_missing", f"No such {noun}: '{cursor[:100]}'", param=name)
    return AskedPage(
        params.get("limit", LIMIT_DEFAULT), cursor, "oldest" if forwards else "newest", params.get("created")
    )


def _is_listed(record: Record | None, prefix: str, scope: str, within: Within | None) -> bool:
    """Whether a cursor is a record of the list: of its type, and of the parent or customer that it lists."""
    kind = TYPES.get(prefix)
    if record is None or kind is None or not isinstance(record, kind):
        return False
    entries = RECORD_TYPES[kind].entries
    return within is None or (entries is not None and within in entries(scope, record))


def _by_source_api(
    scope: str, prefix: str, source_api: SourceApi, index: str | None, partition: str | None, keep: Keep | None
) -> tuple[str | None, str | None, Keep | None]:
    """Choose index, partition and filter for a `source_api`.

    Its own index is used unless another one is. Records made through `/v1` have no entry in it, so a filter finds them,
    as it does within another index.
    """
    if index is None and source_api is not SourceApi.v1:
        return "term", by_source_api(scope, prefix, source_api), keep
    return index, partition, lambda record: record.source_api is source_api and (keep is None or keep(record))


async def collect_asked(
    call: Call,
    prefix: str,
    asked: AskedPage,
    *,
    index: str | None = None,
    partition: str | None = None,
    keep: Keep | None = None,
) -> list[Any]:
    """Return the records of the asked page, and the one after it where there is one. Refused as `collect`."""
    return await collect(
        call,
        prefix,
        index=index,
        partition=partition,
        span=asked.span,
        cursor=f"{call.caller.scope_key}/{asked.cursor}" if asked.cursor else None,
        order=asked.order,
        limit=asked.limit + 1,
        keep=keep,
    )


async def collect(
    call: Call,
    prefix: str,
    *,
    index: str | None,
    partition: str | None,
    span: Span | None,
    cursor: str | None,
    order: Literal["newest", "oldest"],
    limit: int,
    keep: Keep | None,
) -> list[Record]:
    """Return up to `limit` records in `order`, after the key `cursor`, created within `span`.

    Refused `search_too_broad` if `keep` accepts too few of those that may be read for them.
    """
    scope = call.caller.scope_key
    query, after = page_query(call, prefix, index=index, partition=partition, span=span, cursor=cursor, order=order)
    if keep is None:
        return [_record(row) for row in await query(after=after, limit=limit)]
    found: list[Record] = []
    async with call.platform.scans.begin(scope) as scan:
        while True:
            rows = await query(after=after, limit=SCAN_PAGE)
            async with scan.turn(len(rows)):
                for record in map(_record, rows):
                    if keep(record):
                        found.append(record)
                        if len(found) == limit:
                            return found
            if len(rows) < SCAN_PAGE:
                return found
            after = rows[-1].key
            await scan.go_on()


def page_query(
    call: Call,
    prefix: str,
    *,
    index: str | None,
    partition: str | None,
    span: Span | None,
    cursor: str | None,
    order: Literal["newest", "oldest"],
) -> tuple[Callable[..., Awaitable[list[Row]]], str | None]:
    """The query of the same rows, still without `after` and `limit`, and the first `after`."""
    scope = call.caller.scope_key
    newest, oldest = None, None
    if span is not None:
        newest = f"{scope}/{prefix}_{time_prefix(span.last + 1)}"
        oldest = f"{scope}/{prefix}_{time_prefix(span.first)}"
    if order == "newest":
        after, until = _closer_bound(cursor, newest, min), oldest
    else:
        after, until = _closer_bound(cursor, oldest, max), newest
    return partial(call.platform.store.query, index, partition or f"{scope}/{prefix}_", until=until, order=order), after


def _closer_bound(cursor: str | None, bound: str | None, choose: Callable[[str, str], str]) -> str | None:
    if cursor is None or bound is None:
        return cursor or bound
    return choose(cursor, bound)


def _record(row: Row) -> Record:
    return decode(row.key.partition("/")[2], row.body)


LIST_URLS = {
    "aud": "/ops/v1/audit",
    "pi": "/v1/payment_intents",
    "ch": "/v1/charges",
    "po": "/v1/payouts",
    "re": "/v1/refunds",
    "cus": "/v1/customers",
    "pm": "/v1/payment_methods",
    "seti": "/v1/setup_intents",
    "setatt": "/v1/setup_attempts",
    "du": "/v1/disputes",
    "file": "/v1/files",
    "issfr": "/v1/radar/early_fraud_warnings",
    "ord": "/ops/v1/orders",
    "prod": "/ops/v1/products",
    "txn": "/v1/balance_transactions",
    "cs": "/v1/checkout/sessions",
    "plink": "/v1/payment_links",
    "prd": "/v1/products",
    "price": "/v1/prices",
    "evt": "/v1/events",
    "we": "/v1/webhook_endpoints",
    "link": "/v1/file_links",
    "clock": "/v1/test_helpers/test_clocks",
    "cls": "/ops/v1/closes",
    "oi": "/ops/v1/open_items",
    "stl": "/ops/v1/settlements",
    "view": "/ops/v1/views",
}
"""The address of the list of each prefix, by which SDKs get the next page."""


def view_of(call: Call) -> View:
    """Return the context in which the call's records are rendered, without a time."""
    engine = call.platform.engine
    return View(
        call.caller.scope.livemode,
        engine.settings.public_url,
        engine.client_secrets,
        call.caller.api_version,
        converts_amounts=not call.caller.in_minor_units,
        scope_key=call.caller.scope_key,
    )


async def search_page(call: Call, prefix: str, resource: "Resource") -> Page:
    """Return one page of the records that match `query`, newest first.

    An equality on metadata or e-mail uses an index; every other query reads all records of the prefix.
    """
    from tillway.http.search import matches, parse, required_terms

    query = parse(call.params["query"], resource)
    scope = call.caller.scope_key
    limit = call.params.get("limit", LIMIT_DEFAULT)
    index, partition = None, None
    for field, value in required_terms(query):
        if field.startswith("metadata[") or (field == "email" and prefix == "cus"):
            index = "term"
            partition = by_term(scope, prefix, field, value.lower())
            break
    cursor = call.params.get("page")
    if cursor is not None:
        found = await call.platform.engine.load(scope).find(cursor)
        if not _is_listed(found, prefix, scope, None):
            raise Refused(
                "page_invalid", f"No such page: '{cursor[:100]}'. Send `next_page` of the page before.", param="page"
            )
    view = view_of(call)
    records = await collect(
        call,
        prefix,
        index=index,
        partition=partition,
        span=None,
        cursor=f"{scope}/{cursor}" if cursor else None,
        order="newest",
        limit=limit + 1,
        keep=lambda record: not getattr(record, "deleted", False) and matches(query, render_record(record, view)),
    )
    page = records[:limit]
    has_more = len(records) > limit
    url = f"{LIST_URLS[prefix]}/search"
    return Page(page, has_more, url, object="search_result", next_page=page[-1].id if has_more else None)
