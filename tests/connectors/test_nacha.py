"""The connector `nacha`: the contract of file connectors, the bank's strict reader, and moov's samples."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from ach_bank import AchEntry, Refused, notification_of_change, read_ach, returns
from provider_specs import published

from tillway.connectors import registry
from tillway.connectors.file_port import Batch, Correction, FileRejected, Filing, OutboundFile
from tillway.connectors.nacha import RETURNS, NachaFiles, effective_date, read_returns
from tillway.connectors.port import BankAccountData, Declined, Operation, Recipient
from tillway.connectors.settings import SettingInvalid
from tillway.domain import bank_account, payout
from tillway.testing.file_contract import FILE_CHECKS, NOW, FileCheck

SETTINGS = {
    "directory": "/var/lib/tillway/ach",
    "immediate_destination": "091000019",
    "immediate_destination_name": "First Bank",
    "immediate_origin": "1234567890",
    "immediate_origin_name": "Acme",
    "company_name": "Acme Corporation",
    "company_id": "1234567890",
    "originating_dfi": "09100001",
}


def nacha() -> NachaFiles:
    filing, _ = registry.build("nacha", SETTINGS)
    assert isinstance(filing, Filing) and isinstance(filing.files, NachaFiles)
    return filing.files


def credit(reference: str, amount_minor: int, **recipient: Any) -> Operation:
    ada = Recipient("bank_account", "110000000/000123456789", recipient.pop("name", "Ada Lovelace"), **recipient)
    return Operation(reference=reference, kind="payout", amount_minor=amount_minor, currency="usd", recipient=ada)


def debit(reference: str, amount_minor: int, **fields: Any) -> Operation:
    account = BankAccountData(
        type="us_bank_account", number="000987654321", routing_number="110000000", name="Bob", **fields
    )
    return Operation(reference=reference, kind="authorize", amount_minor=amount_minor, currency="usd", account=account)


class AchFarSide:
    def __init__(self) -> None:
        self.connector = nacha()

    def operation(self, reference: str, amount_minor: int) -> Operation:
        return credit(reference, amount_minor)

    def impossible(self) -> Operation:
        iban = Recipient("bank_account", "DE89370400440532013000", "Ada Lovelace")
        return Operation(reference="r", kind="payout", amount_minor=1, currency="usd", recipient=iban)

    def performed(self, content: bytes) -> list[tuple[str, int, str]]:
        return [(entry.trace, entry.amount, "usd") for entry in read_ach(content).entries]

    def answer(self, file: OutboundFile, traces: Sequence[str], **changes: Any) -> tuple[str, bytes]:
        entries = [entry for entry in read_ach(file.content).entries if entry.trace in traces]
        return "returns.ach", returns(entries, "R01", amount=changes.get("amount_minor"), trace=changes.get("trace"))


@pytest.mark.parametrize("check", FILE_CHECKS, ids=lambda check: check.__name__)
def test_contract(check: FileCheck) -> None:
    check(AchFarSide())


def test_credits_and_debits_of_people_and_companies() -> None:
    operations = [
        credit("r1", 100),
        debit("r2", 200),
        credit("r3", 300, holder_type="company", account_type="savings", name="Großmann & Söhne, Ltd., of London"),
        debit("r4", 400, account_holder_type="company", account_type="savings"),
        credit("r5", 500, account_type="savings"),
    ]
    assert [nacha().refuse(operation) for operation in operations] == [None] * 5
    batch = Batch(created_at=NOW, number=7, number_today=3, first_entry=41)
    file = nacha().build(operations, batch)
    assert file.name == "ACH-20260528-C-0000007.ach"
    read = read_ach(file.content)
    assert (read.destination, read.origin, read.created, read.modifier) == (" 091000019", "1234567890", "260528", "C")
    assert [(e.entry_class, e.transaction, e.amount, e.trace, e.name) for e in read.entries] == [
        ("CCD", "32", 300, "091000010000043", "GROSSMANN & SOHNE, LTD"),
        ("CCD", "37", 400, "091000010000044", "BOB"),
        ("PPD", "22", 100, "091000010000041", "ADA LOVELACE"),
        ("PPD", "32", 500, "091000010000045", "ADA LOVELACE"),
        ("PPD", "27", 200, "091000010000042", "BOB"),
    ]
    assert {(e.effective, e.company) for e in read.entries} == {("260529", "ACME CORPORATION")}
    assert [entry.reference for entry in file.entries] == ["r1", "r2", "r3", "r4", "r5"]


def test_the_bank_refuses_a_damaged_file() -> None:
    whole = nacha().build([credit("r1", 100)], Batch(created_at=NOW, number=1)).content
    read_ach(whole)
    for damaged in (
        whole.replace(b"0000000100", b"0000000101", 1),
        whole.replace(b"110000000", b"110000001", 1),
        whole.replace(b"220", b"225"),
        whole[:-95],
        whole.replace(b"094101", b"094102"),
    ):
        with pytest.raises(Refused):
            read_ach(damaged)


@pytest.mark.parametrize(
    ("made", "effective"),
    [
        ("2026-05-28T20:26", date(2026, 5, 29)),  # A Thursday afternoon in New York.
        ("2026-05-28T21:00", date(2026, 6, 1)),  # The cut-off, 17:00 in summer: Friday counts, then comes Monday.
        ("2026-01-15T21:59", date(2026, 1, 16)),  # 16:59 in winter.
        ("2026-01-15T22:00", date(2026, 1, 20)),  # The cut-off: behind the weekend lies a holiday.
        (
            "2026-07-02T12:00",
            date(2026, 7, 3),
        ),  # The fourth of July is a Saturday, and the Friday before is kept by no bank.
        ("2026-05-23T12:00", date(2026, 5, 27)),  # A Saturday before Memorial Day: Tuesday counts.
        ("2027-07-02T12:00", date(2027, 7, 6)),  # Independence Day on a Sunday is kept on Monday.
        ("2026-11-25T15:00", date(2026, 11, 27)),  # Thanksgiving.
    ],
)
def test_effective_dates(made: str, effective: date) -> None:
    assert effective_date(int(datetime.fromisoformat(made).replace(tzinfo=UTC).timestamp())) == effective


def test_silence_settles_after_the_days_of_returns() -> None:
    settles_at = nacha().settles_at(Batch(created_at=NOW, number=1))
    # Effective on Friday 29 May: the second banking day after it is Tuesday 2 June, 17:00 in New York.
    assert settles_at == int(datetime(2026, 6, 2, 21, tzinfo=UTC).timestamp())


def entry_of(operation: Operation) -> AchEntry:
    [entry] = read_ach(nacha().build([operation], Batch(created_at=NOW, number=1)).content).entries
    return entry


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("R01", "insufficient_funds"),
        ("R02", "account_closed"),
        ("R03", "no_account"),
        ("R16", "account_frozen"),
        ("R85", "could_not_process"),
        ("R97", "could_not_process"),
    ],
)
def test_returns(code: str, reason: str) -> None:
    [returned] = nacha().read("r.ach", returns([entry_of(debit("r1", 700))], code))
    assert (returned.amount_minor, returned.currency, returned.code) == (700, "usd", code)
    assert returned.outcome == Declined("card_declined", reason)


def test_every_reason_is_one_of_stripes() -> None:
    assert set(RETURNS.values()) <= payout.FAILURES.keys()
    of_debits_only = {"debit_not_authorized", "bank_ownership_changed"}
    assert of_debits_only <= bank_account.FAILURES.keys()
    assert {
        f"R{number:02d}" for number in (*range(1, 48), *range(50, 54), *range(61, 63), *range(67, 78), *range(80, 86))
    } == set(RETURNS)


@pytest.mark.parametrize(
    ("code", "data", "correction"),
    [
        ("C01", "1918171614", Correction(account_number="1918171614")),
        ("C02", "021000021", Correction(routing_number="021000021")),
        ("C03", "021000021   1918171614", Correction(routing_number="021000021", account_number="1918171614")),
        ("C04", "ADA KING", Correction(name="ADA KING")),
        ("C05", "32", Correction(account_type="savings")),
        ("C06", f"{'1918171614':<17}   22", Correction(account_number="1918171614", account_type="checking")),
        (
            "C07",
            f"021000021{'1918171614':<17}32",
            Correction(routing_number="021000021", account_number="1918171614", account_type="savings"),
        ),
        ("C13", "", None),
    ],
)
def test_notifications_of_change(code: str, data: str, correction: Correction | None) -> None:
    entry = entry_of(credit("r1", 700))
    [told] = nacha().read("c.ach", notification_of_change(entry, code, data))
    assert (told.trace, told.outcome, told.code, told.correction) == (entry.trace, None, code, correction)


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_is_required_and_named(name: str) -> None:
    with pytest.raises(SettingInvalid, match=f"^{name}: missing"):
        registry.build("nacha", {key: value for key, value in SETTINGS.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("directory", "files"),
        ("immediate_destination", "12345"),
        ("immediate_origin_name", "x" * 24),
        ("company_name", "Ümlaut"),
        ("company_id", "12345678901"),
        ("originating_dfi", "091000010"),
        ("originating_dfi", "0910000"),
        ("balance", "1"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingInvalid, match=f"^{name}: "):
        registry.build("nacha", {**SETTINGS, name: value})


@pytest.mark.parametrize(
    "operation",
    [
        credit("r", 10**10),
        Operation(reference="r", kind="payout", amount_minor=1, currency="eur", recipient=credit("r", 1).recipient),
        Operation(reference="r", kind="authorize", amount_minor=1, currency="usd"),
        Operation(
            reference="r",
            kind="payout",
            amount_minor=1,
            currency="usd",
            recipient=Recipient("bank_account", "110000001/000123456789"),
        ),
    ],
)
def test_what_ach_cannot_carry_is_declined(operation: Operation) -> None:
    assert isinstance(nacha().refuse(operation), Declined)


def test_the_page_has_each_reason() -> None:
    page = Path("docs/providers/nacha.md").read_text()
    assert dict(re.findall(r"^\| (R[0-9]{2}) \| .* \| `(\w+)` \|$", page, re.MULTILINE)) == RETURNS


# moov's samples.


def sample(name: str) -> bytes:
    return published("nacha", name).read_bytes()


@pytest.mark.parametrize(
    "name", ["ppd-debit.ach", "ppd-credit.ach", "ccd-debit.ach", "web-credit.ach", "tel-debit.ach"]
)
def test_the_strict_reader_takes_samples_of_others(name: str) -> None:
    whole = sample(name)
    amounts = [entry.amount for entry in read_ach(whole).entries]
    assert amounts
    with pytest.raises(Refused):
        read_ach(whole.replace(b"%010d" % amounts[0], b"%010d" % (amounts[0] + 1), 1))
    with pytest.raises(FileRejected, match="neither returns nor"):
        read_returns(whole)


def test_returns_and_corrections_of_others() -> None:
    told = read_returns(sample("testdata-return-WEB.ach"))
    assert [(returned.trace, returned.code, returned.amount_minor) for returned in told] == [
        ("091400600000001", "R01", 12354),
        ("091400600000003", "R03", 4565),
    ]
    [told_of_change] = read_returns(sample("testdata-cor-example.ach"))
    assert told_of_change.correction == Correction(account_number="1918171614")
    assert (told_of_change.trace, told_of_change.code) == ("121042880000001", "C01")
    [own_code] = read_returns(sample("testdata-return-PPD-custom-reason-code.ach"))
    assert (own_code.code, own_code.amount_minor) == ("R97", 106161)
    for name in ("dishonored-return.ach", "contested-return.ach"):
        assert {returned.code for returned in read_returns(sample(name))} & {"R68", "R71"}
    for name in ("testdata-return-WEB.ach", "testdata-cor-example.ach"):
        whole = sample(name)
        with pytest.raises(FileRejected):
            read_returns(whole.replace(b"0000012354", b"0000012355", 1).replace(b"0023138010", b"0023138011", 1))


def test_a_file_without_line_breaks_is_read() -> None:
    whole = sample("testdata-return-WEB.ach").replace(b"\r", b"")
    lines = [line.ljust(94) for line in whole.split(b"\n") if line]
    assert read_returns(b"".join(lines)) == read_returns(whole)


def test_every_sample_is_read_or_rejected() -> None:
    for path in sorted(published("nacha").glob("*.ach")):
        try:
            read_returns(path.read_bytes())
        except FileRejected:
            continue
