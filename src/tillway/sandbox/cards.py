"""Every test card, `pm_card_*` and `tok_*` alias that Stripe documents, with its behaviour.

Source: https://docs.stripe.com/testing, and earlier versions of that page for cards that it no longer lists but older
suites still use. One row is one number. The API uses the table (aliases, attaching, 3-D Secure, the checks shown on a
charge), and so does the simulated bank (approval, disputes, refunds). A number that is not here behaves like 4242….
"""

from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from tillway.connectors.port import CardData, Checks
from tillway.domain.payment_method import Authentication, ThreeDSecure

Check = Literal["pass", "fail", "unavailable"]


class Decline(msgspec.Struct, frozen=True):
    """The issuer's refusal: Stripe's error code and, for `card_declined`, the decline code."""

    code: str
    decline_code: str | None = None


class TestCard(msgspec.Struct, frozen=True, kw_only=True):
    """One documented test card.

    `charge`: None approves. `attach`: whether it can be attached to a customer. `three_d_secure`: when authentication
    is required; `required_unless_set_up` requires it for every payment with the customer present, and for an
    off-session one unless the card was set up; `required_on_session` counts as set up already; `optional` requires it
    only if the merchant requests it; an `unenrolled` card answers `attempt_acknowledged` and continues.
    `authentication`: its result: a challenge page, success without one, or an error of the directory. `cvc_check` and
    its two neighbours apply if the value was sent. `blocked`: the reason in the charge's outcome if it is refused for
    its risk, not by the issuer. `dispute`: the dispute soon after the charge was captured, `disputes` times, with
    `dispute_reason`. `refund`: `fails_later` first succeeds; `succeeds_later` is first pending.
    """

    __test__ = False  # pytest would collect a class with this name.

    number: str
    brand: str = "visa"
    networks: tuple[str, ...] = ("visa",)
    funding: Literal["credit", "debit", "prepaid"] = "credit"
    country: str = "US"
    aliases: tuple[str, ...] = ()
    charge: Decline | None = None
    attach: Literal["ok", "decline"] = "ok"
    three_d_secure: ThreeDSecure = "unenrolled"
    authentication: Authentication = "challenge"
    cvc_check: Check = "pass"
    postal_code_check: Check = "pass"
    address_line1_check: Check = "pass"
    risk_level: Literal["normal", "elevated", "highest"] = "normal"
    blocked: Literal["highest_risk_level"] | None = None
    dispute: Literal["chargeback", "inquiry", "warning"] | None = None
    dispute_reason: str = "fraudulent"
    disputes: int = 1
    refund: Literal["succeeds", "fails_later", "succeeds_later"] = "succeeds"
    funds_available_at_once: bool = False

    @property
    def last4(self) -> str:
        return self.number[-4:]


class PublicCard(CardData, frozen=True):
    """The data of the card behind an alias. None of it is secret, so that it may be kept.

    `checks` are the bank's answers about it if it accepts every payment and sends no notice later, else None.
    """

    checks: Checks | None = None


ALIAS_CVC: Final = "123"
"""The CVC of an alias. (`1234` is not needed: aliases of American Express accept this one too.)"""


def alias_expiry(year: int) -> tuple[int, int]:
    """Month and year of expiry of an alias's card, given the current year: always three years ahead."""
    return 12, year + 3


def by_number(number: str) -> TestCard | None:
    """The documented card with this number (digits only), or None."""
    return _BY_NUMBER.get(number)


def by_alias(alias: str) -> TestCard | None:
    """The card behind `pm_card_visa`, `tok_visa` and the like, or None. Aliases are case sensitive, as Stripe's are."""
    return _BY_ALIAS.get(alias)


@lru_cache(maxsize=1_000)
def data_of(alias: str, exp_month: int, exp_year: int) -> PublicCard | None:
    """The card behind an alias for the bank, which is kept. None: there is no such alias."""
    card = _BY_ALIAS.get(alias)
    if card is None:
        return None
    is_quiet = card.charge is None and card.dispute is None and card.refund == "succeeds"
    checks = Checks(cvc=card.cvc_check) if is_quiet else None
    return PublicCard(card.number, exp_month, exp_year, ALIAS_CVC, checks=checks)


def all_cards() -> tuple[TestCard, ...]:
    """The table, one card a number."""
    return tuple(_BY_NUMBER.values())


def _card(number: str, *stems: str, **fields: Any) -> TestCard:
    """A card with the aliases `pm_card_<stem>` and `tok_<stem>`, for each stem."""
    brand = fields.setdefault("brand", "visa")
    fields.setdefault("networks", (brand,))
    aliases = tuple(f"{prefix}{stem}" for stem in stems for prefix in ("pm_card_", "tok_"))
    return TestCard(number=number, aliases=aliases, **fields)


_GENERIC = Decline("card_declined", "generic_decline")
_INSUFFICIENT = Decline("card_declined", "insufficient_funds")
_LOST = Decline("card_declined", "lost_card")
_STOLEN = Decline("card_declined", "stolen_card")
_FRAUDULENT = Decline("card_declined", "fraudulent")
_VELOCITY = Decline("card_declined", "card_velocity_exceeded")

_BRANDS = (
    _card("4242424242424242", "visa", "us"),
    _card("4000056655665556", "visa_debit", "visa_debit_us_transferSuccess", funding="debit"),
    _card("5555555555554444", "mastercard", brand="mastercard"),
    _card("2223003122003222", "mastercard_2series", brand="mastercard"),
    _card(
        "5200828282828210",
        "mastercard_debit",
        "mastercard_debit_us_transferSuccess",
        brand="mastercard",
        funding="debit",
    ),
    _card("5105105105105100", "mastercard_prepaid", brand="mastercard", funding="prepaid"),
    # The American Express cards are the documented example of a card without 3-D Secure.
    _card("378282246310005", "amex", "amex_threeDSecureNotSupported", brand="amex", three_d_secure="not_supported"),
    _card("371449635398431", brand="amex", three_d_secure="not_supported"),
    _card("6011111111111117", "discover", brand="discover"),
    _card("6011000990139424", brand="discover"),
    _card("6011981111111113", "discover_debit_us_transferSuccess", brand="discover", funding="debit"),
    _card("3056930009020004", "diners", brand="diners"),
    _card("36227206271667", brand="diners"),
    _card("6555900000604105", brand="discover"),
    _card("3566002020360505", brand="jcb", country="JP"),
    _card("6200000000000005", "unionpay", brand="unionpay", country="CN"),
    _card("6200000000000047", brand="unionpay", funding="debit", country="CN"),
    _card("6205500000000000004", brand="unionpay", country="CN"),
    _card("4000002500001001", "visa_cartesBancaires", networks=("cartes_bancaires", "visa"), country="FR"),
    _card(
        "5555552500001001",
        "mastercard_cartesBancaires",
        brand="mastercard",
        networks=("cartes_bancaires", "mastercard"),
        country="FR",
    ),
    _card(
        "4000050360000001",
        "visa_debit_eftposAuCoBranded",
        networks=("eftpos_au", "visa"),
        funding="debit",
        country="AU",
    ),
    _card(
        "5555050360000080",
        "mastercard_debit_eftposAuCoBranded",
        brand="mastercard",
        networks=("eftpos_au", "mastercard"),
        funding="debit",
        country="AU",
    ),
    _card("4000051230000072", "debit_visaFsaProductCode", "debit_visaHsaProductCode", funding="debit"),
    _card("5200828282828897", "mastercard_debit_mastercardFsaProductCode", brand="mastercard", funding="debit"),
    # No longer listed, still used in many suites.
    _card("4012888888881881"),
    _card("4111111111111111"),
    _card("30569309025904", brand="diners"),
    _card("38520000023237", brand="diners"),
    _card("4000000000000093", "domesticPricing"),
)

_VISA_BY_COUNTRY = (
    "AR 4000000320000021, BR 4000000760000002, CA 4000001240000000, CL 4000001520000001, CO 4000001700000003, "
    "CR 4000001880000005, EC 4000002180000000, MX 4000004840008001, PA 4000005910000000, PY 4000006000000066, "
    "PE 4000006040000068, UY 4000008580000003, AE 4000007840000001, AT 4000000400000008, BE 4000000560000004, "
    "BG 4000001000000000, BY 4000001120000005, HR 4000001910000009, CY 4000001960000008, CZ 4000002030000002, "
    "DK 4000002080000001, EE 4000002330000009, FI 4000002460000001, FR 4000002500000003, DE 4000002760000016, "
    "GI 4000002920000005, GR 4000003000000030, HU 4000003480000005, IE 4000003720000005, IT 4000003800000008, "
    "LV 4000004280000005, LI 4000004380000004, LT 4000004400000000, LU 4000004420000006, MT 4000004700000007, "
    "NL 4000005280000002, NO 4000005780000007, PL 4000006160000005, PT 4000006200000007, RO 4000006420000001, "
    "SA 4000006820000007, SI 4000007050000006, SK 4000007030000001, ES 4000007240000007, SE 4000007520000008, "
    "CH 4000007560000009, GB 4000008260000000, AU 4000000360000006, CN 4000001560000002, HK 4000003440000004, "
    "IN 4000003560000008, JP 4000003920000003, MY 4000004580000002, NZ 4000005540000008, SG 4000007020000003, "
    "TW 4000001580000008"
)

_COUNTRIES = (
    *(
        _card(number, country.lower(), country=country)
        for country, number in (row.split() for row in _VISA_BY_COUNTRY.split(", "))
    ),
    _card("5062210000000009", brand="unknown", country="MX"),
    _card("5200007840000022", "ae_mastercard", brand="mastercard", country="AE"),
    _card("4000058260000005", "gb_debit", funding="debit", country="GB"),
    _card("5555558265554449", "gb_mastercard", brand="mastercard", country="GB"),
    _card("3530111333300000", "jcb", brand="jcb", country="JP"),
    _card("4000007640000003", "th_credit", country="TH"),
    _card("4000057640000008", "th_debit", funding="debit", country="TH"),
)

_DECLINES = (
    _card("4000000000000002", "visa_chargeDeclined", "chargeDeclined", charge=_GENERIC, attach="decline"),
    _card(
        "4000000000009995",
        "visa_chargeDeclinedInsufficientFunds",
        "chargeDeclinedInsufficientFunds",
        charge=_INSUFFICIENT,
        attach="decline",
    ),
    _card("4000000000009987", "visa_chargeDeclinedLostCard", "chargeDeclinedLostCard", charge=_LOST, attach="decline"),
    _card(
        "4000000000009979",
        "visa_chargeDeclinedStolenCard",
        "chargeDeclinedStolenCard",
        charge=_STOLEN,
        attach="decline",
    ),
    _card(
        "4000000000000069",
        "chargeDeclinedExpiredCard",
        "visa_chargeDeclinedExpiredCard",
        charge=Decline("expired_card"),
        attach="decline",
    ),
    _card(
        "4000000000000127",
        "chargeDeclinedIncorrectCvc",
        "visa_chargeDeclinedIncorrectCvc",
        charge=Decline("incorrect_cvc"),
        attach="decline",
        cvc_check="fail",
    ),
    _card(
        "4000000000000119",
        "chargeDeclinedProcessingError",
        "visa_chargeDeclinedProcessingError",
        charge=Decline("processing_error"),
        attach="decline",
    ),
    # It fails the Luhn check, so the API refuses it and it never reaches a bank.
    _card("4242424242424241", charge=Decline("incorrect_number"), attach="decline"),
    _card(
        "4000000000006975",
        "visa_chargeDeclinedVelocityLimitExceeded",
        "chargeDeclinedVelocityLimitExceeded",
        charge=_VELOCITY,
        attach="decline",
    ),
    _card("4000000000000341", "chargeCustomerFail", "visa_chargeCustomerFail", charge=_GENERIC),
    # Three documented tokens have no documented number; the numbers of these rows are Tillway's own.
    _card(
        "4000050000009990",
        "visa_debit_chargeDeclinedInsufficientFunds",
        funding="debit",
        charge=_INSUFFICIENT,
        attach="decline",
    ),
    _card("4000000000340010", "visa_chargeCustomerFailLostCard", charge=_LOST),
    _card("4000000000340028", "visa_chargeCustomerFailStolenCard", charge=_STOLEN),
)

_RISKS = (
    _card(
        "4100000000000019",
        "radarBlock",
        "chargeDeclinedFraudulent",
        "visa_chargeDeclinedFraudulent",
        charge=_FRAUDULENT,
        risk_level="highest",
        blocked="highest_risk_level",
    ),
    # Radar's default rule blocks the highest risk; Tillway has that default and no switch for it.
    _card(
        "4000000000004954",
        "riskLevelHighest",
        charge=_FRAUDULENT,
        risk_level="highest",
        blocked="highest_risk_level",
    ),
    _card("4000000000009235", "riskLevelElevated", risk_level="elevated"),
    # Cards for Radar settings that are off by default succeed.
    _card("4000008400000407", "highFraudDisputeScore"),
    _card("4000008400000159", "highEfwScore"),
    _card("4000008400001017", "radarDynamicRiskThreshold"),
    _card("4000008405600003", "adaptive3dsChallenge", three_d_secure="optional"),
    _card("4000000000000101", "cvcCheckFail", cvc_check="fail"),
    _card("4000000000000036", "avsZipFail", postal_code_check="fail"),
    _card("4000058400307872", "cvcCheckFailElevatedRisk", cvc_check="fail", risk_level="elevated"),
    _card("4000058400306072", "avsZipFailElevatedRisk", postal_code_check="fail", risk_level="elevated"),
    _card("4000000000000028", "avsLine1Fail", address_line1_check="fail"),
    _card("4000000000000010", "avsFail", postal_code_check="fail", address_line1_check="fail"),
    _card("4000000000000044", "avsUnchecked", postal_code_check="unavailable", address_line1_check="unavailable"),
    _card("4000000000001208"),
    _card("4000000000003725"),
)

_DISPUTES = (
    _card("4000000000000259", "createDispute", dispute="chargeback"),
    _card(
        "4000000000002685",
        "createDisputeProductNotReceived",
        dispute="chargeback",
        dispute_reason="product_not_received",
    ),
    _card("4000000000001976", "createDisputeInquiry", dispute="inquiry"),
    _card("4000000000005423", "createIssuerFraudRecord", dispute="warning"),
    _card("4000000404000079", "createMultipleDisputes", dispute="chargeback", disputes=2),
    _card("4000000404000038", "createCe3EligibleDispute", dispute="chargeback"),
    _card("4000008400000779", "createComplianceDispute", dispute="chargeback", dispute_reason="noncompliant"),
    _card(
        "5105008400000002",
        "createMastercardComplianceDispute",
        brand="mastercard",
        dispute="chargeback",
        dispute_reason="noncompliant",
    ),
    _card("4000000001000043", "createAutoRepresentmentEligibleDispute", dispute="chargeback"),
    # Dispute prevention is a separate product; without it these cards are disputed.
    _card("4000000404004816", "createRapidDisputeResolutionDispute", dispute="chargeback"),
    _card("4000000404005649", "createCe3BlockDispute", dispute="chargeback"),
    _card("5105000300000018", "createEthocaAlert", brand="mastercard", dispute="chargeback"),
)

_REFUNDS_AND_FUNDS = (
    _card("4000000000007726", "pendingRefund", refund="succeeds_later"),
    _card("4000000000005126", "refundFail", refund="fails_later"),
    _card("4000000000000077", "bypassPending", funds_available_at_once=True),
    _card("4000003720000278", "bypassPendingInternational", country="IE", funds_available_at_once=True),
)

_AUTHENTICATION = (
    _card(
        "4000002500003155",
        "authenticationRequiredOnSetup",
        country="FR",
        three_d_secure="required_unless_set_up",
    ),
    _card("4000002760003184", "authenticationRequired", country="DE", three_d_secure="required"),
    _card(
        "4000003800000446",
        "authenticationRequiredSetupForOffSession",
        country="IT",
        three_d_secure="required_on_session",
    ),
    _card(
        "4000008260003178",
        "authenticationRequiredChargeDeclinedInsufficientFunds",
        country="GB",
        three_d_secure="required_unless_set_up",
        charge=_INSUFFICIENT,
    ),
    _card("4000000000003220", "threeDSecure2Required", country="IE", three_d_secure="required"),
    _card("4000000000003063", "threeDSecureRequired", three_d_secure="required"),
    _card("4000008400000027", three_d_secure="required"),
    _card("4000008400001629", "threeDSecureRequiredChargeDeclined", three_d_secure="required", charge=_GENERIC),
    _card(
        "4000008400001280",
        "threeDSecureRequiredProcessingError",
        three_d_secure="required",
        authentication="error",
        charge=_GENERIC,
    ),
    _card("4000000000003055", "threeDSecureOptional", three_d_secure="optional"),
    _card(
        "4000000000003097",
        "threeDSecureOptionalProcessingError",
        three_d_secure="optional",
        authentication="error",
    ),
    _card("4000000032200000", three_d_secure="required", authentication="frictionless"),
    # The four challenge screens of the mobile SDKs; in an API they are an ordinary challenge.
    _card("4000582600000094", country="GB", three_d_secure="required"),
    _card("4000582600000045", country="GB", three_d_secure="required"),
    _card("4000582600000102", country="GB", three_d_secure="required"),
    _card("4000582600000110", country="GB", three_d_secure="required"),
)

_CARDS = (*_BRANDS, *_COUNTRIES, *_DECLINES, *_RISKS, *_DISPUTES, *_REFUNDS_AND_FUNDS, *_AUTHENTICATION)
_BY_NUMBER = {card.number: card for card in _CARDS}
_BY_ALIAS = {alias: card for card in _CARDS for alias in card.aliases}
assert len(_BY_NUMBER) == len(_CARDS), "a test card stands twice in the table"
assert len(_BY_ALIAS) == sum(len(card.aliases) for card in _CARDS), "an alias stands twice in the table"
