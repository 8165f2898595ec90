"""Routing at the dashboard: rules as sentences, a draft with its dry run, and two people who change it at once."""

import re
from pathlib import Path
from typing import Any

from dashboard_visitor import Visitor, form_of, text
from routed_shop import RoutedShop, routed_shop

from tillway.connectors.port import Request
from tillway.testing.far_side import answer
from tillway.testing.in_process import Answer
from tillway.web.dashboard.words import MINUS

DRAFT = "/dashboard/routing/draft"
RULE = {
    **{f"rule_{name}": "" for name in ("country", "card_brand", "method", "bin", "amount_lt", "metadata")},
    "rule_place": "1",
    "rule_name": "EUR cards from 5",
    "rule_currency": "EUR",
    "rule_amount_gte": "5.00",
    "rule_use": "b 80, c 20",
}


async def visitor_of(shop: RoutedShop, name: str = "Mara", role: Any = "admin") -> Visitor:
    return await Visitor.signed_in(shop.app, role, shop.merchant.account, name=name)


async def test_a_payment_tells_each_attempt_with_reason_connector_and_milliseconds(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        everywhere = await shop.app.operator("admin")
        dead = {"name": "dead", "kind": "http_bank", "settings[base_url]": "http://127.0.0.1:9"}
        of = {"tillway_account": shop.merchant.account}
        await shop.app.ok(everywhere, "POST", "/ops/v1/connectors", dead, **of)
        created = await shop.app.ok(shop.merchant, "POST", "/v1/payment_intents", {"amount": 11900, "currency": "eur"})
        confirm = f"/v1/payment_intents/{created['id']}/confirm"
        given = {"return_url": "https://shop.example", "payment_method": "pm_card_visa"}
        await shop.put({"rules": [], "otherwise": ["c"]})
        shop.answers["c"] = lambda request: answer(200, {"status": "InsufficientFunds", **_named(request)})
        for _ in range(2):
            assert (await shop.app.call(shop.merchant, "POST", confirm, given)).status == 402
        await shop.put({"rules": [], "otherwise": ["dead", "b"]})
        assert (await shop.app.call(shop.merchant, "POST", confirm, given)).status == 200
        visitor = await visitor_of(shop)
        shown, _, story = text(await visitor.get(f"/dashboard/payments/{created['id']}")).partition("What happened")
        assert "Fee \N{MINUS SIGN}1.29 1 % + 0.10 Yours 117.71" in shown, shown[-300:]
        told = re.findall(r"(Declined: insufficient funds|refused the connection|Succeeded: 119.00 EUR)", story)
        assert told == [*["Declined: insufficient funds"] * 2, "refused the connection", "Succeeded: 119.00 EUR"]
        assert len(re.findall(r"at c, \d+ ms", story)) == 2 and len(re.findall(r"at b, \d+ ms", story)) == 1
        assert re.search(r"Dead refused the connection, so b was asked \d+ ms\.", story), story[:1500]
        why = story.partition("Why this route")[2]
        # 2.9 % and 0.30 at dead, as the installation prices it; 1 % and 0.10 at b.
        states = r"dead breaker \S+ now, 0\.0 % success 3\.75 EUR Not sent b breaker closed now, 100\.0 % success 1\.29"
        assert re.search(rf"{states} EUR Taken", why), why[:500]
        assert "The failover cost 2.46 EUR less and saved this payment." in why


def _named(request: Request) -> dict[str, Any]:
    return {name: request.fields.get(name) for name in ("reference", "amount", "currency")} | {"kind": "authorization"}


async def send(visitor: Visitor, page: Answer, do: str, **fields: Any) -> Answer:
    return await visitor.submit(page, DRAFT, {**RULE, "otherwise": "a", "do": do, **fields})


async def test_a_draft_is_tried_and_put_in_force(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        for _ in range(3):
            await shop.pay(1000)
        await shop.pay(100)
        visitor = await visitor_of(shop)
        assert "every payment goes to the default connector" in text(await visitor.get("/dashboard/routing"))
        form = await visitor.get(DRAFT)
        tried = await send(visitor, form, "try", rule_use="b")
        words = text(tried)
        assert "Version 1, a draft" in words and "currency is EUR, amount ≥ 5.00" in words
        assert "In force No rules" in words, "beside the draft"
        assert "Would go elsewhere 3 of 4 all by EUR cards from 5" in words and "Success, expected not known" in words
        # 1 % and 0.10 at b, 2.9 % and 0.30 at a; the fourth payment stays at a.
        assert f"Cost, expected {MINUS}1.17 EUR 0.93, was 2.10" in words and "Put version 1 in force" in words
        table = re.search(r"From where to where.*?</table>", tried.body.decode(), re.DOTALL)
        assert table is not None
        cells = re.findall(r"<td[^>]*>(?:<b>)?(\w+)", table[0])
        assert cells == [*("a", "1", "3", "0", "4"), *("b", "0", "0", "0", "0"), *("Together", "1", "3", "0", "4")]
        assert (await shop.app.ok(shop.merchant, "GET", "/ops/v1/routing"))["version"] == 0, "a dry run changes nothing"
        done = await send(visitor, tried, "force", rule_use="b", reason="b is cheaper")
        assert done.headers["location"] == "/dashboard/routing"
        routing = await shop.app.ok(shop.merchant, "GET", "/ops/v1/routing")
        assert routing["version"] == 1 and routing["rules"][0]["when"]["amount_gte"] == 500
        shown = text(await visitor.get("/dashboard/routing"))
        assert "Version 1 is in force" in shown and "by Mara" in shown and "EUR cards from 5" in shown
        rows = await shop.app.store.query(None, "sys/aud_", limit=50)
        assert any(b"PUT /ops/v1/routing" in row.body and b"b is cheaper" in row.body for row in rows)


async def test_a_draft_tells_the_success_that_is_expected(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        stolen = {"status": "Declined", "decline_code": "stolen_card"}
        shop.answers["a"] = lambda request: answer(200, {**stolen, **_named(request)})
        for _ in range(5):
            await shop.pay(1000)
        del shop.answers["a"]
        for _ in range(15):
            await shop.pay(1000)
        await shop.put({"rules": [], "otherwise": ["b"]})
        for _ in range(20):
            await shop.pay(1000)
        visitor = await visitor_of(shop)
        words = text(await send(visitor, await visitor.get(DRAFT), "try", rule_use="b"))
        # Of 20 payments that went to a 15 succeeded; of 20 at b all: 5 of 40 are 12.5 points.
        assert "Would go elsewhere 20 of 40" in words and "Success, expected +12.50 points" in words
        # 5 payments of 10.00 more, and 20 times 0.39 less cost.
        assert "Gain, expected +57.80 EUR 5.0 payments more, less cost" in words


async def test_a_connector_says_since_when_it_is_out_of_reach(tmp_path: Path) -> None:
    async def silent() -> bool:
        return False

    async with routed_shop(tmp_path) as shop:
        visitor = await visitor_of(shop, role="operator")
        health = shop.app.running.connections.health_of("test", "b")
        assert "Opened at" not in text(await visitor.get("/dashboard/connectors"))
        for _ in range(3):
            health.tell("not_sent", 0.1)
        health.watch(silent)
        listed = (await shop.app.ok(shop.merchant, "GET", "/ops/v1/connectors"))["data"]
        assert [one["breaker_seconds"] for one in listed] == [None, 0, None]
        words = text(await visitor.get("/dashboard/connectors"))
        assert "b: opened by itself Three requests in a row without an answer. Others go first." in words
        assert re.search(r"b is out of reach \d+ s", text(await visitor.get("/dashboard")))
        assert re.search(r"Out of reach .* Opened at [\d:]+ , after three requests in a row without an answer", words)
        health.tell("succeeded", 0.1)
        words = text(await visitor.get("/dashboard/connectors"))
        assert re.search("b: closed again .* b: opened by itself", words), "also within a second, the newest is first"


async def test_home_says_when_no_connector_takes_payments_and_which_breaker_a_person_holds(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        visitor, everywhere = await visitor_of(shop, role="operator"), await shop.app.operator("admin")
        of = {"tillway_account": shop.merchant.account}

        async def drain(name: str, drained: str) -> None:
            asked = {"drained": drained, "reason": "Works at the bank"}
            await shop.app.ok(everywhere, "POST", f"/ops/v1/connectors/{name}/drain", asked, **of)

        for name in ("a", "b"):
            await drain(name, "true")
        told = "No connector takes new payments Drained: a, b, c."
        assert "takes new payments" not in text(await visitor.get("/dashboard")), "c takes them"
        await drain("c", "true")
        assert told in text(await visitor.get("/dashboard"))
        await drain("b", "false")
        opened = {"state": "open", "reason": "Works at the bank"}
        await shop.app.ok(everywhere, "POST", "/ops/v1/connectors/b/breaker", opened, **of)
        shown = text(await visitor.get("/dashboard"))
        assert told not in shown and "b is held open" in shown and "b is out of reach" not in shown


async def test_of_two_drafts_the_second_is_shown_the_difference(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        one, two = await visitor_of(shop), await visitor_of(shop, "Ida")
        first, second = await one.get(DRAFT), await two.get(DRAFT)
        assert (await send(one, first, "force")).status == 303
        late = await send(two, second, "force", rule_use="c", rule_name="EUR cards from 5")
        assert late.status == 409 and "nothing was done" in text(late)
        assert "changed" in text(late) and "was b 80 %, c 20 %" in text(late) and "Version 2, a draft" in text(late)
        assert (await shop.app.ok(shop.merchant, "GET", "/ops/v1/routing"))["version"] == 1
        assert (await send(two, late, "force", rule_use="c")).status == 303
        assert (await shop.app.ok(shop.merchant, "GET", "/ops/v1/routing"))["version"] == 2
        taken_out = await send(two, await two.get(DRAFT), "try", rule_name="", rule_use="")
        assert "Taken out: EUR cards from 5" in text(taken_out)


async def test_a_draft_that_cannot_be_read_comes_back_as_it_was_typed(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        visitor = await visitor_of(shop)
        form = await visitor.get(DRAFT)
        for fields, words in (
            ({"rule_amount_gte": "much"}, "write an amount in EUR"),
            ({"rule_currency": ""}, "whole number of minor units"),
            ({"rule_metadata": "gift"}, "write metadata as name=value"),
            ({"rule_use": "b many"}, "weight"),
            ({"rule_name": ""}, "Give each rule a name"),
            ({"rule_use": "nowhere"}, "is not a connector of this mode"),
            ({"rule_country": "Japan"}, "country"),
        ):
            refused = await send(visitor, form, "force", **fields)
            assert refused.status in (400, 422) and words in text(refused), (fields, text(refused))
            assert 'role="alert"' in refused.body.decode()
            for name, value in fields.items():
                assert f'name="{name}" value="{value}"' in refused.body.decode()
        assert (await shop.app.ok(shop.merchant, "GET", "/ops/v1/routing"))["version"] == 0


async def test_only_admins_change_the_routing_and_prove_it(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        for role in ("viewer", "support", "operator"):
            visitor = await visitor_of(shop, role, role)
            assert "Draft of version" not in text(await visitor.get("/dashboard/routing"))
            token = form_of(await visitor.get("/dashboard"), "/dashboard/sign-out")["csrf"]
            assert (await visitor.get(DRAFT)).status == 403
            fields = {**RULE, "csrf": token, "version": "0", "do": "force"}
            assert (await visitor.post(DRAFT, fields)).status == 403
        admin = await visitor_of(shop)
        form = await admin.get(DRAFT)
        shop.app.clock.ahead_seconds += 301
        asked = await send(admin, form, "force")
        assert "Nothing was changed" in text(asked)
        assert (await shop.app.ok(shop.merchant, "GET", "/ops/v1/routing"))["version"] == 0


async def test_a_merchants_own_rules_are_removed_by_one_who_saw_them_last(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        await shop.put({"otherwise": ["c"]}, await shop.app.operator("admin"))
        visitor = await visitor_of(shop)
        assert "Remove these rules" not in text(await visitor.get("/dashboard/routing")), "they are the installation's"
        await shop.put({"otherwise": ["b"]})
        page, action = await visitor.get("/dashboard/routing"), "/dashboard/routing/remove"
        assert "Remove version 1" in text(page)
        await shop.put({"otherwise": ["b"]})
        late = await visitor.submit(page, action, {"reason": "Not needed"})
        assert late.status == 409 and "has version 2 by now" in text(late) and "Remove version 2" in text(late)
        assert await shop.went_to() == "b"
        assert (await visitor.submit(late, action, {"reason": "One for all"})).status == 303
        assert await shop.went_to() == "c"
        shown = text(await visitor.get("/dashboard/routing"))
        assert "It is the installation’s" in shown and "Draft of version 4" in shown, "the removal took number 3"
        form = await visitor.get(DRAFT)
        assert "Version 4, a draft" in text(form)
        tried = await send(visitor, form, "try")
        assert "Put version 4 in force" in text(tried) and "Dry run of version 4" in text(tried)
        assert (await send(visitor, tried, "force")).status == 303
        assert "Version 4 is in force" in text(await visitor.get("/dashboard/routing"))
        operator = await visitor_of(shop, "Li", "operator")
        token = form_of(await operator.get("/dashboard"), "/dashboard/sign-out")["csrf"]
        assert (await operator.post(action, {"csrf": token})).status == 403
        everywhere = await Visitor.signed_in(shop.app, "admin", name="Everywhere")
        log = text(await everywhere.get("/dashboard/audit?owner=installation"))
        assert "One for all" in log and "Removed the routing" in log and "Routing version 4" in log


async def test_an_admin_of_the_installation_chooses_whose_rules(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        everywhere = await Visitor.signed_in(shop.app, "admin", name="Everywhere")
        form = await everywhere.get(f"{DRAFT}?owner=merchant")
        assert "For this merchant." in text(form)
        tried = await everywhere.submit(form, DRAFT, {**RULE, "rule_use": "b", "otherwise": "b", "do": "try"})
        forced = await everywhere.submit(tried, DRAFT, {**RULE, "rule_use": "b", "otherwise": "b", "do": "force"})
        assert forced.headers["location"] == "/dashboard/routing?owner=merchant"
        shown = await shop.app.ok(shop.merchant, "GET", "/ops/v1/routing")
        assert (shown["account"], shown["otherwise"]) == (shop.merchant.account, ["b"])
        assert "There are none yet" in text(await everywhere.get("/dashboard/routing"))
        page = await everywhere.get("/dashboard/routing?owner=merchant")
        gone = await everywhere.submit(page, "/dashboard/routing/remove", {"reason": "Over"})
        assert gone.headers["location"] == "/dashboard/routing?owner=merchant"
        assert (await shop.app.ok(shop.merchant, "GET", "/ops/v1/routing"))["version"] == 0
