"""Operators: what each role may do, for which merchants, and what a merchant's own keys may not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from good_calls import MerchantObjects, name_of, path_of

from tillway.api import handlers
from tillway.domain.operator import MAY, ROLES, Role
from tillway.http.capabilities import READS, WRITES, capability_of
from tillway.http.routes import ROUTES
from tillway.testing.in_process import InProcessApp

assert handlers.LOADED

REASON = "The bank confirmed it on the telephone."
OF_THE_INSTALLATION = {
    "POST /ops/v1/backups",
    "GET /ops/v1/connectors/{name}",
    "POST /ops/v1/connectors",
    "POST /ops/v1/connectors/{name}",
    "POST /ops/v1/connectors/{name}/test",
    "POST /ops/v1/doctor",
    "GET /ops/v1/system",
}
"""Calls that take an operator who works for every merchant."""

KEYED = [route for route in ROUTES if route.access != "anyone"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def objects(data_dir: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(data_dir)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


def test_every_entry_of_the_tables_is_a_route() -> None:
    names = {name_of(route) for route in ROUTES}
    assert WRITES.keys() | READS.keys() <= names


@pytest.mark.parametrize("role", ROLES)
async def test_a_key_opens_as_much_as_its_roles_column(objects: MerchantObjects, role: Role) -> None:
    one = await objects.app.operator(role, objects.merchant.account)
    everywhere = await objects.app.operator(role)
    for route in KEYED:
        unknown = tuple("x_1" for part in route.path.split("/") if part.startswith("{"))
        whole = name_of(route) in OF_THE_INSTALLATION
        answer = await objects.app.send(
            route.method,
            path_of(route, unknown),
            key=everywhere if whole else one,
            # A parameter that there is not: no command is run.
            body=b'{"nothing":1}' if whole and route.method == "POST" else b"",
            content_type="application/json",
            headers={"tillway-account": objects.merchant.account},
        )
        capability = capability_of(route.method, route.path)
        code = answer.json.get("error", {}).get("code") if answer.json else None
        may = capability is not None and capability in MAY[role]
        assert (code != "operator_forbidden") is may, f"{role} {name_of(route)}: {answer.status} {code}"
        assert may or answer.status == 403


async def test_no_dialect_takes_an_operators_key(objects: MerchantObjects) -> None:
    key = await objects.app.operator("admin")
    answer = await objects.app.send("POST", "/token", key=key, body=b"{}", content_type="application/json")
    assert answer.status == 403


async def test_merchants_do_not_settle_doubts(objects: MerchantObjects) -> None:
    doubt = await objects.doubt()
    params = {"outcome": "succeeded", "reason": REASON}
    answer = await objects.app.call(objects.merchant, "POST", f"/ops/v1/doubts/{doubt}/resolve", params)
    assert (answer.status, answer.json["error"]["code"]) == (403, "operator_required")
    assert [one["id"] for one in (await objects.app.ok(objects.merchant, "GET", "/ops/v1/doubts"))["data"]] == [doubt]


async def test_a_payout_that_is_in_no_doubt_cannot_be_resolved(objects: MerchantObjects) -> None:
    """A merchant resolved its own payout in transit as declined, again and again, and paid out four times its money."""
    await objects.funds()
    await objects.external()
    payout = await objects.post("/v1/payouts", amount=9000, currency="eur")
    attempt = payout["id"].replace("po_", "att_")
    for key in (objects.merchant.key, objects.merchant.operator_key):
        params = {"outcome": "failed", "reason": REASON}
        answer = await objects.app.call(key, "POST", f"/ops/v1/doubts/{attempt}/resolve", params)
        assert answer.status in (400, 403), answer.body
    assert (await objects.app.ok(objects.merchant, "GET", f"/v1/payouts/{payout['id']}"))["status"] == "pending"


@pytest.mark.parametrize("reason", [None, "", "   "])
async def test_a_decision_needs_a_reason(objects: MerchantObjects, reason: str | None) -> None:
    doubt = await objects.doubt()
    params: dict[str, Any] = {"outcome": "succeeded"} | ({"reason": reason} if reason is not None else {})
    answer = await objects.app.call(objects.merchant.operator_key, "POST", f"/ops/v1/doubts/{doubt}/resolve", params)
    assert (answer.status, answer.json["error"]["param"]) == (400, "reason")


async def test_the_audit_trail_names_the_operator_and_the_reason(objects: MerchantObjects) -> None:
    doubt = await objects.doubt()
    key = await objects.app.operator("operator", objects.merchant.account)
    params = {"outcome": "failed", "reason": REASON, "provider_reference": "bank-77"}
    resolved = await objects.app.ok(key, "POST", f"/ops/v1/doubts/{doubt}/resolve", params)
    assert (resolved["resolved"], resolved["resolution_reason"]) == ("failed", REASON)
    newest = (await objects.app.ok(objects.merchant, "GET", "/ops/v1/audit", {"limit": 1}))["data"][0]
    assert newest["actor"].startswith("opr_") and newest["detail"]["reason"] == REASON
    assert newest["operation"] == "POST /ops/v1/doubts/{id}/resolve"


async def test_an_operator_of_several_merchants_names_one(objects: MerchantObjects) -> None:
    app, other = objects.app, await objects.app.merchant()
    everywhere = await app.operator("operator")
    unnamed = await app.call(everywhere, "GET", "/v1/balance")
    assert (unnamed.status, unnamed.json["error"]["param"]) == (400, "Tillway-Account")
    paid = await objects.paid()
    mine = await app.call(
        everywhere, "GET", f"/v1/payment_intents/{paid['id']}", tillway_account=objects.merchant.account
    )
    theirs = await app.call(everywhere, "GET", f"/v1/payment_intents/{paid['id']}", tillway_account=other.account)
    nobodys = await app.call(everywhere, "GET", "/v1/balance", tillway_account="acct_0000000000000000")
    assert (mine.status, theirs.status, nobodys.status) == (200, 404, 404)
    own = await app.operator("operator", objects.merchant.account)
    assert (await app.call(own, "GET", "/v1/balance")).status == 200
    foreign = await app.call(own, "GET", "/v1/balance", tillway_account=other.account)
    assert (foreign.status, foreign.json["error"]["code"]) == (403, "operator_forbidden")


async def test_support_refunds_up_to_its_limit_of_a_day(objects: MerchantObjects) -> None:
    app, account = objects.app, objects.merchant.account
    support, operator = await app.operator("support", account), await app.operator("operator", account)
    paid = await objects.paid(amount=50_000)

    async def refund(key: str, amount: int) -> tuple[int, Any]:
        answer = await app.call(key, "POST", "/v1/refunds", {"payment_intent": paid["id"], "amount": amount})
        return answer.status, answer.json.get("error", {}).get("code")

    assert await refund(support, 10_001) == (403, "refund_limit_exceeded")
    assert await refund(support, 6_000) == (200, None)
    assert await refund(support, 4_001) == (403, "refund_limit_exceeded")
    assert await refund(support, 4_000) == (200, None)
    assert await refund(support, 1) == (403, "refund_limit_exceeded")
    assert await refund(operator, 10_001) == (200, None)
    await app.wait(86_400)
    assert await refund(support, 1) == (403, "refund_limit_exceeded"), "of a payment, on any day"
    assert await refund(await app.operator("support", account), 1) == (403, "refund_limit_exceeded")
    paid = await objects.paid(amount=50_000)
    assert await refund(support, 10_000) == (200, None), "of another payment, on another day"


@pytest.mark.parametrize("payments", [1, 4])
async def test_refunds_at_one_moment_do_not_pass_the_limit_of_support(objects: MerchantObjects, payments: int) -> None:
    """One person on several payments, or several people on one."""
    app, account = objects.app, objects.merchant.account
    people = [await app.operator("support", account) for _ in range(1 if payments > 1 else 4)]
    paid = [await objects.paid(amount=50_000) for _ in range(payments)]
    answers = await asyncio.gather(
        *[
            app.call(people[n % len(people)], "POST", "/v1/refunds", {"payment_intent": id["id"], "amount": 4_000})
            for n, id in enumerate(paid if payments > 1 else paid * 4)
        ]
    )
    assert sorted(answer.status for answer in answers) == [200, 200, 403, 403]


async def test_a_viewer_sees_personal_data_masked(objects: MerchantObjects) -> None:
    customer = await objects.customer(email="ada@example.com", name="Ada Lovelace", phone="+441234")
    account = objects.merchant.account
    viewer, support = await objects.app.operator("viewer", account), await objects.app.operator("support", account)
    masked = await objects.app.ok(viewer, "GET", f"/v1/customers/{customer['id']}")
    whole = await objects.app.ok(support, "GET", f"/v1/customers/{customer['id']}")
    assert (masked["email"], masked["name"], masked["phone"]) == ("a***@example.com", "A***", "+***")
    assert (whole["email"], whole["name"]) == ("ada@example.com", "Ada Lovelace")
    listed = await objects.app.ok(viewer, "GET", "/v1/customers")
    assert "Lovelace" not in str(listed) and "ada@" not in str(listed)


async def test_a_viewer_sees_no_name_or_address_in_any_answer_about_a_person(objects: MerchantObjects) -> None:
    """Also where the member has a name of its own, in changes of the audit trail and of events, and in free text."""
    app = objects.app
    viewer = await app.operator("viewer", objects.merchant.account)
    customer = await objects.customer(
        name="Quibble One",
        email="quibble2@mail.example",
        individual_name="Quibble Three",
        business_name="Quibble Four",
        description="wrote from quibble5@mail.example, twice",
    )
    await objects.post(
        f"/v1/customers/{customer['id']}", name="Quibble Six", metadata={"mail": "quibble7@mail.example"}
    )
    await objects.post(f"/v1/customers/{customer['id']}/sources", source="tok_visa")
    (card,) = (await app.ok(objects.merchant, "GET", f"/v1/customers/{customer['id']}/cards"))["data"]
    await objects.post(
        f"/v1/customers/{customer['id']}/sources/{card['id']}", name="Quibble Eight", address_line1="Quibble Road 9"
    )
    for path in (
        "/v1/customers",
        f"/v1/customers/{customer['id']}/cards",
        "/v1/events",
        "/ops/v1/audit",
        "/ops/v1/customers",
    ):
        shown = str(await app.ok(viewer, "GET", path)).lower()
        assert customer["id"].lower() in shown and "quibble" not in shown, path
        assert "quibble" in str(await app.ok(objects.merchant, "GET", path)).lower(), path


async def test_an_admin_of_one_merchant_sets_no_faults_for_others(objects: MerchantObjects) -> None:
    other = MerchantObjects(objects.app, await objects.app.merchant())
    admin = await objects.app.operator("admin", other.merchant.account)
    rule = {"fault": "error_before", "operation": "authorize", "times": 1}
    await objects.app.ok(admin, "POST", "/ops/v1/simulator", {"faults": {"rules": [rule]}})
    everybodys = await objects.app.ok(
        await objects.app.operator("admin"),
        "GET",
        "/ops/v1/simulator",
        tillway_account=objects.merchant.account,
    )
    assert everybodys["faults"]["rules"] == []
    own = await objects.app.ok(other.merchant, "GET", "/ops/v1/simulator")
    assert own["faults"]["rules"][0]["fault"] == "error_before"


async def test_a_merchants_faults_are_for_its_own_payments(objects: MerchantObjects) -> None:
    other = MerchantObjects(objects.app, await objects.app.merchant())
    await objects.post("/ops/v1/simulator", faults={"rules": [{"fault": "throttle", "operation": "authorize"}]})
    assert (await other.paid())["status"] == "succeeded"
    admin, account = await objects.app.operator("admin"), other.merchant.account
    rule = {"fault": "error_before", "operation": "authorize", "times": 1}
    faults = {"faults": {"rules": [rule]}}
    everybodys = await objects.app.ok(admin, "POST", "/ops/v1/simulator", faults, tillway_account=account)
    assert len(everybodys["faults"]["rules"]) == 1
    own = await objects.app.ok(objects.merchant, "GET", "/ops/v1/simulator")
    assert own["faults"]["rules"][0]["fault"] == "throttle"
    for role in ("viewer", "support", "operator"):
        key = await objects.app.operator(role, other.merchant.account)
        assert (await objects.app.call(key, "POST", "/ops/v1/simulator", {"faults": {}})).status == 403


async def test_an_answer_is_replayed_to_its_own_kind_of_key_only(objects: MerchantObjects) -> None:
    """A publishable key got the whole answer of a secret key's request."""
    made = await objects.payment()
    path = f"/v1/payment_intents/{made['id']}/confirm"
    params = {"payment_method": "pm_card_visa", "client_secret": made["client_secret"]}
    first = await objects.app.call(objects.merchant, "POST", path, params, idempotency_key="one")
    assert first.status == 200 and "metadata" in first.json
    public = await objects.app.call(objects.merchant.public_key, "POST", path, params, idempotency_key="one")
    assert (public.status, public.json["error"]["code"]) == (400, "payment_intent_unexpected_state"), "it is a new one"
    operator = await objects.app.call(objects.merchant.operator_key, "POST", path, params, idempotency_key="one")
    assert operator.status == 403 and "metadata" not in operator.json
    again = await objects.app.call(objects.merchant, "POST", path, params, idempotency_key="one")
    assert again.body == first.body and again.headers["idempotent-replayed"] == "true"


async def test_a_merchants_key_names_no_other_merchant(objects: MerchantObjects) -> None:
    """A script that sent a secret key in place of the operator's was answered about the wrong merchant."""
    other = await objects.app.merchant()
    refused = await objects.app.call(objects.merchant, "GET", "/v1/balance", tillway_account=other.account)
    assert (refused.status, refused.json["error"]["param"]) == (403, "Tillway-Account")
    own = await objects.app.call(objects.merchant, "GET", "/v1/balance", tillway_account=objects.merchant.account)
    assert own.status == 200
