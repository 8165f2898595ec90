"""The doctor's findings as the page of the system shows them: what is wrong first, and what belongs together in one
line."""

from typing import Any, Final

from tillway.web.dashboard import words

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "Every answer waits for the disk": ("database",),
    "Clock": ("clock", "mark of time"),
    "Key file": ("key file",),
    "Disk": ("disk", "directory"),
    "Connectors": ("connector",),
    "Server": ("server", "tls", "open files", "accounts"),
}
"""The headings of lines with several findings, and the checks in them, in the order of the page."""

VERSIONS: Final = "Versions"
"""The heading of the checks of programs and libraries, which stand last."""
PARTS: Final = ("tillway", "python", "sqlite", "granian", "uvloop", "msgspec", "cryptography", "aiohttp")
INSTALLED: Final = frozenset((*PARTS, "kinds of store", "kinds of connector"))

Finding = dict[str, Any]


def lines_of(findings: list[Finding]) -> list[dict[str, Any]]:
    """The lines: each finding that is not fine by itself, then the fine ones by heading. A line names its checks."""
    wrong = [one for one in findings if one["state"] != "ok"]
    fine = [one for one in findings if one["state"] == "ok"]
    lines = [_line(words.check(one["check"]), [one]) for one in wrong]
    grouped = {check for checks in GROUPS.values() for check in checks} | INSTALLED
    groups = GROUPS | {words.check(one["check"]): (one["check"],) for one in fine if one["check"] not in grouped}
    for heading, checks in (groups | {VERSIONS: tuple(INSTALLED)}).items():
        if some := [one for one in fine if one["check"] in checks]:
            lines.append(_line(heading, some))
    return lines


def _line(heading: str, findings: list[Finding]) -> dict[str, Any]:
    parts, last = list[str](), ""
    for one in findings:
        name = words.check(one["check"])
        told = one["what"] if name in (heading, last) else f"{name} {one['what']}"
        parts.append(words.lower_first(told) if parts and name == last else told)
        last = name
    remedies = [one["remedy"] for one in findings if one["remedy"]]
    return {"state": findings[0]["state"], "heading": heading, "what": "; ".join(parts), "remedies": remedies}
