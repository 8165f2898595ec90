"""Programs of Debian's packages that tests run, such as nginx: found on this machine, or unpacked from the package.

An unpacked program needs no rights and changes nothing on the machine. It is kept beside our environment.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

DOWNLOADS_WITHIN_SECONDS = 240


def debian_program(package: str, program: str) -> Path:
    """Return the path of `program` of a Debian package. Skip the test where it cannot be had, and say why."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is not None:
        return Path(found)
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip(f"{program} is not installed, and this is no Debian to unpack its package {package} from")
    home = Path(sys.prefix) / "debian" / package
    home.parent.mkdir(exist_ok=True)
    with home.with_name(f"{package}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / ".unpacked").exists():
            _unpack(package, home)
    for folder in ("usr/sbin", "usr/bin"):
        if (home / folder / program).exists():
            return home / folder / program
    raise AssertionError(f"Debian's package {package} has no {program}")


def _unpack(package: str, home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    fetch = ("apt-get", "download", "--quiet", package)
    refused = _refusal(fetch, home)
    if refused is not None and os.geteuid() == 0 and _refusal(("apt-get", "update", "--quiet"), home) is None:
        refused = _refusal(fetch, home)  # A fresh machine has no list of packages.
    if refused is not None:
        pytest.skip(f"{package} is not installed and cannot be had from Debian: {refused}")
    for archive in home.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", archive, home], check=True, timeout=60)
        archive.unlink()
    (home / ".unpacked").touch()


def _refusal(command: Sequence[str], place: Path) -> str | None:
    """Return the last line of a command that failed, None where it succeeded."""
    try:
        done = subprocess.run(
            command, cwd=place, capture_output=True, text=True, timeout=DOWNLOADS_WITHIN_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = (done.stderr or done.stdout).strip().splitlines() or ["no word"]
    return said[-1] if done.returncode else None
