"""A client for AWS services: requests signed with AWS Signature Version 4, over HTTP/1.1 connections that stay open.

It imports neither an HTTP library nor boto3: those take longer to import than a Lambda function may take to start
(docs/aws.md), and boto3's request machinery costs many times the CPU of everything else that a commit does
(docs/decisions/0009). boto3, where it is installed, only finds the credentials that this file cannot find: profiles and
instance roles.
"""

import asyncio
import hashlib
import hmac
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import quote, urlsplit

import msgspec

if TYPE_CHECKING:
    import ssl

ANSWER_SECONDS_MAX: Final = 10.0
CONNECT_SECONDS_MAX: Final = 3.0
CONNECTIONS_MAX: Final = 64
IDLE_SECONDS_MAX: Final = 15.0
"""A connection that was idle for longer is not used again: its server may have closed it meanwhile, and a request that
meets the end of its connection has an unknown outcome."""

HEAD_BYTES_MAX: Final = 1 << 16
RENEW_SECONDS: Final = 300.0
"""Credentials that expire this soon are read again."""

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


class Service(NamedTuple):
    """A service of AWS: its name in signatures, in host names and in AWS_ENDPOINT_URL_…, and for JSON services the
    prefix of `X-Amz-Target` and the version of the JSON protocol."""

    name: str
    variable: str
    target: str = ""
    json: str = "1.1"


DYNAMODB: Final = Service("dynamodb", "DYNAMODB", "DynamoDB_20120810", "1.0")
SECRETS: Final = Service("secretsmanager", "SECRETS_MANAGER", "secretsmanager")
QUEUES: Final = Service("sqs", "SQS", "AmazonSQS", "1.0")
STATES: Final = Service("states", "SFN", "AWSStepFunctions", "1.0")
OBJECTS: Final = Service("s3", "S3")


class AwsError(Exception):
    """A service's refusal: `code` is the name of its exception, `reasons` why each action of a transaction failed."""

    def __init__(self, status: int, code: str, message: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.reasons = reasons


class Lost(Exception):
    """No whole answer came. The request may have been performed."""


class NoCredentials(Exception):
    """No AWS credentials were found. The text names the remedy."""


class AwsClient:
    """One service in one region. It belongs to the event loop it is first used in.

    `requests` and `units` (DynamoDB's write capacity consumed, where it tells) count up from 0 and are there to be
    read.
    """

    def __init__(
        self, service: Service, region: str, endpoint: str | None, credentials: Callable[[], Credentials]
    ) -> None:
        self.service = service
        self.region = region
        self.endpoint = (endpoint or endpoint_of(service, region)).rstrip("/")
        self.requests = 0
        self.units = 0.0
        self._host = self.endpoint.partition("://")[2]
        self._credentials = credentials
        self._connections: Connections | None = None
        self._signing_key: tuple[str, str, bytes] = ("", "", b"")
        self._dated: tuple[str | None, float] = (None, 0.0)

    async def call(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """Call `operation` of a JSON service. Raises `AwsError` where AWS refused it, `Lost` where its outcome is
        unknown."""
        payload = _encode(body)
        headers = {
            "content-type": f"application/x-amz-json-{self.service.json}",
            "x-amz-target": f"{self.service.target}.{operation}",
        }
        answer = await self._send("POST", "/", headers, payload)
        try:
            document: dict[str, Any] = _decode(answer.body) if answer.body else {}
        except msgspec.DecodeError as error:
            raise Lost(f"HTTP {answer.status} without JSON") from error
        if answer.status == 200:
            for consumed in _capacity_of(document):
                self.units += consumed.get("WriteCapacityUnits") or 0.0
            return document
        code = str(document.get("__type", "")).rpartition("#")[2] or f"HTTP {answer.status}"
        if answer.status >= 500 and code not in ("InternalServerError", "ServiceUnavailable"):
            raise Lost(f"HTTP {answer.status}: {code}")
        reasons = tuple(str(reason.get("Code") or "None") for reason in document.get("CancellationReasons") or ())
        message = str(document.get("message") or document.get("Message") or "")
        raise AwsError(answer.status, code, message, reasons)

    async def put(self, path: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Put an object at `path` (`/bucket/key`). Raises `AwsError` or `Lost`."""
        self._read_object(await self._send("PUT", quote(path), dict(headers), payload), path)

    async def fetch(self, path: str) -> bytes | None:
        """The object at `path` (`/bucket/key`); None if there is none. Raises `AwsError` or `Lost`."""
        answer = await self._send("GET", quote(path), {}, b"")
        if answer.status == 404 and b"<Code>NoSuchKey</Code>" in answer.body:
            return None
        return self._read_object(answer, path)

    async def names(self, bucket: str, prefix: str) -> list[str]:
        """The keys of all objects in a bucket that begin so; those with characters that XML escapes stay escaped.
        Raises `AwsError` or `Lost`."""
        found: list[str] = []
        after = ""
        while True:
            asked = {"list-type": "2", "prefix": prefix} | ({"start-after": after} if after else {})
            # The signature covers the parameters in the order of their names.
            query = "&".join(f"{name}={quote(asked[name], safe='')}" for name in sorted(asked))
            answer = await self._send("GET", quote(f"/{bucket}"), {}, b"", query)
            page = self._read_object(answer, f"/{bucket}").decode()
            found += [part.partition("</Key>")[0] for part in page.split("<Key>")[1:]]
            if "<IsTruncated>true</IsTruncated>" not in page:
                return found
            after = found[-1]

    def _read_object(self, answer: "Answer", path: str) -> bytes:
        if answer.status >= 500:
            raise Lost(f"HTTP {answer.status}")
        if answer.status not in (200, 204):
            # The answer is XML, of which the code is all that is needed.
            code = answer.body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode(errors="replace")
            raise AwsError(answer.status, code or f"HTTP {answer.status}", path)
        return answer.body

    def clock_ms(self) -> int | None:
        """AWS's time, milliseconds since 1970, by the newest answer; None before the first."""
        date, read_at = self._dated
        said = _seconds_of(date) if date is not None else None
        return None if said is None else int((said + time.monotonic() - read_at) * 1000)

    async def close(self) -> None:
        if self._connections is not None:
            self._connections.close()
            self._connections = None

    async def _send(self, method: str, path: str, headers: dict[str, str], payload: bytes, query: str = "") -> "Answer":
        if self._connections is None:
            self._connections = Connections(self.endpoint)
        self.requests += 1
        signed = self._sign(method, path, headers, payload, query)
        target = f"{path}?{query}" if query else path
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in signed.items())]
        lines.append(f"content-length: {len(payload)}\r\n\r\n")
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                answer = await self._connections.exchange("\r\n".join(lines).encode() + payload)
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError) as error:
            raise Lost(repr(error)) from error
        self._dated = (answer.headers.get("date"), time.monotonic())
        return answer

    def _sign(self, method: str, path: str, headers: dict[str, str], payload: bytes, query: str = "") -> dict[str, str]:
        """`headers` with those of the signature. `path` and `query` are already quoted, and parameters in order."""
        who = self._credentials()
        now = datetime.now(UTC)
        day, at = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(payload).hexdigest()
        headers |= {"host": self._host, "x-amz-date": at}
        if self.service is OBJECTS:
            headers["x-amz-content-sha256"] = digest
        if who.token:
            headers["x-amz-security-token"] = who.token
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        request = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{digest}"
        scope = f"{day}/{self.region}/{self.service.name}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.new(self._key(day, who.secret_key), text.encode(), hashlib.sha256).hexdigest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={who.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return headers

    def _key(self, day: str, secret: str) -> bytes:
        if self._signing_key[:2] != (day, secret):
            key = f"AWS4{secret}".encode()
            for part in (day, self.region, self.service.name, "aws4_request"):
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            self._signing_key = (day, secret, key)
        return self._signing_key[2]


def client_of(service: Service) -> AwsClient:
    """The client of a service in the region of the environment (AWS_REGION). Raises `NoCredentials`."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise NoCredentials("There is no AWS region. Set AWS_REGION.")
    return AwsClient(service, region, None, credentials_of_the_environment())


def endpoint_of(service: Service, region: str) -> str:
    """The URL of a service: of AWS_ENDPOINT_URL_… or AWS_ENDPOINT_URL where one is set, as in AWS's own SDKs."""
    named = os.environ.get(f"AWS_ENDPOINT_URL_{service.variable}") or os.environ.get("AWS_ENDPOINT_URL")
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return named or f"https://{service.name}.{region}.{suffix}"


def call_and_wait(service: Service, operation: str, body: dict[str, Any]) -> dict[str, Any]:
    """Call a JSON service from code that cannot await, in a thread with an event loop of its own. Raises as `call`, and
    `NoCredentials`."""
    outcome: list[dict[str, Any] | Exception] = []

    async def call() -> dict[str, Any]:
        client = client_of(service)
        try:
            return await client.call(operation, body)
        finally:
            await client.close()

    def work() -> None:
        try:
            outcome.append(asyncio.run(call()))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


# HTTP.


class Answer(NamedTuple):
    """An answer of HTTP/1.1. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used_at: float
    used_wall: float

    @property
    def usable(self) -> bool:
        """A frozen Lambda environment may not count its sleep on the monotonic clock, so both clocks must agree."""
        idle = max(time.monotonic() - self.used_at, abs(time.time() - self.used_wall))
        return idle < IDLE_SECONDS_MAX and not self.reader.at_eof() and not self.writer.is_closing()


class Connections:
    """The connections to one endpoint: at most CONNECTIONS_MAX, each with one request at a time."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._idle: list[_Connection] = []
        self._free = asyncio.Semaphore(CONNECTIONS_MAX)
        self._context: ssl.SSLContext | None = None

    async def exchange(self, request: bytes) -> Answer:
        """Send a request and read its answer. Raises `OSError`, `EOFError`, or `ValueError` for an answer that is no
        HTTP."""
        async with self._free:
            connection = await self._take()
            kept = False
            try:
                connection.writer.write(request)
                await connection.writer.drain()
                answer = await _read(connection.reader)
                kept = answer.headers.get("connection", "").lower() != "close"
            finally:
                if kept:
                    self._idle.append(connection._replace(used_at=time.monotonic(), used_wall=time.time()))
                else:
                    connection.writer.transport.abort()
            return answer

    def close(self) -> None:
        for connection in self._idle:
            connection.writer.close()
        self._idle.clear()

    async def _take(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.writer.close()
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            reader, writer = await asyncio.open_connection(
                self._host, self._port, ssl=self._tls() if self._secure else None, limit=HEAD_BYTES_MAX
            )
        return _Connection(reader, writer, time.monotonic(), time.time())

    def _tls(self) -> "ssl.SSLContext":
        if self._context is None:
            import ssl

            self._context = ssl.create_default_context()
        return self._context


async def _read(reader: asyncio.StreamReader) -> Answer:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
        if status >= 200:
            break
    headers = {}
    for line in head[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return Answer(status, headers, await _read_chunks(reader))
    length = headers.get("content-length")
    if length is not None:
        return Answer(status, headers, await reader.readexactly(int(length)))
    if status == 204:
        return Answer(status, headers, b"")
    headers["connection"] = "close"
    return Answer(status, headers, await reader.read(-1))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        chunks.append((await reader.readexactly(size + 2))[:-2])
    while await reader.readuntil(b"\r\n") != b"\r\n":
        continue  # Trailers say nothing that is needed.
    return b"".join(chunks)


_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _seconds_of(date: str) -> float | None:
    """The time of a `Date` header (RFC 9110, IMF-fixdate), in epoch seconds; None for another form.

    `email.utils` reads it too, and takes as long to import as all of this file.
    """
    try:
        _, day, month, year, clock, zone = date.split()
        hour, minute, second = map(int, clock.split(":"))
        moment = datetime(int(year), _MONTHS.index(month) + 1, int(day), hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError:
        return None
    return moment.timestamp() if zone == "GMT" else None


# Credentials.


def credentials_of_the_environment() -> Callable[[], Credentials]:
    """Find the credentials: the variables AWS_ACCESS_KEY_ID and its kin, the endpoint that AWS gives to containers and
    to functions with SnapStart, or boto3's chain where it is installed.

    Raises `NoCredentials`.
    """
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if key and secret:
        frozen = Frozen(key, secret, os.environ.get("AWS_SESSION_TOKEN"))
        return lambda: frozen
    full, relative = (os.environ.get(f"AWS_CONTAINER_CREDENTIALS_{name}_URI") for name in ("FULL", "RELATIVE"))
    if full or relative:
        return ContainerCredentials(full or f"http://169.254.170.2{relative}")
    try:
        from boto3 import Session
    except ImportError:
        raise NoCredentials(
            "There are no AWS credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or install tillway[aws], "
            "which knows profiles and instance roles."
        ) from None
    found = Session().get_credentials()
    if found is None:
        raise NoCredentials("There are no AWS credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role.")
    chain: Callable[[], Credentials] = found.get_frozen_credentials
    return chain


class ContainerCredentials:
    """The credentials of a container, of an EKS pod or of a function with SnapStart, renewed before they expire.

    Source: "Container credential provider" in the AWS SDKs reference guide.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._held: Frozen | None = None
        self._expires_at = 0.0

    def __call__(self) -> Credentials:
        if self._held is None or time.time() > self._expires_at - RENEW_SECONDS:
            self._read()
        assert self._held is not None
        return self._held

    def _read(self) -> None:
        """Read them anew. Those in use stay until they expire. Raises `NoCredentials`."""
        import urllib.request

        token, file = os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"), "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
        try:
            if file in os.environ:
                with open(os.environ[file]) as opened:
                    token = opened.read().strip()
            request = urllib.request.Request(self._url, headers={"Authorization": token} if token else {})
            # No proxy: the address is this host's own.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=CONNECT_SECONDS_MAX) as answer:
                said = _decode(answer.read())
            self._held = Frozen(said["AccessKeyId"], said["SecretAccessKey"], said.get("Token"))
            self._expires_at = datetime.fromisoformat(said["Expiration"]).timestamp()
        except (OSError, ValueError, KeyError, TypeError) as error:
            if self._held is None or time.time() >= self._expires_at:
                raise NoCredentials(f"The credentials of this container cannot be read: {error!r}") from None


def _capacity_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    consumed = document.get("ConsumedCapacity")
    if isinstance(consumed, list):
        return consumed
    return [consumed] if isinstance(consumed, dict) else []
