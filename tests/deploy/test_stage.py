"""`deploy/stage`: the names of stages, and its refusals before anything is called."""

import io
import json
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from packages import ROOT

STAGE = re.compile(r"[a-z][a-z0-9-]{0,23}")
SCRIPT = ROOT / "deploy" / "stage"
PARTS: dict[str, Any] = runpy.run_path(str(SCRIPT))
stage_of: Callable[[str], str] = PARTS["stage_of"]


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
        (("--set", "LogLevel=loud"), "LogLevel is one of debug, info, warning, error; not 'loud'"),
        (("--set", "DeletionProtection=True"), "DeletionProtection is one of true, false"),
        (("--set", "MemoryMegabytes=64"), "MemoryMegabytes is a whole number from 256 to 10240; not '64'"),
        (("--set", "ThrottleRate=many"), "ThrottleRate is a whole number from 0 upwards; not 'many'"),
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


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    done = stage("destroy", "cloudformation", "dev", AWS_REGION="eu-central-1", AWS_ENDPOINT_URL="localhost:4566")
    assert done.returncode == 2 and "AWS_ENDPOINT_URL is 'localhost:4566'" in done.stderr


@pytest.mark.parametrize(("tool", "program"), [("terraform", "terraform"), ("cdk", "npx")])
def test_a_tool_that_is_not_installed_is_named(tool: str, program: str) -> None:
    done = stage("deploy", tool, "dev", AWS_REGION="eu-central-1", PATH="/nonexistent")
    assert done.returncode == 2 and f"There is no {program} on the PATH" in done.stderr


class There:
    """AWS as far as the script asks it before it changes anything: a bucket's files, and the states of a stack."""

    def __init__(self, folder: Path, *states: str, **files: Any) -> None:
        self.stage, self.name, self.bucket, self.region = "dev", "tillway-dev", "code", "eu-central-1"
        self._states, self._files = list(states), {f"{name}.json": body for name, body in files.items()}
        self._folder = folder

    def client(self, service: str) -> "There":
        return self

    def folder(self) -> Path:
        return self._folder

    def get_object(self, Bucket: str, Key: str) -> Any:
        body = self._files.get("state.json" if Key.endswith("tfstate") else "variables.json")
        if body is None:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        return {"Body": io.BytesIO(json.dumps(body).encode())}

    def get_bucket_location(self, Bucket: str) -> Any:
        return {"LocationConstraint": None}

    def describe_stacks(self, StackName: str) -> Any:
        if not self._states:
            raise ClientError({"Error": {"Code": "ValidationError", "Message": "does not exist"}}, "DescribeStacks")
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return {"Stacks": [{"StackStatus": state, "StackId": "1"}]}


MADE, EMPTY = {"resources": [{}], "serial": 1}, {"resources": [], "serial": 1}


@pytest.mark.parametrize(
    ("tool", "states", "files", "refused"),
    [
        ("terraform", (), {}, False),
        ("terraform", (), {"variables": {}, "state": MADE}, False),
        ("terraform", ("CREATE_COMPLETE",), {}, True),
        ("cloudformation", ("CREATE_COMPLETE",), {}, False),
        ("cdk", ("CREATE_COMPLETE",), {}, False),
        ("cloudformation", (), {"variables": {}, "state": EMPTY}, False),
        ("cloudformation", (), {"variables": {}, "state": MADE}, True),
        ("cdk", (), {"variables": {}, "state": MADE}, True),
        # Killed in its first deployment.
        ("cloudformation", (), {"variables": {}}, True),
    ],
)
def test_a_stage_of_another_tool_is_refused(
    tool: str, states: tuple[str, ...], files: dict[str, Any], refused: bool, tmp_path: Path
) -> None:
    place = There(tmp_path, *states, **files)
    if not refused:
        PARTS["refuse_another_tool"](place, tool)
        return
    with pytest.raises(PARTS["Misused"], match="made the stage dev, not"):
        PARTS["refuse_another_tool"](place, tool)


def test_a_stage_of_another_region_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PARTS["Misused"], match="is in us-east-1: set AWS_REGION=us-east-1"):
        PARTS["refuse_elsewhere"](There(tmp_path))


def test_a_stack_that_changes_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    place = There(tmp_path, "CREATE_IN_PROGRESS", "CREATE_COMPLETE")
    assert PARTS["settled"](place)["StackStatus"] == "CREATE_COMPLETE"
    # Nothing goes on in a stack that only has a change set.
    assert PARTS["settled"](There(tmp_path, "REVIEW_IN_PROGRESS"))["StackStatus"] == "REVIEW_IN_PROGRESS"


@pytest.mark.parametrize(
    ("ours", "theirs", "kept"),
    [
        (None, ("a", 3), ("a", 3)),
        (("a", 5), ("a", 3), ("a", 5)),
        (("a", 2), ("a", 3), ("a", 3)),
        (("b", 9), ("a", 3), ("a", 3)),
        (("a", 5), None, ("a", 5)),
    ],
)
def test_of_two_states_the_later_one_counts(
    ours: tuple[str, int] | None, theirs: tuple[str, int] | None, kept: tuple[str, int], tmp_path: Path
) -> None:
    """A deployment that was killed has left its state here, and not in the bucket."""
    documents = [None if each is None else {"lineage": each[0], "serial": each[1]} for each in (ours, theirs)]
    file = tmp_path / "terraform.tfstate"
    if documents[0] is not None:
        file.write_text(json.dumps(documents[0]))
    PARTS["fetch_state"](There(tmp_path, state=documents[1]))
    found = json.loads(file.read_text())
    assert (found["lineage"], found["serial"]) == kept


CHILD = """
import signal, sys
signal.signal(signal.SIGINT, lambda *_: (print("ends its step", file=sys.stderr), sys.exit(3)))
print("begins", file=sys.stderr, flush=True)
signal.pause()
"""


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_terraform_ends_its_step_when_the_script_is_interrupted(told: signal.Signals) -> None:
    command = f"PARTS['run_to_its_end']((sys.executable, '-c', {CHILD!r}), dict(os.environ))"
    program = f"import os, runpy, sys; PARTS = runpy.run_path({str(SCRIPT)!r}); {command}"
    with subprocess.Popen((sys.executable, "-c", program), stderr=subprocess.PIPE, text=True) as script:
        assert script.stderr is not None and script.stderr.readline() == "begins\n"
        script.send_signal(told)
        said = script.communicate(timeout=30)[1]
    assert said.startswith("ends its step") and "ended with 3" in said, said


def test_another_tool_is_refused() -> None:
    done = stage("deploy", "pulumi", "dev")
    assert done.returncode == 2 and "cloudformation" in done.stderr
