"""How records become rows: one encoding and one set of index entries for all stores.

A record's type is known by the prefix of its id, so nothing about it is stored beside its fields. Fields at their
default are left out; an unknown field in a row (written by a newer version) is ignored.

A row begins with a checksum of all that follows, the record's id included: `{"~":"1b2c3d4e","id":…}`. A few types
have none (`UNCHECKED`). A read that finds another raises `RecordDamaged`. It shows damage by a disk, and an edit by
hand that forgot it; the audit trail shows the others. Rows from before, and those that a process of the version before
has rewritten, have none and are read as they are.
"""

import hashlib
from binascii import crc32, hexlify
from collections.abc import Callable
from typing import Any, Final

import msgspec

from tillway.domain.account import SCOPE_KEY_LENGTH, Account
from tillway.domain.account_state import AccountState, AccountTask
from tillway.domain.alias import Alias
from tillway.domain.api_key import ApiKey, KeyRequest
from tillway.domain.attempt import Attempt
from tillway.domain.audit import AuditBatch, AuditCopied, AuditEntry, AuditTask
from tillway.domain.balance import AvailabilityTask, Balance
from tillway.domain.card_tries import CardTries
from tillway.domain.cash_balance import CashBalance, CashTransaction
from tillway.domain.catalog import CatalogProduct, Price
from tillway.domain.charge import Charge
from tillway.domain.checkout import CheckoutExpiry, CheckoutSession, PaymentLink
from tillway.domain.close import Close
from tillway.domain.confirmation_token import ConfirmationToken
from tillway.domain.connector_config import ConnectorConfig, DefaultGuard
from tillway.domain.credentials import OAuthClient, SigningKey
from tillway.domain.customer import Customer
from tillway.domain.customer_session import CustomerSession
from tillway.domain.dashboard import DashboardSession, IdentityLink, SignInLink
from tillway.domain.delivery_log import DeliveryBatch
from tillway.domain.dispute import Dispute, DisputeTask
from tillway.domain.early_fraud_warning import EarlyFraudWarning
from tillway.domain.ephemeral_key import EphemeralKey
from tillway.domain.event import Delivery, Event, NoticeTask, WebhookEndpoint
from tillway.domain.external_account import ExternalAccount
from tillway.domain.file import File, FileChunk
from tillway.domain.file_link import FileLink
from tillway.domain.gateway_payment import GatewayPayment
from tillway.domain.generation import Generation
from tillway.domain.idempotency import IdempotencyRecord
from tillway.domain.key_binding import KeyBinding
from tillway.domain.key_use import KeyUse
from tillway.domain.ledger import Balances, Entry
from tillway.domain.mail import EmailTask
from tillway.domain.mandate import Mandate
from tillway.domain.open_item import OpenItem
from tillway.domain.operator import Operator, OperatorKey, RefundTally
from tillway.domain.order import Order, OrderTask
from tillway.domain.passkey import Passkey, UsedChallenge
from tillway.domain.payment_file import FiledOperation, FileSeries, SentFile
from tillway.domain.payment_intent import AuthorizationExpiry, PaymentIntent
from tillway.domain.payment_method import CardExpiry, PaymentMethod, Token
from tillway.domain.payment_tally import PaymentTally, TallyPage
from tillway.domain.payout import Payout, PayoutGuard
from tillway.domain.product import Product
from tillway.domain.record import Record, SealedRecord
from tillway.domain.redaction import Redacted
from tillway.domain.refund import Refund
from tillway.domain.request_log import RequestBatch
from tillway.domain.retention import Archived, Retention
from tillway.domain.routing import Routing
from tillway.domain.saved_view import SavedView
from tillway.domain.settled_operation import SettledOperation
from tillway.domain.settlement import Settlement
from tillway.domain.setup_intent import SetupAttempt, SetupIntent
from tillway.domain.sign_in_proofs import SignInProofs, SignInTicket
from tillway.domain.sign_in_tries import SignInTries
from tillway.domain.simulated_operation import SimulatedFaults, SimulatedOperation
from tillway.domain.source_api import STORED_FIELD, SourceApi
from tillway.domain.stored_credit import CustomerBalanceTransaction
from tillway.domain.test_clock import Release, TestClock, TestClockTask
from tillway.domain.throttle_time import ThrottleTime
from tillway.domain.time_mark import TimeMark
from tillway.store.columns import Columns, decode_terms, entries_of, terms_or_none
from tillway.store.port import ABSENT, Row, Write

_encode = msgspec.json.Encoder().encode


def encode(record: Record) -> bytes:
    return _encode(record)


class RecordDamaged(Exception):
    """A stored record is not the one that was written. The text names it and the remedy."""

    def __init__(self, id: str, why: str) -> None:
        super().__init__(
            f"{id} is damaged: {why}. Find all damaged records with `tillway doctor --deep`, and restore a backup."
        )
        self.id = id
        self.why = why


CHECK_FIELD = "~"
"""The name of the checksum: CRC-32 of the bytes from the next field on, as eight hexadecimal digits."""

_CHECKED = b'{"~":"'


def decode(id: str, body: bytes) -> Record:
    """The record of `id` from its row's body. Raises `RecordDamaged`."""
    # The places are written out, since every read comes here: `_CHECKED` with the digits, and the rest behind `",`.
    if body[:14] != b'{"~":"%08x' % crc32(body[16:]) and has_checksum(body):
        raise RecordDamaged(id, "its checksum differs")
    try:
        record: Record = _DECODERS[id.partition("_")[0]].decode(body)
    except msgspec.MsgspecError as error:
        raise RecordDamaged(id, f"it cannot be read ({error})") from error
    if record.id != id:
        raise RecordDamaged(id, "it holds another record")
    return record


def decode_unchecked(id: str, body: bytes) -> Record:
    """The record in a row's body, whatever its checksum. Raises `msgspec.MsgspecError`, or `AssertionError` where it
    breaks a rule of its own."""
    record: Record = _DECODERS[id[: id.index("_")]].decode(body)
    return record


def has_checksum(body: bytes) -> bool:
    return body.startswith(_CHECKED)


def has_columns(row: Row, columns: Columns) -> bool:
    """Whether the columns beside a record are those that it is written with. The version before wrote some entries
    more, and new tasks to a queue of another name."""
    scope, _, id = row.key.partition("/")
    record = decode(id, row.body)
    write = write_of(scope, record, ABSENT)
    entries = (entries_of(write.index), entries_of(with_all_entries(scope, record, write).index))
    queues = (write.queue, QUEUES.get(type(record)))
    placed = columns.entries in entries and columns.queue in queues and columns.expires_at == write.expires_at
    return placed and columns.listed == decode_terms(columns.entries[-1])


def has_term(columns: Columns, partition: str) -> bool:
    """Whether a record stands in that partition of the index of terms, as its columns tell it."""
    return partition in terms_or_none(columns.entries[-1])


def without_checksum(body: bytes) -> bytes:
    """The body of a row, as a copy of the record has it elsewhere."""
    return b"{" + body[16:] if body.startswith(_CHECKED) else body


def write_of(scope: str, record: Record, version: int) -> Write:
    """The write that brings `record` from `version` to the next."""
    return row_of(scope, record, version)[0]


def row_of(scope: str, record: Record, version: int) -> tuple[Write, bytes]:
    """The same write, and its body without the checksum."""
    entries, queue, expires, checked = _FORMS[type(record)]
    index = entries(scope, record) if entries is not None else ()
    key, plain = f"{scope}/{record.id}", _encode(record)
    body = plain
    if checked:
        rest = plain[1:]
        # A format of eight digits takes longer.
        body = b"".join((_CHECKED, hexlify(crc32(rest).to_bytes(4)), b'",', rest))
    if queue is not None:
        return Write(key, version, body, index, queue, record.due_at_ms), plain  # type: ignore[attr-defined]  # A task has it.
    if expires:
        return Write(key, version, body, index, None, None, record.expires_at), plain  # type: ignore[attr-defined]  # See above.
    return Write(key, version, body, index), plain


def by_customer(scope: str, prefix: str, customer: str) -> str:
    return f"{scope}/{prefix}@{customer}"


def by_parent(scope: str, prefix: str, parent: str) -> str:
    return f"{scope}/{prefix}<{parent}"


def by_kind(scope: str, prefix: str, kind: str) -> str:
    return f"{scope}/{prefix}:{kind}"


def by_term(scope: str, prefix: str, field: str, value: str) -> str:
    return f"{scope}/{prefix}={field}={value}"


def by_reference(scope: str, tail: str) -> str:
    """The partition with the payment, refund or payout that has an attempt of that tail."""
    return f"{scope}@{tail}"


def is_reference(partition: str) -> bool:
    """Whether `by_reference` made that partition."""
    return partition[SCOPE_KEY_LENGTH : SCOPE_KEY_LENGTH + 1] == "@"


def by_dispute(scope: str, connector: str, reference: str) -> str:
    """The partition with the disputes of a bank's reference, which may have any characters."""
    return by_kind(scope, "du", hashlib.blake2b(f"{connector}/{reference}".encode(), digest_size=16).hexdigest())


REFERENCE_INDEXES: dict[str, str] = {"refund": "customer"}
"""The index with the first reference of a record, by the kind of its attempt, where that is not `kind`. Of each of
these a record has one entry at most, which costs no row; later references of a payment are terms."""

ALL_REFERENCE_INDEXES: tuple[str, ...] = ("kind", *REFERENCE_INDEXES.values(), "term")
"""Every index that can hold a reference, the likeliest first."""


def by_number(id: str) -> str:
    """A partition that no scope stands before: of which merchant a gateway payment is."""
    return f"number/{id}"


UNEXPLAINED = "unexplained"
"""The partition of `kind` with the open items about unexplained operations, of all merchants."""


def by_source_api(scope: str, prefix: str, source_api: SourceApi) -> str:
    return by_term(scope, prefix, STORED_FIELD, source_api.value)


_V1 = SourceApi.v1  # Python 3.11 takes 0.1 µs for an access through the enumeration.


def _source_api_terms(scope: str, prefix: str, source_api: SourceApi) -> tuple[tuple[str, str], ...]:
    """Records made through `/v1` itself have no entry: they are the majority, and lists find them without one."""
    return (("term", by_source_api(scope, prefix, source_api)),) if source_api is not _V1 else ()


def _metadata_terms(scope: str, prefix: str, metadata: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(("term", by_term(scope, prefix, f"metadata[{key}]", value.lower())) for key, value in metadata.items())


def _payment(scope: str, payment: PaymentIntent) -> tuple[tuple[str, str], ...]:
    terms: tuple[tuple[str, str], ...] = ()
    references = payment.references
    if references:
        terms = (("kind", f"{scope}@{references[0]}"),)  # As `by_reference` has it.
        if len(references) > 1:
            terms += tuple([("term", by_reference(scope, tail)) for tail in references[1:]])
    if (payment.customer is None and not payment.metadata and payment.source_api is _V1) or not payment.listed:
        return terms
    if payment.source_api is not _V1:
        terms = (*terms, *_source_api_terms(scope, "pi", payment.source_api))
    if payment.metadata:
        terms = (*terms, *_metadata_terms(scope, "pi", payment.metadata))
    if payment.customer is None:
        return terms
    return (("customer", by_customer(scope, "pi", payment.customer)), *terms)


def _charge(scope: str, charge: Charge) -> tuple[tuple[str, str], ...]:
    # A payment names its charge that succeeded; only the others need an entry.
    own: tuple[tuple[str, str], ...] = _by_payment(scope, charge) if charge.status != "succeeded" else ()
    if charge.source_api is not _V1 or charge.metadata:
        own = (*_metadata_terms(scope, "ch", charge.metadata), *_source_api_terms(scope, "ch", charge.source_api), *own)
    if charge.customer is None:
        return own
    return (("customer", by_customer(scope, "ch", charge.customer)), *own)


def _by_payment(scope: str, charge: Charge) -> tuple[tuple[str, str], ...]:
    return (("parent", by_parent(scope, "ch", charge.payment)),)


def _refund(scope: str, refund: Refund) -> tuple[tuple[str, str], ...]:
    return (
        ("parent", by_parent(scope, "re", refund.charge)),
        ("kind", by_kind(scope, "re", refund.payment)),
        *_source_api_terms(scope, "re", refund.source_api),
        *((("customer", by_reference(scope, refund.reference)),) if refund.reference else ()),
    )


def _payout(scope: str, payout: Payout) -> tuple[tuple[str, str], ...]:
    own: tuple[tuple[str, str], ...] = ()
    if payout.destination is not None:
        own = (("parent", by_parent(scope, "po", payout.destination)),)
    if payout.customer is not None:
        own = (*own, ("customer", by_customer(scope, "po", payout.customer)))
    if payout.reference:
        own = (*own, ("kind", by_reference(scope, payout.reference)))
    return own


COMMON_TRANSACTION = "charge"
"""The type of most balance transactions. A list finds them without an index, and the one of a charge by the charge."""


def _entry(scope: str, entry: Entry) -> tuple[tuple[str, str], ...]:
    if entry.type is None:
        return ()
    return () if entry.type == COMMON_TRANSACTION else _entries_of_all(scope, entry, entry.type)


def _entries_of_all(scope: str, entry: Entry, type: str) -> tuple[tuple[str, str], ...]:
    return (("parent", by_parent(scope, "txn", entry.source or "")), ("kind", by_kind(scope, "txn", type)))


def with_all_entries(scope: str, record: Record, write: Write) -> Write:
    """The write of a record with those index entries too by which the version before lists it."""
    if isinstance(record, Charge) and record.status == "succeeded":
        return msgspec.structs.replace(write, index=(*write.index, *_by_payment(scope, record)))
    if isinstance(record, Entry) and record.type == COMMON_TRANSACTION:
        return msgspec.structs.replace(write, index=_entries_of_all(scope, record, record.type))
    return write


COMMON_EVENTS = frozenset(("charge.succeeded", "payment_intent.created", "payment_intent.succeeded"))
"""The events of every payment. They are so many that a list finds them without an index, and each entry in one would
cost each payment a write."""


def _audit_entry(scope: str, entry: AuditEntry) -> tuple[tuple[str, str], ...]:
    for event in entry.events:
        if event.type not in COMMON_EVENTS:
            break
    else:
        return ()
    rare = [event.type for event in entry.events if event.type not in COMMON_EVENTS]
    return tuple([("term", by_term(scope, "aud", "event", type)) for type in dict.fromkeys(rare)])


def _customer(scope: str, customer: Customer) -> tuple[tuple[str, str], ...]:
    email = (("term", by_term(scope, "cus", "email", customer.email.lower())),) if customer.email else ()
    return (*email, *_metadata_terms(scope, "cus", customer.metadata))


def _method(scope: str, method: PaymentMethod) -> tuple[tuple[str, str], ...]:
    return (("customer", by_customer(scope, "pm", method.customer)),) if method.customer else ()


def _setup(scope: str, setup: SetupIntent) -> tuple[tuple[str, str], ...]:
    return (("customer", by_customer(scope, "seti", setup.customer)),) if setup.customer else ()


def _key(scope: str, key: ApiKey) -> tuple[tuple[str, str], ...]:
    return (("parent", by_parent(scope, "key", key.account)),)


def _open_item(scope: str, item: OpenItem) -> tuple[tuple[str, str], ...]:
    return (("kind", UNEXPLAINED),) if item.kind == "unexplained" and item.status == "open" else ()


def _gateway_payment(scope: str, created: GatewayPayment) -> tuple[tuple[str, str], ...]:
    return (("kind", by_number(created.id)),)


def by_file(mode: str, connector: str, file: int) -> str:
    """A partition that no scope stands before: the operations of all merchants in that file of a connector; 0: those
    that wait for one."""
    return f"files/{mode}/{connector}/{file}"


def by_trace(mode: str, connector: str, trace: str) -> str:
    """The operation with that id in a connector's files, of any merchant."""
    return f"files/{mode}/{connector}={trace}"


def unsettled_files(mode: str, connector: str) -> str:
    """The files of a connector with operations that its silence will settle."""
    return f"files/{mode}/{connector}/unsettled"


def _filed_operation(scope: str, filed: FiledOperation) -> tuple[tuple[str, str], ...]:
    trace = (("term", by_trace(filed.mode, filed.connector, filed.trace)),) if filed.trace else ()
    return (("parent", by_file(filed.mode, filed.connector, filed.file)), *trace)


def _sent_file(scope: str, file: SentFile) -> tuple[tuple[str, str], ...]:
    return (("kind", unsettled_files(file.mode, file.connector)),) if file.settles_at is not None else ()


def _dispute(scope: str, dispute: Dispute) -> tuple[tuple[str, str], ...]:
    charge = ("parent", by_parent(scope, "du", dispute.charge))
    if not dispute.reference:
        return (charge,)
    return (charge, ("kind", by_dispute(scope, dispute.connector, dispute.reference)))


def by_settlement(scope: str, connector: str, reference: str) -> str:
    """The partition with the settlement of a provider's reference, which may have any characters."""
    return by_kind(scope, "stl", hashlib.blake2b(f"{connector}/{reference}".encode(), digest_size=16).hexdigest())


def _settlement(scope: str, booked: Settlement) -> tuple[tuple[str, str], ...]:
    return (("kind", by_settlement(scope, booked.connector, booked.reference)),) if booked.reference else ()


def _checkout(scope: str, session: CheckoutSession) -> tuple[tuple[str, str], ...]:
    entries: tuple[tuple[str, str], ...] = ()
    if session.customer is not None:
        entries = (("customer", by_customer(scope, "cs", session.customer)),)
    if session.payment is not None:
        entries = (*entries, ("kind", by_kind(scope, "cs", session.payment)))
    if session.link is not None:
        entries = (*entries, ("parent", by_parent(scope, "cs", session.link)))
    return entries


class RecordType(msgspec.Struct, frozen=True, kw_only=True):
    """One type of record, as the store keeps it and the API names it.

    `prefixes` begin the ids of its records, without the underscore. `entries` are its index entries. `queue` is the
    queue of a record that is a task; such a record has a `due_at_ms`. `stored_queue` is where the store keeps that
    queue's new tasks, if not under its name, where those of earlier versions are.

    `object` is its name in answers of the API; where it has one, a file of `api/` registers its shape with `@shape`.
    `noun` is its name in errors ("No such charge: …"); the name of the class in lower case where it is left out.

    The store forgets a record at its `expires_at`, unless the type `lasts`: then it only ends, and is still shown.
    """

    kind: type[Record]
    prefixes: tuple[str, ...]
    object: str = ""
    noun: str = ""
    entries: Callable[[str, Any], tuple[tuple[str, str], ...]] | None = None
    queue: str | None = None
    stored_queue: str | None = None
    lasts: bool = False

    @property
    def name(self) -> str:
        return self.noun or self.kind.__name__.lower()


_ROWS: Final = (
    RecordType(kind=Account, prefixes=("acct",), object="merchant", noun="account"),
    # Only events and answers hold a state.
    RecordType(kind=AccountState, prefixes=("acs",), object="account"),
    RecordType(kind=AccountTask, prefixes=("acst",), queue="expiries"),
    RecordType(kind=Alias, prefixes=("als",)),
    RecordType(kind=ApiKey, prefixes=("key",), entries=_key, lasts=True),
    # How far a trail is archived (one in each scope), and how long records are kept (one in all).
    RecordType(kind=Archived, prefixes=("arc",)),
    RecordType(kind=Retention, prefixes=("ret",)),
    RecordType(kind=Attempt, prefixes=("att",), queue="attempts"),
    RecordType(kind=AuditBatch, prefixes=("mrk",)),
    RecordType(kind=AuditEntry, prefixes=("aud",), object="audit_entry", entries=_audit_entry),
    RecordType(kind=AuditCopied, prefixes=("auc",)),
    RecordType(kind=AuditTask, prefixes=("audt",), queue="audit"),
    RecordType(kind=AuthorizationExpiry, prefixes=("exp",), queue="expiries"),
    RecordType(kind=AvailabilityTask, prefixes=("avl",), queue="expiries"),
    # Only events hold one.
    RecordType(kind=Balance, prefixes=("blc",), object="balance"),
    RecordType(kind=Balances, prefixes=("bal",)),
    # Only events and answers hold one.
    RecordType(kind=CashBalance, prefixes=("csb",), object="cash_balance"),
    RecordType(
        kind=CashTransaction,
        prefixes=("ccsbtxn",),
        object="customer_cash_balance_transaction",
        entries=lambda scope, transaction: (("parent", by_parent(scope, "ccsbtxn", transaction.customer)),),
    ),
    RecordType(kind=CardExpiry, prefixes=("cxp",), queue="expiries"),
    RecordType(kind=CatalogProduct, prefixes=("prd",), object="product", noun="product"),
    RecordType(kind=Charge, prefixes=("ch",), object="charge", entries=_charge),
    RecordType(kind=CheckoutExpiry, prefixes=("cse",), queue="expiries"),
    RecordType(
        kind=CheckoutSession,
        prefixes=("cs",),
        object="checkout.session",
        noun="checkout.session",
        entries=_checkout,
        lasts=True,
    ),
    RecordType(kind=ConfirmationToken, prefixes=("ctoken",), noun="confirmation token"),
    RecordType(kind=Close, prefixes=("cls",), object="close"),
    RecordType(kind=ConnectorConfig, prefixes=("con",), object="connector"),
    RecordType(kind=Customer, prefixes=("cus",), object="customer", entries=_customer),
    RecordType(
        kind=CustomerBalanceTransaction,
        prefixes=("cbtxn",),
        object="customer_balance_transaction",
        entries=lambda scope, movement: (("parent", by_parent(scope, "cbtxn", movement.customer)),),
    ),
    RecordType(kind=CustomerSession, prefixes=("cuss",), object="customer_session", noun="customer session"),
    RecordType(kind=DashboardSession, prefixes=("dss",)),
    # A process of the version before, which finds no event without a row of its own, would drop its delivery.
    RecordType(kind=Delivery, prefixes=("whd",), queue="deliveries", stored_queue="webhooks"),
    RecordType(kind=DeliveryBatch, prefixes=("whl",)),
    RecordType(
        kind=Dispute,
        prefixes=("du",),
        object="dispute",
        entries=_dispute,
    ),
    RecordType(kind=DisputeTask, prefixes=("dut",), queue="expiries"),
    RecordType(
        kind=EarlyFraudWarning,
        prefixes=("issfr",),
        object="radar.early_fraud_warning",
        noun="early fraud warning",
    ),
    RecordType(kind=EmailTask, prefixes=("eml",), queue="mail"),
    RecordType(kind=EphemeralKey, prefixes=("ephkey",), noun="ephemeral key"),
    # An entry of the API (`txn`), or one that only the ledger has (`je`).
    RecordType(
        kind=Entry,
        prefixes=("txn", "je"),
        object="balance_transaction",
        noun="balance transaction",
        entries=_entry,
    ),
    # The API shows an `EventReading`.
    RecordType(
        kind=Event, prefixes=("evt",), entries=lambda scope, event: (("kind", by_kind(scope, "evt", event.type)),)
    ),
    RecordType(kind=ExternalAccount, prefixes=("ba",), object="bank_account"),
    RecordType(kind=File, prefixes=("file",), object="file"),
    RecordType(kind=FileChunk, prefixes=("fchk",)),
    RecordType(kind=FileLink, prefixes=("link",), object="file_link", noun="file link", lasts=True),
    RecordType(kind=FiledOperation, prefixes=("fop",), noun="filed operation", entries=_filed_operation),
    RecordType(kind=FileSeries, prefixes=("fsr",)),
    RecordType(kind=GatewayPayment, prefixes=("gwp",), entries=_gateway_payment),
    RecordType(kind=Generation, prefixes=("gen",)),
    RecordType(kind=IdentityLink, prefixes=("dil",)),
    RecordType(kind=IdempotencyRecord, prefixes=("idem",)),
    RecordType(kind=KeyBinding, prefixes=("kfb",)),
    RecordType(kind=KeyRequest, prefixes=("kyr",)),
    RecordType(kind=KeyUse, prefixes=("kyu",)),
    RecordType(kind=SimulatedFaults, prefixes=("sbf",)),
    RecordType(kind=SimulatedOperation, prefixes=("sbo",)),
    RecordType(kind=TestClock, prefixes=("clock",), object="test_helpers.test_clock", noun="test clock"),
    RecordType(kind=TestClockTask, prefixes=("clockt",), queue="expiries"),
    RecordType(kind=Mandate, prefixes=("mandate",), object="mandate"),
    RecordType(kind=NoticeTask, prefixes=("ntc",), queue="notices"),
    RecordType(kind=OAuthClient, prefixes=("oac",)),
    RecordType(kind=OpenItem, prefixes=("oi",), object="open_item", noun="open item", entries=_open_item),
    RecordType(kind=Operator, prefixes=("opr",)),
    RecordType(kind=OperatorKey, prefixes=("opk",)),
    RecordType(kind=Order, prefixes=("ord",), object="order"),
    RecordType(kind=OrderTask, prefixes=("ordt",), queue="orders"),
    # The payment of a direct charge (`dpi`) is not listed.
    RecordType(
        kind=PaymentIntent,
        prefixes=("pi", "dpi"),
        object="payment_intent",
        noun="payment_intent",
        entries=_payment,
    ),
    RecordType(
        kind=PaymentMethod,
        prefixes=("pm", "card", "src"),
        object="payment_method",
        noun="PaymentMethod",
        entries=_method,
    ),
    # The kept counts of payments: a head in each scope that was counted, and its pages.
    RecordType(kind=PaymentTally, prefixes=("tly",)),
    RecordType(kind=TallyPage, prefixes=("tlyp",)),
    RecordType(kind=Payout, prefixes=("po",), object="payout", entries=_payout),
    RecordType(kind=PayoutGuard, prefixes=("pog",)),
    RecordType(kind=DefaultGuard, prefixes=("dcg",)),
    RecordType(kind=PaymentLink, prefixes=("plink",), object="payment_link", noun="payment_link"),
    RecordType(
        kind=Price,
        prefixes=("price",),
        object="price",
        entries=lambda scope, price: (("parent", by_parent(scope, "price", price.product)),),
    ),
    RecordType(kind=Product, prefixes=("prod",), object="stocked_product", noun="product"),
    RecordType(kind=Redacted, prefixes=("red",)),
    RecordType(kind=Refund, prefixes=("re",), object="refund", entries=_refund),
    RecordType(kind=RefundTally, prefixes=("opt",)),
    RecordType(kind=CardTries, prefixes=("tries",)),
    RecordType(kind=Release, prefixes=("rls",)),
    RecordType(kind=RequestBatch, prefixes=("rql",)),
    RecordType(kind=SealedRecord, prefixes=("vlt", "cvc")),
    # The document in force (`rtg`), or the kept copy of a version of it (`rtgv`).
    RecordType(kind=Routing, prefixes=("rtg", "rtgv"), object="routing"),
    RecordType(kind=SentFile, prefixes=("fil",), entries=_sent_file),
    RecordType(kind=SettledOperation, prefixes=("sop",), noun="settled operation"),
    RecordType(kind=Settlement, prefixes=("stl",), object="settlement", entries=_settlement),
    RecordType(
        kind=SetupAttempt,
        prefixes=("setatt",),
        object="setup_attempt",
        noun="setup_attempt",
        entries=lambda scope, attempt: (("parent", by_parent(scope, "setatt", attempt.setup)),),
    ),
    RecordType(kind=SavedView, prefixes=("view",), object="view"),
    RecordType(kind=SetupIntent, prefixes=("seti",), object="setup_intent", entries=_setup),
    RecordType(kind=SigningKey, prefixes=("jwk",)),
    RecordType(kind=Passkey, prefixes=("dpk",)),
    RecordType(kind=SignInLink, prefixes=("dsl",)),
    RecordType(kind=SignInProofs, prefixes=("dsp",)),
    RecordType(kind=SignInTicket, prefixes=("dst",)),
    RecordType(kind=SignInTries, prefixes=("dtr",)),
    RecordType(kind=ThrottleTime, prefixes=("thr",)),
    RecordType(kind=TimeMark, prefixes=("clk",)),
    RecordType(kind=Token, prefixes=("tok",), object="token"),
    RecordType(kind=UsedChallenge, prefixes=("duc",)),
    RecordType(kind=WebhookEndpoint, prefixes=("we",), object="webhook_endpoint", noun="webhook endpoint"),
)

RECORD_TYPES: Final[dict[type[Record], RecordType]] = {row.kind: row for row in _ROWS}
"""All types of records that are stored. A new one is a row here; `tests/test_record_types.py` tells which part of it is
missing elsewhere."""

TYPES: Final[dict[str, type[Record]]] = {prefix: row.kind for row in _ROWS for prefix in row.prefixes}
"""Record types by id prefix."""

QUEUES: Final[dict[type[Record], str]] = {row.kind: row.queue for row in _ROWS if row.queue is not None}
"""The record types that are tasks, and the queue of each."""

STORED_QUEUES: Final[dict[str, tuple[str, ...]]] = {
    row.queue: (row.stored_queue, row.queue) if row.stored_queue else (row.queue,) for row in _ROWS if row.queue
}
"""The queues of the store in which the tasks of a queue may be."""

QUEUE_OF: Final = {stored: queue for queue, names in STORED_QUEUES.items() for stored in names}
"""The queue of the tasks that the store keeps under a name."""


class _Decoders(dict[str, msgspec.json.Decoder[Record]]):
    """The decoder of each prefix, made for its first record: a payment needs a few of all."""

    def __missing__(self, prefix: str) -> msgspec.json.Decoder[Record]:
        decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(TYPES[prefix])
        self[prefix] = decoder
        return decoder


_DECODERS = _Decoders()

LASTING: Final = frozenset(row.kind for row in _ROWS if row.lasts)
"""Types that the store never forgets: at their `expires_at` they only end."""

UNCHECKED: Final = frozenset((AuditBatch, AuditEntry, Event, IdempotencyRecord))
"""Types without a checksum: the digests of the audit trail prove its own records, and an event or an answer that is
kept for a repetition is a copy. They are most of the bytes that a payment writes."""

_FORMS = {
    row.kind: (
        row.entries,
        row.stored_queue or row.queue,
        "expires_at" in row.kind.__struct_fields__ and row.queue is None and row.kind not in LASTING,
        row.kind not in UNCHECKED,
    )
    for row in _ROWS
}
"""For each record type: its index entries, its queue, whether the store may forget it at its `expires_at`, and whether
it gets a checksum."""
