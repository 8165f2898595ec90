"""Clients from a registry, each in an environment of its own: skipped where the registry cannot be reached."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UV = Path(sys.executable).with_name("uv")
INSTALL_SECONDS = 600


def python_with(directory: Path, *packages: str, python: str | None = None) -> Path:
    """Install packages of PyPI into a new environment. Return its interpreter, or skip the test."""
    made = _run(UV, "venv", "--quiet", "--python", python or sys.executable, directory)
    interpreter = directory / "bin" / "python"
    failed = made or _run(UV, "pip", "install", "--quiet", "--python", interpreter, *packages)
    if failed:
        pytest.skip(f"{' '.join(packages)} cannot be installed here: {failed}")
    return interpreter


def node_with(directory: Path, *packages: str) -> str:
    """Install packages of npm into a new directory. Return the command `node`, or skip the test."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node.js on this machine (Debian: nodejs and npm)")
    directory.mkdir(parents=True)
    (directory / "package.json").write_text('{"private": true}')
    failed = _run(npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", directory, *packages)
    if failed:
        pytest.skip(f"{' '.join(packages)} cannot be installed here: {failed}")
    return node


def _run(*command: str | Path) -> str:
    """The last line that a failing command says; empty where it succeeds."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    try:
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=INSTALL_SECONDS, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)[:300]
    said = (done.stderr or done.stdout).strip().splitlines()
    return (said[-1] if said else f"exit code {done.returncode}")[:300] if done.returncode else ""


def output_of(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a client's script in its environment. Return its standard output; it must succeed."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**clean, **environment},
        timeout=INSTALL_SECONDS,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return done.stdout
