"""A way to the emulator of AWS that counts the requests to DynamoDB and their write units."""

import http.client
import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from bench.units import UnitCounter

BANK = re.compile(rb"/sbo_")
"""Keys of the simulated bank's operations: no other bank has them in the table."""

SHARED = re.compile(rb"/thr_")
"""Keys of the throttles' buckets that environments share."""


class Counted:
    """Passes requests on to the emulator, and notes their operations."""

    def __init__(self, endpoint: str) -> None:
        self.operations: list[str] = []
        """The operations in order, without those of the simulated bank."""
        self.shares = 0
        """How many of these were about buckets that environments share."""
        self.units = Counter[str]()
        """The write units of these, by the type of record."""
        counted, to, counter = self, urlsplit(endpoint).netloc, UnitCounter()

        class Door(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                service, _, operation = self.headers["x-amz-target"].rpartition(".")
                if service.startswith("DynamoDB") and not BANK.search(body):
                    counted.operations.append(operation)
                    counted.shares += bool(SHARED.search(body))
                    counter.count(operation, json.loads(body), counted.units)
                onward = http.client.HTTPConnection(to, timeout=60)
                onward.request("POST", self.path, body, dict(self.headers))
                answer = onward.getresponse()
                data = answer.read()
                onward.close()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                        self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        self.operations.clear()
        self.shares = 0
        self.units.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
