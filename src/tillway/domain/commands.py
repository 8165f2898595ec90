"""Commands: one frozen type for each operation that a caller can ask for.

`api/` and `dialects/` parse a command from validated parameters, `operations/` look up the records that it names, and
the domain decides. A command that changes a record (`Update`) tells three things apart: UNSET leaves a field as it is,
None puts it back to its default, any other value replaces it. Fields have the record's names.

Amounts are minor units. `metadata` is merged into the record's: a key with the value None is removed.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from tillway.domain.source_api import SourceApi

CaptureMethod = Literal["automatic", "automatic_async", "manual"]
ConfirmationMethod = Literal["automatic", "manual"]
FutureUsage = Literal["off_session", "on_session"]
CARD_ONLY: tuple[str, ...] = ("card",)
"""The types of payment methods if none are named. One object for all: the encoder leaves a field out if it holds its
default itself."""

CancellationReason = Literal["abandoned", "duplicate", "fraudulent", "requested_by_customer", "expired"]
"""Why a payment was cancelled. `expired` is the platform's own value, for an expired authorization."""
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


class NewMethod(Command, frozen=True, kw_only=True):
    """Make a payment method. `details` are the parameters of its `type`, None if the caller gave none: the row of the
    type in `api/method_types.py` has read them. `billing_details` lacks the fields that are null."""

    type: str
    details: dict[str, Any] | None = None
    billing_details: dict[str, Any] = {}
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    allow_redisplay: str | UnsetType | None = UNSET

    def fields(self) -> dict[str, Any]:
        """The fields of the payment method that are common to all types."""
        given = {"metadata": self.metadata, "allow_redisplay": self.allow_redisplay}
        return {"billing_details": self.billing_details} | {
            name: value for name, value in given.items() if value is not UNSET
        }


# Payments.


class UpdatePayment(Update, frozen=True, kw_only=True):
    """Change a payment. `method` names a payment method, a token or a test card; `method_data` describes a new one."""

    amount_minor: int | UnsetType = UNSET
    automatic_methods: dict[str, Any] | UnsetType | None = UNSET
    capture_method: CaptureMethod | UnsetType = UNSET
    currency: str | UnsetType = UNSET
    customer: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    excluded_types: tuple[str, ...] | UnsetType | None = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    method: str | UnsetType | None = UNSET
    method_data: NewMethod | UnsetType | None = UNSET
    method_options: dict[str, Any] | UnsetType | None = UNSET
    method_types: tuple[str, ...] | UnsetType | None = UNSET
    receipt_email: str | UnsetType | None = UNSET
    return_url: str | UnsetType | None = UNSET
    setup_future_usage: FutureUsage | UnsetType | None = UNSET
    shipping: dict[str, Any] | UnsetType | None = UNSET
    statement_descriptor: str | UnsetType | None = UNSET
    statement_descriptor_suffix: str | UnsetType | None = UNSET
    transfer_group: str | UnsetType | None = UNSET
    use_stripe_sdk: bool | UnsetType | None = UNSET

    @property
    def gives_method(self) -> bool:
        return not (self.method in (UNSET, None) and self.method_data in (UNSET, None))


class Confirm(Command, frozen=True, kw_only=True):
    """Start taking a payment, after the changes of `update`.

    `amount_minor` is the amount that the caller expects. `error_on_action` declines a payment that the customer would
    have to authenticate. `mandate` names the permission to debit a bank account, `acceptance` is the evidence for a
    new one. `any_currency` leaves it to the connector in which currencies it debits. `token` is a confirmation token,
    whose values stand in for those that the command leaves out.
    """

    update: UpdatePayment | None = None
    client_secret: str | None = None
    amount_minor: int | None = None
    off_session: bool | UnsetType = UNSET
    error_on_action: bool = False
    mandate: str | None = None
    acceptance: dict[str, Any] | None = None
    any_currency: bool = False
    token: str | None = None


class CreatePayment(Command, frozen=True, kw_only=True):
    """Create a payment, and confirm it at once where `confirm` is given. `method` and `method_data` are those of
    UpdatePayment; `transaction` and `order` those of the payment."""

    amount_minor: int
    currency: str
    source_api: SourceApi
    automatic_methods: dict[str, Any] | None = None
    capture_method: CaptureMethod = "automatic"
    checkout: str | None = None
    confirmation_method: ConfirmationMethod = "automatic"
    customer: str | None = None
    description: str | None = None
    excluded_types: tuple[str, ...] = ()
    metadata: dict[str, str | None] = {}
    method: str | None = None
    method_data: NewMethod | None = None
    method_options: dict[str, Any] = {}
    method_types: tuple[str, ...] = CARD_ONLY
    off_session: bool = False
    order: str | None = None
    receipt_email: str | None = None
    return_url: str | None = None
    setup_future_usage: FutureUsage | None = None
    shipping: dict[str, Any] | None = None
    statement_descriptor: str | None = None
    statement_descriptor_suffix: str | None = None
    transaction: str | None = None
    transfer_group: str | None = None
    use_stripe_sdk: bool = False
    confirm: Confirm | None = None


class Capture(Command, frozen=True, kw_only=True):
    """Take the authorized amount, or `amount_minor` of it. `final` False asks for further captures after this one."""

    amount_minor: int | None = None
    final: bool = True
    update: UpdatePayment | None = None


class Cancel(Command, frozen=True, kw_only=True):
    """Cancel a payment, and release its authorization."""

    reason: CancellationReason | None = None


class Increment(Command, frozen=True, kw_only=True):
    """Authorize the larger total `amount_minor` on the same card."""

    amount_minor: int
    update: UpdatePayment | None = None


# Charges.


class CreateCharge(Command, frozen=True, kw_only=True):
    """Charge `source` at once: a token, a test card, one of the customer's cards, or a card's own data. None takes the
    default of the payment's customer."""

    payment: CreatePayment
    source: str | dict[str, Any] | None = None


class UpdateCharge(Update, frozen=True, kw_only=True):
    """Change a charge's words. `fraud_details` are merged into the charge's."""

    customer: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    fraud_details: dict[str, Any] | UnsetType = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    receipt_email: str | UnsetType | None = UNSET
    shipping: dict[str, Any] | UnsetType = UNSET
    statement_descriptor: str | UnsetType = UNSET
    statement_descriptor_suffix: str | UnsetType = UNSET
    transfer_group: str | UnsetType = UNSET


class CaptureCharge(Command, frozen=True, kw_only=True):
    """Capture an authorized charge, or `amount_minor` of it."""

    amount_minor: int | None = None
    update: UpdateCharge = UpdateCharge()


# Setups.


class UpdateSetup(Update, frozen=True, kw_only=True):
    """Change a setup. `method` and `method_data` are those of UpdatePayment."""

    customer: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    method: str | UnsetType | None = UNSET
    method_data: NewMethod | UnsetType | None = UNSET
    method_options: dict[str, Any] | UnsetType | None = UNSET
    method_types: tuple[str, ...] | UnsetType | None = UNSET
    return_url: str | UnsetType | None = UNSET
    use_stripe_sdk: bool | UnsetType | None = UNSET

    @property
    def gives_method(self) -> bool:
        return not (self.method in (UNSET, None) and self.method_data in (UNSET, None))


class ConfirmSetup(Command, frozen=True, kw_only=True):
    """Keep the method, after the changes of `update`. `acceptance` is the evidence for a mandate to debit it, `token` a
    confirmation token as in `Confirm`."""

    update: UpdateSetup | None = None
    client_secret: str | None = None
    acceptance: dict[str, Any] | None = None
    token: str | None = None


class CreateConfirmationToken(Command, frozen=True, kw_only=True):
    """Make a confirmation token of a payment method: `method` names it, or `method_data` describes a new one."""

    acceptance: dict[str, Any] | None = None
    method: str | None = None
    method_data: NewMethod | None = None
    method_options: dict[str, Any] = {}
    return_url: str | None = None
    setup_future_usage: FutureUsage | None = None
    shipping: dict[str, Any] | None = None


class CreateSetup(Command, frozen=True, kw_only=True):
    """Create a setup, and confirm it at once where `confirm` is given."""

    automatic_methods: dict[str, Any] | None = None
    customer: str | None = None
    description: str | None = None
    metadata: dict[str, str | None] = {}
    method: str | None = None
    method_data: NewMethod | None = None
    method_options: dict[str, Any] = {}
    method_types: tuple[str, ...] = CARD_ONLY
    return_url: str | None = None
    usage: FutureUsage = "off_session"
    use_stripe_sdk: bool = False
    confirm: ConfirmSetup | None = None


class CancelSetup(Command, frozen=True, kw_only=True):
    """Cancel a setup that is not over."""

    reason: Literal["abandoned", "duplicate", "requested_by_customer"] | None = None


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
    card or an e-mail address. `default` makes it the default of its currency; `twins` says whether a bank account that
    is there already may be added again."""

    account: str | dict[str, Any]
    metadata: dict[str, str | None] | None = None
    default: bool | None = None
    twins: Literal["allowed", "refused"] = "allowed"


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


# Customers and their means of payment.


class CustomerFields(Update, frozen=True, kw_only=True):
    """The fields of a customer that a request may set. Those of `invoice_settings` are merged one by one."""

    address: dict[str, Any] | UnsetType | None = UNSET
    business_name: str | UnsetType | None = UNSET
    default_source: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    email: str | UnsetType | None = UNSET
    individual_name: str | UnsetType | None = UNSET
    invoice_prefix: str | UnsetType | None = UNSET
    invoice_settings: dict[str, Any] | UnsetType | None = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    name: str | UnsetType | None = UNSET
    next_invoice_sequence: int | UnsetType | None = UNSET
    phone: str | UnsetType | None = UNSET
    preferred_locales: tuple[str, ...] | UnsetType | None = UNSET
    shipping: dict[str, Any] | UnsetType | None = UNSET
    tax_exempt: TaxExempt | UnsetType | None = UNSET

    @property
    def default_method(self) -> str | None:
        """The payment method that the request makes the default, None where it makes none."""
        wanted: str | None = (self.invoice_settings or {}).get("default_payment_method")
        return wanted


class CreateCustomer(Command, frozen=True, kw_only=True):
    """Create a customer. `payment_method` is attached; `source`, a token or the fields of a card, too, as the default
    source."""

    fields: CustomerFields = CustomerFields()
    payment_method: str | None = None
    source: str | dict[str, Any] | None = None
    test_clock: str | None = None
    source_api: SourceApi = SourceApi.v1


class UpdateCustomer(Command, frozen=True, kw_only=True):
    """Change a customer. A `source` replaces the default source, which is removed."""

    fields: CustomerFields = CustomerFields()
    source: str | dict[str, Any] | None = None


class UpdateFileLink(Command, frozen=True, kw_only=True):
    """Change a file link. `expires_at` is epoch seconds, "now", or None for no end."""

    expires_at: int | str | UnsetType | None = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET


class CreateSource(Command, frozen=True, kw_only=True):
    """Create a Source from the fields of a `card` or from a `token`. `owner` has billing details."""

    card: dict[str, Any] | None = None
    token: str | None = None
    owner: dict[str, Any] = {}
    metadata: dict[str, str | None] | None = None


class AddSource(Command, frozen=True, kw_only=True):
    """Attach the card behind a token, or the card with these fields, to a customer."""

    source: str | dict[str, Any]
    metadata: dict[str, str | None] | None = None


class UpdateSource(Command, frozen=True, kw_only=True):
    """Change the card of a customer. `address` holds the parts that were sent, None for a cleared part."""

    name: str | UnsetType | None = UNSET
    address: dict[str, str | None] = {}
    exp_month: int | UnsetType = UNSET
    exp_year: int | UnsetType = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET


class UpdatePaymentMethod(Update, frozen=True, kw_only=True):
    """Change the words of a payment method, the expiry of its card, or facts of its bank account.

    `account` holds those facts under the name of the payment method type. Those of `billing_details` are merged one by
    one.
    """

    allow_redisplay: str | UnsetType = UNSET
    billing_details: dict[str, Any] | UnsetType | None = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    exp_month: int | UnsetType | None = UNSET
    exp_year: int | UnsetType | None = UNSET
    account: dict[str, dict[str, Any]] | UnsetType = UNSET


class CreateToken(Command, frozen=True, kw_only=True):
    """Keep a card for one use within 15 minutes. `card` has the fields of a card of the old API."""

    card: dict[str, Any]
    source_api: SourceApi


# Orders and products.


class OrderLine(Command, frozen=True, kw_only=True):
    """So many of a product to one address. `price_minor` is the price of one item."""

    product_id: str
    name: str
    price_minor: int
    requested_count: int
    type: str
    delivery_address: Any


class CreateOrder(Command, frozen=True, kw_only=True):
    """Order products and pay for them. `order_id` and `user_id` are the merchant's own names; `payment` holds the
    fields of the payment by their names in the contract, its `type` among them."""

    order_id: str
    user_id: str
    currency: str
    payment: dict[str, Any]
    lines: tuple[OrderLine, ...]


class PutProduct(Command, frozen=True, kw_only=True):
    """Describe a product, new or known. `available_count` is the number that can be ordered from now on."""

    product_id: str
    name: str
    price_minor: int
    currency: str
    type: str
    available_count: int


class PutCredit(Command, frozen=True, kw_only=True):
    """Set the stored credit of the user with the merchant's own id `user_id`."""

    user_id: str
    amount_minor: int
    currency: str


# The catalogue and hosted checkout.


class CreatePrice(Command, frozen=True, kw_only=True):
    """Create a price of `product`, or of `new_product`. The amount is of one item, in minor units."""

    currency: str
    unit_amount_minor: int
    product: str | None = None
    new_product: "CreateProduct | None" = None
    active: bool = True
    metadata: dict[str, str | None] = {}
    nickname: str | None = None
    tax_behavior: str = "unspecified"


class CreateProduct(Command, frozen=True, kw_only=True):
    """Create a product, with a default price where one is given."""

    name: str
    active: bool = True
    default_price: CreatePrice | None = None
    description: str | None = None
    images: tuple[str, ...] = ()
    metadata: dict[str, str | None] = {}
    statement_descriptor: str | None = None
    unit_label: str | None = None
    url: str | None = None


class UpdateProduct(Update, frozen=True, kw_only=True):
    """Change a product. `default_price` is one of its prices."""

    active: bool | UnsetType = UNSET
    default_price: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    images: tuple[str, ...] | UnsetType | None = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    name: str | UnsetType = UNSET
    statement_descriptor: str | UnsetType | None = UNSET
    unit_label: str | UnsetType | None = UNSET
    url: str | UnsetType | None = UNSET


class UpdatePrice(Update, frozen=True, kw_only=True):
    """Change the nickname and metadata of a price. Its amount stays: make another price."""

    active: bool | UnsetType = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    nickname: str | UnsetType | None = UNSET
    tax_behavior: str | UnsetType | None = UNSET


class CartLine(Command, frozen=True, kw_only=True):
    """`quantity` items of the price with that id, or of a new price."""

    price: str | CreatePrice
    quantity: int = 1


class CheckoutTerms(Command, frozen=True, kw_only=True):
    """The terms of a session that a payment link has too. `payment` has fields of CreatePayment for the payment to
    come, `method_options` is its `payment_method_options`."""

    lines: tuple[CartLine, ...]
    metadata: dict[str, str | None] = {}
    method_options: dict[str, Any] = {}
    method_types: tuple[str, ...] = ("card",)
    payment: dict[str, Any] = {}
    submit_type: str | None = None


class CreateCheckout(Command, frozen=True, kw_only=True):
    """Create a session of hosted checkout. `expires_at` is epoch seconds; None: after a day. `currency` is the one that
    the caller expects; None: that of the line items."""

    terms: CheckoutTerms
    cancel_url: str | None = None
    client_reference_id: str | None = None
    currency: str | None = None
    customer: str | None = None
    customer_email: str | None = None
    expires_at: int | None = None
    locale: str | None = None
    success_url: str | None = None


class PayCheckout(Command, frozen=True, kw_only=True):
    """The payer pressed the button of the form with the number `turn`: take the payment with a new method
    (`method_data`) or with the customer's stored `method`. `keep` stores the method for the customer."""

    turn: int
    email: str
    name: str | None = None
    method: str | None = None
    method_data: NewMethod | None = None
    acceptance: dict[str, Any] | None = None
    keep: bool = False


class CreateLink(Command, frozen=True, kw_only=True):
    """Create a payment link, which opens a session for each visitor until `expires_at`. `limit` is how many sessions
    may complete."""

    terms: CheckoutTerms
    expires_at: int | None = None
    inactive_message: str | None = None
    limit: int | None = None
    message: str | None = None
    success_url: str | None = None


class UpdateLink(Update, frozen=True, kw_only=True):
    """Change a payment link, or close it (`active` false)."""

    active: bool | UnsetType = UNSET
    expires_at: int | UnsetType | None = UNSET
    inactive_message: str | UnsetType | None = UNSET
    limit: int | UnsetType | None = UNSET
    message: str | UnsetType | None = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    success_url: str | UnsetType | None = UNSET
