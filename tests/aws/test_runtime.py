"""The built package under Amazon's own programs: its runtime interface client for Python (PyPI `awslambdaric`), and
its runtime interface emulator, which speaks the Runtime API to that client and takes events by HTTP.

The emulator is in no registry under a name of its own (npm, Debian and PyPI were searched, and Go's module has no
binary); the wheel of `aws-sam-cli` carries its binaries for both architectures. Both go into an environment of the
test's own, so that every other import is the package's.
"""

import json
import os
import platform
import signal
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from aws_stage import Stage
from function_host import http_event
from function_package import build
from own_environment import python_with

from tillway.crash.free_port import free_port

pytestmark = pytest.mark.soak

CLIENT, EMULATOR = "awslambdaric==4.2.2", "aws-sam-cli==1.170.0"
CLIENT_NEEDS = ("simplejson==4.3.0", "snapshot-restore-py==1.0.0")
ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}
WITHIN_SECONDS = 60.0


class Lambda:
    """One function in the emulator, which starts its environment with the first event. `close` ends both."""

    def __init__(self, python: Path, emulator: Path, package: Path, log: Path, variables: dict[str, str]) -> None:
        port = free_port()
        self._url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
        listens = f"--runtime-interface-emulator-address=127.0.0.1:{port}"
        inside = f"--runtime-api-address=127.0.0.1:{free_port()}"
        self.log = log
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                (emulator, listens, inside, python, "-m", "awslambdaric", "tillway.aws.api.handler"),
                cwd=package,
                env={"PATH": os.defpath, "LAMBDA_TASK_ROOT": str(package), **variables},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def invoke(self, event: Any) -> Any:
        request = urllib.request.Request(self._url, json.dumps(event).encode())
        deadline = time.monotonic() + WITHIN_SECONDS
        while True:
            try:
                with urllib.request.urlopen(request, timeout=WITHIN_SECONDS) as answer:
                    return json.load(answer)
            except urllib.error.URLError as refused:
                # Nothing was sent where no connection was made.
                began = isinstance(refused.reason, ConnectionRefusedError)
                if not began or time.monotonic() > deadline or self._process.poll() is not None:
                    raise AssertionError(self.log.read_text()[-3000:]) from refused
            time.sleep(0.05)

    def pay(self, key: str, method: str, name: str) -> tuple[int, dict[str, Any]]:
        """Create and confirm a payment under an Idempotency-Key."""
        params = {"amount": 4200, "currency": "eur", "confirm": "true", "payment_method": method}
        params["return_url"] = "https://shop.example/back"
        headers = {"authorization": f"Bearer {key}", "idempotency-key": name}
        headers["content-type"] = "application/x-www-form-urlencoded"
        body = urlencode(params).encode()
        answer = self.invoke(http_event("POST", "/v1/payment_intents", headers, body, "shop.example"))
        return answer["statusCode"], json.loads(answer["body"])

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture(scope="module")
def started(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Lambda]]:
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        pytest.skip(f"Amazon's emulator is not made for {machine}")
    home = tmp_path_factory.mktemp("runtime")
    # The emulator's wheel brings one program, and its dependencies belong to another.
    python = python_with(home / "client", "--no-deps", CLIENT, *CLIENT_NEEDS, EMULATOR)
    [emulator] = (home / "client").rglob(f"aws-lambda-rie-{ARCHITECTURES[machine]}")
    package = home / "task"
    with zipfile.ZipFile(build("local")) as opened:
        opened.extractall(package)
    running: list[Lambda] = []

    def start(**variables: str) -> Lambda:
        log = home / f"{len(running)}.log"
        running.append(Lambda(python, emulator, package, log, {**stage.environment, **variables}))
        return running[-1]

    yield start
    for function in running:
        function.close()


def test_payments_in_turn_through_amazons_runtime(stage: Stage, started: Callable[..., Lambda]) -> None:
    key = stage.function("admin").invoke({"action": "init", "name": "Shop"})["secret_key"]
    function = started(TILLWAY_LOG_LEVEL="info")
    status, first = function.pay(key, "pm_card_visa", "order-1")
    assert (status, first["status"], first["amount_received"]) == (200, "succeeded", 4200)
    status, declined = function.pay(key, "pm_card_visa_chargeDeclined", "order-2")
    assert (status, declined["error"]["code"]) == (402, "card_declined")
    status, repeated = function.pay(key, "pm_card_visa", "order-1")
    assert (status, repeated["id"]) == (200, first["id"])
    assert function.invoke({"version": "2.0"})["statusCode"] == 400
    # One environment answered all four.
    said = function.log.read_text()
    assert said.count("INIT START") == 1 and said.count("START RequestId") == 4, said[-3000:]


def test_a_fault_of_ours_goes_to_the_runtime_and_the_next_event_is_heard(started: Callable[..., Lambda]) -> None:
    function = started(TILLWAY_ANSWER_WITHIN_SECONDS="soon")
    event = http_event("GET", "/v1/balance", {"authorization": "Bearer sk_test_none"}, b"", "shop.example")
    for _ in range(2):
        failed = function.invoke(event)
        assert failed["errorType"] == "SettingsInvalid" and "answer_within_seconds" in failed["errorMessage"]
        assert failed["stackTrace"] and failed["requestId"]
