"""Statements of banks and providers: camt.053 (ISO 20022) and CSV files become lines for the daily close.

CSV files are UTF-8 with a header. `date` (ISO 8601), `amount` (decimals, negative where money left), `currency` and
`reference` are required; `text`, `fee` (decimals) and `settlement` (the reference of the settlement that the line is
part of) are optional. Other columns are left alone.
"""

import csv
import io
import re
from collections.abc import Iterator
from datetime import date
from xml.etree.ElementTree import Element

from tillway.connectors.file_port import FileRejected
from tillway.connectors.xml_files import child_of, children_of, parse_xml, text_of
from tillway.domain.close import Line
from tillway.domain.money import check_currency, major_to_minor
from tillway.domain.refusal import Refused

LINES_MAX = 100_000
"""Most lines of one statement."""

REFERENCE_LETTERS_MIN = 6
"""Shorter words of a remittance text name no movement."""

_COLUMNS = frozenset(("date", "amount", "currency", "reference"))
_NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:camt.053."
_WORD = re.compile(r"[^\s,;:()]+")


def read_statement(content: bytes, *, place: str, name: str) -> list[Line]:
    """Read the lines of a statement of `place`; XML is a camt.053, everything else CSV. `name` is the file's.

    Raises `FileRejected`, which says where the file cannot be read.
    """
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return read_camt053(content, place=place, name=name)
    return read_csv(content, place=place, name=name)


def read_csv(content: bytes, *, place: str, name: str) -> list[Line]:
    """Read a statement in CSV. Raises `FileRejected`."""
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        columns = {column.strip().lower(): column for column in rows.fieldnames or ()}
        missing = sorted(_COLUMNS - columns.keys())
        if missing:
            raise FileRejected(f"{name}: the header lacks {', '.join(missing)}")
        lines: list[Line] = []
        for row in rows:
            if len(lines) == LINES_MAX:
                raise FileRejected(f"{name} has more than {LINES_MAX} lines: cut it in two")
            values = {column: (row[given] or "").strip() for column, given in columns.items()}
            lines.append(_csv_line(values, place, f"{name}:{rows.line_num}"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileRejected(f"{name} is not CSV in UTF-8: {error}") from None
    return lines


def _csv_line(values: dict[str, str], place: str, where: str) -> Line:
    currency = read_currency(values["currency"], where)
    return Line(
        place=place,
        where=where,
        day=_day(values["date"], where),
        amount_minor=read_minor(values["amount"], currency, where, "amount"),
        currency=currency,
        references=_references((values["reference"],), values.get("text", "")),
        text=values.get("text", "")[:140],
        fee_minor=read_minor(values.get("fee") or "0", currency, where, "fee"),
        settlement=values.get("settlement") or None,
    )


def read_camt053(content: bytes, *, place: str, name: str) -> list[Line]:
    """Read the booked entries of a camt.053, each of its transactions a line. Raises `FileRejected`, also where the
    statement's own balances and entries disagree."""
    document = parse_xml(content)
    namespace, _, root = document.tag.partition(" ")
    message = child_of(document, "BkToCstmrStmt")
    if root != "Document" or not namespace.startswith(_NAMESPACE) or message is None:
        raise FileRejected(f"{name} is not a camt.053")
    lines: list[Line] = []
    for number, statement in enumerate(children_of(message, "Stmt"), 1):
        where = f"{name}:{text_of(statement, 'Id') or number}"
        entries = [
            (f"{where}:{count}", entry)
            for count, entry in enumerate(children_of(statement, "Ntry"), 1)
            if _is_booked(entry)
        ]
        for place_in_file, entry in entries:
            lines += _lines_of(entry, place, place_in_file)
            if len(lines) > LINES_MAX:
                raise FileRejected(f"{name} has more than {LINES_MAX} lines: cut it in two")
        _check_balances(statement, [entry for _, entry in entries], where)
    return lines


def _is_booked(entry: Element) -> bool:
    status = child_of(entry, "Sts")
    return status is None or (text_of(status, "Cd") or (status.text or "").strip() or "BOOK") == "BOOK"


def _lines_of(entry: Element, place: str, where: str) -> Iterator[Line]:
    amount_minor, currency = _read_amount(entry, where)
    booked = next((each for name in ("BookgDt", "ValDt") for each in children_of(entry, name)), None)
    if booked is None:
        raise FileRejected(f"{where}: the entry has no booking date")
    day = _day((text_of(booked, "Dt") or text_of(booked, "DtTm"))[:10], where)
    own = [text_of(entry, name) for name in ("NtryRef", "AcctSvcrRef")]
    parts = [part for details in children_of(entry, "NtryDtls") for part in children_of(details, "TxDtls")]
    sums = [_part_minor(part, currency, where) for part in parts]
    if len(parts) < 2 or None in sums:
        # One line: the bank has not said what each transaction amounts to.
        references, text = list(own), text_of(entry, "AddtlNtryInf")
        for part in parts:
            named, remitted = _words_of(part)
            references += named
            text = f"{text} {remitted}".strip()
        yield _line(place, where, day, amount_minor, currency, references, text)
        return
    sign = -1 if amount_minor < 0 else 1
    if sum(each or 0 for each in sums) != abs(amount_minor):
        raise FileRejected(f"{where}: the transactions do not add up to the entry")
    for count, (part, part_minor) in enumerate(zip(parts, sums, strict=True), 1):
        named, remitted = _words_of(part)
        yield _line(place, f"{where}.{count}", day, sign * (part_minor or 0), currency, named, remitted)


def _line(place: str, where: str, day: str, amount_minor: int, currency: str, references: list[str], text: str) -> Line:
    return Line(
        place=place,
        where=where,
        day=day,
        amount_minor=amount_minor,
        currency=currency,
        references=_references(references, text),
        text=text[:140],
    )


def _words_of(part: Element) -> tuple[list[str], str]:
    """The references of a transaction, and its remittance text."""
    references = child_of(part, "Refs")
    named = [] if references is None else [(each.text or "").strip() for each in references]
    remittance = child_of(part, "RmtInf")
    texts = [] if remittance is None else [(each.text or "").strip() for each in children_of(remittance, "Ustrd")]
    for structured in () if remittance is None else children_of(remittance, "Strd"):
        creditor = child_of(structured, "CdtrRefInf")
        named += [text_of(creditor, "Ref")] if creditor is not None else []
    return named, " ".join(texts)


def _read_amount(entry: Element, where: str) -> tuple[int, str]:
    """The amount of an entry or a balance in minor units, with its sign, and its currency."""
    amount = child_of(entry, "Amt")
    if amount is None:
        raise FileRejected(f"{where}: an amount is missing")
    currency = read_currency(amount.get("Ccy", ""), where)
    amount_minor = read_minor((amount.text or "").strip(), currency, where, "amount")
    direction = text_of(entry, "CdtDbtInd")
    if direction not in ("CRDT", "DBIT"):
        raise FileRejected(f"{where}: CdtDbtInd is {direction[:10]!r}, not CRDT or DBIT")
    return (amount_minor if direction == "CRDT" else -amount_minor), currency


def _part_minor(part: Element, currency: str, where: str) -> int | None:
    """The amount of one of several transactions, without sign; None where the bank does not tell it."""
    amount = child_of(part, "Amt")
    details = child_of(part, "AmtDtls")
    transaction = child_of(details, "TxAmt") if details is not None else None
    amount = child_of(transaction, "Amt") if amount is None and transaction is not None else amount
    if amount is None or amount.get("Ccy", "").lower() != currency:
        return None
    return read_minor((amount.text or "").strip(), currency, where, "amount")


def _check_balances(statement: Element, entries: list[Element], where: str) -> None:
    """Refuse a statement whose closing balance is not its opening balance and its entries: a page of it is missing."""
    balances = {}
    for balance in children_of(statement, "Bal"):
        kind = child_of(balance, "Tp")
        choice = child_of(kind, "CdOrPrtry") if kind is not None else None
        balances[text_of(choice, "Cd") if choice is not None else ""] = _read_amount(balance, where)
    opening, closing = balances.get("OPBD") or balances.get("PRCD"), balances.get("CLBD")
    if opening is None or closing is None:
        return
    moved = sum(_read_amount(entry, where)[0] for entry in entries)
    if opening[0] + moved != closing[0]:
        raise FileRejected(f"{where}: the opening balance and the entries do not make the closing balance")


def _references(named: tuple[str, ...] | list[str], text: str) -> tuple[str, ...]:
    words = [word for word in _WORD.findall(text) if len(word) >= REFERENCE_LETTERS_MIN]
    return tuple(dict.fromkeys(each for each in (*named, *words) if each and each != "NOTPROVIDED"))


def _day(text: str, where: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise FileRejected(f"{where}: {text[:20]!r} is no date in ISO 8601") from None


def read_currency(text: str, where: str) -> str:
    """The currency of a column. Raises `FileRejected`."""
    try:
        return check_currency(text.strip().lower())
    except Refused:
        raise FileRejected(f"{where}: {text[:10]!r} is no currency") from None


def read_minor(text: str, currency: str, where: str, column: str) -> int:
    """The minor units of decimals, which may be negative. Raises `FileRejected`."""
    try:
        sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", digits):
            raise ValueError
        whole, _, decimals = digits.partition(".")
        return sign * major_to_minor(f"{whole}.{decimals.rstrip('0')}".rstrip("."), currency)
    except (ValueError, Refused):
        raise FileRejected(f"{where}: the {column} {text[:20]!r} is no amount of {currency.upper()}") from None
