"""Payments inside several processes on one file, without a socket: as `python -m bench.stores` compares one with two.

    python -m bench.processes DIRECTORY --key SECRET_KEY --name NAME --seconds 3

is one of the processes; `measured` starts them. Each has 64 payments under way at a time, from a request with its body
read to its answer. The task runner and the chain of the audit trail work beside them, as in a server. A process has all
cores; nothing else should run.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from bench import servers
from bench.honesty import check
from bench.in_process import AT_ONCE, BODY
from tillway.http.messages import Request
from tillway.serve import tune_interpreter
from tillway.settings import Settings
from tillway.telemetry.metrics import Metrics
from tillway.telemetry.recorder import Recorder
from tillway.wiring import Running, assemble

WARM_UP_SECONDS = 1.0


class Paid(msgspec.Struct, frozen=True):
    """The ids of all payments of a process, the first and those in the warm-up too, and how many were counted."""

    ids: list[str]
    counted: int


def measured(directory: Path, processes: int, seconds: float) -> float:
    """Payments a second of so many processes on a new installation in `directory`. Raises `Untruth` if one of them is
    not in the database, and RuntimeError for any answer but a payment that succeeded."""
    merchant = servers.install(directory)
    command = (sys.executable, "-m", "bench.processes", str(directory), "--key", merchant.secret_key)
    started = [
        subprocess.Popen(
            (*command, "--name", str(number), "--seconds", str(seconds)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for number in range(processes)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError("a process did not become ready; its error is above")
        for process in started:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        paid = [msgspec.json.decode(process.communicate()[0], type=Paid) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    check(directory, merchant.account, since=0.0, acknowledged=[id for one in paid for id in one.ids])
    return sum(one.counted for one in paid) / seconds


async def _run(directory: Path, key: str, name: str, seconds: float) -> Paid:
    settings = Settings(data_dir=directory, throttle_test_per_second=0, throttle_key_per_second=0)
    running = await assemble(settings, recorder=Recorder(Metrics(), None, None))
    await running.connections.set_up()
    tune_interpreter()
    running.runner.start()
    try:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        return await _pay(running, key, name, seconds)
    finally:
        await running.close()


async def _pay(running: Running, key: str, name: str, seconds: float) -> Paid:
    opens_at = time.perf_counter() + min(WARM_UP_SECONDS, seconds)
    closes_at = opens_at + seconds
    ids: list[str] = []
    counted = 0

    async def customer(number: int) -> None:
        nonlocal counted
        payment = 0
        while time.perf_counter() < closes_at:
            payment += 1
            headers = {
                "host": "127.0.0.1",
                "authorization": f"Bearer {key}",
                "idempotency-key": f"{name}-{number}-{payment}",
                "content-type": "application/x-www-form-urlencoded",
                "content-length": str(len(BODY)),
            }
            answer = await running.api.handle(Request("POST", "/v1/payment_intents", "", headers, BODY, "127.0.0.1"))
            told = msgspec.json.decode(answer.body)
            if answer.status != 200 or told["status"] != "succeeded":
                raise RuntimeError(f"a payment was answered with {answer.status}: {answer.body[:1000]!r}")
            ids.append(told["id"])
            counted += opens_at <= time.perf_counter() < closes_at

    await asyncio.gather(*map(customer, range(AT_ONCE)))
    return Paid(ids, counted)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.processes", description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--key", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    paid = uvloop.run(_run(given.directory, given.key, given.name, given.seconds))
    sys.stdout.buffer.write(msgspec.json.encode(paid))


if __name__ == "__main__":
    main()
