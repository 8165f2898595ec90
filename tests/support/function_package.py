"""The package of the functions, built by `deploy/aws/package`."""

import subprocess
import sys
from pathlib import Path

import pytest
from packages import ROOT


def build(variant: str) -> Path:
    """Build a package. Skips where the packages that it needs cannot be had."""
    done = subprocess.run(
        [sys.executable, ROOT / "deploy/aws/package", variant], capture_output=True, text=True, timeout=600
    )
    if done.returncode and "Failed to fetch" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    return ROOT / done.stdout.split()[0]
