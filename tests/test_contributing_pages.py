"""The code of `docs/contributing/`, run as a contributor would run it: each page's blocks are one file of tests."""

import re
import subprocess
import sys
from pathlib import Path

from tillway_server import ENVIRONMENT

ROOT = Path(__file__).parents[1]
PAGES = ("dialect", "endpoint", "store")
"""The pages with code that stands alone."""


def code_of(page: str) -> str:
    text = (ROOT / "docs" / "contributing" / f"{page}.md").read_text()
    return "\n\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def test_each_page_with_code_is_run() -> None:
    pages = (path.stem for path in (ROOT / "docs" / "contributing").glob("*.md") if code_of(path.stem))
    # The page about connectors quotes a module of the package, which has tests of its own.
    assert sorted({*pages} - {"connector"}) == list(PAGES)


def test_the_code_of_each_page_passes(tmp_path: Path) -> None:
    """In a process of its own: its routes must not be in the table that other tests read."""
    for page in PAGES:
        (tmp_path / f"test_{page}_page.py").write_text(code_of(page))
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in PAGES:
        assert re.search(rf"test_{page}_page\.py::.+ PASSED", done.stdout), f"{page}.md has no test that passes"
