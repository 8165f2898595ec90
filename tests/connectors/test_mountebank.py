"""The connector `http_bank`, and a whole server, against a bank that is not ours: mountebank, with examples/bank in it.

Mountebank comes from npm into build/, once. Where there is neither a copy nor a way to get one, these tests skip.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import stripe
from tillway_server import TillwayServer, init, tillway_json

from tillway.connectors.http_bank import HttpBank
from tillway.connectors.port import Connector, Outcome, Transport
from tillway.connectors.transport import SocketTransport
from tillway.crash.free_port import free_port
from tillway.domain.account import Scope
from tillway.testing.connector_contract import Check, checks_for

VERSION = "2.9.2"
ROOT = Path(__file__).parents[2]
IMPOSTER = ROOT / "examples" / "bank" / "imposter.ejs"
INSTALLED = ROOT / "build" / f"mountebank-{VERSION}"

INSTALL_SECONDS = 120
READY_SECONDS = 30

NOTICES = {"notices_repeat_with_the_same_id", "disputes_name_the_authorization"}
"""An imposter answers and never calls, so what the contract asks of notices is left to the other bank."""

CAPABILITIES = HttpBank("http://127.0.0.1:1", list=True).capabilities
CHECKS = [check for check in checks_for(CAPABILITIES) if check.__name__ not in NOTICES]


class Imposter:
    """A running mountebank with the bank of examples/bank. `url` is the bank's."""

    def __init__(self, place: Path) -> None:
        port, self._bank = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self._bank}"
        self.process = subprocess.Popen(
            [
                *("node", INSTALLED / "node_modules" / ".bin" / "mb", "start"),
                *("--allowInjection", "--localOnly", "--nologfile", "--loglevel", "error"),
                *("--port", str(port), "--pidfile", place / "mb.pid", "--configfile", IMPOSTER),
            ],
            cwd=place,
            env={**os.environ, "BANK_PORT": str(self._bank)},
        )
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                self.operations()
                return
            time.sleep(0.1)
        self.process.kill()
        raise AssertionError("mountebank did not start; what it said stands above")

    def operations(self) -> list[dict[str, Any]]:
        """Everything that the bank was asked to do, once a reference."""
        with urllib.request.urlopen(f"{self.url}/_bank/operations", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["operations"]
        return found

    def strike(self, *rules: Mapping[str, Any]) -> None:
        """Misbehave by these rules from now on; none given: behave."""
        request = urllib.request.Request(f"{self.url}/_bank/faults", json.dumps({"rules": rules}).encode())
        urllib.request.urlopen(request, timeout=10).close()

    def disputes(self) -> dict[str, dict[str, Any]]:
        """The disputes by reference, and the replies to them by Idempotency-Key."""
        with urllib.request.urlopen(f"{self.url}/_bank/disputes", timeout=10) as answer:
            found: dict[str, dict[str, Any]] = json.load(answer)
        return found

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """One of the imposter's own calls."""
        request = urllib.request.Request(f"{self.url}/_bank/{path}", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


@pytest.fixture(scope="module")
def imposter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imposter]:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("mountebank needs node and npm, which are not here")
    INSTALLED.parent.mkdir(exist_ok=True)
    with INSTALLED.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not INSTALLED.exists():
            _install()
    running = Imposter(tmp_path_factory.mktemp("mountebank"))
    yield running
    running.stop()


def _install() -> None:
    """Fetch mountebank from npm, or skip."""
    partial = INSTALLED.with_name(f"{INSTALLED.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        done = subprocess.run(
            [
                *("npm", "install", "--prefix", partial, "--no-fund", "--no-audit", "--ignore-scripts"),
                f"@mbtest/mountebank@{VERSION}",
            ],
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
        if done.returncode != 0:
            pytest.skip(f"npm could not fetch mountebank: {done.stderr.strip()[-300:]}")
        partial.rename(INSTALLED)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not fetch mountebank within {INSTALL_SECONDS} seconds")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


# The connector.


class ImposterFar:
    def __init__(self, imposter: Imposter) -> None:
        bank = HttpBank.from_settings(
            {
                "base_url": imposter.url,
                "timeout_seconds": "0.4",
                "notice_secret": "notices-are-signed",
                "list": "yes",
            }
        )
        self.connector: Connector = bank
        self.transport: Transport = bank.transport()
        self._imposter = imposter
        self._before = self._accepted()

    async def strike(self, *rules: Mapping[str, Any]) -> None:
        self._imposter.strike(*rules)

    async def performed(self) -> int:
        return self._accepted() - self._before

    def nowhere(self) -> Transport:
        return SocketTransport(f"http://127.0.0.1:{free_port()}", timeout_seconds=1)

    async def notices(self, outcome: Outcome, count: int) -> list[tuple[Mapping[str, str], bytes]]:
        raise AssertionError("an imposter sends no notices")

    def _accepted(self) -> int:
        return sum(operation["status"] == "Accepted" for operation in self._imposter.operations())


@contextlib.asynccontextmanager
async def behind(imposter: Imposter) -> AsyncIterator[ImposterFar]:
    far = ImposterFar(imposter)
    try:
        yield far
    finally:
        imposter.strike()
        await far.transport.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_connector_keeps_the_contract(check: Check, imposter: Imposter) -> None:
    async with behind(imposter) as far:
        await check(far)


# A whole server.

CARD = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123"}
SECRET = "the-imposter-signs-with-this"


@pytest.fixture(scope="module")
def server(imposter: Imposter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TillwayServer]:
    data_dir = tmp_path_factory.mktemp("installation") / "data"
    made = init(data_dir)
    added = tillway_json(
        *("connectors", "add", "bank", "--kind", "http_bank", "--set", f"base_url={imposter.url}"),
        *("--set", "ask_after_seconds=1", "--set", "timeout_seconds=1", "--default", "--data-dir", data_dir),
        *("--set", "disputes=yes", "--set", f"notice_secret={SECRET}"),
    )
    assert added["default"] is True
    running = TillwayServer(data_dir, made)
    imposter.post("notices", {"url": f"{running.base_url}/connectors/test/bank/notices", "secret": SECRET})
    yield running
    running.stop()


def pay(server: TillwayServer, amount: int, **params: Any) -> Any:
    return server.client.v1.payment_intents.create(
        {
            "amount": amount,
            "currency": "eur",
            "confirm": True,
            "return_url": "https://example.com/back",
            **(params if "payment_method_data" in params else {"payment_method": "pm_card_visa", **params}),
        }
    )


def test_taken_and_refunded(server: TillwayServer, imposter: Imposter) -> None:
    paid = pay(server, 4201)
    assert paid.status == "succeeded"
    refunds = server.client.v1.refunds
    assert refunds.create({"payment_intent": paid.id, "amount": 4000}).status == "succeeded"
    assert refunds.create({"payment_intent": paid.id}).amount == 201
    with pytest.raises(stripe.InvalidRequestError, match="already been refunded"):
        refunds.create({"payment_intent": paid.id})
    [taken] = [operation for operation in imposter.operations() if operation["amount"] == 4201]
    children = [operation for operation in imposter.operations() if operation.get("parent") == taken["reference"]]
    assert [(child["kind"], child["amount"]) for child in children] == [("refund", 4000), ("refund", 201)]


def test_authorized_captured_and_voided(server: TillwayServer, imposter: Imposter) -> None:
    intents = server.client.v1.payment_intents
    first, second = (pay(server, amount, capture_method="manual") for amount in (4210, 4211))
    assert intents.capture(first.id, {"amount_to_capture": 4000}).amount_received == 4000
    assert intents.cancel(second.id).status == "canceled"
    kinds = {
        operation["reference"]: [
            child["kind"] for child in imposter.operations() if child.get("parent") == operation["reference"]
        ]
        for operation in imposter.operations()
        if operation["amount"] in (4210, 4211) and operation["kind"] == "authorization"
    }
    assert list(kinds.values()) == [["capture"], ["void"]]


@pytest.mark.parametrize(
    ("fault", "decline_code"), [("decline", "generic_decline"), ("no_funds", "insufficient_funds")]
)
def test_declined(server: TillwayServer, imposter: Imposter, fault: str, decline_code: str) -> None:
    imposter.strike({"fault": fault, "operation": "authorize", "times": 1})
    with pytest.raises(stripe.CardError) as declined:
        pay(server, 4212)
    error: Any = declined.value.error
    assert declined.value.code == "card_declined" and error.decline_code == decline_code
    assert server.client.v1.payment_intents.retrieve(error.payment_intent.id).amount_received == 0


def test_pending_is_settled_by_asking(server: TillwayServer, imposter: Imposter) -> None:
    imposter.strike({"fault": "pend", "operation": "authorize", "times": 1})
    paid = pay(server, 4213)
    assert paid.status == "processing"
    deadline = time.monotonic() + 5
    while paid.status == "processing" and time.monotonic() < deadline:
        time.sleep(0.1)
        paid = server.client.v1.payment_intents.retrieve(paid.id)
    assert paid.status == "succeeded"


@pytest.mark.parametrize(
    ("fault", "amount"),
    [
        ("lose_answer", 4301),
        ("reset_after", 4302),
        ("half_body", 4303),
        ("error_after", 4304),
        ("error_before", 4305),
        ("throttle", 4306),
    ],
)
def test_paid_once_whatever_the_bank_does(server: TillwayServer, imposter: Imposter, fault: str, amount: int) -> None:
    imposter.strike({"fault": fault, "operation": "authorize", "amount": amount, "times": 1})
    assert pay(server, amount).status == "succeeded"
    assert [operation["status"] for operation in imposter.operations() if operation["amount"] == amount] == ["Accepted"]


@pytest.mark.parametrize(
    ("fault", "amount", "saw_cvc"), [("throttle", 4311, False), ("error_before", 4312, False), ("slow", 4313, True)]
)
def test_a_security_code_is_sent_once(
    server: TillwayServer, imposter: Imposter, fault: str, amount: int, saw_cvc: bool
) -> None:
    imposter.strike({"fault": fault, "operation": "authorize", "amount": amount, "times": 1, "ms": 100})
    paid = pay(server, amount, payment_method_data={"type": "card", "card": CARD})
    assert paid.status == "succeeded"
    assert [row["saw_cvc"] for row in imposter.operations() if row["amount"] == amount] == [saw_cvc]


def test_the_bank_sees_the_code_whichever_way_the_card_comes(server: TillwayServer, imposter: Imposter) -> None:
    v1 = server.client.v1
    data = {"type": "card", "card": CARD}
    method = v1.payment_methods.create(data)
    pay(server, 4321, payment_method=method.id)
    pay(server, 4322, payment_method_data=data)
    waiting = v1.payment_intents.create({"amount": 4323, "currency": "eur"})
    v1.payment_intents.confirm(waiting.id, {"payment_method_data": data, "return_url": "https://example.com/back"})
    v1.charges.create({"amount": 4324, "currency": "eur", "source": v1.tokens.create({"card": CARD}).id})
    v1.charges.create({"amount": 4325, "currency": "eur", "source": {"object": "card", **CARD}})
    secure = {**CARD, "number": "4000000000003220"}
    challenged = pay(server, 4326, payment_method_data={"type": "card", "card": secure})
    page = str(challenged.next_action.redirect_to_url.url)
    answer = httpx.post(page, data={"outcome": "pass"})
    assert answer.status_code == 303
    seen = {row["amount"]: row["saw_cvc"] for row in imposter.operations() if 4321 <= row["amount"] <= 4326}
    assert seen == dict.fromkeys(range(4321, 4327), True)

    kept = pay(
        server, 4327, customer=v1.customers.create().id, setup_future_usage="off_session", payment_method_data=data
    )
    pay(server, 4328, customer=kept.customer, payment_method=kept.payment_method)
    seen = {row["amount"]: row["saw_cvc"] for row in imposter.operations() if row["amount"] in (4327, 4328)}
    assert seen == {4327: True, 4328: False}, "a code is gone after the first payment"


def test_a_token_is_charged_and_refunded_at_it(server: TillwayServer, imposter: Imposter) -> None:
    """The token and charge dialect, whose original had its bank in mountebank too."""
    holder = {"card_number": CARD["number"], "exp_month": 12, "exp_year": 2040, "cvv": "123", "card_holder": "Ada"}

    def called(path: str, body: dict[str, Any]) -> Any:
        return server.call("POST", path, body)[1]

    def charged(amount: int) -> Any:
        token = called("/token", holder)["data"]["token"]
        return called("/charge", {"token": token, "amount": amount, "currency": "eur"})

    paid = charged(4350)
    assert paid["success"] is True and paid["data"]["status"] == "succeeded"
    refund = called("/refund", {"charge_id": paid["data"]["id"], "amount": 350})
    assert (refund["data"]["status"], refund["data"]["refundable"]) == ("succeeded", 4000)
    shown = server.call("GET", f"/charge/{paid['data']['id']}")[1]["data"]
    assert (shown["card_number"], shown["refunded"], len(shown["refunds"])) == ("************4242", 350, 1)
    [taken] = [row for row in imposter.operations() if row["amount"] == 4350]
    assert taken["saw_cvc"] is True
    children = [row for row in imposter.operations() if row.get("parent") == taken["reference"]]
    assert [(child["kind"], child["amount"]) for child in children] == [("refund", 350)]
    codes = []
    for fault in ("decline", "no_funds"):
        imposter.strike({"fault": fault, "operation": "authorize", "times": 1})
        codes.append(charged(4351)["error"]["code"])
    assert codes == ["card_declined", "insufficient_funds"]
    imposter.strike({"fault": "pend", "operation": "authorize", "times": 1})
    assert charged(4352)["data"]["status"] == "pending"
    assert [charged(amount)["data"]["status"] for amount in (1, 2, 24)] == ["succeeded"] * 3


def test_disputes_both_ways(server: TillwayServer, imposter: Imposter) -> None:
    v1 = server.client.v1
    paid = pay(server, 4361)
    [taken] = [row for row in imposter.operations() if row["amount"] == 4361]

    def tell(**dispute: Any) -> Any:
        told = imposter.post("disputes", {"parent": taken["reference"], **dispute})
        assert told["notice"] == 200, told
        return told

    def disputes() -> dict[int, Any]:
        return {one.amount: one for one in v1.disputes.list({"payment_intent": paid.id}).data}

    tell(reference="d-1", dispute="inquiry", amount=4000)
    tell(reference="d-2", amount=1000)
    assert {amount: one.status for amount, one in disputes().items()} == {
        4000: "warning_needs_response",
        1000: "needs_response",
    }
    v1.disputes.update(disputes()[4000].id, {"evidence": {"uncategorized_text": "It was delivered."}})
    v1.disputes.close(disputes()[1000].id)
    tell(reference="d-1", dispute="chargeback")
    v1.disputes.update(disputes()[4000].id, {"evidence": {"uncategorized_text": "She signed for it."}})
    keys = {"inquiry-evidence-d-1", "chargeback-evidence-d-1", "chargeback-accept-d-2"}
    deadline = time.monotonic() + 10
    while (took := set(imposter.disputes()["replies"])) != keys and time.monotonic() < deadline:
        time.sleep(0.05)
    assert took == keys
    tell(reference="d-1", status="Won")
    assert {amount: one.status for amount, one in disputes().items()} == {4000: "won", 1000: "lost"}


def test_bank_money_is_the_ledgers_money(server: TillwayServer, imposter: Imposter) -> None:
    """After everything above: what the bank took and gave back is what the ledger says that it owes."""
    pay(server, 4400)
    scope = Scope(account=server.account, mode="test").key
    accepted = [
        operation
        for operation in imposter.operations()
        if operation["reference"].startswith(scope) and operation["status"] == "Accepted"
    ]
    later = {operation["parent"] for operation in accepted if operation["kind"] in ("capture", "void")}
    signs = {"authorization": 1, "capture": 1, "refund": -1, "void": 0}
    lost = sum(one["amount"] for one in imposter.disputes()["disputes"].values() if one["status"] == "Accepted")
    moved = sum(
        signs[operation["kind"]] * operation["amount"] for operation in accepted if operation["reference"] not in later
    )
    status, ledger = server.call("GET", "/ops/v1/ledger")
    assert status == 200 and ledger["balanced"] is True
    assert [row["balance"] for row in ledger["accounts"] if row["account"] == "receivable:bank"] == [moved - lost]
    assert moved > 0
