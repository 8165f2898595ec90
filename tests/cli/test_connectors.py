"""`tillway connectors` and `tillway bank`: a server, a bank of its own, and payments through it."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sdk_shop import until
from tillway_server import ENVIRONMENT, TillwayServer, init, invoked, invoked_json, tillway, tillway_json

from tillway.domain.account import SYSTEM
from tillway.domain.connector_config import ConnectorConfig
from tillway.engine.connections import open_settings
from tillway.installation import open_store, open_vault
from tillway.settings import Settings
from tillway.store.codec import decode

PAYMENT = {
    "amount": 4200,
    "currency": "eur",
    "payment_method": "pm_card_visa",
    "confirm": True,
    "return_url": "https://example.com/back",
}


class BankProcess:
    """A running `tillway bank`."""

    def __init__(self, journal: Path, *arguments: str) -> None:
        self.journal = journal
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tillway.cli.main", "bank", "--port", "0", "--journal", str(journal), *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"listening on (\S+)", line)
        assert found is not None, line
        self.url = f"http://{found.group(1)}"

    def stop(self, sign: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(sign)
        return self.process.wait(20)


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[BankProcess]:
    bank = BankProcess(tmp_path / "journal")
    yield bank
    bank.stop()


def pays_through(bank: BankProcess, server: TillwayServer) -> bool:
    """Whether a payment, which succeeds, goes through the bank: a running server uses a change within two seconds."""
    before = bank.journal.read_text()
    assert server.client.v1.payment_intents.create(PAYMENT).status == "succeeded"
    return bank.journal.read_text() != before


def test_payments_go_through_a_bank_that_is_added_while_the_server_runs(tmp_path: Path, bank: BankProcess) -> None:
    data_dir = tmp_path / "data"
    server = TillwayServer(data_dir, init(data_dir))
    place = ("--data-dir", data_dir)
    assert server.client.v1.payment_intents.create(PAYMENT).status == "succeeded"
    assert bank.journal.read_text() == ""

    added = tillway_json(
        "connectors", "add", "bank", "--kind", "http_bank", "--set", f"base_url={bank.url}", "--default", *place
    )
    assert added["default"] is True and added["settings"] == ["base_url"]
    until(lambda: pays_through(bank, server))
    effects = [json.loads(line) for line in bank.journal.read_text().splitlines()]
    assert [effect["amount"] for effect in effects if "amount" in effect] == [4200]

    assert tillway("connectors", "remove", "bank", *place).returncode == 0
    until(lambda: not pays_through(bank, server))
    assert server.stop() == 0


def test_a_bank_with_money_in_doubt_is_not_removed(tmp_path: Path, bank: BankProcess) -> None:
    data_dir = tmp_path / "data"
    server = TillwayServer(data_dir, init(data_dir), ["--answer-within-seconds", "1", "--shutdown-seconds", "1"])
    place = ("--data-dir", data_dir)
    settings = ("--set", f"base_url={bank.url}", "--set", "timeout_seconds=0.5", "--set", "ask_after_seconds=60")
    assert tillway("connectors", "add", "bank", "--kind", "http_bank", *settings, "--default", *place).returncode == 0
    until(lambda: pays_through(bank, server))
    bank.process.send_signal(signal.SIGSTOP)
    assert server.client.v1.payment_intents.create(PAYMENT).status == "processing"
    bank.process.send_signal(signal.SIGCONT)

    refused = tillway("connectors", "remove", "bank", *place)
    assert refused.returncode == 1 and "still waits for an answer of 'bank'" in refused.stderr
    assert tillway("connectors", "remove", "bank", "--force", *place).returncode == 0
    assert server.stop() == 0


def test_one_default_a_mode(tmp_path: Path) -> None:
    init(tmp_path)
    place = ("--set", "base_url=http://127.0.0.1:4545", "--kind", "http_bank", "--data-dir", tmp_path)
    for name, mode in (("one", "test"), ("two", "test"), ("three", "live")):
        assert invoked("connectors", "add", name, "--mode", mode, "--default", *place).returncode == 0
    listed = invoked_json("connectors", "list", "--data-dir", tmp_path)
    assert {(config["name"], config["mode"], config["default"]) for config in listed} == {
        ("one", "test", False),
        ("two", "test", True),
        ("three", "live", True),
    }
    again = invoked("connectors", "add", "two", *place)
    assert again.returncode == 1 and "--replace" in again.stderr
    assert invoked("connectors", "add", "two", "--replace", "--set", "timeout_seconds=5", *place).returncode == 0
    listed = {config["name"]: config for config in invoked_json("connectors", "list", "--data-dir", tmp_path)}
    assert listed["two"]["default"] is True and listed["two"]["settings"] == ["base_url", "timeout_seconds"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("bank", "--kind", "http_bank"), "base_url: missing"),
        (("bank", "--kind", "http_bank", "--set", "base_url=ftp://bank"), "http://"),
        (("bank", "--kind", "http_bank", "--set", "base_url"), "NAME=VALUE"),
        (("bank", "--kind", "http_bank", "--set", "colour=blue"), "colour: unknown"),
        (("bank", "--kind", "http_bank", "--set", "base_url=@/nowhere"), "/nowhere cannot be read"),
        (("bank", "--kind", "piggy"), "no connector of this kind; there are "),
        (("Bank!", "--kind", "http_bank"), "cannot name a connector"),
        (("new", "--kind", "http_bank", "--set", "base_url=http://127.0.0.1:1"), "not `new`"),
        (("simulator", "--kind", "simulator", "--mode", "live"), "serves test mode only"),
        (
            ("bank", "--kind", "http_bank", "--set", "base_url=http://bank.example", "--mode", "live"),
            "base_url: live mode needs https://",
        ),
        (("simulator", "--kind", "http_bank", "--set", "base_url=http://127.0.0.1:1"), "reserved for the simulator"),
        (("bank", "--kind", "http_bank", "--mode", "dream"), "--mode"),
    ],
)
def test_what_cannot_be_is_refused_before_it_is_stored(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    init(tmp_path)
    done = invoked("connectors", "add", *arguments, "--data-dir", tmp_path)
    assert done.returncode == 2 and says in re.sub(r"\x1b\[[0-9;]*m", "", done.stderr)
    assert invoked_json("connectors", "list", "--data-dir", tmp_path) == []


def test_a_secret_comes_from_a_file_and_is_not_shown(tmp_path: Path) -> None:
    init(tmp_path / "data")
    (tmp_path / "secret").write_text("very-secret-9\n")
    place = ("--data-dir", tmp_path / "data")
    url = "base_url=http://127.0.0.1:4545"
    secret = f"notice_secret=@{tmp_path / 'secret'}"
    done = invoked("connectors", "add", "bank", "--kind", "http_bank", "--set", url, "--set", secret, "--json", *place)
    assert done.returncode == 0
    listed = invoked("connectors", "list", *place)
    assert "notice_secret" in listed.stdout
    for text in (done.stdout, done.stderr, listed.stdout, listed.stderr):
        assert "very-secret-9" not in text


def test_the_kinds_and_their_settings() -> None:
    kinds = {kind["kind"]: kind["settings"] for kind in invoked_json("connectors", "kinds")}
    assert {"http_bank", "simulator"} <= set(kinds)
    assert next(row for row in kinds["http_bank"] if row["name"] == "base_url")["required"] is True
    shown = invoked("connectors", "kinds").stdout
    assert re.search(r"http_bank +redirects +no ", shown) and re.search(r"http_bank +timeout_seconds +15 ", shown)
    assert "False" not in shown and "frozenset" not in shown


def test_a_file_connector_takes_no_questions(tmp_path: Path) -> None:
    init(tmp_path)
    names = {"initiator": "Acme", "debtor_name": "Acme", "debtor_bic": "COBADEFFXXX"}
    settings = {**names, "directory": str(tmp_path / "sepa"), "debtor_iban": "DE89370400440532013000"}
    given = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    place = ("--data-dir", tmp_path)
    assert invoked("connectors", "add", "sepa", "--kind", "pain001", *given, *place).returncode == 0
    told = invoked("connectors", "test", "sepa", *place)
    assert (told.returncode, told.stdout.strip()) == (0, "sepa: pain001 takes no questions")


def test_a_file_connector_gets_no_directory_of_another(tmp_path: Path) -> None:
    init(tmp_path)
    names = {"initiator": "Acme", "debtor_name": "Acme", "debtor_bic": "COBADEFFXXX"}

    def add(name: str, directory: Path, *more: str) -> "subprocess.CompletedProcess[str]":
        settings = {**names, "directory": str(directory), "debtor_iban": "DE89370400440532013000"}
        given = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        return invoked("connectors", "add", name, "--kind", "pain001", *given, *more, "--data-dir", tmp_path)

    assert add("sepa", tmp_path / "bank" / "sepa").returncode == 0
    (tmp_path / "link").symlink_to(tmp_path / "bank")
    for place in ("bank/sepa", "bank", "bank/sepa/inbound", "bank/../bank/sepa", "link/sepa"):
        for mode in ("test", "live"):
            refused = add("other", tmp_path / place, "--mode", mode)
            assert refused.returncode == 1 and "belongs to the connector 'sepa' of test mode" in refused.stderr, place
    assert add("other", tmp_path / "bank" / "sepa2").returncode == 0
    assert add("sepa", tmp_path / "bank" / "sepa", "--replace").returncode == 0, "its own"


def test_a_bank_ends_in_order_and_says_what_is_wrong(tmp_path: Path) -> None:
    bank = BankProcess(tmp_path / "journal", "--faults", '{"rules": [{"fault": "slow", "ms": 5}]}')
    second = tillway("bank", "--port", "0", "--journal", bank.journal)
    assert second.returncode == 1 and "a bank that is running" in second.stderr
    assert bank.stop() == 0
    bank = BankProcess(tmp_path / "journal")
    assert bank.stop(signal.SIGINT) == 0
    for faults in ('{"rules": [{"fault": "moody"}]}', "[]", "{"):
        done = tillway("bank", "--port", "0", "--journal", tmp_path / "journal", "--faults", faults)
        assert done.returncode == 2 and "--faults" in done.stderr
    done = tillway("bank", "--port", "0", "--journal", tmp_path / "no" / "journal")
    assert done.returncode == 1 and "cannot be used" in done.stderr


def stored_settings(data_dir: Path, id: str) -> dict[str, str]:
    """A connector's settings, as a server with the key file of `data_dir` opens them."""

    async def read() -> dict[str, str]:
        settings = Settings(data_dir=data_dir)
        store = await open_store(settings)
        try:
            row = await store.get(f"{SYSTEM}/{id}")
            assert row is not None
            config = decode(id, row.body)
            assert isinstance(config, ConnectorConfig)
            return open_settings(await open_vault(settings, store), config)
        finally:
            await store.close()

    return asyncio.run(read())


def test_a_secret_is_read_from_standard_input(tmp_path: Path) -> None:
    init(tmp_path)
    given = ["base_url=http://127.0.0.1:9", "api_key=-"]
    command = [sys.executable, "-m", "tillway.cli.main", "connectors", "add", "bank", "--kind", "http_bank"]
    command += [*(word for one in given for word in ("--set", one)), "--data-dir", str(tmp_path)]
    done = subprocess.run(command, input="env:HOME\n", capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert stored_settings(tmp_path, "con_test_bank") == {"base_url": "http://127.0.0.1:9", "api_key": "env:HOME"}


def test_a_secret_on_the_command_line_is_named(tmp_path: Path) -> None:
    init(tmp_path)
    given = (
        "--set",
        "base_url=http://127.0.0.1:9",
        "--set",
        "api_key=for-all-to-see",
        "--set",
        "notice_secret=env:HOME",
    )
    done = invoked("connectors", "add", "bank", "--kind", "http_bank", *given, "--data-dir", tmp_path)
    assert done.returncode == 0 and "api_key was visible to every user of this host" in done.stderr
    assert "notice_secret was" not in done.stderr and "base_url was" not in done.stderr


def test_a_connector_is_not_sealed_under_the_key_file_of_another_installation(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        init(tmp_path / name)
    (tmp_path / "theirs" / "keys.json").replace(tmp_path / "ours" / "keys.json")
    given = ("--set", "base_url=http://127.0.0.1:9", "--data-dir", tmp_path / "ours")
    refused = tillway("connectors", "add", "bank", "--kind", "http_bank", *given)
    assert refused.returncode == 1 and "key file of another installation" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert invoked_json("connectors", "list", "--data-dir", tmp_path / "ours") == []
