"""Payment method types in requests and answers: one form for each row of `domain/method_types.py`."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from tillway.api import bank_accounts, cards
from tillway.domain.charge import Charge
from tillway.domain.commands import NewMethod
from tillway.domain.mandate import Mandate
from tillway.domain.method_types import METHOD_TYPES, check_servable
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.refund import Refund
from tillway.domain.setup_intent import SetupAttempt
from tillway.http.params import Array, Country, Enum, Ignored, Metadata, Object, Open, Parameter, pick
from tillway.http.routes import Call


class MethodForm(msgspec.Struct, frozen=True, kw_only=True):
    """The form of one payment method type.

    Parameters: `parameters` describe a new payment method, `payment_options` and `setup_options` are its member of
    `payment_method_options`, `changes` what `POST /v1/payment_methods/{id}` can change; None where there is none.

    Shapes: `of_method`, `of_charge`, `of_setup` and `of_mandate` are shown under the name of the type, `of_refund` is
    the refund's whole `destination_details`. None leaves the name out. Only a type that needs a mandate has
    `of_mandate`.
    """

    parameters: Parameter
    payment_options: Parameter
    of_method: Callable[[PaymentMethod], dict[str, Any] | None]
    of_charge: Callable[[Charge], dict[str, Any]]
    of_setup: Callable[[SetupAttempt], dict[str, Any] | None]
    of_refund: Callable[[Refund], dict[str, Any]]
    of_mandate: Callable[[Mandate], dict[str, Any]] | None = None
    setup_options: Parameter | None = None
    changes: Object | None = None


_TRANSFERS: Final[dict[str, str]] = {
    "eur": "eu_bank_transfer",
    "gbp": "gb_bank_transfer",
    "jpy": "jp_bank_transfer",
    "mxn": "mx_bank_transfer",
    "usd": "us_bank_transfer",
}


def transfer_kind(currency: str) -> str:
    """Stripe's name of bank transfers in a currency."""
    return _TRANSFERS.get(currency, "us_bank_transfer")


class TransferKind(Enum):
    """Stripe's name of bank transfers in a currency. The fixtures of its command line say `jp_bank_account`."""

    def __init__(self, *, required: bool = False) -> None:
        super().__init__(*_TRANSFERS.values(), required=required)

    def read(self, value: Any, name: str) -> str | None:
        return super().read(value.replace("_account", "_transfer") if type(value) is str else value, name)


FORMS: Final[dict[str, MethodForm]] = {
    "card": MethodForm(
        parameters=cards.METHOD,
        payment_options=cards.PAYMENT_OPTIONS,
        setup_options=cards.SETUP_OPTIONS,
        changes=cards.CHANGES,
        of_method=cards.card_of_method,
        of_charge=cards.card_of_charge,
        of_setup=cards.card_of_setup,
        of_refund=cards.card_refund,
    ),
    "us_bank_account": MethodForm(
        parameters=bank_accounts.US_ACCOUNT,
        payment_options=bank_accounts.US_ACCOUNT_OPTIONS,
        setup_options=bank_accounts.US_ACCOUNT_OPTIONS,
        changes=bank_accounts.US_ACCOUNT_CHANGES,
        of_method=bank_accounts.us_account_of_method,
        of_charge=bank_accounts.us_account_of_charge,
        of_setup=bank_accounts.account_of_setup,
        of_refund=bank_accounts.us_refund,
        of_mandate=bank_accounts.us_mandate,
    ),
    "sepa_debit": MethodForm(
        parameters=bank_accounts.SEPA_ACCOUNT,
        payment_options=bank_accounts.SEPA_OPTIONS,
        setup_options=bank_accounts.SEPA_OPTIONS,
        of_method=bank_accounts.sepa_account_of_method,
        of_charge=bank_accounts.sepa_account_of_charge,
        of_setup=bank_accounts.account_of_setup,
        of_refund=bank_accounts.sepa_refund,
        of_mandate=bank_accounts.sepa_mandate,
    ),
    "paypal": MethodForm(
        parameters=Object(),
        payment_options=Open(),
        # PayPal tells the payer's data in its own account only.
        of_method=lambda method: {"country": None, "payer_email": None, "payer_id": None},
        of_charge=lambda charge: {
            "country": None,
            "payer_email": None,
            "payer_id": None,
            "payer_name": None,
            "seller_protection": None,
            "transaction_id": charge.bank_id,
        },
        of_setup=lambda attempt: None,
        of_refund=lambda refund: {"paypal": {}, "type": "paypal"},
    ),
    "customer_balance": MethodForm(
        parameters=Object(),
        payment_options=Object(
            unsettable=True,
            bank_transfer=Object(
                eu_bank_transfer=Object(country=Country(required=True)),
                requested_address_types=Array(Enum("aba", "iban", "sepa", "sort_code", "spei", "swift", "zengin")),
                type=TransferKind(required=True),
            ),
            funding_type=Enum("bank_transfer", unsettable=True),
            setup_future_usage=Enum("none"),
        ),
        of_method=lambda method: {},
        of_charge=lambda charge: {},
        of_setup=lambda attempt: None,
        # Stripe has no word for stored credit there; its cash balance is the nearest.
        of_refund=lambda refund: {"customer_cash_balance": {}, "type": "customer_cash_balance"},
    ),
}
"""The forms by the name of their type."""


def _members(part: str) -> dict[str, Any]:
    """The parameters of that name in the forms that have them, by type."""
    return {name: parameter for name, form in FORMS.items() if (parameter := getattr(form, part)) is not None}


TYPE_NAMES: Final = (*FORMS, "link", "bancontact", "ideal", "klarna")
"""The types that callers can name. Making a payment method of one that has no form is refused."""

_ALWAYS: Final = frozenset(name for name, row in METHOD_TYPES.items() if not (row.debits or row.wallet))


async def check_types(call: Call) -> None:
    """Raise `Refused` if the request accepts a payment method type that nothing in the caller's mode can take."""
    for param in ("payment_method_types", "allowed_payment_method_types"):
        types = call.params.get(param)
        if types and not _ALWAYS.issuperset(types):
            connectors = await call.platform.attempts.connections.connectors_of(call.caller.scope.mode)
            providers = {type for terms in connectors.values() for type in (*terms.debits, *terms.wallets)}
            check_servable(types, providers, param)


METHOD_DATA: Final = Object(
    type=Enum(*TYPE_NAMES, required=True),
    billing_details=cards.BILLING,
    metadata=Metadata(),
    allow_redisplay=Enum("always", "limited", "unspecified"),
    radar_options=Open(),
    link=Ignored(),
    **_members("parameters"),
    **cards.STRIPE_JS,
)
"""`payment_method_data`, and most of `POST /v1/payment_methods`."""


def parse_new_method(given: dict[str, Any]) -> NewMethod:
    """The command of `payment_method_data`, or of a body of `POST /v1/payment_methods`, that METHOD_DATA has read."""
    holder = {name: value for name, value in (given.get("billing_details") or {}).items() if value is not None}
    common = pick(given, "metadata", "allow_redisplay")
    return NewMethod(type=given["type"], details=given.get(given["type"]), billing_details=holder, **common)


PAYMENT_OPTIONS: Final = Object(
    link=Ignored(),
    **_members("payment_options"),
)
"""`payment_method_options` of a payment."""

SETUP_OPTIONS: Final = Object(
    link=Ignored(),
    **_members("setup_options"),
)
"""`payment_method_options` of a setup."""

CHANGES: Final = _members("changes")
"""The parameters of `POST /v1/payment_methods/{id}` that only one type has."""
