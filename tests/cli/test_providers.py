"""Commands about providers: settlements, doubts, routing and connectors, on an installation that has been served."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tillway_server import TillwayServer, init, invoked, invoked_json

CARD = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123"}


class Shop(NamedTuple):
    """An installation with three payments of 10.00, 20.00 and 30.00 EUR, and one of 24.00 EUR in doubt."""

    data_dir: Path
    account: str
    doubt: str
    doubtful: str

    def json(self, *arguments: str | Path) -> Any:
        return invoked_json(*arguments, "--data-dir", self.data_dir)

    def fails(self, *arguments: str | Path) -> tuple[int, str]:
        done = invoked(*arguments, "--data-dir", self.data_dir)
        return done.returncode, done.stderr


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    data_dir = tmp_path_factory.mktemp("shop") / "data"
    made = init(data_dir)
    server = TillwayServer(data_dir, made)
    v1 = server.client.v1
    for amount in (1000, 2000, 3000):
        v1.charges.create({"amount": amount, "currency": "eur", "source": "tok_visa"})
    rules = [{"fault": "pend", "operation": "authorize", "times": 1}]
    assert server.call("POST", "/ops/v1/simulator", {"faults": {"rules": rules}})[0] == 200
    paid = v1.payment_intents.create(
        {
            "amount": 2400,
            "currency": "eur",
            "confirm": True,
            "payment_method": "pm_card_visa",
            "return_url": "https://a.example",
        }
    )
    listed = server.call("GET", "/ops/v1/doubts")[1]["data"]
    assert server.stop() == 0
    return Shop(data_dir, made["account"], listed[0]["id"], paid.id)


def test_a_settlement_is_booked_and_listed(shop: Shop) -> None:
    words = ("--amount", "900", "--currency", "EUR", "--reason", "Statement of May")
    booked = shop.json("settlements", "book", "simulator", *words, "--fee", "10", "--reference", "po_1")
    assert {name: booked[name] for name in ("connector", "amount", "fee", "currency", "reference", "reason")} == {
        "connector": "simulator",
        "amount": 900,
        "fee": 10,
        "currency": "eur",
        "reference": "po_1",
        "reason": "Statement of May",
    }
    assert shop.json("settlements", "list", "--account", shop.account) == [booked]
    code, says = shop.fails("settlements", "book", "simulator", *words, "--reference", "po_1")
    assert code == 1 and "booked already" in says
    code, says = shop.fails("settlements", "book", "simulator", "--amount", "900000", *words[2:])
    assert code == 1 and "moves 900000 eur, in minor units, and the connector 'simulator' has collected" in says


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--amount", "0", "--currency", "eur", "--reason", "a"), "--amount is not 0"),
        (("--amount", "1", "--currency", "xyz", "--reason", "a"), "--currency"),
        (("--amount", "1", "--currency", "eur", "--reason", " "), "--reason must have 1 to 500 characters"),
        (("--amount", "1", "--currency", "eur", "--reason", "a", "--reference", "a" * 101), "--reference must have"),
    ],
)
def test_settlements_that_cannot_be(shop: Shop, arguments: tuple[str, ...], says: str) -> None:
    code, text = shop.fails("settlements", "book", "simulator", *arguments)
    assert code == 2 and says in text


def test_a_doubt_is_shown_and_resolved(shop: Shop) -> None:
    [listed] = shop.json("doubts", "list")
    assert (listed["id"], listed["subject"], listed["account"]) == (shop.doubt, shop.doubtful, shop.account)
    shown = shop.json("doubts", "show", shop.doubt)
    assert (shown["amount"], shown["currency"], shown["sent"]["card"]["number"]) == (2400, "eur", "****4242")
    assert shown["provider_says"]["outcome"] == "never_seen", "this process has a simulated bank of its own"
    words = ("--outcome", "failed", "--reason", "They said so by telephone.")
    assert shop.fails("doubts", "resolve", shop.doubt, "--outcome", "perhaps", "--reason", "a")[0] == 2
    resolved = shop.json("doubts", "resolve", shop.doubt, *words)
    assert (resolved["subject"], resolved["resolved"]) == (shop.doubtful, "failed")
    assert shop.json("doubts", "list") == []
    code, says = shop.fails("doubts", "resolve", shop.doubt, *words)
    assert code == 1 and "There is no doubt" in says
    assert shop.fails("doubts", "show", shop.doubt)[0] == 1


def test_routing_is_set_shown_and_tried(shop: Shop, tmp_path: Path) -> None:
    shop.json("connectors", "add", "b", "--kind", "http_bank", "--set", "base_url=http://127.0.0.1:1")
    document = {
        "rules": [{"name": "large", "when": {"amount_gte": 2000}, "use": [{"connector": "b"}]}],
        "otherwise": ["simulator"],
    }
    file = tmp_path / "routing.json"
    file.write_text(json.dumps(document))
    tried = shop.json("routing", "simulate", file)
    assert tried["payments"] >= 3 and tried["connectors"]["b"] == tried["moves"][0]["payments"] == len(tried["changed"])
    assert shop.json("routing", "show")["version"] == 0, "a trial changes nothing"
    assert shop.json("routing", "set", file)["version"] == 1
    shown = shop.json("routing", "show")
    assert {name: shown[name] for name in ("otherwise", "version")} == {"otherwise": ["simulator"], "version": 1}
    assert shown["rules"][0]["name"] == "large"
    text = invoked("routing", "show", "--data-dir", shop.data_dir).stdout
    assert "large" in text and "otherwise" in text
    file.write_text(json.dumps({"otherwise": ["nowhere"]}))
    for command in ("set", "simulate"):
        code, says = shop.fails("routing", command, file)
        assert code == 2 and "nowhere" in says


@pytest.fixture
def bank() -> Iterator[str]:
    """The address of a bank that has seen no operation."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *arguments: Any) -> None:
            """Say nothing on standard error."""

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_connector_is_shown_and_tested(shop: Shop, bank: str) -> None:
    secret = ("--set", "notice_secret=of-the-bank")
    shop.json("connectors", "add", "up", "--kind", "http_bank", "--set", f"base_url={bank}", *secret)
    shown = shop.json("connectors", "show", "up")
    assert (shown["name"], shown["kind"], shown["mode"], shown["default"]) == ("up", "http_bank", "test", False)
    assert "base_url" in shown["settings"] and bank not in json.dumps(shown)
    tested = shop.json("connectors", "test", "up")
    assert (tested["answers"], tested["why"]) == (True, "")
    shop.json("connectors", "add", "down", "--kind", "http_bank", "--set", "base_url=http://127.0.0.1:1")
    failed = invoked("connectors", "test", "down", "--data-dir", shop.data_dir, "--json")
    assert failed.returncode == 1 and json.loads(failed.stdout)["answers"] is False
    code, says = shop.fails("connectors", "test", "nowhere")
    assert code == 1 and "nowhere" in says
