"""Statements of banks and providers as files: camt.053 and CSV."""

import pytest

from tillway.connectors.file_port import FileRejected
from tillway.connectors.statements import read_statement

CAMT = """<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt>
<GrpHdr><MsgId>M1</MsgId><CreDtTm>2026-05-13T04:00:00</CreDtTm></GrpHdr>
<Stmt><Id>S1</Id><Acct><Id><IBAN>DE89370400440532013000</IBAN></Id></Acct>
<Bal><Tp><CdOrPrtry><Cd>OPBD</Cd></CdOrPrtry></Tp><Amt Ccy="EUR">100.00</Amt><CdtDbtInd>CRDT</CdtDbtInd>
<Dt><Dt>2026-05-12</Dt></Dt></Bal>
<Bal><Tp><CdOrPrtry><Cd>CLBD</Cd></CdOrPrtry></Tp><Amt Ccy="EUR">{closing}</Amt><CdtDbtInd>CRDT</CdtDbtInd>
<Dt><Dt>2026-05-12</Dt></Dt></Bal>
<Ntry><NtryRef>N1</NtryRef><Amt Ccy="EUR">950.10</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts>
<BookgDt><Dt>2026-05-12</Dt></BookgDt><ValDt><Dt>2026-05-13</Dt></ValDt><AcctSvcrRef>B-77</AcctSvcrRef>
<NtryDtls><TxDtls><Refs><EndToEndId>NOTPROVIDED</EndToEndId></Refs>
<RmtInf><Ustrd>STRIPE PAYOUT po_1R8Xa</Ustrd></RmtInf></TxDtls></NtryDtls></Ntry>
<Ntry><Amt Ccy="EUR">30.00</Amt><CdtDbtInd>DBIT</CdtDbtInd><Sts>BOOK</Sts><BookgDt><Dt>2026-05-12</Dt></BookgDt>
<NtryDtls><Btch><PmtInfId>P1</PmtInfId></Btch>
<TxDtls><Refs><EndToEndId>ref-one</EndToEndId></Refs><Amt Ccy="EUR">10.00</Amt></TxDtls>
<TxDtls><Refs><EndToEndId>ref-two</EndToEndId></Refs>
<AmtDtls><TxAmt><Amt Ccy="EUR">{second}</Amt></TxAmt></AmtDtls></TxDtls></NtryDtls></Ntry>
<Ntry><Amt Ccy="EUR">7.00</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts><Cd>PDNG</Cd></Sts></Ntry>
</Stmt></BkToCstmrStmt></Document>"""

CSV = "date,amount,currency,reference,text,fee,settlement,colour\n"


def camt(closing: str = "1020.10", second: str = "20.00") -> bytes:
    return CAMT.format(closing=closing, second=second).encode()


def test_booked_entries_of_a_camt053_are_lines_and_pending_ones_are_not() -> None:
    lines = read_statement(camt(), place="bank", name="bank.xml")
    assert [(line.where, line.day, line.amount_minor, line.currency) for line in lines] == [
        ("bank.xml:S1:1", "2026-05-12", 95_010, "eur"),
        ("bank.xml:S1:2.1", "2026-05-12", -1_000, "eur"),
        ("bank.xml:S1:2.2", "2026-05-12", -2_000, "eur"),
    ]
    assert {"N1", "B-77", "po_1R8Xa"} <= {*lines[0].references} and "NOTPROVIDED" not in lines[0].references
    assert (lines[1].references, lines[2].references) == (("ref-one",), ("ref-two",))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (camt(closing="1020.11"), "do not make the closing balance"),
        (camt(second="20.01"), "do not add up to the entry"),
        (camt().replace(b"CRDT</CdtDbtInd><Sts><Cd>BOOK", b"CREDIT</CdtDbtInd><Sts><Cd>BOOK"), "not CRDT or DBIT"),
        (camt().replace(b'"EUR">950.10', b'"EUR">9,50.10'), "no amount of EUR"),
        (camt().replace(b"camt.053.001.08", b"camt.054.001.08"), "not a camt.053"),
        (camt().replace(b"<Document", b"<!DOCTYPE Document><Document"), "DOCTYPE"),
        (b"<Document>", "not XML"),
    ],
)
def test_a_camt053_that_contradicts_itself_is_rejected_with_the_place(content: bytes, says: str) -> None:
    with pytest.raises(FileRejected, match=says):
        read_statement(content, place="bank", name="bank.xml")


def test_rows_of_csv_are_lines() -> None:
    content = (
        "\ufeff" + CSV + '2026-05-12,-12.50,USD,re_1,"Refund, order 6735",0.30,po_1,red\n2026-05-12,1000,JPY,ch_2\n'
    )
    one, two = read_statement(content.encode(), place="stripe", name="stripe.csv")
    assert (one.amount_minor, one.currency, one.fee_minor, one.settlement) == (-1_250, "usd", 30, "po_1")
    assert one.references == ("re_1", "Refund") and one.where == "stripe.csv:2"
    assert (two.amount_minor, two.currency, two.fee_minor, two.settlement) == (1_000, "jpy", 0, None)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("2026-05-12,1.234,usd,x", "stripe.csv:2: the amount '1.234' is no amount of USD"),
        ("2026-05-12,1e3,usd,x", "no amount"),
        ("12.05.2026,1.00,usd,x", "no date in ISO 8601"),
        ("2026-05-12,1.00,usdx,x", "no currency"),
        ("2026-05-12,1.00,usd,x,,free", "the fee 'free'"),
        ('2026-05-12,"1.00,usd,x', "not CSV"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(row: str, says: str) -> None:
    with pytest.raises(FileRejected, match=says):
        read_statement((CSV + row).encode(), place="stripe", name="stripe.csv")


def test_a_header_without_a_needed_column_is_named() -> None:
    with pytest.raises(FileRejected, match="lacks currency, reference"):
        read_statement(b"date,amount\n", place="stripe", name="stripe.csv")
