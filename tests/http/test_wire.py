"""The parser reads what the SDKs send, and refuses by name whatever can be read in two ways."""

import json
import time
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pytest
from bad_bodies import FORM, JSON, UNREADABLE, BadBody
from hypothesis import given
from hypothesis import strategies as st

from tillway.domain.refusal import RULES, Refused
from tillway.http.wire import parse_body, parse_query, quote

PARSER_CODES = {"body_malformed", "body_too_large", "content_type_unsupported"}


@pytest.mark.parametrize(
    ("form", "values"),
    [
        (b"amount=4200&currency=eur", {"amount": "4200", "currency": "eur"}),
        (b"a=1&&b=2&", {"a": "1", "b": "2"}),
        (b"description=", {"description": ""}),
        (b"description=a+b%2Bc%20d=e", {"description": "a b+c d=e"}),
        ("description=caf\u00e9&name=%F0%9F%98%80".encode(), {"description": "caf\u00e9", "name": "\U0001f600"}),
        (b"card[number]=42&card[exp][month]=1", {"card": {"number": "42", "exp": {"month": "1"}}}),
        (b"card%5Bnumber%5D=42&card%5bcvc%5d=1", {"card": {"number": "42", "cvc": "1"}}),
        (b"expand[]=a&expand[]=b", {"expand": ["a", "b"]}),
        (b"expand[]=a&expand[]=a", {"expand": ["a", "a"]}),
        (b"expand[1]=b&expand[0]=a", {"expand": ["a", "b"]}),
        (b"items[0][id]=x&items[1][id]=y&items[0][n]=2", {"items": [{"id": "x", "n": "2"}, {"id": "y"}]}),
        (b"a[0][0]=x&a[0][1]=y", {"a": [["x", "y"]]}),
        (b"a[b][]=x", {"a": {"b": ["x"]}}),
        (b"metadata[0]=x&metadata[6735]=y&metadata[a]=z", {"metadata": {"0": "x", "6735": "y", "a": "z"}}),
        (b"data[metadata][0]=x", {"data": {"metadata": {"0": "x"}}}),
        (b"a[3ds]=x", {"a": {"3ds": "x"}}),
        (b"3d_secure=x&a.b=y&a-b=z", {"3d_secure": "x", "a.b": "y", "a-b": "z"}),
        (b"", {}),
        (b"&", {}),
    ],
)
def test_form(form: bytes, values: dict[str, Any]) -> None:
    assert parse_body(FORM, form) == values
    assert parse_query(form) == values
    assert parse_query(form.decode()) == values


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b"{}", {}),
        (
            b' {"amount": 4200, "confirm": true, "description": null} ',
            {"amount": 4200, "confirm": True, "description": None},
        ),
        (b'{"expand": ["a", {"b": "c"}]}', {"expand": ["a", {"b": "c"}]}),
        (b'{"amount": 10.50}', {"amount": Decimal("10.50")}),
        (b'{"url": "https://a:b", "x:y": ":"}', {"url": "https://a:b", "x:y": ":"}),
        (
            b'{"a": "\\u003a\\ud83d\\ude00", "b": {"a": ":"}, "c": {"a": ":"}}',
            {"a": ":\U0001f600", "b": {"a": ":"}, "c": {"a": ":"}},
        ),
        (b'{"a": [{"k": 1}, {"k": ":"}], "k": "\\""}', {"a": [{"k": 1}, {"k": ":"}], "k": '"'}),
        (b'{"amount": 9007199254740992}', {"amount": 2**53}),
    ],
)
def test_json(body: bytes, values: dict[str, Any]) -> None:
    assert parse_body(JSON, body) == values
    assert parse_body("Application/JSON; charset=UTF-8", body) == values


@pytest.mark.parametrize(
    "content_type",
    [None, "", FORM, FORM + ";charset=utf-8", 'Application/X-WWW-Form-Urlencoded; Charset="UTF-8"'],
)
def test_a_body_is_a_form_unless_it_says_otherwise(content_type: str | None) -> None:
    assert parse_body(content_type, b"a=1") == {"a": "1"}


def test_an_empty_body_may_have_any_type() -> None:
    assert parse_body("text/plain", b"") == {}


@pytest.mark.parametrize("bad", UNREADABLE, ids=lambda bad: bad[0])
def test_unreadable_bodies_are_refused_with_their_place(bad: BadBody) -> None:
    _, content_type, body = bad
    with pytest.raises(Refused) as refused:
        parse_body(content_type, body)
    assert refused.value.code in PARSER_CODES
    assert 400 <= RULES[refused.value.code].status < 500
    if refused.value.code == "body_malformed":
        where = (
            "at byte",
            "at position",
            "at character",
            "more than",
            "JSON object",
            "looks like JSON",
            "no name",
            "in the body",
        )
        assert refused.value.param or any(words in refused.value.message for words in where), refused.value.message
    assert len(refused.value.message) < 600
    refused.value.message.encode()


@pytest.mark.parametrize(
    ("content_type", "body", "param"),
    [
        (JSON, b'{"amount": 1, "card": {"exp": [1, {"month": NaN}]}}', "card[exp][1][month]"),
        (JSON, b'{"card": {"number": "1", "cvc": "2", "number": "3"}}', "card[number]"),
        (JSON, b'{"card": {"number": "\\ud800"}}', "card[number]"),
        (JSON, b'{"card": {"number": "\xff"}}', "card[number]"),
        (JSON, b'{"a": {"b": 1}, "card": {"number": 1e5}}', "card[number]"),
        (JSON, b'{"a": [[1, 2], {"b": 90071992547409930}]}', "a[1][b]"),
        (JSON, b'{"a": {"\\u0062\\"": 1, "b\\"": 2}}', 'a[b"]'),
        (FORM, b"card[number]=1&card[number]=2", "card[number]"),
        (FORM, b"card[number]=%zz", "card[number]"),
        (FORM, b"4242424242424242=1&4242424242424242=2", "****************"),
    ],
)
def test_the_parameter_is_named(content_type: str, body: bytes, param: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_body(content_type, body)
    assert refused.value.param == param


def test_bounds_are_exact() -> None:
    assert len(parse_body(FORM, b"&".join(b"k%d=1" % i for i in range(1000)))) == 1000
    assert len(parse_body(JSON, json.dumps({f"k{i}": i for i in range(1000)}).encode())) == 1000
    assert parse_body(FORM, b"a" + b"[b]" * 7 + b"=1")
    assert parse_body(JSON, b'{"a":' * 20 + b"1" + b"}" * 20)
    assert parse_body(FORM, b"a=" + b"x" * ((1 << 20) - 2))
    assert parse_body(FORM, b"k" * 500 + b"=1")
    for content_type, body in [
        (FORM, b"a" + b"[b]" * 8 + b"=1"),
        (JSON, b'{"a":' * 21 + b"1" + b"}" * 21),
        (FORM, b"a=" + b"x" * ((1 << 20) - 1)),
        (FORM, b"k" * 501 + b"=1"),
    ]:
        with pytest.raises(Refused):
            parse_body(content_type, body)


def test_a_query_of_text_with_lone_surrogates_is_refused() -> None:
    with pytest.raises(Refused):
        parse_query("a=\udcff")


@pytest.mark.parametrize(
    ("text", "echo"),
    [
        ("short", "short"),
        ("4242 4242 4242 4242", "**** **** **** ****"),
        ("\u0664" * 16, "*" * 16),
        ("a\nb\x07", "a\\nb\\x07"),
        ("\ud800", "\\ud800"),
        ("x" * 100, "x" * 30 + "\u2026" + "x" * 30),
    ],
)
def test_what_a_message_repeats(text: str, echo: str) -> None:
    assert quote(text) == echo


# Whatever comes in: a dict or Refused, nothing else.

_noise = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from(
            [
                b"a",
                b"[",
                b"]",
                b"=",
                b"&",
                b"%",
                b"%5B",
                b"%00",
                b"+",
                b"0",
                b"1",
                b"metadata",
                b"[]",
                b"[0]",
                b"\xc3",
                b"{",
            ]
        ),
        max_size=30,
    ).map(b"".join),
    st.lists(
        st.sampled_from(
            [
                b"{",
                b"}",
                b"[",
                b"]",
                b'"a"',
                b'"b"',
                b":",
                b",",
                b"1",
                b"1e9",
                b"-",
                b"null",
                b'"\\ud800"',
                b'"',
                b"\\",
                b" ",
            ]
        ),
        max_size=30,
    ).map(b"".join),
)


@given(_noise, st.sampled_from([FORM, JSON, None]))
def test_noise_is_read_or_refused(body: bytes, content_type: str | None) -> None:
    try:
        values = parse_body(content_type, body)
    except Refused as refused:
        assert refused.code in PARSER_CODES
        refused.message.encode()
        return
    assert isinstance(values, dict)


_keys = st.text(st.characters(codec="utf-8", exclude_characters="\0[]"), min_size=1, max_size=12)
_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
_json = st.recursive(
    st.one_of(_texts, st.booleans(), st.none(), st.integers(-(2**53), 2**53)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_keys, inner, max_size=4)),
    max_leaves=12,
)


@given(st.dictionaries(_keys, _json, max_size=6), st.booleans())
def test_every_json_object_within_bounds_comes_through(document: dict[str, Any], ascii_only: bool) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    assert parse_body(JSON, body) == document


@given(st.dictionaries(_keys, _json, min_size=1, max_size=4), st.data())
def test_every_repeated_name_is_found(document: dict[str, Any], data: st.DataObject) -> None:
    """One member of the object, or of one inside it, is written a second time."""
    node: Any = document
    for _ in range(5):
        inner = [child for child in node.values() if isinstance(child, dict) and child]
        if not inner or data.draw(st.booleans()):
            break
        node = data.draw(st.sampled_from(inner))
    again = data.draw(st.sampled_from(sorted(node)))
    text = json.dumps(document)
    plain = json.dumps(node)
    repeated = (
        plain[:-1] + ", " + json.dumps(again) + ": " + data.draw(st.sampled_from(["1", '"a:b"', '{"c": ":"}'])) + "}"
    )
    assert plain in text
    with pytest.raises(Refused):
        parse_body(JSON, text.replace(plain, repeated, 1).encode())


_plain_keys = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(lambda key: key != "metadata")
_form = st.recursive(
    _texts,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3), st.dictionaries(_plain_keys, inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
).filter(lambda value: _depth(value) < 8)


def _depth(value: Any) -> int:
    match value:
        case dict():
            return 1 + max(map(_depth, value.values()))
        case list():
            return 1 + max(map(_depth, value))
        case _:
            return 0


def _pairs(name: str, value: Any) -> list[tuple[str, str]]:
    match value:
        case dict():
            return [pair for key, child in value.items() for pair in _pairs(f"{name}[{key}]", child)]
        case list():
            return [pair for i, child in enumerate(value) for pair in _pairs(f"{name}[{i}]", child)]
        case _:
            return [(name, value)]


@given(st.dictionaries(_plain_keys, _form, max_size=4))
def test_every_form_within_bounds_comes_through(document: dict[str, Any]) -> None:
    pairs = [pair for name, value in document.items() for pair in _pairs(name, value)]
    assert parse_body(FORM, urlencode(pairs).encode()) == document


MIB = 1 << 20


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"' + b"\\\\" * (MIB // 2 - 12) + b'"x',
        b'{"a":"' + b"\\ud83d\\ude00" * (MIB // 12 - 10) + b'\\ud800"}',
        b'{"a":[' + b'{"b":1},' * (MIB // 8 - 2),
        b'{"a" ' + b" " * (MIB - 20) + b"x",
        b'{"a":' + b"1" * (MIB - 20) + b"}",
        b'{"a":1,"b":"' + b'\\"' * (MIB // 2 - 20) + b'","a":2}',
        b'{"a":[' + b"[]," * (MIB // 3 - 5) + b"[]]}",
        b'{"a":[' + b"1.5," * (MIB // 4 - 5) + b"1.5]}",
        b'{"a":[' + b"1.5," * (MIB // 4 - 5),
        b"{" + b",".join(b'"%d":1' % i for i in range(90_000)) + b"}",
        b'{"a":' + b"[{" * 1000 + b'"b"',
    ],
    ids=[
        *("escapes", "surrogates", "members", "spaces", "digits", "repeated"),
        *("lists", "fractions", "cut off", "names", "deep"),
    ],
)
def test_a_large_malformed_body_does_not_hold_the_loop(body: bytes) -> None:
    """It took 0.1 to 0.2 s to explain one of them, in which no other request was answered."""
    seconds = []
    for _ in range(3):
        began = time.thread_time()
        with pytest.raises(Refused) as caught:
            parse_body("application/json", body)
        seconds.append(time.thread_time() - began)
        assert caught.value.code == "body_malformed"
    assert min(seconds) < 0.04


@pytest.mark.parametrize(
    "body",
    [
        b"&".join(b"a%d=" % i for i in range(120_000)),
        b"a=" + b"%41" * (MIB // 3 - 2) + b"%zz",
        b"a=" + b"%zzzz" * (MIB // 5 - 2),
        b"%5B" * (MIB // 3 - 2) + b"=1",
        b"a" + b"[b]" * (MIB // 3 - 2) + b"=1",
        b"\x01" * (MIB - 2),
    ],
    ids=["names", "escapes", "bad escapes", "escaped name", "deep", "control characters"],
)
def test_a_large_malformed_form_does_not_hold_the_loop(body: bytes) -> None:
    seconds = []
    for _ in range(3):
        began = time.thread_time()
        with pytest.raises(Refused) as caught:
            parse_body(FORM, body)
        seconds.append(time.thread_time() - began)
        assert caught.value.code == "body_malformed"
    assert min(seconds) < 0.04


def test_json_beyond_its_bounds_is_named_so() -> None:
    """Commas and brackets inside of strings are text, so a text may have any number of them."""
    for value in ('"' + ",[{" * 5000 + '"', '"' + '\\"[,' * 5000 + '"', "[" + ",".join(["[]"] * 999) + "]"):
        assert parse_body(JSON, b'{"a":%b}' % value.encode()) == {"a": json.loads(value)}
    for value, reason in (
        ("[" + ",".join(["[]"] * 1000) + "]", "The body has more than 1000 values."),
        ("[" + "[[]]," * 999 + "[]]", "The body has more than 1000 values."),
        ("[" * 200_000, "Parameter a is nested deeper than 20."),
    ):
        with pytest.raises(Refused) as caught:
            parse_body(JSON, b'{"a":%b}' % value.encode())
        assert caught.value.message == reason


@given(_texts)
def test_every_escaped_text_comes_through(text: str) -> None:
    escaped = "".join(f"%{byte:02x}" for byte in text.encode())
    assert parse_body(FORM, f"a={escaped}=%3D{escaped.upper()}+".encode()) == {"a": f"{text}=={text} "}
