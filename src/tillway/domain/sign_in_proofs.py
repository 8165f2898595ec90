"""How an operator proves who they are at the dashboard: a password and a second factor.

A password alone signs in viewers and support. Operators and admins need the second factor too: a code of an
authenticator (TOTP, RFC 6238) or one of their recovery codes. Wrong tries are counted (`sign_in_tries.py`).
"""

import hashlib
from typing import Final

from tillway.domain.operator import Operator, Role
from tillway.domain.record import Record
from tillway.domain.refusal import Refused

TICKET_SECONDS: Final = 5 * 60
"""How long the page with the code stays good after the password."""

PASSWORD_MIN: Final = 12
PASSWORD_MAX: Final = 256
EMAIL_MAX: Final = 254
RECOVERY_CODES: Final = 8

SECOND_FACTOR_ROLES: Final[frozenset[Role]] = frozenset(("operator", "admin"))
"""Roles whose password is worth nothing without a second factor."""

COMMON_PARTS: Final = (
    *("password", "passwort", "123456789", "qwertyuiop", "qwertz", "iloveyou", "letmein", "welcome", "abc123"),
    *("111111", "000000", "changeme", "administrator", "tillway", "football", "dragon", "sunshine", "princess"),
)
"""Texts that lists of guessed passwords are made of. A password needs PASSWORD_MIN characters besides them."""


class SignInProofs(Record, frozen=True, kw_only=True):
    """An operator's e-mail address, the argon2id hash of the password, and the second factor (`dsp_…`).

    `totp` is the authenticator's secret, sealed by the vault, or empty; `totp_step` the newest step whose code was
    used; `pending` a sealed secret that was shown and is not confirmed yet. `recovery` are digests of recovery codes
    that are not used yet.
    """

    operator: str
    email: str
    password: str
    totp: str = ""
    totp_step: int = 0
    pending: str = ""
    recovery: tuple[str, ...] = ()


class SignInTicket(Record, frozen=True, kw_only=True):
    """The right to enter a code after the right password (`dst_…`)."""

    proofs: str
    expires_at: int


def proofs_id(email: str) -> str:
    """The id of the proofs with that address, which is the same in any letters."""
    return f"dsp_{_digest(email.strip().lower())}"


def ticket_id(token: str) -> str:
    return f"dst_{_digest(token)}"


def recovery_digest(code: str) -> str:
    """The digest of a recovery code; blanks, hyphens and capitals do not count."""
    return _digest("".join(each for each in code.lower() if each.isalnum()))


def needs_second_factor(operator: Operator, *, for_all: bool) -> bool:
    """Whether the operator signs in with two factors. `for_all`: the installation asks it of every role."""
    return for_all or operator.role in SECOND_FACTOR_ROLES


def check_password(password: str, operator: Operator, email: str) -> str:
    """Return a password that may be used. Refused `parameter_invalid_string`, with the remedy."""
    told = ""
    rest = password.lower()
    for part in (*COMMON_PARTS, operator.name.lower(), email.partition("@")[0].lower()):
        rest = rest.replace(part, "") if len(part) > 2 else rest
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        told = f"A password has {PASSWORD_MIN} to {PASSWORD_MAX} characters."
    elif len(rest) < PASSWORD_MIN // 2 or len(set(password)) < PASSWORD_MIN // 2:
        told = "This password is easily guessed. Take some words that have nothing to do with each other."
    if told:
        raise Refused("parameter_invalid_string", told, param="password")
    return password


def check_email(email: str) -> str:
    """Return an address without blanks around it. Refused `email_invalid`."""
    text = email.strip()
    name, _, host = text.partition("@")
    if not name or "." not in host or len(text) > EMAIL_MAX or any(each.isspace() for each in text):
        raise Refused("email_invalid", f"Invalid email address: {text[:100]}", param="email")
    return text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:40]
