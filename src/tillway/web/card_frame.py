"""The browser's part of card payments on a shop's page: `tillway.js`, the card frame, the page that ends a challenge.

The frame's page has one style and one script in it, and its policy allows them by their digests. The origins that may
show the frame stand in `frame-ancestors`, so the browser itself keeps it out of every other page.
"""

import base64
import hashlib
import json
from functools import cache
from html import escape
from pathlib import Path

from tillway.domain.api_key import ApiKey
from tillway.domain.languages import TEXTS
from tillway.domain.origins import allows_loopback, frame_sources

_HERE = Path(__file__).parent

SCRIPT_SECONDS = 300
"""How long a browser keeps `tillway.js`. Its address never changes, so a repair reaches every shop in this time."""

SCRIPT_HEADERS = (
    ("cache-control", f"public, max-age={SCRIPT_SECONDS}"),
    ("access-control-allow-origin", "*"),
    ("cross-origin-resource-policy", "cross-origin"),
)
"""Any page may load the script, also one that checks its digest or is isolated. It holds nothing of a merchant."""

_PRIVATE = (("cache-control", "no-store"), ("referrer-policy", "no-referrer"), ("x-robots-tag", "noindex"))

_TELL_PARENT = 'parent.postMessage({ tillway: "returned" }, "*");'
"""Any origin may hear it, because it says nothing but that the page was reached."""


@cache
def shop_script() -> bytes:
    """Return `tillway.js`."""
    return _wrap("tillway.js").encode()


def card_page(key: ApiKey, secret: str, language: str) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """Return the page with the fields of a card, and its headers. `secret` is the publishable key itself."""
    words = TEXTS[language]
    style, script = _read("card_frame.css"), _wrap("card_frame.js")
    given = {
        "key": secret,
        "origins": key.origins,
        "loopback": allows_loopback(key),
        "texts": {
            "number": words["incorrect_number"],
            "expiry": words["invalid_expiry"],
            "code": words["incorrect_cvc"],
        },
    }
    fields = "".join(
        (
            _field("number", words["number"], "cc-number", numeric=True),
            _field("expiry", words["expiry"], "cc-exp", numeric=True, holder=words["mm_yy"], half=True),
            _field("code", words["code"], "cc-csc", numeric=True, holder=words["digits"], half=True),
            _field("name", words["name"], "cc-name"),
        )
    )
    page = (
        f'<!doctype html><html lang={language}><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{escape(words['card'])}</title><style>{style}</style>"
        f'<body data-given="{escape(json.dumps(given))}"><form id=card novalidate>{fields}'
        f"<p id=problem role=alert></p></form><script>{script}</script></html>"
    )
    sources = " ".join(frame_sources(key)) or "'none'"
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; connect-src 'self'; "
        f"form-action 'none'; base-uri 'none'; frame-ancestors {sources}"
    )
    return page.encode(), (("content-security-policy", policy), *_PRIVATE)


def returned_page(language: str) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """Return the page to which a bank sends the payer back within the dialog, and its headers."""
    words = TEXTS[language]
    page = (
        f"<!doctype html><html lang={language}><meta charset=utf-8><title>{escape(words['back'])}</title>"
        f"<p>{escape(words['back'])}</p><script>{_TELL_PARENT}</script></html>"
    )
    policy = (
        f"default-src 'none'; script-src {_digest(_TELL_PARENT)}; form-action 'none'; base-uri 'none'; "
        "frame-ancestors *"
    )
    return page.encode(), (("content-security-policy", policy), *_PRIVATE)


def _field(id: str, label: str, fills: str, *, numeric: bool = False, holder: str = "", half: bool = False) -> str:
    more = " inputmode=numeric" if numeric else ""
    if holder:
        more += f' placeholder="{escape(holder)}"'
    return (
        f"<div{' class=half' if half else ''}><label for={id}>{escape(label)}</label>"
        f"<input id={id} name={fills} autocomplete={fills} aria-describedby=problem{more}></div>"
    )


@cache
def _wrap(name: str) -> str:
    """A script with the calls that both share, in a scope of its own."""
    return f'(() => {{\n"use strict";\n{_read("api_call.js")}\n{_read(name)}}})();\n'


@cache
def _read(name: str) -> str:
    return (_HERE / name).read_text()


def _digest(text: str) -> str:
    """The source expression that allows an inline script or style (CSP 3, 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
