"""A broken rule of the crash harness."""

import msgspec


class Violation(msgspec.Struct, frozen=True):
    """A contradiction. `about` are ids, references, keys and stories by which related lines are found."""

    rule: str
    what: str
    about: tuple[str, ...] = ()
