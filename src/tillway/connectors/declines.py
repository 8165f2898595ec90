"""Providers' reasons for a decline, in Stripe's codes: one table a provider, one row a reason. See docs/declines.md.

A row is soft if another provider may accept the same card now, and hard if it may not: the card networks forbid to
repeat after lost, stolen, closed and wrong cards. After a soft
decline the engine tries the next provider of the routing (docs/routing.md).
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from tillway.domain.outcome import Checks, Declined


class Reason(NamedTuple):
    """The error code and decline code (https://docs.stripe.com/declines/codes) of one reason."""

    code: str
    decline_code: str | None = None
    soft: bool = False


_GENERIC = Reason("card_declined", "generic_decline")
_NOT_HONORED = Reason("card_declined", "do_not_honor")
_NO_FUNDS = Reason("card_declined", "insufficient_funds")
_FRAUD = Reason("card_declined", "fraudulent")
_PICKUP = Reason("card_declined", "pickup_card")
_RESTRICTED = Reason("card_declined", "restricted_card")
_NOT_PERMITTED = Reason("card_declined", "transaction_not_allowed")
_NOT_SUPPORTED = Reason("card_declined", "card_not_supported")
_CALL = Reason("card_declined", "call_issuer")
_AUTHENTICATE = Reason("card_declined", "authentication_required")
_WRONG_PIN = Reason("card_declined", "incorrect_pin")
_TRIES = Reason("card_declined", "pin_try_exceeded")
_NO_ACCOUNT = Reason("card_declined", "invalid_account")
_TOO_OFTEN = Reason("card_declined", "card_velocity_exceeded")
_BAD_AMOUNT = Reason("card_declined", "invalid_amount")
_BAD_ADDRESS = Reason("incorrect_zip", "incorrect_zip")
_EXPIRED = Reason("expired_card", "expired_card")
_BAD_NUMBER = Reason("incorrect_number", "incorrect_number")
_BAD_CVC = Reason("incorrect_cvc", "incorrect_cvc")
_RETRY = Reason("card_declined", "try_again_later", soft=True)
_NO_ISSUER = Reason("card_declined", "issuer_not_available", soft=True)
_BROKEN = Reason("processing_error", "processing_error", soft=True)
_CLOSED = Reason("card_declined", "no_action_taken")
_REVOKED = Reason("card_declined", "revocation_of_all_authorizations")
_DUPLICATE = Reason("card_declined", "duplicate_transaction")
_CURRENCY = Reason("card_declined", "currency_not_supported")
_OVER_LIMIT = Reason("card_declined", "withdrawal_count_limit_exceeded")
_LACKS = Reason("card_declined", "card_not_supported", soft=True)
"""The provider, and not the issuer, cannot take this kind of card or payment: another provider may."""

PAYPAL: Final[Mapping[str, Reason]] = {
    "00N7": _BAD_CVC,
    "0100": _CALL,
    "0390": _NO_ACCOUNT,
    "0500": _NOT_HONORED,
    "0580": _NOT_PERMITTED,
    "0800": _BROKEN,
    "0880": _BROKEN,
    "0890": _WRONG_PIN,
    "0960": _BROKEN,
    "0R00": _REVOKED,
    "10BR": _NOT_HONORED,
    "1300": _BROKEN,
    "1310": _BAD_AMOUNT,
    "1312": _BROKEN,
    "1317": _BROKEN,
    "1320": _CURRENCY,
    "1330": _BAD_NUMBER,
    "1335": _NO_ACCOUNT,
    "1340": _BROKEN,
    "1350": _BROKEN,
    "1352": _RESTRICTED,
    "1360": _BROKEN,
    "1370": _BROKEN,
    "1380": Reason("invalid_expiry_year", "invalid_expiry_year"),
    "1382": _BAD_CVC,
    "1384": _NOT_PERMITTED,
    "1390": _BROKEN,
    "1393": _GENERIC,
    "5100": _GENERIC,
    "5110": _BAD_CVC,
    "5120": _NO_FUNDS,
    "5130": _WRONG_PIN,
    "5135": _TRIES,
    "5140": _CLOSED,
    "5150": _PICKUP,
    "5160": _NOT_PERMITTED,
    "5170": _BAD_ADDRESS,
    "5180": _RESTRICTED,
    "5190": _BAD_ADDRESS,
    "5200": _DUPLICATE,
    "5210": _NOT_PERMITTED,
    "5400": _EXPIRED,
    "5500": _WRONG_PIN,
    "5650": _AUTHENTICATE,
    "5700": _NOT_PERMITTED,
    "5710": _TOO_OFTEN,
    "5800": _GENERIC,
    "5900": _GENERIC,
    "5910": Reason("card_declined", "issuer_not_available"),
    "5920": _NO_ISSUER,
    "5930": _NOT_HONORED,
    "5950": Reason("card_declined", "new_account_information_available"),
    "6300": _NO_ACCOUNT,
    "7600": _GENERIC,
    "7700": _AUTHENTICATE,
    "7710": _AUTHENTICATE,
    "7800": _BAD_NUMBER,
    "7900": _WRONG_PIN,
    "8000": _BROKEN,
    "8010": _BROKEN,
    "8020": _BROKEN,
    "8030": _LACKS,
    "8100": _BROKEN,
    "8110": _RETRY,
    "8220": _RETRY,
    "9100": _RETRY,
    "9500": _FRAUD,
    "9510": Reason("card_declined", "security_violation"),
    "9520": Reason("card_declined", "lost_card"),
    "9530": _CALL,
    "9540": _NOT_HONORED,
    "9600": _GENERIC,
    "PCNR": _BROKEN,
    "PCVV": _BAD_CVC,
    "PP06": _CLOSED,
    "PPAB": _RESTRICTED,
    "PPAD": _BAD_ADDRESS,
    "PPAE": _LACKS,
    "PPAG": _LACKS,
    "PPAI": _BAD_AMOUNT,
    "PPAR": _GENERIC,
    "PPAU": _BROKEN,
    "PPAV": _BAD_ADDRESS,
    "PPAX": _BAD_AMOUNT,
    "PPBG": _GENERIC,
    "PPC2": _BAD_CVC,
    "PPCE": _BROKEN,
    "PPCO": _LACKS,
    "PPCR": _BROKEN,
    "PPCT": _LACKS,
    "PPCU": _CURRENCY,
    "PPD3": _AUTHENTICATE,
    "PPDC": _LACKS,
    "PPDI": _LACKS,
    "PPDT": _GENERIC,
    "PPDV": _GENERIC,
    "PPEF": _EXPIRED,
    "PPEL": _TOO_OFTEN,
    "PPER": _BROKEN,
    "PPEX": _EXPIRED,
    "PPFE": _GENERIC,
    "PPFI": _GENERIC,
    "PPFR": _RESTRICTED,
    "PPFV": _BROKEN,
    "PPGR": _BROKEN,
    "PPH1": _BROKEN,
    "PPIF": _BROKEN,
    "PPII": _BROKEN,
    "PPIM": _BROKEN,
    "PPIT": _BROKEN,
    "PPLR": _GENERIC,
    "PPLS": _BROKEN,
    "PPMB": _BROKEN,
    "PPMC": _RESTRICTED,
    "PPMD": _BROKEN,
    "PPNC": _LACKS,
    "PPNL": _TOO_OFTEN,
    "PPNM": _BROKEN,
    "PPNT": _BROKEN,
    "PPPH": _BROKEN,
    "PPPI": _BROKEN,
    "PPPM": _LACKS,
    "PPQC": _LACKS,
    "PPRE": _GENERIC,
    "PPRF": _GENERIC,
    "PPRN": _NOT_PERMITTED,
    "PPRR": _BROKEN,
    "PPS0": _BROKEN,
    "PPS1": _GENERIC,
    "PPS2": _GENERIC,
    "PPS3": _GENERIC,
    "PPS4": _CURRENCY,
    "PPS5": _GENERIC,
    "PPS6": _BAD_AMOUNT,
    "PPSC": _GENERIC,
    "PPSD": _GENERIC,
    "PPSE": _GENERIC,
    "PPTE": _GENERIC,
    "PPTF": _BROKEN,
    "PPTI": _BROKEN,
    "PPTR": _GENERIC,
    "PPTT": _LACKS,
    "PPTV": _GENERIC,
    "PPUA": _BROKEN,
    "PPUC": Reason("card_declined", "currency_not_supported", soft=True),
    "PPUE": _LACKS,
    "PPUI": _LACKS,
    "PPUP": _LACKS,
    "PPUR": _GENERIC,
    "PPVC": _BROKEN,
    "PPVE": _BROKEN,
    "PPVT": _LACKS,
}
"""`processor_response.response_code` of PayPal. Its OpenAPI file lists them, and their names are in
https://developer.paypal.com/serversdk/php/models/enumerations/processor-response-code/. Two are no declines: 0000
(approved) and 1000 (partial authorization). A code without a row is generic."""

STRIPE_SOFT: Final = frozenset(("try_again_later", "issuer_not_available", "processing_error", "reenter_transaction"))
"""The soft ones of Stripe's own codes, which pass unchanged (https://docs.stripe.com/declines/codes)."""

ADYEN: Final[Mapping[str, Reason]] = {
    "2": _GENERIC,
    "3": _CALL,
    "4": _BROKEN,
    "5": _PICKUP,
    "6": _EXPIRED,
    "7": _BAD_AMOUNT,
    "8": _BAD_NUMBER,
    "9": _NO_ISSUER,
    "10": _NOT_SUPPORTED,
    "11": _AUTHENTICATE,
    "12": _NO_FUNDS,
    "14": _FRAUD,
    "15": _GENERIC,
    "16": _GENERIC,
    "17": _WRONG_PIN,
    "18": _TRIES,
    "19": _WRONG_PIN,
    "20": _FRAUD,
    "21": _BROKEN,
    "22": _FRAUD,
    "23": _NOT_PERMITTED,
    "24": _BAD_CVC,
    "25": _RESTRICTED,
    "26": _REVOKED,
    "27": _NOT_HONORED,
    "28": _OVER_LIMIT,
    "29": _OVER_LIMIT,
    "31": _FRAUD,
    "32": _BAD_ADDRESS,
    "33": Reason("card_declined", "online_or_offline_pin_required"),
    "34": _NO_ACCOUNT,
    "35": _NO_ACCOUNT,
    "36": Reason("card_declined", "online_or_offline_pin_required"),
    "37": _NOT_SUPPORTED,
    "38": _AUTHENTICATE,
    "39": _AUTHENTICATE,
    "40": _NOT_SUPPORTED,
    "41": _NOT_SUPPORTED,
    "42": _AUTHENTICATE,
    "43": Reason("card_declined", "online_or_offline_pin_required"),
    "44": _NOT_SUPPORTED,
    "45": _NOT_SUPPORTED,
    "46": _TOO_OFTEN,
    "50": Reason("card_declined", "revocation_of_authorization"),
}
"""`refusalReasonCode` of Adyen (https://docs.adyen.com/development-resources/refusal-reasons). A code without a row is
generic."""


def decline(
    table: Mapping[str, Reason], given: object, *, bank_id: str | None = None, checks: Checks | None = None
) -> Declined:
    """The decline for the reason that a provider has given."""
    reason = table.get(str(given), _GENERIC)
    return Declined(reason.code, reason.decline_code, bank_id=bank_id, soft=reason.soft, checks=checks)
