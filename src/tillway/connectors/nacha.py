"""ACH credits and debits as files in the format of Nacha: PPD for people, CCD for companies.

Sources: the Nacha Operating Rules, appendices Three (record formats), Four (returns) and Five (notifications of
change), as https://achdevguide.nacha.org tells them; the samples of https://github.com/moov-io/ach are its test data.

A line has 94 characters. A file is `1` header, then batches (`5` header, `6` entries, `8` control), then `9` control,
filled up with lines of nines to a multiple of ten. Amounts are cents. A file goes to the bank as it is made: before
CUT_OFF_HOUR (New York) of a banking day it takes effect on the next one, after that a banking day later.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from tillway.connectors.banking_days import (
    add_banking_days,
    at_or_after,
    eastern_time,
    epoch_of_eastern,
    is_us_banking_day,
)
from tillway.connectors.file_port import (
    Batch,
    Correction,
    Entry,
    FileCapabilities,
    FileRejected,
    Filing,
    OutboundFile,
    Return,
)
from tillway.connectors.latin import without_accents
from tillway.connectors.port import Declined, Operation
from tillway.connectors.settings import Setting, directory, read_settings
from tillway.domain.bank_account import routing_valid

LINE: Final = 94
LINES_A_BLOCK: Final = 10

CUT_OFF_HOUR: Final = 17
"""The hour of New York until which a file counts as one of that banking day. Banks take files at least so long."""

RETURN_DAYS: Final = 2
"""Most returns come within this many banking days of the effective date (Nacha's return deadline). Unauthorized debits
may come back for 60 days: a later return takes the money back."""

AMOUNT_MAX_MINOR: Final = 10**10 - 1
TOTAL_MAX_MINOR: Final = 10**12 - 1
TRACES: Final = 10**7
"""The entries of this connector have so many trace numbers; then they begin again."""

MODIFIERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
"""The file id modifiers, one for each file of a day."""


def printed(least: int, most: int) -> Callable[[str], str]:
    """`least` to `most` letters, digits, spaces and the punctuation of an ACH file, without spaces around them."""

    def read(value: str) -> str:
        bare = value.strip()
        if not least <= len(bare) <= most or not (bare.isascii() and bare.isprintable()):
            raise ValueError(f"not {least} to {most} printable ASCII characters")
        return bare.upper()

    return read


def dfi(value: str) -> str:
    """The first eight digits of a routing number, or all nine with a right check digit."""
    if value.isascii() and value.isdigit() and (len(value) == 8 or routing_valid(value)):
        return value[:8]
    raise ValueError("not the first eight digits of a routing number, or all nine with a right check digit")


SETTINGS = (
    Setting(
        name="directory",
        read=directory,
        required=True,
        description="where the files are: outbound, inbound, processed and rejected; all hosts share it",
    ),
    Setting(
        name="immediate_destination",
        read=printed(9, 10),
        required=True,
        description="the bank that gets the files: its routing number, or the ten characters that it prescribes",
    ),
    Setting(
        name="immediate_destination_name",
        read=printed(1, 23),
        required=True,
        description="the name of that bank",
    ),
    Setting(
        name="immediate_origin",
        read=printed(9, 10),
        required=True,
        description="the sender of the files, as the bank prescribes: often 1 and the tax id of the company",
    ),
    Setting(
        name="immediate_origin_name",
        read=printed(1, 23),
        required=True,
        description="the name of the sender",
    ),
    Setting(
        name="company_name",
        read=printed(1, 16),
        required=True,
        description="the name that recipients and payers see on their statements",
    ),
    Setting(
        name="company_id",
        read=printed(1, 10),
        required=True,
        description="the company's id at the bank: often 1 and its tax id",
    ),
    Setting(
        name="originating_dfi",
        read=dfi,
        required=True,
        description="the routing number of the bank that sends the entries; every trace number begins with it",
    ),
)


class Names(NamedTuple):
    """The fixed fields of all files."""

    immediate_destination: str
    immediate_destination_name: str
    immediate_origin: str
    immediate_origin_name: str
    company_name: str
    company_id: str
    originating_dfi: str


class NachaFiles:
    """The files of one company at one bank."""

    capabilities = FileCapabilities(
        operations=frozenset(("authorize", "payout")),
        livemode=True,
        entries_max=5_000,
        files_a_day_max=len(MODIFIERS),
        total_max_minor=TOTAL_MAX_MINOR,
        steps={"usd": 1},
        account_form="routing_number",
        debits=frozenset(("us_bank_account",)),
    )

    def __init__(self, names: Names) -> None:
        self.names = names

    def refuse(self, operation: Operation) -> Declined | None:
        if operation.currency != "usd" or operation.amount_minor > AMOUNT_MAX_MINOR:
            return Declined("processing_error", "invalid_currency", "ACH moves US dollars, at most 99,999,999.99.")
        if _party(operation) is None:
            return Declined("processing_error", "invalid_account_number", "ACH needs an account with a routing number.")
        return None

    def build(self, operations: Sequence[Operation], batch: Batch) -> OutboundFile:
        entries = tuple(
            Entry(
                trace=self._trace(batch.first_entry + place),
                reference=operation.reference,
                amount_minor=operation.amount_minor,
                currency=operation.currency,
            )
            for place, operation in enumerate(operations)
        )
        made = datetime.fromtimestamp(batch.created_at, UTC)
        modifier = MODIFIERS[batch.number_today - 1]
        lines = [self._file_header(made, modifier)]
        rows = sorted(zip(operations, entries, strict=True), key=lambda row: _kind_of_batch(row[0]))
        totals = _Totals()
        for number, (kind, group) in enumerate(groupby(rows, key=lambda row: _kind_of_batch(row[0])), 1):
            batch_lines, batch_totals = self._batch(kind, list(group), number, effective_date(batch.created_at))
            lines += batch_lines
            totals = totals.plus(batch_totals, batches=1)
        lines.append(_file_control(totals, len(lines) + 1))
        lines += ["9" * LINE] * (-len(lines) % LINES_A_BLOCK)
        assert all(len(line) == LINE for line in lines), "a line of another length"
        name = f"ACH-{made:%Y%m%d}-{modifier}-{batch.number:07d}.ach"
        return OutboundFile(name=name, content="".join(f"{line}\n" for line in lines).encode("ascii"), entries=entries)

    def read(self, name: str, content: bytes) -> list[Return]:
        return read_returns(content)

    def settles_at(self, batch: Batch) -> int | None:
        """The end of the banking day on which the last ordinary return is due."""
        last = add_banking_days(effective_date(batch.created_at), RETURN_DAYS, is_us_banking_day)
        return epoch_of_eastern(last, CUT_OFF_HOUR)

    def _trace(self, entry: int) -> str:
        return f"{self.names.originating_dfi}{entry % TRACES:07d}"

    def _file_header(self, made: datetime, modifier: str) -> str:
        names = self.names
        return (
            f"101{names.immediate_destination:>10}{names.immediate_origin:>10}{made:%y%m%d%H%M}{modifier}094101"
            f"{names.immediate_destination_name:<23}{names.immediate_origin_name:<23}{'':8}"
        )

    def _batch(
        self, kind: "_BatchKind", rows: Sequence[tuple[Operation, Entry]], number: int, effective: date
    ) -> tuple[list[str], "_Totals"]:
        names = self.names
        service_class = "225" if kind.debits else "220"
        header = (
            f"5{service_class}{names.company_name:<16}{'':20}{names.company_id:<10}{kind.entry_class}"
            f"{kind.description:<10}{'':6}{effective:%y%m%d}{'':3}1{names.originating_dfi}{number:07d}"
        )
        lines, totals = [header], _Totals()
        for operation, entry in rows:
            party = _party(operation)
            assert party is not None, "refuse declines it"
            lines.append(_entry_line(operation, party, entry, kind))
            amount = operation.amount_minor
            totals = totals.plus(
                _Totals(
                    entries=1,
                    routing_sum=int(party.routing_number[:8]),
                    debits=amount if kind.debits else 0,
                    credits=0 if kind.debits else amount,
                )
            )
        lines.append(
            f"8{service_class}{totals.entries:06d}{totals.hash:010d}{totals.debits:012d}{totals.credits:012d}"
            f"{names.company_id:<10}{'':19}{'':6}{names.originating_dfi}{number:07d}"
        )
        return lines, totals


class NachaConnector:
    """The kind `nacha`."""

    @staticmethod
    def from_settings(settings: Mapping[str, str]) -> Filing:
        """Raises `SettingInvalid`, which names the setting."""
        values = read_settings(settings, SETTINGS)
        place: Path = values.pop("directory")
        return Filing(NachaFiles(Names(**values)), place)

    @staticmethod
    def describe() -> tuple[Setting, ...]:
        return SETTINGS


def effective_date(created_at: int) -> date:
    """The banking day on which the entries of a file of that time (epoch seconds) take effect."""
    now = eastern_time(created_at)
    processed = at_or_after(now.date(), is_us_banking_day)
    if processed == now.date() and now.hour >= CUT_OFF_HOUR:
        processed = add_banking_days(processed, 1, is_us_banking_day)
    return add_banking_days(processed, 1, is_us_banking_day)


# Outbound.


class _Party(NamedTuple):
    """The account that gets or gives the money."""

    routing_number: str
    account_number: str
    name: str
    is_company: bool
    is_savings: bool


class _BatchKind(NamedTuple):
    entry_class: str
    debits: bool
    description: str


class _Totals(msgspec.Struct, frozen=True, kw_only=True):
    batches: int = 0
    entries: int = 0
    routing_sum: int = 0
    debits: int = 0
    credits: int = 0

    @property
    def hash(self) -> int:
        """The sum of the routing numbers' first eight digits, cut to ten digits."""
        return self.routing_sum % 10**10

    def plus(self, other: "_Totals", *, batches: int = 0) -> "_Totals":
        return _Totals(
            batches=self.batches + other.batches + batches,
            entries=self.entries + other.entries,
            routing_sum=self.routing_sum + other.routing_sum,
            debits=self.debits + other.debits,
            credits=self.credits + other.credits,
        )


def _party(operation: Operation) -> _Party | None:
    """The account of an operation; None if it has no US account, or one that no ACH entry can name."""
    if operation.kind == "authorize" and operation.account is not None:
        account = operation.account
        routing, number, name = account.routing_number or "", account.number, account.name
        holder_type, account_type = account.account_holder_type, account.account_type
    elif operation.kind == "payout" and operation.recipient is not None:
        recipient = operation.recipient
        if recipient.type != "bank_account":
            return None
        routing, _, number = recipient.value.partition("/")
        name, holder_type, account_type = recipient.name, recipient.holder_type, recipient.account_type
    else:
        return None
    if not routing_valid(routing) or not (number.isascii() and number.isalnum() and len(number) <= 17):
        return None
    return _Party(routing, number, name or "ACCOUNT HOLDER", holder_type == "company", account_type == "savings")


def _kind_of_batch(operation: Operation) -> _BatchKind:
    party = _party(operation)
    assert party is not None, "refuse declines it"
    debits = operation.kind == "authorize"
    default = "PAYMENT" if debits else "PAYOUT"
    description = in_ascii(operation.statement_descriptor or "", 10) or default
    return _BatchKind("CCD" if party.is_company else "PPD", debits, description)


def _entry_line(operation: Operation, party: _Party, entry: Entry, kind: _BatchKind) -> str:
    transaction = ("37" if party.is_savings else "27") if kind.debits else ("32" if party.is_savings else "22")
    return (
        f"6{transaction}{party.routing_number}{party.account_number:<17}{operation.amount_minor:010d}"
        f"{operation.reference[-15:]:<15}{in_ascii(party.name, 22) or 'ACCOUNT HOLDER':<22}{'':2}0{entry.trace}"
    )


def _file_control(totals: _Totals, lines: int) -> str:
    blocks = -(-lines // LINES_A_BLOCK)
    return (
        f"9{totals.batches:06d}{blocks:06d}{totals.entries:08d}{totals.hash:010d}{totals.debits:012d}"
        f"{totals.credits:012d}{'':39}"
    )


def in_ascii(text: str, most: int) -> str:
    """The text in capitals without accents, at most `most` characters; other characters become a space."""
    plain = "".join(
        character if character.isascii() and character.isprintable() else " " for character in without_accents(text)
    )
    return " ".join(plain.split()).upper()[:most].rstrip()


# Inbound.


def read_returns(content: bytes) -> list[Return]:
    """The returns and notifications of change in a file. Raises `FileRejected` if it is no whole ACH file, if its
    controls do not count it, or if it holds neither."""
    lines = _lines(content)
    returns: list[Return] = []
    entry: str | None = None
    in_batch, entry_class = False, ""
    seen, of_batch = _Totals(), _Totals()
    for line in lines[1:-1]:
        kind = line[0]
        if kind == "5" and not in_batch:
            in_batch, entry_class, of_batch, entry = True, line[50:53], _Totals(), None
        elif kind == "6" and in_batch:
            entry = line
            of_batch = of_batch.plus(_totals_of_entry(line))
        elif kind == "7" and entry is not None:
            of_batch = of_batch.plus(_Totals(entries=1))
            if line[1:3] == "99":
                returns.append(_read_return(line, _number(entry[29:39])))
            elif line[1:3] == "98" and entry_class == "COR":
                returns.append(_read_correction(line))
        elif kind == "8" and in_batch:
            _compare(of_batch, line[4:10], line[10:20], line[20:32], line[32:44], "a batch")
            in_batch, entry, seen = False, None, seen.plus(of_batch, batches=1)
        else:
            raise FileRejected(f"a record of type {kind!r} stands in the wrong place")
    end = lines[-1]
    if in_batch or end[0] != "9":
        raise FileRejected("the file has no end")
    _compare(seen, end[13:21], end[21:31], end[31:43], end[43:55], "the file")
    if _number(end[1:7]) != seen.batches:
        raise FileRejected("the control of the file counts other batches")
    if not returns:
        raise FileRejected("the file holds neither returns nor notifications of change")
    return returns


def _lines(content: bytes) -> list[str]:
    """The records, without the fill. A line that lost the spaces at its end gets them back."""
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        raise FileRejected("the file is not ASCII") from None
    lines = [line.rstrip("\r") for line in text.rstrip("\r\n \x1a").split("\n")]
    if len(lines) == 1 and len(text.rstrip()) > LINE:
        whole = lines[0].ljust(-(-len(lines[0]) // LINE) * LINE)
        lines = [whole[start : start + LINE] for start in range(0, len(whole), LINE)]
    while len(lines) > 1 and lines[-1] == "9" * LINE:
        lines.pop()
    if not lines[0].startswith("101") or lines[0][34:37].strip() != "094":
        raise FileRejected("the first line is not the header of an ACH file")
    if any(not line or len(line) > LINE for line in lines) or len(lines) < 4:
        raise FileRejected(f"the file is cut short, or has a line of another length than {LINE}")
    return [line.ljust(LINE) for line in lines]


def _totals_of_entry(line: str) -> _Totals:
    amount = _number(line[29:39])
    # Nacha's transaction codes: a last digit of 6 to 9 debits the account, one of 1 to 4 credits it.
    debit = line[2] in "6789"
    return _Totals(
        entries=1,
        routing_sum=_number(line[3:11]),
        debits=amount if debit else 0,
        credits=0 if debit else amount,
    )


def _compare(counted: _Totals, entries: str, hash: str, debits: str, credits: str, of: str) -> None:
    stated = tuple(_number(field) for field in (entries, hash, debits, credits))
    if stated != (counted.entries, counted.hash, counted.debits, counted.credits):
        raise FileRejected(f"the control of {of} states other counts or sums than its entries have")


def _read_return(addenda: str, amount_minor: int) -> Return:
    code, trace = addenda[3:6], addenda[6:21].strip()
    if not (code[0] == "R" and code[1:].isdigit()):
        raise FileRejected("a return has no reason code")
    reason = RETURNS.get(code, "could_not_process")
    return Return(
        id=f"{trace}:{code}",
        trace=trace,
        outcome=Declined("card_declined", reason),
        amount_minor=amount_minor,
        currency="usd",
        code=code,
    )


def _read_correction(addenda: str) -> Return:
    code, trace, data = addenda[3:6], addenda[6:21].strip(), addenda[35:64]
    return Return(id=f"{trace}:{code}", trace=trace, outcome=None, code=code, correction=_correction(code, data))


def _correction(code: str, data: str) -> Correction | None:
    """The corrected data of a notification of change; None for a code that changes no field of an account."""
    match code:
        case "C01":
            return Correction(account_number=data[:17].strip())
        case "C02":
            return Correction(routing_number=data[:9])
        case "C03":
            return Correction(routing_number=data[:9], account_number=data[12:29].strip())
        case "C04":
            return Correction(name=data[:22].strip())
        case "C05":
            return Correction(account_type=_account_type(data[:2]))
        case "C06":
            return Correction(account_number=data[:17].strip(), account_type=_account_type(data[20:22]))
        case "C07":
            return Correction(
                routing_number=data[:9], account_number=data[9:26].strip(), account_type=_account_type(data[26:28])
            )
        case _:
            return None


def _account_type(transaction_code: str) -> str | None:
    return {"2": "checking", "3": "savings"}.get(transaction_code[:1])


def _number(field: str) -> int:
    bare = field.strip()
    if not (bare.isascii() and bare.isdigit()):
        raise FileRejected("a number is not one")
    return int(bare)


RETURNS: Final[Mapping[str, str]] = {
    "R01": "insufficient_funds",  # Insufficient funds.
    "R02": "account_closed",  # Account closed.
    "R03": "no_account",  # No account, or unable to locate it.
    "R04": "invalid_account_number",  # Invalid account number structure.
    "R05": "debit_not_authorized",  # Unauthorized debit to a consumer's account with a corporate entry class.
    "R06": "could_not_process",  # Returned at the request of the ODFI.
    "R07": "debit_not_authorized",  # Authorization revoked by the customer.
    "R08": "debit_not_authorized",  # Payment stopped.
    "R09": "insufficient_funds",  # Uncollected funds.
    "R10": "debit_not_authorized",  # Customer advises that the originator is not known or not authorized.
    "R11": "debit_not_authorized",  # Customer advises that the entry is not in accordance with the authorization.
    "R12": "bank_ownership_changed",  # Branch sold to another bank.
    "R13": "invalid_account_number",  # RDFI not qualified to participate, or invalid routing number.
    "R14": "account_closed",  # Representative payee deceased or unable to continue.
    "R15": "account_closed",  # Beneficiary or account holder deceased.
    "R16": "account_frozen",  # Account frozen, or entry returned on instruction of OFAC.
    "R17": "invalid_account_number",  # File record edit criteria, or questionable account information.
    "R18": "could_not_process",  # Improper effective entry date.
    "R19": "could_not_process",  # Amount field error.
    "R20": "bank_account_restricted",  # Not a transaction account.
    "R21": "could_not_process",  # Invalid company identification.
    "R22": "incorrect_account_holder_name",  # Invalid individual id number.
    "R23": "declined",  # Credit entry refused by the receiver.
    "R24": "could_not_process",  # Duplicate entry.
    "R25": "could_not_process",  # Addenda error.
    "R26": "could_not_process",  # Mandatory field error.
    "R27": "could_not_process",  # Trace number error.
    "R28": "invalid_account_number",  # Check digit of the routing number wrong.
    "R29": "debit_not_authorized",  # Corporate customer advises not authorized.
    "R30": "could_not_process",  # RDFI does not take part in check truncation.
    "R31": "could_not_process",  # Permissible return entry, CCD and CTX.
    "R32": "could_not_process",  # RDFI does not settle.
    "R33": "could_not_process",  # Return of XCK entry.
    "R34": "bank_account_restricted",  # Limited participation of the RDFI.
    "R35": "could_not_process",  # Return of improper debit entry.
    "R36": "could_not_process",  # Return of improper credit entry.
    "R37": "debit_not_authorized",  # Source document presented for payment.
    "R38": "debit_not_authorized",  # Stop payment on source document.
    "R39": "could_not_process",  # Improper source document, or source document presented.
    "R40": "could_not_process",  # Return of ENR entry.
    "R41": "could_not_process",  # Invalid transaction code in an ENR entry.
    "R42": "invalid_account_number",  # Routing number or check digit error in an ENR entry.
    "R43": "invalid_account_number",  # Invalid account number in an ENR entry.
    "R44": "could_not_process",  # Invalid individual id in an ENR entry.
    "R45": "incorrect_account_holder_name",  # Invalid name in an ENR entry.
    "R46": "could_not_process",  # Invalid representative payee indicator.
    "R47": "could_not_process",  # Duplicate enrollment.
    "R50": "could_not_process",  # State law affecting RCK acceptance.
    "R51": "debit_not_authorized",  # Item related to an RCK entry ineligible.
    "R52": "debit_not_authorized",  # Stop payment on item related to an RCK entry.
    "R53": "could_not_process",  # Item and RCK entry presented for payment.
    "R61": "could_not_process",  # Misrouted return.
    "R62": "could_not_process",  # Return of erroneous or reversing debit.
    "R67": "could_not_process",  # Duplicate return.
    "R68": "could_not_process",  # Untimely return.
    "R69": "could_not_process",  # Field error.
    "R70": "could_not_process",  # Permissible return entry not accepted.
    "R71": "could_not_process",  # Misrouted dishonored return.
    "R72": "could_not_process",  # Untimely dishonored return.
    "R73": "could_not_process",  # Timely original return.
    "R74": "could_not_process",  # Corrected return.
    "R75": "could_not_process",  # Return not a duplicate.
    "R76": "could_not_process",  # No errors found.
    "R77": "could_not_process",  # Non-acceptance of a dishonored return.
    "R80": "could_not_process",  # IAT entry coding error.
    "R81": "could_not_process",  # Non-participant in the IAT program.
    "R82": "invalid_account_number",  # Invalid foreign receiving DFI identification.
    "R83": "could_not_process",  # Foreign receiving DFI unable to settle.
    "R84": "could_not_process",  # Entry not processed by the gateway.
    "R85": "could_not_process",  # Incorrectly coded outbound international payment.
}
"""Reasons of returns, as failure codes of payouts and bank debits. A code that is not here is `could_not_process`."""
