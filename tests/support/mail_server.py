"""A mail server on this machine that keeps what it is sent, and refuses what it is told to."""

import asyncio
import ssl
import threading
from email import message_from_bytes
from email.message import Message
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session


class MailServerHere:
    """`host` and `port` are where it listens; it lives in a thread of its own. `refusals` are replies that stand for
    the next messages, one each: `550 5.1.1 No such mailbox`, or "" for a connection that breaks after the message was
    taken."""

    def __init__(
        self, *, password: str | None = None, tls: ssl.SSLContext | None = None, at_once: bool = False
    ) -> None:
        self.messages: list[Message] = []
        self.refusals: list[str] = []
        self.refused_recipients: dict[str, str] = {}
        self.encrypted: list[bool] = []
        self.host, self.port = "127.0.0.1", 0
        self._options: dict[str, Any] = {"hostname": "here", "enable_SMTPUTF8": False}
        if password is not None:
            self._options |= {
                "authenticator": lambda server, session, envelope, mechanism, data: AuthResult(
                    success=data.password == password.encode(), handled=False
                ),
                "auth_require_tls": tls is not None and not at_once,
                "auth_required": True,
            }
        if tls is not None and not at_once:
            self._options |= {"tls_context": tls, "require_starttls": True}
        self._tls = tls if at_once else None
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)

        async def listen() -> asyncio.Server:
            server = await self._loop.create_server(
                lambda: SMTP(self, loop=self._loop, **self._options), self.host, 0, ssl=self._tls
            )
            self.port = server.sockets[0].getsockname()[1]
            return server

        server = self._loop.run_until_complete(listen())
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for connection in asyncio.all_tasks(self._loop):
            connection.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    # What aiosmtpd calls.

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any) -> str:
        if address in self.refused_recipients:
            return self.refused_recipients[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        refusal = self.refusals.pop(0) if self.refusals else None
        if refusal:
            return refusal
        assert isinstance(envelope.content, bytes)
        self.messages.append(message_from_bytes(envelope.content))
        self.encrypted.append(session.ssl is not None or self._tls is not None)
        if refusal == "":
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return "250 Taken"
