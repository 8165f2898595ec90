"""The supervisor of several processes: who is started again, and when it gives up."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tillway import workers

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from tillway import workers

workers.PAUSE_SECONDS = (0.01, 0.02)
starts = Path(sys.argv[1])
serves = starts.with_suffix(".serves")

def work(number, link):
    if number == 1:
        while sys.argv[3] == "serves" and not serves.exists():
            time.sleep(0.01)
        with starts.open("a") as file:
            file.write(".")
        if len(starts.read_text()) <= int(sys.argv[2]):
            raise SystemExit(1)
        link.report_serving()
        os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()
    if sys.argv[3] == "serves":
        link.report_serving()
        serves.touch()
        signal.pause()
    raise SystemExit(1)

try:
    workers.supervise(2, work)
except workers.WorkersFailed as failed:
    print(failed)
    sys.exit(1)
"""


def supervised(starts: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, str(starts), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


def test_one_that_cannot_start_is_tried_for_as_long_as_another_serves(tmp_path: Path) -> None:
    """The database may be away just now; whoever has served will serve again."""
    done = supervised(tmp_path / "starts", "6", "serves")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "starts").read_text()) == 7
    assert done.stderr.count("another takes its place") == 6 and f"-{signal.SIGKILL.value}" not in done.stderr


def test_where_none_ever_serves_the_supervisor_gives_up(tmp_path: Path) -> None:
    done = supervised(tmp_path / "starts", "99", "fails")
    assert done.returncode == 1 and "before one of them served" in done.stdout


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
@pytest.mark.parametrize(("cores", "processes"), [(1, 1), (2, 1), (3, 1), (4, 2), (16, 8), (64, 8)])
def test_there_is_a_worker_for_every_two_cores(cores: int, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert workers.by_cores() == processes
