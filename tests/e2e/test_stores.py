"""The same server on every store: what a merchant does, and what happens when a process, or the database, dies."""

import asyncio
import concurrent.futures
import http.client
import http.server
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import stripe
from dashboard_visitor import Visitor, text
from sdk_shop import until
from tillway_server import ENVIRONMENT, TillwayServer, invoked, tillway, tillway_json

from tillway.cli.installation import create
from tillway.crash import ministack
from tillway.crash.postgres_server import PostgresServer, fresh, own_server
from tillway.settings import Settings
from tillway.store.dynamodb import SCHEMA_VERSION as ON_DYNAMODB
from tillway.store.postgres import SCHEMA_VERSION as ON_POSTGRESQL
from tillway.testing.in_process import Answer

PAYMENT: Any = {
    "amount": 4200,
    "currency": "eur",
    "payment_method": "pm_card_visa",
    "confirm": True,
    "return_url": "https://example.com/back",
    "metadata": {"order": "6735"},
}


def init(data_dir: Path, url: str) -> dict[str, str]:
    made = create(Settings(data_dir=data_dir, store=url))
    assert made is not None
    return made


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = own_server()
    yield server
    server.close()


@pytest.fixture(scope="module", params=["postgresql", "dynamodb"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TillwayServer]:
    data_dir = tmp_path_factory.mktemp("installation") / "data"
    if request.param == "postgresql":
        url, workers = fresh(request.getfixturevalue("postgres").url), "2"
    else:
        stack = ministack.start()
        request.addfinalizer(stack.close)
        credentials = {"AWS_ACCESS_KEY_ID": ministack.ACCOUNT, "AWS_SECRET_ACCESS_KEY": "test"}
        os.environ.update(credentials)
        ENVIRONMENT.update(credentials)
        url, workers = stack.url("tillway"), "1"
    made = init(data_dir, url)
    server = TillwayServer(data_dir, made, ["--store", url, "--workers", workers])
    yield server
    assert server.stop() == 0, "".join(server.log)


def test_the_data_directory_holds_keys_alone(server: TillwayServer) -> None:
    assert {path.name for path in server.data_dir.iterdir()} == {
        "generation",
        "keys.json",
        "keys.json.lock",
        "serve.lock",
    }


def test_a_merchants_day(server: TillwayServer) -> None:
    v1 = server.client.v1
    customer = v1.customers.create({"email": "ada@example.com", "name": "Ada"})
    paid = v1.payment_intents.create({**PAYMENT, "customer": customer.id})
    assert paid.status == "succeeded"
    refund = v1.refunds.create({"payment_intent": paid.id, "amount": 1200})
    assert refund.status == "succeeded"
    held = v1.payment_intents.create({**PAYMENT, "capture_method": "manual"})
    assert v1.payment_intents.capture(held.id, {"amount_to_capture": 1000}).amount_received == 1000
    with pytest.raises(stripe.CardError):
        v1.payment_intents.create({**PAYMENT, "payment_method": "pm_card_visa_chargeDeclined"})
    assert [payment.id for payment in v1.payment_intents.list({"customer": customer.id}).data] == [paid.id]
    assert [payment.id for payment in v1.payment_intents.list({"limit": 3}).data][1:] == [held.id, paid.id]
    charge = v1.charges.retrieve(str(paid.latest_charge))
    assert charge.amount_refunded == 1200
    types = {event.type for event in v1.events.list({"limit": 50}).data}
    assert {"payment_intent.succeeded", "charge.refunded", "charge.failed", "customer.created"} <= types
    assert {event.type for event in v1.events.list({"type": "charge.refunded"}).data} == {"charge.refunded"}
    found = v1.payment_intents.search({"query": "metadata['order']:'6735'"})
    assert {paid.id, held.id} <= {payment.id for payment in found.data}
    pending = {money.currency: money.amount for money in v1.balance.retrieve().pending}
    transactions = v1.balance_transactions.list({"limit": 50}).data
    assert pending["eur"] + v1.balance.retrieve().available[0].amount == sum(txn.net for txn in transactions)


def test_twenty_of_one_key_are_one_payment(server: TillwayServer) -> None:
    client = server.client_with(server.secret_key, max_network_retries=8)

    def pay(_: int) -> str:
        return client.v1.payment_intents.create(PAYMENT, {"idempotency_key": "twenty"}).id

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(pay, range(20)))) == 1


def test_an_idempotency_key_is_good_at_every_process(server: TillwayServer) -> None:
    """Each connection may reach another process."""
    ids = {
        server.client.v1.payment_intents.create(PAYMENT, {"idempotency_key": f"every-{turn % 3}"}).id
        for turn in range(12)
    }
    assert len(ids) == 3


class Endpoint(http.server.ThreadingHTTPServer):
    """A merchant's webhook endpoint that takes its time, so that a delivery is under way while others look for work."""

    daemon_threads = True

    def __init__(self) -> None:
        self.received: list[str] = []
        endpoint = self

        class Take(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.received.append(event["id"])
                time.sleep(0.7)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Take)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def test_no_two_processes_deliver_one_event(server: TillwayServer) -> None:
    """Both look for due tasks twice a second; a lease is what keeps the second away."""
    merchant = server.client_with(server.new_account()["secret_key"])
    with Endpoint() as endpoint:
        url = f"http://127.0.0.1:{endpoint.server_port}/"
        merchant.v1.webhook_endpoints.create({"url": url, "enabled_events": ["customer.created"]})
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: merchant.v1.customers.create({"name": f"Ada {n}"}), range(30)))
        until(lambda: merchant.v1.events.list({"delivery_success": False}).data == [])
        expected = [event.id for event in merchant.v1.events.list({"limit": 100, "type": "customer.created"}).data]
        assert len(expected) == 30 and sorted(endpoint.received) == sorted(expected)
        merchant.v1.webhook_endpoints.delete(merchant.v1.webhook_endpoints.list().data[0].id)


def test_every_process_learns_of_new_vault_keys_and_of_revoked_ones(server: TillwayServer) -> None:
    """Each request may reach another process: within two seconds none of them lags behind."""
    where: tuple[str | Path, ...] = ("--data-dir", server.data_dir, *server.store_arguments)
    merchant = server.new_account()["secret_key"]
    v1 = server.client_with(merchant).v1
    card: Any = {"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040}}

    def stored(n: int) -> tuple[str, str]:
        customer = v1.customers.create({"name": f"Ada {n}"}).id
        method = v1.payment_methods.create(card).id
        v1.payment_methods.attach(method, {"customer": customer})
        return customer, method

    def pays(whose: tuple[str, str]) -> bool:
        means: Any = {**PAYMENT, "customer": whose[0], "payment_method": whose[1], "off_session": True}
        del means["return_url"]
        return v1.payment_intents.create(means).status == "succeeded"

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        cards = list(pool.map(stored, range(12)))
        rotated = tillway_json("vault", "rotate", *where)
        cards += list(pool.map(stored, range(12)))
        assert all(pool.map(pays, cards))
    # What was sealed since then is under the new key, whichever process did it: nothing is left to be moved.
    forgotten = tillway("vault", "forget", rotated["retired"][0], *where)
    assert forgotten.returncode == 0, forgotten.stderr
    listed = tillway_json("keys", "list", *where)
    [key] = [key for key in listed if key["kind"] == "secret" and key["hint"][-4:] == merchant[-4:]]
    tillway_json("keys", "revoke", key["id"], *where)
    time.sleep(2.1)
    assert {server.call("GET", "/v1/balance", key=merchant)[0] for _ in range(20)} == {401}


def test_commands_reach_the_store_too(server: TillwayServer) -> None:
    url = server.store_arguments[1]
    listed = tillway_json("accounts", "list", "--data-dir", server.data_dir, "--store", url)
    assert server.account in [account["account"] for account in listed]
    newest = ON_DYNAMODB if url.startswith("dynamodb") else ON_POSTGRESQL
    assert tillway_json("migrate", "--data-dir", server.data_dir, "--store", url) == {"schema_version": newest}
    doctor = tillway_json("doctor", "--data-dir", server.data_dir, "--store", url)
    assert doctor["ok"], doctor
    refused = tillway("backup", server.data_dir / "backup", "--data-dir", server.data_dir, "--store", url)
    assert refused.returncode == 2 and "its own tools" in refused.stderr
    again = tillway("init", "--data-dir", server.data_dir.with_name("another"), "--store", url)
    assert again.returncode == 1 and "copy its keys.json" in again.stderr
    assert not (server.data_dir.with_name("another") / "keys.json").exists(), "a second key could open nothing"


# Several processes on one store: PostgreSQL, or one file.


@pytest.fixture(params=["postgresql", "file"])
def store_arguments(request: pytest.FixtureRequest) -> list[str]:
    """The store of an installation on the command line: none for the file in its directory."""
    return ["--store", fresh(request.getfixturevalue("postgres").url)] if request.param == "postgresql" else []


def children_of(process: int) -> list[int]:
    with open(f"/proc/{process}/task/{process}/children") as file:
        return [int(child) for child in file.read().split()]


def test_a_killed_worker_is_replaced_and_its_tasks_are_taken_over(tmp_path: Path, store_arguments: list[str]) -> None:
    made = init(tmp_path / "data", "".join(store_arguments[1:]))
    server = TillwayServer(tmp_path / "data", made, [*store_arguments, "--workers", "2", "--lease-seconds", "3"])
    try:
        for _ in range(2):  # Faults are each process's own.
            server.call("POST", "/ops/v1/simulator", {"faults": {"rules": [{"fault": "slow", "ms": 1500}]}})
        first = set(children_of(server.process.pid))
        assert len(first) == 2
        ids: list[str] = []

        def pay(n: int) -> None:
            client = server.client_with(server.secret_key, max_network_retries=6)
            options: Any = {"idempotency_key": f"killed-{n}"}
            ids.append(client.v1.payment_intents.create(PAYMENT, options).id)

        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            waiting = [pool.submit(pay, n) for n in range(10)]
            time.sleep(0.7)
            for child in first:
                os.kill(child, signal.SIGKILL)
            for future in waiting:
                future.exception()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            payments = server.client.v1.payment_intents.list({"limit": 100}).data
            if len(payments) >= 1 and all(payment.status == "succeeded" for payment in payments):
                break
            time.sleep(0.2)
        assert {payment.status for payment in payments} == {"succeeded"} and set(ids) <= {p.id for p in payments}
        assert len(payments) == 10, "a key of a killed request paid twice, or a payment was lost"
        assert not first & set(children_of(server.process.pid)) and len(children_of(server.process.pid)) == 2
    finally:
        assert server.stop() == 0


def test_the_database_restarts_under_the_server(tmp_path: Path) -> None:
    database = own_server()
    try:
        url = fresh(database.url)
        server = TillwayServer(tmp_path / "data", init(tmp_path / "data", url), ["--store", url])
        try:
            before = server.client.v1.payment_intents.create(PAYMENT).id
            database.stop(signal.SIGQUIT)
            with pytest.raises(stripe.APIError) as refused:
                server.client.v1.payment_intents.create(PAYMENT)
            assert refused.value.http_status == 503
            until(lambda: "no tasks can be claimed" in "".join(server.log))
            database.start()
            assert server.client.v1.payment_intents.retrieve(before).status == "succeeded"
            assert server.client.v1.payment_intents.create(PAYMENT).status == "succeeded"
        finally:
            assert server.stop() == 0
        assert "Traceback" not in "".join(server.log)
    finally:
        database.close()


def copy_keys(one: Path, other: Path) -> None:
    beside = other / "keys.json.copied"
    beside.write_bytes((one / "keys.json").read_bytes())
    beside.chmod(0o600)
    beside.rename(other / "keys.json")


def test_two_hosts_share_a_database(tmp_path: Path, postgres: PostgresServer) -> None:
    """Each with a directory of its own that holds the same key file."""
    url = fresh(postgres.url)
    made = init(tmp_path / "one", url)
    (tmp_path / "two").mkdir(mode=0o700)
    copy_keys(tmp_path / "one", tmp_path / "two")
    servers = [TillwayServer(tmp_path / name, made, ["--store", url]) for name in ("one", "two")]
    try:
        one, two = (server.client.v1 for server in servers)
        turns = itertools.cycle((one, two))
        ids = [next(turns).payment_intents.create(PAYMENT).id for _ in range(6)]
        for v1 in (one, two):
            assert {payment.id for payment in v1.payment_intents.list().data} == set(ids)
        # The key of the next rotation goes to both before anything is sealed under it.
        where = ("--data-dir", tmp_path / "one", "--store", url)
        prepared = tillway_json("vault", "prepare", *where)["key"]
        copy_keys(tmp_path / "one", tmp_path / "two")
        assert tillway_json("vault", "rotate", *where)["key_id"] == prepared
        card: Any = {"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040}}
        for sealing, charging in ((one, two), (two, one)):
            stored = sealing.payment_methods.create(card).id
            assert charging.payment_intents.create({**PAYMENT, "payment_method": stored}).status == "succeeded"
        # The other host's card is still under the old key, which therefore cannot go.
        assert tillway("vault", "forget", tillway_json("vault", "keys", *where)[0]["id"], *where).returncode == 1
    finally:
        for server in servers:
            server.stop()


def test_workers_that_are_killed_over_and_over_are_replaced_each_time(tmp_path: Path, postgres: PostgresServer) -> None:
    """They did serve: that somebody kills them is no reason to give up."""
    url = fresh(postgres.url)
    server = TillwayServer(tmp_path / "data", init(tmp_path / "data", url), ["--store", url, "--workers", "2"])
    try:
        for killed in range(5):
            until(partial(has_said, server, "Tillway serves", times=2 + killed))
            os.kill(children_of(server.process.pid)[0], signal.SIGKILL)
        until(lambda: len(children_of(server.process.pid)) == 2)
        until(partial(answers, server))
    finally:
        assert server.stop() == 0


def answers(server: TillwayServer) -> bool:
    """A connection that waited at the killed worker is reset, as any client then finds."""
    try:
        return server.call("GET", "/v1/balance")[0] == 200
    except OSError:
        return False


def has_said(server: TillwayServer, what: str, times: int) -> bool:
    return "".join(server.log).count(what) == times


def test_workers_go_with_their_supervisor(tmp_path: Path, postgres: PostgresServer) -> None:
    """Left alone they would hold port and directory for ever, and nobody would replace or stop them."""
    url = fresh(postgres.url)
    made = init(tmp_path / "data", url)
    server = TillwayServer(tmp_path / "data", made, ["--store", url, "--workers", "2"])
    workers = children_of(server.process.pid)
    server.process.kill()
    server.process.wait()
    until(lambda: not any(alive(worker) for worker in workers))
    again = TillwayServer(tmp_path / "data", made, ["--store", url])
    assert again.stop() == 0


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_that_cannot_start_are_given_up(tmp_path: Path, postgres: PostgresServer) -> None:
    url = fresh(postgres.url)
    init(tmp_path / "data", url)
    (tmp_path / "data" / "keys.json").chmod(0o644)
    done = tillway("serve", "--data-dir", tmp_path / "data", "--store", url, "--workers", "2", "--port", "0")
    assert done.returncode == 1 and "before one of them served" in done.stderr and "Traceback" not in done.stderr, (
        done.stderr
    )


def test_twenty_orders_of_a_balance_in_two_processes_on_one_file_overdraw_nothing(tmp_path: Path) -> None:
    server = TillwayServer(tmp_path / "data", init(tmp_path / "data", ""), ["--workers", "2"])
    try:
        v1 = server.client.v1
        available: Any = {**PAYMENT, "amount": 10_000, "payment_method": "pm_card_bypassPending"}
        for _ in range(2):
            v1.payment_intents.create(available)
        account: Any = {"object": "bank_account", "country": "DE", "currency": "eur"}
        account["account_number"] = "DE89370400440532013000"
        v1.accounts.external_accounts.create(server.account, {"external_account": account})
        before = v1.balance.retrieve().available
        held = next(money.amount for money in before if money.currency == "eur")

        def pay_out(_: int) -> int:
            # Each call is a connection of its own, so that both processes get some.
            status, _answer = server.call("POST", "/v1/payouts", {"amount": 3_000, "currency": "eur"})
            return status

        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            statuses = list(pool.map(pay_out, range(20)))
        assert statuses.count(200) == held // 3_000 and set(statuses) == {200, 400}
        assert len(children_of(server.process.pid)) == 2
    finally:
        assert server.stop() == 0
    assert tillway("doctor", "--deep", "--data-dir", tmp_path / "data").returncode == 0


def test_a_caller_cannot_tell_which_of_two_processes_answers(tmp_path: Path) -> None:
    made = init(tmp_path / "data", "")
    throttles = ["--throttle-key-per-second", "1", "--throttle-key-burst", "60"]
    server = TillwayServer(tmp_path / "data", made, ["--workers", "2", *throttles])
    try:
        # Each call is a connection of its own, so that both processes get some and know that there is no endpoint.
        for _ in range(8):
            assert server.call("POST", "/v1/payment_intents", PAYMENT)[0] == 200
        endpoint = {"url": "http://127.0.0.1:9/hook", "enabled_events": ["payment_intent.succeeded"]}
        assert server.call("POST", "/v1/webhook_endpoints", endpoint)[0] == 200
        for _ in range(12):
            assert server.call("POST", "/v1/payment_intents", PAYMENT)[0] == 200
        _, events = server.call("GET", "/v1/events?type=payment_intent.succeeded&limit=12")
        assert [event["pending_webhooks"] for event in events["data"]] == [1] * 12
        faults = {"rules": [{"fault": "decline", "operation": "authorize", "times": 5}]}
        assert server.call("POST", "/ops/v1/simulator", {"faults": faults})[0] == 200
        declined = [server.call("POST", "/v1/payment_intents", PAYMENT)[0] for _ in range(12)]
        assert declined == [402] * 5 + [200] * 7
        another = server.new_account()["secret_key"]
        began = time.monotonic()
        statuses = [server.call("GET", "/v1/balance", key=another)[0] for _ in range(150)]
        accepted, seconds = statuses.count(200), time.monotonic() - began
        assert set(statuses) <= {200, 429} and 60 <= accepted <= 60 + seconds + 2, (accepted, seconds)
    finally:
        assert server.stop() == 0


@pytest.fixture(scope="module")
def three_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TillwayServer]:
    """A server of three processes on one file. Each call is a connection of its own, mostly at another process."""
    data_dir = tmp_path_factory.mktemp("three") / "data"
    server = TillwayServer(data_dir, init(data_dir, ""), ["--workers", "3"])
    yield server
    assert server.stop() == 0, "".join(server.log)


def pay_at_once(server: TillwayServer, number: int, rule: dict[str, Any]) -> set[str]:
    """The statuses of so many payments under a fault; `declined` for those that failed."""
    assert server.call("POST", "/ops/v1/simulator", {"faults": {"rules": [rule]}})[0] == 200
    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        answers = pool.map(lambda _: server.call("POST", "/v1/payment_intents", PAYMENT), range(number))
        return {answer.get("status", "declined") for _, answer in answers}


def test_a_caller_hears_the_outcome_of_a_payment_that_is_sent_again(three_processes: TillwayServer) -> None:
    """Another process could take over between two sends, and its caller was answered `processing`."""
    refusals = {"fault": "refuse", "operation": "authorize", "times": 40}
    for _ in range(2):
        # Six refusals of one payment decline it.
        assert pay_at_once(three_processes, 8, refusals) <= {"succeeded", "declined"}


def test_every_payment_meets_one_of_as_many_faults(three_processes: TillwayServer) -> None:
    """A payment that gave up drawing met none, and another one met two, whose caller was answered `processing`."""
    for _ in range(2):
        assert pay_at_once(three_processes, 24, {"fault": "lose_request", "times": 24}) == {"succeeded"}
        assert three_processes.call("GET", "/ops/v1/simulator")[1]["faults"]["rules"] == []


def test_of_confirmations_at_once_one_is_carried_out_and_the_others_may_be_repeated(
    three_processes: TillwayServer,
) -> None:
    """As with one process: 429 while the first one is under way, at whichever process, and 400 afterwards."""
    server, slow = three_processes, {"fault": "slow", "operation": "authorize", "ms": 1500}
    customer = server.call("POST", "/v1/customers", {"source": "tok_visa"})[1]
    means = {"customer": customer["id"], "payment_method": customer["default_source"]}
    payment = server.call("POST", "/v1/payment_intents", {"amount": 4200, "currency": "eur", **means})[1]["id"]
    assert server.call("POST", "/ops/v1/simulator", {"faults": {"rules": [slow]}})[0] == 200

    def confirm(_: int) -> str:
        path, params = f"/v1/payment_intents/{payment}/confirm", {"return_url": PAYMENT["return_url"]}
        answer = server.call("POST", path, params)[1]
        return answer["error"]["code"] if "error" in answer else answer["status"]

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(confirm, range(6))) == ["lock_timeout"] * 5 + ["succeeded"]
    assert {confirm(again) for again in range(6)} == {"payment_intent_unexpected_state"}
    assert server.call("POST", "/ops/v1/simulator", {"faults": {}})[0] == 200


def test_every_process_has_a_request_in_its_list_at_once(three_processes: TillwayServer) -> None:
    """It waits in the memory of the process that answered it, which writes it down when another one asks."""
    for number in range(12):
        key = f"listed-{number}"
        three_processes.call("POST", "/v1/customers", {"name": "Ada"}, idempotency_key=key)
        _, listed = three_processes.call("GET", "/ops/v1/requests?path=/v1/customers&limit=20")
        assert key in [request["idempotency_key"] for request in listed["data"]]


class OverHttp:
    """In place of an application in this process: each request is a connection of its own."""

    def __init__(self, server: TillwayServer) -> None:
        self.server = server

    async def send(self, method: str, path: str, *, query: str, body: bytes, content_type: str, headers: Any) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        address = f"{path}?{query}" if query else path
        connection.request(method, address, body, {"content-type": content_type, **headers})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)


async def test_every_process_counts_anew_after_a_form(three_processes: TillwayServer) -> None:
    """Each keeps for ten seconds how many disputes need a person."""
    server, where = three_processes, ("--data-dir", three_processes.data_dir)
    added = await asyncio.to_thread(invoked, "operators", "add", "Mara", "--role", "admin", *where)
    address = (await asyncio.to_thread(invoked, "operators", "sign-in", "Mara", *where)).stdout.strip()
    visitor = Visitor(OverHttp(server))  # type: ignore[arg-type]  # It only sends.
    assert added.returncode == 0 and (await visitor.post(urlsplit(address).path)).status == 303
    assert server.call("POST", "/v1/payment_intents", {**PAYMENT, "payment_method": "pm_card_createDispute"})[0] == 200
    [dispute] = server.call("GET", "/v1/disputes")[1]["data"]
    action = f"/dashboard/disputes/{dispute['id']}/give-in"
    for _ in range(9):
        page = await visitor.get(action)
        assert "1 need you" in text(page)
    assert (await visitor.submit(page, action, {"reason": "They are right"})).status == 303
    for _ in range(9):
        assert "need you" not in text(await visitor.get("/dashboard/disputes"))


def test_a_store_of_no_known_kind_is_named_without_its_secrets(tmp_path: Path) -> None:
    done = tillway("init", "--data-dir", tmp_path / "data", "--store", "mysql://joe:very-secret@db/shop")
    assert done.returncode == 2 and "postgresql://" in done.stderr and "very-secret" not in done.stderr
