"""Operators: make them, replace their keys, disable them."""

import msgspec

from tillway.domain.api_key import hint_of
from tillway.domain.operator import Operator, OperatorKey, Role, operator_key_id
from tillway.engine.ids import random_text
from tillway.operations.accounts import MODES, SECRET_LENGTH


class NewOperatorKey(msgspec.Struct, frozen=True):
    """An operator's key with its `secret`, which is shown once and stored nowhere."""

    record: OperatorKey
    secret: str


def new_operator(name: str, role: Role, accounts: tuple[str, ...] | None, *, created: int, email: str = "") -> Operator:
    return Operator(id=f"opr_{random_text(16)}", created=created, name=name, role=role, accounts=accounts, email=email)


def new_operator_keys(operator: str, *, created: int) -> list[NewOperatorKey]:
    """Make a test key and a live key for the operator with that id, in this order."""
    made = []
    for mode in MODES:
        secret = f"ok_{mode}_{random_text(SECRET_LENGTH)}"
        record = OperatorKey(
            id=operator_key_id(secret),
            created=created,
            operator=operator,
            mode=mode,
            hint=hint_of(secret),
        )
        made.append(NewOperatorKey(record, secret))
    return made
