"""One HTTP/1.1 connection to another server: it writes a request in one piece and reads one answer (RFC 9112).

Providers and merchants' endpoints are asked by it (docs/decisions/0032-a-client-of-our-own-for-providers.md, 0037).
TLS, addresses and idle connections are in `client_connections.py`.
"""

import asyncio
import re
import zlib
from collections.abc import Sequence
from typing import Final, Literal, cast

HEAD_MAX: Final = 64 << 10
"""The most bytes of an answer's head, and of the trailers behind its last chunk."""

_CHUNK_LINE_MAX = 4 << 10
_LENGTH_DIGITS_MAX = 18

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_STATUS = re.compile(r"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: .*)?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class BadAnswer(Exception):
    """The answer is no HTTP, is larger than was allowed, or ends before it is whole. The text says which."""


class EndedEarly(BadAnswer):
    """The connection ended before the answer was whole."""


def request_head(lines: Sequence[str]) -> bytes:
    """The head of a request, of its first line and its headers. Raises ValueError if one has a line break."""
    head = "\r\n".join((*lines, "\r\n"))
    if head.count("\r") != len(lines) + 1 or head.count("\n") != len(lines) + 1 or "\0" in head:
        raise ValueError("a header has a line break")
    return head.encode()


class Answer:
    """One answer, as far as it was read. `feed` takes its bytes as they come.

    Line ends may lack their CR, as those of small servers do. Interim answers (1xx) are skipped.
    """

    def __init__(self, method: str, body_max: int) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """By lower-case name; of several lines with one name, the last."""
        self.keeps_open = False
        """Whether the connection can carry another request after this answer."""
        self._method = method
        self._body_max = body_max
        self._unread = b""
        self._body: list[bytes] = []
        self._size = 0
        self._trailers = 0
        self._left: int | None = None
        """Bytes that the body, or the chunk, still has; None until the connection ends."""
        self._chunked = False
        self._line: Literal["size", "end", "trailer"] = "size"
        """The line that comes next in a body of chunks: the size of one, its empty end, or a trailer."""

    def feed(self, data: bytes) -> bool:
        """Read more bytes; whether the answer is whole. Raises `BadAnswer`."""
        # An end of the head that the bytes before did not have may begin in their last three.
        searched = max(0, len(self._unread) - 3)
        data = self._unread + data if self._unread else data
        self._unread = b""
        while not self.status:
            end = _HEAD_END.search(data, searched, HEAD_MAX)
            if end is None:
                if len(data) >= HEAD_MAX:
                    raise BadAnswer("the head of the answer is too long")
                if not b"HTTP/1.".startswith(data[:7]):
                    raise BadAnswer("the answer is no HTTP/1.1")
                self._unread = data
                return False
            self._read_head(data[: end.start()])
            data, searched = data[end.end() :], 0
        return self._feed_chunks(data) if self._chunked else self._feed_body(data)

    def end(self) -> bool:
        """Take note that the connection has ended; whether the answer is whole with that."""
        return bool(self.status) and not self._chunked and self._left is None

    def is_enough(self) -> bool:
        """Whether the caller makes do with the part that was read, if no more comes."""
        return False

    def content(self) -> bytes:
        """The whole body, without its coding. Raises `BadAnswer`."""
        content = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if content and self.headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip", "deflate"):
            decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                content = decoder.decompress(content, self._body_max + 1)
            except zlib.error:
                raise BadAnswer("the coding of the answer is broken") from None
            if len(content) > self._body_max:
                raise self._too_large()
            if not decoder.eof:
                raise BadAnswer("the coding of the answer is broken")
        return content

    def _read_head(self, head: bytes) -> None:
        if b"\n " in head or b"\n\t" in head:
            head = _FOLD.sub(b" ", head)
        text = head.decode("utf-8", "surrogateescape")
        first, *lines = text.replace("\r\n", "\n").split("\n")
        match = _STATUS.fullmatch(first)
        if match is None:
            raise BadAnswer("the answer is no HTTP/1.1")
        status = int(match[2])
        if 100 <= status < 200 and status != 101:
            return
        headers = self.headers
        lengths: set[str] = set()
        names = []
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name:
                raise BadAnswer("the answer has a header without a name")
            names.append(name)
            named = name.lower()
            headers[named] = told = value.strip(" \t")
            if named == "content-length":
                lengths.update([part.strip() for part in told.split(",")])
        # All at once: to look at each one took a seventh of the time to read an answer.
        if names and _NAME.fullmatch("".join(names)) is None:
            raise BadAnswer("the answer has a header without a name")
        self.status = status
        kept = headers.get("connection", "").lower()
        self.keeps_open = "close" not in kept and (match[1] == "1" or "keep-alive" in kept)
        self._delimit(lengths)

    def _delimit(self, lengths: set[str]) -> None:
        """Find out where the body ends (RFC 9112, section 6.3)."""
        coding = self.headers.get("transfer-encoding")
        if self._method == "HEAD" or self.status in (101, 204, 304):
            self._left = 0
            self.keeps_open = self.keeps_open and self.status != 101
        elif coding is not None:
            self._chunked = coding.rpartition(",")[2].strip().lower() == "chunked"
            self._left = 0 if self._chunked else None
            self.keeps_open = self.keeps_open and self._chunked and not lengths
        elif lengths:
            [length] = lengths if len(lengths) == 1 else {""}
            if not (length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS_MAX):
                raise BadAnswer("the answer has no clear length")
            self._left = int(length)
            self._check_size(self._left)
        else:
            self.keeps_open = False

    def _feed_body(self, data: bytes) -> bool:
        if self._left is None:
            self._add(data)
            return False
        if len(data) > self._left:
            # The next answer on this connection could be read wrongly.
            data, self.keeps_open = data[: self._left], False
        self._left -= len(data)
        self._add(data)
        return self._left == 0

    def _feed_chunks(self, data: bytes) -> bool:
        while True:
            if self._left:
                piece, data = data[: self._left], data[self._left :]
                self._left -= len(piece)
                self._add(piece)
                if self._left or not data:
                    return False
            line_end = _LINE_END.search(data, 0, _CHUNK_LINE_MAX)
            if line_end is None:
                if len(data) >= _CHUNK_LINE_MAX:
                    raise BadAnswer("the answer has a broken chunk")
                self._unread = data
                return False
            line, data = data[: line_end.start()], data[line_end.end() :]
            if self._line == "trailer":
                if not line:
                    self.keeps_open = self.keeps_open and not data
                    return True
                self._trailers += len(line)
                if self._trailers > HEAD_MAX:
                    raise BadAnswer("the trailers of the answer are too long")
            elif self._line == "end":
                if line:
                    raise BadAnswer("the answer has a broken chunk")
                self._line = "size"
            else:
                self._begin_chunk(line)

    def _begin_chunk(self, line: bytes) -> None:
        chunk = _CHUNK.fullmatch(line)
        if chunk is None:
            raise BadAnswer("the answer has a broken chunk")
        self._left = int(chunk[1], 16)
        self._check_size(self._size + self._left)
        self._line = "end" if self._left else "trailer"

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        self._check_size(self._size)
        if piece:
            self._body.append(piece)

    def _check_size(self, size: int) -> None:
        if size > self._body_max:
            raise self._too_large()

    def _too_large(self) -> BadAnswer:
        return BadAnswer(f"the answer is larger than {self._body_max} bytes")


class Beginning(Answer):
    """An answer to a caller who needs its status, and the part of its body that comes first, at most `body_max` bytes.

    If the body is larger, broken or late, the connection is not used again; nothing else follows from it.
    """

    REST_SECONDS: Final = 0.5
    """How long the first part of the body may come after the head."""

    def feed(self, data: bytes) -> bool:
        if not self.status and not self._unread:
            data = data.lstrip(b"\r\n")  # The end of a line too many behind the answer before.
        try:
            whole = super().feed(data)
        except BadAnswer:
            if not self.status:
                raise
            self.keeps_open = False
            return True
        if whole or not self._body:
            return whole
        self.keeps_open = False
        return True

    def is_enough(self) -> bool:
        return bool(self.status)

    def content(self) -> bytes:
        """The first part of the body, in its coding."""
        content = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        return content[: self._body_max]

    def _delimit(self, lengths: set[str]) -> None:
        try:
            super()._delimit(lengths)
        except BadAnswer:
            self.status = 0
            raise

    def _check_size(self, size: int) -> None:
        pass


class Connection(asyncio.Protocol):
    """One connection. It carries one request at a time; `is_usable` says whether it can carry another."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.is_usable = True
        self.got_bytes = False
        """Whether a byte came since the last request."""
        self._answer: Answer | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._rest: asyncio.TimerHandle | None = None
        """Ends the wait for the body of an answer, where the head is enough."""

    async def ask(self, request: bytes, answer: Answer) -> Answer:
        """Write the bytes of a request, and return the whole answer. Raises `BadAnswer`, or `OSError`."""
        assert self._waiter is None, "a connection carries one request at a time"
        self.got_bytes, self._answer = False, answer
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        try:
            self._transport.write(request)
            return await waiter
        finally:
            if self._answer is not None:
                self.drop()  # Cancelled, or no whole answer: the rest of one may still come.
            self._waiter = None

    def drop(self) -> None:
        """Close at once, without waiting for the other side."""
        self.is_usable, self._answer = False, None
        self._transport.abort()

    def close(self) -> None:
        self.is_usable = False
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A transport of uvloop has the methods of asyncio.Transport without being one.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.got_bytes, answer = True, self._answer
        if answer is None:
            self.drop()  # The server sends without a request.
            return
        try:
            whole = answer.feed(data)
        except BadAnswer as bad:
            self.fail(bad)
            return
        if whole:
            self._finish(answer)
        elif self._rest is None and answer.is_enough():
            loop = asyncio.get_running_loop()
            self._rest = loop.call_later(Beginning.REST_SECONDS, self.stop_waiting, answer)

    def eof_received(self) -> bool:
        self.is_usable = False
        return False  # The transport closes itself.

    def connection_lost(self, error: Exception | None) -> None:
        self.is_usable = False
        answer = self._answer
        if answer is None:
            return
        if answer.is_enough() or (error is None and answer.end()):
            self._finish(answer)
        else:
            self.fail(error or EndedEarly("the connection was closed before the answer was whole"))

    def stop_waiting(self, answer: Answer) -> None:
        """Let the request that waits for this answer have it as far as it came, or a `TimeoutError` if that is not
        enough. The connection cannot be used again."""
        if self._answer is not answer:
            return
        if answer.is_enough():
            self.is_usable = False
            self._finish(answer)
        else:
            self.fail(TimeoutError())

    def _finish(self, answer: Answer) -> None:
        self._answer = None
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        # An answer to a request that was not read to its end comes from a server that will close.
        self.is_usable = self.is_usable and answer.keeps_open and not self._transport.get_write_buffer_size()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Close, and let the request that waits raise this error."""
        self.drop()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
