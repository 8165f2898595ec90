"""The tables of declines, and the page that shows them."""

import re
from pathlib import Path

import pytest

from tillway.connectors.declines import ADYEN, PAYPAL, Reason, decline

PAGE = Path(__file__).parents[2] / "docs" / "declines.md"


@pytest.mark.parametrize(("name", "table"), [("PayPal", PAYPAL), ("Adyen", ADYEN)])
def test_the_page_shows_the_table(name: str, table: dict[str, Reason]) -> None:
    section = PAGE.read_text().partition(f"## {name}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| `(\w+)` \| (soft)? *\|$", section, re.M)
    assert {given: Reason(code, why, soft == "soft") for given, code, why, soft in rows} == table


@pytest.mark.parametrize("table", [PAYPAL, ADYEN], ids=["PayPal", "Adyen"])
def test_the_networks_forbid_to_repeat_hard_declines(table: dict[str, Reason]) -> None:
    forbidden = {"lost_card", "pickup_card", "restricted_card", "invalid_account", "revocation_of_all_authorizations"}
    assert not [given for given, reason in table.items() if reason.soft and reason.decline_code in forbidden]


def test_a_reason_without_a_row_is_generic() -> None:
    assert (decline(PAYPAL, "ZZZZ").code, decline(PAYPAL, None).decline_code) == ("card_declined", "generic_decline")
    assert not decline(ADYEN, "999").soft
