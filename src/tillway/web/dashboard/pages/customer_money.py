"""Money of one customer: charge a kept card, or give credit, each with its effect first."""

from typing import Any

import msgspec

from tillway.domain.money import MINOR_UNITS
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.pages.customers import existing, kept_cards, main_currency, version_of
from tillway.web.dashboard.pages.refunds import read_amount
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page

AMOUNT_MOST = 99_999_999
"""The largest amount of a charge or a credit in minor units, as of a payment."""


class Given(msgspec.Struct):
    """The amount that was written, and how it reads: in minor units, or the reason why it is none. `card` is the id of
    the kept card that is charged."""

    amount: str
    currency: str
    minor: int = 0
    wrong: str = ""
    card: str = ""

    @property
    def is_previewed(self) -> str:
        """The amount and the card as the form that showed their preview has them."""
        return f"{self.minor} {self.currency} {self.card}".rstrip()


def _read(visit: Visit, currency: str, most: str) -> Given:
    amount = visit.sent("amount")
    if currency not in MINOR_UNITS:
        return Given(amount, visit.account.default_currency, wrong="Write a currency of three letters, such as EUR.")
    minor, wrong = read_amount(amount, currency, AMOUNT_MOST, most)
    return Given(amount, currency, minor, wrong)


SCALES = " ".join(f"{code.upper()}:{digits}" for code, digits in sorted(MINOR_UNITS.items()) if digits != 2)
"""The decimals of the currencies that do not have two, for the module of the pages."""


def _was_previewed(visit: Visit, given: Given) -> bool:
    """Whether the person has seen the effect. The module of the pages shows it while the amount is written, and takes
    the form's `preview` away."""
    return not given.wrong and (not visit.sent("preview") or visit.sent("previewed") == given.is_previewed)


@page("GET", "/customers/{id}/charge", place="/customers")
async def ask_charge(visit: Visit) -> Reply:
    await visit.check_role("settle", "/v1/payment_intents")
    row = await visit.door.get(f"/ops/v1/customers/{visit.id}")
    return await _charge_form(visit, Given("", main_currency([row], visit.account.default_currency)))


@page("POST", "/customers/{id}/charge", place="/customers")
async def charge(visit: Visit) -> Reply:
    """Charge a kept card, without the customer. The form comes back with its preview first."""
    await visit.check_role("settle", "/v1/payment_intents")
    given = _read(visit, visit.sent("currency").lower(), "can be charged at once")
    given.card = visit.sent("card")
    if not _was_previewed(visit, given):
        return await _charge_form(visit, given)
    params = {
        "amount": given.minor,
        "currency": given.currency,
        "customer": visit.id,
        "payment_method": given.card,
        "description": visit.sent("description") or None,
        "confirm": True,
        "off_session": True,
    }
    key, reason, version = visit.idempotency_key, visit.sent("reason"), visit.sent("version")
    try:
        made = await visit.door.post("/v1/payment_intents", params, key=key, reason=reason, expect=version)
    except CallRefused as refused:
        if refused.code == "operator_forbidden":
            raise
        declined = refused.error.get("payment_intent")
        if declined is not None:
            return Redirect(visit.url(f"/payments/{declined['id']}"))  # Its page tells the reason.
        changed = refused.code == "record_changed"
        given.wrong = "" if changed else refused.message
        return await _charge_form(visit, given, changed=changed, status=refused.status)
    return Redirect(visit.url(f"/payments/{made['id']}"))


async def _charge_form(visit: Visit, given: Given, *, changed: bool = False, status: int = 200) -> Shown:
    cards = [one for one in await kept_cards(visit) if one.get("card")]
    chosen = next((one for one in cards if one["id"] == given.card), cards[0] if cards else None)
    given.card = chosen["id"] if chosen else ""
    more = {"cards": cards, "chosen": chosen, "description": visit.sent("description")}
    return await _form(visit, "charge-card.html", given, more, changed=changed, status=status)


@page("GET", "/customers/{id}/credit", place="/customers")
async def ask_credit(visit: Visit) -> Reply:
    await visit.check_role("settle", f"/v1/customers/{visit.id}/balance_transactions")
    row = await visit.door.get(f"/ops/v1/customers/{visit.id}")
    currency = row["currency"] or main_currency([row], visit.account.default_currency)
    return await _form(visit, "give-credit.html", Given("", currency), {})


@page("POST", "/customers/{id}/credit", place="/customers")
async def give_credit(visit: Visit) -> Reply:
    """Give a customer credit. The form comes back with its preview first."""
    path = f"/v1/customers/{visit.id}/balance_transactions"
    await visit.check_role("settle", path)
    given = _read(visit, visit.sent("currency").lower(), "can be given at once")
    own = (await existing(visit))["currency"]
    if own not in (None, given.currency):
        given.wrong = f"The credit of this customer is in {own.upper()}."
    if not _was_previewed(visit, given):
        return await _form(visit, "give-credit.html", given, {})
    params = {"amount": -given.minor, "currency": given.currency, "description": visit.sent("reason") or None}
    key, reason, version = visit.idempotency_key, visit.sent("reason"), visit.sent("version")
    try:
        await visit.door.post(path, params, key=key, reason=reason, expect=version)
    except CallRefused as refused:
        if refused.code == "operator_forbidden":
            raise
        changed = refused.code == "record_changed"
        given.wrong = "" if changed else refused.message
        return await _form(visit, "give-credit.html", given, {}, changed=changed, status=refused.status)
    return Redirect(visit.url(f"/customers/{visit.id}"))


async def _form(
    visit: Visit, template: str, given: Given, more: dict[str, Any], *, changed: bool = False, status: int = 200
) -> Shown:
    customer, row = await existing(visit), await visit.door.get(f"/ops/v1/customers/{visit.id}")
    sent = visit.request.method == "POST"
    values = {
        "customer": customer,
        "given": given,
        "wrong": given.wrong if sent else "",
        "previewed": given.is_previewed if sent and not given.wrong else "",
        "most": AMOUNT_MOST,
        "scales": SCALES,
        "changed": changed,
        "version": version_of(row),
        "reason": visit.sent("reason"),
        "key": visit.idempotency_key,
        **more,
    }
    return Shown(template, values, 422 if values["wrong"] and status == 200 else status)
