"""The worker of each type of task that is an operation or a message: the runner finds it by the task's record type."""

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
from tillway.engine.mail import Mail
from tillway.engine.platform import Platform
from tillway.engine.runner import Work
from tillway.operations import (
    checkout,
    customers,
    disputes,
    notices,
    orders,
    payment_intents,
    test_clocks,
)
from tillway.store.port import Row


def workers(platform: Platform, mail: Mail) -> dict[type[Record], Work]:
    """Return the workers of a platform. Attempts and the audit trail are the engine's own, and the runner adds them."""
    attempts = platform.attempts
    return {
        AccountTask: partial(_tell_of_account, platform),
        AuthorizationExpiry: partial(payment_intents.release_expired, attempts),
        AvailabilityTask: partial(availability.tell, platform.engine),
        CardExpiry: partial(customers.carry_expiry, platform.engine),
        CheckoutExpiry: partial(checkout.carry_expiry, platform.engine),
        Delivery: platform.webhooks.deliver,
        DisputeTask: partial(disputes.carry, attempts),
        EmailTask: mail.send,
        NoticeTask: partial(notices.carry, attempts),
        OrderTask: partial(orders.carry, platform),
        TestClockTask: partial(test_clocks.carry, platform),
    }


async def _tell_of_account(platform: Platform, row: Row) -> None:
    # Nothing else in a function on AWS needs the files behind it, and no payment waits for them.
    from tillway.operations import account_states

    await account_states.tell(platform, row)
