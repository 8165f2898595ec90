"""The rules that must hold at rest: the clients' answers, the API and the bank's journal agree.

Pure: `reconcile` gets the three records and returns every contradiction between them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tillway.crash.clients import Reply
from tillway.crash.disputes import (
    REPLIES,
    Case,
    Word,
    disputes_agree,
    is_inquiry,
    unreturned_payments_are_disputed,
    withheld_by_the_api,
    withheld_by_the_bank,
    words_are_kept,
)
from tillway.crash.hook import EVENTS
from tillway.crash.violation import Violation

Document = dict[str, Any]

ACCEPTED = "Accepted"


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """The final state of the API, newest first in each list."""

    payments: list[Document]
    charges: list[Document]
    refunds: list[Document]
    payouts: list[Document]
    entries: list[Document]
    events: list[Document]
    ledger: Document
    balance: Document
    doubts: list[Document]
    orders: list[Document]
    products: list[Document]
    routes: dict[str, list[Document]]
    """The attempts of a payment's route, by its id; of no payment where there is one bank."""
    disputes: list[Document]
    items: list[Document]


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """The banks' own words: their disputes by number, and the notices that contradict a settled outcome. `charge_of`:
    the charges by their references. `logs`: all that the servers have logged."""

    cases: Mapping[str, Case]
    words: Sequence[Word]
    charge_of: Mapping[str, str]
    logs: str = ""


class Performed(msgspec.Struct, frozen=True, kw_only=True):
    """One operation in its last state in the bank's journal. `suffix` is the reference without the merchant's part."""

    reference: str
    kind: str
    status: str
    amount: int
    currency: str
    parent: str | None = None
    contents: str = ""
    capture: bool = False
    decline_code: str | None = None

    @property
    def suffix(self) -> str:
        return self.reference[SCOPE_LENGTH:]

    @property
    def accepted(self) -> bool:
        return self.status == ACCEPTED


SCOPE_LENGTH = 17
"""Characters of a reference that name the merchant and the mode; the rest is the attempt's own."""


def read_journal(path: Path) -> tuple[dict[str, Performed], list[Violation]]:
    """The bank's operations by reference, and the references that name two different operations."""
    operations: dict[str, Performed] = {}
    violations: list[Violation] = []
    content = path.read_bytes()
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        raw = msgspec.json.decode(line)
        if "noticed" in raw or raw["kind"] in ("dispute", *REPLIES):
            continue
        operation = msgspec.convert(raw, Performed)
        before = operations.get(operation.reference)
        decided = {"status": operation.status, "decline_code": operation.decline_code}
        if before is not None and msgspec.structs.replace(before, **decided) != operation:
            violations.append(
                Violation(
                    "a reference is one thing for ever",
                    f"{operation.reference} is {_plain(before)} and then {_plain(operation)}",
                    (operation.reference,),
                )
            )
        operations[operation.reference] = operation
    return operations, violations


def name_by_ids(bank: Mapping[str, Performed], ids: Mapping[str, str]) -> dict[str, Performed]:
    """The same operations, with the suffix of their charge, refund or payout where their reference has a tail that
    follows from a key. `ids`: those records' ids by reference. An operation of no record keeps its reference."""

    def named(reference: str) -> str:
        id = ids.get(reference)
        return reference if id is None else reference[:SCOPE_LENGTH] + id.partition("_")[2]

    return {
        named(reference): msgspec.structs.replace(
            operation,
            reference=named(reference),
            parent=named(operation.parent) if operation.parent is not None else None,
        )
        for reference, operation in bank.items()
    }


def reconcile(
    told: Iterable[Reply],
    platform: Platform,
    banks: Mapping[str, Mapping[str, Performed]],
    *,
    said: Said,
    delivered: Mapping[str, int],
) -> list[Violation]:
    """Return every contradiction, in the order of the rules below. `banks`: the operations of each bank, by the name of
    its connector. `said`: their own words. `delivered`: how often the merchant's webhook endpoint got an event,
    by its id."""
    told = list(told)
    bank = {reference: operation for operations in banks.values() for reference, operation in operations.items()}
    return [
        *_nobody_heard_nonsense(told),
        *_a_key_has_one_answer(told),
        *_what_was_said_is_so(told, platform),
        *_a_reference_is_at_one_bank(banks),
        *_all_is_settled(platform, bank),
        *_an_order_is_one_payment(platform),
        *_charges_are_authorizations(platform, bank),
        *_routes_lead_to_the_money(platform, banks),
        *_refunds_are_refunds(platform, bank),
        *_payouts_are_payouts(platform, bank),
        *_nothing_else_was_done(platform, bank),
        *_the_sums_agree(platform, banks, said.cases),
        *disputes_agree(platform.disputes, platform.items, said.cases, said.charge_of),
        *words_are_kept(said.words, platform.items, said.logs),
        *unreturned_payments_are_disputed(platform.disputes, platform.items, platform.charges),
        *_events_are_told_once(platform),
        *_events_reach_the_merchant(platform, delivered),
        *_orders_end_well(told, platform),
    ]


# The clients' answers.


def _nobody_heard_nonsense(told: list[Reply]) -> Iterator[Violation]:
    """No request gets a 500, or a refusal that these clients cannot have caused."""
    for one in told:
        if one.status >= 500 or one.status in (401, 404, 405, 413, 415):
            yield Violation(
                "nothing the caller sends makes a 500",
                f"{one.order.what} was answered {one.status}: {one.body[:300]!r}",
                (one.order.story, one.order.key),
            )
        if one.status == 400 and one.code not in EARNED:
            yield Violation(
                "a refusal is earned",
                f"{one.order.what} was refused: {one.body[:300]!r}",
                (one.order.story, one.order.key),
            )


EARNED = (
    "payment_intent_unexpected_state",
    "charge_already_captured",
    "charge_already_refunded",
    "charge_not_refundable",
    "refund_amount_too_large",
    "payment_method_unexpected_state",
    "balance_insufficient",
    "payout_unexpected_state",
    "charge_disputed",
    "dispute_unexpected_state",
)


def _a_key_has_one_answer(told: list[Reply]) -> Iterator[Violation]:
    """A repeated order gets the same bytes again."""
    answers: dict[str, Reply] = {}
    for one in told:
        first = answers.get(one.order.key)
        if first is None:
            if one.final:
                answers[one.order.key] = one
            continue
        if (one.status, one.body) != (first.status, first.body):
            yield Violation(
                "a key has one answer",
                f"{one.order.what} was answered {first.status} {first.body!r}\n"
                f"    and, {one.at - first.at:.2f} s later, {one.status} {one.body!r}",
                (one.order.story, one.order.key),
            )


def _what_was_said_is_so(told: list[Reply], platform: Platform) -> Iterator[Violation]:
    """An answer with a final status stays true."""
    kinds = (platform.payments, platform.charges, platform.refunds, platform.payouts, platform.disputes)
    by_id = {document["id"]: document for documents in kinds for document in documents}
    for one in told:
        if not one.final:
            continue
        said = one.document
        if one.order.what in ("account", "customer", "stock"):
            continue
        if one.order.what == "disburse":
            # In major units, and in terms of the dialect: its recipient and its truth are checked with the payouts.
            said = {**by_id.get(said["id"], {}), "id": said["id"]}
        if one.status == 402:
            said = said["error"].get("payment_intent") or {"id": said["error"].get("charge"), "object": "charge"}
        now = by_id.get(said.get("id") or "")
        about = (one.order.story, one.order.key, said.get("id") or "")
        if now is None:
            yield Violation("answers stay true", f"{one.order.what}: {said.get('id')} does not exist", about)
            continue
        if one.status == 402:
            continue  # It may have been paid since. Its failed charge is checked with the charges.
        for wrong in _contradictions(said, now):
            yield Violation("answers stay true", f"{one.order.what} of {said['id']}: {wrong}", about)


_STAYS: dict[tuple[str, str], tuple[str, ...]] = {
    ("payment_intent", "succeeded"): ("amount", "currency", "status", "amount_received", "latest_charge"),
    ("payment_intent", "canceled"): ("amount", "currency", "status", "amount_received"),
    ("payment_intent", "requires_capture"): ("amount", "currency", "latest_charge"),
    ("payment_intent", "requires_action"): ("currency",),
    ("payment_intent", "requires_confirmation"): ("currency",),
    ("payment_intent", "requires_payment_method"): ("currency",),
    # After a decline, its amount may change.
    ("payment_intent", "processing"): ("currency",),
    ("charge", "succeeded"): ("amount", "currency", "status"),
    ("charge", "failed"): ("amount", "currency", "status"),
    ("charge", "pending"): ("amount", "currency"),
    ("refund", "succeeded"): ("amount", "currency", "status", "charge"),
    ("refund", "failed"): ("amount", "currency", "status", "charge"),
    ("refund", "pending"): ("amount", "currency"),
    ("payout", "paid"): ("amount", "currency", "status"),
    ("payout", "failed"): ("amount", "currency", "status"),
    ("payout", "canceled"): ("amount", "currency", "status"),
    ("payout", "pending"): ("amount", "currency"),
    ("payout", "in_transit"): ("amount", "currency"),
    ("dispute", "needs_response"): ("amount", "currency", "charge"),
    ("dispute", "under_review"): ("amount", "currency", "charge"),
    ("dispute", "won"): ("amount", "currency", "charge", "status"),
    ("dispute", "lost"): ("amount", "currency", "charge", "status"),
    # An inquiry may become a chargeback of another amount.
    ("dispute", "warning_needs_response"): ("currency", "charge"),
    ("dispute", "warning_under_review"): ("currency", "charge"),
    ("dispute", "warning_closed"): ("currency", "charge"),
}
"""Object and status in an answer -> the fields that never change from then on."""


def _contradictions(said: Document, now: Document) -> Iterator[str]:
    kind, status = said["object"], said["status"]
    if (kind, status) not in _STAYS:
        yield f"a {kind} that is {status} was not to be expected"
    stays = _STAYS.get((kind, status), ("amount", "currency"))
    if kind == "charge" and status != "pending" and said["captured"]:
        stays += ("captured", "amount_captured")
    later = ("requires_capture", "succeeded", "canceled")
    if (kind, status) == ("payment_intent", "requires_capture") and now["status"] not in later:
        yield f"it was requires_capture, and is {now['status']}"
    for name in stays:
        if said[name] != now[name]:
            yield f"{name} was {said[name]!r}, and is {now[name]!r}"


# The API against the bank's operations.


def _a_reference_is_at_one_bank(banks: Mapping[str, Mapping[str, Performed]]) -> Iterator[Violation]:
    """A request that is sent again goes where it went before; an attempt at another connector has another reference."""
    at: dict[str, str] = {}
    for connector, operations in banks.items():
        for reference, operation in operations.items():
            first = at.setdefault(reference, connector)
            if first != connector:
                what = f"{first} and {connector} have {_plain(operation)}"
                yield Violation("a reference is at one bank", what, (reference,))


def _all_is_settled(platform: Platform, bank: Mapping[str, Performed]) -> Iterator[Violation]:
    rule = "nothing is left under way"
    for payment in platform.payments:
        if payment["status"] in ("processing", "requires_action"):
            yield Violation(rule, f"{payment['id']} is {payment['status']}", (payment["id"],))
    for document in (*platform.charges, *platform.refunds):
        if document["status"] == "pending":
            yield Violation(rule, f"{document['id']} is pending", (document["id"],))
    for payout in platform.payouts:
        if payout["status"] in ("pending", "in_transit"):
            yield Violation(rule, f"{payout['id']} is {payout['status']}", (payout["id"],))
    for doubt in platform.doubts:
        yield Violation(rule, f"{doubt['id']} is in doubt: {doubt}", (doubt["id"], doubt["subject"]))
    for operation in bank.values():
        if operation.status in ("Pending", "ActionRequired"):
            yield Violation(rule, f"the bank still has {_plain(operation)}", (operation.reference,))


def _an_order_is_one_payment(platform: Platform) -> Iterator[Violation]:
    """Each story creates one payment or one direct charge, under one key. Where payments fail over, a direct charge has
    a failed one for each connector that did not take it."""
    direct = [
        charge
        for charge in platform.charges
        if charge["payment_intent"] is None and (charge["status"] == "succeeded" or not platform.routes)
    ]
    count = Counter(document["metadata"].get("story") for document in (*platform.payments, *direct))
    for story, number in count.items():
        if story is not None and number > 1:
            yield Violation("one key, one payment", f"story {story} has {number} payments", (str(story),))
    paid = Counter(charge["payment_intent"] for charge in platform.charges if charge["status"] == "succeeded")
    for payment, number in paid.items():
        if payment is not None and number > 1:
            yield Violation("a payment is taken once", f"{payment} has {number} charges that succeeded", (payment,))


def _charges_are_authorizations(platform: Platform, bank: Mapping[str, Performed]) -> Iterator[Violation]:
    """Each charge is one authorization of the bank with the same amount, captured, voided and refunded alike."""
    rule = "charges are the bank's authorizations"
    by_suffix = {one.suffix: one for one in bank.values() if one.kind == "authorization"}
    children: dict[tuple[str, str], list[Performed]] = defaultdict(list)
    for operation in bank.values():
        if operation.parent is not None and operation.accepted:
            children[operation.parent, operation.kind].append(operation)
    payments = {payment["id"]: payment for payment in platform.payments}
    for charge in platform.charges:
        id = charge["id"]
        performed = by_suffix.get(id.removeprefix("ch_"))
        about = (id, charge["payment_intent"] or "", performed.reference if performed is not None else "")
        if charge["status"] != "succeeded":
            if performed is not None and performed.accepted:
                yield Violation(rule, f"{id} is {charge['status']}, but the bank has {_plain(performed)}", about)
            continue
        if performed is None or not performed.accepted:
            yield Violation(rule, f"{id} succeeded, but the bank has {_plain(performed)}", about)
            continue
        if (charge["amount"], charge["currency"]) != (performed.amount, performed.currency):
            yield Violation(
                rule, f"{id} is {charge['amount']} {charge['currency']}, the bank has {_plain(performed)}", about
            )
        captures = children[performed.reference, "capture"]
        voids = children[performed.reference, "void"]
        taken = performed.amount if performed.capture else sum(capture.amount for capture in captures)
        if len(captures) + len(voids) + performed.capture > 1:
            many = ", ".join(_plain(one) for one in (*captures, *voids))
            yield Violation(
                rule, f"the bank captured and voided {id} {len(captures) + len(voids)} times: {many}", about
            )
        if (charge["captured"], charge["amount_captured"]) != (taken > 0, taken):
            yield Violation(rule, f"{charge['amount_captured']} of {id} is captured, at the bank {taken}", about)
        payment = payments.get(charge["payment_intent"] or "")
        if payment is None:
            continue
        expected = "succeeded" if taken else "canceled" if voids else "requires_capture"
        if (payment["status"], payment["amount_received"]) != (expected, taken):
            yield Violation(
                rule,
                f"{payment['id']} is {payment['status']} with {payment['amount_received']} received; by the bank it "
                f"is {expected} with {taken}",
                about,
            )
    charged = {charge["id"].removeprefix("ch_") for charge in platform.charges}
    for suffix, performed in by_suffix.items():
        # A payment that is cancelled while its shopper authenticates never has a charge.
        withdrawn = performed.status == "Declined" and performed.decline_code == "authentication_required"
        if suffix not in charged and not withdrawn:
            yield Violation(rule, f"no charge belongs to {_plain(performed)}", (performed.reference,))


def _routes_lead_to_the_money(platform: Platform, banks: Mapping[str, Mapping[str, Performed]]) -> Iterator[Violation]:
    """The route of a payment that was taken tells the one connector whose bank has its authorization."""
    taken_by = {
        one.suffix: connector
        for connector, operations in banks.items()
        for one in operations.values()
        if one.kind == "authorization" and one.accepted
    }
    for charge in platform.charges:
        id, route = charge["id"], platform.routes.get(charge["payment_intent"] or "")
        if route is None or charge["status"] != "succeeded":
            continue
        told = [step["connector"] for step in route if step["outcome"] == "succeeded"]
        due = taken_by.get(id.removeprefix("ch_"))
        if told != [due]:
            yield Violation("routes lead to the money", f"{id} was taken by {due}, and its route is {route}", (id,))


def _refunds_are_refunds(platform: Platform, bank: Mapping[str, Performed]) -> Iterator[Violation]:
    """Each refund is one of the bank's, of the same charge and amount; their sum never exceeds the captured amount. One
    that releases an authorization is the bank's void."""
    rule = "refunds are the bank's refunds"
    by_suffix = {one.suffix: one for one in bank.values() if one.kind == "refund"}
    voided = {f"ch_{(one.parent or '')[SCOPE_LENGTH:]}" for one in bank.values() if one.kind == "void" and one.accepted}
    returned: Counter[str] = Counter()
    for refund in platform.refunds:
        id = refund["id"]
        if _releases(refund):
            if (refund["status"] == "succeeded") != (refund["charge"] in voided):
                told = "has voided it" if refund["charge"] in voided else "has not voided it"
                what = f"{id} of {refund['charge']} is {refund['status']}, but the bank {told}"
                yield Violation(rule, what, (id, refund["charge"]))
            continue
        performed = by_suffix.pop(id.removeprefix("re_"), None)
        about = (id, refund["charge"], performed.reference if performed is not None else "")
        if (refund["status"] == "succeeded") != (performed is not None and performed.accepted):
            yield Violation(rule, f"{id} is {refund['status']}, but the bank has {_plain(performed)}", about)
            continue
        if performed is None:
            continue
        parent = "ch_" + (performed.parent or "")[SCOPE_LENGTH:]
        if (refund["amount"], refund["currency"], refund["charge"]) != (performed.amount, performed.currency, parent):
            yield Violation(
                rule,
                f"{id} is {refund['amount']} {refund['currency']} of {refund['charge']}, the bank has "
                f"{_plain(performed)}",
                about,
            )
        if performed.accepted:
            returned[parent] += performed.amount
    for performed in by_suffix.values():
        yield Violation(rule, f"no refund belongs to {_plain(performed)}", (performed.reference,))
    for charge in platform.charges:
        id = charge["id"]
        released = charge["amount"] - charge["amount_captured"] if charge["captured"] else 0
        if returned[id] > charge["amount_captured"]:
            yield Violation(
                "refunds never exceed captures",
                f"{returned[id]} of {charge['amount_captured']} of {id} went back",
                (id,),
            )
        if charge["captured"] and charge["amount_refunded"] != returned[id] + released:
            yield Violation(
                rule, f"{id} has {charge['amount_refunded']} refunded; by the bank {returned[id]} + {released}", (id,)
            )


def _releases(refund: Document) -> bool:
    """Whether the refund released an authorization: it moved no money, so that it has no balance transaction."""
    return refund["balance_transaction"] is None


def _payouts_are_payouts(platform: Platform, bank: Mapping[str, Performed]) -> Iterator[Violation]:
    """Each payout is one of the bank's, with the same amount; a cancelled one never reached the bank."""
    rule = "payouts are the bank's payouts"
    by_suffix = {one.suffix: one for one in bank.values() if one.kind == "payout"}
    for payout in platform.payouts:
        id = payout["id"]
        performed = by_suffix.pop(id.removeprefix("po_"), None)
        about = (id, performed.reference if performed is not None else "")
        if (payout["status"] == "paid") != (performed is not None and performed.accepted) or (
            payout["status"] == "canceled" and performed is not None
        ):
            yield Violation(rule, f"{id} is {payout['status']}, but the bank has {_plain(performed)}", about)
        elif performed is not None and (payout["amount"], payout["currency"]) != (
            performed.amount,
            performed.currency,
        ):
            yield Violation(
                rule, f"{id} is {payout['amount']} {payout['currency']}, the bank has {_plain(performed)}", about
            )
    for performed in by_suffix.values():
        yield Violation(rule, f"no payout belongs to {_plain(performed)}", (performed.reference,))


def _nothing_else_was_done(platform: Platform, bank: Mapping[str, Performed]) -> Iterator[Violation]:
    known = {charge["id"].removeprefix("ch_") for charge in platform.charges}
    for operation in bank.values():
        if operation.parent is not None and operation.parent[SCOPE_LENGTH:] not in known:
            yield Violation(
                "nothing else was done", f"{_plain(operation)} belongs to no charge", (operation.reference,)
            )


def _the_sums_agree(
    platform: Platform, banks: Mapping[str, Mapping[str, Performed]], cases: Mapping[str, Case]
) -> Iterator[Violation]:
    """Each bank's balance for Tillway = the ledger's receivable there minus open chargebacks; together = captured minus
    refunded and charged back by the API; and all balances."""
    rule, disputes = "the sums agree", platform.disputes
    held = {connector: _held_by_the_bank(platform, operations) for connector, operations in banks.items()}
    withheld, lost = Counter[str](), Counter[str]()
    for connector in banks:
        held[connector].subtract(withheld_by_the_bank(disputes, platform.items, cases, connector))
        withheld.update(withheld_by_the_api(disputes, cases, connector))
        lost.update(withheld_by_the_api(disputes, cases, connector, which="lost"))
    at_bank: Counter[str] = Counter()
    for at_one in held.values():
        at_bank.update(at_one)
    by_api, given = _held_by_the_api(platform)
    by_api.subtract(withheld)
    accounts = {(row["account"], row["currency"]): row["balance"] for row in platform.ledger["accounts"]}
    net = _sums(platform.entries, "net")
    funds = _sums((*platform.balance["available"], *platform.balance["pending"]), "amount")
    if not platform.ledger["balanced"]:
        yield Violation(rule, f"the ledger does not balance: {platform.ledger['accounts']}")
    for currency in sorted({*at_bank, *by_api, *given}):
        for connector in banks:
            receivable = accounts.get((f"receivable:{connector}", currency), 0)
            receivable -= withheld_by_the_api(disputes, cases, connector)[currency]
            receivable += withheld_by_the_api(disputes, cases, connector, which="lost")[currency]
            if held[connector][currency] != receivable:
                told = f"the bank {connector!r} holds {held[connector][currency]}, the ledger says {receivable}"
                yield Violation(rule, f"{currency}: {told}")
        if at_bank[currency] != by_api[currency]:
            yield Violation(rule, f"{currency}: the banks hold {at_bank[currency]}, the API says {by_api[currency]}")
        open_disputes = -accounts.get(("disputes", currency), 0)
        if open_disputes != withheld[currency] - lost[currency]:
            told = f"open disputes withhold {withheld[currency] - lost[currency]}, the ledger {open_disputes}"
            yield Violation(rule, f"{currency}: {told}")
        clearing = accounts.get(("refunds", currency), 0)
        if clearing:
            yield Violation(rule, f"{currency}: {clearing} of refunds is under way, though none is")
        under_way = accounts.get(("payouts", currency), 0)
        if under_way:
            yield Violation(rule, f"{currency}: {under_way} of payouts is under way, though none is")
        from_bank = -sum(accounts.get((f"provider:{connector}", currency), 0) for connector in banks)
        if not given[currency] == from_bank == accounts.get(("disbursements", currency), 0):
            yield Violation(rule, f"{currency}: {given[currency]} was disbursed by the API, {from_bank} by the ledger")
        owed = -accounts.get(("merchant", currency), 0)
        if not owed == net[currency] == funds[currency]:
            yield Violation(
                rule,
                f"{currency}: the merchant is owed {owed} by the ledger, {net[currency]} by the balance transactions, "
                f"{funds[currency]} by the balance",
            )


def _held_by_the_bank(platform: Platform, bank: Mapping[str, Performed]) -> Counter[str]:
    """Captures minus refunds and payouts, in minor units by currency.

    A disbursement is the merchant's own money at the bank: it moves no balance, and has its own accounts.
    """
    disbursed = {
        payout["id"].removeprefix("po_") for payout in platform.payouts if payout["balance_transaction"] is None
    }
    held: Counter[str] = Counter()
    for operation in bank.values():
        if not operation.accepted:
            continue
        if operation.kind == "capture" or (operation.kind == "authorization" and operation.capture):
            held[operation.currency] += operation.amount
        elif operation.kind == "refund" or (operation.kind == "payout" and operation.suffix not in disbursed):
            held[operation.currency] -= operation.amount
    return held


def _held_by_the_api(platform: Platform) -> tuple[Counter[str], Counter[str]]:
    """(captures minus refunds and payouts, disbursements), in minor units by currency."""
    refunds = [refund for refund in platform.refunds if refund["status"] == "succeeded" and not _releases(refund)]
    paid = [payout for payout in platform.payouts if payout["status"] == "paid"]
    held = _sums(platform.charges, "amount_captured")
    held.subtract(_sums(refunds, "amount"))
    held.subtract(_sums([payout for payout in paid if payout["balance_transaction"] is not None], "amount"))
    return held, _sums([payout for payout in paid if payout["balance_transaction"] is None], "amount")


def _sums(documents: Iterable[Document], name: str) -> Counter[str]:
    """The sum of the field `name` by currency."""
    sums: Counter[str] = Counter()
    for document in documents:
        sums[document["currency"]] += document[name]
    return sums


def _events_are_told_once(platform: Platform) -> Iterator[Violation]:
    """Each change has exactly one event, and every event its change."""
    events = Counter((event["type"], event["data"]["object"]["id"]) for event in platform.events)
    expected: Counter[tuple[str, str]] = Counter()
    for payment in platform.payments:
        expected["payment_intent.created", payment["id"]] = 1
        if payment["status"] in ("succeeded", "canceled"):
            expected[f"payment_intent.{payment['status']}", payment["id"]] = 1
    for charge in platform.charges:
        expected[f"charge.{charge['status']}", charge["id"]] = 1
    for refund in platform.refunds:
        expected["refund.created", refund["id"]] = 1
        if refund["status"] == "failed":
            expected["refund.failed", refund["id"]] = 1
    for payout in platform.payouts:
        expected["payout.created", payout["id"]] = 1
        if payout["status"] in ("paid", "failed", "canceled"):
            expected[f"payout.{payout['status']}", payout["id"]] = 1
    for dispute in platform.disputes:
        expected["charge.dispute.created", dispute["id"]] = 1
        expected["charge.dispute.funds_withdrawn", dispute["id"]] = int(not is_inquiry(dispute))
        expected["charge.dispute.funds_reinstated", dispute["id"]] = int(dispute["status"] == "won")
    for item in platform.items:
        expected["open_item.created", item["id"]] = 1
    watched = {type for type, _ in expected}
    for place in expected.keys() | {place for place in events if place[0] in watched}:
        if events[place] != expected[place]:
            type, id = place
            yield Violation(
                "events are told once", f"{type} of {id}: {events[place]} events, {expected[place]} expected", (id,)
            )


def _events_reach_the_merchant(platform: Platform, delivered: Mapping[str, int]) -> Iterator[Violation]:
    """Every event that the endpoint subscribes to arrives there, at least once, and no other."""
    rule = "events reach the merchant"
    wanted = {event["id"]: event for event in platform.events if event["type"] in EVENTS}
    for id, event in wanted.items():
        if not delivered.get(id):
            yield Violation(rule, f"{id}, {event['type']}, never came", (id, event["data"]["object"]["id"]))
    for id in delivered:
        if id not in wanted:
            yield Violation(rule, f"{id} came, and is no event", (id,))


def _orders_end_well(told: list[Reply], platform: Platform) -> Iterator[Violation]:
    """An order is placed if its payment was taken and not returned, and its stock is sold; otherwise both are returned.
    Its payment has no story: the order identifies it."""
    rule = "orders end well"
    payments = {payment["id"]: payment for payment in platform.payments}
    refunds = {refund["id"] for refund in platform.refunds}
    names = Counter(order["order_id"] for order in platform.orders)
    charges = {charge["id"]: charge for charge in platform.charges}
    disputed = {charges[dispute["charge"]]["payment_intent"] for dispute in platform.disputes}
    stocked: dict[str, int] = {}
    wanted: dict[str, tuple[str, int]] = {}
    for one in told:
        if one.order.what == "stock" and one.status == 200:
            stocked[one.document["product_id"]] = one.order.params["available_count"]
        if one.order.what == "order" and one.status == 202:
            name, line = one.document["order_id"], one.document["products"][0]
            wanted[name] = (line["product_id"], line["requested_count"])
            if name not in names:
                yield Violation(rule, f"order {name} was accepted, and does not exist", (one.order.story, name))
    own = {order["payment_intent"] for order in platform.orders}
    for id, payment in payments.items():
        name = payment["metadata"].get("order_id")
        if name is not None and id not in own:
            yield Violation(rule, f"{id} is for {name}, which knows nothing of it", (id, name, name.rpartition("-")[0]))
    sold: Counter[str] = Counter()
    for order in platform.orders:
        name = order["order_id"]
        if names[name] > 1:
            yield Violation(rule, f"{name} is {names[name]} orders", _about(order))
        paid = payments.get(order["payment_intent"] or "")
        yield from _order_ends_well(order, paid, refunds, disputed=paid is not None and paid["id"] in disputed)
        if order["status"] == "placed":
            product, count = wanted.get(name, ("", 0))
            sold[product] += count
    for stock in platform.products:
        id = stock["product_id"]
        counts = (stock["available_count"], stock["reserved_count"], stock["sold_count"])
        if id in stocked and counts != (stocked[id] - sold[id], 0, sold[id]):
            what = f"of {stocked[id]} {id} {sold[id]} went with orders; available, reserved, sold are {counts}"
            yield Violation(rule, what, (id.removeprefix("book-"),))


def _order_ends_well(
    order: Document, paid: Document | None, refunds: set[str], *, disputed: bool
) -> Iterator[Violation]:
    """`paid` is its payment; `refunds` are the ids of all refunds. Disputed money is with the bank."""
    rule, name, about = "orders end well", order["order_id"], _about(order)
    taken = paid is not None and paid["status"] == "succeeded"
    match order["status"]:
        case "placed":
            if paid is None or not taken or paid["amount_received"] != order["amount_total"]:
                yield Violation(rule, f"{name} is placed, and its payment is {paid}", about)
            if order["refund"] is not None:
                yield Violation(rule, f"{name} is placed, and refunded by {order['refund']}", about)
        case "payment_failed":
            if taken and order["refund"] not in refunds and not disputed:
                yield Violation(rule, f"{name} has failed, and {paid} was not given back", about)
            if paid is not None and paid["status"] not in ("succeeded", "canceled"):
                yield Violation(rule, f"{name} has failed, and {paid['id']} is {paid['status']}", about)
        case status:
            yield Violation("nothing is left under way", f"order {name} is {status}", about)


def _about(order: Document) -> tuple[str, ...]:
    return (order["id"], order["payment_intent"] or "", order["order_id"].rpartition("-")[0])


def _plain(operation: Performed | None) -> str:
    if operation is None:
        return "nothing"
    parent = f" of {operation.parent}" if operation.parent is not None else ""
    taken = " (captured)" if operation.capture else ""
    return (
        f"{operation.kind} {operation.reference}{parent}, {operation.amount} {operation.currency}{taken}, "
        f"{operation.status}"
    )
