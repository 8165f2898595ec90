"""The table of test cards against what https://docs.stripe.com/testing documents."""

import pytest

from tillway.domain.cards import luhn_valid
from tillway.domain.refusal import RULES
from tillway.sandbox.cards import ALIAS_CVC, Decline, alias_expiry, all_cards, by_alias, by_number


@pytest.mark.parametrize("card", all_cards(), ids=lambda card: card.number)
def test_rows_are_possible(card):
    # The one card that is documented as a wrong number is wrong by its check digit.
    assert luhn_valid(card.number) == (card.charge != Decline("incorrect_number"))
    assert card.brand in (*card.networks, "unknown")
    assert len(card.country) == 2 and card.country.isupper()
    assert card.charge is None or card.charge.code in RULES
    assert (card.blocked is None) or card.charge is not None
    assert by_number(card.number) is card
    for alias in card.aliases:
        assert alias.startswith(("pm_card_", "tok_"))
        assert by_alias(alias) is card


@pytest.mark.parametrize(
    ("number", "code", "decline_code", "attach"),
    [
        ("4000000000000002", "card_declined", "generic_decline", "decline"),
        ("4000000000009995", "card_declined", "insufficient_funds", "decline"),
        ("4000000000009987", "card_declined", "lost_card", "decline"),
        ("4000000000009979", "card_declined", "stolen_card", "decline"),
        ("4000000000000069", "expired_card", None, "decline"),
        ("4000000000000127", "incorrect_cvc", None, "decline"),
        ("4000000000000119", "processing_error", None, "decline"),
        ("4242424242424241", "incorrect_number", None, "decline"),
        ("4000000000006975", "card_declined", "card_velocity_exceeded", "decline"),
        ("4000000000000341", "card_declined", "generic_decline", "ok"),
        ("4100000000000019", "card_declined", "fraudulent", "ok"),
        ("4000008260003178", "card_declined", "insufficient_funds", "ok"),
        ("4000008400001629", "card_declined", "generic_decline", "ok"),
    ],
)
def test_declines(number, code, decline_code, attach):
    card = by_number(number)
    assert card is not None
    assert card.charge == Decline(code, decline_code)
    assert card.attach == attach


@pytest.mark.parametrize(
    ("alias", "number"),
    [
        ("pm_card_visa", "4242424242424242"),
        ("tok_visa", "4242424242424242"),
        ("pm_card_us", "4242424242424242"),
        ("tok_amex", "378282246310005"),
        ("pm_card_visa_chargeDeclined", "4000000000000002"),
        ("tok_chargeDeclined", "4000000000000002"),
        ("tok_chargeDeclinedExpiredCard", "4000000000000069"),
        ("pm_card_chargeCustomerFail", "4000000000000341"),
        ("pm_card_visa_chargeDeclinedVelocityLimitExceeded", "4000000000006975"),
        ("pm_card_threeDSecure2Required", "4000000000003220"),
        ("pm_card_authenticationRequired", "4000002760003184"),
        ("pm_card_authenticationRequiredOnSetup", "4000002500003155"),
        ("pm_card_createDispute", "4000000000000259"),
        ("pm_card_createIssuerFraudRecord", "4000000000005423"),
        ("pm_card_pendingRefund", "4000000000007726"),
        ("pm_card_refundFail", "4000000000005126"),
        ("tok_bypassPending", "4000000000000077"),
        ("pm_card_riskLevelHighest", "4000000000004954"),
        ("pm_card_gb_debit", "4000058260000005"),
        ("tok_jcb", "3530111333300000"),
        ("pm_card_de", "4000002760000016"),
    ],
)
def test_aliases(alias, number):
    card = by_alias(alias)
    assert card is not None and card.number == number


@pytest.mark.parametrize(
    ("number", "three_d_secure", "authentication"),
    [
        ("4242424242424242", "unenrolled", "challenge"),
        ("378282246310005", "not_supported", "challenge"),
        ("4000000000003055", "optional", "challenge"),
        ("4000000000003097", "optional", "error"),
        ("4000000000003220", "required", "challenge"),
        ("4000008400001280", "required", "error"),
        ("4000000032200000", "required", "frictionless"),
        ("4000002500003155", "required_unless_set_up", "challenge"),
        ("4000003800000446", "required_on_session", "challenge"),
    ],
)
def test_three_d_secure(number, three_d_secure, authentication):
    card = by_number(number)
    assert card is not None
    assert (card.three_d_secure, card.authentication) == (three_d_secure, authentication)


def test_what_is_no_test_card():
    assert by_number("4000000000000000") is None
    assert by_alias("pm_card_Visa") is None
    assert by_alias("visa") is None


def test_an_alias_is_valid_for_years():
    assert alias_expiry(2026) == (12, 2029)
    assert len(ALIAS_CVC) == 3
