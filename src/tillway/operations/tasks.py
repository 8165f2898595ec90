"""The worker of each type of task that is an operation or a message: the runner finds it by the task's record type.

An operation that no payment needs is imported for its first task: a function on AWS starts while a caller waits for it.
"""

from functools import partial

from tillway.domain.account_state import AccountTask
from tillway.domain.balance import AvailabilityTask
from tillway.domain.checkout import CheckoutExpiry
from tillway.domain.dispute import DisputeTask
from tillway.domain.event import Delivery, NoticeTask
from tillway.domain.mail import EmailTask
from tillway.domain.order import OrderTask
from tillway.domain.payment_intent import AuthorizationExpiry
from tillway.domain.payment_method import CardExpiry
from tillway.domain.record import Record
from tillway.domain.test_clock import TestClockTask
from tillway.engine import availability
from tillway.engine.attempts import Attempts
from tillway.engine.core import Engine
from tillway.engine.platform import Platform
from tillway.engine.runner import Work
from tillway.operations import payment_intents
from tillway.store.port import Row


def workers(platform: Platform, send_mail: Work) -> dict[type[Record], Work]:
    """Return the workers of a platform. Attempts and the audit trail are the engine's own, and the runner adds them."""
    attempts = platform.attempts
    return {
        AccountTask: partial(_tell_of_account, platform),
        AuthorizationExpiry: partial(payment_intents.release_expired, attempts),
        AvailabilityTask: partial(availability.tell, platform.engine),
        CardExpiry: partial(_expire_card, platform.engine),
        CheckoutExpiry: partial(_expire_checkout, platform.engine),
        Delivery: platform.webhooks.deliver,
        DisputeTask: partial(_carry_dispute, attempts),
        EmailTask: send_mail,
        NoticeTask: partial(_carry_notice, attempts),
        OrderTask: partial(_carry_order, platform),
        TestClockTask: partial(_advance_clock, platform),
    }


async def _tell_of_account(platform: Platform, row: Row) -> None:
    from tillway.operations import account_states

    await account_states.tell(platform, row)


async def _expire_card(engine: Engine, row: Row) -> None:
    from tillway.operations import customers

    await customers.carry_expiry(engine, row)


async def _expire_checkout(engine: Engine, row: Row) -> None:
    from tillway.operations import checkout

    await checkout.carry_expiry(engine, row)


async def _carry_dispute(attempts: Attempts, row: Row) -> None:
    from tillway.operations import disputes

    await disputes.carry(attempts, row)


async def _carry_notice(attempts: Attempts, row: Row) -> None:
    from tillway.operations import notices

    await notices.carry(attempts, row)


async def _carry_order(platform: Platform, row: Row) -> None:
    from tillway.operations import orders

    await orders.carry(platform, row)


async def _advance_clock(platform: Platform, row: Row) -> None:
    from tillway.operations import test_clocks

    await test_clocks.carry(platform, row)
