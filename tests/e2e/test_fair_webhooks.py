"""Merchants share a process's places for webhooks: slow endpoints of one do not delay those of another."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tillway_server import TillwayServer, init

EVENTS = 15
SLOW_EVENTS = 60
"""Each is sent to 16 endpoints: many times the places that a process has."""

WITHIN_SECONDS = 8.0
"""It took 100 s. On an idle machine it is well below a second; a slow endpoint answers after 9 s."""


class Endpoint(ThreadingHTTPServer):
    """Counts the webhooks it gets. While `slow` is unset, it answers none at /slow."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.fast = threading.Semaphore(0)
        self.slow_under_way = threading.Semaphore(0)
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/slow"):
            self.server.slow_under_way.release()
            self.server.released.wait(9)
        self.send_response(200)
        self.end_headers()
        if self.path == "/fast":
            self.server.fast.release()

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""


def test_sixteen_slow_endpoints_of_one_merchant_do_not_delay_another(tmp_path: Path) -> None:
    server, endpoint = TillwayServer(tmp_path, init(tmp_path)), Endpoint()
    try:
        other = server.new_account()["secret_key"]
        for number in range(16):
            made = {"url": endpoint.url(f"/slow/{number}"), "enabled_events": ["customer.created"]}
            assert server.call("POST", "/v1/webhook_endpoints", made)[0] == 200
        made = {"url": endpoint.url("/fast"), "enabled_events": ["customer.created"]}
        assert server.call("POST", "/v1/webhook_endpoints", made, key=other)[0] == 200
        for _ in range(SLOW_EVENTS):
            assert server.call("POST", "/v1/customers", {"name": "A"})[0] == 200
        for _ in range(16):
            assert endpoint.slow_under_way.acquire(timeout=30)
        began = time.monotonic()
        for _ in range(EVENTS):
            assert server.call("POST", "/v1/customers", {"name": "B"}, key=other)[0] == 200
        for _ in range(EVENTS):
            assert endpoint.fast.acquire(timeout=WITHIN_SECONDS - (time.monotonic() - began))
    finally:
        endpoint.released.set()
        server.stop()
        endpoint.shutdown()
        endpoint.server_close()
