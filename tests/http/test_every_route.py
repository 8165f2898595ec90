"""Every route of the table, called well once: it answers, and what it answers has Stripe's shape."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from good_calls import GOOD, MerchantObjects, name_of, path_of, routes
from stripe_shapes import problems

from tillway.http.routes import Route
from tillway.testing.in_process import InProcessApp

OTHER_ADDRESSES = {"/v1/balance/history"}
"""Lists that name another address than their own."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def objects(data_dir: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(data_dir)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


def test_every_route_has_a_good_call() -> None:
    assert {name_of(route) for route in routes()} == GOOD.keys()


@pytest.mark.parametrize("route", routes(), ids=name_of)
async def test_it_answers(objects: MerchantObjects, route: Route) -> None:
    good = await GOOD[name_of(route)](objects)
    path = path_of(route, good.ids)
    if good.query:
        body = "&".join(f"{name}={value}" for name, value in good.params.items()).encode()
        answer = await objects.app.send(route.method, path, query=good.query, body=body)
    else:
        answer = await objects.app.call(objects.key_for(route), route.method, path, good.params, **good.headers)
    assert answer.status in good.statuses, answer.body
    if answer.headers["content-type"] == "application/json":
        wrong = problems(answer.json)
        assert not wrong, "\n".join(wrong)
        if answer.json.get("object") == "list" and route.path not in OTHER_ADDRESSES:
            assert answer.json["url"] == path, "SDKs ask there for the next page"


@pytest.mark.parametrize("route", [route for route in routes() if route.access == "secret"], ids=name_of)
async def test_it_needs_a_secret_key(objects: MerchantObjects, route: Route) -> None:
    path = path_of(route, tuple("x_1" for part in route.path.split("/") if part.startswith("{")))
    for key, code in (
        (None, "api_key_missing"),
        ("sk_test_" + "0" * 40, "api_key_invalid"),
        (objects.merchant.public_key, "secret_key_required"),
    ):
        answer = await objects.app.send(route.method, path, key=key)
        assert (answer.status, answer.json["error"]["code"]) == (401, code)


@pytest.mark.parametrize("route", [route for route in routes() if "{" in route.path], ids=name_of)
async def test_a_star_is_no_id(objects: MerchantObjects, route: Route) -> None:
    """In the table of routes a `*` stands for an id; such a path reached a handler without its ids."""
    stars = tuple("*" for part in route.path.split("/") if part.startswith("{"))
    answer = await objects.app.send(route.method, path_of(route, stars), key=objects.key_for(route))
    assert answer.status == 404, answer.body


@pytest.mark.parametrize("path", ["/js/v1", "/v1/balance", "/healthz"])
async def test_a_slash_more_at_an_end_changes_nothing(objects: MerchantObjects, path: str) -> None:
    """Pages load `/js/v1/`; a client whose base address ends with a slash asks for `//v1/balance`."""
    bare, *slashed = [
        await objects.app.send("GET", each, key=objects.merchant.key) for each in (path, f"{path}/", f"/{path}")
    ]
    assert bare.status == 200 and all((each.status, each.body) == (200, bare.body) for each in slashed)


SHOWN_ONCE = {
    "POST /ops/v1/keys": "secret",
    "POST /ops/v1/keys/{id}/roll": "secret",
    "POST /ops/v1/operators": "sign_in_url",
    "POST /ops/v1/operators/{id}/reset": "sign_in_url",
}
"""The secret in an answer that is not kept because of it: a repeat gets the rest."""

ANSWERED_ANEW = {"POST /oauth2/token", "POST /v1/stripecli/sessions"}
"""They make a token, of which the store has nothing."""


@pytest.mark.parametrize("route", [route for route in routes() if route.method == "POST"], ids=name_of)
async def test_a_repeat_under_a_key_does_nothing_again(objects: MerchantObjects, route: Route) -> None:
    name = name_of(route)
    good = await GOOD[name](objects)
    key = await objects.app.operator("admin") if 403 in good.statuses else objects.key_for(route)
    path, headers = path_of(route, good.ids), {**good.headers, "idempotency-key": "once"}
    first = await objects.app.call(key, "POST", path, good.params, **headers)
    commits = objects.app.store.commits
    again = await objects.app.call(key, "POST", path, good.params, **headers)
    if name == "POST /ops/v1/backups":
        assert not first.json["ok"], "a backup that failed is tried again; tests/e2e/test_system.py makes one"
        return
    assert objects.app.store.commits == commits, "it was done again"
    if name == "POST /ops/v1/connectors":
        assert "has a connector" in again.json["error"]["message"]
        return
    assert again.status == first.status, again.body
    if name in SHOWN_ONCE:
        assert first.json[SHOWN_ONCE[name]] and first.json | {SHOWN_ONCE[name]: None} == again.json
        stored = b"".join(write.body or b"" for write in objects.app.store.keep().values())
        assert first.json[SHOWN_ONCE[name]].encode() not in stored
    elif first.status == 200 and name not in ANSWERED_ANEW:
        assert again.body == first.body
