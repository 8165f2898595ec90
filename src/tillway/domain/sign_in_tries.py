"""Tries to sign in that were wrong: of an account, known or not, and of an address. Both then wait."""

import hashlib
from typing import Final

import msgspec

from tillway.domain.record import Record

ACCOUNT_TRIES_MAX: Final = 5
ADDRESS_TRIES_MAX: Final = 20
WINDOW_SECONDS: Final = 15 * 60
"""After so many wrong tries within the window, the account or the address waits for as long from the last one on.
NIST SP 800-63B bounds failed tries by 100; these are the dashboard's own bounds."""


class SignInTries(Record, frozen=True, kw_only=True):
    """The times (epoch seconds) of the last tries of an account or an address (`dtr_…`) that did not turn out right.

    The id is a digest, so that the store holds no address.
    """

    failures: tuple[int, ...] = ()
    expires_at: int = 0


def account_tries_id(email: str) -> str:
    """The id of the tries with that e-mail address, which is the same in any letters."""
    return _id(f"account {email.strip().lower()}")


def address_tries_id(address: str) -> str:
    return _id(f"address {address}")


def must_wait(tries: SignInTries | None, most: int, now: int) -> bool:
    """Whether there were too many wrong tries of late."""
    return tries is not None and len(tries.failures) >= most and tries.failures[-1] > now - WINDOW_SECONDS


def with_try(tries: SignInTries | None, id: str, now: int, created: int) -> SignInTries:
    """The tries with one more, and without those that count no more."""
    before = tries or SignInTries(id=id, created=created)
    of_late = tuple(at for at in before.failures if at > now - WINDOW_SECONDS)
    return msgspec.structs.replace(before, failures=(*of_late, now), expires_at=now + WINDOW_SECONDS)


def without_try(tries: SignInTries, at: int) -> SignInTries | None:
    """The tries without the one of that time, which was right; None where none is left."""
    rest = list(tries.failures)
    if at in rest:
        rest.remove(at)
    return msgspec.structs.replace(tries, failures=tuple(rest)) if rest else None


def _id(text: str) -> str:
    return f"dtr_{hashlib.sha256(text.encode()).hexdigest()[:40]}"
