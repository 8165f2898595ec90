"""Connector `simulator`: the bank inside this process, for test mode. No sockets, no JSON.

It has the conversation of `http_bank` over a call into `Bank.handle`, so that tests with it also hold for the bank
behind HTTP; it can also increment an authorization. The bank's memory ends with the process.

A card payment that no fault may disturb needs no conversation (`CallTransport.at_once`): the bank performs the same
body, and its answer is read in the same way. One with the alias of a card that the bank accepts needs no body either
(`Bank.accept`). The worlds compare all of them for every authorization.

Where several processes serve, they share the bank's memory in the store (`memory`), but not the payments of which
nobody will ask (`free`).
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, assert_never

import msgspec

from tillway.connectors.http_bank import (
    answer_dispute,
    body_of,
    list_operations,
    look_up,
    operation_of,
    outcome_of,
    perform,
    read_notice,
)
from tillway.connectors.port import (
    Capabilities,
    Checks,
    Conversation,
    DisputeReply,
    Listing,
    LookUp,
    NeverSeen,
    Notice,
    NoticeRejected,
    Notices,
    NoticeUndecided,
    Operation,
    Outcome,
    Pending,
    Request,
    Response,
    Succeeded,
    TransportError,
    tell,
)
from tillway.connectors.settings import Setting, read_settings, seconds
from tillway.domain.account import SCOPE_KEY_LENGTH, SYSTEM
from tillway.domain.method_types import DEBITS
from tillway.sandbox.bank import Announcement, Bank, BankOperation, Status, references_of
from tillway.sandbox.faults import NOTHING, Drawn, Fault, Faults, plan_notices

SETTINGS = (
    Setting(
        name="ask_after_seconds",
        read=seconds(0.05, 3600),
        default=5.0,
        description="seconds from an unknown or pending outcome to the first question",
    ),
)


TRIES_MAX = 8
"""How often the bank decides anew after another process has changed an operation."""

DRAWS_MAX = 100
"""How often faults are drawn or set anew after another process has drawn from them. Every payment of the merchants
changes the same record, so this happens more often than with an operation."""

PAUSE_SECONDS_MAX = 0.02
"""The longest pause before they are drawn anew. It is random, so that the processes do not meet again."""


class Remembered(NamedTuple):
    """Operations by their references and faults by their scopes, each with its version."""

    operations: dict[str, tuple[int, BankOperation]]
    faults: dict[str, tuple[int, dict[str, Any]]]


class BankMemory(Protocol):
    """A place where the bank's operations and faults outlive its process, and are those of every process."""

    async def read(self, references: Sequence[str], scope_key: str) -> Remembered:
        """Those of the operations that exist, and the faults of that scope and of the installation."""

    async def write_faults(self, scope_key: str, version: int, faults: dict[str, Any]) -> bool:
        """Write the faults of a scope over that version (0: new ones). False: the version had moved."""

    async def write(self, operations: Sequence[tuple[int, BankOperation]]) -> bool:
        """Write the operations over those versions (0: a new one), all or none. False: a version had moved."""


FREE_SECONDS = 2.0
"""How long a process of another server may still commit no faults after a merchant has set some."""


class KnownFree:
    """Scopes that are known to have no faults in force, in a memory that processes share. Their payments by card need
    not ask it."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self.drops = 0
        """How often all was dropped: what was read before that may be older."""

    def has(self, scope_key: str) -> bool:
        return self._until.get(scope_key, 0.0) > time.monotonic()

    def learn(self, scope_key: str, drops: int) -> None:
        """The scope had none after so many drops."""
        if drops == self.drops:
            if len(self._until) >= SCOPES_MAX:
                self._until.clear()
            self._until[scope_key] = time.monotonic() + FREE_SECONDS

    def drop(self) -> None:
        """Some process has set faults."""
        self._until.clear()
        self.drops += 1


SCOPES_MAX = 10_000


def in_force(read: Remembered, scope_key: str) -> tuple[str, int, dict[str, Any]]:
    """The faults in force for a scope: whose they are, their version and their rules."""
    version, rules = read.faults.get(scope_key, (0, {}))
    if rules:
        return scope_key, version, rules
    version, rules = read.faults.get(SYSTEM, (0, {}))
    return SYSTEM, version, rules


class Simulator:
    """The bank in this process. A test or a simulation passes a bank that outlives the engine's crashes."""

    def __init__(
        self, *, bank: Bank | None = None, faults: Faults | None = None, ask_after_seconds: float = 5.0
    ) -> None:
        self.bank = bank or Bank()
        self.faults = faults or Faults()
        """The faults for the whole installation."""
        self.faults_of: dict[str, Faults] = {}
        """The faults that a merchant has set for its own test payments, by scope key; they take precedence."""
        self._notice_faults: dict[str, tuple[Fault, ...]] = {}
        self.memory: BankMemory | None = None
        """Where its operations are, if not in this process."""
        self.free: KnownFree | None = None
        """Where this is given, payments of these scopes by card stay in this process unless a notice follows: they
        were answered at once, so no process asks for them again."""
        self.on_faults: Callable[[], None] | None = None
        """Called when faults were set."""
        self.capabilities = Capabilities(
            operations=frozenset(("authorize", "capture", "multicapture", "void", "increment", "refund", "payout")),
            deduplicates=True,
            looks_up=True,
            livemode=False,
            lists=True,
            debits=frozenset(DEBITS),
            disputes=True,
            ask_after_seconds=ask_after_seconds,
        )

    async def faults_at(self, scope_key: str) -> Faults:
        """The faults in force for the payments of a scope; SYSTEM: those of the installation."""
        if self.memory is None:
            return self.faults_of.get(scope_key, self.faults)
        return Faults(in_force(await self.memory.read((), scope_key), scope_key)[2])

    async def set_faults(self, scope_key: str, rules: Mapping[str, Any]) -> bool:
        """Replace the faults of a scope, or of the installation; without rules of its own, a scope has those. Raises
        `FaultsInvalid`. False: the shared memory could not be written."""
        if self.memory is not None:
            held = Faults(rules).as_dict() if rules else {}
            for draw in range(DRAWS_MAX):
                version, _ = (await self.memory.read((), scope_key)).faults.get(scope_key, (0, {}))
                if await self.memory.write_faults(scope_key, version, held):
                    if self.free is not None:
                        self.free.drop()
                    if self.on_faults is not None:
                        self.on_faults()
                    return True
                await _let_others_draw(draw)
            return False
        if scope_key == SYSTEM:
            self.faults.replace(rules)
        elif rules:
            self.faults_of.setdefault(scope_key, Faults()).replace(rules)
        else:
            self.faults_of.pop(scope_key, None)
        return True

    @classmethod
    def from_settings(cls, settings: Mapping[str, str]) -> "Simulator":
        """Raises `SettingInvalid`, which names the setting."""
        return cls(**read_settings(settings, SETTINGS))

    @staticmethod
    def describe() -> tuple[Setting, ...]:
        return SETTINGS

    def transport(self) -> "CallTransport":
        return CallTransport(self.bank, self.faults, self.faults_of, self._notice_faults, self.memory, self.free)

    def perform(self, operation: Operation) -> Conversation:
        assert not operation.livemode, "the simulator serves test mode only"
        outcome = yield from perform(operation, details=True)
        return self._with_notices(operation.reference, outcome)

    def look_up(self, operation: Operation) -> LookUp:
        outcome = yield from look_up(operation)
        return outcome if isinstance(outcome, NeverSeen) else self._with_notices(operation.reference, outcome)

    def withdraw(self, operation: Operation) -> Conversation:
        raise AssertionError("it sends no customer anywhere: Tillway's own page authenticates in test mode")

    def answer_dispute(self, reply: DisputeReply) -> Conversation:
        outcome = yield from answer_dispute(reply)
        # The bank confirms an acceptance by the outcome of the dispute.
        return self._with_notices(reply.reference, outcome) if reply.kind == "accept" else outcome

    def list_operations(self, since: int, after: str | None) -> Listing:
        return list_operations(since, after, disputes=True)

    def notices(self, headers: Mapping[str, str], body: bytes) -> Notices:
        """Read a notice that an outcome's `notices` announced, once it is due; the bank then also performs it.

        Only calls from inside this process have no headers: no outside caller can send a notice of this bank.
        """
        if headers:
            raise NoticeRejected("the simulator sends no notices over HTTP")
        if self.memory is not None:
            return self._hear_shared(body)
        announce(self.bank, msgspec.json.decode(body))
        return tell(self._hear(body))

    def _hear_shared(self, body: bytes) -> Notices:
        """The same with the operations of all processes, which only the transport reads and writes."""
        done = yield Request("POST", _ANNOUNCED, msgspec.json.decode(body), moves_money=False)
        if done.status != 200:
            raise NoticeUndecided("another process keeps changing the operation")
        return self._hear(body)

    def _hear(self, body: bytes) -> list[Notice]:
        # A notice with a cause opens a dispute. Earlier versions wrote `Accepted` for that.
        notice = read_notice(body, disputes="cause" not in msgspec.json.decode(body))
        if notice.outcome is not None:
            # A settled operation may have a later notice: the dispute of a debit, for example.
            told = self._with_notices(notice.reference, notice.outcome)
            notice = msgspec.structs.replace(notice, outcome=told)
        return [notice]

    async def tell_dispute(self, report: Mapping[str, Any]) -> Response:
        """Let the bank open a dispute, move it or end it: `Bank.tell_dispute`. 503: other processes are faster."""
        references = _named(report, "reference", "parent")
        return await self.transport().change(references, lambda: self.bank.tell_dispute(report).response)

    def _with_notices(self, reference: str, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, (Succeeded, Pending)):
            return outcome
        operation = self.bank.find(reference)
        faults = self._notice_faults.pop(reference, ()) if self._notice_faults else ()
        return outcome if operation is None else _with_foretold(self.bank, operation, outcome, faults)


async def _let_others_draw(draw: int) -> None:
    await asyncio.sleep(random.uniform(0.0, min(0.001 * (draw + 1), PAUSE_SECONDS_MAX)))


def _accepted(performed: BankOperation) -> Succeeded | None:
    """The outcome of an authorization that the bank accepted, as `outcome_of` reads it from its answer; else None."""
    if performed.status != "Accepted":
        return None
    checks = Checks(**performed.checks) if performed.checks else None  # type: ignore[arg-type]  # Our bank keeps to these.
    return Succeeded(performed.bank_id, (), performed.network_id, checks)


def _with_foretold(
    bank: Bank, operation: BankOperation, outcome: Succeeded | Pending, faults: tuple[Fault, ...] = ()
) -> Outcome:
    """The outcome, with the notices that the bank will send of its operation."""
    if _is_quiet(operation) and not faults:
        return outcome
    notices = tuple(foretold(bank, operation, faults))
    return msgspec.structs.replace(outcome, notices=notices) if notices else outcome


def _is_quiet(operation: BankOperation) -> bool:
    """Whether the bank says nothing of it, nor of what follows, until it is asked."""
    speaks = operation.disputes or operation.told or operation.refund != "succeeds" or operation.status == "Pending"
    return not speaks


_ANNOUNCED = "/announced"
"""A request from the simulator to its own transport: perform a notice."""


def _named(body: Mapping[str, Any], *members: str) -> tuple[str, ...]:
    return tuple(reference for member in members if isinstance(reference := body.get(member), str))


def announce(bank: Bank, said: Mapping[str, Any]) -> None:
    """Let the bank perform the notice that it announced in these words."""
    cause = bank.find(said.get("cause", said["reference"]))
    for announcement in bank.forthcoming(cause) if cause is not None else ():
        expected = bank.foretell(announcement)
        # The id includes the status: a payout that Tillway asked about has settled before the notice of that, and the
        # bank's next notice may be its return.
        if (expected["reference"], expected["status"]) == (said["reference"], said["status"]):
            bank.announce(announcement)


def foretold(bank: Bank, operation: BankOperation, faults: tuple[Fault, ...]) -> list[tuple[int, dict[str, Any]]]:
    """The notices about `operation` as (milliseconds from now, body), by time, after `faults`.

    A disputed payment is disputed at once, so that its caller can read the dispute: fixtures for Stripe do.
    """
    forthcoming = [
        announcement._replace(after_ms=0) if announcement.what == "dispute" else announcement
        for announcement in bank.forthcoming(operation)
    ]
    return [
        (max(after_ms, 0), operation.answer() if announcement is None else _body(bank, announcement))
        for after_ms, announcement in plan_notices(forthcoming, faults)
    ]


def _body(bank: Bank, announcement: Announcement) -> dict[str, Any]:
    body = bank.foretell(announcement)
    # A dispute has its own reference, by which the bank finds its cause.
    return {**body, "cause": announcement.reference} if announcement.what == "dispute" else body


class CallTransport:
    """Carries requests to the bank of this process, with the faults in force."""

    def __init__(
        self,
        bank: Bank,
        faults: Faults,
        faults_of: dict[str, Faults],
        notice_faults: dict[str, tuple[Fault, ...]],
        memory: BankMemory | None = None,
        free: KnownFree | None = None,
    ) -> None:
        self._memory = memory
        self._free = free
        # Payments of one process draw one after the other: they would only conflict, and the faults of those that gave
        # up would meet other payments.
        self._drawing = asyncio.Lock()
        self._bank = bank
        self._faults = faults
        self._faults_of = faults_of
        self._notice_faults = notice_faults

    def at_once(self, operation: Operation) -> Outcome | None:
        """The outcome of an authorization by card that is performed now, without a conversation. None where one is
        needed: for other operations, where faults are or may be in force, for a repeat, and, where processes share a
        memory, for what they must know of."""
        if operation.card is None or operation.kind != "authorize":
            return None
        if self._memory is not None:
            if self._free is None or not self._free.has(operation.reference[:SCOPE_KEY_LENGTH]):
                return None
        elif (self._faults.in_force or self._faults_of) and self._faults_at(operation).in_force:
            return None
        assert not operation.livemode, "the simulator serves test mode only"
        accepted = self._bank.accept(operation)
        if accepted is not None:
            return accepted
        performed = self._bank.authorize(body_of(operation, details=True))
        if performed is None:
            return None
        outcome = _accepted(performed) or outcome_of(performed.answer())
        if isinstance(outcome, (Succeeded, Pending)) and not _is_quiet(performed):
            if self._memory is not None:
                self._bank.recall((operation.reference,), ())
                return None
            return _with_foretold(self._bank, performed, outcome)
        return outcome

    def _faults_at(self, operation: Operation) -> Faults:
        return self._faults_of.get(operation.reference[:SCOPE_KEY_LENGTH], self._faults)

    async def send(self, request: Request) -> Response:
        body = request.body if isinstance(request.body, dict) else None
        if request.path == _ANNOUNCED and body is not None:
            return await self._announce(body)
        operation = operation_of(request.path)
        # A reference begins with the scope key of its merchant, also in the address of a look-up.
        reference = body["reference"] if body is not None else request.path.rpartition("/")[2]
        if operation == "dispute":
            dispute = await self.find(reference)
            reference = dispute.parent or "" if dispute is not None else ""
        scope_key, amount = reference[:SCOPE_KEY_LENGTH], body.get("amount") if body is not None else None
        read = None
        if self._memory is None:
            drawn = self._faults_of.get(scope_key, self._faults).draw(operation, amount)
        else:
            drawn, read = await self._draw_remembered(self._memory, request, scope_key, operation, amount)
        if drawn.slow_ms:
            await asyncio.sleep(drawn.slow_ms / 1000)
        if drawn.call is None:
            if drawn.notices and body is not None:
                self._notice_faults[body["reference"]] = drawn.notices
            if self._memory is None:
                return self._bank.handle(request, drawn.answer).response
            return await self._perform(request, drawn.answer, read)
        return await self._commit_fault(request, drawn)

    async def _draw_remembered(
        self, memory: BankMemory, request: Request, scope_key: str, operation: str, amount: int | None
    ) -> tuple[Drawn, Remembered]:
        """Draw from the faults that all processes share, and count down their times. The operations that were read
        with them are the first look of `_perform`."""
        drops = self._free.drops if self._free is not None else 0
        read = await memory.read(references_of(request), scope_key)
        if not in_force(read, scope_key)[2].get("rules"):
            if self._free is not None:
                self._free.learn(scope_key, drops)
            return NOTHING, read
        async with self._drawing:
            for draw in range(DRAWS_MAX):
                read = await memory.read(references_of(request), scope_key)
                place, version, rules = in_force(read, scope_key)
                # No process knows what the others have drawn, so chance does not follow from the seed.
                faults = Faults(rules, chance=random.Random())
                drawn, left = faults.draw(operation, amount), faults.as_dict()
                if left == rules or await memory.write_faults(place, version, left):
                    return drawn, read
                await _let_others_draw(draw)
        return NOTHING, read

    async def _perform(self, request: Request, answer: Status, read: Remembered | None = None) -> Response:
        return await self.change(references_of(request), lambda: self._bank.handle(request, answer).response, read)

    async def _announce(self, said: dict[str, Any]) -> Response:
        def act() -> Response:
            announce(self._bank, said)
            return Response(200, {})

        return await self.change(_named(said, "reference", "cause", "parent"), act)

    async def find(self, reference: str) -> BankOperation | None:
        """The operation of that reference, as all processes have it."""
        if self._memory is None:
            return self._bank.find(reference)
        _, operation = (await self._memory.read((reference,), "")).operations.get(reference, (0, None))
        return operation

    async def change(
        self, references: Sequence[str], act: Callable[[], Response], read: Remembered | None = None
    ) -> Response:
        """Let the bank act on the operations of these references, as all processes have them, and keep the changes.

        `read` is the first look at them. It acts again where another process was faster; 503 where others always are.
        """
        if self._memory is None:
            return act()
        for _ in range(TRIES_MAX):
            known = (read or await self._memory.read(references, "")).operations
            read = None
            before = {reference: msgspec.json.encode(operation) for reference, (_, operation) in known.items()}
            self._bank.recall(references, [operation for _, operation in known.values()])
            response = act()
            after = {reference: self._bank.find(reference) for reference in references}
            changed = [
                (known[reference][0] if reference in known else 0, operation)
                for reference, operation in after.items()
                if operation is not None and msgspec.json.encode(operation) != before.get(reference)
            ]
            if not changed or await self._memory.write(changed):
                return response
        return Response(503, {"message": "simulated: the bank is busy"})

    async def close(self) -> None:
        """Do nothing: there is no connection to close."""

    async def _commit_fault(self, request: Request, drawn: Drawn) -> Response:
        fault = drawn.call
        assert fault is not None
        match fault.fault:
            case "refuse":
                raise TransportError("simulated: connection refused", spoken=False)
            case "lose_request":
                raise TransportError("simulated: no answer in time", spoken=True)
            case "reset_before":
                raise TransportError("simulated: connection reset", spoken=True)
            case "error_before":
                return Response(fault.status, {"message": "simulated"})
            case "throttle":
                return Response(429, {"message": "simulated"}, {"retry-after": fault.retry_after})
            case "lose_answer":
                await self._perform(request, drawn.answer)
                raise TransportError("simulated: no answer in time", spoken=True)
            case "reset_after":
                await self._perform(request, drawn.answer)
                raise TransportError("simulated: connection reset", spoken=True)
            case "half_body":
                await self._perform(request, drawn.answer)
                raise TransportError("simulated: the answer was cut short", spoken=True)
            case "error_after":
                await self._perform(request, drawn.answer)
                return Response(fault.status, {"message": "simulated"})
            case _:
                assert_never(fault.fault)
