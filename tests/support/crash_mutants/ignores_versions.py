"""A store whose last writer wins."""

import re

from tillway.store import postgres, sqlite

CHECK = re.compile(r"AND version = (\?2?)(?= AND|$)")

statements = {name: text for name, text in vars(sqlite).items() if isinstance(text, str) and CHECK.search(text)}
assert {"_UPDATE", "_DELETE"} <= statements.keys(), "a statement of the store checks no version; where has it gone?"
for name, text in statements.items():
    setattr(sqlite, name, CHECK.sub(r"AND version >= \1 - 1000000", text))

MOVED = "coalesce(held.version, 0) <> w.version"
assert MOVED in postgres._COMMIT, "the commit does not check versions; where has it gone?"
postgres._COMMIT = postgres._COMMIT.replace(MOVED, "(held.version IS NULL) <> (w.version = 0)")
