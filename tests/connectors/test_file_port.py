"""Files out, files in: the contract over a small file provider, the folder in between, and a return that settles."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from csv_bank import CsvBank, CsvConnector

from tillway.connectors.file_port import FILE_BYTES_MAX, Batch, Entry, FileRejected, Folder, OutboundFile, Return, match
from tillway.connectors.port import Declined, Operation
from tillway.operations import notices
from tillway.testing.file_contract import FILE_CHECKS, NOW, FileCheck
from tillway.testing.in_process import InProcessApp, Merchant


@pytest.mark.parametrize("check", FILE_CHECKS, ids=lambda check: check.__name__)
def test_contract(check: FileCheck) -> None:
    check(CsvBank())


class Forgetful(CsvConnector):
    """Leaves out the last operation."""

    def build(self, operations: Sequence[Operation], batch: Batch) -> OutboundFile:
        return super().build(operations[:-1], batch)


class Numberless(CsvConnector):
    """Counts every file as the first."""

    def build(self, operations: Sequence[Operation], batch: Batch) -> OutboundFile:
        return super().build(operations, msgspec.structs.replace(batch, number=1, number_today=1))


class Trusting(CsvConnector):
    """Reads as far as it can, and believes every amount."""

    def read(self, name: str, content: bytes) -> list[Return]:
        lines = [line.split(";") for line in content.decode(errors="replace").splitlines()]
        return [
            Return(id=row[0], trace=row[0], outcome=Declined("card_declined", "insufficient_funds"))
            for row in lines
            if len(row) == 3 and row[0] != "END"
        ]


@pytest.mark.parametrize(
    ("broken", "caught_by"),
    [
        (Forgetful, {"carries_each_operation_once"}),
        (Numberless, {"never_repeats_a_name_or_trace"}),
        (Trusting, {"what_contradicts_the_file_that_was_sent_is_rejected", "what_is_no_whole_file_is_rejected"}),
    ],
)
def test_the_contract_bites(broken: type[CsvConnector], caught_by: set[str]) -> None:
    failed = set()
    for check in FILE_CHECKS:
        far = CsvBank()
        far.connector = broken()
        try:
            check(far)
        except (AssertionError, IndexError, ValueError):
            failed.add(check.__name__)
    assert caught_by <= failed


ENTRY = Entry(trace="t1", reference="r1", amount_minor=4200, currency="eur")
BACK = Return(id="n1", trace="t1", outcome=Declined(), amount_minor=4200, currency="EUR")


def test_a_return_becomes_a_notice() -> None:
    [notice] = match([BACK], {"t1": ENTRY})
    assert (notice.id, notice.reference, notice.outcome) == ("n1", "r1", Declined())


@pytest.mark.parametrize("change", [{"trace": "t2"}, {"amount_minor": 4201}, {"currency": "usd"}])
def test_a_return_that_contradicts_moves_nothing(change: dict[str, object]) -> None:
    with pytest.raises(FileRejected):
        match([BACK, msgspec.structs.replace(BACK, **change)], {"t1": ENTRY})


def outbound(name: str = "a.csv", content: bytes = b"one") -> OutboundFile:
    return OutboundFile(name=name, content=content, entries=(ENTRY,))


def numbered(number: int) -> Batch:
    return Batch(created_at=NOW, number=number)


def test_a_file_goes_out_whole_and_once(tmp_path: Path) -> None:
    folder, place = Folder(tmp_path), tmp_path / "outbound" / "a.csv"
    assert folder.finish(1) is None
    written = folder.put(outbound(), numbered(1))
    assert folder.put(outbound(), numbered(1)) == written == folder.finish(1)
    assert (written.name, written.entries) == ("a.csv", (ENTRY,))
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "outbound").iterdir()] == [("a.csv", b"one")]
    for name, number in (("a.csv", 1), ("a.csv", 2)):
        with pytest.raises(FileExistsError):
            folder.put(outbound(name, content=b"two"), numbered(number))
    assert place.read_bytes() == b"one"
    with pytest.raises(AssertionError):
        folder.put(outbound("../a.csv"), numbered(3))
    # A crash between writing and renaming leaves a part that the next attempt replaces.
    (tmp_path / "outbound" / ".b.csv.part").write_bytes(b"half")
    folder.put(outbound("b.csv"), numbered(4))
    assert (tmp_path / "outbound" / "b.csv").read_bytes() == b"one"
    assert "csv" in repr(outbound()) and "one" not in repr(outbound())


def test_a_file_that_the_provider_has_fetched_is_not_written_again(tmp_path: Path) -> None:
    folder, place = Folder(tmp_path), tmp_path / "outbound" / "a.csv"
    folder.put(outbound(), numbered(1))
    place.rename(tmp_path / "fetched")
    assert Folder(tmp_path).finish(1) is not None and folder.put(outbound(), numbered(1)) is not None
    assert not place.exists()


def test_a_crash_before_the_rename_is_made_good(tmp_path: Path) -> None:
    folder, place = Folder(tmp_path), tmp_path / "outbound" / "a.csv"
    folder.put(outbound(), numbered(1))
    # As a process leaves it that died after the file's record and before its rename.
    place.rename(place.with_name(".a.csv.part"))
    assert folder.finish(1) is not None
    assert place.read_bytes() == b"one" and [path.name for path in place.parent.iterdir()] == ["a.csv"]


def test_files_come_in_and_are_put_away(tmp_path: Path) -> None:
    folder, inbound = Folder(tmp_path), tmp_path / "inbound"
    for name in ("b", "a", ".c.part"):
        (inbound / name).write_text(name)
    (inbound / "folder").mkdir()
    waiting = folder.waiting()
    first, second = waiting
    assert [size for size, _ in waiting.values()] == [1, 1]
    assert (first.name, folder.read(second)) == ("a", b"b")
    folder.accept(first)
    folder.reject(second, "no file of this provider")
    assert (tmp_path / "processed" / "a").read_text() == "a"
    assert (tmp_path / "rejected" / "b.reason").read_text() == "no file of this provider\n"
    # The same name again does not replace the one of before.
    (inbound / "a").write_text("again")
    folder.accept(inbound / "a")
    assert (tmp_path / "processed" / "a.2").read_text() == "again"
    with (inbound / "large").open("wb") as large:
        large.truncate(FILE_BYTES_MAX + 1)
    with pytest.raises(FileRejected, match="larger"):
        folder.read(inbound / "large")


async def available(app: InProcessApp, merchant: Merchant) -> int:
    [row] = (await app.ok(merchant, "GET", "/v1/balance"))["available"]
    return int(row["amount"])


async def test_a_return_fails_the_payout_and_the_money_comes_back_once(tmp_path: Path) -> None:
    """The way through the folder: a payout of the engine goes out in a file, and its return settles it."""
    app = await InProcessApp.open(tmp_path)
    try:
        merchant = await app.merchant()
        await app.ok(
            merchant,
            "POST",
            "/v1/charges",
            {"amount": 9000, "currency": "eur", "source": "tok_bypassPending"},
        )
        account = {"object": "bank_account", "country": "US", "currency": "eur", "routing_number": "110000000"}
        path = f"/v1/accounts/{merchant.account}/external_accounts"
        await app.ok(merchant, "POST", path, {"external_account": {**account, "account_number": "000123456789"}})
        paid = await app.ok(merchant, "POST", "/v1/payouts", {"amount": 5000, "currency": "eur"})
        await app.wait(60)
        assert (await app.ok(merchant, "GET", f"/v1/payouts/{paid['id']}"))["status"] == "paid"
        before = await available(app, merchant)
        operations = (await app.simulator(merchant)).bank.operations()
        [operation] = [known for known in operations if known.kind == "payout"]

        bank, folder = CsvBank(), Folder(tmp_path / "files")
        file = bank.connector.build([bank.operation(operation.reference, 5000)], Batch(created_at=NOW, number=1))
        folder.put(file, Batch(created_at=NOW, number=1))
        name, content = bank.answer(file, [file.entries[0].trace])
        for _ in range(2):
            (folder.directory / "inbound" / name).write_bytes(content)
            [came] = folder.waiting()
            sent = {entry.trace: entry for entry in file.entries}
            for notice in match(bank.connector.read(came.name, folder.read(came)), sent):
                await notices.book(app.running.platform.attempts, notice, "simulator", "test")
            folder.accept(came)
        failed = await app.ok(merchant, "GET", f"/v1/payouts/{paid['id']}")
        assert (failed["status"], failed["failure_code"]) == ("failed", "insufficient_funds")
        assert await available(app, merchant) == before + 5000
    finally:
        await app.close()
