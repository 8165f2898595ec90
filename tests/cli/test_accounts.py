"""`tillway accounts`, as far as no other test needs it."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tillway_server import init, invoked, invoked_json

from tillway.cli.installation import with_store
from tillway.domain.account import SYSTEM
from tillway.engine.audit.entries import Author, build_writes
from tillway.engine.time_mark import clock_above
from tillway.http.messages import Request
from tillway.operations.moved_amounts import find_account
from tillway.settings import Settings
from tillway.store.port import Store
from tillway.wiring import assemble


def test_the_amounts_of_an_account_without_payments(tmp_path: Path) -> None:
    account = init(tmp_path / "data")["account"]
    shown = invoked_json("accounts", "amounts", account, "--data-dir", tmp_path / "data")
    assert shown == {"account": account, "amounts": "stripe", "since": None, "sums": []}
    unknown = invoked("accounts", "amounts", "acct_nobody", "--data-dir", tmp_path / "data")
    assert unknown.returncode != 0 and "acct_nobody" in unknown.stderr


async def _make_earlier(store: Store, account: str, **fields: Any) -> None:
    """Let the account be one that an earlier version made, with these `fields`."""
    found, version = await find_account(store, account)
    earlier = msgspec.structs.replace(found, amounts_on_v1="stored", **fields)
    at = (await clock_above(store)).moment()
    by = Author("cli:test", "make an earlier account")
    await store.commit(build_writes(SYSTEM, by, at, (version, found, earlier)))


def _pay_as_earlier(data_dir: Path, made: dict[str, str]) -> None:
    """Let the account be one that an earlier version made, with a payment of 500,000 kr."""

    async def work() -> None:
        running = await assemble(Settings(data_dir=data_dir))
        await _make_earlier(running.store, made["account"])
        form = {"authorization": f"Bearer {made['secret_key']}", "content-type": "application/x-www-form-urlencoded"}
        body = b"amount=500000&currency=isk&payment_method=pm_card_visa&confirm=true&return_url=https://example.com/"
        answer = await running.api.handle(Request("POST", "/v1/payment_intents", "", form, body, "127.0.0.1"))
        assert answer.status == 200 and msgspec.json.decode(answer.body)["amount"] == 500000, answer.body
        await running.close()

    asyncio.run(work())


def test_the_amounts_of_an_account_of_an_earlier_version(tmp_path: Path) -> None:
    made = init(tmp_path / "data")
    data, account = ("--data-dir", tmp_path / "data"), made["account"]
    _pay_as_earlier(tmp_path / "data", made)
    told = invoked("migrate", *data).stderr
    assert account in told and "tillway accounts amounts" in told
    plan = invoked("accounts", "amounts", account, *data)
    assert plan.returncode == 0 and "--yes" in plan.stderr and "has stored amounts" in plan.stdout
    moved = invoked_json("accounts", "amounts", account, "--yes", *data)
    (sums,) = moved["sums"]
    assert moved["amounts"] == "stripe" and moved["since"] > 0
    assert sums["ledger"] == sums["reports"] == sums["v1_before"] > 400_000
    assert sums["v1_after"] == 100 * sums["ledger"]
    assert invoked_json("accounts", "amounts", account, *data) == moved, "it compares again, and changes nothing"
    assert account not in invoked("migrate", *data).stderr
    trail = invoked("audit", "export", *data).stdout
    assert trail.count('"operation":"tillway accounts amounts"') == 1 and '"v1_after"' in trail
    assert invoked("audit", "verify", *data).returncode == 0


@pytest.mark.parametrize("command", [("migrate",), ("vault", "seal")], ids=" ".join)
def test_an_upgrade_moves_accounts_that_have_none_of_the_three_currencies(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    made = init(tmp_path / "data")
    data = ("--data-dir", tmp_path / "data")
    unused, set_to_isk = (invoked_json("accounts", "create", *data)["account"] for _ in range(2))
    _pay_as_earlier(tmp_path / "data", made)
    settings = Settings(data_dir=tmp_path / "data")
    with_store(settings, lambda store: _make_earlier(store, unused))
    with_store(settings, lambda store: _make_earlier(store, set_to_isk, default_currency="isk"))
    told = invoked(*command, *data).stderr
    assert "have none of these yet: 1." in told and unused not in told
    assert made["account"] in told and set_to_isk in told
    amounts = [invoked_json("accounts", "amounts", one, *data) for one in (unused, set_to_isk)]
    assert [one["amounts"] for one in amounts] == ["stripe", "stored"]
    again = invoked(*command, *data).stderr
    assert "none of these yet" not in again and made["account"] in again
    assert invoked("audit", "verify", *data).returncode == 0


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
    for command in (
        ("keys", "create", "--account", account),
        ("oauth", "clients", "add", "--account", account, "--scope", "payments:read"),
        ("operators", "add", "late", "--role", "viewer", "--account", account),
    ):
        refused = invoked(*command, *data)
        assert refused.returncode == 1 and "is deleted" in refused.stderr, command
    assert trail.count("The contract ended.") == 4 and '"operation":"tillway accounts delete"' in trail
    assert invoked("audit", "verify", *data).returncode == 0
