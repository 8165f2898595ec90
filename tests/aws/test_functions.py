"""The functions against the emulator: each in a process of its own, as Lambda runs it."""

import json
from pathlib import Path

import pytest
import stripe
from aws_stage import Stage
from function_host import Function
from tillway_server import tillway


@pytest.fixture(scope="module")
def admin(stage: Stage) -> Function:
    return stage.function("admin")


@pytest.fixture(scope="module")
def keys(admin: Function) -> dict[str, str]:
    """The first account and its keys, which the admin function has made."""
    assert [finding["ok"] for finding in admin.invoke({"action": "doctor"})["findings"]].count(False) > 0
    made: dict[str, str] = admin.invoke({"action": "init", "name": "Shop"})
    assert made.get("secret_key", "").startswith("sk_test_"), made
    return made


@pytest.fixture(scope="module")
def api(stage: Stage, keys: dict[str, str]) -> Function:
    return stage.function("api")


def client(function: Function, key: str) -> stripe.StripeClient:
    return stripe.StripeClient(key, base_addresses={"api": function.url}, max_network_retries=0)


def test_admin_makes_keys_once_and_more_on_request(admin: Function, keys: dict[str, str]) -> None:
    assert admin.invoke({"action": "init"})["error"] == "exists"
    more = admin.invoke({"action": "keys"})
    assert more.keys() == keys.keys() and more["account"] == keys["account"]
    assert more["secret_key"] != keys["secret_key"]
    assert admin.invoke({"action": "migrate"}) == {"schema": 2}
    doctor = admin.invoke({"action": "doctor"})
    assert doctor["ok"], doctor


def test_the_doctor_on_a_laptop_looks_at_a_stage(stage: Stage, keys: dict[str, str], tmp_path: Path) -> None:
    command = ("doctor", "--store", stage.environment["TILLWAY_STORE"], "--data-dir", tmp_path / "none", "--json")
    done = tillway(*command, cwd=tmp_path, **stage.environment)
    found = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0 and "key file" not in found and "mail" not in found, done.stdout
    assert found["directory"]["state"] == "warn" and "mkdir" in found["directory"]["remedy"]
    assert found["keys"]["what"] == f"the secret tillway-{stage.name}/keys, 1 key"
    absent = tillway(*command, cwd=tmp_path, **stage.environment | {"TILLWAY_KEYS": "secretsmanager:tillway-none/keys"})
    found = {finding["check"]: finding for finding in json.loads(absent.stdout)["findings"]}
    assert absent.returncode == 1 and "`init` of its admin function" in found["keys"]["remedy"]
    again = tillway("init", *command[1:], cwd=tmp_path, **stage.environment)
    assert again.returncode == 1 and "as well: tillway serve" in again.stderr


@pytest.mark.parametrize(
    ("event", "named"),
    [
        ({"action": "destroy"}, "action is 'destroy'"),
        ({}, "action"),
        ({"action": "keys", "acount": "acct_1"}, "acount"),
        ({"action": "keys", "account": "acct_of_nobody"}, "acct_of_nobody"),
        ("init", "action"),
    ],
)
def test_admin_names_what_is_wrong_with_an_event(
    admin: Function, keys: dict[str, str], event: object, named: str
) -> None:
    answer = admin.invoke(event)
    assert answer["error"] == "invalid" and named in answer["message"]


def test_the_official_sdk_pays_through_the_handler(api: Function, keys: dict[str, str]) -> None:
    shop = client(api, keys["secret_key"])
    intent = shop.v1.payment_intents.create(
        {
            "amount": 4200,
            "currency": "eur",
            "payment_method": "pm_card_visa",
            "confirm": True,
            "capture_method": "manual",
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        }
    )
    assert intent.status == "requires_capture"
    assert shop.v1.payment_intents.capture(intent.id).status == "succeeded"
    refund = shop.v1.refunds.create({"payment_intent": intent.id, "amount": 200})
    assert refund.status == "succeeded"
    listed = shop.v1.payment_intents.list({"limit": 3})
    assert [one.id for one in listed.data] == [intent.id]


def test_a_decline_and_a_wrong_key_are_errors_of_the_sdk(api: Function, keys: dict[str, str]) -> None:
    with pytest.raises(stripe.CardError) as declined:
        client(api, keys["secret_key"]).v1.payment_intents.create(
            {"amount": 1000, "currency": "eur", "payment_method": "pm_card_visa_chargeDeclined", "confirm": True,
             "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"}}
        )  # fmt: skip
    assert declined.value.code == "card_declined"
    with pytest.raises(stripe.AuthenticationError):
        client(api, "sk_test_of_nobody").v1.balance.retrieve()


def test_another_environment_answers_a_repeat_alike(stage: Stage, api: Function, keys: dict[str, str]) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "order-77"}
    order = {"amount": 1500, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True,
             "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"}}  # fmt: skip
    first = client(api, keys["secret_key"]).v1.payment_intents.create(order, options)  # type: ignore[arg-type]
    other = stage.function("api")
    repeated = client(other, keys["secret_key"]).v1.payment_intents.create(order, options)  # type: ignore[arg-type]
    assert repeated.id == first.id and repeated.status == "succeeded"


def test_what_an_environment_has_seen_of_its_callers_outlives_it(
    stage: Stage, keys: dict[str, str], tmp_path: Path
) -> None:
    """Nothing runs between invocations, and no environment is told of its end."""
    function = stage.function("api")
    for _ in range(3):
        with pytest.raises(stripe.AuthenticationError):
            client(function, keys["publishable_key"]).v1.refunds.list()
    assert client(function, keys["live_secret_key"]).v1.customers.list().data == []
    function.kill()
    data = ("--data-dir", tmp_path / "none", "--store", stage.environment["TILLWAY_STORE"])
    used = json.loads(tillway("keys", "list", "--json", *data, cwd=tmp_path, **stage.environment).stdout)
    hint = keys["live_secret_key"][-4:]
    assert [key["last_used_at"] is not None for key in used if key["hint"].endswith(hint)] == [True]
    shown = tillway("audit", "export", *data, cwd=tmp_path, **stage.environment).stdout.splitlines()
    refused = [entry for entry in map(json.loads, shown) if entry["operation"] == "access refused"]
    assert [entry["detail"]["times"] for entry in refused] == [1], "the other two wait for a minute"


def test_lines_are_json_and_tell_of_each_request(
    stage: Stage, keys: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    function = stage.function("api", TILLWAY_LOG_LEVEL="info")
    assert client(function, keys["secret_key"]).v1.balance.retrieve().object == "balance"
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith('{"time"')]
    [request] = [line for line in lines if line["message"] == "request"]
    assert (request["level"], request["route"], request["status"]) == ("info", "/v1/balance", 200)
