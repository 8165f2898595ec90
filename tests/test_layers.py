"""Imports point down only: which room of the house may import which, by a walk over the source."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "tillway"

# The modules of Tillway that each room may import. `store.port` is that one file, `store` the whole room.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "domain": frozenset(),
    "store": frozenset(("domain", "aws_client")),
    # A rotation walks the sealed records, which it knows by the store's port and the one codec.
    "vault": frozenset(("domain", "aws_client", "store.port", "store.codec", "store.walk")),
    "connectors": frozenset(("domain", "http1", "client_connections")),
    # Everything that simulates a provider, and the tables of test cards and test accounts.
    "sandbox": frozenset(("domain", "connectors")),
    # The transport gives a provider's silence its meaning. Test aliases stand for cards, so the vault knows the tables.
    "engine": frozenset(
        (
            "domain",
            "store.port",
            "store.codec",
            "store.walk",
            "vault.port",
            "connectors.port",
            "connectors.conversation",
            "connectors.file_port",
            # Webhooks go out by it.
            "http1",
            "client_connections",
            "sandbox.bank_accounts",
            "sandbox.cards",
        )
    ),
    "operations": frozenset(
        (
            "domain",
            "engine",
            "store.port",
            "store.codec",
            "store.walk",
            "vault.port",
            "connectors.port",
            # The daily close reads statements of banks and providers.
            "connectors.file_port",
            "connectors.settlement_reports",
            "connectors.statements",
            # Connectors are added by their kinds.
            "connectors.registry",
            "connectors.settings",
            "sandbox.cards",
        )
    ),
    "http": frozenset(("domain", "engine", "store.port", "store.codec")),
    # The dashboard's pages ask the API's own calls, as plain requests.
    "web": frozenset(("domain", "engine", "operations", "http", "store.port", "store.codec")),
    # /ops/v1/simulator sets the simulator's faults.
    "api": frozenset(
        (
            "domain",
            "engine",
            "operations",
            "http",
            "web",
            "store.port",
            "store.codec",
            "connectors.port",
            "sandbox.faults",
            "sandbox.simulator",
        )
    ),
    "dialects": frozenset(("domain", "engine", "operations", "http", "api", "store.port", "store.codec")),
    # A store's URL is refused by the kinds that are installed; a courier's like a connector's.
    "settings": frozenset(("store.registry", "store.port", "connectors.settings")),
    "data_directory": frozenset(),
    # Requests to AWS: of the store in DynamoDB, of keys in Secrets Manager, and of the functions in aws/.
    "aws_client": frozenset(),
    # One connection of a client, and what clients do with many: providers and merchants' endpoints are asked by them.
    "http1": frozenset(),
    "client_connections": frozenset(("http1",)),
    # The platform's facts become lines, metrics and spans; a scrape reads the queues in the store.
    "telemetry": frozenset(("domain", "engine", "store.port", "store.codec")),
    # The store, the keys and the vault, and no more: most commands need nothing else.
    "installation": frozenset(("engine.clock", "engine.key_binding", "settings", "store", "vault")),
    # Commands that the API runs as processes of their own.
    "housekeeping": frozenset(("engine.platform", "installation", "settings", "store.backup")),
    "wiring": frozenset(
        (
            "domain",
            "store",
            "vault",
            "connectors",
            "sandbox",
            "engine",
            "operations",
            "http",
            "web",
            "api",
            "dialects",
            "settings",
            "telemetry",
            # It keeps the store's generation beside the store.
            "data_directory",
            "installation",
            "housekeeping",
            "simulated_bank",
        )
    ),
    # The memory of the simulated bank that the processes on a store share.
    "simulated_bank": frozenset(("domain", "sandbox", "store.port", "store.codec")),
    # Lambda functions: doors to the platform, as the HTTP server and the commands are.
    "aws": frozenset(
        (
            "domain",
            "store",
            "vault",
            "sandbox",
            "engine",
            "operations",
            "http",
            "settings",
            "telemetry",
            "installation",
            "wiring",
            "aws_client",
            "data_directory",
            "simulated_bank",
        )
    ),
    "workers": frozenset(),
    "http_server": frozenset(),
    "service_manager": frozenset(),
    "open_connections": frozenset(("http.client_address",)),
    "serve": frozenset(
        (
            "http",
            "wiring",
            "installation",
            "workers",
            "settings",
            "telemetry",
            "data_directory",
            "http_server",
            "open_connections",
            "service_manager",
            # The memory that a server's processes share.
            "engine.siblings",
        )
    ),
    "cli": frozenset(
        (
            "domain",
            "store",
            "vault",
            "connectors",
            "sandbox",
            "engine",
            "operations",
            "web",
            "settings",
            "data_directory",
            "wiring",
            "installation",
            "serve",
            # `audit verify` reads the copy of the trail in a bucket.
            "aws_client",
        )
    ),
    # For people who write a store or a connector.
    "testing": frozenset(
        (
            "domain",
            "store",
            "vault",
            "connectors",
            "sandbox",
            "engine",
            "operations",
            "http",
            "api",
            "dialects",
            "settings",
            "wiring",
            "installation",
        )
    ),
    "simulation": frozenset(
        (
            "domain",
            "store",
            "vault",
            "connectors",
            "sandbox",
            "engine",
            "operations",
            "http",
            "web",
            "api",
            "dialects",
            "settings",
            "wiring",
            "installation",
            "testing",
        )
    ),
    "crash": frozenset(
        (
            "domain",
            "store",
            "vault",
            "connectors",
            "sandbox",
            "engine",
            "operations",
            "http",
            "settings",
            "data_directory",
            "wiring",
            "installation",
            "serve",
            "cli",
            "simulation.audit_check",
        )
    ),
}

# Where a package is called otherwise than the module that it brings.
PACKAGES = {"argon2": "argon2-cffi", "opentelemetry": "opentelemetry-sdk"}

# Only `testing` imports these; its users bring them.
TESTING_PACKAGES = frozenset(("hypothesis", "pytest"))

# The domain has no clock, no randomness, no environment and no input or output.
DOMAIN_PACKAGES = frozenset(("msgspec",))
NOT_IN_DOMAIN = frozenset(
    (
        "asyncio",
        "http",
        "io",
        "logging",
        "os",
        "pathlib",
        "random",
        "secrets",
        "shutil",
        "socket",
        "sqlite3",
        "subprocess",
        "sys",
        "threading",
        "time",
        "urllib",
        "uuid",
    )
)
NOT_CALLED_IN_DOMAIN = frozenset(("now", "today", "utcnow", "open", "print", "input"))


def _files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def _room(path: Path) -> str:
    parts = path.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else path.stem


@cache
def _imported(path: Path) -> tuple[tuple[int, str], ...]:
    """(line, module) of every import in a file, those inside functions too."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            module = node.module or ""
            yield node.lineno, module
            # `from tillway.store import sqlite` is an import of `tillway.store.sqlite`.
            for alias in node.names:
                if (SOURCE.parent / module.replace(".", "/") / f"{alias.name}.py").exists():
                    yield node.lineno, f"{module}.{alias.name}"


def _allowed(room: str, target: str) -> bool:
    """Whether a file of `room` may import `target`, a module's name without `tillway.` in front."""
    parts = target.split(".")
    allowed = MAY_IMPORT[room]
    if parts[0] == room or parts[0] in allowed or ".".join(parts[:2]) in allowed:
        return True
    # The bare room, on the way to one of its files, which stands in an entry of its own.
    return len(parts) == 1 and any(entry.startswith(f"{target}.") for entry in allowed)


@pytest.mark.parametrize("room", sorted({_room(path) for path in _files()} - {"__init__", "__main__"}))
def test_imports_point_down(room: str) -> None:
    assert room in MAY_IMPORT, "it is not in the table"
    wrong = [
        f"{path.relative_to(SOURCE)}:{line} imports {module}"
        for path in _files()
        if _room(path) == room
        for line, module in _imported(path)
        if module.startswith("tillway.") and not _allowed(room, module.removeprefix("tillway."))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_table_has_no_circle() -> None:
    graph = {room: {target.partition(".")[0] for target in allowed} for room, allowed in MAY_IMPORT.items()}
    order = list(TopologicalSorter(graph).static_order())
    assert order[0] in ("domain", "settings", "data_directory", "aws_client", "http1") and order[-1] == "crash"


def test_no_module_imports_itself_by_a_detour() -> None:
    """A circle of modules is opened, not hidden inside a function or behind TYPE_CHECKING."""
    modules = {".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in _files()}
    graph = {
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts): {
            module for _, module in _imported(path) if module in modules
        }
        for path in _files()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" imports ".join(reversed(circle.args[1])))


def test_every_entry_of_the_table_is_there() -> None:
    for entry in {*MAY_IMPORT, *(target for allowed in MAY_IMPORT.values() for target in allowed)}:
        place = SOURCE / entry.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file(), entry


def test_the_domain_is_pure() -> None:
    wrong = []
    for path in sorted((SOURCE / "domain").glob("*.py")):
        for line, module in _imported(path):
            top = module.partition(".")[0]
            known = top == "tillway" or top in DOMAIN_PACKAGES or top in sys.stdlib_module_names
            if not known or top in NOT_IN_DOMAIN:
                wrong.append(f"{path.name}:{line} {module}")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in NOT_CALLED_IN_DOMAIN:
                    wrong.append(f"{path.name}:{node.lineno} {name}()")
    assert not wrong, "\n".join(wrong)


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[>=<]", line)[0].strip() for line in project["dependencies"]}
    extras = {
        re.split(r"[\[>=<]", line)[0].strip() for lines in project["optional-dependencies"].values() for line in lines
    }
    imported = {module.partition(".")[0] for path in _files() for _, module in _imported(path)}
    foreign = imported - set(sys.stdlib_module_names) - {"tillway", *TESTING_PACKAGES}
    assert {PACKAGES.get(module, module) for module in foreign} - extras == declared


@pytest.mark.parametrize(
    ("room", "target", "allowed"),
    [
        ("domain", "store.port", False),
        ("store", "engine.core", False),
        ("engine", "store.sqlite", False),
        ("engine", "store", True),
        ("engine", "store.port", True),
        ("engine", "api.app", False),
        ("api", "wiring", False),
        ("api", "connectors.http_bank", False),
        ("engine", "sandbox.bank", False),
        ("engine", "operations.refunds", False),
        ("http", "api.charges", False),
        ("connectors", "engine.core", False),
        ("web", "api.render", False),
        ("wiring", "store.sqlite", True),
    ],
)
def test_the_walk_itself(room: str, target: str, allowed: bool) -> None:
    assert _allowed(room, target) is allowed
