"""Settlement reports: the files in which providers tell their payments to the merchant's bank.

| report | recognised by | one settlement is |
|---|---|---|
| Stripe, payout reconciliation, itemized | `automatic_payout_id`, `reporting_category` | an automatic payout |
| Adyen, settlement details | `Type`, `Net Debit (NC)`, `Batch Number` | the batch of a merchant account |
| PayPal, settlement report (STL) | the rows RH and SB | a transfer to or from the bank, and the day's fees |

Sources: https://docs.stripe.com/reports/report-types/payout-reconciliation,
https://docs.adyen.com/reporting/settlement-reconciliation/transaction-level/settlement-details-report,
https://developer.paypal.com/docs/reports/sftp-reports/settlement-report/ (unsigned minor units, CR or DR beside them)
and /docs/reports/reference/tcodes/ (T03: from the bank, T04: to the bank, T1101 and T1104: those reversed).
"""

import csv
import io
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation

from tillway.connectors.file_port import FileRejected
from tillway.connectors.statements import LINES_MAX, read_currency, read_minor
from tillway.domain.money import MINOR_UNITS
from tillway.domain.settlement import REFERENCE_MAX, Reported

Rows = Sequence[tuple[int, Mapping[str, str]]]
"""The rows of a report by column, in lower case, each with its line number."""

_STRIPE = frozenset(("automatic_payout_id", "reporting_category", "source_id", "currency", "gross", "fee", "net"))
_STRIPE_FEES = ("fee", "network_cost", "tax")
"""The reporting categories that are costs by themselves (https://docs.stripe.com/reports/reporting-categories)."""

_ADYEN = frozenset(("merchant account", "type", "net currency", "net debit (nc)", "net credit (nc)", "batch number"))
_ADYEN_COSTS = ("commission (nc)", "markup (nc)", "scheme fees (nc)", "interchange (nc)")
_ADYEN_PAYMENTS = ("settled", "refunded", "chargeback", "secondchargeback", "chargebackreversed", "refundedreversed")
_ADYEN_FEES = ("fee", "invoicededuction")

_PAYPAL = frozenset(
    (
        *("transaction id", "transaction event code", "transaction debit or credit"),
        *("gross transaction amount", "gross transaction currency", "fee debit or credit", "fee amount"),
    )
)
_PAYPAL_BANK = ("T03", "T04")
_PAYPAL_BANK_REVERSED = ("T1101", "T1104")
_PAYPAL_FEES = "T01"
_PAYPAL_UNCLEAR = ("huf", "twd")
"""ISO 4217 has decimals of these, PayPal's API has none, and its reports do not say which of both they follow."""


def read_settlements(content: bytes, *, name: str) -> list[Reported] | None:
    """Read the settlements of a report; None if the file is no settlement report. `name` is the file's.

    Raises `FileRejected`, which says where a report cannot be read.
    """
    start = content[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    first = start.splitlines()[0].lower() if start else b""
    if first.startswith((b'"rh",', b"rh,")):
        return _read_paypal(_records(content, name), name)
    columns = frozenset(column.strip().strip('"').strip() for column in first.decode("utf-8", "replace").split(","))
    if columns >= _STRIPE:
        return _read_stripe(_rows(content, name, _STRIPE), name)
    if columns >= _ADYEN:
        return _read_adyen(_rows(content, name, _ADYEN), name)
    return None


def _records(content: bytes, name: str) -> list[tuple[int, list[str]]]:
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        records = [(reader.line_num, [cell.strip() for cell in record]) for record in reader if record]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileRejected(f"{name} is not CSV in UTF-8: {error}") from None
    if len(records) > LINES_MAX:
        raise FileRejected(f"{name} has more than {LINES_MAX} lines: cut it between two settlements")
    return records


def _rows(content: bytes, name: str, needed: frozenset[str]) -> Rows:
    (line, head), *records = _records(content, name)
    columns = [column.lower() for column in head]
    missing = sorted(needed.difference(columns))
    if missing:
        raise FileRejected(f"{name}:{line}: the header cannot be read: it lacks {', '.join(missing)}")
    return [(line, _by_column(columns, record, f"{name}:{line}")) for line, record in records]


def _by_column(columns: Sequence[str], record: Sequence[str], where: str) -> dict[str, str]:
    if len(record) < len(columns):
        raise FileRejected(f"{where}: the line has {len(record)} cells, and the header {len(columns)}")
    return dict(zip(columns, record, strict=False))


class _Sum:
    """A settlement that is being added up. `costs` are major units, since Adyen tells fractions of a cent."""

    def __init__(self, reference: str, currency: str, where: str) -> None:
        self.reference, self.currency, self.where = reference, currency, where
        self.amount_minor, self.fee_minor, self.costs = 0, 0, Decimal(0)

    def told(self) -> Reported:
        fraction = self.costs.scaleb(MINOR_UNITS[self.currency]).to_integral_value()
        return Reported(
            reference=self.reference,
            currency=self.currency,
            amount_minor=self.amount_minor,
            fee_minor=self.fee_minor + int(fraction),
            where=self.where,
        )


class _Sums:
    """The settlements of a report by reference and currency, in the order of their first lines."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], _Sum] = {}

    def at(self, reference: str, currency: str, where: str) -> _Sum:
        if not 0 < len(reference) <= REFERENCE_MAX:
            raise FileRejected(f"{where}: the reference of a settlement has 1 to {REFERENCE_MAX} characters")
        return self._found.setdefault((reference, currency), _Sum(reference, currency, where))

    def told(self) -> list[Reported]:
        """Those that moved money. Money that came back is first, since a later payment has it again."""
        found = [each.told() for each in self._found.values()]
        return sorted((each for each in found if each.amount_minor or each.fee_minor), key=lambda each: each.is_payment)


def _read_stripe(rows: Rows, name: str) -> list[Reported]:
    """Each automatic payout is the net sum of its transactions. A payout that failed is one of a later payout's."""
    sums = _Sums()
    for line, row in rows:
        payout, category, where = row["automatic_payout_id"], row["reporting_category"], f"{name}:{line}"
        if not payout or category == "payout":
            continue
        currency = read_currency(row["currency"], where)
        gross, fee, net = (
            read_minor(row[column] or "0", currency, where, column) for column in ("gross", "fee", "net")
        )
        if gross - fee != net:
            raise FileRejected(f"{where}: gross less fee is not net")
        paid = sums.at(payout, currency, where)
        paid.amount_minor += net
        paid.fee_minor += -net if category in _STRIPE_FEES else fee
        if category == "payout_reversal":
            sums.at(f"{row['source_id']} reversed", currency, where).amount_minor -= gross
    return sums.told()


def _read_adyen(rows: Rows, name: str) -> list[Reported]:
    """A batch pays the amount of its MerchantPayout; the rest stays at Adyen, as a deposit or for the next batch."""
    sums = _Sums()
    for line, row in rows:
        where, kind = f"{name}:{line}", row["type"].lower()
        if not row["net currency"]:
            continue
        currency = read_currency(row["net currency"], where)
        net = _balance(row, "net credit (nc)", "net debit (nc)", currency, where)
        batch = sums.at(f"{row['merchant account']} batch {row['batch number']}", currency, where)
        if kind == "merchantpayout":
            batch.amount_minor -= net
        elif kind in _ADYEN_FEES:
            batch.fee_minor -= net
        elif kind in _ADYEN_PAYMENTS and row.get("gross currency", "").lower() == currency:
            batch.fee_minor += _balance(row, "gross credit (gc)", "gross debit (gc)", currency, where) - net
        elif kind in _ADYEN_PAYMENTS:
            # The gross amount is of another currency: only the costs are told in this one.
            batch.costs += sum((_decimal(row.get(column), where, column) for column in _ADYEN_COSTS), Decimal(0))
    return sums.told()


def _balance(row: Mapping[str, str], credit: str, debit: str, currency: str, where: str) -> int:
    came, went = (read_minor(row.get(column) or "0", currency, where, column) for column in (credit, debit))
    return came - went


def _decimal(text: str | None, where: str, column: str) -> Decimal:
    try:
        found = Decimal(text or "0")
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite() or abs(found) >= 10**12:
        raise FileRejected(f"{where}: the {column} {(text or '')[:20]!r} is no amount")
    return found


def _read_paypal(records: Sequence[tuple[int, list[str]]], name: str) -> list[Reported]:
    """Transfers to and from the bank, and the fees of each currency: PayPal takes fees as it goes, not by transfer."""
    sums, columns, day = _Sums(), [], ""
    for line, record in records:
        where, kind = f"{name}:{line}", record[0]
        if kind == "SH":
            if len(record) < 2 or not record[1]:
                raise FileRejected(f"{where}: the header of a section lacks its day")
            day = f"{record[1][:10]} {record[3] if len(record) > 3 else ''}".strip()
        elif kind == "CH":
            columns = [column.lower() for column in record]
            missing = sorted(_PAYPAL.difference(" ".join(column.split()) for column in columns))
            if missing:
                raise FileRejected(f"{where}: the header lacks {', '.join(missing)}")
        elif kind == "SB":
            if not columns or not day:
                raise FileRejected(f"{where}: a transaction stands before the header of its section")
            row = {" ".join(column.split()): cell for column, cell in _by_column(columns, record, where).items()}
            _add_paypal(sums, row, day, where)
    return sums.told()


def _add_paypal(sums: _Sums, row: Mapping[str, str], day: str, where: str) -> None:
    code, id = row["transaction event code"], row["transaction id"]
    currency = read_currency(row["gross transaction currency"], where)
    came = _read_signed(row["gross transaction amount"], row["transaction debit or credit"], where)
    if currency in _PAYPAL_UNCLEAR:
        raise FileRejected(
            f"{where}: PayPal does not say whether its reports tell {currency.upper()} with decimals. Book "
            "its settlements by hand, and take its lines out of a copy of the file"
        )
    if code.startswith(_PAYPAL_BANK) or code in _PAYPAL_BANK_REVERSED:
        sums.at(id, currency, where).amount_minor -= came
    if code.startswith(_PAYPAL_FEES) and came:
        sums.at(f"fees {day}", currency, where).fee_minor -= came
    if row["fee amount"] not in ("", "0"):
        currency = read_currency(row.get("fee currency") or currency, where)
        fee = _read_signed(row["fee amount"], row["fee debit or credit"], where)
        sums.at(f"fees {day}", currency, where).fee_minor -= fee


def _read_signed(text: str, direction: str, where: str) -> int:
    """Minor units without a sign and their direction: CR came to the account, DR left it."""
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise FileRejected(f"{where}: {text[:20]!r} is no amount in minor units")
    if direction not in ("CR", "DR"):
        raise FileRejected(f"{where}: {direction[:10]!r} is not CR or DR")
    return int(text) if direction == "CR" else -int(text)
