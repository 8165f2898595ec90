"""`tillway close` and `tillway closes`, on an installation of its own."""

from pathlib import Path

from tillway_server import init, invoked, invoked_json

DAY = "2026-01-05"


def test_a_difference_is_shown_decided_and_then_tied(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    init(data_dir)
    bank = tmp_path / "bank.csv"
    bank.write_text(f"date,amount,currency,reference\n{DAY},0.12,eur,INTEREST\n")
    where = ("--data-dir", data_dir)
    made = invoked("close", "--day", DAY, "--statement", bank, *where, "--json")
    assert made.returncode == 1 and '"unknown_line"' in made.stdout
    [closed] = invoked_json("closes", "list", *where)
    difference = closed["differences"][0]["id"]
    shown = invoked("closes", "show", DAY, *where)
    assert shown.returncode == 0 and difference in shown.stdout and "0.12 EUR" in shown.stdout
    decision = ("closes", "decide", DAY, difference, "--as", "difference", "--reason", "Interest", *where)
    assert invoked_json(*decision)["status"] == "tied"
    again = invoked(*decision)
    assert again.returncode == 1 and "decided already" in again.stderr
    tied = invoked("close", "--day", DAY, "--statement", bank, *where)
    assert tied.returncode == 0, tied.stderr
    nothing = invoked("closes", "show", "2026-01-06", *where)
    assert nothing.returncode == 1 and "tillway close --day 2026-01-06" in nothing.stderr


def test_a_wrong_day_or_file_is_told(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    init(data_dir)
    where = ("--data-dir", data_dir)
    late = invoked("close", "--day", "2999-01-01", *where)
    assert late.returncode == 1 and "not over yet" in late.stderr
    missing = invoked("close", "--day", DAY, "--report", f"stripe={tmp_path / 'no.csv'}", *where)
    assert missing.returncode == 1 and "cannot be read" in missing.stderr
    assert invoked("close", "--day", DAY, "--report", "stripe", *where).returncode == 2
