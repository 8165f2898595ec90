"""What a connector is: a conversation with a provider, without sockets.

A connector turns an `Operation` into a generator that yields `Request`s, receives `Response`s, and returns an
`Outcome`. It never opens a connection and never names a transport failure: the core sends the requests and alone
decides what a refused connection or a lost answer means (see `transport.py`). What a provider can and cannot do stands
in its `Capabilities`, so that the engine never asks which connector it is talking to.
"""

from collections.abc import Generator, Mapping
from typing import Any, Literal, Protocol

import msgspec

from tillway.domain.outcome import ActionRequired, Declined, NotSent, Outcome, Pending, Succeeded, Unknown

__all__ = [
    "ActionRequired",
    "Arranged",
    "BankAccountData",
    "Capabilities",
    "CardData",
    "Connector",
    "Consignment",
    "Conversation",
    "Courier",
    "Declined",
    "LookUp",
    "NeverSeen",
    "NotSent",
    "Notice",
    "NoticeRejected",
    "Operation",
    "Outcome",
    "Pending",
    "Recipient",
    "Request",
    "Response",
    "Succeeded",
    "Transport",
    "TransportError",
    "Undeliverable",
    "Unknown",
    "Unreachable",
]

REFERENCE_MAX = 35
"""Longest reference, in characters: what the strictest rails (SEPA end-to-end ids) carry."""

OperationKind = Literal["authorize", "capture", "void", "increment", "refund", "payout"]


class CardData(msgspec.Struct, frozen=True):
    """A card as the provider must see it; opened from the vault for one call. Its repr shows nothing."""

    number: str
    exp_month: int
    exp_year: int
    cvc: str | None = None
    name: str | None = None

    def __repr__(self) -> str:
        return "CardData(****)"


class BankAccountData(msgspec.Struct, frozen=True):
    """A bank account to debit, as the provider must see it; opened from the vault for one call. `type` is the payment
    method type, `number` an account number or an IBAN, `mandate` the reference (at most 35 characters) of the
    customer's permission. Its repr shows nothing."""

    type: str
    number: str
    routing_number: str | None = None
    account_holder_type: str | None = None
    account_type: str | None = None
    name: str | None = None
    mandate: str | None = None

    def __repr__(self) -> str:
        return "BankAccountData(****)"


class Recipient(msgspec.Struct, frozen=True):
    """Who gets a payout. Its repr shows the type alone: the value may be a card number."""

    type: Literal["email", "bank_account", "card"]
    value: str
    name: str | None = None

    def __repr__(self) -> str:
        return f"Recipient({self.type} ****)"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to be done at the provider, at most once, under `reference` (the attempt's id, at most 35 characters).

    An `authorize` takes from a `card` or, at once and for good, from a bank `account`.
    `parent` is the reference of the authorization that a capture, void, increment or refund is about; `parent_bank_id`
    the provider's own id of it. Amounts are minor units of `currency` (ISO 4217, lower case). `capture` is for
    `authorize`: take the money at once.
    """

    reference: str
    kind: OperationKind
    amount_minor: int
    currency: str
    capture: bool = True
    card: CardData | None = None
    account: BankAccountData | None = None
    recipient: Recipient | None = None
    parent: str | None = None
    parent_bank_id: str | None = None
    livemode: bool = False


class Request(msgspec.Struct, frozen=True):
    """One HTTP request to the provider. `moves_money`: a lost answer to it leaves the outcome unknown. Header names are
    lower case."""

    method: Literal["GET", "POST"]
    path: str
    body: dict[str, Any] | None = None
    headers: Mapping[str, str] = {}
    moves_money: bool = True

    def __repr__(self) -> str:
        # The body may hold a card number and the headers a key: neither belongs in a traceback.
        return f"Request({self.method} {self.path})"


class Response(msgspec.Struct, frozen=True):
    """The provider's answer. `body` is the parsed JSON object, or None where it was not a JSON object."""

    status: int
    body: dict[str, Any] | None = None
    headers: Mapping[str, str] = {}


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider says of its own accord. `id` makes us deaf to its repetition; `reference` names our operation.

    kind `operation` carries the operation's `outcome`; `dispute` opens one over the charge behind `reference`, at
    `stage`: a `chargeback` takes the money, an `inquiry` only asks, a `warning` (early fraud warning) only tells.
    """

    id: str
    kind: Literal["operation", "dispute"]
    reference: str
    outcome: Outcome | None = None
    amount_minor: int | None = None
    reason: str | None = None
    stage: Literal["chargeback", "inquiry", "warning"] = "chargeback"


class NeverSeen(msgspec.Struct, frozen=True, tag=True):
    """Answer to a look-up: the provider does not know this reference (at this moment)."""


Conversation = Generator[Request, Response, Outcome]
LookUp = Generator[Request, Response, Outcome | NeverSeen]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider promises.

    `deduplicates`: a resend under the same reference is performed at most once. `looks_up`: it can be asked by our
    reference. `ask_after_seconds`: how long to wait before asking after an unknown or pending outcome, first time.
    `debits`: the payment method types whose bank accounts it can take money from.
    """

    operations: frozenset[str]
    deduplicates: bool
    looks_up: bool
    livemode: bool
    debits: frozenset[str] = frozenset()
    ask_after_seconds: float = 5.0
    timeout_seconds: float = 30.0


class NoticeRejected(Exception):
    """A notice whose signature or form is wrong; the sender gets a 400."""


class Connector(Protocol):
    capabilities: Capabilities

    def perform(self, operation: Operation) -> Conversation:
        """Do `operation`, in as many requests as it takes."""

    def look_up(self, operation: Operation) -> LookUp:
        """Ask what became of `operation`. Yields requests that move no money."""

    def notices(self, headers: Mapping[str, str], body: bytes) -> list[Notice]:
        """The notices in one signed request of the provider. Raises `NoticeRejected`. Header names are lower case."""


class TransportError(Exception):
    """The request got no whole answer. `spoken`: the provider may have seen it."""

    def __init__(self, reason: str, *, spoken: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.spoken = spoken


class Transport(Protocol):
    """What carries a connector's requests: a socket, or a call inside this process."""

    async def send(self, request: Request) -> Response:
        """Raises `TransportError`. A body that is cut short is a `TransportError` with `spoken`."""

    async def close(self) -> None: ...


# Delivery services.


class Consignment(msgspec.Struct, frozen=True, kw_only=True):
    """So many of a product to one address, under `reference` (at most 40 characters)."""

    reference: str
    order_id: str
    product_id: str
    name: str
    count: int
    address: Any


class Arranged(msgspec.Struct, frozen=True):
    """The service will deliver; `id` is its own name for that."""

    id: str


class Undeliverable(msgspec.Struct, frozen=True):
    """The service will not deliver this, however often it is asked."""

    reason: str


class Unreachable(msgspec.Struct, frozen=True):
    """Nobody knows whether the service took it. The same reference again, and never another."""

    reason: str


class Courier(Protocol):
    """A delivery service. It promises to deliver a reference once, however often it is asked to."""

    async def arrange(self, consignment: Consignment) -> Arranged | Undeliverable | Unreachable: ...

    async def cancel(self, reference: str) -> bool:
        """Whether it is certain that nothing will be delivered under `reference`, also where a request to do so is
        still on its way. False: ask again."""
