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
