"""Another merchant's id is nobody's: every route answers it as it answers an id that never was.

The routes, and the parameters that name other objects, come from the route table. What is compared is the whole answer,
status, headers and body, with the id and the request's own id taken out.
"""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from good_calls import GOOD, LOOSE, Good, MerchantObjects, name_of, path_of, references, routes

from tillway.http.routes import Route
from tillway.testing.in_process import Answer, InProcessApp, Merchant

WHO = ("another merchant", "live mode of the same merchant")

WITH_IDS = [route for route in routes() if "{" in route.path and route.access not in ("anyone", "operator")]
REFERENCES = [
    (route, path)
    for route in routes()
    if route.access != "anyone"
    for path in [*references(route), *LOOSE.get(name_of(route), ())]
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def app(data_dir: Path) -> AsyncIterator[InProcessApp]:
    opened = await InProcessApp.open(data_dir)
    yield opened
    await opened.close()


def unknown(id: str) -> str:
    """An id like `id`, made at the same time, that nobody has."""
    return id[:-1] + ("0" if id[-1] != "0" else "1")


async def stranger(app: InProcessApp, owner: Merchant, who: str) -> str:
    """The key of whoever has nothing to do with `owner`."""
    return (await app.merchant()).key if who == WHO[0] else owner.live_key


def seen(answer: Answer, id: str) -> tuple[int, dict[str, str], bytes]:
    """An answer without what may differ."""
    request = answer.headers["request-id"]
    headers = {name: value for name, value in answer.headers.items() if name != "request-id"}
    return answer.status, headers, answer.body.replace(request.encode(), b"<request>").replace(id.encode(), b"<id>")


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("route", WITH_IDS, ids=name_of)
async def test_in_the_path(app: InProcessApp, route: Route, who: str) -> None:
    owner = await app.merchant()
    key = await stranger(app, owner, who)
    good = await GOOD[name_of(route)](MerchantObjects(app, owner))
    for place, id in enumerate(good.ids):
        if id == owner.account and who == WHO[1]:
            continue  # The account is the same in both modes; what it has is not.
        answers = []
        for named in (id, unknown(id)):
            # The owner's other ids stay as they are: a stranger may know all of them.
            ids = (*good.ids[:place], named, *good.ids[place + 1 :])
            before = app.store.commits
            answer = await app.call(key, route.method, path_of(route, ids), good.params, **good.headers)
            assert app.store.commits == before, "a stranger's call wrote something"
            answers.append(seen(answer, named))
        assert answers[0] == answers[1]
        if not (route.method == "GET" and route.returns == "list"):
            # A reference in the parameters may be missed first, and an account is refused as a whole.
            assert answers[0][0] in (404, 403 if route.path == "/v1/accounts/{id}" else 400), answers[0]


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(
    ("route", "path"), REFERENCES, ids=[f"{name_of(route)} {'.'.join(path)}" for route, path in REFERENCES]
)
async def test_in_a_parameter(app: InProcessApp, route: Route, path: tuple[str, ...], who: str) -> None:
    owner = await app.merchant()
    key = await stranger(app, owner, who)
    id = await referred(MerchantObjects(app, owner), route, path)
    answers = []
    for named in (id, unknown(id)):
        # In live mode the stranger has no cards, but may have customers and payments that wait.
        mine = Merchant(owner.account, key, "", "", "", "") if who == WHO[1] else await as_merchant(app, key)
        good = await good_call(MerchantObjects(app, mine), route, live=who == WHO[1])
        params = {name: value for name, value in good.params.items() if name not in EXCLUDED.get(path[-1], ())}
        answer = await app.call(key, route.method, path_of(route, good.ids), put(params, path, named), **good.headers)
        text = seen(answer, named)
        for own in good.ids:
            text = (text[0], text[1], text[2].replace(own.encode(), b"<own>"))
        answers.append(text)
    assert answers[0] == answers[1]
    if route.returns not in ("list", "search_result") or path[-1] in ("starting_after", "ending_before"):
        assert answers[0][0] in (404, 400), answers[0]


EXCLUDED = {
    "payment_method": ("payment_method_data",),
    "source": ("card",),
    "card": ("source",),
    "dispute": ("charge",),
}
"""Parameters of good calls that cannot be sent beside the one in question."""


async def as_merchant(app: InProcessApp, key: str) -> Merchant:
    scope = (await app.running.api.authenticator.authenticate_header(f"Bearer {key}", now=time.time()))[1]
    return Merchant(scope.account, key, "", "", "", "")


_NEEDING_MONEY = ("/v1/refunds", "/v1/payouts", "/ops/v1/simulator/disputes")


async def good_call(objects: MerchantObjects, route: Route, *, live: bool) -> Good:
    """The stranger's own good call. In live mode, where nothing can be paid, on ids that need no payment."""
    if not live:
        return await GOOD[name_of(route)](objects)
    makers = {"payment_intents": objects.payment, "setup_intents": objects.setup, "customers": objects.customer}
    noun = route.path.split("/")[2] if route.path.startswith("/v1/") else ""
    count = route.path.count("{")
    if count == 0:
        return Good() if route.path in _NEEDING_MONEY else await GOOD[name_of(route)](objects)
    if noun == "accounts":
        return Good((objects.merchant.account, *["x_1"] * (count - 1)))
    ids = [(await makers[noun]())["id"]] if noun in makers else ["x_1"]
    return Good((*ids, *["x_1"] * (count - 1)))


async def referred(objects: MerchantObjects, route: Route, path: tuple[str, ...]) -> str:
    """The owner's object that a parameter of this name may refer to."""
    match path[-1]:
        case "customer":
            return (await objects.customer())["id"]
        case "payment_method" | "default_payment_method":
            return await objects.method()
        case "token":
            return await objects.token()
        case "confirmation_token":
            return await objects.confirmation_token()
        case "source":
            return await objects.charge() if route.method == "GET" else await objects.token()
        case "card":
            return await objects.token()
        case "default_source":
            return (await objects.card_of())[1]
        case "charge":
            return await objects.charge()
        case "dispute":
            return await objects.dispute()
        case "payment_intent" | "object_id":
            return (await objects.paid())["id"]
        case "setup_intent":
            return (await objects.setup())["id"]
        case "event":
            return await objects.event()
        case "webhook_endpoint":
            return await objects.endpoint()
        case "destination":
            return (await objects.external())[1]
        case "mandate":
            return await objects.mandate()
        case "file":
            return await objects.file()
        case "test_clock":
            return await objects.clock()
        case "external_account":
            return await objects.token()
        case "price" | "default_price":
            return await objects.price()
        case "product" | "0":
            return await objects.product()
        case "payment_link":
            return (await objects.link())["id"]
        case "key":
            await objects.refused()
            return (await objects.app.ok(objects.merchant, "GET", "/ops/v1/requests"))["data"][0]["key"]["id"]
        case "starting_after" | "ending_before" | "page":
            return await listed(objects, route)
        case name:
            raise AssertionError(f"{name_of(route)}: say what {name} refers to")


async def listed(objects: MerchantObjects, route: Route) -> str:
    """One of the owner's objects that this listing would show."""
    parts = route.path.split("/")
    match parts[2], parts[-1]:
        case _, "audit":
            return await objects.told()
        case _, "open_items":
            return await objects.open_item()
        case _, "requests":
            return await objects.refused()
        case _, "webhook_deliveries":
            return await objects.delivery()
        case _, "closes":
            return (await objects.close())["id"]
        case _, "views":
            return await objects.saved_view()
        case _, "settlements":
            return await objects.settlement()
        case _, "doubts":
            return await objects.doubt()
        case _, "early_fraud_warnings":
            return await objects.warning()
        case _, "line_items":
            path = f"/v1/checkout/sessions/{(await objects.checkout())['id']}/line_items"
            return (await objects.app.ok(objects.merchant, "GET", path))["data"][0]["id"]
        case ("checkout", _):
            return (await objects.checkout())["id"]
        case ("payment_links", _) | (_, "payment_links"):
            return (await objects.link())["id"]
        case ("prices", _):
            return await objects.price()
        case ("products", _):
            return await objects.product()
        case _, ("orders" | "products") as noun:
            await objects.order()
            return (await objects.app.ok(objects.merchant, "GET", f"/ops/v1/{noun}"))["data"][0]["id"]
        case "v1", "payments":
            return (await objects.paid())["id"]
        case "v1", "customers":
            return (await objects.customer())["id"]
        case "v1", "sources":
            return await objects.source()
        case _, "sources":
            return (await objects.card_of())[1]
        case _, "test_clocks":
            return await objects.clock()
        case _, "refunds":
            return await objects.refund()
        case _, "payment_methods":
            return await objects.method()
        case _, "external_accounts":
            return (await objects.external())[1]
        case "accounts", "accounts":
            return objects.merchant.account
        case ("payouts", _) | (_, "contents"):
            return await objects.payout()
        case ("payment_intents", _):
            return (await objects.payment())["id"]
        case ("charges", _):
            return await objects.charge()
        case _, "cash_balance_transactions":
            return (await objects.funded())[1]
        case ("customers", _):
            return (await objects.customer())["id"]
        case ("balance_transactions", _) | ("v1", "balance_transactions") | ("balance", "history"):
            return await objects.movement()
        case ("disputes", _):
            return await objects.dispute()
        case ("file_links", _):
            return await objects.file_link()
        case ("files", _):
            return await objects.file()
        case ("events", _):
            return await objects.event()
        case ("setup_intents", _):
            return (await objects.setup())["id"]
        case ("setup_attempts", _):
            return (await objects.setup(payment_method="pm_card_visa", confirm=True))["latest_attempt"]
        case ("webhook_endpoints", _):
            return await objects.endpoint()
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


async def test_the_challenge_page_tells_nothing_without_its_secret(app: InProcessApp) -> None:
    owner = await app.merchant()
    (scope, id), query = await MerchantObjects(app, owner).challenge()
    other = (await MerchantObjects(app, await app.merchant()).challenge())[0][0]
    wrong = f"{query[:-1]}{'a' if query[-1] != 'a' else 'b'}"
    for method, body in (("GET", b""), ("POST", b"outcome=pass")):
        answers = [
            seen(await app.send(method, f"/3ds/{place}/{named}", query=secret, body=body), named)
            for place, named, secret in (
                (scope, unknown(id), query),
                (scope, id, wrong),
                (other, id, query),
                (scope, id, "secret=%C3%A9"),
            )
        ]
        assert {answer[0] for answer in answers} == {404}
        assert len({answer[2] for answer in answers}) == 1
    assert (await app.ok(owner, "GET", f"/v1/payment_intents/{id}"))["status"] == "requires_action"


async def test_a_client_secret_is_for_its_own_merchant(app: InProcessApp) -> None:
    owner, other = await app.merchant(), await app.merchant()
    made = await MerchantObjects(app, owner).payment()
    secret = {"client_secret": made["client_secret"]}
    answers = [
        seen(await app.call(other.public_key, "GET", f"/v1/payment_intents/{id}", secret), id)
        for id in (made["id"], unknown(made["id"]))
    ]
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


async def test_lists_and_searches_show_one_merchant_alone(app: InProcessApp) -> None:
    owner, other = await app.merchant(), await app.merchant()
    scope_of_key = {other.key: (other.account, "test"), owner.live_key: (owner.account, "live")}
    objects = MerchantObjects(app, owner)
    for make in (
        objects.paid,
        objects.refund,
        objects.dispute,
        objects.customer,
        objects.method,
        objects.setup,
        objects.endpoint,
    ):
        await make()
    for route in routes("GET"):
        if route.returns not in ("list", "search_result") or "{" in route.path or route.path.endswith("connectors"):
            continue
        if route.access == "operator":
            continue  # Of several merchants: an operator sees those that it works for.
        good = await GOOD[name_of(route)](MerchantObjects(app, owner))
        for key in (other.key, owner.live_key):
            in_test_mode_alone = route.path.startswith("/v1/test_helpers/") and key == owner.live_key
            if route.path == "/v1/setup_attempts" or in_test_mode_alone:
                continue
            shown = (await app.ok(key, "GET", route.path, good.params, **good.headers))["data"]
            if route.path == "/ops/v1/keys":
                # Each key sees at least itself.
                assert {(one["account"], one["mode"]) for one in shown} == {scope_of_key[key]}
                continue
            if route.path == "/ops/v1/requests":
                # Each key sees its own requests.
                hints = [one["key"]["hint"][-4:] for one in shown]
                assert hints and all(key.endswith(hint) for hint in hints)
                continue
            assert shown == [], route.path
