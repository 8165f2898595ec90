"""A client for DynamoDB's JSON protocol: aiohttp carries its requests, signed here with AWS Signature Version 4.

boto3, where it is installed, finds the credentials (environment, profile, instance or task role) and renews them. Its
own request machinery is left out: it costs many times the CPU of everything else that a commit does
(docs/decisions/0009).
"""

import hashlib
import hmac
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import aiohttp
import msgspec

SERVICE = "dynamodb"
API = "DynamoDB_20120810"
ANSWER_SECONDS_MAX = 10.0
CONNECT_SECONDS_MAX = 3.0
CONNECTIONS_MAX = 64

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Credentials(Protocol):
    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


class Frozen(msgspec.Struct, frozen=True):
    """Credentials as they are at one moment."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        return "Frozen(****)"


class AwsError(Exception):
    """DynamoDB's refusal: `code` is the name of its exception, `reasons` why each action of a transaction failed."""

    def __init__(self, status: int, code: str, message: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.reasons = reasons


class Lost(Exception):
    """No whole answer came. The request may have been performed."""


class NoCredentials(Exception):
    """No AWS credentials were found. The text names the remedy."""


class DynamoClient:
    """One region's DynamoDB. It belongs to the event loop it is first used in.

    `requests` and `units` (write capacity consumed, where DynamoDB tells) count up from 0 and are there to be read.
    """

    def __init__(self, region: str, endpoint: str | None, credentials: Callable[[], Credentials]) -> None:
        self.region = region
        self.endpoint = (endpoint or f"https://dynamodb.{region}.amazonaws.com").rstrip("/")
        self.requests = 0
        self.units = 0.0
        self._host = self.endpoint.partition("://")[2]
        self._credentials = credentials
        self._session: aiohttp.ClientSession | None = None
        self._signing_key: tuple[str, str, bytes] = ("", "", b"")
        self._dated: tuple[str | None, float] = (None, 0.0)

    async def call(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """Call `operation`. Raises `AwsError` where AWS refused it, `Lost` where its outcome is unknown."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
                timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX, connect=CONNECT_SECONDS_MAX),
                auto_decompress=False,
            )
        self.requests += 1
        payload = _encode(body)
        headers = self._signed(f"{API}.{operation}", payload)
        try:
            async with self._session.post(self.endpoint + "/", data=payload, headers=headers) as response:
                answer = await response.read()
                self._dated = (response.headers.get("date"), time.monotonic())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Lost(repr(error)) from error
        try:
            document: dict[str, Any] = _decode(answer) if answer else {}
        except msgspec.DecodeError as error:
            raise Lost(f"HTTP {response.status} without JSON") from error
        if response.status == 200:
            for consumed in _consumed(document):
                self.units += consumed.get("WriteCapacityUnits") or 0.0
            return document
        code = str(document.get("__type", "")).rpartition("#")[2] or f"HTTP {response.status}"
        if response.status >= 500 and code not in ("InternalServerError", "ServiceUnavailable"):
            raise Lost(f"HTTP {response.status}: {code}")
        reasons = tuple(str(reason.get("Code") or "None") for reason in document.get("CancellationReasons") or ())
        message = str(document.get("message") or document.get("Message") or "")
        raise AwsError(response.status, code, message, reasons)

    def clock_ms(self) -> int | None:
        """AWS's time, milliseconds since 1970, by the newest answer; None before the first."""
        date, read_at = self._dated
        if date is None:
            return None
        try:
            said = parsedate_to_datetime(date)
        except ValueError:
            return None
        return int((said.timestamp() + time.monotonic() - read_at) * 1000)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _signed(self, target: str, payload: bytes) -> dict[str, str]:
        who = self._credentials()
        now = datetime.now(UTC)
        day, at = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
        headers = {
            "content-type": "application/x-amz-json-1.0",
            "host": self._host,
            "x-amz-date": at,
            "x-amz-target": target,
        }
        if who.token:
            headers["x-amz-security-token"] = who.token
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        request = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(payload).hexdigest()}"
        scope = f"{day}/{self.region}/{SERVICE}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.new(self._key(day, who.secret_key), text.encode(), hashlib.sha256).hexdigest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={who.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return headers

    def _key(self, day: str, secret: str) -> bytes:
        if self._signing_key[:2] != (day, secret):
            key = f"AWS4{secret}".encode()
            for part in (day, self.region, SERVICE, "aws4_request"):
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            self._signing_key = (day, secret, key)
        return self._signing_key[2]


def credentials_of_the_environment() -> Callable[[], Credentials]:
    """Who we are: through boto3's chain where it is installed, else from AWS_ACCESS_KEY_ID and its kin.

    Raises `NoCredentials`.
    """
    try:
        from boto3 import Session
    except ImportError:
        return _from_variables()
    found = Session().get_credentials()
    if found is None:
        raise NoCredentials("There are no AWS credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role.")
    frozen: Callable[[], Credentials] = found.get_frozen_credentials
    return frozen


def _from_variables() -> Callable[[], Credentials]:
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not key or not secret:
        raise NoCredentials(
            "There are no AWS credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or install tillway[aws], "
            "which knows profiles and roles."
        )
    frozen = Frozen(key, secret, os.environ.get("AWS_SESSION_TOKEN"))
    return lambda: frozen


def _consumed(document: dict[str, Any]) -> list[dict[str, Any]]:
    consumed = document.get("ConsumedCapacity")
    if isinstance(consumed, list):
        return consumed
    return [consumed] if isinstance(consumed, dict) else []
