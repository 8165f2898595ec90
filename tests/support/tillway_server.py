"""A server as an operator runs it: `tillway init` and `tillway serve` as processes of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import stripe
from typer.testing import CliRunner

from tillway.cli.installation import create
from tillway.cli.main import app
from tillway.settings import Settings

READY_WITHIN_SECONDS = 120.0
"""Beside a second run of the tests, or on a busy machine, a start takes ten times as long as alone."""

STOPPED_WITHIN_SECONDS = 90.0
_READY = re.compile(r"Tillway serves(?:\",\"url\":\"| )([^\s\"]+)")

# The environment without the settings of whoever runs the tests.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("TILLWAY_")}


def tillway(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one `tillway` command to its end, within four minutes."""
    return subprocess.run(
        [sys.executable, "-m", "tillway.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
    )


def tillway_json(*arguments: str | Path) -> Any:
    """What a command prints under `--json`; it must succeed."""
    done = tillway(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def invoked(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """As `tillway`, in this process, which is faster. Not for what starts servers or waits for signals."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def invoked_json(*arguments: str | Path) -> Any:
    """As `tillway_json`, in this process."""
    done = invoked(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class TillwayServer:
    """A running `tillway serve`. `log` holds the lines of its standard error."""

    def __init__(
        self,
        data_dir: Path,
        made: dict[str, str],
        arguments: Sequence[str] = (),
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        """`command` runs the server, with other limits for instance. It inherits the open `descriptors`."""
        self.data_dir = data_dir
        self.account = made["account"]
        self.secret_key = made["secret_key"]
        self.publishable_key = made["publishable_key"]
        self.live_secret_key = made["live_secret_key"]
        self.live_publishable_key = made["live_publishable_key"]
        self.base_url = ""
        self.log: list[str] = []
        self._ready = threading.Event()
        given = () if "--port" in arguments else ("--port", "0")
        at = arguments.index("--store") if "--store" in arguments else len(arguments)
        self.store_arguments = tuple(arguments[at : at + 2])
        self.process = subprocess.Popen(
            [
                *command,
                sys.executable,
                "-m",
                "tillway.cli.main",
                "serve",
                "--data-dir",
                str(data_dir),
                *given,
                *arguments,
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={**ENVIRONMENT, **(environment or {})},
            pass_fds=descriptors,
        )
        threading.Thread(target=self._read, daemon=True).start()
        if not self._ready.wait(READY_WITHIN_SECONDS) or not self.base_url:
            self.process.kill()
            raise AssertionError("the server did not start:\n" + "".join(self.log))

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.log.append(line)
                found = _READY.search(line)
                if found is not None:
                    self.base_url = found.group(1)
                    self._ready.set()
        self._ready.set()

    @property
    def port(self) -> int:
        return int(self.base_url.rpartition(":")[2])

    @property
    def client(self) -> Any:
        """The official SDK under the test secret key."""
        return self.client_with(self.secret_key)

    def client_with(self, key: str, **options: Any) -> Any:
        """A `stripe.StripeClient`. Its types would forbid the wrong parameters that tests send, and have them check
        every optional field for None."""
        return stripe.StripeClient(key, base_addresses={"api": self.base_url}, **{"max_network_retries": 0, **options})

    def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, idempotency_key: str | None = None
    ) -> tuple[int, Any]:
        """One request in JSON, under the test secret key if no other is given: the status, and what came back."""
        request = urllib.request.Request(
            self.base_url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {key or self.secret_key}", "Content-Type": "application/json"},
        )
        if idempotency_key is not None:
            request.add_header("Idempotency-Key", idempotency_key)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)

    def new_account(self) -> dict[str, str]:
        """Another merchant of this server: its `account` and keys, named as `tillway init` names them."""
        made: dict[str, str] = tillway_json("accounts", "create", "--data-dir", self.data_dir, *self.store_arguments)
        return made

    def stop(self, sign: int = signal.SIGTERM) -> int:
        """Stop it, and its exit code. A second call tells the code again."""
        if self.process.poll() is None:
            self.process.send_signal(sign)
        return self.process.wait(STOPPED_WITHIN_SECONDS)


def init(data_dir: Path, store: str = "") -> dict[str, str]:
    """A new installation, and what `tillway init --json` would say; made in this process, which is faster."""
    made = create(Settings(data_dir=data_dir, store=store))
    assert made is not None
    return made


StartServer = Callable[..., TillwayServer]
"""The fixture `start_server`: starts a server as `TillwayServer` does."""
