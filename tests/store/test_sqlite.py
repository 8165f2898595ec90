from .sqlite_stores import SqliteContract


class TestSqliteStore(SqliteContract):
    pass
