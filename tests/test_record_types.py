"""A noun is registered whole: its row in the store, its shape, its queue's worker, its handlers and its secrets."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tillway import domain
from tillway.api import handlers as api_handlers
from tillway.dialects import handlers as dialect_handlers
from tillway.domain.audit import REDACTED
from tillway.domain.record import Reading, Record
from tillway.engine.audit.entries import LEFT_OUT
from tillway.engine.settlers import SETTLERS
from tillway.http.shapes import SHAPES
from tillway.store.codec import QUEUES, RECORD_TYPES, RecordType
from tillway.testing.in_process import InProcessApp

SECRET_FIELDS = ("secret", "secrets", "sealed")


def subclasses(kind: type[Record]) -> Iterator[type[Record]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


def records() -> set[type[Record]]:
    """All record classes of the domain."""
    for module in pkgutil.iter_modules(domain.__path__):
        importlib.import_module(f"tillway.domain.{module.name}")
    return {kind for kind in subclasses(Record) if kind.__module__.startswith("tillway.domain.")} - {Reading}


def missing_parts(
    kinds: set[type[Record]], rows: dict[type[Record], RecordType], shapes: set[type[Record]], queues: set[str]
) -> list[str]:
    """Sentences that name each missing part and the place for it."""
    missing = []
    for kind in sorted(kinds, key=lambda kind: kind.__name__):
        row, name = rows.get(kind), kind.__name__
        if issubclass(kind, Reading):
            if row is not None:
                missing.append(f"{name} is a Reading, which is never stored: take its row out of store/codec.py")
            continue
        if row is None:
            missing.append(f"{name} has no row in store/codec.py: add one, or make it a Reading if it is never stored")
            continue
        if row.object and kind not in shapes:
            missing.append(f"{name} is called {row.object!r} in answers: add a @shape for it in a file of api/")
        if row.queue is not None and "due_at_ms" not in kind.__struct_fields__:
            missing.append(f"{name} stands in the queue {row.queue!r}: add the field due_at_ms")
        if row.queue is not None and row.queue not in queues:
            missing.append(
                f"{name} stands in the queue {row.queue!r}, which has no worker: add one to engine/runner.py"
            )
        hidden = REDACTED.get(kind, ())
        for field in SECRET_FIELDS:
            if field in kind.__struct_fields__ and field not in hidden and kind not in LEFT_OUT:
                missing.append(f"{name}.{field} would enter the audit trail: add it to REDACTED in domain/audit.py")
    return missing


def test_prefixes_and_objects_are_unique() -> None:
    prefixes = [prefix for row in RECORD_TYPES.values() for prefix in row.prefixes]
    objects = [row.object for row in RECORD_TYPES.values() if row.object]
    assert len(prefixes) == len(set(prefixes)) and len(objects) == len(set(objects))
    assert all(re.fullmatch("[a-z]+", prefix) for prefix in prefixes)


async def test_every_noun_is_registered_whole(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    queues, workers = set(app.running.runner.queues), app.running.runner.workers.keys()
    await app.close()
    assert not missing_parts(records(), RECORD_TYPES, set(SHAPES), queues)
    assert workers == QUEUES.keys(), "operations/tasks.py has a worker for each type of task"
    assert queues == set(QUEUES.values()), "engine/runner.py works on a queue that no row in store/codec.py has"


def test_every_subject_of_an_attempt_has_a_settler() -> None:
    subjects = {kind for kind in RECORD_TYPES if "attempt" in kind.__struct_fields__}
    assert subjects == SETTLERS.keys(), "add a settler in engine/settlers.py for each record that has an attempt"


@pytest.mark.parametrize("handlers", [api_handlers, dialect_handlers], ids=["api", "dialects"])
def test_every_file_with_a_route_or_a_shape_is_loaded(handlers: ModuleType) -> None:
    place = Path(handlers.__file__ or "")
    loaded = {module.__name__.rpartition(".")[2] for module in handlers.LOADED}
    declaring = {
        path.stem
        for path in place.parent.glob("*.py")
        if re.search(r"^@(route|shape|includable)\(", path.read_text(), re.MULTILINE)
    }
    assert declaring <= loaded, f"import in {place.parent.name}/handlers.py: {sorted(declaring - loaded)}"


class Coupon(Record, frozen=True, kw_only=True):
    """A noun that is half registered, for the test of the test."""

    secret: str


HALVES: list[tuple[RecordType | None, set[type[Record]], set[str], list[str]]] = [
    (None, set(), set(), ["Coupon has no row in store/codec.py: add one, or make it a Reading if it is never stored"]),
    (
        RecordType(kind=Coupon, prefixes=("cpn",), object="coupon", queue="coupons"),
        set(),
        set(),
        [
            "Coupon is called 'coupon' in answers: add a @shape for it in a file of api/",
            "Coupon stands in the queue 'coupons': add the field due_at_ms",
            "Coupon stands in the queue 'coupons', which has no worker: add one to engine/runner.py",
            "Coupon.secret would enter the audit trail: add it to REDACTED in domain/audit.py",
        ],
    ),
    (
        RecordType(kind=Coupon, prefixes=("cpn",), object="coupon"),
        {Coupon},
        set(),
        ["Coupon.secret would enter the audit trail: add it to REDACTED in domain/audit.py"],
    ),
]


@pytest.mark.parametrize(("row", "shapes", "queues", "expected"), HALVES)
def test_a_noun_that_is_half_registered_is_named_with_the_place(
    row: RecordType | None, shapes: set[type[Record]], queues: set[str], expected: list[str]
) -> None:
    rows: dict[type[Record], RecordType] = {} if row is None else {Coupon: row}
    assert missing_parts({Coupon}, rows, shapes, queues) == expected
