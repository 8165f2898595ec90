"""Confirmation tokens: what a payer chose in the browser, for one confirmation by the merchant's server."""

from typing import Any, TypeVar

import msgspec

from tillway.domain.commands import (
    Confirm,
    ConfirmSetup,
    CreatePayment,
    CreateSetup,
    FutureUsage,
    UpdatePayment,
    UpdateSetup,
)
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.record import Changes, Reading, Record
from tillway.domain.refusal import Refused

LIFETIME_SECONDS = 12 * 60 * 60
"""https://docs.stripe.com/api/confirmation_tokens/object, `expires_at`."""

Creation = TypeVar("Creation", CreatePayment, CreateSetup)
Subject = TypeVar("Subject", bound=Record)


class ConfirmationToken(Record, frozen=True, kw_only=True):
    """A payment method with the payer's further choices. `used_by` is the payment or setup that it has confirmed."""

    method: str
    expires_at: int
    acceptance: dict[str, Any] | None = None
    method_options: dict[str, Any] = {}
    return_url: str | None = None
    setup_future_usage: FutureUsage | None = None
    shipping: dict[str, Any] | None = None
    used_by: str | None = None


class TokenReading(Reading, frozen=True, kw_only=True):
    """A confirmation token as an answer shows it: with its payment method."""

    token: ConfirmationToken
    method: PaymentMethod

    @classmethod
    def of(cls, token: ConfirmationToken, method: PaymentMethod) -> "TokenReading":
        return cls(id=token.id, created=token.created, token=token, method=method)


_FIELDS = ("method_options", "return_url", "setup_future_usage", "shipping")


def complete_creation(command: Creation, token: ConfirmationToken | None) -> Creation:
    """The command with the token's values in place of those that the request leaves out: those of the request win."""
    if token is None or command.confirm is None:
        return command
    acceptance = command.confirm.acceptance or token.acceptance
    confirm = msgspec.structs.replace(command.confirm, acceptance=acceptance)
    return msgspec.structs.replace(command, confirm=confirm, **_missing_fields(command, token))


def complete_payment(command: Confirm, token: ConfirmationToken | None) -> Confirm:
    """As `complete_creation`, for the confirmation of a payment."""
    if token is None:
        return command
    update = command.update or UpdatePayment()
    update = msgspec.structs.replace(update, **_missing_fields(update, token))
    return msgspec.structs.replace(command, update=update, acceptance=command.acceptance or token.acceptance)


def complete_setup(command: ConfirmSetup, token: ConfirmationToken | None) -> ConfirmSetup:
    """As `complete_creation`, for the confirmation of a setup."""
    if token is None:
        return command
    update = command.update or UpdateSetup()
    update = msgspec.structs.replace(update, **_missing_fields(update, token))
    return msgspec.structs.replace(command, update=update, acceptance=command.acceptance or token.acceptance)


def _missing_fields(
    command: CreatePayment | CreateSetup | UpdatePayment | UpdateSetup, token: ConfirmationToken
) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if not command.method and not command.method_data:
        given["method"] = token.method
    for name in _FIELDS:
        if name in command.__struct_fields__ and not getattr(command, name) and getattr(token, name):
            given[name] = getattr(token, name)
    return given


def check(token: ConfirmationToken, now: int) -> None:
    """Raise `Refused` if the token was spent or has expired at `now` (epoch seconds)."""
    if token.used_by is not None:
        raise Refused(
            "token_already_used",
            f"The ConfirmationToken {token.id} was used already. Make another one for each confirmation.",
            param="confirmation_token",
        )
    if token.expires_at <= now:
        raise Refused(
            "token_expired",
            f"The ConfirmationToken {token.id} has expired. Make another one.",
            param="confirmation_token",
        )


def spend(token: ConfirmationToken | None, changes: Changes[Subject]) -> Changes[Subject]:
    """The changes of a confirmation, with the token spent on it, also where it was declined."""
    if token is None:
        return changes
    used = msgspec.structs.replace(token, used_by=changes.result.id)
    return msgspec.structs.replace(changes, records=(*changes.records, used))
