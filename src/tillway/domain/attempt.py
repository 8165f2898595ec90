"""Attempts: one operation at a provider, performed at most once, and the task that carries it.

The attempt's row is committed before the provider is called and deleted in the commit that records the outcome. Its
reference at the provider is the scope's key and a tail, at most 35 characters in all. An attempt of a request with an
Idempotency-Key has a tail that follows from the key: where the store was restored from a backup and the client repeats
the request, the provider gets the same reference again and does not perform it twice. Every other tail is the suffix of
the attempt's id. `engine/references.py` finds records by either form. A request without a key that the client repeats
under a name of its own, such as a token that pays once, has that name in place of the key (`Caller.named`).
"""

import hashlib
from typing import Literal

import msgspec

from tillway.domain.outcome import Declined, NotSent, OperationKind, Outcome, Pending, Unknown
from tillway.domain.record import Moment, Record, Value
from tillway.domain.refusal import Refused

SENDS_MAX = 6
"""How often an attempt that surely was not performed is sent again before it fails."""

DOUBTFUL_AFTER_ASKS = 5
"""After this many questions without an outcome, the list of money in doubt asks an operator to look."""

ASK_INTERVAL_MAX_SECONDS = 15 * 60

BANK_DAYS_SECONDS = 14 * 24 * 60 * 60
"""How long transfers between banks may be pending, such as a debit, its refund and a payout: SEPA debits are the
slowest."""

FOLLOW_UP_SECONDS = 24 * 60 * 60
"""How long a capture, void, increment or refund may be pending before it is in doubt: some providers only acknowledge
the request, and tell its outcome by a notice minutes or hours later."""

ACTION_LIFETIME_SECONDS = 60 * 60
"""How long the customer may take at the provider's page before the attempt is withdrawn."""

ACTION_ASK_SECONDS_MAX = 30.0
"""The longest wait between two questions about a customer who has not returned: the provider may send no notice."""

ANSWERS_MAX = 20
"""Most answers that an attempt keeps: the first one, and the newest."""

Withdrawal = Literal["canceled", "expired", "off_session", "refused", "gave_up"]


class Answer(Value, frozen=True, kw_only=True):
    """A provider's answer that settled nothing, to the request itself (`send`) or to a question about it (`ask`).
    `reason` has the provider's words, or the reason why there was no answer."""

    at_ms: int
    to: Literal["send", "ask"]
    outcome: Literal["pending", "unknown"]
    reason: str | None = None


class Attempt(Record, frozen=True, kw_only=True):
    """`subject` is its payment (`pi_`, `dpi_`), refund (`re_`), payout (`po_`) or setup (`seti_`), and `method` the
    means of payment.

    An `action` waits for the customer, whom the provider has sent to a page: nothing is decided. `bank_id` is the
    provider's id of it, and `returned` the text with which the customer came back. `refuses_action`: the caller takes
    no redirect. `withdrawn` is the reason to end it at the provider: nobody may continue it. Of the reasons, `canceled`
    ends the payment and the others decline it.

    While it is `scheduled` it surely was never begun: no process may call the provider before a commit has made it
    `new`.

    `parent` and `parent_bank_id` name the authorization that a capture, void, increment or refund is about. `idem` is
    the idempotency record that gets its answer when the attempt settles, and `shows` the object of that answer.

    A capture that is not `final` leaves the rest authorized; `captured_minor` was captured before it, or before a void.

    `patience_seconds` is how long a transfer between banks may be pending before it is in doubt; a card has none.
    """

    kind: OperationKind
    subject: str
    amount_minor: int
    currency: str
    connector: str
    capture: bool = False
    method: str | None = None
    parent: str | None = None
    parent_bank_id: str | None = None
    final: bool = True
    captured_minor: int = 0
    due_at_ms: int = 0
    sent: int = 0
    asked: int = 0
    state: Literal["scheduled", "new", "unknown", "pending", "action"] = "new"
    reason: str | None = None
    idem: str | None = None
    shows: Literal["subject", "charge", "refund"] = "subject"
    patience_seconds: int = 0
    bank_id: str | None = None
    returned: str | None = None
    refuses_action: bool = False
    withdrawn: Withdrawal | None = None
    held: bool = False
    """It was scheduled when the store was backed up, and may have been cancelled since: it waits for an operator."""
    reference: str = ""
    """The tail of its reference where that follows from a key; empty: the suffix of its id."""
    answers: tuple[Answer, ...] = ()
    """The answers so far, oldest first, at most ANSWERS_MAX."""

    @property
    def suffix(self) -> str:
        return self.id.removeprefix("att_")

    @property
    def name(self) -> str:
        """Its name on the records about it: the tail of its reference, or its id where that is the id's suffix."""
        return self.reference or self.id

    def in_doubt(self, now: int) -> bool:
        """Whether its outcome is still unknown at `now` (epoch seconds), although it is overdue."""
        return self.state == "unknown" or (self.state == "pending" and now >= self.created + self._pending_seconds())

    def overdue(self, now: int) -> bool:
        return now >= self.created + self.patience_seconds

    def _pending_seconds(self) -> int:
        """How long it may be pending before it is in doubt."""
        follows = self.kind in ("capture", "void", "increment", "refund")
        return max(self.patience_seconds, FOLLOW_UP_SECONDS) if follows else self.patience_seconds

    def needs_attention(self, now: int) -> bool:
        """Whether an operator should ask the provider: many questions gave no outcome, or the time is over that a
        transfer between banks, or an operation after a payment, may take."""
        if not self.in_doubt(now):
            return False
        pending_seconds = self._pending_seconds()
        return self.asked >= DOUBTFUL_AFTER_ASKS or (pending_seconds > 0 and now >= self.created + pending_seconds)


def check_settled_by_hand(attempt: Attempt, now: int) -> None:
    """Raise `Refused` unless the attempt is in doubt at `now` (epoch seconds): an operator can settle no other."""
    if not attempt.in_doubt(now):
        raise Refused(
            "doubt_unexpected_state",
            f"The outcome of {attempt.id} is not in doubt: the attempt is {attempt.state}. Only attempts that GET "
            "/ops/v1/doubts lists can be resolved.",
        )


class Retry(msgspec.Struct, frozen=True):
    """The provider surely did not perform it: send the same reference again when `attempt` is due."""

    attempt: Attempt


class AskLater(msgspec.Struct, frozen=True):
    """The outcome is not known yet: ask the provider by our reference when `attempt` is due."""

    attempt: Attempt


class GiveUp(msgspec.Struct, frozen=True):
    """The provider surely never performed it in SENDS_MAX tries: the operation fails with `declined`."""

    declined: Declined


def next_step(
    attempt: Attempt, outcome: NotSent | Pending | Unknown, at: Moment, *, first_ask_seconds: float
) -> Retry | AskLater | GiveUp:
    """The next step after an outcome that settles nothing. Payments, refunds and payouts all use these rules.

    Only an attempt that is `new` may be sent again after `NotSent`: otherwise an earlier request, or another worker's,
    may still arrive, so the engine asks the provider instead. No number of questions turns `Unknown` into a failure.
    """
    match outcome:
        case NotSent() if attempt.state == "new" and attempt.sent + 1 < SENDS_MAX:
            return Retry(_send_again(attempt, outcome, at))
        case NotSent() if attempt.state == "new":
            return GiveUp(never_sent(outcome))
        case NotSent():
            unknown = Unknown(outcome.reason, outcome.retry_after_seconds)
            return AskLater(_ask_later(attempt, unknown, at, first_ask_seconds))
        case Pending() | Unknown():
            return AskLater(_ask_later(attempt, outcome, at, first_ask_seconds))


def never_sent(outcome: Outcome) -> Declined:
    """The decline of an operation that surely was never performed."""
    assert isinstance(outcome, NotSent)
    return Declined("processing_error", "processing_error", alert=f"never sent: {outcome.reason}")


def send_again_seconds(attempt: Attempt, outcome: NotSent) -> float:
    """The wait before the same reference is sent again: 0.2, 0.4, 0.8 … 2 seconds, or the time that the provider
    named."""
    return outcome.retry_after_seconds or min(0.2 * 2**attempt.sent, 2.0)


def _send_again(attempt: Attempt, outcome: NotSent, at: Moment) -> Attempt:
    due_at_ms = at.now_ms + int(send_again_seconds(attempt, outcome) * 1000)
    return msgspec.structs.replace(
        attempt, sent=attempt.sent + 1, state="new", reason=outcome.reason, due_at_ms=due_at_ms
    )


def _ask_later(attempt: Attempt, outcome: Pending | Unknown, at: Moment, first_seconds: float) -> Attempt:
    # The provider said that it will take days; an unanswered question does not change that.
    pending = isinstance(outcome, Pending) or (attempt.state == "pending" and not attempt.overdue(at.now))
    delay = interval_seconds(attempt.asked, first_seconds)
    if isinstance(outcome, Unknown) and outcome.retry_after_seconds is not None:
        delay = max(delay, outcome.retry_after_seconds)
    reason = None if isinstance(outcome, Pending) else outcome.reason
    answer = Answer(
        at_ms=at.now_ms,
        to="send" if attempt.state == "new" else "ask",
        outcome="pending" if isinstance(outcome, Pending) else "unknown",
        reason=reason,
    )
    return msgspec.structs.replace(
        attempt,
        state="pending" if pending else "unknown",
        reason=reason,
        asked=attempt.asked + 1,
        answers=(*attempt.answers[:1], *attempt.answers[1:][2 - ANSWERS_MAX :], answer),
        due_at_ms=at.now_ms + int(delay * 1000),
    )


def await_action(attempt: Attempt, bank_id: str | None, at: Moment, *, first_ask_seconds: float) -> Attempt:
    """The attempt while its customer is at the provider's page."""
    delay = interval_seconds(attempt.asked, first_ask_seconds, ACTION_ASK_SECONDS_MAX)
    return msgspec.structs.replace(
        attempt,
        state="action",
        reason=None,
        returned=None,
        asked=attempt.asked + 1,
        bank_id=bank_id or attempt.bank_id,
        due_at_ms=at.now_ms + int(delay * 1000),
    )


def interval_seconds(times: int, first_seconds: float, most_seconds: float = ASK_INTERVAL_MAX_SECONDS) -> float:
    """The wait before the next message to a provider, after `times` earlier ones: twice as long each time, from
    `first_seconds` up to `most_seconds`."""
    return min(first_seconds * 2.0 ** min(times, 20), most_seconds)


def withdraw(attempt: Attempt, reason: Withdrawal, bank_id: str | None = None) -> Attempt:
    """The attempt that is to be ended at its provider, by the worker that commits this."""
    return msgspec.structs.replace(
        attempt, state="unknown", withdrawn=reason, bank_id=bank_id or attempt.bank_id, returned=None, due_at_ms=0
    )


def reference_of(scope_key: str, attempt: Attempt) -> str:
    """The provider's reference of the attempt, at most 35 characters."""
    return scope_key + (attempt.reference or attempt.suffix)


def reference_from_name(scope_key: str, name: str) -> str:
    """The provider's reference of the attempt with that name (`Attempt.name`)."""
    return scope_key + name.removeprefix("att_")


TAIL_LENGTH = 18
"""Characters of a tail that follows from a key: one more than an id's suffix has, so that the two differ."""


def keyed_tail(scope_key: str, key: str, fingerprint: str, number: int) -> str:
    """The tail of the reference of a request's attempt `number`, counted from 0.

    `key` stands for the Idempotency-Key and `fingerprint` for the request that it was sent with, without the ids of
    objects in it. 72 bits of a digest, in hexadecimal: any rail carries these characters, and no two requests of a
    merchant meet by chance.
    """
    digest = _TAIL.copy()  # Every payment comes here, and a new digest takes a quarter more.
    digest.update(f"{scope_key}\0{key}\0{fingerprint}\0{number}".encode())
    return digest.hexdigest()


_TAIL = hashlib.blake2b(digest_size=TAIL_LENGTH // 2)


def following_tail(first: str, number: int) -> str:
    """The tail of the reference of the attempt `number` (1 and up) of a payment that went on to another connector.

    It follows from the `first` attempt's, which follows from the key: it is the same after a restore, and no other
    request's.
    """
    return hashlib.blake2b(f"{first}\0{number}".encode(), digest_size=TAIL_LENGTH // 2).hexdigest()
