"""The package of the functions: the same bytes twice, and enough to run by itself."""

import hashlib
import json
import runpy
import subprocess
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from function_package import build
from packages import ROOT

pytestmark = pytest.mark.soak

RUNS_ALONE = """
import json, sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path]
sys.path.insert(0, sys.argv[1])
from tillway.aws import admin, api, worker
answers = [api.handler({}), admin.handler({"action": "nothing"})]
import cryptography, msgspec
places = [module.__file__ for module in (api, msgspec, cryptography)]
heavy = sorted({"aiohttp", "apsw", "boto3", "granian", "joserfc", "jinja2", "typer"} & set(sys.modules))
print(json.dumps([answers, places, heavy]))
"""


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("variant", ["x86_64-py313", "arm64-py313", "local"])
def test_the_same_source_gives_the_same_bytes(variant: str) -> None:
    assert digest_of(build(variant)) == digest_of(build(variant))


def pack(zipped: Path) -> str | None:
    """Pack some files as the script does. Return the name of the first damaged one."""
    runpy.run_path(str(ROOT / "deploy" / "aws" / "package"))["pack"](ROOT / "src" / "tillway" / "domain", zipped)
    return zipfile.ZipFile(zipped).testzip()


def test_two_processes_may_pack_at_once(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2) as processes:
        assert set(processes.map(pack, [tmp_path / "a.zip"] * 20)) == {None}
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_package_for_arm_holds_libraries_for_arm_alone() -> None:
    with zipfile.ZipFile(build("arm64-py313")) as opened:
        libraries = [name for name in opened.namelist() if name.endswith(".so")]
        assert len(libraries) > 5
        # The machine of an ELF file: 183 is AArch64 (ELF for the Arm 64-bit Architecture, 4.1).
        assert {opened.read(name)[18] for name in libraries} == {183}


def test_a_package_for_aws_is_compiled_and_holds_nothing_for_older_versions() -> None:
    zipped, script = build("x86_64-py313"), runpy.run_path(str(ROOT / "deploy" / "aws" / "package"))
    names = zipfile.ZipFile(zipped).namelist()
    assert "typing_extensions.py" not in names and "msgspec/__init__.py" in names
    if script["interpreter_of"]("3.13") is None:
        pytest.skip("no Python 3.13 was found, so the package has no compiled files")
    sources = [name for name in names if name.startswith("tillway/") and name.endswith(".py")]
    assert len(sources) == sum(name.startswith("tillway/") and name.endswith(".cpython-313.pyc") for name in names)


def test_the_local_package_runs_alone(tmp_path: Path) -> None:
    with zipfile.ZipFile(build("local")) as opened:
        opened.extractall(tmp_path)
    assert not list(tmp_path.glob("boto*")) and not (tmp_path / "tillway" / "cli").exists()
    assert (tmp_path / "tillway" / "web" / "checkout.html").exists()
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUNS_ALONE, tmp_path], capture_output=True, text=True, timeout=120, env={}
    )
    assert done.returncode == 0, done.stderr
    answers, places, heavy = json.loads(done.stdout)
    assert answers[0]["statusCode"] == 400 and answers[1]["error"] == "invalid"
    assert all(place.startswith(str(tmp_path)) for place in places), places
    assert heavy == []
