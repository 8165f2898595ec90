"""What holds for every command: its document, its options, its help, and that it starts without what it need not."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tillway_server import invoked

from tillway import __version__
from tillway.cli.main import app
from tillway.settings import TABLE

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"
HEAVY = (
    "aiohttp",
    "apsw",
    "asyncio",
    "cryptography",
    "granian",
    "uvloop",
    "tillway.installation",
    "tillway.wiring",
    "tillway.engine",
)


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for part, inner in command.commands.items():
            yield from _walk(f"{name} {part}", inner)
    else:
        yield name, command


COMMANDS = dict(_walk("tillway", typer.main.get_command(app)))
"""Every command by what is typed."""


def sections() -> dict[str, str]:
    """The document's text below each `## tillway …`."""
    parts = re.split(r"^## `(tillway[^`]*)`$", DOCUMENT.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_document_has_every_command_and_no_other() -> None:
    assert sorted(sections()) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_document_has_every_option_and_no_other(name: str) -> None:
    section = sections()[name]
    taken = (option for option in COMMANDS[name].params if option.param_type_name == "option")
    options = {flag for option in taken for flag in option.opts} - {"--help"}
    # Each command of the document's second paragraph has no such option, and every other one has.
    without = set(re.findall(r"`([a-z -]+)`", DOCUMENT.read_text().split("\n\n")[2].partition("(not for")[2]))
    assert ("--json" in options) is (name.removeprefix("tillway ") not in without)
    # Those of `serve` stand in the settings' own table.
    if name == "tillway serve":
        assert options == {row.flag for row in TABLE} and "settings.md" in section
        return
    listed = set(re.findall(r"^\| `(--[a-z-]+)", section, flags=re.MULTILINE))
    assert listed == options - {"--data-dir", "--store", "--json"}
    assert ("--store" in options) is ("--data-dir" in options), "whoever has a directory may have a store elsewhere"


def test_every_command_has_a_help_of_its_own() -> None:
    for name, command in COMMANDS.items():
        done = invoked(*name.split()[1:], "--help")
        assert done.returncode == 0 and command.help and len(command.help) > 15, name


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, tillway.cli.main; print([name for name in sys.argv[1:] if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_version() -> None:
    assert invoked("--version").stdout == f"{__version__}\n"


@pytest.mark.parametrize("arguments", [("fly",), ("init", "now"), ("keys", "revoke"), ("bank",), ("connectors", "add")])
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    done = invoked(*arguments)
    assert done.returncode == 2 and done.stdout == "" and "Usage" in done.stderr


def test_a_bank_in_the_background_of_a_script_ends_on_sigterm(tmp_path: Path) -> None:
    """A shell makes a background program of a script ignore SIGINT, and hands that down."""
    command = [sys.executable, "-m", "tillway.cli.main", "bank", "--port", "0", "--journal", str(tmp_path / "journal")]
    shell = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    with subprocess.Popen(shell, stderr=subprocess.PIPE, text=True) as bank:
        assert bank.stderr is not None
        assert "listening on" in bank.stderr.readline()
        for sign in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
            bank.send_signal(sign)
        bank.send_signal(signal.SIGTERM)
        assert bank.wait(timeout=30) == 0, "the others did no harm"
