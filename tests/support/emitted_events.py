"""The event types that the source emits: the words of `event_types.py` that stand in a decision or in the engine."""

import ast
from pathlib import Path

from tillway.domain.event_types import EVENT_TYPES

SOURCE = Path(__file__).parents[2] / "src/tillway"


def emitted() -> set[str]:
    return {
        node.value
        for room in ("domain", "engine", "operations")
        for path in (SOURCE / room).glob("*.py")
        if path.name != "event_types.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in EVENT_TYPES
    }
