"""Places outside the database that keep the heads of the audit trail: a file, or an address over HTTPS."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tillway.connectors.port import Request, Transport, TransportError


class FilePlace:
    """A file of lines, one head as JSON in each. It is only appended to, so it may lie on a medium that allows no
    more."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def send(self, heads: Sequence[dict[str, Any]]) -> None:
        await asyncio.to_thread(self._append, b"".join(msgspec.json.encode(head) + b"\n" for head in heads))

    def _append(self, lines: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        with os.fdopen(descriptor, "wb") as file:
            file.write(lines)
            file.flush()
            os.fsync(descriptor)

    async def close(self) -> None:
        """Nothing is open between two calls."""


class UrlPlace:
    """An address that takes `{"heads": […]}` by POST and answers 2xx once it has kept them. The same heads may come
    twice."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def send(self, heads: Sequence[dict[str, Any]]) -> None:
        answer = await self._transport.send(Request("POST", "", {"heads": list(heads)}, moves_money=False))
        if not 200 <= answer.status < 300:
            raise TransportError(f"it answered {answer.status}", spoken=True)

    async def close(self) -> None:
        await self._transport.close()
