"""`deploy/stage`: the names of stages, and its refusals before anything is called."""

import re
import runpy
import subprocess
import sys
from collections.abc import Callable

import pytest
from packages import ROOT

STAGE = re.compile(r"[a-z][a-z0-9-]{0,23}")
SCRIPT = ROOT / "deploy" / "stage"
stage_of: Callable[[str], str] = runpy.run_path(str(SCRIPT))["stage_of"]


def stage(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, SCRIPT, *arguments),
        capture_output=True,
        text=True,
        timeout=120,
        env={"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "HOME": "/nonexistent", **environment},
    )


@pytest.mark.parametrize(
    ("branch", "plain"),
    [
        ("main", "main"),
        ("fix/Refunds_2", "fix-refunds-2"),
        ("12-factor", "b-12-factor"),
        ("a-name-that-is-longer-than-a-stage-may-be", "a-name-that-is-long"),
        ("ключ", "b"),
        ("ends-exactly-at-a-19--x", "ends-exactly-at-a-1"),
    ],
)
def test_a_branch_has_a_stage(branch: str, plain: str) -> None:
    name = stage_of(branch)
    assert STAGE.fullmatch(name) and re.fullmatch(rf"{plain}-[0-9a-f]{{4}}", name), name


def test_branches_that_look_alike_have_stages_of_their_own() -> None:
    names = [stage_of(branch) for branch in ("fix/a", "fix-a", "FIX/a")]
    assert names[0] == stage("name", "fix/a").stdout.strip()
    assert len(set(names)) == 3 and all(name.startswith("fix-a-") for name in names)


@pytest.mark.parametrize("name", ["1dev", "a" * 25, "dev\n"])
def test_what_is_no_stage_is_refused(name: str) -> None:
    done = stage("deploy", "cloudformation", name, AWS_REGION="eu-central-1")
    assert done.returncode == 2 and "A stage is a lower-case letter" in done.stderr


def test_a_python_without_boto3_is_told_what_to_do() -> None:
    bare = subprocess.run((sys.executable, "-S", SCRIPT, "name", "main"), capture_output=True, text=True, timeout=60)
    assert bare.returncode == 1 and bare.stderr.startswith("deploy/stage: boto3 is missing."), bare.stderr


def test_a_region_is_needed() -> None:
    done = stage("destroy", "cloudformation", "dev")
    assert done.returncode == 2 and "AWS_REGION" in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--set", "LogLevel"), "--set takes Parameter=value, not 'LogLevel'"),
        (("--set", "LogLevel=error", "--set", "Loglevel=error"), "There is no parameter 'Loglevel' to set"),
        (("--set", "Stage=other"), "There is no parameter 'Stage' to set"),
        (("--package", "none.zip"), "There is no package none.zip"),
    ],
)
@pytest.mark.parametrize("tool", ["cloudformation", "terraform"])
def test_options_are_refused_before_anything_is_made(tool: str, options: tuple[str, ...], says: str) -> None:
    done = stage("deploy", tool, "dev", *options, AWS_REGION="eu-central-1")
    assert done.returncode == 2 and says in done.stderr, done.stderr


def test_an_account_that_does_not_answer_is_no_misuse() -> None:
    credentials = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_MAX_ATTEMPTS": "1"}
    done = stage("destroy", "cloudformation", "dev", AWS_REGION="eu-central-1", **credentials)
    assert done.returncode == 1 and "http://127.0.0.1:9" in done.stderr


def test_another_tool_is_refused() -> None:
    done = stage("deploy", "pulumi", "dev")
    assert done.returncode == 2 and "cloudformation" in done.stderr
