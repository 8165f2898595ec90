"""Settlement reports of Stripe, Adyen and PayPal, in the forms that their documentation shows."""

import pytest

from tillway.connectors.file_port import FileRejected
from tillway.connectors.settlement_reports import read_settlements

STRIPE = """\
automatic_payout_id,automatic_payout_effective_at,balance_transaction_id,created,available_on,currency,gross,fee,net,\
reporting_category,source_id,description
po_1,2026-05-12 00:00:00,txn_1,2026-05-08 10:00:00,2026-05-10 00:00:00,eur,90.00,2.91,87.09,charge,ch_1,"Order 1, two"
po_1,2026-05-12 00:00:00,txn_2,2026-05-09 10:00:00,2026-05-10 00:00:00,eur,-5.00,0.00,-5.00,refund,re_1,
po_1,2026-05-12 00:00:00,txn_3,2026-05-09 11:00:00,2026-05-10 00:00:00,eur,-0.40,0.00,-0.40,fee,,Radar
,,txn_4,2026-05-11 11:00:00,2026-05-14 00:00:00,eur,20.00,0.50,19.50,charge,ch_2,
po_2,2026-05-12 00:00:00,txn_5,2026-05-09 11:00:00,2026-05-10 00:00:00,jpy,500,18,482,charge,ch_3,
po_2,2026-05-12 00:00:00,txn_6,2026-05-09 11:00:00,2026-05-10 00:00:00,jpy,300,0,300,payout_reversal,po_0,
"""

ADYEN = """\
Company Account,Merchant Account,Psp Reference,Merchant Reference,Payment Method,Creation Date,TimeZone,Type,\
Modification Reference,Gross Currency,Gross Debit (GC),Gross Credit (GC),Exchange Rate,Net Currency,Net Debit (NC),\
Net Credit (NC),Commission (NC),Markup (NC),Scheme Fees (NC),Interchange (NC),Batch Number
Acme,AcmeShop,P1,ref-1,visa,2026-05-08 11:26:49,CET,Settled,M1,EUR,,90.00,1,EUR,,88.50,1.50,,,,4
Acme,AcmeShop,P2,ref-2,mc,2026-05-08 11:26:49,CET,Refunded,M2,EUR,5.00,,1,EUR,5.10,,,0.04,0.01,0.05,4
Acme,AcmeShop,P3,ref-3,mc,2026-05-08 11:26:49,CET,Settled,M3,GBP,,10.00,1.17,EUR,,11.51,,0.0812,0.0531,0.0567,4
Acme,AcmeShop,,,,2026-05-11 04:55:40,CEST,Fee,Transaction Fees May,,,,,EUR,0.30,,,,,,4
Acme,AcmeShop,,,,2026-05-11 04:55:40,CEST,DepositCorrection,Deposit,,,,,EUR,14.61,,,,,,4
Acme,AcmeShop,,,,2026-05-12 04:55:40,CEST,MerchantPayout,"TX1XT, batch 4",,,,,EUR,80.00,,,,,,4
"""

PAYPAL = """\
"RH",2026/05/13 02:44:19 -0700,"A","ACME123",009,
"FH",01
"SH",2026/05/12 00:00:00 -0700,2026/05/12 23:59:59 -0700,"ACME123",""
"CH","Transaction ID","Invoice ID","PayPal Reference ID","PayPal Reference ID Type","Transaction Event Code",\
"Transaction Initiation Date","Transaction Completion Date","Transaction  Debit or Credit","Gross Transaction Amount",\
"Gross Transaction Currency","Fee Debit or Credit","Fee Amount","Fee Currency"
"SB","1AB","ref-1","","","T0006",2026/05/12 00:01:17 -0700,2026/05/12 00:01:17 -0700,"CR",9000,"EUR","DR",341,"EUR"
"SB","2AB","ref-2","1AB","TXN","T1107",2026/05/12 01:01:17 -0700,2026/05/12 01:01:17 -0700,"DR",500,"EUR","CR",19,"EUR"
"SB","3AB","","","","T0106",2026/05/12 02:01:17 -0700,2026/05/12 02:01:17 -0700,"DR",30,"EUR","",,""
"SB","4AB","","","","T0400",2026/05/12 03:01:17 -0700,2026/05/12 03:01:17 -0700,"DR",8000,"EUR","",,""
"SB","5AB","","4ZZ","TXN","T1101",2026/05/12 03:01:17 -0700,2026/05/12 03:01:17 -0700,"CR",700,"EUR","",,""
"SF","EUR","CR",9719,"DR",8871
"SC",5
"RF","EUR","CR",9719
"RC",5
"FF",5
"""


def told(content: str) -> list[tuple[str, str, int, int]]:
    found = read_settlements(content.encode(), name="report.csv")
    assert found is not None
    return [(each.reference, each.currency, each.amount_minor, each.fee_minor) for each in found]


def test_stripe_pays_what_is_left_of_a_payouts_transactions() -> None:
    assert told(STRIPE) == [
        ("po_0 reversed", "jpy", -300, 0),
        ("po_1", "eur", 8169, 331),
        ("po_2", "jpy", 782, 18),
    ]


def test_adyen_pays_a_batch_and_keeps_the_costs() -> None:
    # 1.50 and 0.10 of the payments in euro, 0.1910 of that in pounds, 0.30 by itself.
    assert told(ADYEN) == [("AcmeShop batch 4", "eur", 8000, 209)]


def test_paypal_pays_at_a_withdrawal_and_takes_fees_by_the_day() -> None:
    assert told(PAYPAL) == [
        ("fees 2026/05/12 ACME123", "eur", 0, 341 - 19 + 30),
        ("5AB", "eur", -700, 0),
        ("4AB", "eur", 8000, 0),
    ]


def test_another_file_is_no_settlement_report() -> None:
    for other in (b"", b"date,amount,currency,reference\n", b"<Document/>", b"\xff\xfe"):
        assert read_settlements(other, name="other") is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (STRIPE.replace("87.09", "87.08"), "report.csv:2: gross less fee is not net"),
        (STRIPE.replace(",jpy,500", ",xxx,500"), "report.csv:6: 'xxx' is no currency"),
        (STRIPE.replace("-5.00,refund", "five,refund"), "report.csv:3: the net 'five' is no amount of EUR"),
        (STRIPE.replace(",charge,ch_3,", ""), "report.csv:6: the line has 9 cells"),
        (ADYEN.replace("0.0812", "n/a"), "report.csv:4: the markup .nc. 'n/a' is no amount"),
        (ADYEN.replace("0.0812", "NaN"), "report.csv:4: the markup"),
        (PAYPAL.replace('"CR",9000', '"CR",90.00'), "report.csv:5: '90.00' is no amount in minor units"),
        (PAYPAL.replace('"DR",8000', '"XX",8000'), "report.csv:8: 'XX' is not CR or DR"),
        (PAYPAL.replace('"Fee Amount",', '"Fees",'), "the header lacks fee amount"),
        (PAYPAL.replace('"CH",', '"CX",'), "before the header"),
        (PAYPAL.replace('"SH",2026', '"SX",2026'), "before the header"),
        (PAYPAL.replace('9000,"EUR"', '9000,"HUF"'), "report.csv:5: PayPal does not say whether its reports tell HUF"),
        ("RH,\nSH\n", "report.csv:2: the header of a section lacks its day"),
        (STRIPE.replace(",net,", ', "net",'), "report.csv:1: the header cannot be read: it lacks net"),
        (PAYPAL.replace('"5AB"', '""'), "the reference of a settlement has 1 to 100 characters"),
    ],
)
def test_a_report_that_cannot_be_read_is_rejected_with_the_place(content: str, says: str) -> None:
    with pytest.raises(FileRejected, match=says):
        told(content)
