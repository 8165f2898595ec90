"""The tables of declines, and the page that shows them."""

import re
from pathlib import Path

import pytest
from provider_specs import spec

from tillway.connectors.declines import ADYEN, PAYPAL, Reason, decline

PAGE = Path(__file__).parents[2] / "docs" / "declines.md"


@pytest.mark.parametrize(("name", "table"), [("PayPal", PAYPAL), ("Adyen", ADYEN)])
def test_the_page_shows_the_table(name: str, table: dict[str, Reason]) -> None:
    section = PAGE.read_text().partition(f"## {name}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| `(\w+)` \| (soft|hard) \|$", section, re.M)
    assert {given: Reason(code, why, soft == "soft") for given, code, why, soft in rows} == table


@pytest.mark.parametrize("table", [PAYPAL, ADYEN], ids=["PayPal", "Adyen"])
def test_the_networks_forbid_to_repeat_hard_declines(table: dict[str, Reason]) -> None:
    forbidden = {"lost_card", "pickup_card", "restricted_card", "invalid_account", "revocation_of_all_authorizations"}
    assert not [given for given, reason in table.items() if reason.soft and reason.decline_code in forbidden]


def _lists_with(value: str, document: object) -> set[str]:
    """The values of all enumerations in a document that have `value` among theirs."""
    if isinstance(document, list):
        return {each for part in document for each in _lists_with(value, part)}
    if not isinstance(document, dict):
        return set()
    own = document.get("enum", [])
    found = {each for part in document.values() for each in _lists_with(value, part)}
    return found | set(own) if value in own else found


@pytest.mark.parametrize("file", ["checkout_orders_v2.json", "payments_payment_v2.json"])
def test_every_code_that_paypal_documents_has_a_row(file: str) -> None:
    documented = _lists_with("5120", spec("paypal", file))
    assert len(documented) > 100 and documented - PAYPAL.keys() == {"0000", "1000"}, "approved, and in part"


@pytest.mark.parametrize(
    ("table", "given", "decline_code", "soft"),
    [
        (PAYPAL, "PPIF", "processing_error", True),
        (PAYPAL, "PPAE", "card_not_supported", True),
        (PAYPAL, "PPRF", "generic_decline", False),
        (PAYPAL, "PPRN", "transaction_not_allowed", False),
        (ADYEN, "50", "revocation_of_authorization", False),
    ],
)
def test_a_fault_of_the_provider_is_no_fault_of_the_card(
    table: dict[str, Reason], given: str, decline_code: str, soft: bool
) -> None:
    declined = decline(table, given)
    assert (declined.decline_code, declined.soft) == (decline_code, soft)


def test_a_reason_without_a_row_is_generic() -> None:
    assert (decline(PAYPAL, "ZZZZ").code, decline(PAYPAL, None).decline_code) == ("card_declined", "generic_decline")
    assert not decline(ADYEN, "999").soft
