"""The six outcomes of an operation at a provider. There is no seventh: an outcome that is not known is `Unknown`."""

from typing import Any, Literal

import msgspec

OperationKind = Literal["authorize", "capture", "void", "increment", "refund", "payout", "verify"]
"""The kinds of operations at a provider; `verify` checks a payment method and moves no money."""

CheckResult = Literal["pass", "fail", "unavailable", "unchecked"]


class Checks(msgspec.Struct, frozen=True, kw_only=True):
    """The issuer's results of comparing address (AVS) and security code with its records; None: no result."""

    address_line1: CheckResult | None = None
    postal_code: CheckResult | None = None
    cvc: CheckResult | None = None


class Succeeded(msgspec.Struct, frozen=True, tag=True):
    """The provider did it.

    `notices` are the later notices of a provider inside this process: (milliseconds, body). An authorization of a card
    may have its `network_transaction_id` (the card network's, to be sent with later payments of the same card, also
    through other providers) and its `checks`.
    """

    bank_id: str | None = None
    notices: tuple[tuple[int, dict[str, Any]], ...] = ()
    network_transaction_id: str | None = None
    checks: Checks | None = None


class Pending(msgspec.Struct, frozen=True, tag=True):
    """The provider has it and will settle it later: ask by reference, or wait for its notice. `notices` as above."""

    bank_id: str | None = None
    notices: tuple[tuple[int, dict[str, Any]], ...] = ()


class ActionRequired(msgspec.Struct, frozen=True, tag=True):
    """The customer must go to `redirect_url` before the provider decides."""

    redirect_url: str
    bank_id: str | None = None


class Declined(msgspec.Struct, frozen=True, tag=True):
    """The provider declined; no money moved. `code` is an error code of Stripe's vocabulary (`card_declined`,
    `expired_card`, `incorrect_cvc`, `processing_error`), `decline_code` the issuer's reason, `checks` as above.

    `soft`: another provider may accept. `alert`: a fault of Tillway (a bad request, a reference used twice), for a
    person.
    """

    code: str = "card_declined"
    decline_code: str | None = "generic_decline"
    message: str | None = None
    bank_id: str | None = None
    soft: bool = False
    alert: str | None = None
    checks: Checks | None = None


class NotSent(msgspec.Struct, frozen=True, tag=True):
    """The provider never performed it: safe to try again with the same reference, or elsewhere with a new one."""

    reason: str
    retry_after_seconds: float | None = None


class Unknown(msgspec.Struct, frozen=True, tag=True):
    """It may have happened. Ask by reference; resend with the same reference; never guess."""

    reason: str
    retry_after_seconds: float | None = None


Outcome = Succeeded | Pending | ActionRequired | Declined | NotSent | Unknown
