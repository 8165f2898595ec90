"""Runs one Lambda function in a process of its own, as Lambda does: one event at a time, in one environment.

`python function_host.py tillway.aws.api.handler` prints its port and answers HTTP: for the API, each request becomes an
event of an HTTP API (payload 2.0); for the others, the body of a POST is the event.
"""

import base64
import importlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

STARTS_WITHIN_SECONDS = 60


class Context:
    """The part of Lambda's context that handlers read."""

    aws_request_id = "11111111-2222-3333-4444-555555555555"

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return int((self._until - time.monotonic()) * 1000)


def http_event(method: str, target: str, headers: Mapping[str, str], body: bytes, host: str) -> dict[str, Any]:
    """An event of an HTTP API with payload version 2.0."""
    parts = urlsplit(target)
    text = headers.get("content-type", "").startswith(("application/", "text/"))
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": parts.path,
        "rawQueryString": parts.query,
        "headers": dict(headers),
        "requestContext": {
            "domainName": host,
            "stage": "$default",
            "http": {"method": method, "path": parts.path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"},
        },
        "body": body.decode() if text else base64.b64encode(body).decode(),
        "isBase64Encoded": not text,
    }


def _serve(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    handler = getattr(importlib.import_module(module), attribute)

    class Door(BaseHTTPRequestHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if module.endswith(".api"):
                headers = {key.lower(): value for key, value in self.headers.items()}
                event = http_event(self.command, self.path, headers, body, self.headers["host"])
            else:
                event = json.loads(body)
            # A real event is JSON, and so is a real answer.
            answer = json.loads(json.dumps(handler(json.loads(json.dumps(event)), Context(29.0))))
            if not module.endswith(".api"):
                answer = {"statusCode": 200, "headers": {}, "body": json.dumps(answer), "isBase64Encoded": False}
            content = answer["body"].encode()
            if answer["isBase64Encoded"]:
                content = base64.b64decode(content)
            self.send_response(answer["statusCode"])
            for key, value in answer["headers"].items():
                self.send_header(key, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_PUT = do_HEAD = do_OPTIONS = _do

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Door)
    print(server.server_port, flush=True)
    server.serve_forever()


class Function:
    """One environment of one function, in the environment variables given."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TILLWAY_", "AWS_"))}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), f"tillway.aws.{name}.handler"],
            env={**inherited, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        assert port, f"{name} did not start"
        self.url = f"http://127.0.0.1:{port}"

    def invoke(self, event: Any) -> Any:
        """The answer to an event; for functions other than the API's."""
        request = urllib.request.Request(self.url, json.dumps(event).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=STARTS_WITHIN_SECONDS) as answer:
            return json.load(answer)

    def kill(self) -> None:
        """End the environment without a word, as Lambda does."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


if __name__ == "__main__":
    _serve(sys.argv[1])
