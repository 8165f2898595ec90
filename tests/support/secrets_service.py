"""Secrets Manager as its API reference describes it: versions of one secret, and one content for each request token."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import pytest


class SecretsService:
    """The versions of the one secret in it, by their request tokens, newest last. `calls` are the operations so far."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}
        self.calls: list[str] = []
        self.lock = Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with service.lock:
                    status, answer = service.answer(self.headers["x-amz-target"].rpartition(".")[2], body)
                encoded = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, operation: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.calls.append(operation)
        match operation:
            case "GetSecretValue" if self.versions:
                version = list(self.versions)[-1]
                return 200, {"VersionId": version, "SecretString": self.versions[version]}
            case "GetSecretValue":
                return 400, {"__type": "ResourceNotFoundException", "Message": "there is no value AWSCURRENT"}
            case "PutSecretValue":
                token, content = body["ClientRequestToken"], body["SecretString"]
                assert 32 <= len(token) <= 64
                if self.versions.setdefault(token, content) != content:
                    return 400, {"__type": "ResourceExistsException", "Message": "the version has another content"}
                return 200, {"VersionId": token}
        raise AssertionError(operation)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def secrets_service() -> Iterator[SecretsService]:
    """The service, with the environment of a process that may call it."""
    service = SecretsService()
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", service.endpoint)
            environment.setenv("AWS_REGION", "eu-central-1")
            environment.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            environment.setenv("AWS_SECRET_ACCESS_KEY", "very/secret")
            yield service
    finally:
        service.close()
