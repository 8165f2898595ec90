"""Commands: one frozen type for each operation that a caller can ask for.

`api/` and `dialects/` parse a command from validated parameters, `operations/` look up what it names, and the domain
decides. A command that changes a record (`Update`) tells three things apart: UNSET leaves a field as it is, None puts
it back to its default, any other value replaces it. Fields have the record's names.

Amounts are minor units. `metadata` is merged into the record's: a key with the value None is removed.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from tillway.domain.source_api import SourceApi

RefundReason = Literal["duplicate", "fraudulent", "requested_by_customer"]
PayoutMethod = Literal["standard", "instant"]
TaxExempt = Literal["exempt", "none", "reverse"]


class Command(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that a caller asks for. Commands are trees, so the cycle collector may skip them."""


class Update(Command, frozen=True, kw_only=True):
    """Changes to fields of a record, under the record's names."""

    def given(self) -> dict[str, Any]:
        """The fields that the caller sent; the value None puts a field back to its default."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not UNSET}


# Refunds.


class CreateRefund(Command, frozen=True, kw_only=True):
    """Refund `charge`, or the charge of `payment`. `amount_minor` None refunds all that is left."""

    charge: str | None = None
    payment: str | None = None
    amount_minor: int | None = None
    reason: RefundReason | None = None
    metadata: dict[str, str | None] | None = None
    instructions_email: str | None = None
    source_api: SourceApi = SourceApi.v1


class UpdateRefund(Update, frozen=True, kw_only=True):
    """Change the metadata of a refund."""

    metadata: dict[str, str | None] | UnsetType | None = UNSET


# Disputes.


class RespondToDispute(Update, frozen=True, kw_only=True):
    """Stage evidence against a dispute, and send it to the bank where `submit` says so. UNSET submits new evidence."""

    evidence: dict[str, Any] | UnsetType | None = UNSET
    intended_submission_method: str | UnsetType | None = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    submit: bool | UnsetType = UNSET


# Payouts.


class CreatePayout(Command, frozen=True, kw_only=True):
    """Pay out `amount_minor`.

    `funding` is the merchant's `balance`, or the merchant's own money at the `provider`. The money goes to the external
    account `destination`; None takes the currency's default. `payment_id` is the name of a disbursement in its dialect.
    """

    amount_minor: int
    currency: str
    source_api: SourceApi
    funding: Literal["balance", "provider"] = "balance"
    destination: str | None = None
    customer: str | None = None
    method: PayoutMethod = "standard"
    description: str | None = None
    statement_descriptor: str | None = None
    metadata: dict[str, str | None] | None = None
    payment_id: str | None = None


class UpdatePayout(Update, frozen=True, kw_only=True):
    """Change the metadata of a payout."""

    metadata: dict[str, str | None] | UnsetType | None = UNSET


# External accounts.


class CreateExternalAccount(Command, frozen=True, kw_only=True):
    """Keep an account that payouts can go to. `account` is the id of a card's token, or the fields of a bank account, a
    card or an e-mail address. `default` makes it the default of its currency."""

    account: str | dict[str, Any]
    metadata: dict[str, str | None] | None = None
    default: bool | None = None


class UpdateExternalAccount(Update, frozen=True, kw_only=True):
    """Change the holder and the metadata of an external account, or make it the default of its currency."""

    holder_name: str | UnsetType = UNSET
    holder_type: Literal["company", "individual"] | UnsetType = UNSET
    account_type: str | UnsetType = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    default_for_currency: bool | UnsetType = UNSET


# Webhook endpoints.


class CreateEndpoint(Command, frozen=True, kw_only=True):
    """Send the events of these types to `url`."""

    url: str
    enabled_events: tuple[str, ...]
    api_version: str | None = None
    description: str | None = None
    metadata: dict[str, str | None] | None = None


class UpdateEndpoint(Update, frozen=True, kw_only=True):
    """Change a webhook endpoint, or switch it off or on."""

    url: str | UnsetType = UNSET
    enabled_events: tuple[str, ...] | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    disabled: bool | UnsetType = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET


# Stored credit.


class AdjustCredit(Command, frozen=True, kw_only=True):
    """Move a customer's credit: a negative amount gives credit, a positive one takes it back."""

    amount_minor: int
    currency: str
    description: str | None = None
    metadata: dict[str, str | None] | None = None


class UpdateCreditMovement(Update, frozen=True, kw_only=True):
    """Change the words of a movement of stored credit."""

    description: str | UnsetType | None = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
