"""Payment method types: one row for each way to pay, with everything in which it differs from the others.

The domain, the engine and the operations read these rows and name no type themselves. The parameters and shapes of a
type are rows of `api/method_types.py`; `tests/api/test_method_types.py` fails where a type has no row there.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal

import msgspec

from tillway.domain.attempt import BANK_DAYS_SECONDS
from tillway.domain.bank_account import BankAccountFacts, check_iban, check_us_account
from tillway.domain.cards import Secret
from tillway.domain.refusal import Refused

ReadAccount = Callable[[Mapping[str, Any], str], tuple[Secret[str], BankAccountFacts]]
"""Checks the parameters of an account and returns its number and the facts that may be known outside the vault.

The second argument is the caller's name for the parameters, `payment_method_data[sepa_debit]` for instance. Raises
`Refused` with the field as the caller wrote it.
"""


class MethodType(msgspec.Struct, frozen=True, kw_only=True):
    """One way to pay. `name` is Stripe's `type`.

    `holds` is the field of a payment method that has its facts; None if the type has no further facts. `read_account`
    checks the parameters of a type that holds a bank account.

    `needs` and `needs_of_holder` are the parameters without which none can be made: of the type itself, and of
    `billing_details`.

    `performed_by` names the party that takes the money: a provider through its connector, or the platform itself in one
    commit.

    `currency` is the only currency that it pays in, None for any. `captured` tells whether the money can be authorized
    first and captured later. `patience_seconds` is how long a payment may be pending before it is in doubt; 0 if the
    provider answers at once.

    `wallet` tells that the customer approves each payment at a page of the wallet's provider, so that the connector
    must be able to send them there.

    `attach_refusal` and `setup_refusal` are the refusals, as callers read them, of attaching one to a customer and of
    setting one up for later payments; empty if that is possible.
    """

    name: str
    holds: Literal["card", "bank"] | None = None
    read_account: ReadAccount | None = None
    needs: tuple[str, ...] = ()
    needs_of_holder: tuple[str, ...] = ()
    performed_by: Literal["connector", "platform"] = "connector"
    currency: str | None = None
    captured: Literal["now_or_later", "now"] = "now"
    patience_seconds: int = 0
    needs_mandate: bool = False
    wallet: bool = False
    entry_type: Literal["charge", "payment"] = "payment"
    refund_entry_type: Literal["refund", "payment_refund"] = "payment_refund"
    attach_refusal: str = ""
    setup_refusal: str = ""

    @property
    def debits(self) -> bool:
        """Whether it takes the money from a bank account, which the connector must be able to do."""
        return self.holds == "bank"


def _read_us_account(given: Mapping[str, Any], param: str) -> tuple[Secret[str], BankAccountFacts]:
    return check_us_account(
        given["account_number"],
        given["routing_number"],
        given.get("account_holder_type"),
        given.get("account_type"),
        param=param,
    )


def _read_iban(given: Mapping[str, Any], param: str) -> tuple[Secret[str], BankAccountFacts]:
    return check_iban(given["iban"], param=param)


_ROWS: Final = (
    MethodType(
        name="card",
        holds="card",
        needs=("number", "exp_month", "exp_year"),
        captured="now_or_later",
        entry_type="charge",
        refund_entry_type="refund",
    ),
    MethodType(
        name="us_bank_account",
        holds="bank",
        read_account=_read_us_account,
        needs=("account_number", "routing_number"),
        needs_of_holder=("name",),
        currency="usd",
        patience_seconds=BANK_DAYS_SECONDS,
        needs_mandate=True,
    ),
    MethodType(
        name="sepa_debit",
        holds="bank",
        read_account=_read_iban,
        needs=("iban",),
        needs_of_holder=("name", "email"),
        currency="eur",
        patience_seconds=BANK_DAYS_SECONDS,
        needs_mandate=True,
    ),
    MethodType(
        name="paypal",
        captured="now_or_later",
        wallet=True,
        attach_refusal="A payment method of the type paypal cannot be attached: its customer approves each payment. "
        "Make one for each payment.",
        setup_refusal="A paypal account cannot be set up for later payments: its customer approves each payment.",
    ),
    MethodType(
        name="customer_balance",
        performed_by="platform",
        attach_refusal="A payment method of the type customer_balance cannot be attached: it stands for the stored "
        "credit of the payment's customer. Make one for each payment.",
        setup_refusal="Stored credit needs no setup: pay with it by its type, customer_balance.",
    ),
)

METHOD_TYPES: Final[dict[str, MethodType]] = {row.name: row for row in _ROWS}
"""The types that can be made, by name."""

DEBITS: Final = tuple(row.name for row in _ROWS if row.debits)
"""The types that take the money from a bank account."""


def check_payment(type: MethodType, currency: str, capture_method: str | None) -> None:
    """Raise `Refused` for a payment in a currency that `type` does not support, and for a later capture that it does
    not support."""
    if type.currency not in (None, currency):
        raise Refused(
            "parameter_invalid_string",
            f"The payment method type {type.name} takes payments in {type.currency} alone, and this one is in "
            f"{currency}. Change the currency, or pay with another payment method type.",
            param="currency",
        )
    if type.captured == "now" and capture_method == "manual":
        raise Refused(
            "parameter_invalid_enum",
            f"The payment method type {type.name} cannot be captured later. Set capture_method to automatic.",
            param="capture_method",
        )


def check_descriptor(descriptor: str | None, types: Collection[str], param: str = "statement_descriptor") -> None:
    """Raise `Refused` for a whole statement descriptor of a payment that a card may pay: there only its suffix is the
    payment's (https://docs.stripe.com/api/payment_intents/create, `statement_descriptor`)."""
    if descriptor and "card" in types:
        raise Refused(
            "parameter_unsupported",
            "The `statement_descriptor` parameter is not supported for payments whose payment method types include "
            "`card`. Use `statement_descriptor_suffix` instead.",
            param=param,
        )


def check_return_url(automatic: Mapping[str, Any] | None, return_url: str | None) -> None:
    """Raise `Refused` for a confirmation with automatic payment methods that has no page to return to
    (https://docs.stripe.com/api/payment_intents/create, `automatic_payment_methods`)."""
    if return_url or not automatic or not automatic.get("enabled") or automatic.get("allow_redirects") == "never":
        return
    raise Refused(
        "parameter_missing",
        "A `return_url` must be specified: automatic payment methods may redirect the customer to another page. To "
        "accept only methods that do not, set `automatic_payment_methods[allow_redirects]` to `never` at the creation.",
        param="return_url",
    )


def check_servable(types: Collection[str], providers: Collection[str], param: str) -> None:
    """Raise `Refused` for a payment method type that neither the platform nor a connector can take. `providers` are the
    types of debits and wallets that the connectors of the mode take."""
    for name in types:
        row = METHOD_TYPES.get(name)
        if row is None or ((row.debits or row.wallet) and name not in providers):
            raise Refused(
                "connector_unsupported",
                f"The payment method type {name} is invalid: no connector of this mode takes it. "
                "Leave it out, or configure a connector that can (`tillway connectors add`).",
                param=param,
            )
