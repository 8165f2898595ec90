"""The far sides that the connector contract runs against: the bank in this process, and the bank behind HTTP."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from tillway.connectors.http_bank import HttpBank
from tillway.connectors.port import ActionRequired, Connector, Notice, Notices, Outcome, Pending, Succeeded, Transport
from tillway.connectors.transport import SocketTransport
from tillway.crash.free_port import free_port
from tillway.sandbox import bank_server
from tillway.sandbox.bank_server import BankServer
from tillway.sandbox.faults import Faults
from tillway.sandbox.simulator import Simulator
from tillway.testing.connector_contract import RETURN_URL

SECRET = "notices-are-signed"


def accepted(totals: Mapping[str, Mapping[str, Mapping[str, int]]]) -> int:
    kinds = ("authorization", "capture", "void", "increment", "refund", "payout")
    return sum(row["count"] for rows in totals.values() for kind, row in rows.items() if kind in kinds)


class InProcess:
    def __init__(self, simulator: Simulator | None = None) -> None:
        simulator = simulator or Simulator()
        self.bank, self.faults = simulator.bank, simulator.faults
        self.connector: Connector = simulator
        self.transport: Transport = simulator.transport()

    async def strike(self, *rules: Mapping[str, Any]) -> None:
        self.faults.replace({"rules": rules})

    async def performed(self) -> int:
        return accepted(self.bank.totals())

    def nowhere(self) -> Transport:
        refusing = Faults({"rules": [{"fault": "refuse"}, {"fault": "refuse", "operation": "look_up"}]})
        return Simulator(bank=self.bank, faults=refusing).transport()

    async def notices(self, outcome: Outcome, count: int) -> list[tuple[Mapping[str, str], bytes]]:
        assert isinstance(outcome, Succeeded | Pending)
        return [({}, msgspec.json.encode(body)) for _, body in outcome.notices[:count]]


class BehindHttp:
    def __init__(self, server: BankServer, connector: HttpBank, mail: "asyncio.Queue[Any]") -> None:
        self.server = server
        self.connector: Connector = connector
        self.transport: Transport = connector.transport()
        self._mail = mail

    async def strike(self, *rules: Mapping[str, Any]) -> None:
        self.server.faults.replace({"rules": rules})

    async def performed(self) -> int:
        return accepted(self.server.bank.totals())

    async def customer(self, waiting: ActionRequired, *, passed: bool) -> str | None:
        assert await decide_at(waiting.redirect_url, "pass" if passed else "fail") == RETURN_URL
        return None

    def nowhere(self) -> Transport:
        return SocketTransport(f"http://127.0.0.1:{free_port()}", timeout_seconds=1)

    async def notices(self, outcome: Outcome, count: int) -> list[tuple[Mapping[str, str], bytes]]:
        return [await asyncio.wait_for(self._mail.get(), 5) for _ in range(count)]


async def decide_at(page: str, outcome: str) -> str:
    """Press a button of the bank's page of 3-D Secure; the address that the customer is sent back to."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(page) as shown,
        session.post(page, data={"outcome": outcome}, allow_redirects=False) as decided,
    ):
        assert (shown.status, decided.status) == (200, 303)
        return decided.headers["location"]


def read_at_once(conversation: Notices) -> list[Notice]:
    """The notices of a conversation that asks the provider nothing."""
    try:
        request = next(conversation)
    except StopIteration as end:
        return list(end.value)
    raise AssertionError(f"the connector asks {request!r} about a notice")


@contextlib.asynccontextmanager
async def mailbox() -> AsyncIterator[tuple[str, "asyncio.Queue[Any]"]]:
    """A URL, and the notices that came to it as (headers, body)."""
    mail: asyncio.Queue[Any] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        await mail.put(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/notices", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/notices", mail
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def behind_http(journal: Path, kind: type[HttpBank] = HttpBank) -> AsyncIterator[BehindHttp]:
    async with mailbox() as (notice_url, mail):
        server = await bank_server.start(0, journal, notice_url=notice_url, notice_secret=SECRET)
        connector = kind.from_settings(
            {
                "base_url": f"http://127.0.0.1:{server.port}",
                "notice_secret": SECRET,
                "timeout_seconds": "0.4",
                "debits": "us_bank_account, sepa_debit",
                "list": "yes",
                "redirects": "yes",
                "increments": "yes",
                "multicapture": "yes",
                "verifications": "yes",
            }
        )
        far = BehindHttp(server, connector, mail)
        try:
            yield far
        finally:
            await far.transport.close()
            await server.stop()
