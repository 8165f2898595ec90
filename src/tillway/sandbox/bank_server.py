"""The simulated bank as a separate program: the wire contract over HTTP, with a journal that outlives kill -9.

The journal is the witness of the crash harness. It has one JSON line for each effect (an operation when it is created,
and again whenever its status changes), and no answer leaves before the lines behind it are flushed to the disk. No line
has a card number or CVC: only the last four digits, and a hash of the contents that is keyed with the file
`<journal>.key`. Lines `{"noticed": …}` record that a notice was taken; they are not effects.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import struct
import sys
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, assert_never

import aiohttp
import msgspec
from aiohttp import web

from tillway.connectors.http_bank import LIST_PATH, operation_of, signature
from tillway.connectors.port import Request, Response
from tillway.sandbox.bank import Announcement, Bank, BankOperation, Handled
from tillway.sandbox.faults import BEFORE_THE_ANSWER, Drawn, Fault, Faults, FaultsInvalid, plan_notices

BODY_MAX = 1 << 20
"""Largest request, in bytes."""

HOLD_SECONDS = 120.0
"""How long a lost answer keeps its connection open."""

NOTICE_TRIES_MAX = 12
"""How often a notice is sent before the bank gives up: about six minutes."""

NOTICE_WAIT_MAX_SECONDS = 60.0

PAGES = "/_3ds/"
_PAGE = """<!doctype html><html lang=en><meta charset=utf-8><title>3-D Secure of the test bank</title>
<h1>Is it you?</h1><p>This is the page of <code>tillway bank</code>, a bank for tests.</p><form method=post>
<button name=outcome value=pass>Confirm</button>
<button name=outcome value=fail>Fail it</button></form></html>
"""
_PAGE_HEADERS = {"content-security-policy": "default-src 'none'", "cache-control": "no-store"}

NOT_HERE = frozenset(("refuse",))
"""A server cannot refuse a connection that it has accepted."""


class JournalUnfit(Exception):
    """The journal cannot be used: it is damaged in the middle, is not a journal, or another bank holds it."""


class Journal:
    """Lines appended to a file, flushed in groups: lines that arrive during a flush share the next one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[bytes] = []
        self._written = 0
        self._durable = 0
        self._flush: asyncio.Task[None] | None = None
        self._failure: OSError | None = None
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise JournalUnfit(f"{path} is the journal of a bank that is running") from None
        _flush_directory(path)

    def replay(self) -> list[dict[str, Any]]:
        """Every whole line. A last line that a crash cut short is removed: no answer was sent for it."""
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._file, whole)
            os.fsync(self._file)
        lines = []
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                lines.append(msgspec.json.decode(line, type=dict[str, Any]))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise JournalUnfit(f"{self._path}, line {number}: {error}") from error
        return lines

    def append(self, line: Mapping[str, Any]) -> None:
        """Append a line; it is durable when a later `durable()` has returned."""
        self._waiting.append(msgspec.json.encode(line) + b"\n")
        self._written += 1

    async def durable(self) -> None:
        """Return when every line appended so far is on the disk. Raises OSError once the disk has failed, for ever."""
        upto = self._written
        while self._durable < upto:
            if self._failure is not None:
                raise self._failure
            if self._flush is None:
                self._flush = asyncio.ensure_future(self._flush_waiting())
            await asyncio.shield(self._flush)

    async def close(self) -> None:
        await self.durable()
        os.close(self._file)

    async def _flush_waiting(self) -> None:
        lines, self._waiting = self._waiting, []
        try:
            await asyncio.to_thread(self._write, b"".join(lines))
            self._durable += len(lines)
        except OSError as failure:
            self._failure = failure
        finally:
            self._flush = None

    def _write(self, block: bytes) -> None:
        while block:
            block = block[os.write(self._file, block) :]
        os.fdatasync(self._file)


class BankServer:
    """The bank, its journal, its faults and the notices that it owes. Make it with `start`, stop it with `stop`."""

    def __init__(
        self,
        bank: Bank,
        journal: Journal,
        faults: Faults,
        *,
        notice_url: str | None = None,
        notice_secret: str | None = None,
    ) -> None:
        self.bank = bank
        self.faults = faults
        self.port = 0
        self._journal = journal
        self._notice_url = notice_url
        self._notice_secret = notice_secret
        self._noticed: set[str] = set()
        self._owed: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def stop(self) -> None:
        """Stop listening, drop the notices that are still owed (a restart sends them), and close the journal."""
        for task in self._owed:
            task.cancel()
        await asyncio.gather(*self._owed, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()
        await self._journal.close()

    def _recall(self) -> None:
        """Load the journal, and owe again every notice that was not taken."""
        for line in self._journal.replay():
            if "noticed" in line:
                self._noticed.add(line["noticed"])
            else:
                line.pop("bank_id", None)
                self.bank.remember(msgspec.convert(line, BankOperation))
        for operation in list(self.bank.operations()):
            if operation.kind != "accept":  # Its dispute owes the notice.
                self._owe(operation, ())

    async def _listen(self, host: str, port: int) -> None:
        app = web.Application(client_max_size=BODY_MAX)
        app.router.add_post("/_faults", self._set_faults)
        app.router.add_get("/_faults", self._get_faults)
        app.router.add_post("/_disputes", self._tell_dispute)
        app.router.add_get("/_journal", self._get_totals)
        app.router.add_get(f"{PAGES}{{reference}}", self._show_page)
        app.router.add_post(f"{PAGES}{{reference}}", self._decide_page)
        app.router.add_route("*", "/{path:.*}", self._call)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.bank.pages = f"http://{host}:{self.port}{PAGES}"

    # The bank's own controls.

    async def _set_faults(self, request: web.Request) -> web.Response:
        try:
            rules = msgspec.json.decode(await request.read(), type=dict[str, Any])
            self.faults.replace(rules)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return web.json_response({"message": "the body is not a JSON object"}, status=400)
        except FaultsInvalid as invalid:
            return web.json_response({"message": str(invalid), "field": invalid.field}, status=422)
        return web.json_response(self.faults.as_dict())

    async def _get_faults(self, request: web.Request) -> web.Response:
        return web.json_response(self.faults.as_dict())

    async def _tell_dispute(self, request: web.Request) -> web.Response:
        """Open, move or end a dispute on demand, and send its notice."""
        try:
            report = msgspec.json.decode(await request.read(), type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return web.json_response({"message": "the body is not a JSON object"}, status=400)
        handled = self.bank.tell_dispute(report)
        await self._record(handled)
        if handled.effect is not None:
            self._owe(handled.effect, ())
        return _write(handled.response)

    async def _show_page(self, request: web.Request) -> web.Response:
        """The page of 3-D Secure of an authorization that waits for its customer."""
        operation = self.bank.find(request.match_info["reference"])
        if operation is None or operation.return_url is None:
            return web.json_response({"message": "no such page"}, status=404)
        return web.Response(text=_PAGE, content_type="text/html", headers=_PAGE_HEADERS)

    async def _decide_page(self, request: web.Request) -> web.Response:
        """Take the customer's decision, send its notice, and send the customer back."""
        form = await request.post()
        handled = self.bank.decide_action(request.match_info["reference"], passed=form.get("outcome") == "pass")
        await self._record(handled)
        operation = self.bank.find(request.match_info["reference"])
        if operation is None or operation.return_url is None:
            return web.json_response({"message": "no such page"}, status=404)
        if handled.effect is not None and self._notice_url is not None:
            self._start(self._tell(operation.answer(), 0.0))
            self._owe(operation, ())
        return web.Response(status=303, headers={"location": operation.return_url})

    async def _record(self, handled: Handled) -> None:
        """Make an effect durable."""
        if handled.effect is not None:
            self._journal.append(_line(handled.effect))
        await self._journal.durable()

    async def _get_totals(self, request: web.Request) -> web.Response:
        await self._journal.durable()
        operations = sum(1 for _ in self.bank.operations())
        return web.json_response({"operations": operations, "accepted": self.bank.totals()})

    # The contract.

    async def _call(self, request: web.Request) -> web.StreamResponse:
        asked = await _read(request)
        if isinstance(asked, Response):
            return _write(asked)
        operation = operation_of(asked.path)
        amount = asked.fields.get("amount")
        drawn = self.faults.draw(operation, amount if type(amount) is int else None)
        if drawn.slow_ms:
            await asyncio.sleep(drawn.slow_ms / 1000)
        if drawn.call is not None:
            return await self._commit_fault(request, asked, drawn)
        return _write(await self._perform(asked, drawn))

    async def _perform(self, asked: Request, drawn: Drawn) -> Response:
        """Handle a request, and wait until everything behind its answer is durable: even the answer to a repeat or a
        question may depend on another request's latest lines."""
        handled = self.bank.handle(asked, drawn.answer)
        await self._record(handled)
        if handled.effect is not None:
            early = self._owe(handled.effect, drawn.notices)
            if early is not None:
                # The notice comes before the answer. Its receiver may wait for this answer, so this wait is bounded.
                await asyncio.wait((early,), timeout=1.0)
        return handled.response

    async def _commit_fault(self, request: web.Request, asked: Request, drawn: Drawn) -> web.StreamResponse:
        fault = drawn.call
        assert fault is not None
        match fault.fault:
            case "refuse":
                raise AssertionError("a server that runs takes connections: `replace` lets no such rule in")
            case "lose_request":
                return await _never(request)
            case "reset_before":
                return _reset(request)
            case "error_before":
                return _write(Response(fault.status, {"message": "simulated"}))
            case "throttle":
                return _write(Response(429, {"message": "simulated"}, {"retry-after": fault.retry_after}))
            case "lose_answer":
                await self._perform(asked, drawn)
                return await _never(request)
            case "reset_after":
                await self._perform(asked, drawn)
                return _reset(request)
            case "half_body":
                return await _half(request, await self._perform(asked, drawn))
            case "error_after":
                await self._perform(asked, drawn)
                return _write(Response(fault.status, {"message": "simulated"}))
            case _:
                assert_never(fault.fault)

    # Notices.

    def _owe(self, operation: BankOperation, faults: tuple[Fault, ...]) -> "asyncio.Task[None] | None":
        """Plan the notices about `operation`. Return the one that comes before the answer, if there is one."""
        if self._notice_url is None:
            return None
        announced = [told for told in self.bank.forthcoming(operation) if _notice_of(told) not in self._noticed]
        early: asyncio.Task[None] | None = None
        for after_ms, announcement in plan_notices(announced, faults):
            if announcement is not None:
                self._start(self._announce(announcement, after_ms / 1000))
                continue
            task = self._start(self._tell(operation.answer(), max(after_ms, 0) / 1000))
            if after_ms == BEFORE_THE_ANSWER:
                early = task
        return early

    def _start(self, telling: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(telling)
        self._owed.add(task)
        task.add_done_callback(self._owed.discard)
        return task

    async def _announce(self, announcement: Announcement, delay: float) -> None:
        """Perform the announced operation, make it durable, and then send the notice."""
        await asyncio.sleep(delay)
        body, effect = self.bank.announce(announcement)
        if effect is not None:
            self._journal.append(_line(effect))
        await self._journal.durable()
        if effect is not None and announcement.what == "settles":
            # A settled operation may have a later notice: the dispute of a debit, for example.
            self._owe(effect, ())
        await self._tell(body, 0.0)
        # This line needs no flush: receivers must bear a repeated notice.
        self._journal.append({"noticed": _notice_of(announcement)})

    async def _tell(self, body: Mapping[str, Any], delay: float) -> None:
        """POST a notice until it is taken, or NOTICE_TRIES_MAX times."""
        await asyncio.sleep(delay)
        content = msgspec.json.encode({**body, "created": int(time.time())})
        for attempt in range(NOTICE_TRIES_MAX):
            if await self._post(content):
                return
            await asyncio.sleep(min(0.25 * 2**attempt, NOTICE_WAIT_MAX_SECONDS))

    async def _post(self, body: bytes) -> bool:
        assert self._notice_url is not None
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        headers = {"content-type": "application/json"}
        if self._notice_secret is not None:
            headers["x-bank-signature"] = signature(self._notice_secret, body)
        try:
            async with self._session.post(
                self._notice_url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                return 200 <= answer.status < 300
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


async def start(
    port: int,
    journal_path: str | os.PathLike[str],
    *,
    notice_url: str | None = None,
    notice_secret: str | None = None,
    faults: Mapping[str, Any] | None = None,
    host: str = "127.0.0.1",
) -> BankServer:
    """Open the journal and listen; `.port` is the port (0 picks a free one). Raises `FaultsInvalid`, `JournalUnfit`,
    and OSError if the file or the port cannot be used."""
    path = Path(journal_path).absolute()
    rules = Faults(faults, not_here=NOT_HERE)
    journal = Journal(path)
    bank = Bank(knows_all=True, operations_max=None, key=_key(path))
    server = BankServer(bank, journal, rules, notice_url=notice_url, notice_secret=notice_secret)
    server._recall()
    await server._listen(host, port)
    return server


async def serve(
    port: int,
    journal_path: str | os.PathLike[str],
    notice_url: str | None = None,
    notice_secret: str | None = None,
    faults: Mapping[str, Any] | None = None,
    host: str = "127.0.0.1",
) -> None:
    """Serve until cancelled. Prints `listening on HOST:PORT` to stderr when ready."""
    server = await start(
        port, journal_path, notice_url=notice_url, notice_secret=notice_secret, faults=faults, host=host
    )
    print(f"listening on {host}:{server.port}", file=sys.stderr, flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await server.stop()


def main(
    port: int,
    journal: str,
    notice_url: str | None = None,
    notice_secret: str | None = None,
    faults: str | None = None,
    host: str = "127.0.0.1",
) -> None:
    """Run `tillway bank`; `faults` is JSON text. Returns on Ctrl-C. Raises ValueError for invalid arguments."""
    rules = None
    if faults is not None:
        try:
            rules = json.loads(faults)
        except json.JSONDecodeError as error:
            raise FaultsInvalid("faults", f"not JSON: {error}") from error
        if not isinstance(rules, dict):
            raise FaultsInvalid("faults", "not a JSON object")
    for sign in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(sign, signal.SIG_IGN)  # They would end the process, and ask other servers for something harmless.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_until_terminated(serve(port, journal, notice_url, notice_secret, rules, host)))


async def _until_terminated(serving: Coroutine[Any, Any, None]) -> None:
    """Await `serving` until SIGTERM, which ends it in order. It does not go through SIGINT: a shell that starts a
    program in the background of a script makes it ignore that."""
    task = asyncio.ensure_future(serving)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _key(journal: Path) -> bytes:
    """The key of the hashes in the journal, made with the journal and stored beside it."""
    path = journal.with_name(journal.name + ".key")
    if not path.exists():
        draft = path.with_name(path.name + ".new")
        made = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(made, secrets.token_bytes(32))
            os.fsync(made)
        finally:
            os.close(made)
        draft.replace(path)
        _flush_directory(path)
    return path.read_bytes()


def _flush_directory(path: Path) -> None:
    """Make the name of a new file as durable as its contents."""
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _line(operation: BankOperation) -> dict[str, Any]:
    return {**msgspec.to_builtins(operation), "bank_id": f"bank-{operation.reference}"}


def _notice_of(announcement: Announcement) -> str:
    return f"{announcement.what}-{announcement.nth}-{announcement.reference}"


async def _read(request: web.Request) -> Request | Response:
    """Parse the request for the bank, or return the answer to one that it cannot take."""
    if request.method == "GET":
        query = request.query_string
        return Request("GET", f"{LIST_PATH}?{query}" if request.path == LIST_PATH and query else request.path)
    if request.method != "POST":
        return Response(405, {"message": "only GET and POST"})
    try:
        body = msgspec.json.decode(await request.read())
    except web.HTTPRequestEntityTooLarge:
        return Response(400, {"message": f"a body has at most {BODY_MAX} bytes"})
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Response(400, {"message": "the body is not JSON"})
    if not isinstance(body, dict):
        return Response(400, {"message": "the body is not a JSON object"})
    key = request.headers.get("idempotency-key")
    # The reference of a dispute may have any character, percent-encoded.
    return Request("POST", request.rel_url.raw_path, body, {} if key is None else {"idempotency-key": key})


def _write(answer: Response) -> web.Response:
    return web.Response(
        status=answer.status,
        body=msgspec.json.encode(answer.body),
        headers=dict(answer.headers),
        content_type="application/json",
    )


async def _never(request: web.Request) -> web.Response:
    """Keep the caller waiting, then close the connection without an answer."""
    await asyncio.sleep(HOLD_SECONDS)
    return _reset(request)


def _reset(request: web.Request) -> web.Response:
    """Drop the connection with a reset: a linger time of zero makes the kernel send RST in place of a clean end."""
    transport = request.transport
    if transport is not None:
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def _half(request: web.Request, answer: Response) -> web.StreamResponse:
    """Announce the whole answer, send half of it, and end the connection."""
    content = msgspec.json.encode(answer.body)
    half = web.StreamResponse(status=answer.status, headers={"content-length": str(len(content))})
    half.content_type = "application/json"
    await half.prepare(request)
    await half.write(content[: len(content) // 2])
    if request.transport is not None:
        request.transport.close()
    return half
