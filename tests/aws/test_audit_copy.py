"""The copy of the audit trail in a bucket: every batch once, in the bytes that the chain proves."""

import asyncio
import re
import time
import urllib.request
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from subprocess import CompletedProcess

import msgspec
import pytest
from aws_stage import REGION
from tillway_server import init, tillway

from tillway.aws.audit_copy import AuditCopy
from tillway.aws_client import OBJECTS, AwsClient, AwsError, Frozen
from tillway.crash import ministack
from tillway.crash.ministack import MiniStack
from tillway.domain.account import SYSTEM
from tillway.domain.audit import AuditBatch, AuditCopied, leaf_of, next_batch
from tillway.engine.audit.copies import Directory, compare_copy, name_of
from tillway.engine.clock import Clock
from tillway.http.messages import Request
from tillway.installation import DATABASE
from tillway.settings import Settings
from tillway.store.codec import decode, write_of
from tillway.store.port import ABSENT, Store, Write
from tillway.store.sqlite import SqliteStore
from tillway.testing.in_process import InProcessApp
from tillway.wiring import assemble

BUCKET = "tillway-copies-audit"
DAY = 1_796_083_200
"""2026-12-01, in epoch seconds."""


MADE = (
    f"<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>".encode()
)
"""The body of the request that makes a bucket."""


PAYMENT = b"amount=2000&currency=eur&payment_method=pm_card_visa&confirm=true&return_url=https://example.com"


def variables(stack: MiniStack) -> dict[str, str]:
    """The environment of a command that reads a bucket of the emulator."""
    return {
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": stack.endpoint,
        "AWS_ACCESS_KEY_ID": ministack.ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": "test",
    }


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


class Folder:
    """A bucket that is a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def put(self, path: str, payload: bytes, headers: Mapping[str, str]) -> None:
        file = self.path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(payload)


async def test_batches_that_were_archived_before_they_were_copied_are_not_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app, bucket = await InProcessApp.open(tmp_path), tmp_path / "bucket"
    try:
        for _ in range(7):
            await app.merchant()
        copy, batch = AuditCopy(app.store, Folder(tmp_path), "bucket"), None
        batches: list[AuditBatch] = []

        async def go_on(*archived: bool) -> None:
            """Link a batch for each, archive some of them, and copy."""
            nonlocal batch
            for gone in archived:
                batch = await linked(app.store, SYSTEM, batch, 1)
                batches.append(batch)
                if gone:
                    row = await app.store.get(f"{SYSTEM}/aud_{batch.until}")
                    assert row is not None
                    await app.store.commit([Write(row.key, row.version, None)])
            copy.add(SYSTEM)
            await copy.send()

        await go_on(True, False)
        assert not caplog.records, "the copy begins with the second"
        await go_on(True, True, False)
        assert [record.batch for record in caplog.records] == [3, 4]  # type: ignore[attr-defined]  # An extra.
        await go_on(True, False)
        row = await app.store.get(f"{SYSTEM}/auc_copied")
        assert row is not None
        copied = decode("auc_copied", row.body)
        assert isinstance(copied, AuditCopied)
        assert (copied.sequence, copied.skipped, copied.gaps) == (7, 1, ((3, 4), (6, 6)))
        assert await compare_copy(app.store, Directory(bucket)) == (3, [])
        # One that was copied, and is gone, is missing.
        name = name_of(SYSTEM, batches[4])
        (bucket / name).unlink()
        _, faults = await compare_copy(app.store, Directory(bucket))
        assert [fault.text for fault in faults] == [f"{name} is missing in the bucket"]
    finally:
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

    def verified(named: str = f"s3://{bucket}") -> str:
        return tillway("audit", "verify", "--copy", named, "--data-dir", data, cwd=tmp_path, **variables(stack)).stderr

    assert verified() == f"The copy s3://{bucket} has 1 batch.\n"
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
    assert "is no directory, and no bucket (s3://NAME)" in verified(bucket)
    await client.close()


async def test_a_report_from_the_bucket_is_that_from_the_store(stack: MiniStack, tmp_path: Path) -> None:
    data, bucket, ahead = tmp_path / "data", "tillway-reported-audit", 0
    made = await asyncio.to_thread(init, data)
    client = AwsClient(OBJECTS, REGION, stack.endpoint, lambda: Frozen(ministack.ACCOUNT, "test"))
    clock = Clock(lambda: time.time_ns() + ahead * 1_000_000_000)
    store = await SqliteStore.open(data / DATABASE)
    running = await assemble(Settings(data_dir=data), store, clock)
    headers = {"authorization": f"Bearer {made['secret_key']}", "content-type": "application/x-www-form-urlencoded"}
    try:
        await client.put(f"/{bucket}", MADE, {})
        copy = AuditCopy(store, client, bucket)
        await running.runner.audit.ensure()
        for asked in (PAYMENT, PAYMENT + b"&capture_method=manual", PAYMENT.replace(b"visa", b"chargeDeclined")):
            answer = await running.api.handle(Request("POST", "/v1/payment_intents", headers=headers, body=asked))
            assert answer.status in (200, 402)
        for _ in range(2):
            await running.platform.engine.time.refresh(anyway=True)
            ahead += 86_400
        await running.platform.engine.time.refresh(anyway=True)
        for row in await store.claim("audit", now_ms=clock.now_ms(), lease_ms=1000, limit=10):
            await running.runner.audit.run(row)
        await copy.add_all()
        await copy.send(running.platform.engine.time.settled_until())
    finally:
        await running.close()
    place = f"s3://{bucket}"

    def reported(*of: str | Path) -> CompletedProcess[str]:
        return tillway("reports", "transactions", "--format", "csv", *of, cwd=tmp_path, **variables(stack))

    # From a directory that is no installation.
    copied = reported("--copy", place, "--data-dir", tmp_path / "none")
    assert copied.returncode == 0, copied.stderr
    note = (await client.names(bucket, "ledger/whole/"))[-1]
    whole = date.fromisoformat(note.removeprefix("ledger/whole/").removesuffix(".json")) + timedelta(days=1)
    assert copied.stdout == reported("--to", str(whole), "--data-dir", data).stdout
    assert len(copied.stdout.splitlines()) == 4
    later = reported("--copy", place, "--to", str(whole + timedelta(days=1)))
    assert later.returncode == 2 and f"the copy is whole until {whole}" in later.stderr
    assert "There is no account 'acct_none'" in reported("--copy", place, "--account", "acct_none").stderr
    (name,) = [name for name in await client.names(bucket, "ledger/2") if name != note]
    line = await client.fetch(f"/{bucket}/{name}") or b""
    await client.put(f"/{bucket}/{name}", line.replace(b'"amount_minor":2000', b'"amount_minor":200'), {})
    altered = reported("--copy", place)
    assert altered.returncode == 1 and f"{name} was edited" in altered.stderr and not altered.stdout
    verified = tillway("audit", "verify", "--copy", place, "--data-dir", data, cwd=tmp_path, **variables(stack))
    assert f"{name} is not what the trail and the ledger lead to" in verified.stderr
    await client.close()
