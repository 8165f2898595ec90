"""Add and change connectors, ask them, drain them, and hold their breakers open.

Through the API, secrets are given in the clear and sealed before they are stored. A place of a secret on this host
(`file:`, `env:`) and kinds that exchange files are for the command alone: who may use the dashboard need not read or
write the server's files.
"""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from tillway.connectors import registry
from tillway.connectors.port import Capabilities, NeverSeen, NotSent, Unknown
from tillway.connectors.settings import Setting, SettingInvalid, SettingMissing
from tillway.domain.account import SYSTEM, Mode
from tillway.domain.connector_config import (
    NAME,
    NAME_RULE,
    ConnectorConfig,
    DefaultGuard,
    guard_id,
    may_be_added,
    move_guard,
    successor,
)
from tillway.domain.record import Changes, Moment
from tillway.domain.refusal import Refused
from tillway.engine.attempts import ask_nothing
from tillway.engine.caller import Caller
from tillway.engine.connections import SIMULATOR, as_default, open_settings, seal_settings
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.store.walk import records_of
from tillway.vault.port import VaultTampered

CapabilitiesOf = Callable[[str, Mapping[str, str]], Awaitable[Capabilities]]


async def check_fit(config: ConnectorConfig, capabilities_of: CapabilitiesOf) -> Capabilities:
    """Return the capabilities of a connector whose settings are in the clear. Raises `SettingInvalid` if it cannot be
    set up, or does not serve its mode."""
    if (config.name == SIMULATOR) != (config.kind == SIMULATOR):
        raise SettingInvalid("name", f"{SIMULATOR!r} is reserved for the simulator")
    its = await capabilities_of(config.kind, config.settings)
    if config.mode == "live":
        registry.refuse_unencrypted(config.kind, config.settings)
        if not its.livemode:
            raise SettingInvalid("kind", f"{config.kind} serves test mode only")
    return its


def kinds_for_api() -> dict[str, list[dict[str, Any]]]:
    """The kinds that the API may set up, with the settings of each."""
    return {
        kind: [
            {
                "name": row.name,
                "default": None if row.default is None or row.secret else _text(row.default),
                "description": row.description,
                "required": row.required,
                "secret": row.secret,
            }
            for row in registry.kind(kind).describe()
        ]
        for kind in registry.kinds()
        if not registry.uses_files(kind)
    }


def _text(default: Any) -> str:
    """A default as an operator would write it."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    return ",".join(sorted(default)) if isinstance(default, frozenset) else str(default)


async def add(
    platform: Platform, caller: Caller, name: str, kind: str, settings: Mapping[str, str | None], *, default: bool
) -> Done[ConnectorConfig]:
    """Add a connector to the caller's mode; with `default`, payments without a rule go through it.

    Refused `parameter_invalid_string` with the wrong setting, and `operator_forbidden` to operators of single
    merchants, since the connector is everyone's.
    """
    refuse_others(caller)
    mode = caller.scope.mode
    if not may_be_added(name):
        raise Refused("parameter_invalid_string", f"This cannot name a connector: {NAME_RULE}.", param="name")
    secrets = _rows_for_api(kind)

    async def work(load: Load, at: Moment) -> Changes[ConnectorConfig]:
        if await load.maybe(ConnectorConfig, _id(mode, name)) is not None:
            message = f"{mode.capitalize()} mode has a connector {name!r} already. Use another name."
            raise Refused("parameter_invalid_string", message, param="name")
        given = {key: value for key, value in settings.items() if value is not None}
        _refuse_places(secrets, given)
        wanted = ConnectorConfig(
            id=_id(mode, name), created=0, name=name, kind=kind, mode=mode, settings=given, default=default
        )
        return await _put(platform, load, at, wanted, None)

    return await _commit(platform, caller, work)


async def change(
    platform: Platform, caller: Caller, name: str, settings: Mapping[str, str | None], *, default: bool | None
) -> Done[ConnectorConfig]:
    """Change settings of a connector; those that are not given stay, and None takes one away.

    A secret goes to another address only if it is given again: else `parameter_missing`. A default stays one until
    another connector takes its place: else `parameter_invalid_boolean`. Refused further as `add`.
    """
    _refuse_others_for(caller, name)
    mode = caller.scope.mode

    async def work(load: Load, at: Moment) -> Changes[ConnectorConfig]:
        before = await _find(load, mode, name)
        if default is False and before.default:
            message = f"{name!r} is the default until another connector is: send default=true for that one."
            raise Refused("parameter_invalid_boolean", message, param="default")
        rows = _rows_for_api(before.kind)
        kept = _opened(platform, before)
        given = {key: value for key, value in settings.items() if value is not None}
        _refuse_places(rows, given)
        merged = {key: value for key, value in (kept | given).items() if settings.get(key, "") is not None}
        _refuse_moved_secrets(before.kind, rows, kept, merged, given)
        wanted = msgspec.structs.replace(before, settings=merged, default=default or before.default)
        return await _put(platform, load, at, wanted, before)

    return await _commit(platform, caller, work)


async def settings_of(platform: Platform, caller: Caller, name: str) -> tuple[ConnectorConfig, list[dict[str, Any]]]:
    """A connector with its settings: the values of those that are no secrets, and whether a secret is set."""
    _refuse_others_for(caller, name)
    config = await _find(platform.engine.load(SYSTEM), caller.scope.mode, name)
    opened = _opened(platform, config)
    rows = registry.kind(config.kind).describe()
    shown = [
        {
            "name": row.name,
            "secret": row.secret,
            "set": row.name in opened,
            "value": None if row.secret else opened.get(row.name),
        }
        for row in rows
    ]
    return config, shown


async def test(platform: Platform, caller: Caller, name: str) -> dict[str, Any]:
    """Ask the provider about an operation that does not exist: whether it answers, and within how many milliseconds.
    No money moves. `answers` is None for a kind that takes no questions."""
    _refuse_others_for(caller, name)
    await _find(platform.engine.load(SYSTEM), caller.scope.mode, name)
    connection = await platform.connections.named(name, caller.scope)
    if connection is None:
        raise Refused("connector_unavailable", f"The connector {name!r} cannot be set up; the server's log says why.")
    began = time.perf_counter()
    answer = await ask_nothing(connection)
    if answer is None:
        return {"name": name, "answers": None, "milliseconds": None, "why": "It takes no questions."}
    why = answer.reason if isinstance(answer, NotSent | Unknown) else ""
    if not why and not isinstance(answer, NeverSeen):
        why = "It knows an operation that was never sent."
    took = round((time.perf_counter() - began) * 1000)
    return {"name": name, "answers": not why, "milliseconds": took, "why": why or None}


async def drain(platform: Platform, caller: Caller, name: str, *, drained: bool) -> Done[ConnectorConfig]:
    """Send no new payments through a connector of the caller's mode, or end that. Captures, refunds and payouts go on.

    A server notices within two seconds. Refused as `add`.
    """
    return await _alter(platform, caller, name, lambda config: msgspec.structs.replace(config, drained=drained))


async def hold_breaker(platform: Platform, caller: Caller, name: str, *, held_open: bool) -> Done[ConnectorConfig]:
    """Hold a connector's breaker open, so that others go first, or close it: also one that opened by itself, in this
    process. Refused as `add`."""
    done = await _alter(platform, caller, name, lambda config: msgspec.structs.replace(config, held_open=held_open))
    if not held_open:
        platform.connections.health_of(caller.scope.mode, name).close_now()
    return done


def refuse_others(caller: Caller) -> None:
    """Raise Refused `operator_forbidden` for operators of single merchants."""
    if not caller.whole_installation:
        raise Refused("operator_forbidden", "Only an operator of the whole installation may do this.")


def _refuse_others_for(caller: Caller, name: str) -> None:
    """The same for a call about a connector; a text that names none is `resource_missing` to everybody."""
    if not NAME.fullmatch(name):
        raise _missing(caller.scope.mode, name)
    refuse_others(caller)


def _missing(mode: Mode, name: str) -> Refused:
    return Refused("resource_missing", f"There is no connector {name[:100]!r} in {mode} mode.")


def _id(mode: Mode, name: str) -> str:
    return f"con_{mode}_{name}"


async def _find(load: Load, mode: Mode, name: str) -> ConnectorConfig:
    config = await load.maybe(ConnectorConfig, _id(mode, name))
    if config is None:
        raise _missing(mode, name)
    return config


async def _alter(
    platform: Platform, caller: Caller, name: str, decide: Callable[[ConnectorConfig], ConnectorConfig]
) -> Done[ConnectorConfig]:
    _refuse_others_for(caller, name)
    mode = caller.scope.mode

    async def work(load: Load, at: Moment) -> Changes[ConnectorConfig]:
        before = await _find(load, mode, name)
        after = decide(before)
        return Changes(result=after, records=() if after == before else (after,))

    return await _commit(platform, caller, work)


async def _commit(
    platform: Platform, caller: Caller, work: Callable[[Load, Moment], Awaitable[Changes[ConnectorConfig]]]
) -> Done[ConnectorConfig]:
    # The connector is a record of the installation, and so is its entry in the audit trail.
    done = await platform.engine.run(msgspec.structs.replace(caller, scope_key=SYSTEM, idempotency=None), work)
    platform.connections.forget()
    return done


async def _put(
    platform: Platform, load: Load, at: Moment, wanted: ConnectorConfig, before: ConnectorConfig | None
) -> Changes[ConnectorConfig]:
    """Seal and write a configuration, and take the default away from the mode's other connectors if it has it now."""
    try:
        await check_fit(wanted, platform.connections.capabilities_of)
    except SettingMissing as missing:
        message = f"Give the setting {missing.name}: {missing.description}."
        raise Refused("parameter_missing", message, param=_param(missing.name)) from None
    except SettingInvalid as invalid:
        raise Refused("parameter_invalid_string", _sentence(invalid), param=_param(invalid.name)) from None
    after = successor(seal_settings(platform.cards.vault, wanted), before, at.created)
    if not after.default or (before is not None and before.default):
        return Changes(result=after, records=(after,))
    guard = move_guard(await load.maybe(DefaultGuard, guard_id(after.mode)), after.mode, at.created)
    ids = [one.id async for one in records_of(platform.store, SYSTEM, ConnectorConfig) if _is_other(one, after)]
    found = [await load.maybe(ConnectorConfig, id) for id in ids]
    others = [as_default(one, False) for one in found if one is not None and one.default]
    return Changes(result=after, records=(after, *others, guard))


def _is_other(one: ConnectorConfig, config: ConnectorConfig) -> bool:
    return one.default and one.mode == config.mode and one.id != config.id


def _rows_for_api(kind: str) -> tuple[Setting, ...]:
    """The settings of a kind that the API may set up. Refused for one that exchanges files, or that is not there."""
    try:
        rows = registry.kind(kind).describe()
    except SettingInvalid as invalid:
        raise Refused("parameter_invalid_string", _sentence(invalid), param="kind") from None
    if registry.uses_files(kind):
        raise Refused(
            "parameter_invalid_string",
            f"{kind} reads and writes files of the server: add it there with `tillway connectors add`.",
            param="kind",
        )
    return rows


def _refuse_places(rows: tuple[Setting, ...], given: Mapping[str, str]) -> None:
    """Refuse a secret that is named by its place on the server: it would go to an address of the caller's choice."""
    for row in rows:
        if row.secret and given.get(row.name, "").startswith(("file:", "env:")):
            raise Refused(
                "parameter_invalid_string",
                "Give the secret itself; its place on the server is for `tillway connectors add`.",
                param=f"settings[{row.name}]",
            )


def _refuse_moved_secrets(
    kind: str, rows: tuple[Setting, ...], kept: Mapping[str, str], merged: Mapping[str, str], given: Mapping[str, str]
) -> None:
    urls_before, urls = dict(registry.urls_in(kind, kept)), dict(registry.urls_in(kind, merged))
    if urls == urls_before:
        return
    for row in rows:
        if row.secret and row.name in merged and row.name not in given:
            raise Refused(
                "parameter_missing",
                "Give this secret again: it was meant for the other address.",
                param=f"settings[{row.name}]",
            )


def _opened(platform: Platform, config: ConnectorConfig) -> dict[str, str]:
    try:
        return open_settings(platform.cards.vault, config)
    except VaultTampered:
        raise Refused(
            "connector_unavailable", "The keys of this host do not open its settings; `tillway doctor` says more."
        ) from None


def _param(name: str) -> str:
    return name if name in ("name", "kind") else f"settings[{name[:100]}]"


def _sentence(invalid: SettingInvalid) -> str:
    text = invalid.problem.rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."
