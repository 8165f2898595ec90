"""Log lines: one JSON object or one line of text each, without card numbers, account numbers and secrets. A separate
thread writes them, so that a full pipe never stops the event loop.

A line about a request or a task has only Tillway's own names, ids and numbers (see `engine/telemetry.py`) and is
written unchanged. Every other line, of any library, may quote callers' data and is masked.
"""

import contextlib
import logging
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Generic, Literal, Protocol, TypeVar

import msgspec

from tillway.domain.cards import without_card_numbers
from tillway.domain.late_pattern import late_pattern

Format = Literal["json", "text"]

LINES_MAX = 20_000
"""Lines that wait for the thread. Further lines are dropped and counted: a payment never waits for a log."""

LINE_CHARACTERS_MAX = 32_768
GATHER_SECONDS = 0.02
"""How long the thread collects lines before it writes them together."""

CLOSE_SECONDS = 2.0
CHUNK_LINES = 1000

_MASK = "****"
_SECRETS = late_pattern(
    r"((?:sk|pk|rk|ek)_(?:test|live)_|whsec_|_secret_|(?i:bearer|basic) +)[0-9A-Za-z._~+/=-]{4,}"
    r"|()eyJ[0-9A-Za-z_-]+\.[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]*)?"
)
_ID = r"acct_[0-9A-Za-z]{16}|[a-z]{2,12}_(?:[0-9A-Za-z]{17}|[0-9a-f]{18})|[0-9A-Za-z]{16}[lt][0-9A-Za-z]{17}"
"""Tillway's ids and references. Each may begin like an IBAN. No country's IBAN has 17 or 34 characters, or 18 that are
hexadecimal digits."""

_IBAN = late_pattern(rf"(?<![0-9A-Za-z])(?:({_ID})|[A-Za-z]{{2}}[0-9]{{2}}(?: ?[0-9A-Za-z]){{11,30}})(?![0-9A-Za-z])")
_IBAN_DIGITS_MIN = 10
_LONG_NUMBER = late_pattern(r"(?<![0-9A-Za-z])[0-9](?: ?[0-9]){7,}(?![0-9A-Za-z])")


def redacted(text: str) -> str:
    """Mask `text` for a log: card numbers, numbers of eight digits and more (accounts, telephones), IBANs and
    secrets."""
    text = without_card_numbers(text.encode(errors="backslashreplace").decode())
    text = _IBAN.sub(_without_iban, text)
    text = _LONG_NUMBER.sub(_MASK, text)
    return _SECRETS.sub(lambda found: f"{found[1] or ''}{_MASK}", text)


def _without_iban(found: re.Match[str]) -> str:
    if found[1] is not None or sum(map(str.isdigit, found[0])) < _IBAN_DIGITS_MIN:
        return found[0]
    return _MASK


class Writer:
    """Bytes to a file descriptor, from any thread, without ever waiting. `dropped` counts lines that had no room."""

    def __init__(self, descriptor: int, lines_max: int = LINES_MAX) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._lines_max = lines_max
        self._waiting: deque[bytes] = deque()
        self._some = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="tillway-log", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        if len(self._waiting) >= self._lines_max:
            self.dropped += 1
            return
        self._waiting.append(line)
        if not self._some.is_set():
            self._some.set()

    def switch_to(self, descriptor: int) -> None:
        """Write to that file from now on. The writer then owns its descriptor."""
        os.dup2(descriptor, self._descriptor, inheritable=False)
        os.close(descriptor)

    def close(self, within_seconds: float = CLOSE_SECONDS) -> None:
        """Write the waiting lines, for at most this long: a full pipe does not keep a server from ending."""
        self._closing.set()
        self._some.set()
        self._thread.join(within_seconds)

    def _write_all(self) -> None:
        while True:
            self._some.wait()
            self._closing.wait(GATHER_SECONDS)
            self._some.clear()
            while self._waiting:
                chunk = b"".join(self._waiting.popleft() for _ in range(min(len(self._waiting), CHUNK_LINES)))
                if not self._write(chunk):
                    self._waiting.clear()
            if self._closing.is_set() and not self._waiting:
                return

    def _write(self, chunk: bytes) -> bool:
        """Write, and return whether the bytes were taken. False if the other end is closed."""
        rest = memoryview(chunk)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                time.sleep(GATHER_SECONDS)  # The other end of a pipe may have made it non-blocking.
            except OSError:
                return False
        return True


class Output(Protocol):
    """Takes whole lines."""

    def write(self, line: bytes) -> None: ...


W = TypeVar("W", bound=Output)


class DirectWriter:
    """Lines to standard error at once, for a process that may be frozen as soon as its work is done."""

    def write(self, line: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line.decode())
            sys.stderr.flush()


class Lines(Generic[W]):
    """Formats lines and passes them to the writer."""

    def __init__(self, writer: W, form: Format) -> None:
        self.writer = writer
        self.form = form
        self._second = 0
        self._stamp = ""

    def say(self, what: str, facts: Mapping[str, Any], level: str = "info") -> None:
        """Write a line of Tillway's own fields, without masking."""
        self.writer.write(self._line(time.time(), level, what, facts))

    def tell(self, text: str, **facts: str) -> None:
        """Write a sentence for the person who started the server: in text format, it is the whole line."""
        if self.form == "text":
            self.writer.write(" ".join((text, *facts.values())).encode() + b"\n")
        else:
            self.say(text, facts)

    def record(self, record: logging.LogRecord) -> None:
        """Write a record of the standard library's logging, with all its text masked."""
        facts: dict[str, Any] = {"logger": record.name}
        for name, value in record.__dict__.items():
            if name not in _PLAIN:
                facts[name] = value if isinstance(value, int | float) else redacted(str(value)[:LINE_CHARACTERS_MAX])
        if record.exc_info:
            facts["exception"] = redacted(_FORMATTER.formatException(record.exc_info))
        elif record.exc_text:
            facts["exception"] = redacted(record.exc_text)
        self.writer.write(
            self._line(
                record.created, record.levelname.lower(), redacted(record.getMessage()[:LINE_CHARACTERS_MAX]), facts
            )
        )

    def _line(self, at: float, level: str, what: str, facts: Mapping[str, Any]) -> bytes:
        second = int(at)
        if second != self._second:
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        stamp = f"{self._stamp}.{int((at - second) * 1000):03}Z"
        if self.form == "json":
            return _encode({"time": stamp, "level": level, "message": what, **facts}) + b"\n"
        more = " ".join(f"{name}={value}" for name, value in facts.items() if name != "exception")
        trace = f"\n{facts['exception']}" if "exception" in facts else ""
        line = f"{stamp} {level.upper()} {what} {more}"[:LINE_CHARACTERS_MAX]
        return (line.replace("\n", "\\n") + trace[:LINE_CHARACTERS_MAX] + "\n").encode(errors="backslashreplace")


class LineHandler(logging.Handler):
    """Passes the standard library's log records to `Lines`."""

    def __init__(self, lines: Lines[Any]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.record(record)
        except Exception:
            with contextlib.suppress(
                Exception
            ):  # A record that cannot be formatted must not fail the code that logged it.
                self._lines.say("a log record could not be formatted", {"logger": record.name}, "error")


_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_FORMATTER = logging.Formatter()
_encode = msgspec.json.Encoder().encode
