"""A merchant's endpoint for webhooks, on this machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Endpoint:
    """A merchant's endpoint, which keeps the events that it was sent."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        endpoint = self

        class Door(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                endpoint.events.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.url = f"http://127.0.0.1:{self._server.server_port}/events"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
