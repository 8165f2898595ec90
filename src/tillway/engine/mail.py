"""E-mail to customers, from task rows: a task writes the message when it is due, and sends it to a mail server until
that accepts it."""

import logging
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Protocol, assert_never

from tillway.domain.account import SYSTEM, Account, scope_of
from tillway.domain.checkout import CheckoutSession
from tillway.domain.customer import Customer
from tillway.domain.languages import TEXTS, moment, money
from tillway.domain.mail import Delayed, EmailTask, Handed, Posted, Rejected, count_try
from tillway.domain.money import spell
from tillway.domain.payout import Payout
from tillway.domain.record import NO_CHANGES, Changes, Moment
from tillway.engine.caller import Caller
from tillway.engine.core import Engine, Load
from tillway.engine.time_zones import zone_of
from tillway.store.port import Row

if TYPE_CHECKING:
    from email.message import EmailMessage

log = logging.getLogger(__name__)


class Mailer(Protocol):
    async def send(self, message: "EmailMessage") -> Posted:
        """Send one message to the mail server, within its own time limit. Never raises for a fault of that server."""


class Mail:
    """`mailer` is None if no mail server is configured any more: earlier tasks then wait, and are given up."""

    def __init__(self, engine: Engine, mailer: Mailer | None, sender: str) -> None:
        self.engine = engine
        self.mailer = mailer
        self.sender = sender

    async def send(self, row: Row) -> None:
        """Carry out one claimed task: one commit that uses up a try, at most one message, and one more commit."""
        scope_key, _, id = row.key.partition("/")
        caller = Caller.system(scope_of(scope_key), "send an e-mail")
        message: EmailMessage | None = None

        async def begin(load: Load, at: Moment) -> Changes[None]:
            nonlocal message
            message = None
            task = await load.maybe(EmailTask, id)
            if task is None:
                return NO_CHANGES
            moved = count_try(task, at)
            if moved is None:
                log.error(
                    "an e-mail was given up: no mail server took it",
                    extra={"task": id, "about": task.payout or task.session},
                )
                return Changes(result=None, deletes=(id,))
            message = await self._message(load, task)
            return Changes(result=None, tasks=(moved,)) if message is not None else Changes(result=None, deletes=(id,))

        await self.engine.run(caller, begin)
        if message is None:
            return
        posted: Posted = Delayed("no mail server is configured") if self.mailer is None else await self._hand(message)
        match posted:
            case Handed():
                pass
            case Rejected(reason=reason):
                log.warning("a mail server refused an e-mail for good", extra={"task": id, "why": reason})
            case Delayed(reason=reason):
                log.warning("an e-mail waits for its next try", extra={"task": id, "why": reason})
                return
            case _:
                assert_never(posted)

        async def forget(load: Load, at: Moment) -> Changes[None]:
            return Changes(result=None, deletes=(id,))

        await self.engine.run(caller, forget)

    async def _hand(self, message: "EmailMessage") -> Posted:
        assert self.mailer is not None
        return await self.mailer.send(message)

    async def _message(self, load: Load, task: EmailTask) -> "EmailMessage | None":
        """The message, or None if it has no recipient any more."""
        scope = scope_of(load.scope_key)
        account = await self.engine.load(SYSTEM).maybe(Account, scope.account)
        merchant = account.name if account is not None else ""
        if task.session:
            session = await load.maybe(CheckoutSession, task.session)
            if session is None or session.email is None:
                return None
            return compose_receipt(task, session, sender=self.sender, merchant=merchant, zone=zone_of(account))
        payout = await load.maybe(Payout, task.payout)
        customer = await load.maybe(Customer, payout.customer) if payout is not None else None
        if payout is None or payout.recipient.email is None or customer is None or customer.deleted:
            return None
        return compose(task, payout, sender=self.sender, merchant=merchant)


def compose(task: EmailTask, payout: Payout, *, sender: str, merchant: str) -> "EmailMessage":
    """The message about `payout`. A repeat is the same to the byte, with the same Message-ID."""
    name = _on_one_line(merchant)
    amount = spell(payout.amount_minor, payout.currency)
    who = name or "The merchant"
    message = _message_to(payout.recipient.email or "", task, sender, name)
    if task.about == "paid":
        message["Subject"] = f"{who} has sent you {amount}"
        text = f"{who} has sent you {amount}, to this e-mail address."
    else:
        message["Subject"] = f"A payment of {amount} to you did not go through"
        text = (
            f"{who} wanted to send you {amount}, to this e-mail address, and it did not go through or came back. "
            "Nothing is asked of you; the merchant knows."
        )
    number = payout.payment_id or payout.id
    message.set_content(f"{text}\n\nPayment: {number}\n", cte="quoted-printable")
    return message


def compose_receipt(
    task: EmailTask, session: CheckoutSession, *, sender: str, merchant: str, zone: tzinfo
) -> "EmailMessage":
    """The receipt of a paid session, in the language of its page and the time zone of the merchant. A repeat is the
    same to the byte."""
    name, language = _on_one_line(merchant) or "Tillway", session.spoken
    words = TEXTS[language]
    sum_of = money(session.amount_minor, session.currency, language)
    message = _message_to(session.email or "", task, sender, name)
    message["Subject"] = words["receipt"].format(shop=name)
    paid_at = moment(task.created, language, zone)
    lines = [words["receipt_is"].format(money=sum_of, shop=name, moment=paid_at), ""]
    lines += [
        f"{line.quantity} x {_on_one_line(line.description)}: {money(line.amount_minor, session.currency, language)}"
        for line in session.lines
    ]
    lines += [f"{words['together']}: {sum_of}", ""]
    if session.client_reference_id is not None:
        lines.append(f"{words['order']}: {_on_one_line(session.client_reference_id)}")
    lines.append(f"{words['reference']}: {session.payment}")
    message.set_content("\n".join(lines) + "\n", cte="quoted-printable")
    return message


def _message_to(recipient: str, task: EmailTask, sender: str, name: str) -> "EmailMessage":
    """A message without subject and text, under headers that say that a program wrote it."""
    # A process that writes no message does not import them.
    from email.headerregistry import Address
    from email.message import EmailMessage
    from email.policy import SMTP
    from email.utils import format_datetime

    local, _, domain = sender.rpartition("@")
    message = EmailMessage(policy=SMTP)
    message["From"] = Address(name, local, domain)
    message["To"] = recipient
    message["Date"] = format_datetime(datetime.fromtimestamp(task.created, UTC))
    message["Message-ID"] = f"<{task.id}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Auto-Response-Suppress"] = "All"
    return message


def _on_one_line(text: str) -> str:
    return "".join(filter(str.isprintable, " ".join(text.split())))[:100]
