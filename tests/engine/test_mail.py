"""Customers are told by e-mail: once for each disbursement, in the end, whatever the mail server does."""

from collections.abc import AsyncIterator
from email import message_from_bytes
from email.message import Message
from email.policy import default
from pathlib import Path
from typing import Any

import msgspec
import pytest
from mail_server import MailServerHere

from tillway.domain.mail import TRIES_MAX, EmailTask
from tillway.domain.payout import Payout, Recipient
from tillway.engine.mail import compose
from tillway.operations.accounts import create_account
from tillway.testing.in_process import InProcessApp, Merchant

A_DAY_AND_MORE = 3 * 86_400
PAYOUT = Payout(
    id="po_1",
    created=0,
    amount_minor=1250,
    currency="usd",
    recipient=Recipient(type="email", email="anna@example.com"),
    customer="cus_1",
)


class MailShop:
    """A merchant with one customer, and the mail server that both are told by."""

    def __init__(self, app: InProcessApp, merchant: Merchant, mail: MailServerHere) -> None:
        self.app = app
        self.merchant = merchant
        self.mail = mail

    async def post(self, path: str, **body: Any) -> Any:
        answer = await self.app.send(
            "POST", path, key=self.merchant.key, body=msgspec.json.encode(body), content_type="application/json"
        )
        assert answer.status == 200, answer.body
        return answer.json

    async def pay(self, email: str = "anna@example.com") -> Any:
        name = email.partition("@")[0].replace("_", "") + "00000000"
        await self.post("/v1/api/customer", customer_id=name[:20], email=email)
        return await self.post("/v1/api/payment", customer_id=name[:20], email=email, amount=12, currency="USD")

    async def tasks(self) -> int:
        scope = f"{self.merchant.account.removeprefix('acct_')}t"
        return len(await self.app.store.query(None, f"{scope}/eml_", limit=100))


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[MailShop]:
    mail = MailServerHere()
    app = await InProcessApp.open(tmp_path, smtp_url=f"smtp://127.0.0.1:{mail.port}", smtp_from="pay@shop.example")
    account, keys = await create_account(app.store, app.clock, name="Anna's\n Shop")
    secret, public, live, live_public = (key.secret for key in keys)
    shop = MailShop(app, Merchant(account.id, secret, public, live, live_public, operator_key=""), mail)
    yield shop
    await app.close()
    mail.stop()


def text(message: Message) -> str:
    body = message.get_payload(decode=True)
    assert isinstance(body, bytes)
    return body.decode()


async def test_a_customer_is_told_that_they_were_paid(shop: MailShop) -> None:
    made = await shop.pay()
    assert shop.mail.messages == [] and await shop.tasks() == 0
    await shop.app.wait(1)
    (message,) = shop.mail.messages
    assert (message["To"], message["From"]) == ("anna@example.com", "Anna's Shop <pay@shop.example>")
    assert message["Subject"] == "Anna's Shop has sent you 12.00 USD"
    assert made["payment_id"] in text(message)
    assert message["Message-ID"].startswith("<eml_") and message["Message-ID"].endswith("@shop.example>")
    assert message["Auto-Submitted"] == "auto-generated"
    assert await shop.tasks() == 0
    await shop.app.wait(A_DAY_AND_MORE)
    assert len(shop.mail.messages) == 1


@pytest.mark.parametrize(
    ("email", "subjects"),
    [
        ("pending@example.com", ["has sent you"]),
        ("no_account@example.com", ["did not go through"]),
        ("returned@example.com", ["has sent you", "did not go through"]),
    ],
)
async def test_what_became_of_it_is_told(shop: MailShop, email: str, subjects: list[str]) -> None:
    await shop.pay(email)
    for _ in range(4):
        await shop.app.wait(900)
    assert len(shop.mail.messages) == len(subjects)
    for message, words in zip(shop.mail.messages, subjects, strict=True):
        assert words in message["Subject"] and message["To"] == email


async def test_a_server_that_is_away_is_asked_again_with_the_same_message(shop: MailShop) -> None:
    shop.mail.refusals = ["451 4.3.0 Later", "", "421 Busy"]
    await shop.pay()
    for _ in range(4):
        await shop.app.wait(7200)
    # The second was taken, and nobody heard of it: the third and fourth try say so by their Message-ID.
    assert len(shop.mail.messages) == 2
    assert len({message["Message-ID"] for message in shop.mail.messages}) == 1
    assert shop.mail.messages[0].as_bytes() == shop.mail.messages[1].as_bytes()
    assert await shop.tasks() == 0


async def test_it_is_given_up_in_the_end(shop: MailShop, caplog: pytest.LogCaptureFixture) -> None:
    shop.mail.refusals = ["451 Later"] * 100
    await shop.pay()
    for _ in range(TRIES_MAX + 4):
        await shop.app.wait(A_DAY_AND_MORE)
    assert len(shop.mail.refusals) == 100 - TRIES_MAX
    assert await shop.tasks() == 0 and shop.mail.messages == []
    assert "an e-mail was given up" in caplog.text
    assert "anna@example.com" not in caplog.text


async def test_a_mailbox_that_is_not_there_is_not_asked_again(shop: MailShop) -> None:
    shop.mail.refused_recipients = {"anna@example.com": "550 5.1.1 No such mailbox"}
    await shop.pay()
    await shop.app.wait(1)
    assert await shop.tasks() == 0
    shop.mail.refused_recipients = {}
    await shop.app.wait(A_DAY_AND_MORE)
    assert shop.mail.messages == []


async def test_a_deleted_customer_is_left_alone(shop: MailShop) -> None:
    shop.mail.refusals = ["451 Later"]
    await shop.pay()
    await shop.app.wait(1)
    customer = (await shop.app.ok(shop.merchant, "GET", "/v1/customers"))["data"][0]["id"]
    await shop.app.ok(shop.merchant, "DELETE", f"/v1/customers/{customer}")
    await shop.app.wait(A_DAY_AND_MORE)
    assert shop.mail.messages == [] and await shop.tasks() == 0


async def test_the_task_is_written_with_the_settlement_or_not_at_all(shop: MailShop) -> None:
    commits: list[set[str]] = []
    original = shop.app.store.commit

    async def watched(writes: Any) -> None:
        commits.append({write.key.partition("/")[2].partition("_")[0] for write in writes if write.body is not None})
        await original(writes)

    shop.app.store.commit = watched  # type: ignore[method-assign]
    await shop.pay()
    await shop.app.wait(1)
    born = next(kinds for kinds in commits if "eml" in kinds)
    assert {"po", "je", "aud", "eml"} <= born


async def test_without_a_mail_server_nobody_is_told(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    mail = MailServerHere()
    shop = MailShop(app, await app.merchant(), mail)
    await shop.pay()
    await app.wait(1)
    assert await shop.tasks() == 0
    assert (await app.ok(shop.merchant, "GET", "/v1/payouts"))["data"][0]["status"] == "paid"
    await app.close()
    mail.stop()


@pytest.mark.parametrize(
    "name",
    ['Say "Hi"', "Größe & Söhne", "a, b; <c@d.example>", "\\", "Shop\r\nBcc: x@y.example", "\x00\x7f", "🏪" * 300, ""],
)
def test_any_merchants_name_fits_into_a_message(name: str) -> None:
    task = EmailTask(id="eml_1", created=1_800_000_000, payout="po_1", about="paid", due_at_ms=0)
    sent = message_from_bytes(
        compose(task, PAYOUT, sender="pay@shop.example", merchant=name).as_bytes(), policy=default
    )
    assert sent["From"].addresses[0].addr_spec == "pay@shop.example" and len(sent["From"].addresses) == 1
    assert sent["To"] == "anna@example.com" and sent["Bcc"] is None and not sent.defects
    assert "12.50 USD" in sent["Subject"]
    assert all(len(line) < 998 for line in sent.as_bytes().splitlines())


def test_a_task_says_little() -> None:
    """Whom it is for, and what it says, is looked up when it is sent."""
    assert set(EmailTask.__struct_fields__) == {"id", "created", "payout", "session", "about", "due_at_ms", "tries"}
