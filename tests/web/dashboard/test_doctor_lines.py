"""The doctor's findings on the page of the system: nothing is left out, and what is wrong stands first."""

from tillway.web.dashboard.doctor_lines import lines_of


def finding(check: str, what: str, state: str = "ok", remedy: str = "") -> dict[str, str]:
    return {"check": check, "state": state, "what": what, "remedy": remedy}


FINDINGS = [
    finding("directory", "/srv/tillway, mode 0700"),
    finding("database", "journal_mode is wal"),
    finding("database", "synchronous is 2 (2 is FULL)"),
    finding("connector", "nordbank (http_bank, test)"),
    finding("connector", "adyen-eu (adyen, test)"),
    finding("live mode", "no connector is its default", "warn", "Run: tillway connectors add"),
    finding("python", "3.11.7"),
    finding("msgspec", "0.22.0"),
    finding("a later check", "fine too"),
]


def test_findings_that_belong_together_are_one_line() -> None:
    told = [(one["state"], one["heading"], one["what"]) for one in lines_of(FINDINGS)]
    assert told == [
        ("warn", "Live mode", "no connector is its default"),
        ("ok", "Every answer waits for the disk", "Database journal_mode is wal; synchronous is 2 (2 is FULL)"),
        ("ok", "Disk", "Directory /srv/tillway, mode 0700"),
        ("ok", "Connectors", "Connector nordbank (http_bank, test); adyen-eu (adyen, test)"),
        ("ok", "A later check", "fine too"),
        ("ok", "Versions", "Python 3.11.7; Msgspec 0.22.0"),
    ]


def test_a_finding_that_is_wrong_leaves_its_group_with_its_remedy() -> None:
    full = finding("disk", "12 MiB free", "fail", "Free some space.")
    lines = lines_of([*FINDINGS, full])
    assert lines[1] == {"state": "fail", "heading": "Disk", "what": "12 MiB free", "remedies": ["Free some space."]}
    assert [one["heading"] for one in lines].count("Disk") == 2
