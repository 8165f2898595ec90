"""One request of a browser as a page sees it, the answers that a page gives, and the table of pages."""

import secrets
from collections.abc import Awaitable, Callable
from datetime import tzinfo
from hashlib import sha256
from typing import Any, Literal
from urllib.parse import quote, urlencode

import msgspec

from tillway.domain.account import Account, Mode
from tillway.domain.dashboard import csrf_token
from tillway.domain.operator import MAY, Capability
from tillway.engine.platform import Platform
from tillway.engine.time_zones import zone_of
from tillway.http.client_address import counted_address
from tillway.http.messages import Request
from tillway.operations.passkeys import Passkeys
from tillway.operations.sign_ins import Browser, Renewed, SignedIn
from tillway.web.dashboard.door import Door, Upload

BASE = "/dashboard"


def browser_of(request: Request) -> Browser:
    """Where a request comes from, for sign-ins and the tries that are counted."""
    address = request.client_ip
    return Browser(address, counted_address(address) if address else "", request.headers.get("user-agent") or "")


def new_form_key() -> str:
    """The idempotency key of a form that is shown for the first time."""
    return f"dashboard-{secrets.token_hex(16)}"


class Shown(msgspec.Struct):
    """A page: a template and its values."""

    template: str
    values: dict[str, Any]
    status: int = 200


class Redirect(msgspec.Struct):
    """Send the browser on to another page, by GET."""

    to: str


class File(msgspec.Struct):
    """A document to keep, such as a CSV file."""

    body: bytes
    content_type: str
    name: str


class Document(msgspec.Struct):
    """A JSON document, for the module of the pages."""

    body: bytes


Reply = Shown | Redirect | File | Document


class Frame(msgspec.Struct, frozen=True):
    """How many things wait for a person, by the entry of the navigation, and whether every check of the server
    passes."""

    counts: dict[str, int] = {}
    ready: bool = True


class Visit(msgspec.Struct):
    """A request of a signed-in operator. `query` and `form` are the fields with all their values; `ids` stand in the
    path."""

    platform: Platform
    request: Request
    signed: SignedIn
    token: str
    csrf: str
    mode: Mode
    account: Account
    accounts: list[Account]
    door: Door
    passkeys: Passkeys
    query: dict[str, list[str]]
    form: dict[str, list[str]]
    ids: tuple[str, ...] = ()
    theme: str = ""
    has_shortcuts: bool = True
    """Whether single keys act on pages; this browser may have switched them off."""
    sso: bool = False
    """Whether an identity provider signs operators in."""
    renewed: bool = False
    """Whether the session has a new token, which the answer must put into the cookie."""
    files: dict[str, Upload] = {}
    frame: Frame = Frame()
    """The numbers and the readiness that the frame of the page shows."""
    lacks: Capability | None = None
    """The capability that the page needs and the operator's role does not have."""
    refreshes: bool = True
    """Whether open pages ask for themselves anew: not where each look is paid for."""

    @property
    def base(self) -> str:
        """The address of this mode's pages."""
        return BASE if self.mode == "test" else f"{BASE}/live"

    @property
    def id(self) -> str:
        return self.ids[0]

    def renew(self, renewed: Renewed) -> None:
        """Go on in a session that has a new token since a fresh proof."""
        self.token, self.signed, self.csrf, self.renewed = (
            renewed.token,
            renewed.signed,
            csrf_token(renewed.token),
            True,
        )

    @property
    def now(self) -> int:
        """Epoch seconds."""
        return self.platform.engine.clock.now_ms() // 1000

    @property
    def zone(self) -> tzinfo:
        """The zone of the merchant's days."""
        return zone_of(self.account)

    def may(self, capability: Capability) -> bool:
        return capability in MAY[self.signed.operator.role]

    async def check_role(self, capability: Capability, path: str) -> None:
        """Go on if the operator's role may do the call `path`; else let the API refuse it, so that the try stands in
        the audit trail. Raises `CallRefused`."""
        if not self.may(capability):
            self.lacks = capability
            await self.door.post(path)

    def url(self, path: str = "", /, **query: Any) -> str:
        """The address of a page of this mode; fields that are empty are left out."""
        given = {name: value for name, value in query.items() if value not in (None, "", [], ())}
        text = urlencode(given, doseq=True)
        return f"{self.base}{quote(path)}{'?' + text if text else ''}"

    def asked(self, name: str) -> str:
        """The first value of a field of the address, without blanks around it; empty if there is none."""
        return (self.query.get(name) or [""])[0].strip()

    def sent(self, name: str) -> str:
        """The first value of a field of the form, without blanks around it; empty if there is none."""
        return (self.form.get(name) or [""])[0].strip()

    @property
    def idempotency_key(self) -> str:
        """The key of the form that was sent, or a new one for a form that is shown.

        A form comes back with a new key if its own has served other entries, as after the browser's Back. A key of
        a program, which no page made, is kept apart from those of the API.
        """
        sent, refused = self.sent("idempotency_key"), self.door.refused
        if not sent or (refused is not None and refused.code == "idempotency_key_reused"):
            return new_form_key()
        if sent.startswith("dashboard-") and len(sent) <= 80:
            return sent
        return f"dashboard-{sha256(sent.encode()).hexdigest()[:32]}"


Handler = Callable[[Visit], Awaitable[Reply]]


class Page(msgspec.Struct, frozen=True):
    """A row of the table of pages. `place` is the entry of the navigation that is marked as current."""

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    place: str


PAGES: list[Page] = []


def page(method: Literal["GET", "POST"], path: str, place: str = "") -> Callable[[Handler], Handler]:
    """Declare the decorated function as the page at `path`, which begins behind the mode: `/payments/{id}`."""

    def declare(handler: Handler) -> Handler:
        PAGES.append(Page(method, path, handler, place))
        return handler

    return declare


class Pages:
    """Finds the page of a path by its segments."""

    def __init__(self, pages: list[Page]) -> None:
        self._pages = [(tuple(page.path.strip("/").split("/")), page) for page in pages]

    def find(self, path: str) -> tuple[dict[str, Page], tuple[str, ...]]:
        """The pages of `path` by method, and the ids in it; none if there is no such page."""
        parts = tuple(path.strip("/").split("/"))
        methods: dict[str, Page] = {}
        ids: tuple[str, ...] = ()
        fewest = len(parts) + 1
        for segments, page in self._pages:
            if len(segments) != len(parts) or not all(map(_fits, segments, parts)):
                continue
            wild = tuple(part for segment, part in zip(segments, parts, strict=True) if segment.startswith("{"))
            if len(wild) < fewest:  # A page of that very name goes before one with an id there.
                methods, ids, fewest = {}, wild, len(wild)
            if len(wild) == fewest:
                methods[page.method] = page
        return methods, ids


def _fits(segment: str, part: str) -> bool:
    return bool(part) if segment.startswith("{") else segment == part
