"""Index entries as the SQL stores keep them: a column for each index that a record stands in once, and its terms as a
sorted JSON array, so that the same terms are the same text."""

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
    """The columns beside a record, by which the store finds it."""

    entries: Entries
    queue: str | None
    expires_at: int | None


def _encode_terms(terms: list[str]) -> str:
    distinct = set(terms)
    assert len(distinct) <= TERMS_MAX
    return msgspec.json.encode(sorted(distinct)).decode()


def decode_terms(terms: str | None) -> set[str]:
    return _TERMS_DECODER.decode(terms) if terms is not None else set()
