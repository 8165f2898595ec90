"""A database that an earlier release made opens, and answers as it did: statuses and JSON values, replays too.

`tests/support/data/installation-<commit>.tar.xz` was made by `make_installation.py` at that commit. Differences that a
later change made on purpose stand in DIFFERENT, each with its reason.
"""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tillway_server import tillway

from tillway.engine.clock import Clock
from tillway.http.messages import Request
from tillway.installation import open_store
from tillway.settings import Settings
from tillway.store.port import Write
from tillway.wiring import Running, assemble

DATA = Path(__file__).parents[1] / "support" / "data"
ARCHIVES = sorted(DATA.glob("installation-*.tar.xz"))

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

    async def differing(self) -> list[str]:
        """The requests whose answers are others than the golden ones."""
        wrong = []
        for recorded in self.golden["requests"]:
            expected = recorded["json"]
            # A replay repeats the first answer as it was given.
            for change in DIFFERENT.get(self.commit, ()) if "once" not in recorded else ():
                expected = change(expected)
            if (self.commit, recorded["path"]) in CORRECTED:
                expected = _correct(expected, *CORRECTED[self.commit, recorded["path"]])
            status, document = await self.answer(recorded)
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


async def opened(archive: Path, place: Path) -> Installation:
    data_dir = place / "data"
    data_dir.mkdir(mode=0o700)
    with tarfile.open(archive) as packed:
        packed.extractall(data_dir, filter="data")
    golden = json.loads((data_dir / "golden.json").read_text())
    for name in ("tillway.db", "keys.json"):
        (data_dir / name).chmod(0o600)
    migrated = tillway("migrate", "--data-dir", data_dir)
    assert migrated.returncode == 0, migrated.stderr
    settings = Settings(data_dir=data_dir, throttle_test_per_second=0, throttle_key_per_second=0)
    recorded_ns = golden["recorded_at"] * 1_000_000_000
    running = await assemble(settings, await open_store(settings), Clock(lambda: recorded_ns))
    return Installation(archive.name.split("-")[1].split(".")[0], data_dir, golden, running)


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name)
async def test_an_old_installation_answers_as_it_did(archive: Path, tmp_path: Path) -> None:
    installation = await opened(archive, tmp_path)
    try:
        wrong = await installation.differing()
        assert not wrong, f"{len(wrong)} answers differ:\n" + "\n".join(wrong[:20])
        assert len(installation.golden["requests"]) > 300
    finally:
        await installation.running.close()


async def test_one_altered_row_shows(tmp_path: Path) -> None:
    installation = await opened(ARCHIVES[0], tmp_path)
    store = installation.running.store
    try:
        account = installation.golden["accounts"][0]["account"].removeprefix("acct_")
        (row,) = await store.query(None, f"{account}t/re_", limit=1)
        altered = row.body.replace(b'"amount_minor":5', b'"amount_minor":6')
        assert altered != row.body
        await store.commit([Write(row.key, row.version, altered)])
        wrong = await installation.differing()
        assert any(row.key.partition("/")[2] in line for line in wrong), wrong
    finally:
        await installation.running.close()


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name)
def test_its_audit_trail_still_verifies(archive: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    with tarfile.open(archive) as packed:
        packed.extractall(data_dir, filter="data")
    for name in ("tillway.db", "keys.json"):
        (data_dir / name).chmod(0o600)
    assert tillway("migrate", "--data-dir", data_dir).returncode == 0
    # It has payments in ISK, UGX and MGA, whose amounts on `/v1` stay as they were.
    accounts = json.loads(tillway("accounts", "list", "--data-dir", data_dir, "--json").stdout)
    kept = tillway("accounts", "amounts", accounts[0]["account"], "--data-dir", data_dir)
    assert kept.returncode == 1 and "has records in ISK, UGX or MGA" in kept.stderr
    verified = tillway("audit", "verify", "--data-dir", data_dir)
    assert verified.returncode == 0, verified.stdout + verified.stderr
