"""A store whose last writer wins."""

from tillway.store import sqlite

assert sqlite._UPDATE.endswith("WHERE key = ? AND version = ?")
sqlite._UPDATE = sqlite._UPDATE.replace("AND version = ?", "AND version >= ? - 1000000")
