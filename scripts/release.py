#!/usr/bin/env python3
"""Make a release, or check one for the workflow that publishes it. The steps are in docs/contributing/release.md.

    python scripts/release.py tag 0.2.0     # commit "Release 0.2.0" and the tag v0.2.0, here; nothing is pushed
    python scripts/release.py check v0.2.0  # does the tag agree with the version and the changelog?
    python scripts/release.py notes v0.2.0  # the changelog of that version, for the release page
    python scripts/release.py sbom FILE     # put the version into a bill of materials that uv wrote (`make sbom`)

It needs Python and git alone. `__version__` in `src/tillway/__init__.py` is the only place that has the version.
"""

import datetime
import json
import re
import subprocess
import sys
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION_FILE = ROOT / "src" / "tillway" / "__init__.py"
CHANGELOG = ROOT / "CHANGELOG.md"

VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
NUMBER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
"""Major, minor and patch of https://semver.org; Tillway has no pre-releases."""

UNRELEASED = "## Unreleased\n"


class Refused(Exception):
    """The release cannot be made. The text says why, and the remedy."""


def main(arguments: list[str]) -> int:
    """Exit code 0 where the command did its work, 1 where it was refused, 2 where there is no such command."""
    try:
        match arguments:
            case ["tag", version]:
                tag(version)
            case ["check", name]:
                check(name)
            case ["notes", name]:
                print(notes(name.removeprefix("v")))
            case ["sbom", path]:
                complete_sbom(Path(path))
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    return 0


def tag(version: str) -> None:
    """Write the version and the changelog's heading, commit them, and tag the commit. Refuse before the first write."""
    if NUMBER.fullmatch(version) is None:
        raise Refused(f"{version!r} is not a version. Write it as MAJOR.MINOR.PATCH, for example 0.2.0.")
    branch = git("rev-parse", "--abbrev-ref", "HEAD")
    if branch != "main":
        raise Refused(f"A release is made on main, and this is {branch}.")
    if git("status", "--porcelain"):
        raise Refused("The work tree has changes or new files. Commit or remove them first.")
    if git("tag", "--list", f"v{version}"):
        raise Refused(f"The tag v{version} exists already.")
    # The first release keeps the version that the code was begun with.
    released = bool(git("tag", "--list", "v*"))
    now = current_version()
    if parts(version) < parts(now) or (released and version == now):
        raise Refused(f"The version is {now} already. Choose a higher one than {version}.")
    changes = CHANGELOG.read_text()
    if not section(changes, "Unreleased"):
        raise Refused("CHANGELOG.md has nothing under “Unreleased”. Say what changes for users.")
    code = VERSION_FILE.read_text()
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    VERSION_FILE.write_text(VERSION.sub(f'__version__ = "{version}"', code))
    CHANGELOG.write_text(changes.replace(UNRELEASED, f"{UNRELEASED}\n## {version} - {today}\n", 1))
    try:
        git("commit", "--quiet", "--message", f"Release {version}", str(VERSION_FILE), str(CHANGELOG))
    except Refused:
        # A hook or a missing identity: leave the work tree as it was.
        VERSION_FILE.write_text(code)
        CHANGELOG.write_text(changes)
        raise
    git("tag", "--annotate", "--message", f"Tillway {version}", f"v{version}")
    print(f"Tagged v{version}. Publish it with: git push --atomic origin main v{version}")


def check(name: str) -> None:
    """Refuse a tag that names another version than the code, or one that the changelog does not have."""
    if name != f"v{current_version()}":
        raise Refused(f"The tag is {name}, and the code's version is {current_version()}.")
    notes(name.removeprefix("v"))


def notes(version: str) -> str:
    found = section(CHANGELOG.read_text(), version)
    if not found:
        raise Refused(f"CHANGELOG.md has no section {version}.")
    return found


def complete_sbom(path: Path) -> None:
    """Name the version and the license of Tillway in a bill of materials: uv does not know a version that the code has.

    The serial number of a release is the same each time, so that two builds can be compared.
    """
    bill = json.loads(path.read_text())
    version = current_version()
    purl = f"pkg:github/tillway/tillway@v{version}"
    bill["metadata"]["component"] |= {
        "type": "application",
        "version": version,
        "purl": purl,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    bill["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, purl)}"
    path.write_text(json.dumps(bill, indent=2) + "\n")


def section(changelog: str, title: str) -> str:
    """The text below the heading `## title` (with or without a date), up to the next such heading; empty if none."""
    found = re.search(rf"^## {re.escape(title)}(?: - [^\n]+)?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def current_version() -> str:
    found = VERSION.search(VERSION_FILE.read_text())
    if found is None or NUMBER.fullmatch(found[1]) is None:
        raise Refused(f"{VERSION_FILE} has no __version__ of the form MAJOR.MINOR.PATCH.")
    return found[1]


def parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def git(*arguments: str) -> str:
    """The output of a git command in this repository. Raises `Refused` with git's own words where it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise Refused(f"git {arguments[0]} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
