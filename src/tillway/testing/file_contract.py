"""The contract of file connectors, as checks that run against a connector and the provider's side of its files.

    @pytest.mark.parametrize("check", FILE_CHECKS, ids=lambda check: check.__name__)
    def test_contract(check):
        check(MyFileFarSide())

A check raises AssertionError.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from tillway.connectors.file_port import (
    FILE_NAME_MAX,
    Batch,
    FileConnector,
    FileRejected,
    OutboundFile,
    Return,
    match,
)
from tillway.connectors.port import REFERENCE_MAX, Declined, Operation

NOW = 1_780_000_000
"""The time in the files of the suite: 2026-05-28 20:26:40 UTC, a Thursday."""


class FileFarSide(Protocol):
    """A file connector with the provider that reads and writes its files. Every check gets a fresh one."""

    @property
    def connector(self) -> FileConnector: ...

    def operation(self, reference: str, amount_minor: int) -> Operation:
        """An operation that the connector can carry."""

    def impossible(self) -> Operation:
        """An operation that the connector must refuse: of another rail, in another currency."""

    def performed(self, content: bytes) -> list[tuple[str, int, str]]:
        """Read an outbound file as the provider does: (trace, amount in minor units, currency) of each entry."""

    def answer(self, file: OutboundFile, traces: Sequence[str], **changes: Any) -> tuple[str, bytes]:
        """The name and bytes of the provider's file that returns the entries of these traces for insufficient funds.

        `amount_minor` and `trace` among `changes` replace those of every entry.
        """


FileCheck = Callable[[FileFarSide], None]


def builds_the_same_bytes_again(far: FileFarSide) -> None:
    operations = _operations(far, 3)
    batch = Batch(created_at=NOW, number=1)
    assert far.connector.build(operations, batch) == far.connector.build(operations, batch)


def carries_each_operation_once(far: FileFarSide) -> None:
    operations = _operations(far, 3)
    file = far.connector.build(operations, Batch(created_at=NOW, number=1))
    assert [entry.reference for entry in file.entries] == [operation.reference for operation in operations]
    carried = [(entry.trace, entry.amount_minor, entry.currency) for entry in file.entries]
    assert far.performed(file.content) == carried, "the provider reads other entries than the file says it has"
    assert [entry.amount_minor for entry in file.entries] == [operation.amount_minor for operation in operations]


def never_repeats_a_name_or_trace(far: FileFarSide) -> None:
    names, traces = set(), []
    for number in range(1, 6):
        batch = Batch(created_at=NOW + number // 3, number=number, number_today=number, first_entry=2 * number - 1)
        file = far.connector.build(_operations(far, 2), batch)
        names.add(file.name)
        traces += [entry.trace for entry in file.entries]
        assert (
            0 < len(file.name) <= FILE_NAME_MAX
            and file.name.replace("-", "").replace("_", "").replace(".", "").isalnum()
        )
        assert not file.name.startswith("."), "a file of that name is taken for an unfinished one"
    assert len(names) == 5, "two files have one name"
    assert len(set(traces)) == len(traces), "two entries have one trace"
    assert all(0 < len(trace) <= REFERENCE_MAX and trace.isascii() and trace.isprintable() for trace in traces)


def refuses_what_the_rail_cannot_carry(far: FileFarSide) -> None:
    assert isinstance(far.connector.refuse(far.impossible()), Declined)
    assert far.connector.refuse(far.operation(_reference(), 4200)) is None


def reads_what_came_back(far: FileFarSide) -> None:
    operations = _operations(far, 3)
    file = far.connector.build(operations, Batch(created_at=NOW, number=1))
    returned = file.entries[1]
    [notice] = _notices(far, file, far.answer(file, [returned.trace]))
    assert (notice.kind, notice.reference) == ("operation", operations[1].reference)
    assert isinstance(notice.outcome, Declined) and notice.outcome.decline_code == "insufficient_funds", notice


def the_same_return_has_the_same_id(far: FileFarSide) -> None:
    file = far.connector.build(_operations(far, 2), Batch(created_at=NOW, number=1))
    traces = [entry.trace for entry in file.entries]
    both, first = far.answer(file, traces), far.answer(file, traces[:1])
    ids = [notice.id for notice in _notices(far, file, both)]
    assert len(set(ids)) == 2, "two returns have one id"
    assert [notice.id for notice in _notices(far, file, first)] == ids[:1]


def what_contradicts_the_file_that_was_sent_is_rejected(far: FileFarSide) -> None:
    file = far.connector.build(_operations(far, 1), Batch(created_at=NOW, number=1))
    [entry] = file.entries
    stranger = msgspec.structs.replace(entry, trace="9" * len(entry.trace))
    for answer in (
        far.answer(file, [entry.trace], amount_minor=entry.amount_minor + 1),
        far.answer(file, [entry.trace], trace=stranger.trace),
    ):
        try:
            told = _notices(far, file, answer)
        except FileRejected:
            continue
        raise AssertionError(f"a file that contradicts the one that was sent was taken: {told}")


def what_is_no_whole_file_is_rejected(far: FileFarSide) -> None:
    file = far.connector.build(_operations(far, 2), Batch(created_at=NOW, number=1))
    name, whole = far.answer(file, [entry.trace for entry in file.entries])
    for content in (b"", b"\x00\xff" * 500, b"hello\n", b'<!DOCTYPE x [<!ENTITY e "e">]>', whole[: len(whole) // 2]):
        try:
            told = far.connector.read(name, content)
        except FileRejected:
            continue
        raise AssertionError(f"{content[:30]!r}… was taken for a file: {told}")


FILE_CHECKS: tuple[FileCheck, ...] = (
    builds_the_same_bytes_again,
    carries_each_operation_once,
    never_repeats_a_name_or_trace,
    refuses_what_the_rail_cannot_carry,
    reads_what_came_back,
    the_same_return_has_the_same_id,
    what_contradicts_the_file_that_was_sent_is_rejected,
    what_is_no_whole_file_is_rejected,
)

_numbers = itertools.count(1)


def _reference() -> str:
    return f"{next(_numbers):x}".rjust(REFERENCE_MAX, "r")


def _operations(far: FileFarSide, count: int) -> list[Operation]:
    return [far.operation(_reference(), 4200 + number) for number in range(count)]


def _notices(far: FileFarSide, file: OutboundFile, answer: tuple[str, bytes]) -> list[Any]:
    returns: list[Return] = far.connector.read(*answer)
    return match(returns, {entry.trace: entry for entry in file.entries})
