"""The kinds of store that are installed: entry points of the group `tillway.stores`, Tillway's own among them.

An entry point's name is the scheme of the store's URL (`postgresql` for `postgresql://…`). A package that brings a
store declares a class with the methods of `Kind`, and is found once it is installed. The SQLite file of a data
directory is no kind: it is the store of an installation that names no URL.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

from tillway.store.port import Finding, Store, StoreUnfit

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "tillway.stores"

OWN: Final = {
    "postgresql": "tillway.store.postgres:PostgresStore",
    "postgres": "tillway.store.postgres:PostgresStore",
    "dynamodb": "tillway.store.dynamodb:DynamoStore",
}
"""Tillway's own entry points. To read those of all packages takes longer than a Lambda function may take to start."""


class Kind(Protocol):
    """A class of stores, before one is opened. All three raise `StoreUnfit`, with the remedy."""

    async def open(self, url: str, *, create: bool = False) -> Store:
        """The store behind `url`. With `create`, its tables are made where they are missing."""

    async def migrate(self, url: str) -> int:
        """Bring the store to this code's schema; the version."""

    async def inspect(self, url: str) -> list[Finding]:
        """The findings of `tillway doctor` about durability and schema."""


def kinds() -> tuple[str, ...]:
    """The schemes of all kinds that are installed, sorted."""
    from importlib.metadata import entry_points

    return tuple(sorted({*OWN, *entry_points(group=GROUP).names}))


def scheme_of(url: str) -> str:
    """The scheme of a store's URL. Raises `StoreUnfit`, which names the known ones, where it is none of them."""
    scheme, colon, _ = url.partition("://")
    if not colon or (scheme not in OWN and scheme not in kinds()):
        known = ", ".join(f"{kind}://" for kind in kinds())
        # The URL is not repeated: there may be a password in it.
        raise StoreUnfit(f"There is no such kind of store. A store's URL begins with one of {known}.")
    return scheme


def kind(url: str) -> Kind:
    """The class behind a store's URL. It is imported only here, since its driver need not be installed.

    Raises `StoreUnfit`, with the remedy, where there is no such kind or its driver is missing.
    """
    scheme = scheme_of(url)
    found: EntryPoint | None = None
    try:
        if scheme in OWN:
            module, _, name = OWN[scheme].partition(":")
            return cast(Kind, getattr(import_module(module), name))
        from importlib.metadata import entry_points

        (found,) = list(entry_points(group=GROUP, name=scheme))[:1]
        return cast(Kind, found.load())
    except ImportError as missing:
        raise StoreUnfit(f"The driver is not installed ({missing}). {_remedy(found)}") from None


def _remedy(found: "EntryPoint | None") -> str:
    """The remedy for a store of that entry point; None: one of Tillway's own."""
    if found is None:
        package = "tillway"
    else:
        package = found.dist.name if found.dist is not None else "the package that brings it"
    extra = "[all]" if package == "tillway" else ""
    return f"Run: pip install '{package}{extra}'."
