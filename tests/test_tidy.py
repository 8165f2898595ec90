"""House rules that can be counted: plain words in docstrings, comments and pages, and the length of functions.

The count is an alarm and not the aim (a sentence that dodges the list is no better): it says where sentences have to be
read twice. Structured logging and HTTP libraries that engineers praise have 0.3 to 0.6 of these words in a thousand.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "tillway"

RATE_MAX = 2.0
"""Most words of the list in a thousand words of a room."""

RATE_MAX_OF_DOCS = 5.0
"""The pages have table headers such as "what it does" and questions as headings, which read at once."""

ROUNDABOUT = re.compile(r"\b(what|whatever|whoever|whom|whose|nobody|somebody|wherever)\b", re.IGNORECASE)
OPENS_BADLY = re.compile(r"\s*(what|whatever|whoever)\b", re.IGNORECASE)

FUNCTION_LINES_MAX = 70

ROOMS = sorted({path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in SOURCE.rglob("*.py")} - {"__init__"})


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every docstring, every string that stands as a statement, and every comment of a source file."""
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.removeprefix("#").strip()


def texts_of_room(room: str) -> list[tuple[str, str]]:
    """(place, text) of everything that a person reads in a room; `docs` are the pages and the README."""
    if room == "docs":
        pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
        return [(page.name, page.read_text()) for page in pages if "decisions" not in page.parts]
    place = SOURCE / room
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    return [(f"{file.relative_to(SOURCE)}:{line}", text) for file in files for line, text in texts_of(file)]


@pytest.mark.parametrize("room", [*ROOMS, "docs"])
def test_sentences_read_at_once(room: str) -> None:
    texts = texts_of_room(room)
    words = sum(len(text.split()) for _, text in texts)
    found = [(place, match.group()) for place, text in texts for match in ROUNDABOUT.finditer(text)]
    rate = 1000 * len(found) / max(words, 1)
    opens = [place for place, text in texts if room != "docs" and OPENS_BADLY.match(text)]
    # One in a small room is one too many for a rate, and no alarm.
    most = RATE_MAX_OF_DOCS if room == "docs" else RATE_MAX
    plain = (rate < most or len(found) <= 1) and not opens
    assert plain, f"{room}: {rate:.1f} in a thousand: {found[:20]}; opens with the word: {opens[:20]}"


def test_the_count_itself(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(
        '"""What it is."""\n# nobody knows\nX = 1\n"""Whose."""\ndef f():\n    """Plain."""\n    return "what"\n'
    )
    assert sorted(texts_of(file)) == [(1, "What it is."), (2, "nobody knows"), (4, "Whose."), (6, "Plain.")]
    assert [len(ROUNDABOUT.findall(text)) for _, text in sorted(texts_of(file))] == [1, 1, 1, 0]


def test_functions_are_short() -> None:
    found = {
        f"{path.relative_to(SOURCE)} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    long = {name: lines for name, lines in found.items() if lines > FUNCTION_LINES_MAX}
    assert not long, f"more than {FUNCTION_LINES_MAX} lines: let helpers compute, and the parent branch: {long}"


PAGES = sorted(path for path in ROOT.rglob("*.md") if not {".venv", "build", "node_modules"}.intersection(path.parts))
PROSE_WIDTH = 120


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_fits_the_width_of_the_code(path: Path) -> None:
    """Outside of tables, samples, drawings and lines that one address or name fills."""
    pieces = re.split(r"^\s*```.*?^\s*```", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = [line for piece in pieces for line in piece.splitlines() if not line.lstrip().startswith(("|", "<", "#"))]
    assert not [line for line in lines if len(line) > PROSE_WIDTH and len(line.split()) > 3]
