"""Configured connectors: the providers of an installation, with their settings."""

import re
from typing import Final

import msgspec

from tillway.domain.account import Mode
from tillway.domain.late_pattern import late_pattern
from tillway.domain.ledger import Fee
from tillway.domain.record import Record

NAME: Final = late_pattern(r"[a-z][a-z0-9_-]{0,30}", re.ASCII)
NAME_RULE: Final = "use a small letter, then at most 30 of a-z, 0-9, - and _; not `new`"


def may_be_added(name: str) -> bool:
    """Whether a connector may be added under that name. The dashboard's form for one more lies at `new`; a connector
    that an earlier version added under it stays."""
    return NAME.fullmatch(name) is not None and name != "new"


class ConnectorConfig(Record, frozen=True, kw_only=True):
    """A configured connector: `id` is `con_<mode>_<name>`.

    The vault seals the value of each of the `settings`; those stored by an earlier version may be in the clear. They
    are never shown. `fee` is the price of payments through it; None: that of the installation. A `drained` connector
    takes no new payments; captures, refunds and payouts go on. `held_open`: an operator holds its breaker open, so that
    other connectors go first.
    """

    name: str
    kind: str
    mode: Mode
    settings: dict[str, str] = {}
    default: bool = False
    drained: bool = False
    held_open: bool = False
    fee: Fee | None = None


class DefaultGuard(Record, frozen=True, kw_only=True):
    """Moves with every commit that makes a connector the default of its mode (`dcg_<mode>`): of two at one moment, one
    conflicts and reads the other's."""

    moves: int = 0


def guard_id(mode: Mode) -> str:
    return f"dcg_{mode}"


def move_guard(guard: DefaultGuard | None, mode: Mode, created: int) -> DefaultGuard:
    """The guard of that mode, with a new version."""
    before = guard or DefaultGuard(id=guard_id(mode), created=created)
    return msgspec.structs.replace(before, moves=before.moves + 1)


def setting_owner(id: str, name: str) -> str:
    """The owner of a sealed setting: moved to another connector or another name, it does not open."""
    return f"{id}/{name}"


def successor(new: ConnectorConfig, before: ConnectorConfig | None, created: int) -> ConnectorConfig:
    """The new configuration, with what stays of the one that it replaces."""
    if before is None:
        return msgspec.structs.replace(new, created=created)
    return msgspec.structs.replace(
        new,
        created=before.created,
        default=new.default or before.default,
        drained=before.drained,
        held_open=before.held_open,
    )
