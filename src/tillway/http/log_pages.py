"""Pages of the logs that are written in batches (`engine/batched_log.py`): requests, webhook deliveries."""

from collections.abc import Awaitable, Callable
from typing import Any

from tillway.domain.refusal import Refused
from tillway.engine.batched_log import Batch, Place, Written, WrittenLog, began_at, find_line, lines_within
from tillway.http.params import LIMIT_DEFAULT, Span
from tillway.http.routes import Call, Page

REMEDY = "Bound `created`, or ask for fewer with `limit`."


async def log_page(
    call: Call,
    log: WrittenLog[Batch, Written],
    noun: str,
    keep: Callable[[Written], bool],
    render: Callable[[Written], dict[str, Any]],
    url: str,
    look: Callable[[list[Written]], Awaitable[list[Written]]] | None = None,
) -> Page:
    """List the lines that `keep` accepts, newest first, by the parameters of `list_params` with `created`.

    `look` returns those of the lines kept that a search is for. It may take a while and leaves the loop to others.
    """
    params = call.params
    limit = params.get("limit", LIMIT_DEFAULT)
    forwards = params.get("ending_before")
    cursor = params.get("starting_after") or forwards
    place = (
        await place_of(call, log, noun, cursor, "ending_before" if forwards else "starting_after") if cursor else None
    )
    found: list[Written] = []
    span = params.get("created") or Span()
    async with call.platform.scans.begin(call.caller.scope_key, REMEDY) as scan:
        async for some in lines_within(
            call.platform.store,
            call.caller.scope_key,
            log,
            place,
            first=span.first,
            last=span.last,
            now=call.platform.engine.clock.now_ms() // 1000,
            is_newest_first=not forwards,
        ):
            async with scan.turn(len(some)):
                kept = [line for line in some if began_at(line.id) in span and keep(line)]
                found += kept if look is None else await look(kept)
            if len(found) > limit:
                break
            await scan.go_on()
    shown = found[:limit]
    if forwards:
        shown.reverse()
    return Page([render(line) for line in shown], len(found) > limit, url)


async def place_of(
    call: Call, log: WrittenLog[Batch, Written], noun: str, id: str, param: str
) -> Place[Batch, Written]:
    """The place of the line with that id. Refused `resource_missing` if the caller's log does not have it."""
    now = call.platform.engine.clock.now_ms() // 1000
    place = await find_line(call.platform.store, call.caller.scope_key, log, id, now=now)
    if place is None:
        raise Refused("resource_missing", f"No such {noun}: '{id[:100]}'", param=param)
    return place
