"""The documentation's site, as `make docs` builds it: each link leads somewhere, nothing comes from another host."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
UV = Path(sys.prefix) / "bin" / "uv"
ZENSICAL = (
    *(str(UV), "run", "--quiet", "--frozen", "--project", str(ROOT), "--isolated", "--only-group", "docs"),
    "zensical",
)


class Page(HTMLParser):
    """What a page links to, loads and can be linked at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if name := given.get("id"):
            self.ids.add(name)
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        if tag in ("script", "img") and given.get("src"):
            self.loads.append(given["src"] or "")
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload") and given.get("href"):
            self.loads.append(given["href"] or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site's directory."""
    if not UV.exists():
        pytest.skip(f"{UV} is missing: `make .venv/.installed-dev` brings it")
    directory = tmp_path_factory.mktemp("docs")
    subprocess.run([sys.executable, ROOT / "scripts/site.py", directory], check=True, timeout=120)
    had = subprocess.run([*ZENSICAL, "--version"], capture_output=True, text=True, timeout=300, check=False)
    if had.returncode:
        pytest.skip(f"Zensical cannot be installed: {had.stderr[-300:]}")
    built = subprocess.run(
        [*ZENSICAL, "build", "--strict"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return directory / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


def test_every_page_is_there(site: Path, pages: dict[Path, Page]) -> None:
    names = {path.relative_to(site).as_posix() for path in pages}
    ours = {path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    wanted = {re.sub(r"README\.html$", "index.html", name) for name in ours}
    assert wanted <= names
    assert {
        "contribute.html",
        "changes.html",
        "reference/payment_intents.html",
        "reference/contract-gateway.html",
    } <= names


def test_every_link_within_the_site_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # Its links begin at the root of a host.
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            found = pages.get(there)
            if not there.exists() or (found and parts.fragment and unquote(parts.fragment) not in found.ids):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert len(pages) > 100
    assert broken == []


def test_a_page_loads_nothing_from_another_host(site: Path, pages: dict[Path, Page]) -> None:
    loads = {load for page in pages.values() for load in page.loads}
    assert loads
    assert [load for load in loads if urlsplit(load).netloc or urlsplit(load).scheme] == []
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"url\(['\"]?https?:[^)]*\)|@import[^;]*", styles) == []


def test_the_search_finds_a_page_by_its_words(site: Path) -> None:
    index = json.loads((site / "search.json").read_text())
    assert "idempotency" in json.dumps(index).lower()


def test_llms_txt_lists_every_page_that_the_navigation_has(site: Path) -> None:
    text = (site / "llms.txt").read_text()
    assert text.startswith("# Tillway\n\n> ")
    entries = re.findall(r"^- \[.+\]\((.+\.html)\): (.+)$", text, re.MULTILINE)
    assert len(entries) > 80 and [target for target, _ in entries if not (site / target).exists()] == []
    index = (ROOT / "docs" / "README.md").read_text()
    assert len(re.findall(r"^- \[", index, re.MULTILINE)) <= len(entries)


@pytest.mark.soak
def test_a_link_that_leads_nowhere_stops_the_build(site: Path, tmp_path: Path) -> None:
    shutil.copytree(site.parent / "docs", tmp_path / "docs")
    shutil.copy(site.parent / "zensical.toml", tmp_path)
    with (tmp_path / "docs" / "api.md").open("a") as page:
        page.write("\nSee [a page](no-such-page.md).\n")
    built = subprocess.run(
        [*ZENSICAL, "build", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode != 0
    assert "no-such-page.md" in re.sub(r"\x1b\[[0-9;]*m", "", built.stdout + built.stderr)
