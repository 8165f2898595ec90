"""Write the order workflow as Amazon States Language to deploy/aws/workflow.asl.json; with `--mermaid`, print it drawn.

The states and their transitions come from `WORKFLOW` in src/tillway/domain/order.py. The outcome of a step is data:
the function answers `{"next": state}` or `{"next": state, "wait": seconds}`, and the domain decides both for every
carrier of an order. `Retry` and `Catch` are left for faults of the function itself, such as a time-out or a throttle.
https://states-language.net/spec.html has the terms.
"""

import json
import sys
from pathlib import Path
from typing import Any

from tillway.domain.order import WORKFLOW, OrderState
from tillway.domain.workflow import ALL, WITHOUT_END, State

FILE = Path(__file__).parents[1] / "deploy" / "aws" / "workflow.asl.json"

FUNCTION = "${StepFunctionArn}"
"""CloudFormation and Terraform put the function's ARN in its place."""

STEP_SECONDS_MAX = 60
"""A step that has not answered by then is a fault. The function's own time-out is shorter."""

FAULT = {
    "ErrorEquals": [ALL],
    "IntervalSeconds": 1,
    "BackoffRate": 2.0,
    "MaxDelaySeconds": 60,
    "JitterStrategy": "FULL",
}
FAULTS_MAX = 8
"""The order of a step whose function fails so often (within some three minutes) is undone."""
FOR_EVER = WITHOUT_END - 1
"""The failure handler's attempts: the States Language's own bound is exclusive."""

LOST = "lost"


def machine() -> dict[str, Any]:
    """The whole state machine."""
    states: dict[str, Any] = {
        "begin": {"Type": "Pass", "Result": None, "ResultPath": "$.fault", "Next": WORKFLOW.start},
    }
    for state in WORKFLOW.states:
        states |= _task(state) if state.kind == "task" else {state.name: _end(state)}
    names = [state.name for state in WORKFLOW.states]
    states["go_on"] = {
        "Type": "Choice",
        "Comment": "Another carrier of the order has done further steps",
        "Choices": [_goes_to(name) for name in names],
        "Default": LOST,
    }
    states[LOST] = {
        "Type": "Fail",
        "Error": "Lost",
        "Cause": "A step answered with a state that is not in this workflow.",
    }
    return {"Comment": WORKFLOW.what, "StartAt": "begin", "States": states}


def _task(state: State[OrderState]) -> dict[str, Any]:
    """A step, the choice by its outcome, and the wait before it is tried again."""
    assert state.next is not None
    caught = sorted({catch.next for catch in state.catch})
    retry = {**FAULT, "MaxAttempts": FAULTS_MAX if caught else FOR_EVER}
    task: dict[str, Any] = {
        "Type": "Task",
        "Comment": state.what,
        "Resource": FUNCTION,
        "Parameters": {"scope.$": "$.scope", "order.$": "$.order", "step": state.name, "fault.$": "$.fault"},
        "ResultPath": "$.outcome",
        "TimeoutSeconds": STEP_SECONDS_MAX,
        "Retry": [retry],
    }
    if caught:
        assert all(catch.errors == (ALL,) for catch in state.catch), "the machine knows faults alone, of any name"
        [handler] = caught
        task["Catch"] = [{"ErrorEquals": [ALL], "ResultPath": "$.fault", "Next": handler}]
    waits, came_to = f"{state.name}_waits", f"{state.name}_came_to"
    choices = [{"Variable": "$.outcome.wait", "IsPresent": True, "Next": waits}, _goes_to(state.next)]
    return {
        state.name: {**task, "Next": came_to},
        came_to: {"Type": "Choice", "Choices": [*choices, *map(_goes_to, caught)], "Default": "go_on"},
        waits: {"Type": "Wait", "SecondsPath": "$.outcome.wait", "Next": state.name},
    }


def _goes_to(name: str) -> dict[str, Any]:
    return {"Variable": "$.outcome.next", "StringEquals": name, "Next": name}


def _end(state: State[OrderState]) -> dict[str, Any]:
    if state.kind == "succeed":
        return {"Type": "Succeed", "Comment": state.what}
    return {"Type": "Fail", "Comment": state.what, "Error": state.error, "Cause": "The order has the reason."}


def text() -> str:
    """The file's content."""
    return json.dumps(machine(), indent=2) + "\n"


def mermaid(machine: dict[str, Any]) -> str:
    """A state machine in the States Language as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {machine['StartAt']}"]
    for name, state in machine["States"].items():
        if "Comment" in state:
            lines.append(f"    {name}: {state['Comment']}")
        for choice in state.get("Choices", ()):
            reason = "to wait" if "IsPresent" in choice else choice["StringEquals"]
            lines.append(f"    {name} --> {choice['Next']}: {reason}")
        lines += [f"    {name} --> {catch['Next']}: fault" for catch in state.get("Catch", ())]
        if "Default" in state:
            lines.append(f"    {name} --> {state['Default']}: else")
        if state["Type"] != "Choice":
            lines.append(f"    {name} --> {state.get('Next', '[*]')}")
    return "\n".join(lines)


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            FILE.write_text(text())
        case ["--mermaid"]:
            print(mermaid(machine()))
        case _:
            sys.exit("usage: python scripts/order_workflow.py [--mermaid]")
