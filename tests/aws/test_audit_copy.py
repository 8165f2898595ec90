"""The copy of the audit trail in a bucket: every batch once, in the bytes that the chain proves."""

import asyncio
import re
import urllib.request
from pathlib import Path

import msgspec
import pytest
from aws_stage import REGION
from tillway_server import init, tillway

from tillway.aws.audit_copy import AuditCopy
from tillway.aws_client import OBJECTS, AwsClient, AwsError, Frozen
from tillway.crash import ministack
from tillway.crash.ministack import MiniStack
from tillway.domain.account import SYSTEM
from tillway.domain.audit import AuditBatch, leaf_of, next_batch
from tillway.engine.audit.copies import name_of
from tillway.installation import DATABASE
from tillway.store.codec import decode, write_of
from tillway.store.port import ABSENT, Store
from tillway.store.sqlite import SqliteStore
from tillway.testing.in_process import InProcessApp

BUCKET = "tillway-copies-audit"
DAY = 1_796_083_200
"""2026-12-01, in epoch seconds."""


MADE = (
    f"<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>".encode()
)
"""The body of the request that makes a bucket."""


def fetched(stack: MiniStack, path: str) -> bytes:
    with urllib.request.urlopen(f"{stack.endpoint}/{BUCKET}{path}", timeout=30) as answer:
        return bytes(answer.read())


def names(stack: MiniStack) -> list[str]:
    return re.findall(r"<Key>([^<]+)</Key>", fetched(stack, "?list-type=2").decode())


async def linked(store: Store, scope: str, last: AuditBatch | None, count: int) -> AuditBatch:
    """Link the next entries of a scope, as the chain's task does when they are old enough."""
    head = f"{scope}/aud_"
    after = f"{head}{last.until}" if last is not None else None
    rows = (await store.query(None, head, after=after, order="oldest", limit=100))[:count]
    entries = [(row.key[len(head) :], row.body) for row in rows]
    assert len(entries) == count
    batch = next_batch(scope, last, entries, entries[-1][0], DAY)
    await store.commit([write_of(scope, batch, ABSENT)])
    return batch


async def test_each_batch_is_copied_once_and_as_it_was_linked(stack: MiniStack, tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    client = AwsClient(OBJECTS, REGION, stack.endpoint, lambda: Frozen(ministack.ACCOUNT, "test"))
    try:
        copy = AuditCopy(app.store, client, BUCKET)
        for _ in range(3):
            await app.merchant()
        first = await linked(app.store, SYSTEM, None, 1)
        copy.add(SYSTEM)
        await copy.send()  # There is no bucket: it waits, and nothing is lost.
        with pytest.raises(AwsError) as none:
            await client.put(f"/{BUCKET}/x", b"", {})
        assert none.value.code == "NoSuchBucket"

        await client.put(f"/{BUCKET}", MADE, {})
        await copy.send()
        place = f"audit/2026/12/01/{SYSTEM}"
        assert names(stack) == [f"{place}/000000000001-000000000001.ndjson"]
        second = await linked(app.store, SYSTEM, first, 2)
        # Another worker goes on where the first one ended.
        other = AuditCopy(app.store, client, BUCKET)
        await other.add_all()
        await other.send()
        assert names(stack)[1:] == [f"{place}/000000000002-000000000002.ndjson"]
        lines = fetched(stack, f"/{place}/000000000002-000000000002.ndjson").splitlines()
        leaves = [leaf_of(f"aud_{suffix}", line) for suffix, line in zip(second.entries, lines, strict=True)]
        assert leaves == [second.leaf(0), second.leaf(1)]
        row = await app.store.get(f"{SYSTEM}/auc_copied")
        assert row is not None and decode("auc_copied", row.body).sequence == 2  # type: ignore[attr-defined]
    finally:
        await client.close()
        await app.close()


async def test_the_command_compares_the_copy_with_the_trail(stack: MiniStack, tmp_path: Path) -> None:
    data, bucket = tmp_path / "data", "tillway-compared-audit"
    await asyncio.to_thread(init, data)
    client = AwsClient(OBJECTS, REGION, stack.endpoint, lambda: Frozen(ministack.ACCOUNT, "test"))
    store = await SqliteStore.open(data / DATABASE)
    try:
        await client.put(f"/{bucket}", MADE, {})
        batch = await linked(store, SYSTEM, None, 1)
        place = f"/{bucket}/{name_of(SYSTEM, batch)}"
        copy = AuditCopy(store, client, bucket)
        copy.add(SYSTEM)
        await copy.send()
    finally:
        await store.close()
    variables = {
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": stack.endpoint,
        "AWS_ACCESS_KEY_ID": ministack.ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": "test",
    }

    def verified(named: str = f"s3://{bucket}") -> str:
        return tillway("audit", "verify", "--copy", named, "--data-dir", data, cwd=tmp_path, **variables).stderr

    assert verified() == f"1 batches are in the bucket {bucket}.\n"
    line = await client.fetch(place)
    assert line is not None and await client.fetch(f"/{bucket}/none") is None
    await client.put(place, line.replace(b'"id"', b'"id" '), {})
    assert "has another aud_" in verified()
    await client.put(place, line + line, {})
    assert "has 2 entries, and its batch 1" in verified()
    await client.put(place, line, {})
    added = name_of(SYSTEM, msgspec.structs.replace(batch, sequence=2))
    await client.put(f"/{bucket}/{added}", line, {})
    assert f"{added} is in the bucket, and no batch of the trail" in verified()
    for path in (f"/{bucket}/{added}", place):
        urllib.request.urlopen(urllib.request.Request(f"{stack.endpoint}{path}", method="DELETE"), timeout=30)
    assert "is missing in the bucket" in verified()
    assert "write s3://NAME" in verified(bucket)
    await client.close()
