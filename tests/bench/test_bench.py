"""`python -m bench` works. It is not its figures that are tested, but that they come from answers that were true."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc and pins processes to cores")
def test_a_quick_run_measures_every_server_and_checks_every_payment() -> None:
    command = (sys.executable, "-m", "bench", "--quick", "--stored", "500", "--without-peers")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rates = re.findall(
        r"^\| +(1|64) \| +([\d,]+) \| +([\d,]+) \| +([\d,]+) \| +0\.(\d+) \| +([\d,]+) \| +(\d+) % \| +- \| +- \|$",
        done.stdout,
        re.M,
    )
    assert [row[0] for row in rates] == ["1", "64"], done.stdout
    assert all(int(figure.replace(",", "")) > 0 for row in rates for figure in row), done.stdout


REFUSING = """
import sys
from bench import servers
import bench.{module} as module

BOUNDS = ("--throttle-key-per-second", "1", "--throttle-key-burst", "5")

def refusing(*given):
    servers.THROTTLES = BOUNDS
    return measure(*given)

if "{module}" == "with_stock":
    measure, module._measured = module._measured, refusing  # The stock itself is made without refusals.
else:
    servers.THROTTLES = BOUNDS
sys.argv[1:] = {arguments}
module.main()
"""


def refused(module: str, *arguments: str) -> str:
    """What a run with bounds that are soon reached says in the end. It must fail, and tell no figure."""
    script = REFUSING.format(module=module, arguments=list(arguments))
    done = subprocess.run((sys.executable, "-c", script), cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode != 0 and not re.search(r"^\|", done.stdout, re.M), done.stdout
    return done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc and pins processes to cores")
def test_a_run_in_which_a_payment_is_refused_fails() -> None:
    said = refused("__main__", "--quick", "--stored", "0", "--without-peers")
    assert re.search(r"RuntimeError: Tillway gave a wrong answer:\nHTTP/1.1 429 ", said), said


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark pins processes to cores")
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        *(("latency", ("--seconds", "1", "--parts", part)) for part in ("flush", "overhead", "burst", "merchants")),
        ("overhead", ("--seconds", "1", "--warm-up", "0.1", "--connections", "1")),
        ("with_stock", ("--stored", "3000", "--parts", "payments")),
        ("with_stock", ("--stored", "3000", "--parts", "lists")),
        ("stores", ("--quick",)),
        ("pages", ("--stored", "3000")),
    ],
)
def test_every_part_fails_when_something_is_refused(module: str, arguments: tuple[str, ...]) -> None:
    said = refused(module, *arguments)
    assert "429" in said, said


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark pins processes to cores")
def test_how_long_payments_wait_is_told() -> None:
    command = (sys.executable, "-m", "bench.latency", "--seconds", "1")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (.+?) \| [\d,]+ \| ([\d.]+) ms \| ([\d.]+) ms \|", done.stdout, re.M)
    assert len(rows) == 8 and all(0 <= float(p50) <= float(p99) for _, p50, p99 in rows), done.stdout


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark pins processes to cores")
def test_calls_beside_a_stock_are_told() -> None:
    command = (sys.executable, "-m", "bench.with_stock", "--stored", "3000")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (.+?) \| [\d,.]+(?: ms)? \| [\d,.]+(?: ms)? \| (\d+\.\d\d) \|", done.stdout, re.M)
    by_processor = re.findall(r" \| [\d,.]+ ms \| [\d,.]+ ms \| \d+\.\d\d \|$", done.stdout, re.M)
    assert (len(rows), len(by_processor)) == (31, 28), done.stdout
    assert not (ROOT / "build" / "bench" / "with-stock").exists(), "what it made is deleted"


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark pins processes to cores")
def test_the_overhead_over_a_slow_bank_is_told() -> None:
    command = (sys.executable, "-m", "bench.overhead", "--connections", "1", "--seconds", "1", "--warm-up", "0.2")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    row = re.search(r"^\| 1 \| [\d,]+ \| ([\d.]+) ms \| ([\d.]+) ms \| ([\d.]+) ms \|", done.stdout, re.M)
    assert row is not None, done.stdout
    payment, bank, overhead = map(float, row.groups())
    assert 50 <= bank < payment and 0 < overhead <= payment - 50, "the bank's own time is taken off, whatever it was"
    assert re.search(r"after pauses of 50 ms p50 [\d.]+ ms and p99 [\d.]+ ms\.$", done.stdout, re.M), done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark runs on Linux")
def test_the_load_generator_stops_at_wrong_answers(tmp_path: Path) -> None:
    script = """
import asyncio
from bench.load import press

async def answer(reader, writer):
    while await reader.readuntil(b"END"):
        writer.write(b"HTTP/1.1 402 No\\r\\nContent-Length: 2\\r\\n\\r\\nno")

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pressed = await press(port, b"{key} END", connections=2, warm_up=0, seconds=20, name="n", expect=b"yes")
    print(pressed.answered, len(pressed.ids), pressed.wrong[0])

asyncio.run(main())
"""
    done = subprocess.run((sys.executable, "-c", script), cwd=ROOT, capture_output=True, text=True, timeout=15)
    assert re.match(r"1\d 0 HTTP/1.1 402 No", done.stdout), done.stderr
