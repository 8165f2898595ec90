"""The package as a stranger installs it: built here, and taken from a package index by uv and pip."""

import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packages import ROOT, UV, build, run

from tillway import __version__

VERSIONS = ("3.11", "3.12", "3.13")

pytestmark = pytest.mark.skipif(not UV.exists(), reason="uv is not in this environment: `make test` puts it there")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the source distribution and of the wheel that was built from it."""
    return build(tmp_path_factory)


@pytest.fixture(scope="module")
def index(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a package index (https://peps.python.org/pep-0503/) that has Tillway and nothing else."""
    root = tmp_path_factory.mktemp("index")
    project = root / "simple" / "tillway"
    project.mkdir(parents=True)
    files = [file for file in built.iterdir() if file.suffix in (".whl", ".gz")]
    for file in files:
        shutil.copy(file, project)
    (project / "index.html").write_text("".join(f'<a href="{file.name}">{file.name}</a>\n' for file in files))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/simple"
    server.shutdown()


def test_the_wheel_has_every_file_of_the_package(built: Path) -> None:
    wheel = built / f"tillway-{__version__}-py3-none-any.whl"
    package = ROOT / "src" / "tillway"
    there = {path.relative_to(package.parent).as_posix() for path in package.rglob("*") if path.is_file()}
    packed = zipfile.ZipFile(wheel).namelist()
    assert {name for name in packed if name.startswith("tillway/")} == {
        name for name in there if "__pycache__" not in name
    }
    facts = f"tillway-{__version__}.dist-info"
    text = zipfile.ZipFile(wheel).read(f"{facts}/METADATA").decode()
    assert f"Version: {__version__}" in text and "Requires-Python: >=3.11" in text
    assert "Provides-Extra: postgres" in text and "Provides-Extra: testing" in text
    assert "# Tillway" in text, "the README is the project's page in an index"
    assert f"{facts}/licenses/LICENSE" in packed and f"{facts}/entry_points.txt" in packed


def test_the_source_distribution_has_what_is_installed(built: Path) -> None:
    with tarfile.open(built / f"tillway-{__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "src/tillway/cli/main.py"} <= names
    assert not [name for name in names if name.startswith("tests")]


@pytest.mark.soak
def test_uv_installs_it_as_a_tool(index: str, tmp_path: Path) -> None:
    places = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    run(UV, "tool", "install", "--python", sys.executable, "--index", index, "tillway", cwd=tmp_path, **places)
    tillway = tmp_path / "bin" / "tillway"
    assert run(tillway, "--version", cwd=tmp_path).strip() == __version__
    assert "secret_key" in run(tillway, "init", "--data-dir", tmp_path / "data", "--json", cwd=tmp_path)
    kinds = run(tillway, "connectors", "kinds", cwd=tmp_path)
    assert "http_bank" in kinds and "stripe" in kinds, "connectors are found by their entry points"


def test_uvx_takes_a_first_payment(index: str, tmp_path: Path) -> None:
    """In an empty directory, with nothing installed before."""
    places = {"UV_TOOL_DIR": str(tmp_path / "tools")}
    demo = ("demo", "--data-dir", tmp_path / "data", "--port", "0", "--no-serve")
    uvx = (UV, "tool", "run", "--python", sys.executable, "--index", index, "tillway")
    shown = run(*uvx, *demo, cwd=tmp_path, **places)
    assert "sk_test_" in shown and "succeeded" in shown


def interpreter(version: str) -> str:
    """An interpreter of this version on the path, or one that pyenv keeps. Skips the test where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for found in (shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        if found and subprocess.run([found, "-c", code], capture_output=True, text=True).stdout.strip() == version:
            return str(found)
    pytest.skip(f"no interpreter of Python {version} was found on the path or among pyenv's")


@pytest.mark.soak
@pytest.mark.parametrize("version", VERSIONS)
def test_pip_installs_it_on_each_python(version: str, index: str, tmp_path: Path) -> None:
    run(interpreter(version), "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    bin_dir = tmp_path / "venv" / "bin"
    run(bin_dir / "pip", "install", "--quiet", "--extra-index-url", index, "tillway[all]", cwd=tmp_path)
    shown = run(bin_dir / "tillway", "demo", "--data-dir", tmp_path / "data", "--port", "0", "--no-serve", cwd=tmp_path)
    assert "sk_test_" in shown and "succeeded" in shown
    for store in ("asyncpg", "boto3"):
        run(bin_dir / "python", "-W", "error::SyntaxWarning", "-c", f"import {store}, tillway.wiring", cwd=tmp_path)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_completion(shell: str) -> None:
    # `--show-completion` asks for this, for the shell that it finds itself in.
    shown = run(Path(sys.executable).with_name("tillway"), cwd=ROOT, _TILLWAY_COMPLETE=f"source_{shell}")
    assert "complete_" + shell in shown


def test_completion_names_commands_and_options() -> None:
    words = {"_TILLWAY_COMPLETE": "complete_bash", "COMP_WORDS": "tillway connectors ", "COMP_CWORD": "2"}
    shown = run(Path(sys.executable).with_name("tillway"), cwd=ROOT, **words)
    assert {"add", "list", "remove"} <= set(shown.split())
