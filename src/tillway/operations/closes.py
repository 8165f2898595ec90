"""The daily close: gather a day's movements from the ledger, compare them with the statements, keep and decide the
result (`domain/close.py`)."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from tillway.connectors.file_port import FileRejected
from tillway.connectors.settlement_reports import read_settlements
from tillway.connectors.statements import read_statement
from tillway.domain import close as closes
from tillway.domain.account import scope_of
from tillway.domain.attempt import reference_from_name
from tillway.domain.charge import Charge
from tillway.domain.close import BANK, Close, Decision, Difference, Line, Movement, close_id
from tillway.domain.dispute import Dispute
from tillway.domain.ledger import Entry
from tillway.domain.payout import Payout
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refund import Refund
from tillway.domain.refusal import Refused
from tillway.domain.settlement import Reported, Settlement
from tillway.engine.caller import Caller
from tillway.engine.connections import SIMULATOR
from tillway.engine.core import Done, Load
from tillway.engine.ids import time_prefix
from tillway.engine.platform import Platform
from tillway.operations import settlements
from tillway.operations.balance_check import check_balances
from tillway.store.codec import decode
from tillway.store.port import Store
from tillway.store.walk import merchant_scopes, pages_of, records_of

log = logging.getLogger(__name__)

Statements = Mapping[str, Sequence[tuple[str, bytes]]]
"""The files of each place: `bank` or a connector's name, with names and contents."""

NIGHT_HOUR: Final = 2
"""The hour of the day (UTC) from which the task closes the day before: banks' files have arrived by then."""

NIGHTS: Final = 7
"""So many days back the task closes again where files came later."""

_PREFIXES: Final = ("txn", "je")

RECEIVABLE: Final = "receivable:"
DISPUTES: Final = "disputes"


async def close_day(platform: Platform, caller: Caller, day: str, statements: Statements) -> Done[Close]:
    """Close a day (UTC) of the caller's merchant and mode, or close it again, with the statements at hand.

    Settlement reports among them are no statements of a day: the settlements that they tell are booked first.
    Decisions that were made about the same differences stay. Refused `parameter_invalid_string` for a day that is not
    over, and `statement_invalid` for a file that cannot be read.
    """
    closes.check_day(day, today=datetime.fromtimestamp(platform.engine.clock.now_ms() / 1000, UTC).date())
    reports, rest = split_reports(statements)
    lines = read_lines(rest)
    reported = await _book_reports(platform, caller, reports)
    checked = await check_balances(platform.engine, caller.scope_key)
    own = await movements_of(platform.engine.store, caller.scope_key, day)
    digests = digests_of(statements)
    earlier = await _last_before(platform.engine.store, caller.scope_key, day)

    async def work(load: Load, at: Moment) -> Changes[Close]:
        return closes.make(
            day,
            own=own,
            carried=earlier.waiting if earlier is not None else (),
            lines=lines,
            settlements=reported,
            ledger=checked.differences,
            statements=digests,
            before=await load.maybe(Close, close_id(day)),
            by=caller.actor,
            at=at,
        )

    return await platform.engine.run(caller, work)


async def decide(platform: Platform, caller: Caller, day: str, difference: str, decision: Decision) -> Done[Close]:
    """Decide a difference of a close, as `domain/close.py` says, in each day's close that shows it. `caller` has the
    reason."""
    others = [
        close.id
        async for close in records_of(platform.engine.store, caller.scope_key, Close)
        if close.day != day and any(each.id == difference for each in close.differences)
    ]

    async def work(load: Load, at: Moment) -> Changes[Close]:
        found = await load.get(Close, close_id(day))
        also = [await load.get(Close, id) for id in others]
        return closes.decide(found, difference, decision, also=also, reason=caller.reason or "", by=caller.actor, at=at)

    return await platform.engine.run(caller, work)


def read_lines(statements: Statements) -> list[Line]:
    """Read all lines. Raises `Refused`, which names the file, the line and the fault."""
    lines: list[Line] = []
    for place, files in statements.items():
        for name, content in files:
            try:
                lines += read_statement(content, place=place, name=name)
            except FileRejected as rejected:
                raise Refused("statement_invalid", str(rejected), param="statements") from None
    return lines


def split_reports(statements: Statements) -> tuple[dict[str, list[Reported]], dict[str, list[tuple[str, bytes]]]]:
    """The settlements that providers' reports tell, by connector, and the files that are statements of a day.

    Raises `Refused`, as `read_lines`.
    """
    reports: dict[str, list[Reported]] = {}
    rest: dict[str, list[tuple[str, bytes]]] = {}
    for place, files in statements.items():
        for name, content in files:
            try:
                told = read_settlements(content, name=name) if place != BANK else None
            except FileRejected as rejected:
                raise Refused("statement_invalid", str(rejected), param="statements") from None
            if told is None:
                rest.setdefault(place, []).append((name, content))
            else:
                reports.setdefault(place, []).extend(told)
    return reports, rest


async def _book_reports(
    platform: Platform, caller: Caller, reports: Mapping[str, Sequence[Reported]]
) -> list[closes.Difference]:
    """Book the settlements that reports tell. Return the differences of those that could not be."""
    found: dict[str, closes.Difference] = {}
    for connector, told in reports.items():
        taken = await settlements.book_reported(platform, caller, connector, told)
        found |= {difference.id: difference for difference in taken.differences}
    return list(found.values())


def digests_of(statements: Statements) -> list[str]:
    return [
        f"{place}:{name}:{sha256(content).hexdigest()}"
        for place, files in statements.items()
        for name, content in files
    ]


async def movements_of(store: Store, scope_key: str, day: str) -> list[Movement]:
    """The movements of a day at providers and at the bank, from the ledger. The simulator states nothing: its money is
    left out."""
    start, end = closes.bounds(day)
    found: list[Movement] = []
    for prefix in _PREFIXES:
        head = f"{scope_key}/{prefix}_"
        after, until = f"{head}{time_prefix(start)}", f"{head}{time_prefix(end)}"
        async for rows in pages_of(store, head, after=after, until=until):
            for row in rows:
                entry = decode(row.key[len(scope_key) + 1 :], row.body)
                if isinstance(entry, Entry) and start <= entry.created < end:
                    found += await _movements(store, scope_key, day, entry)
    return found


async def _movements(store: Store, scope_key: str, day: str, entry: Entry) -> list[Movement]:
    accounts = {posting.account for posting in entry.postings} - {f"{RECEIVABLE}{SIMULATOR}"}
    moved = any(account in (BANK, DISPUTES) or account.startswith(RECEIVABLE) for account in accounts)
    if not moved or (entry.source or "").startswith("cls_"):
        return []
    source = await _source(store, scope_key, entry.source)
    fee_minor = source.fee_minor if isinstance(source, Settlement) else 0
    movements = [
        Movement(
            place=place,
            entry=entry.id,
            source=entry.source or entry.id,
            day=day,
            # The provider states the amount that it paid for a settlement, and its fees line by line.
            amount_minor=amount_minor + (0 if place == BANK else fee_minor),
            currency=entry.currency,
            references=_references(scope_key, entry, source),
            fee_minor=0 if place == BANK else fee_minor,
        )
        for place, amount_minor in _came(entry, source).items()
    ]
    return [movement for movement in movements if movement.amount_minor]


def _came(entry: Entry, source: Record | None) -> dict[str, int]:
    """Sum the money that an entry brought to each place (negative: took from it), in minor units.

    A provider takes disputed money when the dispute begins, and the books keep it on `disputes` until the dispute is
    lost: that account is money at the provider, too.
    """
    came: Counter[str] = Counter()
    for posting in entry.postings:
        if posting.account == BANK:
            came[BANK] += posting.amount_minor
        elif posting.account.startswith(RECEIVABLE):
            came[posting.account.removeprefix(RECEIVABLE)] += posting.amount_minor
        elif posting.account == DISPUTES and isinstance(source, Dispute):
            came[source.connector] += posting.amount_minor
    return {
        place: amount_minor for place, amount_minor in came.items() if amount_minor and place not in ("", SIMULATOR)
    }


async def _source(store: Store, scope_key: str, id: str | None) -> Record | None:
    row = await store.get(f"{scope_key}/{id}") if id is not None else None
    return decode(id, row.body) if id is not None and row is not None else None


def _references(scope_key: str, entry: Entry, source: Record | None) -> tuple[str, ...]:
    """All by which a statement may name the movement of an entry."""
    named: list[str | None] = [entry.id, entry.source]
    match source:
        case Charge():
            named += [source.payment, source.bank_id]
            part = next((part for part in source.captures if part.entry == entry.id), None)
            names = [source.reference] if part is None else [part.reference]
            named += [reference_from_name(scope_key, name) for name in names if name]
        case Refund() | Payout():
            # An attempt without a key's reference has the suffix of its subject's id.
            named += [reference_from_name(scope_key, source.reference or source.id.rpartition("_")[2])]
        case Dispute():
            named += [source.reference or None]
        case Settlement():
            named += [source.reference]
    return tuple(dict.fromkeys(each for each in named if each))


async def _last_before(store: Store, scope_key: str, day: str) -> Close | None:
    """The newest close of an earlier day."""
    rows = await store.query(None, f"{scope_key}/cls_", after=f"{scope_key}/{close_id(day)}", limit=1)
    if not rows:
        return None
    found = decode(rows[0].key.partition("/")[2], rows[0].body)
    assert isinstance(found, Close)
    return found


# The task of each night.


async def close_nights(platform: Platform, directory: Path) -> None:
    """Close the last days of every merchant that have files in `directory` or moved money, where that is due.

    The files of a day lie in `<account>/<mode>/<day>/`; their names begin with `bank` or a connector's name, and a dot.
    A day is closed again when its files have changed. A file that cannot be read is an error in the log. The settlement
    reports of days that are not closed yet are booked at once, since their money can be paid out.
    """
    now = datetime.fromtimestamp(platform.engine.clock.now_ms() / 1000, UTC)
    last = (now - timedelta(days=1, hours=NIGHT_HOUR)).date()
    for scope_key in await merchant_scopes(platform.engine.store):
        scope = scope_of(scope_key)
        await _book_early(platform, scope_key, directory, [last + timedelta(days=1), now.date()])
        made = {close.day: close async for close in records_of(platform.engine.store, scope_key, Close)}
        for back in range(NIGHTS - 1, -1, -1):
            day = (last - timedelta(days=back)).isoformat()
            statements = read_files(directory / scope.account / scope.mode / day)
            before = made.get(day)
            if before is not None and before.statements == tuple(sorted(digests_of(statements))):
                continue
            if before is None and not statements and not await movements_of(platform.engine.store, scope_key, day):
                continue
            caller = Caller.system(scope, "the daily close")
            try:
                done = await close_day(platform, caller, day, statements)
            except Refused as refused:
                log.error("a day cannot be closed", extra={"scope": scope_key, "day": day, "why": refused.message})
                continue
            if done.record.status != "tied":
                log.warning(
                    "a day is not tied: `tillway closes show` says why",
                    extra={"scope": scope_key, "day": day, "status": done.record.status},
                )


async def _book_early(platform: Platform, scope_key: str, directory: Path, days: Sequence[date]) -> None:
    """Book the settlements that reports of `days` tell."""
    scope = scope_of(scope_key)
    for day in dict.fromkeys(days):
        statements = read_files(directory / scope.account / scope.mode / day.isoformat())
        caller = Caller.system(scope, "settlement reports")
        try:
            left = await _book_reports(platform, caller, split_reports(statements)[0])
        except Refused as refused:
            extra = {"scope": scope_key, "day": day.isoformat(), "why": refused.message}
            log.error("a settlement report cannot be read", extra=extra)
            continue
        for difference in left:
            log.warning(
                "a reported settlement is not booked as reported",
                extra={"scope": scope_key, "line": difference.line, "why": difference.told},
            )


def read_files(directory: Path) -> dict[str, list[tuple[str, bytes]]]:
    """The statements in a day's directory, by place; none where it is missing."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    for file in sorted(directory.glob("*")) if directory.is_dir() else ():
        if file.is_file() and not file.name.startswith("."):
            found.setdefault(place_of(file.name), []).append((file.name, file.read_bytes()))
    return found


def place_of(name: str) -> str:
    """The place of a statement by its file's name: `bank.2.xml` is the bank's, `stripe.csv` that connector's."""
    return name.partition(".")[0]


def describe(close: Close) -> dict[str, Any]:
    """The JSON object of a close, for the API and commands."""
    return {
        "id": close.id,
        "object": "close",
        "closed_by": close.by,
        "created": close.created,
        "day": close.day,
        "differences": [_difference(each) for each in close.differences],
        "differences_more": close.more,
        "ledger_disagrees": list(close.ledger),
        "status": close.status,
        "sums": [
            {
                "place": part.place,
                "currency": part.currency,
                "books": part.books_minor,
                "statement": part.statement_minor,
            }
            for part in close.sums
        ],
        "waiting": [
            {
                "place": movement.place,
                "day": movement.day,
                "source": movement.source,
                "amount": movement.amount_minor,
                "currency": movement.currency,
            }
            for movement in close.waiting
        ],
        "without_statement": close.without_statement,
    }


def _difference(each: Difference) -> dict[str, Any]:
    return {
        "id": each.id,
        "kind": each.kind,
        "place": each.place,
        "currency": each.currency,
        "books": each.books_minor,
        "statement": each.statement_minor,
        "source": each.source,
        "line": each.line,
        "message": each.told,
        "decision": each.decision,
        "decided_by": each.by,
        "reason": each.reason,
        "entry": each.booked,
    }
