"""Damage of stored bytes: a read refuses it, and `tillway doctor --deep` names each damaged record and page."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import apsw
import asyncpg
import pytest
from every_store import any_store, any_store_url
from msgspec.structs import replace
from tillway_server import init, invoked

from tillway.domain.account import SYSTEM, Account
from tillway.domain.customer import Customer
from tillway.domain.payment_intent import PaymentIntent
from tillway.installation import DATABASE, open_store
from tillway.operations.record_check import read_all
from tillway.settings import Settings
from tillway.store.codec import CHECK_FIELD, RecordDamaged, decode, encode, write_of
from tillway.store.port import ABSENT, Store, Write
from tillway.store.walk import rows_of
from tillway.testing.in_process import InProcessApp

__all__ = ("any_store", "any_store_url")

SCOPE = "0123456789abcdeft"
CUSTOMER = Customer(id="cus_1", created=1, name="Ada")


def _body() -> bytes:
    return write_of(SCOPE, CUSTOMER, ABSENT).body or b""


def test_each_flipped_bit_behind_the_checksum_is_found() -> None:
    body = _body()
    assert decode("cus_1", body) == CUSTOMER
    for place in range(6, len(body)):
        for bit in range(8):
            damaged = bytearray(body)
            damaged[place] ^= 1 << bit
            if place in (14, 15):  # The quotation mark and the comma: then it is no JSON.
                continue
            with pytest.raises(RecordDamaged, match="cus_1"):
                decode("cus_1", bytes(damaged))


def test_a_record_under_another_id_is_found() -> None:
    with pytest.raises(RecordDamaged, match="it holds another record"):
        decode("cus_2", _body())


def test_rows_from_before_are_read_as_they_are() -> None:
    assert decode("cus_1", encode(CUSTOMER)) == CUSTOMER
    assert b"~" not in encode(CUSTOMER) and CHECK_FIELD == "~"


async def test_damage_in_each_store_is_named(any_store: Store) -> None:
    account = Account(id=f"acct_{SCOPE[:-1]}", created=1)
    body = _body()
    await any_store.commit(
        [
            write_of(SYSTEM, account, ABSENT),
            write_of(SCOPE, CUSTOMER, ABSENT),
            Write(f"{SCOPE}/cus_2", ABSENT, body.replace(b"cus_1", b"cus_2").replace(b"Ada", b"Eve")),
            Write(f"{SCOPE}/cus_3", ABSENT, encode(Customer(id="cus_3", created=1))),
            Write(f"{SCOPE}/cus_4", ABSENT, b"{"),
            Write(f"{SCOPE}/pi_1", ABSENT, body),
        ]
    )
    read = await read_all(any_store)
    assert (read.records, read.unchecked) == (6, 2)
    assert [text.split()[0] for text in read.damaged] == ["cus_2", "cus_4", "pi_1"]
    assert read.damaged[0] == f"cus_2 of {SCOPE} is damaged: its checksum differs"


async def test_a_request_for_a_damaged_record_says_so(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    merchant = await app.merchant()
    customers = [(await app.ok(merchant, "POST", "/v1/customers", {"name": name}))["id"] for name in ("Ada", "Bob")]
    [key] = [key for key in app.store._rows if key.endswith(customers[0])]
    row = app.store._rows[key]
    app.store._rows[key] = type(row)(key, row.version, row.body.replace(b"Ada", b"Eve"))
    answer = await app.call(merchant, "GET", f"/v1/customers/{customers[0]}")
    assert (answer.status, answer.json["error"]["code"]) == (500, "record_damaged")
    assert (await app.ok(merchant, "GET", f"/v1/customers/{customers[1]}"))["name"] == "Bob"
    await app.close()


def _doctor(data_dir: Path) -> tuple[int, str]:
    done = invoked("doctor", "--deep", "--data-dir", data_dir)
    return done.returncode, done.stdout


def _in_database(data_dir: Path, change: Callable[[apsw.Connection], object]) -> None:
    database = apsw.Connection(os.fspath(data_dir / DATABASE))
    change(database)
    database.close()


def test_doctor_reads_everything(tmp_path: Path) -> None:
    made = init(tmp_path)
    code, text = _doctor(tmp_path)
    assert code == 0 and "ok    database pages" in text and "ok    records" in text
    edit = "UPDATE record SET body = CAST(replace(CAST(body AS TEXT), '\"created\":1', '\"created\":2') AS BLOB)"
    _in_database(tmp_path, lambda db: db.execute(f"{edit} WHERE key GLOB 'sys/acct_*'"))
    code, text = _doctor(tmp_path)
    assert code == 1 and f"fail  records: {made['account']} of sys is damaged: its checksum differs" in text
    assert "tillway audit verify" in text


def test_doctor_finds_a_damaged_page(tmp_path: Path) -> None:
    """An index has lost its entries: each record is whole, but a listing would miss some."""
    init(tmp_path)

    def page_of_index(db: apsw.Connection) -> tuple[int, int]:
        root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'record_parent'").get
        return int(str(root)), int(str(db.pragma("page_size")))

    database = apsw.Connection(os.fspath(tmp_path / DATABASE))
    database.pragma("wal_checkpoint(TRUNCATE)")
    root, size = page_of_index(database)
    database.close()
    with (tmp_path / DATABASE).open("r+b") as file:
        file.seek((root - 1) * size + 3)
        file.write(bytes(2))  # The number of cells in a leaf of an index.
    code, text = _doctor(tmp_path)
    assert code == 1 and "fail  database pages" in text


@pytest.mark.parametrize("column", ["customer", "kind", "terms", "expires_at", "queue"])
async def test_a_column_edited_by_hand_is_named(tmp_path: Path, column: str) -> None:
    """The store would find the record where it is not, or forget it."""
    await asyncio.to_thread(init, tmp_path)
    store = await open_store(Settings(data_dir=tmp_path))
    [account] = [row.key.partition("_")[2] async for row in rows_of(store, f"{SYSTEM}/acct_")]
    payment = PaymentIntent(
        id="pi_1", created=1, amount_minor=1, currency="eur", customer="cus_1", metadata={"a": "b"}, references=("r",)
    )
    await store.commit([write_of(f"{account}t", record, ABSENT) for record in (payment, CUSTOMER)])
    assert (await read_all(store)).damaged == ()
    await store.close()
    database = apsw.Connection(os.fspath(tmp_path / DATABASE))
    value = 7 if column == "expires_at" else "x"
    database.execute(f"UPDATE record SET {column} = ? WHERE key = ?", (value, f"{account}t/pi_1"))
    database.close()
    done = await asyncio.to_thread(invoked, "doctor", "--deep", "--data-dir", tmp_path)
    assert done.returncode == 1 and f"{account}t/pi_1 cannot be found as it should be" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        ("DELETE FROM term WHERE key = '{key}'", "{key} cannot be found as it should be"),
        ("INSERT INTO term VALUES ('x', '{key}')", "{key} is found by a term that it does not have: x"),
        ("UPDATE record SET terms = '[' WHERE key = '{key}'", "{key} cannot be found as it should be"),
    ],
    ids=["deleted", "inserted", "unreadable"],
)
async def test_a_term_edited_by_hand_is_named(any_store: Store, any_store_url: str, edit: str, named: str) -> None:
    """A provider's notice would not find its payment, or a search would find another's."""
    if any_store_url.startswith("dynamodb"):
        pytest.skip("its index is a copy that the service keeps")
    key = f"{SCOPE}/pi_1"
    payment = PaymentIntent(
        id="pi_1", created=1, amount_minor=1, currency="eur", metadata={"a": "b"}, references=("r",)
    )
    account = Account(id=f"acct_{SCOPE[:-1]}", created=1)
    await any_store.commit([write_of(SYSTEM, account, ABSENT), write_of(SCOPE, payment, ABSENT)])
    assert (await read_all(any_store)).damaged == ()
    if any_store_url:
        url, _, schema = any_store_url.rpartition("schema=")
        connection = await asyncpg.connect(url.rstrip("?&"), server_settings={"search_path": schema})
        await connection.execute(edit.format(key=key))
        await connection.close()
    else:
        apsw.Connection(os.fspath(any_store.path)).execute(edit.format(key=key))  # type: ignore[attr-defined]
    damaged = (await read_all(any_store)).damaged
    assert len(damaged) == 1 and damaged[0].startswith(named.format(key=key)), damaged


async def test_every_misplaced_record_is_named(any_store: Store) -> None:
    """Also behind one that cannot be read, and of any type."""
    others = [Customer(id=f"cus_{n}", created=1) for n in (3, 4)]
    index = (("kind", "nowhere"),)
    bodies = [write_of(SCOPE, other, ABSENT).body or b"" for other in others]
    writes = [write_of(SYSTEM, Account(id=f"acct_{SCOPE[:-1]}", created=1), ABSENT)]
    writes += [Write(f"{SCOPE}/cus_1", ABSENT, b"{")]
    writes += [Write(f"{SCOPE}/{other.id}", ABSENT, body, index) for other, body in zip(others, bodies, strict=True)]
    payment = PaymentIntent(id="pi_1", created=1, amount_minor=1, currency="eur", customer="cus_3")
    writes += [replace(write_of(SCOPE, payment, ABSENT), index=index)]
    await any_store.commit(writes)
    named = [text.split()[0].rpartition("/")[2] for text in (await read_all(any_store)).damaged]
    in_columns = hasattr(any_store, "columns_of")
    assert named == (["cus_1", "cus_3", "cus_4", "pi_1"] if in_columns else ["cus_1"])
