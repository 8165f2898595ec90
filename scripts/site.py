#!/usr/bin/env python3
"""Prepare the sources of the documentation's site, which `make docs` has Zensical build.

    python scripts/site.py DIRECTORY    # DIRECTORY/zensical.toml, DIRECTORY/docs; the site is built into DIRECTORY/site

The pages are those of `docs/`, and three of the root. To them come the reference of the API, a page for each noun,
which follows from the OpenAPI documents, and `llms.txt` (https://llmstxt.org), which lists all pages with their first
sentence. Links to other files of the repository become addresses at its host.
"""

import json
import re
import shutil
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tillway.api import handlers as api_handlers
from tillway.dialects import handlers as dialect_handlers
from tillway.http.contract import Dialect
from tillway.http.openapi import dialect_document, document
from tillway.http.routes import DIALECT_ROUTES

ROOT = Path(__file__).resolve().parents[1]
HANDLERS = (api_handlers, dialect_handlers)
"""The modules whose import fills the route tables."""

FIRST_PAGES = {"CONTRIBUTING.md": "contribute.md", "SECURITY.md": "report.md", "CHANGELOG.md": "changes.md"}
"""Pages of the root and their names in the site. docs/README.md is the site's first page."""

_SETTINGS = """\
[project]
site_name = "Tillway"
site_description = {description}
repo_url = {repository}
docs_dir = "docs"
site_dir = "site"
use_directory_urls = false
nav = {nav}

[project.theme]
font = false
features = ["navigation.sections", "navigation.indexes", "navigation.footer", "content.code.copy", "toc.follow"]

[[project.theme.palette]]
scheme = "default"
media = "(prefers-color-scheme: light)"

[[project.theme.palette]]
scheme = "slate"
media = "(prefers-color-scheme: dark)"
"""


def main(arguments: list[str]) -> int:
    """Return 0 where the sources were written, 2 where no directory was named."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    write(Path(arguments[0]))
    return 0


def write(directory: Path) -> None:
    """Write the sources of the site anew into `directory`, which may be there already."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    repository = project["urls"]["Repository"]
    pages = directory / "docs"
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir(parents=True)
    for source in sorted((ROOT / "docs").rglob("*")):
        name = source.relative_to(ROOT / "docs")
        if source.suffix == ".md":
            _write_page(pages / _page_name(name.as_posix()), source, repository, depth=len(name.parents) - 1)
        elif source.is_file():
            (pages / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, pages / name)
    for source_name, page_name in FIRST_PAGES.items():
        _write_page(pages / page_name, ROOT / source_name, repository)
    reference = dict(_reference())
    for page, text in reference.items():
        (pages / page).parent.mkdir(exist_ok=True)
        (pages / page).write_text(text)
    sections = [*_sections(), ("Reference", [(_title(text), page) for page, text in reference.items()])]
    (pages / "llms.txt").write_text(_llms(pages, project["description"], sections))
    nav: list[Any] = [{"Tillway": "index.md"}]
    nav += [{title: [{name: page} for name, page in entries]} for title, entries in sections]
    (directory / "zensical.toml").write_text(
        _SETTINGS.format(
            description=json.dumps(project["description"]), repository=json.dumps(repository), nav=_toml(nav)
        )
    )


def _page_name(name: str) -> str:
    return re.sub(r"(^|/)README\.md$", r"\1index.md", name)


def _write_page(page: Path, source: Path, repository: str, *, depth: int = 0) -> None:
    """Write a page with its links as they are from its place in the site."""
    text = source.read_text()

    def link(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        there = (source.parent / target).resolve()
        if not there.exists():
            return found[0]
        name = there.relative_to(ROOT).as_posix()
        if name in FIRST_PAGES:
            moved = FIRST_PAGES[name]
        elif name.startswith("docs/") and there.is_file():
            moved = _page_name(name.removeprefix("docs/"))
        else:
            return f"]({repository}/{'blob' if there.is_file() else 'tree'}/main/{name}{anchor})"
        return f"]({'../' * depth}{moved}{anchor})"

    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(re.sub(r"\]\(([^)#:\s]+)(#[^)\s]+)?\)", link, text))


def _sections() -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the sections of docs/README.md, each with titles and pages."""
    sections: list[tuple[str, list[tuple[str, str]]]] = []
    for line in (ROOT / "docs" / "README.md").read_text().splitlines():
        if line.startswith("## "):
            sections.append((line[3:], []))
        elif found := re.fullmatch(r"- \[(.+)\]\((.+)\)", line):
            name = found[2].removeprefix("../") if found[2].startswith("../") else found[2]
            sections[-1][1].append((found[1], FIRST_PAGES.get(name, _page_name(name))))
    return sections


def _llms(pages: Path, description: str, sections: list[tuple[str, list[tuple[str, str]]]]) -> str:
    lines = ["# Tillway", "", f"> {description}"]
    for title, entries in sections:
        lines += ["", f"## {title}", ""]
        for name, page in entries:
            lines.append(f"- [{name}]({page.removesuffix('.md')}.html): {_first_sentence((pages / page).read_text())}")
    return "\n".join(lines) + "\n"


def _title(text: str) -> str:
    return text.partition("\n")[0].removeprefix("# ")


def _first_sentence(text: str) -> str:
    paragraph = next(
        (part for part in text.split("\n\n") if re.match(r"[\w`*\[\"]", part) and not part.startswith("- ")), ""
    )
    plain = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", " ".join(paragraph.split()))
    return re.split(r"(?<=[.:])\s(?=[A-Z`])", plain)[0]


# The reference of the API.


def _reference() -> Iterator[tuple[str, str]]:
    """Yield each page's name and text: one for each noun of the API, and one for each dialect."""
    groups: dict[str, list[tuple[str, str, dict[str, Any]]]] = defaultdict(list)
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            groups[operation["tags"][0]].append((method, path, operation))
    for group, operations in sorted(groups.items()):
        yield f"reference/{group.strip('.')}.md", _reference_page(_noun(group), operations)
    dialects: dict[str, Dialect] = {route.dialect.name: route.dialect for route in DIALECT_ROUTES if route.dialect}
    for name, dialect in sorted(dialects.items()):
        operations = [
            (method, path, operation)
            for path, methods in dialect_document(dialect)["paths"].items()
            for method, operation in methods.items()
        ]
        yield f"reference/contract-{name}.md", _reference_page(dialect.title, operations)


def _noun(group: str) -> str:
    return _NOUNS.get(group) or group.strip(".").replace("_", " ").capitalize()


_NOUNS = {
    "3ds": "Challenge pages of test mode",
    "c": "Pages of hosted checkout",
    "p": "Pages of payment links",
    "js": "Scripts for browsers",
    "oauth2": "OAuth 2",
    "openapi": "OpenAPI documents of the dialects",
    "openapi.json": "The OpenAPI document",
    "ops": "Operation",
}
"""Titles of groups whose first part of the address says too little."""


def _reference_page(title: str, operations: list[tuple[str, str, dict[str, Any]]]) -> str:
    parts = [f"# {title}"]
    for method, path, operation in operations:
        parts.append(f"## `{method.upper()} {path}`\n\n{operation['summary']}")
        rows = [*_parameter_rows(operation)]
        if rows:
            parts.append("\n".join(["| parameter | in | form |", "|---|---|---|", *rows]))
        answers = ", ".join(f"{status}: {answer['description']}" for status, answer in operation["responses"].items())
        parts.append(f"Answers: {answers}")
    return "\n\n".join(parts) + "\n"


def _parameter_rows(operation: dict[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        yield _row(parameter["name"], parameter["in"], parameter["schema"], required=parameter.get("required", False))
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = content["schema"]
        needed = schema.get("required", ())
        for name, member in sorted(schema.get("properties", {}).items(), key=lambda item: item[0] not in needed):
            yield _row(name, "body", member, required=name in needed)
        return


def _row(name: str, place: str, schema: dict[str, Any], *, required: bool) -> str:
    form = _form(schema).replace("|", "\\|")
    return f"| `{name}`{' (required)' if required else ''} | {place} | {form} |"


def _form(schema: dict[str, Any]) -> str:
    """Say in words which values a schema takes."""
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" if value != "" else "an empty value" for value in schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_form(part) for part in schema[key]))
    kind = schema.get("type", "any value")
    if kind == "object" and schema.get("properties"):
        return "object with " + ", ".join(f"`{name}`" for name in schema["properties"])
    if kind == "array":
        return f"list of {_form(schema.get('items', {}))}"
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (("minimum", "from"), ("maximum", "to"), ("minLength", "at least"), ("maxLength", "at most"))
        if key in schema
    ]
    unit = " characters" if kind == "string" and bounds else ""
    return f"{kind if isinstance(kind, str) else ' or '.join(kind)}{', ' if bounds else ''}{' '.join(bounds)}{unit}"


def _toml(value: Any) -> str:
    """Return a value of lists, texts and tables in TOML's inline form."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
