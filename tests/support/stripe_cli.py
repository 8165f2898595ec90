"""Stripe's own command line, unmodified, from npm into build/, once. With no copy and no way to one, a test skips."""

import fcntl
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

VERSION = "1.52.0"
INSTALLED = Path(__file__).parents[2] / "build" / f"stripe-cli-{VERSION}"
INSTALL_SECONDS = 180


def stripe_cli() -> Path:
    """The program of the package `@stripe/cli-linux-x64`, which several test processes share."""
    if os.uname().sysname != "Linux" or os.uname().machine != "x86_64":
        pytest.skip("this test knows the package of Stripe's command line for Linux on x86-64 only")
    program = INSTALLED / "package" / "bin" / "stripe"
    INSTALLED.parent.mkdir(exist_ok=True)
    with (INSTALLED.parent / ".stripe-cli").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _install()
    return program


def _install() -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, and Stripe's command line comes from there")
    shutil.rmtree(INSTALLED, ignore_errors=True)
    INSTALLED.mkdir()
    try:
        subprocess.run(
            ["npm", "pack", "--silent", f"@stripe/cli-linux-x64@{VERSION}"],
            cwd=INSTALLED,
            check=True,
            capture_output=True,
            timeout=INSTALL_SECONDS,
        )
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"npm gives no @stripe/cli-linux-x64@{VERSION}: {error}")
    with tarfile.open(next(INSTALLED.glob("*.tgz"))) as package:
        package.extractall(INSTALLED, filter="data")
