"""The exchange of payment files: what goes out once, what comes back, deaths in between, and folders that remember."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from ach_bank import AchEntry, AchFile, notification_of_change, read_ach, returns
from doses import Dose

from tillway.domain.account import SYSTEM
from tillway.domain.connector_config import ConnectorConfig
from tillway.engine.connections import REFRESH_SECONDS
from tillway.engine.files import HELD_MS, FileExchange
from tillway.operations import notices
from tillway.store.codec import write_of
from tillway.store.port import ABSENT, Write
from tillway.testing.in_process import InProcessApp, Merchant

NACHA = {
    "immediate_destination": "091000019",
    "immediate_destination_name": "First Bank",
    "immediate_origin": "1234567890",
    "immediate_origin_name": "Acme",
    "company_name": "Acme Corporation",
    "company_id": "1234567890",
    "originating_dfi": "09100001",
}
SEPA = {
    "initiator": "Acme GmbH",
    "debtor_name": "Acme GmbH",
    "debtor_iban": "DE89370400440532013000",
    "debtor_bic": "COBADEFFXXX",
}
DAY = 86_400


class Shop:
    """A merchant with money and a saved account, and a bank that takes ACH files."""

    def __init__(self, app: InProcessApp, merchant: Merchant, place: Path) -> None:
        self.app, self.merchant, self.folder = app, merchant, place / "ach"
        self.account = ""
        self._named = 0

    @property
    def exchange(self) -> FileExchange:
        files = self.app.running.runner.files
        assert files is not None
        return files

    async def ok(self, method: str, path: str, params: dict[str, Any] | None = None) -> Any:
        return await self.app.ok(self.merchant, method, path, params)

    async def save(self, **fields: str | None) -> str:
        account = {
            "object": "bank_account",
            "country": "US",
            "currency": "usd",
            "routing_number": "110000000",
            "account_number": "000123456789",
            "account_holder_name": "Ada Lovelace",
            **fields,
        }
        path = f"/v1/accounts/{self.merchant.account}/external_accounts"
        saved = await self.ok("POST", path, {"external_account": account})
        return str(saved["id"])

    async def pay_out(self, amount: int, **params: Any) -> str:
        made = await self.ok("POST", "/v1/payouts", {"amount": amount, "currency": "usd", **params})
        await self.app.wait(0)
        return str(made["id"])

    async def payout(self, id: str) -> tuple[str, str | None]:
        found = await self.ok("GET", f"/v1/payouts/{id}")
        return found["status"], found["failure_code"]

    async def available(self) -> int:
        rows = (await self.ok("GET", "/v1/balance"))["available"]
        return next((int(row["amount"]) for row in rows if row["currency"] == "usd"), 0)

    async def visit(self, seconds: int = 5) -> None:
        """Let time pass and the exchange look twice: an inbound file must not have changed in between."""
        self.app.clock.ahead_seconds += seconds
        await self.exchange.visit_all()
        await self.exchange.visit_all()

    def sent(self) -> list[AchFile]:
        return [read_ach(path.read_bytes()) for path in sorted((self.folder / "outbound").glob("*.ach"))]

    def entries(self) -> list[AchEntry]:
        return [entry for file in self.sent() for entry in file.entries]

    async def put_in(self, content: bytes) -> str:
        """Let the bank put a file in. The reason of its rejection, or empty if it was processed."""
        self._named += 1
        name = f"in-{self._named}.ach"
        (self.folder / "inbound" / name).write_bytes(content)
        await self.visit()
        assert not (self.folder / "inbound" / name).exists()
        reason = self.folder / "rejected" / f"{name}.reason"
        assert reason.exists() != (self.folder / "processed" / name).exists()
        return reason.read_text() if reason.exists() else ""


async def configure(
    app: InProcessApp, name: str, kind: str, settings: dict[str, str], *, default: bool = False
) -> None:
    config = ConnectorConfig(
        id=f"con_test_{name}", created=0, name=name, kind=kind, mode="test", settings=settings, default=default
    )
    await app.store.commit([write_of(SYSTEM, config, ABSENT)])
    app.clock.ahead_seconds += 1 + REFRESH_SECONDS


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    app = await InProcessApp.open(tmp_path, payout_delay_seconds=0)
    await configure(app, "ach", "nacha", {**NACHA, "directory": str(tmp_path / "ach")})
    made = Shop(app, await app.merchant(), tmp_path)
    await made.ok("POST", "/v1/charges", {"amount": 900_000, "currency": "usd", "source": "tok_bypassPending"})
    made.account = await made.save()
    yield made
    await app.close()


async def test_payouts_within_seconds_share_a_file(shop: Shop) -> None:
    ids = [await shop.pay_out(amount) for amount in (100, 200, 300)]
    await shop.visit(0)
    assert shop.sent() == []
    await shop.visit()
    [file] = shop.sent()
    assert [entry.amount for entry in file.entries] == [100, 200, 300]
    assert [await shop.payout(id) for id in ids] == [("in_transit", None)] * 3
    await shop.pay_out(400)
    await shop.visit()
    first, second = shop.sent()
    assert first == file and (second.modifier, [entry.amount for entry in second.entries]) == ("B", [400])
    traces = [entry.trace for entry in shop.entries()]
    assert traces == [f"09100001{number:07d}" for number in range(1, 5)]


async def test_a_return_brings_the_money_back_once(shop: Shop) -> None:
    before = await shop.available()
    id = await shop.pay_out(5_000)
    await shop.visit()
    for _ in range(2):
        assert await shop.put_in(returns(shop.entries(), "R02")) == ""
        assert await shop.payout(id) == ("failed", "account_closed")
        assert await shop.available() == before


async def test_silence_pays_and_a_late_return_still_brings_the_money_back(shop: Shop) -> None:
    before = await shop.available()
    id = await shop.pay_out(5_000)
    await shop.visit()
    shop.app.clock.ahead_seconds += 8 * DAY
    for _ in range(31):
        await shop.exchange.visit_all()
    assert await shop.payout(id) == ("paid", None)
    assert await shop.put_in(returns(shop.entries(), "R03")) == ""
    assert await shop.payout(id) == ("failed", "no_account")
    assert await shop.available() == before


async def test_a_file_that_contradicts_moves_nothing(shop: Shop) -> None:
    ids = [await shop.pay_out(5_000), await shop.pay_out(6_000)]
    await shop.visit()
    before = await shop.available()
    good, other = shop.entries()
    assert "another amount" in await shop.put_in(returns([good, other._replace(amount=6_001)], "R01"))
    assert "in no file that was sent" in await shop.put_in(
        returns([good, other._replace(trace="091000019999999")], "R01")
    )
    for content in (b"hello", b"\x00\xff", b"", b'<!DOCTYPE a [<!ENTITY b "c">]><a/>', returns([good], "R01")[:400]):
        assert await shop.put_in(content)
    assert [await shop.payout(id) for id in ids] == [("in_transit", None)] * 2
    assert await shop.available() == before


async def test_a_notification_of_change_corrects_the_saved_account(shop: Shop) -> None:
    id = await shop.pay_out(5_000)
    await shop.visit()
    [entry] = shop.entries()
    change = notification_of_change(entry, "C07", f"021000021{'1918171614':<17}32")
    path = f"/v1/accounts/{shop.merchant.account}/external_accounts/{shop.account}"
    for _ in range(2):
        assert await shop.put_in(change) == ""
        saved = await shop.ok("GET", path)
        assert (saved["routing_number"], saved["last4"]) == ("021000021", "1614")
    assert await shop.payout(id) == ("in_transit", None)
    events = await shop.ok("GET", "/v1/events", {"type": "account.external_account.updated"})
    [told] = [event["data"] for event in events["data"]]
    assert told["previous_attributes"]["last4"] == "6789"
    await shop.pay_out(6_000)
    await shop.visit()
    later = shop.entries()[1]
    assert (later.routing_number, later.account, later.transaction) == ("021000021", "1918171614", "32")
    assert await shop.put_in(notification_of_change(later, "C02", "021000022")) == ""
    assert (await shop.ok("GET", path))["routing_number"] == "021000021"


async def test_the_default_takes_everything_else(shop: Shop, tmp_path: Path) -> None:
    await configure(shop.app, "sepa", "pain001", {**SEPA, "directory": str(tmp_path / "sepa")})
    await shop.ok("POST", "/v1/charges", {"amount": 9_000, "currency": "eur", "source": "tok_bypassPending"})
    german = await shop.save(country="DE", currency="eur", account_number="DE89370400440532013000", routing_number=None)
    card = {"object": "card", "number": "4000056655665556", "exp_month": 12, "exp_year": 2040, "currency": "usd"}
    path = f"/v1/accounts/{shop.merchant.account}/external_accounts"
    debit_card = (await shop.ok("POST", path, {"external_account": card}))["id"]
    in_euros = await shop.pay_out(1_000, currency="eur", destination=german)
    to_card = await shop.pay_out(2_000, destination=debit_card)
    in_dollars = await shop.pay_out(3_000, destination=shop.account)
    await shop.visit()
    await shop.app.wait(60)
    assert [entry.amount for entry in shop.entries()] == [3_000]
    [file] = (tmp_path / "sepa" / "outbound").iterdir()
    assert "DE89370400440532013000" in file.read_text() and '<InstdAmt Ccy="EUR">10.00</InstdAmt>' in file.read_text()
    assert [(await shop.payout(id))[0] for id in (in_euros, to_card, in_dollars)] == [
        "in_transit",
        "paid",
        "in_transit",
    ]
    message = file.name.removesuffix(".xml")
    report = (
        '<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.002.001.10"><CstmrPmtStsRpt><OrgnlGrpInfAndSts>'
        f"<OrgnlMsgId>{message}</OrgnlMsgId><GrpSts>RJCT</GrpSts><StsRsnInf><Rsn><Cd>AM04</Cd></Rsn></StsRsnInf>"
        "</OrgnlGrpInfAndSts></CstmrPmtStsRpt></Document>"
    )
    (tmp_path / "sepa" / "inbound" / "other.xml").write_text(report.replace("TW", "TW1"))
    (tmp_path / "sepa" / "inbound" / "status.xml").write_text(report)
    await shop.visit()
    assert (
        tmp_path / "sepa" / "rejected" / "other.xml.reason"
    ).read_text() == f"TW1{message[2:]}.xml is no file that was sent\n"
    assert await shop.payout(in_euros) == ("failed", "insufficient_funds")


async def test_two_processes_write_one_file(shop: Shop) -> None:
    for amount in (100, 200, 300):
        await shop.pay_out(amount)
    shop.app.clock.ahead_seconds += 5
    engine, attempts = shop.exchange.engine, shop.exchange.attempts
    exchanges = [FileExchange(engine, attempts, partial(notices.book, attempts)) for _ in range(4)]
    for _ in range(3):
        await asyncio.gather(*(exchange.visit_all() for exchange in exchanges))
        shop.app.clock.ahead_seconds += 5
    assert [[entry.amount for entry in file.entries] for file in shop.sent()] == [[100, 200, 300]]


class Killed(BaseException):
    """The process is killed."""


async def test_a_death_at_any_commit_writes_each_payout_once(shop: Shop) -> None:
    """A process dies before or after its nth commit of an exchange, or before or after it has written the file; another
    goes on, while the bank's program fetches each file at once."""
    store, fetched = shop.app.store, shop.folder / "fetched"
    fetched.mkdir(parents=True)
    commit = store.commit
    amount = 1_000
    for when in ("before", "after"):
        for nth in range(1, 9):
            amount += 2
            for extra in (0, 1):
                await shop.pay_out(amount + extra)
            left = nth

            async def dying(writes: Sequence[Write], when: str = when) -> None:
                nonlocal left
                left -= 1
                if left == 0 and when == "before":
                    raise Killed
                await commit(writes)
                if left == 0:
                    raise Killed

            store.commit = dying  # type: ignore[method-assign]
            with contextlib.suppress(Killed):
                await shop.visit()
            store.commit = commit  # type: ignore[method-assign]
            for wait in (0, HELD_MS // 1000 + 1, HELD_MS // 1000 + 1):
                if wait:
                    await shop.visit(wait)
                for path in (shop.folder / "outbound").glob("*.ach"):
                    assert not (fetched / path.name).exists(), "a file was written twice"
                    path.rename(fetched / path.name)
    sent = sorted(entry.amount for path in fetched.glob("*.ach") for entry in read_ach(path.read_bytes()).entries)
    assert sent == list(range(1_002, amount + 2))


async def test_seeded_days(shop: Shop, dose: Dose) -> None:
    """Payouts, deaths at drawn commits, a bank that fetches at any time and returns some payouts, once or twice: each
    goes out once, and each that is returned comes back once."""
    store, fetched, before = shop.app.store, shop.folder / "fetched", await shop.available()
    fetched.mkdir(parents=True)
    commit, made, returned = store.commit, dict[int, str](), set[int]()
    unanswered: list[AchEntry] = []

    def fetch() -> None:
        for path in (shop.folder / "outbound").glob("*.ach"):
            assert not (fetched / path.name).exists(), "a file was written twice"
            path.rename(fetched / path.name)
            unanswered.extend(read_ach((fetched / path.name).read_bytes()).entries)

    for seed in range(dose(40, 600)):
        drawn = Random(seed)
        for _ in range(drawn.randint(0, 4)):
            amount = 100 + len(made)
            made[amount] = await shop.pay_out(amount)
        left = drawn.randint(1, 12)
        after = drawn.random() < 0.5

        async def dying(writes: Sequence[Write], after: bool = after) -> None:
            nonlocal left
            left -= 1
            if left != 0 or after:
                await commit(writes)
            if left == 0:
                raise Killed

        store.commit = dying  # type: ignore[method-assign]
        with contextlib.suppress(Killed):
            await shop.visit(drawn.choice((0, 4, 20)))
        store.commit = commit  # type: ignore[method-assign]
        if drawn.random() < 0.7:
            fetch()
        chosen = [entry for entry in unanswered if drawn.random() < 0.3]
        for _ in range(drawn.randint(1, 2) if chosen else 0):
            name = f"seed-{seed}-{drawn.random()}.ach"
            (shop.folder / "inbound" / name).write_bytes(returns(chosen, drawn.choice(("R01", "R03"))))
        returned |= {entry.amount for entry in chosen}
        unanswered[:] = [entry for entry in unanswered if entry not in chosen]
    for _ in range(3):
        await shop.visit(DAY)  # A day has 36 files.
        fetch()
    sent = sorted(entry.amount for path in fetched.glob("*.ach") for entry in read_ach(path.read_bytes()).entries)
    assert sent == sorted(made) and len(made) > 12
    assert not list((shop.folder / "rejected").iterdir()) and not list((shop.folder / "inbound").iterdir())
    states = {amount: (await shop.payout(id))[0] for amount, id in made.items()}
    assert {amount for amount in made if states[amount] == "failed"} == returned
    assert set(states.values()) <= {"failed", "in_transit", "paid"}
    assert await shop.available() == before - sum(amount for amount in made if amount not in returned)


async def test_a_payout_that_was_settled_while_it_waited_is_not_sent(shop: Shop) -> None:
    await shop.pay_out(100)
    kept = await shop.pay_out(200)
    found = await shop.ok("GET", "/v1/payouts")
    gone = next(one["id"] for one in found["data"] if one["id"] != kept)
    row = await shop.app.store.get(f"{shop.merchant.account.removeprefix('acct_')}t/att_{gone.removeprefix('po_')}")
    assert row is not None
    await shop.app.store.commit([Write(row.key, row.version, None)])
    await shop.visit()
    assert [entry.amount for entry in shop.entries()] == [200]
    await shop.visit()
    assert len(shop.sent()) == 1


async def test_a_store_that_was_put_back_sends_nothing_again(shop: Shop) -> None:
    first = await shop.pay_out(100)
    backup = shop.app.store.keep()
    await shop.visit()
    [sent] = shop.entries()
    shop.app.store.put_back(backup)
    await shop.pay_out(200)
    await shop.visit()
    await shop.visit()
    assert [(entry.amount, entry.trace) for entry in shop.entries()] == [
        (100, sent.trace),
        (200, f"{int(sent.trace) + 1:015d}"),
    ]
    assert [file.modifier for file in shop.sent()] == ["A", "B"]
    assert await shop.put_in(returns([sent], "R01")) == ""
    assert await shop.payout(first) == ("failed", "insufficient_funds")


async def test_nothing_is_written_into_another_folder(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    await shop.pay_out(100)
    await shop.visit()
    shop.folder.rename(shop.folder.with_name("elsewhere"))
    await shop.pay_out(200)
    await shop.visit()
    assert shop.sent() == []
    [told] = [record for record in caplog.records if record.getMessage() == "payment files cannot be exchanged"]
    assert "is its disk mounted?" in told.__dict__["why"]
    (shop.folder.with_name("elsewhere") / ".sent").rename(shop.folder / "sent")
    for record in (shop.folder / "sent").iterdir():
        record.rename(shop.folder / ".sent" / record.name)
    await shop.visit(HELD_MS // 1000 + 1)
    await shop.visit(HELD_MS // 1000 + 1)
    assert [entry.amount for entry in shop.entries()] == [200]


async def test_two_connectors_do_not_share_a_folder(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    await shop.pay_out(100)
    await shop.visit()
    await configure(shop.app, "other", "nacha", {**NACHA, "directory": str(shop.folder)})
    await shop.visit()
    told = [record.__dict__["why"] for record in caplog.records if record.levelname == "ERROR"]
    assert told == [f"{shop.folder} belongs to the connector test/ach. Give each connector a directory."]
    assert await shop.put_in(returns(shop.entries(), "R01")) == ""


async def test_few_files_are_left_for_the_day(shop: Shop) -> None:
    """The 36 file id modifiers of a day are not used up before its end."""
    now = shop.app.clock.now_ms() // 1000
    shop.app.clock.ahead_seconds += DAY - now % DAY + 60
    for number in range(30):
        await shop.pay_out(100 + number)
        await shop.visit()
    assert len(shop.sent()) == 24
    shop.app.clock.ahead_seconds += DAY
    await shop.visit()
    files = shop.sent()
    assert len(files) == 25 and files[-1].modifier == "A"
    assert sorted(entry.amount for file in files for entry in file.entries) == list(range(100, 130))


async def test_debits_and_cards_through_a_default_that_writes_files(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    await configure(app, "ach", "nacha", {**NACHA, "directory": str(tmp_path / "ach")}, default=True)
    shop = Shop(app, await app.merchant(), tmp_path)
    bank = {"account_number": "000123456789", "routing_number": "110000000", "account_holder_type": "individual"}
    agreed = {"customer_acceptance": {"type": "offline"}}
    method = {
        "type": "us_bank_account",
        "us_bank_account": bank,
        "billing_details": {"name": "Bob", "email": "b@b.com"},
    }
    given: dict[str, Any] = {"currency": "usd", "confirm": True, "mandate_data": agreed, "payment_method_data": method}
    given["payment_method_types"] = ["us_bank_account"]
    paid = [await shop.ok("POST", "/v1/payment_intents", {**given, "amount": amount}) for amount in (700, 800)]
    assert [payment["status"] for payment in paid] == ["processing"] * 2
    await shop.visit()
    first, second = shop.entries()
    assert [(e.amount, e.transaction, e.entry_class, e.name) for e in (first, second)] == [
        (700, "27", "PPD", "BOB"),
        (800, "27", "PPD", "BOB"),
    ]
    assert await shop.put_in(notification_of_change(first, "C01", "1918171614")) == ""
    corrected = await shop.ok("GET", f"/v1/payment_methods/{paid[0]['payment_method']}")
    assert corrected["us_bank_account"]["last4"] == "1614"
    assert await shop.put_in(returns([first], "R01")) == ""
    failed = await shop.ok("GET", f"/v1/payment_intents/{paid[0]['id']}")
    assert (failed["status"], failed["last_payment_error"]["code"]) == ("requires_payment_method", "insufficient_funds")
    app.clock.ahead_seconds += 8 * DAY
    for _ in range(31):
        await shop.exchange.visit_all()
    assert (await shop.ok("GET", f"/v1/payment_intents/{paid[1]['id']}"))["status"] == "succeeded"
    assert await shop.put_in(returns([second], "R10")) == ""
    [dispute] = (await shop.ok("GET", "/v1/disputes"))["data"]
    assert (dispute["status"], dispute["reason"], dispute["amount"]) == ("lost", "debit_not_authorized", 800)
    card = {"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123"}}
    card_payment = {"amount": 900, "currency": "usd", "confirm": True, "payment_method_data": card}
    card_payment["return_url"] = "https://shop.example/"
    refused = await app.call(shop.merchant, "POST", "/v1/payment_intents", card_payment)
    assert refused.status == 402, refused.body
    await app.close()
