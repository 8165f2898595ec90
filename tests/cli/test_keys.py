"""`tillway keys` and `tillway accounts`, beside a server that runs."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import stripe
from sdk_shop import until
from tillway_server import ENVIRONMENT, TillwayServer, init, invoked, invoked_json, tillway, tillway_json


def test_a_new_key_works_at_once_and_a_revoked_one_within_two_seconds_no_more(tillway_server: TillwayServer) -> None:
    account = tillway_server.new_account()["account"]
    place = ("--data-dir", tillway_server.data_dir)
    made = tillway_json("keys", "create", "--account", account, "--name", "web shop", *place)
    assert made["secret"].startswith("sk_test_") and made["account"] == account and made["name"] == "web shop"
    client = tillway_server.client_with(made["secret"])
    assert client.v1.balance.retrieve().livemode is False

    revoked = tillway_json("keys", "revoke", made["id"], *place)
    assert revoked["state"] == "revoked"
    until(lambda: tillway_server.call("GET", "/v1/balance", key=made["secret"])[0] == 401)
    with pytest.raises(stripe.AuthenticationError):
        client.v1.balance.retrieve()
    assert tillway_server.client.v1.balance.retrieve()

    again = tillway_json("keys", "revoke", made["id"], *place)
    assert again["revoked_at"] == revoked["revoked_at"]


def test_a_key_can_end_later_while_its_users_change_over(tillway_server: TillwayServer) -> None:
    account = tillway_server.new_account()["account"]
    place = ("--data-dir", tillway_server.data_dir)
    made = tillway_json("keys", "create", "--account", account, *place)
    revoked = tillway_json("keys", "revoke", made["id"], "--after-seconds", "3600", *place)
    assert revoked["state"] == "active" and revoked["revoked_at"] > time.time() + 3500
    assert tillway_server.client_with(made["secret"]).v1.balance.retrieve()


def test_a_list_shows_no_secret(tillway_server: TillwayServer) -> None:
    made = tillway_server.new_account()
    place = ("--data-dir", tillway_server.data_dir)
    listed = tillway_json("keys", "list", "--account", made["account"], *place)
    assert sorted((key["mode"], key["kind"]) for key in listed) == [
        ("live", "publishable"),
        ("live", "secret"),
        ("test", "publishable"),
        ("test", "secret"),
    ]
    text = tillway("keys", "list", *place).stdout
    for name in ("secret_key", "publishable_key", "live_secret_key", "live_publishable_key"):
        assert made[name] not in text and made[name][-4:] in text
    assert made["account"] in tillway("accounts", "list", *place).stdout


def test_with_several_accounts_one_is_named(tillway_server: TillwayServer) -> None:
    tillway_server.new_account()
    done = tillway("keys", "create", "--data-dir", tillway_server.data_dir)
    assert done.returncode == 2 and "--account" in done.stderr
    done = tillway("keys", "create", "--account", "acct_nobody", "--data-dir", tillway_server.data_dir)
    assert done.returncode == 1 and "tillway accounts list" in done.stderr
    done = tillway("keys", "revoke", "key_unknown", "--data-dir", tillway_server.data_dir)
    assert done.returncode == 1 and "There is no key 'key_unknown'" in done.stderr


def test_with_one_account_it_need_not_be_named(tmp_path) -> None:
    made = init(tmp_path / "data")
    key = tillway_json("keys", "create", "--kind", "publishable", "--mode", "live", "--data-dir", tmp_path / "data")
    assert key["secret"].startswith("pk_live_") and key["account"] == made["account"]
    expiring = tillway_json("keys", "create", "--expires-in-days", "1", "--data-dir", tmp_path / "data")
    assert 86_000 < expiring["expires_at"] - time.time() <= 86_400


def test_merchants_do_not_see_each_other(tillway_server: TillwayServer) -> None:
    first, second = (tillway_server.client_with(tillway_server.new_account()["secret_key"]) for _ in range(2))
    payment = first.v1.payment_intents.create({"amount": 100, "currency": "eur"})
    with pytest.raises(stripe.InvalidRequestError, match="No such payment_intent"):
        second.v1.payment_intents.retrieve(payment.id)


def failing(stdout: str, *arguments: str | Path) -> str:
    """Run a command whose standard output is opened by `stdout`, a redirection of the shell, and takes nothing.

    Return what it says. It must fail.
    """
    command = [sys.executable, "-m", "tillway.cli.main", *map(str, arguments)]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {stdout}', "sh", *command],
        stderr=subprocess.PIPE,
        text=True,
        timeout=240,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    return done.stderr


def into_full_disk(*arguments: str | Path, stdout: str = "> /dev/full") -> str:
    """The same for a command that makes a secret."""
    said = failing(stdout, *arguments)
    assert "does not work. Run the command again" in said, said
    return said


def test_a_list_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    init(tmp_path)
    for stdout, why in (("> /dev/full", "No space left on device"), (">&-", "standard output is closed")):
        said = failing(stdout, "keys", "list", "--data-dir", tmp_path)
        assert said == f"tillway: the result, or a file of it, could not be written ({why})\n"


def test_a_key_that_could_not_be_shown_does_not_work(tmp_path: Path) -> None:
    init(tmp_path)
    known = {key["id"] for key in invoked_json("keys", "list", "--data-dir", tmp_path)}
    into_full_disk("keys", "create", "--data-dir", tmp_path)
    into_full_disk("keys", "create", "--data-dir", tmp_path, stdout=">&-")
    unseen = [key for key in invoked_json("keys", "list", "--data-dir", tmp_path) if key["id"] not in known]
    assert [key["state"] for key in unseen] == ["revoked", "revoked"]


def test_a_rolled_key_that_could_not_be_shown_changes_nothing(tmp_path: Path) -> None:
    init(tmp_path)
    [old, *_] = invoked_json("keys", "list", "--data-dir", tmp_path)
    for _ in range(2):
        into_full_disk("keys", "roll", old["id"], "--data-dir", tmp_path)
    keys = {key["id"]: key for key in invoked_json("keys", "list", "--data-dir", tmp_path)}
    assert keys[old["id"]] == old and sum(key["state"] == "revoked" for key in keys.values()) == 2
    assert invoked("audit", "verify", "--data-dir", tmp_path).returncode == 0, "and no server ever ran here"


def test_an_installation_whose_keys_could_not_be_shown_is_made_anew(tmp_path: Path) -> None:
    into_full_disk("init", "--data-dir", tmp_path)
    assert invoked_json("accounts", "list", "--data-dir", tmp_path) == []
    assert invoked_json("keys", "list", "--data-dir", tmp_path) == []
    made = invoked_json("init", "--data-dir", tmp_path)
    assert [account["account"] for account in invoked_json("accounts", "list", "--data-dir", tmp_path)] == [
        made["account"]
    ]
    into_full_disk("accounts", "create", "--data-dir", tmp_path)
    assert len(invoked_json("accounts", "list", "--data-dir", tmp_path)) == 1


def test_credentials_that_could_not_be_shown_do_not_work(tmp_path: Path) -> None:
    init(tmp_path)
    place = ("--data-dir", tmp_path)
    into_full_disk("operators", "add", "ada", *place)
    assert invoked_json("operators", "list", *place) == []
    assert invoked_json("operators", "add", "ada", *place)["operator"]
    into_full_disk("oauth", "clients", "add", "--scope", "payments:read", *place)
    [client] = invoked_json("oauth", "clients", "list", *place)
    assert client["state"] == "revoked" and client["secrets"] == []
    made = invoked_json("oauth", "clients", "add", "--scope", "payments:read", *place)
    into_full_disk("oauth", "clients", "rotate", made["client_id"], *place)
    [again] = [one for one in invoked_json("oauth", "clients", "list", *place) if one["client_id"] == made["client_id"]]
    assert again["state"] == "active" and [secret["hint"][-4:] for secret in again["secrets"]] == [
        made["client_secret"][-4:]
    ]


def test_the_last_use_of_a_key_is_listed_and_an_expired_key_is_told_so(tmp_path: Path) -> None:
    made, place = init(tmp_path), ("--data-dir", tmp_path)
    soon = datetime.fromtimestamp(int(time.time()) + 12, UTC).isoformat()
    ending = invoked_json("keys", "create", "--expires", soon, *place)
    for wrong in (("--expires", "2020-01-01"), ("--expires", soon, "--expires-in-days", "1"), ("--expires", "soon")):
        assert invoked("keys", "create", *wrong, *place).returncode == 2
    began = int(time.time())
    server = TillwayServer(tmp_path, made)
    assert server.call("GET", "/v1/balance")[0] == 200
    assert server.call("GET", "/v1/balance", key=ending["secret"])[0] in (200, 401)
    until(lambda: time.time() > ending["expires_at"])
    status, refused = server.call("GET", "/v1/balance", key=ending["secret"])
    assert (status, refused["error"]["code"]) == (401, "api_key_expired")
    assert refused["error"]["message"].startswith("Expired API Key provided: sk_test_")
    shown = server.call("GET", "/ops/v1/keys")[1]["data"]
    assert {(key["id"], key["state"]) for key in shown} >= {(ending["id"], "expired")}
    assert {(key["object"], key["mode"], key["account"]) for key in shown} == {("api_key", "test", made["account"])}
    assert len(shown) == 3 and made["secret_key"] not in str(shown)
    assert server.stop() == 0
    listed = {key["id"]: key for key in invoked_json("keys", "list", *place)}
    [used] = [
        key
        for key in listed.values()
        if key["mode"] == "test" and key["kind"] == "secret" and key["hint"][-4:] == made["secret_key"][-4:]
    ]
    assert began <= used["last_used_at"] <= time.time()
    assert listed[ending["id"]]["state"] == "expired"
    assert [key["last_used_at"] for key in listed.values() if key["mode"] == "live"] == [None, None]


def test_origins_of_a_publishable_key_are_added_removed_and_audited(tmp_path: Path) -> None:
    init(tmp_path)
    keys = invoked_json("keys", "list", "--data-dir", tmp_path)
    ids = {(key["mode"], key["kind"]): key["id"] for key in keys}
    place = ("--data-dir", tmp_path)
    live = ids["live", "publishable"]
    assert invoked_json("keys", "origins", live, *place)["origins"] == []
    added = ("--add", "https://shop.example/", "--add", "https://www.shop.example", "--add", "https://shop.example")
    assert invoked_json("keys", "origins", live, *added, *place)["origins"] == [
        "https://shop.example",
        "https://www.shop.example",
    ]
    left = ["https://www.shop.example"]
    assert invoked_json("keys", "origins", live, "--remove", "https://shop.example", *place)["origins"] == left
    assert invoked("keys", "origins", live, *place).stdout == "https://www.shop.example\n"
    rolled = invoked_json("keys", "roll", live, *place)
    assert invoked_json("keys", "origins", rolled["id"], *place)["origins"] == left
    told = [json.loads(line) for line in invoked("audit", "export", *place).stdout.splitlines()]
    entries = [entry for entry in told if entry["operation"] == "tillway keys origins"]
    assert [entry["changes"][0]["after"]["origins"] for entry in entries] == [
        ["https://shop.example", "https://www.shop.example"],
        left,
    ]

    for arguments, code, said in (
        ((live, "--add", "http://shop.example"), 2, "A live key takes cards on https pages only"),
        ((live, "--add", "shop.example"), 2, "Write it as https://shop.example"),
        ((live, "--remove", "https://other.example"), 1, "does not have the origin"),
        ((ids["live", "secret"], "--add", "https://shop.example"), 1, "is a secret key"),
        (("key_none", "--add", "https://shop.example"), 1, "There is no key 'key_none'"),
    ):
        done = invoked("keys", "origins", *arguments, *place)
        assert done.returncode == code and said in done.stderr, done.stderr
