"""Reports from a copy of the ledger are those from the store, whatever happens while it is copied; and a copy that is
not whole, or not the one that was written, makes none."""

import random
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tillway.aws.audit_copy import AuditCopy
from tillway.aws_client import Lost
from tillway.domain.account import SYSTEM, Scope
from tillway.domain.audit import COPIED_ID
from tillway.domain.ledger_copy import SOURCE_FIELDS, CopiedEntry, CopiedSource, Whole, object_of, read_object
from tillway.domain.redaction import PERSONAL
from tillway.domain.refund import Refund
from tillway.engine.audit.archive import archive_scope
from tillway.engine.audit.copies import Directory, compare_copy
from tillway.engine.audit.entries import Author
from tillway.engine.audit.ledger_copies import CopiedLedger, CopyUnfit, name_of_whole, read_copy
from tillway.engine.ids import time_prefix
from tillway.engine.time_mark import SETTLED_SECONDS
from tillway.operations import reports
from tillway.store.codec import decode
from tillway.store.port import ABSENT, Store, Write
from tillway.store.walk import merchant_scopes
from tillway.testing.in_process import InProcessApp, Merchant

DAY = 86_400
BUCKET = "copy"
METHODS = ("pm_card_visa", "pm_card_bypassPending", "pm_card_createDispute", "pm_card_chargeDeclined")


class Folder:
    """The bucket's side of a worker: objects as files. `puts` of them reach it, and then no more."""

    def __init__(self, path: Path, puts: int = 1 << 30) -> None:
        self.path = path
        self._puts = puts

    async def put(self, path: str, payload: bytes, headers: Mapping[str, str]) -> None:
        if self._puts == 0:
            raise Lost("the worker was killed")
        self._puts -= 1
        file = self.path / path.removeprefix(f"/{BUCKET}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        assert not file.exists() or file.read_bytes() == payload, f"{file.name} was put with other bytes"
        file.write_bytes(payload)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    opened = await InProcessApp.open(tmp_path)
    yield opened
    await opened.close()


async def trade(app: InProcessApp, shop: Merchant, chance: random.Random) -> None:
    """One thing that a merchant does: most move money."""
    amount = chance.randint(60, 90_000)
    asked: dict[str, Any] = {"amount": amount, "currency": chance.choice(("eur", "usd", "jpy")), "confirm": True}
    asked["payment_method"], asked["return_url"] = chance.choice(METHODS), "https://shop.example"
    asked["capture_method"] = chance.choice(("automatic", "manual"))
    paid = (await app.call(shop, "POST", "/v1/payment_intents", asked)).json
    if paid.get("status") == "requires_capture":
        match chance.choice(("capture", "capture", "cancel", "leave")):
            case "capture":
                body = {"amount_to_capture": chance.randint(50, amount)}
                await app.ok(shop, "POST", f"/v1/payment_intents/{paid['id']}/capture", body)
            case "cancel":
                await app.ok(shop, "POST", f"/v1/payment_intents/{paid['id']}/cancel")
            case _:
                return
    if paid.get("status") == "succeeded" and chance.random() < 0.5:
        part = {"payment_intent": paid["id"], "amount": chance.randint(1, amount)}
        await app.call(shop, "POST", "/v1/refunds", part)
    if chance.random() < 0.2:
        await app.call(shop, "POST", "/v1/payouts", {"amount": 50, "currency": "eur"})


async def link(app: InProcessApp) -> None:
    """Let time pass until all entries are linked."""
    for _ in range(2):
        await app.running.platform.engine.time.refresh(anyway=True)
        app.clock.ahead_seconds += SETTLED_SECONDS + 15
    await app.running.platform.engine.time.refresh(anyway=True)
    await app.running.runner.audit.ensure()
    for _ in range(3):
        for row in await app.store.claim("audit", now_ms=app.clock.now_ms() + DAY * 1000, lease_ms=1, limit=100):
            await app.running.runner.audit.run(row)


async def end_day(app: InProcessApp, copy: AuditCopy) -> int:
    """Copy everything, and let the day end. Return that moment."""
    end = (app.clock.now_ms() // 1000 // DAY + 1) * DAY
    app.clock.ahead_seconds += end - app.clock.now_ms() // 1000 + 1
    await link(app)
    await copy.add_all()
    await copy.send(app.running.platform.engine.time.settled_until())
    return end


async def report(
    store: Store | CopiedLedger, scopes: list[str], end: int, by: tuple[str, ...] = reports.COLUMNS
) -> list[Any]:
    found = []
    for scope in scopes:
        found += [line.document(by) for line in await reports.transactions(store, scope, end - 30 * DAY, end - 1, by)]
    return found


@pytest.mark.parametrize("seed", range(4))
async def test_a_report_from_the_copy_is_that_from_the_store(app: InProcessApp, tmp_path: Path, seed: int) -> None:
    chance, place = random.Random(seed), tmp_path / "copy"
    shops = [await app.merchant() for _ in range(2)]
    workers = [AuditCopy(app.store, Folder(place), BUCKET) for _ in range(2)]
    for _ in range(6):
        for _ in range(chance.randint(1, 5)):
            await trade(app, chance.choice(shops), chance)
        await app.wait(chance.choice((1, 4000)))
        await link(app)
        # A worker that is killed after some objects, and two that copy the same.
        killed = AuditCopy(app.store, Folder(place, chance.randint(0, 3)), BUCKET)
        for worker in (killed, *chance.sample(workers, chance.randint(0, 2))):
            await worker.add_all()
            await worker.send()
    end = await end_day(app, workers[0])
    copied = await read_copy(Directory(place))
    assert copied.whole.until == end and copied.scopes == await merchant_scopes(app.store)
    expected = await report(app.store, copied.scopes, end)
    assert {line["type"] for line in expected} >= {"charge"} and len(expected) > 3
    assert await report(copied, copied.scopes, end) == expected
    for by in ((), ("status",), ("day", "connector")):
        assert await report(copied, copied.scopes, end, by) == await report(app.store, copied.scopes, end, by)
    assert (await compare_copy(app.store, Directory(place)))[1] == []
    copied.close()


@pytest.fixture
async def copy(app: InProcessApp, tmp_path: Path) -> tuple[Path, str]:
    """A whole copy with three objects of a merchant, and its scope."""
    place, shop, chance = tmp_path / "copy", await app.merchant(), random.Random(1)
    worker = AuditCopy(app.store, Folder(place), BUCKET)
    for _ in range(3):
        for _ in range(3):
            await trade(app, shop, chance)
        await link(app)
        await worker.add_all()
        await worker.send()
    await end_day(app, worker)
    return place, Scope(account=shop.account, mode="test").key


def objects(copy: tuple[Path, str]) -> list[Path]:
    found = sorted((copy[0] / "ledger").glob(f"2*/*/*/{copy[1]}/*"))
    assert len(found) >= 3
    return found


async def refusal(place: Path) -> str:
    with pytest.raises(CopyUnfit) as unfit:
        (await read_copy(Directory(place))).close()
    return str(unfit.value)


@pytest.mark.parametrize("number", range(3))
async def test_each_line_that_is_removed_doubled_or_altered_is_found(
    app: InProcessApp, copy: tuple[Path, str], number: int
) -> None:
    file = objects(copy)[number]
    content = file.read_bytes()
    lines = content.splitlines(keepends=True)
    for at, line in enumerate(lines):
        bent = {
            "removed": lines[:at] + lines[at + 1 :],
            "doubled": [*lines[: at + 1], line, *lines[at + 1 :]],
            "altered": [*lines[:at], line.replace(b"1", b"2"), *lines[at + 1 :]],
        }
        for how, put in bent.items():
            file.write_bytes(b"".join(put))
            if b"".join(put) != content:
                assert file.name in await refusal(copy[0]), (how, at)
                [fault] = (await compare_copy(app.store, Directory(copy[0])))[1]
                assert f"{file.name} is not what the trail and the ledger lead to" in fault.text
    file.write_bytes(content)
    (await read_copy(Directory(copy[0]))).close()


async def test_an_object_that_is_missing_is_found(app: InProcessApp, copy: tuple[Path, str], tmp_path: Path) -> None:
    files = objects(copy)
    (aside := tmp_path / "aside").mkdir()
    first, last = files[0].rename(aside / "first"), files[-1]
    assert "are missing before it" in await refusal(copy[0])
    assert f"{files[0].name} is missing in the bucket" in (await compare_copy(app.store, Directory(copy[0])))[1][0].text
    first.rename(files[0])
    last.rename(aside / "last")
    assert f"The copy of {copy[1]} must have" in await refusal(copy[0])
    (aside / "last").rename(last)
    [note] = (copy[0] / "ledger" / "whole").iterdir()
    note.rename(aside / "note")
    assert "no day of the copy is whole yet" in await refusal(copy[0])
    (aside / "note").rename(note)
    shutil.copy(last, last.parent / "note.txt")
    assert "note.txt is no object of the copy" in await refusal(copy[0])


@pytest.mark.parametrize("number", range(3))
async def test_an_object_that_agrees_with_itself_is_found(
    app: InProcessApp, copy: tuple[Path, str], number: int
) -> None:
    file = objects(copy)[number]
    head, lines = read_object(file.read_bytes())
    bent = [replace(line, amount_minor=1) if isinstance(line, CopiedEntry) else line for line in lines]
    assert bent != lines
    file.write_bytes(object_of(head.scope, head.batch, bent, head.total - head.entries, head.previous))
    assert ("does not follow" if number < 2 else "or another object of that batch") in await refusal(copy[0])


async def test_a_day_is_whole_once_every_scope_is_copied(app: InProcessApp, tmp_path: Path) -> None:
    place, shop, chance = tmp_path / "copy", await app.merchant(), random.Random(2)
    await trade(app, shop, chance)
    late = AuditCopy(app.store, Folder(place, 0), BUCKET)
    end = await end_day(app, late)
    settled = app.running.platform.engine.time.settled_until()
    note = place / name_of_whole(end)
    assert not note.exists()
    worker = AuditCopy(app.store, Folder(place), BUCKET)
    await worker.send(settled)
    assert not note.exists(), "nothing of the merchant's is copied"
    await worker.add_all()
    await worker.send(settled)
    assert note.exists()
    # Another worker does not note it again.
    await AuditCopy(app.store, Folder(place, 0), BUCKET).send(settled)


async def test_a_ledger_that_is_older_than_its_trail_is_not_copied(app: InProcessApp, tmp_path: Path) -> None:
    place, shop, chance = tmp_path / "copy", await app.merchant(), random.Random(1)
    await trade(app, shop, chance)
    scope = Scope(account=shop.account, mode="test").key
    for row in await app.store.query(None, f"{scope}/aud_"):
        await app.store.commit([Write(row.key, row.version, None)])
    await trade(app, shop, chance)
    end = await end_day(app, AuditCopy(app.store, Folder(place), BUCKET))
    copied = await read_copy(Directory(place))
    assert copied.whole.until == end
    assert "is older than the audit trail" in copied.whole.scopes[scope].refused
    copied.close()


async def faults(app: InProcessApp, place: Path) -> list[str]:
    """The differences between a copy and the store, one a scope."""
    return [fault.text for fault in (await compare_copy(app.store, Directory(place)))[1]]


async def test_a_trail_that_was_redacted_before_it_was_copied_agrees(app: InProcessApp, tmp_path: Path) -> None:
    shop = await app.merchant()
    # One commit makes the customer and its card, so that both redactions change one entry.
    card = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2050, "cvc": "123", "name": "Zelda"}
    token = await app.ok(shop, "POST", "/v1/tokens", {"card": card})
    customer = await app.ok(shop, "POST", "/v1/customers", {"name": "Zelda", "source": token["id"]})
    asked: dict[str, Any] = {"amount": 900, "currency": "eur", "confirm": True, "customer": customer["id"]}
    asked |= {
        "payment_method": customer["default_source"],
        "description": "Zelda",
        "return_url": "https://shop.example",
    }
    paid = await app.ok(shop, "POST", "/v1/payment_intents", asked)
    await link(app)
    redactions = (f"payments/{paid['id']}", f"customers/{customer['id']}", None)
    copies: list[SeparateCopy] = []
    for path, count in zip(redactions, (7, 1, 0), strict=True):
        copies.append(SeparateCopy(app, tmp_path / str(count)))
        for copy in copies:
            await copy.go_on()
            assert await faults(app, copy.place) == []
        assert copies[-1].trail.count(b"Zelda") == count
        if path is not None:
            await app.ok(shop.admin_key, "POST", f"/ops/v1/{path}/redact", {"reason": "She asked."})
            await link(app)
    for copy in copies:
        await copy.go_on()
        [file, *_] = [file for file in copy.files if b'"amount_minor":900' in file.read_bytes()]
        file.write_bytes(file.read_bytes().replace(b'"amount_minor":900', b'"amount_minor":901'))
        assert f"{file.name} has another aud_" in (await faults(app, copy.place))[0]


class SeparateCopy:
    """A copy of the trail in a bucket of its own, and how far it goes: the store knows that of one copy at a time."""

    def __init__(self, app: InProcessApp, place: Path) -> None:
        self.place = place
        self._app = app
        self._reached: dict[str, bytes] = {}

    async def go_on(self) -> None:
        """Copy what is new, and let the store know how far this copy goes."""
        store = self._app.store
        for scope in (SYSTEM, *await merchant_scopes(store)):
            key = f"{scope}/{COPIED_ID}"
            row, body = await store.get(key), self._reached.get(key)
            if row is not None or body is not None:
                await store.commit([Write(key, row.version if row is not None else ABSENT, body)])
        worker = AuditCopy(store, Folder(self.place), BUCKET)
        await worker.add_all()
        await worker.send()
        keys = [f"{scope}/{COPIED_ID}" for scope in (SYSTEM, *await merchant_scopes(store))]
        self._reached = {key: row.body for key, row in (await store.get_many(keys)).items()}

    @property
    def files(self) -> list[Path]:
        return sorted((self.place / "audit").rglob("*.ndjson"))

    @property
    def trail(self) -> bytes:
        return b"".join(file.read_bytes() for file in self.files)


async def test_batches_that_were_archived_before_they_were_copied_are_left_out(
    app: InProcessApp, tmp_path: Path
) -> None:
    place, shop, chance = tmp_path / "copy", await app.merchant(), random.Random(1)
    scope, signer = Scope(account=shop.account, mode="test").key, app.running.platform.signer
    assert signer is not None
    await trade(app, shop, chance)
    await link(app)
    app.clock.ahead_seconds += 40 * DAY
    await trade(app, shop, chance)
    await link(app)
    at, by = app.clock.moment(), Author("cli:ada@host", "tillway retention archive")
    before = at.now - 30 * DAY
    filed = await archive_scope(app.store, scope, tmp_path / "archive", before=before, by=by, at=at, signer=signer)
    assert filed.entries
    end = await end_day(app, AuditCopy(app.store, Folder(place), BUCKET))
    names = sorted(file.name for file in (place / "audit").glob(f"*/*/*/{scope}/*"))
    archived = len(await app.store.query(None, f"{scope}/mrk_")) - len(names)
    assert archived >= 1 and names[0].startswith(f"{archived + 1:012d}-")
    assert await faults(app, place) == []
    copied = await read_copy(Directory(place))
    assert copied.whole.until == end
    assert "was archived before it was copied" in copied.whole.scopes[scope].refused
    copied.close()
    # What is there must stay.
    [file, *_] = (place / "audit").glob(f"*/*/*/{scope}/*")
    file.unlink()
    assert f"{file.name} is missing in the bucket" in (await faults(app, place))[0]


async def test_changes_go_by_version_and_begin_anew_after_an_import() -> None:
    def told(second: int, version: int, **fields: Any) -> CopiedSource:
        return CopiedSource(id="re_1", version=version, told_by=f"aud_{time_prefix(second)}00000000", fields=fields)

    copied, scope, now = CopiedLedger(Whole(until=0, scopes={})), "0123456789abcdeft", 1_800_000_000
    for place, line in enumerate(
        (
            told(now, 1, created=1, amount_minor=5, currency="eur", charge="ch_1", payment="pi_1"),
            told(now + 8, 3, status="failed"),  # By a process with a clock that is ahead of the next one's.
            told(now + 9, 2, status="pending", connector="bank"),
            told(now + 99, 2, connector="other"),  # In another store, after an import.
        )
    ):
        copied.add(scope, line, place)
        row = await copied.get(f"{scope}/re_1")
    refund = decode("re_1", row.body if row is not None else b"")
    assert isinstance(refund, Refund) and (refund.status, refund.connector) == ("failed", "other")
    copied.close()


def test_no_personal_data_is_copied() -> None:
    told = {name for fields in SOURCE_FIELDS.values() for name in fields} | set(CopiedEntry.__struct_fields__)
    assert not told & set(PERSONAL)


def test_the_copy_names_every_field_that_a_record_needs() -> None:
    for kind, fields in SOURCE_FIELDS.items():
        needed = set(kind.__struct_fields__[: len(kind.__struct_fields__) - len(kind.__struct_defaults__)])
        assert needed - set(fields) - {"id", "recipient"} == set(), kind
