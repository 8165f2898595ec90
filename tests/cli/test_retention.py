"""`tillway retention`: say and set how long records are kept, and archive the trail."""

from pathlib import Path

from tillway_server import init, invoked, invoked_json


def test_periods_are_said_set_and_in_the_trail(tmp_path: Path) -> None:
    data = ("--data-dir", tmp_path / "data")
    init(tmp_path / "data")
    default = {"journal_days": None, "request_days": 7, "answer_hours": 24}
    assert invoked_json("retention", "show", *data) == default
    kept = {"journal_days": 400, "request_days": 3, "answer_hours": 48}
    given = ("--journal", "400", "--requests", "3", "--answers", "48")
    assert invoked_json("retention", "set", *given, *data) == kept
    assert invoked_json("retention", "set", "--journal", "0", *data) == kept | {"journal_days": None}
    for option, value in (("--journal", "29"), ("--requests", "366"), ("--answers", "23")):
        wrong = invoked("retention", "set", option, value, *data)
        assert wrong.returncode == 2 and option in wrong.stderr, wrong.stderr
    assert invoked("retention", "set", *data).returncode == 2
    trail = invoked("audit", "export", *data).stdout
    assert trail.count('"operation":"tillway retention set"') == 2


def test_an_archive_needs_a_period_and_verifies(tmp_path: Path) -> None:
    data, to = ("--data-dir", tmp_path / "data"), ("--to", tmp_path / "archive")
    init(tmp_path / "data")
    early = invoked("retention", "archive", *to, *data)
    assert early.returncode == 1 and "retention set --journal" in early.stderr
    invoked_json("retention", "set", "--journal", "30", *data)
    filed = invoked_json("retention", "archive", *to, *data)
    assert [one["entries"] for one in filed] == [0, 0, 0]
    (tmp_path / "archive").mkdir()
    assert invoked("audit", "verify", "--archive", tmp_path / "archive", *data).returncode == 0
    missing = invoked("audit", "verify", "--archive", tmp_path / "nowhere", *data)
    assert missing.returncode == 2 and "no directory" in missing.stderr
