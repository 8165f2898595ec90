"""The route table: every call of the API, with its parameters, the kind of key it needs, and its result.

A handlers file declares its routes with `@route(...)`. Matching, authentication, parsing and the OpenAPI document all
use this table.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

from tillway.domain.record import Record
from tillway.engine.caller import Caller
from tillway.engine.core import Done
from tillway.engine.platform import Platform
from tillway.http.contract import Dialect, Presenter
from tillway.http.params import Params

Access = Literal["operator", "secret", "publishable", "anyone"]
"""The least credential that a call takes: an operator's key, a secret key, a publishable key, or none."""


class Guard(Protocol):
    """The rate limits of a payer's pages."""

    def count_page(self, page: str | None, address: str | None) -> None:
        """Count a request for the page of that name, or for one that all payers share. Raises `Throttled`."""

    async def watch_card(self, call: "Call", handle: "Callable[[], Awaitable[Answer]]") -> "Answer":
        """Handle a call that may try a card, as one with a publishable key. Raises `Throttled`."""


class Call(msgspec.Struct):
    """One request as a handler receives it: the caller, the typed parameters, and the ids in the path, in order."""

    platform: Platform
    caller: Caller
    params: dict[str, Any]
    ids: tuple[str, ...]
    headers: Mapping[str, str] = {}
    """Of calls that need no key; their names are lower case."""
    body: bytes = b""
    guard: "Guard | None" = None
    """Counts the requests to a payer's page; set for calls that need no key."""
    is_head: bool = False
    """Whether it is a HEAD, which has the handler of GET and must change nothing (RFC 9110, 9.2.1)."""
    holds_no_code: bool = False
    """Whether the parameters are known to be texts none of which is a security code."""

    @property
    def id(self) -> str:
        return self.ids[0]


class Page(msgspec.Struct):
    """A list answer: records in display order, and whether more follow."""

    records: list[Any]
    has_more: bool
    url: str
    object: Literal["list", "search_result"] = "list"
    next_page: str | None = None


class Plain(msgspec.Struct):
    """An answer that is not a record: an HTML page, a document, a redirect."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


Answer = Done[Record | None] | Record | Page | Plain | dict[str, Any]
Handler = Callable[[Call], Awaitable[Answer]]


class Route(msgspec.Struct, frozen=True):
    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    handler: Handler
    params: Params
    returns: str
    access: Access
    summary: str
    dialect: Dialect | None = None
    answer: type | None = None
    """The type of the answer of a dialect's call, for its OpenAPI document."""
    status: int = 200
    """The HTTP status of a successful answer of a dialect's call, for its OpenAPI document."""
    of: str = ""
    """The `object` of the elements of a list; empty if they are of several types, or can never be expanded."""
    whole: bool = False
    """Whether an operator calls it for the installation, so that it acts in no merchant's scope and none is named."""
    name: str = ""
    """Method and path, worked out once."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "name", f"{self.method} {self.path}")

    @property
    def presenter(self) -> str:
        """The name of this route's presenter; empty if the record's shape renders the answer."""
        return self.name if self.name in PRESENTERS else ""

    @property
    def group(self) -> str:
        """The noun of the route, for the OpenAPI documents."""
        parts = self.path.strip("/").split("/")
        if parts[0] == "ops":
            return "ops"
        return parts[1] if parts[0] == "v1" else parts[0]


ROUTES: list[Route] = []
DIALECT_ROUTES: list[Route] = []
"""The calls of the dialects, each of which has its own OpenAPI document."""

OTHER_ROUTES: list[Route] = []
"""The calls of nouns outside the payments domain, which no document lists (`api/other_domains.py`)."""

PRESENTERS: dict[str, Presenter] = {}
NO_PARAMS = Params()


def route(
    method: Literal["GET", "POST", "PUT", "DELETE"],
    path: str,
    params: Params = NO_PARAMS,
    *,
    returns: str,
    access: Access = "secret",
    dialect: Dialect | None = None,
    presents: Presenter | None = None,
    answer: type | None = None,
    status: int = 200,
    of: str = "",
    whole: bool = False,
) -> Callable[[Handler], Handler]:
    """Declare the decorated handler as the answer to `method path`; its docstring is the route's summary.

    In a dialect, `presents` renders the record or refusal that the handler returns in the dialect's words; `answer` and
    `status` are the type and HTTP status of that answer, for the dialect's OpenAPI document. `of` is the `object` of
    the elements of a list. `whole`: an operator calls it for the installation, and names no merchant.
    """

    def declare(handler: Handler) -> Handler:
        summary = (handler.__doc__ or "").strip().split("\n")[0]
        assert summary, f"{method} {path}: a handler's docstring is its summary in the documents"
        declared = Route(method, path, handler, params, returns, access, summary, dialect, answer, status, of, whole)
        (ROUTES if dialect is None else DIALECT_ROUTES).append(declared)
        if presents is not None:
            PRESENTERS[f"{method} {path}"] = presents
        return handler

    return declare


class _Node:
    """A segment of a path: the routes of the path that ends here, with the places of the ids in it, and the nodes of
    the next segment, by its word."""

    __slots__ = ("below", "id_below", "methods", "places")

    def __init__(self) -> None:
        self.methods: dict[str, Route] | None = None
        self.places: tuple[int, ...] = ()
        self.below: dict[str, _Node] = {}
        self.id_below: _Node | None = None

    def take_in(self, other: "_Node") -> None:
        """Lead also to the routes of `other`, except where this one has a route of its own."""
        if self.methods is None:
            self.methods, self.places = other.methods, other.places
        for word, node in other.below.items():
            self.below.setdefault(word, _Node()).take_in(node)
        if other.id_below is not None:
            self.id_below = self.id_below or _Node()
            self.id_below.take_in(other.id_below)

    def let_words_be_ids(self) -> None:
        """Where an id may stand, a word of another path may be one: `/a/b` and `/a/{id}/c` make `/a/b/c` a path."""
        for node in self.below.values():
            if self.id_below is not None:
                node.take_in(self.id_below)
            node.let_words_be_ids()
        if self.id_below is not None:
            self.id_below.let_words_be_ids()


class Router:
    """Finds the routes of a path by its segments. A word in a path goes before an id in its place."""

    def __init__(self, routes: list[Route]) -> None:
        self._root = _Node()
        self._plain: dict[str, dict[str, Route]] = {}
        last_ids: dict[str, _Node] = {}
        for entry in routes:
            node, parts = self._root, entry.path.strip("/").split("/")
            for part in parts:
                if part.startswith("{"):
                    node.id_below = node.id_below or _Node()
                    node = node.id_below
                    if entry.path.count("{") == 1 and part == parts[-1]:
                        last_ids[entry.path.rpartition("/")[0]] = node
                else:
                    node = node.below.setdefault(part, _Node())
            node.places = tuple(i for i, part in enumerate(parts) if part.startswith("{"))
            node.methods = node.methods or {}
            assert entry.method not in node.methods, f"{entry.method} {entry.path} is declared twice"
            node.methods[entry.method] = entry
            if not node.places:
                self._plain[entry.path] = node.methods
        self._root.let_words_be_ids()
        self._before_id = {head: node.methods for head, node in last_ids.items() if node.methods is not None}
        """The routes of each path that ends with its only id, by the path up to there."""

    def find(self, path: str) -> tuple[dict[str, Route], tuple[str, ...]] | None:
        """Return the routes of `path` by method, and the ids in it; None if there is no route."""
        methods = self._plain.get(path)
        if methods is not None:
            return methods, ()
        head, _, last = path.rpartition("/")
        methods = self._before_id.get(head)
        if methods is not None and last and last != "*":
            return methods, (last,)
        parts, node = path.strip("/").split("/"), self._root
        for part in parts:
            below = node.below.get(part) or (node.id_below if part != "*" else None)  # No id is a `*`.
            if below is None:
                return None
            node = below
        if node.methods is None:
            return None
        ids: tuple[str, ...] = ()
        for place in node.places:
            ids += (parts[place],)
        return node.methods, ids
