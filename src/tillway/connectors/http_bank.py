"""Connector `http_bank`: the plainest bank, over the wire contract of docs/http-bank.md.

For a bank without a public API, the operator writes a program that serves this contract. One table (`_read_outcome`)
turns the bank's answers into outcomes; the core handles network failures (`transport.py`).
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Literal, Unpack, get_args
from urllib.parse import quote

import msgspec

from tillway.connectors.http_connector import HttpConnector, Times
from tillway.connectors.port import (
    REFERENCE_MAX,
    ActionRequired,
    BankAccountData,
    Capabilities,
    CardData,
    Checks,
    Conversation,
    Declined,
    DisputeReply,
    Listing,
    LookUp,
    NeverSeen,
    Notice,
    NoticeImpossible,
    NoticeRejected,
    Notices,
    NoticeUndecided,
    NotSent,
    Operation,
    OperationKind,
    OperationsPage,
    Outcome,
    Pending,
    Request,
    Response,
    Succeeded,
    Unknown,
    action_required,
    read_retry_after,
    tell,
)
from tillway.connectors.settings import (
    ASK_AFTER_SECONDS,
    TIMEOUT_SECONDS,
    Setting,
    debit_types,
    http_url,
    text,
    yes_or_no,
)
from tillway.domain.cards import without_long_numbers
from tillway.domain.dispute import DISPUTE_REFERENCE_MAX, EVIDENCE_DUE_MAX, NETWORK_REASON_CODE_MAX, Verdict
from tillway.domain.late_pattern import late_pattern

SETTINGS = (
    Setting(name="base_url", read=http_url, required=True, description="where the bank answers: http://host:port"),
    Setting(
        name="notice_secret",
        read=text(200),
        secret=True,
        description="secret that signs its notices; without it all are refused",
    ),
    Setting(name="api_key", read=text(500), secret=True, description="sent as `Authorization: Bearer`"),
    ASK_AFTER_SECONDS,
    TIMEOUT_SECONDS,
    Setting(
        name="debits",
        read=debit_types,
        default=frozenset(),
        description="the kinds of bank accounts that it debits: us_bank_account, sepa_debit, or both with a comma",
    ),
    Setting(
        name="disputes",
        read=yes_or_no,
        default=False,
        description="yes: a dispute's status is Opened, Won, Lost or Accepted; no: Accepted means that it was opened",
    ),
    Setting(
        name="list",
        read=yes_or_no,
        default=False,
        description="yes: it lists operations since a moment, which Tillway asks for after a restore",
    ),
    Setting(
        name="details",
        read=yes_or_no,
        default=False,
        description="yes: authorizations carry `details` of the payment and the payer; no unless set",
    ),
    Setting(
        name="redirects",
        read=yes_or_no,
        default=False,
        description="yes: it may send the customer to a page (3-D Secure) before it decides an authorization",
    ),
    Setting(
        name="increments",
        read=yes_or_no,
        default=False,
        description="yes: it can authorize a larger total before the capture (increment)",
    ),
    Setting(
        name="multicapture",
        read=yes_or_no,
        default=False,
        description="yes: it can capture an authorization several times (`final`)",
    ),
    Setting(
        name="verifications",
        read=yes_or_no,
        default=False,
        description="yes: it can ask the issuer about a card without a payment (SetupIntents)",
    ),
)

PATHS = {
    "authorize": "/v1/authorizations",
    "capture": "/v1/captures",
    "void": "/v1/voids",
    "increment": "/v1/increments",
    "refund": "/v1/refunds",
    "payout": "/v1/payouts",
    "verify": "/v1/verifications",
}
"""The call of each operation. Not every bank can increment and verify: the settings `increments`, `verifications`."""

LIST_PATH = "/v1/operations"

WITHDRAW = "/withdraw"
"""The end of the path that withdraws an authorization or verification: `/v1/authorizations/{reference}/withdraw`."""

OPERATIONS = {path: operation for operation, path in PATHS.items()}


def operation_of(path: str) -> str:
    """The operation that a call is, as faults of the simulated banks name it."""
    if path.endswith(WITHDRAW):
        return "void"
    return "dispute" if path.startswith("/v1/disputes/") else OPERATIONS.get(path, "look_up")


NOTICE_MAX = 64 * 1024
"""Largest notice, in bytes."""


class HttpBank(HttpConnector):
    """One bank behind the contract. Make it with `from_settings`."""

    settings = SETTINGS

    def __init__(
        self,
        base_url: str,
        *,
        notice_secret: str | None = None,
        api_key: str | None = None,
        debits: frozenset[str] = frozenset(),
        details: bool = False,
        disputes: bool = False,
        list: bool = False,
        redirects: bool = False,
        increments: bool = False,
        multicapture: bool = False,
        verifications: bool = False,
        **times: Unpack[Times],
    ) -> None:
        promises = Capabilities(
            operations=frozenset(
                (
                    *("authorize", "capture", "void", "refund", "payout"),
                    *(("increment",) if increments else ()),
                    *(("multicapture",) if multicapture else ()),
                    *(("verify",) if verifications else ()),
                )
            ),
            deduplicates=True,
            looks_up=True,
            livemode=True,
            authenticates=redirects,
            debits=debits,
            disputes=disputes,
            lists=list,
        )
        headers = {"authorization": f"Bearer {api_key}"} if api_key else None
        super().__init__(base_url, promises, headers, **times)
        self._details, self._notice_secret = details, notice_secret

    def perform(self, operation: Operation) -> Conversation:
        assert operation.kind in self.capabilities.operations, f"http_bank cannot {operation.kind}"
        return perform(operation, details=self._details, redirects=self.capabilities.authenticates)

    def look_up(self, operation: Operation) -> LookUp:
        return look_up(operation)

    def withdraw(self, operation: Operation) -> Conversation:
        return withdraw(operation)

    def answer_dispute(self, reply: DisputeReply) -> Conversation:
        assert self.capabilities.disputes, "the setting `disputes` is off"
        return answer_dispute(reply)

    def list_operations(self, since: int, after: str | None) -> Listing:
        assert self.capabilities.lists, "the setting `list` is off"
        return list_operations(since, after, disputes=self.capabilities.disputes)

    def notices(self, headers: Mapping[str, str], body: bytes) -> Notices:
        if self._notice_secret is None:
            raise NoticeRejected("this connector has no notice_secret")
        if len(body) > NOTICE_MAX:
            raise NoticeRejected(f"a notice has at most {NOTICE_MAX} bytes")
        signed = headers.get("x-bank-signature", "").strip().lower()
        if not hmac.compare_digest(signed.encode(), signature(self._notice_secret, body).encode()):
            raise NoticeRejected("X-Bank-Signature does not match the body")
        return tell([read_notice(body, disputes=self.capabilities.disputes)])


def signature(secret: str, body: bytes) -> str:
    """The value of `X-Bank-Signature`: hex(HMAC-SHA256(secret, body))."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


# The conversation. The simulator uses it too, without a socket.


def perform(operation: Operation, *, details: bool = False, redirects: bool = False) -> Conversation:
    """Send `operation`; ask once if the bank knows the reference with other contents.

    `details`: authorizations have the optional member of that name. `redirects`: they say where the customer returns
    to, if the bank may send the customer to a page.
    """
    reference = operation.reference
    assert 0 < len(reference) <= REFERENCE_MAX, "a reference has 1 to 35 characters"
    body = body_of(operation, details=details, redirects=redirects)
    answer = yield Request("POST", PATHS[operation.kind], body, {"idempotency-key": reference})
    if answer.status != 409:
        return _read_outcome(operation, answer)
    # After a crash an authorization is sent again without its CVC. If the first request had arrived after all, the bank
    # takes the second for another operation; the outcome of the first is then the answer, if it is Tillway's operation.
    found = yield Request("GET", f"/v1/operations/{reference}", moves_money=False)
    if found.status == 404:
        return _our_fault("the bank says that the reference was used with other contents, and then that it is unknown")
    if found.status == 200 and found.body is not None and found.body.get("reference") == reference:
        if _mismatch(operation, found.body) is None:
            return _read_answer(operation, found.body)
        return _our_fault("the reference was used before, for another operation")
    return Unknown(f"the bank knows the reference, but answered {found.status} when asked about it")


def withdraw(operation: Operation) -> Conversation:
    """End an authorization or verification that waits for its customer. The answer is that to itself."""
    reference = operation.reference
    path = f"{PATHS[operation.kind]}/{quote(reference, safe='')}{WITHDRAW}"
    answer = yield Request("POST", path, {"reference": reference}, {"idempotency-key": reference})
    if answer.status != 200 or answer.body is None:
        return Unknown(f"the bank answered {answer.status} to a withdrawal")
    return _read_answer(operation, answer.body)


def answer_dispute(reply: DisputeReply) -> Conversation:
    """Send evidence or acceptance. A 409 says that the bank has taken another reply of that kind."""
    body = {"reference": reply.reference}
    if reply.kind == "evidence":
        body["text"] = reply.text
    reference = quote(reply.reference, safe="")
    # A dispute is answered as an inquiry, and perhaps once more as a chargeback.
    key = "-".join(part for part in (reply.stage, reply.kind, reference) if part)
    answer = yield Request("POST", f"/v1/disputes/{reference}/{reply.kind}", body, {"idempotency-key": key})
    match answer.status:
        case 200:
            return Succeeded()
        case 400 | 401 | 403 | 404 | 409 | 422:
            return _read_refusal(answer)
        case _:
            return Unknown(f"the bank answered {answer.status}")


def look_up(operation: Operation) -> LookUp:
    """Ask for the outcome of `operation`. Only its answer or a 404 decides it."""
    answer = yield Request("GET", f"/v1/operations/{operation.reference}", moves_money=False)
    if answer.status == 404:
        return NeverSeen()
    if answer.status != 200 or answer.body is None:
        return Unknown(f"the bank answered {answer.status} when asked")
    return _read_answer(operation, answer.body)


def list_operations(since: int, after: str | None, *, disputes: bool = False) -> Listing:
    """Ask for a page of the bank's list. An entry that is no operation of the contract is told with its reason."""
    path = f"{LIST_PATH}?since={since}" + ("" if after is None else f"&after={quote(after, safe='')}")
    answer = yield Request("GET", path, moves_money=False)
    told = (answer.body or {}).get("operations")
    more = (answer.body or {}).get("has_more")
    if answer.status != 200 or not isinstance(told, list):
        raise NoticeUndecided(f"the bank answered {answer.status} without a list when asked for its operations")
    if not isinstance(more, bool):
        # A page taken for the last one would end the recovery, and the operations behind it would be lost.
        raise NoticeUndecided("the bank's list does not say by has_more (true or false) whether more follows")
    notices, unreadable = [], []
    last = after
    for said in told:
        reference = said.get("reference") if isinstance(said, dict) else None
        last = reference if isinstance(reference, str) else last
        try:
            notice = _notice_of(said, disputes=disputes)
            if not isinstance(notice.outcome, ActionRequired):  # Nothing is decided, and no money moved.
                notices.append(notice)
        except NoticeRejected as rejected:
            unreadable.append(f"{str(reference)[:DISPUTE_REFERENCE_MAX]}: {rejected}")
    if more and last == after:
        raise NoticeUndecided("the bank's list says that more follows, and has no reference to go on after")
    return OperationsPage(tuple(notices), last if more else None, tuple(unreadable))


def read_notice(body: bytes, *, disputes: bool = False) -> Notice:
    """Parse a notice after its signature has been checked. Raises `NoticeRejected` if it is not one."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NoticeRejected("the body is not JSON") from None
    return _notice_of(said, disputes=disputes)


def _notice_of(said: Any, *, disputes: bool) -> Notice:
    """The notice in a JSON value. Raises `NoticeRejected` if there is none."""
    if not isinstance(said, dict):
        raise NoticeRejected("the body is not an object")
    reference, status, kind = said.get("reference"), said.get("status"), said.get("kind")
    if not isinstance(reference, str) or not reference or not isinstance(kind, str):
        raise NoticeRejected("reference and kind must be texts")
    amount, currency, created = said.get("amount"), said.get("currency"), said.get("created")
    amount_minor = amount if type(amount) is int else None
    if created is not None and (type(created) is not int or created < 0):
        raise NoticeRejected("created must be a time in seconds")
    if kind.lower() == "dispute":
        parent = said.get("parent")
        if not isinstance(parent, str) or not 0 < len(parent) <= REFERENCE_MAX:
            raise NoticeRejected("parent must be the reference of the disputed authorization")
        return _dispute(said, reference, parent, created, disputes=disputes)
    if len(reference) > REFERENCE_MAX:
        raise NoticeRejected(f"a reference has at most {REFERENCE_MAX} characters")
    outcome = outcome_of(said)
    if outcome is None:
        raise NoticeRejected(f"status {str(status)[:20]!r} is not one of {', '.join(_STATUSES)}")
    operation = _KINDS.get(kind.lower())
    if operation == "verify":
        # The notice of an amount of nothing: the bank is asked for the outcome.
        return Notice(
            id=f"{reference}:{status}", kind="operation", reference=reference, operation="verify", created=created
        )
    if operation != "void":
        if amount_minor is None:
            outcome = Unknown("the notice names no amount")
        elif not isinstance(currency, str):
            outcome = Unknown("the notice names no currency")
    # A repeated report has the same id, and a changed outcome another.
    return Notice(
        id=f"{reference}:{status}",
        kind="operation",
        reference=reference,
        outcome=outcome,
        operation=operation,
        amount_minor=amount_minor,
        currency=currency if isinstance(currency, str) else None,
        parent=parent if isinstance(parent := said.get("parent"), str) else None,
        created=created,
    )


def _dispute(said: dict[str, Any], reference: str, parent: str, created: int | None, *, disputes: bool) -> Notice:
    """A report of a dispute. Raises `NoticeImpossible` for a value that no dispute has."""
    amount, currency, reason = said.get("amount"), said.get("currency"), said.get("reason")
    code, due = said.get("network_reason_code"), said.get("evidence_due")
    named, status = said.get("dispute", "chargeback"), said.get("status", "Opened")
    stage = _STAGES.get(named) if isinstance(named, str) else None
    verdict = _VERDICTS.get(status) if isinstance(status, str) else None
    if verdict == "accepted" and not disputes:
        verdict = "opened"  # The word of banks that know no outcomes.
    if stage is None:
        raise NoticeImpossible(f"dispute is not one of {', '.join(_STAGES)}")
    if verdict is None:
        raise NoticeImpossible(f"the status of a dispute is not one of {', '.join(_VERDICTS)}")
    if type(amount) is not int or amount <= 0:
        raise NoticeImpossible("the amount of a dispute must be a positive integer")
    if not isinstance(currency, str):
        raise NoticeImpossible("currency must be a text")
    if len(reference) > DISPUTE_REFERENCE_MAX or not reference.isprintable():
        raise NoticeImpossible(f"the reference of a dispute has at most {DISPUTE_REFERENCE_MAX} printable characters")
    if due is not None and (type(due) is not int or not 0 < due <= EVIDENCE_DUE_MAX):
        raise NoticeImpossible("evidence_due must be a time in seconds")
    return Notice(
        id=reference,
        kind="dispute",
        reference=parent,
        amount_minor=amount,
        currency=currency,
        created=created,
        reason=_safe(reason)[:100] if isinstance(reason, str) else "general",
        stage=stage,
        verdict=verdict,
        network_reason_code=code if isinstance(code, str) and _NETWORK_CODE.fullmatch(code) else None,
        evidence_due=due,
    )


_NETWORK_CODE = late_pattern(rf"[A-Za-z0-9.]{{1,{NETWORK_REASON_CODE_MAX}}}")

_STATUSES = ("Accepted", "ActionRequired", "Declined", "InsufficientFunds", "Pending")
_STAGES: dict[str, Literal["chargeback", "inquiry", "warning"]] = {
    "chargeback": "chargeback",
    "inquiry": "inquiry",
    "warning": "warning",
}
_VERDICTS: dict[str, Verdict] = {"Opened": "opened", "Won": "won", "Lost": "lost", "Accepted": "accepted"}


def body_of(operation: Operation, *, details: bool = False, redirects: bool = False) -> dict[str, Any]:
    """The body of the request that performs `operation`."""
    if operation.kind == "authorize":
        return _authorization(operation, details, redirects)
    body: dict[str, Any] = {"reference": operation.reference}
    if operation.kind not in _WITHOUT_AMOUNT:
        body["amount"] = operation.amount_minor
        body["currency"] = operation.currency
    match operation.kind:
        case "verify":
            assert operation.card is not None, "only cards are verified"
            body |= {"card": _card(operation.card), "stores": operation.stores or "off_session"}
            if redirects:
                body |= _redirect(operation)
            known = _details(operation, redirects) if details else {}
            if known:
                body["details"] = known
        case "capture" | "void" | "increment":
            body["authorization"] = operation.parent
            if not operation.final:
                body["final"] = False
        case "refund":
            body["payment"] = operation.parent
        case "payout":
            assert operation.recipient is not None, "a payout needs a recipient"
            recipient = operation.recipient
            body["recipient"] = {"type": recipient.type, "value": recipient.value}
            if recipient.name is not None:
                body["recipient"]["name"] = recipient.name
    return body


def _authorization(operation: Operation, details: bool, redirects: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "reference": operation.reference,
        "amount": operation.amount_minor,
        "currency": operation.currency,
        "capture": operation.capture,
    }
    if operation.account is not None:
        body["account"] = _account(operation.account)
    else:
        assert operation.card is not None, "an authorization needs a card or a bank account"
        body["card"] = _card(operation.card)
    if redirects:
        body |= _redirect(operation)
    if operation.by_amount and not operation.livemode:
        body["by_amount"] = True
    known = _details(operation, redirects) if details else None
    if known:
        body["details"] = known
    return body


def _redirect(operation: Operation) -> dict[str, Any]:
    """The members of an authorization that may send its customer to a page."""
    told: dict[str, Any] = {}
    if operation.return_url is not None:
        told["return_url"] = operation.return_url
        if operation.three_d_secure != "automatic":
            told["three_d_secure"] = operation.three_d_secure
    return told


def _details(operation: Operation, redirects: bool) -> dict[str, Any]:
    """The optional member `details` of an authorization, with the known parts."""
    known: dict[str, Any] = {}
    if operation.off_session:
        known["off_session"] = True
    if operation.network_transaction_id is not None:
        known["network_transaction_id"] = operation.network_transaction_id
    if operation.email is not None:
        known["email"] = operation.email
    if operation.statement_descriptor is not None:
        known["statement_descriptor"] = operation.statement_descriptor
    if operation.return_url is not None and not redirects:
        known["return_url"] = operation.return_url
    if operation.billing_address is not None:
        parts = msgspec.structs.asdict(operation.billing_address)
        known["billing_address"] = {name: value for name, value in parts.items() if value is not None}
    return known


def _card(card: CardData) -> dict[str, Any]:
    shown: dict[str, Any] = {"number": card.number, "exp_month": card.exp_month, "exp_year": card.exp_year}
    if card.cvc is not None:
        shown["cvc"] = card.cvc
    if card.name is not None:
        shown["name"] = card.name
    return shown


def _account(account: BankAccountData) -> dict[str, Any]:
    shown = {
        "type": account.type,
        "number": account.number,
        "routing_number": account.routing_number,
        "account_holder_type": account.account_holder_type,
        "account_type": account.account_type,
        "name": account.name,
        "mandate": account.mandate,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _read_outcome(operation: Operation, answer: Response) -> Outcome:
    """The outcome of an answer to an order: the contract's table."""
    match answer.status:
        case 200:
            if answer.body is None:
                return Unknown("the bank answered 200 without a JSON object")
            return _read_answer(operation, answer.body)
        case 400 | 401 | 403 | 422:
            return _read_refusal(answer)
        case 429:
            return NotSent("the bank answered 429", read_retry_after(answer))
        case _:
            # 5xx, redirects and every other status: the operation may have happened.
            return Unknown(f"the bank answered {answer.status}")


def _read_refusal(answer: Response) -> Declined:
    """The decline of a request that the bank calls wrong, with its message."""
    said = _message(answer.body or {})
    return _our_fault(f"the bank answered {answer.status}" + (f": {said}" if said else ""))


def _read_answer(operation: Operation, body: Mapping[str, Any]) -> Outcome:
    """The outcome in an answer that certainly belongs to `operation`."""
    if body.get("reference") != operation.reference:
        return Unknown("the answer names another reference")
    mismatch = _mismatch(operation, body)
    if mismatch is not None:
        return Unknown(f"the answer names another {mismatch}")
    outcome = outcome_of(body)
    return Unknown("the answer has no status that the contract knows") if outcome is None else outcome


def _mismatch(operation: Operation, body: Mapping[str, Any]) -> str | None:
    """The member of an answer that shows that it is about another operation, or None."""
    kind = body.get("kind")
    if not isinstance(kind, str) or _KINDS.get(kind.lower(), operation.kind) != operation.kind:
        return "kind"
    if operation.kind in _WITHOUT_AMOUNT:
        return None
    if type(body.get("amount")) is not int or body["amount"] != operation.amount_minor:
        return "amount"
    currency = body.get("currency")
    if not isinstance(currency, str) or currency.lower() != operation.currency.lower():
        return "currency"
    return None


_WITHOUT_AMOUNT = ("void", "verify")
"""Operations that are sent without an amount; the bank's answer may state any."""

# The contract does not list the kinds. A known kind must be the right one; an unknown one may be the bank's own.
_KINDS: dict[str, OperationKind] = {
    "authorization": "authorize",
    "authorizations": "authorize",
    "verification": "verify",
    "verifications": "verify",
}
for _kind in get_args(OperationKind):
    _KINDS |= {_kind: _kind, f"{_kind}s": _kind}


def outcome_of(body: Mapping[str, Any]) -> Outcome | None:
    """The outcome that an answer or notice tells; None if its status is not one of the contract."""
    said_id = body.get("bank_id")
    bank_id = said_id[:BANK_ID_MAX] if isinstance(said_id, str) else None
    match body.get("status"):
        case "Accepted":
            return Succeeded(
                bank_id, network_transaction_id=_network_id(body.get("network_transaction_id")), checks=_checks(body)
            )
        case "Pending":
            return Pending(bank_id)
        case "ActionRequired":
            return action_required(body.get("redirect_url"), bank_id)
        case "InsufficientFunds":
            return Declined("card_declined", "insufficient_funds", _message(body), bank_id, checks=_checks(body))
        case "Declined":
            said = body.get("decline_code")
            decline_code = said if isinstance(said, str) and _CODE.fullmatch(said) else "generic_decline"
            soft = decline_code in _SOFT
            if decline_code in _CODES:
                return Declined(decline_code, None, _message(body), bank_id, soft, checks=_checks(body))
            return Declined("card_declined", decline_code, _message(body), bank_id, soft, checks=_checks(body))
        case _:
            return None


BANK_ID_MAX = 255
"""Longest id of a bank that is stored, in characters; the rest is cut off."""

NETWORK_ID_MAX = 64
"""Longest network transaction id that is stored, in characters."""


def _network_id(value: Any) -> str | None:
    if isinstance(value, str) and 0 < len(value) <= NETWORK_ID_MAX and value.isascii() and value.isprintable():
        return value
    return None


def _checks(body: Mapping[str, Any]) -> Checks | None:
    """The results in the answer's optional member `checks`; results outside the contract are left out."""
    told = body.get("checks")
    if not isinstance(told, dict) or not told:
        return None
    try:
        return msgspec.convert(told, Checks)
    except msgspec.ValidationError:
        known = {name: told[name] for name in Checks.__struct_fields__ if told.get(name) in _RESULTS}
        return Checks(**known) if known else None


_RESULTS = ("pass", "fail", "unavailable", "unchecked")

_CODE = late_pattern(r"[a-z0-9_]{1,60}")

_CODES = frozenset(("expired_card", "incorrect_cvc", "incorrect_number", "incorrect_zip", "processing_error"))
"""Decline codes that are error codes of their own (https://docs.stripe.com/error-codes); all others are a
`card_declined` with that decline code."""

_SOFT = frozenset(("issuer_not_available", "processing_error", "reenter_transaction", "try_again_later"))
"""Refusals that do not concern the card: another provider may accept it."""


def _our_fault(alert: str) -> Declined:
    return Declined("processing_error", None, alert=alert)


def _message(body: Mapping[str, Any]) -> str | None:
    said = body.get("message")
    return _safe(said) if isinstance(said, str) and said else None


def _safe(said: str) -> str:
    """A bank's message, cut to 200 characters, with possible card numbers masked."""
    return without_long_numbers(said[:1000])[:200]
