"""Every `tillway …` that a page shows is a command, with options that it takes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tillway.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
]
COMMAND = typer.main.get_command(app)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def shown(text: str) -> Iterator[str]:
    """The command lines of a page: from `tillway` to the end of the line of code, its continuations joined."""
    for block in re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            yield from _commands(line.partition(" # ")[0])
    for span in re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)):
        yield from _commands(span)
    for line in re.findall(r"^    +(tillway .*)$", text, re.MULTILINE):
        yield from _commands(line)


def _commands(code: str) -> Iterator[str]:
    """The parts of a line that are a `tillway` command: pipes, redirections and lists end one."""
    for part in re.split(r"\s[|;<>]\s|&&|\|\||<(?= )", code):
        found = re.search(r"(?:^|[\s/])tillway(\s+[a-z-].*)$", part)
        if found is not None:
            yield found[1].strip()


def problem(line: str) -> str:
    """What is wrong with a command line; empty where nothing is."""
    words = line.split()
    command: Any = COMMAND
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        names = name.split("|")  # `tillway clock show|accept`
        if any(each not in command.commands for each in names):
            return f"tillway has no {name}"
        command = command.commands[names[0]]
    taken = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    taken |= {"--help", "--version", "--install-completion", "--show-completion"}
    wrong = [flag for flag in OPTION.findall(line) if flag not in taken]
    return f"{command.name} takes no {', '.join(wrong)}" if wrong and not hasattr(command, "commands") else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_are_there(page: Path) -> None:
    wrong = {line: problem(line) for line in shown(page.read_text())}
    assert {line: told for line, told in wrong.items() if told} == {}


def test_the_check_itself() -> None:
    page = "Run `tillway vault rotat`.\n\n```sh\ntillway serve \\\n  --porte 1 | cat\ntillway clock show --json\n```\n"
    assert [problem(line) for line in shown(page)] == ["serve takes no --porte", "", "tillway has no rotat"]
    assert len(list(shown((ROOT / "docs" / "production.md").read_text()))) > 5
