"""`docs/architecture.md` and `docs/contributing/`: the names on these pages are those of the tree."""

import ast
import re
import sys
from pathlib import Path
from types import FrameType

import pytest

from tillway.testing.in_process import InProcessApp

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "tillway"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = [ARCHITECTURE, *sorted((ROOT / "docs" / "contributing").glob("*.md"))]

QUESTIONS = re.findall(r"^\| … (.+\?) \| `(.+)` \|$", ARCHITECTURE.read_text(), re.MULTILINE)
STEPS = re.findall(r"^\| (\d+) \| `(\S+)` \| (.+?) \| .+ \|$", ARCHITECTURE.read_text(), re.MULTILINE)

STEM = 4
"""How many letters of a word have to be the same: `confirmed` and `confirm`, but also `refund` and `refunds`."""


def found(path: str) -> Path | None:
    """The file or folder of that name, in the repository or below `src/tillway`."""
    return next((place / path for place in (SOURCE, ROOT) if (place / path).exists()), None)


def paths_in(text: str) -> set[str]:
    """The paths among the names in backticks: they have a folder, or an ending that this repository uses."""
    names = re.findall(r"`([A-Za-z0-9_.][\w./-]*)`", text)
    return {name for name in names if "/" in name or name.endswith((".py", ".md", ".toml", ".yml", ".lock"))}


def defined(path: Path, name: str) -> bool:
    """Whether a file defines `name`: a function, a class, or `Class.method`."""
    nodes: list[ast.stmt] = ast.parse(path.read_text()).body
    for part in name.split("."):
        match = [
            node
            for node in nodes
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == part
        ]
        if not match:
            return False
        nodes = match[0].body
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_on_the_page_is_there(page: Path) -> None:
    paths = paths_in(page.read_text())
    assert paths, f"{page.name} names no file: is it read at all?"
    assert sorted(path for path in paths if found(path) is None) == []


def test_every_room_and_file_of_the_drawing_is_there() -> None:
    drawing = ARCHITECTURE.read_text().partition("```text\n")[2].partition("```")[0]
    names = re.findall(r"\b[a-z_]+(?:/[a-z_.]*|\.py)", drawing)
    assert len(names) > 15
    assert sorted(name for name in names if found(name) is None) == []
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {f"`{room}/`" for room in rooms} <= {*re.findall(r"`[a-z_]+/`", ARCHITECTURE.read_text())}


def test_the_steps_of_a_payment_are_numbered_and_there() -> None:
    assert [int(step) for step, _, _ in STEPS] == list(range(1, len(STEPS) + 1)) and len(STEPS) >= 12
    for step, path, names in STEPS:
        for name in re.findall(r"`(.+?)`", names):
            assert defined(SOURCE / path, name), f"step {step}: {path} has no {name}"


async def test_a_payment_takes_the_steps_in_this_order(tmp_path: Path) -> None:
    """Every function that is called is noted. Before the first of these steps is the server, after the last a task."""
    app = await InProcessApp.open(tmp_path)
    merchant = await app.merchant()
    payment = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
    payment["automatic_payment_methods"] = {"enabled": True, "allow_redirects": "never"}
    # Names that no other test has sent: from the second request with the same ones on, a function is made for them.
    payment["metadata"] = {"the_way_of_a_payment": "once"}
    called: dict[tuple[str, str], int] = {}

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(f"{SOURCE}/"):
            path = frame.f_code.co_filename.removeprefix(f"{SOURCE}/")
            called.setdefault((path, frame.f_code.co_qualname), len(called))

    sys.setprofile(note)
    try:
        paid = await app.ok(merchant, "POST", "/v1/payment_intents", payment, idempotency_key="once")
    finally:
        sys.setprofile(None)
        await app.close()
    assert paid["status"] == "succeeded"
    way = [(path, name) for _, path, names in STEPS[1:-1] for name in re.findall(r"`(.+?)`", names)]
    # A class stands for its first method that is called.
    order = [
        min([n for (p, q), n in called.items() if p == path and f"{q}.".startswith(f"{name}.")]) for path, name in way
    ]
    assert order == sorted(order), [place for _, place in sorted(zip(order, way, strict=True))]


def test_at_least_twenty_questions_are_asked_and_no_two_alike() -> None:
    assert len(QUESTIONS) >= 20
    assert len({question for question, _ in QUESTIONS}) == len(QUESTIONS)


@pytest.mark.parametrize(("question", "path"), QUESTIONS, ids=[path for _, path in QUESTIONS])
def test_the_file_name_alone_answers_the_question(question: str, path: str) -> None:
    """Each word of a file's name begins as a word of the question does."""
    assert found(path) is not None, path
    asked = {word[:STEM] for word in re.findall(r"[a-z]+", question.lower())}
    name = Path(path).stem.removeprefix("test_")
    strange = [word for word in name.split("_") if word[:STEM] not in asked]
    assert not strange, f"{path} does not answer “Where is {question}” by its name: {strange}"


def test_the_questions_are_not_answered_by_chance() -> None:
    """Another file of the table answers a question far more seldom than its own."""
    hits = 0
    for question, own in QUESTIONS:
        asked = {word[:STEM] for word in re.findall(r"[a-z]+", question.lower())}
        others = [path for _, path in QUESTIONS if Path(path).stem != Path(own).stem]
        hits += any(all(word[:STEM] in asked for word in Path(path).stem.split("_")) for path in others)
    assert hits <= len(QUESTIONS) // 3
