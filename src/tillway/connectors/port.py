"""The connector port: a connector is a conversation with a provider, without sockets.

A connector turns an `Operation` into a generator that yields `Request`s, receives `Response`s, and returns an
`Outcome`. It never opens a connection and never names a transport failure: the core sends the requests and alone
decides the meaning of a refused connection or a lost answer (see `transport.py`). `Capabilities` states the provider's
abilities, so that the engine never asks which connector it is talking to.

Providers that exchange files have a port of their own: `file_port.py`.
"""

from collections.abc import Generator, Mapping
from typing import Any, Literal, Protocol, runtime_checkable
from urllib.parse import urlencode, urlsplit

import msgspec

from tillway.domain.dispute import Stage, Verdict
from tillway.domain.outcome import (
    ActionRequired,
    Checks,
    Declined,
    NotSent,
    OperationKind,
    Outcome,
    Pending,
    Succeeded,
    Unknown,
)

__all__ = [
    "ActionRequired",
    "Arranged",
    "BankAccountData",
    "Capabilities",
    "CardData",
    "Checks",
    "Connector",
    "Consignment",
    "Conversation",
    "Courier",
    "Declined",
    "DisputeReply",
    "Form",
    "Listing",
    "LookUp",
    "NeverSeen",
    "NotSent",
    "Notice",
    "NoticeImpossible",
    "NoticeRejected",
    "NoticeUndecided",
    "Notices",
    "Operation",
    "OperationKind",
    "OperationsPage",
    "Outcome",
    "Pending",
    "PostalAddress",
    "Recipient",
    "Request",
    "Response",
    "Succeeded",
    "Transport",
    "TransportError",
    "Undeliverable",
    "Unknown",
    "Unreachable",
    "action_required",
    "decode_notice",
    "encode_body",
    "read_retry_after",
    "tell",
]

REFERENCE_MAX = 35
"""Longest reference, in characters: the strictest rails (SEPA end-to-end ids) allow 35."""

BODY_MAX = 1 << 20
"""Largest answer that a transport reads, in bytes (1 MiB). A larger one is a `TransportError`."""


class CardData(msgspec.Struct, frozen=True):
    """A card for the provider, decrypted from the vault for one call. Its repr shows nothing."""

    number: str
    exp_month: int
    exp_year: int
    cvc: str | None = None
    name: str | None = None

    def __repr__(self) -> str:
        return "CardData(****)"


class BankAccountData(msgspec.Struct, frozen=True):
    """A bank account to debit, decrypted from the vault for one call. `type` is the payment method type, `number` an
    account number or an IBAN, `mandate` the reference (at most 35 characters) of the customer's permission. Its repr
    shows nothing."""

    type: str
    number: str
    routing_number: str | None = None
    account_holder_type: str | None = None
    account_type: str | None = None
    name: str | None = None
    mandate: str | None = None

    def __repr__(self) -> str:
        return "BankAccountData(****)"


RecipientType = Literal["email", "bank_account", "card"]

AccountForm = Literal["routing_number", "iban"]
"""How a bank account is named: by a US routing number and an account number, or by an IBAN."""


class Recipient(msgspec.Struct, frozen=True):
    """The recipient of a payout: an e-mail address, a card number, or a bank account as an IBAN or
    `<routing number>/<account number>`. Its repr shows only the type.

    `holder_type` (`individual` or `company`) and `account_type` (`checking` or `savings`) of a bank account are None if
    the merchant did not tell them.
    """

    type: RecipientType
    value: str
    name: str | None = None
    holder_type: str | None = None
    account_type: str | None = None

    def __repr__(self) -> str:
        return f"Recipient({self.type} ****)"


class PostalAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A postal address; `country` is an ISO 3166-1 code of two letters. Its repr shows nothing."""

    line1: str | None = None
    line2: str | None = None
    city: str | None = None
    state: str | None = None
    postal_code: str | None = None
    country: str | None = None

    def __repr__(self) -> str:
        return "PostalAddress(****)"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation for the provider to perform, at most once, under `reference` (the attempt's, at most 35
    characters).

    An `authorize` takes from a `card`, from a `wallet` (a payment method type) whose customer approves the payment at
    the provider's page or, at once and for good, from a bank `account`. `parent` is the reference of the authorization
    that a capture, void, increment or refund belongs to; `parent_bank_id` is the provider's own id of it. Amounts are
    minor units of `currency` (ISO 4217, lower case). `capture` is for `authorize`: take the money at once. A `capture`
    that is not `final` leaves the rest authorized, for further captures or a void; `captured_minor` was captured of the
    authorization before.

    A `verify` takes no money (its amount is 0, in no particular currency): the issuer agrees that the merchant keeps
    the `card` for payments of the kind `stores`. Its answers are those of an `authorize`.

    The rest describes a payment to its provider; each is None if the merchant gave none. `off_session`: the customer is
    not present, the merchant initiates the payment with a stored method. `network_transaction_id` is the card network's
    id of the first payment with that card, perhaps at another provider. `stores`: this payment is the first with a card
    that the merchant keeps, for payments of that kind. `email` and `billing_address` are the payer's,
    `statement_descriptor` is the text for the payer's statement (at most 22 characters), and `return_url` is the page
    to which the customer returns after a redirect; None where the customer must not be redirected. `three_d_secure` is
    the merchant's wish about authentication: `any` and `challenge` ask for it, `automatic` leaves it to the provider.
    `bank_id` is the provider's own id of this operation where an earlier answer told it, and `returned` is the text
    with which the provider sent the customer back from a redirect. `by_amount`, in test mode only, asks a simulated
    bank to answer an authorization by its amount: 1 declined, 2 insufficient funds, 24 pending.
    """

    reference: str
    kind: OperationKind
    amount_minor: int
    currency: str
    capture: bool = True
    card: CardData | None = None
    account: BankAccountData | None = None
    wallet: str | None = None
    recipient: Recipient | None = None
    parent: str | None = None
    parent_bank_id: str | None = None
    final: bool = True
    captured_minor: int = 0
    livemode: bool = False
    off_session: bool = False
    network_transaction_id: str | None = None
    email: str | None = None
    billing_address: PostalAddress | None = None
    statement_descriptor: str | None = None
    return_url: str | None = None
    stores: Literal["on_session", "off_session"] | None = None
    three_d_secure: Literal["automatic", "any", "challenge"] = "automatic"
    bank_id: str | None = None
    returned: str | None = None
    by_amount: bool = False

    def __repr__(self) -> str:
        # The payer's address and e-mail must not be in a traceback.
        return f"Operation({self.kind} {self.reference} {self.amount_minor} {self.currency})"


class Form(msgspec.Struct, frozen=True):
    """A request body of form fields, in order; a name may repeat."""

    fields: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return "Form(****)"


Body = dict[str, Any] | list[Any] | Form | bytes
"""A request's body: an object or list is sent as JSON, a `Form` URL-encoded, bytes unchanged."""


class Request(msgspec.Struct, frozen=True):
    """One HTTP request to the provider, of any method. `moves_money`: a lost answer to it leaves the outcome unknown.

    Header names are lower case. `content_type` replaces the one that the kind of body implies: `application/json`,
    `application/x-www-form-urlencoded` or, for bytes, `application/octet-stream`.
    """

    method: str
    path: str
    body: Body | None = None
    headers: Mapping[str, str] = {}
    moves_money: bool = True
    content_type: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The members of the body's JSON object; none if the body is another kind."""
        return self.body if isinstance(self.body, dict) else {}

    def __repr__(self) -> str:
        # The body may hold a card number and the headers a key: neither must be in a traceback.
        return f"Request({self.method} {self.path})"


def encode_body(request: Request) -> tuple[bytes | None, str | None]:
    """The bytes of the request's body and their content type; (None, None) if it has no body."""
    body = request.body
    if body is None:
        return None, None
    if isinstance(body, bytes):
        return body, request.content_type or "application/octet-stream"
    if isinstance(body, Form):
        return urlencode(body.fields).encode(), request.content_type or "application/x-www-form-urlencoded"
    return msgspec.json.encode(body), request.content_type or "application/json"


class Response(msgspec.Struct, frozen=True):
    """The provider's answer. `body` is the parsed JSON object, or None if `content`, the raw bytes (at most
    `BODY_MAX`), is not a JSON object. Header names are lower case."""

    status: int
    body: dict[str, Any] | None = None
    headers: Mapping[str, str] = {}
    content: bytes = b""

    @classmethod
    def read(cls, status: int, content: bytes, headers: Mapping[str, str]) -> "Response":
        """The answer with these bytes as its body, parsed if they are a JSON object."""
        return cls(status, _json_object(content), headers, content)

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.content)} bytes)" if self.content else f"Response({self.status})"


def _json_object(content: bytes) -> dict[str, Any] | None:
    if not content:
        return None
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


RETRY_AFTER_MAX_SECONDS = 3600.0


REDIRECT_URL_MAX = 8192
"""Longest address, in characters, to which a customer is sent."""


def action_required(url: object, bank_id: str | None) -> ActionRequired | Unknown:
    """The outcome of an answer that sends the customer to `url`; `Unknown` if that is no address to send anybody to."""
    if not isinstance(url, str) or len(url) > REDIRECT_URL_MAX or not url.isascii() or not url.isprintable():
        return Unknown("the answer sends the customer to no address")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return Unknown("the answer sends the customer to no address")
    if not host or parts.scheme not in ("https", "http") or (parts.scheme == "http" and host not in _THIS_HOST):
        return Unknown("the answer sends the customer to an address without https")
    return ActionRequired(url, bank_id)


_THIS_HOST = ("localhost", "127.0.0.1", "::1")


def read_retry_after(answer: Response) -> float | None:
    """The seconds that an answer's `Retry-After` asks to wait, at most an hour; None if it names no whole number."""
    wait = answer.headers.get("retry-after", "")
    if not (wait.isascii() and wait.isdigit() and len(wait) <= 6):
        return None
    return min(float(wait), RETRY_AFTER_MAX_SECONDS)


NOTICE_BYTES_MAX = 256 * 1024
"""The largest request with notices that a connector reads, in bytes."""


def decode_notice(body: bytes, most: int = NOTICE_BYTES_MAX) -> dict[str, Any]:
    """The JSON object in a provider's notice of at most `most` bytes. Raises `NoticeRejected`."""
    if len(body) > most:
        raise NoticeRejected(f"a notice has at most {most} bytes")
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NoticeRejected("the body is not JSON") from None
    if not isinstance(told, dict):
        raise NoticeRejected("the body is not an object")
    return told


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A report that a provider sends by itself. A repetition has the same `id`; `reference` names Tillway's operation.

    kind `operation` has the operation's `outcome`, or none where it only asks to look at the operation now; `dispute`
    opens one over the charge behind `reference`, at `stage`: a `chargeback` takes the money, an `inquiry` only asks, a
    `warning` (early fraud warning) only informs.

    `operation`, `amount_minor` and `currency` are compared with the operation of that reference, and `created` (epoch
    seconds) with the clock. Each is None if the provider does not tell it, or the connector has checked it. `parent` is
    the reference of the authorization that the operation belongs to.
    """

    id: str
    kind: Literal["operation", "dispute"]
    reference: str
    outcome: Outcome | None = None
    operation: OperationKind | None = None
    amount_minor: int | None = None
    currency: str | None = None
    parent: str | None = None
    created: int | None = None
    reason: str | None = None
    stage: Literal["chargeback", "inquiry", "warning"] = "chargeback"
    verdict: Verdict = "opened"
    network_reason_code: str | None = None
    evidence_due: int | None = None


class DisputeReply(msgspec.Struct, frozen=True, kw_only=True):
    """The merchant's reply to the dispute that has the provider's `reference`: evidence in words, or acceptance.

    A dispute can be answered once as an inquiry and again as a chargeback: `stage` tells the two replies apart. It is
    empty for a reply that an earlier version has begun to send.
    """

    kind: Literal["evidence", "accept"]
    reference: str
    text: str = ""
    stage: Stage | Literal[""] = ""

    def __repr__(self) -> str:
        return f"DisputeReply({self.kind} {self.reference})"


class NeverSeen(msgspec.Struct, frozen=True, tag=True):
    """Answer to a look-up: the provider does not know this reference (at this moment)."""


class OperationsPage(msgspec.Struct, frozen=True):
    """A page of a provider's operations, oldest first: each as the notice that would tell its present state.

    `after` is the reference after which the next page begins; None at the end. `unreadable` has the reason for each
    entry that is no operation.
    """

    notices: tuple[Notice, ...]
    after: str | None = None
    unreadable: tuple[str, ...] = ()


Conversation = Generator[Request, Response, Outcome]
LookUp = Generator[Request, Response, Outcome | NeverSeen]
Notices = Generator[Request, Response, list[Notice]]
Listing = Generator[Request, Response, OperationsPage]


def tell(notices: list[Notice]) -> Notices:
    """The conversation of a connector that accepts these notices without asking its provider."""
    yield from ()
    return notices


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """The provider's promises.

    `operations`: those that it performs, of `OperationKind`, and `multicapture` if it can capture an authorization
    several times.

    `deduplicates`: a resend with the same reference is performed at most once. `looks_up`: it answers questions by
    reference. `ask_after_seconds`: seconds from an unknown or pending outcome to the first question. `debits`: the
    payment method types of bank accounts that it can debit. `wallets`: those of wallets that it can take.
    `authenticates`: it can send the customer to the issuer (3-D Secure), with `ActionRequired`, and keeps to a payment
    that asks for that. `disputes`: it takes evidence and acceptance (`answer_dispute`). `lists`: it tells all
    operations since a moment (`list_operations`), which a restored installation asks for. `recipients`: the types of
    recipients that it pays out to. `deduplicates_seconds`: how long it keeps references and performs a resend at most
    once; None: for ever. `steps`: the currencies that it takes, each with the step of its amounts in minor units; None:
    all, of any amount. `account_form`: the bank accounts that it pays out to, US ones by routing number or any by IBAN;
    None: both. `by_file`: operations go out in files, and are pending until one is answered.
    """

    operations: frozenset[str]
    deduplicates: bool
    looks_up: bool
    livemode: bool
    authenticates: bool = False
    disputes: bool = False
    lists: bool = False
    debits: frozenset[str] = frozenset()
    wallets: frozenset[str] = frozenset()
    recipients: frozenset[RecipientType] = frozenset(("email", "bank_account", "card"))
    deduplicates_seconds: float | None = None
    steps: Mapping[str, int] | None = None
    account_form: AccountForm | None = None
    by_file: bool = False
    ask_after_seconds: float = 5.0
    timeout_seconds: float = 15.0


class NoticeRejected(Exception):
    """A notice with a wrong signature or form; the sender gets a 400."""


class NoticeImpossible(NoticeRejected):
    """A notice with the right signature that cannot be true: the sender gets a 400, and the operators an alarm."""


class NoticeUndecided(Exception):
    """The provider could not be asked whether it sent a notice, or for its list. The sender of a notice gets a 503 and
    should send it again."""


class Connector(Protocol):
    capabilities: Capabilities

    def perform(self, operation: Operation) -> Conversation:
        """Perform `operation`, in as many requests as necessary."""

    def look_up(self, operation: Operation) -> LookUp:
        """Ask for the outcome of `operation`. Yields requests that move no money."""

    def withdraw(self, operation: Operation) -> Conversation:
        """End an authorization that waits for its customer (`ActionRequired`), so that it can take no money any more.

        The outcome is that of the authorization: `Declined`, or `Succeeded` if the customer was faster. It may be sent
        again. The engine never calls this method of a connector that never answers `ActionRequired`.
        """

    def answer_dispute(self, reply: DisputeReply) -> Conversation:
        """Send evidence or acceptance. It may be sent again, and the provider takes it once."""

    def list_operations(self, since: int, after: str | None) -> Listing:
        """Ask for the operations that came, or changed their status, at `since` (epoch seconds) or later; `after`
        continues behind that reference. Raises `NoticeUndecided` if the provider gives no list."""

    def notices(self, headers: Mapping[str, str], body: bytes) -> Notices:
        """Read the notices in one request of the provider (header names are lower case).

        This is also a conversation: for some providers, only a question confirms a notice. Its requests move no money.
        Raises `NoticeRejected`, at the call or during the conversation.
        """


class TransportError(Exception):
    """The request got no whole answer. `spoken`: the provider may have seen it."""

    def __init__(self, reason: str, *, spoken: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.spoken = spoken


class Transport(Protocol):
    """Carries a connector's requests: over a socket, or by a call inside this process."""

    async def send(self, request: Request) -> Response:
        """Raises `TransportError`; with `spoken` if the body is cut short or larger than `BODY_MAX`."""

    async def close(self) -> None: ...


@runtime_checkable
class AtOnce(Protocol):
    """A transport inside this process that can perform some operations without a conversation."""

    def at_once(self, operation: Operation) -> Outcome | None:
        """The same outcome as that of the conversation; None where one is needed."""


# Delivery services.


class Consignment(msgspec.Struct, frozen=True, kw_only=True):
    """A quantity of one product to one address, under `reference` (at most 40 characters)."""

    reference: str
    order_id: str
    product_id: str
    name: str
    count: int
    address: Any


class Arranged(msgspec.Struct, frozen=True):
    """The service will deliver; `id` is its own id of the delivery."""

    id: str


class Undeliverable(msgspec.Struct, frozen=True):
    """The service will never deliver this."""

    reason: str


class Unreachable(msgspec.Struct, frozen=True):
    """It is unknown whether the service accepted it. Repeat with the same reference, never with another."""

    reason: str


class Courier(Protocol):
    """A delivery service. It promises to deliver a reference once, however often it is requested."""

    async def arrange(self, consignment: Consignment) -> Arranged | Undeliverable | Unreachable: ...

    async def cancel(self, reference: str) -> bool:
        """Cancel; True if certainly nothing will be delivered under `reference`, even if a request to do so is still on
        its way. False: cancel again."""
