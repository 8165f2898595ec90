"""Throttling: buckets, whose they are, and what a refusal says."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tillway.domain.account import SYSTEM, Account
from tillway.engine.siblings import SLOTS, Siblings
from tillway.http.authentication import UNAUTHENTICATED_BODY_BYTES_MAX
from tillway.http.throttle import BUCKETS_MAX, AnyBuckets, Buckets, Limits, Rate, SharedBuckets, Throttle, Throttled
from tillway.store.codec import decode, write_of
from tillway.testing.in_process import Answer, InProcessApp, Merchant


class Now:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def taken(buckets: AnyBuckets, rate: Rate, times: int, now: Now) -> int:
    return sum(buckets.take("x", rate, now()) == 0.0 for _ in range(times))


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    now = Now()
    buckets = Buckets()
    rate = Rate(per_second=10, burst=5)
    assert taken(buckets, rate, 50, now) == 5
    assert buckets.take("x", rate, now()) == pytest.approx(0.1)
    for _ in range(20):
        now.at += 0.1
        assert taken(buckets, rate, 3, now) == 1
    now.at += 3600
    assert taken(buckets, rate, 50, now) == 5, "a full bucket is full, however long it stood"
    assert buckets.take("another", rate, now()) == 0.0


def test_buckets_that_processes_share_give_the_same() -> None:
    now, drawn = Now(), random.Random(7)
    siblings = Siblings()
    one, other, own = SharedBuckets(siblings, "key"), SharedBuckets(siblings, "key"), Buckets()
    another_kind = SharedBuckets(siblings, "account")
    rates = {f"key {number}": Rate(per_second=drawn.choice((1, 20)), burst=drawn.choice((1, 4))) for number in range(9)}
    for _ in range(3000):
        name = drawn.choice(list(rates))
        if drawn.random() < 0.1:
            drawn.choice((one, other)).give_back(name, rates[name])
            own.give_back(name, rates[name])
        wait = drawn.choice((one, other)).take(name, rates[name], now())
        assert wait == pytest.approx(own.take(name, rates[name], now()))
        now.at += drawn.random() / 50
    assert another_kind.take("key 1", Rate(per_second=1, burst=1), now()) == 0.0


def test_buckets_that_processes_share_make_room_for_new_ones() -> None:
    buckets, rate = SharedBuckets(Siblings(), "address"), Rate(per_second=1, burst=2)
    for number in range(2 * SLOTS):
        assert buckets.take(f"busy {number}", rate, 1000.0) == 0.0
    assert taken(buckets, rate, 5, Now()) == 2


def test_buckets_are_bounded_and_full_ones_go_first() -> None:
    now = Now()
    buckets = Buckets()
    rate = Rate(per_second=1, burst=2)
    for number in range(BUCKETS_MAX):
        buckets.take(f"idle {number}", rate, now())
    now.at += 10
    assert taken(buckets, rate, 5, now) == 2
    assert len(buckets) == 1, "whoever has been idle is forgotten"
    for number in range(3 * BUCKETS_MAX):
        assert buckets.take(f"busy {number}", rate, now()) == 0.0
        assert len(buckets) <= BUCKETS_MAX
    assert buckets.take("busy 1", rate, now()) == 0.0


def test_of_a_network_of_ipv6_all_addresses_are_one() -> None:
    throttle = Throttle(Limits(failures=Rate(1, 3)), Now())
    for last in range(3):
        throttle.count_failure(f"2001:db8:1:2::{last}")
    for address in ("2001:db8:1:2:ffff::9", "[2001:db8:1:2::7]"):
        with pytest.raises(Throttled) as caught:
            throttle.count_failure(address)
        assert caught.value.limit == "address" and caught.value.retry_after == 1
    throttle.count_failure("2001:db8:1:3::1")
    throttle.count_failure("192.0.2.1")
    throttle.count_failure("no address")
    throttle.count_failure(None)


@pytest.mark.parametrize(("seconds", "says"), [(0.001, 1), (1.0, 1), (1.2, 2), (1e6, 60)])
def test_retry_after_is_whole_seconds_and_never_too_soon(seconds: float, says: int) -> None:
    assert Throttled("key", seconds).retry_after == says


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    found = await InProcessApp.open(tmp_path)
    yield found
    await found.close()


def limit(app: InProcessApp, **limits: Rate) -> Now:
    now = Now()
    app.running.api.throttle = Throttle(Limits(**limits), now)
    return now


async def ask(app: InProcessApp, key: str, times: int, path: str = "/v1/charges") -> list[int]:
    return [(await app.send("GET", path, key=key)).status for _ in range(times)]


def refused(answer: Answer) -> str:
    assert answer.status == 429 and answer.json["error"]["code"] == "rate_limit", answer.body
    assert answer.headers["stripe-should-retry"] == "true"
    return answer.headers["retry-after"]


async def test_a_merchant_has_a_bucket_for_each_mode(app: InProcessApp) -> None:
    one, other = await app.merchant(), await app.merchant()
    now = limit(app, test=Rate(2, 3), live=Rate(2, 5))
    assert await ask(app, one.key, 5) == [200] * 3 + [429] * 2
    assert await ask(app, one.live_key, 7) == [200] * 5 + [429] * 2
    assert await ask(app, other.key, 4) == [200] * 3 + [429]
    assert refused(await app.send("GET", "/v1/charges", key=one.key)) == "1"
    now.at += 1
    assert await ask(app, one.key, 4) == [200] * 2 + [429] * 2


async def test_a_key_has_a_bucket_and_leaves_the_other_keys_alone(app: InProcessApp) -> None:
    one = await app.merchant()
    limit(app, test=Rate(1, 10), key=Rate(1, 3))
    intent = await app.ok(one, "POST", "/v1/payment_intents", {"amount": 100, "currency": "eur"})
    path = f"/v1/payment_intents/{intent['id']}"
    published: Any = {"query": f"client_secret={intent['client_secret']}", "key": one.public_key}
    assert [(await app.send("GET", path, **published)).status for _ in range(5)] == [200] * 3 + [429] * 2
    assert await ask(app, one.key, 3) == [200, 200, 429], "which has made one request before"


async def test_it_is_counted_before_the_body_is_read(app: InProcessApp) -> None:
    one = await app.merchant()
    limit(app, test=Rate(1, 1))
    unreadable = [await app.send("POST", "/v1/charges", key=one.key, body=b"\xff{{{") for _ in range(2)]
    assert unreadable[0].status == 400
    refused(unreadable[1])


async def test_a_throttled_request_spends_no_idempotency_key(app: InProcessApp) -> None:
    one = await app.merchant()
    now = limit(app, test=Rate(1, 1))
    await ask(app, one.key, 1)
    asked = ("POST", "/v1/customers", {"name": "Ada"})
    refused(await app.call(one, *asked, idempotency_key="k"))
    now.at += 1
    assert (await app.call(one, *asked, idempotency_key="k")).status == 200


async def test_an_account_may_have_a_rate_of_its_own(app: InProcessApp) -> None:
    one = await app.merchant()
    limit(app, test=Rate(1, 2), live=Rate(1, 2), key=Rate(1, 1))
    await give(app, one, requests_per_second=1, requests_burst=6)
    assert await ask(app, one.key, 7) == [200] * 6 + [429]
    await give(app, one, requests_per_second=0)
    assert await ask(app, one.key, 30) == [200] * 30
    await give(app, one, requests_per_second=None)
    assert await ask(app, one.live_key, 2) == [200, 429]


async def give(app: InProcessApp, merchant: Merchant, **fields: int | None) -> None:
    row = await app.store.get(f"{SYSTEM}/{merchant.account}")
    assert row is not None
    account = decode(merchant.account, row.body)
    assert isinstance(account, Account)
    await app.store.commit([write_of(SYSTEM, msgspec.structs.replace(account, **fields), row.version)])
    app.running.platform.authenticator.forget()


async def test_bad_keys_from_one_address(app: InProcessApp) -> None:
    one, late = await app.merchant(), await app.merchant()
    now = limit(app, failures=Rate(1, 4))
    assert await ask(app, one.key, 1) == [200]
    bad = "sk_test_" + "x" * 40
    assert await ask(app, bad, 6) == [401] * 4 + [429] * 2
    assert (await app.send("GET", "/v1/charges")).status == 429, "no key at all is as bad"
    assert await ask(app, one.key, 3) == [200] * 3
    assert await ask(app, late.key, 1) == [200], "a good key is never locked out by an address's bad ones"
    now.at += 2
    assert await ask(app, bad, 3) == [401, 401, 429]


async def test_malformed_requests_of_unknown_senders_count_as_bad_keys(app: InProcessApp) -> None:
    one = await app.merchant()
    limit(app, failures=Rate(1, 4))
    large = b"{" * (UNAUTHENTICATED_BODY_BYTES_MAX + 1)
    for path in ("/v1/payment_intents", "/make-payment"):
        assert (await app.send("POST", path, body=large)).status == 413
    for _ in range(2):
        assert (await app.send("POST", "/make-payment", body=b"{", content_type="application/json")).status == 400
    assert (await app.send("POST", "/make-payment", body=b"{", content_type="application/json")).status == 429
    assert await ask(app, one.key, 1) == [200]


async def test_a_large_body_is_not_parsed_for_a_bad_key(app: InProcessApp) -> None:
    """The refusal is about the key, so the body was not looked at; with a good key it is."""
    one = await app.merchant()
    large = b"{" * 500_000
    for path in ("/v1/payment_intents", "/make-payment", "/get-token"):
        for key, status in (("sk_test_" + "x" * 40, 401), (one.key, 400)):
            answer = await app.send("POST", path, key=key, body=large, content_type="application/json")
            assert answer.status == status, (path, answer.body)


async def test_by_default_nobody_who_pays_is_held_back(app: InProcessApp) -> None:
    one = await app.merchant()
    assert await ask(app, one.key, 600) == [200] * 600
