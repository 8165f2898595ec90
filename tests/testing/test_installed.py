"""The contract suites run from an installed wheel with the extra `testing`, as their users have them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
PAGE = ROOT / "docs" / "contributing" / "connector.md"

OFFLINE = re.compile(r"dns error|error sending request|failed to fetch|connection refused|timed out", re.IGNORECASE)

MARK = "<!-- runs in tests/testing/test_installed.py -->"

STORES = """
import pytest

from tillway.testing.in_process import InProcessApp
from tillway.testing.memory_store import MemoryStore
from tillway.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    async def make_store(self):
        return MemoryStore()


async def test_a_payment_in_process(tmp_path):
    app = await InProcessApp.open(tmp_path)
    merchant = await app.merchant()
    paid = await app.ok(
        merchant,
        "POST",
        "/v1/payment_intents",
        {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa", "confirm": "true"},
    )
    assert paid["status"] == "succeeded"
    await app.close()
"""


def uv(*arguments: str, cwd: Path) -> None:
    """Run uv. The test is skipped where there is no uv, or no registry that it needs."""
    if not UV.exists():
        pytest.skip(f"there is no {UV}: `make test` installs it")
    done = subprocess.run([str(UV), *arguments], cwd=cwd, capture_output=True, text=True, timeout=300)
    if done.returncode != 0 and OFFLINE.search(done.stderr):
        pytest.skip(f"uv {arguments[0]} needs a package registry: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def test_the_suites_run_from_a_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    uv("build", "--wheel", "--out-dir", str(tmp_path / "dist"), cwd=source)
    [wheel] = (tmp_path / "dist").glob("*.whl")

    uv("venv", "--python", sys.executable, str(tmp_path / "venv"), cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    uv("pip", "install", "--python", str(python), f"{wheel}[testing]", cwd=tmp_path)

    tests = tmp_path / "tests"
    tests.mkdir()
    [code] = re.findall(rf"{MARK}\n```py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tests / "test_connector.py").write_text(code)
    (tests / "test_stores.py").write_text(STORES)
    (tests / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    done = subprocess.run(
        [str(python), "-I", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)],
        cwd=tests,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) > 40, done.stdout
    # Installed, not imported from the checkout.
    where = subprocess.run(
        [str(python), "-I", "-c", "import tillway; print(tillway.__file__)"], capture_output=True, text=True, check=True
    )
    assert str(tmp_path / "venv") in where.stdout
