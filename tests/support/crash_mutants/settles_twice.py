"""An engine that takes a repeated notice for news."""

from typing import Any

import msgspec

from tillway.domain import payment_intent

settle = payment_intent.settle


def settle_again(payment: Any, attempt: Any, *arguments: Any, **named: Any) -> Any:
    return settle(msgspec.structs.replace(payment, attempt=attempt.id), attempt, *arguments, **named)


payment_intent.settle = settle_again
