"""A server as its operator sees it: lines, metrics and throttling on real processes and sockets."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import stripe
from prometheus_client.parser import text_string_to_metric_families
from tillway_server import ENVIRONMENT, TillwayServer, init, invoked_json, tillway_json

PAYMENT: Any = {
    "amount": 4200,
    "currency": "eur",
    "payment_method": "pm_card_visa",
    "confirm": True,
    "return_url": "https://example.com/back",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TillwayServer]:
    data_dir = tmp_path_factory.mktemp("operation") / "data"
    arguments = ["--log-level", "info", "--log-format", "json", "--metrics-listen", "127.0.0.1:0"]
    arguments += ["--throttle-live-per-second", "2", "--throttle-live-burst", "4"]
    made = TillwayServer(data_dir, init(data_dir), arguments)
    try:
        yield made
    finally:
        made.stop()


def said(server: TillwayServer) -> list[dict[str, Any]]:
    """What the server has logged: every line is an object."""
    time.sleep(0.15)
    return [json.loads(line) for line in server.log]


def metrics(server: TillwayServer) -> dict[str, dict[tuple[str, ...], float]]:
    """What a scrape finds: values by name and label values."""
    url = next(line["url"] for line in said(server) if line["message"] == "Metrics are at")
    answer = httpx.get(url)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_every_request_and_every_task_is_a_line(server: TillwayServer) -> None:
    client = server.client
    hook = client.v1.webhook_endpoints.create({"url": "http://127.0.0.1:9/", "enabled_events": ["charge.succeeded"]})
    paid = client.v1.payment_intents.create(PAYMENT)
    refunded = client.v1.refunds.create({"payment_intent": paid.id})
    with pytest.raises(stripe.CardError) as declined:
        client.v1.payment_intents.create({**PAYMENT, "payment_method": "pm_card_chargeDeclined"})
    with pytest.raises(stripe.InvalidRequestError) as missing:
        client.v1.charges.retrieve("ch_secret4242word")
    httpx.request("DE89370400440532013000", f"{server.base_url}/v1/charges/4242424242424242?a=secret4242word")
    lines = said(server)
    by_request = {line["request"]: line for line in lines if line["message"] == "request"}

    line = by_request[paid.last_response.request_id]
    assert line.pop("ms") > 0 and line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "message": "request",
        "method": "POST",
        "route": "/v1/payment_intents",
        "status": 200,
        "request": paid.last_response.request_id,
        "connector": "simulator",
        "payment": paid.id,
        "charge": paid.latest_charge,
        "account": server.account,
        "mode": "test",
        "source_api": "v1",
        "address": "127.0.0.1",
    }
    line = by_request[refunded.last_response.request_id]
    assert (line["refund"], line["payment"], line["charge"]) == (refunded.id, paid.id, paid.latest_charge)
    line = by_request[declined.value.request_id or ""]
    assert (line["status"], line["code"], line["connector"]) == (402, "card_declined", "simulator")
    assert line["payment"].startswith("pi_")
    line = by_request[missing.value.request_id or ""]
    assert (line["status"], line["route"], line["code"]) == (404, "/v1/charges/{id}", "resource_missing")
    assert [line["method"] for line in by_request.values()][-1] == "OTHER"

    tasks = [line for line in lines if line["message"] == "task" and line["queue"] == "deliveries"]
    assert tasks and tasks[0]["endpoint"] == hook.id and tasks[0]["account"] == server.account
    assert tasks[0]["task"].startswith("whd_") and tasks[0]["event"].startswith("evt_") and tasks[0]["tries"] == 1
    everything = "".join(server.log)
    assert "secret4242word" not in everything and "DE8937" not in everything and "/v1/charges/ch" not in everything


def test_a_merchants_own_ids_are_in_no_line(server: TillwayServer) -> None:
    """They may be digits that pass for a card number, which is why nothing quotes them."""
    digits = "5555555555554444"
    customer = {"customer_id": digits, "email": "ada@example.com"}
    assert server.call("POST", "/v1/api/customer", customer)[0] == 200
    assert server.call("GET", f"/v1/api/customer/{digits}")[0] == 200
    assert server.call("POST", "/v1/api/payment", {**customer, "amount": 5, "currency": "EUR"})[0] == 200
    assert server.call("POST", "/v1/api/customer", {**customer, "email": "bob@example.com"})[0] == 409
    assert server.call("GET", f"/orders/{digits}")[0] == 404
    product = {"product_id": digits, "name": "Book", "price": 5, "requested_count": 1, "type": "book"}
    order = {"order_id": digits, "user_id": digits, "payment": {"type": "credit"}}
    assert server.call("POST", "/orders", {**order, "products": [{**product, "delivery_address": "x"}]})[0] == 202
    while server.call("GET", f"/orders/{digits}")[1]["status"] != "payment_failed":
        time.sleep(0.05)
    said(server)
    assert digits not in "".join(server.log)


def test_metrics_count_what_happened_on_an_address_of_their_own(server: TillwayServer) -> None:
    before = metrics(server)
    server.client.v1.payment_intents.create(PAYMENT)
    status, _ = server.call("POST", "/ops/v1/simulator", {"faults": {"rules": [{"fault": "slow", "ms": 200}]}})
    server.client.v1.payment_intents.create({**PAYMENT, "payment_method": "pm_card_us"})
    server.call("POST", "/ops/v1/simulator", {"faults": {}})
    time.sleep(1.0)  # What is read from the store is told again for a second.
    after = metrics(server)

    def more(name: str, *labels: str) -> float:
        return after[name].get(labels, 0) - before.get(name, {}).get(labels, 0)

    assert status == 200
    assert more("tillway_payments_total", "simulator", "v1", "succeeded") == 2
    assert more("tillway_operations_total", "simulator", "authorize", "succeeded") == 2
    assert more("tillway_requests_total", "POST", "/v1/payment_intents", "200") == 2
    assert more("tillway_connector_seconds_count", "simulator", "authorize") == 2
    assert more("tillway_connector_seconds_bucket", "simulator", "authorize", "0.1") == 1, "the other one was slow"
    assert more("tillway_commits_total", "done") >= 4 and more("tillway_commit_seconds_count") >= 4
    assert more("tillway_flush_seconds_count") >= 4 and more("tillway_batch_commits_sum") >= 4
    assert 0 <= after["tillway_task_oldest_due_seconds"]["attempts",] < 60
    assert after["process_cpu_seconds_total"][()] > before["process_cpu_seconds_total"][()]
    for path in ("/metrics", "/v1/metrics"):
        assert httpx.get(server.base_url + path).status_code == 404, "the API's port serves none"
    assert more("tillway_merchant_payments_total", server.account, "test", "succeeded") == 2
    assert server.account not in str({name: values for name, values in after.items() if "_merchant_" not in name})


def test_doubts_are_counted_until_they_are_settled(server: TillwayServer) -> None:
    lost = {
        "faults": {"rules": [{"fault": "lose_answer", "times": 1}, {"fault": "lose_request", "operation": "look_up"}]}
    }
    status, answer = server.call("POST", "/ops/v1/simulator", lost)
    assert status == 200, answer
    settled = sum(metrics(server)["tillway_payments_total"].values())
    paid = server.client.v1.payment_intents.create(PAYMENT)
    assert paid.status == "processing"
    time.sleep(1.0)
    found = metrics(server)
    assert found["tillway_doubts"]["simulator", "unknown"] == 1
    assert sum(found["tillway_payments_total"].values()) == settled, "nobody knows yet"
    assert found["tillway_connector_outcomes_total"]["simulator", "authorize", "unknown"] == 1
    server.call("POST", "/ops/v1/simulator", {"faults": {}})
    [doubt] = server.call("GET", "/ops/v1/doubts")[1]["data"]
    operator = tillway_json("operators", "add", "Ada", "--role", "operator", "--data-dir", server.data_dir)["test_key"]
    params = {"outcome": "succeeded", "reason": "The bank says so."}
    assert server.call("POST", f"/ops/v1/doubts/{doubt['id']}/resolve", params, key=operator)[0] == 200
    time.sleep(1.0)
    found = metrics(server)
    assert found["tillway_doubts"]["simulator", "unknown"] == 0
    assert sum(found["tillway_payments_total"].values()) == settled + 1


def test_the_official_sdk_waits_and_repeats_by_itself(server: TillwayServer) -> None:
    impatient = server.client_with(server.live_secret_key)
    with pytest.raises(stripe.RateLimitError) as refused:
        for _ in range(6):
            impatient.v1.charges.list()
    assert refused.value.error is not None and refused.value.error.code == "rate_limit"
    assert refused.value.headers["retry-after"] == "1" and refused.value.headers["stripe-should-retry"] == "true"  # type: ignore[index]

    patient = server.client_with(server.live_secret_key, max_network_retries=3)
    began = time.monotonic()
    assert patient.v1.customers.create({"name": "Ada"}).name == "Ada"
    assert time.monotonic() - began > 0.5, "it has waited"
    assert len(patient.v1.customers.list().data) == 1, "and has made one"
    assert metrics(server)["tillway_throttled_total"]["account",] >= 2

    place = ("--data-dir", server.data_dir)
    given = invoked_json("accounts", "throttle", server.account, "--per-second", "50", "--burst", "60", *place)
    assert given == {"account": server.account, "per_second": 50, "burst": 60}
    time.sleep(2.1)
    for _ in range(20):
        impatient.v1.charges.list()
    assert invoked_json("accounts", "throttle", server.account, "--default", *place)["per_second"] is None


def test_a_log_that_nobody_reads_stops_no_payment(tmp_path: Path) -> None:
    made = init(tmp_path)
    command = [sys.executable, "-m", "tillway.cli.main", "serve", "--data-dir", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--log-level", "debug"], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, bufsize=1
    )
    try:
        assert process.stderr is not None
        url = ""
        while not url:
            line = process.stderr.readline()
            assert line, "it ended"
            url = next(iter(re.findall(r"Tillway serves (\S+)", line)), "")
        with httpx.Client(base_url=url, auth=(made["secret_key"], ""), timeout=10) as client:
            for _ in range(400):  # A pipe holds 64 KiB.
                assert client.get("/v1/charges").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.stderr.close()  # type: ignore[union-attr]
