"""The explanation of a violation: the shopper's orders, the kills, and the lines of the bank's journal."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tillway.crash.reconcile import SCOPE_LENGTH
from tillway.crash.violation import Violation

LINES_MAX = 120
"""The longest explanation, in lines."""

_IDS = re.compile(r"\b(?:pi|ch|re|att|du)_([0-9A-Za-z]{15,})\b")


def explain(
    violation: Violation, clients: Path, journals: Sequence[Path], deaths: Sequence[tuple[float, str]]
) -> list[str]:
    """Return the lines about a violation by time. The banks' lines follow them, because their journals have no
    times."""
    told = [msgspec.json.decode(line) for line in _lines_about(clients, violation.about)]
    names = {line["story"] for line in told} | {about for about in violation.about if re.fullmatch(r"\d+-\d+", about)}
    if not names:
        return []
    whole = [line for line in map(msgspec.json.decode, _lines_about(clients, names)) if line["story"] in names]
    events = [(line["at"], _describe_reply(line)) for line in whole]
    if events:
        first, last = events[0][0], events[-1][0]
        events += [(at, f"        *** {what} dies") for at, what in deaths if first <= at <= last]
    suffixes = {suffix for line in whole for suffix in _IDS.findall(line["body"])}
    effects = [
        f"  {journal.stem}  {line.decode(errors='replace')}"
        for journal in journals
        for line in _whole_lines(journal)
        if _concerns(msgspec.json.decode(line), suffixes)
    ]
    lines = [f"{at:9.3f}  {what}" for at, what in sorted(events, key=lambda event: event[0])]
    return [*_shorten(lines), *_shorten(effects)]


def _lines_about(clients: Path, about: Iterable[str]) -> list[bytes]:
    wanted = [part.encode() for part in about if part]
    return [line for line in _whole_lines(clients) if any(part in line for part in wanted)]


def _whole_lines(file: Path) -> list[bytes]:
    content = file.read_bytes()
    return content[: content.rfind(b"\n") + 1].splitlines()


def _concerns(line: dict[str, Any], suffixes: set[str]) -> bool:
    return any((line.get(name) or "")[SCOPE_LENGTH:] in suffixes for name in ("reference", "parent"))


def _describe_reply(line: dict[str, Any]) -> str:
    asked = f"{line['story']} {line['what']} {line['path']} under {line['key']}"
    if line["status"] == 0:
        return f"{asked}: {line['why']}"
    document = msgspec.json.decode(line["body"]) if line["body"] else {}
    error = document.get("error")
    again = " (replayed)" if line["replayed"] else ""
    if error is not None:
        return f"{asked}: {line['status']} {error.get('code')}{again}"
    money = document.get("amount_received", document.get("amount_captured", document.get("amount")))
    state = f"{document.get('id')} is {document.get('status')}, {money} of {document.get('amount')}"
    return f"{asked}: {line['status']} {state}{again}"


def _shorten(lines: list[str]) -> list[str]:
    if len(lines) <= LINES_MAX:
        return lines
    half = LINES_MAX // 2
    return [*lines[:half], f"        … {len(lines) - 2 * half} lines …", *lines[-half:]]
