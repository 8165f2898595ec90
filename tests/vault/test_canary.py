"""The canary must sing: a form that it overlooks is a leak that no test sees."""

import base64
import json

import pytest
from card_traces import cvc_traces, traces, traces_in_files
from hypothesis import given
from hypothesis import strategies as st

NUMBER = "4000056655665556"


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b'{"number":"4000056655665556"}', "plain"),
        (b"card 4000 0566 5566 5556 declined", "spaced"),
        (b"card 4000-0566-5566-5556", "spaced"),
        (b"number=4000+0566+5566+5556", "spaced"),
        (b"number=4000%200566%205566%205556", "spaced"),
        (NUMBER.encode("utf-16-le"), "utf-16"),
        (NUMBER.encode().hex().upper().encode(), "hex"),
        (bytes.fromhex(NUMBER), "packed"),
        (int(NUMBER).to_bytes(8, "big"), "integer"),
        (int(NUMBER).to_bytes(8, "little"), "integer"),
    ],
)
def test_forms(data, form):
    assert traces(b"\0before" + data + b"after\xff", NUMBER) == [form]


@given(before=st.binary(max_size=20), after=st.binary(max_size=20), urlsafe=st.booleans())
def test_base64_at_any_place(before, after, urlsafe):
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    assert "base64" in traces(encode(before + NUMBER.encode() + after), NUMBER)


@given(st.binary(max_size=300))
def test_silent_on_noise(data):
    assert traces(data, NUMBER) == []


def test_security_codes_are_found_by_their_names():
    assert cvc_traces(json.dumps({"cvc": "737"}).encode(), "737") == ['cvc": "737']
    assert cvc_traces(b"card[cvc]=737&x=1", "737")
    assert cvc_traces(b'cvc_check: pass, "amount": 737', "737") == []
    assert cvc_traces(b'"cvc": "7371"', "737") == []


def test_files(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log").write_text(f"number {NUMBER}")
    (tmp_path / "other").write_text("nothing")
    assert traces_in_files([tmp_path], NUMBER) == {tmp_path / "deep" / "log": ["plain"]}
