"""Recovery that sends under a reference of its own, instead of asking about the old one."""

from contextvars import ContextVar
from typing import Any

from tillway.engine import attempts
from tillway.engine.ids import random_text

recovering: ContextVar[bool] = ContextVar("recovering", default=False)
carry, reference_of = attempts.Attempts.carry, attempts.reference_of


async def carry_anew(self: Any, *arguments: Any, ask: bool = False, **named: Any) -> Any:
    recovering.set(ask)
    return await carry(self, *arguments, ask=ask, **named)


def reference(scope_key: str, attempt: Any) -> str:
    return scope_key + random_text(17) if recovering.get() else reference_of(scope_key, attempt)


attempts.Attempts.carry = carry_anew  # type: ignore[method-assign]
attempts.reference_of = reference
