"""A credential that was admitted to a call is admitted again as the general way would, while nothing has changed."""

import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from good_calls import MerchantObjects

from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.http.authentication import ADMITTED_MAX, NOBODY, admit_again, identify_caller
from tillway.http.messages import Request
from tillway.testing.in_process import InProcessApp

PATH = "/v1/customers"


class Lines(dict[str, str]):
    """Headers of which one may stand twice, as an HTTP server hands them over."""

    def get_all(self, name: str) -> list[str]:
        return self[name].split(", ")


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(tmp_path)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


async def both_ways(app: InProcessApp, method: str, path: str, key: str) -> tuple[Caller | None, Caller]:
    """The caller as it is admitted again, and as it is identified."""
    api = app.running.api
    request = Request(method, path, "", {"authorization": f"Bearer {key}"}, b"", "192.0.2.7")
    found = api._routes_at(path)
    assert found is not None
    route = found[0][method]
    again = admit_again(api.authenticator, api.throttle, request, route, "req_1")
    assert not isinstance(again, Refused)
    caller = Caller(scope=NOBODY, scope_key=NOBODY.key, request_id="req_1")
    await identify_caller(api.authenticator, api.throttle, request, route, caller, None)
    return again, caller


async def test_a_caller_is_the_same_as_in_the_general_way(objects: MerchantObjects) -> None:
    app, mine = objects.app, objects.merchant
    customer = (await app.ok(mine, "POST", PATH))["id"]
    intent = (await app.ok(mine, "POST", "/v1/payment_intents", {"amount": 100, "currency": "usd"}))["id"]
    app_key = await app.ok(mine, "POST", "/v1/ephemeral_keys", {"customer": customer}, stripe_version="2020-03-02")
    limited = await app.ok(mine.admin_key, "POST", "/ops/v1/keys", {"name": "Reader", "scopes": ["customers:read"]})
    for method, path, key in (
        ("GET", f"{PATH}/{customer}", mine.key),
        ("POST", PATH, mine.key),
        ("GET", f"{PATH}/{customer}", limited["secret"]),
        ("GET", f"/v1/payment_intents/{intent}", mine.public_key),
        ("GET", f"{PATH}/{customer}", app_key["secret"]),
    ):
        assert (await both_ways(app, method, path, key))[0] is None or method == "POST"
        for _ in range(2):
            await app.call(key, method, path)
        again, caller = await both_ways(app, method, path, key)
        assert again == caller and again is not caller, (method, path)
    assert (await both_ways(app, "GET", PATH, mine.operator_key))[0] is None


async def test_what_differs_from_the_last_request_is_looked_at(objects: MerchantObjects) -> None:
    app, mine = objects.app, objects.merchant

    async def code(path: str = PATH, **headers: str) -> Any:
        sent = Lines({name.replace("_", "-"): value for name, value in headers.items()})
        request = Request("POST", path, "", sent, b"", "192.0.2.7")
        sent.setdefault("authorization", f"Bearer {mine.key}")
        answer = await app.running.api.handle(request)
        return answer.refused.code if answer.refused is not None else answer.status

    for _ in range(3):
        assert await code() == 200
    assert await code(stripe_account=mine.account) == await code(tillway_account=mine.account) == 200
    assert await code(stripe_account="acct_0000000000000000") == "account_invalid"
    assert await code(tillway_account="acct_0000000000000000") == "account_invalid"
    assert await code(authorization=f"Bearer {mine.key}, Bearer x") == "api_key_invalid"
    twice = Lines(authorization=f"Bearer {mine.key}")
    twice.get_all = lambda name: [twice[name]] * 2  # type: ignore[method-assign]
    answer = await app.running.api.handle(Request("POST", PATH, "", twice, b""))
    assert answer.refused is not None and answer.refused.code == "header_repeated"
    assert await code() == 200
    await app.ok(mine.admin_key, "POST", f"/ops/v1/accounts/{mine.account}/disable", {"reason": "The contract ended."})
    assert await code() == "account_disabled"


async def test_an_account_that_another_process_changed_is_looked_at(objects: MerchantObjects) -> None:
    app, mine = objects.app, objects.merchant
    for _ in range(3):
        await app.ok(mine, "POST", PATH)
    accounts = app.running.api.authenticator._accounts
    held = accounts.held(mine.account)
    assert held is not None and held[1] is not None
    accounts.renew(mine.account, held, msgspec.structs.replace(held[1], disabled_at=1))
    assert (await app.call(mine, "POST", PATH)).json["error"]["code"] == "account_disabled"


async def test_a_rate_applies_to_those_who_are_admitted_again(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path, throttle_test_per_second=1, throttle_test_burst=5)
    try:
        mine = await app.merchant()
        statuses = [(await app.call(mine, "POST", PATH)).status for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2
    finally:
        await app.close()


async def test_routes_of_a_credential_are_bounded(objects: MerchantObjects) -> None:
    app, mine = objects.app, objects.merchant
    for noun in ("balance", "charges", "customers", "disputes", "events", "payouts", "refunds", "files", "tokens"):
        for end in ("", "/x", "/x/y"):
            for method in ("GET", "POST"):
                for _ in range(2):
                    await app.call(mine, method, f"/v1/{noun}{end}")
    (known,) = app.running.api.authenticator._known.values()
    assert 0 < len(known.admitted) <= ADMITTED_MAX


async def test_a_request_whose_body_was_not_read_is_not_handled_without_it(objects: MerchantObjects) -> None:
    """Its key was unknown when it came, or the store away: a capture of a part would be one of the whole."""
    app, mine = objects.app, objects.merchant
    paid = {"amount": 500, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
    held = await app.ok(mine, "POST", "/v1/payment_intents", {**paid, "capture_method": "manual"})
    path, headers = f"/v1/payment_intents/{held['id']}/capture", {"authorization": f"Bearer {mine.key}"}
    asked = Request("POST", path, "", headers, b"", "192.0.2.7", unread=100_000)
    answer = await app.running.api.handle(asked)
    assert answer.status == 503 and msgspec.json.decode(answer.body)["error"]["code"] == "busy"
    assert (await app.ok(mine, "GET", f"/v1/payment_intents/{held['id']}"))["status"] == "requires_capture"


async def test_a_call_that_needs_no_key_is_answered_with_a_wrong_one(objects: MerchantObjects) -> None:
    for path, status in [(PATH, 401), ("/healthz", 200), (PATH, 401), ("/openapi.json", 200)]:
        sent = {"authorization": "Bearer sk_test_000000000000000000000000"}
        answer = await objects.app.running.api.handle(Request("GET", path, "", sent, b"", "192.0.2.7"))
        assert answer.status == status, path


async def test_a_key_that_is_nowhere_is_refused_and_counted_each_time_as_at_first(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path, throttle_failures_per_second=1, throttle_failures_burst=4)
    try:
        events, told = app.running.platform.engine.security, []
        for method, path in [("POST", PATH), ("GET", f"{PATH}/cus_1"), ("POST", PATH), ("POST", PATH), ("POST", PATH)]:
            sent = {"authorization": "Bearer sk_test_000000000000000000000000"}
            answer = await app.running.api.handle(Request(method, path, "", sent, b"", "192.0.2.7"))
            id = dict(answer.headers)["request-id"]
            told.append((answer.status, answer.headers[1:], answer.body.replace(id.encode(), b"")))
        first, *others, last = told
        assert first[0] == 401 and others == [first] * 3
        assert last[0] == 429 and ("retry-after", "1") in last[1]
        ((_, count),) = events._counts["authentication failed"].items()
        assert (count.times, count.names) == (5, ["api_key_invalid"])
    finally:
        await app.close()


@pytest.mark.parametrize(("method", "path"), [("POST", PATH), ("GET", f"{PATH}/cus_1"), ("GET", "/v1/nothing")])
async def test_a_refusal_is_freed_without_the_cyclic_collector(
    objects: MerchantObjects, method: str, path: str
) -> None:
    """Its traceback holds the frames that it went through, and one of them held it. Garbage that a test before has left
    in the process comes once at most."""
    app, sent, times = objects.app, {"authorization": f"Bearer {objects.merchant.key}"}, 50

    async def refuse() -> None:
        for _ in range(times):
            answer = await app.running.api.handle(Request(method, path, "", sent, b"nonsense=1", "192.0.2.7"))
            assert answer.status in (400, 404)
        await app.running.api.request_log.flush()

    await refuse()
    gc.collect()
    gc.disable()
    try:
        left = []
        for _ in range(3):
            await refuse()
            left.append(gc.collect())
        assert min(left) < times
    finally:
        gc.enable()
