"""A small file provider: payouts to IBANs as lines of text, with a count and a sum at the end, and returns alike."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tillway.connectors.file_port import Batch, Entry, FileCapabilities, FileRejected, OutboundFile, Return
from tillway.connectors.port import Declined, Operation, Recipient

REASONS = {"AM04": "insufficient_funds", "AC04": "account_closed"}


class CsvConnector:
    """Euro payouts to IBANs. A file is `trace;amount;iban` a line, then `END;count;sum`."""

    capabilities = FileCapabilities(operations=frozenset(("payout",)), livemode=False)

    def refuse(self, operation: Operation) -> Declined | None:
        recipient = operation.recipient
        if operation.currency != "eur" or recipient is None or recipient.type != "bank_account":
            return Declined("processing_error", None, "Only euros to IBANs go this way.")
        return None

    def build(self, operations: Sequence[Operation], batch: Batch) -> OutboundFile:
        entries, lines = [], []
        for place, operation in enumerate(operations, 1):
            assert operation.recipient is not None
            trace = f"{batch.number:08d}{place:06d}"
            entries.append(
                Entry(
                    trace=trace,
                    reference=operation.reference,
                    amount_minor=operation.amount_minor,
                    currency=operation.currency,
                )
            )
            lines.append(f"{trace};{operation.amount_minor};{operation.recipient.value}")
        lines.append(f"END;{len(lines)};{sum(operation.amount_minor for operation in operations)}")
        day = datetime.fromtimestamp(batch.created_at, UTC).strftime("%Y%m%d")
        content = "".join(f"{line}\n" for line in lines).encode()
        return OutboundFile(name=f"payouts-{day}-{batch.number_today}.csv", content=content, entries=tuple(entries))

    def read(self, name: str, content: bytes) -> list[Return]:
        rows = _rows(content)
        returns = []
        for row in rows:
            if len(row) != 3 or not row[1].isdigit() or row[2] not in REASONS:
                raise FileRejected("a line is not trace;amount;reason")
            trace, amount, reason = row
            outcome = Declined("card_declined", REASONS[reason])
            returns.append(
                Return(id=f"{trace}:{reason}", trace=trace, outcome=outcome, amount_minor=int(amount), currency="eur")
            )
        return returns

    def settles_at(self, batch: Batch) -> int | None:
        return None


def _rows(content: bytes) -> list[list[str]]:
    """The lines before the last one, which must count them."""
    try:
        lines = content.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise FileRejected("the file is not ASCII") from None
    if not lines or not lines[-1].startswith(f"END;{len(lines) - 1};"):
        raise FileRejected("the last line does not count the lines before it")
    return [line.split(";") for line in lines[:-1]]


class CsvBank:
    """The provider's side."""

    def __init__(self) -> None:
        self.connector = CsvConnector()

    def operation(self, reference: str, amount_minor: int) -> Operation:
        iban = Recipient("bank_account", "DE89370400440532013000", "Ada Lovelace")
        return Operation(reference=reference, kind="payout", amount_minor=amount_minor, currency="eur", recipient=iban)

    def impossible(self) -> Operation:
        ada = Recipient("email", "ada@example.com")
        return Operation(reference="r", kind="payout", amount_minor=1, currency="eur", recipient=ada)

    def performed(self, content: bytes) -> list[tuple[str, int, str]]:
        return [(trace, int(amount), "eur") for trace, amount, _ in _rows(content)]

    def answer(self, file: OutboundFile, traces: Sequence[str], **changes: Any) -> tuple[str, bytes]:
        amounts = {entry.trace: entry.amount_minor for entry in file.entries}
        rows = [f"{changes.get('trace', trace)};{changes.get('amount_minor', amounts[trace])};AM04" for trace in traces]
        content = "".join(f"{row}\n" for row in (*rows, f"END;{len(rows)};0"))
        return f"returns-{file.name}", content.encode()
