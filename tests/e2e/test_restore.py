"""A store is put back, the recovery fetches what the bank did since, and clients repeat everything under the same keys:
nothing happens twice, and nothing is lost.

The journal of the bank, a process of its own, is the witness.
"""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from bank_process import BankProcess
from doses import Dose
from server_with_bank import eventually
from tillway_server import TillwayServer, init, invoked_json, tillway, tillway_json

from tillway.crash.free_port import free_port
from tillway.crash.postgres_server import PostgresServer, own_server

EACH = 10
"""Operations of each of the eight kinds after the backup: 80 in all."""

SETTLED_WITHIN_SECONDS = 30.0
PAID = {"amount": 5000, "currency": "eur", "confirm": "true", "payment_method": "pm_card_bypassPending"}
HELD = {**PAID, "capture_method": "manual"}
DEBIT = {
    "currency": "usd",
    "confirm": "true",
    "payment_method": "pm_usBankAccount_success",
    "payment_method_types[0]": "us_bank_account",
    "mandate_data[customer_acceptance][type]": "offline",
}
LISTINGS = ("payment_intents", "charges", "refunds", "payouts")


class Installation:
    """A server with a bank of its own; the server can be stopped, and started on what was put in its place."""

    def __init__(
        self, place: Path, store: str = "", each: int = EACH, returns: str = "", payout_delay_seconds: int = 0
    ) -> None:
        """The bank returns refunds later if `returns` is an address for its notices."""
        self.delay = ["--payout-delay-seconds", str(payout_delay_seconds)]
        # Each start has the same port: an access token names the address that issued it.
        self.address = ["--port", str(free_port())]
        self.each = each
        self.data_dir = place / "data"
        self.stored = ["--store", store] if store else []
        notices = ("--notice-url", returns, "--notice-secret", "unheard") if returns else ()
        self.bank = BankProcess(place / "journal", *notices)
        self.made = init(self.data_dir, store)
        bank = ("bank", "--kind", "http_bank", "--set", f"base_url={self.bank.url}", "--default", "--set", "list=yes")
        more = ("--set", "debits=us_bank_account", "--set", "ask_after_seconds=0.5", "--set", "disputes=yes")
        parts = ("--set", "multicapture=yes")
        tillway_json("connectors", "add", *bank, *more, *parts, "--data-dir", self.data_dir, *self.stored)
        self.start()

    def start(self) -> None:
        self.server = TillwayServer(self.data_dir, self.made, [*self.delay, *self.address, *self.stored])

    def stop(self) -> None:
        self.server.stop()
        self.bank.stop()

    def post(self, key: str | None, path: str, **params: Any) -> Any:
        request = urllib.request.Request(f"{self.server.base_url}/v1/{path}", urlencode(params).encode())
        request.add_header("Authorization", f"Bearer {self.made['secret_key']}")
        if key is not None:
            request.add_header("Idempotency-Key", key)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def refused(self, key: str | None, path: str, **params: Any) -> tuple[int, str, str | None]:
        """Status, code and Retry-After of a refused request."""
        with pytest.raises(urllib.error.HTTPError) as told:
            self.post(key, path, **params)
        code = json.load(told.value)["error"]["code"]
        return told.value.code, code, told.value.headers.get("Retry-After")

    def all(self, path: str) -> list[Any]:
        status, page = self.server.call("GET", f"{path}?limit=100")
        assert status == 200 and not page["has_more"], page
        return list(page["data"])

    def recover(self, *arguments: str) -> Any:
        """What `tillway recover` says as a document."""
        return invoked_json("recover", *arguments, "--data-dir", self.data_dir, *self.stored)

    def ready(self) -> tuple[int, str]:
        status, told = self.server.call("GET", "/readyz")
        return status, told.get("reason", "")

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + SETTLED_WITHIN_SECONDS
        while self.ready()[0] != 200:
            assert time.monotonic() < deadline, self.ready()
            time.sleep(0.05)

    def performed(self) -> dict[str, tuple[str, str, int]]:
        """The bank's operations by reference: kind, status and amount."""
        return {
            reference: (told["kind"], told["status"], told["amount"])
            for reference, told in self.bank.operations().items()
        }

    def wait_until_settled(self) -> None:
        deadline = time.monotonic() + SETTLED_WITHIN_SECONDS
        while True:
            payouts, debits = self.all("/v1/payouts"), self.all("/v1/payment_intents")
            if {one["status"] for one in payouts} <= {"paid"} and not any(
                one["status"] == "processing" for one in debits
            ):
                return
            assert time.monotonic() < deadline, (payouts, debits)
            time.sleep(0.1)

    def totals(self) -> Any:
        status, ledger = self.server.call("GET", "/ops/v1/ledger")
        assert status == 200 and ledger["balanced"] is True
        counts = {noun: sorted((one["status"], one["amount"]) for one in self.all(f"/v1/{noun}")) for noun in LISTINGS}
        return ledger["accounts"], counts


class Kept:
    """One way of keeping the store and of putting it back."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.store = ""
        self.each = EACH

    def keep(self, shop: Installation) -> None:
        raise NotImplementedError

    def put_back(self, shop: Installation) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is left to stop."""


class Backup(Kept):
    def keep(self, shop: Installation) -> None:
        tillway_json("backup", self.place / "kept", "--data-dir", shop.data_dir)

    def put_back(self, shop: Installation) -> None:
        shop.server.stop()
        answer = tillway("restore", self.place / "kept", "--replace", "--data-dir", shop.data_dir)
        assert answer.returncode == 0 and "tillway recover" in answer.stderr, answer.stderr
        shop.start()


class CopiedFile(Kept):
    """The database is copied while no server runs, and the copy is put in its place."""

    def keep(self, shop: Installation) -> None:
        shop.server.stop()
        shutil.copy(shop.data_dir / "tillway.db", self.place / "kept.db")
        shop.start()

    def put_back(self, shop: Installation) -> None:
        # Not in order: the file beside was not brought up to the end.
        shop.server.stop(9)
        for path in shop.data_dir.glob("tillway.db*"):
            path.unlink()
        shutil.copy(self.place / "kept.db", shop.data_dir / "tillway.db")
        shop.start()


class PointInTime(Kept):
    """A base backup of PostgreSQL, with the log up to a named point."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.server: PostgresServer = own_server(wal_level="replica", archive_mode="on", archive_command="true")
        self.server.stop()
        self.archive = self.server.folder / "archive"
        self._as_owner(["mkdir", str(self.archive)])
        self.server.settings["archive_command"] = f"cp %p {self.archive}/%f"
        self.server.start()
        self.store = self.server.url

    def keep(self, shop: Installation) -> None:
        where = ["-h", str(self.server.folder), "-p", str(self.server.port), "-U", "tillway"]
        base = str(self.server.folder / "base")
        self._as_owner([str(self.server.programs / "pg_basebackup"), *where, "-D", base, "-c", "fast"])
        self._sql("SELECT pg_create_restore_point('kept')")

    def put_back(self, shop: Installation) -> None:
        shop.server.stop()
        self._sql("SELECT pg_switch_wal()")
        self.server.stop()
        shutil.rmtree(self.server.data)
        (self.server.folder / "base").rename(self.server.data)
        (self.server.data / "recovery.signal").touch()
        restored = {"restore_command": f"cp {self.archive}/%f %p", "recovery_target_name": "kept"}
        self.server.settings |= {**restored, "recovery_target_action": "promote"}
        self.server.start()
        deadline = time.monotonic() + SETTLED_WITHIN_SECONDS
        while self._sql("SELECT pg_is_in_recovery()") != "f":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        shop.start()

    def close(self) -> None:
        self.server.close()

    def _sql(self, statement: str) -> str:
        where = ["-h", str(self.server.folder), "-p", str(self.server.port), "-U", "tillway", "-d", "postgres"]
        return self._as_owner([str(self.server.programs / "psql"), *where, "-Atc", statement]).strip()

    def _as_owner(self, command: list[str]) -> str:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, **self.server.as_owner(), timeout=240
        ).stdout


def trade(shop: Installation, held: list[str], paid: list[str]) -> None:
    """Operations of each kind under keys; `held` and `paid` are payments from before the backup."""
    for number in range(shop.each):
        shop.post(f"authorize-{number}", "payment_intents", **{**HELD, "amount": 1000 + number})
        shop.post(f"capture-{number}", f"payment_intents/{held[number]}/capture", amount_to_capture=4000 + number)
        shop.post(f"void-{number}", f"payment_intents/{held[shop.each + number]}/cancel")
        shop.post(f"refund-{number}", "refunds", payment_intent=paid[number], amount=100 + number)
        shop.post(f"payout-{number}", "payouts", amount=50 + number, currency="eur")
        shop.post(f"debit-{number}", "payment_intents", **DEBIT, amount=2000 + number)
        sold = shop.post(f"sell-{number}", "payment_intents", **{**PAID, "amount": 3000 + number})
        # The second time, this payment has another id.
        shop.post(f"part-{number}", "refunds", payment_intent=sold["id"], amount=30 + number)
    shop.wait_until_settled()


def before_the_backup(shop: Installation) -> tuple[list[str], list[str]]:
    """Payments that are held, and payments that are paid, with an account to pay out to."""
    account = {"object": "bank_account", "country": "US", "currency": "eur", "routing_number": "110000000"}
    account["account_number"] = "000123456789"
    members = {f"external_account[{name}]": value for name, value in account.items()}
    shop.post("account", f"accounts/{shop.made['account']}/external_accounts", **members)
    held = [shop.post(f"held-{number}", "payment_intents", **HELD)["id"] for number in range(2 * shop.each)]
    paid = [shop.post(f"paid-{number}", "payment_intents", **PAID)["id"] for number in range(shop.each)]
    return held, paid


@pytest.fixture(params=[Backup, CopiedFile, PointInTime], ids=["backup", "copied file", "point in time"])
def kept(request: pytest.FixtureRequest, tmp_path: Path, dose: Dose) -> Iterator[Kept]:
    how: Kept = request.param(tmp_path)
    how.each = dose(2, EACH)
    yield how
    how.close()


def test_nothing_happens_twice_and_nothing_is_lost(kept: Kept, tmp_path: Path) -> None:
    shop = Installation(tmp_path, kept.store, kept.each)
    try:
        held, paid = before_the_backup(shop)
        kept.keep(shop)

        trade(shop, held, paid)
        shop.post(None, "refunds", payment_intent=paid[0], amount=777)
        performed, totals = shop.performed(), shop.totals()
        kept.put_back(shop)

        # Until the recovery, payouts and what has a key wait; the rest goes on.
        status, reason = shop.ready()
        assert status == 503 and reason.startswith("recovering: "), reason
        assert shop.refused("capture-0", f"payment_intents/{held[0]}/capture") == (503, "recovering", "30")
        assert shop.refused(None, "payouts", amount=50, currency="eur") == (503, "recovering", "30")
        assert shop.post("customer", "customers")["object"] == "customer"
        assert shop.totals() != totals and shop.performed() == performed

        told = shop.recover()
        assert told["recovering"] is True and told["ended"] is False and told["errors"] == 0
        [bank] = told["connectors"]
        assert bank["counts"] == {
            "agrees": 3 * shop.each,
            "booked": 0,
            "waits": 8 * shop.each,
            "unexplained": 1,
            "no_money": 0,
            "foreign": 0,
            "decide": 0,
        }
        assert shop.all("/ops/v1/open_items") == [] and shop.ready()[0] == 503
        assert shop.recover("--yes")["connectors"] == told["connectors"]
        shop.wait_until_ready()
        items = shop.all("/ops/v1/open_items")
        assert Counter(item["operation"] for item in items) == {
            "authorize": 3 * shop.each,
            "capture": shop.each,
            "void": shop.each,
            "refund": 2 * shop.each + 1,
            "payout": shop.each,
        }
        assert shop.performed() == performed

        trade(shop, held, paid)
        assert shop.performed() == performed
        [lost] = [item for item in shop.all("/ops/v1/open_items") if item["status"] == "open"]
        assert (lost["kind"], lost["operation"], lost["amount"], lost["subject"]) == (
            "unexplained",
            "refund",
            777,
            paid[0],
        )
        assert sum_of(totals, -777) == sum_of(shop.totals(), 0)
    finally:
        shop.stop()


CARD = {"number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2040, "cvv": "123"}


class NamedRequests:
    """Payments without a key that have a name of their own: the names were given before the backup, except those of
    orders. Each kind is asked for in one request, which a client can repeat."""

    def __init__(self, shop: Installation) -> None:
        self.shop = shop
        self.merchant = shop.made["account"]
        self.who = {"merchantId": self.merchant, "apiKey": shop.made["secret_key"], "customerId": "ada"}
        self.product = {"name": "Book", "price": 12.5, "available_count": 3, "type": "book"}
        assert shop.server.call("PUT", "/products/book", self.product)[0] == 200
        self.payments = [self.made("/create-payment", merchantId=self.merchant)["paymentId"] for _ in "ab"]
        self.transaction = self.made("/get-token", **self.who)["token"]
        card = {"card_number": CARD["number"], "exp_month": 12, "exp_year": 2040, "cvv": "123", "card_holder": "Ada"}
        self.token = self.made("/token", **card)["data"]["token"]

    def made(self, path: str, **body: Any) -> Any:
        status, answer = self.shop.server.call("POST", path, body)
        assert status in (200, 202), answer
        return answer

    def requests(self) -> list[tuple[str, dict[str, Any]]]:
        holder = {"cardName": "Ada", "billingAddress": "1 Main Street", "currency": "EUR", "merchantId": self.merchant}
        card = {"cardNumber": CARD["number"], **{name: CARD[name] for name in ("expiryMonth", "expiryYear", "cvv")}}
        pays = [("/make-payment", {"paymentId": id, "amount": 1500, **holder, **card}) for id in self.payments]
        pays.append(("/process-payments", {**self.who, **CARD, "amount": 17.5, "transactionId": self.transaction}))
        pays.append(("/charge", {"token": self.token, "amount": 1900, "currency": "eur"}))
        return pays

    def order(self) -> Any:
        """Place the order, and wait until it is carried to its end."""
        line = {"product_id": "book", "requested_count": 1, "delivery_address": "1 Main Street", **self.product}
        del line["available_count"]
        placing = {"order_id": "o-1", "user_id": "ada", "products": [line]}
        self.made("/orders", **placing, payment={"type": "card", "token": "tok_visa"})
        shown = eventually(lambda: self.shop.server.call("GET", "/orders/o-1")[1], lambda it: it["status"] == "placed")
        return shown["deliveries"]


def test_a_repeat_without_a_key_is_known_by_its_own_name(tmp_path: Path) -> None:
    """The client repeats the payment's id, the token or the order's id, and the bank answers as it did before. Two
    payments of one amount and card stay two."""
    shop = Installation(tmp_path)
    kept = Backup(tmp_path)
    try:
        named = NamedRequests(shop)
        kept.keep(shop)
        answers = [named.made(path, **body) for path, body in named.requests()]
        deliveries = named.order()
        performed = shop.performed()
        assert Counter(amount for _, _, amount in performed.values()) == {1500: 2, 1750: 1, 1900: 1, 1250: 1}
        totals = shop.totals()
        kept.put_back(shop)

        for path, body in named.requests():
            status, told = shop.server.call("POST", path, body)
            assert status == 503, told
        shop.recover("--yes")
        shop.wait_until_ready()
        assert {item["status"] for item in shop.all("/ops/v1/open_items")} == {"open"}
        again = [named.made(path, **body) for path, body in named.requests()]
        assert again[:3] == answers[:3] and again[3]["data"]["status"] == answers[3]["data"]["status"]
        assert named.order() == deliveries
        assert shop.performed() == performed
        assert {item["status"] for item in shop.all("/ops/v1/open_items")} == {"closed"}
        assert shop.totals() == totals
    finally:
        shop.stop()


def test_disputes_returns_and_cancelled_payouts_since_the_backup(tmp_path: Path) -> None:
    """No notice of the bank arrives; its words are heard when the payments are repeated. A repeat while the bank is
    away is never declined: the bank has performed it. A dispute of more than is booked of several captures is heard as
    soon as enough of them are repeated."""
    shop = Installation(tmp_path, each=1, returns="http://127.0.0.1:1/", payout_delay_seconds=600)
    kept = Backup(tmp_path)
    try:
        [captured, parted], _ = before_the_backup(shop)
        part: dict[str, Any] = {"path": f"payment_intents/{parted}/capture", "final_capture": "false"}
        shop.post("part-0", **part, amount_to_capture=1000)
        returned = shop.post("returned", "payment_intents", **{**PAID, "payment_method": "pm_card_refundFail"})["id"]
        cancelled, wanted = [shop.post(None, "payouts", amount=amount, currency="eur")["id"] for amount in (41, 42)]
        kept.keep(shop)
        shop.post(None, f"payouts/{cancelled}/cancel")

        def everything() -> None:
            shop.post("pay", "payment_intents", **{**PAID, "amount": 6101})
            shop.post("capture", f"payment_intents/{captured}/capture", amount_to_capture=4100)
            shop.post("refund", "refunds", payment_intent=returned, amount=700)
            shop.post("part-1", **part, amount_to_capture=750)

        everything()
        shop.post("part-2", **part, amount_to_capture=950)
        [paid], [capture] = shop.bank.operations(6101), shop.bank.operations(4100).values()
        [first_part] = shop.bank.operations(750).values()
        shop.bank.dispute(parent=paid, reference="d-1", amount=6000)
        shop.bank.dispute(parent=capture["parent"], reference="d-2", amount=4000, dispute="inquiry")
        shop.bank.dispute(parent=first_part["parent"], reference="d-3", amount=1750)
        eventually(lambda: shop.performed(), lambda found: ("refund", "Declined", 700) in found.values())
        performed = shop.performed()
        kept.put_back(shop)
        told = shop.recover("--yes")
        assert (told["ended"], told["decide"], told["connectors"][0]["counts"]["waits"]) == (True, 2, 8)
        assert [(one["payout"], one["held"]) for one in told["payouts"]] == [(cancelled, True), (wanted, True)]
        shop.wait_until_ready()
        assert shop.all("/v1/disputes") == []

        shop.bank.stop()
        assert shop.post("refund", "refunds", payment_intent=returned, amount=700)["status"] == "pending"
        shop.bank.start()
        everything()
        disputed = {("needs_response", 6000), ("warning_needs_response", 4000), ("needs_response", 1750)}
        eventually(lambda: {(one["status"], one["amount"]) for one in shop.all("/v1/disputes")}, disputed.__eq__)
        eventually(lambda: [one["status"] for one in shop.all("/v1/refunds")], lambda found: found == ["failed"])
        shop.post("part-2", **part, amount_to_capture=950)
        assert {item["status"] for item in shop.all("/ops/v1/open_items")} == {"closed"}
        assert len(shop.all("/v1/disputes")) == len(disputed)
        assert shop.performed() == performed

        # A person decides on the payouts that were scheduled at the backup.
        shop.post(None, f"payouts/{cancelled}/cancel")
        assert shop.recover("--send", wanted)["payouts"] == []
        statuses = {41: "canceled", 42: "paid"}
        eventually(lambda: {one["amount"]: one["status"] for one in shop.all("/v1/payouts")}, statuses.__eq__)
        assert [told for reference, told in shop.performed().items() if reference not in performed] == [
            ("payout", "Accepted", 42)
        ]
    finally:
        shop.stop()


def sum_of(totals: Any, without_refund: int) -> Any:
    """The totals without the refund that had no key: what nobody repeats, the books do not have."""
    accounts, counts = totals
    refunds = [one for one in counts["refunds"] if not (without_refund and one == ("succeeded", 777))]
    moved = {
        (row["account"], row["currency"]): row["balance"] - sign * without_refund
        for row in accounts
        for sign in [{"receivable:bank": 1, "merchant": -1}.get(row["account"], 0) * (row["currency"] == "eur")]
    }
    return sorted(moved.items()), {**counts, "refunds": refunds}
