"""`/ops/v1/system`: the installation itself, its doctor and its backups, for the admins of the whole installation."""

from typing import Any

import msgspec

from tillway import __version__
from tillway.domain.account import SYSTEM
from tillway.domain.event import Delivery
from tillway.domain.operator import REASON_MAX
from tillway.domain.refusal import Refused
from tillway.engine.platform import BackupMade, CommandFailed, Commands
from tillway.http.params import Params, Text
from tillway.http.render import kept
from tillway.http.routes import Answer, Call, route
from tillway.store.codec import QUEUES, STORED_QUEUES, decode
from tillway.store.port import PAGE_MAX

REASON = Params(reason=Text(maximum=REASON_MAX))


@route("GET", "/ops/v1/system", returns="system", access="operator", whole=True)
async def system(call: Call) -> Answer:
    """Retrieve the version, the store, the last backup, and how many webhook deliveries wait.

    `outbox.waiting` counts up to 1000, and `outbox.oldest_seconds` is how long the oldest of them waits.
    """
    _refuse_others(call)
    commands, now_ms = call.platform.commands, call.platform.engine.clock.now_ms()
    waiting = [
        decode(task.key.partition("/")[2], task.body).created
        for queue in STORED_QUEUES[QUEUES[Delivery]]
        for task in await call.platform.store.peek(queue, now_ms=now_ms, limit=PAGE_MAX)
    ]
    last = commands.last_backup() if commands is not None else None
    return {
        "object": "system",
        "backup": _backup(last) if last is not None else None,
        "outbox": {
            "oldest_seconds": max(0, now_ms // 1000 - min(waiting)) if waiting else 0,
            "waiting": len(waiting),
        },
        "started_at": commands.started_at if commands is not None else None,
        "version": __version__,
        **(commands.facts() if commands is not None else {}),
    }


@route("POST", "/ops/v1/doctor", REASON, returns="doctor", access="operator", whole=True)
async def examine(call: Call) -> Answer:
    """Run `tillway doctor`, and return its findings: each is `ok`, `warn` or `fail`, with a remedy."""
    commands = _commands(call)
    await call.platform.engine.check_unanswered(call.caller)
    try:
        found = await commands.doctor()
    except CommandFailed as failed:
        found = {"ok": False, "findings": [_failed("doctor", failed)]}
    states = [one["state"] for one in found["findings"]]
    told = {"failed": states.count("fail"), "warned": states.count("warn")}
    await _note(call, {"doctor": told})
    return await kept(
        call.platform.engine,
        call.caller,
        {"object": "doctor", "findings": found["findings"], "ok": found["ok"], "ran_at": _now(call)},
    )


@route("POST", "/ops/v1/backups", REASON, returns="backup", access="operator", whole=True)
async def back_up(call: Call) -> Answer:
    """Run `tillway backup` into a new directory of `backup_directory`; `ok` is false, with `why`, if it fails."""
    commands = _commands(call)
    await call.platform.engine.check_unanswered(call.caller)
    try:
        made = await commands.back_up()
    except CommandFailed as failed:
        await _note(call, {"backup": {"failed": str(failed)}})
        return {"object": "backup", "bytes": None, "directory": None, "made_at": None, "ok": False, "why": str(failed)}
    await _note(call, {"backup": {"directory": made.directory, "bytes": made.bytes}})
    return await kept(call.platform.engine, call.caller, {**_backup(made), "ok": True, "why": None})


async def _note(call: Call, detail: dict[str, Any]) -> None:
    """Enter the command into the trail of the installation."""
    reason = call.params.get("reason") or call.caller.reason
    await call.platform.engine.note(msgspec.structs.replace(call.caller, scope_key=SYSTEM, reason=reason), detail)


def _backup(made: BackupMade) -> dict[str, Any]:
    return {"object": "backup", "bytes": made.bytes, "directory": made.directory, "made_at": made.made_at}


def _failed(check: str, failed: CommandFailed) -> dict[str, str]:
    return {"check": check, "state": "fail", "what": str(failed), "remedy": "Run it on the server's host."}


def _commands(call: Call) -> Commands:
    _refuse_others(call)
    if call.platform.commands is None:
        raise Refused("resource_missing", "This process runs no commands. Run `tillway` where the store is reached.")
    return call.platform.commands


def _refuse_others(call: Call) -> None:
    if not call.caller.whole_installation:
        raise Refused("operator_forbidden", "Only an admin of the whole installation may do this.")


def _now(call: Call) -> int:
    return call.platform.engine.clock.now_ms() // 1000
