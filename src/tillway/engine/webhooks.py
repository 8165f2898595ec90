"""Webhook delivery: an event's task, one signed POST, and the next try."""

from tillway.engine.core import Engine, Render
from tillway.store.port import Row


class Webhooks:
    def __init__(self, engine: Engine, render: Render) -> None:
        self.engine = engine
        self.render = render

    async def deliver(self, row: Row) -> None:
        """To be written."""
        raise NotImplementedError

    async def close(self) -> None:
        pass
