"""A running `tillway bank`, and what its journal says."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tillway_server import ENVIRONMENT

from tillway.crash.free_port import free_port

STOPPED_WITHIN_SECONDS = 60.0


class BankProcess:
    """`arguments` are those of `tillway bank`. It can be stopped and started again: port and journal stay."""

    def __init__(self, journal: Path, *arguments: str) -> None:
        self.journal = journal
        self.arguments = arguments
        self.port = free_port()
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tillway.cli.main", "bank", "--port", str(self.port)),
                *("--journal", str(self.journal), *self.arguments),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"listening on \S+:(\d+)", line)
        assert found is not None, line
        self.port = int(found.group(1))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self, sign: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(sign)
        code = self.process.wait(STOPPED_WITHIN_SECONDS)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def strike(self, *rules: Mapping[str, Any]) -> None:
        """Misbehave by these rules (`tillway.sandbox.faults`) from now on; none given: behave."""
        request = urllib.request.Request(f"{self.url}/_faults", json.dumps({"rules": rules}).encode())
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except urllib.error.HTTPError as refused:
            raise AssertionError(refused.read().decode()) from None

    def dispute(self, **report: Any) -> dict[str, Any]:
        """Open, move or end a dispute (`Bank.tell_dispute`); the bank sends its notice. The dispute as it stands."""
        request = urllib.request.Request(f"{self.url}/_disputes", json.dumps(report).encode())
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                told: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as refused:
            raise AssertionError(refused.read().decode()) from None
        return told

    def effects(self) -> list[dict[str, Any]]:
        """Every effect in the journal: an operation as it came, and again whenever its status changed."""
        lines = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return [line for line in lines if "reference" in line]

    def operations(self, amount: int | None = None) -> dict[str, dict[str, Any]]:
        """The operations (those of that amount) by reference, as they stand. A reference that came into being twice
        is an error of the bank's or ours, and fails here."""
        found: dict[str, dict[str, Any]] = {}
        for effect in self.effects():
            before = found.get(effect["reference"])
            now = (effect["status"], effect.get("told"))
            assert before is None or (before["status"], before.get("told")) != now, f"performed twice: {effect}"
            found[effect["reference"]] = effect
        return {name: line for name, line in found.items() if amount is None or line["amount"] == amount}
