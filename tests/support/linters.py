"""Linters and other tools that tests run as programs, each in an environment of its own beside ours.

They are made once and kept: some are as large as the rest of the development tools together.
"""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packages import UV

INSTALLS_WITHIN_SECONDS = 240


def installed(package: str, program: str, *others: str) -> Path:
    """The program of `package` (`name==version`), beside `others`. Skips the test where it cannot be installed."""
    if not UV.exists():
        pytest.skip("uv is not in this environment: `make test` puts it there")
    home = Path(sys.prefix) / "linters" / "+".join((package, *others)).replace("==", "-")
    home.parent.mkdir(exist_ok=True)
    done = home / ".installed"
    with home.with_name(f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(home, ignore_errors=True)
            commands: tuple[tuple[str | Path, ...], ...] = (
                (UV, "venv", "--quiet", "--python", sys.executable, home),
                (UV, "pip", "install", "--quiet", "--python", home / "bin" / "python", package, *others),
            )
            for command in commands:
                try:
                    subprocess.run(command, check=True, timeout=INSTALLS_WITHIN_SECONDS, capture_output=True, text=True)
                except (subprocess.SubprocessError, OSError) as error:
                    said = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1:]
                    pytest.skip(f"{package} cannot be installed: {said}")
            done.touch()
    return home / "bin" / program
