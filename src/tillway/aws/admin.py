"""The function for operators, `tillway.aws.admin.handler`: it makes the keys inside AWS, so that no laptop has them."""

from typing import Any

import msgspec

from tillway.aws import boot
from tillway.aws.environment import settings_of
from tillway.domain.account import SYSTEM, Account
from tillway.engine.audit.entries import Author
from tillway.engine.time_mark import clock_above
from tillway.installation import (
    check_key_file,
    create_keys,
    inspect_store,
    migrate_store,
    open_keys,
    open_store,
)
from tillway.operations.accounts import first_use, found, is_founded, new_keys
from tillway.settings import Settings, SettingsInvalid
from tillway.store.port import Store, StoreUnfit, Unavailable
from tillway.store.walk import records_of
from tillway.vault.keyring import KeyFileUnfit
from tillway.vault.port import Keys

EVENTS = 'The event is {"action": …}, one of init, migrate, keys and doctor.'


class Invalid(Exception):
    """The event has no action that this function knows. The text names the field and the remedy."""


class Event(msgspec.Struct, forbid_unknown_fields=True):
    action: str
    name: str = ""
    account: str = ""


def handler(event: Any, context: Any = None) -> dict[str, Any]:
    """Do the action of an event. An answer with `error` says why it was not done, and has the remedy in `message`."""
    return boot.run(_answer(event, context))


async def _answer(event: Any, context: Any) -> dict[str, Any]:
    try:
        asked = msgspec.convert(event, Event)
        act = _ACTIONS.get(asked.action)
        if act is None:
            raise Invalid(f"action is {asked.action[:40]!r}. {EVENTS}")
        return await act(settings_of(), asked, _author(asked.action, context))
    except msgspec.ValidationError as wrong:
        return {"error": "invalid", "message": f"{wrong}. {EVENTS}"}
    except (Invalid, SettingsInvalid) as wrong:
        return {"error": "invalid", "message": str(wrong)}
    except (StoreUnfit, KeyFileUnfit) as unfit:
        return {"error": "unfit", "message": str(unfit)}
    except Unavailable as away:
        return {"error": "unavailable", "message": f"{away}. Try again."}


def _author(action: str, context: Any) -> Author:
    """The actor for the audit trail. CloudTrail has the principal that invoked, under the same request id."""
    return Author(f"lambda:{getattr(context, 'aws_request_id', 'local')}", f"admin {action}")


async def _init(settings: Settings, asked: Event, by: Author) -> dict[str, Any]:
    await migrate_store(settings)
    store = await open_store(settings)
    try:
        if await is_founded(store):
            return {
                "error": "exists",
                "message": "The stage has an installation. Its keys are not shown again; the action keys makes others.",
            }
        await check_key_file(settings, store, _keys_of_new(settings))
        return await found(store, name=asked.name, by=by)
    finally:
        await store.close()


def _keys_of_new(settings: Settings) -> Keys:
    """New keys, or those of an earlier `init` that was interrupted."""
    try:
        return create_keys(settings)
    except KeyFileUnfit:
        return open_keys(settings)


async def _migrate(settings: Settings, asked: Event, by: Author) -> dict[str, Any]:
    return {"schema": await migrate_store(settings)}


async def _keys(settings: Settings, asked: Event, by: Author) -> dict[str, Any]:
    store = await open_store(settings)
    try:
        account = await _account(store, asked.account)
        return first_use(account, await new_keys(store, await clock_above(store), account, by=by))
    finally:
        await store.close()


async def _account(store: Store, id: str) -> Account:
    accounts = [account async for account in records_of(store, SYSTEM, Account) if id in ("", account.id)]
    if not accounts:
        raise Invalid(f"There is no account {id[:60]!r}." if id else "There is no account. Use the action init first.")
    return min(accounts, key=lambda account: (account.created, account.id))


async def _doctor(settings: Settings, asked: Event, by: Author) -> dict[str, Any]:
    findings = [msgspec.structs.asdict(finding) for finding in await inspect_store(settings)]
    if all(finding["ok"] for finding in findings):
        findings.append(await _finding_of_keys(settings))
    return {"ok": all(finding["ok"] for finding in findings), "findings": findings}


async def _finding_of_keys(settings: Settings) -> dict[str, Any]:
    store = await open_store(settings)
    try:
        await check_key_file(settings, store, open_keys(settings))
    except KeyFileUnfit as unfit:
        return {"ok": False, "what": "the keys", "remedy": str(unfit)}
    finally:
        await store.close()
    return {"ok": True, "what": "the keys belong to this store", "remedy": ""}


_ACTIONS = {"init": _init, "migrate": _migrate, "keys": _keys, "doctor": _doctor}
