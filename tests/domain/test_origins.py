"""Which origins a publishable key can have, and how a policy names them."""

import pytest

from tillway.domain.api_key import ApiKey
from tillway.domain.origins import OriginUnfit, frame_sources, parse_origin

GOOD = [
    ("https://shop.example", "https://shop.example"),
    (" HTTPS://Shop.Example:443/ ", "https://shop.example"),
    ("https://xn--bcher-kva.example:8443", "https://xn--bcher-kva.example:8443"),
    ("http://localhost:8000", "http://localhost:8000"),
    ("http://127.0.0.1:80", "http://127.0.0.1"),
]
UNFIT = [
    ("shop.example", "Write it as https://shop.example"),
    ("ftp://shop.example", "Write it as https://shop.example"),
    ("https://user@shop.example", "Write it as https://shop.example"),
    ("https://shop.example:99999", "Write it as https://shop.example"),
    ("https://shop.example/basket", "Leave out all that follows"),
    ("https://shop.example?a=1", "Leave out all that follows"),
    ("https://*.shop.example", "without a wildcard"),
    ("https://bücher.example", "xn--"),
    ("https://[::1]:8000", "no IPv6 address"),
    ("https://shop.example;script-src", "no host that a browser's policy can name"),
    ("http://shop.example", "https pages only"),
]


@pytest.mark.parametrize(("text", "origin"), GOOD)
def test_an_origin_is_stored_as_browsers_write_it(text: str, origin: str) -> None:
    assert parse_origin(text, livemode=True) == origin


@pytest.mark.parametrize(("text", "remedy"), UNFIT)
def test_an_unfit_origin_is_refused_with_its_remedy(text: str, remedy: str) -> None:
    with pytest.raises(OriginUnfit) as refused:
        parse_origin(text, livemode=True)
    assert remedy in str(refused.value)


def test_a_test_key_takes_http_and_allows_loopback_unasked() -> None:
    assert parse_origin("http://shop.example", livemode=False) == "http://shop.example"
    test = ApiKey(
        id="key_1", created=1, account="acct_1", mode="test", kind="publishable", hint="", origins=("http://a.example",)
    )
    assert frame_sources(test) == (
        "http://a.example",
        *("http://localhost:*", "http://127.0.0.1:*", "https://localhost:*", "https://127.0.0.1:*"),
    )
    live = ApiKey(id="key_2", created=1, account="acct_1", mode="live", kind="publishable", hint="")
    assert frame_sources(live) == ()
