"""A database that an earlier release made opens, and answers as it did: statuses and JSON values, replays too.

`tests/support/data/installation-<commit>.tar.xz` was made by `make_installation.py` at that commit: in fab317c events
have rows and keys have their answers, in 50a6538 audit entries hold both. `export-fab317c.ndjson.xz` is the output of
`tillway export` of fab317c for the first of them. Differences that a later change made on purpose stand in DIFFERENT,
each with its reason.
"""

import asyncio
import hashlib
import json
import lzma
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tillway_server import invoked, invoked_json

from tillway.engine.clock import Clock
from tillway.http.messages import Request
from tillway.installation import open_store
from tillway.operations.accounts import create_account
from tillway.settings import Settings
from tillway.store.codec import without_checksum
from tillway.store.port import Write
from tillway.wiring import Running, assemble

DATA = Path(__file__).parents[1] / "support" / "data"
ARCHIVES = sorted(DATA.glob("installation-*.tar.xz"))

FIRST = "fab317c"
"""The archive from before amounts in ISK, UGX and MGA on `/v1` were Stripe's."""

SOURCE_APIS = {"charge": "token_charge", "platform": "online_platform", "disbursement": "disbursements"}
"""`door` of fab317c and before → `source_api`; the other values have stayed."""


def _source_api(document: Any) -> Any:
    """The document with `door` as today's code calls it."""
    match document:
        case dict():
            return {
                "source_api" if name == "door" else name: SOURCE_APIS.get(value, value)
                if name == "door"
                else _source_api(value)
                for name, value in document.items()
            }
        case list():
            return [_source_api(member) for member in document]
        case _:
            return document


def _no_bank_id_as_network_id(document: Any) -> Any:
    match document:
        case dict():
            return {
                name: None
                if name == "network_transaction_id" and str(value).startswith("bank-")
                else _no_bank_id_as_network_id(value)
                for name, value in document.items()
            }
        case list():
            return [_no_bank_id_as_network_id(member) for member in document]
        case _:
            return document


DIFFERENT: dict[str, tuple[Callable[[Any], Any], ...]] = {
    # `door` was the public word for the contract that something came by; it is `source_api` now (issue 8, names).
    # The bank's own id was shown as the card network's; only a network's id is shown now (issue 8, extension points).
    "fab317c": (_source_api, _no_bank_id_as_network_id),
}
"""Changes to an archive's golden answers, by its commit."""

FILLED_SINCE = {"charge": ("receipt_url", "source"), "ledger": ("pending_until",)}
"""Members of objects that were null or are new: a charge has the address of its receipt, and its card; the ledger tells
when money becomes available. A replay still has none."""


def _without_filled(document: Any) -> Any:
    match document:
        case dict():
            filled = FILLED_SINCE.get(str(document.get("object")), ())
            return {name: _without_filled(member) for name, member in document.items() if name not in filled}
        case list():
            return [_without_filled(member) for member in document]
        case _:
            return document


CORRECTED: dict[tuple[str, str], tuple[str, str, str]] = {
    # The originals' clients expect these words (issue 9, the source systems' clients).
    ("fab317c", "/get-payment-details"): ("status", "Success", "PartiallyRefunded"),
    ("fab317c", "/v1/api/payment/anna0001"): ("payment_method", "simulator", "paypal"),
}
"""Single members that a later release answers otherwise, by commit and path: (member, before, now)."""


def _correct(document: Any, member: str, before: str, now: str) -> Any:
    if isinstance(document, list):
        return [_correct(one, member, before, now) for one in document]
    # The second merchant has no such object: its answer is a refusal.
    return {**document, member: now} if document.get(member) == before else document


def _path(path: str) -> str:
    """A recorded path with the list filter as today's code calls it."""
    head, found, value = path.partition("&door=")
    return f"{head}&source_api={SOURCE_APIS.get(value, value)}" if found else path


class Installation(msgspec.Struct):
    """An unpacked archive, opened by today's code with the clock at the second when it was recorded."""

    commit: str
    data_dir: Path
    golden: dict[str, Any]
    running: Running

    async def answer(self, recorded: dict[str, Any]) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {recorded['key']}"}
        body = recorded.get("body")
        if isinstance(body, str):
            headers["content-type"] = "application/x-www-form-urlencoded"
        elif body is not None:
            headers["content-type"] = "application/json"
        if "once" in recorded:
            headers["idempotency-key"] = recorded["once"]
        path, _, query = _path(recorded["path"]).partition("?")
        encoded = body.encode() if isinstance(body, str) else b"" if body is None else json.dumps(body).encode()
        answer = await self.running.api.handle(Request(recorded["method"], path, query, headers, encoded, "127.0.0.1"))
        return answer.status, msgspec.json.decode(answer.body)

    async def differing(self, *, every: int = 1) -> list[str]:
        """The requests, or one of `every` so many, whose answers are others than the golden ones."""
        wrong = []
        for recorded in self.golden["requests"][::every]:
            expected = recorded["json"]
            # A replay repeats the first answer as it was given.
            for change in DIFFERENT.get(self.commit, ()) if "once" not in recorded else ():
                expected = change(expected)
            if (self.commit, recorded["path"]) in CORRECTED:
                expected = _correct(expected, *CORRECTED[self.commit, recorded["path"]])
            status, document = await self.answer(recorded)
            if "once" not in recorded:
                document, expected = _without_filled(document), _without_filled(expected)
            if (status, _as_one(document)) != (recorded["status"], _as_one(expected)):
                wrong.append(f"{recorded['method']} {recorded['path']}: {status} {_difference(document, expected)}")
        return wrong


def _as_one(value: Any) -> bytes:
    """A JSON value without the addresses of the server that gave it."""
    return msgspec.json.encode(_without_addresses(value), order="sorted")


def _without_addresses(value: Any) -> Any:
    match value:
        case dict():
            # The server that recorded listened on a port of its own, and request ids are drawn anew.
            return {n: _without_addresses(v) for n, v in value.items() if n not in ("request_log_url", "request_id")}
        case list():
            return [_without_addresses(member) for member in value]
        case str() if value.startswith("http://127.0.0.1:"):
            return value.partition("/3ds/")[2]
        case _:
            return value


def _difference(got: Any, expected: Any, place: str = "") -> str:
    """The first place in which two JSON values differ."""
    if isinstance(got, dict) and isinstance(expected, dict):
        for name in sorted(got.keys() | expected.keys()):
            if got.get(name) != expected.get(name):
                return _difference(got.get(name), expected.get(name), f"{place}.{name}")
    if isinstance(got, list) and isinstance(expected, list) and len(got) == len(expected):
        for index, (one, other) in enumerate(zip(got, expected, strict=True)):
            if one != other:
                return _difference(one, other, f"{place}[{index}]")
    return f"{place}: {str(got)[:200]} where {str(expected)[:200]} was"


def _unpacked(archive: Path, data_dir: Path) -> Path:
    data_dir.mkdir(mode=0o700)
    with tarfile.open(archive) as packed:
        packed.extractall(data_dir, filter="data")
    for name in ("tillway.db", "keys.json"):
        (data_dir / name).chmod(0o600)
    return data_dir


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda archive: archive.name)
def archive(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def migrated(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of an archive as `tillway migrate` leaves it. Tests copy it."""
    data_dir = _unpacked(archive, tmp_path_factory.mktemp("migrated") / _commit(archive))
    done = invoked("migrate", "--data-dir", data_dir)
    assert done.returncode == 0, done.stderr
    return data_dir


@pytest.fixture
def data_dir(migrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(migrated, tmp_path / migrated.name))


def _commit(archive: Path) -> str:
    return archive.name.split("-")[1].split(".")[0]


async def opened(data_dir: Path, like: Path) -> Installation:
    """The installation in `data_dir`, which must answer as the archive unpacked in `like` says."""
    golden = json.loads((like / "golden.json").read_text())
    settings = Settings(data_dir=data_dir, throttle_test_per_second=0, throttle_key_per_second=0)
    recorded_ns = golden["recorded_at"] * 1_000_000_000
    running = await assemble(settings, await open_store(settings), Clock(lambda: recorded_ns))
    return Installation(like.name, data_dir, golden, running)


async def test_an_old_installation_answers_as_it_did(data_dir: Path) -> None:
    installation = await opened(data_dir, data_dir)
    try:
        wrong = await installation.differing()
        assert not wrong, f"{len(wrong)} answers differ:\n" + "\n".join(wrong[:20])
        assert len(installation.golden["requests"]) > 300
    finally:
        await installation.running.close()


async def test_one_altered_row_shows(data_dir: Path) -> None:
    installation = await opened(data_dir, data_dir)
    store = installation.running.store
    try:
        account = installation.golden["accounts"][0]["account"].removeprefix("acct_")
        (row,) = await store.query(None, f"{account}t/re_", limit=1)
        altered = row.body.replace(b'"amount_minor":5', b'"amount_minor":6')
        assert altered != row.body
        await store.commit([Write(row.key, row.version, without_checksum(altered))])
        wrong = await installation.differing()
        assert any(row.key.partition("/")[2] in line for line in wrong), wrong
    finally:
        await installation.running.close()


def test_its_audit_trail_still_verifies(data_dir: Path) -> None:
    if data_dir.name == FIRST:
        # It has payments in ISK, UGX and MGA: the sums stay, and `/v1` writes them with other numbers.
        [account, *_] = [one["account"] for one in invoked_json("accounts", "list", "--data-dir", data_dir)]
        plan = invoked_json("accounts", "amounts", account, "--data-dir", data_dir)
        moved = invoked_json("accounts", "amounts", account, "--yes", "--data-dir", data_dir)
        assert (plan["amounts"], moved["amounts"]) == ("stored", "stripe") and plan["sums"] == moved["sums"] != []
    verified = invoked("audit", "verify", "--data-dir", data_dir)
    assert verified.returncode == 0, verified.stdout + verified.stderr


async def _trade(installation: Installation, key: str, *, begins: bool) -> list[tuple[int, Any]]:
    """A payment and its refund under keys by the new merchant of `key`, or the same requests again; and their lists."""
    pay = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
    send = {"method": "POST", "path": "/v1/payment_intents", "key": key, "body": pay, "once": "new-payment"}
    paid = await installation.answer(send)
    back = {"payment_intent": paid[1]["id"], "amount": 1200}
    send = {"method": "POST", "path": "/v1/refunds", "key": key, "body": back, "once": "new-refund"}
    answers = [paid, await installation.answer(send)]
    assert [status for status, _ in answers] == [200, 200] and (begins or answers[0][1]["status"] == "succeeded")
    for noun in ("events", "charges", "balance_transactions"):
        answers.append(await installation.answer({"method": "GET", "path": f"/v1/{noun}", "key": key}))
    return answers


async def test_records_of_both_forms_move_to_another_store(migrated: Path, data_dir: Path, tmp_path: Path) -> None:
    installation = await opened(data_dir, migrated)
    _, keys = await create_account(installation.running.store, Clock())
    told = await _trade(installation, keys[0].secret, begins=True)
    await installation.running.close()
    there = tmp_path / "there"
    there.mkdir(mode=0o700)
    shutil.copy2(data_dir / "keys.json", there)

    def move() -> None:
        out = invoked_json("export", tmp_path / "all.ndjson", "--data-dir", data_dir)
        # The import compares the records of each type and the ledger's sums with these.
        assert invoked_json("import", tmp_path / "all.ndjson", "--data-dir", there) == out
        assert invoked("audit", "verify", "--data-dir", there).returncode == 0

    await asyncio.to_thread(move)
    moved = await opened(there, migrated)
    try:
        assert await moved.differing(every=5) == []
        assert await _trade(moved, keys[0].secret, begins=False) == told
    finally:
        await moved.running.close()


async def test_an_export_that_an_earlier_release_wrote_is_imported(tmp_path: Path) -> None:
    """The code that wrote it had a row for each event and each answer, as the file has lines for them."""
    written = tmp_path / "before.ndjson"
    written.write_bytes(lzma.decompress((DATA / f"export-{FIRST}.ndjson.xz").read_bytes()))
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    keys = [line["k"].partition("/")[2] for line in lines if line["t"] == "record"]
    like = _unpacked(DATA / f"installation-{FIRST}.tar.xz", tmp_path / FIRST)
    there = tmp_path / "there"
    there.mkdir(mode=0o700)
    shutil.copy2(like / "keys.json", there)

    def bring_in() -> None:
        proved = invoked_json("import", written, "--data-dir", there)
        assert proved == lines[-1]["tally"] and proved["records"] == len(keys)
        assert proved["types"] == Counter(key.partition("_")[0] for key in keys)
        assert proved["types"]["evt"] > 100 and proved["types"]["idem"] > 10
        verified = invoked("audit", "verify", "--data-dir", there)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        # The copy of the copy has the same ledger, and no record more than the entry in the trail about this export.
        again = invoked_json("export", tmp_path / "again.ndjson", "--data-dir", there)
        assert again["ledger"] == proved["ledger"] and any(again["ledger"].values())
        assert Counter(again["types"]) - Counter(proved["types"]) == {"aud": 1}

    await asyncio.to_thread(bring_in)
    installation = await opened(there, like)
    try:
        assert await installation.differing() == []
        assert len(installation.golden["requests"]) > 300
    finally:
        await installation.running.close()


async def test_a_backup_of_before_is_restored(archive: Path, migrated: Path, tmp_path: Path) -> None:
    """Its form is that of `tillway backup` then: the database, the keys and the manifest."""
    backup = _unpacked(archive, tmp_path / "backup")
    (backup / "golden.json").unlink()
    files = [
        {"name": file.name, "bytes": len(file.read_bytes()), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in (backup / "tillway.db", backup / "keys.json")
    ]
    made = {"format": 1, "made_at": "2026-11-29T05:23:00Z", "schema_version": 1, "database": "tillway.db"}
    (backup / "manifest.json").write_text(json.dumps({**made, "files": files}))
    restored = tmp_path / "restored"

    def restore() -> None:
        for command in (("restore", backup), ("migrate",), ("audit", "verify")):
            done = invoked(*command, "--data-dir", restored)
            assert done.returncode == 0, done.stderr

    await asyncio.to_thread(restore)
    installation = await opened(restored, migrated)
    try:
        assert await installation.differing(every=5) == []
    finally:
        await installation.running.close()


def test_no_secret_that_is_shown_once_is_stored_in_the_clear(tmp_path: Path) -> None:
    """Answers with the secret of an endpoint, and with client secrets, are among the replayed ones."""
    data_dir = _unpacked(DATA / "installation-50a6538.tar.xz", tmp_path / "data")
    answers = (data_dir / "golden.json").read_text()
    secrets = set(re.findall(r"whsec_(?=[0-9A-Za-z]{20})[0-9A-Za-z]+|_secret_[0-9a-f]{32}", answers))
    assert len(secrets) > 20 and any(secret.startswith("whsec_") for secret in secrets)
    database = (data_dir / "tillway.db").read_bytes()
    assert [secret for secret in secrets if secret.encode() in database] == []
