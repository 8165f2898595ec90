"""The DynamoDB store: one table, and nothing to run.

A record is an item whose partition is its scope and type, spread over SHARDS by its key: a busy merchant's writes go to
many partitions, and a listing reads them all and merges. A listing of settings is kept in memory: an item of its own,
which every commit of such records changes, tells whether it is still the same. Index entries are items of their own in
the same table, read as consistently as records; they are written before the commit that needs them and only ever point
the way: a reader that follows one checks the record itself. So a leftover entry misleads no reader. The first entry of
a reference lies at a place of its own, so that one conditional write asks whether there is one, and puts it.

Tasks stand in a sparse global index by their due time, which may lag: a task found there is read again and claimed
under its version.
"""

import asyncio
import json
import logging
import os
import random
import secrets
import time
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Coroutine, Iterable, Sequence
from operator import attrgetter
from typing import Any, Literal, Self, TypeVar
from urllib.parse import parse_qsl, urlsplit

import msgspec

from tillway.aws_client import DYNAMODB, AwsClient, AwsError, Lost, NoCredentials, credentials_of_the_environment
from tillway.domain.account import SYSTEM
from tillway.store.codec import is_reference
from tillway.store.port import (
    ABSENT,
    INDEXES,
    KEYS_MAX,
    PAGE_MAX,
    SCOPES_MAX,
    TERMS_MAX,
    WRITES_MAX,
    CommitUnknown,
    Conflict,
    Finding,
    NotFirst,
    Row,
    StoreUnfit,
    Unavailable,
    Waiting,
    Write,
    index_of_first,
    prefix_end,
)
from tillway.store.read_ahead import Place, ReadAhead

log = logging.getLogger(__name__)

T = TypeVar("T")
Item = dict[str, dict[str, Any]]

SHARDS = 4
"""Partitions that the records of one type of one scope are spread over. Fixed when the table is made."""

QUEUE_SHARDS = 4
SCHEMA_VERSION = 2
"""The schema of a new table. One of schema 1 stays what it is: its references have no place of their own."""

SCHEMAS = (1, SCHEMA_VERSION)
BATCH_PUTS_MAX = 25

TRIES_MAX = 8
BACKOFF_SECONDS = (0.02, 2.0)
"""Waits after throttling or a transaction that met another: random up to the first, doubling up to the second."""

COMPRESSED_FROM = 700
"""Bodies this long, in bytes, are compressed: a write costs by the kilobyte."""

PART_BYTES = 300_000
"""A body longer than this lies in parts beside its item, which may have 400 KB in all."""

KEPT_TYPES = ("con_", "rtg_", "we_")
"""Types whose listings are kept in memory: settings that payments list, and that seldom change."""

KEPT_SECONDS = 60
"""A kept listing is read anew after this time: a process of a version before this one leaves its mark as it is."""

KEPT_MAX = 1000
"""Most listings in memory, and most records in one of them."""

REST_SECONDS = 10.0
"""How long the runner waits, at rest, between two looks at a queue: each is a request for each of QUEUE_SHARDS."""

REMEMBERED_MAX = 50_000
_META = {"pk": {"S": "META"}, "sk": {"S": "schema"}}
_OWN = f"R#{SYSTEM}/"
_DUE = "due"
_FIRST = "="
"""The sort key of the first entry of a reference. Its member `k` is the key of the record."""

_AGAIN = frozenset(
    {
        "InternalServerError",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ThrottlingException",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
"""Refusals that the same request may not meet the next time. None of them has written anything."""

_AGAIN_REASONS = frozenset(
    {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "RequestLimitExceeded"}
)


class _Known(msgspec.Struct, frozen=True):
    """A record as this process last saw it: version, index entries, expiry, and the place of its parts."""

    version: int
    index: tuple[tuple[str, str], ...]
    expires_at: int | None
    parts: str | None


class _Kept(msgspec.Struct, frozen=True):
    """A whole listing, oldest first, as it was under the mark `mark`; read at `read_at` (epoch seconds)."""

    mark: str
    read_at: float
    rows: list[Row]


class _Found(msgspec.Struct, frozen=True):
    row: Row
    index: tuple[tuple[str, str], ...]
    queue: str | None
    due_at_ms: int
    expires_at: int | None


class DynamoStore:
    """The `Store` port on one DynamoDB table. Open it with `DynamoStore.open`; it belongs to that event loop.

    `commits` counts up from 0; the client counts requests and write units. With `scans_for_expired`, `purge_expired`
    looks through the whole table; else it leaves that to DynamoDB's own time to live.
    """

    rest_seconds = REST_SECONDS

    def __init__(
        self,
        client: AwsClient,
        table: str,
        shards: int,
        *,
        schema: int = SCHEMA_VERSION,
        scans_for_expired: bool = False,
    ) -> None:
        self.client = client
        self.table = table
        self.shards = shards
        self.commits = 0
        self.on_batch: Callable[[int, float], None] | None = None
        """Called after each commit, with 1 and its seconds. It must not raise."""
        self.on_writes: Callable[[Sequence[Write]], None] | None = None
        """Called after each commit with its writes. It must not raise."""
        self.kept_seconds = KEPT_SECONDS
        self.ahead: ReadAhead | None = None
        """Reads settings together that are read one by one after a pause, where a process has pauses."""
        self._has_first_entries = schema > 1
        self._scans_for_expired = scans_for_expired
        self._entered: dict[tuple[str, str], str] = {}
        """The keys of records whose first entry was put, and whose commit has not come yet."""
        self._known: dict[str, _Known] = {}
        self._kept: dict[str, _Kept] = {}
        self._under_way: set[asyncio.Future[Any]] = set()
        self._closed = False

    @staticmethod
    async def migrate(url: str) -> int:
        """See the function of that name."""
        return await migrate(url)

    @staticmethod
    async def inspect(url: str) -> list[Finding]:
        """See the function of that name."""
        return await inspect(url)

    @classmethod
    async def open(cls, url: str, *, create: bool = False) -> Self:
        """The store in the table of `url`: `dynamodb://table?region=…`, with `&endpoint=http://…` for an emulator.

        With `create`, a missing table is made. Raises `StoreUnfit`, saying the remedy.
        """
        client, table, _ = _parse_url(url)
        try:
            if create:
                await _migrate(client, table, url)
            answer = await client.call("GetItem", {"TableName": table, "Key": _META, "ConsistentRead": True})
        except (AwsError, Lost) as error:
            await client.close()
            raise StoreUnfit(_unusable(table, error)) from error
        except BaseException:
            await client.close()
            raise
        meta = answer.get("Item")
        found = int(meta["version"]["N"]) if meta else 0
        if meta is None or found not in SCHEMAS:
            await client.close()
            if found > SCHEMA_VERSION:
                raise StoreUnfit(f"The table {table} has schema {found}, newer than this Tillway's. Upgrade Tillway.")
            raise StoreUnfit(f"The table {table} has schema {found} of {SCHEMA_VERSION}. Run `tillway migrate`.")
        return cls(client, table, int(meta["shards"]["N"]), schema=found)

    # Reading.

    async def get(self, key: str) -> Row | None:
        found = await self._read(key)
        return found.row if found is not None else None

    async def get_many(self, keys: Sequence[str]) -> dict[str, Row]:
        assert len(keys) <= KEYS_MAX
        return {key: found.row for key, found in (await self._read_many(keys)).items()}

    async def query(
        self,
        index: str | None,
        partition: str,
        *,
        after: str | None = None,
        until: str | None = None,
        limit: int = 100,
        order: Literal["newest", "oldest"] = "newest",
    ) -> list[Row]:
        assert 1 <= limit <= PAGE_MAX
        assert index is None or index in INDEXES
        above, below = (until, after) if order == "newest" else (after, until)
        span = _Span(partition if index is None else "", above, below)
        if index is not None:
            return await self._index_page(index, partition, span, limit, order)
        place = _place(partition, whole=False)
        if place is None:
            return await self._scan_page(span, limit, order)
        if partition == place and after is None and until is None and _is_kept(place):
            rows = await self._kept_rows(place)
            return (rows if order == "oldest" else rows[::-1])[:limit]
        return await self._merged_page(place, span, limit, order)

    async def _merged_page(self, place: str, span: "_Span", limit: int, order: str) -> list[Row]:
        shards = [self._shard_page(f"R#{place}#{n}", span, limit, order) for n in range(self.shards)]
        found = [row for page in await asyncio.gather(*shards) for row in page]
        found.sort(key=_row_key, reverse=order == "newest")
        return found[:limit]

    async def _kept_rows(self, place: str) -> list[Row]:
        """Up to PAGE_MAX records of one scope and type, oldest first: from memory, if the mark is the same."""
        # The mark is read first: a commit between the two reads has changed it, and the next look sees that.
        item = await self._item(_mark_key(place))
        mark, now = item["m"]["S"] if item else "", time.time()
        kept = self._kept.get(place)
        if kept is not None and kept.mark == mark and 0 <= now - kept.read_at < self.kept_seconds:
            return kept.rows
        rows = await self._merged_page(place, _Span(place, None, None), PAGE_MAX, "oldest")
        if len(rows) < KEPT_MAX:
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            self._kept[place] = _Kept(mark, now, rows)
        return rows

    async def _shard_page(self, pk: str, span: "_Span", limit: int, order: str) -> list[Row]:
        items = await self._items(pk, span, limit, order)
        return [(await self._whole(item)).row for item in items]

    async def _index_page(self, index: str, partition: str, span: "_Span", limit: int, order: str) -> list[Row]:
        rows: list[Row] = []
        here = (index, partition)
        while True:
            pointers = await self._items(f"I#{index}#{partition}", span, min(limit + 20, PAGE_MAX), order)
            keys = list(dict.fromkeys(pointer.get("k", pointer["sk"])["S"] for pointer in pointers))
            for start in range(0, len(keys), KEYS_MAX):
                some = keys[start : start + KEYS_MAX]
                found = await self._read_many(some)
                rows += [found[key].row for key in some if key in found and here in found[key].index]
            if len(rows) >= limit or len(pointers) < min(limit + 20, PAGE_MAX):
                return rows[:limit]
            span = span.beyond(pointers[-1]["sk"]["S"], order)

    async def _scan_page(self, span: "_Span", limit: int, order: str) -> list[Row]:
        """List records of more than one type. It reads the whole table: for operators' tools only."""
        found = [item async for item in self._scan() if span.holds(item["sk"]["S"])]
        found.sort(key=lambda item: item["sk"]["S"], reverse=order == "newest")
        return [(await self._whole(item)).row for item in found[:limit]]

    async def _scan(self) -> Any:
        start: Item | None = None
        while True:
            request: dict[str, Any] = {
                "TableName": self.table,
                "ConsistentRead": True,
                "FilterExpression": "begins_with(pk, :r)",
                "ExpressionAttributeValues": {":r": {"S": "R#"}},
            }
            if start is not None:
                request["ExclusiveStartKey"] = start
            answer = await self._ask("Scan", request)
            for item in answer.get("Items", ()):
                yield item
            start = answer.get("LastEvaluatedKey")
            if not start:
                return

    async def _items(self, pk: str, span: "_Span", limit: int, order: str) -> list[Item]:
        """Read at most `limit` items of a partition with sort keys in `span`."""
        if span.low > span.high:
            return []
        items: list[Item] = []
        start: Item | None = None
        while True:
            request: dict[str, Any] = {
                "TableName": self.table,
                "KeyConditionExpression": "pk = :p AND sk BETWEEN :low AND :high",
                "ExpressionAttributeValues": {":p": {"S": pk}, ":low": {"S": span.low}, ":high": {"S": span.high}},
                "ScanIndexForward": order == "oldest",
                "ConsistentRead": True,
                "Limit": limit - len(items) + 2,
            }
            if start is not None:
                request["ExclusiveStartKey"] = start
            answer = await self._ask("Query", request)
            items += [item for item in answer.get("Items", ()) if span.holds(item["sk"]["S"])]
            start = answer.get("LastEvaluatedKey")
            if len(items) >= limit or not start:
                return items[:limit]

    async def _read(self, key: str) -> _Found | None:
        item = await self._item(self._key(key))
        return await self._whole(item) if item else None

    async def _item(self, key: Item) -> Item | None:
        place = _place_of(key)
        if self.ahead is not None and _is_setting(place):
            answer = await self.ahead.take(place)
            if answer is not None:
                return answer[0]
        answered = await self._ask("GetItem", {"TableName": self.table, "Key": key, "ConsistentRead": True})
        item: Item | None = answered.get("Item")
        return item

    def read_settings_ahead(self) -> None:
        """From now on, read settings together that were read one by one before. For a process with pauses: its caller
        calls `ahead.forget` after each."""
        self.ahead = ReadAhead(self._items_at)

    async def _items_at(self, places: Sequence[Place]) -> dict[Place, Item | None]:
        keys = [{"pk": {"S": pk}, "sk": {"S": sk}} for pk, sk in places]
        request = {"RequestItems": {self.table: {"Keys": keys, "ConsistentRead": True}}}
        answer = await self._ask("BatchGetItem", request)
        unread = answer.get("UnprocessedKeys", {}).get(self.table, {}).get("Keys", [])
        found: dict[Place, Item | None] = dict.fromkeys(places)
        for key in unread:
            found.pop(_place_of(key), None)
        return found | {_place_of(item): item for item in answer["Responses"].get(self.table, ())}

    async def _read_many(self, keys: Sequence[str]) -> dict[str, _Found]:
        wanted = [self._key(key) for key in dict.fromkeys(keys)]
        found: dict[str, _Found] = {}
        for turn in range(TRIES_MAX):
            if not wanted:
                return found
            if turn:
                await _pause(turn)
            request = {"RequestItems": {self.table: {"Keys": wanted, "ConsistentRead": True}}}
            answer = await self._ask("BatchGetItem", request)
            for item in answer["Responses"].get(self.table, ()):
                whole = await self._whole(item)
                found[whole.row.key] = whole
            wanted = answer.get("UnprocessedKeys", {}).get(self.table, {}).get("Keys", [])
        raise Unavailable("DynamoDB is throttling reads")

    async def _whole(self, item: Item) -> _Found:
        """The record in `item`, with its parts where it has any."""
        key, version = item["sk"]["S"], int(item["v"]["N"])
        index = _decode_index(item["x"]["S"]) if "x" in item else ()
        expires_at = int(item["e"]["N"]) if "e" in item else None
        parts = item["o"]["S"] if "o" in item else None
        if parts is not None:
            body = await self._parts(parts)
            if body is None:  # They went with their version: there is a newer one, or none.
                again = await self._read(key)
                if again is None:
                    raise Unavailable(f"{key} was deleted while it was read")
                return again
        else:
            body = b64decode(item["b"]["B"]) if "b" in item else b""
        if "z" in item:
            body = zlib.decompress(body)
        self._remember(key, _Known(version, index, expires_at, parts))
        queue = item["q"]["S"].rpartition("#")[0] if "q" in item else None
        due_at_ms = int(item["d"]["N"]) if "d" in item else 0
        return _Found(Row(key, version, body), index, queue, due_at_ms, expires_at)

    async def _parts(self, place: str) -> bytes | None:
        count = int(place.rpartition(":")[2])
        items = await self._items(place, _Span("", None, None), count, "oldest")
        return b"".join(b64decode(item["b"]["B"]) for item in items) if len(items) == count else None

    # Writing.

    async def _enter(self, index: str, partition: str, key: str) -> bool:
        """Whether no record stands in a partition of that index. If it is that of a reference, the entry for `key` is
        put at the same time. The commit that makes the record, or gives it the entry, has to follow.

        One conditional write asks and puts. Where it fails, the entry may be left over from a commit that never came:
        then the records decide, and the commit puts an entry beside it.
        """
        kept_first = self._has_first_entries and _has_first(index, partition)
        if kept_first and await self._put_first(index, partition, key):
            if len(self._entered) >= REMEMBERED_MAX:
                self._entered.clear()
            self._entered[index, partition] = key
            return True
        return not await self.query(index, partition, limit=1)

    async def _enter_first(self, write: Write, partition: str) -> None:
        if not await self._enter(index_of_first(write), partition, write.key):
            raise NotFirst(partition)

    async def _put_first(self, index: str, partition: str, key: str) -> bool:
        """Put the first entry of a reference. False if there is one."""
        item = {"pk": {"S": f"I#{index}#{partition}"}, "sk": {"S": _FIRST}, "k": {"S": key}}
        request = {"TableName": self.table, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}
        try:
            await self._ask("PutItem", request | {"ReturnConsumedCapacity": "TOTAL"})
        except AwsError as error:
            if error.code != "ConditionalCheckFailedException":
                raise Unavailable(str(error)) from error
            return False
        return True

    async def commit(self, writes: Sequence[Write]) -> None:
        assert 1 <= len(writes) <= WRITES_MAX
        assert len(set(map(_write_key, writes))) == len(writes), "a key stands twice in one commit"
        for write in writes:
            if write.first_in is not None:
                await self._run_tracked(self._enter_first(write, write.first_in))
        actions, before, after = [], [], []
        for write in writes:
            action, ahead, behind = self._action(write)
            actions.append(action)
            before += ahead
            after += behind
        self._forget_ahead(writes)
        try:
            await self._run_tracked(self._commit(writes, actions, before, after))
        finally:
            self._forget_ahead(writes)  # Once more: what was read meanwhile may be older than the commit.

    def _forget_ahead(self, writes: Sequence[Write]) -> None:
        if self.ahead is not None:
            for write in writes:
                self.ahead.forget(_place_of(self._key(write.key)))
                self.ahead.forget(_place_of(_mark_key(_place(write.key, whole=True) or "")))

    async def _commit(
        self, writes: Sequence[Write], actions: list[dict[str, Any]], before: list[Item], after: list[str]
    ) -> None:
        began = time.perf_counter()
        if before:
            await self._put_all(before)
            if self._has_first_entries:
                await self._put_firsts(before)
        places = {place for write in writes if _is_kept(place := _place(write.key, whole=True) or "")}
        marks = [self._mark(place) for place in places]
        together = len(actions) + len(marks) <= WRITES_MAX
        try:
            if len(actions) == 1 and not marks:
                await self._commit_one(writes[0], actions[0])
            else:
                await self._transact(writes, actions + marks if together else actions)
        except (Conflict, CommitUnknown):
            for write in writes:
                self._known.pop(write.key, None)
            raise
        finally:
            for place in places:
                self._kept.pop(place, None)
        if not together:
            await self._mark_afterwards(marks)
        for write, action in zip(writes, actions, strict=True):
            if write.body is None:
                self._known.pop(write.key, None)
                continue
            place = action["Put"]["Item"].get("o")
            parts = place["S"] if place else None
            self._remember(write.key, _Known(write.version + 1, write.index, write.expires_at, parts))
        self.commits += 1
        if self.on_writes is not None:
            self.on_writes(writes)
        if self.on_batch is not None:
            self.on_batch(1, time.perf_counter() - began)
        for place in after:
            await self._drop_parts(place)

    def _mark(self, place: str) -> dict[str, Any]:
        """The action of a transaction that changes the mark of a kept listing."""
        return {
            "Update": {
                "TableName": self.table,
                "Key": _mark_key(place),
                "UpdateExpression": "SET m = :m",
                "ExpressionAttributeValues": {":m": {"S": secrets.token_hex(8)}},
            }
        }

    async def _mark_afterwards(self, marks: Iterable[dict[str, Any]]) -> None:
        """Change marks for which the transaction had no room, as in an import."""
        try:
            for mark in marks:
                await self._ask("UpdateItem", mark["Update"])
        except (Unavailable, AwsError) as error:
            log.warning("other processes learn of changed settings within a minute only", extra={"why": str(error)})

    async def _commit_one(self, write: Write, action: dict[str, Any]) -> None:
        """One item is written whole or not at all by itself, for half the price of a transaction."""
        ((kind, request),) = action.items()
        request["ReturnConsumedCapacity"] = "TOTAL"
        for turn in range(TRIES_MAX):
            try:
                await self._send(f"{kind}Item", request)
                return
            except Lost as error:
                # The same request again would find its own trace, and take it for another's.
                raise CommitUnknown(str(error)) from error
            except AwsError as error:
                if error.code == "ConditionalCheckFailedException":
                    raise Conflict(write.key) from None
                self._sort_out(error)
            await _pause(turn)
        raise Unavailable("DynamoDB is throttling writes")

    async def _transact(self, writes: Sequence[Write], actions: list[dict[str, Any]]) -> None:
        # Under one token DynamoDB performs the transaction once, however often it is sent within ten minutes.
        request = {
            "TransactItems": actions,
            "ClientRequestToken": secrets.token_hex(18),
            "ReturnConsumedCapacity": "TOTAL",
        }
        lost: Lost | None = None
        for turn in range(TRIES_MAX):
            try:
                await self._send("TransactWriteItems", request)
                return
            except Lost as error:
                lost = error
            except AwsError as error:
                if error.code == "TransactionCanceledException":
                    for write, reason in zip(writes, error.reasons, strict=False):
                        if reason == "ConditionalCheckFailed":
                            if lost is not None:
                                # It may be our own doing, of which the answer was lost.
                                raise CommitUnknown(f"{lost}, and then a version had moved") from None
                            raise Conflict(write.key) from None
                    if not _AGAIN_REASONS.intersection(error.reasons):
                        raise Unavailable(str(error)) from error
                elif lost is not None and error.code not in _AGAIN:
                    raise CommitUnknown(f"{lost}, and then {error}") from error
                else:
                    self._sort_out(error)
            await _pause(turn)
        if lost is not None:
            raise CommitUnknown(str(lost)) from lost
        raise Unavailable("other transactions write the same records, or DynamoDB is throttling")

    async def _send(self, operation: str, request: dict[str, Any]) -> None:
        await self.client.call(operation, request)

    def _sort_out(self, error: AwsError) -> None:
        """Return where the same request may succeed the next time."""
        if error.code == "ValidationException":
            raise error  # DynamoDB cannot keep this caller's write; other commits are not affected.
        if error.code not in _AGAIN:
            raise Unavailable(str(error)) from error

    def _action(self, write: Write) -> tuple[dict[str, Any], list[Item], list[str]]:
        """The write as an action of a transaction, the items to be put before it, and the parts that go after it."""
        assert (write.queue is None) == (write.due_at_ms is None), "a task has a queue and a due time"
        known = self._known.get(write.key)
        if known is not None and known.version != write.version:
            known = None
        behind = [known.parts] if known is not None and known.parts is not None else []
        condition: dict[str, Any] = {"TableName": self.table}
        if write.version == ABSENT:
            condition["ConditionExpression"] = "attribute_not_exists(pk)"
        else:
            condition["ConditionExpression"] = "v = :v"
            condition["ExpressionAttributeValues"] = {":v": {"N": str(write.version)}}
        key = self._key(write.key)
        if write.body is None:
            assert write.version > ABSENT, "only what exists can be deleted"
            return {"Delete": {"Key": key, **condition}}, [], behind
        item: Item = {**key, "v": {"N": str(write.version + 1)}}
        ahead: list[Item] = []
        body = write.body
        if len(body) >= COMPRESSED_FROM:
            packed = zlib.compress(body, 1)
            if len(packed) < len(body):
                body = packed
                item["z"] = {"N": "1"}
        if len(body) > PART_BYTES:
            pieces = [body[start : start + PART_BYTES] for start in range(0, len(body), PART_BYTES)]
            place = f"O#{secrets.token_hex(12)}:{len(pieces)}"
            item["o"] = {"S": place}
            ahead += [
                {"pk": {"S": place}, "sk": {"S": f"{number:04}"}, "b": _binary(piece)}
                for number, piece in enumerate(pieces)
            ]
        elif body:
            item["b"] = _binary(body)
        if write.index:
            _check_index(write.index)
            item["x"] = {"S": json.dumps(write.index, ensure_ascii=False, separators=(",", ":"))}
        if write.queue is not None:
            item["q"] = {"S": f"{write.queue}#{zlib.crc32(write.key.encode()) % QUEUE_SHARDS}"}
            item["d"] = {"N": str(write.due_at_ms)}
        if write.expires_at is not None:
            item["e"] = {"N": str(write.expires_at)}
        there = set(known.index) if known is not None and known.expires_at == write.expires_at else set()
        for name, partition in dict.fromkeys(write.index):
            entered = self._entered and self._entered.pop((name, partition), None) == write.key
            if (name, partition) not in there and not entered:
                pointer: Item = {"pk": {"S": f"I#{name}#{partition}"}, "sk": {"S": write.key}}
                if write.expires_at is not None:
                    pointer["e"] = item["e"]
                ahead.append(pointer)
        return {"Put": {"Item": item, **condition}}, ahead, behind

    async def _put_all(self, items: list[Item]) -> None:
        """Put pointers and parts. They are harmless without the commit that follows, so a doubt is no matter."""
        size = BATCH_PUTS_MAX
        await asyncio.gather(*(self._put_batch(items[start : start + size]) for start in range(0, len(items), size)))

    async def _put_firsts(self, items: list[Item]) -> None:
        """Put the first entries of references that were not asked for, as by an import."""
        places = [(*item["pk"]["S"].split("#", 2)[1:], item["sk"]["S"]) for item in items]
        await asyncio.gather(*(self._put_first(*place) for place in places if _has_first(*place[:2])))

    async def _put_batch(self, items: list[Item]) -> None:
        left: list[Any] = [{"PutRequest": {"Item": item}} for item in items]
        for turn in range(TRIES_MAX):
            request = {"RequestItems": {self.table: left}, "ReturnConsumedCapacity": "TOTAL"}
            left = (await self._ask("BatchWriteItem", request)).get("UnprocessedItems", {}).get(self.table, [])
            if not left:
                return
            await _pause(turn)
        raise Unavailable("DynamoDB is throttling writes")

    async def _drop_parts(self, place: str) -> None:
        count = int(place.rpartition(":")[2])
        left: list[Any] = [
            {"DeleteRequest": {"Key": {"pk": {"S": place}, "sk": {"S": f"{number:04}"}}}} for number in range(count)
        ]
        try:
            for start in range(0, len(left), BATCH_PUTS_MAX):
                some = left[start : start + BATCH_PUTS_MAX]
                await self._ask("BatchWriteItem", {"RequestItems": {self.table: some}})
        except (Unavailable, AwsError) as error:
            log.warning("parts of a record that was replaced are left over", extra={"why": str(error)})

    # Tasks.

    async def claim(
        self, queue: str, *, now_ms: int, lease_ms: int, limit: int, without: Sequence[str] = ()
    ) -> list[Row]:
        assert 1 <= limit <= PAGE_MAX and lease_ms > 0 and len(without) <= SCOPES_MAX
        return await self._run_tracked(self._claim(queue, now_ms, lease_ms, limit, frozenset(without)))

    async def _claim(self, queue: str, now_ms: int, lease_ms: int, limit: int, without: frozenset[str]) -> list[Row]:
        claimed: list[tuple[int, Row]] = []
        tried: set[str] = set()
        passed_over = 0
        while len(claimed) < limit:
            wanted = limit + len(tried) + passed_over
            due = await self._due(queue, wanted, "soonest", until_ms=now_ms)
            others = [key for _, key in due if key.partition("/")[0] not in without]
            some = [key for key in others if key not in tried][: min(limit - len(claimed), KEYS_MAX)]
            if not some:
                if not without or len(due) < wanted:
                    break
                # All that was found is passed over: look four times as far.
                passed_over = 4 * wanted
                continue
            tried.update(some)
            found = await self._read_many(some)
            leases = [self._lease(task, queue, now_ms, now_ms + lease_ms) for task in found.values()]
            claimed += [won for won in await asyncio.gather(*leases) if won is not None]
        claimed.sort(key=lambda won: (won[0], won[1].key))
        return [row for _, row in claimed]

    async def _lease(self, task: _Found, queue: str, now_ms: int, until_ms: int) -> tuple[int, Row] | None:
        expired = task.expires_at is not None and task.expires_at <= now_ms // 1000
        if task.queue != queue or task.due_at_ms > now_ms or expired:
            return None
        row = task.row
        request = {
            "TableName": self.table,
            "Key": self._key(row.key),
            "UpdateExpression": "SET v = :next, d = :until",
            "ConditionExpression": "v = :v",
            "ExpressionAttributeValues": {
                ":v": {"N": str(row.version)},
                ":next": {"N": str(row.version + 1)},
                ":until": {"N": str(until_ms)},
            },
        }
        try:
            await self._ask("UpdateItem", request, repeats=False)
        except AwsError as error:
            if error.code == "ConditionalCheckFailedException":
                return None
            raise Unavailable(str(error)) from error
        known = self._known.get(row.key)
        if known is not None and known.version == row.version:
            self._remember(row.key, msgspec.structs.replace(known, version=row.version + 1))
        return task.due_at_ms, Row(row.key, row.version + 1, row.body)

    async def _due(
        self, queue: str, limit: int, order: Literal["soonest", "latest"], until_ms: int | None = None
    ) -> list[tuple[int, str]]:
        """(due time, key) of tasks as the index has them, which may lag behind the records."""
        pages = [self._due_shard(f"{queue}#{n}", limit, order, until_ms) for n in range(QUEUE_SHARDS)]
        found = [task for page in await asyncio.gather(*pages) for task in page]
        return sorted(found, reverse=order == "latest")[:limit]

    async def _due_shard(self, shard: str, limit: int, order: str, until_ms: int | None) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        start: Item | None = None
        while True:
            request: dict[str, Any] = {
                "TableName": self.table,
                "IndexName": _DUE,
                "KeyConditionExpression": "q = :q" if until_ms is None else "q = :q AND d <= :now",
                "ExpressionAttributeValues": {":q": {"S": shard}}
                | ({":now": {"N": str(until_ms)}} if until_ms is not None else {}),
                "ScanIndexForward": order == "soonest",
            }
            if start is not None:
                request["ExclusiveStartKey"] = start
            answer = await self._ask("Query", request)
            found += [(int(item["d"]["N"]), item["sk"]["S"]) for item in answer.get("Items", ())]
            start = answer.get("LastEvaluatedKey")
            # Tasks that are due at the same time stand in no order there: the last time is read to its end.
            if not start or (len(found) >= limit and found[-1][0] != found[limit - 1][0]):
                return found

    async def soonest(self, queue: str) -> int | None:
        found = await asyncio.gather(*(self._soonest_of(f"{queue}#{n}") for n in range(QUEUE_SHARDS)))
        return min((due_at_ms for due_at_ms in found if due_at_ms is not None), default=None)

    async def _soonest_of(self, shard: str) -> int | None:
        request = {
            "TableName": self.table,
            "IndexName": _DUE,
            "KeyConditionExpression": "q = :q",
            "ExpressionAttributeValues": {":q": {"S": shard}},
            "Limit": 1,
        }
        items = (await self._ask("Query", request)).get("Items", ())
        return int(items[0]["d"]["N"]) if items else None

    async def peek(
        self,
        queue: str,
        *,
        now_ms: int,
        limit: int,
        order: Literal["soonest", "latest"] = "soonest",
        before_ms: int | None = None,
    ) -> list[Waiting]:
        assert 1 <= limit <= PAGE_MAX
        waiting: list[Waiting] = []
        due = await self._due(queue, PAGE_MAX, order, until_ms=before_ms - 1 if before_ms is not None else None)
        for start in range(0, len(due), KEYS_MAX):
            found = await self._read_many([key for _, key in due[start : start + KEYS_MAX]])
            waiting += [
                Waiting(task.row.key, task.due_at_ms, task.row.body)
                for task in found.values()
                if task.queue == queue
                and (task.expires_at is None or task.expires_at > now_ms // 1000)
                and (before_ms is None or (task.due_at_ms or 0) < before_ms)
            ]
            if len(waiting) >= limit:
                break
        waiting.sort(key=lambda task: (task.due_at_ms, task.key), reverse=order == "latest")
        return waiting[:limit]

    async def clock_ms(self) -> int | None:
        """By the `Date` of AWS's newest answer, which is precise to a second."""
        return self.client.clock_ms()

    async def lineage(self) -> str:
        """The id of the table: a table that was restored to a point in time is another one."""
        try:
            table = (await self.client.call("DescribeTable", {"TableName": self.table}))["Table"]
        except (AwsError, Lost):
            return ""  # These credentials may not describe the table.
        return str(table.get("TableId", ""))

    async def purge_expired(self, *, now: int, limit: int) -> int:
        assert 1 <= limit <= PAGE_MAX
        if not self._scans_for_expired:
            return 0
        purged = 0
        async for item in self._scan():
            if purged == limit:
                break
            if "e" in item and int(item["e"]["N"]) <= now:
                condition = {
                    "ConditionExpression": "e <= :now",
                    "ExpressionAttributeValues": {":now": {"N": str(now)}},
                }
                key = {"pk": item["pk"], "sk": item["sk"]}
                try:
                    await self._ask("DeleteItem", {"TableName": self.table, "Key": key, **condition})
                except AwsError as error:
                    if error.code != "ConditionalCheckFailedException":
                        raise Unavailable(str(error)) from error
                    continue
                self._known.pop(item["sk"]["S"], None)
                purged += 1
        return purged

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        while self._under_way:
            await asyncio.wait(self._under_way)
        await self.client.close()

    # Shared by all of them.

    async def _run_tracked(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work that `close` waits for, and that goes on if its caller is cancelled."""
        if self._closed:
            work.close()
            raise Unavailable("the store is closed")
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _ask(self, operation: str, request: dict[str, Any], *, repeats: bool = True) -> dict[str, Any]:
        """Send a request that may be repeated. Raises `Unavailable`, or `AwsError` for errors that the caller
        judges."""
        why: Exception = Unavailable("never asked")
        for turn in range(TRIES_MAX):
            try:
                return await self.client.call(operation, request)
            except Lost as lost:
                if not repeats:
                    raise Unavailable(str(lost)) from lost
                why = lost
            except AwsError as error:
                if error.code not in _AGAIN:
                    raise _meant(error) from error
                why = error
            await _pause(turn)
        raise Unavailable(str(why)) from why

    def _key(self, key: str) -> Item:
        shard = zlib.crc32(key.encode()) % self.shards
        return {"pk": {"S": f"R#{_place(key, whole=True)}#{shard}"}, "sk": {"S": key}}

    def _remember(self, key: str, known: _Known) -> None:
        if len(self._known) >= REMEMBERED_MAX:
            self._known.clear()
        self._known[key] = known


class _Span:
    """The keys that start with a prefix and lie strictly between two others; `low` and `high` are its closed ends."""

    def __init__(self, prefix: str, above: str | None, below: str | None) -> None:
        self.prefix = prefix
        self.above = above
        self.below = below
        end = prefix_end(prefix)
        self.low = max(prefix, above or "") or "\0"
        ends = [text for text in (end, below) if text is not None]
        self.high = min(ends) if ends else "\U0010ffff" * 8

    def holds(self, key: str) -> bool:
        if not key.startswith(self.prefix):
            return False
        return (self.above is None or key > self.above) and (self.below is None or key < self.below)

    def beyond(self, key: str, order: str) -> "_Span":
        """Return the range after `key`, in the direction of `order`."""
        return _Span(self.prefix, key, self.below) if order == "oldest" else _Span(self.prefix, self.above, key)


async def migrate(url: str) -> int:
    """Make the table with its index, time to live and stream, or bring it up to date; the schema version."""
    client, table, _ = _parse_url(url)
    try:
        return await _migrate(client, table, url)
    except (AwsError, Lost) as error:
        raise StoreUnfit(_unusable(table, error)) from error
    finally:
        await client.close()


async def inspect(url: str) -> list[Finding]:
    """Inspect the table behind `url` for `tillway doctor`."""
    try:
        client, table, _ = _parse_url(url)
    except StoreUnfit as unfit:
        return [Finding(ok=False, what=str(unfit), remedy="Name the table as dynamodb://table?region=….")]
    try:
        described = (await client.call("DescribeTable", {"TableName": table}))["Table"]
        ttl = (await client.call("DescribeTimeToLive", {"TableName": table}))["TimeToLiveDescription"]
        meta = (await client.call("GetItem", {"TableName": table, "Key": _META, "ConsistentRead": True})).get("Item")
    except (AwsError, Lost) as error:
        return [Finding(ok=False, what=_unusable(table, error), remedy="Make it with `tillway migrate`.")]
    finally:
        await client.close()
    version = int(meta["version"]["N"]) if meta else 0
    active = described.get("TableStatus") == "ACTIVE"
    indexed = any(index["IndexName"] == _DUE for index in described.get("GlobalSecondaryIndexes", ()))
    forgets = ttl.get("TimeToLiveStatus") in ("ENABLED", "ENABLING")
    again = "Run `tillway migrate`."
    looked_at = (
        (active, f"the table {table} is {described.get('TableStatus')}", "Wait until it is ACTIVE."),
        (indexed, "the index of due tasks is there" if indexed else "the index of due tasks is missing", again),
        (forgets, f"time to live is {ttl.get('TimeToLiveStatus')}", again),
        (version in SCHEMAS, f"schema {version} of {SCHEMA_VERSION}", again),
    )
    return [Finding(ok=ok, what=what, remedy="" if ok else remedy) for ok, what, remedy in looked_at]


ACTIVE_WITHIN_SECONDS = 120.0


async def _migrate(client: AwsClient, table: str, url: str) -> int:
    """The schema of the table. One that has a schema keeps it."""
    shards = int(dict(parse_qsl(urlsplit(url).query)).get("shards", SHARDS))
    if not 1 <= shards <= 64:
        raise StoreUnfit("The number of shards lies from 1 to 64.")
    if not await _is_there(client, table):
        await _create(client, table)
    deadline = time.monotonic() + ACTIVE_WITHIN_SECONDS
    while (await client.call("DescribeTable", {"TableName": table}))["Table"]["TableStatus"] != "ACTIVE":
        if time.monotonic() > deadline:
            raise StoreUnfit(f"The table {table} is still not active. Run `tillway migrate` again.")
        await asyncio.sleep(0.5)
    ttl = (await client.call("DescribeTimeToLive", {"TableName": table}))["TimeToLiveDescription"]
    if ttl.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
        specification = {"Enabled": True, "AttributeName": "e"}
        await client.call("UpdateTimeToLive", {"TableName": table, "TimeToLiveSpecification": specification})
    try:
        meta = {**_META, "version": {"N": str(SCHEMA_VERSION)}, "shards": {"N": str(shards)}}
        condition = "attribute_not_exists(pk)"
        await client.call("PutItem", {"TableName": table, "Item": meta, "ConditionExpression": condition})
    except AwsError as error:
        if error.code != "ConditionalCheckFailedException":
            raise
    item = await client.call("GetItem", {"TableName": table, "Key": _META, "ConsistentRead": True})
    return int(item["Item"]["version"]["N"])


async def _is_there(client: AwsClient, table: str) -> bool:
    """Whether there is a table of that name: one that a template has made, for instance. A function may describe its
    table, and need not be allowed to create any."""
    try:
        await client.call("DescribeTable", {"TableName": table})
    except AwsError as error:
        if error.code != "ResourceNotFoundException":
            raise
        return False
    return True


async def _create(client: AwsClient, table: str) -> None:
    try:
        await client.call(
            "CreateTable",
            {
                "TableName": table,
                "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [
                    {"AttributeName": "pk", "AttributeType": "S"},
                    {"AttributeName": "sk", "AttributeType": "S"},
                    {"AttributeName": "q", "AttributeType": "S"},
                    {"AttributeName": "d", "AttributeType": "N"},
                ],
                "KeySchema": [
                    {"AttributeName": "pk", "KeyType": "HASH"},
                    {"AttributeName": "sk", "KeyType": "RANGE"},
                ],
                "GlobalSecondaryIndexes": [
                    {
                        "IndexName": _DUE,
                        "KeySchema": [
                            {"AttributeName": "q", "KeyType": "HASH"},
                            {"AttributeName": "d", "KeyType": "RANGE"},
                        ],
                        "Projection": {"ProjectionType": "KEYS_ONLY"},
                    }
                ],
                "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
            },
        )
    except AwsError as error:
        if error.code != "ResourceInUseException":
            raise


def _parse_url(url: str) -> tuple[AwsClient, str, dict[str, str]]:
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    table = parts.netloc or parts.path.strip("/")
    region = options.get("region") or os.environ.get("AWS_REGION")
    if not table or not region:
        raise StoreUnfit("Name the table and its region: dynamodb://table?region=eu-central-1.")
    try:
        credentials = credentials_of_the_environment()
    except NoCredentials as none:
        raise StoreUnfit(str(none)) from none
    return AwsClient(DYNAMODB, region, options.get("endpoint"), credentials), table, options


def _unusable(table: str, error: Exception) -> str:
    if isinstance(error, AwsError) and error.code == "ResourceNotFoundException":
        return f"There is no table {table}. Make it with `tillway init` or `tillway migrate`."
    return f"The table {table} cannot be used: {error}"


def _meant(error: AwsError) -> Exception:
    """A refusal as the caller gets it: conditions and malformed requests are its own, the rest is everybody's."""
    own = ("ConditionalCheckFailedException", "ValidationException")
    return error if error.code in own else Unavailable(str(error))


async def _pause(turn: int) -> None:
    first, last = BACKOFF_SECONDS
    await asyncio.sleep(random.uniform(0, min(first * 2**turn, last)))


def _place(key: str, *, whole: bool) -> str | None:
    """Scope and type of a key, `<scope>/<type>_`; of a prefix (not `whole`), None where it may hold several."""
    scope, slash, id = key.partition("/")
    type, underscore, _ = id.partition("_")
    if slash and underscore:
        return f"{scope}/{type}_"
    return f"{scope}/" if whole else None


def _has_first(index: str, partition: str) -> bool:
    """Whether the first entry there has a place of its own."""
    return index != "term" and is_reference(partition)


def _is_kept(place: str) -> bool:
    return place.partition("/")[2] in KEPT_TYPES


def _mark_key(place: str) -> Item:
    return {"pk": {"S": "META"}, "sk": {"S": f"listing {place}"}}


def _place_of(key: Item) -> Place:
    """Partition and sort key of an item, or of its key."""
    return key["pk"]["S"], key["sk"]["S"]


def _is_setting(place: Place) -> bool:
    """Whether it belongs to the installation: its own records, and the marks of listings."""
    return place[0] == "META" or place[0].startswith(_OWN)


def _binary(data: bytes) -> dict[str, str]:
    return {"B": b64encode(data).decode()}


def _check_index(index: Iterable[tuple[str, str]]) -> None:
    seen: set[str] = set()
    terms: set[str] = set()
    for name, partition in index:
        assert name in INDEXES and (name == "term" or name not in seen), f"no index, or one that stands twice: {name}"
        seen.add(name)
        if name == "term":
            terms.add(partition)
    assert len(terms) <= TERMS_MAX


def _decode_index(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, partition) for name, partition in json.loads(text))


_write_key = attrgetter("key")
_row_key = attrgetter("key")
