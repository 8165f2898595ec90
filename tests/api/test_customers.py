from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from card_shop import DECLINED, VISA, CardShop, card, opened

from tillway.store.port import WRITES_MAX, Write


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[CardShop]:
    async with opened(tmp_path) as shop:
        yield shop


ADDRESS = {"line1": "Long Street 1", "city": "Kiel", "postal_code": "24103", "country": "DE"}
WHOLE = {
    "email": "jenny@shop.example",
    "name": "Jenny Rosen",
    "description": "a good customer",
    "phone": "+49 431 0",
    "address": ADDRESS,
    "shipping": {"name": "Jenny", "address": ADDRESS},
    "metadata": {"order": "6735", "vip": "yes"},
    "preferred_locales": ["de", "en"],
    "tax_exempt": "exempt",
    "invoice_prefix": "SHOP7",
    "invoice_settings": {"footer": "thank you"},
    "next_invoice_sequence": 7,
    "business_name": "Rosen Ltd",
    "validate": True,
}


# Customers.


async def test_a_customer_keeps_what_it_is_given(shop: CardShop) -> None:
    made = await shop.ok("POST", "/v1/customers", WHOLE)
    for name in ("email", "name", "description", "phone", "metadata", "preferred_locales", "tax_exempt"):
        assert made[name] == WHOLE[name], name
    assert made["address"] == {**ADDRESS, "line2": None, "state": None} == made["shipping"]["address"]
    assert (made["invoice_prefix"], made["next_invoice_sequence"], made["business_name"]) == ("SHOP7", 7, "Rosen Ltd")
    assert made["invoice_settings"] == {
        "custom_fields": None,
        "default_payment_method": None,
        "footer": "thank you",
        "rendering_options": None,
    }
    assert (made["balance"], made["default_source"], made["delinquent"], made["livemode"]) == (0, None, False, False)
    assert await shop.ok("GET", f"/v1/customers/{made['id']}") == made
    assert await shop.types() == ["customer.created"]


async def test_a_customer_of_nothing(shop: CardShop) -> None:
    made = await shop.ok("POST", "/v1/customers")
    assert (made["email"], made["metadata"], made["tax_exempt"], made["shipping"]) == (None, {}, "none", None)
    assert "sources" not in made and "business_name" not in made


@pytest.mark.parametrize(
    ("change", "field", "after"),
    [
        ({"metadata": {"order": "1"}}, "metadata", {"order": "1", "vip": "yes"}),
        ({"metadata": {"vip": ""}}, "metadata", {"order": "6735"}),
        ({"metadata": {"vip": "", "a": "b"}}, "metadata", {"order": "6735", "a": "b"}),
        ({"metadata": ""}, "metadata", {}),
        ({"email": ""}, "email", None),
        ({"name": "J"}, "name", "J"),
        ({"address": ""}, "address", None),
        ({"shipping": ""}, "shipping", None),
        ({"preferred_locales": ""}, "preferred_locales", []),
        ({"tax_exempt": ""}, "tax_exempt", "none"),
        ({"description": "", "validate": False}, "description", None),
    ],
)
async def test_changing(shop: CardShop, change: dict[str, Any], field: str, after: Any) -> None:
    before = await shop.ok("POST", "/v1/customers", WHOLE)
    changed = await shop.ok("POST", f"/v1/customers/{before['id']}", change)
    assert changed[field] == after
    assert {name: value for name, value in changed.items() if name != field} == {
        name: value for name, value in before.items() if name != field
    }
    assert await shop.types() == ["customer.created", "customer.updated"]


async def test_invoice_settings_are_changed_one_by_one(shop: CardShop) -> None:
    id = await shop.customer(**WHOLE)
    method = await shop.attached(id)
    path = f"/v1/customers/{id}"
    await shop.ok("POST", path, {"invoice_settings": {"default_payment_method": method}})
    changed = await shop.ok(
        "POST",
        path,
        {"invoice_settings": {"rendering_options": {"amount_tax_display": "exclude_tax"}}},
    )
    assert changed["invoice_settings"] == {
        "custom_fields": None,
        "default_payment_method": method,
        "footer": "thank you",
        "rendering_options": {"amount_tax_display": "exclude_tax", "template": None},
    }
    expanded = await shop.ok("GET", path, {"expand": ["invoice_settings.default_payment_method"]})
    assert expanded["invoice_settings"]["default_payment_method"]["id"] == method
    unset = await shop.ok("POST", path, {"invoice_settings": {"default_payment_method": ""}})
    assert unset["invoice_settings"]["default_payment_method"] is None


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"test_clock": "clock_1"}, (400, "resource_missing", "test_clock")),
        ({"tax": {"ip_address": "1.1.1.1"}}, (400, "parameter_unsupported", "tax")),
        ({"tax_id_data": [{"type": "eu_vat", "value": "DE1"}]}, (400, "parameter_unsupported", "tax_id_data")),
        ({"cash_balance": {"settings": {"a": "b"}}}, (400, "parameter_unsupported", "cash_balance")),
        ({"balance": -100}, (400, "parameter_unsupported", "balance")),
        ({"emial": "a@shop.example"}, (400, "parameter_unknown", "emial")),
        ({"address": {"street": "x"}}, (400, "parameter_unknown", "address[street]")),
        ({"shipping": {"name": "J"}}, (400, "parameter_missing", "shipping[address]")),
        ({"email": "jenny"}, (400, "email_invalid", "email")),
        ({"name": "x" * 257}, (400, "parameter_invalid_string", "name")),
        ({"name": "4242 4242 4242 4242"}, (400, "card_number_in_free_text", "name")),
        ({"metadata": {"k" * 41: "v"}}, (400, "parameter_invalid_string", "metadata")),
        ({"metadata": {f"k{i}": "v" for i in range(51)}}, (400, "parameter_invalid_object", "metadata")),
        ({"metadata": {"pan": VISA["number"]}}, (400, "card_number_in_free_text", "metadata[pan]")),
        ({"invoice_prefix": "shop"}, (400, "parameter_invalid_string", "invoice_prefix")),
        ({"tax_exempt": "maybe"}, (400, "parameter_invalid_enum", "tax_exempt")),
        ({"source": "tok_none"}, (400, "resource_missing", "source")),
        ({"source": "pm_card_visa"}, (400, "resource_missing", "source")),
        ({"source": "src_123"}, (400, "resource_missing", "source")),
        ({"source": card("4242424242424241")}, (402, "incorrect_number", "source[number]")),
        ({"source": {"object": "card"}}, (400, "parameter_missing", "source[number]")),
        ({"source": "tok_chargeDeclined"}, (402, "card_declined", None)),
        ({"source": DECLINED}, (402, "card_declined", None)),
        ({"payment_method": "pm_none"}, (400, "resource_missing", "payment_method")),
        ({"payment_method": "pm_card_chargeDeclined"}, (402, "card_declined", None)),
        (
            {"invoice_settings": {"default_payment_method": "pm_none"}},
            (400, "resource_missing", "invoice_settings[default_payment_method]"),
        ),
        ({"default_source": "card_1"}, (400, "parameter_unknown", "default_source")),
        ({"expand": ["discount"]}, (400, "parameter_invalid_string", "expand")),
    ],
)
async def test_what_makes_no_customer(
    shop: CardShop, params: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    status, code, param = await shop.refused("POST", "/v1/customers", params)
    assert (status, code) == expected[:2]
    assert param == expected[2] or (param or "").startswith(f"{expected[2]}[")
    assert await shop.ids("cus", "card", "pm", "vlt", "cvc") == []
    assert await shop.types() == []


async def test_listing(shop: CardShop) -> None:
    made = [await shop.customer(email=f"{who}@shop.example") for who in ("a", "b", "a", "A")]
    gone = await shop.customer(email="a@shop.example")
    await shop.ok("DELETE", f"/v1/customers/{gone}")

    async def page(**params: Any) -> list[str]:
        found = await shop.ok("GET", "/v1/customers", params)
        assert found["url"] == "/v1/customers"
        return [customer["id"] for customer in found["data"]]

    newest = made[::-1]
    now = shop.app.clock.now_ms() // 1000
    assert await page() == newest
    assert await page(limit=2) == newest[:2]
    assert await page(limit=2, starting_after=newest[1]) == newest[2:]
    assert await page(limit=2, ending_before=newest[2]) == newest[:2]
    assert await page(email="a@shop.example") == [made[2], made[0]]
    assert await page(email="A@shop.example") == [made[3]]
    assert await page(email="nobody@shop.example") == []
    assert await page(created={"gte": now + 60}) == []
    assert await page(created={"gte": now - 60}, limit=1) == newest[:1]
    found = await shop.ok("GET", "/v1/customers/search", {"query": "email:'b@shop.example'"})
    assert [customer["id"] for customer in found["data"]] == [made[1]]
    unknown = await shop.refused("GET", "/v1/customers", {"test_clock": "clock_1"})
    assert unknown == (400, "resource_missing", "test_clock")
    assert await shop.refused("GET", "/v1/customers", {"starting_after": "cus_none"}) == (
        400,
        "resource_missing",
        "starting_after",
    )


async def test_a_payment_method_along_with_the_customer(shop: CardShop) -> None:
    made = await shop.ok(
        "POST",
        "/v1/customers",
        {"payment_method": "pm_card_visa", "invoice_settings": {"default_payment_method": "pm_card_visa"}},
    )
    method = made["invoice_settings"]["default_payment_method"]
    assert (await shop.ok("GET", f"/v1/payment_methods/{method}"))["customer"] == made["id"]
    assert made["default_source"] is None
    assert await shop.types() == ["customer.created", "payment_method.attached"]
    other = await shop.customer()
    for id in (method, await shop.method()):
        error = await shop.error("POST", f"/v1/customers/{other}", {"invoice_settings": {"default_payment_method": id}})
        assert (error["status"], error["code"]) == (400, "resource_missing")
        assert error["param"] == "invoice_settings[default_payment_method]" and "must be attached" in error["message"]
    taken = await shop.refused("POST", "/v1/customers", {"payment_method": method})
    assert taken == (400, "payment_method_unexpected_state", "payment_method")


async def test_custom_fields_of_invoices(shop: CardShop) -> None:
    id = await shop.customer()
    fields = [{"name": "Ref", "value": "1"}, {"name": "Desk", "value": "2"}]
    for given, after in ((fields, fields), ("", None)):
        changed = await shop.ok("POST", f"/v1/customers/{id}", {"invoice_settings": {"custom_fields": given}})
        assert changed["invoice_settings"]["custom_fields"] == after


# Deletion.


async def test_a_deleted_customer_is_a_stub_and_no_use(shop: CardShop) -> None:
    method = await shop.method()
    id = await shop.customer(**WHOLE, source=await shop.token())
    attached = await shop.attached(id)
    assert await shop.ok("DELETE", f"/v1/customers/{id}") == {"id": id, "object": "customer", "deleted": True}
    stub = await shop.ok("GET", f"/v1/customers/{id}", {"expand": ["sources", "default_source"]})
    assert stub == {"id": id, "object": "customer", "deleted": True}
    assert len(await shop.ids("vlt")) == 1, "only the card of the method that was never attached is left"
    assert (await shop.ok("GET", f"/v1/payment_methods/{attached}"))["customer"] is None

    payment = {"amount": 100, "currency": "eur"}
    for verb, path, params, param in (
        ("DELETE", f"/v1/customers/{id}", {}, "id"),
        ("POST", f"/v1/customers/{id}", {"name": "J"}, "id"),
        ("POST", f"/v1/customers/{id}/sources", {"source": "tok_visa"}, "id"),
        ("GET", f"/v1/customers/{id}/sources", {}, "customer"),
        ("GET", f"/v1/customers/{id}/payment_methods", {}, "customer"),
        ("GET", "/v1/payment_methods", {"customer": id}, "customer"),
        ("POST", f"/v1/payment_methods/{method}/attach", {"customer": id}, "customer"),
        ("POST", "/v1/payment_intents", {**payment, "customer": id}, "customer"),
        ("POST", "/v1/charges", {**payment, "customer": id}, "customer"),
        ("POST", "/v1/setup_intents", {"customer": id}, "customer"),
    ):
        error = await shop.error(verb, path, params)
        assert (error["status"], error["code"], error["param"]) == (
            400 if param in params else 404,
            "resource_missing",
            param,
        ), path
        assert error["message"] == f"No such customer: '{id}'"
    assert (await shop.ok("GET", "/v1/customers/search", {"query": "email:'jenny@shop.example'"}))["data"] == []


async def test_what_a_customer_paid_still_names_them(shop: CardShop) -> None:
    id = await shop.customer(source="tok_visa")
    charge = await shop.ok("POST", "/v1/charges", {"amount": 100, "currency": "eur", "customer": id})
    await shop.ok("DELETE", f"/v1/customers/{id}")
    read = await shop.ok("GET", f"/v1/charges/{charge['id']}", {"expand": ["customer"]})
    assert read["customer"] == {"id": id, "object": "customer", "deleted": True}


async def test_many_cards_go_in_commits_that_any_store_can_make(shop: CardShop) -> None:
    for i in range(16):
        endpoint = {"url": f"http://127.0.0.1:9/{i}", "enabled_events": ["*"]}
        await shop.ok("POST", "/v1/webhook_endpoints", endpoint)
    id = await shop.customer()
    for _ in range(5):
        await shop.ok("POST", f"/v1/customers/{id}/sources", {"source": await shop.token()})
        await shop.ok("POST", f"/v1/payment_methods/{await shop.method()}/attach", {"customer": id})
    assert len(await shop.ids("vlt", "cvc")) == 20
    largest = 0
    commit = shop.app.store.commit

    async def measured(writes: Sequence[Write]) -> None:
        nonlocal largest
        largest = max(largest, len(writes))
        await commit(writes)

    shop.app.store.commit = measured  # type: ignore[method-assign]
    await shop.ok("DELETE", f"/v1/customers/{id}")
    assert WRITES_MAX - 25 < largest <= WRITES_MAX
    assert await shop.ids("vlt", "cvc") == []
    types = await shop.types()
    assert (types.count("payment_method.detached"), types.count("customer.source.deleted")) == (5, 5)
    assert types[-1] == "customer.deleted"


@pytest.mark.parametrize("path", ["/v1/payment_methods/METHOD/attach", "/v1/customers/CUSTOMER/sources"])
async def test_no_card_slips_in_while_its_customer_goes(shop: CardShop, path: str) -> None:
    id, method, token = await shop.customer(source="tok_visa"), await shop.method(), await shop.token()
    params = {"customer": id} if "METHOD" in path else {"source": token}
    path = path.replace("METHOD", method).replace("CUSTOMER", id)
    commit = shop.app.store.commit
    slipped: list[dict[str, Any]] = []

    async def raced(writes: Sequence[Write]) -> None:
        shop.app.store.commit = commit  # type: ignore[method-assign]
        slipped.append(await shop.ok("POST", path, params))
        await commit(writes)

    shop.app.store.commit = raced  # type: ignore[method-assign]
    await shop.ok("DELETE", f"/v1/customers/{id}")
    (late,) = slipped
    assert late["customer"] == id
    assert (await shop.ok("GET", f"/v1/payment_methods/{late['id']}"))["customer"] is None
    page = await shop.ok("GET", "/v1/payment_methods")
    assert [one["id"] for one in page["data"] if one["customer"] == id] == []
    left = await shop.ids("vlt")
    assert len(left) == 1, "the other of the two cards, which was never attached"


# Cards of the old API.


async def test_a_source_makes_a_customer_chargeable(shop: CardShop) -> None:
    token = await shop.token(name="Jenny", address_zip="24103")
    made = await shop.ok("POST", "/v1/customers", {"source": token, "expand": ["sources", "default_source.customer"]})
    first = made["default_source"]
    assert (first["object"], first["name"], first["address_zip"]) == ("card", "Jenny", "24103")
    assert first["customer"]["id"] == made["id"]
    assert made["sources"]["url"] == f"/v1/customers/{made['id']}/sources"
    assert [source["id"] for source in made["sources"]["data"]] == [first["id"]]
    assert await shop.types() == ["customer.created", "customer.source.created"]
    charge = await shop.ok("POST", "/v1/charges", {"amount": 100, "currency": "eur", "customer": made["id"]})
    assert charge["payment_method"] == first["id"]
    payment = {"amount": 100, "currency": "eur", "customer": made["id"], "payment_method": first["id"], "confirm": True}
    assert (await shop.ok("POST", "/v1/payment_intents", payment))["status"] == "succeeded"
    event = (await shop.ok("GET", "/v1/events", {"type": "customer.source.created"}))["data"][0]
    assert (event["data"]["object"]["object"], event["data"]["object"]["id"]) == ("card", first["id"])


async def test_the_life_of_a_source(shop: CardShop) -> None:
    id = await shop.customer()
    path = f"/v1/customers/{id}/sources"
    first = await shop.ok("POST", path, {"source": await shop.token(), "metadata": {"kind": "old"}})
    second = await shop.ok("POST", path, {"source": VISA, "validate": True})
    third = await shop.ok("POST", path, {"source": "tok_mastercard"})
    assert (first["customer"], first["metadata"], third["brand"]) == (id, {"kind": "old"}, "MasterCard")
    page = await shop.ok("GET", path, {"limit": 2})
    assert ([card["id"] for card in page["data"]], page["has_more"]) == ([third["id"], second["id"]], True)
    assert page["url"] == path
    rest = await shop.ok("GET", path, {"starting_after": second["id"], "object": "card"})
    assert [card["id"] for card in rest["data"]] == [first["id"]]
    assert (await shop.ok("GET", path, {"object": "bank_account"}))["data"] == []

    changed = await shop.ok(
        "POST",
        f"{path}/{first['id']}",
        {"name": "J", "address_line1": "x", "exp_year": 2041, "metadata": {"kind": "", "a": "b"}},
    )
    assert (changed["name"], changed["address_line1"], changed["exp_year"]) == ("J", "x", 2041)
    assert changed["metadata"] == {"a": "b"}
    assert (await shop.ok("POST", f"{path}/{first['id']}", {"address_line1": "", "name": ""}))["address_line1"] is None
    wrong_year = await shop.refused("POST", f"{path}/{first['id']}", {"exp_year": 2001})
    assert wrong_year == (402, "invalid_expiry_year", "exp_year")

    async def default() -> str | None:
        found: str | None = (await shop.ok("GET", f"/v1/customers/{id}"))["default_source"]
        return found

    assert await default() == first["id"]
    await shop.ok("POST", f"/v1/customers/{id}", {"default_source": second["id"]})
    for gone, left in ((second, third["id"]), (first, third["id"]), (third, None)):
        deleted = await shop.ok("DELETE", f"{path}/{gone['id']}")
        assert deleted == {"id": gone["id"], "object": "card", "deleted": True}
        assert await default() == left
        assert await shop.refused("GET", f"{path}/{gone['id']}") == (404, "resource_missing", "id")
    assert await shop.ids("vlt", "cvc") == []


async def test_a_source_given_to_an_update_takes_the_place_of_the_default(shop: CardShop) -> None:
    id = await shop.customer(source="tok_visa")
    kept = await shop.ok("POST", f"/v1/customers/{id}/sources", {"source": "tok_visa"})
    after = await shop.ok("POST", f"/v1/customers/{id}", {"source": "tok_mastercard", "expand": ["sources"]})
    cards = [card["id"] for card in after["sources"]["data"]]
    assert set(cards) == {after["default_source"], kept["id"]}
    declined = await shop.refused("POST", f"/v1/customers/{id}", {"source": "tok_chargeDeclined"})
    assert declined == (402, "card_declined", None)
    assert (await shop.ok("GET", f"/v1/customers/{id}", {"expand": ["sources"]})) == after


async def test_two_cards_that_go_at_once_leave_no_dead_default(shop: CardShop) -> None:
    id = await shop.customer(source="tok_visa")
    path = f"/v1/customers/{id}/sources"
    second = await shop.ok("POST", path, {"source": "tok_visa"})
    first = (await shop.ok("GET", f"/v1/customers/{id}"))["default_source"]
    commit = shop.app.store.commit

    async def raced(writes: Sequence[Write]) -> None:
        shop.app.store.commit = commit  # type: ignore[method-assign]
        await shop.ok("DELETE", f"{path}/{second['id']}")
        await commit(writes)

    shop.app.store.commit = raced  # type: ignore[method-assign]
    await shop.ok("DELETE", f"{path}/{first}")
    assert (await shop.ok("GET", f"/v1/customers/{id}"))["default_source"] is None


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, (400, "parameter_missing", "source")),
        ({"source": ""}, (400, "parameter_invalid_empty", "source")),
        ({"source": "tok_chargeDeclinedInsufficientFunds"}, (402, "card_declined", None)),
        ({"source": "tok_visa", "colour": "red"}, (400, "parameter_unknown", "colour")),
        ({"source": card(VISA["number"], cvc="1")}, (402, "invalid_cvc", "source[cvc]")),
        ({"card": "tok_visa"}, (400, "parameter_unknown", "card")),
    ],
)
async def test_what_is_no_source(shop: CardShop, params: dict[str, Any], expected: tuple[int, str, str | None]) -> None:
    id = await shop.customer()
    assert await shop.refused("POST", f"/v1/customers/{id}/sources", params) == expected
    assert await shop.ids("card") == []


async def test_a_source_belongs_to_its_customer_alone(shop: CardShop) -> None:
    id, other = await shop.customer(source="tok_visa"), await shop.customer(source="tok_visa")
    theirs = (await shop.ok("GET", f"/v1/customers/{other}"))["default_source"]
    method = await shop.attached(id)
    for source in (theirs, method, "card_none"):
        for verb in ("GET", "POST", "DELETE"):
            refused = await shop.refused(verb, f"/v1/customers/{id}/sources/{source}", {})
            assert refused == (404, "resource_missing", "id")
        refused = await shop.refused("POST", f"/v1/customers/{id}", {"default_source": source})
        assert refused == (400, "resource_missing", "default_source")
    owned = await shop.refused("POST", f"/v1/customers/{id}/sources/{theirs}", {"owner": {"name": "x"}})
    assert owned == (400, "parameter_unsupported", "owner")


@pytest.mark.parametrize(
    ("method", "path", "params", "param"),
    [
        ("GET", "/v1/customers/ID", {}, "id"),
        ("POST", "/v1/customers/ID", {"name": "J"}, "id"),
        ("DELETE", "/v1/customers/ID", {}, "id"),
        ("GET", "/v1/customers/ID/sources", {}, "customer"),
        ("POST", "/v1/customers/ID/sources", {"source": "tok_visa"}, "id"),
        ("GET", "/v1/customers/ID/sources/CARD", {}, "id"),
        ("POST", "/v1/customers/ID/sources/CARD", {"name": "J"}, "id"),
        ("DELETE", "/v1/customers/ID/sources/CARD", {}, "id"),
        ("GET", "/v1/customers", {"starting_after": "ID"}, "starting_after"),
        ("POST", "/v1/payment_intents", {"amount": 100, "currency": "eur", "customer": "ID"}, "customer"),
        ("POST", "/v1/charges", {"amount": 100, "currency": "eur", "source": "CARD"}, "source"),
        ("POST", "/v1/setup_intents", {"customer": "ID"}, "customer"),
    ],
)
async def test_another_merchants_is_like_nobodys(
    shop: CardShop, method: str, path: str, params: dict[str, Any], param: str
) -> None:
    made = await shop.ok("POST", "/v1/customers", {"source": "tok_visa"})

    async def answer(id: str, source: str, key: str) -> dict[str, Any]:
        def filled(value: Any) -> Any:
            return value.replace("ID", id).replace("CARD", source) if isinstance(value, str) else value

        error = await shop.error(method, filled(path), {name: filled(value) for name, value in params.items()}, key=key)
        del error["request_log_url"]
        return {name: str(value).replace(id, "…").replace(source, "…") for name, value in error.items()}

    found = await answer(made["id"], made["default_source"], await shop.foreign_key())
    status = "400" if param in params else "404"
    assert (found["status"], found["code"], found["param"]) == (status, "resource_missing", param)
    assert found == await answer("cus_nobodys", "card_nobodys", await shop.foreign_key())
    if path != "/v1/charges":  # Live mode has no connector here, which is said before anything else.
        assert found == await answer(made["id"], made["default_source"], shop.merchant.live_key)


async def test_a_card_is_told_of_when_its_last_month_begins(shop: CardShop) -> None:
    customer, app = await shop.customer(), shop.app
    then = datetime.fromtimestamp(app.clock.now_ms() / 1000 + 62 * 86_400, UTC)
    source = {"object": "card", **VISA, "exp_month": then.month, "exp_year": then.year}
    card = (await shop.ok("POST", f"/v1/customers/{customer}/sources", {"source": source}))["id"]
    gone = (await shop.ok("POST", f"/v1/customers/{customer}/sources", {"source": source}))["id"]
    renewed = (await shop.ok("POST", f"/v1/customers/{customer}/sources", {"source": source}))["id"]
    await shop.ok("DELETE", f"/v1/customers/{customer}/sources/{gone}")
    await shop.ok("POST", f"/v1/customers/{customer}/sources/{renewed}", {"exp_year": then.year + 3})

    async def carry() -> list[str]:
        for row in await app.store.claim("expiries", now_ms=app.clock.now_ms(), lease_ms=1000, limit=100):
            await app.running.runner.carry(row)
        told = (await shop.ok("GET", "/v1/events", {"type": "customer.source.expiring"}))["data"]
        return [event["data"]["object"]["id"] for event in told]

    assert await carry() == []
    app.clock.ahead_seconds += 62 * 86_400
    assert await carry() == [card]
    app.clock.ahead_seconds += 60
    assert await carry() == [card]
