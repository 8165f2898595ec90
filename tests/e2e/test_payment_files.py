"""File connectors on a running server: payouts go out in files, and the files that come back settle them."""

import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from ach_bank import read_ach, returns
from every_store import store_url_of
from tillway_server import ENVIRONMENT, TillwayServer, init, invoked

from tillway.crash import ministack
from tillway.crash.postgres_server import fresh, own_server

T = TypeVar("T")

NACHA = {
    "immediate_destination": "091000019",
    "immediate_destination_name": "First Bank",
    "immediate_origin": "1234567890",
    "immediate_origin_name": "Acme",
    "company_name": "Acme Corporation",
    "company_id": "1234567890",
    "originating_dfi": "09100001",
}


SEPA = {
    "initiator": "Acme GmbH",
    "debtor_name": "Acme GmbH",
    "debtor_iban": "DE89370400440532013000",
    "debtor_bic": "COBADEFFXXX",
}
RAILS = {"nacha": (NACHA, "usd", "USD to US bank accounts"), "pain001": (SEPA, "eur", "EUR to IBANs")}
"""The settings of each kind, the currency of its payouts, and the recipients that the command names."""


def add(name: str, kind: str, settings: dict[str, str], *options: str | Path) -> Any:
    given = [part for setting, value in settings.items() for part in ("--set", f"{setting}={value}")]
    return invoked("connectors", "add", name, "--kind", kind, *given, *options)


def until(find: Callable[[], T | None], seconds: float = 120) -> T:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = find()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"it did not happen within {seconds} s")


class Shop:
    """A server whose payouts to bank accounts go through files: ACH files of US dollars, or SEPA's of euros."""

    def __init__(self, place: Path, store: str = "", kind: str = "nacha") -> None:
        settings, self.currency, recipients = RAILS[kind]
        self.folder = place / "bank"
        self.data_dir = place / "data"
        self.made = init(self.data_dir, store)
        self.arguments = ["--store", store, "--workers", "2"] if store else []
        where: list[str | Path] = ["--data-dir", self.data_dir, *self.arguments[:2]]
        added = add("files", kind, {**settings, "directory": str(self.folder)}, *where)
        assert added.returncode == 0, added.stderr
        assert f"Payouts in {recipients} go through it" in added.stderr
        self.start()
        self.v1.charges.create({"amount": 90_000, "currency": self.currency, "source": "tok_bypassPending"})
        self.account = self.made["account"]

    def start(self) -> None:
        self.server = TillwayServer(self.data_dir, self.made, [*self.arguments, "--payout-delay-seconds", "0"])
        self.v1 = self.server.client.v1

    def save_account(self, number: str = "000123456789", **fields: str) -> Any:
        account = {
            "object": "bank_account",
            "country": "US",
            "currency": "usd",
            "routing_number": "110000000",
            "account_number": number,
            "account_holder_name": "Ada Lovelace",
            **fields,
        }
        return self.v1.accounts.external_accounts.create(self.account, {"external_account": account})

    def save_iban(self) -> Any:
        account = {"object": "bank_account", "country": "DE", "currency": "eur", "account_number": SEPA["debtor_iban"]}
        holder = {"account_holder_name": "Ada Lovelace"}
        return self.v1.accounts.external_accounts.create(self.account, {"external_account": {**account, **holder}})

    def available(self) -> int:
        rows = self.v1.balance.retrieve().available
        return next((row.amount for row in rows if row.currency == self.currency), 0)

    def sent(self) -> list[Path]:
        """The files for the bank. One whose name begins with a dot is still being written."""
        return sorted((self.folder / "outbound").glob("[!.]*"))

    def put_in(self, name: str, content: bytes) -> None:
        (self.folder / f"{name}.part").write_bytes(content)
        (self.folder / f"{name}.part").rename(self.folder / "inbound" / name)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    made = Shop(tmp_path_factory.mktemp("ach"))
    yield made
    made.server.stop()


def test_payouts_share_a_file_and_a_return_brings_the_money_back_once(shop: Shop) -> None:
    person = shop.save_account()
    company = shop.save_account("000987654321", account_holder_type="company", account_holder_name="Zoë & Co.")
    before = shop.available()
    paid = [
        shop.v1.payouts.create({"amount": amount, "currency": "usd", "destination": to.id})
        for amount, to in ((5_000, person), (6_000, company), (7_000, person))
    ]
    [file] = until(shop.sent)
    read = read_ach(file.read_bytes())
    assert [(entry.amount, entry.entry_class, entry.account, entry.name) for entry in read.entries] == [
        (6_000, "CCD", "000987654321", "ZOE & CO."),
        (5_000, "PPD", "000123456789", "ADA LOVELACE"),
        (7_000, "PPD", "000123456789", "ADA LOVELACE"),
    ]
    assert shop.available() == before - 18_000
    assert {shop.v1.payouts.retrieve(payout.id).status for payout in paid} == {"in_transit"}

    returned = returns([entry for entry in read.entries if entry.amount == 5_000], "R01")
    for name in ("returns-1.ach", "returns-2.ach"):
        shop.put_in(name, returned)
        until((shop.folder / "processed" / name).exists)
        failed = shop.v1.payouts.retrieve(paid[0].id)
        assert (failed.status, failed.failure_code) == ("failed", "insufficient_funds")
        assert shop.available() == before - 13_000
    assert [shop.v1.payouts.retrieve(payout.id).status for payout in paid[1:]] == ["in_transit", "in_transit"]
    assert shop.sent() == [file]


@pytest.mark.parametrize("name", NACHA)
def test_a_missing_setting_is_named(tmp_path: Path, name: str) -> None:
    settings = {key: value for key, value in NACHA.items() if key != name}
    added = add("ach", "nacha", {**settings, "directory": str(tmp_path)}, "--data-dir", tmp_path)
    assert added.returncode != 0 and name in added.stderr


@pytest.mark.parametrize("kind", ["nacha", "pain001"])
def test_an_unknown_setting_is_named(tmp_path: Path, kind: str) -> None:
    added = add("files", kind, {"directory": str(tmp_path), "colour": "red"}, "--data-dir", tmp_path)
    assert added.returncode != 0 and "colour: unknown setting" in added.stderr


@pytest.mark.soak
def test_files_over_a_dynamodb_store_are_written_once_and_taken_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server with two workers on DynamoDB is killed between a payout and its file."""
    monkeypatch.setitem(ENVIRONMENT, "AWS_ACCESS_KEY_ID", ministack.ACCOUNT)
    monkeypatch.setitem(ENVIRONMENT, "AWS_SECRET_ACCESS_KEY", "test")
    with store_url_of("dynamodb") as url:
        shop = Shop(tmp_path, url)
        try:
            person, before = shop.save_account(), shop.available()
            paid = [
                shop.v1.payouts.create({"amount": amount, "currency": "usd", "destination": person.id})
                for amount in (5_000, 6_000)
            ]
            shop.server.process.kill()
            shop.server.process.wait()
            shop.start()
            until(lambda: sum(len(read_ach(path.read_bytes()).entries) for path in shop.sent()) >= 2)
            entries = [entry for path in shop.sent() for entry in read_ach(path.read_bytes()).entries]
            assert sorted(entry.amount for entry in entries) == [5_000, 6_000]
            returned = returns([entry for entry in entries if entry.amount == 5_000], "R02")
            for name in ("returns-1.ach", "returns-2.ach"):
                shop.put_in(name, returned)
                until((shop.folder / "processed" / name).exists)
            failed = shop.v1.payouts.retrieve(paid[0].id)
            assert (failed.status, failed.failure_code) == ("failed", "account_closed")
            assert shop.available() == before - 6_000
        finally:
            shop.server.stop()


def transfers(content: str) -> list[tuple[str, int]]:
    """The end-to-end id and the amount, in cents, of each transfer of a pain.001."""
    found = re.findall(r"<EndToEndId>([^<]+)</EndToEndId>.*?<InstdAmt Ccy=\"EUR\">([0-9.]+)<", content, re.DOTALL)
    return [(id, int(amount.replace(".", ""))) for id, amount in found]


def rejection(content: str, id: str) -> bytes:
    """A pain.002 that rejects one transfer of a pain.001, whose account is closed."""
    names = {name: re.findall(f"<{name}>([^<]+)<", content)[0] for name in ("MsgId", "PmtInfId")}
    return (
        '<?xml version="1.0" encoding="UTF-8"?><Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.002.001.10">'
        "<CstmrPmtStsRpt><GrpHdr><MsgId>S1</MsgId><CreDtTm>2026-05-29T08:00:00</CreDtTm></GrpHdr>"
        f"<OrgnlGrpInfAndSts><OrgnlMsgId>{names['MsgId']}</OrgnlMsgId>"
        "<OrgnlMsgNmId>pain.001.001.09</OrgnlMsgNmId></OrgnlGrpInfAndSts>"
        f"<OrgnlPmtInfAndSts><OrgnlPmtInfId>{names['PmtInfId']}</OrgnlPmtInfId><TxInfAndSts>"
        f"<OrgnlEndToEndId>{id}</OrgnlEndToEndId><TxSts>RJCT</TxSts><StsRsnInf><Rsn><Cd>AC04</Cd></Rsn></StsRsnInf>"
        "</TxInfAndSts></OrgnlPmtInfAndSts></CstmrPmtStsRpt></Document>"
    ).encode()


@pytest.mark.soak
@pytest.mark.parametrize("store", ["postgresql", "dynamodb"])
def test_sepa_files_over_shared_stores_are_written_once_and_taken_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """A server with two workers is killed between a payout and its file."""
    monkeypatch.setitem(ENVIRONMENT, "AWS_ACCESS_KEY_ID", ministack.ACCOUNT)
    monkeypatch.setitem(ENVIRONMENT, "AWS_SECRET_ACCESS_KEY", "test")
    with store_url_of(store) as url:
        shop = Shop(tmp_path, url, "pain001")
        try:
            person, before = shop.save_iban(), shop.available()
            paid = {
                amount: shop.v1.payouts.create({"amount": amount, "currency": "eur", "destination": person.id})
                for amount in (5_000, 6_000)
            }
            shop.server.process.kill()
            shop.server.process.wait()
            shop.start()
            until(lambda: sum(len(transfers(path.read_text())) for path in shop.sent()) >= 2)
            files = [path.read_text() for path in shop.sent()]
            sent = [(file, id, amount) for file in files for id, amount in transfers(file)]
            assert sorted(amount for _, _, amount in sent) == [5_000, 6_000]
            [told] = [rejection(file, id) for file, id, amount in sent if amount == 5_000]
            for name in ("status-1.xml", "status-2.xml"):
                shop.put_in(name, told)
                until((shop.folder / "processed" / name).exists)
            failed = shop.v1.payouts.retrieve(paid[5_000].id)
            assert (failed.status, failed.failure_code) == ("failed", "account_closed")
            assert shop.available() == before - 6_000
        finally:
            shop.server.stop()


@pytest.mark.soak
def test_two_workers_that_are_killed_write_each_payout_once(tmp_path: Path) -> None:
    """`kill -9` at any moment, while the bank's program fetches each file at once."""
    postgres, drawn = own_server(), random.Random(11)
    shop = Shop(tmp_path, fresh(postgres.url))
    fetched = tmp_path / "fetched"
    fetched.mkdir()

    def fetch() -> list[int]:
        for path in shop.sent():
            assert not (fetched / path.name).exists(), "a file was written twice"
            path.rename(fetched / path.name)
        files = [read_ach(path.read_bytes()) for path in fetched.iterdir()]
        return sorted(entry.amount for file in files for entry in file.entries)

    try:
        person = shop.save_account()
        amounts: list[int] = []
        for _ in range(8):
            for _ in range(3):
                amounts.append(100 + len(amounts))
                shop.v1.payouts.create({"amount": amounts[-1], "currency": "usd", "destination": person.id})
            end = time.monotonic() + drawn.uniform(2, 7)
            while time.monotonic() < end:
                fetch()
            shop.server.process.kill()
            shop.server.process.wait()
            shop.start()
        until(lambda: len(fetch()) >= len(amounts))
        time.sleep(20)
        assert fetch() == amounts
    finally:
        shop.server.stop()
        postgres.close()
