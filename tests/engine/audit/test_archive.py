"""The archive of the trail: verification passes over the files and the rest, and still sees an edit of either."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from good_calls import MerchantObjects

from tillway.domain.account import Scope
from tillway.domain.retention import SECONDS_PER_DAY
from tillway.engine.audit.archive import Archive, ArchiveRefused, Filed, archive_scope
from tillway.engine.audit.chain import Walked, walk
from tillway.engine.audit.entries import Author
from tillway.engine.audit.records import Compared, compare
from tillway.store.port import Row, Write
from tillway.store.walk import rows_of
from tillway.testing.in_process import InProcessApp

BY = Author("cli:ada@host", "tillway retention archive")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def old(data_dir: Path, tmp_path: Path) -> AsyncIterator["Old"]:
    app = await InProcessApp.open(data_dir)
    found = Old(app, MerchantObjects(app, await app.merchant()), tmp_path / "archive")
    for _ in range(3):
        await found.objects.paid()
    await found.link()
    app.clock.ahead_seconds += 40 * SECONDS_PER_DAY
    await found.objects.paid()
    await found.link()
    yield found
    await app.close()


class Old:
    """A merchant with payments from 40 days ago and from today."""

    def __init__(self, app: InProcessApp, objects: MerchantObjects, directory: Path) -> None:
        self.app = app
        self.objects = objects
        self.directory = directory
        self.scope = Scope(account=objects.merchant.account, mode="test").key

    async def link(self) -> None:
        for _ in range(4):
            self.app.clock.ahead_seconds += 60
            await self.app.running.platform.engine.time.refresh()
            late = self.app.clock.now_ms() + 1_000_000
            for row in await self.app.store.claim("audit", now_ms=late, lease_ms=1, limit=10):
                await self.app.running.runner.audit.run(row)

    async def archive(self) -> Filed:
        at, signer = self.app.clock.moment(), self.app.running.platform.signer
        assert signer is not None
        before = at.now - 30 * SECONDS_PER_DAY
        return await archive_scope(
            self.app.store, self.scope, self.directory, before=before, by=BY, at=at, signer=signer
        )

    async def walk(self, archive: Archive | None = None) -> Walked:
        return await walk(self.app.store, self.scope, self.app.running.platform.signer, archive)

    async def compare(self, archive: Archive | None = None) -> Compared:
        return await compare(self.app.store, self.scope, archive=archive)

    async def entries(self) -> list[Row]:
        return [row async for row in rows_of(self.app.store, f"{self.scope}/aud_")]

    @property
    def file(self) -> Path:
        (found,) = (self.directory / self.scope).glob("0*.ndjson")
        return found


async def test_the_archive_and_the_rest_prove_the_whole_trail(old: Old) -> None:
    before, kept = await old.walk(), await old.entries()
    filed = await old.archive()
    assert (filed.entries, len(filed.files)) == (before.entries - 2, 1) and filed.entries >= 6
    assert old.file.read_bytes() == b"".join(row.body + b"\n" for row in kept[: filed.entries])
    archive = Archive(old.directory)
    whole, rest = await old.walk(archive), await old.walk()
    assert (whole.damage, whole.entries, whole.archived) == (None, before.entries, 0)
    assert (rest.damage, rest.archived) == (None, filed.entries)
    compared = await old.compare(archive)
    assert (compared.differences, compared.older) == ((), 0)
    assert (await old.compare()).differences == () and (await old.compare()).older > 0
    told = (await old.entries())[-1].body
    assert old.file.name.encode() in told and b"tillway retention archive" in told
    again = await old.archive()
    assert (again.entries, again.files) == (0, ())
    await old.link()
    assert (await old.walk(archive)).damage is None
    # The API goes on: old events are gone, and payments are there.
    listed = await old.objects.app.ok(old.objects.merchant, "GET", "/v1/events", {"limit": 100})
    assert {event["type"] for event in listed["data"]} >= {"charge.succeeded"}


async def test_an_edit_of_the_archive_or_of_the_rest_is_seen(old: Old) -> None:
    await old.archive()
    archive, text = Archive(old.directory), old.file.read_bytes()
    lines = text.splitlines(keepends=True)
    old.file.write_bytes(text.replace(b'"amount_minor":4200', b'"amount_minor":4201', 1))
    damage = (await old.walk(archive)).damage
    assert damage is not None and damage.kind == "edited" and "archive" in damage.text
    old.file.write_bytes(b"".join(lines[1:]))
    damage = (await old.walk(archive)).damage
    assert damage is not None and damage.kind == "deleted" and "archive" in damage.text
    old.file.write_bytes(text)
    assert (await old.walk(archive)).damage is None
    row = (await old.entries())[0]
    edited = row.body.replace(b'"amount_minor":4200', b'"amount_minor":4201', 1)
    assert edited != row.body
    await old.app.store.commit([Write(row.key, row.version, edited)])
    damage = (await old.walk(archive)).damage
    assert damage is not None and damage.kind == "edited" and "archive" not in damage.text


async def test_a_forged_record_of_an_archive_is_seen(old: Old) -> None:
    """Whoever deletes entries cannot say that they are archived: that takes the key file."""
    from tillway.domain.retention import Archived
    from tillway.store.codec import write_of

    first = (await old.entries())[0]
    lie = Archived(id="arc_base", created=0, sequence=1, first=1, before=first.version, entries=1)
    await old.app.store.commit([Write(first.key, first.version, None), write_of(old.scope, lie, 0)])
    damage = (await old.walk()).damage
    assert damage is not None and "archive" in damage.text


async def test_a_run_that_was_killed_is_finished_by_the_next(old: Old) -> None:
    kept = await old.entries()
    filed = await old.archive()
    for row in kept[:3]:  # As if the deletions had not come to these.
        await old.app.store.commit([Write(row.key, 0, row.body)])
    archive = Archive(old.directory)
    assert (await old.walk(archive)).damage is None
    assert (await old.compare(archive)).differences == ()
    assert (await old.archive()).entries == 0
    assert len(await old.entries()) == len(kept) - filed.entries + 1
    assert (await old.walk(archive)).damage is None


async def test_damage_is_not_archived(old: Old) -> None:
    row = (await old.entries())[0]
    await old.app.store.commit([Write(row.key, row.version, row.body.replace(b"4200", b"4201", 1))])
    with pytest.raises(ArchiveRefused, match="audit verify"):
        await old.archive()
    assert not old.directory.exists()


async def test_a_redacted_entry_stays_proven_in_the_archive(old: Old) -> None:
    customer: Any = await old.objects.customer(name="Zelda Fitz")
    path = f"/ops/v1/customers/{customer['id']}/redact"
    await old.app.ok(old.objects.merchant.admin_key, "POST", path, {"reason": "Asked for."})
    await old.link()
    old.app.clock.ahead_seconds += 40 * SECONDS_PER_DAY
    await old.app.running.platform.engine.time.refresh()
    await old.archive()
    assert b"Zelda" not in old.file.read_bytes() and b'"redacted"' in old.file.read_bytes()
    await old.link()
    archive = Archive(old.directory)
    assert (await old.walk(archive)).damage is None
    assert (await old.compare(archive)).differences == ()
