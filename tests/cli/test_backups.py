"""`tillway backup`, `restore` and `migrate`, and `tillway vault rotate`, beside a server that runs."""

import shutil
from pathlib import Path

import pytest
from tillway_server import TillwayServer, init, invoked, tillway, tillway_json

PAYMENT = {
    "amount": 4200,
    "currency": "eur",
    "payment_method": "pm_card_visa",
    "confirm": True,
    "return_url": "https://example.com/back",
}


def test_a_backup_of_a_running_server_restores_what_was_paid(tmp_path: Path) -> None:
    data_dir, copy, elsewhere = tmp_path / "data", tmp_path / "backup", tmp_path / "elsewhere"
    made = init(data_dir)
    server = TillwayServer(data_dir, made)
    kept = server.client.v1.payment_intents.create(PAYMENT)
    backup = tillway_json("backup", copy, "--with-keys", "--data-dir", data_dir)
    assert {file["name"] for file in backup["files"]} == {"tillway.db", "keys.json"}
    late = server.client.v1.payment_intents.create(PAYMENT)

    assert tillway_json("backup", "--verify", copy)["schema_version"] == backup["schema_version"]
    again = tillway("backup", copy, "--data-dir", data_dir)
    assert again.returncode == 1 and "is there already" in again.stderr

    in_use = tillway("restore", copy, "--data-dir", data_dir, "--replace")
    assert in_use.returncode == 1 and "Stop it first" in in_use.stderr
    assert server.client.v1.payment_intents.retrieve(late.id).status == "succeeded"
    assert server.stop() == 0

    assert tillway("restore", copy, "--data-dir", elsewhere).returncode == 0
    assert tillway("restore", copy, "--data-dir", data_dir).returncode == 1
    assert tillway("restore", copy, "--data-dir", data_dir, "--replace").returncode == 0
    examined = tillway("doctor", "--data-dir", data_dir)
    assert examined.returncode == 1 and f"Run: tillway recover --data-dir {data_dir}" in examined.stdout
    for place in (data_dir, elsewhere):
        server = TillwayServer(place, made)
        assert [payment.id for payment in server.client.v1.payment_intents.list().data] == [kept.id]
        assert server.stop() == 0


def test_a_backup_takes_no_key_file_that_opens_nothing_in_it(tmp_path: Path) -> None:
    data_dir, key_file = tmp_path / "data", tmp_path / "data" / "keys.json"
    init(data_dir)
    init(tmp_path / "other")
    command = ("backup", tmp_path / "copy", "--with-keys", "--data-dir", data_dir)
    own = key_file.read_bytes()
    key_file.write_bytes((tmp_path / "other" / "keys.json").read_bytes())
    foreign = invoked(*command)
    assert foreign.returncode == 1 and "key file of another installation" in foreign.stderr
    key_file.unlink()
    assert invoked(*command).returncode == 1
    assert not (tmp_path / "copy").exists()
    key_file.write_bytes(own)
    key_file.chmod(0o600)
    assert invoked(*command).returncode == 0


def test_a_backup_leaves_the_key_file_out(tmp_path: Path) -> None:
    data_dir, copy, elsewhere = tmp_path / "data", tmp_path / "backup", tmp_path / "elsewhere"
    made = init(data_dir)
    server = TillwayServer(data_dir, made)
    kept = server.client.v1.payment_intents.create(PAYMENT)
    done = tillway("backup", copy, "--data-dir", data_dir)
    assert done.returncode == 0 and f"Keep a copy of {data_dir / 'keys.json'} elsewhere" in done.stderr
    assert sorted(path.name for path in copy.iterdir()) == ["manifest.json", "tillway.db"]
    assert server.stop() == 0

    restored = tillway("restore", copy, "--data-dir", elsewhere)
    assert restored.returncode == 0 and f"at {elsewhere / 'keys.json'} before you start" in restored.stderr
    refused = tillway("serve", "--data-dir", elsewhere, "--port", "0")
    assert refused.returncode == 1 and "keys.json" in refused.stderr and "Traceback" not in refused.stderr
    shutil.copy2(data_dir / "keys.json", elsewhere)
    # Over the installation itself, the key file stays where it is.
    assert tillway("restore", copy, "--data-dir", data_dir, "--replace").returncode == 0
    for place in (data_dir, elsewhere):
        server = TillwayServer(place, made)
        assert server.client.v1.payment_intents.retrieve(kept.id).client_secret == kept.client_secret
        assert server.stop() == 0


def test_the_key_file_of_another_installation_is_refused(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        init(tmp_path / name)
    shutil.copy2(tmp_path / "theirs" / "keys.json", tmp_path / "ours" / "keys.json")
    refused = tillway("serve", "--data-dir", tmp_path / "ours", "--port", "0")
    assert refused.returncode == 1 and "key file of another installation" in refused.stderr
    assert "Traceback" not in refused.stderr
    examined = tillway("doctor", "--data-dir", tmp_path / "ours")
    assert examined.returncode == 1 and "it is the key file of another installation" in examined.stdout


def test_a_damaged_backup_is_found_and_not_restored(tmp_path: Path) -> None:
    init(tmp_path / "data")
    assert tillway("backup", tmp_path / "copy", "--data-dir", tmp_path / "data").returncode == 0
    with (tmp_path / "copy" / "tillway.db").open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff")
    for command in (("backup", "--verify"), ("restore", "--data-dir", tmp_path / "new")):
        done = tillway(*command, tmp_path / "copy")
        assert done.returncode == 1 and "checksum differs" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()


def test_migrate_wants_the_directory_to_itself(tillway_server: TillwayServer) -> None:
    done = tillway("migrate", "--data-dir", tillway_server.data_dir)
    assert done.returncode == 1 and "Stop it first" in done.stderr


def test_vault_keys_rotate_under_a_running_server(tmp_path: Path) -> None:
    server = TillwayServer(tmp_path, init(tmp_path))
    method = server.client.v1.payment_methods.create(
        {"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123"}}
    )
    rotated = tillway_json("vault", "rotate", "--data-dir", tmp_path)
    assert rotated["moved"] >= 1 and rotated["damaged"] == [] and len(rotated["retired"]) == 1
    paid = server.client.v1.payment_intents.create({**PAYMENT, "payment_method": method.id})
    assert paid.status == "succeeded"

    states = {key["id"]: key["state"] for key in tillway_json("vault", "keys", "--data-dir", tmp_path)}
    assert states == {rotated["retired"][0]: "retired", rotated["key_id"]: "current"}
    used = tillway("vault", "forget", rotated["key_id"], "--data-dir", tmp_path)
    assert used.returncode == 1 and rotated["key_id"] in used.stderr
    assert tillway("vault", "forget", rotated["retired"][0], "--data-dir", tmp_path).returncode == 0
    assert server.client.v1.payment_intents.create({**PAYMENT, "payment_method": "pm_card_visa"}).status == "succeeded"
    assert server.stop() == 0


@pytest.mark.parametrize(
    "command", [("backup", "/nowhere/backup"), ("migrate",), ("vault", "rotate"), ("keys", "list")]
)
def test_without_an_installation_they_say_how_to_make_one(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = invoked(*command, "--data-dir", tmp_path / "none")
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    assert "tillway init" in done.stderr or "Name the data directory" in done.stderr
