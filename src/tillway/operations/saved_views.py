"""Save and delete views of lists."""

from typing import Literal
from urllib.parse import parse_qsl

from tillway.domain import saved_view
from tillway.domain.record import Changes, Moment
from tillway.domain.saved_view import VIEWS_MAX, SavedView
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform


async def save(platform: Platform, caller: Caller, name: str, page: Literal["payments"], query: str) -> Done[SavedView]:
    """Save a view for everyone at the merchant, as `domain/saved_view.py` says."""

    try:
        fields = parse_qsl(query, strict_parsing=True, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        fields = []
    filters = [name for name, _ in fields]

    async def work(load: Load, at: Moment) -> Changes[SavedView]:
        rows = await platform.store.query(None, f"{caller.scope_key}/view_", limit=VIEWS_MAX)
        return saved_view.save(name, page, query, filters, others=len(rows), by=caller.actor, at=at)

    return await platform.engine.run(caller, work)


async def delete(platform: Platform, caller: Caller, id: str) -> None:
    """Delete a view. Refused `resource_missing` if there is none."""

    async def work(load: Load, at: Moment) -> Changes[SavedView]:
        view = await load.get(SavedView, id)
        return Changes(result=view, deletes=(view.id,))

    await platform.engine.run(caller, work)
