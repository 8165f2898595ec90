"""The rules of the crash harness about disputes and contradictions: the banks' reports, the merchant's replies and the
open items agree.

Pure, like `reconcile.py`. A dispute of the API is found by the network's reason code, which is its number.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec

from tillway.crash.violation import Violation

Document = dict[str, Any]

ENDED: Final = {"Won": "won", "Lost": "lost", "Accepted": "accepted"}
"""An outcome in a bank's report, and in an open item."""

REPLIES = ("evidence", "accept")


class Word(Protocol):
    """A notice that contradicts a settled outcome (`issuer.Word`)."""

    connector: str
    reference: str
    heard: bool
    alarming: bool

    @property
    def theirs(self) -> str: ...


class Heard(msgspec.Struct, frozen=True):
    """One report of a bank. `certain`: Tillway acknowledged it, or it is the latest, which is told until then."""

    stage: str
    verdict: str
    certain: bool


class Case(msgspec.Struct, kw_only=True):
    """A dispute in a bank's journal. `stage`, `verdict` and `amount` are those of the latest report; `evidence` and
    `accepted` count the replies that the bank took, `accepted` only those to the chargeback."""

    connector: str
    reference: str
    parent: str
    amount: int
    currency: str
    stage: str
    verdict: str
    told: int
    reports: list[Heard] = msgspec.field(default_factory=list)
    acknowledged: bool = False
    """Whether Tillway has acknowledged the latest report."""
    evidence: int = 0
    accepted: int = 0
    closed: bool = False
    """Whether a stage of it has ended at some time."""

    def outcomes(self, *, certain: bool = False) -> set[str]:
        """The outcomes of the chargeback that the bank has told; `certain`: that Tillway has surely heard."""
        told = [one for one in self.reports if one.certain or not certain]
        return {one.verdict for one in told if one.stage == "chargeback" and one.verdict in ENDED}


def noticed_report(reference: str, nth: int) -> str:
    """The mark in a journal of an acknowledged report."""
    return f"report-{nth}-{reference}"


def read_cases(path: Path, connector: str) -> dict[str, Case]:
    """The disputes of a journal by their references."""
    cases: dict[str, Case] = {}
    noticed: set[str] = set()
    reports: dict[str, list[tuple[int, str, str]]] = {}
    content = path.read_bytes()
    for raw in content[: content.rfind(b"\n") + 1].splitlines():
        line = msgspec.json.decode(raw)
        if "noticed" in line:
            noticed.add(line["noticed"])
            continue
        case = cases.get(line["reference"] if line["kind"] == "dispute" else line.get("parent") or "")
        if line["kind"] == "dispute":
            verdict, told = line.get("verdict", "Opened"), line.get("told", 0)
            if case is None:
                case = Case(
                    **{name: line[name] for name in ("reference", "parent", "amount", "currency")},
                    connector=connector,
                    stage=line["dispute"],
                    verdict=verdict,
                    told=told,
                )
                cases[case.reference] = case
            case.amount, case.stage, case.verdict, case.told = line["amount"], line["dispute"], verdict, told
        elif line["kind"] in REPLIES and case is not None:
            case.evidence += line["kind"] == "evidence"
            if line["kind"] == "evidence":
                continue
            # The bank confirms an acceptance by a report.
            case.accepted += line["reference"].startswith("chargeback")
            case.verdict, case.told = "Accepted", case.told + 1
        else:
            continue
        case.closed = case.closed or case.verdict in ENDED
        reports.setdefault(case.reference, []).append((case.told, case.stage, case.verdict))
    for case in cases.values():
        case.acknowledged = noticed_report(case.reference, case.told) in noticed
        case.reports = [
            Heard(stage, verdict, told == case.told or noticed_report(case.reference, told) in noticed)
            for told, stage, verdict in reports[case.reference]
        ]
    return cases


def number_of(dispute: Document) -> str:
    """The number of a dispute of the API."""
    return str(dispute["payment_method_details"]["card"]["network_reason_code"])


def numbered(cases: Iterable[Case]) -> dict[str, Case]:
    return {case.reference.removeprefix("case-"): case for case in cases}


def is_inquiry(dispute: Document) -> bool:
    return bool(dispute["payment_method_details"]["card"]["case_type"] == "inquiry")


def find_unanswered(disputes: Iterable[Document], cases: Mapping[str, Case], *, now: float) -> list[str]:
    """A sentence for each dispute that is still on its way to the merchant or to the bank, or that a deadline is about
    to end. `cases`: by number."""
    left: list[str] = []
    known = {number_of(dispute): dispute for dispute in disputes}
    for number, case in cases.items():
        dispute = known.get(number)
        if dispute is None or not case.acknowledged:
            left.append(f"case-{number} is not told")
            continue
        if dispute["evidence_details"]["submission_count"] > case.evidence and not case.closed:
            left.append(f"the evidence of {dispute['id']} is not at the bank")
        due = dispute["evidence_details"]["due_by"]
        if dispute["status"] in ("needs_response", "warning_needs_response") and due < now + 3600:
            left.append(f"{dispute['id']} has a deadline")
    return left


def disputes_agree(
    disputes: list[Document],
    items: list[Document],
    cases: Mapping[str, Case],
    charge_of: Mapping[str, str],
) -> Iterator[Violation]:
    """Each dispute is one of a bank's, and its outcome was told or is the merchant's. `cases`: by number; `charge_of`:
    charges by their references."""
    rule = "disputes are the bank's"
    found = Counter(number_of(dispute) for dispute in disputes)
    for number, case in cases.items():
        if found[number] != 1:
            yield Violation(rule, f"there are {found[number]} disputes of {case}", (charge_of.get(case.parent, ""),))
    theirs = {(item["subject"], item["theirs"]): item for item in items}
    for dispute in disputes:
        case_or_none = cases.get(number_of(dispute))
        about = (dispute["id"], dispute["charge"])
        if case_or_none is None:
            yield Violation(rule, f"no bank knows {dispute['id']}", about)
            continue
        yield from _is_the_banks(dispute, case_or_none, charge_of)
        yield from _contradictions_are_kept(dispute, case_or_none, theirs)
        yield from _replies_arrive(dispute, case_or_none)


def _is_the_banks(dispute: Document, case: Case, charge_of: Mapping[str, str]) -> Iterator[Violation]:
    rule, about, told = "disputes are the bank's", (dispute["id"], dispute["charge"]), case.outcomes()
    ours = (dispute["charge"], dispute["amount"], dispute["currency"], is_inquiry(dispute))
    if ours != (charge_of.get(case.parent), case.amount, case.currency, case.stage == "inquiry"):
        yield Violation(rule, f"{dispute['id']} is {ours}, the bank has {case}", about)
    if is_inquiry(dispute):
        return
    if dispute["status"] == "won" and "Won" not in told:
        yield Violation(rule, f"{dispute['id']} is won, and the bank has told {sorted(told)}", about)
    if told and dispute["status"] not in ("won", "lost"):
        yield Violation(rule, f"{dispute['id']} is {dispute['status']}, and the bank has told {sorted(told)}", about)


def _contradictions_are_kept(
    dispute: Document, case: Case, theirs: Mapping[tuple[str, str], Document]
) -> Iterator[Violation]:
    """Each outcome that was surely heard and contradicts the booked one is an open item with both sides, and only a
    contradiction is one."""
    rule, about = "contradictions are open items", (dispute["id"], dispute["charge"])
    for verdict, word in ENDED.items():
        item = theirs.get((dispute["id"], word))
        contradicts = not is_inquiry(dispute) and (verdict == "Won") != (dispute["status"] == "won")
        if verdict in case.outcomes(certain=True) and contradicts and item is None:
            yield Violation(rule, f"{dispute['id']} is {dispute['status']}, and {case} is no open item", about)
        if item is None:
            continue
        if verdict not in case.outcomes() or not contradicts or item["ours"] != dispute["status"]:
            yield Violation(rule, f"{dispute['id']} is {dispute['status']}, {case}, and there is {item}", about)


def _replies_arrive(dispute: Document, case: Case) -> Iterator[Violation]:
    """Each piece of evidence is at the bank once, unless the dispute ended before it came."""
    rule, about = "replies arrive once", (dispute["id"], dispute["charge"])
    submitted = dispute["evidence_details"]["submission_count"]
    if case.evidence > submitted or (case.evidence < submitted and not case.closed):
        yield Violation(rule, f"{dispute['id']} was answered {submitted} times; the bank has {case}", about)
    if case.accepted and dispute["status"] != "lost":
        yield Violation(rule, f"{dispute['id']} is {dispute['status']}, and its bank has an acceptance", about)


def words_are_kept(words: Iterable[Word], items: Iterable[Document], logs: str) -> Iterator[Violation]:
    """Each contradiction of a settled outcome is one open item, and an alarm in the `logs`; and no other is."""
    rule = "contradictions are open items"
    alarms = "".join(line for line in logs.splitlines() if "contradicts" in line)
    said = {(word.reference, word.theirs): word for word in words if word.heard}
    found: Counter[tuple[str, str]] = Counter()
    for item in items:
        if item["subject"] is not None and item["subject"].startswith("du_"):
            continue  # See `_contradictions_are_kept`.
        if item["kind"] == "unreturned":
            continue  # See `unreturned_payments_are_disputed`.
        place = (item["reference"], item["theirs"])
        found[place] += 1
        if place not in said or item["kind"] != "contradiction":
            yield Violation(rule, f"nobody has said {item}", (item["id"], item["subject"] or ""))
        elif said[place].alarming and item["reference"] not in alarms:
            yield Violation(rule, f"no server raised an alarm over {item}", (item["id"], item["subject"] or ""))
    for place, word in said.items():
        if found[place] != 1:
            yield Violation(rule, f"{word} was heard, and there are {found[place]} open items", (word.reference,))


def unreturned_payments_are_disputed(
    disputes: Iterable[Document], items: Iterable[Document], charges: Iterable[Document]
) -> Iterator[Violation]:
    """Each open item of a failed order is about a payment whose money a dispute has withheld."""
    withheld = {dispute["charge"] for dispute in disputes if not is_inquiry(dispute)}
    payments = {charge["payment_intent"] for charge in charges if charge["id"] in withheld}
    for item in items:
        if item["kind"] == "unreturned" and item["subject"] not in payments:
            yield Violation("contradictions are open items", f"no dispute explains {item}", (item["id"],))


def withheld_by_the_bank(
    disputes: Iterable[Document], items: Iterable[Document], cases: Mapping[str, Case], connector: str
) -> Counter[str]:
    """The chargebacks of a bank that it has not returned, in minor units by currency. Where it contradicts an outcome
    that was booked, the amount of the open item counts as booked."""
    booked = {number_of(dispute): dispute for dispute in disputes}
    explained = {(item["subject"], item["theirs"]) for item in items}
    withheld: Counter[str] = Counter()
    for number, case in cases.items():
        if case.connector != connector or case.stage != "chargeback":
            continue
        ours, returned = booked.get(number), case.verdict == "Won"
        if ours is not None and (ours["id"], case.verdict.lower()) in explained:
            returned = ours["status"] == "won"
        if not returned:
            withheld[case.currency] += case.amount
    return withheld


def withheld_by_the_api(
    disputes: Iterable[Document], cases: Mapping[str, Case], connector: str, *, which: Literal["all", "lost"] = "all"
) -> Counter[str]:
    """The chargebacks of a connector that are not won, in minor units by currency; or only those that are lost."""
    withheld: Counter[str] = Counter()
    for dispute in disputes:
        case = cases.get(number_of(dispute))
        counts = dispute["status"] == "lost" if which == "lost" else dispute["status"] != "won"
        if case is not None and case.connector == connector and not is_inquiry(dispute) and counts:
            withheld[dispute["currency"]] += dispute["amount"]
    return withheld
