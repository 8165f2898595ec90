"""The packages of the project, built as a release builds them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tillway_server import ENVIRONMENT

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command outside the checkout and its environment. Return its standard output; it must succeed."""
    clean = {name: value for name, value in ENVIRONMENT.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**clean, **environment},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution and the wheel from it, as a release does. Return their folder."""
    folder = tmp_path_factory.mktemp("built")
    source = tmp_path_factory.mktemp("source") / "tillway"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "data", "tests", "*.egg-info"))
    run(UV, "build", "--quiet", "--out-dir", folder, source, cwd=folder)
    return folder
