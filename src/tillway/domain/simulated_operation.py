"""Operations and faults of the simulated bank, where its memory outlives its process."""

from typing import Any

from tillway.domain.account import SCOPE_KEY_LENGTH, SYSTEM
from tillway.domain.record import Record

LIFETIME_SECONDS = 30 * 86_400
"""How long the simulated bank remembers an operation after its last change."""


class SimulatedOperation(Record, frozen=True, kw_only=True):
    """One operation; `operation` holds the fields of `sandbox.bank.BankOperation`, without its defaults. It never holds
    a card number."""

    operation: dict[str, Any]
    expires_at: int


class SimulatedFaults(Record, frozen=True, kw_only=True):
    """The faults of the simulated bank for one scope's payments, or the installation's for all others: the rules of
    `sandbox.faults.Faults`, with the remaining times of each."""

    faults: dict[str, Any]
    expires_at: int


FAULTS_ID = "sbf_faults"


def place_of(reference: str) -> tuple[str, str]:
    """The scope key and the id of the record of a reference, which begins with the scope key of its merchant. The bank
    makes references of disputes itself: theirs are the installation's."""
    scope_key, rest = reference[:SCOPE_KEY_LENGTH], reference[SCOPE_KEY_LENGTH:]
    if rest and scope_key.isalnum() and scope_key[-1] in "tl" and "/" not in rest:
        return scope_key, f"sbo_{rest}"
    return SYSTEM, f"sbo_{reference.replace('/', '-')}"
