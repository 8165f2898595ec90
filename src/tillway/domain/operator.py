"""Operators: the people who run an installation or work for a merchant, and the rights of each role.

Operators are not merchants. A merchant's secret key does a merchant's business at `/v1`; decisions and changes for
others (money in doubt, connectors, settings, faults for the whole installation) need an operator. The dashboard uses
these rules unchanged.
"""

import hashlib
from typing import Final, Literal

import msgspec

from tillway.domain.account import Mode
from tillway.domain.money import MINOR_UNITS, spell
from tillway.domain.record import Moment, Record
from tillway.domain.refusal import Refused

Role = Literal["viewer", "support", "operator", "admin"]
ROLES: Final[tuple[Role, ...]] = ("viewer", "support", "operator", "admin")

Capability = Literal["read", "personal", "refund", "refund_large", "disputes", "settle", "configure", "export_audit"]
"""The rows of the role table.

| capability | lets a role |
|---|---|
| `read` | see payments, customers, balance, disputes, events |
| `personal` | see names and e-mail addresses whole; others see them masked |
| `refund` | capture, cancel, and refund up to a limit of the installation |
| `refund_large` | refund any amount |
| `disputes` | answer disputes |
| `settle` | settle money in doubt, pay out, book settlements, drain connectors, resend webhooks |
| `configure` | change connectors, routing, keys, settings, operators, and faults for the whole installation |
| `export_audit` | read and export the audit trail |
"""

MAY: Final[dict[Role, frozenset[Capability]]] = {
    "viewer": frozenset(("read", "export_audit")),
    "support": frozenset(("read", "personal", "refund", "disputes")),
    "operator": frozenset(("read", "personal", "refund", "refund_large", "disputes", "settle")),
    "admin": frozenset(
        ("read", "personal", "refund", "refund_large", "disputes", "settle", "configure", "export_audit")
    ),
}

SECONDS_PER_DAY: Final = 24 * 60 * 60

PAYMENT_TALLY_DAYS: Final = 400
"""How long support's refunds of a payment are counted after the last one: cards are refunded within a year."""

NAME_MAX: Final = 100

REASON_MAX: Final = 500
"""Longest reason of an operator's decision, in characters."""


class Operator(Record, frozen=True, kw_only=True):
    """A person (`opr_…`). `accounts` are the merchants they work for; None: every merchant, as who runs it all.

    `email` is the address that they were invited with; the sign-in by an identity provider finds them by it.
    """

    name: str
    role: Role
    accounts: tuple[str, ...] | None = None
    disabled_at: int | None = None
    email: str = ""

    def may(self, capability: Capability) -> bool:
        return capability in MAY[self.role]

    def governs(self, account: str | None) -> bool:
        """Whether this is an admin in force of that merchant; None: of the whole installation."""
        works_there = self.accounts is None or account in self.accounts
        return self.role == "admin" and self.disabled_at is None and works_there


class OperatorKey(Record, frozen=True, kw_only=True):
    """An operator's key for one mode, known by a digest of its secret alone (`opk_…`)."""

    operator: str
    mode: Mode
    hint: str
    revoked_at: int | None = None


class RefundTally(Record, frozen=True, kw_only=True):
    """The refunds of one operator on one day in one currency, or of one payment by all of support (`opt_…`), in minor
    units.

    It moves in the commit of each refund, so that two refunds at the same time cannot pass the limit together.
    """

    amount_minor: int = 0
    expires_at: int = 0


def operator_key_id(secret: str) -> str:
    """The id of the key with that secret: `opk_` and 24 hexadecimal characters of SHA-256."""
    return "opk_" + hashlib.sha256(secret.encode()).hexdigest()[:24]


def refuse_unless_may(role: Role, capability: Capability | None) -> None:
    """Raise Refused `operator_forbidden` unless `role` has the capability. None: no role has it."""
    if capability is not None and capability in MAY[role]:
        return
    may = [name for name in ROLES if capability in MAY[name]]
    who = f"one of these roles: {', '.join(may)}" if may else "a merchant's secret key"
    raise Refused("operator_forbidden", f"Your role ({role}) may not do this. It takes {who}.")


def lost_places(before: Operator, after: Operator) -> list[str | None]:
    """The merchants that a change takes an admin from; None: the whole installation."""
    places: tuple[str | None, ...] = before.accounts if before.accounts is not None else (None,)
    return [place for place in places if before.governs(place) and not after.governs(place)]


def tally_id(operator: str, currency: str, now: int) -> str:
    return f"opt_{operator.removeprefix('opr_')}.{now // SECONDS_PER_DAY}.{currency}"


def payment_tally_id(payment: str) -> str:
    return f"opt_{payment}"


def count_refund(
    of_day: RefundTally | None,
    of_payment: RefundTally | None,
    operator: str,
    payment: str,
    currency: str,
    amount_minor: int,
    at: Moment,
    *,
    limit_major: int,
) -> tuple[RefundTally, RefundTally]:
    """Add a refund by support to the tallies of the day, which is one of UTC, and of the payment.

    Raises Refused `refund_limit_exceeded` above the limit of either; the same refund by a role that may refund any
    amount is not limited.
    """
    limit_minor: int = limit_major * 10 ** MINOR_UNITS[currency]
    day = of_day or RefundTally(
        id=tally_id(operator, currency, at.now), created=at.created, expires_at=at.now + 2 * SECONDS_PER_DAY
    )
    whole = of_payment or RefundTally(id=payment_tally_id(payment), created=at.created)
    for before, where in ((day, "today"), (whole, "of this payment")):
        if before.amount_minor + amount_minor > limit_minor:
            raise Refused(
                "refund_limit_exceeded",
                f"Support may refund {spell(limit_minor, currency)} of a payment and in a day; "
                f"{spell(max(limit_minor - before.amount_minor, 0), currency)} are left {where}. Ask an operator or an "
                "admin.",
                param="amount",
            )
    counted = msgspec.structs.replace(day, amount_minor=day.amount_minor + amount_minor)
    return counted, msgspec.structs.replace(
        whole,
        amount_minor=whole.amount_minor + amount_minor,
        expires_at=at.now + PAYMENT_TALLY_DAYS * SECONDS_PER_DAY,
    )


def check_reason(reason: str | None) -> str:
    """The reason of an operator's decision. Raises Refused `parameter_missing` where there is none."""
    if reason is None or not reason.strip():
        raise Refused(
            "parameter_missing",
            "Missing required param: reason. Say why, for the audit trail: 1 to 500 characters.",
            param="reason",
        )
    return reason.strip()
