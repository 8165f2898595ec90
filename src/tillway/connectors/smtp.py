"""A mail server, reached by SMTP: the only socket for e-mail."""

import asyncio
import re
import ssl
from email.message import EmailMessage
from typing import Final
from urllib.parse import unquote, urlsplit

import aiosmtplib

from tillway.connectors.settings import is_loopback
from tillway.domain.cards import Secret
from tillway.domain.mail import Delayed, Handed, Posted, Rejected

SECONDS_MAX: Final = 30.0
"""How long one message may take, from the connection to the server's reply."""

GREETING_SECONDS_MAX: Final = 10.0

_PORTS = {"smtp": 587, "smtps": 465}
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")


class MailServer:
    """`smtps://[user@]host[:465]` uses TLS from the first byte; `smtp://[user@]host[:587]` switches to TLS by STARTTLS,
    and sends nothing if the server cannot, except to this machine's own (127.0.0.1, ::1, localhost)."""

    def __init__(self, url: str, password: Secret[str] | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        assert parts.scheme in _PORTS and parts.hostname, "the settings were checked"
        self.host = parts.hostname
        self.port = parts.port or _PORTS[parts.scheme]
        self.user = unquote(parts.username) if parts.username else None
        self._password = password
        self._tls_at_once = parts.scheme == "smtps"
        self._must_turn_to_tls = not self._tls_at_once and not is_loopback(self.host)
        self._tls = tls

    async def send(self, message: EmailMessage) -> Posted:
        """Send one message. A permanent refusal of the message or its recipient is a rejection; any other failure may
        be temporary, including errors in Tillway's own settings."""
        try:
            async with asyncio.timeout(SECONDS_MAX), self._client() as client:
                await client.send_message(message)
        except aiosmtplib.SMTPRecipientsRefused as refused:
            return _read_refusal(refused.recipients[0])
        except aiosmtplib.SMTPDataError as refused:
            return _read_refusal(refused)
        except aiosmtplib.SMTPResponseException as refused:
            return Delayed(_code(refused))
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as failed:
            return Delayed(f"{type(failed).__name__}: {str(failed)[:200]}")
        return Handed()

    async def greet(self) -> str | None:
        """Connect, switch to TLS, log in, and leave. None on success, else the reason of the failure."""
        try:
            async with asyncio.timeout(GREETING_SECONDS_MAX), self._client():
                return None
        except aiosmtplib.SMTPResponseException as refused:
            return f"it answered {_code(refused)}"
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as failed:
            return f"{type(failed).__name__}: {str(failed)[:200]}"

    def _client(self) -> aiosmtplib.SMTP:
        return aiosmtplib.SMTP(
            hostname=self.host,
            port=self.port,
            username=self.user,
            password=self._password.reveal() if self._password is not None and self.user else None,
            use_tls=self._tls_at_once,
            start_tls=True if self._must_turn_to_tls else None,
            tls_context=self._tls,
            timeout=SECONDS_MAX,
        )


def _read_refusal(refused: aiosmtplib.SMTPResponseException) -> Posted:
    """A 5xx reply is permanent (RFC 5321, 4.2.1)."""
    return Rejected(_code(refused)) if 500 <= refused.code < 600 else Delayed(_code(refused))


def _code(refused: aiosmtplib.SMTPResponseException) -> str:
    """The codes of a reply. Its text may repeat the customer's address, which must not be in a log."""
    enhanced = refused.message.partition(" ")[0]
    return f"{refused.code} {enhanced}" if _ENHANCED.fullmatch(enhanced) else str(refused.code)
