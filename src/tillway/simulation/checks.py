"""The rules that hold in every world, while it lives and when it has come to rest.

Money is counted three times, by merchant and currency: the bank's operations, the sum of the ledger's entries, and the
amounts on payments, charges and refunds. All three must agree to the minor unit.
"""

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from tillway.connectors import port
from tillway.connectors.http_bank import operation_of
from tillway.domain.account import SCOPE_KEY_LENGTH
from tillway.domain.attempt import Attempt, reference_of
from tillway.domain.charge import Charge
from tillway.domain.customer import Customer
from tillway.domain.dispute import FEE_MINOR as DISPUTE_FEE_MINOR
from tillway.domain.dispute import Dispute, DisputeTask
from tillway.domain.event import Event
from tillway.domain.external_account import ExternalAccount
from tillway.domain.idempotency import IdempotencyRecord
from tillway.domain.ledger import Entry, Fee
from tillway.domain.method_types import DEBITS
from tillway.domain.money import fee_minor
from tillway.domain.open_item import OpenItem
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payout import Payout
from tillway.domain.record import Record, SealedRecord
from tillway.domain.refund import Refund
from tillway.domain.refusal import STORE_CODES, Refused
from tillway.domain.settlement import Settlement
from tillway.domain.stored_credit import CustomerBalanceTransaction
from tillway.domain.time_mark import TimeMark
from tillway.engine.answers import answered_with
from tillway.engine.balance import availability
from tillway.engine.clock import Clock
from tillway.engine.core import Load
from tillway.engine.events import in_all_rows
from tillway.engine.health import BREAKER_OPENS
from tillway.engine.ids import SUFFIX_LENGTH, base62
from tillway.engine.references import reference_of_record
from tillway.engine.time_mark import COMMIT_SECONDS_MAX, SETTLED_SECONDS
from tillway.http.messages import Request, Response
from tillway.operations.balance_check import check_balances
from tillway.sandbox.bank import BankOperation
from tillway.sandbox.cards import ALIAS_CVC
from tillway.simulation.audit_check import audit_damage
from tillway.simulation.restores import explained_by_items
from tillway.simulation.routing import RouteWatch
from tillway.simulation.virtual_loop import LIFE
from tillway.simulation.world import SECOND, Process, Violation, World
from tillway.store.codec import decode
from tillway.store.port import PAGE_MAX, CommitUnknown, Conflict, Store, Unavailable, Write
from tillway.store.walk import rows_of
from tillway.testing.memory_store import MemoryStore

R = TypeVar("R", bound=Record)

AHEAD_SECONDS = 20 * 86_400
"""Further ahead than any clock of a world goes, and with it the mark of time."""

PAID = ("Accepted", "Pending")
CREDIT = "customer_balance"
FINAL = {"succeeded", "canceled"}


class Watch:
    """Looks at every commit, every request to the bank and every answer, as it happens."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._durable: set[str] = set()
        """References of all attempts that were ever committed."""
        self._final: dict[str, str] = {}
        self._cvcs_spent: set[str] = set()
        self.routes = RouteWatch(world) if world.routed else None
        self._marks: deque[tuple[float, int]] = deque()
        """(seconds, mark), oldest first: the first is the newest that is final."""

    def committed(self, process: Process, writes: Sequence[Write]) -> None:
        world = self._world
        world.tell(process.name, f"commits {' '.join(_briefly(write) for write in writes)}")
        if self.routes is not None:
            self.routes.committed(writes)
        for write in writes:
            scope, _, id = write.key.partition("/")
            if write.body is None:
                continue
            self._above_the_mark(process, write, id)
            match id.partition("_")[0]:
                case "att":
                    attempt = decode(id, write.body)
                    assert isinstance(attempt, Attempt)
                    self._durable.add(reference_of(scope, attempt))
                case "clk":
                    mark = decode(id, write.body)
                    assert isinstance(mark, TimeMark)
                    self._marks.append((world.loop.time(), mark.mark_us))
                case "pi" | "dpi":
                    self._payment(write)
                case "ch":
                    self._charge(scope, decode(id, write.body))
                case "cus":
                    self._customer(decode(id, write.body))
                case "re":
                    self._refund(scope, decode(id, write.body))
                case "po":
                    self._payout(scope, decode(id, write.body))

    def _above_the_mark(self, process: Process, write: Write, id: str) -> None:
        """A new id lies above every mark that was in the store SETTLED_SECONDS ago: sums and chains end there."""
        marks = self._marks
        final = self._world.loop.time() - SETTLED_SECONDS
        while len(marks) > 1 and marks[1][0] <= final:
            marks.popleft()
        suffix = id.rpartition("_")[2]
        if write.version or not marks or marks[0][0] > final or not id.startswith(("txn_", "je_", "aud_")):
            return
        if len(suffix) == SUFFIX_LENGTH and suffix < base62(marks[0][1], 9):
            self._world.violate("below the mark", f"{process.name} commits {id} below a final mark of time")

    def _payment(self, write: Write) -> None:
        payment = decode(write.key.partition("/")[2], write.body or b"")
        assert isinstance(payment, PaymentIntent)
        before = self._final.get(write.key)
        if before is not None and payment.status != before:
            self._world.violate("final", f"{payment.id} was {before} and became {payment.status}")
        if payment.status in FINAL:
            self._final[write.key] = payment.status

    def _charge(self, scope: str, charge: Record) -> None:
        assert isinstance(charge, Charge)
        if not 0 <= charge.refunded_minor <= charge.captured_minor <= charge.amount_minor:
            self._world.violate(
                "bounds",
                f"{charge.id}: refunded {charge.refunded_minor}, captured {charge.captured_minor}, "
                f"authorized {charge.amount_minor}",
            )
        if charge.status == "failed":
            self._not_performed(reference_of_record(scope, charge), charge.id)

    def _customer(self, customer: Record) -> None:
        assert isinstance(customer, Customer)
        if customer.balance_minor > 0:
            self._world.violate("credit", f"{customer.id} owes {customer.balance_minor}")

    def _refund(self, scope: str, refund: Record) -> None:
        assert isinstance(refund, Refund)
        if refund.status == "failed":
            self._not_performed(reference_of_record(scope, refund), refund.id)

    def _payout(self, scope: str, payout: Record) -> None:
        assert isinstance(payout, Payout)
        key, reference = f"{scope}/{payout.id}", reference_of_record(scope, payout)
        before = self._final.get(key)
        if before is not None and payout.status != before:
            self._world.violate("final", f"{payout.id} was {before} and became {payout.status}")
        if payout.status in ("failed", "canceled"):
            self._final[key] = payout.status
            self._not_performed(reference, payout.id)

    def _not_performed(self, reference: str, id: str) -> None:
        operation = self._world.find(reference)
        if operation is not None and operation.status in PAID and operation.refund != "fails_later":
            self._world.violate("declined", f"{id} failed, and the bank says {operation.status}")

    def tries(self, writes: Sequence[Write]) -> None:
        """A process is about to commit."""
        if self.routes is not None:
            self.routes.tries(writes)

    def sends(self, process: Process, request: port.Request, connector: str) -> None:
        """A process is about to talk to the bank."""
        world = self._world
        if self.routes is not None:
            self.routes.sends(request, connector)
        if not request.fields:
            world.tell(process.name, f"asks the bank about {request.path.rpartition('/')[2][SCOPE_KEY_LENGTH:]}")
            return
        reference, amount = request.fields["reference"], request.fields.get("amount", "")
        if operation_of(request.path) == "dispute":
            world.tell(process.name, f"sends {request.headers['idempotency-key']}")
            return
        world.tell(process.name, f"sends {request.path} {amount} {reference[SCOPE_KEY_LENGTH:]}")
        if reference not in self._durable:
            world.violate("durable first", f"{reference} was sent before its attempt was durable")
        if "account" in request.fields and not request.fields["account"].get("mandate"):
            world.violate("mandate", f"{reference} debits a bank account without a mandate")

    def discloses(self, request: port.Request) -> None:
        """The bank may have read the request, and may act on it: a security code in it is spent."""
        if self.routes is not None:
            self.routes.discloses(request)
        cvc = request.fields.get("card", {}).get("cvc")
        if cvc is None or cvc == ALIAS_CVC:
            return
        if cvc in self._cvcs_spent:
            self._world.violate("cvc", f"{request.path}: a security code was sent twice")
        self._cvcs_spent.add(cvc)

    def answered(self, process: Process, asked: Any, response: Response) -> None:
        """A process has made up its answer, and it has not been sent yet."""
        world = self._world
        waits = world.restored and b'"recovering"' in response.body
        busy = response.status == 503 and (self._store_is_poor() or self._was_frozen(process))
        if response.status >= 500 and not waits and not busy:
            world.violate("5xx", f"{asked.who} {asked.path}: {response.status} {response.body[:300]!r}")
        if response.status == 404 and b"route_unknown" in response.body:
            world.violate("request", f"{asked.who} {asked.path}: nobody answers there")
        if response.status == 400 and (b'"code":"parameter' in response.body or b'"code":"body' in response.body):
            world.violate("request", f"{asked.who} {asked.path}: this world cannot write: {response.body[:300]!r}")
        if asked.record is not None and response.status in (400, 404):
            key = f"{asked.scope.key}/{asked.record}"
            if key in getattr(world.store, "_rows", ()):
                world.violate(
                    "same answer",
                    f"{asked.who} {asked.path}: refused with {response.body[:200]!r} although its key is spent",
                )

    def restored(self) -> None:
        """The store was put back: outcomes that were final are not there any more, and a token has its code again."""
        self._final.clear()
        self._cvcs_spent.clear()
        self._marks.clear()

    def _store_is_poor(self) -> bool:
        """Whether this world's store or clocks have failed, or a process has slept through a decision: a 503 that asks
        to come back is then the honest answer."""
        met = self._world.met
        return any(met[fault] for fault in _POOR)

    def _was_frozen(self, process: Process) -> bool:
        """Whether the process has just gone on after it stood still for about as long as a decision may take: it gives
        the decision up."""
        life = process.life
        lasted = life.frozen_until - life.frozen_since
        return lasted > COMMIT_SECONDS_MAX - 1.0 and self._world.loop.time() - life.frozen_until < 1.0

    def logged(self, record: logging.LogRecord) -> None:
        """The platform logged something: an error must be one that the world has made."""
        life = LIFE.get()
        if life is not None and life.ended:
            return  # The last breath of a killed coroutine, when its memory is taken back.
        world = self._world
        alert = getattr(record, "alert", None)
        error = record.exc_info[1] if record.exc_info else None
        world.tell("log", f"{record.levelname} {record.getMessage()} {alert or ''} {error!r}")
        if record.getMessage() == BREAKER_OPENS:
            world.met["breaker opened"] += 1
        if record.levelno < logging.ERROR:
            return
        if record.getMessage().startswith("balances differ"):
            world.violate("balances", f"{record.getMessage()}: {getattr(record, 'why', '')}")
        if alert is not None and not alert.startswith("never sent"):
            world.violate("alert", f"{record.getMessage()}: {alert}")
        if error is not None and not _made_by_the_world(error):
            world.violate("error inside", f"{record.getMessage()}: {error!r}")


_POOR = (
    "freeze",
    "store unreadable",
    "store unwritable",
    "disk full",
    "commit happened, nobody knows",
    "commit did not happen, nobody knows",
    "commit happens later, nobody knows",
    "clock jumps",
    "wrong clock at start",
)


def _made_by_the_world(error: BaseException) -> bool:
    if isinstance(error, Refused):
        return error.code in STORE_CODES or error.code == "clock_off"
    return isinstance(error, Conflict | CommitUnknown | Unavailable)


def _briefly(write: Write) -> str:
    id = write.key.partition("/")[2]
    if write.body is None:
        return f"-{id}"
    status = msgspec.json.decode(write.body).get("status")
    return f"{id}{f'={status}' if status is not None else ''}"


# At the end.


class Books:
    """All records of one merchant, by kind."""

    def __init__(self, scope_key: str, records: Iterable[Record]) -> None:
        self.scope_key = scope_key
        self._by_kind: dict[type[Record], dict[str, Record]] = defaultdict(dict)
        for record in records:
            self._by_kind[type(record)][record.id] = record

    def of(self, kind: type[R]) -> dict[str, R]:
        return self._by_kind[kind]  # type: ignore[return-value]  # By its key.


async def books_of(world: World, scope_key: str) -> Books:
    prefixes = "ord prod pi dpi ch re po vlt ba txn je evt aud du cus cbtxn oi stl"
    kept = tuple(f"{prefix}_" for prefix in prefixes.split())
    ids = [(row.key.partition("/")[2], row.body) async for row in rows_of(world.store, f"{scope_key}/")]
    records = [decode(id, body) for id, body in ids if id.startswith(kept)]
    return Books(scope_key, [*records, *in_all_rows(records).values()])


async def work_left(world: World) -> str:
    """Name one piece of unfinished work; empty where there is none."""
    for merchant in world.merchants:
        scope = merchant.scope.key
        for prefix in ("att_", "ntc_", "ordt_", "exp_") if world.week_passed else ("att_", "ntc_", "ordt_"):
            rows = await world.store.query(None, f"{scope}/{prefix}", limit=1)
            if rows:
                return f"{rows[0].key} {rows[0].body.decode()}"
        for row in await world.store.query(None, f"{scope}/dut_", limit=PAGE_MAX):
            reply = decode(row.key.partition("/")[2], row.body)
            assert isinstance(reply, DisputeTask)
            if reply.kind != "deadline":
                return f"{row.key} {row.body.decode()}"
        for row in await world.store.query(None, f"{scope}/idem_", limit=PAGE_MAX):
            held = decode(row.key.partition("/")[2], row.body)
            assert isinstance(held, IdempotencyRecord)
            if held.status == 0 and await answered_with(Load(world.store, scope), held) is None:
                return f"the idempotency record of {held.request} was never completed"
    return ""


async def left_over(world: World, clients: "list[asyncio.Task[None]]") -> str:
    waiting = sum(not client.done() for client in clients)
    notices = world.notices_under_way
    return f"{waiting} clients and {notices} notices wait; {await work_left(world) or 'no work left'}"


async def check(world: World) -> None:
    """Everything that must be true of a world at rest. Raises Violation."""
    for merchant in world.merchants:
        books = await books_of(world, merchant.scope.key)
        operations = [
            operation
            for operation in world.operations()
            if (operation.parent or operation.reference).startswith(books.scope_key)
        ]
        records: tuple[Charge | Refund | Payout, ...] = (
            *books.of(Charge).values(),
            *books.of(Refund).values(),
            *books.of(Payout).values(),
        )
        booked = {reference_of_record(books.scope_key, record) for record in records}
        operations = await explained_by_items(world, books.scope_key, operations, booked)
        _check_statuses(books, week_passed=world.week_passed)
        _check_references(books, operations)
        _check_charges(books, operations)
        _check_disputes(books, operations)
        _check_money(books, operations)
        _check_settlements(books)
        # By the clock that is furthest ahead.
        _check_payouts(books, operations, world.time_ns() // 1_000_000_000 + max(world.skews_ms) // 1000 + 1)
        await _check_balances(world, merchant.secret, books)
        _check_external_accounts(books)
        _check_credit(books)
        _check_events(books)
        _check_answers(world, books)
        # A copy, because the check links the trail beyond the present, and the world may go on.
        damage = await audit_damage(_copy_of(world.store), books.scope_key, _AheadOf(world), world.head_signer)
        if damage:
            fail("audit", damage)


def _copy_of(store: Store) -> Store:
    """A copy of a store in memory. Any other store is checked itself: its worlds end with the check."""
    if not isinstance(store, MemoryStore):
        return store
    copy = MemoryStore()
    copy.put_back(store.keep())
    return copy


class _AheadOf(Clock):
    """So far ahead of a world that every entry of its audit trail has come of age."""

    def __init__(self, world: World) -> None:
        super().__init__(lambda: world.time_ns() + AHEAD_SECONDS * 1_000_000_000, world.text_of)


def fail(check: str, text: str) -> None:
    raise Violation(check, text)


async def _check_balances(world: World, secret: str, books: Books) -> None:
    """Every process shows the balances that the entries add up to, with the checkpoint that it finds and with the one
    that it then makes; and the reports agree."""
    due = _sums((currency, -minor) for currency, minor in _accounts(books)["merchant"].items())
    request = Request("GET", "/v1/balance", "", {"authorization": f"Bearer {secret}"}, b"")
    for process in [await world.reachable(), *world.processes]:
        document = msgspec.json.decode((await process.api.handle(request)).body)
        shown = _sums(
            (funds["currency"], funds["amount"]) for kind in ("available", "pending") for funds in document[kind]
        )
        for currency in {*due, *shown}:
            if due[currency] != shown[currency]:
                told = f"the entries add up to {due[currency]}, {process.name} shows {shown[currency]}"
                fail("balances", f"{books.scope_key} {currency}: {told}")
        checked = await check_balances(process.platform.engine, books.scope_key)
        if checked.differences:
            fail("balances", checked.differences[0])


def _check_statuses(books: Books, *, week_passed: bool) -> None:
    for payment in books.of(PaymentIntent).values():
        if week_passed and payment.status == "requires_capture":
            fail("liveness", f"{payment.id} is still authorized after a week")
        if payment.attempt is not None or payment.status == "processing":
            fail("liveness", f"{payment.id} is {payment.status} with {payment.attempt}")
        charges = [charge for charge in books.of(Charge).values() if charge.payment == payment.id]
        taken = [charge for charge in charges if charge.status == "succeeded"]
        if len(taken) > 1:
            fail("one authorization", f"{payment.id} has {', '.join(charge.id for charge in taken)}")
        if any(charge.status not in ("succeeded", "failed") for charge in charges):
            fail("liveness", f"{payment.id} has a charge that is neither succeeded nor failed")
        received = sum(charge.captured_minor for charge in charges)
        ends_with_money = payment.status == "succeeded" or (received > 0 and payment.status == "requires_capture")
        if payment.received_minor != received or (received > 0) != ends_with_money:
            fail(
                "payments",
                f"{payment.id} is {payment.status}, received {payment.received_minor}; charges say {received}",
            )
        if (payment.status == "requires_capture") != any(
            not charge.captured and charge.released_minor == 0 for charge in taken
        ):
            fail("payments", f"{payment.id} is {payment.status}, and its authorization says otherwise")
    for refund in books.of(Refund).values():
        if refund.status not in ("succeeded", "failed") or refund.attempt is not None:
            fail("liveness", f"{refund.id} is {refund.status}")


def _check_disputes(books: Books, operations: list[BankOperation]) -> None:
    """One dispute for each that the bank has, over the charge that it is about."""
    told = sorted(
        (operation.parent, operation.reference, operation.amount, operation.dispute == "inquiry")
        for operation in operations
        if operation.kind == "dispute" and operation.dispute != "warning" and operation.parent is not None
    )
    charges = books.of(Charge)
    booked = sorted(
        (reference_of_record(books.scope_key, charges[one.charge]), one.reference, one.amount_minor, one.inquiry)
        for one in books.of(Dispute).values()
    )
    if booked != [one for one in told if one[0].startswith(books.scope_key)]:
        fail("disputes", f"the bank has the disputes {told}, the books {booked}")
    for charge in charges.values():
        disputes = sorted(dispute.id for dispute in books.of(Dispute).values() if dispute.charge == charge.id)
        if disputes != sorted(charge.disputes.values()):
            fail("disputes", f"{charge.id} with {charge.disputes} has the disputes {disputes}")


def _check_references(books: Books, operations: list[BankOperation]) -> None:
    """Each record has its operation at the bank, and each operation its record: nothing twice, nothing of its own."""
    key = books.scope_key
    charges = {reference_of_record(key, charge): charge for charge in books.of(Charge).values()}
    refunds = {reference_of_record(key, refund): refund for refund in books.of(Refund).values()}
    captures: Counter[str] = Counter()
    for operation in operations:
        reference = operation.reference
        performed = operation.status in PAID
        parent = charges.get(operation.parent or "")
        match operation.kind:
            case "authorization":
                charge = charges.get(reference)
                if charge is None:
                    fail("performed once", f"the bank has the authorization {reference}, and no such charge is there")
                elif (charge.status == "succeeded") != performed:
                    fail("declined", f"{charge.id} is {charge.status}, and the bank says {operation.status}")
            case "refund":
                refund = refunds.get(reference)
                if refund is None:
                    fail("performed once", f"the bank has the refund {reference}, and there is no such refund")
                elif (refund.status == "succeeded") != performed:
                    fail("declined", f"{refund.id} is {refund.status}, and the bank says {operation.status}")
            case "capture" if performed:
                captures[operation.parent or ""] += operation.amount
                if (
                    parent is None
                    or captures[operation.parent or ""] > parent.captured_minor
                    or (not parent.captures and parent.captured_minor != operation.amount)
                ):
                    fail("performed once", f"the bank has the capture {reference}, and its charge does not")
            case "void" if performed:
                if parent is None or not 0 < parent.released_minor == parent.amount_minor - parent.captured_minor:
                    fail("performed once", f"the bank has the void {reference}, and its charge does not")
            case _:
                pass


def _check_charges(books: Books, operations: list[BankOperation]) -> None:
    known = {operation.reference: operation for operation in operations}
    for charge in books.of(Charge).values():
        found = known.get(reference_of_record(books.scope_key, charge))
        if charge.method_type == CREDIT:
            if found is not None:
                fail("bank", f"{charge.id} was paid with credit, and the bank has it: {found}")
            continue
        if charge.status == "succeeded" and (found is None or found.authorized != charge.amount_minor):
            fail("bank", f"{charge.id} succeeded with {charge.amount_minor}; the bank says {found}")
        taken = (charge.captured_minor, charge.refunded_minor)
        if charge.status == "succeeded" and found is not None and (found.captured, found.refunded) != taken:
            fail("bank", f"{charge.id}: {charge.captured_minor}, {charge.refunded_minor}; the bank says {found}")


def _check_money(books: Books, operations: list[BankOperation]) -> None:
    by_credit = {charge.id for charge in books.of(Charge).values() if charge.method_type == CREDIT}
    charges = [charge for charge in books.of(Charge).values() if charge.id not in by_credit]
    from_balance = [payout for payout in books.of(Payout).values() if payout.funding == "balance"]
    refunds = [one for one in books.of(Refund).values() if one.status == "succeeded" and one.entry is not None]
    payments = [one for one in books.of(PaymentIntent).values() if one.latest_charge not in by_credit]
    disputes = [one for one in books.of(Dispute).values() if not one.inquiry and one.status != "won"]

    bank = _held_by_the_bank(books.scope_key, operations, from_balance)
    bank.subtract(_withheld_by_the_bank(books, operations))
    accounts = _accounts(books)
    taken = _sums((one.currency, one.captured_minor - one.refunded_minor) for one in charges)
    fees = _sums((one.currency, _fee_of(one.captured_minor)) for one in charges if one.captured_minor)
    fees += _sums((one.currency, DISPUTE_FEE_MINOR) for one in disputes)
    withheld = _sums((one.currency, one.amount_minor) for one in disputes)
    lost = _sums((one.currency, one.amount_minor) for one in disputes if one.status == "lost")
    refunded = _sums((one.currency, one.amount_minor) for one in refunds)
    received = _sums((one.currency, one.received_minor) for one in payments)
    paid_out = _sums((one.currency, one.amount_minor) for one in from_balance if one.status == "paid")
    for currency in {*bank, *taken, *received, *(place for account in accounts.values() for place in account)}:
        three = {
            "bank": bank[currency],
            "ledger": sum(accounts[account][currency] for account in _WHERE_MONEY_IS) + accounts["disputes"][currency],
            "charges": taken[currency] - withheld[currency] - paid_out[currency],
            "payments": received[currency] - refunded[currency] - withheld[currency] - paid_out[currency],
            "merchant and fees": -sum(accounts[account][currency] for account in ("merchant", "fees")),
        }
        if len(set(three.values())) != 1:
            fail("money", f"{books.scope_key} {currency}: {three}")
        if -accounts["fees"][currency] != fees[currency]:
            fail("money", f"{books.scope_key} {currency}: fees {-accounts['fees'][currency]}, due {fees[currency]}")
        if -accounts["disputes"][currency] != withheld[currency] - lost[currency]:
            held, due = -accounts["disputes"][currency], withheld[currency] - lost[currency]
            fail("money", f"{books.scope_key} {currency}: open disputes withhold {due}, the ledger {held}")
        if accounts["refunds"][currency] != 0:
            fail(
                "money",
                f"{books.scope_key} {currency}: {accounts['refunds'][currency]} left in the clearing of refunds",
            )


_WHERE_MONEY_IS = ("receivable:simulator", f"receivable:{SECOND}", "bank", "provider_fees")


def _check_settlements(books: Books) -> None:
    """The bank and the fees of providers are those of the settlements, each of which is booked once."""
    booked, accounts = books.of(Settlement).values(), _accounts(books)
    sums = {
        "bank": _sums((one.currency, one.amount_minor) for one in booked),
        "provider_fees": _sums((one.currency, one.fee_minor) for one in booked),
    }
    for account, due in sums.items():
        for currency in {*due, *accounts[account]}:
            if due[currency] != accounts[account][currency]:
                told = f"settlements make {due[currency]} of {account}, the ledger {accounts[account][currency]}"
                fail("settlements", f"{books.scope_key} {currency}: {told}")
    references = [(one.connector, one.reference) for one in booked]
    if len(set(references)) != len(references):
        fail("settlements", f"{books.scope_key}: a settlement is booked twice: {sorted(map(str, references))}")


_FEE = Fee()


def _fee_of(captured_minor: int) -> int:
    return fee_minor(captured_minor, rate_bps=_FEE.rate_bps, fixed_minor=_FEE.fixed_minor)


def _held_by_the_bank(
    scope_key: str, operations: Iterable[BankOperation], from_balance: Iterable[Payout]
) -> Counter[str]:
    """Captures minus refunds and payouts `from_balance`, in minor units by currency."""
    payouts = {reference_of_record(scope_key, payout) for payout in from_balance}
    held: Counter[str] = Counter()
    for operation in operations:
        if operation.status not in PAID:
            continue
        if operation.kind == "capture" or (operation.kind == "authorization" and operation.capture):
            held[operation.currency] += operation.amount
        elif operation.kind == "refund" or (operation.kind == "payout" and operation.reference in payouts):
            held[operation.currency] -= operation.amount
    return held


def _withheld_by_the_bank(books: Books, operations: Iterable[BankOperation]) -> Counter[str]:
    """The chargebacks that the bank has not returned, in minor units by currency. Where it contradicts an outcome that
    was booked, the amount of the open item counts as booked."""
    booked = {one.reference: one for one in books.of(Dispute).values()}
    explained = {(item.subject, item.theirs) for item in books.of(OpenItem).values()}
    withheld: Counter[str] = Counter()
    for operation in operations:
        if operation.kind != "dispute" or operation.dispute != "chargeback":
            continue
        ours, returned = booked.get(operation.reference), operation.verdict == "Won"
        if ours is not None and (ours.id, operation.verdict.lower()) in explained:
            returned = ours.status == "won"
        if not returned:
            withheld[operation.currency] += operation.amount
    return withheld


def _sums(amounts: Iterable[tuple[str, int]]) -> Counter[str]:
    """The sum of (currency, minor units) by currency."""
    sums: Counter[str] = Counter()
    for currency, minor in amounts:
        sums[currency] += minor
    return sums


def _accounts(books: Books) -> dict[str, Counter[str]]:
    """Sum the postings by `<account>/<currency>`."""
    accounts: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in books.of(Entry).values():
        if sum(posting.amount_minor for posting in entry.postings) != 0:
            fail("ledger", f"{entry.id} does not add up to nothing")
        for posting in entry.postings:
            accounts[posting.account][entry.currency] += posting.amount_minor
    return accounts


def _check_payouts(books: Books, operations: list[BankOperation], now: int) -> None:
    """Payouts, the bank and the ledger tell the same; and no more went out than had come in."""
    known = {operation.reference: operation for operation in operations if operation.kind == "payout"}
    out: Counter[str] = Counter()
    from_provider: Counter[str] = Counter()
    for payout in books.of(Payout).values():
        if payout.status not in ("paid", "failed", "canceled") or payout.attempt is not None:
            fail("liveness", f"{payout.id} is {payout.status} with {payout.attempt}")
        operation = known.pop(reference_of_record(books.scope_key, payout), None)
        if payout.status == "canceled" and operation is not None:
            fail("cancelled", f"{payout.id} was cancelled, and the bank has it: {operation.status}")
        performed = operation is not None and operation.status in PAID
        if (payout.status == "paid") != performed:
            fail("payouts", f"{payout.id} is {payout.status}, and the bank says {operation and operation.status}")
        if performed and operation is not None and operation.amount != payout.amount_minor:
            fail("payouts", f"{payout.id} is about {payout.amount_minor}, and the bank paid {operation.amount}")
        if payout.status == "paid":
            (out if payout.funding == "balance" else from_provider)[payout.currency] += payout.amount_minor
    for reference in known:
        fail("performed once", f"the bank has the payout {reference}, and there is no such payout")
    accounts = _accounts(books)
    came_in: Counter[str] = Counter()
    for entry in books.of(Entry).values():
        if entry.type in ("charge", "payment") and availability(entry) <= now:
            came_in[entry.currency] += entry.net_minor
    for currency in {*out, *from_provider, *accounts["payouts"], *accounts["disbursements"]}:
        if out[currency] > max(came_in[currency], 0):
            fail("overdrawn", f"{books.scope_key} {currency}: {out[currency]} paid out of {came_in[currency]}")
        if accounts["payouts"][currency] != 0:
            left = accounts["payouts"][currency]
            fail("money", f"{books.scope_key} {currency}: {left} left in the clearing of payouts")
        three = (
            from_provider[currency],
            accounts["disbursements"][currency],
            -accounts["provider:simulator"][currency],
        )
        if len(set(three)) != 1:
            fail("money", f"{books.scope_key} {currency}: disbursed, in the ledger, taken from the bank: {three}")


def _check_external_accounts(books: Books) -> None:
    """Each currency has one default account, and only accounts and payouts under way keep a number."""
    kept = {account.vault for account in books.of(ExternalAccount).values() if account.vault is not None}
    accounts_of = Counter(account.currency for account in books.of(ExternalAccount).values())
    defaults = Counter(one.currency for one in books.of(ExternalAccount).values() if one.default_for_currency)
    if defaults != Counter(dict.fromkeys(accounts_of, 1)):
        fail("one default", f"{books.scope_key}: of {dict(accounts_of)} accounts the defaults are {dict(defaults)}")
    for payout in books.of(Payout).values():
        if payout.recipient.vault is not None:
            fail("sealed", f"{payout.id} is {payout.status} and still has its recipient's number")
    if not kept <= books.of(SealedRecord).keys():
        fail("sealed", f"{books.scope_key}: an external account has lost its number")


def _check_credit(books: Books) -> None:
    """Stored credit three ways: customers' balances, their movements, and the ledger; and each movement its reason."""
    balances: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    for movement in books.of(CustomerBalanceTransaction).values():
        moved[movement.customer] += movement.amount_minor
        if movement.source is not None:
            sources[movement.source] += movement.amount_minor
    for customer in books.of(Customer).values():
        balances[customer.currency or ""] += customer.balance_minor
        if moved[customer.id] != customer.balance_minor:
            fail(
                "credit", f"{customer.id} has {customer.balance_minor}, and its movements come to {moved[customer.id]}"
            )
    accounts = _accounts(books)
    for currency in {*balances, *accounts["credits"]}:
        three = (balances[currency], accounts["credits"][currency], -accounts["credit_funding"][currency])
        if len(set(three)) != 1:
            fail("credit", f"{books.scope_key} {currency}: customers have, the ledger owes, and was funded: {three}")
    due = {charge.id: charge.captured_minor for charge in books.of(Charge).values() if charge.method_type == CREDIT}
    due |= {refund.id: -refund.amount_minor for refund in books.of(Refund).values() if refund.method_type == CREDIT}
    for id, amount_minor in due.items():
        if sources[id] != amount_minor:
            fail("credit", f"{id} is about {amount_minor}, and the credit moved by {sources[id]} for it")


def _check_events(books: Books) -> None:
    told: Counter[tuple[str, str]] = Counter()
    for event in books.of(Event).values():
        shown = msgspec.json.decode(event.object)
        told[event.type, shown["id"]] += 1
        if event.type == "refund.updated" and shown.get("status") == "succeeded":
            told["refund succeeded", shown["id"]] += 1

    def expect(type: str, id: str, times: int) -> None:
        if told[type, id] != times:
            fail("events", f"{type} of {id} was told {told[type, id]} times instead of {times}")

    for payment in books.of(PaymentIntent).values():
        listed = payment.listed
        expect("payment_intent.created", payment.id, int(listed))
        expect("payment_intent.succeeded", payment.id, int(listed and payment.status == "succeeded"))
        expect("payment_intent.canceled", payment.id, int(listed and payment.status == "canceled"))
        debits = sum(
            charge.payment == payment.id and charge.method_type in DEBITS for charge in books.of(Charge).values()
        )
        expect("payment_intent.processing", payment.id, debits)
    # A refund without an entry of its own releases an authorization, as a void does, or goes to stored credit.
    moving = (one for one in books.of(Refund).values() if one.entry is not None or one.method_type == CREDIT)
    refunds = Counter(refund.charge for refund in moving)
    for charge in books.of(Charge).values():
        expect("charge.pending", charge.id, int(charge.method_type in DEBITS))
        expect("charge.succeeded", charge.id, int(charge.status == "succeeded"))
        expect("charge.failed", charge.id, int(charge.status == "failed"))
        voided = charge.status == "succeeded" and not charge.captured and charge.released_minor > 0
        reason = books.of(PaymentIntent)[charge.payment].cancellation_reason
        expect("charge.expired", charge.id, int(voided and reason == "expired"))
        expect("charge.refunded", charge.id, refunds[charge.id] + voided)
    for payout in books.of(Payout).values():
        expect("payout.created", payout.id, 1)
        expect("payout.failed", payout.id, int(payout.status == "failed"))
        expect("payout.canceled", payout.id, int(payout.status == "canceled"))
        if payout.status == "paid":
            expect("payout.paid", payout.id, 1)
    for dispute in books.of(Dispute).values():
        expect("charge.dispute.created", dispute.id, 1)
        expect("charge.dispute.funds_withdrawn", dispute.id, int(not dispute.inquiry))
        expect("charge.dispute.funds_reinstated", dispute.id, int(dispute.status == "won"))
    for item in books.of(OpenItem).values():
        expect("open_item.created", item.id, 1)
    for refund in books.of(Refund).values():
        expect("refund.created", refund.id, 1)
        expect("refund.failed", refund.id, int(refund.status == "failed"))


def _check_answers(world: World, books: Books) -> None:
    made: Counter[str] = Counter()
    for payment in books.of(PaymentIntent).values():
        made[payment.metadata.get("request", "")] += 1
    for payout in books.of(Payout).values():
        made[payout.metadata.get("request", "")] += 1
    for movement in books.of(CustomerBalanceTransaction).values():
        if movement.type == "adjustment":
            made[movement.metadata.get("request", "")] += 1
    for asked in world.asked:
        if asked.scope.key != books.scope_key:
            continue
        given = {answer.body for answer in asked.answers if answer.status in (200, 402)}
        if len(given) > 1 and asked.key is not None:
            fail("same answer", f"{asked.who} was told {' and then '.join(sorted(body.decode() for body in given))}")
        if made[asked.who] > 1:
            fail("one payment", f"{asked.who} made {made[asked.who]} payments, payouts or adjustments")
        for answer in asked.answers:
            if answer.status == 200:
                _check_promise(books, asked.who, answer.document)


def _check_promise(books: Books, who: str, told: dict[str, Any]) -> None:
    """Every answer that a client got still holds."""
    id, status = told.get("id", ""), told.get("status")
    kinds: dict[str, type[Record]] = {
        "payment_intent": PaymentIntent,
        "charge": Charge,
        "refund": Refund,
        "payout": Payout,
    }
    if told.get("object") not in kinds:
        return
    record: Any = books.of(kinds[told["object"]]).get(id)
    if record is None:
        fail("promise", f"{who} was told of {id}, and there is no such {told['object']}")
    elif status in FINAL and record.status != status and told["object"] != "refund":
        fail("promise", f"{who} was told that {id} is {status}, and it is {record.status}")
    elif not told["metadata"].items() <= record.metadata.items():
        fail("promise", f"{who} was told that {id} has {told['metadata']}, and it has {record.metadata}")
