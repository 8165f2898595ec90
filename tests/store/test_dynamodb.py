"""The DynamoDB adapter on an emulator that keeps DynamoDB's rules, or on a real table."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from tillway.aws_client import DYNAMODB, AwsClient, AwsError, Frozen, Lost
from tillway.crash import ministack
from tillway.crash.ministack import MiniStack, RealRegion
from tillway.engine.clock import Clock
from tillway.engine.restores import RestoreWatch
from tillway.engine.time_mark import TimeKeeper
from tillway.installation import KEY_FILE
from tillway.settings import Settings
from tillway.store import dynamodb
from tillway.store.dynamodb import QUEUE_SHARDS, SHARDS, TRIES_MAX, DynamoStore, inspect, migrate
from tillway.store.port import (
    ABSENT,
    WRITES_MAX,
    CommitUnknown,
    Conflict,
    NotFirst,
    Row,
    Store,
    StoreUnfit,
    Unavailable,
    Write,
)
from tillway.testing.in_process import InProcessApp, MovedClock
from tillway.testing.store_contract import StoreContract
from tillway.vault.keyring import Keyring
from tillway.wiring import assemble

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def stack() -> Iterator[MiniStack | RealRegion]:
    stack = ministack.start_any()
    yield stack
    stack.close()


class FaultyDynamo(DynamoStore):
    """Meets what an emulator never does: lost answers, throttling, transactions that meet others."""

    url: str
    lost: Literal["written", "dropped"] | None = None
    """Loses every answer to the next commit, which is written or dropped."""

    failures: list[Exception]
    """What the next sendings meet, one after another. `Lost` comes after the sending was performed."""

    sent = 0

    async def commit(self, writes: Sequence[Write]) -> None:
        try:
            await super().commit(writes)
        finally:
            self.lost = None

    async def _send(self, operation: str, request: dict[str, Any]) -> None:
        self.sent += 1
        if self.lost == "dropped":
            raise Lost("the test lost it on its way")
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None and not isinstance(failure, Lost):
            raise failure
        await super()._send(operation, request)
        if failure is not None:
            raise failure
        if self.lost == "written":
            raise Lost("the test lost the answer")


async def opened(url: str) -> FaultyDynamo:
    store = await FaultyDynamo.open(url, create=True)
    store.url, store.failures, store._scans_for_expired = url, [], True
    return store


class TestDynamoStore(StoreContract):
    @pytest.fixture(autouse=True)
    def use_stack(self, stack: MiniStack | RealRegion) -> None:
        self.stack = stack

    async def make_store(self) -> Store:
        return await opened(self.stack.url(f"tillway-{next(_numbers)}"))

    async def reopen(self, store: Store) -> Store:
        return await self.open_another(store)

    async def open_another(self, store: Store) -> Store:
        assert isinstance(store, FaultyDynamo)
        return await opened(store.url)

    def lose_next_answer(self, store: Store, commit: Literal["written", "dropped"]) -> None:
        assert isinstance(store, FaultyDynamo)
        store.lost = commit


@pytest.fixture
async def store(stack: MiniStack | RealRegion, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultyDynamo]:
    monkeypatch.setattr(dynamodb, "BACKOFF_SECONDS", (0.001, 0.01))
    store = await opened(stack.url(f"tillway-{next(_numbers)}"))
    yield store
    await store.close()


PAIR = [Write("m/a_1", ABSENT, b"one"), Write("m/b_1", ABSENT, b"two")]


# Opening.


async def test_a_missing_table_is_refused_with_the_remedy(stack: MiniStack | RealRegion) -> None:
    url = stack.url(f"tillway-{next(_numbers)}")
    with pytest.raises(StoreUnfit, match="tillway migrate"):
        await DynamoStore.open(url)
    assert [finding.ok for finding in await inspect(url)] == [False]
    assert await migrate(url) == await migrate(url)
    await (await DynamoStore.open(url)).close()
    assert all(finding.ok for finding in await inspect(url)), await inspect(url)


async def test_the_table_has_its_index_its_time_to_live_and_its_stream(store: FaultyDynamo) -> None:
    table = (await store.client.call("DescribeTable", {"TableName": store.table}))["Table"]
    (index,) = table["GlobalSecondaryIndexes"]
    assert index["Projection"]["ProjectionType"] == "KEYS_ONLY"
    assert table["StreamSpecification"]["StreamEnabled"]
    ttl = await store.client.call("DescribeTimeToLive", {"TableName": store.table})
    assert ttl["TimeToLiveDescription"]["AttributeName"] == "e"


@pytest.mark.parametrize("url", ["dynamodb://?region=eu-central-1", "dynamodb://table", "dynamodb:"])
async def test_a_url_names_table_and_region(url: str, stack: MiniStack | RealRegion) -> None:
    with pytest.raises(StoreUnfit, match="region"):
        await DynamoStore.open(url)


# How records lie.


async def test_a_scopes_records_of_one_type_are_spread_and_listed_in_order(store: FaultyDynamo) -> None:
    keys = [f"m/pi_{n:03}" for n in range(60)]
    await store.commit([Write(key, ABSENT, b"x") for key in keys])
    await store.commit([Write(f"m/ch_{n}", ABSENT, b"x") for n in range(3)])
    items = [item async for item in store._scan() if item["sk"]["S"].startswith("m/pi_")]
    assert {item["pk"]["S"] for item in items} == {f"R#m/pi_#{n}" for n in range(SHARDS)}
    before = store.client.requests
    assert [row.key for row in await store.query(None, "m/pi_", limit=7, order="oldest")] == keys[:7]
    assert [row.key for row in await store.query(None, "m/pi_", limit=7, after=keys[50])] == keys[43:50][::-1]
    assert store.client.requests - before == 2 * SHARDS, "a listing of one type reads its shards and nothing else"


async def test_a_listing_of_settings_is_read_again_only_after_a_change(store: FaultyDynamo) -> None:
    other = await opened(store.url)

    async def listed(limit: int = 100) -> tuple[list[Row], int]:
        before = store.client.requests
        rows = await store.query(None, "m/we_", limit=limit)
        return rows, store.client.requests - before

    assert await listed() == ([], 1 + SHARDS)
    assert await listed() == ([], 1)
    await other.commit([Write("m/we_1", ABSENT, b"a")])
    await other.commit([Write("m/we_2", ABSENT, b"b"), Write("m/ch_1", ABSENT, b"x")])
    both = [Row("m/we_2", 1, b"b"), Row("m/we_1", 1, b"a")]
    assert await listed() == (both, 1 + SHARDS)
    assert await listed(1) == (both[:1], 1)
    assert await store.query(None, "m/we_", order="oldest") == both[::-1]
    assert await store.query(None, "m/we_", after="m/we_2") == both[1:]
    # What this process writes it reads at once, and a conflict is no reason to believe what was kept.
    await store.commit([Write("m/we_1", 1, b"c")])
    assert await listed() == ([both[0], Row("m/we_1", 2, b"c")], 1 + SHARDS)
    await other.commit([Write("m/we_1", 2, None)])
    with pytest.raises(Conflict):
        await store.commit([Write("m/we_1", 2, b"d")])
    assert await listed() == (both[:1], 1 + SHARDS)
    # Other records leave it alone, and so do settings of another scope.
    await other.commit([Write("m/ch_2", ABSENT, b"x"), Write("n/we_1", ABSENT, b"x")])
    assert await listed() == (both[:1], 1)
    await other.close()


async def test_a_commit_without_room_for_the_mark_changes_it_afterwards(store: FaultyDynamo) -> None:
    assert await store.query(None, "m/con_") == []
    other = await opened(store.url)
    await other.commit([Write(f"m/con_{n:03}", ABSENT, b"x") for n in range(WRITES_MAX)])
    assert len(await store.query(None, "m/con_", limit=WRITES_MAX)) == WRITES_MAX
    await other.close()


async def test_a_kept_listing_is_read_anew_after_a_minute(store: FaultyDynamo) -> None:
    """For processes of a version that did not change the mark."""
    await store.commit([Write("m/rtg_1", ABSENT, b"x")])
    assert [row.body for row in await store.query(None, "m/rtg_")] == [b"x"]
    old = await opened(store.url)
    old._mark = lambda place: {"Delete": {"TableName": old.table, "Key": old._key("m/nothing_1")}}  # type: ignore[method-assign]
    await old.commit([Write("m/rtg_1", 1, b"y")])
    await old.close()
    assert [row.body for row in await store.query(None, "m/rtg_")] == [b"x"]
    store.kept_seconds = 0
    assert [row.body for row in await store.query(None, "m/rtg_")] == [b"y"]


async def test_long_bodies_are_packed_and_very_long_ones_lie_in_parts(store: FaultyDynamo) -> None:
    text, noise = b"the same words again and again. " * 4000, random.Random(3).randbytes(900_000)
    await store.commit([Write("m/a_1", ABSENT, text), Write("m/b_1", ABSENT, noise)])
    items = {item["sk"]["S"]: item async for item in store._scan()}
    assert len(items["m/a_1"]["b"]["B"]) < 4000 and items["m/b_1"]["o"]["S"].endswith(":3")
    again = await opened(store.url)
    assert await again.get_many(["m/a_1", "m/b_1"]) == {"m/a_1": Row("m/a_1", 1, text), "m/b_1": Row("m/b_1", 1, noise)}
    await store.commit([Write("m/b_1", 1, noise[::-1])])
    assert await again.get("m/b_1") == Row("m/b_1", 2, noise[::-1])
    place = items["m/b_1"]["o"]["S"]
    assert await store._parts(place) is None, "the parts of a version that was replaced are left over"
    await again.close()


async def test_a_pointer_that_leads_nowhere_misleads_nobody(store: FaultyDynamo) -> None:
    """What a process that died before its commit has left."""
    await store.commit([Write("m/a_1", ABSENT, b"x", (("kind", "k"),))])
    await store._put_all([{"pk": {"S": "I#kind#k"}, "sk": {"S": key}} for key in ("m/a_0", "m/a_2", "m/b_1")])
    await store.commit([Write("m/b_1", ABSENT, b"x", (("kind", "other"),))])
    assert [row.key for row in await store.query("kind", "k")] == ["m/a_1"]
    assert [row.key for row in await store.query("kind", "k", limit=1, order="oldest")] == ["m/a_1"]


async def test_entries_that_are_there_are_not_paid_for_again(store: FaultyDynamo) -> None:
    index = (("customer", "c"), ("term", "t"))
    await store.commit([Write("m/a_1", ABSENT, b"x", index), Write("m/a_2", ABSENT, b"x")])
    before = store.client.requests
    await store.commit([Write("m/a_1", 1, b"y", index), Write("m/a_2", 1, b"y")])
    assert store.client.requests - before == 1


REFERENCE = f"{'m' * 16}t@{'f' * 18}"


def of_reference(key: str = "m/pi_1", *, asks: bool = True, index: str = "kind", tail: str = "") -> list[Write]:
    """The writes of a new payment with that reference."""
    place = REFERENCE + tail
    return [
        Write(key, ABSENT, b"x", ((index, place),), first_in=place if asks else None),
        Write(f"{key}x", ABSENT, b"y"),
    ]


async def test_a_reference_is_asked_for_and_entered_in_one_request(store: FaultyDynamo) -> None:
    other, before = await opened(store.url), store.client.requests
    await store.commit(of_reference())
    assert store.client.requests - before == 2, "one for the reference with its entry, one for the commit"
    for each in (store, other):
        with pytest.raises(NotFirst):
            await each.commit(of_reference("m/pi_2"))
        assert [row.key for row in await each.query("kind", REFERENCE)] == ["m/pi_1"]
    await store.commit(of_reference("m/re_1", index="customer"))  # Each index has its own.
    await other.close()


async def test_an_entry_without_a_record_takes_no_reference(store: FaultyDynamo) -> None:
    """A process died between the entry and its commit. The one that repeats the request stands beside it."""
    assert await store._enter("kind", REFERENCE, "m/pi_0")
    again = await opened(store.url)
    await again.commit(of_reference())
    for each in (store, again):
        with pytest.raises(NotFirst):
            await each.commit(of_reference("m/pi_2"))
        assert [row.key for row in await each.query("kind", REFERENCE, limit=1)] == ["m/pi_1"]
    # The first one was only slow, and its commit had the other key: nothing of it is hidden either.
    await store.commit(of_reference("m/pi_0", asks=False))
    assert [row.key for row in await again.query("kind", REFERENCE)] == ["m/pi_1", "m/pi_0"]
    await again.close()


async def test_an_imported_reference_is_taken(store: FaultyDynamo) -> None:
    await store.commit(of_reference(asks=False))
    with pytest.raises(NotFirst):
        await store.commit(of_reference("m/pi_2"))
    assert [row.key for row in await store.query("kind", REFERENCE)] == ["m/pi_1"]


@pytest.mark.parametrize("schema", [1, 2])
async def test_a_key_used_anew_after_a_day_is_a_new_operation(store: FaultyDynamo, schema: int, tmp_path: Path) -> None:
    """A new payment, a confirmation of one that is there, a capture and a refund: the bank performs each again."""
    store._has_first_entries = schema > 1
    Keyring.create(tmp_path / KEY_FILE)
    clock = MovedClock()
    app = InProcessApp(await assemble(Settings(data_dir=tmp_path), store, clock), store, clock)  # type: ignore[arg-type]
    shop = await app.merchant()
    paid = {"amount": 5000, "currency": "eur", "payment_method": "pm_card_bypassPending", "confirm": True}
    made = await app.ok(shop, "POST", "/v1/payment_intents", {"amount": 5000, "currency": "eur"})
    first = await app.ok(shop, "POST", "/v1/payment_intents", paid, idempotency_key="first")
    for day in range(3):
        held = {**paid, "capture_method": "manual"}
        payment = await app.ok(shop, "POST", "/v1/payment_intents", held, idempotency_key="pay")
        await app.ok(shop, "POST", f"/v1/payment_intents/{payment['id']}/capture", idempotency_key="capture")
        sent_back = {"payment_intent": first["id"], "amount": 10}
        await app.ok(shop, "POST", "/v1/refunds", sent_back, idempotency_key="refund")
        declined = {"payment_method": "pm_card_chargeDeclined"}
        place = f"/v1/payment_intents/{made['id']}/confirm"
        assert (await app.call(shop, "POST", place, declined, idempotency_key="try")).status == 402
        app.clock.ahead_seconds += 24 * 60 * 60 + 1
        if day == 1:
            await store.purge_expired(now=clock.now_ms() // 1000, limit=100)
    kinds = Counter(one.kind for one in (await app.simulator(shop)).bank.operations())
    assert kinds == {"authorization": 1 + 3 + 3, "capture": 3, "refund": 3}
    await app.running.runner.stop(within_seconds=1)


async def test_a_table_of_the_schema_before_keeps_its_entries(store: FaultyDynamo) -> None:
    """Its references have no place of their own, so each is looked for."""
    await store.client.call(
        "UpdateItem",
        {
            "TableName": store.table,
            "Key": dynamodb._META,
            "UpdateExpression": "SET version = :v",
            "ExpressionAttributeValues": {":v": {"N": "1"}},
        },
    )
    old = await opened(store.url)
    await old.commit(of_reference(asks=False))
    with pytest.raises(NotFirst):
        await old.commit(of_reference("m/pi_2"))
    await old.commit(of_reference("m/pi_2", tail="0"))
    items = await old._items(f"I#kind#{REFERENCE}", dynamodb._Span("", None, None), 10, "oldest")
    assert [item["sk"]["S"] for item in items] == ["m/pi_1"]
    assert await migrate(store.url) == 1 and all(finding.ok for finding in await inspect(store.url))
    await old.close()


class NoFile:
    """A function of AWS has no directory that stays."""

    def read(self) -> None:
        return None

    def write(self, mark_us: int, *, durable: bool = False) -> None:
        pass


async def suspicion(store: FaultyDynamo) -> str:
    """Why a process that starts takes the table for one that was put back; empty if it does not."""
    clock = Clock()
    watch = RestoreWatch(store, clock, TimeKeeper(store, clock))
    await watch.begin(NoFile(), is_file=False)
    return watch.reason


async def test_a_table_restored_to_a_point_in_time_is_noticed(
    store: FaultyDynamo, stack: MiniStack | RealRegion
) -> None:
    """AWS restores into another table: here one gets a copy of all items."""
    assert await suspicion(store) == "" == await suspicion(store)
    restored = await opened(stack.url(f"tillway-{next(_numbers)}"))
    items = (await store.client.call("Scan", {"TableName": store.table}))["Items"]
    for item in items:
        await restored.client.call("PutItem", {"TableName": restored.table, "Item": item})
    assert "the database was" in await suspicion(restored)
    assert await suspicion(store) == "", "the table itself goes on"
    await restored.close()


async def test_tasks_are_spread_over_the_queues_shards(store: FaultyDynamo) -> None:
    await store.commit([Write(f"m/att_{n}", ABSENT, b"x", queue="q", due_at_ms=n) for n in range(40)])
    items = [item async for item in store._scan()]
    assert {item["q"]["S"] for item in items} == {f"q#{n}" for n in range(QUEUE_SHARDS)}
    assert len(await store.claim("q", now_ms=100, lease_ms=1, limit=40)) == 40


# Failures.


async def test_an_answer_that_is_lost_once_is_fetched_under_the_same_token(store: FaultyDynamo) -> None:
    store.failures = [Lost("no answer")]
    await store.commit(PAIR)
    assert store.sent == 2
    assert await store.get_many(["m/a_1", "m/b_1"]) == {
        "m/a_1": Row("m/a_1", 1, b"one"),
        "m/b_1": Row("m/b_1", 1, b"two"),
    }


async def test_a_single_write_whose_answer_is_lost_is_not_repeated(store: FaultyDynamo) -> None:
    store.failures = [Lost("no answer")]
    with pytest.raises(CommitUnknown):
        await store.commit(PAIR[:1])
    assert store.sent == 1 and await store.get("m/a_1") == Row("m/a_1", 1, b"one")


def cancelled(*reasons: str) -> AwsError:
    return AwsError(400, "TransactionCanceledException", "cancelled", reasons)


THROTTLED = AwsError(400, "ProvisionedThroughputExceededException", "slow down")


@pytest.mark.parametrize("failure", [cancelled("None", "TransactionConflict"), THROTTLED, cancelled("ThrottlingError")])
async def test_what_may_succeed_the_next_time_is_tried_again_within_a_bound(
    store: FaultyDynamo, failure: AwsError
) -> None:
    store.failures = [failure] * (TRIES_MAX - 1)
    await store.commit(PAIR)
    assert store.sent == TRIES_MAX
    store.failures = [failure] * TRIES_MAX
    with pytest.raises(Unavailable):
        await store.commit([Write("m/a_2", ABSENT, b"x"), Write("m/b_2", ABSENT, b"x")])
    assert await store.get("m/a_2") is None


async def test_after_a_lost_answer_a_version_that_moved_may_be_our_own_doing(store: FaultyDynamo) -> None:
    await store.commit(PAIR)
    store.failures = [Lost("no answer"), cancelled("ConditionalCheckFailed", "None")]
    with pytest.raises(CommitUnknown):
        await store.commit([Write("m/a_1", 1, b"x"), Write("m/b_1", 1, b"x")])


async def test_the_first_write_whose_version_moved_is_named(store: FaultyDynamo) -> None:
    await store.commit(PAIR)
    with pytest.raises(Conflict) as conflict:
        await store.commit([Write("m/c_1", ABSENT, b"x"), *PAIR])
    assert conflict.value.key == "m/a_1" and await store.get("m/c_1") is None


async def test_other_refusals_say_that_nothing_was_written(store: FaultyDynamo) -> None:
    for failure in (AwsError(400, "AccessDeniedException", "no"), cancelled("AccessDenied")):
        store.failures = [failure]
        with pytest.raises(Unavailable):
            await store.commit(PAIR)
    await store.commit(PAIR)


async def test_nobody_there(stack: MiniStack | RealRegion) -> None:
    with pytest.raises(StoreUnfit, match="cannot be used"):
        await DynamoStore.open("dynamodb://table?region=eu-central-1&endpoint=http://127.0.0.1:1")


async def test_a_caller_who_is_cancelled_does_not_cut_a_commit_in_two(store: FaultyDynamo) -> None:
    commit = asyncio.ensure_future(store.commit(PAIR))
    await asyncio.sleep(0)
    commit.cancel()
    await store.close()
    again = await opened(store.url)
    assert len(await again.get_many(["m/a_1", "m/b_1"])) in (0, 2)
    await again.close()


# The client.


def test_a_request_is_signed_as_aws_documents_it() -> None:
    """Against botocore's own signer, which is not on the way of our requests."""
    auth = pytest.importorskip("botocore.auth", reason="botocore is not installed: no signature to compare with")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    client = AwsClient(DYNAMODB, "eu-central-1", None, lambda: Frozen("AKIDEXAMPLE", "very/secret", "a-token"))
    payload = b'{"TableName":"t"}'
    given = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "DynamoDB_20120810.GetItem"}
    headers = client._sign("POST", "/", given, payload)
    ours = headers.pop("authorization")
    at = headers["x-amz-date"]
    request = AWSRequest("POST", "https://dynamodb.eu-central-1.amazonaws.com/", headers=headers, data=payload)
    request.context["timestamp"] = at
    signer = auth.SigV4Auth(Credentials("AKIDEXAMPLE", "very/secret", "a-token"), "dynamodb", "eu-central-1")
    text = signer.string_to_sign(request, signer.canonical_request(request))
    assert ours.endswith(f"Signature={signer.signature(text, request)}")
    assert "very/secret" not in repr(Frozen("AKIDEXAMPLE", "very/secret"))
