"""How records become rows: one encoding and one set of index entries for all stores.

A record's type is known by the prefix of its id, so nothing about it is stored beside its fields. Fields at their
default are left out; an unknown field in a row (written by a newer version) is ignored.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from tillway.domain.account import Account
from tillway.domain.alias import Alias
from tillway.domain.api_key import ApiKey
from tillway.domain.attempt import Attempt
from tillway.domain.audit import AuditBatch, AuditEntry, AuditTask
from tillway.domain.charge import Charge
from tillway.domain.connector_config import ConnectorConfig
from tillway.domain.credentials import OAuthClient, SigningKey
from tillway.domain.customer import Customer
from tillway.domain.dispute import Dispute
from tillway.domain.event import Delivery, Event, NoticeTask, WebhookEndpoint
from tillway.domain.external_account import ExternalAccount
from tillway.domain.gateway_payment import GatewayPayment
from tillway.domain.idempotency import IdempotencyRecord
from tillway.domain.ledger import Balances, Entry
from tillway.domain.mail import EmailTask
from tillway.domain.mandate import Mandate
from tillway.domain.operator import Operator, OperatorKey, RefundTally
from tillway.domain.order import Order, OrderTask
from tillway.domain.payment_intent import AuthorizationExpiry, PaymentIntent
from tillway.domain.payment_method import PaymentMethod, Token
from tillway.domain.payout import Payout, PayoutGuard
from tillway.domain.product import Product
from tillway.domain.record import Record, SealedRecord
from tillway.domain.refund import Refund
from tillway.domain.setup_intent import SetupAttempt, SetupIntent
from tillway.domain.source_api import STORED_FIELD, SourceApi
from tillway.domain.stored_credit import CustomerBalanceTransaction
from tillway.domain.time_mark import TimeMark
from tillway.store.port import Write

TYPES: dict[str, type[Record]] = {
    "acct": Account,
    "key": ApiKey,
    "con": ConnectorConfig,
    "jwk": SigningKey,
    "oac": OAuthClient,
    "als": Alias,
    "aud": AuditEntry,
    "audt": AuditTask,
    "att": Attempt,
    "ba": ExternalAccount,
    "bal": Balances,
    "card": PaymentMethod,
    "cbtxn": CustomerBalanceTransaction,
    "ch": Charge,
    "clk": TimeMark,
    "cus": Customer,
    "cvc": SealedRecord,
    "dpi": PaymentIntent,
    "du": Dispute,
    "eml": EmailTask,
    "evt": Event,
    "exp": AuthorizationExpiry,
    "gwp": GatewayPayment,
    "idem": IdempotencyRecord,
    "je": Entry,
    "mandate": Mandate,
    "ntc": NoticeTask,
    "opk": OperatorKey,
    "opr": Operator,
    "opt": RefundTally,
    "ord": Order,
    "ordt": OrderTask,
    "mrk": AuditBatch,
    "pi": PaymentIntent,
    "pm": PaymentMethod,
    "po": Payout,
    "pog": PayoutGuard,
    "prod": Product,
    "re": Refund,
    "setatt": SetupAttempt,
    "seti": SetupIntent,
    "tok": Token,
    "txn": Entry,
    "vlt": SealedRecord,
    "we": WebhookEndpoint,
    "whd": Delivery,
}
"""Record types by id prefix."""

QUEUES: dict[type[Record], str] = {
    Attempt: "attempts",
    AuditTask: "audit",
    AuthorizationExpiry: "expiries",
    Delivery: "deliveries",
    EmailTask: "mail",
    NoticeTask: "notices",
    OrderTask: "orders",
}
"""The record types that are tasks, and the queue that each stands in."""

_DECODERS = {prefix: msgspec.json.Decoder(kind) for prefix, kind in TYPES.items()}
_encode = msgspec.json.Encoder().encode


def encode(record: Record) -> bytes:
    return _encode(record)


def decode(id: str, body: bytes) -> Record:
    """The record of `id` from its row's body."""
    return _DECODERS[id[: id.index("_")]].decode(body)


def write_of(scope: str, record: Record, version: int) -> Write:
    """The write that brings `record` from `version` to the next."""
    entries, queue, expires = _FORMS[type(record)]
    index = entries(scope, record) if entries is not None else ()
    key, body = f"{scope}/{record.id}", _encode(record)
    if queue is not None:
        return Write(key, version, body, index, queue, record.due_at_ms)  # type: ignore[attr-defined]
    if expires:
        return Write(key, version, body, index, None, None, record.expires_at)  # type: ignore[attr-defined]
    return Write(key, version, body, index)


def by_customer(scope: str, prefix: str, customer: str) -> str:
    return f"{scope}/{prefix}@{customer}"


def by_parent(scope: str, prefix: str, parent: str) -> str:
    return f"{scope}/{prefix}<{parent}"


def by_kind(scope: str, prefix: str, kind: str) -> str:
    return f"{scope}/{prefix}:{kind}"


def by_term(scope: str, prefix: str, field: str, value: str) -> str:
    return f"{scope}/{prefix}={field}={value}"


def by_number(id: str) -> str:
    """The one partition that no scope stands before: of which merchant a gateway payment is."""
    return f"number/{id}"


def by_source_api(scope: str, prefix: str, source_api: SourceApi) -> str:
    return by_term(scope, prefix, STORED_FIELD, source_api.value)


_V1 = SourceApi.v1  # Python 3.11 takes 0.1 µs for an access through the enumeration.


def _source_api_terms(scope: str, prefix: str, source_api: SourceApi) -> tuple[tuple[str, str], ...]:
    """Records made through `/v1` itself have no entry: they are the majority, and lists find them without one."""
    return (("term", by_source_api(scope, prefix, source_api)),) if source_api is not _V1 else ()


def _metadata_terms(scope: str, prefix: str, metadata: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(("term", by_term(scope, prefix, f"metadata[{key}]", value.lower())) for key, value in metadata.items())


def _payment(scope: str, payment: PaymentIntent) -> tuple[tuple[str, str], ...]:
    if not payment.listed:
        return ()
    terms = _source_api_terms(scope, "pi", payment.source_api)
    if payment.metadata:
        terms = (*terms, *_metadata_terms(scope, "pi", payment.metadata))
    if payment.customer is None:
        return terms
    return (("customer", by_customer(scope, "pi", payment.customer)), *terms)


def _charge(scope: str, charge: Charge) -> tuple[tuple[str, str], ...]:
    own: tuple[tuple[str, str], ...] = (("parent", by_parent(scope, "ch", charge.payment)),)
    if charge.source_api is not _V1 or charge.metadata:
        own = (*_metadata_terms(scope, "ch", charge.metadata), *_source_api_terms(scope, "ch", charge.source_api), *own)
    if charge.customer is None:
        return own
    return (("customer", by_customer(scope, "ch", charge.customer)), *own)


def _refund(scope: str, refund: Refund) -> tuple[tuple[str, str], ...]:
    return (
        ("parent", by_parent(scope, "re", refund.charge)),
        ("kind", by_kind(scope, "re", refund.payment)),
        *_source_api_terms(scope, "re", refund.source_api),
    )


def _payout(scope: str, payout: Payout) -> tuple[tuple[str, str], ...]:
    own: tuple[tuple[str, str], ...] = ()
    if payout.destination is not None:
        own = (("parent", by_parent(scope, "po", payout.destination)),)
    if payout.customer is not None:
        own = (*own, ("customer", by_customer(scope, "po", payout.customer)))
    return own


def _entry(scope: str, entry: Entry) -> tuple[tuple[str, str], ...]:
    if entry.type is None:
        return ()
    return (
        ("parent", by_parent(scope, "txn", entry.source or "")),
        ("kind", by_kind(scope, "txn", entry.type)),
    )


def _customer(scope: str, customer: Customer) -> tuple[tuple[str, str], ...]:
    email = (("term", by_term(scope, "cus", "email", customer.email.lower())),) if customer.email else ()
    return (*email, *_metadata_terms(scope, "cus", customer.metadata))


def _method(scope: str, method: PaymentMethod) -> tuple[tuple[str, str], ...]:
    return (("customer", by_customer(scope, "pm", method.customer)),) if method.customer else ()


def _key(scope: str, key: ApiKey) -> tuple[tuple[str, str], ...]:
    return (("parent", by_parent(scope, "key", key.account)),)


def _gateway_payment(scope: str, created: GatewayPayment) -> tuple[tuple[str, str], ...]:
    return (("kind", by_number(created.id)),)


_ENTRIES: dict[type[Record], Callable[[str, Any], tuple[tuple[str, str], ...]]] = {
    PaymentIntent: _payment,
    Charge: _charge,
    Refund: _refund,
    Payout: _payout,
    Entry: _entry,
    Customer: _customer,
    PaymentMethod: _method,
    ApiKey: _key,
    GatewayPayment: _gateway_payment,
    Event: lambda scope, event: (("kind", by_kind(scope, "evt", event.type)),),
    Dispute: lambda scope, dispute: (("parent", by_parent(scope, "du", dispute.charge)),),
    SetupIntent: lambda scope, setup: (
        (("customer", by_customer(scope, "seti", setup.customer)),) if setup.customer else ()
    ),
    CustomerBalanceTransaction: lambda scope, movement: (("parent", by_parent(scope, "cbtxn", movement.customer)),),
    SetupAttempt: lambda scope, attempt: (("parent", by_parent(scope, "setatt", attempt.setup)),),
}


_FORMS = {
    kind: (_ENTRIES.get(kind), QUEUES.get(kind), "expires_at" in kind.__struct_fields__ and kind not in QUEUES)
    for kind in set(TYPES.values())
}
"""For each record type: its index entries, its queue, and whether the store may forget it at its `expires_at`."""
assert all("due_at_ms" in kind.__struct_fields__ for kind in QUEUES)
