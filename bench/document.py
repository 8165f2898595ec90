"""The places of the measured tables in the documentation."""

import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
STORES = ROOT / "docs" / "stores.md"


def write_between(name: str, text: str, document: Path = BENCHMARKS) -> None:
    """Put the text between the marks of that name, in place of what stands there."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = document.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    assert found and found_end, f"{document} has no place for the tables, from {begin} to {end}"
    lines = [line if line.startswith("|") else textwrap.fill(line, 120) for line in text.splitlines()]
    document.write_text(f"{before}{begin}\n\n" + "\n".join(lines) + f"\n\n{end}{after}")
