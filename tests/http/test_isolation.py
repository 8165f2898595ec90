"""Another merchant's id is nobody's: every route answers it as it answers an id that never was.

The routes, and the parameters that name other objects, come from the route table. What is compared is the whole answer,
status, headers and body, with the id and the request's own id taken out.
"""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from good_calls import GOOD, LOOSE, Good, Stall, name_of, path_of, references, routes

from tillway.http.routes import Route
from tillway.testing.in_process import Answer, Inside, Merchant

WHO = ("another merchant", "live mode of the same merchant")

WITH_IDS = [route for route in routes() if "{" in route.path and route.access != "anyone"]
REFERENCES = [
    (route, path)
    for route in routes()
    if route.access != "anyone"
    for path in (*references(route), *LOOSE.get(name_of(route), ()))
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def inside(data_dir: Path) -> AsyncIterator[Inside]:
    opened = await Inside.open(data_dir)
    yield opened
    await opened.close()


def unknown(id: str) -> str:
    """An id like `id`, made at the same time, that nobody has."""
    return id[:-1] + ("0" if id[-1] != "0" else "1")


async def stranger(inside: Inside, owner: Merchant, who: str) -> str:
    """The key of whoever has nothing to do with `owner`."""
    return (await inside.merchant()).key if who == WHO[0] else owner.live_key


def seen(answer: Answer, id: str) -> tuple[int, dict[str, str], bytes]:
    """An answer without what may differ."""
    request = answer.headers["request-id"]
    headers = {name: value for name, value in answer.headers.items() if name != "request-id"}
    return answer.status, headers, answer.body.replace(request.encode(), b"<request>").replace(id.encode(), b"<id>")


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("route", WITH_IDS, ids=name_of)
async def test_in_the_path(inside: Inside, route: Route, who: str) -> None:
    owner = await inside.merchant()
    key = await stranger(inside, owner, who)
    good = await GOOD[name_of(route)](Stall(inside, owner))
    for place, id in enumerate(good.ids):
        if id == owner.account and who == WHO[1]:
            continue  # The account is the same in both modes; what it has is not.
        answers = []
        for named in (id, unknown(id)):
            # The owner's other ids stay as they are: a stranger may know all of them.
            ids = (*good.ids[:place], named, *good.ids[place + 1 :])
            before = inside.store.commits
            answer = await inside.call(key, route.method, path_of(route, ids), good.params)
            assert inside.store.commits == before, "a stranger's call wrote something"
            answers.append(seen(answer, named))
        assert answers[0] == answers[1]
        if not (route.method == "GET" and route.returns == "list"):
            assert answers[0][0] == 404, answers[0]


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(
    ("route", "path"), REFERENCES, ids=[f"{name_of(route)} {'.'.join(path)}" for route, path in REFERENCES]
)
async def test_in_a_parameter(inside: Inside, route: Route, path: tuple[str, ...], who: str) -> None:
    owner = await inside.merchant()
    key = await stranger(inside, owner, who)
    id = await referred(Stall(inside, owner), route, path)
    answers = []
    for named in (id, unknown(id)):
        # In live mode the stranger has no cards, but may have customers and payments that wait.
        mine = Merchant(owner.account, key, "", "", "") if who == WHO[1] else await as_merchant(inside, key)
        good = await good_call(Stall(inside, mine), route, live=who == WHO[1])
        params = {name: value for name, value in good.params.items() if name not in EXCLUDED.get(path[-1], ())}
        answer = await inside.call(key, route.method, path_of(route, good.ids), put(params, path, named))
        text = seen(answer, named)
        for own in good.ids:
            text = (text[0], text[1], text[2].replace(own.encode(), b"<own>"))
        answers.append(text)
    assert answers[0] == answers[1]
    if route.returns not in ("list", "search_result") or path[-1] in ("starting_after", "ending_before"):
        assert answers[0][0] in (404, 400), answers[0]


EXCLUDED = {"payment_method": ("payment_method_data",), "source": ("card",), "card": ("source",)}
"""Parameters of good calls that cannot be sent beside the one in question."""


async def as_merchant(inside: Inside, key: str) -> Merchant:
    scope = (await inside.running.platform.authenticator.authenticate_header(f"Bearer {key}", now=time.time()))[1]
    return Merchant(scope.account, key, "", "", "")


async def good_call(stall: Stall, route: Route, *, live: bool) -> Good:
    """The stranger's own good call. In live mode, where nothing can be paid, on ids that need no payment."""
    if not live:
        return await GOOD[name_of(route)](stall)
    makers = {"payment_intents": stall.payment, "setup_intents": stall.setup, "customers": stall.customer}
    noun = route.path.split("/")[2] if route.path.startswith("/v1/") else ""
    count = route.path.count("{")
    if count == 0:
        return Good() if route.path in ("/v1/refunds", "/v1/payouts") else await GOOD[name_of(route)](stall)
    if noun == "accounts":
        return Good((stall.merchant.account, *["x_1"] * (count - 1)))
    ids = [(await makers[noun]())["id"]] if noun in makers else ["x_1"]
    return Good((*ids, *["x_1"] * (count - 1)))


async def referred(stall: Stall, route: Route, path: tuple[str, ...]) -> str:
    """The owner's object that a parameter of this name may refer to."""
    match path[-1]:
        case "customer":
            return (await stall.customer())["id"]
        case "payment_method" | "default_payment_method":
            return await stall.method()
        case "token":
            return await stall.token()
        case "source":
            return await stall.charge() if route.method == "GET" else await stall.token()
        case "card":
            return await stall.token()
        case "default_source":
            return (await stall.card_of())[1]
        case "charge":
            return await stall.charge()
        case "payment_intent":
            return (await stall.paid())["id"]
        case "setup_intent":
            return (await stall.setup())["id"]
        case "webhook_endpoint":
            return await stall.endpoint()
        case "destination":
            return (await stall.external())[1]
        case "mandate":
            return await stall.mandate()
        case "external_account":
            return await stall.token()
        case "starting_after" | "ending_before" | "page":
            return await listed(stall, route)
        case name:
            raise AssertionError(f"{name_of(route)}: say what {name} refers to")


async def listed(stall: Stall, route: Route) -> str:
    """One of the owner's objects that this listing would show."""
    parts = route.path.split("/")
    match parts[2], parts[-1]:
        case _, "audit":
            return await stall.told()
        case _, "doubts":
            return await stall.doubt()
        case _, ("orders" | "products") as noun:
            await stall.order()
            return (await stall.inside.ok(stall.merchant, "GET", f"/ops/v1/{noun}"))["data"][0]["id"]
        case _, "sources":
            return (await stall.card_of())[1]
        case _, "refunds":
            return await stall.refund()
        case _, "payment_methods":
            return await stall.method()
        case _, "external_accounts":
            return (await stall.external())[1]
        case ("payouts", _):
            return await stall.payout()
        case ("payment_intents", _):
            return (await stall.payment())["id"]
        case ("charges", _):
            return await stall.charge()
        case ("customers", _):
            return (await stall.customer())["id"]
        case ("balance_transactions", _):
            return await stall.movement()
        case ("disputes", _):
            return await stall.dispute()
        case ("events", _):
            return await stall.event()
        case ("setup_intents", _):
            return (await stall.setup())["id"]
        case ("setup_attempts", _):
            return (await stall.setup(payment_method="pm_card_visa", confirm=True))["latest_attempt"]
        case ("webhook_endpoints", _):
            return await stall.endpoint()
        case _:
            raise AssertionError(f"{name_of(route)}: say what it lists")


def put(params: dict[str, Any], path: tuple[str, ...], value: str) -> dict[str, Any]:
    """`params` with `value` at `path`, and with what must stand beside it."""
    first, *rest = path
    if not rest:
        return {**params, first: value}
    inner = params.get(first)
    beside = {"type": "card"} if first == "payment_method_data" else {}
    if first == "card":
        return {**params, first: {rest[0]: value}}
    return {**params, first: put({**(inner if isinstance(inner, dict) else {}), **beside}, tuple(rest), value)}


# The challenge page has no key: its address is the secret.


async def test_the_challenge_page_tells_nothing_without_its_secret(inside: Inside) -> None:
    owner = await inside.merchant()
    (scope, id), query = await Stall(inside, owner).challenge()
    other = (await Stall(inside, await inside.merchant()).challenge())[0][0]
    wrong = f"{query[:-1]}{'a' if query[-1] != 'a' else 'b'}"
    for method, body in (("GET", b""), ("POST", b"outcome=pass")):
        answers = [
            seen(await inside.send(method, f"/3ds/{place}/{named}", query=secret, body=body), named)
            for place, named, secret in (
                (scope, unknown(id), query),
                (scope, id, wrong),
                (other, id, query),
                (scope, id, "secret=%C3%A9"),
            )
        ]
        assert {answer[0] for answer in answers} == {404}
        assert len({answer[2] for answer in answers}) == 1
    assert (await inside.ok(owner, "GET", f"/v1/payment_intents/{id}"))["status"] == "requires_action"


async def test_a_client_secret_is_for_its_own_merchant(inside: Inside) -> None:
    owner, other = await inside.merchant(), await inside.merchant()
    made = await Stall(inside, owner).payment()
    secret = {"client_secret": made["client_secret"]}
    answers = [
        seen(await inside.call(other.public_key, "GET", f"/v1/payment_intents/{id}", secret), id)
        for id in (made["id"], unknown(made["id"]))
    ]
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


async def test_lists_and_searches_show_one_merchant_alone(inside: Inside) -> None:
    owner, other = await inside.merchant(), await inside.merchant()
    stall = Stall(inside, owner)
    for make in (stall.paid, stall.refund, stall.dispute, stall.customer, stall.method, stall.setup, stall.endpoint):
        await make()
    for route in routes("GET"):
        if route.returns not in ("list", "search_result") or "{" in route.path or route.path.endswith("connectors"):
            continue
        good = await GOOD[name_of(route)](Stall(inside, owner))
        for key in (other.key, owner.live_key):
            if route.path == "/v1/setup_attempts":
                continue
            assert (await inside.ok(key, "GET", route.path, good.params))["data"] == [], route.path
