"""Attempts: carry out an operation at its provider, across crashes and changes of worker.

An attempt that this process has just committed is performed at once. One that it took over (its worker's lease ran out)
may have been sent already, so the engine first asks the provider by reference; only if the provider has never seen
that, it sends the operation again, under the same reference and without a security code. An unknown outcome is never
guessed: the attempt stays a task, the engine asks about it at growing intervals, and it is in the list of money in
doubt.
"""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import msgspec

from tillway.connectors.conversation import converse, listen
from tillway.connectors.port import (
    AccountForm,
    ActionRequired,
    AtOnce,
    BankAccountData,
    Capabilities,
    CardData,
    Connector,
    Conversation,
    DisputeReply,
    LookUp,
    NeverSeen,
    Notice,
    NotSent,
    Operation,
    OperationsPage,
    Outcome,
    Pending,
    PostalAddress,
    RecipientType,
    Request,
    Response,
    Succeeded,
    Transport,
    Unknown,
)
from tillway.domain.account import Mode, Scope, scope_of
from tillway.domain.amount_limits import check_steps
from tillway.domain.attempt import (
    ACTION_LIFETIME_SECONDS,
    ASK_INTERVAL_MAX_SECONDS,
    Attempt,
    Withdrawal,
    reference_from_name,
    reference_of,
    send_again_seconds,
)
from tillway.domain.charge import Charge, full_descriptor
from tillway.domain.event import NoticeTask
from tillway.domain.idempotency import IdempotencyRecord
from tillway.domain.ledger import Fee
from tillway.domain.mandate import reference_of as reference_of_mandate
from tillway.domain.method_types import METHOD_TYPES
from tillway.domain.outcome import Declined
from tillway.domain.payment_file import FiledOperation, filed_id
from tillway.domain.payment_intent import PaymentIntent, Terms
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.payout import Payout
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record
from tillway.domain.refund import Refund
from tillway.domain.refusal import STORE_CODES, Refused
from tillway.domain.routing import ConnectorTerms, Routes, outcome_to_follow
from tillway.domain.setup_intent import SetupIntent
from tillway.domain.source_api import SourceApi
from tillway.engine.accounts import Price
from tillway.engine.audit.entries import NOWHERE
from tillway.engine.availability import foresee, unforeseen
from tillway.engine.caller import Caller, Settings
from tillway.engine.card_vault import CardVault
from tillway.engine.core import Done, Engine, Load, Seen, Work
from tillway.engine.health import ConnectorHealth
from tillway.engine.later_words import keep_late_word, questions_about
from tillway.engine.notices import Settled, announced, word_of
from tillway.engine.recipients import reveal
from tillway.engine.settlers import (
    Settling,
    charge_of,
    settler_of,
)
from tillway.engine.telemetry import Telemetry, note, note_id
from tillway.sandbox.cards import data_of
from tillway.store.codec import decode, encode
from tillway.store.port import Row, Unavailable

log = logging.getLogger(__name__)

ROUNDS_MAX = 8
"""How often one request sends or asks before it is answered with "processing". Each round ends with the connector's own
time-out, so that a request is never kept longer than `answer_within_seconds` and one time-out more."""

ASK_AFTER_SECONDS = 5.0
"""How long to wait before the first question, if the connector is not available to define it."""

SETTLE_PAUSE_SECONDS = 0.5
SETTLE_TRIES_MAX = 1200
"""How often, and for how long, an outcome is booked again that the store did not take: ten minutes."""

REFUSED = "a provider refused our request"
"""The line of the log, which is an alert."""

PAUSE_MAX_SECONDS = 2.0
"""The longest wait between two rounds while a caller waits."""


class Connection(msgspec.Struct, frozen=True):
    """A configured connector with its transport, also as `instant` if it can do without conversations. `fee` is its own
    price, None: that of the installation; a `drained` one takes no new payments, and to one that is `held_open` others
    go first."""

    name: str
    connector: Connector
    transport: Transport
    health: ConnectorHealth
    fee: Fee | None = None
    drained: bool = False
    held_open: bool = False
    instant: AtOnce | None = None


class Connections(Protocol):
    async def default(self, scope: Scope) -> Connection:
        """The default connector of that mode. Raises Refused `live_mode_not_configured`."""

    async def for_payments(self, scope: Scope) -> Connection | Routes:
        """The connector that takes a merchant's new payments, or the routing that chooses one for each. Raises Refused
        `live_mode_not_configured`, or `connector_unavailable` if that one connector is drained."""

    def known_for_payments(self, scope: Scope) -> Connection | None:
        """The same if the configuration need not be read for it and no routing chooses, else None."""

    def health_of(self, mode: Mode, name: str) -> ConnectorHealth:
        """The health of a connector, as the processes of this server have seen it."""

    async def default_name(self, mode: Mode) -> str | None:
        """The name of the mode's default connector; None if there is none."""

    async def connectors_of(self, mode: Mode) -> Mapping[str, ConnectorTerms]:
        """The mode's connectors by name, with their abilities and prices."""

    async def named(self, name: str, scope: Scope) -> Connection | None:
        """The connector of that name, even if its configuration has changed since."""

    def known(self, name: str, scope: Scope) -> Connection | None:
        """The same if the configuration need not be read for it, else None."""

    async def for_payout(
        self, scope: Scope, recipient: RecipientType, currency: str, form: AccountForm | None
    ) -> Connection:
        """The connector that pays out to such a recipient: the default, or one that exchanges files and takes the
        recipient's bank account. Raises Refused `live_mode_not_configured`."""

    async def by_file(self) -> list[tuple[Mode, Connection]]:
        """The connectors that exchange files, of both modes."""

    async def capabilities_of(self, kind: str, settings: Mapping[str, str]) -> Capabilities:
        """The capabilities of a connector with these settings, without a call to its provider. Raises `SettingInvalid`
        (`connectors/settings.py`)."""

    def forget(self) -> None:
        """Read the configuration again, after this process has changed it."""


class _Joined:
    """A transport that adds headers by which the provider's work joins our trace."""

    def __init__(self, transport: Transport, headers: Mapping[str, str]) -> None:
        self._transport = transport
        self._headers = headers

    async def send(self, request: Request) -> Response:
        return await self._transport.send(
            msgspec.structs.replace(request, headers={**request.headers, **self._headers})
        )

    async def close(self) -> None:
        """Do nothing: the owner closes the inner transport."""


async def _converse_traced(
    telemetry: Telemetry, connection: Connection, operation: str, conversation: Conversation | LookUp
) -> Outcome | NeverSeen:
    """Like `converse`, in a span that the provider's work can join."""
    with telemetry.span(f"{connection.name} {operation}", "call"):
        headers = telemetry.trace_headers()
        transport = _Joined(connection.transport, headers) if headers else connection.transport
        return await converse(conversation, transport)


async def ask_nothing(connection: Connection) -> Outcome | NeverSeen | None:
    """The provider's answer to a question about an operation that does not exist; None if it takes no questions."""
    capabilities = connection.connector.capabilities
    if not capabilities.looks_up or capabilities.by_file:
        return None
    nothing = Operation(reference="probe", kind="authorize", amount_minor=1, currency="usd")
    return await converse(connection.connector.look_up(nothing), connection.transport)


async def _answers(connection: Connection) -> bool | None:
    """Whether the provider answers; None if it takes no questions."""
    answer = await ask_nothing(connection)
    return None if answer is None else not isinstance(answer, NotSent | Unknown)


def _of_repeat(attempt: Attempt, outcome: Outcome) -> Outcome:
    """The outcome of an operation whose repeated request has this outcome.

    A repeat that was not performed, or that the provider refuses as ours (wrong credentials, for instance), tells
    nothing of the earlier request, which got no answer: that may have been performed, or still be on its way.
    """
    if isinstance(outcome, NotSent):
        return Unknown(outcome.reason, outcome.retry_after_seconds)
    if isinstance(outcome, Declined) and outcome.alert is not None:
        log.error(REFUSED, extra={"attempt": attempt.id, "alert": outcome.alert})
        return Unknown(outcome.alert)
    return outcome


def note_attempt(attempt: Attempt) -> None:
    """Note for the log which attempt was settled, and where."""
    note("connector", attempt.connector)
    note_id(attempt.subject)


def watch(connection: Connection) -> None:
    """See that a breaker closes which another process has opened, and that may have ended since."""
    connection.health.watch(partial(_answers, connection))


def _test_card(method: PaymentMethod) -> CardData | None:
    """The public test card of a method that names one, else None."""
    facts = method.card
    if facts is None or facts.alias is None:
        return None
    known = data_of(facts.alias, facts.exp_month, facts.exp_year)
    assert known is not None, f"a payment method with the unknown alias {facts.alias}"
    return known


_OUTCOMES: dict[type, str] = {
    Succeeded: "succeeded",
    Pending: "pending",
    ActionRequired: "action_required",
    Declined: "declined",
    NotSent: "not_sent",
    Unknown: "unknown",
    NeverSeen: "never_seen",
}


def _operation(scope: Scope, attempt: Attempt, card: CardData | None, told: dict[str, Any]) -> Operation:
    """The operation of an attempt, with the fields that are `told` of it."""
    operation = Operation(
        reference=reference_of(scope.key, attempt),
        kind=attempt.kind,
        amount_minor=attempt.amount_minor,
        currency=attempt.currency,
        capture=attempt.capture,
        card=card,
        livemode=scope.livemode,
    )
    return msgspec.structs.replace(operation, **told) if told else operation


def _leased(changes: Changes[Record | None], id: str, at: Moment, settings: Settings) -> Changes[Record | None]:
    """The changes, of which the attempt to send again is not due before its lease ends."""
    tasks = tuple(
        msgspec.structs.replace(task, due_at_ms=at.now_ms + settings.lease_ms)
        if isinstance(task, Attempt) and task.id == id and task.state == "new"
        else task
        for task in changes.tasks
    )
    return msgspec.structs.replace(changes, tasks=tasks)


class _KeyChanged(Exception):
    """Another request waits for the outcome of the attempt by now: it cancels a payment while its customer is away. The
    commit that books the outcome has to answer its key, because that request's process may have died."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(f"{attempt.id} has another key")
        self.attempt = attempt


TERMS_MAX = 1_000
"""How many scopes' terms a process keeps."""

KEYS_MAX = 8
"""How often the key of an attempt may change while its outcome is booked."""

# Every payment goes through it, and a range takes 700 instructions to make.
_ROUNDS = range(ROUNDS_MAX)

_GATEWAY = SourceApi.gateway  # Python 3.11 takes 0.1 µs for an access through the enumeration.


class Attempts:
    def __init__(self, engine: Engine, connections: Connections, vault: CardVault) -> None:
        self.engine = engine
        self.connections = connections
        self.vault = vault
        self.held: dict[tuple[str, str], int] = {}
        """The attempts that this process carries out, by (scope key, id), and until when they are leased to it."""
        self.carry_notice: Callable[[Row], Awaitable[None]] | None = None
        """Carries the task of a notice that came with an outcome. The runner knows it."""
        self._terms: dict[tuple[str, str], tuple[Connection | Routes, Price, Terms]] = {}
        """The last terms of each scope's payments, with the connection and the price behind them."""
        self._settling: set[asyncio.Task[None]] = set()
        self.foreseen: dict[str, int] = {}
        """When the latest task that tells of available money is due, by scope key, in epoch seconds."""

    async def terms(self, scope: Scope, *, shows: Literal["subject", "charge"] = "subject") -> Terms:
        """The terms of a new payment in that scope. Refused `live_mode_not_configured` or `connector_unavailable` if no
        connector takes it."""
        connection = await self.connections.for_payments(scope)
        price = self.engine.known_price(scope) or await self.engine.price(scope)
        place = (scope.key, shows)
        known = self._terms.get(place)
        if known is not None and known[0] is connection and known[1] is price:
            return known[2]
        if len(self._terms) >= TERMS_MAX:
            self._terms.clear()
        terms = self._terms_of(scope, connection, price, shows)
        self._terms[place] = (connection, price, terms)
        return terms

    def known_terms(self, scope: Scope) -> Terms | None:
        """The same without a coroutine, for every payment asks; None if something must be read or made for it."""
        connection, price = self.connections.known_for_payments(scope), self.engine.known_price(scope)
        known = self._terms.get((scope.key, "subject"))
        if connection is None or price is None or known is None:
            return None
        return known[2] if known[0] is connection and known[1] is price else None

    def _terms_of(
        self, scope: Scope, connection: Connection | Routes, price: Price, shows: Literal["subject", "charge"]
    ) -> Terms:
        if isinstance(connection, Routes):
            return Terms(
                connector="",
                fee=price.fee,
                settlement_days=price.settlement_days,
                challenge_base=self.engine.challenge_base(scope),
                shows=shows,
                authenticates=not scope.livemode,
                routes=connection,
                descriptor=price.descriptor,
                simulates_transfers=not scope.livemode,
            )
        return Terms(
            connector=connection.name,
            fee=price.fee,
            settlement_days=price.settlement_days,
            challenge_base=self.engine.challenge_base(scope),
            shows=shows,
            debits=connection.connector.capabilities.debits,
            wallets=connection.connector.capabilities.wallets,
            authenticates=not scope.livemode or connection.connector.capabilities.authenticates,
            redirects=connection.connector.capabilities.authenticates,
            steps=connection.connector.capabilities.steps,
            descriptor=price.descriptor,
            simulates_transfers=not scope.livemode,
        )

    async def check_amounts(self, scope: Scope, changes: Changes[Any], param: str = "amount") -> None:
        """Raise `Refused` for an attempt of this decision with an amount that its connector does not take."""
        for task in changes.tasks:
            if isinstance(task, Attempt):
                connection = await self.connections.named(task.connector, scope)
                if connection is not None:
                    steps = connection.connector.capabilities.steps
                    check_steps(steps, task.connector, task.amount_minor, task.currency, param)

    async def operate(self, caller: Caller, begin: Work[Record | None]) -> Done[Record | None]:
        """Commit the intent, call the provider, commit the outcome, and answer.

        The security code of the decision is kept only during this call.
        """
        begun = await self.engine.run(caller, begin)
        if not begun.attempts:
            return begun
        code = None if begun.code is None else self.vault.open_code(caller.scope_key, begun.code)
        return await self.finish(caller, begun.attempts[0], begun.seen, cvc=code)

    async def finish(
        self,
        caller: Caller,
        attempt: Attempt,
        seen: Seen | None,
        *,
        cvc: str | None = None,
        first: tuple[Connection | None, Outcome] | None = None,
        began_ns: int | None = None,
    ) -> Done[Record | None]:
        """Carry an attempt that has begun, as `carry` does, and answer."""
        settled = await self.carry(caller, attempt, seen, cvc=cvc, first=first, began_ns=began_ns)
        if settled is not None:
            return settled
        return await self._answer_unfinished(caller, attempt)

    async def _answer_unfinished(self, caller: Caller, attempt: Attempt) -> Done[Record | None]:
        """The outcome is still unknown: answer the caller so, and store that answer under the idempotency key."""

        async def as_it_stands(load: Load, at: Moment) -> Changes[Record | None]:
            subject = await load.find(attempt.subject)
            if attempt.shows == "charge":
                assert isinstance(subject, PaymentIntent)
                return Changes(result=await charge_of(load, subject, attempt))
            if attempt.shows == "refund":
                assert isinstance(subject, PaymentIntent)
                charge = await load.get(Charge, subject.latest_charge or "")
                return Changes(result=await load.maybe(Refund, charge.last_refund))
            if isinstance(subject, PaymentIntent) and subject.attempt == attempt.id and attempt.idem is not None:
                # Rewritten unchanged: this answer conflicts with the commit that settles the attempt, whose answer
                # need not be written under the key.
                return Changes(result=subject, records=(subject,))
            return Changes(result=subject)

        return await self.engine.run(caller, as_it_stands, completes=attempt.idem, final=True)

    async def carry(
        self,
        caller: Caller,
        attempt: Attempt,
        seen: Seen | None = None,
        *,
        cvc: str | None = None,
        ask: bool = False,
        first: tuple[Connection | None, Outcome] | None = None,
        began_ns: int | None = None,
    ) -> Done[Record | None] | None:
        """Send or ask until the attempt is settled or a caller would wait too long. None if it is not settled. `seen`
        are its records where they are known. `first` is the outcome of the first round with its connection, where that
        is over, and the caller has waited since `began_ns`."""
        place = (caller.scope_key, attempt.id)
        self.held[place] = attempt.due_at_ms
        code = cvc
        began_ns = self.engine.clock.monotonic_ns() if began_ns is None else began_ns
        try:
            for round_ in _ROUNDS:
                if first is not None:
                    (connection, outcome), first = first, None
                else:
                    known = self.connections.known(attempt.connector, caller.scope)
                    connection = known or await self.connections.named(attempt.connector, caller.scope)
                    does = self._ask if ask else self.send
                    outcome = await does(connection, caller.scope, attempt, seen, cvc)
                cvc = None
                again_seconds = None
                if type(outcome) is NotSent:
                    again_seconds = self._send_again_seconds(attempt, outcome, round_, began_ns)
                try:
                    done = await self.settle(
                        caller,
                        attempt,
                        outcome,
                        connection=connection,
                        seen=seen,
                        fails_over=True,
                        keeps_lease=again_seconds is not None,
                    )
                except Refused as refused:
                    if refused.code in STORE_CODES:
                        self.begin_to_settle_later(caller, attempt, outcome, connection)
                    raise
                seen = None
                if not done.attempts:
                    return done
                if done.attempts[0].id != attempt.id:
                    # The payment goes on to another connector, at once.
                    self.held.pop(place)
                    attempt, seen, cvc, ask = done.attempts[0], done.seen, code, False
                    place = (caller.scope_key, attempt.id)
                    self.held[place] = attempt.due_at_ms
                    continue
                attempt = done.attempts[0]
                ask = attempt.state != "new"
                if not ask:
                    if again_seconds is None:
                        return None
                    self.held[place] = attempt.due_at_ms
                    await asyncio.sleep(again_seconds)
                    continue
                pause = self._ask_seconds(attempt, outcome)
                if self._is_late(began_ns) or pause > PAUSE_MAX_SECONDS or attempt.state in ("pending", "action"):
                    return None
                await asyncio.sleep(max(pause, 0.0))
            return None
        finally:
            self.held.pop(place, None)

    def _is_late(self, began_ns: int, seconds: float = 0.0) -> bool:
        """Whether a caller who waits since `began_ns` would wait too long, in so many seconds from now."""
        waited_ns = self.engine.clock.monotonic_ns() - began_ns
        return waited_ns + int(seconds * 1e9) >= int(self.engine.settings.answer_within_seconds * 1e9)

    def _send_again_seconds(self, attempt: Attempt, outcome: NotSent, round_: int, began_ns: int) -> float | None:
        """How long this process waits before it sends an operation again that surely was not performed; None if the
        task does that later, because a caller would wait too long. Until then the process keeps its lease: another that
        took over would have to ask the provider first, and this caller would not hear of the outcome."""
        if attempt.state != "new" or round_ == ROUNDS_MAX - 1:
            return None
        seconds = send_again_seconds(attempt, outcome)
        return seconds if seconds <= PAUSE_MAX_SECONDS and not self._is_late(began_ns, seconds) else None

    def _ask_seconds(self, attempt: Attempt, outcome: Outcome) -> float:
        """The wait before the next question about an attempt while a caller waits."""
        seconds = (attempt.due_at_ms - self.engine.clock.now_ms()) / 1000
        told_to_wait = isinstance(outcome, Unknown) and outcome.retry_after_seconds is not None
        if attempt.state == "unknown" and attempt.asked == 1 and not told_to_wait:
            return min(seconds, 0.5)  # The first question finds most lost answers.
        return seconds

    async def send(
        self,
        connection: Connection | None,
        scope: Scope,
        attempt: Attempt,
        seen: Seen | None,
        cvc: str | None = None,
    ) -> Outcome:
        """Let the provider perform a new attempt. Where it may know the attempt from before a restore, ask it first."""
        outcome: Outcome | None = None
        if self.engine.restores.may_have_been_sent(scope.key, attempt):
            outcome = await self._ask_for_earlier_send(connection, scope, attempt)
        elif seen is not None:
            outcome = self._at_once(connection, scope, attempt, seen)
        return outcome or await self._converse(connection, scope, attempt, seen, cvc=cvc, ask=False)

    def _ask(
        self, connection: Connection | None, scope: Scope, attempt: Attempt, seen: Seen | None, cvc: str | None
    ) -> Awaitable[Outcome]:
        """Ask the provider about an attempt that may have been sent; if it does not know it, let it perform it."""
        return self._converse(connection, scope, attempt, seen, cvc=cvc, ask=True)

    async def _converse(
        self,
        connection: Connection | None,
        scope: Scope,
        attempt: Attempt,
        seen: Seen | None,
        *,
        cvc: str | None,
        ask: bool,
    ) -> Outcome:
        if connection is None:
            return Unknown(f"connector {attempt.connector!r} is not configured any more")
        connector = connection.connector
        capabilities = connector.capabilities
        operation = await self.operation(scope, attempt, seen, cvc, redirects=capabilities.authenticates)
        if attempt.withdrawn is not None:
            ended = await self._exchange(connection, "withdraw", connector.withdraw(operation))
            return Unknown("a withdrawal found nothing") if isinstance(ended, NeverSeen) else _of_repeat(attempt, ended)
        if ask:
            if capabilities.looks_up:
                answer = await self.look_up(connection, operation)
                if not isinstance(answer, NeverSeen):
                    return answer
            if not capabilities.deduplicates:
                return Unknown("the provider does not know it, and does not promise to perform a repeat only once")
            kept = capabilities.deduplicates_seconds
            if kept is not None and self.engine.clock.now_ms() / 1000 - attempt.created > kept:
                return Unknown("the provider may have forgotten it by now, and then a repeat would be a second one")
            means = (operation.card, operation.account, operation.wallet)
            if attempt.kind in ("authorize", "verify") and means == (None, None, None):
                return Unknown("the provider does not know it, and the card or account to send has been removed")
        if attempt.kind == "payout" and operation.recipient is None:
            return Unknown("its recipient has been forgotten, because it was settled meanwhile")
        instant = None if ask else self._perform_at_once(connection, operation)
        if instant is not None:
            return instant
        outcome = await self._exchange(connection, attempt.kind, connector.perform(operation))
        assert not isinstance(outcome, NeverSeen), "only a look-up can say that"
        return _of_repeat(attempt, outcome) if ask else outcome

    def _at_once(self, connection: Connection | None, scope: Scope, attempt: Attempt, seen: Seen) -> Outcome | None:
        """As `at_once`, for an attempt of any kind."""
        if connection is None or attempt.kind != "authorize" or attempt.withdrawn:
            return None
        payment = seen.get(attempt.subject, NOWHERE)[1]
        method = seen.get(attempt.method or "", NOWHERE)[1]
        price = self.engine.known_price(scope)
        if price is None or type(payment) is not PaymentIntent or type(method) is not PaymentMethod:
            return None
        return self.at_once(connection, scope, attempt, payment, method, price)

    def at_once(
        self,
        connection: Connection,
        scope: Scope,
        attempt: Attempt,
        payment: PaymentIntent,
        method: PaymentMethod,
        price: Price,
    ) -> Outcome | None:
        """The outcome of a payment with a test card at a connector that needs no conversation for it. None where `send`
        is needed: every payment in test mode comes here, and coroutines that need not wait cost thousands of
        instructions."""
        facts = method.card
        if connection.instant is None or facts is None or facts.alias is None:
            return None
        card = data_of(facts.alias, facts.exp_month, facts.exp_year)
        if card is None:
            return None
        redirects = connection.connector.capabilities.authenticates
        told = self._authorization(scope, attempt, payment, method, price, redirects=redirects)
        return self._perform_at_once(connection, _operation(scope, attempt, card, told))

    def _perform_at_once(self, connection: Connection, operation: Operation) -> Outcome | None:
        """The outcome of an operation that its connector performs without a conversation; None where it needs one."""
        if connection.instant is None or self.engine.telemetry.tracing:
            return None
        began = time.perf_counter()
        outcome = connection.instant.at_once(operation)
        if outcome is not None:
            self._report(connection, operation.kind, _OUTCOMES[type(outcome)], time.perf_counter() - began)
        return outcome

    async def look_up(self, connection: Connection, operation: Operation) -> Outcome | NeverSeen:
        """Ask the provider about an operation, settled or not, by our reference. Nothing changes."""
        return await self._exchange(connection, "look_up", connection.connector.look_up(operation))

    async def ask_about_settled(self, scope: Scope, tail: str, about: Settled, connector: str) -> Outcome | None:
        """Ask the provider about an operation that has settled, whose reference has that tail. None if it cannot be
        asked, or does not know the operation."""
        connection = await self.connections.named(connector, scope)
        if connection is None or not connection.connector.capabilities.looks_up:
            return None
        answer: Outcome | NeverSeen | None = None
        for question in await questions_about(self.engine.load(scope.key), tail, about):
            answer = await self.look_up(connection, question)
            if not isinstance(answer, Unknown):
                break
        return None if isinstance(answer, NeverSeen) else answer

    async def _ask_for_earlier_send(
        self, connection: Connection | None, scope: Scope, attempt: Attempt
    ) -> Outcome | None:
        """The outcome of a new attempt that the provider may know from before the store was put back; None if it does
        not, or cannot be asked. A provider that cannot be reached leaves it unknown, never failed."""
        if connection is None or not connection.connector.capabilities.looks_up:
            return None
        answer = await self.look_up(connection, await self.operation(scope, attempt))
        if isinstance(answer, NeverSeen):
            return None
        return Unknown(answer.reason) if isinstance(answer, NotSent) else answer

    async def _exchange(
        self, connection: Connection, operation: str, conversation: Conversation | LookUp
    ) -> Outcome | NeverSeen:
        """Carry a conversation to its end, and report it to telemetry."""
        telemetry, began, outcome = self.engine.telemetry, time.perf_counter(), "raised"
        try:
            if telemetry.tracing:
                answer = await _converse_traced(telemetry, connection, operation, conversation)
            else:
                answer = await converse(conversation, connection.transport)
            outcome = _OUTCOMES[type(answer)]
            return answer
        finally:
            self._report(connection, operation, outcome, time.perf_counter() - began)

    def _report(self, connection: Connection, operation: str, outcome: str, seconds: float) -> None:
        """Report an exchange with a provider to telemetry and to the connector's health."""
        self.engine.telemetry.exchange(connection.name, operation, outcome, seconds)
        # One that was cancelled says nothing of the provider.
        if operation != "look_up" and outcome != "raised":
            connection.health.tell(outcome, seconds, is_payment=operation == "authorize")
            if outcome == "not_sent" or outcome == "unknown":
                watch(connection)
        elif outcome not in ("unknown", "raised"):
            connection.health.answered()

    async def operation(
        self,
        scope: Scope,
        attempt: Attempt,
        seen: Seen | None = None,
        cvc: str | None = None,
        *,
        redirects: bool = False,
    ) -> Operation:
        """The operation of an attempt, with all data for the provider, opened from the vault. `redirects`: the
        connector may send the customer to a page, and back to ours."""
        scope_key = scope.key
        load = Load(self.engine.store, scope_key, seen)
        told: dict[str, Any] = {}
        if attempt.kind == "authorize":
            payment = load.held(PaymentIntent, attempt.subject) or await load.get(PaymentIntent, attempt.subject)
            method = load.held(PaymentMethod, attempt.method) or await load.maybe(PaymentMethod, attempt.method)
            price = self.engine.known_price(scope) or await self.engine.price(scope)
            told = self._authorization(scope, attempt, payment, method, price, redirects=redirects)
            if method is not None:
                told["card"] = _test_card(method) or await self._card(scope, method, cvc)
                if method.bank is not None:
                    told["account"] = await self._account(load, attempt, method)
        elif attempt.kind == "verify":
            told = await self._verification(load, scope, attempt, cvc, redirects=redirects)
        elif attempt.kind == "payout":
            paid_out = await load.get(Payout, attempt.subject)
            told["recipient"] = await reveal(self.vault, scope_key, paid_out.recipient)
            told["statement_descriptor"] = paid_out.statement_descriptor
        if attempt.parent is not None:
            told["parent"] = reference_from_name(scope_key, attempt.parent)
        if attempt.parent_bank_id is not None:
            told["parent_bank_id"] = attempt.parent_bank_id
        if not attempt.final or attempt.captured_minor:
            told["final"], told["captured_minor"] = attempt.final, attempt.captured_minor
        return _operation(scope, attempt, None, told)

    def _authorization(
        self,
        scope: Scope,
        attempt: Attempt,
        payment: PaymentIntent,
        method: PaymentMethod | None,
        price: Price,
        *,
        redirects: bool,
    ) -> dict[str, Any]:
        """The fields of an authorization, without its card or account: the merchant's details of the payment and the
        payer.

        Every payment runs this: fields without a value keep their defaults.
        """
        told: dict[str, Any] = {}
        if payment.off_session:
            told["off_session"] = True
        elif payment.setup_future_usage is not None or payment.method_options:
            usage = payment.future_usage
            if usage in ("on_session", "off_session"):
                told["stores"] = usage
        if payment.source_api is _GATEWAY and not scope.livemode:
            told["by_amount"] = True
        if redirects:
            told |= self._redirect(scope, payment, attempt)
        elif payment.return_url is not None:
            told["return_url"] = self.engine.client_secrets.way_back(payment)
        descriptor = payment.statement_descriptor or price.descriptor
        if descriptor or payment.statement_descriptor_suffix:
            told["statement_descriptor"] = full_descriptor(descriptor, payment.statement_descriptor_suffix)
        email = payment.receipt_email or None
        if method is not None and method.billing_details:
            email = email or method.billing_details.get("email")
            if method.billing_details.get("address"):
                told["billing_address"] = _postal(method.billing_details["address"])
        if email is not None:
            told["email"] = email
        if method is None:
            return told
        if METHOD_TYPES[method.type].wallet:
            told["wallet"] = method.type
        if method.network_transaction_id is not None:
            told["network_transaction_id"] = method.network_transaction_id
        return told

    async def _account(self, load: Load, attempt: Attempt, method: PaymentMethod) -> BankAccountData | None:
        account = await self.vault.open_account(load.scope_key, method)
        debit = await load.maybe(Charge, f"ch_{attempt.suffix}")
        if account is not None and debit is not None and debit.mandate is not None:
            return msgspec.structs.replace(account, mandate=reference_of_mandate(debit.mandate))
        return account

    async def _verification(
        self, load: Load, scope: Scope, attempt: Attempt, cvc: str | None, *, redirects: bool
    ) -> dict[str, Any]:
        """The fields of a verification: the card, its holder's details, and the way back from the issuer's page."""
        setup = await load.get(SetupIntent, attempt.subject)
        told: dict[str, Any] = {"stores": setup.usage}
        if redirects:
            told |= {"return_url": self.engine.return_address(scope, setup), "bank_id": attempt.bank_id}
            told |= {"returned": attempt.returned}
            asked = (setup.method_options.get("card") or {}).get("request_three_d_secure")
            told |= {"three_d_secure": asked} if asked is not None else {}
        method = await load.maybe(PaymentMethod, attempt.method)
        if method is None:
            return told
        details = method.billing_details
        told |= {"email": details.get("email"), "card": await self._card(scope, method, cvc)}
        if details.get("address"):
            told["billing_address"] = _postal(details["address"])
        return told

    def _redirect(self, scope: Scope, payment: PaymentIntent, attempt: Attempt) -> dict[str, Any]:
        """The fields of an authorization that may send its customer to a page: where the customer returns to, and what
        is known of an earlier answer."""
        told: dict[str, Any] = {}
        if not payment.off_session and not attempt.refuses_action:
            told["return_url"] = self.engine.return_address(scope, payment)
        asked = payment.card_option("request_three_d_secure")
        if asked is not None:
            told["three_d_secure"] = asked
        if attempt.bank_id is not None:
            told["bank_id"] = attempt.bank_id
        if attempt.returned is not None:
            told["returned"] = attempt.returned
        return told

    async def _card(self, scope: Scope, method: PaymentMethod, cvc: str | None) -> CardData | None:
        if method.card is None:
            return None
        return _test_card(method) or await self.vault.open(scope.key, method.card, cvc)

    def settle(
        self,
        caller: Caller,
        attempt: Attempt,
        outcome: Outcome,
        *,
        connection: Connection | None = None,
        seen: Seen | None = None,
        fails_over: bool = False,
        keeps_lease: bool = False,
        told_by: Literal["provider", "operator", "silence"] = "provider",
        also: Work[None] | None = None,
    ) -> Awaitable[Done[Record | None]]:
        """Book an outcome in one commit, together with the answer that an idempotency key waits for, and with the
        changes that `also` decides.

        With `fails_over`, a payment may go on to another connector: then the result has a new attempt, which the caller
        carries. With `keeps_lease`, the caller sends an attempt again that was not performed: it stays leased until
        then. A provider's outcome of an attempt that has settled otherwise is kept as a notice.
        """
        if type(outcome) is Declined and outcome.alert is not None:
            log.error(REFUSED, extra={"attempt": attempt.id, "alert": outcome.alert})
        return self._settle(caller, attempt, outcome, connection, seen, fails_over, keeps_lease, told_by, also)

    async def _settle(
        self,
        caller: Caller,
        attempt: Attempt,
        outcome: Outcome,
        connection: Connection | None,
        seen: Seen | None,
        fails_over: bool,
        keeps_lease: bool,
        told_by: Literal["provider", "operator", "silence"],
        also: Work[None] | None,
        keys_left: int = KEYS_MAX,
    ) -> Done[Record | None]:
        settler = settler_of(attempt.subject)
        first_ask = ASK_AFTER_SECONDS if connection is None else connection.connector.capabilities.ask_after_seconds
        priced = connection or await self.connections.named(attempt.connector, caller.scope)
        fee = priced.fee if priced is not None else None
        price = self.engine.known_price(caller.scope, fee) or await self.engine.price(caller.scope, fee)
        connectors = None
        if fails_over and attempt.kind == "authorize" and outcome_to_follow(outcome) is not None:
            connectors = await self.connections.connectors_of(caller.scope.mode)

        told: tuple[NoticeTask, ...] = ()

        async def work(load: Load, at: Moment) -> Changes[Record | None]:
            nonlocal told
            told = ()
            under_way = load.held(Attempt, attempt.id) or await load.maybe(Attempt, attempt.id)
            current = under_way or attempt
            if current.idem != attempt.idem:
                raise _KeyChanged(current)
            changes = await settler.settle(
                Settling(
                    load=load,
                    attempt=current,
                    outcome=outcome,
                    at=at,
                    settings=self.engine.settings,
                    first_ask_seconds=first_ask,
                    price=price,
                    connectors=connectors,
                )
            )
            changes = _leased(changes, attempt.id, at, self.engine.settings) if keeps_lease else changes
            if type(outcome) is Succeeded and attempt.kind in ("authorize", "capture"):
                entry = unforeseen(self.foreseen, load.scope_key, changes, at)
                if entry is not None:
                    changes = await foresee(self.foreseen, load, changes, entry, at)
            if isinstance(outcome, (Succeeded, Pending)) and outcome.notices and (changes.records or changes.tasks):
                told = announced(outcome, attempt.connector, at, lease_ms=self.engine.settings.lease_ms)
                changes = msgspec.structs.replace(changes, tasks=(*changes.tasks, *told))
            if type(outcome) is Pending and connection is not None and connection.connector.capabilities.by_file:
                changes = await file_operation(load, current, changes, at)
            if self.engine.restores.unexplained.ids:
                changes = await self.engine.restores.explain(load, current, word_of(outcome), changes, at)
            if under_way is None and told_by == "provider":
                changes = await keep_late_word(load, attempt, outcome, changes, at)
            return (await also(load, at)).then(changes) if also is not None else changes

        try:
            done = await self.engine.run(caller, work, seen=seen, completes=attempt.idem or NO_KEY)
        except _KeyChanged as changed:
            rest = (fails_over, keeps_lease, told_by, also, keys_left - 1)
            by = await self._by_key_of(changed.attempt, caller, keys_left - 1)
            return await self._settle(by, changed.attempt, outcome, connection, None, *rest)
        self.tell_settled(caller, attempt, outcome, done)
        if told:
            await self._carry_notices(caller.scope_key, outcome, told)
        return done

    async def _by_key_of(self, attempt: Attempt, caller: Caller, keys_left: int) -> Caller:
        """The caller whose key waits for the attempt by now, as which `caller` settles it."""
        if not keys_left:
            raise Refused("busy")
        waiting = await self.caller_of(caller.scope, attempt)
        author = {name: getattr(caller, name) for name in ("actor", "operation", "hint", "reason")}
        return msgspec.structs.replace(waiting, **author)

    def tell_settled(self, caller: Caller, attempt: Attempt, outcome: Outcome, done: Done[Record | None]) -> None:
        """Tell telemetry of an outcome that was booked."""
        telemetry = self.engine.telemetry
        if telemetry.telling:
            note_attempt(attempt)
        if not done.attempts or done.attempts[0].id != attempt.id:
            source_api = getattr(done.record, "source_api", caller.source_api)
            name = _OUTCOMES[type(outcome)]
            telemetry.settled(attempt.connector, attempt.kind, source_api, name, caller.scope_key)

    async def _carry_notices(self, scope_key: str, outcome: Outcome, told: Sequence[NoticeTask]) -> None:
        """Book the notices of a provider inside this process that came with an outcome and are due now, before a caller
        is answered. If that fails, a task is due again when its lease ends."""
        assert isinstance(outcome, Succeeded | Pending), "only these have notices"
        tasks = [task for task, (delay_ms, _) in zip(told, outcome.notices, strict=True) if not delay_ms]
        for task in tasks:
            if self.carry_notice is not None:
                try:
                    await self.carry_notice(Row(f"{scope_key}/{task.id}", 1, encode(task)))
                except Exception as failed:
                    log.warning("a notice has to wait", extra={"task": task.id, "why": str(failed)})

    def begin_to_settle_later(
        self, caller: Caller, attempt: Attempt, outcome: Outcome, connection: Connection | None
    ) -> None:
        """Book a known outcome as soon as the store takes it. Otherwise its Idempotency-Key would be in use until the
        lease ends and another worker has asked the provider."""
        task = asyncio.create_task(self._settle_later(caller, attempt, outcome, connection))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle_later(
        self, caller: Caller, attempt: Attempt, outcome: Outcome, connection: Connection | None
    ) -> None:
        place = (caller.scope_key, attempt.id)
        self.held[place] = attempt.due_at_ms
        try:
            for _ in range(SETTLE_TRIES_MAX):
                await asyncio.sleep(SETTLE_PAUSE_SECONDS)
                try:
                    await self.settle(caller, attempt, outcome, connection=connection)
                    return
                except Refused as refused:
                    if refused.code not in STORE_CODES:
                        raise
                except Unavailable:
                    continue
        except Exception:
            # The attempt's task is due when its lease ends, and then the provider is asked.
            log.exception("an outcome could not be booked later", extra={"attempt": attempt.id})
        finally:
            self.held.pop(place, None)

    async def ask(self, caller: Caller, attempt: Attempt) -> None:
        """Ask the provider now about an attempt that may have been sent, and would be asked about later."""
        assert attempt.state in ("unknown", "pending"), f"{attempt.id} is its worker's"
        await self.carry(caller, attempt, ask=True)

    # Outcomes from other workers and from providers.

    async def take_over(self, row: Row) -> None:
        """Carry out an attempt whose worker is gone. Its original caller gets the answer through its idempotency
        key."""
        scope_key, _, id = row.key.partition("/")
        attempt = decode(id, row.body)
        assert isinstance(attempt, Attempt), f"{row.key} is not an attempt"
        if (scope_key, id) in self.held:
            return
        caller = await self.caller_of(scope_of(scope_key), attempt)
        if attempt.held:
            await self._put_off(caller, attempt)
            return
        if attempt.state == "scheduled":
            # It surely was never sent before; a worker that takes it over later has to ask the provider.
            begun = await self._claim(caller, attempt, "new")
            if begun is not None:
                await self.carry(caller, begun)
            return
        if attempt.state in ("new", "action"):
            # Its first worker may only have been slow, and may still send it. One that waits for its customer is
            # claimed too: to look at it may take the money, and another request may want to withdraw it.
            over = self.engine.clock.moment().now >= attempt.created + ACTION_LIFETIME_SECONDS
            withdrawn: Withdrawal | None = "expired" if attempt.state == "action" and over else None
            reason = "taken over" if attempt.state == "new" else "asking about its customer"
            doubted = await self._claim(caller, attempt, "unknown", reason=reason, withdrawn=withdrawn)
            if doubted is None:
                return
            attempt = doubted
        if await self.carry(caller, attempt, ask=True) is None and attempt.idem is not None:
            # A caller that returns for the answer gets the current state, like the first caller would have.
            await self._answer_unfinished(caller, attempt)

    async def customer_returned(self, caller: Caller, attempt: Attempt, told: str | None, *, gave_up: bool) -> None:
        """The customer of a waiting attempt is back from the provider's page, with its text, or has given up there: see
        the attempt through as far as the provider can tell now."""
        if attempt.state != "action" or (caller.scope_key, attempt.id) in self.held:
            return  # Another worker is asking about it already.
        withdrawn: Withdrawal | None = "gave_up" if gave_up else None
        claimed = await self._claim(
            caller, attempt, "unknown", reason="the customer is back", withdrawn=withdrawn, returned=told
        )
        if claimed is not None:
            await self.carry(caller, claimed, ask=True)

    async def _claim(
        self,
        caller: Caller,
        attempt: Attempt,
        state: Literal["new", "unknown"],
        *,
        reason: str | None = None,
        withdrawn: Withdrawal | None = None,
        returned: str | None = None,
    ) -> Attempt | None:
        """Lease the attempt to this process in its next `state`. None if it is no longer in the state of `attempt`:
        it was settled, cancelled, or claimed by another worker."""

        async def claim(load: Load, at: Moment) -> Changes[Record | None]:
            current = await load.maybe(Attempt, attempt.id)
            if current is None or current.state != attempt.state:
                return NO_CHANGES
            until_ms = at.now_ms + self.engine.settings.lease_ms
            claimed = msgspec.structs.replace(
                current,
                state=state,
                due_at_ms=until_ms,
                reason=reason or current.reason,
                withdrawn=withdrawn or current.withdrawn,
                returned=returned or current.returned,
                asked=0 if returned is not None else current.asked,
            )
            return Changes(result=None, tasks=(claimed,))

        done = await self.engine.run(caller, claim, completes=NO_KEY)
        return done.attempts[0] if done.attempts else None

    async def _put_off(self, caller: Caller, attempt: Attempt) -> None:
        """Look again later whether an operator has released the held attempt. Cancelling it deletes it."""

        async def put_off(load: Load, at: Moment) -> Changes[Record | None]:
            current = await load.maybe(Attempt, attempt.id)
            if current is None or not current.held:
                return NO_CHANGES
            due_at_ms = at.now_ms + ASK_INTERVAL_MAX_SECONDS * 1000
            return Changes(result=None, tasks=(msgspec.structs.replace(current, due_at_ms=due_at_ms),))

        await self.engine.run(caller, put_off, completes=NO_KEY)

    async def caller_of(self, scope: Scope, attempt: Attempt) -> Caller:
        """The caller whose idempotency key waits for the answer of this attempt, or else the platform itself."""
        caller = Caller.system(scope, "carry an attempt through")
        held = await self.engine.load(scope.key).maybe(IdempotencyRecord, attempt.idem)
        if held is None:
            return caller
        return msgspec.structs.replace(
            caller,
            api_version=held.api_version,
            expand=held.expand,
            request_id=held.request,
            presenter=held.presenter,
            in_minor_units=await self.engine.was_in_minor_units(scope, held),
        )

    async def ask_at_once(self, caller: Caller, attempt: Attempt, doubt: str) -> None:
        """Make a waiting attempt an unknown one, and its question due now. An attempt that its worker is at is left
        alone: the worker hears the answer itself."""

        async def work(load: Load, at: Moment) -> Changes[Record | None]:
            current = await load.maybe(Attempt, attempt.id)
            if current is None or current.state not in ("pending", "unknown", "action") or current.reason == doubt:
                return NO_CHANGES
            # Who asks about a waiting customer claims the attempt first: that state is left to the claim.
            state: Literal["action", "unknown"] = "action" if current.state == "action" else "unknown"
            asked = msgspec.structs.replace(current, state=state, reason=doubt, due_at_ms=at.now_ms)
            return Changes(result=None, tasks=(asked,))

        await self.engine.run(caller, work, completes=NO_KEY)

    # Other conversations with providers.

    async def list_operations(self, connection: Connection, since: int, after: str | None) -> OperationsPage:
        """A page of a provider's operations since a moment (epoch seconds). Raises `NoticeUndecided` if it gives
        none."""
        return await listen(connection.connector.list_operations(since, after), connection.transport)

    async def read_notices(self, connection: Connection, headers: Mapping[str, str], body: bytes) -> list[Notice]:
        """Read the notices in a provider's request, asking the provider if the connector needs it. Raises
        `NoticeRejected` if they are not the provider's, and `NoticeUndecided` if it could not be asked."""
        return await listen(connection.connector.notices(headers, body), connection.transport)

    async def answer_dispute(self, connection: Connection, reply: DisputeReply) -> Outcome:
        """Send a merchant's reply to a dispute to the provider."""
        outcome = await converse(connection.connector.answer_dispute(reply), connection.transport)
        assert not isinstance(outcome, NeverSeen), "only a look-up can say that"
        return outcome


async def file_operation(
    load: Load, attempt: Attempt, changes: Changes[Record | None], at: Moment
) -> Changes[Record | None]:
    """Let a pending operation wait for a file of its connector, in the commit that makes it pending. It does so once,
    however often the outcome is booked."""
    id = filed_id(attempt.id)
    if await load.maybe(FiledOperation, id) is not None or not any(task.id == attempt.id for task in changes.tasks):
        return changes
    filed = FiledOperation(
        id=id,
        created=at.now,
        subject=attempt.subject,
        reference=reference_of("", attempt),
        amount_minor=attempt.amount_minor,
        currency=attempt.currency,
        connector=attempt.connector,
        mode=scope_of(load.scope_key).mode,
        method=attempt.method,
    )
    return msgspec.structs.replace(changes, records=(*changes.records, filed))


def _postal(address: dict[str, Any]) -> PostalAddress | None:
    """The billing address with the given parts, None if there is none."""
    given = {name: address[name] for name in PostalAddress.__struct_fields__ if address.get(name)}
    return PostalAddress(**given) if given else None


NO_KEY = ""
"""Complete no key: a settlement never uses up the key of the request that happens to wait for it."""
