"""One simulated world: its store, its bank, its clock and its faults, and the engine processes that live in it."""

import asyncio
import contextvars
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from tillway.connectors import port
from tillway.connectors.http_bank import PATHS, body_of, operation_of, outcome_of, read_notice
from tillway.connectors.port import (
    Arranged,
    Connector,
    Consignment,
    NoticeRejected,
    NoticeUndecided,
    Transport,
    TransportError,
    Undeliverable,
    Unreachable,
)
from tillway.domain.account import SCOPE_KEY_LENGTH, SYSTEM, Account, Scope
from tillway.domain.alias import Alias, alias_id
from tillway.domain.api_key import ApiKey, key_id
from tillway.domain.cards import Secret
from tillway.domain.commands import CreatePayout
from tillway.domain.credentials import Grant
from tillway.domain.idempotency import record_id
from tillway.domain.order import Order
from tillway.domain.payout import Recipient
from tillway.domain.record import Record
from tillway.domain.refusal import REPEATABLE, Refused
from tillway.engine.access_tokens import AccessTokens
from tillway.engine.accounts import Accounts
from tillway.engine.attempts import Attempts
from tillway.engine.audit.chain import AuditChain
from tillway.engine.caller import Caller, Settings
from tillway.engine.card_vault import CardVault
from tillway.engine.client_secrets import ClientSecrets
from tillway.engine.clock import Clock
from tillway.engine.connections import SIMULATOR, ConfiguredConnections
from tillway.engine.core import Engine, Load
from tillway.engine.ids import ALPHABET
from tillway.engine.mail import Mail
from tillway.engine.platform import Platform
from tillway.engine.references import find_by_tail
from tillway.engine.runner import Runner
from tillway.engine.scans import Scans
from tillway.engine.webhooks.delivery import Webhooks
from tillway.http.app import Api
from tillway.http.authentication import Authenticator
from tillway.http.messages import Request, Response
from tillway.http.render import Renderer
from tillway.http.request_log import RequestLog
from tillway.operations import notices, payouts, settlements
from tillway.operations.balance_check import check_slowly
from tillway.operations.tasks import workers
from tillway.sandbox.bank import Bank, BankOperation
from tillway.sandbox.cards import ALIAS_CVC, by_number, data_of
from tillway.sandbox.courier import SimulatedCourier
from tillway.sandbox.dispute_stories import STORIES
from tillway.sandbox.faults import Faults
from tillway.sandbox.simulator import Simulator
from tillway.simulation.clocks import JUMPS_SECONDS, WRONG_AT_START_SECONDS, HostClock
from tillway.simulation.virtual_loop import LIFE, Life, VirtualLoop
from tillway.store.codec import decode, encode
from tillway.store.port import ABSENT, CommitUnknown, Conflict, Row, StorageFull, Store, Unavailable, Waiting, Write
from tillway.testing.compared_payments import ComparedPayments
from tillway.vault.envelope import EnvelopeVault
from tillway.vault.head_signer import Ed25519HeadSigner
from tillway.vault.port import KeyMissing
from tillway.vault.signer import Es256Signer

EPOCH_SECONDS = 1_800_000_000
"""When every world begins."""

NOTICE_TRIES_MAX = 45
"""After so many refusals, about 17 minutes, the bank gives a notice up. A payment that waits until the clocks are set
right, for five minutes, may be disputed before it is settled."""

REST_WITHIN_SECONDS = 1800
"""How long after the last fault everything has come to rest. Questions to the bank double their distance up to 15
minutes, and a client that was told to come back does so ever more seldom."""

PAYOUT_DELAYS_MS = (0, 500, 3000)
"""How long payouts can be cancelled, in one world or another."""

LEASE_MS = 3000
ANSWER_WITHIN_SECONDS = 10.0
ASK_AFTER_SECONDS = 0.5

MERCHANTS = 2
TRACE_MAX = 20_000

FAULTS: dict[str, tuple[float, ...]] = {
    "crash": (0.0, 0.01, 0.04, 0.1),
    "freeze": (0.0, 0.0, 0.01, 0.03),
    "commit happened, nobody knows": (0.0, 0.0, 0.03, 0.15),
    "commit did not happen, nobody knows": (0.0, 0.0, 0.03, 0.15),
    "commit happens later, nobody knows": (0.0, 0.0, 0.0, 0.05),
    "store unreadable": (0.0, 0.0, 0.0, 0.03),
    "store unwritable": (0.0, 0.0, 0.0, 0.1),
    "disk full": (0.0, 0.0, 0.0, 0.02),
    "slow store": (0.0, 0.1, 0.5),
    "refused": (0.0, 0.0, 0.1, 0.4),
    "request lost": (0.0, 0.05, 0.3),
    "request late": (0.0, 0.05, 0.3),
    "answer lost": (0.0, 0.05, 0.3),
    "answer slow": (0.0, 0.05, 0.3),
    "error before": (0.0, 0.0, 0.1, 0.3),
    "error after": (0.0, 0.0, 0.1, 0.3),
    "throttled": (0.0, 0.0, 0.1, 0.5),
    "client's request lost": (0.0, 0.02, 0.1),
    "client's answer lost": (0.0, 0.05, 0.2),
    "notice": (0.0, 0.2, 0.8),
    "clock jumps": (0.0, 0.0, 0.02, 0.1),
    "wrong clock at start": (0.0, 0.0, 0.2, 0.6),
    "dispute": (0.0, 0.2, 0.8),
}
"""Faults and their possible probabilities at each opportunity. Every world draws one value per row, so that some worlds
have a single kind of fault and others have all of them."""

ANSWERS = [
    {"fault": "decline", "probability": 0.08},
    {"fault": "no_funds", "probability": 0.05},
    {"fault": "pend", "probability": 0.12},
]
"""Answers of the bank to orders besides `Accepted`, also in the calm. They are its decisions, not faults."""

SKEWS_MS = ((0,), (0,), (0, -1500, -100, 100, 1500), (0, -140_000, 140_000))
"""How far the clocks of processes are apart, in one world or another: at most by the allowed skew."""

CHECKPOINT_EVERY = 2
"""How many entries are worth a checkpoint of balances: few, so that worlds have some."""

A_WEEK_PASSES = 0.25
WEEK_SECONDS = 7 * 86_400.0 + 60
A_MINUTE_PASSES = 0.25
"""In these parts of the worlds, some time after the first rest, the clients come back so much later. A minute is enough
for checkpoints of balances."""

FULL_SECONDS = (0.1, 1.0, 8.0)
"""For how long a disk is full. Then it has room again, for all processes."""

FITS_ANYWAY = 0.2
"""In this part of the cases, a commit is small enough for a full disk."""

RESTORES = 0.15
"""In this part of the worlds in which no week passes, the store is put back at the end."""

BANK_IS_AWAY = 0.4
"""In this part of the restored worlds, the bank refuses most connections while clients repeat their requests."""

ROUTED = 0.25
"""In this part of the worlds that are not restored, there are two banks, and payments fail over from one to the other.
A restored one would need an operator: docs/decisions/0018."""

SECOND = "second"
"""The connector of the second bank."""

ROUTED_FAULTS = 0.02
"""The probability of every fault in half of the routed worlds."""

CONTRADICTING, CONTRADICTED = 0.3, 0.3
"""In this part of the worlds that are not restored, the banks contradict this part of the settled operations."""

OF_THE_FUTURE, FUTURE_SECONDS = 0.2, 40 * 86_400
"""This part of the contradicting words is dated so far ahead: further than any clock of a world goes."""

STUBBORN = 0.06
"""In this part of the worlds, a client makes more operations on a payment than the payment keeps references of."""

UPGRADES = 0.25
"""This part of the worlds begins in the midst of an upgrade, and writes as the version before did. The upgrade ends
where time passes."""

FROZEN_MAX_SECONDS = 10.0
RESTART_MAX_SECONDS = 5.0
STORM_MAX_SECONDS = 20.0


class Told(NamedTuple):
    """One line of the trace: virtual seconds, actor, action."""

    at: float
    who: str
    what: str


class Violation(AssertionError):
    """A rule of `simulation.checks` is broken. `check` names the rule."""

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check
        self.text = text


class Answer(msgspec.Struct):
    """An answer that a client got."""

    status: int
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        found = msgspec.json.decode(self.body)
        assert isinstance(found, dict)
        return found


class Asked(msgspec.Struct):
    """One thing that a client wants once, however often it says so."""

    who: str
    scope: Scope
    path: str
    params: dict[str, Any]
    key: str | None
    answers: list[Answer]
    given_up: bool = False
    method: str = "POST"
    named: bool = False
    """The client repeats it although it has no key: it names itself what it is about."""

    @property
    def record(self) -> str | None:
        """The id of the idempotency record, where there is a key."""
        return record_id(self.key) if self.key is not None else None


class Observer(Protocol):
    """Watches a world while it lives, and calls `World.violate` where something must not be."""

    def committed(self, process: "Process", writes: Sequence[Write]) -> None:
        """A process has committed `writes`."""

    def tries(self, writes: Sequence[Write]) -> None:
        """A process is about to commit `writes`."""

    def sends(self, process: "Process", request: port.Request, connector: str) -> None:
        """A process is about to send `request` to the bank of that connector."""

    def discloses(self, request: port.Request) -> None:
        """`request` has left the process: the bank may read it."""

    def answered(self, process: "Process", asked: Asked, response: Response) -> None:
        """A process has an answer for a client."""

    def logged(self, record: logging.LogRecord) -> None:
        """The platform has written a log line."""

    def restored(self) -> None:
        """The store was put back: settled outcomes may be open again."""


class World:
    """Everything that outlives a process: store, bank, clients' knowledge, time and chance."""

    def __init__(self, seed: int, store: Store, observe: "Callable[[World], Observer]") -> None:
        self.seed = seed
        self.random = Random(seed)
        self.loop = VirtualLoop(Random(seed + 1))  # type: ignore[abstract]  # No world needs the rest.
        self.store = store
        self.answers = Faults({"seed": seed, "rules": ANSWERS})
        self.outside = contextvars.copy_context()
        self.weather = {fault: self.random.choice(odds) for fault, odds in FAULTS.items()}
        self.crash_at = self.random.choice((0, self.random.randint(1, 80)))
        """Besides chance: the process that comes to this crash point, counted through the world, is killed."""
        self.skews_ms = self.random.choice(SKEWS_MS)
        self.store_has_clock = self.random.random() < 0.5
        self.payout_delay_ms = self.random.choice(PAYOUT_DELAYS_MS)
        self.points = 0
        self.full_until = 0.0
        self.calm = False
        self.week_passed = False
        self.restores = Random(seed + 2).random() < RESTORES
        self.upgrades = Random(seed + 3).random() < UPGRADES
        self.routing_random = Random(seed + 4)
        """The chance of routed worlds: a source of its own leaves the other worlds as they are."""
        self.routed = not self.restores and self.routing_random.random() < ROUTED
        self.banks = {SIMULATOR: self._new_bank()}
        """The banks by the name of their connector. Each knows its own operations only."""
        if self.routed:
            self.banks[SECOND] = self._new_bank()
            if self.routing_random.random() < 0.5:
                self.weather = dict.fromkeys(FAULTS, ROUTED_FAULTS)
        self.dead: str | None = None
        """The connector of the bank that cannot be reached now."""
        self.restored = False
        """The store was put back: from then on, a process looks for that before it serves."""
        self.beside = BesideStore()
        self.processes: list[Process] = []
        self.head_signer = Ed25519HeadSigner(_FINGERPRINT_KEY)
        self.processes_wanted = self.random.choice((1, 1, 2, 2, 3))
        self.processes_made = 0
        self.notices_under_way = 0
        self.disputed: dict[str, list[tuple[str, str]]] = {}
        """The stages and outcomes that the bank has told of each dispute, by its reference."""
        self.disputed_minor: dict[tuple[str, str], int] = {}
        """The disputed amount, by the reference and the stage."""
        self.contradicting_random = Random(seed + 5)
        self.contradicts = not self.restores and self.contradicting_random.random() < CONTRADICTING
        """Whether the banks contradict outcomes of operations. The chance has a source of its own, too."""
        self.words: dict[str, Word] = {}
        """The contradicting words by the reference of the operation."""
        self.stubborn = Random(seed + 6).random() < STUBBORN
        self.late_under_way = 0
        self.asked: list[Asked] = []
        self.merchants = [_merchant(i) for i in range(MERCHANTS)]
        self.courier = SimulatedCourier()
        self.stocked: dict[tuple[str, str], int] = {}
        """How many of each product, by merchant, were there to be ordered."""
        self.trace: list[Told] = []
        self.met: Counter[str] = Counter()
        self.violation: Violation | None = None
        self.cvcs_made = 0
        self.observer = observe(self)

    def _new_bank(self) -> Bank:
        return Bank(knows_all=True, operations_max=None, key=b"world", now=lambda: self.time_ns() / 1e9)

    def find(self, reference: str) -> BankOperation | None:
        """The operation of that reference, at whichever bank it is."""
        found = (bank.find(reference) for bank in self.banks.values())
        return next((operation for operation in found if operation is not None), None)

    def operations(self) -> Iterator[BankOperation]:
        """All operations of all banks, by bank in order of arrival."""
        for bank in self.banks.values():
            yield from bank.operations()

    def tell(self, who: str, what: str) -> None:
        if len(self.trace) < TRACE_MAX:
            self.trace.append(Told(self.loop.time(), who, what))

    def violate(self, check: str, text: str) -> None:
        """Remember the first; the world ends at its next look."""
        if self.violation is None:
            self.violation = Violation(check, text)
            self.tell("CHECK", f"{check}: {text}")

    def strikes(self, fault: str) -> bool:
        """Whether that fault happens now."""
        if self.calm or self.random.random() >= self.weather[fault]:
            return False
        self.met[fault] += 1
        return True

    def disk_is_full(self) -> bool:
        """Whether the store has no room for a commit now."""
        if self.strikes("disk full"):
            self.full_until = self.loop.time() + self.random.choice(FULL_SECONDS)
        return not self.calm and self.loop.time() < self.full_until and self.random.random() >= FITS_ANYWAY

    def time_ns(self) -> int:
        return EPOCH_SECONDS * 1_000_000_000 + round(self.loop.time() * 1e9)

    def text_of(self, length: int) -> str:
        return "".join(self.random.choices(ALPHABET, k=length))

    def new_cvc(self) -> str:
        """A security code that no other card of this world has."""
        self.cvcs_made += 1
        assert self.cvcs_made < 877
        return str(int(ALIAS_CVC) + self.cvcs_made)

    def new_host_clock(self, process: str) -> HostClock:
        """The clock of a process that starts now. In half of the worlds the store has a clock of its own, which is
        right; in the others a process can only compare its clock with the store's mark of time."""
        skew_ns = self.random.choice(self.skews_ms) * 1_000_000
        if not self.strikes("wrong clock at start"):
            return HostClock(self.time_ns, skew_ns)
        sizes = JUMPS_SECONDS if self.store_has_clock else WRONG_AT_START_SECONDS
        seconds = self.random.choice(sizes) * self.random.choice((-1, 1))
        self.tell(process, f"its clock is {seconds} s ahead")
        return HostClock(self.time_ns, skew_ns, seconds * 1_000_000_000)

    def later(self, seconds: float, callback: Callable[..., object], *args: Any) -> None:
        """Call back outside of every process."""
        self.loop.call_later(seconds, callback, *args, context=self.outside)

    def start_process(self) -> None:
        self.processes_made += 1
        self.processes.append(Process(self, f"p{self.processes_made}"))

    async def reachable(self) -> "Process":
        """A process that takes requests, as soon as there is one."""
        while not self.processes:
            await asyncio.sleep(0.2)
        return self.random.choice(self.processes)

    # The bank's own voice.

    def bank_was_asked(self, connector: str, reference: str) -> None:
        """Perhaps send the bank's answer as a notice too: once or more, before or after the answer itself."""
        operation = self.banks[connector].find(reference)
        if operation is None:
            return
        takes_money = operation.status == "Accepted" and (operation.kind == "capture" or operation.capture)
        if takes_money and self.strikes("dispute"):
            self._dispute(connector, operation.parent or operation.reference)
        if self.strikes("notice"):
            self._tell(connector, operation)
        if self.contradicts and reference not in self.words and self._can_contradict(operation):
            self.words[reference] = Word(of_the_future=self.contradicting_random.random() < OF_THE_FUTURE)
            self.notices_under_way += 1
            self.later(self.contradicting_random.choice((0.1, 2.0, 8.0)), self._contradict, connector, reference, 0)

    def _tell(self, connector: str, operation: BankOperation) -> None:
        body = msgspec.json.encode(operation.answer())
        for _ in range(self.random.choice((1, 1, 2, 3))):
            self.notices_under_way += 1
            self.later(self.random.choice((0.0, 0.001, 0.05, 1.0, 6.0)), self._send_notice, connector, body, 0)

    def _dispute(self, connector: str, parent: str) -> None:
        """Plan the reports of a new dispute. Its amount may change when an inquiry becomes a chargeback."""
        reference, due = f"case{len(self.disputed)}-{parent}", self.random.choice((None, None, 2, 20))
        self.disputed[reference] = []
        at, amounts = 0.0, {stage: self.random.choice((1, 2)) for stage in ("inquiry", "chargeback")}
        for step in self.random.choice(STORIES).split(", "):
            stage, verdict = step.split(" ")
            at += self.random.choice((0.01, 0.5, 3.0, 8.0))
            self.notices_under_way += 1
            self.later(at, self._report, connector, parent, reference, stage, verdict, amounts[stage], due)

    def _report(
        self, connector: str, parent: str, reference: str, stage: str, verdict: str, part: int, due: int | None
    ) -> None:
        self.notices_under_way -= 1
        taken = self.banks[connector].find(parent)
        assert taken is not None
        report: dict[str, Any] = {"parent": parent, "reference": reference, "dispute": stage, "status": verdict}
        # Further captures change nothing of it: another amount at the same stage would contradict the first.
        report["amount"] = self.disputed_minor.setdefault((reference, stage), max(taken.captured // part, 1))
        if due is not None:
            report["evidence_due"] = self.time_ns() // 1_000_000_000 + due
        handled = self.banks[connector].tell_dispute(report)
        assert handled.effect is not None, handled.response.body
        self.tell("bank", f"says {stage} {verdict} {report['amount']} of {reference}")
        self.disputed[reference].append((stage, verdict))
        self._tell(connector, handled.effect)

    def _can_contradict(self, operation: BankOperation) -> bool:
        """Whether the bank will contradict its answer. The return of a refund or payout contradicts nothing."""
        moves = operation.kind in ("authorization", "capture", "void", "increment")
        fails = operation.kind in ("refund", "payout") and operation.status == "Declined"
        likely = moves or (fails and operation.refund != "fails_later")
        return likely and self.contradicting_random.random() < CONTRADICTED

    def _contradict(self, connector: str, reference: str, tries: int) -> None:
        self.loop.create_task(self._say_the_opposite(connector, reference, tries), context=self.outside.copy())

    async def _say_the_opposite(self, connector: str, reference: str, tries: int) -> None:
        """Send a notice with the opposite of an operation's outcome, until a process has heard it.

        Nothing is said before the outcome is booked, nor that a refund or payout was declined: that is its return.
        """
        word, operation = self.words[reference], self.banks[connector].find(reference)
        scope_key, tail = reference[:SCOPE_KEY_LENGTH], reference[SCOPE_KEY_LENGTH:]
        known = await find_by_tail(Load(self.store, scope_key), tail)
        if operation is not None and operation.status != "Pending" and known.attempt is None:
            done = operation.status == "Accepted"
            booked = known.settled is None or done == (known.settled.status not in ("failed", "canceled"))
            if booked and not (done and operation.kind in ("refund", "payout")):
                word.theirs = "declined" if done else "succeeded"
                said = {**operation.answer(), "status": "Declined" if done else "Accepted"}
                if known.settled is not None:
                    # The bank would be asked about an authorization that was increased since.
                    said["amount"] = known.settled.amount_minor
                if word.of_the_future:
                    # No process may believe it: the bank, when it is asked, repeats its first answer.
                    word.theirs, said["created"] = "", self.time_ns() // 1_000_000_000 + FUTURE_SECONDS
                process, heard = await self.reachable(), self.loop.create_future()
                process.hear(connector, msgspec.json.encode(said), heard)
                word.heard = bool(await heard)
        if word.heard:
            self.tell("bank", f"contradicts: {reference} {word.theirs}")
            self.met["contradicting word"] += 1
        if word.heard or tries > NOTICE_TRIES_MAX:
            self.notices_under_way -= 1
            return
        self.later(1.0 + tries, self._contradict, connector, reference, tries + 1)

    def _send_notice(self, connector: str, body: bytes, tries: int) -> None:
        self.loop.create_task(self._notice(connector, body, tries), context=self.outside.copy())

    async def _notice(self, connector: str, body: bytes, tries: int) -> None:
        process = await self.reachable()
        heard = self.loop.create_future()
        process.hear(connector, body, heard)
        if await heard or tries > NOTICE_TRIES_MAX:
            self.notices_under_way -= 1
            return
        self.later(1.0 + tries, self._send_notice, connector, body, tries + 1)


class Word(msgspec.Struct):
    """A bank's word against the outcome of an operation. `heard`: a process has taken it. One `of_the_future` is a
    made-up notice, dated so that it never grows old: the bank does not say so."""

    theirs: str = ""
    heard: bool = False
    of_the_future: bool = False


class BesideStore:
    """The file with the store's newest mark on the one host of a world."""

    def __init__(self) -> None:
        self.mark_us: int | None = None

    def read(self) -> int | None:
        return self.mark_us

    def write(self, mark_us: int, *, durable: bool = False) -> None:
        self.mark_us = mark_us


class Merchant(msgspec.Struct):
    scope: Scope
    secret: str
    writes: list[Write]


def _merchant(number: int) -> Merchant:
    scope = Scope(account=f"acct_worldmerchant{number:03d}", mode="test")
    secret = f"sk_test_{number:040d}"
    account = Account(id=scope.account, created=EPOCH_SECONDS)
    key = ApiKey(
        id=key_id(secret), created=EPOCH_SECONDS, account=scope.account, mode="test", kind="secret", hint="sk_test"
    )
    writes = [Write(f"{SYSTEM}/{record.id}", ABSENT, encode(record)) for record in (account, key)]
    return Merchant(scope, secret, writes)


class Process:
    """An engine process: everything that a crash takes with it."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.life = Life()
        self.context = world.outside.copy()
        self.context.run(LIFE.set, self.life)
        self.waiting: list[asyncio.Future[Any]] = []
        """Who waits for an answer of this process, and hears of its end."""
        store: Store = _ProcessStore(self)
        self.host_clock = world.new_host_clock(name)
        clock = Clock(self.host_clock.wall_ns, world.text_of, self.host_clock.monotonic_ns)
        client_secrets = ClientSecrets(_FINGERPRINT_KEY)
        renderer = Renderer("http://world", client_secrets, compares_stencils=True)
        settings = Settings(
            lease_ms=LEASE_MS,
            answer_within_seconds=ANSWER_WITHIN_SECONDS,
            payout_delay_ms=world.payout_delay_ms,
            public_url="http://world",
            checkpoint_every=CHECKPOINT_EVERY,
        )
        engine = Engine(store, clock, settings, renderer, client_secrets)
        engine.accounts = _NoTerms(store, clock)
        vault = EnvelopeVault(_OneKey(), _FINGERPRINT_KEY)
        cards = CardVault(vault, store)
        ways: dict[str, tuple[Connector, Transport]] = {}
        for name_of_bank, bank in world.banks.items():
            simulator = Simulator(bank=bank, faults=world.answers, ask_after_seconds=ASK_AFTER_SECONDS)
            ways[name_of_bank] = simulator, _ProcessTransport(self, name_of_bank, simulator.transport())

        def build(kind: str, settings: object) -> tuple[Connector, Transport]:
            return ways[kind]

        connections = ConfiguredConnections(store, clock, build, vault)
        self.connections = connections
        self.attempts = Attempts(engine, connections, cards)
        webhooks = Webhooks(engine, renderer, vault)
        authenticator = _Authenticator(store, accounts=Accounts(store, Clock(monotonic_ns=lambda: 0)))
        request_log = RequestLog()
        couriers: dict[str, port.Courier] = {"test": ProcessCourier(self)}
        tokens = AccessTokens(store, partial(Es256Signer, _FINGERPRINT_KEY), clock, "http://world")
        platform = Platform(
            engine,
            self.attempts,
            ComparedPayments(self.attempts),
            cards,
            store,
            connections,
            authenticator,
            webhooks,
            request_log,
            tokens,
            couriers,
            Scans(clock, rows_max=100_000, seconds_max=10.0),
        )
        self.runner = Runner(
            engine,
            self.attempts,
            workers(platform, Mail(engine, None, "").send),
            partial(check_slowly, engine),
            AuditChain(store, clock, engine.time, world.head_signer),
        )
        self.platform = platform
        self.api = Api(platform, renderer, authenticator, request_log)
        world.tell(name, "starts")
        engine.time.on_mark = world.beside.write
        self.beginning: asyncio.Task[None] | None = None
        if world.restored:
            self.beginning = world.loop.create_task(self._begin(engine), context=self.context.copy())
        else:
            self.context.run(self.runner.start)

    async def _begin(self, engine: Engine) -> None:
        """Look for a restore until the store answers, then start, as a service manager would have it."""
        engine.time.on_mark = None
        while True:
            try:
                await engine.restores.begin(self.world.beside, is_file=True)
                break
            except Unavailable:
                await asyncio.sleep(0.2)
        self.runner.start()

    def crash(self, where: str) -> None:
        """End here. A new process starts after a while."""
        world = self.world
        if self.life.ended:
            return
        self.life.ended = True
        world.met[f"crash {where}"] += 1
        world.tell(self.name, f"is killed {where}")
        if self in world.processes:
            world.processes.remove(self)
        for answer in self.waiting:
            world.later(world.random.uniform(0.0, 0.1), _give, answer, None)
        self.waiting.clear()
        world.later(world.random.choice((0.0, 0.1, 1.0, RESTART_MAX_SECONDS)), world.start_process)

    async def point(self, where: str) -> None:
        """A place where a process may be killed: the coroutine that is here then never goes on."""
        world = self.world
        world.points += 1
        world.met[f"point {where}"] += 1
        if world.strikes("crash") or (world.points == world.crash_at and not world.calm):
            self.crash(where)
            await world.loop.create_future()

    async def pause(self) -> None:
        """As long as a store takes: others go on meanwhile."""
        world = self.world
        if world.strikes("slow store"):
            await asyncio.sleep(world.random.choice((0.001, 0.01, 0.1, 1.0)))
        else:
            await asyncio.sleep(0)

    # Its entry points.

    def serve(self, asked: Asked, request: Request, answer: "asyncio.Future[Response | None]") -> None:
        self._carry_out(self._serve(asked, request, answer), answer)

    def disburse(self, scope: Scope, command: CreatePayout, email: str, done: "asyncio.Future[None]") -> None:
        """Pay a customer from the merchant's own money at the bank, as a dialect does."""
        self._carry_out(self._disburse(scope, command, email, done), done)

    def settle(self, scope: Scope, given: dict[str, Any], done: "asyncio.Future[bool | None]") -> None:
        """Book a settlement, as an operator does. The answer is whether it is certain that it is booked or refused."""
        self._carry_out(self._settle(scope, given, done), done)

    def hear(self, connector: str, body: bytes, heard: "asyncio.Future[bool | None]") -> None:
        self._carry_out(self._hear(connector, body, heard), heard)

    def _carry_out(self, work: Any, answer: "asyncio.Future[Any]") -> None:
        self.waiting.append(answer)
        self.world.loop.create_task(work, context=self.context.copy())

    def _pass_on(self, answer: "asyncio.Future[Any]", value: object) -> None:
        self.waiting.remove(answer)
        self.world.later(self.world.random.choice((0.0, 0.001, 0.02)), _give, answer, value)

    async def _serve(self, asked: Asked, request: Request, answer: "asyncio.Future[Response | None]") -> None:
        await self._await_start()
        response = await self.api.handle(request)
        self.world.observer.answered(self, asked, response)
        await self.point("before the answer")
        if self.world.strikes("client's answer lost"):
            self.waiting.remove(answer)
            return
        self._pass_on(answer, response)

    async def _await_start(self) -> None:
        """Wait until the process serves: after a restore, it looks for that first."""
        if self.beginning is not None:
            await asyncio.shield(self.beginning)

    async def _disburse(self, scope: Scope, command: CreatePayout, email: str, done: "asyncio.Future[None]") -> None:
        await self._await_start()
        to = Recipient(type="email", email=email)
        try:
            await payouts.create(self.platform, Caller.system(scope), command, recipient=to)
        except Refused as refused:
            if refused.code not in REPEATABLE:
                raise
        except Unavailable:
            pass
        self._pass_on(done, None)

    async def _settle(self, scope: Scope, given: dict[str, Any], done: "asyncio.Future[bool | None]") -> None:
        await self._await_start()
        caller = Caller.system(scope)
        caller.reason = "The bank's statement says so."
        certain = True
        try:
            await settlements.book(self.platform, caller, **given)
        except Refused as refused:
            certain = refused.code in ("settlement_exists", "settlement_too_large")
            if not certain and refused.code not in REPEATABLE:
                raise
        except Unavailable:
            certain = False
        self._pass_on(done, certain)

    async def _hear(self, connector: str, body: bytes, heard: "asyncio.Future[bool | None]") -> None:
        await self._await_start()
        taken = True
        notice = read_notice(body, disputes=True)
        self.world.tell(self.name, f"hears {notice.id}")
        try:
            await notices.book(self.attempts, notice, connector, "test")
        except (Unavailable, NoticeUndecided):
            taken = False
        except NoticeRejected as rejected:
            # After a restore, nothing may explain a payment; all else that this bank says is true.
            if not self.world.restored:
                self.world.violate("notice", f"{self.name} refuses {notice.id}: {rejected}")
        except Refused as refused:
            if refused.code not in REPEATABLE:
                raise
            taken = False
        self._pass_on(heard, taken)


def _give(answer: "asyncio.Future[Any]", value: object) -> None:
    if not answer.done():
        answer.set_result(value)


class _Authenticator(Authenticator):
    """Keys at a time that stands still, so that a slow machine looks no key up twice where a fast one does not."""

    async def authenticate_header(self, header: str | None, *, now: float) -> tuple[Grant, Scope]:
        return await super().authenticate_header(header, now=EPOCH_SECONDS)


class _NoTerms(Accounts):
    """Accounts of merchants that have no terms of their own, so that no world reads them."""

    async def get(self, id: str) -> Account | None:
        return None


_FINGERPRINT_KEY = Secret(b"a world." * 4)


class _OneKey:
    """A key wrapper that leaves data keys as they are: worlds do not test the vault."""

    def current_id(self) -> str:
        return "kek_world"

    def wrap(self, data_key: bytes, context: bytes) -> tuple[str, bytes]:
        return "kek_world", data_key

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        if key_id != "kek_world":
            raise KeyMissing(key_id)
        return wrapped


class _ProcessStore:
    """The world's store as one process reaches it: slowly, sometimes not at all, and with a crash on either side."""

    on_batch: Callable[[int, float], None] | None = None

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._store = process.world.store

    async def _reach(self) -> None:
        await self._process.pause()
        if self._world.strikes("store unreadable"):
            raise Unavailable("simulated")

    async def get(self, key: str) -> Row | None:
        await self._reach()
        return await self._store.get(key)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Row]:
        await self._reach()
        return await self._store.get_many(keys)

    async def query(
        self,
        index: str | None,
        partition: str,
        *,
        after: str | None = None,
        until: str | None = None,
        limit: int = 100,
        order: Literal["newest", "oldest"] = "newest",
    ) -> list[Row]:
        await self._reach()
        return await self._store.query(index, partition, after=after, until=until, limit=limit, order=order)

    async def commit(self, writes: Sequence[Write]) -> None:
        process, world = self._process, self._world
        for write in writes:
            if write.first_in is not None:
                await self._reach()  # The store looks whether it is the first.
        world.observer.tries(writes)
        await process.point("before a commit")
        await process.pause()
        if world.strikes("store unwritable"):
            world.tell(process.name, "the store takes no commit")
            raise Unavailable("simulated")
        if world.disk_is_full():
            world.tell(process.name, "the disk is full")
            raise StorageFull("simulated")
        if world.strikes("commit did not happen, nobody knows"):
            world.tell(process.name, "commit unknown, and it did not happen")
            raise CommitUnknown("simulated")
        if world.strikes("commit happens later, nobody knows"):
            world.tell(process.name, "commit unknown, and it will happen")
            world.late_under_way += 1
            world.later(world.random.choice((0.0, 0.001, 0.02, 0.2, 1.0)), self._commit_late, tuple(writes))
            raise CommitUnknown("simulated")
        await self._commit(writes)
        await process.point("after a commit")
        await process.pause()
        if world.strikes("commit happened, nobody knows"):
            world.tell(process.name, "commit unknown, and it happened")
            raise CommitUnknown("simulated")

    async def _commit(self, writes: Sequence[Write]) -> None:
        try:
            await self._store.commit(writes)
        except Conflict as conflict:
            self._world.met["conflict"] += 1
            self._world.tell(self._process.name, f"conflict over {conflict.key}")
            raise
        self._world.observer.committed(self._process, writes)

    def _commit_late(self, writes: Sequence[Write]) -> None:
        async def commit() -> None:
            try:
                await self._commit(writes)
            except Conflict:
                pass
            finally:
                self._world.late_under_way -= 1

        self._world.loop.create_task(commit(), context=self._world.outside.copy())

    async def claim(
        self, queue: str, *, now_ms: int, lease_ms: int, limit: int, without: Sequence[str] = ()
    ) -> list[Row]:
        process = self._process
        if self._world.strikes("store unreadable"):
            raise Unavailable("simulated")
        if self._world.disk_is_full():
            raise StorageFull("simulated")
        rows = await self._store.claim(queue, now_ms=now_ms, lease_ms=lease_ms, limit=limit, without=without)
        if rows:
            self._world.tell(process.name, f"claims {', '.join(row.key.partition('/')[2] for row in rows)}")
            await process.point("after a claim")
            if self._world.strikes("commit happened, nobody knows"):
                self._world.tell(process.name, "the claim's answer is lost")
                raise CommitUnknown("simulated")
        return rows

    async def peek(
        self,
        queue: str,
        *,
        now_ms: int,
        limit: int,
        order: Literal["soonest", "latest"] = "soonest",
        before_ms: int | None = None,
    ) -> list[Waiting]:
        return await self._store.peek(queue, now_ms=now_ms, limit=limit, order=order, before_ms=before_ms)

    async def clock_ms(self) -> int | None:
        await self._reach()
        return self._world.time_ns() // 1_000_000 if self._world.store_has_clock else None

    async def lineage(self) -> str:
        return ""

    async def purge_expired(self, *, now: int, limit: int) -> int:
        await self._reach()
        return await self._store.purge_expired(now=now, limit=limit)

    async def close(self) -> None:
        """The world's store goes on."""


class _ProcessTransport:
    """The way from one process to the bank of one connector and back."""

    def __init__(self, process: Process, connector: str, inner: Transport) -> None:
        self._process = process
        self._connector = connector
        self._world = process.world
        self._inner = inner

    async def send(self, request: port.Request) -> port.Response:
        process, world = self._process, self._world
        world.observer.sends(process, request, self._connector)
        await process.point("before a send")
        await asyncio.sleep(world.random.choice((0.0, 0.001, 0.05)))
        response = await self._carry(request)
        await process.point("after a send")
        world.tell(process.name, f"  {response.status} {(response.body or {}).get('status', '')}")
        return response

    async def _carry(self, request: port.Request) -> port.Response:
        world = self._world
        if world.dead == self._connector:
            world.met["bank dead"] += 1
            raise self._failure("connection refused by a dead bank", spoken=False)
        if world.strikes("refused"):
            raise self._failure("connection refused", spoken=False)
        if world.strikes("throttled"):
            return port.Response(429, {"message": "simulated"}, {"retry-after": world.random.choice(("0", "1"))})
        world.observer.discloses(request)
        if world.strikes("error before"):
            return port.Response(503, {"message": "simulated"})
        if world.strikes("request lost"):
            await asyncio.sleep(2.0)
            raise self._failure("no answer, and the request was lost", spoken=True)
        if world.strikes("request late"):
            world.late_under_way += 1
            world.later(world.random.choice((1.0, 3.0, 8.0, 30.0)), self._perform_late, request)
            await asyncio.sleep(0.5)
            raise self._failure("no answer, and the request is on its way", spoken=True)
        response = await self._perform(request)
        if world.strikes("answer lost"):
            await asyncio.sleep(world.random.choice((0.0, 2.0)))
            raise self._failure("no answer, and it was performed", spoken=True)
        if world.strikes("error after"):
            return port.Response(500, None)
        if world.strikes("answer slow"):
            await asyncio.sleep(world.random.uniform(0.1, 3 * LEASE_MS / 1000))
        return response

    def _failure(self, reason: str, *, spoken: bool) -> TransportError:
        self._world.tell(self._process.name, f"  {reason}")
        return TransportError(f"simulated: {reason}", spoken=spoken)

    async def _perform(self, request: port.Request) -> port.Response:
        response = await self._inner.send(request)
        if request.path == PATHS["authorize"] and "card" in request.fields:
            _compare_with_at_once(request)
        reference = request.fields["reference"] if request.fields else request.path.rpartition("/")[2]
        self._world.bank_was_asked(self._connector, reference)
        return response

    def _perform_late(self, request: port.Request) -> None:
        async def perform() -> None:
            self._world.tell("bank", f"performs late {describe(request)}")
            await self._perform(request)
            self._world.late_under_way -= 1

        self._world.loop.create_task(perform(), context=self._world.outside.copy())

    async def close(self) -> None:
        """There is nothing to close."""


def _compare_with_at_once(request: port.Request) -> None:
    """Check that a bank performs an authorization without a conversation as it does with one."""
    spoken, silent = (Bank(key=b"world", now=lambda: 0.0) for _ in range(2))
    handled, performed = spoken.handle(request), silent.authorize(request.fields)
    assert performed is not None, "a new bank knows no operation"
    assert performed == handled.effect and performed.answer() == handled.response.body, (
        "at once it is performed otherwise"
    )
    assert list(silent.operations()) == list(spoken.operations())
    operation = _of_public_card(request.fields)
    if operation is None:
        return
    accepting = Bank(key=b"world", now=lambda: 0.0)
    accepted = accepting.accept(operation)
    if accepted is not None:
        assert accepted == outcome_of(performed.answer()), "at once another outcome is told"
        assert list(accepting.operations()) == list(spoken.operations()), "at once it is kept otherwise"
        assert accepting.handle(request).response == handled.response, "a repeat of it is answered otherwise"


def _of_public_card(body: dict[str, Any]) -> port.Operation | None:
    """The authorization of a test card, as an alias gives it, that has this body; None of any other."""
    card = body["card"]
    known = by_number(card["number"])
    if known is None or not known.aliases or card.keys() != {"number", "exp_month", "exp_year", "cvc"}:
        return None
    public = data_of(known.aliases[0], card["exp_month"], card["exp_year"])
    details = dict(body.get("details", {}))
    if "billing_address" in details:
        details["billing_address"] = port.PostalAddress(**details["billing_address"])
    operation = port.Operation(
        reference=body["reference"],
        kind="authorize",
        amount_minor=body["amount"],
        currency=body["currency"],
        capture=body["capture"],
        card=public,
        by_amount=body.get("by_amount", False),
        **details,
    )
    return operation if body_of(operation, details=True) == body else None


def describe(request: port.Request) -> str:
    """A request to the bank, without the card."""
    if request.body is None:
        return f"ask {request.path.rpartition('/')[2][17:]}"
    amount = request.fields.get("amount", "")
    return f"{operation_of(request.path)} {amount} {request.fields['reference'][17:]}"


class ProcessCourier:
    """The way from one process to the world's delivery service and back."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        self._world = process.world

    async def arrange(self, consignment: Consignment) -> Arranged | Undeliverable | Unreachable:
        process, world, reference = self._process, self._world, consignment.reference
        await self._durable_first(consignment)
        world.tell(process.name, f"asks for the delivery {reference[SCOPE_KEY_LENGTH:]}")
        await process.point("before a send")
        if world.strikes("refused"):
            return Unreachable("simulated: connection refused")
        if world.strikes("request late"):
            world.late_under_way += 1
            world.later(world.random.choice((0.1, 1.0, 8.0)), self._arrange_late, consignment)
            return Unreachable("simulated: no answer, and the request is on its way")
        answer = await world.courier.arrange(consignment)
        if world.strikes("answer slow"):
            await asyncio.sleep(world.random.uniform(0.1, 9.0))
        await process.point("after a send")
        if world.strikes("answer lost"):
            return Unreachable("simulated: no answer, and it was taken")
        world.tell(process.name, f"  {answer}")
        return answer

    def _arrange_late(self, consignment: Consignment) -> None:
        async def arrange() -> None:
            self._world.tell("courier", f"hears late of {consignment.reference[SCOPE_KEY_LENGTH:]}")
            await self._world.courier.arrange(consignment)
            self._world.late_under_way -= 1

        self._world.loop.create_task(arrange(), context=self._world.outside.copy())

    async def cancel(self, reference: str) -> bool:
        process, world = self._process, self._world
        world.tell(process.name, f"cancels the delivery {reference[SCOPE_KEY_LENGTH:]}")
        await process.point("before a send")
        if world.strikes("refused"):
            return False
        await world.courier.cancel(reference)
        await process.point("after a send")
        return not world.strikes("answer lost")

    async def _durable_first(self, consignment: Consignment) -> None:
        scope = consignment.reference[:SCOPE_KEY_LENGTH]
        alias = await self._stored(scope, alias_id("order", consignment.order_id))
        order = await self._stored(scope, alias.target) if isinstance(alias, Alias) else None
        if not isinstance(order, Order) or order.step("arrange_delivery") is None:
            self._world.violate("durable first", f"{consignment.reference} was sent before its order had come to it")

    async def _stored(self, scope: str, id: str) -> Record | None:
        row = await self._world.store.get(f"{scope}/{id}")
        return decode(id, row.body) if row is not None else None
