"""Bodies as the request log keeps them: without card and account numbers, secrets, and personal data.

A body is judged by the names of its members, in the words of every contract that Tillway serves, and by long numbers in
any member. An unreadable body is not kept.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from tillway.domain.cards import without_long_numbers
from tillway.domain.late_pattern import late_pattern
from tillway.domain.refusal import Refused
from tillway.http.errors import discreet
from tillway.http.masking import PERSONAL, mask, word_of
from tillway.http.wire import parse_body, parse_json, parse_query

READ_MAX: Final = 64 * 1024
"""Bodies of more bytes are not kept: reading them takes time from payments."""

KEPT_MAX: Final = 16 * 1024
"""Most bytes of a redacted body that are kept."""

NUMBER_MAX: Final = 10**11
"""Integers from here on could be card numbers. Times in milliseconds have 13 digits too, and are hidden with them."""

HIDDEN: Final = "****"

_SECRET_WORDS: Final = (
    "secret",
    "password",
    "passwd",
    "cvc",
    "cvv",
    "cvn",
    "csc",
    "securitycode",
    "cardcode",
    "verificationvalue",
    "cardnumber",
    "cardno",
    "accountnumber",
    "accountno",
    "ccnumber",
    "iban",
    "apikey",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "assertion",
    "authorization",
    "cryptogram",
    "signature",
)
"""A member is hidden if its name, in small letters and digits alone, contains one of these."""

_SECRETS: Final = frozenset(
    ("number", "pan", "pin", "key", "ssn", "taxid", "cid", "track1", "track2", "redirecttourl", "signinurl")
)
_SECRET_ADDRESSES: Final = frozenset(("url", "returnaddress", "hostedurl", "receipturl", "fileurl"))
"""Addresses in answers: of a challenge, a checkout or a receipt. Each is all that a payer needs."""

_PERSONAL: Final = PERSONAL | {
    "name",
    "postalcode",
    "zip",
    "zipcode",
    "addresszip",
    "billingzip",
    "clientip",
    "ipaddress",
    "ip",
}
_OF_THINGS: Final = (
    "/v1/products",
    "/v1/prices",
    "/v1/payment_links",
    "/ops/v1/products",
    "/ops/v1/connectors",
    "/ops/v1/connector_kinds",
    "/ops/v1/routing",
    "/products",
    "/v1/account",
)
"""Calls in which `name` is that of a thing."""

_CLASSES: Final = bytes(
    ord("0") if chr(i).isdigit() and i < 128 else ord("a") if chr(i).isalpha() and i < 128 else ord(" ")
    for i in range(256)
)
"""Digits become 0, letters a, and all else a space, so that `in` finds numbers at the speed of the memory."""

_LONG_DIGITS: Final = 12
"""The digits of the shortest long number. No key and no IBAN is shorter either."""

_LONG: Final = b"0" * _LONG_DIGITS
_BETWEEN: Final = b" +-."
"""The characters between the digits of one number; `+` is the space of a form."""

_IBAN: Final = late_pattern(rb"aa00(?:(?<![a0]aa00)|(?<= [a0][a0]aa00))[a0]{11}")
"""An IBAN in classes, at the beginning of a word or behind an escape. The pattern begins with fixed characters, which
are quick to look for."""

_ESCAPED: Final = late_pattern(r"%(?:[89A-Fa-f]|2[0DdEe]|3\d|[46][1-9A-Fa-f]|[57][\dAaFf])")
"""Letters, digits, signs between digits, and characters outside ASCII: in a form, an escape may hide them."""

_Kind = Literal["plain", "secret", "personal", "address"]
_KINDS: Final[dict[str, _Kind]] = {}
_PLAIN: Final[set[str]] = set()
"""The names among them that are plain."""

_KINDS_MAX: Final = 5000
_NAME_MAX: Final = 40
"""Callers choose names: only so many, and only short ones, are remembered."""


def _kind(name: str) -> _Kind:
    word = word_of(name)
    kind: _Kind = "plain"
    if word in _SECRETS or any(part in word for part in _SECRET_WORDS):
        kind = "secret"
    elif word in _PERSONAL:
        kind = "personal"
    elif word in _SECRET_ADDRESSES:
        kind = "address"
    if len(name) <= _NAME_MAX and len(_KINDS) < _KINDS_MAX:
        _KINDS[name] = kind
        if kind == "plain":
            _PLAIN.add(name)
    return kind


class Redaction:
    """The redaction of a document. `names`: whether `name` is that of a person; `looks`: whether texts may hold numbers
    or keys; `answer`: whether it is an answer, in which addresses may let a payer in."""

    def __init__(self, *, names: bool, looks: bool, answer: bool) -> None:
        self._names = names
        self._looks = looks
        self._answer = answer

    def of(self, value: Any) -> Any:
        kind = type(value)
        if kind is dict:
            return self._object(value)
        if kind is list:
            return [self.of(member) for member in value]
        if kind is str:
            return self._text(value) if self._looks else value
        if kind is int and not -NUMBER_MAX < value < NUMBER_MAX:
            return HIDDEN
        if kind is Decimal and self._text(str(value)) != str(value):
            return HIDDEN
        return value

    def _object(self, value: dict[str, Any]) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for name, member in value.items():
            if member is not None and member is not True and member is not False:
                kind = _KINDS.get(name) or _kind(name)
                if kind == "plain" or (kind == "personal" and name == "name" and not self._names):
                    if self._looks or type(member) is not str:
                        member = self.of(member)
                elif kind == "personal":
                    member = _mask_document(member)
                elif kind == "secret" or (self._answer and type(member) is str and "/v1/" not in member):
                    member = HIDDEN
                else:
                    member = self.of(member)
            shown[self._text(name) if self._looks else name] = member
        return shown

    def _text(self, text: str) -> str:
        return without_long_numbers(discreet(text)) if len(text) >= 12 else text


def _mask_document(value: Any) -> Any:
    match value:
        case str():
            return mask(value) if value else value
        case dict():
            return {
                name: HIDDEN if _kind(name) == "secret" else _mask_document(member) for name, member in value.items()
            }
        case list():
            return [_mask_document(member) for member in value]
        case bool() | None:
            return value
        case _:
            return HIDDEN


def redacted_parameters(path: str, sent: Mapping[str, Any], raw: bytes) -> Any:
    """The parameters of a request that were read from the bytes `raw`."""
    if "settings" in sent and path.startswith("/ops/v1/connectors"):
        sent = {**sent, "settings": HIDDEN}  # A kind chooses the names of its secrets.
    looks = not raw.isascii() or _is_suspect(raw.decode(), raw)
    if not looks and _is_plain(sent):
        return sent
    return Redaction(names=_has_people(path), looks=looks, answer=False).of(sent)


def _is_plain(sent: Mapping[str, Any]) -> bool:
    """Whether all parameters are texts under harmless names, as those of most payments are."""
    for name, value in sent.items():  # noqa: SIM110  # A generator takes three times as long.
        if name not in _PLAIN or type(value) is not str:
            return False
    return True


def redacted_body(path: str, content_type: str | None, body: bytes, *, is_json: bool) -> Any:
    """The parameters in a body; a text in brackets where they are not kept. `is_json`: of a dialect, of any
    content type."""
    if not body:
        return None
    if len(body) > READ_MAX:
        return f"({len(body)} bytes)"
    try:
        params = parse_json(content_type, body) if is_json else parse_body(content_type, body)
    except Refused:
        return f"({len(body)} bytes that cannot be read)"
    return redacted_parameters(path, params, body)


def redacted_query(path: str, query: str | bytes) -> Any:
    """The parameters in a query; a text in brackets where they are not kept."""
    if not query:
        return None
    if len(query) > READ_MAX:
        return f"({len(query)} bytes)"
    try:
        params = parse_query(query)
    except Refused:
        return f"({len(query)} bytes that cannot be read)"
    return redacted_parameters(path, params, bytes_of(query))


def bytes_of(query: str | bytes) -> bytes:
    return query if isinstance(query, bytes) else query.encode(errors="replace")


def redacted_answer(path: str, status: int, content_type: str, body: bytes) -> Any:
    """The document in an answer; a text in brackets where it is not kept."""
    if not body:
        return None
    if content_type != "application/json" or len(body) > READ_MAX:
        return f"({content_type}, {len(body)} bytes)"
    looks = status >= 400 or _LONG in body.translate(_CLASSES, b" -") or _has_key(body.decode("latin-1"))
    return Redaction(names=_has_people(path), looks=looks, answer=True).of(msgspec.json.decode(body))


def discreet_text(text: str) -> str:
    """A short text that the caller chose, such as a key, without numbers and keys."""
    if len(text) < _LONG_DIGITS or (text.isascii() and not _is_suspect(text, text.encode())):
        return text
    return without_long_numbers(discreet(text))


def _is_suspect(text: str, raw: bytes) -> bool:
    """Whether an ASCII text from a caller may hold a card or account number, or a key, under a harmless name. To look
    at each text within takes longer than all else. `raw` is the same text."""
    if ("%" in text and _ESCAPED.search(text) is not None) or "\\" in text:
        return True
    if ("k_" in text or "c_" in text) and _has_key(text):
        return True
    classes = raw.translate(_CLASSES)
    # With `in`, bytes are first taken for a number, and the error of that takes longer than the search.
    if classes.count(b"0") >= _LONG_DIGITS and raw.translate(_CLASSES, _BETWEEN).find(_LONG) >= 0:
        return True
    return classes.find(b"aa00") >= 0 and _IBAN.search(classes) is not None


def _has_key(text: str) -> bool:
    return "sk_" in text or "rk_" in text or "ek_" in text or "whsec_" in text


def _has_people(path: str) -> bool:
    return not path.startswith(_OF_THINGS)
