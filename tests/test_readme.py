"""The README's code blocks, run as they stand: only the place, the port and the address to clone from are the test's.

`make demo` runs in a real clone with the environment that runs the tests, so that nothing is installed again.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tillway_server import ENVIRONMENT

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
ADDRESS: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
SERVED = "http://127.0.0.1:8420"

READY_WITHIN_SECONDS = 180

# Git hands the variables of its own run to hooks, and a test may be run by one.
OUTSIDE = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("GIT_")}

pytestmark = [
    pytest.mark.skipif(
        not all(map(shutil.which, ("bash", "curl", "git", "make"))), reason="needs bash, curl, git and make"
    ),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git clone, so there is nothing to clone"),
    pytest.mark.skipif(
        not (Path(sys.prefix) / ".installed").exists(), reason="the tests do not run in an environment that make made"
    ),
]


class Typed:
    """A block of shell, typed at a prompt in `place`. It goes on running; `text` is all that it has printed."""

    def __init__(self, place: Path, block: str, **environment: str) -> None:
        self.text = ""
        self._grew = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            ["bash", "-euc", block],
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # A port of the system's choice: the README's may be taken.
            env={**OUTSIDE, "TILLWAY_PORT": "0", **environment},
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._grew:
                self.text += line
                self._grew.notify_all()
        with self._grew:
            self._ended = True
            self._grew.notify_all()

    def find(self, pattern: str) -> str:
        """The first group of `pattern`, once it is printed; fails where the block ends or takes too long before."""
        with self._grew:
            self._grew.wait_for(lambda: self._ended or re.search(pattern, self.text), READY_WITHIN_SECONDS)
            found = re.search(pattern, self.text)
        assert found is not None, f"{pattern!r} is not in:\n{self.text}"
        return found[1]

    def stop(self) -> None:
        """Press Ctrl-C: every process of the block gets the signal. Kill those that stay."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
            try:
                self.process.wait(READY_WITHIN_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                raise


class Demo:
    """`make demo` in a clone. The shop's `url` and `secret_key` are what it prints."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._clone_and_run(BLOCKS[0][1])

    def _clone_and_run(self, block: str) -> None:
        self.typed = Typed(
            self.place,
            block,
            # Git fetches from this work tree where the address is named.
            GIT_CONFIG_COUNT="1",
            GIT_CONFIG_KEY_0=f"url.{ROOT.as_uri()}.insteadOf",
            GIT_CONFIG_VALUE_0=ADDRESS,
            # make takes the environment of the tests for the clone's, and its tools for new enough.
            MAKEFLAGS=f"VENV={sys.prefix} -o pyproject.toml -o uv.lock",
        )
        self.url = self.typed.find(r"Tillway serves (http://\S+), on the data")
        self.secret_key = self.typed.find(r"(sk_test_\w+)")

    def run(self, command: list[str], block: str) -> str:
        """The output of a program that gets a block of the README, with this server's address in it."""
        assert SERVED in block
        done = subprocess.run(
            [*command, block.replace(SERVED, self.url)],
            capture_output=True,
            text=True,
            timeout=60,
            env={**ENVIRONMENT, "SECRET_KEY": self.secret_key},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def payments(self) -> list[str]:
        listing = self.run(
            ["bash", "-euc"], f'curl --silent {SERVED}/v1/payment_intents -u "$SECRET_KEY:" -G -d limit=100'
        )
        return [payment["id"] for payment in json.loads(listing)["data"]]

    def again(self) -> None:
        """Stop it and start it again, as the README says: with `make demo`."""
        assert "`make demo`" in README
        self.typed.stop()
        self._clone_and_run("cd tillway && make demo")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    demo = Demo(tmp_path_factory.mktemp("home"))
    try:
        yield demo
    finally:
        demo.typed.stop()


def test_there_is_a_test_for_each_block() -> None:
    assert [kind for kind, _ in BLOCKS] == ["sh", "sh", "python", "sh"]


def test_the_address_to_clone_is_that_of_the_project_and_stands_once() -> None:
    assert re.findall(r"https://github\.com\S*", README) == [ADDRESS]
    assert f"git clone {ADDRESS} && cd tillway\nmake demo\n" == BLOCKS[0][1]


def test_the_payment_with_curl(demo: Demo) -> None:
    payment = json.loads(demo.run(["bash", "-euc"], BLOCKS[1][1]))
    assert (payment["status"], payment["amount_received"], payment["currency"]) == ("succeeded", 4200, "eur")


def test_the_payment_with_the_official_sdk_and_that_it_outlives_the_server(demo: Demo) -> None:
    answer = demo.run([sys.executable, "-c"], BLOCKS[2][1])
    id, _, status = answer.strip().partition(" ")
    assert id.startswith("pi_") and status == "succeeded", answer
    demo.again()
    assert id in demo.payments()


def test_an_installation_without_the_demo(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    typed = Typed(tmp_path, BLOCKS[3][1].replace("/srv/tillway", str(tmp_path / "srv" / "tillway")))
    try:
        assert typed.find(r"(?m)^secret_key +(sk_test_\w+)$")
        url = typed.find(r"Tillway serves (http://\S+)")
        health = subprocess.run(["curl", "--silent", f"{url}/healthz"], capture_output=True, text=True, timeout=60)
        assert json.loads(health.stdout)["status"] == "ok"
    finally:
        typed.stop()
    # bash says with its exit code that the last command, the server, ended well.
    assert typed.process.returncode == 0, typed.text
