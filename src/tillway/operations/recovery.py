"""After a restore: fetch the operations that the providers know since the backup, and book them.

An operation that the store knows is booked as if the provider had sent a notice about it. One that nothing here
explains is never guessed to be a payment: it becomes an open item. If its reference follows from an Idempotency-Key,
the item is closed when the client repeats the request, because the provider then answers with that operation.
"""

import re
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Final, Literal, get_args

import msgspec

from tillway.connectors.port import Declined, Notice, NoticeImpossible, NoticeUndecided, Succeeded
from tillway.domain.account import SYSTEM, Account, Mode, Scope
from tillway.domain.attempt import TAIL_LENGTH
from tillway.domain.charge import Charge
from tillway.domain.connector_config import ConnectorConfig
from tillway.domain.open_item import OpenItem, item_id, open_item, tail_of
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record
from tillway.domain.settled_operation import SettledOperation
from tillway.engine.attempts import Attempts, Connection
from tillway.engine.caller import Caller
from tillway.engine.core import Load
from tillway.engine.ids import SUFFIX_LENGTH
from tillway.engine.notices import agrees, word_of
from tillway.engine.references import Known, find_by_tail, infer_settled, split
from tillway.operations import notices

OVERLAP_SECONDS: Final = 3600
"""How long before the end of the store the list begins: clocks differ, and requests were on their way."""

PAGES_MAX: Final = 100_000
OPERATIONS_MAX: Final = 1_000_000
LIST_SECONDS_MAX: Final = 3600.0
"""Bounds of one list. A longer list counts as one without an end: `--since` asks for less."""

_TAIL = re.compile(rf"[0-9A-Za-z]{{{SUFFIX_LENGTH},{TAIL_LENGTH}}}")

Verdict = Literal["agrees", "booked", "waits", "unexplained", "no_money", "foreign", "decide"]
"""`agrees`: the store has it. `booked`: the store has it, and books its news. `waits`: nothing explains it until its
client repeats the request. `unexplained`: nothing will. `no_money`: nothing explains it, and it was declined.
`foreign`: it is not of this installation. `decide`: a person must look at it."""


class Found(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One operation in a provider's list. `subject` is the record here that has it, or its payment."""

    verdict: Verdict
    reference: str
    kind: str
    status: str = ""
    amount_minor: int | None = None
    currency: str | None = None
    account: str | None = None
    subject: str | None = None
    why: str = ""


class Explained:
    """The captures, voids and increments of known authorizations that are explained already, one of each a charge."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, str], str] = {}

    def take(self, charge: Charge, kind: str, reference: str) -> bool:
        """Whether the charge's state explains this operation, and no other."""
        return self._taken.setdefault((charge.id, kind), reference) == reference


def _is_part(charge: Charge, tail: str, amount_minor: int | None) -> bool:
    """Whether one of the charge's several captures has that reference and amount."""
    return any(
        part.reference.removeprefix("att_") == tail and part.amount_minor == amount_minor for part in charge.captures
    )


def _needs_more(charge: Charge, dispute: Notice) -> bool:
    """Whether a further capture of the charge has to be booked before the dispute."""
    return not charge.captured and (dispute.amount_minor or 0) > charge.captured_minor


async def list_operations(connection: Connection, attempts: Attempts, since: int) -> AsyncIterator[Notice | Found]:
    """Every operation since a moment (epoch seconds). Raises `NoticeUndecided` if the provider cannot be asked, or if
    its list does not end."""
    began_ns, told = attempts.engine.clock.monotonic_ns(), 0
    after: str | None = None
    passed: set[str] = set()
    for _ in range(PAGES_MAX):
        page = await attempts.list_operations(connection, since, after)
        for why in page.unreadable:
            yield Found(verdict="decide", reference=why.partition(": ")[0], kind="unknown", why=why)
        for notice in page.notices:
            # The list was told just now: its times are not those of notices.
            yield msgspec.structs.replace(notice, created=None)
        if page.after is None:
            return
        after, told = page.after, told + len(page.notices) + len(page.unreadable)
        if after in passed:
            raise NoticeUndecided(f"its list does not end: it comes back to {after[:40]}")
        passed.add(after)
        if told > OPERATIONS_MAX:
            raise NoticeUndecided(f"its list does not end within {OPERATIONS_MAX:,} operations; ask for less: --since")
        if attempts.engine.clock.monotonic_ns() - began_ns > LIST_SECONDS_MAX * 1e9:
            raise NoticeUndecided(f"its list does not end within {LIST_SECONDS_MAX:.0f} seconds; ask for less: --since")
    raise NoticeUndecided(f"its list does not end within {PAGES_MAX:,} pages; ask for less: --since")


class Recovery:
    """One pass over the providers' lists. With `actor`, it books what it finds; without one, it only looks."""

    def __init__(self, attempts: Attempts, *, actor: str | None = None) -> None:
        self._attempts = attempts
        self._engine = attempts.engine
        self._actor = actor
        self._accounts: dict[str, bool] = {}
        self._explained = Explained()
        unexplained = attempts.engine.restores.unexplained
        self._items = unexplained if actor is not None else unexplained.copy()

    async def judge(
        self, connection: Connection, mode: str, told: AsyncIterator[Notice | Found]
    ) -> AsyncIterator[Found]:
        """Compare a list with the store, and book its news if this pass books. Operations of the other mode are left
        out.

        Those that the store has by their references come first, so that no other is taken for them. Then the rest of
        each charge explains the accepted ones, then the declined ones. Disputes are last: they may have to wait for
        a capture that nothing explains.
        """
        left: tuple[list[Notice], list[Notice], list[Notice]] = ([], [], [])
        async for notice in told:
            if isinstance(notice, Found):
                yield notice
                continue
            found = await self._judge_known(connection, mode, notice)
            if isinstance(found, Found):
                yield found
            elif found == "later":
                declined = isinstance(notice.outcome, Declined)
                left[2 if notice.kind == "dispute" else 1 if declined else 0].append(notice)
        for notice in (*left[0], *left[1], *left[2]):
            yield await self._judge_rest(connection, notice)

    async def _judge_known(
        self, connection: Connection, mode: str, notice: Notice
    ) -> Found | Literal["other_mode", "later"]:
        """Judge an operation that the store has by its reference; `later` for any other, and for disputes."""
        parts = split(notice.reference)
        if parts is None or not _TAIL.fullmatch(parts[1]) or not await self._is_here(parts[0]):
            return _report_line(notice, "foreign", why="not a reference of a merchant of this installation")
        scope, tail = parts
        if scope.mode != mode:
            return "other_mode"
        if notice.kind == "dispute":
            return "later"
        outcome = notice.outcome
        if outcome is None:
            if notice.operation == "verify":
                return _report_line(notice, "no_money", scope)
            return _report_line(notice, "decide", scope, why="the list does not tell its outcome")
        load = self._engine.load(scope.key)
        known = await find_by_tail(load, tail)
        if known.attempt is not None:
            settles = isinstance(outcome, Succeeded | Declined)
            return await self._book(connection, scope, notice, "booked" if settles else "agrees", known.attempt.subject)
        settled = known.settled
        if settled is None and known.subject is not None:
            settled = await self._infer(load, tail, known, notice)
        if settled is None:
            return "later" if known.subject is None else _report_line(notice, "agrees", scope, subject=known.subject.id)
        kept = settled if isinstance(settled, SettledOperation) else None
        id = kept.subject if kept is not None else settled.id
        if not agrees(outcome, settled.status):
            return await self._book(connection, scope, notice, "booked", id)
        charge = await load.find(id) if kept is not None else None
        if kept is not None and isinstance(charge, Charge) and kept.status == "succeeded":
            # This is the one that the charge's state tells of.
            self._explained.take(charge, kept.kind, notice.reference)
        return _report_line(notice, "agrees", scope, subject=id)

    async def _judge_rest(self, connection: Connection, notice: Notice) -> Found:
        """Judge an operation that the store does not have by its reference, or a dispute."""
        parts = split(notice.reference)
        assert parts is not None, "it was judged before"
        scope, tail = parts
        load = self._engine.load(scope.key)
        known = await find_by_tail(load, tail)
        if notice.kind == "dispute":
            return await self._dispute(connection, scope, tail, notice, known)
        explaining = await self._explain_by_parent(load, notice)
        declined = isinstance(notice.outcome, Declined)
        if explaining is not None and declined and len(tail) != TAIL_LENGTH:
            # No accepted operation of the list explains the charge's state: this one does, and was taken back.
            return await self._book(connection, scope, notice, "booked", explaining.id)
        if explaining is not None and not declined:
            return _report_line(notice, "agrees", scope, subject=explaining.id)
        # A refund or payout may have been accepted first, and returned later.
        may_be_returned = len(tail) == TAIL_LENGTH and notice.operation in ("refund", "payout")
        if declined and not may_be_returned:
            return _report_line(notice, "no_money", scope)
        return await self._report_unexplained(connection, scope, tail, notice)

    async def _infer(self, load: Load, tail: str, known: Known, notice: Notice) -> SettledOperation | None:
        kind, amount_minor = notice.operation, notice.amount_minor
        return await infer_settled(load, tail, known, kind, parent=notice.parent, amount_minor=amount_minor)

    async def _is_here(self, scope: Scope) -> bool:
        known = self._accounts.get(scope.account)
        if known is None:
            found = await self._engine.load(SYSTEM).maybe(Account, scope.account)
            known = self._accounts[scope.account] = found is not None
        return known

    async def _dispute(self, connection: Connection, scope: Scope, tail: str, notice: Notice, known: Known) -> Found:
        charge = known.charge
        items = self._items.before_dispute(scope.key, tail, charge)
        if items and (charge is None or not charge.captured_minor or _needs_more(charge, notice)):
            verdict: Verdict = "waits" if len(tail_of(items[0])) == TAIL_LENGTH else "decide"
            return await self._book(connection, scope, notice, verdict, charge.payment if charge is not None else None)
        if charge is None:
            return _report_line(notice, "decide", scope, why="nothing here explains the disputed payment")
        verdict = "agrees" if notice.id in charge.disputes else "booked"
        return await self._book(connection, scope, notice, verdict, charge.id)

    async def _book(
        self, connection: Connection, scope: Scope, notice: Notice, verdict: Verdict, subject: str | None
    ) -> Found:
        """Book the operation's news as the notice that would have told it."""
        if self._actor is not None:
            try:
                await notices.book(self._attempts, notice, connection.name, scope.mode)
            except (NoticeImpossible, NoticeUndecided) as objection:
                return _report_line(notice, "decide", scope, subject=subject, why=str(objection))
        return _report_line(notice, verdict, scope, subject=subject)

    async def _explain_by_parent(self, load: Load, notice: Notice) -> Record | None:
        """The charge that has this capture, void or increment. Such an operation without a key leaves no record of its
        own."""
        charge = await self._parent(load, notice)
        if charge is None or charge.status != "succeeded":
            return None
        match notice.operation:
            case "capture" if charge.captures:
                parts = split(notice.reference)
                return charge if parts is not None and _is_part(charge, parts[1], notice.amount_minor) else None
            case "capture":
                explains = charge.captured and charge.captured_minor == notice.amount_minor
            case "void":
                explains = charge.released_minor > 0 and (bool(charge.captures) or not charge.captured)
            case "increment":
                explains = notice.amount_minor is not None and charge.amount_minor >= notice.amount_minor
            case _:
                return None
        if not explains:
            return None
        once = notice.operation == "increment" or self._explained.take(charge, notice.operation, notice.reference)
        return charge if once else None

    async def _parent(self, load: Load, notice: Notice) -> Charge | None:
        parts = split(notice.parent) if notice.parent is not None else None
        if parts is None or parts[0].key != load.scope_key:
            return None
        return (await find_by_tail(load, parts[1])).charge

    async def _report_unexplained(self, connection: Connection, scope: Scope, tail: str, notice: Notice) -> Found:
        charge = await self._parent(self._engine.load(scope.key), notice)
        subject = charge.payment if charge is not None else None
        verdict: Verdict = "waits" if len(tail) == TAIL_LENGTH else "unexplained"
        theirs = word_of(notice.outcome)
        item = OpenItem(
            id=item_id(tail, theirs),
            created=0,
            kind="unexplained",
            connector=connection.name,
            reference=notice.reference,
            ours="unknown",
            theirs=theirs,
            subject=subject,
            operation=notice.operation,
            parent=notice.parent,
            amount_minor=notice.amount_minor,
            currency=notice.currency.lower() if notice.currency is not None else None,
            notices=(msgspec.to_builtins(notice),) if isinstance(notice.outcome, Declined) else (),
        )

        async def work(load: Load, at: Moment) -> Changes[OpenItem | None]:
            if await load.maybe(OpenItem, item.id) is not None:
                return NO_CHANGES
            return open_item(msgspec.structs.replace(item, created=at.created))

        if self._actor is not None:
            await self._engine.run(Caller.system(scope, "recover", actor=self._actor), work)
        self._items.add(scope.key, item)
        return _report_line(notice, verdict, scope, subject=subject)


class Report(msgspec.Struct, kw_only=True):
    """The operations of one connector since a moment, or the reason why there are none."""

    connector: str
    mode: Mode
    lists: bool = True
    error: str = ""
    skipped: bool = False
    found: list[Found] = []

    @property
    def counts(self) -> dict[str, int]:
        """The number of operations by verdict."""
        return {verdict: sum(one.verdict == verdict for one in self.found) for verdict in get_args(Verdict)}


async def survey(
    recovery: Recovery, attempts: Attempts, configs: Sequence[ConnectorConfig], since: int, skip: Collection[str] = ()
) -> list[Report]:
    """Compare the list of each connector since a moment (epoch seconds) with the store. `skip` names connectors that
    are not asked."""
    reports = []
    for config in configs:
        report = Report(connector=config.name, mode=config.mode, found=[])
        reports.append(report)
        connection = await attempts.connections.named(config.name, Scope(account=SYSTEM, mode=config.mode))
        if connection is None:
            report.error = "it cannot be set up; the log says why"
        elif not connection.connector.capabilities.lists:
            report.lists = False
        elif config.name in skip:
            report.skipped = True
        else:
            try:
                told = list_operations(connection, attempts, since)
                async for found in recovery.judge(connection, config.mode, told):
                    report.found.append(found)
            except NoticeUndecided as undecided:
                report.error = str(undecided)
    return reports


def _report_line(
    notice: Notice, verdict: Verdict, scope: Scope | None = None, *, subject: str | None = None, why: str = ""
) -> Found:
    return Found(
        verdict=verdict,
        reference=notice.id if notice.kind == "dispute" else notice.reference,
        kind=notice.operation or notice.kind,
        status=notice.verdict if notice.kind == "dispute" else word_of(notice.outcome),
        amount_minor=notice.amount_minor,
        currency=notice.currency,
        account=scope.account if scope is not None else None,
        subject=subject,
        why=why,
    )
