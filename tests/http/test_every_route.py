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
