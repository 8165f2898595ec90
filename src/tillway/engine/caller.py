"""On whose behalf a request or a task acts, and the settings that its decisions follow."""

from typing import Literal

import msgspec

from tillway.domain.account import Scope
from tillway.domain.ledger import Fee
from tillway.domain.operator import Role
from tillway.domain.source_api import SourceApi


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How the engine carries money and time. Durations are in the unit their names end with."""

    fee: Fee = Fee()
    settlement_days: int = 2
    lease_ms: int = 12_000
    """How long a task is its worker's; a dead process's attempts are taken over after that."""
    answer_within_seconds: float = 40.0
    """How long a request waits for a provider before it is answered with what is known."""
    payout_delay_ms: int = 5_000
    """How long a payout of `/v1` waits, and can be cancelled, before its provider is asked."""
    disbursement_connector: str = ""
    """The connector that disbursements go through; empty: the mode's default."""
    mails_customers: bool = False
    """Whether customers are told by e-mail what became of their disbursements."""
    public_url: str = "http://127.0.0.1:8420"


class Caller(msgspec.Struct, kw_only=True):
    """On whose behalf something is done.

    `idempotency` is (record id, fingerprint) of a request that named a key; `replaces` the version of an expired record
    of that key. `source_api` is the contract of the request. `presenter` names the contract whose words the answer is
    put into (empty: `/v1`'s). `actor` is the id of an API key, or a part of the platform. `customer` is the merchant's
    own id of the one customer that the request may be about; None: of every customer.
    """

    scope: Scope
    scope_key: str
    request_id: str | None = None
    idempotency: tuple[str, str] | None = None
    idempotency_key: str | None = None
    api_version: str | None = None
    expand: tuple[str, ...] = ()
    replaces: int = 0
    client_ip: str | None = None
    publishable: bool = False
    source_api: SourceApi = SourceApi.v1
    actor: str = "system"
    hint: str = ""
    """Which key the actor is, as its owner knows it."""
    operation: str = ""
    """What is asked for, for the audit trail: a route, or what a task does."""
    reason: str = ""
    """Why an operator decided this, for the audit trail."""
    presenter: str = ""
    customer: str | None = None
    kind: Literal["secret", "publishable", "operator", "system"] = "system"
    """What kind of credential the request came with."""
    role: Role | None = None
    """The role of an operator; None: not an operator."""
    scopes: tuple[str, ...] | None = None
    """What the caller is restricted to; None: to nothing."""

    @property
    def idem(self) -> str | None:
        """The id of the idempotency record that this request's key is kept in."""
        return self.idempotency[0] if self.idempotency is not None else None

    @classmethod
    def system(
        cls, scope: Scope, operation: str = "task", *, actor: str = "system", source_api: SourceApi = SourceApi.v1
    ) -> "Caller":
        """The platform itself, or a part of it that `actor` names."""
        return cls(scope=scope, scope_key=scope.key, operation=operation, actor=actor, source_api=source_api)
