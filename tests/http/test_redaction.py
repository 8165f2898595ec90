"""The request log keeps the same parameters whether it looks at each text in them, or sees at once that it need not."""

import json
import random
import string
from typing import Any

import pytest

from tillway.http.redaction import Redaction, redacted_body
from tillway.http.wire import parse_body

DOSE = 6000
"""Documents for each form of a body."""

NUMBERS = (
    *("4242424242424242", "5555555555554444", "378282246310005", "123456789012"),
    *("NL91ABNA0417164300", "\uff14\uff12" * 8),
)
KEYS = ("sk_live_0123456789abcdef", "rk_test_0123456789abcdef", "ek_live_0123456789", "whsec_abcdefghijkl")
PLAIN = ("2000", "usd", "true", "pm_card_visa", "order-6735", "50% off", "Größe L", "a@b.de", "x\n\\u", "task_2", "")
NAMES = ("amount", "currency", "payment_method", "description", "metadata", "name", "email", "cvc", "settings", "a.b")
THINGS = ("/v1/products", "/ops/v1/connectors")
PATHS = ("/v1/payment_intents", "/v1/customers", *THINGS)
UNRESERVED = " .-_" + string.ascii_letters + string.digits
ESCAPED = ("", "", string.digits, string.ascii_letters, "_", " ", "-", ".", UNRESERVED)
"""Characters that a body escapes although it need not."""


def text(chance: random.Random) -> str:
    """A text with a number in groups, which are separated as people do, or with a key."""
    found = chance.choice(chance.choice((NUMBERS, KEYS, PLAIN, PLAIN, PLAIN)))
    if found in NUMBERS:
        size, separator = chance.randint(2, 18), chance.choice(("", " ", "-", ".", ".", "+", "/", "\uff0d"))
        found = separator.join(found[place : place + size] for place in range(0, len(found), size))
    return (
        chance.choice(("", "", "", "order ", "to:\n", "x", "7", "_"))
        + found
        + chance.choice(("", "", " ordered", "x", "7"))
    )


def document(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    members = {}
    for _ in range(chance.randint(1, 2)):
        name = chance.choice(NAMES) if depth == 0 or chance.random() < 0.7 else text(chance)
        members[name or "x"] = document(chance, depth + 1) if depth < 3 and chance.random() < 0.2 else text(chance)
    return members


def as_form(document: dict[str, Any], escaped: str) -> bytes:
    """The form of a document, in which characters that need not be are escaped too."""

    def shown(text: str) -> str:
        plain = set(UNRESERVED) - set(escaped)
        escapes = ("".join(f"%{byte:02x}" for byte in character.encode()) for character in text)
        found = (a if a in plain else b for a, b in zip(text, escapes, strict=True))
        return "".join(found).replace(" ", "+")

    def pairs(name: str, value: Any) -> list[str]:
        if not isinstance(value, dict):
            return [f"{name}={shown(value)}"]
        return [pair for key, member in value.items() for pair in pairs(f"{name}[{shown(key)}]", member)]

    return "&".join(pair for name, value in document.items() for pair in pairs(name, value)).encode()


def as_json(document: dict[str, Any], escaped: str) -> bytes:
    """The JSON of a document, in which characters that need not be are escaped too."""
    shown = json.dumps(document, ensure_ascii="." in escaped)
    return "".join(f"\\u{ord(character):04x}" if character in escaped else character for character in shown).encode()


@pytest.mark.parametrize("is_json", [False, True])
def test_parameters_are_redacted_as_if_each_text_were_looked_at(is_json: bool) -> None:
    chance, content_type, hidden = random.Random(4), "application/json" if is_json else None, 0
    for _ in range(DOSE):
        body = (as_json if is_json else as_form)(document(chance), chance.choice(ESCAPED))
        path = chance.choice(PATHS)
        kept = redacted_body(path, content_type, body, is_json=False)
        if isinstance(kept, str):
            assert kept == f"({len(body)} bytes that cannot be read)"
            continue
        sent = parse_body(content_type, body)
        if "settings" in sent and path == "/ops/v1/connectors":
            sent["settings"] = "****"
        assert kept == Redaction(names=path not in THINGS, looks=True, answer=False).of(sent), body
        hidden += kept != sent
    assert DOSE // 8 < hidden < DOSE
