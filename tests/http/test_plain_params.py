"""A reader that was written for some names gives what the general way gives, or nothing."""

from functools import partial
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tillway.api import handlers, payment_intents
from tillway.dialects import handlers as dialects
from tillway.domain.commands import Confirm
from tillway.domain.refusal import Refused
from tillway.domain.source_api import SourceApi
from tillway.http.idempotency import _without_codes
from tillway.http.params import (
    Boolean,
    Currency,
    Enum,
    Id,
    Ignored,
    Integer,
    Metadata,
    Object,
    Parameter,
    Params,
    Text,
)
from tillway.http.plain_params import (
    FORMS_MAX,
    FORMS_MISSED_MAX,
    NAMES_MAX,
    READERS_MAX,
    keep_form,
    parse_known_form,
    validate,
    write_form,
    write_reader,
)
from tillway.http.routes import DIALECT_ROUTES, ROUTES
from tillway.http.wire import parse_body

_REGISTERED = handlers, dialects
DECLARED = [route.params for route in (*ROUTES, *DIALECT_ROUTES) if route.params.members]

WORDS = sorted(
    {word for params in DECLARED for member in params.members.values() for word in getattr(member, "words", ())}
)
PLAIN = [
    *("1", "0", "-1", "00", "+1", "1_0", "٣", "100", "99999999999", "1" * 19, "1" * 20, " 1", "true", "false", "True"),
    *(
        "usd",
        "USD",
        "xxx",
        "isk",
        "pm_card_visa",
        "4242424242424242",
        "cus_4242424242424242",
        "a b",
        " ",
        "",
        "x" * 5001,
    ),
    *("x" * 255, "x" * 256, "Ä", "a@b.de", "https://example.com/", "https://4242424242424242.com", "DE", "\ud800"),
]
BOUNDS = {
    bound
    for params in DECLARED
    for member in params.members.values()
    if isinstance(member, Integer)
    for bound in (member.minimum, member.maximum)
}
VALUES = st.one_of(
    st.sampled_from([*PLAIN, *WORDS]),
    st.sampled_from(sorted(BOUNDS)).flatmap(
        lambda bound: st.sampled_from([str(bound - 1), str(bound), str(bound + 1)])
    ),
    st.text(max_size=30),
    st.sampled_from([None, True, False, 1, -1, 10**12, [], ["a"], {}, {"a": "b"}, {"enabled": "true"}]),
)
Outcome = tuple[Any, ...]


@st.composite
def requests(draw: st.DrawFn) -> tuple[Params, dict[str, Any]]:
    params = draw(st.sampled_from(DECLARED))
    names = draw(st.lists(st.sampled_from(sorted(params.members)), min_size=1, max_size=6, unique=True))
    required = [name for name, member in params.members.items() if member.required and name not in names]
    return params, {name: draw(VALUES) for name in draw(st.permutations([*names, *required]))[:NAMES_MAX]}


def outcome(read: Any, raw: Any) -> Outcome:
    try:
        values = read(raw)
    except Refused as refused:
        return refused.code, refused.message, refused.param
    return "read", repr(values)  # In their order, and True is not 1.


@settings(max_examples=300, deadline=None)
@given(requests())
def test_a_reader_reads_and_refuses_as_the_general_way_does(request: tuple[Params, dict[str, Any]]) -> None:
    params, raw = request
    if any(member.required and name not in raw for name, member in params.members.items()):
        return
    expected = outcome(lambda raw: params._read_members(raw, ""), raw)
    for texts in (set(), {name for name, value in raw.items() if type(value) is str}):
        given = outcome(write_reader(params.members, tuple(raw), texts), raw)
        assert given == expected or given == ("read", "None")


def test_the_values_of_a_shop_are_plain() -> None:
    (create,) = (route.params for route in ROUTES if route.name == "POST /v1/payment_intents")
    raw = {"amount": "2000", "currency": "usd", "payment_method": "pm_card_visa", "confirm": "true", "description": "x"}
    read = write_reader(create.members, tuple(raw))(raw)
    assert read == {**raw, "amount": 2000, "confirm": True}


@pytest.mark.parametrize(
    ("member", "texts"),
    [
        (Integer(minimum=3, maximum=12), ["2", "3", "12", "13"]),
        (Text(maximum=3), ["", " ", "x", "xxx", "xxxx"]),
        (Id(), ["x" * 255, "x" * 256, "cus_4242424242424242", "4242424242424242", "a/b"]),
        (Enum("a", "b"), ["a", "b", "c", "A"]),
        (Boolean(), ["true", "false", "True", "yes"]),
        (Currency(), ["usd", "USD", "xyz"]),
    ],
)
def test_a_reader_has_the_bounds_of_its_parameter(member: Parameter, texts: list[str]) -> None:
    reader = write_reader({"p": member}, ["p"])
    for text in texts:
        expected = outcome(lambda raw: {"p": member.read(raw["p"], "p")}, {"p": text})
        assert outcome(reader, {"p": text}) in (expected, ("read", "None")), text
    assert reader({"p": "4242424242424242"}) is None


@example(["a", "b"], ["x", "y"])
@given(st.lists(st.sampled_from("abcdz"), max_size=4, unique=True), st.lists(VALUES, min_size=4, max_size=4))
def test_a_route_answers_the_first_request_and_the_third_alike(names: list[str], values: list[Any]) -> None:
    params = Params(a=Text(), b=Id(unsettable=True), c=Boolean(required=True), d=Ignored()).at_most_one("a", "b")
    raw = dict(zip(names, values, strict=False))
    first, _, third, fourth = (outcome(partial(validate, params), raw) for _ in range(4))
    assert first == third == fourth == outcome(params.validate, raw)


@pytest.mark.parametrize("names", range(READERS_MAX - 1, READERS_MAX + 2))
def test_names_that_never_return_hold_no_memory(names: int) -> None:
    params = Params(**{f"p{i}": Text() for i in range(names)})
    for i in range(names):
        validate(params, {f"p{i}": "x"})
    assert len(params.readers) <= READERS_MAX


FORM_NAMES = st.sampled_from(
    [
        *("a", "b", "Ä", "a.*", "a+b", "%61", "metadata[a]", "metadata[0]", "metadata%5Bb%5D", "list[]", "list[0]"),
        *("list[1]", "list[2][x]", "deep[a][b]", "deep[a][c]", "deep[0]", "a[", "]", ""),
    ]
)
FORM_VALUES = st.sampled_from(
    ["", "1", "a=b", "a+b", "%41", "%4", "%00", "%FF", "%C3%84", "Ä", "\n", "\0", "v0", "mark0", "[a]", "{x}", "'\"\\"]
)


def read_form(body: bytes) -> Outcome:
    return outcome(partial(parse_body, None), body)


@settings(max_examples=300)
@given(st.lists(FORM_NAMES, min_size=1, max_size=5), st.lists(FORM_VALUES, min_size=10, max_size=10))
def test_a_known_form_is_parsed_as_the_general_way_does(names: list[str], values: list[str]) -> None:
    plain = "&".join(f"{name}=1" for name in names)
    if read_form(plain.encode())[0] != "read":
        return
    form = write_form([pair.partition("=")[0] for pair in plain.split("&")])
    for some in (values[:5], values[5:]):
        text = "&".join(f"{name}={value}" for name, value in zip(names, some, strict=False))
        assert outcome(form, text) in (read_form(text.encode()), ("read", "None"))
    assert outcome(form, plain) == read_form(plain.encode())
    for other in (f"{plain}&z=1", f"{plain}&", f"&{plain}", f"x{plain}", plain[1:], plain.replace("=", "&", 1)):
        assert form(other) is None


def parsed(params: Params, body: bytes) -> tuple[bool, dict[str, Any]]:
    """Whether the form was known, and its typed values."""
    known = parse_known_form(params, body)
    if known is not None:
        raw, read, holds_no_code = known
        assert holds_no_code == (_without_codes(raw) is raw)
        return True, read(raw) or params.validate(raw)
    raw = parse_body(None, body)
    values = validate(params, raw)
    keep_form(params, raw, body)
    return False, values


def test_a_form_is_known_once_its_names_were_read_often() -> None:
    params = Params(a=Integer(), b=Text())
    bodies = [f"a={n}&b=%41+{n}".encode() for n in range(6)]
    met = [parsed(params, body) for body in bodies]
    assert [values for _, values in met] == [{"a": n, "b": f"A {n}"} for n in range(6)]
    assert [known for known, _ in met] == [False, False, False, True, True, True]
    assert parsed(params, b"b=x&a=1") == (False, {"b": "x", "a": 1})
    for body in (b"a=x&b=y", b"a=1&b=%4"):
        with pytest.raises(Refused):
            parsed(params, body)
    assert parse_known_form(params, b"a=1&b=\xff") is None


@pytest.mark.parametrize(
    ("body", "holds_no_code"),
    [
        (b"a=x&b=y", True),
        (b"a=x&cvc=123", False),
        (b"%63vc=123", False),
        (b"a=x&metadata[b]=y", False),
        (b"a=x&card[cvc]=123", False),
    ],
)
def test_a_known_form_tells_whether_it_may_hold_a_security_code(body: bytes, holds_no_code: bool) -> None:
    params = Params(a=Text(), b=Text(), cvc=Text(), metadata=Metadata(), card=Object(cvc=Text()))
    while (known := parse_known_form(params, body)) is None:
        parsed(params, body)
    assert known[2] == holds_no_code


def test_forms_that_never_return_hold_no_memory_and_a_few_popular_ones_stay() -> None:
    params = Params(a=Text(), metadata=Metadata())
    for n in range(FORMS_MAX + 2):
        for _ in range(4):
            parsed(params, f"a=x&metadata[{n}]=y".encode())
    assert len(params.forms) == FORMS_MAX
    assert parsed(params, b"a=x&metadata[0]=y")[0]
    assert params.forms[0][0]("a=x&metadata[0]=y") is not None  # The last used one is tried first.
    for n in range(FORMS_MISSED_MAX):
        parsed(params, f"a=x&metadata[n{n}]=y".encode())
    assert len(params.forms_seen) <= READERS_MAX
    assert not parsed(params, b"a=x&metadata[0]=y")[0]


COMMAND_NAMES = sorted(
    {name for name, field in payment_intents._FIELDS.items() if field not in payment_intents._CONVERTED}
    | {"confirm", "expand", "off_session"}
)


@given(st.lists(st.sampled_from(COMMAND_NAMES), unique=True), st.lists(st.sampled_from([1, "x", "x", None, {}])))
def test_a_maker_makes_the_command_of_the_general_way(names: list[str], values: list[Any]) -> None:
    params = {"amount": 100, "currency": "usd"} | dict(zip(names, [*values, *names], strict=False))
    make, confirm = payment_intents.write_maker(tuple(params)), Confirm()
    made = make(SourceApi.v1, confirm, *params.values())
    told = [value for name, value in params.items() if name in payment_intents._FIELDS]
    assert (made is None) == (None in told)
    if made is not None:
        assert made == payment_intents._make_create(params, SourceApi.v1, confirm=confirm)
