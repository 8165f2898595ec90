"""Parameters become typed values, or a refusal with Stripe's code, wording and parameter name."""

from decimal import Decimal
from typing import Any

import pytest
from bad_bodies import BAD_BODIES, BadBody
from hypothesis import given
from hypothesis import strategies as st

from tillway.domain.refusal import RULES, Refused
from tillway.http.params import (
    Address,
    Amount,
    AnyOf,
    Array,
    Boolean,
    CardField,
    Country,
    Created,
    Currency,
    Email,
    Enum,
    Expand,
    Id,
    Ignored,
    Integer,
    Limit,
    Metadata,
    Object,
    Open,
    Parameter,
    Params,
    Shipping,
    Span,
    StatementDescriptor,
    Text,
    Timestamp,
    Unsupported,
    Url,
    list_params,
)
from tillway.http.wire import parse_body

CREATE = Params(
    amount=Amount(required=True),
    currency=Currency(required=True),
    capture_method=Enum("automatic", "automatic_async", "manual"),
    card=Object(
        number=CardField(required=True),
        exp_month=Integer(required=True, minimum=1, maximum=12),
        cvc=CardField(),
        networks=Object(preferred=Enum("visa", "mastercard")),
    ),
    confirm=Boolean(),
    created=Created(),
    customer=Id(unsettable=True),
    description=Text(unsettable=True, maximum=1000),
    expand=Expand(),
    items=Array(Object(price=Id(required=True), quantity=Integer(minimum=1)), maximum=3),
    metadata=Metadata(),
    off_session=AnyOf(Boolean(), Enum("recurring", "one_off")),
    on_behalf_of=Unsupported("Connect accounts"),
    options=Open(),
    receipt_email=Email(unsettable=True),
    return_url=Url(app_schemes=True),
    shipping=Shipping(unsettable=True),
    statement_descriptor=StatementDescriptor(),
    time_on_page=Ignored(),
)
LEAST = b"amount=4200&currency=eur&"


def refusal(body: bytes, params: Params = CREATE, content_type: str | None = None) -> Refused:
    with pytest.raises(Refused) as refused:
        params.validate(parse_body(content_type, body))
    return refused.value


def test_a_form_becomes_typed_values_and_nothing_is_added() -> None:
    body = (
        b"amount=4200&currency=EUR&confirm=true&capture_method=manual&customer=cus_1&description=two+words"
        b"&card[number]=4242+4242+4242+4242&card[exp_month]=12&card[cvc]=123&metadata[order]=6735&off_session=one_off"
        b"&items[0][price]=price_1&items[0][quantity]=2&expand[]=latest_charge.refunds&time_on_page=123"
        b"&return_url=https://example.com/done?a=b&created[gte]=10&created[lt]=20&receipt_email=a.b%2Bc@example.com"
        b"&options[a][b]=c"
    )
    assert CREATE.validate(parse_body(None, body)) == {
        "amount": 4200,
        "currency": "eur",
        "confirm": True,
        "capture_method": "manual",
        "customer": "cus_1",
        "description": "two words",
        "card": {"number": "4242 4242 4242 4242", "exp_month": 12, "cvc": "123"},
        "metadata": {"order": "6735"},
        "off_session": "one_off",
        "items": [{"price": "price_1", "quantity": 2}],
        "expand": ["latest_charge.refunds"],
        "return_url": "https://example.com/done?a=b",
        "created": Span(10, 19),
        "receipt_email": "a.b+c@example.com",
        "options": {"a": {"b": "c"}},
    }


def test_json_says_the_same() -> None:
    body = b"""{"amount": 4200, "currency": "eur", "confirm": false, "off_session": true, "created": 5,
        "description": null, "card": {"number": "4242424242424242", "exp_month": 12, "cvc": 123},
        "metadata": {"n": 1, "b": true, "gone": null, "d": 1.50}, "items": [{"price": "p", "quantity": "2"}]}"""
    assert CREATE.validate(parse_body("application/json", body)) == {
        "amount": 4200,
        "currency": "eur",
        "confirm": False,
        "off_session": True,
        "created": Span(5, 5),
        "description": None,
        "card": {"number": "4242424242424242", "exp_month": 12, "cvc": "123"},
        "metadata": {"n": "1", "b": "true", "gone": None, "d": "1.50"},
        "items": [{"price": "p", "quantity": 2}],
    }


def test_an_empty_string_unsets_what_can_be_unset() -> None:
    body = LEAST + b"customer=&description=&shipping=&receipt_email=&metadata[a]=&metadata[b]=x"
    values = CREATE.validate(parse_body(None, body))
    assert [values[name] for name in ("customer", "description", "shipping", "receipt_email")] == [None] * 4
    assert values["metadata"] == {"a": None, "b": "x"}
    assert CREATE.validate(parse_body(None, LEAST + b"metadata="))["metadata"] is None


@pytest.mark.parametrize(
    ("body", "code", "param", "message"),
    [
        (b"", "parameter_missing", "amount", "Missing required param: amount."),
        (b"amount=1", "parameter_missing", "currency", "Missing required param: currency."),
        (LEAST + b"card[exp_month]=1", "parameter_missing", "card[number]", "Missing required param: card[number]."),
        (LEAST + b"items[0][quantity]=1", "parameter_missing", "items[0][price]", None),
        (b"foo=1", "parameter_unknown", "foo", "Received unknown parameter: foo"),
        (b"amout=1", "parameter_unknown", "amout", "Received unknown parameter: amout. Did you mean amount?"),
        (b"foo=1&bar=2", "parameter_unknown", "foo", "Received unknown parameters: foo, bar"),
        (
            LEAST + b"card[nmber]=1",
            "parameter_unknown",
            "card[nmber]",
            "Received unknown parameter: card[nmber]. Did you mean card[number]?",
        ),
        (LEAST + b"card[networks][x]=1&card[number]=1", "parameter_unknown", "card[networks][x]", None),
        (b"amount=abc&currency=eur", "parameter_invalid_integer", "amount", "Invalid integer: abc"),
        (b"amount=&currency=eur", "parameter_invalid_empty", "amount", None),
        (b"amount=0&currency=eur", "amount_too_small", "amount", None),
        (b"amount=-5&currency=eur", "amount_too_small", "amount", None),
        (b"amount=100000000&currency=eur", "amount_too_large", "amount", None),
        (b"amount=1&currency=xyz", "invalid_currency", "currency", None),
        (
            LEAST + b"card[exp_month]=13&card[number]=1",
            "parameter_invalid_integer",
            "card[exp_month]",
            "This value must be less than or equal to 12.",
        ),
        (LEAST + b"confirm=1", "parameter_invalid_boolean", "confirm", "Invalid boolean: 1"),
        (
            LEAST + b"capture_method=later",
            "parameter_invalid_enum",
            "capture_method",
            "Invalid capture_method: must be one of automatic, automatic_async, or manual",
        ),
        (
            LEAST + b"off_session=maybe",
            "parameter_invalid_enum",
            "off_session",
            "Invalid off_session: must be one of recurring or one_off",
        ),
        (LEAST + b"card=tok_1", "parameter_invalid_object", "card", None),
        (LEAST + b"items=x", "parameter_invalid_array", "items", None),
        (LEAST + b"items[]=x", "parameter_invalid_object", "items[0]", None),
        (LEAST + b"items[]=&items[]=&items[]=&items[]=", "parameter_invalid_array", "items", None),
        (LEAST + b"description=+", "parameter_invalid_string_blank", "description", None),
        (LEAST + b"description[a]=b", "parameter_invalid_string", "description", "Invalid string: an object"),
        (
            LEAST + b"description=" + b"ab" * 600,
            "parameter_invalid_string",
            "description",
            "Invalid string: ababababab\u2026ababababab; must be at most 1000 characters",
        ),
        (LEAST + b"receipt_email=nobody", "email_invalid", "receipt_email", "Invalid email address: nobody"),
        (LEAST + b"return_url=nowhere", "url_invalid", "return_url", "Not a valid URL: nowhere"),
        (LEAST + b"customer=a/b", "resource_missing", "customer", "No such customer: 'a/b'"),
        (LEAST + b"expand[]=a.b.c.d.e", "parameter_invalid_string", "expand[0]", None),
        (LEAST + b"expand[]=A", "parameter_invalid_string", "expand[0]", None),
        (LEAST + b"created[after]=1", "parameter_unknown", "created[after]", None),
        (LEAST + b"created=", "parameter_invalid_empty", "created", None),
        (
            LEAST + b"on_behalf_of=acct_1",
            "parameter_unsupported",
            "on_behalf_of",
            "Tillway does not support on_behalf_of (Connect accounts). Leave it out of the request.",
        ),
        (LEAST + b"statement_descriptor=1234", "parameter_invalid_string", "statement_descriptor", None),
        (LEAST + b"statement_descriptor=A*B", "parameter_invalid_string", "statement_descriptor", None),
        (LEAST + b"metadata=x", "parameter_invalid_object", "metadata", None),
        (LEAST + b"metadata[a][b]=x", "parameter_invalid_string", "metadata[a]", None),
        (LEAST + b"shipping[name]=x", "parameter_missing", "shipping[address]", None),
        (LEAST + b"shipping[name]=x&shipping[address][country]=XX", "parameter_invalid_enum", None, None),
    ],
)
def test_refusals_are_worded_as_stripe_words_them(
    body: bytes, code: str, param: str | None, message: str | None
) -> None:
    refused = refusal(body)
    assert refused.code == code
    assert param is None or refused.param == param
    assert message is None or refused.message == message


@pytest.mark.parametrize("bad", BAD_BODIES, ids=lambda bad: bad[0])
def test_bad_bodies_are_refused_and_the_next_request_works(bad: BadBody) -> None:
    _, content_type, body = bad
    refused = refusal(body, content_type=content_type)
    assert 400 <= RULES[refused.code].status < 500
    assert len(refused.message) < 1000
    refused.message.encode()
    (refused.param or "").encode()
    assert "4242424242424242" not in refused.message + (refused.param or "")
    assert CREATE.validate(parse_body(None, LEAST))["amount"] == 4200


@pytest.mark.parametrize(
    "body",
    [
        b"description=4242424242424242",
        b"metadata[a]=my+card+4242-4242-4242-4242",
        b"metadata[4242424242424242]=x",
        b"options[a][b]=4242424242424242",
        b"options[n4242424242424242]=x",
        b"options[]=4242424242424242",
        b"customer=4242424242424242",
        b"receipt_email=4242424242424242@example.com",
        b"return_url=https://example.com/4242424242424242",
        b"shipping[name]=4242424242424242&shipping[address][line1]=x",
    ],
)
def test_card_numbers_are_refused_in_every_free_text_and_never_repeated(body: bytes) -> None:
    refused = refusal(LEAST + body)
    assert refused.code == "card_number_in_free_text"
    assert "424242" not in str(refused) + str(refused.param)


@pytest.mark.parametrize(
    "body",
    [
        b"amount=4242424242424242&currency=eur",
        LEAST + b"card[exp_month]=4242424242424242&card[number]=1",
        LEAST + b"confirm=4242424242424242",
        LEAST + b"capture_method=4242+4242+4242+4242",
        LEAST + b"4242424242424242=1",
        LEAST + b"card[4242424242424242]=1",
        LEAST + b"options[4242424242424242]=1",
        LEAST + b"off_session=4242424242424242",
        LEAST + b"expand[]=4242424242424242&expand[]=A4242424242424242",
        LEAST + b"card[number][4242424242424242]=1",
        LEAST + b"card[number]=4242424242424242" + b"0" * 60,
    ],
)
def test_no_refusal_repeats_a_card_number(body: bytes) -> None:
    params = CREATE.extend(expand=Array(Enum("a")))
    refused = refusal(body, params)
    assert "424242" not in str(refused) + str(refused.param)


def test_card_data_shows_nothing() -> None:
    card = CREATE.validate(parse_body(None, LEAST + b"card[number]=4242424242424242&card[exp_month]=1"))["card"]
    assert "4242" not in repr(card)
    assert card["number"] == "4242424242424242"


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        (Integer(), "007", 7),
        (Integer(), "-5", -5),
        (Integer(), -5, -5),
        (Integer(unsettable=True), "", None),
        (Integer(), "99999999999", 99_999_999_999),
        (Integer(), "100000000000", "parameter_invalid_integer"),
        (Integer(), True, "parameter_invalid_integer"),
        (Integer(), Decimal("1.0"), "parameter_invalid_integer"),
        (Integer(), [], "parameter_invalid_integer"),
        (Integer(), {}, "parameter_invalid_integer"),
        (Integer(), "--5", "parameter_invalid_integer"),
        (Integer(), "-", "parameter_invalid_integer"),
        (Integer(), "1\n", "parameter_invalid_integer"),
        (Boolean(), 1, "parameter_invalid_boolean"),
        (Boolean(), 0, "parameter_invalid_boolean"),
        (Boolean(), "True", True),
        (Boolean(), [], "parameter_invalid_boolean"),
        (Timestamp(), "253402300799", 253_402_300_799),
        (Timestamp(), -1, "parameter_invalid_integer"),
        (Limit(), "100", 100),
        (Limit(), "0", "parameter_invalid_integer"),
        (Limit(), "101", "parameter_invalid_integer"),
        (Country(), "de", "DE"),
        (Country(), "DEU", "parameter_invalid_enum"),
        (Country(), ["DE"], "parameter_invalid_enum"),
        (Country(), "\u00df", "parameter_invalid_enum"),
        (Enum("a"), ["a"], "parameter_invalid_enum"),
        (Enum("a", unsettable=True), "", None),
        (Currency(), ["eur"], "invalid_currency"),
        (Email(), "a@b.c", "a@b.c"),
        (Email(), "a@b", "email_invalid"),
        (Email(), "a@b@c.d", "email_invalid"),
        (Email(), "a b@c.d", "email_invalid"),
        (Email(), "a@-b.c", "email_invalid"),
        (Email(), "a@b.c\n", "email_invalid"),
        (
            Email(),
            "a@" + "b" * 63 + "." + "c" * 63 + "." + "d" * 63 + "." + "e" * 60,
            "a@" + "b" * 63 + "." + "c" * 63 + "." + "d" * 63 + "." + "e" * 60,
        ),
        (Email(), "a@" + "b" * 63 + "." + "c" * 63 + "." + "d" * 63 + "." + "e" * 61, "parameter_invalid_string"),
        (Email(), "a" * 65 + "@b.c", "email_invalid"),
        (Url(), "http://localhost:4242/hook", "http://localhost:4242/hook"),
        (Url(), "https://[::1]/x", "https://[::1]/x"),
        (Url(), "shop://done", "url_invalid"),
        (Url(app_schemes=True), "shop://done", "shop://done"),
        (Url(app_schemes=True), "com.example.shop://done", "com.example.shop://done"),
        (Url(app_schemes=True), "javascript://alert(1)", "url_invalid"),
        (Url(app_schemes=True), "JavaScript:alert(1)", "url_invalid"),
        (Url(app_schemes=True), "data:text/html,x", "url_invalid"),
        (Url(app_schemes=True), "java\tscript://x", "url_invalid"),
        (Url(), "https://", "url_invalid"),
        (Url(), "https:///path", "url_invalid"),
        (Url(), "//example.com", "url_invalid"),
        (Url(), "https://user:secret@example.com", "url_invalid"),
        (Url(), "https://example.com:99999", "url_invalid"),
        (Url(), "https://exa mple.com", "url_invalid"),
        (Url(), "https://example.com\\@evil.example", "url_invalid"),
        (Url(), "https://[::1", "url_invalid"),
        (Url(), "https://example.com/\x1b", "url_invalid"),
        (StatementDescriptor(), "SHOP 24", "SHOP 24"),
        (StatementDescriptor(), "x" * 23, "parameter_invalid_string"),
        (StatementDescriptor(), "caf\u00e9", "parameter_invalid_string"),
        (Address(), {"line1": "", "country": "at"}, {"line1": None, "country": "AT"}),
        (Address(unsettable=True), "", None),
        (Array(Text(), minimum=1), [], "parameter_invalid_array"),
        (Array(Text(), unsettable=True), "", None),
        (Array(Text()), {"a": "b"}, "parameter_invalid_array"),
        (AnyOf(Enum("a"), Object(b=Integer())), {"b": "1"}, {"b": 1}),
        (AnyOf(Object(b=Integer()), Enum("a")), "a", "a"),
        (AnyOf(Object(b=Integer()), Enum("a")), {"b": "x"}, "parameter_invalid_integer"),
        (AnyOf(Object(b=Integer()), Enum("a")), ["a"], "parameter_invalid_enum"),
        (AnyOf(Text(), Enum("a")), "4242424242424242", "card_number_in_free_text"),
        (AnyOf(Boolean(), unsettable=True), "", None),
        (Open(), {"a": [1, None, True, {"b": "c"}]}, {"a": [1, None, True, {"b": "c"}]}),
        (Open(), {"a": "x" * 5001}, "parameter_invalid_string"),
        (Open(), {str(i): "4 " * 100 for i in range(100)}, "parameter_invalid_object"),
        (Open(), {"a": 4242424242424242}, "card_number_in_free_text"),
        (CardField(), "x" * 65, "parameter_invalid_string"),
        (CardField(), ["1"], "parameter_invalid_string"),
        (CardField(), True, "parameter_invalid_string"),
        (Created(), {"gt": "10"}, Span(11, 253_402_300_799)),
        (Created(), {"gt": 10, "gte": 15, "lte": 20, "lt": 18}, Span(15, 17)),
        (Created(), {}, Span()),
        (Created(), "x", "parameter_invalid_integer"),
    ],
)
def test_each_type(parameter: Parameter, value: Any, expected: Any) -> None:
    if isinstance(expected, str) and expected in RULES:
        with pytest.raises(Refused) as refused:
            parameter.read(value, "name")
        assert refused.value.code == expected
        assert (refused.value.param or "").startswith("name")
    else:
        read = parameter.read(value, "name")
        assert read == expected
        assert type(read) is type(expected)


def test_a_listing_goes_one_way_at_a_time() -> None:
    listing = list_params(customer=Id(), created=Created())
    assert listing.validate({"limit": "3", "starting_after": "pi_1"}) == {"limit": 3, "starting_after": "pi_1"}
    refused = refusal(b"starting_after=pi_1&ending_before=pi_2", listing)
    assert (refused.code, refused.param) == ("parameters_exclusive", "ending_before")
    longer = listing.extend(status=Enum("open")).at_most_one("status", "customer")
    assert refusal(b"starting_after=pi_1&ending_before=pi_2", longer).param == "ending_before"
    assert refusal(b"status=open&customer=cus_1", longer).param == "customer"
    assert listing.validate({"customer": "cus_1"}) == {"customer": "cus_1"}


def test_span() -> None:
    assert 10 in Span(10, 20) and 20 in Span(10, 20) and 21 not in Span(10, 20)
    assert 10 not in Span(11, 10)


_json = st.recursive(
    st.one_of(
        st.text(max_size=30), st.booleans(), st.none(), st.integers(-(2**53), 2**53), st.decimals(allow_nan=False)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(CREATE.members)), _json, max_size=6))
def test_whatever_the_values_are_nothing_but_a_refusal_comes_out(raw: dict[str, Any]) -> None:
    try:
        values = CREATE.validate({"amount": 1, "currency": "eur", **raw})
    except Refused as refused:
        assert refused.param is not None
        (refused.message + refused.param).encode()
        return
    assert values.keys() <= CREATE.members.keys()


def test_openapi() -> None:
    schema = CREATE.openapi()
    assert schema["required"] == ["amount", "currency"]
    assert schema["properties"].keys() == CREATE.members.keys()
    assert schema["properties"]["amount"] == {"type": "integer", "minimum": 1, "maximum": 99_999_999}
    assert schema["properties"]["capture_method"]["enum"] == ["automatic", "automatic_async", "manual"]
    assert schema["properties"]["customer"]["anyOf"][1] == {"type": "string", "enum": [""]}
    assert schema["properties"]["card"]["required"] == ["number", "exp_month"]
    assert schema["properties"]["card"]["properties"]["number"]["writeOnly"]
    assert schema["properties"]["items"]["items"]["properties"]["price"]["type"] == "string"
    query = {one["name"]: one for one in list_params(created=Created()).openapi_query()}
    assert (query["limit"]["style"], query["created"]["style"], query["expand"]["style"]) == (
        "form",
        "deepObject",
        "deepObject",
    )
