"""Decision records have one form, and `docs/decisions/README.md` lists each of them as it is."""

import datetime
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
INDEX = (ROOT / "docs" / "decisions" / "README.md").read_text()

HEAD = re.compile(
    r"# (?P<number>\d{4}) (?P<title>.+)\n\n"
    r"- Status: (?P<status>.+)\n"
    r"- Date: (?P<date>\d{4}-\d\d-\d\d)\n"
    r"- Governs: (?P<governs>(?:.+\n)(?:  .+\n)*)\n"
)
STATUS = re.compile(r"proposed|accepted|superseded by (\d{4})")
SECTIONS = ("Context", "Decision", "Consequences", "Measured", "Reconsider when")


def head(record: Path) -> re.Match[str]:
    found = HEAD.match(record.read_text())
    assert found is not None, f"{record.name} does not begin as docs/decisions/template.md does"
    return found


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_a_record_has_the_form_of_the_template(record: Path) -> None:
    found = head(record)
    assert record.name.startswith(f"{found['number']}-")
    datetime.date.fromisoformat(found["date"])
    status = STATUS.fullmatch(found["status"])
    assert status is not None, f"{record.name}: no such status: {found['status']}"
    if status[1] is not None:
        assert any(other.name.startswith(f"{status[1]}-") for other in RECORDS), (
            f"{record.name}: there is no {status[1]}"
        )
    sections = re.findall(r"^## (.+)$", record.read_text(), re.MULTILINE)
    assert sections == [section for section in SECTIONS if section in sections], f"{record.name}: {sections}"
    assert sections[:2] == ["Context", "Decision"]
    assert {"Consequences", "Measured"} & {*sections}, f"{record.name} says neither what follows nor what was measured"


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_the_code_that_a_record_governs_is_there(record: Path) -> None:
    paths = re.findall(r"`([^`]+)`", head(record)["governs"])
    assert paths, f"{record.name} governs nothing"
    for path in paths:
        assert (ROOT / path).exists(), f"{record.name} governs {path}, which is not there"


def test_the_index_has_every_record_in_order_and_nothing_else() -> None:
    rows = re.findall(r"^\| (\d{4}) \| \[(.+)\]\((.+)\) \| (.+) \| (.+) \|$", INDEX, re.MULTILINE)
    assert rows == [
        (found["number"], found["title"], record.name, found["status"], found["date"])
        for record in RECORDS
        for found in [head(record)]
    ]
    assert [number for number, *_ in rows] == [f"{number:04}" for number in range(1, len(RECORDS) + 1)]
