"""The doctor and the backup through the API: they do what the commands do, and stand in the audit trail."""

from pathlib import Path

from tillway_server import StartServer, init, invoked_json


def test_an_admin_of_the_installation_examines_it_and_backs_it_up(start_server: StartServer, tmp_path: Path) -> None:
    data_dir, place = tmp_path / "data", tmp_path / "elsewhere"
    made = init(data_dir)
    (data_dir / "tillway.toml").write_text(f'backup_directory = "{place}"\n')
    server = start_server(data_dir, made)
    key = invoked_json("operators", "add", "Ines", "--role", "admin", "--data-dir", data_dir)["test_key"]
    status, system = server.call("GET", "/ops/v1/system", key=key)
    assert status == 200 and system["store"] == "file" and system["store_bytes"] > 0 and system["backup"] is None
    status, doctor = server.call("POST", "/ops/v1/doctor", {"reason": "After the update."}, key=key)
    assert status == 200 and doctor["ok"] is True, doctor
    commands = invoked_json("doctor", "--data-dir", data_dir)["findings"]
    assert [one["check"] for one in doctor["findings"]] == [one["check"] for one in commands]
    status, backup = server.call("POST", "/ops/v1/backups", key=key, idempotency_key="tonight")
    again = server.call("POST", "/ops/v1/backups", key=key, idempotency_key="tonight")
    assert again == (status, backup) and len(list(place.iterdir())) == 1
    assert status == 200 and backup["ok"] is True and Path(backup["directory"]).parent == place, backup
    assert invoked_json("backup", "--verify", backup["directory"])["schema_version"] > 0
    assert server.call("GET", "/ops/v1/system", key=key)[1]["backup"]["made_at"] == backup["made_at"]
    trail = server.call("GET", "/ops/v1/audit?owner=installation", key=key)[1]["data"]
    told = {entry["operation"]: entry["detail"].get("reason") for entry in trail}
    assert told["POST /ops/v1/doctor"] == "After the update." and "POST /ops/v1/backups" in told
    assert server.stop() == 0
