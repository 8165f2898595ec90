"""A bank that takes ACH files: a strict reader after Nacha's record formats, and the files that it sends back.

The reader shares no code with Tillway's. `tests/connectors/test_nacha.py` shows that it takes moov's samples, and
refuses damaged ones.
"""

from typing import Any, NamedTuple


class Refused(Exception):
    """The bank refuses the whole file."""


class AchEntry(NamedTuple):
    trace: str
    transaction: str
    routing_number: str
    account: str
    amount: int
    name: str
    entry_class: str
    effective: str
    company: str
    description: str


class AchFile(NamedTuple):
    origin: str
    destination: str
    created: str
    modifier: str
    entries: list[AchEntry]


def check(holds: bool, why: str) -> None:
    if not holds:
        raise Refused(why)


def read_ach(content: bytes) -> AchFile:
    """Read a file of credits and debits, character by character. Raises `Refused`."""
    text = content.decode("ascii")
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    check(len(lines) % 10 == 0, f"{len(lines)} lines are no whole blocks")
    while lines[-1] == "9" * 94:
        lines.pop()
    check(all(len(line) == 94 for line in lines), "a line has not 94 characters")
    head, *body, end = lines
    check(head[:3] == "101" and head[34:40] == "094101", "no file header")
    entries: list[AchEntry] = []
    file = {"batches": 0, "lines": 0, "hash": 0, "debits": 0, "credits": 0}
    batch: dict[str, Any] = {}
    for line in body:
        match line[0]:
            case "5":
                check(not batch, "a batch in a batch")
                check(line[50:53] in ENTRY_CLASSES and line[69:75].isdigit(), "no batch header")
                batch = {"head": line, "lines": 0, "hash": 0, "debits": 0, "credits": 0, "last": ""}
            case "6":
                check(bool(batch), "an entry outside of a batch")
                routing = line[3:12]
                weighted = sum(int(digit) * weight for digit, weight in zip(routing, (3, 7, 1) * 3, strict=True))
                check(weighted % 10 == 0, f"{routing} has a wrong check digit")
                check(line[79:94] > batch["last"], "trace numbers do not ascend")
                check(line[79:87] == batch["head"][79:87], "a trace number of another bank")
                amount = int(line[29:39])
                side = "debits" if line[2] in "789" else "credits"
                allowed = {"200": ("debits", "credits"), "220": ("credits",), "225": ("debits",)}
                check(side in allowed[batch["head"][1:4]], "an entry of the other service class")
                check(bool(line[54:76].strip()) and bool(line[12:29].strip()), "an entry without name or account")
                batch.update(
                    lines=batch["lines"] + 1,
                    hash=batch["hash"] + int(routing[:8]),
                    last=line[79:94],
                    **{side: batch[side] + amount},
                )
                first = batch["head"]
                entries.append(
                    AchEntry(
                        line[79:94],
                        line[1:3],
                        routing,
                        line[12:29].strip(),
                        amount,
                        line[54:76].strip(),
                        first[50:53],
                        first[69:75],
                        first[4:20].strip(),
                        first[53:63].strip(),
                    )
                )
            case "7":
                check(bool(batch["lines"]), "an addenda without an entry")
                batch["lines"] += 1
            case "8":
                stated = (int(line[4:10]), int(line[10:20]), int(line[20:32]), int(line[32:44]))
                counted = (batch["lines"], batch["hash"] % 10**10, batch["debits"], batch["credits"])
                check(stated == counted, f"the batch states {stated} and has {counted}")
                check(line[79:94] == batch["head"][79:94], "the control of another batch")
                file = {name: file[name] + batch.get(name, 0) for name in file} | {"batches": file["batches"] + 1}
                batch = {}
            case other:
                raise Refused(f"a record of type {other!r}")
    check(end[0] == "9" and not batch, "the file has no end")
    stated_of_file = [int(end[a:b]) for a, b in ((1, 7), (13, 21), (21, 31), (31, 43), (43, 55))]
    counted_of_file = [file["batches"], file["lines"], file["hash"] % 10**10, file["debits"], file["credits"]]
    check(stated_of_file == counted_of_file, f"the file states {stated_of_file} and has {counted_of_file}")
    check(int(end[7:13]) == -(-len(lines) // 10), "another number of blocks")
    return AchFile(head[13:23], head[3:13], head[23:29], head[33], entries)


ENTRY_CLASSES = ("PPD", "CCD", "WEB", "TEL", "CIE", "CTX", "ARC", "BOC", "POP", "RCK")


def returns(entries: list[AchEntry], code: str, *, amount: int | None = None, trace: str | None = None) -> bytes:
    """The file that returns these entries with a reason such as R01."""
    return _file([(entry, "99", code, "", amount, trace) for entry in entries], "PPD")


def notification_of_change(entry: AchEntry, code: str, data: str) -> bytes:
    """The file that corrects an entry's account, with a code such as C01 and its corrected data."""
    return _file([(entry, "98", code, data, 0, None)], "COR")


def _file(rows: list[tuple[AchEntry, str, str, str, int | None, str | None]], entry_class: str) -> bytes:
    lines = [f"101 091000019 0210000212601051200A094101{'ORIGIN':<23}{'BANK':<23}{'':8}"]
    lines.append(
        f"5200{'ACME':<16}{'':20}{'1234567890':<10}{entry_class}{'PAYOUT':<10}{'':6}260106{'':3}1091000010000001"
    )
    hashed = debits = credits = 0
    for number, (entry, addenda, code, data, amount, trace) in enumerate(rows, 1):
        cents = entry.amount if amount is None else amount
        debit = entry.transaction[1] in "789"
        transaction = entry.transaction[0] + ("6" if debit else "1")
        hashed += int(entry.routing_number[:8])
        debits, credits = debits + cents * debit, credits + cents * (not debit)
        ours = f"09100001{number:07d}"
        lines.append(
            f"6{transaction}{entry.routing_number}{entry.account:<17}{cents:010d}{'':15}{entry.name:<22}  1{ours}"
        )
        original = trace or entry.trace
        if addenda == "99":
            lines.append(f"799{code}{original}{'':6}{entry.routing_number[:8]}{'':44}{ours}")
        else:
            lines.append(f"798{code}{original}{'':6}{entry.routing_number[:8]}{data:<29}{'':15}{ours}")
    count = 2 * len(rows)
    sums = f"{hashed % 10**10:010d}{debits:012d}{credits:012d}"
    lines.append(f"8200{count:06d}{sums}{'1234567890':<10}{'':25}091000010000001")
    blocks = -(-(len(lines) + 1) // 10)
    lines.append(f"9000001{blocks:06d}{count:08d}{sums}{'':39}")
    lines += ["9" * 94] * (-len(lines) % 10)
    assert all(len(line) == 94 for line in lines), [len(line) for line in lines]
    return "".join(f"{line}\n" for line in lines).encode("ascii")
