"""The caller of a request or task, and the settings that its decisions follow."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Literal

import msgspec

from tillway.domain.account import Scope
from tillway.domain.attempt import keyed_tail
from tillway.domain.credentials import SignedInBy
from tillway.domain.idempotency import LIFETIME_SECONDS
from tillway.domain.ledger import Fee
from tillway.domain.operator import Role
from tillway.domain.source_api import SourceApi


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's settings for money and time. Each duration is in the unit that its name ends with."""

    fee: Fee = Fee()
    settlement_days: int = 2
    lease_ms: int = 12_000
    """How long a worker holds a task before another may take it."""
    answer_within_seconds: float = 40.0
    """How long a request waits for a provider before it is answered with the state known so far."""
    payout_delay_ms: int = 5_000
    """How long a payout of `/v1` waits, and can be cancelled, before it is sent to its provider."""
    disbursement_connector: str = ""
    """The connector that disbursements go through; empty: the mode's default."""
    mails_customers: bool = False
    """Whether customers get e-mail about the outcome of their disbursements."""
    public_url: str = "http://127.0.0.1:8420"
    dashboard_url: str = ""
    """The URL of the dashboard; empty: `public_url`."""
    refund_limit_support: int = 100
    """The most that support refunds of a payment and in a day, in major units of the currency."""
    refund_limit_reauth: int = 500
    """The most of a payment that is refunded at the dashboard without a fresh proof, in major units."""
    second_factor_for_all: bool = False
    """Whether viewers and support need a second factor, as operators and admins do."""
    answer_seconds: int = LIFETIME_SECONDS
    """How long the answer of an idempotency key is kept."""
    checkpoint_every: int = 500
    """The number of entries after which a new checkpoint of balances is worth a write."""


class Caller(msgspec.Struct, kw_only=True):
    """The party on behalf of which the engine acts.

    `idempotency` is (record id, fingerprint) of a request that named a key; `replaces` the version of an expired record
    of that key. `source_api` is the contract of the request. `presenter` names the contract that renders the answer
    (empty: `/v1`). `actor` is the id of an API key, or a part of the platform. `customer` is the one
    customer that the request may be about, by the merchant's own id, or with an ephemeral key by its id; None: every
    customer.
    """

    scope: Scope
    scope_key: str
    request_id: str | None = None
    idempotency: tuple[str, str] | None = None
    idempotency_key: str | None = None
    lasting: str = ""
    """The fingerprint of that request without the ids of objects in it: after a restore, the client repeats it about an
    object that has been made anew."""
    named: str = ""
    """The merchant's own name for the operation: references follow from it, so that they are the same after a restore
    although the request has no key, and the same for each carrier of an order's step."""
    attempts_begun: int = 0
    """How many attempts were begun under the key or name, references that were taken already included."""
    api_version: str | None = None
    expand: tuple[str, ...] = ()
    older_shapes: bool = False
    """Whether the API version has other shapes than today's, which include objects that a commit is about to write."""
    sent: Mapping[str, object] = {}
    """The parameters of the request, as they were sent."""
    ids: tuple[str, ...] = ()
    """The ids in the address of the request."""
    replaces: int = 0
    client_ip: str | None = None
    publishable: bool = False
    source_api: SourceApi = SourceApi.v1
    actor: str = "system"
    hint: str = ""
    """The visible ends of the actor's key."""
    operation: str = ""
    """The operation, for the audit trail: a route, or the work of a task."""
    original_answers: bool = False
    """Whether the account chose the answers of a dialect's original code over those of its description."""
    expects: Mapping[str, int] = {}
    """The versions of records that an operator has looked at, by id: the decision is made on no others."""
    reason: str = ""
    """An operator's reason for the decision, for the audit trail."""
    signed_in: SignedInBy | None = None
    """The sign-in to the dashboard behind an operator's decision, for the audit trail."""
    shows_charge: bool = False
    """Whether the answer shows the charge of a refund in its place."""
    presenter: str = ""
    customer: str | None = None
    kind: Literal["secret", "publishable", "operator", "ephemeral", "system"] = "system"
    """The kind of the request's credential."""
    role: Role | None = None
    """The role of an operator; None: not an operator."""
    whole_installation: bool = False
    """Whether an operator works for every merchant."""
    works_for: tuple[str, ...] | None = None
    """The merchants that an operator works for; None: every merchant, or not an operator."""
    scopes: tuple[str, ...] | None = None
    """The scopes of the caller; None: unrestricted."""
    expires_at: int | None = None
    """When the caller's credential ends (epoch seconds); None: it does not end by itself."""
    in_minor_units: bool = False
    """Whether `/v1` has minor units in every currency: for the dashboard, which counts in them, and for an account with
    stored amounts (`Account.has_stored_amounts`)."""

    def references(self, after: int = 0) -> Callable[[], str] | None:
        """The references of the attempts that a decision begins, in their order, without the first `after`; None where
        there is no name and no key."""
        if self.named:
            key, lasting = self.named, ""
        elif self.idempotency is not None:
            key, lasting = self.idempotency[0], self.lasting
        else:
            return None
        # No function of Python's: every payment asks for one.
        return map(partial(keyed_tail, self.scope_key, key, lasting), count(self.attempts_begun + after)).__next__

    def first_reference(self) -> Callable[[], str]:
        """The first of the references of a request under a key, for a decision that begins one attempt at most."""
        assert self.idempotency is not None and not self.named
        return partial(keyed_tail, self.scope_key, self.idempotency[0], self.lasting, self.attempts_begun)

    def take_name(self, name: str) -> None:
        """Let references follow from `name`, by which the client repeats this request, unless it has a key."""
        if self.idempotency is None:
            self.named = name

    @property
    def idem(self) -> str | None:
        """The id of the idempotency record of this request's key."""
        return self.idempotency[0] if self.idempotency is not None else None

    @classmethod
    def system(
        cls, scope: Scope, operation: str = "task", *, actor: str = "system", source_api: SourceApi = SourceApi.v1
    ) -> "Caller":
        """The platform itself, or a part of it that `actor` names."""
        return cls(scope=scope, scope_key=scope.key, operation=operation, actor=actor, source_api=source_api)
