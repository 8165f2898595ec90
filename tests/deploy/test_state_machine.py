"""The order workflow for Step Functions: generated from the domain's definition, and whole."""

import json
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
from linters import installed
from packages import ROOT

from tillway.domain.order import HANDLER, WORKFLOW

FILE = ROOT / "deploy" / "aws" / "workflow.asl.json"
PAGE = ROOT / "docs" / "orders.md"
GENERATOR = runpy.run_path(str(ROOT / "scripts" / "order_workflow.py"))
MACHINE: dict[str, Any] = json.loads(FILE.read_text())
STATES: dict[str, Any] = MACHINE["States"]
TASKS = [state for state in WORKFLOW.states if state.kind == "task"]


def targets(state: dict[str, Any]) -> set[str]:
    """The states that `state` can go on to."""
    found = {choice["Next"] for choice in state.get("Choices", ())} | {
        catch["Next"] for catch in state.get("Catch", ())
    }
    return found | {state[name] for name in ("Next", "Default") if name in state}


def test_the_file_comes_from_the_definition() -> None:
    assert FILE.read_text() == GENERATOR["text"](), "run `python scripts/order_workflow.py`"


def test_the_page_draws_the_file() -> None:
    found = re.search(r"<!-- machine -->\n```mermaid\n(.*)\n```\n<!-- /machine -->", PAGE.read_text(), re.DOTALL)
    assert found is not None and found.group(1) == GENERATOR["mermaid"](MACHINE)


@pytest.mark.parametrize("state", TASKS, ids=lambda state: str(state.name))
def test_a_step_goes_where_the_definition_says(state: Any) -> None:
    task = STATES[state.name]
    caught = {catch.next for catch in state.catch}
    assert task["Parameters"]["step"] == state.name
    choice = STATES[task["Next"]]
    assert targets(choice) - {f"{state.name}_waits", "go_on"} == {state.next} | caught
    assert targets(STATES[f"{state.name}_waits"]) == {state.name}
    assert {catch["Next"] for catch in task.get("Catch", ())} == caught
    assert all(catch["ErrorEquals"] == ["States.ALL"] for catch in task.get("Catch", ()))
    [retry] = task["Retry"]
    assert retry["ErrorEquals"] == ["States.ALL"] and (retry["MaxAttempts"] > 1000) == (state.name == HANDLER)


def test_each_state_is_reached_and_has_a_way_to_an_end() -> None:
    reached, ahead = set[str](), {MACHINE["StartAt"]}
    while ahead:
        reached |= ahead
        ahead = set().union(*(targets(STATES[name]) for name in ahead)) - reached
    assert reached == STATES.keys()
    ending = {name for name, state in STATES.items() if state["Type"] in ("Succeed", "Fail")}
    assert ending == {"placed", "payment_failed", "lost"}
    while more := {name for name, state in STATES.items() if targets(state) & ending} - ending:
        ending |= more
    assert ending == STATES.keys()


def test_an_order_that_another_carrier_moved_is_followed() -> None:
    assert targets(STATES["go_on"]) == {state.name for state in WORKFLOW.states} | {"lost"}


def lint(text: str, directory: Path) -> str:
    """The complaints of statelint, with an ARN in the place of the parameter."""
    file = directory / "machine.json"
    file.write_text(
        text.replace("${StepFunctionArn}", "arn:aws:lambda:eu-central-1:111111111111:function:tillway-x-step")
    )
    statelint = installed("statelint==3.1.0", "statelint")
    done = subprocess.run((statelint, file), capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def test_statelint_takes_the_file(tmp_path: Path) -> None:
    assert lint(FILE.read_text(), tmp_path) == ""
    assert "nowhere" in lint(FILE.read_text().replace('"Next": "placed"', '"Next": "nowhere"'), tmp_path)
