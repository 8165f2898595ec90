"""Regular expressions that few requests need: compiled at their first use, not while a function on AWS starts.

Those that every payment uses are compiled at import, as usual: there, a plain `re.Pattern` is quicker.
"""

import re
from typing import Any, AnyStr, cast


class _LatePattern:
    def __init__(self, arguments: tuple[Any, int]) -> None:
        self._arguments = arguments

    def __getattr__(self, name: str) -> Any:
        # `re.compile` keeps what it has compiled, for the next method of the same pattern.
        found = getattr(re.compile(*self._arguments), name)
        setattr(self, name, found)
        return found


def late_pattern(pattern: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """`re.compile(pattern, flags)`, at the first access to one of its methods. A wrong pattern raises there."""
    return cast(re.Pattern[AnyStr], _LatePattern((pattern, flags)))
