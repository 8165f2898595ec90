"""Log lines: their form, what is kept out of them, and a reader that does not read."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tillway.telemetry.lines import Format, LineHandler, Lines, Writer, redacted

Read = Callable[[], str]


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Callable[[Format], tuple[Lines[Writer], Read]]]:
    """Lines into a file, and what is in it once all are written."""
    descriptor = os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY)

    def made(form: Format) -> tuple[Lines[Writer], Read]:
        writer = Writer(descriptor)

        def read() -> str:
            writer.close()
            return (tmp_path / "log").read_text()

        return Lines(writer, form), read

    yield made
    os.close(descriptor)


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("tillway.x", logging.WARNING, __file__, 1, message, arguments, None)
    made.__dict__.update(extra)
    return made


def test_json(written: Callable[[Format], tuple[Lines[Writer], Read]]) -> None:
    lines, read = written("json")
    lines.say("request", {"method": "GET", "status": 200, "ms": 1.5})
    lines.record(record("of %s", "a\nlibrary", why="4242 4242 4242 4242", tries=3))
    try:
        raise ValueError("card 4242424242424242 and sk_live_0123456789abcdef")
    except ValueError as error:
        failed = record("failed")
        failed.exc_info = (ValueError, error, error.__traceback__)
        LineHandler(lines).emit(failed)
    first, second, third = [json.loads(line) for line in read().splitlines()]
    assert time.strptime(first.pop("time")[:19], "%Y-%m-%dT%H:%M:%S")
    assert first == {"level": "info", "message": "request", "method": "GET", "status": 200, "ms": 1.5}
    assert (second["level"], second["message"], second["logger"]) == ("warning", "of a\nlibrary", "tillway.x")
    assert (second["why"], second["tries"]) == ("****", 3)
    assert third["exception"].startswith("Traceback") and "ValueError: card **** and sk_live_****" in third["exception"]


def test_text(written: Callable[[Format], tuple[Lines[Writer], Read]]) -> None:
    lines, read = written("text")
    lines.tell("Tillway serves", url="http://127.0.0.1:1")
    lines.say("request", {"method": "GET", "status": 200})
    lines.record(record("of a\nlibrary \ud800 2\N{ARABIC-INDIC DIGIT FOUR}", why="x"))
    first, second, third = read().splitlines()
    assert first == "Tillway serves http://127.0.0.1:1"
    assert second.endswith("Z INFO request method=GET status=200")
    assert "WARNING of a\\nlibrary \\ud800" in third and third.endswith("logger=tillway.x why=x")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("card 4242 4242 4242 4242.", "card ****."),
        ("DE89 3704 0044 0532 0130 00", "****"),
        ("to de89370400440532013000", "to ****"),
        ("account 000123456789 at 110000000", "account **** at ****"),
        ("call +49 30 12345678", "call +****"),
        ("key sk_test_abcdEFGH1234", "key sk_test_****"),
        ("pi_1_secret_abcdefgh", "pi_1_secret_****"),
        ("whsec_abcdefgh", "whsec_****"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ****"),
        ("eyJhbGciOi.eyJzdWIi.c2ln is no good", "**** is no good"),
        ("HTTP 503 at 127.0.0.1:54321 in 0.25 s", "HTTP 503 at 127.0.0.1:54321 in 0.25 s"),
        ("IBAN_DE89370400440532013000", "IBAN_****"),
        ("iban_NL91ABNA0417164300, iban_BE68539007547034", "iban_****, iban_****"),
        ("oi_ab12345678901234cd.succeeded", "oi_ab12345678901234cd.succeeded"),
        ("oi_ab1234567890c1234.declined acct_Ab12345678901234", "oi_ab1234567890c1234.declined acct_Ab12345678901234"),
        ("Ab12345678901234l8DmJ8br66UEueLJ01", "Ab12345678901234l8DmJ8br66UEueLJ01"),
        ("acct_VuzNA2cMs3Ae7VF9 pi_8DmJ8br66UEueLJ01", "acct_VuzNA2cMs3Ae7VF9 pi_8DmJ8br66UEueLJ01"),
    ],
)
def test_what_is_masked_and_what_is_not(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_a_reader_that_does_not_read_stops_nobody() -> None:
    readable, writable = os.pipe()
    writer = Writer(writable, lines_max=100)
    began = time.monotonic()
    for _ in range(2000):
        writer.write(b"x" * 1000 + b"\n")
        if writer.dropped:
            break
        time.sleep(0.0005)
    assert writer.dropped and time.monotonic() - began < 5, "the pipe is full, and nobody waits"

    got: list[bytes] = []

    def drain() -> None:
        while piece := os.read(readable, 65_536):
            got.append(piece)

    reader = threading.Thread(target=drain)
    reader.start()
    time.sleep(0.1)
    writer.write(b"the last\n")
    writer.close()
    os.close(writable)
    reader.join(5)
    os.close(readable)
    whole = b"".join(got)
    assert whole.endswith(b"the last\n") and set(whole.split(b"\n")) == {b"x" * 1000, b"the last", b""}


def test_a_reader_that_is_gone_stops_nobody() -> None:
    readable, writable = os.pipe()
    os.close(readable)
    writer = Writer(writable)
    for _ in range(10):
        writer.write(b"x\n")
    began = time.monotonic()
    writer.close()
    os.close(writable)
    assert time.monotonic() - began < 10
