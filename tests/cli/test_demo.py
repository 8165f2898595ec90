"""`tillway demo`: the shop, its second run, and the commands that its text tells people to type."""

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tillway_server import ENVIRONMENT, init, tillway

KINDS = (
    "succeeded",
    "succeeded, 15.00 EUR refunded",
    "succeeded, 26.50 USD refunded",
    "succeeded, 20.00 EUR not captured",
    "requires_capture",
    "canceled",
    "requires_action",
    "requires_payment_method (insufficient_funds)",
    "requires_payment_method (generic_decline)",
)


def demo(data_dir: Path) -> str:
    done = tillway("demo", "--data-dir", data_dir, "--port", "0", "--no-serve")
    assert done.returncode == 0, done.stderr
    return done.stdout


def key(text: str) -> str:
    found = re.search(r"sk_test_\w+", text)
    assert found is not None
    return found.group()


def test_it_makes_payments_of_every_kind_and_a_second_run_finds_them(tmp_path: Path) -> None:
    began = time.monotonic()
    first = demo(tmp_path / "data")
    assert time.monotonic() - began < 30
    for kind in KINDS:
        assert f"  {kind}  " in first, kind
    assert (tmp_path / "data" / "demo.json").stat().st_mode & 0o777 == 0o600

    def without_port(text: str) -> str:
        """The text without its port and its address that signs in once."""
        return re.sub(r"sign-in/\w+", "sign-in/ONCE", re.sub(r"127\.0\.0\.1:\d+", "HERE", text))

    assert without_port(demo(tmp_path / "data")) == without_port(first)


def test_an_installation_that_is_there_gets_a_demo_of_its_own_keys(tmp_path: Path) -> None:
    made = init(tmp_path / "data")
    assert key(demo(tmp_path / "data")) != made["secret_key"]


def test_what_it_tells_people_to_type_works(tmp_path: Path) -> None:
    """Every curl line and the Python lines of the text, run as they stand."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tillway.cli.main", "demo", "--data-dir", str(tmp_path / "data"), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    text = ""
    while "openapi.json" not in text:
        line = process.stdout.readline()
        assert line, text
        text += line
    try:
        python = "\n".join(re.findall(r"^  ((?:import stripe|stripe\.|print\(|    amount|    confirm).*)$", text, re.M))
        done = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, timeout=99)
        assert done.stdout == "succeeded\n", done.stderr
        lines = re.findall(r"^  (curl (?:.*\\\n)*.*)$", text, re.M)
        assert len(lines) == 4
        for line in lines:
            try:
                done = subprocess.run(shlex.split(line.replace("\\\n", "")), capture_output=True, text=True, timeout=99)
            except FileNotFoundError:
                pytest.skip("there is no curl")
            assert done.stdout.startswith("{") and not done.stdout.startswith('{"error"'), line
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
