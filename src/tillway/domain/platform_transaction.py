"""Rules of the online payment platform's contract: the ids of its transactions, and the cards that it refuses before
any provider is called."""

import base64
import hashlib

import msgspec

from tillway.domain.cards import expired
from tillway.domain.outcome import Declined

CARD_DIGITS = 16
RANDOM_BYTES = 10
TRANSACTION_LENGTH = 26

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def transaction_id(now_ms: int, randomness: bytes) -> str:
    """A ULID (https://github.com/ulid/spec): 48 bits of epoch milliseconds and RANDOM_BYTES of randomness, in 26
    characters of Crockford's base 32."""
    assert 0 <= now_ms < 1 << 48 and len(randomness) == RANDOM_BYTES
    bits = now_ms << 80 | int.from_bytes(randomness, "big")
    return "".join(_CROCKFORD[bits >> place & 31] for place in range(125, -1, -5))


def transaction_of_token(token: str) -> str:
    """The ULID of the payment of a `/get-token` token: its time is the token's, the rest a digest of the token.

    The token is not verified here: an id without a payment is simply not found.
    """
    issued_at = 0
    try:
        padded = token.split(".")[1] + "=="
        claims = msgspec.json.decode(base64.urlsafe_b64decode(padded))
        issued_at = min(max(int(claims["iat"]), 0), (1 << 47) // 1000)
    except (IndexError, ValueError, TypeError, KeyError, msgspec.DecodeError):
        pass
    return transaction_id(issued_at * 1000, hashlib.sha256(token.encode()).digest()[:RANDOM_BYTES])


def objection(number: str, exp_month: int, exp_year: int, now: int) -> Declined | None:
    """The contract's message if it refuses this card; None if the card goes on to the provider. `exp_year` has four
    digits, `now` is epoch seconds."""
    if not (len(number) == CARD_DIGITS and number.isascii() and number.isdigit()):
        return Declined(code="incorrect_number", decline_code="incorrect_number", message="Invalid card number length")
    if expired(exp_month, exp_year, now):
        return Declined(code="expired_card", decline_code="expired_card", message="Card has expired")
    return None
