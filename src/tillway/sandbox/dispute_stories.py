"""The courses of disputes that a bank draws from in the worlds and in the crash harness."""

STORIES = (
    "chargeback Opened",
    *["inquiry Opened, chargeback Opened"] * 4,
    "inquiry Opened, inquiry Lost",
    "inquiry Opened, chargeback Opened, chargeback Accepted",
    "chargeback Opened, chargeback Won",
    "chargeback Lost",
    "chargeback Opened, chargeback Lost, chargeback Won",
    "chargeback Won, chargeback Lost",
)
"""The reports of a dispute by stage and outcome, oldest first. Four of twelve let a merchant answer twice. The last
two contradict themselves."""
