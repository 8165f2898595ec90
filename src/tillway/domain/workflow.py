"""Workflows as data: states, their next states, their retries, and the targets of failures.

The terms are those of the Amazon States Language (https://states-language.net), so that the engine's own tasks can
carry a definition, the documents can draw it, and Step Functions can run it.
"""

from collections.abc import Mapping
from typing import Generic, Literal, TypeVar

from tillway.domain.record import Value

Name = TypeVar("Name", bound=str)
"""The names of a workflow's states: a `Literal` of them."""

ALL = "States.ALL"
"""In place of error names: every error."""

WITHOUT_END = 99_999_999
"""As `attempts_max`: never given up (the States Language's own bound)."""


class Retry(Value, frozen=True, kw_only=True):
    """A state that failed with one of `errors` is entered again after `interval_seconds`, then at growing intervals:
    each wait is `backoff_rate` times the previous one, at most `delay_max_seconds`, and there are `attempts_max` of
    them."""

    errors: tuple[str, ...]
    interval_seconds: int = 1
    attempts_max: int = 3
    backoff_rate: int = 2
    delay_max_seconds: int = 900


class Catch(Value, Generic[Name], frozen=True, kw_only=True):
    """The next state after a failure with one of `errors` that is not retried."""

    errors: tuple[str, ...]
    next: Name


class State(Value, Generic[Name], frozen=True, kw_only=True):
    """A `task` runs the step of its name and continues at `next`; `succeed` and `fail` are ends. `shows` is the status
    of an order in this state, None if it keeps the previous one; `error` the name of a failed end's error."""

    name: Name
    what: str
    kind: Literal["task", "succeed", "fail"] = "task"
    shows: str | None = None
    next: Name | None = None
    retry: tuple[Retry, ...] = ()
    catch: tuple[Catch[Name], ...] = ()
    error: str | None = None


class StepFailed(Exception):
    """A step that failed, for now or for good: the definition's `retry` and `catch` decide by `error`."""

    def __init__(self, error: str, cause: str) -> None:
        self.error = error
        self.cause = cause
        super().__init__(f"{error}: {cause}")


class Again(Value, frozen=True, kw_only=True):
    """Enter the same state again after this time."""

    seconds: int


class Caught(Value, Generic[Name], frozen=True, kw_only=True):
    """Continue at that state."""

    next: Name


class Workflow(Value, Generic[Name], frozen=True, kw_only=True):
    name: str
    what: str
    start: Name
    states: tuple[State[Name], ...]

    def __post_init__(self) -> None:
        names = [state.name for state in self.states]
        assert len(set(names)) == len(names) and self.start in names
        for state in self.states:
            targets = [state.next] if state.kind == "task" else []
            targets += [catch.next for catch in state.catch]
            assert all(target in names for target in targets), f"{state.name} goes on where no state is"

    def state(self, name: Name) -> State[Name]:
        return next(state for state in self.states if state.name == name)

    @property
    def handlers(self) -> frozenset[Name]:
        """The states that catch failures of others."""
        return frozenset(catch.next for state in self.states for catch in state.catch)


def after_failure(state: State[Name], error: str, failures: Mapping[str, int]) -> Again | Caught[Name]:
    """The reaction to `error` in `state`, which is among the `failures` of the state so far, by error name.

    As in the States Language, the first retry that names the error decides, and counts the errors it names; when it is
    exhausted, the first catch that names the error decides. Every task here catches all errors that it does not retry
    for ever.
    """
    for i, retry in enumerate(state.retry):
        if not _knows(retry.errors, error):
            continue
        earlier = state.retry[:i]
        had = sum(
            count
            for name, count in failures.items()
            if _knows(retry.errors, name) and not any(_knows(other.errors, name) for other in earlier)
        )
        if had <= retry.attempts_max:
            # The exponent has its own bound: a larger number would be cut off anyway.
            seconds = retry.interval_seconds * retry.backoff_rate ** min(had - 1, 30)
            return Again(seconds=min(seconds, retry.delay_max_seconds))
        break
    for catch in state.catch:
        if _knows(catch.errors, error):
            return Caught(next=catch.next)
    raise AssertionError(f"{state.name} neither retries nor catches {error}")


def _knows(errors: tuple[str, ...], error: str) -> bool:
    return error in errors or ALL in errors


def mermaid(workflow: Workflow[Name]) -> str:
    """The workflow as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {workflow.start}"]
    for state in workflow.states:
        lines.append(f"    {state.name}: {state.what}")
        for retry in state.retry:
            lines.append(f"    {state.name} --> {state.name}: {_errors(retry.errors)}, {_schedule(retry)}")
        if state.next is not None:
            lines.append(f"    {state.name} --> {state.next}")
        for catch in state.catch:
            lines.append(f"    {state.name} --> {catch.next}: {_errors(catch.errors)}")
        if state.kind != "task":
            lines.append(f"    {state.name} --> [*]")
    return "\n".join(lines)


def _errors(errors: tuple[str, ...]) -> str:
    return "any error" if ALL in errors else " or ".join(errors)


def _schedule(retry: Retry) -> str:
    often = "until it is over" if retry.attempts_max == WITHOUT_END else f"{retry.attempts_max} times"
    return f"again after {retry.interval_seconds} s, then {retry.backoff_rate} times as long, {often}"
