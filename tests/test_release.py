"""`scripts/release.py`, run as a maintainer runs it, in a clone of this repository."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tillway import __version__

ROOT = Path(__file__).parents[1]

IDENTITY = {
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}

CHANGE = "### Fixed\n\n- A change for the tests of releases."

pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None, reason="a release is made with git, in a clone"
)


class Clone:
    """A clone whose branch main is this work tree as it stands, committed or not."""

    def __init__(self, place: Path) -> None:
        self.place = place
        run(ROOT, "git", "clone", "--quiet", "--no-tags", str(ROOT), str(place))
        for path in ("scripts/release.py", "src/tillway/__init__.py", "CHANGELOG.md"):
            (place / path).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / path, place / path)
        # Right after a release nothing is unreleased, and these tests must pass then, too.
        changes = place / "CHANGELOG.md"
        changes.write_text(changes.read_text().replace("## Unreleased\n", f"## Unreleased\n\n{CHANGE}\n", 1))
        self.git("checkout", "--quiet", "-B", "main")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "The work tree")

    def git(self, *arguments: str) -> str:
        done = run(self.place, "git", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def release(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(self.place, sys.executable, "scripts/release.py", *arguments)

    def refused(self, *arguments: str) -> str:
        """The message of a command that must be refused and must change nothing."""
        before = self.git("rev-parse", "HEAD"), self.git("status", "--porcelain"), self.git("tag", "--list")
        done = self.release(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), done
        assert before == (self.git("rev-parse", "HEAD"), self.git("status", "--porcelain"), self.git("tag", "--list"))
        return done.stderr


def run(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    # Git hands the variables of its own run to hooks, and a test may be run by one.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        command, cwd=place, env={**outside, **IDENTITY}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "tillway")


def test_a_release_is_one_commit_and_its_tag(clone: Clone) -> None:
    changes = (clone.place / "CHANGELOG.md").read_text()
    unreleased = changes.partition("## Unreleased\n")[2].partition("\n## ")[0].strip()
    done = clone.release("tag", "7.0.0")
    assert done.returncode == 0, done.stderr
    assert "git push --atomic origin main v7.0.0" in done.stdout
    assert clone.git("log", "-1", "--format=%s") == "Release 7.0.0"
    assert clone.git("describe", "--exact-match") == "v7.0.0"
    assert clone.git("status", "--porcelain") == ""
    assert clone.git("diff", "--name-only", "HEAD~1").split() == ["CHANGELOG.md", "src/tillway/__init__.py"]
    assert '__version__ = "7.0.0"' in (clone.place / "src/tillway/__init__.py").read_text()
    changes = (clone.place / "CHANGELOG.md").read_text()
    assert re.search(r"^## Unreleased\n\n## 7\.0\.0 - \d{4}-\d\d-\d\d\n", changes, re.MULTILINE)
    assert clone.release("notes", "v7.0.0").stdout.strip() == unreleased
    assert clone.release("check", "v7.0.0").returncode == 0
    assert "the code's version is 7.0.0" in clone.refused("check", "v7.0.1")
    # The next one needs something new, and a higher version.
    assert "nothing under" in clone.refused("tag", "7.0.1")
    assert "Choose a higher one" in clone.refused("tag", "6.9.9")
    assert "exists already" in clone.refused("tag", "7.0.0")


def test_the_first_release_may_keep_the_version_that_stands(clone: Clone) -> None:
    assert clone.release("tag", __version__).returncode == 0
    assert clone.git("describe", "--exact-match") == f"v{__version__}"


def test_a_version_has_three_numbers(clone: Clone) -> None:
    for version in ("1.2", "v1.2.3", "1.2.3rc1", "01.2.3", "1.2.3 ", ""):
        assert "MAJOR.MINOR.PATCH" in clone.refused("tag", version), version


def test_nothing_is_released_from_a_branch_or_over_open_changes(clone: Clone) -> None:
    (clone.place / "new.txt").write_text("not committed\n")
    assert "Commit or remove" in clone.refused("tag", "7.0.0")
    (clone.place / "new.txt").unlink()
    clone.git("checkout", "--quiet", "-b", "idea")
    assert "made on main" in clone.refused("tag", "7.0.0")


def test_a_commit_that_git_refuses_leaves_the_files_as_they_were(clone: Clone) -> None:
    hook = clone.place / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho the hook says no >&2\nexit 1\n")
    hook.chmod(0o755)
    before = (clone.place / "CHANGELOG.md").read_text()
    assert "the hook says no" in clone.refused("tag", "7.0.0")
    assert (clone.place / "CHANGELOG.md").read_text() == before


def test_an_unknown_command_shows_how_it_is_used(clone: Clone) -> None:
    done = clone.release("publish")
    assert done.returncode == 2 and "scripts/release.py tag" in done.stderr


def test_the_version_stands_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"] and project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "tillway.__version__"}
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    assert all("version" not in package for package in lock["package"] if package["name"] == "tillway")
    said = re.compile(rf"(?<![\d.]){re.escape(__version__)}(?![\d.])")
    sources = [path for path in (ROOT / "src").rglob("*.py") if said.search(path.read_text())]
    assert sources == [ROOT / "src" / "tillway" / "__init__.py"]


def test_the_bill_of_materials_has_every_library_at_its_exact_version(tmp_path: Path) -> None:
    bill_file = tmp_path / "tillway.cdx.json"
    done = run(ROOT, "make", "--silent", "sbom", f"SBOM={bill_file}")
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    bill = json.loads(bill_file.read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert (bill["metadata"]["component"]["name"], bill["metadata"]["component"]["version"]) == ("tillway", __version__)
    locked = {
        package["name"]: package
        for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]
        if "version" in package
    }
    found = {part["name"]: part for part in bill["components"] if part["name"] != "tillway"}
    wanted = {re.match(r"[\w-]+", need).group() for need in _requirements()}  # type: ignore[union-attr]
    assert wanted and wanted <= set(found) and not {"pytest-xdist", "ruff", "mypy"} & set(found)
    for name, part in found.items():
        assert part["version"] == locked[name]["version"] and part["purl"] == f"pkg:pypi/{name}@{part['version']}"
        hashes = {one["content"] for file in part["externalReferences"] for one in file.get("hashes", [])}
        files = [*locked[name].get("wheels", []), *([locked[name]["sdist"]] if "sdist" in locked[name] else [])]
        assert hashes == {file["hash"].removeprefix("sha256:") for file in files}, name
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    assert "make sbom" in workflow and "dist/*.cdx.json" in workflow


def _requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *optional["postgres"], *optional["aws"], *optional["otel"]]
