"""One odd value in every place of every route's parameters, beside an otherwise good call.

Where the value is refused, the refusal names a parameter and nothing is written. Where it is taken, the answer has
Stripe's shape, and what was written can be read again (the store of `tillway.testing.in_process` sees to that).
"""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from good_calls import GOOD, MerchantObjects, name_of, path_of, routes
from stripe_shapes import problems

from tillway.http.params import AnyOf, Array, Created, Enum, Ignored, Object, Parameter, Unsupported
from tillway.http.routes import Route
from tillway.testing.in_process import InProcessApp

ODD: list[Any] = [
    "",
    None,
    [],
    {},
    [None],
    {"a": {"b": [{}]}},
    True,
    -1,
    10**20,
    "x",
    "\u00e9\U0001f4b8",
    "true",
    "0",
    "7",
    "x" * 300,
    " ",
    "../../sys/acct_1",
    "pi_" + "0" * 17,
    "a@b.example",
    "https://shop.example/",
    "tok_visa",
    "pm_card_visa",
    "eur",
    "DE",
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def objects(data_dir: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(data_dir)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


def places(parameter: Parameter, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Parameter]]:
    """Every place in a parameter, with what is said to stand there."""
    if path:
        yield path, parameter
    match parameter:
        case Object(members=members):
            for name, member in members.items():
                yield from places(member, (*path, name))
        case AnyOf(definitions=definitions):
            for definition in definitions:
                if definition.shape != "scalar":
                    yield from places(definition, path)
        case Array(of=of):
            yield from places(of, (*path, 0))
        case Created():
            yield from places(parameter._bounds, path)


def put(where: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """`where` with `value` at `path`; what is on the way is made."""
    if not path:
        return value
    first, rest = path[0], path[1:]
    if isinstance(first, int):
        return [put(where[0] if isinstance(where, list) and where else None, rest, value)]
    inner = where if isinstance(where, dict) else {}
    return {**inner, first: put(inner.get(first), rest, value)}


@pytest.mark.parametrize(
    "route", [route for route in routes("POST") if route.access != "anyone" and route.params.members], ids=name_of
)
async def test_of_a_post(objects: MerchantObjects, route: Route) -> None:
    app = objects.app
    good = await GOOD[name_of(route)](objects)
    taken = 0
    for path, parameter in dict(places(route.params)).items():
        if isinstance(parameter, Ignored | Unsupported):
            continue
        words = parameter.words[:3] if isinstance(parameter, Enum) else ()
        for odd in (*ODD, *words):
            said = f"{name_of(route)}: {'.'.join(map(str, path))} = {odd!r}"[:300]
            body = json.dumps(put(good.params, path, odd)).encode()
            before = app.store.commits
            answer = await app.send(
                "POST",
                path_of(route, good.ids),
                key=objects.key_for(route),
                body=body,
                content_type="application/json",
                headers=good.headers,
            )
            assert answer.status < 500, f"{said}: {answer.body!r}"
            document = answer.json
            wrong = problems(document)
            assert not wrong, f"{said}: {wrong}"
            if answer.status == 200:
                taken += 1
                good = await GOOD[name_of(route)](objects)
            elif answer.status == 402:
                good = await GOOD[name_of(route)](objects)
            else:
                assert app.store.commits == before, f"{said}: refused, and something was written"
                assert document["error"]["message"], said
    assert taken or good.statuses != (200,)


@pytest.mark.parametrize(
    "route", [route for route in routes("GET") if route.access != "anyone" and route.params.members], ids=name_of
)
async def test_of_a_get(objects: MerchantObjects, route: Route) -> None:
    app = objects.app
    good = await GOOD[name_of(route)](objects)
    for path, parameter in dict(places(route.params)).items():
        if isinstance(parameter, Ignored | Unsupported):
            continue
        for odd in (*ODD, *(parameter.words[:3] if isinstance(parameter, Enum) else ())):
            params = put(good.params, path, odd)
            answer = await app.call(objects.key_for(route), "GET", path_of(route, good.ids), params)
            said = f"{name_of(route)}: {'.'.join(map(str, path))} = {odd!r}"[:300]
            assert answer.status < 500, f"{said}: {answer.body!r}"
            wrong = problems(answer.json)
            assert not wrong, f"{said}: {wrong}"
