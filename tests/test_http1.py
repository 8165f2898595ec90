"""Answers of HTTP/1.1 as providers write them, whole and in pieces, and those that are none."""

import gzip
import zlib

import pytest

from tillway.http1 import HEAD_MAX, Answer, BadAnswer, Beginning

BODY_MAX = 100


def head(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode()


OK = "HTTP/1.1 200 OK"
LENGTH = "Content-Length: 5"
CHUNKED = "Transfer-Encoding: chunked"


def read(content: bytes, *, at_once: int, method: str = "POST") -> tuple[Answer, bool]:
    """Feed the bytes in pieces of that size, to the end of the answer or of the connection."""
    answer, whole = Answer(method, BODY_MAX), False
    for start in range(0, len(content), at_once):
        # A server sends nothing behind a whole answer but in the same piece.
        if whole:
            break
        whole = answer.feed(content[start : start + at_once])
    return answer, whole or answer.end()


@pytest.mark.parametrize("at_once", [1, 2, 7, 10_000])
@pytest.mark.parametrize(
    ("content", "status", "body", "keeps_open"),
    [
        (head(OK, LENGTH) + b"hello", 200, b"hello", True),
        (head(OK, "content-length: 0"), 200, b"", True),
        (head("HTTP/1.1 200", LENGTH) + b"hello", 200, b"hello", True),
        (head("HTTP/1.1 503 Bus\xe9", LENGTH) + b"hello", 503, b"hello", True),
        (head(OK, LENGTH, "Connection: close") + b"hello", 200, b"hello", False),
        (head(OK, LENGTH, "Connection: Upgrade, Close") + b"hello", 200, b"hello", False),
        (head("HTTP/1.0 200 OK", LENGTH) + b"hello", 200, b"hello", False),
        (head("HTTP/1.0 200 OK", LENGTH, "Connection: Keep-Alive") + b"hello", 200, b"hello", True),
        (head(OK, "Content-Length: 5, 5", "content-length: 5") + b"hello", 200, b"hello", True),
        (head(OK) + b"to the end", 200, b"to the end", False),
        (head(OK), 200, b"", False),
        (head(OK, "Transfer-Encoding: gzip") + b"to the end", 200, b"to the end", False),
        (head(OK, CHUNKED) + b"5\r\nhello\r\n1;a=b\r\n!\r\n0\r\n\r\n", 200, b"hello!", True),
        (head(OK, CHUNKED) + b"0\r\n\r\n", 200, b"", True),
        (head(OK, CHUNKED) + b"0A\r\n0123456789\r\n0\r\nDigest: x\r\n\r\n", 200, b"0123456789", True),
        (head(OK, CHUNKED, LENGTH) + b"5\r\nhello\r\n0\r\n\r\n", 200, b"hello", False),
        (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", 200, b"hello", True),
        (b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n", 200, b"hello", True),
        (head("HTTP/1.1 100 Continue") + head(OK, LENGTH) + b"hello", 200, b"hello", True),
        (head("HTTP/1.1 103 Early", "link: x") + head("HTTP/1.1 204 No", "a: b"), 204, b"", True),
        (head("HTTP/1.1 304 Same", LENGTH), 304, b"", True),
        (head("HTTP/1.1 101 Other", "upgrade: h2c"), 101, b"", False),
    ],
)
def test_an_answer(content: bytes, status: int, body: bytes, keeps_open: bool, at_once: int) -> None:
    answer, whole = read(content, at_once=at_once)
    assert (answer.status, answer.content(), answer.keeps_open, whole) == (status, body, keeps_open, True)


def test_headers_are_named_in_lower_case_and_a_folded_one_is_one_line() -> None:
    answer, _ = read(head(OK, LENGTH, "Retry-After:7 ", "X-Long: a", "\t b", "X: 1", "x: 2") + b"hello", at_once=3)
    assert answer.headers == {"content-length": "5", "retry-after": "7", "x-long": "a b", "x": "2"}


def test_an_answer_to_head_has_no_body() -> None:
    answer, whole = read(head(OK, LENGTH), at_once=100, method="HEAD")
    assert (answer.content(), answer.keeps_open, whole) == (b"", True, True)


@pytest.mark.parametrize("rest", [b"more", head(OK, LENGTH)])
@pytest.mark.parametrize("content", [head(OK, LENGTH) + b"hello", head(OK, CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n"])
def test_bytes_that_nobody_asked_for_end_the_connection(content: bytes, rest: bytes) -> None:
    answer = Answer("POST", BODY_MAX)
    assert answer.feed(content + rest)
    assert (answer.content(), answer.keeps_open) == (b"hello", False)


@pytest.mark.parametrize("at_once", [1, 3, 100_000])
@pytest.mark.parametrize(
    "content",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        head("HTTP/2 200 OK"),
        head("HTTP/1.1 20 OK"),
        head("HTTP/1.1 2000 OK"),
        head(OK, "no colon"),
        head(OK, "Content-Length : 5"),
        head(OK, ": no name"),
        head(OK, "A: b", ": no name", "C: d"),
        head(OK, "A: b", "Grüße: c", "D: e"),
        head(OK, "A: b", "\u212a: c"),
        head(OK, "A: b", "with space: c"),
        head(OK, f"Content-Length: {'9' * 5_000}"),
        head(OK, "Content-Length: 5", "Content-Length: 6"),
        head(OK, "Content-Length: -5"),
        head(OK, "Content-Length: 5a"),
        head(OK, "Content-Length: ٣"),
        head(OK, "Content-Length:"),
        head(OK, f"Content-Length: {BODY_MAX + 1}"),
        head(OK, f"X: {'x' * HEAD_MAX}"),
        head(OK) + b"x" * (BODY_MAX + 1),
        head(OK, CHUNKED) + b"g\r\n",
        head(OK, CHUNKED) + b"-1\r\n",
        head(OK, CHUNKED) + b"\r\n",
        head(OK, CHUNKED) + b"5\r\nhello!\r\n",
        head(OK, CHUNKED) + b"ffffffffffffffffff\r\n",
        head(OK, CHUNKED) + b"65\r\n",
        head(OK, CHUNKED) + b"40\r\n" + b"x" * 64 + b"\r\n40\r\n" + b"x" * 64,
        head(OK, CHUNKED) + b"5;" + b"x" * 5_000,
        head(OK, CHUNKED) + b"0\r\n" + (b"x: " + b"x" * 1_000 + b"\r\n") * 70,
    ],
)
def test_no_answer(content: bytes, at_once: int) -> None:
    with pytest.raises(BadAnswer):
        read(content, at_once=at_once)


@pytest.mark.parametrize("at_once", [1, 2, 7, 10_000])
@pytest.mark.parametrize(
    ("content", "body", "keeps_open"),
    [
        (head(OK, "Content-Length: 2") + b"ok", b"ok", True),
        (head(OK, "Content-Length: 0"), b"", True),
        (head(OK, f"Content-Length: {1 << 40}") + b"x" * 200, b"x" * BODY_MAX, False),
        (head(OK, CHUNKED) + b"2\r\nok\r\n0\r\n\r\n", b"ok", True),
        (head(OK, CHUNKED) + b"c8\r\n" + b"x" * 200, b"x" * BODY_MAX, False),
        (head(OK, CHUNKED) + b"g\r\n", b"", False),
        (head(OK) + b"x" * 200, b"x" * BODY_MAX, False),
    ],
)
def test_the_beginning_of_an_answer_is_done_with_the_first_part_of_its_body(
    content: bytes, body: bytes, keeps_open: bool, at_once: int
) -> None:
    answer = Beginning("POST", BODY_MAX)
    done = [answer.feed(content[start : start + at_once]) for start in range(0, len(content), at_once)]
    first = done.index(True)
    assert answer.status == 200 and answer.is_enough()
    assert body.startswith(answer.content())
    if first == len(done) - 1 and at_once == 10_000:
        assert (answer.content(), answer.keeps_open) == (body, keeps_open)
    if not keeps_open:
        assert not answer.keeps_open


def test_the_beginning_of_an_answer_without_a_clear_length_is_none() -> None:
    answer = Beginning("POST", BODY_MAX)
    with pytest.raises(BadAnswer):
        answer.feed(head(OK, LENGTH, "Content-Length: 6") + b"hello")
    assert not answer.is_enough()


@pytest.mark.parametrize(
    "content", [b"", b"HTTP/1.1 200 OK\r\n", head(OK, LENGTH) + b"hell", head(OK, CHUNKED) + b"5\r\nhello\r\n0\r\n"]
)
def test_an_answer_that_ends_too_soon_is_not_whole(content: bytes) -> None:
    _, whole = read(content, at_once=100)
    assert not whole


def coded(coding: str, content: bytes) -> Answer:
    answer = Answer("POST", BODY_MAX)
    assert answer.feed(head(OK, f"Content-Encoding: {coding}", f"Content-Length: {len(content)}") + content)
    return answer


def test_codings() -> None:
    for coding, encoded in (("gzip", gzip.compress(b"hello")), ("Deflate", zlib.compress(b"hello")), ("br", b"hello")):
        assert coded(coding, encoded).content() == b"hello"
    for broken in (b"hello", gzip.compress(b"hello")[:-4], gzip.compress(b"x" * (BODY_MAX + 1))):
        with pytest.raises(BadAnswer):
            coded("gzip", broken).content()
