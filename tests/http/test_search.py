"""The search language: what it finds, what it refuses and where, and what an index may be asked for."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillway.domain.refusal import Refused
from tillway.http.search import FIELDS, Clause, Query, Resource, matches, parse, required_terms

PAYMENT: dict[str, Any] = {
    "id": "pi_1",
    "amount": 1000,
    "created": 1_700_000_000,
    "currency": "eur",
    "customer": "cus_1",
    "metadata": {"order": "6735", "Note": 'It\'s "it"', "empty": ""},
    "status": "succeeded",
}
CHARGE: dict[str, Any] = {
    "amount": 500,
    "billing_details": {"address": {"postal_code": "1010"}, "email": None},
    "created": 1,
    "currency": "usd",
    "customer": None,
    "disputed": False,
    "refunded": True,
    "metadata": {},
    "payment_method_details": {"card": {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2034}},
    "status": "succeeded",
}
CUSTOMER: dict[str, Any] = {
    "created": 5,
    "email": "Amy@RocketRides.io",
    "name": "Amy Zo\u00eb",
    "phone": None,
    "metadata": {},
}
DOCUMENTS: dict[Resource, dict[str, Any]] = {"payment_intents": PAYMENT, "charges": CHARGE, "customers": CUSTOMER}


@pytest.mark.parametrize(
    ("resource", "text", "found"),
    [
        ("payment_intents", "status:'succeeded'", True),
        ("payment_intents", 'status:"SUCCEEDED"', True),
        ("payment_intents", "  status : 'succeeded'  ", True),
        ("payment_intents", "status:'canceled'", False),
        ("payment_intents", "-status:'canceled'", True),
        ("payment_intents", "-status:'succeeded'", False),
        ("payment_intents", "amount:1000", True),
        ("payment_intents", "amount:'1000'", True),
        ("payment_intents", "amount>999 AND amount<1001", True),
        ("payment_intents", "amount>=1000 amount<=1000", True),
        ("payment_intents", "amount>1000", False),
        ("payment_intents", "-amount>1000", True),
        ("payment_intents", "amount>-5", True),
        ("payment_intents", "currency:'usd' OR currency:'eur'", True),
        ("payment_intents", "currency:'usd' or currency:'jpy'", False),
        ("payment_intents", "currency:'eur' and -status:'succeeded'", False),
        ("payment_intents", "metadata['order']:'6735'", True),
        ("payment_intents", 'metadata["order"]:"6735"', True),
        ("payment_intents", "metadata['order']:6735", True),
        ("payment_intents", "metadata['ORDER']:'6735'", False),
        ("payment_intents", "metadata['other']:'6735'", False),
        ("payment_intents", "metadata['other']:null", True),
        ("payment_intents", "-metadata['other']:null", False),
        ("payment_intents", "-metadata['order']:NULL", True),
        ("payment_intents", "metadata['empty']:null", True),
        ("payment_intents", "metadata['order']:'null'", False),
        ("payment_intents", r"metadata['Note']:'It\'s \"it\"'", True),
        ("payment_intents", r"""metadata["Note"]:"It's \"it\"" """, True),
        ("payment_intents", "customer:'cus_1'", True),
        ("payment_intents", "customer:null", False),
        ("payment_intents", "created>1600000000 AND status:'succeeded' AND currency:'eur'", True),
        ("charges", "payment_method_details.card.last4:4242", True),
        ("charges", "payment_method_details.card.brand:'visa'", True),
        ("charges", "payment_method_details.card.exp_year>=2030", True),
        ("charges", "payment_method_details.card.fingerprint:'x'", False),
        ("charges", "billing_details.address.postal_code:'1010'", True),
        ("charges", "customer:null", True),
        ("charges", "-customer:'cus_1'", True),
        ("charges", "disputed:'false' refunded:true", True),
        ("charges", "disputed:TRUE", False),
        ("customers", "email:'amy@rocketrides.io'", True),
        ("customers", "email~'rocket'", True),
        ("customers", "email~'RIDES.IO'", True),
        ("customers", "-email~'rocket'", False),
        ("customers", "name:'amy zo\u00cb'", True),
        ("customers", "phone~'123'", False),
        ("customers", "phone:null", True),
    ],
)
def test_what_is_found(resource: Resource, text: str, found: bool) -> None:
    assert matches(parse(text, resource), DOCUMENTS[resource]) is found


def test_an_expanded_reference_is_its_id() -> None:
    query = parse("customer:'cus_1'", "payment_intents")
    assert matches(query, {**PAYMENT, "customer": {"id": "cus_1", "object": "customer"}})


@pytest.mark.parametrize(
    ("resource", "text", "position"),
    [
        ("payment_intents", "", 1),
        ("payment_intents", "   ", 4),
        ("payment_intents", "status", 7),
        ("payment_intents", "status:", 8),
        ("payment_intents", "status:succeeded", 8),
        ("payment_intents", "status:'succeeded", 8),
        ("payment_intents", "status='succeeded'", 7),
        ("payment_intents", "status:'a'AND currency:'eur'", 11),
        ("payment_intents", "status:'a' AND", 12),
        ("payment_intents", "AND status:'a'", 1),
        ("payment_intents", "status:'a' AND AND amount:1", 16),
        ("payment_intents", "amount:1 AND amount:2 OR amount:3", 22),
        ("payment_intents", "amount:1 amount:2 OR amount:3", 18),
        ("payment_intents", "amount:1 OR amount:2 amount:3", 21),
        ("payment_intents", "(amount:1)", 1),
        ("payment_intents", "amount:one", 8),
        ("payment_intents", "amount:1.5", 8),
        ("payment_intents", "amount:99999999999999999999", 8),
        ("payment_intents", "amount>null", 8),
        ("payment_intents", "status>'a'", 7),
        ("payment_intents", "status~'succ'", 7),
        ("payment_intents", "description:'x'", 1),
        ("payment_intents", "--status:'a'", 2),
        ("payment_intents", "metadata:'a'", 9),
        ("payment_intents", "metadata[a]:'b'", 10),
        ("payment_intents", "metadata['a':'b'", 13),
        ("payment_intents", "email:'a'", 1),
        ("charges", "disputed:'maybe'", 10),
        ("customers", "email~'am'", 7),
        ("customers", "email~null", 7),
        ("customers", "status:'x'", 1),
    ],
)
def test_what_is_refused_and_where(resource: Resource, text: str, position: int) -> None:
    with pytest.raises(Refused) as refused:
        parse(text, resource)
    assert (refused.value.code, refused.value.param) == ("query_invalid", "query")
    assert f"at character {position}." in refused.value.message


def test_bounds() -> None:
    assert len(parse(" ".join(["amount:1"] * 10), "payment_intents").clauses) == 10
    for text in (" ".join(["amount:1"] * 11), "status:'" + "x" * 5000 + "'"):
        with pytest.raises(Refused):
            parse(text, "payment_intents")


def test_no_refusal_repeats_a_card_number() -> None:
    for text in ("4242424242424242:'x'", "amount:4242424242424242424", "disputed:4242424242424242"):
        with pytest.raises(Refused) as refused:
            parse(text, "charges")
        assert "424242" not in refused.value.message


def test_the_tree() -> None:
    assert parse("-metadata['a.b']:'C' OR amount>=5", "charges") == Query(
        "or", (Clause(("metadata", "a.b"), ":", "C", True), Clause(("amount",), ">=", 5))
    )


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("status:'Succeeded' AND metadata['Key']:'Value'", [("status", "Succeeded"), ("metadata[Key]", "Value")]),
        ("customer:'cus_1'", [("customer", "cus_1")]),
        ("status:'a' OR customer:'b'", []),
        ("-status:'a'", []),
        ("metadata['k']:null amount:5 amount>1", []),
        ("amount>1 customer:'b' -currency:'eur'", [("customer", "b")]),
    ],
)
def test_required_terms(text: str, terms: list[tuple[str, str]]) -> None:
    assert required_terms(parse(text, "payment_intents")) == terms


_pieces = st.lists(
    st.sampled_from(
        [
            "status",
            "amount",
            "metadata",
            "['k']",
            "email",
            ":",
            "~",
            ">",
            ">=",
            "'x'",
            '"',
            "'",
            "\\",
            "5",
            " ",
            "AND",
            "OR",
            "-",
            "null",
            "\n",
            "\u0661",
        ]
    ),
    max_size=25,
).map("".join)


@given(st.one_of(_pieces, st.text(max_size=40)), st.sampled_from(sorted(FIELDS)))
def test_any_text_is_a_query_or_refused(text: str, resource: Resource) -> None:
    with contextlib.suppress(Refused):
        query = parse(text, resource)
        assert matches(query, DOCUMENTS[resource]) in (True, False)


@given(st.text(max_size=30), st.text(min_size=1, max_size=30))
def test_any_metadata_can_be_searched_for(value: str, key: str) -> None:
    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    query = parse(f"metadata[{quoted(key)}]:{quoted(value)}", "customers")
    assert query.clauses == (Clause(("metadata", key), ":", value),)
    assert matches(query, {"metadata": {key: value}}) is (value != "")
