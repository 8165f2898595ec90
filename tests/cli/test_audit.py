"""`tillway audit` on an installation whose database somebody has changed by hand."""

import asyncio
import csv
import io
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, cast

import apsw
import msgspec
import pytest
from tillway_server import init, invoked, invoked_json

from tillway.cli.terminal import counted
from tillway.domain.account import Scope
from tillway.domain.cards import Secret
from tillway.engine.clock import Clock
from tillway.http.messages import Request
from tillway.installation import DATABASE, KEY_FILE, check_key_file, open_keys
from tillway.settings import Settings
from tillway.store.sqlite import SqliteStore
from tillway.vault.head_signer import Ed25519HeadSigner
from tillway.vault.keyring import Keyring
from tillway.wiring import assemble

PAYMENT = b"amount=2000&currency=eur&payment_method=pm_card_visa&confirm=true&return_url=https://example.com"
BATCHES = 3


class Trail(NamedTuple):
    """An installation at rest with BATCHES batches of a merchant's, and one payment that is too young to be linked."""

    data_dir: Path
    scope: str
    account: str
    key: str
    batches: list[list[str]]
    """The ids of the entries in each."""


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Trail:
    data_dir = tmp_path_factory.mktemp("audit") / "data"
    made = init(data_dir)
    ahead = 0

    async def trade() -> list[list[str]]:
        nonlocal ahead
        store = await SqliteStore.open(data_dir / DATABASE)
        clock = Clock(lambda: time.time_ns() + ahead * 1_000_000_000)
        running = await assemble(Settings(data_dir=data_dir), store, clock)
        headers = {"authorization": f"Bearer {made['secret_key']}", "content-type": "application/x-www-form-urlencoded"}
        scope = Scope(account=made["account"], mode="test").key
        await running.runner.audit.ensure()

        async def pay() -> None:
            answer = await running.api.handle(
                Request("POST", "/v1/payment_intents", headers=headers, body=PAYMENT, client_ip="192.0.2.7")
            )
            assert b'"succeeded"' in answer.body

        for _ in range(BATCHES):
            await pay()
            await pay()
            await running.platform.engine.time.refresh()
            ahead += 300
            await running.platform.engine.time.refresh()
            for row in await store.claim("audit", now_ms=clock.now_ms(), lease_ms=1000, limit=10):
                await running.runner.audit.run(row)
        await pay()
        await running.platform.engine.time.refresh()
        rows = await store.query(None, f"{scope}/mrk_", limit=10, order="oldest")
        await running.close()
        return [[f"aud_{suffix}" for suffix in msgspec.json.decode(row.body)["entries"]] for row in rows]

    batches = asyncio.run(trade())
    scope = Scope(account=made["account"], mode="test").key
    assert [len(batch) for batch in batches] == [4] * BATCHES
    return Trail(data_dir, scope, made["account"], made["secret_key"], batches)


def test_a_trail_that_nobody_touched(trail: Trail) -> None:
    done = invoked("audit", "verify", "--data-dir", trail.data_dir)
    assert done.returncode == 0, done.stderr
    walked = {
        (one["account"], one["mode"]): one for one in invoked_json("audit", "verify", "--data-dir", trail.data_dir)
    }
    merchant = walked[trail.account, "test"]
    assert (merchant["batches"], merchant["entries"], merchant["waiting"]) == (BATCHES, 4 * BATCHES, 2)
    assert walked["sys", ""]["batches"] == 1, "the account that was made is told of too"


class Damage(NamedTuple):
    """`do` changes the database of a copy; `says` is what verify then says, {…} being filled from the trail."""

    name: str
    do: Callable[[apsw.Connection, Trail], Any]
    says: str


def _sql(sql: str, *bindings: Any) -> Callable[[apsw.Connection, Trail], Any]:
    return lambda db, trail: db.execute(sql, [b(trail) if callable(b) else b for b in bindings])


def _entry(batch: int, place: int) -> Callable[[Trail], str]:
    return lambda trail: f"{trail.scope}/{trail.batches[batch][place]}"


def _batch(number: int) -> Callable[[Trail], str]:
    return lambda trail: f"{trail.scope}/mrk_{number:012d}"


def _swap(db: apsw.Connection, trail: Trail) -> None:
    one, other = _entry(1, 1)(trail), _entry(1, 2)(trail)
    db.execute("UPDATE record SET key = 'between' WHERE key = ?", (one,))
    db.execute("UPDATE record SET key = ? WHERE key = ?", (one, other))
    db.execute("UPDATE record SET key = ? WHERE key = 'between'", (other,))


def _forge(db: apsw.Connection, trail: Trail) -> None:
    """The entry and its digest in the batch, by somebody who knows how these are made, but not how roots are."""
    from tillway.domain.audit import leaf_of

    id = trail.batches[0][2]
    _body("2000", "9000", _entry(0, 2))(db, trail)
    body = bytes(db.execute("SELECT body FROM record WHERE key = ?", (_entry(0, 2)(trail),)).get)
    batch = msgspec.json.decode(bytes(db.execute("SELECT body FROM record WHERE key = ?", (_batch(1)(trail),)).get))
    leaves = bytearray(msgspec.json.decode(msgspec.json.encode(batch["leaves"]), type=bytes))
    leaves[64:96] = leaf_of(id, body)
    batch["leaves"] = bytes(leaves)
    db.execute("UPDATE record SET body = ? WHERE key = ?", (msgspec.json.encode(batch), _batch(1)(trail)))


def _body(old: str, new: str, key: Callable[[Trail], str]) -> Callable[[apsw.Connection, Trail], Any]:
    """One word in a stored record."""

    def edit(db: apsw.Connection, trail: Trail) -> None:
        db.execute(
            "UPDATE record SET body = CAST(replace(CAST(body AS TEXT), ?, ?) AS BLOB) WHERE key = ?",
            (old, new, key(trail)),
        )
        assert db.changes() == 1

    return edit


_PUT_IN = """
INSERT INTO record (key, version, body)
SELECT substr(key, 1, length(key) - 1) || '~', 1, body FROM record WHERE key = ?"""
_DELETE = "DELETE FROM record WHERE key = ?"
_NONSENSE = "UPDATE record SET body = x'ff00' WHERE key = ?"


def _newest(trail: Trail) -> str:
    database = apsw.Connection(os.fspath(trail.data_dir / DATABASE))
    found = database.execute("SELECT max(key) FROM record WHERE key GLOB ?", (f"{trail.scope}/aud_*",)).get
    database.close()
    return str(found)


def _unlink(db: apsw.Connection, trail: Trail) -> None:
    for number in range(1, BATCHES + 1):
        db.execute(_DELETE, (_batch(number)(trail),))
    db.execute(_DELETE, (f"{trail.scope}/audt_chain",))


def _put_back(db: apsw.Connection, trail: Trail) -> None:
    """The batches go, and the task forgets how many there were, but not what the last was."""
    task = bytes(db.execute("SELECT body FROM record WHERE key = ?", (f"{trail.scope}/audt_chain",)).get)
    for number in range(1, BATCHES + 1):
        db.execute(_DELETE, (_batch(number)(trail),))
    _body(f'"sequence":{BATCHES}', '"sequence":0', lambda trail: f"{trail.scope}/audt_chain")(db, trail)
    assert b"head" in task


DAMAGES = (
    Damage("an entry edited", _body("POST", "EDIT", _entry(1, 2)), r"{1.2} was edited \(batch 2, position 3\)"),
    Damage("its amount", _body('"amount_minor":2000', '"amount_minor":9000', _entry(0, 0)), r"{0.0} was edited"),
    Damage("an entry deleted", _sql(_DELETE, _entry(0, 3)), r"{0.3} is missing \(batch 1, position 4\)"),
    Damage("the first deleted", _sql(_DELETE, _entry(0, 0)), r"{0.0} is missing \(batch 1, position 1\)"),
    Damage("the last deleted", _sql(_DELETE, _entry(2, 3)), r"{2.3} is missing \(batch 3, position 4\)"),
    Damage(
        "an entry put in", _sql(_PUT_IN, _entry(1, 0)), r"aud_\w+~ was put in: no batch has it \(batch 2, position 2\)"
    ),
    Damage(
        "put in at the end",
        _sql(_PUT_IN, _entry(2, 3)),
        r"aud_\w+~ was put in: no batch has it \(batch 3, position 5\)",
    ),
    Damage("two exchanged", _swap, r"{1.1} was edited \(batch 2, position 2\)"),
    Damage("entry and digest", _forge, "batch 1 was edited: it does not agree with its own head"),
    Damage("a batch edited", _body('"total":8', '"total":7', _batch(2)), "batch 2 was edited"),
    Damage("a batch deleted", _sql(_DELETE, _batch(2)), "batch 2 is missing"),
    Damage("the last batch deleted", _sql(_DELETE, _batch(3)), "the chain ends before batch 3, which was linked"),
    Damage("a batch of nonsense", _sql(_NONSENSE, _batch(3)), "batch 3 was edited"),
    Damage("an entry of nonsense", _sql(_NONSENSE, _entry(1, 0)), r"{1.0} was edited \(batch 2, position 1\)"),
    Damage(
        "the newest entry",
        _sql(_NONSENSE, lambda trail: _newest(trail)),
        r"aud_\w+, which waits to be linked, cannot be read",
    ),
    Damage(
        "the task", _sql(_DELETE, lambda trail: f"{trail.scope}/audt_chain"), "the task that links the chain is missing"
    ),
    Damage("batches and task", lambda db, trail: _unlink(db, trail), "the task that links the chain is missing"),
    Damage("batches, and the task put back", lambda db, trail: _put_back(db, trail), "the chain ends before batch 1"),
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_the_first_difference_is_named(trail: Trail, damage: Damage, tmp_path: Path) -> None:
    copy = _changed(trail, tmp_path, damage.do)
    done = invoked("audit", "verify", "--data-dir", copy)
    says = re.sub(r"\{(\d)\.(\d)\}", lambda found: trail.batches[int(found[1])][int(found[2])], damage.says)
    assert done.returncode == 1
    assert re.search(says, done.stderr), done.stderr
    assert f"{trail.account} test" in done.stderr


def _newest_of(prefix: str) -> Callable[[Trail], str]:
    """The key of the newest record of a type, among those of the merchant."""

    def found(trail: Trail) -> str:
        database = apsw.Connection(os.fspath(trail.data_dir / DATABASE))
        key = database.execute("SELECT max(key) FROM record WHERE key GLOB ?", (f"{trail.scope}/{prefix}_*",)).get
        database.close()
        return str(key)

    return found


def _cancel_six(db: apsw.Connection, trail: Trail) -> None:
    db.execute(
        """UPDATE record SET body = CAST(replace(CAST(body AS TEXT), '"succeeded"', '"canceled"') AS BLOB)
        WHERE key IN (SELECT key FROM record WHERE key GLOB ? ORDER BY key LIMIT 6)""",
        (f"{trail.scope}/pi_*",),
    )
    assert db.changes() == 6


def _put_in_key(db: apsw.Connection, trail: Trail) -> None:
    db.execute("""INSERT INTO record (key, version, body) SELECT 'sys/key_000000000000000000000000', 1,
        CAST(replace(CAST(body AS TEXT), substr(key, 5), 'key_000000000000000000000000') AS BLOB)
        FROM record WHERE key GLOB 'sys/key_*' LIMIT 1""")
    assert db.changes() == 1


def _write_as(version: int, key: Callable[[Trail], str]) -> Callable[[apsw.Connection, Trail], Any]:
    return _sql("UPDATE record SET version = ? WHERE key = ?", lambda _: version, key)


def _any_key(trail: Trail) -> str:
    database = apsw.Connection(os.fspath(trail.data_dir / DATABASE))
    key = str(database.execute("SELECT min(key) FROM record WHERE key GLOB 'sys/key_*'").get)
    database.close()
    return key


class Edit(NamedTuple):
    """`do` changes stored records of a copy; verify then names `times` of them, each as `says`."""

    name: str
    do: Callable[[apsw.Connection, Trail], Any]
    says: str
    times: int = 1


EDITS = (
    Edit("an amount in the ledger", _body("2000", "9000", _newest_of("txn")), r"txn_\w+ was edited"),
    Edit("a text in the ledger", _body("charge", "chargf", _newest_of("txn")), r"txn_\w+ was edited"),
    Edit("a ledger entry deleted", _sql(_DELETE, _newest_of("txn")), r"txn_\w+ was deleted"),
    Edit(
        "six payments cancelled",
        _cancel_six,
        r'pi_\w+ was edited: its status is "canceled", and the trail leads to "succeeded"',
        6,
    ),
    Edit("an API key put in", _put_in_key, "sys: key_0{24} was put in: the trail does not tell of it"),
    Edit("an API key deleted", _sql(_DELETE, _any_key), r"sys: key_\w+ was deleted"),
    Edit("a charge", _body('"amount_minor":2000', '"amount_minor":100', _newest_of("ch")), r"ch_\w+ was edited: its"),
    Edit("a charge deleted", _sql(_DELETE, _newest_of("ch")), r"ch_\w+ was deleted"),
    Edit("a version", _write_as(7, _newest_of("pi")), r"pi_\w+ is at version 7, and the trail ends with version 2"),
    Edit("an account", _body('"created":1', '"created":2', lambda t: f"sys/{t.account}"), r"acct_\w+ was edited"),
    Edit("bytes that are no record", _sql(_NONSENSE, _newest_of("pi")), r"pi_\w+ was edited: it cannot be read"),
)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_each_edited_record_is_named(trail: Trail, edit: Edit, tmp_path: Path) -> None:
    """The trail is whole. Only the records differ from it."""
    copy = _changed(trail, tmp_path, edit.do)
    done = invoked("audit", "verify", "--data-dir", copy)
    assert done.returncode == 1, done.stdout
    found = [line for line in done.stderr.splitlines() if re.search(edit.says, line)]
    assert len(found) == edit.times, done.stderr
    differ = "differs" if edit.times == 1 else "differ"
    assert f"{counted(edit.times, 'record')} {differ} from the audit trail" in done.stderr
    assert "is damaged" not in done.stderr


def _changed(trail: Trail, tmp_path: Path, change: Callable[[apsw.Connection, Trail], Any]) -> Path:
    copy = tmp_path / "data"
    shutil.copytree(trail.data_dir, copy)
    database = apsw.Connection(os.fspath(copy / DATABASE))
    change(database, trail)
    database.close()
    return copy


def _cut_off(db: apsw.Connection, trail: Trail) -> None:
    """The last batch and its entries go, and the task is made to agree: nothing inside can tell."""
    for entry in trail.batches[2]:
        db.execute(_DELETE, (f"{trail.scope}/{entry}",))
    db.execute(_DELETE, (_batch(3)(trail),))
    head = msgspec.json.decode(bytes(db.execute("SELECT body FROM record WHERE key = ?", (_batch(2)(trail),)).get))
    task = {"id": "audt_chain", "created": 1, "due_at_ms": 1, "sequence": 2, "head": head["head"]}
    db.execute("UPDATE record SET body = ? WHERE key = ?", (msgspec.json.encode(task), f"{trail.scope}/audt_chain"))


def _rewritten(db: apsw.Connection, trail: Trail) -> None:
    """An entry is edited and the whole chain made anew from there, with the platform's own code."""
    from tillway.domain.audit import AuditBatch, next_batch

    _body("POST", "EDIT", _entry(1, 0))(db, trail)
    last: AuditBatch | None = None
    for number, ids in enumerate(trail.batches, 1):
        entries = [
            (
                id.removeprefix("aud_"),
                bytes(db.execute("SELECT body FROM record WHERE key = ?", (f"{trail.scope}/{id}",)).get),
            )
            for id in ids
        ]
        old = msgspec.json.decode(
            bytes(db.execute("SELECT body FROM record WHERE key = ?", (_batch(number)(trail),)).get)
        )
        last = next_batch(trail.scope, last, entries, old["until"], old["created"])
        db.execute("UPDATE record SET body = ? WHERE key = ?", (msgspec.json.encode(last), _batch(number)(trail)))
    assert last is not None
    task = {"id": "audt_chain", "created": 1, "due_at_ms": 1, "sequence": 3, "head": last.head}
    db.execute("UPDATE record SET body = ? WHERE key = ?", (msgspec.json.encode(task), f"{trail.scope}/audt_chain"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_cut_off, "the chain ends before batch 3, the one with the exported head"),
        (_rewritten, "batch 3 is not the one with the exported head"),
    ],
)
def test_what_only_an_exported_head_shows(trail: Trail, change: Any, says: str, tmp_path: Path) -> None:
    heads = tmp_path / "heads.json"
    heads.write_text(invoked("audit", "heads", "--data-dir", trail.data_dir, "--json").stdout)
    assert invoked("audit", "verify", "--data-dir", trail.data_dir, "--heads", heads).returncode == 0
    copy = _changed(trail, tmp_path, change)
    assert "is damaged" not in invoked("audit", "verify", "--data-dir", copy).stderr
    done = invoked("audit", "verify", "--data-dir", copy, "--heads", heads)
    assert done.returncode == 1 and says in done.stderr


def _rebuilt(*, signed: Callable[[Any, Any], Any], keeps: int = 1) -> Callable[[apsw.Connection, Trail], Any]:
    """An entry is edited, and the chain made anew behind the first `keeps` batches. `signed(new, old)` is a batch with
    the signature that the attacker gives it."""

    def rebuild(db: apsw.Connection, trail: Trail) -> None:
        from tillway.domain.audit import AuditBatch, next_batch

        _body("POST", "EDIT", _entry(1, 0))(db, trail)
        last: AuditBatch | None = None
        for number, ids in enumerate(trail.batches, 1):
            key = _batch(number)(trail)
            stored = db.execute("SELECT body FROM record WHERE key = ?", (key,)).get
            old = msgspec.json.decode(bytes(cast(bytes, stored)), type=AuditBatch)
            bodies = [
                (id.removeprefix("aud_"), db.execute("SELECT body FROM record WHERE key = ?", (f"{trail.scope}/{id}",)))
                for id in ids
            ]
            entries = [(suffix, bytes(cast(bytes, found.get))) for suffix, found in bodies]
            if number > keeps:
                new = signed(next_batch(trail.scope, last, entries, old.until, old.created), old)
                db.execute("UPDATE record SET body = ? WHERE key = ?", (msgspec.json.encode(new), key))
            last = old if number <= keeps else new
        assert last is not None
        task = {"id": "audt_chain", "created": 1, "due_at_ms": 1, "sequence": BATCHES, "head": last.head}
        db.execute("UPDATE record SET body = ? WHERE key = ?", (msgspec.json.encode(task), f"{trail.scope}/audt_chain"))

    return rebuild


def _as_before(new: Any, old: Any) -> Any:
    return msgspec.structs.replace(new, signer=old.signer, signature=old.signature)


def _by_another(new: Any, old: Any) -> Any:
    other = Ed25519HeadSigner(Secret(b"another key file" * 2))
    return msgspec.structs.replace(new, signer=other.public, signature=other.sign(new.head))


@pytest.mark.parametrize(
    ("signed", "says"),
    [
        (lambda new, old: new, "batch 2 is not signed, and batches before it are"),
        (_as_before, "batch 2 is not the one that was signed"),
        (_by_another, "batch 2 is signed with the key of another key file"),
    ],
)
def test_a_chain_that_was_made_anew_is_not_signed(trail: Trail, signed: Any, says: str, tmp_path: Path) -> None:
    copy = _changed(trail, tmp_path, _rebuilt(signed=signed))
    done = invoked("audit", "verify", "--data-dir", copy)
    assert done.returncode == 1 and says in done.stderr, done.stderr


def test_heads_are_checked_with_the_public_key(trail: Trail, tmp_path: Path) -> None:
    shown = invoked("audit", "heads", "--data-dir", trail.data_dir)
    assert shown.returncode == 0 and shown.stdout.count(" holds") == 2, "the merchant's and the installation's"
    public = re.search(r"ed25519:\S{44}", shown.stderr)
    assert public is not None
    elsewhere = _changed(trail, tmp_path, lambda db, trail: None)
    (elsewhere / "keys.json").unlink()
    unchecked = invoked("audit", "heads", "--data-dir", elsewhere)
    assert unchecked.returncode == 0 and "--public-key" in unchecked.stderr and "not checked" in unchecked.stdout
    checked = invoked("audit", "heads", "--data-dir", elsewhere, "--public-key", public[0])
    assert checked.returncode == 0 and checked.stdout.count(" holds") == 2
    assert invoked("audit", "verify", "--data-dir", elsewhere, "--public-key", public[0]).returncode == 0
    other = Ed25519HeadSigner(Secret(b"another key file" * 2)).public
    wrong = invoked("audit", "heads", "--data-dir", elsewhere, "--public-key", other)
    assert wrong.returncode == 1 and "is signed with another key" in wrong.stderr
    none = invoked("audit", "heads", "--data-dir", elsewhere, "--public-key", "ed25519:abc")
    assert none.returncode == 2 and "32 bytes in base64" in none.stderr


@pytest.mark.parametrize("command", ["heads", "verify"])
def test_a_key_file_of_another_installation_is_no_damage(trail: Trail, command: str, tmp_path: Path) -> None:
    copy = _changed(trail, tmp_path, lambda db, trail: None)
    settings = Settings(data_dir=copy)

    async def bind() -> None:
        store = await SqliteStore.open(copy / DATABASE)
        await check_key_file(settings, store, open_keys(settings))
        await store.close()

    asyncio.run(bind())
    public = re.search(r"ed25519:\S{44}", invoked("audit", "heads", "--data-dir", copy).stderr)
    assert public is not None
    (copy / KEY_FILE).unlink()
    Keyring.create(copy / KEY_FILE)
    refused = invoked("audit", command, "--data-dir", copy)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "is the key file of another installation" in refused.stderr and "damaged" not in refused.stderr
    assert invoked("audit", command, "--data-dir", copy, "--public-key", public[0]).returncode == 0


@pytest.mark.parametrize("form", ["lines", "list", "address"])
def test_heads_kept_outside_show_a_chain_that_was_made_anew(
    trail: Trail, form: str, tmp_path: Path, served: Callable[[bytes], str]
) -> None:
    heads = json.loads(invoked("audit", "heads", "--data-dir", trail.data_dir, "--json").stdout)
    text = json.dumps(heads) if form == "list" else "".join(json.dumps(head) + "\n" for head in heads)
    (tmp_path / "heads").write_text(text)
    place = served(text.encode()) if form == "address" else str(tmp_path / "heads")
    assert invoked("audit", "heads", "--data-dir", trail.data_dir, "--from", place).returncode == 0
    copy = _changed(trail, tmp_path, _rewritten)
    assert "is damaged" not in invoked("audit", "verify", "--data-dir", copy).stderr, "nothing inside can tell"
    for command in (("heads", "--from"), ("verify", "--heads")):
        done = invoked("audit", command[0], "--data-dir", copy, command[1], place)
        assert done.returncode == 1 and "batch 3 is not the one with the exported head" in done.stderr


def test_a_forged_head_is_not_believed(trail: Trail, tmp_path: Path) -> None:
    heads = json.loads(invoked("audit", "heads", "--data-dir", trail.data_dir, "--json").stdout)
    heads[1]["entries"] += 1
    (tmp_path / "heads").write_text(json.dumps(heads))
    done = invoked("audit", "heads", "--data-dir", trail.data_dir, "--from", tmp_path / "heads")
    assert done.returncode == 1 and "the signature of batch 3 does not hold" in done.stderr


@pytest.fixture
def served() -> Iterator[Callable[[bytes], str]]:
    """Serves bytes at an address of this host."""
    servers: list[ThreadingHTTPServer] = []

    def serve(content: bytes) -> str:
        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Answers))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/heads"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_heads_that_are_none(trail: Trail, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}")
    done = invoked("audit", "verify", "--data-dir", trail.data_dir, "--heads", wrong)
    assert done.returncode == 2 and "tillway audit heads --json" in done.stderr
    for emptied in ("", "[]"):
        wrong.write_text(emptied)
        for command in (("heads", "--from"), ("verify", "--heads")):
            done = invoked("audit", *command, wrong, "--data-dir", trail.data_dir)
            assert done.returncode == 2 and "holds no head, so it proves nothing" in done.stderr
    gone = tmp_path / "gone.json"
    gone.write_text('[{"scope":"0000000000000000t","sequence":1,"entries":1,"head":"00"}]')
    done = invoked("audit", "verify", "--data-dir", trail.data_dir, "--heads", gone)
    assert done.returncode == 1 and "acct_0000000000000000 test: the chain ends before batch 1" in done.stderr


def test_a_chain_that_was_cut_off_is_not_continued(trail: Trail, tmp_path: Path) -> None:
    """To link on would put a new batch in the place of the one that is missing."""
    copy = _changed(trail, tmp_path, _sql(_DELETE, _batch(3)))

    async def link() -> None:
        store = await SqliteStore.open(copy / DATABASE)
        clock = Clock(lambda: time.time_ns() + 10_000 * 1_000_000_000)
        running = await assemble(Settings(data_dir=copy), store, clock)
        for row in await store.claim("audit", now_ms=clock.now_ms(), lease_ms=1000, limit=10):
            await running.runner.audit.run(row)
        await running.close()

    asyncio.run(link())
    done = invoked("audit", "verify", "--data-dir", copy)
    assert done.returncode == 1 and "the chain ends before batch 3, which was linked" in done.stderr


def test_what_cannot_be_read_is_told_and_the_rest_is_exported(trail: Trail, tmp_path: Path) -> None:
    copy = _changed(
        trail, tmp_path, lambda db, trail: [db.execute(_NONSENSE, (key(trail),)) for key in (_entry(0, 1), _batch(3))]
    )
    whole = invoked("audit", "export", "--data-dir", trail.data_dir).stdout.splitlines()
    done = invoked("audit", "export", "--data-dir", copy)
    assert done.returncode == 1 and len(done.stdout.splitlines()) == len(whole) - 1
    assert f"Left out, because it cannot be read: 1 entry, {trail.batches[0][1]} first" in done.stderr
    done = invoked("audit", "heads", "--data-dir", copy)
    assert done.returncode == 1 and "mrk_000000000003" in done.stderr and "Traceback" not in done.stderr


def test_the_trail_as_lines(trail: Trail) -> None:
    out = invoked("audit", "export", "--data-dir", trail.data_dir, "--account", trail.account).stdout
    entries = [json.loads(line) for line in out.splitlines()]
    assert len(entries) == 4 * BATCHES + 2
    first, second = entries[:2]
    assert [entry["operation"] for entry in (first, second)] == ["POST /v1/payment_intents"] * 2
    assert first["ip"] == "192.0.2.7" and first["hint"].endswith(trail.key[-4:])
    made, changed = first["changes"][0], second["changes"][0]
    assert (made["what"], made["before"], made["after"]["status"]) == ("made", None, "processing")
    assert (changed["record"], changed["before"]["status"], changed["after"]["status"]) == (
        made["record"],
        "processing",
        "succeeded",
    )
    assert "secret" not in made["after"], "a client secret is derived, and stands nowhere"


def test_the_trail_as_a_sheet(trail: Trail) -> None:
    out = invoked("audit", "export", "--data-dir", trail.data_dir, "--format", "csv", "--to", "2100-01-01").stdout
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["account"] for row in rows} == {"sys", trail.account}
    [account] = [row for row in rows if row["record"] == trail.account]
    assert account["operation"] == "tillway init" and account["actor"].startswith("cli:")
    assert json.loads(account["after"])["id"] == trail.account


def test_a_stretch_of_time(trail: Trail) -> None:
    def lines(*options: str) -> list[str]:
        return invoked("audit", "export", "--data-dir", trail.data_dir, *options).stdout.splitlines()

    assert lines("--to", "2020-01-01") == [] == lines("--from", "2100-01-01")
    assert len(lines("--from", "2020-01-01")) + 1 == len(lines()), "each export is an entry of its own"
    assert invoked("audit", "export", "--data-dir", trail.data_dir, "--from", "yesterday").returncode == 2


def test_a_restored_installation_says_so(trail: Trail, tmp_path: Path) -> None:
    copy = tmp_path / "backup"
    assert invoked("backup", copy, "--data-dir", trail.data_dir).returncode == 0
    elsewhere = tmp_path / "elsewhere"
    assert invoked("restore", copy, "--data-dir", elsewhere).returncode == 0
    assert invoked("migrate", "--data-dir", elsewhere).returncode == 0
    lines = invoked("audit", "export", "--data-dir", elsewhere, "--account", "sys").stdout.splitlines()
    restored, migrated, _ = (json.loads(line) for line in lines[-3:])
    assert invoked("audit", "verify", "--data-dir", elsewhere).returncode == 0
    assert restored["operation"] == "tillway restore" and "made_at" in restored["detail"]
    assert migrated["operation"] == "tillway migrate" and migrated["detail"]["schema_version"] >= 1


# Reports, of the same installation.


@pytest.mark.parametrize(
    "command",
    [("audit", "export"), ("reports", "transactions"), ("keys", "list"), ("oauth", "clients", "list")],
    ids=str,
)
def test_an_account_that_is_none_has_no_empty_list(trail: Trail, command: tuple[str, ...]) -> None:
    done = invoked(*command, "--account", "acct_0000000000000000", "--data-dir", trail.data_dir)
    assert (done.returncode, done.stdout) == (1, "")
    assert "There is no account 'acct_0000000000000000'" in done.stderr


def test_who_carries_an_installation_away_is_told(trail: Trail, tmp_path: Path) -> None:
    """A copy holds the keys to everything: that there is one is told in what was copied, and in the copy."""
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(trail.data_dir, source)
    target.mkdir()
    shutil.copy(source / "keys.json", target)
    file, copied = tmp_path / "all.ndjson", tmp_path / "copy"
    assert invoked("backup", copied, "--data-dir", source).returncode == 0
    assert invoked("export", file, "--data-dir", source).returncode == 0
    assert invoked("import", file, "--data-dir", target).returncode == 0, "what came from elsewhere says so itself"
    told = [
        json.loads(line)
        for line in invoked("audit", "export", "--account", "sys", "--data-dir", target).stdout.splitlines()
    ]
    assert [(one["operation"], sorted(one["detail"])) for one in told[-3:]] == [
        ("tillway backup", ["directory", "keys"]),
        ("tillway export", ["file"]),
        ("tillway audit export", ["account", "format", "from", "to"]),
    ]
    user, _, host = told[-1]["actor"].removeprefix("cli:").partition("@")
    assert user and host == socket.gethostname()
    assert b"tillway backup" in (copied / DATABASE).read_bytes()
    verified = invoked("audit", "verify", "--data-dir", target)
    assert verified.returncode == 0, verified.stderr  # Versions began anew in the target.


def test_a_report_as_table_csv_and_json(trail: Trail) -> None:
    place: tuple[str | Path, ...] = ("--data-dir", trail.data_dir, "--to", "2100-01-01", "--from", "2099-06-01")
    assert json.loads(invoked("reports", "transactions", *place, "--format", "json").stdout) == []
    place = ("--data-dir", trail.data_dir)  # The last 30 days; the clock of this trade ran ahead by minutes.
    ahead = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 3600))
    place = (*place, "--to", ahead, "--by", "type,status")
    [row] = json.loads(invoked("reports", "transactions", *place, "--format", "json").stdout)
    count = 2 * BATCHES + 1
    assert (row["account"], row["type"], row["status"], row["count"]) == (trail.account, "charge", "succeeded", count)
    assert (row["gross"], row["net"]) == (2000 * count, (2000 - 58 - 30) * count)
    assert row["gross_decimal"] == f"{20 * count}.00"
    [sheet] = csv.DictReader(io.StringIO(invoked("reports", "transactions", *place, "--format", "csv").stdout))
    assert {name: str(value) for name, value in row.items()} == sheet
    assert f"{20 * count}.00" in invoked("reports", "transactions", *place).stdout
    own = invoked("reports", "transactions", *place, "--account", trail.account, "--format", "json")
    assert json.loads(own.stdout) == [row]


@pytest.mark.parametrize("wrong", [("--by", "mood"), ("--from", "2020-01-01", "--to", "2022-01-01"), ("--to", "soon")])
def test_reports_that_cannot_be(trail: Trail, wrong: tuple[str, ...]) -> None:
    assert invoked("reports", "transactions", "--data-dir", trail.data_dir, *wrong).returncode == 2
