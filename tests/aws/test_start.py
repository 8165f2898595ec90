"""The imports of a cold start."""

import subprocess
import sys

HEAVY = [
    "aiohttp",
    "aiosmtplib",
    "apsw",
    "boto3",
    "email.message",
    "granian",
    "importlib.metadata",
    "jinja2",
    "joserfc",
    "tomllib",
    "typer",
    "uvloop",
    "yarl",
    "zoneinfo",
]
"""Modules that no function needs before its first payment. Together they take longer to import than the rest."""


def test_a_cold_start_imports_nothing_heavy() -> None:
    code = f"import sys, tillway.aws.api, tillway.aws.worker; print(sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
