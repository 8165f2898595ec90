"""Index entries as the SQL stores keep them: a column for each index that a record stands in once, and its terms as a
sorted JSON array, so that the same terms are the same text."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tillway.store.port import TERMS_MAX

Entries = tuple[str | None, str | None, str | None, str | None]
"""The columns `customer`, `parent`, `kind` and `terms`."""

NO_ENTRIES: Entries = (None, None, None, None)

_TERMS_DECODER = msgspec.json.Decoder(set[str])


def entries_of(index: tuple[tuple[str, str], ...]) -> Entries:
    customer = parent = kind = None
    terms: list[str] = []
    for name, partition in index:
        match name:
            case "kind" if kind is None:
                kind = partition
            case "parent" if parent is None:
                parent = partition
            case "customer" if customer is None:
                customer = partition
            case "term":
                terms.append(partition)
            case _:
                raise AssertionError(f"no index, or one that stands here twice: {name}")
    return customer, parent, kind, _encode_terms(terms) if terms else None


class Columns(msgspec.Struct, frozen=True):
    """The columns beside a record, by which the store finds it, and those of its terms that the table of terms has."""

    entries: Entries
    queue: str | None
    expires_at: int | None
    listed: frozenset[str] = frozenset()


def _encode_terms(terms: list[str]) -> str:
    distinct = set(terms)
    assert len(distinct) <= TERMS_MAX
    return msgspec.json.encode(sorted(distinct)).decode()


def columns_in(rows: Sequence[Any], listed: Iterable[tuple[str, str]]) -> dict[str, Columns]:
    """The columns by key. A row has a key, its entries, queue and end; `listed` are the places of `places_in`."""
    terms: dict[str, set[str]] = {}
    for partition, key in listed:
        terms.setdefault(key, set()).add(partition)
    return {
        row[0]: Columns((row[1], row[2], row[3], row[4]), row[5], row[6], frozenset(terms.get(row[0], ())))
        for row in rows
    }


def places_in(rows: Sequence[Any]) -> list[tuple[str, str]]:
    """The places (partition and key) in the table of terms that the rows of `columns_in` ask for."""
    return [(partition, row[0]) for row in rows for partition in terms_or_none(row[4])]


def terms_or_none(terms: str | None) -> set[str]:
    """The terms of a column, which a hand may have edited: then it has none, and differs from its record."""
    try:
        return decode_terms(terms)
    except msgspec.MsgspecError:
        return set()


def decode_terms(terms: str | None) -> set[str]:
    return _TERMS_DECODER.decode(terms) if terms is not None else set()
