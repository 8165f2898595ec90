"""Count the processor instructions of a payment, which other programs on the machine do not disturb.

    python -m bench.instructions             count, and show beside the figures in bench/instructions.json
    python -m bench.instructions --record    append the figures to that file

It needs valgrind (the Debian package `valgrind`) on Linux on x86-64. The count is repeatable to 0.1 %: it takes the
difference of two stretches of payments inside one process (`bench/in_process.py`), with a fixed hash seed, addresses
that valgrind assigns, and a wall clock that moves with the payments. Figures of different processors or interpreters
do not compare: an interpreter built without profile-guided optimisation needs a tenth more.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.in_process import LONG, OTHER_WORK, SHORT

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "bench" / "instructions.json"

RISE_MAX = 0.03
"""The guard in `tests/bench/test_instructions.py` fails above this rise over the last recorded figure."""

WITHIN_SECONDS = 300.0
_VALGRIND = ("valgrind", "--tool=callgrind", "--instr-atstart=no")
_TOTAL = re.compile(r"^totals: (\d+)$", re.MULTILINE)
_BUILD_FLAGS = re.compile(r"--(?:enable|with)-(?:optimizations|lto|shared|pydebug|experimental-jit|disable-gil)\b")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Means a payment: created, confirmed and captured in one request. `other_work` has the instructions of each of
    OTHER_WORK, as far as they were counted."""

    instructions: int
    """Of the whole process, from a request with its body read to its answer."""

    calls: int
    """Of Python functions, resumptions of coroutines included."""

    rows_written: float
    """Rows that its commits insert or change."""

    rows_added: float
    """Rows that the file has more afterwards."""

    bytes: int
    """By which the file of the SQLite store grows."""

    other_work: dict[str, int] = {}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    interpreter: str
    """As `interpreter()` names it."""

    commit: str
    day: str
    figures: Figures


class CannotCount(Exception):
    """Instructions cannot be counted here; the text names the reason and the remedy."""


def interpreter() -> str:
    """Name the kind of interpreter that figures belong to: processor, version, compiler and options of the build."""
    flags = sorted(set(_BUILD_FLAGS.findall(sysconfig.get_config_var("CONFIG_ARGS") or "")))
    name = f"{platform.python_implementation()} {platform.python_version()}"
    return " ".join((name, platform.machine(), re.sub(r"\s+", " ", platform.python_compiler()), *flags))


def recorded() -> list[Record]:
    """Return all recorded figures, the oldest first."""
    return msgspec.json.decode(RECORDED.read_bytes(), type=list[Record])


def last_recorded(kind: str) -> Record | None:
    """Return the newest record of that kind of interpreter."""
    return next((record for record in reversed(recorded()) if record.interpreter == kind), None)


def check_machine() -> None:
    """Raise `CannotCount` where this machine has no valgrind, or one that `bench/in_process.py` cannot speak to."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise CannotCount(
            f"instructions are counted on Linux on x86-64 only, not on {sys.platform} {platform.machine()}"
        )
    if shutil.which("valgrind") is None:
        raise CannotCount("instructions are counted by valgrind, which is not installed: `apt-get install valgrind`")


def instructions(*works: str) -> dict[str, int]:
    """Count under callgrind the instructions of a payment, and of each of those OTHER_WORK. Raises `CannotCount`."""
    check_machine()
    with tempfile.TemporaryDirectory(dir=_build()) as place:
        out = Path(place) / "callgrind"
        _run("instructions", Path(place), *_VALGRIND, f"--callgrind-out-file={out}", works=works)
        # Of a payment two parts are written, of other work three: the first of these only fills caches.
        parts = {"payment": (1, 2)} | {work: (3 * n + 4, 3 * n + 5) for n, work in enumerate(works)}
        return {
            work: round(
                (_total(out.with_name(f"callgrind.{long}")) - _total(out.with_name(f"callgrind.{short}")))
                / (LONG - SHORT)
            )
            for work, (short, long) in parts.items()
        }


def instructions_a_payment() -> int:
    """Count under callgrind; about 10 seconds of processor time. Raises `CannotCount`."""
    return instructions()["payment"]


def calls_a_payment() -> int:
    with tempfile.TemporaryDirectory(dir=_build()) as place:
        counted: dict[str, float] = msgspec.json.decode(_run("calls", Path(place)))
    return round(counted["calls"])


def stored_a_payment() -> dict[str, float]:
    """`bytes`, `rows_written` and `rows_added` of `Figures`. SQLite and the schema decide them, not the interpreter."""
    with tempfile.TemporaryDirectory(dir=_build()) as place:
        counted: dict[str, float] = msgspec.json.decode(_run("stored", Path(place)))
    return counted


def figures() -> Figures:
    stored, counted = stored_a_payment(), instructions(*OTHER_WORK)
    return Figures(
        instructions=counted.pop("payment"),
        other_work=counted,
        calls=calls_a_payment(),
        rows_written=stored["rows_written"],
        rows_added=stored["rows_added"],
        bytes=round(stored["bytes"]),
    )


def _build() -> Path:
    """The temporary directory may be in memory, where a store refuses to lie."""
    directory = ROOT / "build" / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _run(kind: str, place: Path, *under: str, works: Sequence[str] = ()) -> str:
    """Run `bench/in_process.py`, under valgrind or by itself, in an environment of fixed content."""
    data_dir = place / "data"
    data_dir.mkdir(mode=0o700)
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = (*under, sys.executable, "-m", "bench.in_process", kind, str(data_dir), *works)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=WITHIN_SECONDS, check=False
    )
    if done.returncode != 0:
        raise CannotCount(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def _total(part: Path) -> int:
    """The instructions of one part of callgrind's output."""
    found = _TOTAL.search(part.read_text())
    if found is None:
        raise CannotCount(f"{part.name} holds no total: the output of this version of callgrind is not understood")
    return int(found[1])


def table(now: Figures) -> str:
    """Everything recorded for this kind of interpreter, and now, with the changes since the first."""
    kind = interpreter()
    rows = [(record.commit, record.figures) for record in recorded() if record.interpreter == kind]
    rows.append(("now", now))
    names = [name for name in Figures.__struct_fields__ if name != "other_work"]
    lines = [f"| a payment at | {' | '.join(names).replace('_', ' ')} |", "|---|" + "--:|" * len(names)]
    for commit, figures in rows:
        cells = []
        for name in names:
            value: Any = getattr(figures, name)
            first: Any = getattr(rows[0][1], name)
            cells.append(f"{value:,}" + (f" ({value / first - 1:+.1%})" if value != first else ""))
        lines.append(f"| {commit} | {' | '.join(cells)} |")
    lines += ["", f"| instructions at | {' | '.join(OTHER_WORK)} |", "|---|" + "--:|" * len(OTHER_WORK)]
    for commit, figures in rows:
        if figures.other_work:
            cells = [f"{figures.other_work[work]:,}" if work in figures.other_work else "" for work in OTHER_WORK]
            lines.append(f"| {commit} | {' | '.join(cells)} |")
    return "\n".join((*lines, "", kind))


def _commit() -> str:
    done = subprocess.run(
        ("git", "describe", "--always", "--dirty", "--exclude=*"), cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__.partition("\n")[0])
    parser.add_argument("--record", action="store_true", help=f"append the figures to {RECORDED.relative_to(ROOT)}")
    given = parser.parse_args()
    try:
        now = figures()
    except CannotCount as reason:
        sys.exit(str(reason))
    print(table(now))
    if given.record:
        day = time.strftime("%Y-%m-%d", time.gmtime())
        records = [*recorded(), Record(interpreter=interpreter(), commit=_commit(), day=day, figures=now)]
        RECORDED.write_bytes(msgspec.json.format(msgspec.json.encode(records), indent=2) + b"\n")


if __name__ == "__main__":
    main()
