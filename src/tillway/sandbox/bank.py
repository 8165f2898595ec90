"""The simulated bank: its operations, memory and answers, without socket or chance.

It has two users: the connector `simulator` calls it inside the process, `bank_server` puts it behind HTTP with a
journal. It performs an operation at most once per reference. A repeat gets the first answer, or the settled one if that
was `Pending` and has settled since; a repeat with other contents gets a 409. The wire contract is docs/http-bank.md;
the bank adds `POST /v1/increments` and `POST /v1/verifications`.

An authorization that names an `account` in place of a `card` debits a bank account: it is `Pending`, and settles or is
returned after a question or a few seconds.

A dispute comes of a test card or on demand (`tell_dispute`), which also moves it to another stage and ends it. The bank
takes evidence and acceptance of each once per Idempotency-Key; nothing in them decides a dispute.

It answers by test card (`sandbox/cards.py`), test account (`sandbox/bank_accounts.py`) or test recipient, else
`Accepted`. An authorization with `"by_amount": true` is answered by its amount: 1 `Declined`, 2 `InsufficientFunds`,
24 `Pending` and then `Accepted` on the next question or resend. Tillway asks for that in test mode, for payments of the
gateway contract. A caller of `handle` may name another answer, as the faults `decline`, `no_funds` and `pend` do.
"""

import hashlib
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple, get_args
from urllib.parse import parse_qs, unquote

import msgspec

from tillway.connectors.http_bank import LIST_PATH, WITHDRAW, body_of
from tillway.connectors.port import REFERENCE_MAX, Operation, Request, Response, Succeeded
from tillway.domain.cards import without_long_numbers
from tillway.domain.dispute import DISPUTE_REFERENCE_MAX, NETWORK_REASON_CODE_MAX
from tillway.domain.method_types import DEBITS
from tillway.sandbox import bank_accounts, cards
from tillway.sandbox.recipients import recipient_of

PAGE_MAX = 100
"""Most operations in one page of the list."""

Status = Literal["Accepted", "ActionRequired", "Declined", "InsufficientFunds", "Pending"]
Kind = Literal[
    "authorization",
    "capture",
    "void",
    "increment",
    "refund",
    "payout",
    "verification",
    "dispute",
    "evidence",
    "accept",
]
Stage = Literal["inquiry", "chargeback", "warning"]
Verdict = Literal["Opened", "Won", "Lost", "Accepted"]

AMOUNT_MAX = 999_999_999_999
"""Largest amount of one operation, in minor units."""

BY_AMOUNT: Final[dict[int, Status]] = {1: "Declined", 2: "InsufficientFunds", 24: "Pending"}
"""The answers to an authorization that asks to be answered by its amount."""

SETTLES_AFTER_MS = 3_000
"""Delay of the notice that a pending operation has settled."""

DISPUTED_AFTER_MS = 1_000
"""Delay of the notice that a captured payment of a dispute card is disputed."""

REPLY_KEY_MAX = 3 * DISPUTE_REFERENCE_MAX + 50
"""Longest Idempotency-Key of a reply, in characters: the percent-encoded reference with the stage and kind."""

REFUND_FAILS_AFTER_MS = 1_000
"""Delay of the notice that an accepted refund or payout was returned."""


class BankOperation(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One operation in the bank's memory, and one line of the journal. Of a card it keeps the last four digits and its
    test card's later behaviour; `contents` is a keyed hash of the whole request.

    `returns` is the reason why a debit will be returned, `stuck` marks one that never settles. The answer to an
    authorization of a card has `network_id` and `checks`.

    `at` is when it came or last changed its status, in epoch seconds.

    `return_url` is where its customer returns to from `redirect_url`, the page that decides an `ActionRequired`.

    A dispute has its stage (`dispute`) and `verdict`; `told` counts how often it was opened, moved or ended on demand.
    Its replies are its children: `text` is the evidence, with possible card numbers masked.

    A capture is the last of its authorization unless it is not `final`; `open`: such a one left a rest.

    `authorized`, `captured`, `refunded`, `voided` and `open` belong to authorizations and follow from their children.
    A pending operation counts as done until it is refused, so that no amount is promised twice.
    """

    reference: str
    kind: Kind
    status: Status
    amount: int
    currency: str
    at: int = 0
    parent: str | None = None
    decline_code: str | None = None
    message: str | None = None
    reason: str | None = None
    contents: str = ""
    last4: str | None = None
    capture: bool = False
    refund: str = "succeeds"
    network_id: str | None = None
    checks: dict[str, str] | None = None
    returns: str | None = None
    stuck: bool = False
    dispute: str | None = None
    disputes: int = 0
    dispute_reason: str | None = None
    verdict: Verdict = "Opened"
    told: int = 0
    network_reason_code: str | None = None
    evidence_due: int | None = None
    text: str | None = None
    return_url: str | None = None
    redirect_url: str | None = None
    authorized: int = 0
    captured: int = 0
    refunded: int = 0
    voided: bool = False
    final: bool = True
    open: bool = False

    @property
    def bank_id(self) -> str:
        return f"bank-{self.reference}"

    def answer(self) -> dict[str, Any]:
        """The JSON object of answers to calls and questions, and of notices."""
        answer: dict[str, Any] = {
            "reference": self.reference,
            "kind": self.kind,
            "status": self.status,
            "amount": self.amount,
            "currency": self.currency,
            "bank_id": self.bank_id,
        }
        if self.decline_code is not None:
            answer["decline_code"] = self.decline_code
        if self.message is not None:
            answer["message"] = self.message
        if self.network_id is not None and self.status == "Accepted":
            answer["network_transaction_id"] = self.network_id
        if self.checks:
            answer["checks"] = self.checks
        if self.status == "ActionRequired":
            answer["redirect_url"] = self.redirect_url
        if self.parent is not None:
            answer["parent"] = self.parent
        if self.kind == "dispute":
            answer |= {"status": self.verdict, "dispute": self.dispute, "reason": self.reason}
            if self.network_reason_code is not None:
                answer["network_reason_code"] = self.network_reason_code
            if self.evidence_due is not None:
                answer["evidence_due"] = self.evidence_due
        return answer


class _Accepted(msgspec.Struct, gc=False):
    """An accepted authorization of a public card, as it is kept until someone asks for the operation. `at` has its
    fraction. `contents` is empty where the request had no details, so that it follows from the rest."""

    amount: int
    currency: str
    capture: bool
    card: cards.PublicCard
    at: float
    contents: str


class Announcement(NamedTuple):
    """A notice that the bank will send by itself, `after_ms` milliseconds after its cause."""

    what: Literal["settles", "refund_fails", "dispute", "report"]
    reference: str
    after_ms: int
    nth: int = 1


class Handled(NamedTuple):
    """An answer, and the operation that the request changed, for the journal (None if it changed nothing)."""

    response: Response
    effect: BankOperation | None = None


class _Invalid(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Bank:
    """`knows_all`: whether an unknown reference cannot exist. The bank with a journal knows all references and refuses
    a capture of an unknown authorization; the bank inside a process loses its memory with the process, and accepts it.
    `operations_max` bounds the memory, oldest first; None is for a bank that knows all.

    `key` keys the hash of contents; a caller that stores or shares the hashes must give one. Without it they are those
    of this process, which take a tenth of the time. `now` gives epoch seconds, which only the list of operations uses.
    `pages` is the address at which a server shows the bank's pages of 3-D Secure, up to the reference; None where there
    is no server: then no customer is sent anywhere.
    """

    def __init__(
        self,
        *,
        knows_all: bool = False,
        operations_max: int | None = 50_000,
        key: bytes | None = None,
        now: Callable[[], float] = time.time,
        pages: str | None = None,
    ) -> None:
        assert not (knows_all and operations_max), "a bank that knows all forgets nothing"
        self._knows_all = knows_all
        self._operations_max = sys.maxsize if operations_max is None else operations_max
        self._keyed = hashlib.blake2b(key=key, digest_size=16) if key is not None else None
        self._now = now
        self.pages = pages
        self._operations: OrderedDict[str, BankOperation | _Accepted] = OrderedDict()

    def handle(self, request: Request, answer: Status = "Accepted") -> Handled:
        """Answer one request of the contract. Raises nothing, whatever the request holds.

        `answer` is the status of a new order, other than a void, to which nothing objects.
        """
        try:
            if request.method == "GET":
                path, _, query = request.path.partition("?")
                return self._list(query) if path == LIST_PATH else self._ask(path)
            if request.path.startswith(DISPUTES):
                return self._take_reply(request)
            if request.path.endswith(WITHDRAW):
                return self._withdraw(_withdrawn(request.path))
            return self._perform(request, answer)
        except _Invalid as invalid:
            return Handled(Response(invalid.status, {"message": invalid.reason}))

    def authorize(self, body: Mapping[str, Any]) -> BankOperation | None:
        """Perform an authorization like `handle`, where its body is known to keep to the contract. None: an operation
        of that reference is known."""
        if body["reference"] in self._operations:
            return None
        operation = self._decide("authorization", body, self._contents("authorization", body), "Accepted")
        self._keep(operation)
        return operation

    def accept(self, operation: Operation) -> Succeeded | None:
        """Perform an authorization of a public card like `authorize`, and tell its outcome. None: the bank may not
        accept it, or a notice may follow, or an operation of that reference is known.

        Every payment in test mode with the alias of a card comes here. Few are asked about, so that the operation and
        the hash of its contents are not made yet.
        """
        card, reference, operations = operation.card, operation.reference, self._operations
        if type(card) is not cards.PublicCard or card.checks is None or reference in operations:
            return None
        if operation.by_amount or operation.billing_address is not None or operation.account is not None:
            return None
        contents = ""
        if (
            operation.off_session
            or operation.return_url is not None
            or operation.statement_descriptor is not None
            or operation.email is not None
            or operation.network_transaction_id is not None
        ):
            contents = self._contents("authorization", body_of(operation, details=True))
        operations[reference] = _Accepted(
            operation.amount_minor, operation.currency, operation.capture, card, self._now(), contents
        )
        if len(operations) > self._operations_max:
            operations.popitem(last=False)
        return Succeeded(f"bank-{reference}", (), _network_id(reference), card.checks)

    def tell_dispute(self, report: Mapping[str, Any]) -> Handled:
        """Open a dispute, move it to another stage, or end it, as `report` says, and owe a notice of that.

        Members are those of the notice (docs/http-bank.md), all optional for a `reference` that the bank knows; for a
        new dispute `parent` is required. It may contradict earlier reports. Raises nothing.
        """
        try:
            operation = self._report(report)
        except _Invalid as invalid:
            return Handled(Response(invalid.status, {"message": invalid.reason}))
        self._keep(operation)
        return Handled(Response(200, operation.answer()), operation)

    def decide_action(self, reference: str, *, passed: bool) -> Handled:
        """The customer at the bank's page passes or fails the authentication. A decision that was made stands."""
        operation = self.find(reference)
        if operation is None:
            return Handled(Response(404, {"message": "no such operation"}))
        if operation.status != "ActionRequired":
            return Handled(Response(200, operation.answer()))
        operation.at = int(self._now())
        if passed:
            operation.status = "Accepted"
            operation.authorized = operation.amount
            operation.captured = operation.amount if operation.capture else 0
        else:
            _refuse(operation, "authentication_required")
        return Handled(Response(200, operation.answer()), operation)

    def _withdraw(self, reference: str) -> Handled:
        """End an authorization or verification that waits for its customer."""
        operation = self.find(reference)
        if operation is None or operation.kind not in ("authorization", "verification"):
            raise _Invalid(404, "no such authorization")
        return self.decide_action(reference, passed=False)

    def recall(self, references: Iterable[str], operations: Iterable[BankOperation]) -> None:
        """Forget these references, and remember these operations in their place, with the sums that they have."""
        for reference in references:
            self._operations.pop(reference, None)
        for operation in operations:
            self._keep(operation)

    def find(self, reference: str) -> BankOperation | None:
        kept = self._operations.get(reference)
        return self._whole(reference, kept) if isinstance(kept, _Accepted) else kept

    def operations(self) -> Iterator[BankOperation]:
        """All operations in memory, in order of arrival."""
        for reference, kept in self._operations.items():
            yield self._whole(reference, kept) if isinstance(kept, _Accepted) else kept

    def _whole(self, reference: str, accepted: _Accepted) -> BankOperation:
        """The operation that was accepted, which replaces the short form in memory."""
        asked = Operation(
            reference=reference,
            kind="authorize",
            amount_minor=accepted.amount,
            currency=accepted.currency,
            capture=accepted.capture,
            card=accepted.card,
        )
        body = body_of(asked)
        contents = accepted.contents or self._contents("authorization", body)
        operation = self._decide("authorization", body, contents, "Accepted")
        operation.at = int(accepted.at)
        self._operations[reference] = operation
        return operation

    def totals(self) -> dict[str, dict[str, dict[str, int]]]:
        """Accepted operations by currency and kind: their count and their sum in minor units. `captured` counts
        captures and authorizations that captured at once; a dispute counts under its stage, because only a `chargeback`
        takes money. It walks through every operation."""
        totals: dict[str, dict[str, dict[str, int]]] = {}
        for operation in self.operations():
            if operation.status != "Accepted":
                continue
            kinds: list[str] = [operation.dispute or "chargeback" if operation.kind == "dispute" else operation.kind]
            if operation.capture or operation.kind == "capture":
                kinds.append("captured")
            for kind in kinds:
                row = totals.setdefault(operation.currency, {}).setdefault(kind, {"count": 0, "amount": 0})
                row["count"] += 1
                row["amount"] += operation.amount
        return totals

    def remember(self, operation: BankOperation) -> None:
        """Take back one line of a journal, in the journal's order: a later line about a reference replaces the earlier
        one, and updates the sums of its authorization."""
        before = self.find(operation.reference)
        if before is not None:
            # The sums of an authorization come from its children's lines, not from its own earlier line.
            self._move(before, -1)
        self._keep(operation)
        self._move(operation, +1)

    def forthcoming(self, operation: BankOperation) -> tuple[Announcement, ...]:
        """The notices that the bank will send about `operation` in its current state. Cheap if there are none."""
        if operation.status == "Pending":
            if operation.stuck:
                return ()
            return (Announcement("settles", operation.reference, SETTLES_AFTER_MS),)
        if operation.kind in ("refund", "payout") and operation.refund == "fails_later":
            # Also after it has failed: its notice may not have been sent yet.
            return (Announcement("refund_fails", operation.reference, REFUND_FAILS_AFTER_MS),)
        if operation.status != "Accepted":
            return ()
        if operation.kind == "accept":
            # The bank confirms an acceptance by the outcome of its dispute.
            dispute = self.find(operation.parent or "")
            return () if dispute is None else self.forthcoming(dispute)
        if operation.kind == "dispute":
            return (Announcement("report", operation.reference, 0, operation.told),) if operation.told else ()
        if operation.disputes and (operation.kind == "capture" or operation.capture):
            return tuple(
                Announcement("dispute", operation.reference, DISPUTED_AFTER_MS * nth, nth)
                for nth in range(1, operation.disputes + 1)
            )
        return ()

    def announce(self, announcement: Announcement) -> tuple[dict[str, Any], BankOperation | None]:
        """Perform an announcement, and return the body of its notice and the changed operation (None the second
        time)."""
        cause = self._known(announcement.reference)
        match announcement.what:
            case "settles":
                effect = self._settle(cause)
                return cause.answer(), effect
            case "refund_fails":
                effect = self._return_refund(cause)
                return cause.answer(), effect
            case "dispute":
                reference = dispute_reference(announcement)
                known = self.find(reference)
                if known is not None:
                    return known.answer(), None
                dispute = dispute_of(cause, announcement)
                dispute.at = int(self._now())
                self._keep(dispute)
                return dispute.answer(), dispute
            case "report":
                return cause.answer(), None

    def foretell(self, announcement: Announcement) -> dict[str, Any]:
        """The body that `announce` will give, without performing it."""
        cause = self._known(announcement.reference)
        match announcement.what:
            case "settles":
                if cause.returns is not None:
                    return _refuse(msgspec.structs.replace(cause), cause.returns).answer()
                return {**cause.answer(), "status": "Accepted"}
            case "refund_fails":
                return {**cause.answer(), "status": "Declined", **_RETURNED[cause.kind]}
            case "dispute":
                return dispute_of(cause, announcement).answer()
            case "report":
                return cause.answer()

    # Questions.

    def _ask(self, path: str) -> Handled:
        reference = path.removeprefix("/v1/operations/")
        operation = self.find(reference)
        if reference == path or operation is None:
            return Handled(Response(404, {"message": "no such operation"}))
        effect = self._settle(operation)
        return Handled(Response(200, operation.answer()), effect)

    def _list(self, query: str) -> Handled:
        """A page of the operations that came or changed since a moment, in the order in which they came."""
        asked = {name: values[-1] for name, values in parse_qs(query).items()}
        since, after = asked.get("since", ""), asked.get("after")
        if not (since.isascii() and since.isdigit() and len(since) <= 12):
            raise _Invalid(400, "since is not a time in seconds")
        found = [one for one in self.operations() if one.at >= int(since) and one.kind not in _UNLISTED]
        if after is not None:
            if after not in self._operations:
                raise _Invalid(404, "after is not the reference of an operation")
            arrival = {reference: number for number, reference in enumerate(self._operations)}
            found = [operation for operation in found if arrival[operation.reference] > arrival[after]]
        page = [operation.answer() for operation in found[:PAGE_MAX]]
        return Handled(Response(200, {"operations": page, "has_more": len(found) > PAGE_MAX}))

    def _settle(self, operation: BankOperation) -> BankOperation | None:
        """Settle a pending operation, which happens at the next question."""
        if operation.status != "Pending" or operation.stuck:
            return None
        operation.at = int(self._now())
        if operation.returns is not None:
            operation.authorized = operation.captured = 0
            return _refuse(operation, operation.returns)
        operation.status = "Accepted"
        return operation

    # Orders.

    def _perform(self, request: Request, answer: Status) -> Handled:
        kind = _KINDS.get(request.path)
        if kind is None:
            raise _Invalid(404, "no such call")
        body = request.body
        if not isinstance(body, dict):
            raise _Invalid(400, "the body is not a JSON object")
        _check(kind, body)
        reference: str = body["reference"]
        key = request.headers.get("idempotency-key")
        if key is not None and key != reference:
            raise _Invalid(400, "the header Idempotency-Key differs from the reference")
        contents = self._contents(kind, body)
        known = self.find(reference)
        if known is not None:
            if known.contents != contents:
                raise _Invalid(409, "this reference was used with other contents")
            effect = self._settle(known)
            return Handled(Response(200, known.answer()), effect)

        operation = self._decide(kind, body, contents, answer)
        self._keep(operation)
        self._move(operation, +1)
        return Handled(Response(200, operation.answer()), operation)

    def _decide(self, kind: Kind, body: Mapping[str, Any], contents: str, answer: Status) -> BankOperation:
        parent_reference: str | None = None
        parent: BankOperation | None = None
        if kind in _PARENT_FIELD:
            parent_reference = body[_PARENT_FIELD[kind]]
            parent = self.find(parent_reference) if parent_reference else None
        if kind == "void":
            amount, currency = (parent.authorized, parent.currency) if parent else (0, _NO_CURRENCY)
        elif kind == "verification":
            amount, currency = 0, _NO_CURRENCY
        else:
            amount, currency = body["amount"], body["currency"].lower()
        operation = BankOperation(
            reference=body["reference"],
            kind=kind,
            status="Accepted",
            amount=amount,
            currency=currency,
            parent=parent_reference,
            contents=contents,
            final=body.get("final", True),
            at=int(self._now()),
        )
        objection = self._objection(operation, body, parent)
        if objection is not None:
            return _refuse(operation, *objection)
        if kind == "void":
            return operation
        if body.get("by_amount"):
            answer = BY_AMOUNT.get(amount, answer)
        if answer == "Declined" or answer == "InsufficientFunds":
            return _refuse(operation, "generic_decline" if answer == "Declined" else "insufficient_funds")
        takes_its_time = kind in ("refund", "payout") and operation.refund == "succeeds_later"
        if answer == "Pending" or "account" in body or takes_its_time:
            operation.status = "Pending"
        if self.pages is not None and _authenticates(body):
            operation.capture = body.get("capture", False)
            operation.status, operation.return_url = "ActionRequired", body["return_url"]
            operation.redirect_url = f"{self.pages}{operation.reference}"
            return operation
        if kind == "authorization":
            operation.authorized = amount
            operation.capture = body["capture"]
            operation.captured = amount if operation.capture else 0
        return operation

    # Disputes.

    def _take_reply(self, request: Request) -> Handled:
        """Take evidence or acceptance, once per Idempotency-Key."""
        place, _, name = request.path.removeprefix(DISPUTES).rpartition("/")
        reference, kind = unquote(place), _REPLIES.get(name)
        if kind is None or not reference:
            raise _Invalid(404, "no such call")
        body, key = request.fields, request.headers.get("idempotency-key")
        _check_reply(kind, reference, body, key)
        assert key is not None
        contents = self._contents(kind, body)
        known = self.find(key)
        if known is not None:
            if known.contents != contents:
                raise _Invalid(409, "this Idempotency-Key was used with other contents")
            return Handled(Response(200, known.answer()))
        dispute = self.find(reference)
        if dispute is None or dispute.kind != "dispute":
            if self._knows_all or dispute is not None:
                raise _Invalid(404, "no such dispute")
        elif dispute.verdict != "Opened":
            raise _Invalid(422, f"the dispute has ended: {dispute.verdict}")
        reply = BankOperation(
            reference=key,
            kind=kind,
            status="Accepted",
            amount=0,
            currency=dispute.currency if dispute is not None else _NO_CURRENCY,
            parent=reference,
            contents=contents,
            at=int(self._now()),
            text=without_long_numbers(body["text"]) if kind == "evidence" else None,
        )
        self._keep(reply)
        self._move(reply, +1)
        return Handled(Response(200, reply.answer()), reply)

    def _report(self, report: Mapping[str, Any]) -> BankOperation:
        """The dispute as `report` leaves it. Raises `_Invalid`."""
        _check_report(report)
        known = self.find(report.get("reference", ""))
        if known is not None and known.kind != "dispute":
            raise _Invalid(409, "the reference is that of another operation")
        stated: dict[str, Any] = {
            "amount": report.get("amount"),
            "currency": report["currency"].lower() if "currency" in report else None,
            "dispute": report.get("dispute"),
            "verdict": report.get("status"),
            "reason": report.get("reason"),
            "network_reason_code": report.get("network_reason_code"),
            "evidence_due": report.get("evidence_due"),
        }
        stated = {name: value for name, value in stated.items() if value is not None}
        if known is not None:
            return msgspec.structs.replace(known, told=known.told + 1, at=int(self._now()), **stated)
        if "parent" not in report:
            raise _Invalid(400, "missing: parent, the reference of the disputed authorization")
        parent = self.find(report["parent"])
        if parent is None and (self._knows_all or not {"amount", "currency"} <= stated.keys()):
            raise _Invalid(404, "no such authorization")
        if parent is not None:
            if parent.kind != "authorization" or parent.captured == 0:
                raise _Invalid(422, "parent is not an authorization that was captured")
            stated = {"amount": parent.captured, "currency": parent.currency, **stated}
        reference = report.get("reference") or self._new_dispute_reference(report["parent"])
        return BankOperation(
            **{"dispute": "chargeback", "reason": "general", **stated},
            reference=reference,
            kind="dispute",
            status="Accepted",
            parent=report["parent"],
            at=int(self._now()),
            told=1,
        )

    def _new_dispute_reference(self, parent: str) -> str:
        nth = 1
        while (reference := f"told-{nth}-{parent}") in self._operations:
            nth += 1
        return reference

    def _objection(
        self, operation: BankOperation, body: Mapping[str, Any], parent: BankOperation | None
    ) -> tuple[str, ...] | None:
        """Code and reason of a refusal by card, account, recipient or authorization; None if there is none. The
        operation takes on the behaviour of its refunds and disputes."""
        if operation.kind == "authorization":
            if "account" not in body:
                return _charge_card(operation, body)
            _debit(operation, body["account"])
            return None
        if operation.kind == "verification":
            objection = _charge_card(operation, body)
            operation.disputes, operation.refund = 0, "succeeds"
            return objection
        if operation.kind == "payout":
            to = recipient_of(body["recipient"]["type"], body["recipient"]["value"])
            operation.refund = to.manner
            return None if to.failure is None else (to.failure,)
        if operation.parent is None:
            return None
        if parent is None:
            return ("unknown_authorization", "No such authorization.") if self._knows_all else None
        refusal = _against(parent, operation)
        if refusal is not None:
            return refusal, _REASONS[refusal]
        if operation.kind == "refund":
            operation.refund = parent.refund
        if operation.kind == "capture" and parent.disputes:
            operation.dispute, operation.dispute_reason = parent.dispute, parent.dispute_reason
            operation.disputes = parent.disputes
        return None

    def _move(self, operation: BankOperation, sign: Literal[1, -1]) -> None:
        """Add `operation` to the sums of its authorization, or subtract it."""
        if operation.parent is None or operation.status not in ("Accepted", "Pending"):
            return
        parent = self.find(operation.parent)
        if parent is None:
            return
        match operation.kind:
            case "capture":
                parent.captured += sign * operation.amount
                parent.open = 0 < parent.captured < parent.authorized and (sign < 0 or not operation.final)
            case "refund":
                parent.refunded += sign * operation.amount
            case "void":
                parent.voided = sign > 0
            case "increment":
                parent.authorized = operation.amount
            case "accept" if sign > 0:
                parent.verdict = "Accepted"
                parent.told, parent.at = parent.told + 1, operation.at
            case "authorization" | "payout" | "verification" | "dispute" | "evidence" | "accept":
                pass

    def _return_refund(self, refund: BankOperation) -> BankOperation | None:
        if refund.status != "Accepted" or refund.refund != "fails_later":
            return None
        self._move(refund, -1)
        refund.at = int(self._now())
        refund.status = "Declined"
        refund.decline_code = _RETURNED[refund.kind]["decline_code"]
        refund.message = _RETURNED[refund.kind]["message"]
        return refund

    def _known(self, reference: str) -> BankOperation:
        operation = self.find(reference)
        assert operation is not None, "the bank knows the operation of an announcement"
        return operation

    def _keep(self, operation: BankOperation) -> None:
        operations = self._operations
        operations[operation.reference] = operation
        if len(operations) > self._operations_max:
            operations.popitem(last=False)

    def _contents(self, kind: Kind, body: Mapping[str, Any]) -> str:
        contents = _encode_sorted((kind, body))
        if self._keyed is None:
            return str(hash(contents))
        digest = self._keyed.copy()
        digest.update(contents)
        return digest.hexdigest()


DISPUTES = "/v1/disputes/"
"""The path of replies to disputes: `/v1/disputes/{reference}/evidence` or `/accept`."""

_REPLIES: dict[str, Kind] = {"evidence": "evidence", "accept": "accept"}

_UNLISTED = (*_REPLIES, "verification")
"""Operations that no list has: they move no money."""

_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def references_of(request: Request) -> tuple[str, ...]:
    """The references of the operations that a request may read or change; none for the list of all."""
    if request.method == "GET":
        reference = request.path.removeprefix("/v1/operations/")
        return () if request.path.partition("?")[0] == LIST_PATH or reference == request.path else (reference,)
    if request.path.startswith(DISPUTES):
        key = request.headers.get("idempotency-key", "")
        return (unquote(request.path.removeprefix(DISPUTES).rpartition("/")[0]), key)
    if request.path.endswith(WITHDRAW):
        return (_withdrawn(request.path),)
    kind, body = _KINDS.get(request.path), request.body
    if kind is None or not isinstance(body, dict):
        return ()
    named = (body.get("reference"), body.get(_PARENT_FIELD.get(kind, "")))
    return tuple(reference for reference in named if isinstance(reference, str))


def _withdrawn(path: str) -> str:
    """The reference in the path of a withdrawal."""
    return path.removesuffix(WITHDRAW).rpartition("/")[2]


def dispute_reference(announcement: Announcement) -> str:
    """The bank's own reference of a dispute: the same for the same cause, so that a repeat is the same dispute."""
    return f"dispute-{announcement.nth}-{announcement.reference}"


def dispute_of(cause: BankOperation, announcement: Announcement) -> BankOperation:
    """The dispute over a captured payment. Its parent is the authorization."""
    return BankOperation(
        reference=dispute_reference(announcement),
        kind="dispute",
        status="Accepted",
        amount=cause.amount,
        currency=cause.currency,
        parent=cause.parent or cause.reference,
        dispute=cause.dispute,
        reason=cause.dispute_reason,
    )


_RETURNED = {
    "refund": {"decline_code": "expired_or_canceled_card", "message": "The refund was returned by the card's bank."},
    "payout": {"decline_code": "account_closed", "message": "The payout was returned by the recipient's bank."},
}

_NO_CURRENCY = "xxx"
"""ISO 4217's code for "no currency", for the void of an authorization that the bank has forgotten."""

_KINDS: dict[str, Kind] = {
    "/v1/authorizations": "authorization",
    "/v1/captures": "capture",
    "/v1/voids": "void",
    "/v1/increments": "increment",
    "/v1/refunds": "refund",
    "/v1/payouts": "payout",
    "/v1/verifications": "verification",
}

_PARENT_FIELD: dict[Kind, str] = {
    "capture": "authorization",
    "void": "authorization",
    "increment": "authorization",
    "refund": "payment",
}

_REASONS = {
    "not_an_authorization": "The parent is not an accepted authorization.",
    "currency_mismatch": "The authorization is in another currency.",
    "authorization_voided": "The authorization was voided.",
    "authorization_captured": "The authorization was captured.",
    "capture_exceeds_authorization": "More than was authorized.",
    "refund_exceeds_capture": "The refund is larger than the rest of the captured amount.",
    "increment_not_larger": "The new total is not larger than the authorized amount.",
}


def _against(parent: BankOperation, child: BankOperation) -> str | None:
    """The decline code if `parent` does not allow `child`, else None. In order of precedence."""
    if parent.kind != "authorization" or parent.status != "Accepted":
        return "not_an_authorization"
    if child.currency != parent.currency:
        return "currency_mismatch"
    if parent.voided and (child.kind != "refund" or not parent.captured):
        return "authorization_voided"
    match child.kind:
        case "capture" if parent.captured + child.amount > parent.authorized:
            return "capture_exceeds_authorization"
        case "void" if parent.captured > 0 and not parent.open:
            return "authorization_captured"
        case "increment" if parent.captured > 0:
            return "authorization_captured"
        case "increment" if child.amount <= parent.authorized:
            return "increment_not_larger"
        case "refund" if parent.refunded + child.amount > parent.captured:
            return "refund_exceeds_capture"
        case _:
            return None


_from_bytes = int.from_bytes


def _network_id(reference: str) -> str:
    """The card network's id of a payment: 15 digits, as Visa's have, and the same for the same reference."""
    return str(_from_bytes(reference.encode()) % 10**15).zfill(15)


def _checks(card: cards.TestCard | None, body: Mapping[str, Any]) -> dict[str, str] | None:
    """The issuer's results for the values that were sent: those of a test card, and `pass` for any other card."""
    results: dict[str, str] = {}
    if "cvc" in body["card"]:
        results["cvc"] = "pass" if card is None else card.cvc_check
    if "details" in body:
        address = body["details"].get("billing_address", {})
        if "line1" in address:
            results["address_line1"] = "pass" if card is None else card.address_line1_check
        if "postal_code" in address:
            results["postal_code"] = "pass" if card is None else card.postal_code_check
    return results or None


def _authenticates(body: Mapping[str, Any]) -> bool:
    """Whether the customer must go to the bank's page: test cards that require 3-D Secure, and others if it is asked
    for. Only where the body says where the customer returns to."""
    if "return_url" not in body or "card" not in body:
        return False
    card = cards.by_number(body["card"]["number"])
    enrolled = card is None or card.three_d_secure not in ("unenrolled", "not_supported")
    asked = body.get("three_d_secure") in ("any", "challenge")
    required = card is not None and card.three_d_secure in ("required", "required_unless_set_up", "required_on_session")
    return required or (asked and enrolled)


def _charge_card(operation: BankOperation, body: Mapping[str, Any]) -> tuple[str] | None:
    """The code of a refusal, if this is a test card that is refused."""
    number: str = body["card"]["number"]
    operation.last4 = number[-4:]
    card = cards.by_number(number)
    operation.network_id = _network_id(operation.reference)
    operation.checks = _checks(card, body)
    if card is None:
        return None
    operation.refund = card.refund
    if card.charge is not None:
        return (card.charge.decline_code or card.charge.code,)
    if card.dispute is not None:
        operation.dispute, operation.dispute_reason = card.dispute, card.dispute_reason
        # A dispute needs a capture: this one, or a later one.
        operation.disputes = card.disputes
    return None


def _debit(operation: BankOperation, account: Mapping[str, Any]) -> None:
    """Set the outcome of a debit of `account`. Its refunds also take time."""
    number: str = account["number"]
    operation.last4, operation.refund = number[-4:], "succeeds_later"
    known = bank_accounts.by_account(number)
    if known is None:
        return
    operation.returns, operation.stuck = known.failure, known.settles == "never"
    if known.dispute:
        operation.dispute, operation.dispute_reason, operation.disputes = "chargeback", "debit_not_authorized", 1


def _refuse(operation: BankOperation, decline_code: str, message: str | None = None) -> BankOperation:
    operation.status = "InsufficientFunds" if decline_code == "insufficient_funds" else "Declined"
    operation.decline_code = decline_code
    operation.message = message
    # A refusal has no later notice.
    operation.disputes, operation.refund = 0, "succeeds"
    return operation


# Members of a body. Reasons name the field and never repeat its value, which may be a card number.

_REQUIRED: dict[Kind, frozenset[str]] = {
    "authorization": frozenset(("reference", "amount", "currency", "capture", "card")),
    "capture": frozenset(("reference", "authorization", "amount", "currency")),
    "void": frozenset(("reference", "authorization")),
    "increment": frozenset(("reference", "authorization", "amount", "currency")),
    "refund": frozenset(("reference", "payment", "amount", "currency")),
    "payout": frozenset(("reference", "amount", "currency", "recipient")),
    "verification": frozenset(("reference", "card", "stores")),
}
_OPTIONAL: dict[Kind, frozenset[str]] = {
    "authorization": frozenset(("details", "by_amount", "return_url", "three_d_secure")),
    "capture": frozenset(("final",)),
    "verification": frozenset(("details", "return_url", "three_d_secure")),
}
_FIELDS = {kind: (required, required | _OPTIONAL.get(kind, frozenset())) for kind, required in _REQUIRED.items()}
"""The members of each kind of order: those that it must have, and all that it may have."""

_CARD_REQUIRED = frozenset(("number", "exp_month", "exp_year"))
_CARD_FIELDS = _CARD_REQUIRED | {"cvc", "name"}
_RECIPIENT_REQUIRED = frozenset(("type", "value"))
_RECIPIENT_FIELDS = _RECIPIENT_REQUIRED | {"name"}


def _check(kind: Kind, body: Mapping[str, Any]) -> None:
    """Raise `_Invalid` unless `body` keeps to the contract: 400 for a missing or unknown field, 422 for a value."""
    required, allowed = _FIELDS[kind]
    debits = kind == "authorization" and "account" in body
    if debits:
        required, allowed = required - {"card"} | {"account"}, allowed - {"card"} | {"account"}
    _check_fields(body, required, allowed, "")
    _check_reference(body["reference"], "reference")
    parent = _PARENT_FIELD.get(kind)
    if parent is not None:
        _check_reference(body[parent], parent)
    if kind not in ("void", "verification"):
        _check_amount(body["amount"])
        _check_currency(body["currency"])
    if type(body.get("final", True)) is not bool:
        raise _Invalid(422, "final is not true or false")
    if kind == "authorization":
        if type(body["capture"]) is not bool:
            raise _Invalid(422, "capture is not true or false")
        if type(body.get("by_amount", False)) is not bool:
            raise _Invalid(422, "by_amount is not true or false")
        if debits:
            _check_account(body["account"], capture=body["capture"])
        else:
            _check_card(body["card"])
        _check_circumstances(body)
    elif kind == "verification":
        if body["stores"] not in ("on_session", "off_session"):
            raise _Invalid(422, "stores is not on_session or off_session")
        _check_card(body["card"])
        _check_circumstances(body)
    elif kind == "payout":
        _check_recipient(body["recipient"])


def _check_circumstances(body: Mapping[str, Any]) -> None:
    """Check the optional members of an authorization or verification."""
    if "return_url" in body:
        _check_text(body["return_url"], "return_url", 5000)
    if body.get("three_d_secure", "any") not in ("any", "challenge"):
        raise _Invalid(422, "three_d_secure is not any or challenge")
    if "details" in body:
        _check_details(body["details"])


_REPORT_TEXTS = {"reference": DISPUTE_REFERENCE_MAX, "reason": 100, "network_reason_code": NETWORK_REASON_CODE_MAX}
"""The texts of a report of a dispute with their greatest lengths, in characters."""
_REPORT_FIELDS = frozenset((*_REPORT_TEXTS, "parent", "dispute", "status", "amount", "currency", "evidence_due"))


def _check_report(report: Mapping[str, Any]) -> None:
    _check_fields(report, frozenset(), _REPORT_FIELDS, "")
    for field, most in _REPORT_TEXTS.items():
        if field in report:
            _check_text(report[field], field, most)
    if "parent" in report:
        _check_reference(report["parent"], "parent")
    if "amount" in report:
        _check_amount(report["amount"])
    if "currency" in report:
        _check_currency(report["currency"])
    for field, known in (("dispute", get_args(Stage)), ("status", get_args(Verdict))):
        if field in report and report[field] not in known:
            raise _Invalid(422, f"{field} is not one of {', '.join(known)}")
    if type(report.get("evidence_due", 1)) is not int or report.get("evidence_due", 1) <= 0:
        raise _Invalid(422, "evidence_due is not a time in epoch seconds")


EVIDENCE_MAX = 200_000
"""Longest evidence, in characters: all that `/v1` takes, with the names of its fields."""


def _check_reply(kind: str, reference: str, body: Mapping[str, Any], key: str | None) -> None:
    if kind == "evidence":
        _check_fields(body, frozenset(("reference", "text")), frozenset(("reference", "text", "files")), "")
        _check_text(body["text"], "text", EVIDENCE_MAX)
    else:
        _check_fields(body, frozenset(("reference",)), frozenset(("reference",)), "")
    if body["reference"] != reference:
        raise _Invalid(400, "the reference differs from that in the path")
    if key is None or not 0 < len(key) <= REPLY_KEY_MAX:
        raise _Invalid(400, f"missing: the header Idempotency-Key of 1 to {REPLY_KEY_MAX} characters")


def _check_amount(amount: Any) -> None:
    # A bool is an int in Python; True is not an amount.
    if type(amount) is not int or not 0 < amount <= AMOUNT_MAX:
        raise _Invalid(422, f"amount is not an integer from 1 to {AMOUNT_MAX}")


def _check_currency(currency: Any) -> None:
    if type(currency) is not str or len(currency) != 3 or not (currency.isascii() and currency.isalpha()):
        raise _Invalid(422, "currency is not an ISO 4217 code")


def _check_fields(body: Any, required: frozenset[str], allowed: frozenset[str], where: str) -> None:
    if not isinstance(body, dict):
        raise _Invalid(422, f"{where} is not an object")
    for field in required:
        if field not in body:
            raise _Invalid(400, f"missing: {where}{min(required - body.keys())}")
    for field in body:
        if field not in allowed:
            raise _Invalid(400, f"unknown field in {where or 'the body'}; known are {', '.join(sorted(allowed))}")


def _check_reference(value: Any, name: str) -> None:
    if type(value) is not str or not 0 < len(value) <= REFERENCE_MAX or not (value.isascii() and value.isprintable()):
        raise _Invalid(422, f"{name} is not 1 to {REFERENCE_MAX} printable ASCII characters")


def _check_card(card: Any) -> None:
    _check_fields(card, _CARD_REQUIRED, _CARD_FIELDS, "card.")
    number = card["number"]
    if type(number) is not str or not 12 <= len(number) <= 19 or not (number.isascii() and number.isdigit()):
        raise _Invalid(422, "card.number is not 12 to 19 digits")
    if type(card["exp_month"]) is not int or not 1 <= card["exp_month"] <= 12:
        raise _Invalid(422, "card.exp_month is not 1 to 12")
    if type(card["exp_year"]) is not int or not 1000 <= card["exp_year"] <= 9999:
        raise _Invalid(422, "card.exp_year is not a year of four digits")
    cvc = card.get("cvc")
    if cvc is not None and (type(cvc) is not str or len(cvc) not in (3, 4) or not (cvc.isascii() and cvc.isdigit())):
        raise _Invalid(422, "card.cvc is not 3 or 4 digits")
    name = card.get("name")
    if name is not None and (type(name) is not str or len(name) > 200):
        raise _Invalid(422, "card.name is not a text of at most 200 characters")


_ACCOUNT_REQUIRED = frozenset(("type", "number"))
_ACCOUNT_FIELDS = _ACCOUNT_REQUIRED | {"routing_number", "account_holder_type", "account_type", "name", "mandate"}


def _check_account(account: Any, *, capture: bool) -> None:
    _check_fields(account, _ACCOUNT_REQUIRED, _ACCOUNT_FIELDS, "account.")
    if account["type"] not in DEBITS:
        raise _Invalid(422, f"account.type is not {' or '.join(DEBITS)}")
    number = account["number"]
    if type(number) is not str or not 4 <= len(number) <= 34 or not (number.isascii() and number.isalnum()):
        raise _Invalid(422, "account.number is not 4 to 34 letters and digits")
    for field in _ACCOUNT_FIELDS - _ACCOUNT_REQUIRED:
        value = account.get(field)
        if value is not None and (type(value) is not str or not 0 < len(value) <= 200):
            raise _Invalid(422, f"account.{field} is not a text of 1 to 200 characters")
    if not capture:
        raise _Invalid(422, "capture is not true, and a bank account is debited at once")


_DETAILS_TEXTS = {
    "network_transaction_id": 64,
    "email": 254,
    "statement_descriptor": 22,
    "return_url": 5000,
}
"""The texts of `details` with their greatest lengths, in characters."""
_DETAILS_FIELDS = frozenset(("off_session", "billing_address", *_DETAILS_TEXTS))
_ADDRESS_FIELDS = frozenset(("line1", "line2", "city", "state", "postal_code", "country"))
_ADDRESS_PART_MAX = 5000


def _check_details(details: Any) -> None:
    _check_fields(details, frozenset(), _DETAILS_FIELDS, "details.")
    if type(details.get("off_session", True)) is not bool:
        raise _Invalid(422, "details.off_session is not true or false")
    for field, most in _DETAILS_TEXTS.items():
        if field in details:
            _check_text(details[field], f"details.{field}", most)
    if "billing_address" in details:
        address = details["billing_address"]
        _check_fields(address, frozenset(), _ADDRESS_FIELDS, "details.billing_address.")
        for field, value in address.items():
            _check_text(value, f"details.billing_address.{field}", _ADDRESS_PART_MAX)


def _check_text(value: Any, name: str, most: int) -> None:
    if type(value) is not str or not 0 < len(value) <= most:
        raise _Invalid(422, f"{name} is not a text of 1 to {most} characters")


def _check_recipient(recipient: Any) -> None:
    _check_fields(recipient, _RECIPIENT_REQUIRED, _RECIPIENT_FIELDS, "recipient.")
    if recipient["type"] not in ("email", "bank_account", "card"):
        raise _Invalid(422, "recipient.type is not email, bank_account or card")
    for field in ("value", "name"):
        value = recipient.get(field)
        if value is None and field not in _RECIPIENT_REQUIRED:
            continue
        # The longest is an e-mail address (RFC 5321).
        if type(value) is not str or not 0 < len(value) <= 254:
            raise _Invalid(422, f"recipient.{field} is not a text of 1 to 254 characters")
