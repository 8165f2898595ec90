"""Two environments of the api function, and one bound for both."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from urllib.parse import urlencode

from aws_stage import Stage

BURST = 24
BATCH = 3
"""Requests that an environment takes by itself before it asks what the others took."""

CARDS = 8
LIMITS = {
    "TILLWAY_THROTTLE_KEY_PER_SECOND": "1",
    "TILLWAY_THROTTLE_KEY_BURST": str(BURST),
    "TILLWAY_THROTTLE_FAILURES_PER_SECOND": "1",
    "TILLWAY_THROTTLE_FAILURES_BURST": "16",
    "TILLWAY_CARD_FAILURES_PER_KEY": str(CARDS),
}


def status_of(url: str, key: str, form: dict[str, str] | None = None) -> int:
    body = urlencode(form).encode() if form is not None else None
    request = urllib.request.Request(url, body, {"authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def passed(ask: Callable[[], int], most: int) -> int:
    """How many requests are answered before one is throttled, of at most `most`."""
    for number in range(most):
        if ask() == 429:
            return number
    return most


def test_two_environments_have_one_bound(stage: Stage) -> None:
    keys = stage.function("admin").invoke({"action": "init", "name": "Shop"})
    one, other = stage.function("api", **LIMITS), stage.function("api", **LIMITS)

    def charges(at: str, key: str) -> int:
        return status_of(f"{at}/v1/charges", key)

    secret, bad = keys["secret_key"], "sk_test_" + "x" * 40
    charges(other.url, keys["live_secret_key"])  # It has begun.
    began = time.monotonic()
    assert passed(lambda: charges(one.url, secret), 200) >= BURST
    there = passed(lambda: charges(other.url, secret), 200)
    assert there <= BATCH + time.monotonic() - began, "those that the other environment took count here"

    # Cards that fail with the key that the pages of the shop show.
    token = {"card[number]": "4242424242424241", "card[exp_month]": "12", "card[exp_year]": "2040"}

    def tokens(at: str) -> int:
        return status_of(f"{at}/v1/tokens", keys["publishable_key"], token)

    assert passed(lambda: tokens(one.url), 20) == CARDS
    assert passed(lambda: tokens(other.url), 20) == 1

    # Bad keys from an address, which never lock out a good one.
    began = time.monotonic()
    assert passed(lambda: charges(one.url, bad), 200) >= 16
    assert passed(lambda: charges(other.url, bad), 200) <= 2 + time.monotonic() - began
    assert charges(other.url, keys["live_secret_key"]) == 200
