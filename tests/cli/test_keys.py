"""`tillway keys` and `tillway accounts`, beside a server that runs."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import stripe
from tillway_server import TillwayServer, init, tillway, tillway_json


def test_a_new_key_works_at_once_and_a_revoked_one_within_two_seconds_no_more(tillway_server: TillwayServer) -> None:
    account = tillway_server.new_account()["account"]
    place = ("--data-dir", tillway_server.data_dir)
    made = tillway_json("keys", "create", "--account", account, "--name", "web shop", *place)
    assert made["secret"].startswith("sk_test_") and made["account"] == account and made["name"] == "web shop"
    client = tillway_server.client_with(made["secret"])
    assert client.v1.balance.retrieve().livemode is False

    revoked = tillway_json("keys", "revoke", made["id"], *place)
    assert revoked["state"] == "revoked"
    time.sleep(2.1)
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


def test_a_key_that_could_not_be_shown_does_not_work(tmp_path: Path) -> None:
    init(tmp_path)
    before = tillway_json("keys", "list", "--data-dir", tmp_path)
    command = [sys.executable, "-m", "tillway.cli.main", "keys", "create", "--data-dir", str(tmp_path)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "does not work. Run the command again" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    known = {key["id"] for key in before}
    [unseen] = [key for key in tillway_json("keys", "list", "--data-dir", tmp_path) if key["id"] not in known]
    assert unseen["state"] == "revoked"
