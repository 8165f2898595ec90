"""The daily close: what banks and providers state of a day, compared with the books line by line.

The books of a day are the ledger's movements of money at a provider (`receivable:<connector>`) and at the merchant's
own bank (`bank`). A statement has lines of one such place. A line belongs to the movement whose reference it names;
everything that differs is named, stays until it is decided, and can be booked with a reason:

| kind | meaning |
|---|---|
| `missing_line` | the books have a movement that no statement has shown yet; it is looked for on the next days, too |
| `unknown_line` | a statement has a line that no movement explains |
| `amount_differs`, `currency_differs` | a line names a movement, with another amount or currency |
| `duplicate_line` | a second line for one movement |
| `other_day` | a line that is dated on another day than the close |
| `fee_differs` | the fees of a settlement's lines are not the fee that was booked with it |
| `settlement_open` | a report tells a settlement of more than the provider has collected, so it is not booked |

| booked as | postings |
|---|---|
| `difference` | `differences` → the place, by the amount that the statement has more than the books |
| `explained` | none: the reason says why the books are right |
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Literal

import msgspec

from tillway.domain.ledger import Entry, Posting
from tillway.domain.money import minor_to_major, spell
from tillway.domain.record import Changes, Moment, Record, Value
from tillway.domain.refusal import Refused
from tillway.domain.settlement import Reported, Settlement

DIFFERENCES_MAX = 200
"""Most undecided differences that a close keeps; `more` counts the others, and the close can be made again when these
are decided."""

WAITING_MAX = 2 * DIFFERENCES_MAX
"""Most movements that wait for a statement of a later day."""

BANK = "bank"
"""The place of the merchant's own bank; every other place is the name of a connector."""

Kind = Literal[
    "missing_line",
    "unknown_line",
    "amount_differs",
    "currency_differs",
    "duplicate_line",
    "other_day",
    "fee_differs",
    "settlement_open",
]
Decision = Literal["difference", "explained"]
Status = Literal["tied", "differences", "incomplete"]


class Movement(Value, frozen=True, kw_only=True):
    """Money that moved at a place, by the books: `amount_minor` came (negative: went) with the ledger's `entry`.

    `references` are all by which a statement may name it: those at the provider, and the ids here.
    """

    place: str
    entry: str
    source: str
    day: str
    amount_minor: int
    currency: str
    references: tuple[str, ...]
    fee_minor: int = 0
    """The fee that a settlement was booked with."""


class Line(Value, frozen=True, kw_only=True):
    """A line of a statement: `amount_minor` came to the place (negative: left it) on `day` (ISO 8601).

    `references` are the texts that may name a movement. `settlement` is the reference of the settlement that the line
    is part of, and `fee_minor` the fee that the provider kept of it.
    """

    place: str
    where: str
    """File and number of the line."""
    day: str
    amount_minor: int
    currency: str
    references: tuple[str, ...]
    text: str = ""
    fee_minor: int = 0
    settlement: str | None = None


class Difference(Value, frozen=True, kw_only=True):
    """`books_minor` is the movement's amount, `statement_minor` the line's; None on the side that has none.

    `id` follows from the two sides, so that it stays the same when the day is closed again, also with the line at
    another place or in a file of another name.
    """

    id: str
    kind: Kind
    place: str
    currency: str
    books_minor: int | None = None
    statement_minor: int | None = None
    entry: str | None = None
    source: str | None = None
    line: str | None = None
    told: str
    decision: Decision | None = None
    by: str | None = None
    reason: str | None = None
    booked: str | None = None
    """The entry of the ledger that books it."""

    @property
    def excess_minor(self) -> int:
        """By how much the statement has more than the books."""
        return (self.statement_minor or 0) - (self.books_minor or 0)


class PlaceSum(Value, frozen=True, kw_only=True):
    """The sums of a day at a place. `statement_minor` is None where no statement was given."""

    place: str
    currency: str
    books_minor: int
    statement_minor: int | None = None


class Close(Record, frozen=True, kw_only=True):
    """The close of a merchant's `day` (ISO 8601, UTC) in one mode.

    `tied`: each movement has its line and each line its movement, or all that differs is decided, and the ledger agrees
    with itself. `incomplete`: places moved money and have no statement. `waiting` are movements that their place's
    statement has not shown yet; the next close looks for them, too.
    """

    day: str
    status: Status
    sums: tuple[PlaceSum, ...] = ()
    differences: tuple[Difference, ...] = ()
    more: int = 0
    waiting: tuple[Movement, ...] = ()
    ledger: tuple[str, ...] = ()
    """A sentence for each disagreement of the ledger with itself."""
    statements: tuple[str, ...] = ()
    """The digests of the files, so that a file that came later is noticed."""
    by: str

    @property
    def without_statement(self) -> list[str]:
        return sorted({part.place for part in self.sums if part.statement_minor is None})


def close_id(day: str) -> str:
    """The id of the close of a day: there is one for each merchant and mode."""
    return f"cls_{day.replace('-', '')}"


def check_day(text: str, *, today: date) -> str:
    """Return a day in ISO 8601 that is over. Raises `Refused`."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise Refused("parameter_invalid_string", f"'{text[:40]}' is no day, as in 2026-05-12.", param="day") from None
    if day.isoformat() != text or day >= today:
        raise Refused(
            "parameter_invalid_string", f"{text[:40]} is not over yet, or not in the form 2026-05-12.", param="day"
        )
    return text


def bounds(day: str) -> tuple[int, int]:
    """The first second of a day (UTC), and the first after it."""
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return int(start.timestamp()), int((start + timedelta(days=1)).timestamp())


def compare(day: str, movements: Sequence[Movement], lines: Sequence[Line]) -> tuple[list[Difference], list[Movement]]:
    """Compare the movements of a day, and those that still wait, with the statements' lines.

    Return the differences, and the movements that no line has shown. Movements of places without a statement are not
    compared.
    """
    places = {line.place for line in lines}
    by_reference: dict[tuple[str, str], list[Movement]] = defaultdict(list)
    for movement in movements:
        for reference in dict.fromkeys(movement.references):
            by_reference[movement.place, reference].append(movement)
    seen: set[str] = set()
    found: list[Difference] = []
    left: list[Line] = []
    for line in lines:
        exact = next((movement for movement in _movements_of(by_reference, line) if _fits(movement, line, seen)), None)
        if exact is None:
            left.append(line)
            continue
        seen.add(_key(exact))
        if line.day != day:
            found.append(_differ("other_day", exact, line, f"The line is dated {line.day}, not {day}."))
    for line in left:
        found.append(_judge(_movements_of(by_reference, line), line, seen))
    for movement in movements:
        if movement.place in places and _key(movement) not in seen:
            told = f"No statement shows the movement of {movement.day}."
            found.append(_differ("missing_line", movement, None, told))
    found += _fees(movements, lines)
    return _assign_ids(found), [movement for movement in movements if _key(movement) not in seen]


def sums_of(day: str, movements: Iterable[Movement], lines: Sequence[Line]) -> tuple[PlaceSum, ...]:
    """The sums of the day's own movements, and of its statements, for each place and currency."""
    books: Counter[tuple[str, str]] = Counter()
    stated: Counter[tuple[str, str]] = Counter()
    for movement in movements:
        if movement.day == day:
            books[movement.place, movement.currency] += movement.amount_minor
    for line in lines:
        stated[line.place, line.currency] += line.amount_minor
    places = {line.place for line in lines}
    return tuple(
        PlaceSum(
            place=place,
            currency=currency,
            books_minor=books[place, currency],
            statement_minor=stated[place, currency] if place in places else None,
        )
        for place, currency in sorted({*books, *stated})
    )


def make(
    day: str,
    *,
    own: Sequence[Movement],
    carried: Sequence[Movement],
    lines: Sequence[Line],
    settlements: Sequence[Difference] = (),
    ledger: Sequence[str],
    statements: Sequence[str],
    before: Close | None,
    by: str,
    at: Moment,
) -> Changes[Close]:
    """Close a day. `own` are its movements, `carried` those of earlier days that wait for their line, and `settlements`
    the differences of reported settlements.

    The decisions of `before`, the earlier close of the same day, hold for the same differences. They are kept even if
    the statements no longer show the difference: its booking stands, and a later file may show it again.
    """
    movements = (*own, *carried)
    found, waiting = compare(day, movements, lines)
    found += settlements
    decided = {each.id: each for each in before.differences if each.decision} if before is not None else {}
    undecided = [each for each in found if each.id not in decided]
    kept, places = [*decided.values(), *undecided[:DIFFERENCES_MAX]], {line.place for line in lines}
    missed = {each.entry for each in kept if each.decision is None and each.kind == "missing_line"}
    later = [movement for movement in carried if movement.place not in places]
    waiting = [*later, *(movement for movement in waiting if movement.entry in missed and movement.place in places)]
    close = Close(
        id=close_id(day),
        created=before.created if before is not None else at.created,
        day=day,
        status="tied",
        sums=sums_of(day, movements, lines),
        differences=tuple(kept),
        more=max(len(undecided) - DIFFERENCES_MAX, 0),
        waiting=tuple(waiting[:WAITING_MAX]),
        ledger=tuple(ledger),
        statements=tuple(sorted(statements)),
        by=by,
    )
    close = msgspec.structs.replace(close, status=status_of(close))
    return Changes(result=close, records=(close,))


def status_of(close: Close) -> Status:
    """The status that follows from the open differences and the missing statements."""
    if close.ledger or close.more or any(each.decision is None for each in close.differences):
        return "differences"
    return "incomplete" if close.without_statement else "tied"


def decide(
    close: Close, id: str, decision: Decision, *, also: Sequence[Close] = (), reason: str, by: str, at: Moment
) -> Changes[Close]:
    """Decide a difference with a reason. `difference` books the statement's excess, so that the books have it, too.

    `also` are the closes of other days that show the same difference, such as a line that is missing since: it is
    decided once, in all of them. Refused `resource_missing` where the close has no such difference, and
    `difference_decided` where it was decided in one of them.
    """
    difference = _difference_of(close, id)
    if difference is None:
        raise Refused(
            "resource_missing", f"The close of {close.day} has no difference '{id[:100]}'.", param="difference"
        )
    for each in (close, *also):
        known = _difference_of(each, id)
        if known is not None and known.decision is not None:
            raise Refused(
                "difference_decided",
                f"The difference {id} was decided already, in the close of {each.day} by {known.by}.",
            )
    entry = _booking(difference, close, at) if decision == "difference" else None
    decided = msgspec.structs.replace(
        difference, decision=decision, by=by, reason=reason, booked=entry.id if entry is not None else None
    )
    after, *others = (_with_decided(each, decided) for each in (close, *also))
    return Changes(result=after, records=(after, *others) if entry is None else (after, *others, entry))


def _difference_of(close: Close, id: str) -> Difference | None:
    return next((each for each in close.differences if each.id == id), None)


def _with_decided(close: Close, decided: Difference) -> Close:
    """The close with a decided difference. After a decided `missing_line`, its movement waits for no line."""
    after = msgspec.structs.replace(
        close,
        differences=tuple(decided if each.id == decided.id else each for each in close.differences),
        waiting=tuple(
            movement for movement in close.waiting if decided.kind != "missing_line" or movement.entry != decided.entry
        ),
    )
    return msgspec.structs.replace(after, status=status_of(after))


def _booking(difference: Difference, close: Close, at: Moment) -> Entry:
    """Book the excess, less the amounts that were booked for the same movement by an earlier statement."""
    excess_minor = difference.excess_minor - sum(
        each.excess_minor for each in close.differences if each.booked and _is_of_same(each, difference)
    )
    if not excess_minor:
        raise Refused(
            "parameter_invalid_string",
            "The amounts of this difference agree, so there is nothing to book: decide it as 'explained'.",
            param="decision",
        )
    # The fee stays at the provider in the statement, and was not taken off what it owes here.
    account = BANK if difference.place == BANK else f"receivable:{difference.place}"
    return Entry(
        id=at.new_id("je"),
        created=at.created,
        currency=difference.currency,
        source=close.id,
        postings=(
            Posting(account=account, amount_minor=excess_minor),
            Posting(account="differences", amount_minor=-excess_minor),
        ),
    )


def _is_of_same(one: Difference, other: Difference) -> bool:
    """Whether both are about the amount of one movement, or both about its fee."""
    return (
        one.entry is not None
        and (one.place, one.currency, one.entry) == (other.place, other.currency, other.entry)
        and (one.kind == "fee_differs") is (other.kind == "fee_differs")
    )


def _movements_of(by_reference: dict[tuple[str, str], list[Movement]], line: Line) -> list[Movement]:
    """The movements that a line names, each once."""
    found: dict[str, Movement] = {}
    for reference in line.references:
        for movement in by_reference.get((line.place, reference), ()):
            found.setdefault(_key(movement), movement)
    return list(found.values())


def _fits(movement: Movement, line: Line, seen: set[str]) -> bool:
    return (movement.amount_minor, movement.currency) == (line.amount_minor, line.currency) and _key(
        movement
    ) not in seen


def _judge(named: Sequence[Movement], line: Line, seen: set[str]) -> Difference:
    """The difference of a line that fits no movement. A movement that it names counts as seen."""
    movement = next((each for each in named if _key(each) not in seen), None)
    if movement is not None:
        seen.add(_key(movement))
        kind: Kind = "amount_differs" if movement.currency == line.currency else "currency_differs"
        told = f"The books have {_money(movement)}, the statement {_money(line)}."
        return _differ(kind, movement, line, told)
    if named:
        return _differ("duplicate_line", None, line, f"The movement of {named[0].source} has its line already.")
    return _differ("unknown_line", None, line, f"No movement explains {_money(line)}: {line.text or 'no text'}."[:300])


def _fees(movements: Sequence[Movement], lines: Sequence[Line]) -> list[Difference]:
    """The settlements whose lines have another fee than was booked."""
    stated: Counter[tuple[str, str, str]] = Counter()
    for line in lines:
        if line.settlement is not None:
            stated[line.place, line.currency, line.settlement] += line.fee_minor
    found = []
    for movement in movements:
        fees = [
            stated[movement.place, movement.currency, reference]
            for reference in movement.references
            if (movement.place, movement.currency, reference) in stated
        ]
        if movement.source.startswith("stl_") and fees and fees[0] != movement.fee_minor:
            booked, told = (minor_to_major(fee, movement.currency) for fee in (movement.fee_minor, fees[0]))
            said = f"The lines of the settlement have fees of {told} {movement.currency.upper()}, {booked} were booked."
            found.append(
                msgspec.structs.replace(
                    _differ("fee_differs", movement, None, said),
                    # A provider that kept more has less for the merchant.
                    books_minor=-movement.fee_minor,
                    statement_minor=-fees[0],
                )
            )
    return found


def _differ(kind: Kind, movement: Movement | None, line: Line | None, told: str) -> Difference:
    side = movement or line
    assert side is not None, "a difference has a side"
    return Difference(
        id=_content_of(line) if line is not None else "",
        kind=kind,
        place=side.place,
        currency=(line or side).currency,
        books_minor=movement.amount_minor if movement is not None else None,
        statement_minor=line.amount_minor if line is not None else None,
        entry=movement.entry if movement is not None else None,
        source=movement.source if movement is not None else None,
        line=line.where if line is not None else None,
        told=told,
    )


def differ_from_booked(connector: str, told: Reported, booked: Settlement) -> list[Difference]:
    """The differences of a reported settlement and the one that was booked under its reference."""
    found: list[Difference] = []
    if told.currency != booked.currency:
        said = f"The report has a settlement in {told.currency.upper()}, booked was one in {booked.currency.upper()}."
        found.append(_of_settlement("currency_differs", connector, told, -told.amount_minor, said, booked))
        return found
    pairs: tuple[tuple[Kind, int, int], ...] = (
        ("amount_differs", told.amount_minor, booked.amount_minor),
        ("fee_differs", told.fee_minor, booked.fee_minor),
    )
    for kind, told_minor, booked_minor in pairs:
        if told_minor != booked_minor:
            word = "an amount" if kind == "amount_differs" else "a fee"
            each, here = (minor_to_major(minor, told.currency) for minor in (told_minor, booked_minor))
            said = f"The report has {word} of {each} {told.currency.upper()}, {here} was booked."
            found.append(
                # Money that was paid or kept is no longer with the provider.
                msgspec.structs.replace(
                    _of_settlement(kind, connector, told, -told_minor, said, booked), books_minor=-booked_minor
                )
            )
    return found


def differ_from_collected(connector: str, told: Reported, *, collected_minor: int, why: str) -> Difference:
    """The difference of a reported settlement that is too large to be booked. Booked as a difference, the
    provider has collected as much by the books, too, and the settlement can be booked."""
    difference = _of_settlement("settlement_open", connector, told, told.moved_minor, why[:300], None)
    return msgspec.structs.replace(difference, books_minor=collected_minor)


def _of_settlement(
    kind: Kind, connector: str, told: Reported, statement_minor: int, said: str, booked: Settlement | None
) -> Difference:
    # The same in every report that repeats the settlement, under any file name and with the sums of any moment.
    digest = sha256(repr((kind, connector, told.reference, told.currency, statement_minor)).encode()).hexdigest()
    return Difference(
        id=f"dif_{digest[:16]}",
        kind=kind,
        place=connector,
        currency=told.currency,
        statement_minor=statement_minor,
        entry=booked.entry if booked is not None else None,
        source=booked.id if booked is not None else None,
        line=told.where,
        told=said,
    )


def _assign_ids(found: Iterable[Difference]) -> list[Difference]:
    """Give each difference an id that follows from its sides; equal ones are counted. They come with the line's own."""
    times: Counter[str] = Counter()
    numbered = []
    for each in found:
        sides = (each.kind, each.place, each.currency, each.books_minor, each.statement_minor, each.entry, each.id)
        digest = sha256(repr(sides).encode()).hexdigest()[:16]
        times[digest] += 1
        numbered.append(msgspec.structs.replace(each, id=f"dif_{digest}{times[digest] - 1 or ''}"))
    return numbered


def _content_of(line: Line) -> str:
    """All that a line tells, without its place in a file."""
    return repr((line.day, line.amount_minor, line.references, line.text, line.fee_minor, line.settlement))


def _key(movement: Movement) -> str:
    """A movement's own name: an entry may move money at two places."""
    return f"{movement.place}/{movement.entry}"


def _money(side: Movement | Line) -> str:
    return spell(side.amount_minor, side.currency)
