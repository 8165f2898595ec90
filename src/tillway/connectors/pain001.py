"""SEPA credit transfers as files of ISO 20022: pain.001.001.09 out, status reports (pain.002) in.

Sources: the message definitions of https://www.iso20022.org and the European Payments Council's implementation
guidelines for SEPA credit transfers between customer and bank (EPC132-08), which limit names to 70 and references to 35
of the characters of SEPA. A transfer is named by our reference, as its end-to-end id.

A file goes to the bank as it is made. Before CUT_OFF_HOUR (Frankfurt) of a banking day it asks for execution on that
day, after that on the next one.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from tillway.connectors.banking_days import (
    add_banking_days,
    at_or_after,
    central_european_time,
    epoch_of_central_european,
    is_euro_banking_day,
)
from tillway.connectors.file_port import (
    Batch,
    Entry,
    FileCapabilities,
    FileRejected,
    Filing,
    OfFile,
    OutboundFile,
    Return,
)
from tillway.connectors.latin import without_accents
from tillway.connectors.port import Declined, Operation, Outcome, Succeeded
from tillway.connectors.settings import Setting, directory, read_settings
from tillway.connectors.xml_files import child_of, children_of, parse_xml, text_of
from tillway.domain.bank_account import iban_valid
from tillway.domain.money import minor_to_major

NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"

CUT_OFF_HOUR: Final = 14
"""The hour of Frankfurt until which a file asks for execution on the same banking day."""

REPORT_DAYS: Final = 3
"""Banks that report only rejections do so within this many banking days of the execution date (EPC125-05, the
rulebook's time for a return). A later one takes the money back."""

AMOUNT_MAX_MINOR: Final = 99_999_999_999
"""The largest SEPA credit transfer, 999,999,999.99 euros."""


def sepa_name(value: str) -> str:
    """A name of 1 to 70 of SEPA's characters."""
    bare = in_sepa_characters(value, 70)
    if not bare or len(value.strip()) > 70:
        raise ValueError("not a name of 1 to 70 characters")
    return bare


def iban(value: str) -> str:
    bare = value.replace(" ", "").upper()
    if not (re.fullmatch(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", bare) and iban_valid(bare)):
        raise ValueError("not an IBAN with right check digits")
    return bare


def bic(value: str) -> str:
    bare = value.replace(" ", "").upper()
    if not re.fullmatch(r"[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?", bare):
        raise ValueError("not a BIC of eight or eleven characters")
    return bare


SETTINGS = (
    Setting(
        name="directory",
        read=directory,
        required=True,
        description="where the files are: outbound, inbound, processed and rejected; all hosts share it",
    ),
    Setting(name="initiator", read=sepa_name, required=True, description="the sender of the files, by name"),
    Setting(name="debtor_name", read=sepa_name, required=True, description="the holder of the account that pays"),
    Setting(name="debtor_iban", read=iban, required=True, description="the account that pays"),
    Setting(name="debtor_bic", read=bic, required=True, description="the bank of that account"),
)


class Pain001Files:
    """The credit transfers from one account."""

    capabilities = FileCapabilities(
        operations=frozenset(("payout",)),
        livemode=True,
        entries_max=5_000,
        steps={"eur": 1},
        account_form="iban",
    )

    def __init__(self, initiator: str, debtor_name: str, debtor_iban: str, debtor_bic: str) -> None:
        self._initiator, self._debtor_name = initiator, debtor_name
        self._debtor_iban, self._debtor_bic = debtor_iban, debtor_bic

    def refuse(self, operation: Operation) -> Declined | None:
        if operation.currency != "eur" or not 0 < operation.amount_minor <= AMOUNT_MAX_MINOR:
            return Declined("processing_error", "invalid_currency", "SEPA moves euros, at most 999,999,999.99.")
        recipient = operation.recipient
        if operation.kind != "payout" or recipient is None or recipient.type != "bank_account":
            return Declined("processing_error", "could_not_process", "SEPA credit transfers go to bank accounts.")
        if not iban_valid(recipient.value):
            return Declined("processing_error", "invalid_account_number", "SEPA needs an IBAN.")
        return None

    def build(self, operations: Sequence[Operation], batch: Batch) -> OutboundFile:
        message = _message_id(batch)
        made = datetime.fromtimestamp(batch.created_at, UTC)
        total = minor_to_major(sum(operation.amount_minor for operation in operations), "eur")
        sums = f"<NbOfTxs>{len(operations)}</NbOfTxs><CtrlSum>{total}</CtrlSum>"
        parts = [
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Document xmlns="{NAMESPACE}"><CstmrCdtTrfInitn>\n',
            f"<GrpHdr><MsgId>{message}</MsgId><CreDtTm>{made:%Y-%m-%dT%H:%M:%SZ}</CreDtTm>{sums}"
            f"<InitgPty><Nm>{escape(self._initiator)}</Nm></InitgPty></GrpHdr>\n",
            f"<PmtInf><PmtInfId>{message}</PmtInfId><PmtMtd>TRF</PmtMtd>{sums}"
            "<PmtTpInf><SvcLvl><Cd>SEPA</Cd></SvcLvl></PmtTpInf>"
            f"<ReqdExctnDt><Dt>{execution_date(batch.created_at):%Y-%m-%d}</Dt></ReqdExctnDt>"
            f"<Dbtr><Nm>{escape(self._debtor_name)}</Nm></Dbtr>"
            f"<DbtrAcct><Id><IBAN>{self._debtor_iban}</IBAN></Id></DbtrAcct>"
            f"<DbtrAgt><FinInstnId><BICFI>{self._debtor_bic}</BICFI></FinInstnId></DbtrAgt><ChrgBr>SLEV</ChrgBr>\n",
            *map(_transfer, operations),
            "</PmtInf></CstmrCdtTrfInitn></Document>\n",
        ]
        entries = tuple(
            Entry(
                trace=operation.reference,
                reference=operation.reference,
                amount_minor=operation.amount_minor,
                currency=operation.currency,
            )
            for operation in operations
        )
        return OutboundFile(name=f"{message}.xml", content="".join(parts).encode(), entries=entries)

    def read(self, name: str, content: bytes) -> list[Return]:
        return read_status_report(content)

    def settles_at(self, batch: Batch) -> int | None:
        last = add_banking_days(execution_date(batch.created_at), REPORT_DAYS, is_euro_banking_day)
        return epoch_of_central_european(last, 18)


class Pain001Connector:
    """The kind `pain001`."""

    @staticmethod
    def from_settings(settings: Mapping[str, str]) -> Filing:
        """Raises `SettingInvalid`, which names the setting."""
        values = read_settings(settings, SETTINGS)
        place: Path = values.pop("directory")
        return Filing(Pain001Files(**values), place)

    @staticmethod
    def describe() -> tuple[Setting, ...]:
        return SETTINGS


def execution_date(created_at: int) -> date:
    """The banking day on which the bank is asked to execute a file of that time (epoch seconds)."""
    now = central_european_time(created_at)
    day = at_or_after(now.date(), is_euro_banking_day)
    if day == now.date() and now.hour >= CUT_OFF_HOUR:
        return add_banking_days(day, 1, is_euro_banking_day)
    return day


# Outbound.


def _message_id(batch: Batch) -> str:
    return f"TW{batch.created_at}-{batch.number:08d}"


_MESSAGE_ID = re.compile(r"TW[0-9]{1,12}-([0-9]{8,12})")


def _transfer(operation: Operation) -> str:
    recipient = operation.recipient
    assert recipient is not None, "refuse declines it"
    name = in_sepa_characters(recipient.name or "", 70) or "NOTPROVIDED"
    text = in_sepa_characters(operation.statement_descriptor or "", 140)
    remittance = f"<RmtInf><Ustrd>{escape(text)}</Ustrd></RmtInf>" if text else ""
    return (
        f"<CdtTrfTxInf><PmtId><EndToEndId>{operation.reference}</EndToEndId></PmtId>"
        f'<Amt><InstdAmt Ccy="EUR">{minor_to_major(operation.amount_minor, "eur")}</InstdAmt></Amt>'
        f"<Cdtr><Nm>{escape(name)}</Nm></Cdtr><CdtrAcct><Id><IBAN>{recipient.value}</IBAN></Id></CdtrAcct>"
        f"{remittance}</CdtTrfTxInf>\n"
    )


def in_sepa_characters(text: str, most: int) -> str:
    """The text in the characters that every SEPA bank takes (EPC217-08), at most `most`; others become a space."""
    return " ".join(re.sub(r"[^A-Za-z0-9/?:().,'+ -]", " ", without_accents(text)).split())[:most].strip()


# Inbound.

_DONE = ("ACSC", "ACCC")
_UNDER_WAY = ("RCVD", "ACTC", "ACCP", "ACSP", "ACWC", "ACWP", "PDNG", "PATC", "PART")

REASONS: Final[Mapping[str, str]] = {
    "AC01": "invalid_account_number",  # Incorrect account number.
    "AC02": "invalid_account_number",  # Invalid account number of the debtor.
    "AC03": "invalid_account_number",  # Invalid account number of the creditor.
    "AC04": "account_closed",  # Account closed.
    "AC06": "account_frozen",  # Account blocked.
    "AC07": "account_closed",  # Account of the creditor closed.
    "AC13": "bank_account_restricted",  # Wrong type of account.
    "AC14": "bank_account_restricted",  # Wrong type of account of the creditor.
    "AC15": "bank_ownership_changed",  # Account details changed.
    "AG01": "bank_account_restricted",  # Transaction forbidden on this account.
    "AM03": "invalid_currency",  # Currency not allowed.
    "AM04": "insufficient_funds",  # Insufficient funds.
    "BE01": "incorrect_account_holder_name",  # Not consistent with the end customer.
    "BE06": "no_account",  # Unknown end customer.
    "CUST": "declined",  # Requested by the customer.
    "MD07": "account_closed",  # End customer deceased.
    "MS02": "declined",  # Reason not told by the customer.
    "MS03": "declined",  # Reason not told by the bank.
    "RC01": "invalid_account_number",  # Bank identifier incorrect.
    "RC04": "invalid_account_number",  # Bank identifier of the creditor incorrect.
}
"""Reasons of rejections (ISO 20022, ExternalStatusReason1Code), as failure codes of payouts. A code that is not here is
`could_not_process`."""


def read_status_report(content: bytes) -> list[Return]:
    """The statuses in a pain.002, of transfers and of whole files. Raises `FileRejected`."""
    document = parse_xml(content)
    namespace, _, root = document.tag.partition(" ")
    report = child_of(document, "CstmrPmtStsRpt")
    if root != "Document" or not namespace.startswith("urn:iso:std:iso:20022:tech:xsd:pain.002.") or report is None:
        raise FileRejected("the file is not a pain.002")
    group = child_of(report, "OrgnlGrpInfAndSts")
    if group is None:
        raise FileRejected("the report names no original message")
    message = text_of(group, "OrgnlMsgId")
    returns = []
    status, reason = text_of(group, "GrpSts"), _reason(group)
    for part in children_of(report, "OrgnlPmtInfAndSts"):
        if not status:
            # All transfers of a file are in one part, so the status of the part is that of the file.
            status, reason = text_of(part, "PmtInfSts"), _reason(part)
        for transfer in children_of(part, "TxInfAndSts"):
            returns.append(_of_transfer(transfer, _reason(transfer) or reason))
    if status and status != "PART":
        returns.append(_of_message(message, status, reason))
    if not returns:
        raise FileRejected("the report has no status")
    return returns


def _of_transfer(transfer: Element, reason: str) -> Return:
    trace, status = text_of(transfer, "OrgnlEndToEndId"), text_of(transfer, "TxSts")
    if not trace:
        raise FileRejected("a status names no end-to-end id")
    amount_minor, currency = _amount(transfer)
    return Return(
        id=f"{trace}:{status}:{reason}",
        trace=trace,
        outcome=_outcome(status, reason),
        amount_minor=amount_minor,
        currency=currency,
        code=reason or status,
    )


def _of_message(message: str, status: str, reason: str) -> Return:
    named = _MESSAGE_ID.fullmatch(message)
    if named is None:
        raise FileRejected("the report is about a message that was not sent")
    return Return(
        id=f"{message}:{status}:{reason}",
        trace="",
        of_file=OfFile(number=int(named[1]), name=f"{message}.xml"),
        outcome=_outcome(status, reason),
        code=reason or status,
    )


def _outcome(status: str, reason: str) -> Outcome | None:
    """The outcome of a status; None while the transfer is under way."""
    if status == "RJCT":
        return Declined("card_declined", REASONS.get(reason, "could_not_process"))
    if status in _DONE:
        return Succeeded()
    if status in _UNDER_WAY:
        return None
    raise FileRejected(f"the report has the unknown status {status[:10]!r}")


def _amount(transfer: Element) -> tuple[int | None, str | None]:
    reference = child_of(transfer, "OrgnlTxRef")
    amounts = None if reference is None else child_of(reference, "Amt")
    amount = None if amounts is None else child_of(amounts, "InstdAmt")
    if amount is None:
        return None, None
    written = re.fullmatch(r"([0-9]{1,12})(?:\.([0-9]{1,2}))?", (amount.text or "").strip())
    if written is None:
        raise FileRejected("an amount is not one")
    return int(written[1]) * 100 + int((written[2] or "0").ljust(2, "0")), amount.get("Ccy", "").lower()


def _reason(element: Element) -> str:
    """The first reason of a status, a code of ISO 20022; empty if there is none."""
    for information in children_of(element, "StsRsnInf"):
        reason = child_of(information, "Rsn")
        if reason is not None:
            return text_of(reason, "Cd")[:10]
    return ""
