"""`tillway export` and `tillway import`, between stores of every kind, cut off at every place."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tillway_server import ENVIRONMENT, TillwayServer, init, tillway, tillway_json

from tillway.crash import ministack
from tillway.crash.postgres_server import PostgresServer, fresh, own_server
from tillway.store import export
from tillway.store.export import ExportUnfit, NotWhole
from tillway.store.port import ABSENT, Write
from tillway.testing.memory_store import MemoryStore

PAYMENT: dict[str, Any] = {
    "amount": 4200,
    "currency": "eur",
    "payment_method": "pm_card_visa",
    "confirm": True,
    "return_url": "https://example.com/back",
    "metadata": {"order": "6735"},
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = own_server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with an installation that has done a little of everything."""
    data_dir = tmp_path_factory.mktemp("shop") / "data"
    server = TillwayServer(data_dir, init(data_dir))
    v1 = server.client.v1
    v1.webhook_endpoints.create({"url": "https://example.com/hook", "enabled_events": ["*"]})
    customer = v1.customers.create({"email": "ada@example.com"})
    number = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2034, "cvc": "123"}
    for _ in range(3):
        data: Any = {"type": "card", "card": number}
        kept: Any = PAYMENT | {"payment_method_data": data, "customer": customer.id}
        del kept["payment_method"]
        kept["setup_future_usage"] = "off_session"
        paid = v1.payment_intents.create(kept)
    v1.refunds.create({"payment_intent": paid.id, "amount": 1200})
    held: Any = PAYMENT | {"capture_method": "manual"}
    v1.payment_intents.create(held)
    (data_dir.parent / "key").write_text(server.secret_key)
    (data_dir.parent / "customer").write_text(customer.id)
    assert server.stop() == 0
    return data_dir


def served(data_dir: Path, shop: Path, *arguments: str) -> TillwayServer:
    """A server on what was moved, under the key of the shop."""
    secret = (shop.parent / "key").read_text()
    names = ("account", "publishable_key", "live_secret_key", "live_publishable_key")
    return TillwayServer(data_dir, {"secret_key": secret, **dict.fromkeys(names, "")}, arguments)


def trades_on(server: TillwayServer, shop: Path) -> None:
    """The new place has the old one's past, and its cards."""
    v1 = server.client.v1
    customer = (shop.parent / "customer").read_text()
    (first, *_) = v1.payment_intents.list({"customer": customer}).data
    assert len(v1.payment_intents.list({"customer": customer}).data) == 3
    assert v1.charges.retrieve(str(first.latest_charge)).amount_refunded == 1200
    again: Any = {**PAYMENT, "customer": customer, "payment_method": first.payment_method, "off_session": True}
    assert v1.payment_intents.create(again).status == "succeeded"
    held = next(payment for payment in v1.payment_intents.list().data if payment.status == "requires_capture")
    assert v1.payment_intents.capture(held.id).status == "succeeded"


def key_file_of(shop: Path, data_dir: Path) -> None:
    data_dir.mkdir(mode=0o700, exist_ok=True)
    shutil.copy2(shop / "keys.json", data_dir / "keys.json")


def test_from_a_file_to_postgresql_and_back(tmp_path: Path, shop: Path, postgres: PostgresServer) -> None:
    url = fresh(postgres.url)
    out = tillway_json("export", tmp_path / "one.ndjson", "--data-dir", shop)
    assert (tmp_path / "one.ndjson").stat().st_mode & 0o777 == 0o600
    assert "4242424242424242" not in (tmp_path / "one.ndjson").read_text()
    key_file_of(shop, tmp_path / "there")
    assert tillway_json("import", tmp_path / "one.ndjson", "--data-dir", tmp_path / "there", "--store", url) == out
    back = tillway_json("export", tmp_path / "two.ndjson", "--data-dir", tmp_path / "there", "--store", url)
    assert back["ledger"] == out["ledger"]
    one, two = ((tmp_path / name).read_text().splitlines() for name in ("one.ndjson", "two.ndjson"))
    (exported,) = set(two[:-1]) - set(one)
    assert "tillway export" in exported, "the trail tells of the second export"
    assert [line for line in two[:-1] if line != exported] == one[:-1]
    server = served(tmp_path / "there", shop, "--store", url)
    try:
        trades_on(server, shop)
    finally:
        server.stop()
    key_file_of(shop, tmp_path / "back")
    assert tillway_json("import", tmp_path / "two.ndjson", "--data-dir", tmp_path / "back") == back
    server = served(tmp_path / "back", shop)
    try:
        trades_on(server, shop)
    finally:
        server.stop()


def test_to_dynamodb(tmp_path: Path, shop: Path) -> None:
    stack = ministack.start()
    try:
        credentials = {"AWS_ACCESS_KEY_ID": ministack.ACCOUNT, "AWS_SECRET_ACCESS_KEY": "test"}
        ENVIRONMENT.update(credentials)
        out = tillway_json("export", tmp_path / "one.ndjson", "--data-dir", shop)
        key_file_of(shop, tmp_path / "there")
        url = stack.url("tillway")
        assert tillway_json("import", tmp_path / "one.ndjson", "--data-dir", tmp_path / "there", "--store", url) == out
        server = served(tmp_path / "there", shop, "--store", url)
        try:
            trades_on(server, shop)
        finally:
            server.stop()
    finally:
        stack.close()


def test_an_import_that_is_killed_again_and_again_ends_whole(
    tmp_path: Path, shop: Path, postgres: PostgresServer
) -> None:
    url = fresh(postgres.url)
    out = tillway_json("export", tmp_path / "one.ndjson", "--data-dir", shop)
    key_file_of(shop, tmp_path / "there")
    command = ["import", str(tmp_path / "one.ndjson"), "--data-dir", str(tmp_path / "there"), "--store", url]
    for pause in (0.5, 0.6, 0.7, 0.8):
        process = subprocess.Popen(
            [sys.executable, "-m", "tillway.cli.main", *command], env=ENVIRONMENT, stderr=subprocess.DEVNULL
        )
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert tillway_json(*command) == out


def test_an_export_beside_a_server_is_refused(tmp_path: Path, shop: Path) -> None:
    server = served(shop, shop)
    try:
        done = tillway("export", tmp_path / "one.ndjson", "--data-dir", shop)
        assert done.returncode == 1 and "Stop it first" in done.stderr
    finally:
        server.stop()


# On a store in memory.


async def filled(records: int = 2500, store: MemoryStore | None = None) -> MemoryStore:
    store = store or MemoryStore()
    account = b'{"id":"acct_AAAAAAAAAAAAAAAA","created":1}'
    await store.commit([Write("sys/acct_AAAAAAAAAAAAAAAA", ABSENT, account)])
    scope = "AAAAAAAAAAAAAAAAt"
    for n in range(records):
        entry = (
            f'{{"id":"txn_{n:017}","created":1,"currency":"eur","postings":'
            f'[{{"account":"merchant","amount_minor":-{n}}},{{"account":"fees","amount_minor":{n}}}]}}'
        )
        body = f'{{"id":"cus_{n:017}","created":1,"email":"a{n}@example.com","from_tomorrow":[{n}]}}'
        await store.commit(
            [
                Write(f"{scope}/txn_{n:017}", ABSENT, entry.encode()),
                Write(f"{scope}/cus_{n:017}", ABSENT, body.encode()),
            ]
        )
    return store


async def test_nothing_is_lost_that_this_version_does_not_know(tmp_path: Path) -> None:
    source, target = await filled(), MemoryStore()
    tally = await export.export(source, tmp_path / "x")
    assert tally.records == 5001 and tally.types == {"acct": 1, "txn": 2500, "cus": 2500}
    assert tally.ledger["AAAAAAAAAAAAAAAAt/fees/eur"] == sum(range(2500))
    assert await export.bring_in(target, tmp_path / "x") == tally
    for key in ("AAAAAAAAAAAAAAAAt/cus_00000000000000007", "sys/acct_AAAAAAAAAAAAAAAA"):
        there = await target.get(key)
        here = await source.get(key)
        assert there is not None and here is not None and there.body == here.body
    found = await target.query("term", "AAAAAAAAAAAAAAAAt/cus=email=a7@example.com")
    assert [row.key[-3:] for row in found] == ["007"], "index entries are made anew"


async def test_an_export_that_was_cut_off_anywhere_goes_on(tmp_path: Path) -> None:
    source = await filled(1200)
    tally = await export.export(source, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for cut in (0, 1, 17, len(whole) // 3, len(whole) // 2, len(whole) - 200, len(whole) - 1):
        (tmp_path / "again.part").write_bytes(whole[:cut])
        assert await export.export(source, tmp_path / "again") == tally
        assert (tmp_path / "again").read_bytes() == whole
        (tmp_path / "again").unlink()


class InUse(MemoryStore):
    """Somebody takes a payment while it is read."""

    async def query(self, index: Any, partition: str, **options: Any) -> Any:
        rows = await super().query(index, partition, **options)
        if partition.endswith("/txn_") and not await self.get("AAAAAAAAAAAAAAAAt/evt_9"):
            await self.commit([Write("AAAAAAAAAAAAAAAAt/evt_9", ABSENT, b'{"id":"evt_9","created":1}')])
        return rows


async def test_what_was_written_meanwhile_spoils_an_export(tmp_path: Path) -> None:
    source = await filled(20, InUse())
    with pytest.raises(NotWhole, match="Stop every server"):
        await export.export(source, tmp_path / "x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda lines: lines[:-1], "no end"),
        (lambda lines: lines[1:], "line 1"),
        (lambda lines: [*lines[:5], *lines[6:]], "checksum"),
        (lambda lines: [*lines[:5], lines[5].replace(b"1", b"2"), *lines[6:]], "checksum"),
        (lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]], "checksum"),
        (lambda lines: [*lines[:5], b'{"t":"record"}\n', *lines[6:]], "line 6"),
        (lambda lines: [*lines, lines[5]], "behind its end"),
        (lambda lines: [*lines[:-1], lines[-1][:-2]], "cannot be read"),
        (lambda lines: [], "no end"),
    ],
)
async def test_a_file_that_was_changed_is_refused_before_anything_is_written(
    tmp_path: Path, spoil: Any, says: str
) -> None:
    await export.export(await filled(20), tmp_path / "x")
    lines = (tmp_path / "x").read_bytes().splitlines(keepends=True)
    (tmp_path / "x").write_bytes(b"".join(spoil(lines)))
    target = MemoryStore()
    with pytest.raises(ExportUnfit, match=says):
        await export.bring_in(target, tmp_path / "x")
    assert target.commits == 0


async def test_a_store_with_another_installation_is_refused(tmp_path: Path) -> None:
    await export.export(await filled(20), tmp_path / "x")
    target = MemoryStore()
    await target.commit([Write("sys/acct_B", ABSENT, b'{"id":"acct_B","created":1}')])
    with pytest.raises(ExportUnfit, match="another installation"):
        await export.bring_in(target, tmp_path / "x")
    other = MemoryStore()
    await other.commit([Write("AAAAAAAAAAAAAAAAt/cus_00000000000000003", ABSENT, b'{"id":"cus_3","created":9}')])
    with pytest.raises(ExportUnfit, match="cus_00000000000000003"):
        await export.bring_in(other, tmp_path / "x")


class Forgetful(MemoryStore):
    """Takes everything, and keeps most of it."""

    async def commit(self, writes: Any) -> None:
        await super().commit([write for write in writes if not write.key.endswith("7")] or writes)


class Corrupting(MemoryStore):
    async def get_many(self, keys: Any) -> Any:
        rows = await super().get_many(keys)
        return {key: type(row)(row.key, row.version, row.body + b" ") for key, row in rows.items()}


@pytest.mark.parametrize(("kind", "says"), [(Forgetful, "missing"), (Corrupting, "not as it was")])
async def test_what_did_not_arrive_is_noticed(tmp_path: Path, kind: type[MemoryStore], says: str) -> None:
    await export.export(await filled(20), tmp_path / "x")
    with pytest.raises(NotWhole, match=says):
        await export.bring_in(kind(), tmp_path / "x")


def test_the_file_is_not_overwritten(tmp_path: Path, shop: Path) -> None:
    (tmp_path / "one").write_text("mine")
    done = tillway("export", tmp_path / "one", "--data-dir", shop)
    assert done.returncode == 1 and (tmp_path / "one").read_text() == "mine"
    assert os.listdir(tmp_path) == ["one"]
