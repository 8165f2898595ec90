"""The copy of the audit trail in a bucket: every batch once, in the bytes that the chain proves."""

import re
import urllib.request
from pathlib import Path

import pytest
from aws_stage import REGION

from tillway.aws.audit_copy import AuditCopy
from tillway.aws_client import OBJECTS, AwsClient, AwsError, Frozen
from tillway.crash import ministack
from tillway.crash.ministack import MiniStack
from tillway.domain.account import SYSTEM
from tillway.domain.audit import AuditBatch, leaf_of, next_batch
from tillway.store.codec import decode, write_of
from tillway.store.port import ABSENT
from tillway.testing.in_process import InProcessApp

BUCKET = "tillway-copies-audit"
DAY = 1_796_083_200
"""2026-12-01, in epoch seconds."""


def fetched(stack: MiniStack, path: str) -> bytes:
    with urllib.request.urlopen(f"{stack.endpoint}/{BUCKET}{path}", timeout=30) as answer:
        return bytes(answer.read())


def names(stack: MiniStack) -> list[str]:
    return re.findall(r"<Key>([^<]+)</Key>", fetched(stack, "?list-type=2").decode())


async def linked(app: InProcessApp, scope: str, last: AuditBatch | None, count: int) -> AuditBatch:
    """Link the next entries of a scope, as the chain's task does when they are old enough."""
    head = f"{scope}/aud_"
    after = f"{head}{last.until}" if last is not None else None
    rows = (await app.store.query(None, head, after=after, order="oldest", limit=100))[:count]
    entries = [(row.key[len(head) :], row.body) for row in rows]
    assert len(entries) == count
    batch = next_batch(scope, last, entries, entries[-1][0], DAY)
    await app.store.commit([write_of(scope, batch, ABSENT)])
    return batch


async def test_each_batch_is_copied_once_and_as_it_was_linked(stack: MiniStack, tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    client = AwsClient(OBJECTS, REGION, stack.endpoint, lambda: Frozen(ministack.ACCOUNT, "test"))
    try:
        copy = AuditCopy(app.store, client, BUCKET)
        for _ in range(3):
            await app.merchant()
        first = await linked(app, SYSTEM, None, 1)
        copy.add(SYSTEM)
        await copy.send()  # There is no bucket: it waits, and nothing is lost.
        with pytest.raises(AwsError) as none:
            await client.put(f"/{BUCKET}/x", b"", {})
        assert none.value.code == "NoSuchBucket"

        made = (
            f"<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
        )
        await client.put(f"/{BUCKET}", made.encode(), {})
        await copy.send()
        place = f"audit/2026/12/01/{SYSTEM}"
        assert names(stack) == [f"{place}/000000000001-000000000001.ndjson"]
        second = await linked(app, SYSTEM, first, 2)
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
