"""Large bodies: malformed ones on several connections do not slow a payment, a stranger's is not read at all."""

import http.client
import itertools
import socket
import statistics
import threading
import time
from pathlib import Path

import pytest
from tillway_server import TillwayServer, init

MIB = 1 << 20
CONNECTIONS = 4
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

BODIES = [
    (JSON, b'{"metadata":[' + b"[]," * (MIB // 3 - 10)),
    (JSON, b'{"metadata":[' + b"1.5," * (MIB // 4 - 10) + b"1]}"),
    (JSON, b'{"metadata":' + b'{"a":' * (MIB // 5 - 10)),
    (JSON, b'{"description":"' + b"\\ud83d\\ude00" * (MIB // 12 - 10) + b'\\ud800"}'),
    (JSON, b"{" + b",".join(b'"%d":1' % i for i in range(90_000)) + b"}"),
    (FORM, b"&".join(b"a%d=" % i for i in range(120_000))),
    (FORM, b"description=" + b"%zzzz" * (MIB // 5 - 10)),
    (FORM, b"metadata" + b"[a]" * (MIB // 3 - 10) + b"=1"),
]


def send_malformed(server: TillwayServer, number: int, answered: list[int], stop: threading.Event) -> None:
    """Send one body after the other on one connection until `stop` is set. The status of each answer is kept."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for content_type, body in itertools.islice(itertools.cycle(BODIES), number, None):
        if stop.is_set():
            break
        headers = {"Authorization": f"Bearer {server.secret_key}", "Content-Type": content_type}
        connection.request("POST", "/v1/payment_intents", body, headers)
        with connection.getresponse() as answer:
            answer.read()
            answered.append(answer.status)
    connection.close()


def test_a_payment_beside_large_malformed_bodies(tmp_path: Path) -> None:
    """Four connections slowed a payment of 2 ms to 2.6 s."""
    server = TillwayServer(tmp_path, init(tmp_path))
    stop = threading.Event()
    answered: list[list[int]] = [[] for _ in range(CONNECTIONS)]
    threads = [
        threading.Thread(target=send_malformed, args=(server, number, answered[number], stop))
        for number in range(CONNECTIONS)
    ]
    try:
        for thread in threads:
            thread.start()
        while not all(answered):
            time.sleep(0.01)
        seconds: list[float] = []
        pay = {"amount": 700, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
        while len(seconds) < 20 or any(len(statuses) < len(BODIES) for statuses in answered):
            began = time.monotonic()
            status, payment = server.call("POST", "/v1/payment_intents", pay)
            seconds.append(time.monotonic() - began)
            assert (status, payment["status"]) == (200, "succeeded")
        assert statistics.median(seconds) < 1.0, "it takes a few milliseconds on a machine that does nothing else"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        server.stop()
    assert {status for statuses in answered for status in statuses} == {400}


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/v1/payment_intents", "sk_test_" + "x" * 40, 401),
        ("/v1/payment_intents", None, 413),
        ("/make-payment", "sk_test_" + "x" * 40, 401),
        ("/make-payment", None, 413),
        ("/v1/nowhere", None, 404),
    ],
)
@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_a_large_body_of_a_stranger_is_not_read(
    tillway_server: TillwayServer, path: str, key: str | None, status: int, framing: str
) -> None:
    """The answer comes although most of the body was never sent; for a good key the server waits for it."""
    sent = b"" if framing.startswith("Content") else b"9c40\r\n" + b"a" * 40_000 + b"\r\n"
    for given, answered in ((key, True), (tillway_server.secret_key, path == "/v1/nowhere")):
        credential = f"Authorization: Bearer {given}\r\n" if given else ""
        head = f"POST {path} HTTP/1.1\r\nHost: tillway\r\n{credential}{framing}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", tillway_server.port), timeout=10) as connection:
            connection.sendall(head + sent)
            if answered:
                assert connection.recv(65_536).split()[1] == str(status).encode()
            else:
                connection.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    connection.recv(65_536)
