"""Routing through the API: rules, weights, documents that are wrong, failover, and trials on past payments."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from routed_shop import RoutedShop, routed_shop

from tillway.connectors.port import Notice, Request, Response, Succeeded
from tillway.domain.account import SYSTEM
from tillway.domain.attempt import following_tail
from tillway.domain.connector_config import ConnectorConfig
from tillway.domain.routing import Facts, Routes, choose, read_document
from tillway.engine.connections import REFRESH_SECONDS
from tillway.operations import notices
from tillway.store.codec import write_of
from tillway.store.port import ABSENT
from tillway.testing.far_side import answer

MASTERCARD = "5555555555554444"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[RoutedShop]:
    async with routed_shop(tmp_path) as shop:
        yield shop


def answered(status: str, **more: str) -> Callable[[Request], Response]:
    def decide(request: Request) -> Response:
        told = {name: request.fields.get(name) for name in ("reference", "amount", "currency")}
        return answer(200, {**told, "kind": "authorization", "status": status, **more})

    return decide


def declined(code: str) -> Callable[[Request], Response]:
    return answered("Declined", decline_code=code)


def rule(name: str, when: dict[str, Any], *use: str | tuple[str, int]) -> dict[str, Any]:
    uses = [{"connector": each} if isinstance(each, str) else {"connector": each[0], "weight": each[1]} for each in use]
    return {"name": name, "when": when, "use": uses}


async def test_the_first_rule_that_fits_chooses(shop: RoutedShop) -> None:
    assert await shop.went_to() == "a", "without a document the default takes it"
    document = {
        "rules": [
            rule("large", {"amount_gte": 5000, "amount_lt": 9000}, "b"),
            rule("mastercard", {"card_brand": ["mastercard"]}, "c", "a"),
            rule("bin", {"bin": ["401288"]}, "b"),
            rule("brazil", {"country": ["BR"]}, "c"),
            rule("dollars of ours", {"currency": ["USD"], "account": [shop.merchant.account]}, "b"),
            rule("another's", {"account": ["acct_" + "0" * 16]}, "b"),
            rule("debits", {"method": ["us_bank_account"]}, "b"),
            rule("metadata", {"metadata": {"shop": ["x", "y"], "tier": "gold"}}, "b"),
        ],
        "otherwise": ["c", "b"],
    }
    put = await shop.put(document)
    assert (put["version"], put["account"], put["otherwise"]) == (1, shop.merchant.account, ["c", "b"])
    assert await shop.went_to(4999) == "c"
    assert await shop.went_to(5000) == "b"
    assert await shop.went_to(8999) == "b"
    assert await shop.went_to(9000) == "c"
    assert await shop.went_to(number=MASTERCARD) == "c"
    assert await shop.went_to(number="4012888888881881") == "b"
    assert await shop.went_to(number="4000000760000002") == "c"
    assert await shop.went_to(currency="usd") == "b"
    assert await shop.went_to(metadata={"shop": "y", "tier": "gold"}) == "b"
    assert await shop.went_to(metadata={"shop": "y", "tier": "silver"}) == "c"
    route = await shop.route((await shop.pay(5000)).json["id"])
    assert (route["rule"], route["rule_number"], route["routing_version"]) == ("large", 1, 1)
    assert (route["candidates"], route["attempts"]) == (["b"], [{"connector": "b", "outcome": "succeeded"}])


async def test_weights_share_payments_and_a_resend_draws_the_same(shop: RoutedShop) -> None:
    await shop.put({"rules": [rule("shared", {}, ("a", 70), ("b", 30), ("c", 0))]})
    drawn = Counter([await shop.went_to(key=f"k{n}") for n in range(60)])
    assert 28 <= drawn["a"] <= 54 and drawn["a"] + drawn["b"] == 60
    repeated = await shop.pay(key="k1")
    assert repeated.headers["idempotent-replayed"] == "true"


def test_the_same_reference_draws_the_same_connector() -> None:
    """A repeat after a restore has the same reference, and so takes the same way."""
    read = read_document([rule("shared", {}, ("a", 1), ("b", 1), "c")], None, {"a", "b", "c"})
    facts = Facts(currency="eur", amount_minor=1, method="card", account="acct_1")
    routes = Routes(routing=read, connectors={}, account="acct_1")
    drawn = [choose(routes, facts, f"reference-{n}")[1] for n in range(200)]
    assert drawn == [choose(routes, facts, f"reference-{n}")[1] for n in range(200)]
    assert set(drawn) == {("a", "b", "c"), ("b", "a", "c")}
    assert 70 < drawn.count(("a", "b", "c")) < 130
    assert following_tail("0" * 18, 1) != following_tail("0" * 18, 2)
    assert len(following_tail("0" * 18, 1)) == 18


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"rule": []}, "rule"),
        ({"rules": [{"name": "x", "when": {}, "use": []}]}, "rules[0][use]"),
        ({"rules": [{"name": "x", "use": [{"connector": "z"}]}]}, "rules[0][use][0][connector]"),
        ({"rules": [{"name": "x", "use": [{"connector": "a", "wait": 1}]}]}, "rules[0][use][0][wait]"),
        ({"rules": [{"name": "x", "use": [{"connector": "a", "weight": -1}]}]}, "rules[0][use][0][weight]"),
        ({"rules": [{"name": "x", "use": [{"connector": "a", "weight": 0}]}]}, "rules[0][use][0][weight]"),
        ({"rules": [{"name": "", "use": [{"connector": "a"}]}]}, "rules[0][name]"),
        ({"rules": [{"name": "x", "use": ["a", "a"]}]}, "rules[0][use][1]"),
        ({"rules": [rule("x", {}, "a"), rule("x", {}, "a")]}, "rules[1][name]"),
        ({"rules": [rule("x", {"currencies": ["eur"]}, "a")]}, "rules[0][when][currencies]"),
        ({"rules": [rule("x", {"currency": ["euro"]}, "a")]}, "rules[0][when][currency][0]"),
        ({"rules": [rule("x", {"currency": "eur"}, "a")]}, "rules[0][when][currency]"),
        ({"rules": [rule("x", {"currency": []}, "a")]}, "rules[0][when][currency]"),
        ({"rules": [rule("x", {"amount_gte": 1.5}, "a")]}, "rules[0][when][amount_gte]"),
        ({"rules": [rule("x", {"amount_gte": "12"}, "a")]}, "rules[0][when][amount_gte]"),
        ({"rules": [{"name": "x", "use": [{"connector": "a", "weight": "1"}]}]}, "rules[0][use][0][weight]"),
        ({"rules": [rule("x", {"amount_gte": 5, "amount_lt": 5}, "a")]}, "rules[0][when][amount_lt]"),
        ({"rules": [rule("x", {"card_brand": ["vista"]}, "a")]}, "rules[0][when][card_brand][0]"),
        ({"rules": [rule("x", {"bin": ["42"]}, "a")]}, "rules[0][when][bin][0]"),
        ({"rules": [rule("x", {"country": ["Germany"]}, "a")]}, "rules[0][when][country][0]"),
        ({"rules": [rule("x", {"method": ["cash"]}, "a")]}, "rules[0][when][method][0]"),
        ({"rules": [rule("x", {"account": ["me"]}, "a")]}, "rules[0][when][account][0]"),
        ({"rules": [rule("x", {"metadata": {"k": 1}}, "a")]}, "rules[0][when][metadata][k]"),
        ({"otherwise": ["a", "z"]}, "otherwise[1]"),
        ({"otherwise": ["a", "a"]}, "otherwise[1]"),
        ({"otherwise": "a"}, "otherwise"),
    ],
)
async def test_a_wrong_document_is_refused_with_the_word(shop: RoutedShop, document: Any, param: str) -> None:
    for method, path in (("PUT", "/ops/v1/routing"), ("POST", "/ops/v1/routing/simulate")):
        refused = await shop.send(method, path, document)
        error = refused.json["error"]
        assert (refused.status, error["param"]) == (400, param), error
        assert param in error["message"]
    assert await shop.went_to() == "a"


async def test_a_merchants_own_document_is_removed_and_its_versions_stay(shop: RoutedShop) -> None:
    path = "/ops/v1/routing"
    operator = await shop.app.operator("admin")
    assert (await shop.app.call(shop.merchant, "DELETE", path)).json["error"]["code"] == "resource_missing"
    await shop.put({"otherwise": ["c"]}, operator)
    assert (await shop.put({"otherwise": ["b"]}))["version"] == 1
    assert await shop.went_to() == "b"
    stale = await shop.app.call(shop.merchant, "DELETE", path, {"version": 7})
    assert (stale.status, stale.json["error"]["code"]) == (409, "routing_version_conflict")
    removed = await shop.app.ok(shop.merchant, "DELETE", path, {"version": 1})
    assert (removed["account"], removed["otherwise"]) == (None, ["c"]), "the installation's is in force then"
    assert await shop.went_to() == "c"
    kept = await shop.app.ok(shop.merchant, "GET", path, {"version": 1})
    assert (kept["account"], kept["otherwise"]) == (shop.merchant.account, ["b"])
    again = await shop.put({"otherwise": ["a"], "version": 0})
    assert again["version"] == 3, "the removal was version 2"
    assert await shop.went_to() == "a"
    for owner in ("merchant", "installation"):
        await shop.app.ok(operator, "DELETE", path, {"owner": owner}, tillway_account=shop.merchant.account)
    assert await shop.went_to() == "a", "the default"
    assert (await shop.app.ok(shop.merchant, "GET", path, {}))["version"] == 0


async def test_a_soft_decline_goes_on_and_a_hard_one_ends(shop: RoutedShop) -> None:
    await shop.put({"otherwise": ["a", "b", "c"]})
    shop.answers = {"a": declined("try_again_later"), "b": declined("issuer_not_available")}
    paid = await shop.pay(key="soft")
    assert paid.status == 200 and paid.json["status"] == "succeeded"
    assert [name for name, _ in shop.orders] == ["a", "b", "c"]
    assert len({body["reference"] for _, body in shop.orders}) == 3
    assert [body["card"]["cvc"] for _, body in shop.orders] == ["123"] * 3
    route = await shop.route(paid.json["id"])
    assert [step["outcome"] for step in route["attempts"]] == ["declined", "declined", "succeeded"]
    charges = (await shop.app.ok(shop.merchant, "GET", "/v1/charges", {"payment_intent": paid.json["id"]}))["data"]
    assert [charge["status"] for charge in charges] == ["succeeded", "failed", "failed"]
    assert paid.json["latest_charge"] == charges[0]["id"]
    again = await shop.pay(key="soft")
    assert again.json == paid.json and len(shop.orders) == 3
    held = await shop.pay(key="held", capture_method="manual")
    assert (
        held.json["status"] == "requires_capture"
        and (await shop.pay(key="held", capture_method="manual")).json == held.json
    )
    assert len(shop.orders) == 6
    del shop.orders[3:]
    shop.answers = {"a": declined("lost_card")}
    lost = await shop.pay()
    assert (lost.status, lost.json["error"]["decline_code"]) == (402, "lost_card")
    assert len(shop.orders) == 4


async def test_a_bank_that_takes_its_decline_back_is_heard_while_the_next_decides(shop: RoutedShop) -> None:
    await shop.put({"otherwise": ["a", "b"]})
    shop.answers = {"a": declined("try_again_later"), "b": answered("Pending")}
    paid = await shop.pay(key="once more")
    assert paid.json["status"] == "processing" and paid.json["latest_charge"] is None
    reference = shop.orders[0][1]["reference"]
    late = Notice(id="late", kind="operation", reference=reference, outcome=Succeeded(bank_id="a"))
    await notices.book(shop.app.running.platform.attempts, late, "a", "test")
    (item,) = (await shop.app.ok(shop.merchant, "GET", "/ops/v1/open_items"))["data"]
    assert (item["reference"], item["ours"], item["theirs"]) == (reference, "failed", "succeeded")


async def test_an_unknown_outcome_is_never_followed(shop: RoutedShop) -> None:
    await shop.put({"otherwise": ["a", "b"]})
    shop.answers = {"a": lambda request: answer(500, {})}
    paid = await shop.pay()
    assert paid.json["status"] == "processing"
    assert {name for name, _ in shop.orders} == {"a"}
    assert (await shop.route(paid.json["id"]))["attempts"] == [{"connector": "a", "outcome": "unknown"}]


async def test_a_connector_for_files_takes_no_cards(shop: RoutedShop, tmp_path: Path) -> None:
    settings = dict.fromkeys(("immediate_destination_name", "immediate_origin_name", "company_name"), "Acme")
    settings |= {"directory": str(tmp_path / "ach"), "immediate_destination": "091000019"}
    settings |= {"originating_dfi": "09100001"}
    settings |= dict.fromkeys(("immediate_origin", "company_id"), "1234567890")
    config = ConnectorConfig(id="con_test_ach", created=0, name="ach", kind="nacha", mode="test", settings=settings)
    await shop.app.store.commit([write_of(SYSTEM, config, ABSENT)])
    shop.app.clock.ahead_seconds += 1 + REFRESH_SECONDS
    await shop.put({"otherwise": ["ach", "b"]})
    paid = await shop.pay(currency="usd")
    assert (paid.status, shop.orders[-1][0]) == (200, "b"), paid.json
    assert (await shop.route(paid.json["id"]))["attempts"] == [{"connector": "b", "outcome": "succeeded"}]


async def test_a_direct_charge_goes_on_too(shop: RoutedShop) -> None:
    await shop.put({"otherwise": ["a", "b"]})
    shop.answers = {"a": declined("processing_error")}
    charge = await shop.app.ok(
        shop.merchant, "POST", "/v1/charges", {"amount": 1000, "currency": "eur", "source": "tok_visa"}
    )
    assert charge["paid"] is True and [name for name, _ in shop.orders] == ["a", "b"]
    listed = (await shop.app.ok(shop.merchant, "GET", "/v1/charges"))["data"]
    assert [each["status"] for each in listed] == ["succeeded", "failed"]
    assert listed[0]["id"] == charge["id"]


async def test_a_merchant_has_its_own_document_and_an_operator_the_installations(shop: RoutedShop) -> None:
    admin = await shop.app.operator("admin")
    operator = await shop.app.operator("operator", shop.merchant.account)
    header = {"tillway_account": shop.merchant.account}
    put = await shop.put({"otherwise": ["b"]}, admin, **header)
    assert put["account"] is None and await shop.went_to() == "b"
    assert (await shop.app.ok(shop.merchant, "GET", "/ops/v1/routing"))["otherwise"] == ["b"]
    await shop.put({"otherwise": ["c"]})
    assert await shop.went_to() == "c"
    refused = await shop.send("PUT", "/ops/v1/routing", {"otherwise": ["a"]}, operator)
    assert refused.status == 403
    refused = await shop.send("PUT", "/ops/v1/routing", {"otherwise": ["a"], "owner": "installation"})
    assert (refused.status, refused.json["error"]["code"]) == (403, "operator_forbidden")
    stale = await shop.send("PUT", "/ops/v1/routing", {"otherwise": ["a"], "version": 0})
    assert (stale.status, stale.json["error"]["code"]) == (409, "routing_version_conflict")
    shown = await shop.app.ok(shop.merchant, "GET", "/ops/v1/routing")
    assert (await shop.put({**shown, "otherwise": ["a"]}))["version"] == 2
    earlier = await shop.app.ok(shop.merchant, "GET", "/ops/v1/routing", {"version": 1})
    assert (earlier["otherwise"], earlier["version"]) == (["c"], 1)


async def test_a_trial_counts_past_payments_and_does_nothing(shop: RoutedShop) -> None:
    paid = [(await shop.pay(amount)).json["id"] for amount in (1000, 2000, 3000)]
    orders, commits = len(shop.orders), shop.app.store.commits
    document = {"rules": [rule("small", {"amount_lt": 2500}, "b", "a")], "otherwise": ["a"]}
    tried = await shop.send("POST", "/ops/v1/routing/simulate", document)
    assert tried.status == 200
    assert tried.json["connectors"] == {"a": 1, "b": 2} and tried.json["payments"] == 3
    assert sorted(tried.json["changed"]) == sorted(paid[:2])
    assert tried.json["moves"] == [{"from": "a", "to": "b", "payments": 2}]
    # 2.9 % and 0.30 at a, 1 % and 0.10 at b.
    assert tried.json["cost"] == {"eur": {"before": 59 + 88 + 117, "after": 20 + 30 + 117}}
    assert (len(shop.orders), shop.app.store.commits) == (orders, commits)
    assert tried.json["changed_by"] == {"small": 2} and tried.json["cost_unknown"] == 0
    assert tried.json["success"] == {"judged": 0, "unknown": 2, "before": 0, "after": 0}, "b has taken none yet"


async def test_a_trial_expects_the_success_that_was_counted(shop: RoutedShop) -> None:
    """At a 15 of 20 succeed, and five are declined softly there: b takes those, and 15 more."""
    await shop.put({"otherwise": ["a", "b"]})
    for number in range(20):
        shop.answers = {"a": declined("try_again_later")} if number < 5 else {}
        assert (await shop.pay(1000)).status == 200
    await shop.put({"otherwise": ["b"]})
    for _ in range(15):
        assert (await shop.pay(1000)).status == 200
    tried = (await shop.send("POST", "/ops/v1/routing/simulate", {"otherwise": ["b"]})).json
    rates = {one["connector"]: (one["succeeded"], one["ended"]) for one in tried["rates"]}
    assert rates == {"a": (15, 20), "b": (20, 20)}
    assert tried["success"] == {"judged": 15, "unknown": 0, "before": 11.25, "after": 15}
    # 3.75 payments of 10.00 more; the 15 cost 0.59 each at a, and 0.20 at b.
    assert tried["cost"]["eur"]["after"] - tried["cost"]["eur"]["before"] == -15 * 39
    assert tried["gain"] == {"eur": 3750 + 15 * 39}


async def test_the_fee_is_the_connectors(shop: RoutedShop) -> None:
    await shop.put({"otherwise": ["b"]})
    charge = (await shop.pay(1000)).json["latest_charge"]
    shown = await shop.app.ok(shop.merchant, "GET", f"/v1/charges/{charge}", {"expand": ["balance_transaction"]})
    assert shown["balance_transaction"]["fee"] == 20


async def test_the_only_connector_is_never_refused_by_its_breaker(shop: RoutedShop) -> None:
    connections = shop.app.running.connections
    health = connections.health_of("test", "a")
    for _ in range(5):
        health.tell("not_sent", 0.1)
    health.watch(_silent)
    listed = (await shop.app.ok(shop.merchant, "GET", "/ops/v1/connectors"))["data"]
    assert [row["breaker"] for row in listed] == ["open", "closed", "closed"]
    assert await shop.went_to() == "a"
    listed = (await shop.app.ok(shop.merchant, "GET", "/ops/v1/connectors"))["data"]
    assert listed[0]["breaker"] == "closed", "a payment that was answered closes it"


async def _silent() -> bool:
    return False
