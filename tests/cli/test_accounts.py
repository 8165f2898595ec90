"""`tillway accounts`, as far as no other test needs it."""

from pathlib import Path

from tillway_server import init, invoked, invoked_json


def test_the_amounts_of_an_account_without_payments(tmp_path: Path) -> None:
    account = init(tmp_path / "data")["account"]
    shown = invoked_json("accounts", "amounts", account, "--data-dir", tmp_path / "data")
    assert shown == {"account": account, "amounts": "stripe"}
    unknown = invoked("accounts", "amounts", "acct_nobody", "--data-dir", tmp_path / "data")
    assert unknown.returncode != 0 and "acct_nobody" in unknown.stderr


def test_the_brand_of_checkout_pages(tmp_path: Path) -> None:
    data = ("--data-dir", tmp_path / "data")
    account = init(tmp_path / "data")["account"]
    shown = invoked_json("accounts", "brand", account, "--name", "Kettle & Leaf", "--colour", "#2F4F3A", *data)
    assert shown == {"account": account, "name": "Kettle & Leaf", "colour": "#2f4f3a"}
    assert invoked_json("accounts", "brand", account, "--colour", "", *data)["colour"] == ""
    for wrong in (("--colour", "green"), ("--name", " "), ()):
        assert invoked("accounts", "brand", account, *wrong, *data).returncode == 2


def test_settings_of_a_merchant(tmp_path: Path) -> None:
    data = ("--data-dir", tmp_path / "data")
    account = init(tmp_path / "data")["account"]
    given = ("--fee-bps", "120", "--settlement-days", "3", "--origin", "https://shop.example", "--country", "de")
    changed = invoked_json("accounts", "set", account, *given, *data)
    assert changed["fee"] == {"fixed_minor": 0, "rate_bps": 120} and changed["settlement_days"] == 3
    assert (changed["origins"], changed["country"]) == (["https://shop.example"], "DE")
    assert invoked_json("accounts", "set", account, "--default", "fee", *data)["fee"] is None
    assert invoked_json("accounts", "show", account, *data)["settlement_days"] == 3
    wrong = invoked("accounts", "set", account, "--time-zone", "Mars", *data)
    assert wrong.returncode == 2 and "Europe/Berlin" in wrong.stderr
    assert invoked("accounts", "set", account, *data).returncode == 2
    half = invoked("accounts", "set", account, "--fee-fixed", "30", *data)
    assert half.returncode == 2 and "--fee-bps" in half.stderr


def test_the_end_of_an_account(tmp_path: Path) -> None:
    data, why = ("--data-dir", tmp_path / "data"), ("--reason", "The contract ended.")
    account = init(tmp_path / "data")["account"]
    invoked_json("accounts", "rename", account, "Kettle", *data)
    invoked_json("accounts", "handle", account, "kettle", *data)
    early = invoked("accounts", "delete", account, *why, *data)
    assert early.returncode == 1 and "Disable it first" in early.stderr
    assert invoked_json("accounts", "disable", account, *why, *data)["status"] == "disabled"
    assert invoked_json("accounts", "enable", account, *why, *data)["status"] == "active"
    invoked_json("accounts", "disable", account, *why, *data)
    assert invoked_json("accounts", "delete", account, *why, *data)["status"] == "deleted"
    assert invoked("accounts", "handle", account, "kettle", *data).returncode == 1
    (listed,) = invoked_json("accounts", "list", *data)
    assert (listed["account"], listed["name"], listed["handle"], listed["status"]) == (account, "Kettle", "", "deleted")
    assert {key["state"] for key in invoked_json("keys", "list", *data)} == {"revoked"}
    trail = invoked("audit", "export", *data).stdout
    assert trail.count("The contract ended.") == 4 and '"operation":"tillway accounts delete"' in trail
    assert invoked("audit", "verify", *data).returncode == 0
