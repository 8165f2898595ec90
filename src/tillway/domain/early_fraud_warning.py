"""Early fraud warnings: the issuer of a card suspects fraud and has not charged anything back."""

from typing import Any

import msgspec

from tillway.domain.charge import Charge, report_fraud
from tillway.domain.record import Changes, EventDraft, Moment, Record


class EarlyFraudWarning(Record, frozen=True, kw_only=True):
    """A warning about a charge. A charge has at most one, whose id has the charge's own suffix."""

    charge: str
    payment: str
    fraud_type: str = "misc"
    actionable: bool = True
    """Whether a refund can still prevent a dispute: none was opened, and the charge is not refunded in full."""


def warning_id(charge: str) -> str:
    return f"issfr_{charge.partition('_')[2]}"


def warn(charge: Charge, at: Moment) -> Changes[Charge]:
    """Note the warning on the charge; no money moves. A second warning about a charge changes nothing."""
    noted = report_fraud(charge)
    if not noted.records:
        return noted
    warning = EarlyFraudWarning(
        id=warning_id(charge.id),
        created=at.created,
        charge=charge.id,
        payment=charge.payment,
        actionable=not charge.refunded and not charge.disputed,
    )
    event = EventDraft(type="radar.early_fraud_warning.created", record=warning)
    return Changes(result=noted.result, records=(*noted.records, warning), events=(*noted.events, event))


def end_action(warning: EarlyFraudWarning, charge: Charge, changes: Changes[Any]) -> Changes[Any]:
    """The changes of a refund or dispute, with the warning about `charge` (as it is after them) no longer actionable if
    that is so."""
    if not warning.actionable or not (charge.refunded or charge.disputed):
        return changes
    after = msgspec.structs.replace(warning, actionable=False)
    event = EventDraft(type="radar.early_fraud_warning.updated", record=after, previous=warning)
    return msgspec.structs.replace(changes, records=(*changes.records, after), events=(*changes.events, event))
