"""The connector `pain001`: the contract of file connectors, sepaxml's schemas, and status reports."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import sepaxml
import xmlschema

from tillway.connectors import registry
from tillway.connectors.file_port import Batch, FileRejected, Filing, OfFile, OutboundFile
from tillway.connectors.pain001 import REASONS, Pain001Files, execution_date, in_sepa_characters
from tillway.connectors.port import Declined, Operation, Recipient, Succeeded
from tillway.connectors.settings import SettingInvalid
from tillway.connectors.xml_files import parse_xml
from tillway.domain import payout
from tillway.testing.file_contract import FILE_CHECKS, NOW, FileCheck

SETTINGS = {
    "directory": "/var/lib/tillway/sepa",
    "initiator": "Acme GmbH",
    "debtor_name": "Acme Zahlungen & Söhne",
    "debtor_iban": "DE89 3704 0044 0532 0130 00",
    "debtor_bic": "COBADEFFXXX",
}
SCHEMA = xmlschema.XMLSchema(Path(sepaxml.__file__).parent / "schemas" / "pain.001.001.09.xsd")
PAIN = "{urn:iso:std:iso:20022:tech:xsd:pain.001.001.09}"


def pain001() -> Pain001Files:
    filing, _ = registry.build("pain001", SETTINGS)
    assert isinstance(filing, Filing) and isinstance(filing.files, Pain001Files)
    return filing.files


def transfer(reference: str, amount_minor: int, name: str | None = "Ada Lovelace", **fields: Any) -> Operation:
    to = Recipient("bank_account", "FR1420041010050500013M02606", name)
    return Operation(
        reference=reference, kind="payout", amount_minor=amount_minor, currency="eur", recipient=to, **fields
    )


def status_report(rows: Sequence[tuple[str, str, str, int | None]], message: str = "m", group: str = "") -> bytes:
    """A pain.002: (end-to-end id, status, reason, amount in cents) of each transfer."""
    told = []
    for trace, status, reason, amount in rows:
        original = ""
        if amount is not None:
            value = f"{amount // 100}.{amount % 100:02d}"
            original = f'<OrgnlTxRef><Amt><InstdAmt Ccy="EUR">{value}</InstdAmt></Amt></OrgnlTxRef>'
        why = f"<StsRsnInf><Rsn><Cd>{reason}</Cd></Rsn></StsRsnInf>" if reason else ""
        told.append(
            f"<TxInfAndSts><OrgnlEndToEndId>{trace}</OrgnlEndToEndId><TxSts>{status}</TxSts>{why}{original}</TxInfAndSts>"
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.002.001.10">'
        "<CstmrPmtStsRpt><GrpHdr><MsgId>S1</MsgId><CreDtTm>2026-05-29T08:00:00</CreDtTm></GrpHdr>"
        f"<OrgnlGrpInfAndSts><OrgnlMsgId>{message}</OrgnlMsgId><OrgnlMsgNmId>pain.001.001.09</OrgnlMsgNmId>"
        f"{group}</OrgnlGrpInfAndSts>"
        f"<OrgnlPmtInfAndSts><OrgnlPmtInfId>{message}</OrgnlPmtInfId>{''.join(told)}</OrgnlPmtInfAndSts>"
        "</CstmrPmtStsRpt></Document>"
    ).encode()


class SepaFarSide:
    def __init__(self) -> None:
        self.connector = pain001()

    def operation(self, reference: str, amount_minor: int) -> Operation:
        return transfer(reference, amount_minor)

    def impossible(self) -> Operation:
        us_account = Recipient("bank_account", "110000000/000123456789", "Ada Lovelace")
        return Operation(reference="r", kind="payout", amount_minor=1, currency="eur", recipient=us_account)

    def performed(self, content: bytes) -> list[tuple[str, int, str]]:
        document: Any = SCHEMA.to_dict(content.decode())
        [part] = document["CstmrCdtTrfInitn"]["PmtInf"]
        carried = []
        for one in part["CdtTrfTxInf"]:
            amount = one["Amt"]["InstdAmt"]
            carried.append((one["PmtId"]["EndToEndId"], int(amount["$"] * 100), amount["@Ccy"].lower()))
        return carried

    def answer(self, file: OutboundFile, traces: Sequence[str], **changes: Any) -> tuple[str, bytes]:
        amounts = {entry.trace: entry.amount_minor for entry in file.entries}
        rows = [
            (changes.get("trace", trace), "RJCT", "AM04", changes.get("amount_minor", amounts[trace]))
            for trace in traces
        ]
        return "status.xml", status_report(rows)


@pytest.mark.parametrize("check", FILE_CHECKS, ids=lambda check: check.__name__)
def test_contract(check: FileCheck) -> None:
    check(SepaFarSide())


def test_the_file_is_valid_and_the_schema_refuses_a_damaged_one() -> None:
    operations = [
        transfer("r1", 123_456, 'Zoë <Straße> & "Co"', statement_descriptor="Invoice 7 & 8"),
        transfer("r2", 1, None),
        transfer("r3", 99_999_999_999),
    ]
    file = pain001().build(operations, Batch(created_at=NOW, number=12))
    assert file.name == f"TW{NOW}-00000012.xml"
    text = file.content.decode()
    SCHEMA.validate(text)
    for damaged in (
        text.replace("<ChrgBr>SLEV</ChrgBr>", "<ChrgBr>NONE</ChrgBr>"),
        text.replace("COBADEFFXXX", "COBA"),
        text.replace("<PmtMtd>TRF</PmtMtd>", ""),
        text.replace("1234.56", "1234.567891"),
    ):
        assert damaged != text
        with pytest.raises(xmlschema.XMLSchemaValidationError):
            SCHEMA.validate(damaged)
    root = ElementTree.fromstring(text)
    assert [name.text for name in root.iter(f"{PAIN}Nm")] == [
        "Acme GmbH",
        "Acme Zahlungen Sohne",
        "Zoe Strasse Co",
        "NOTPROVIDED",
        "Ada Lovelace",
    ]
    assert [each.text for each in root.iter(f"{PAIN}CtrlSum")] == ["1000001234.56"] * 2
    assert next(root.iter(f"{PAIN}IBAN")).text == "DE89370400440532013000"
    assert [each.text for each in root.iter(f"{PAIN}Dt")] == ["2026-05-29"]
    assert [each.text for each in root.iter(f"{PAIN}Ustrd")] == ["Invoice 7 8"]


@pytest.mark.parametrize(
    ("made", "execution"),
    [
        ("2026-05-28T11:59", date(2026, 5, 28)),  # 13:59 in Frankfurt.
        ("2026-05-28T12:00", date(2026, 5, 29)),
        ("2026-01-15T12:59", date(2026, 1, 15)),  # The same in winter.
        ("2026-04-02T13:00", date(2026, 4, 7)),  # Maundy Thursday after the cut-off: Easter lies between.
        ("2026-05-01T09:00", date(2026, 5, 4)),
        ("2026-12-24T13:00", date(2026, 12, 28)),
    ],
)
def test_execution_dates(made: str, execution: date) -> None:
    assert execution_date(int(datetime.fromisoformat(made).replace(tzinfo=UTC).timestamp())) == execution


def test_statuses_of_transfers() -> None:
    report = status_report(
        [("t1", "RJCT", "AC04", 4200), ("t2", "ACSC", "", 1), ("t3", "ACSP", "", None), ("t4", "RJCT", "XX99", None)]
    )
    assert [(told.trace, told.outcome, told.amount_minor, told.currency) for told in pain001().read("s", report)] == [
        ("t1", Declined("card_declined", "account_closed"), 4200, "eur"),
        ("t2", Succeeded(), 1, "eur"),
        ("t3", None, None, None),
        ("t4", Declined("card_declined", "could_not_process"), None, None),
    ]


def test_the_status_of_a_whole_file() -> None:
    group = "<GrpSts>RJCT</GrpSts><StsRsnInf><Rsn><Cd>AM04</Cd></Rsn></StsRsnInf>"
    [told] = pain001().read("s", status_report([], f"TW{NOW}-00000012", group))
    assert told.of_file == OfFile(12, f"TW{NOW}-00000012.xml")
    assert told.outcome == Declined("card_declined", "insufficient_funds")
    [accepted] = pain001().read("s", status_report([], f"TW{NOW}-00000012", "<GrpSts>ACTC</GrpSts>"))
    assert accepted.outcome is None
    with pytest.raises(FileRejected):
        pain001().read("s", status_report([], "another", group))


@pytest.mark.parametrize(
    "content",
    [
        status_report([("t1", "FINE", "", None)]),
        status_report([("", "RJCT", "", None)]),
        status_report([("t1", "RJCT", "AC04", 4200)]).replace(b"42.00", b"4,2"),
        status_report([]),
        status_report([("t1", "ACSC", "", 1)]).replace(b"pain.002.001.10", b"camt.053.001.08"),
        b"<Document/>",
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>',
        b'<?xml version="1.0" encoding="nonsense"?><a/>',
        b"<a>" * 10_000,
    ],
)
def test_other_documents_are_rejected(content: bytes) -> None:
    with pytest.raises(FileRejected):
        pain001().read("s", content)


def test_a_document_with_a_doctype_is_rejected_for_it() -> None:
    with pytest.raises(FileRejected, match="DOCTYPE"):
        parse_xml(b"<!DOCTYPE a><a/>")


def test_every_reason_is_one_of_stripes() -> None:
    assert set(REASONS.values()) <= payout.FAILURES.keys()


def test_the_page_has_each_reason() -> None:
    page = Path("docs/providers/pain001.md").read_text()
    assert dict(re.findall(r"^\| ([A-Z0-9]{4}) \| `(\w+)` \|$", page, re.MULTILINE)) == REASONS


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_is_required_and_named(name: str) -> None:
    with pytest.raises(SettingInvalid, match=f"^{name}: missing"):
        registry.build("pain001", {key: value for key, value in SETTINGS.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("directory", "./files"),
        ("initiator", "x" * 71),
        ("debtor_name", "中文"),
        ("debtor_iban", "DE00370400440532013000"),
        ("debtor_bic", "COBA"),
        ("batch", "1"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingInvalid, match=f"^{name}: "):
        registry.build("pain001", {**SETTINGS, name: value})


@pytest.mark.parametrize(
    "operation",
    [
        transfer("r", 10**11),
        Operation(reference="r", kind="payout", amount_minor=1, currency="usd", recipient=transfer("r", 1).recipient),
        Operation(reference="r", kind="authorize", amount_minor=1, currency="eur"),
    ],
)
def test_what_sepa_cannot_carry_is_declined(operation: Operation) -> None:
    assert isinstance(pain001().refuse(operation), Declined)


def test_characters_of_sepa() -> None:
    assert in_sepa_characters("Łódź_Øresund § Œuvre?", 70) == "Lodz Oresund OEuvre?"
    assert in_sepa_characters("a b c", 2) == "a"
