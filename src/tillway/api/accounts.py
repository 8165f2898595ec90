"""The merchant's own account. There are no connected accounts."""

from typing import Any

from tillway.domain.account import SYSTEM, Account
from tillway.domain.account_state import AccountState
from tillway.domain.refusal import Refused
from tillway.http.params import Created, Expand, Params, list_params
from tillway.http.routes import Answer, Call, Page, route
from tillway.http.shapes import View, render_record, shape
from tillway.operations import account_states

EXPAND_ONLY = Params(expand=Expand())
LIST = list_params(created=Created())

SHOWN_MAX = 10
"""The most external accounts in an account. Their own list has the rest."""


@route("GET", "/v1/account", EXPAND_ONLY, returns="account")
async def retrieve_own(call: Call) -> Answer:
    """Retrieve the merchant's own account."""
    return await _state(call)


@route("GET", "/v1/accounts/{id}", EXPAND_ONLY, returns="account")
async def retrieve(call: Call) -> Answer:
    """Retrieve the merchant's own account by its id."""
    if call.id != call.caller.scope.account:
        raise Refused("account_invalid", "This key reaches only its own account, and there are no connected accounts.")
    return await _state(call)


@route("GET", "/v1/accounts", LIST, returns="list", of="account")
async def list_accounts(call: Call) -> Answer:
    """List connected accounts: there are none."""
    for name in ("starting_after", "ending_before"):
        if name in call.params:
            raise Refused("resource_missing", f"No such account: '{call.params[name][:100]}'", param=name)
    return Page([], False, "/v1/accounts")


async def _state(call: Call) -> AccountState:
    account = await call.platform.engine.load(SYSTEM).get(Account, call.caller.scope.account)
    return await account_states.state_of(call.platform, call.caller, account)


@shape(AccountState, on_wire=False)
def account_shape(state: AccountState, view: View) -> dict[str, Any]:
    account, ready = state.account, state.ready
    return {
        "id": account.id,
        "object": "account",
        "business_profile": _BUSINESS | {"name": account.name or None, "url": account.website or None},
        "business_type": "company",
        "capabilities": dict.fromkeys(("card_payments", "transfers"), "active" if ready else "inactive"),
        "charges_enabled": ready,
        "controller": {"type": "account"},
        "country": account.country,
        "created": account.created,
        "default_currency": account.default_currency,
        "details_submitted": True,
        "email": None,
        "external_accounts": {
            "object": "list",
            "data": [render_record(one, view) for one in state.external[:SHOWN_MAX]],
            "has_more": len(state.external) > SHOWN_MAX,
            "url": f"/v1/accounts/{account.id}/external_accounts",
        },
        "future_requirements": _REQUIREMENTS,
        "metadata": {},
        "payouts_enabled": ready,
        "requirements": _REQUIREMENTS,
        "settings": _settings(account, state.settlement_days),
        "tos_acceptance": {"date": None, "ip": None, "user_agent": None},
        "type": "standard",
    }


_BUSINESS: dict[str, Any] = dict.fromkeys(
    (
        "annual_revenue",
        "estimated_worker_count",
        "mcc",
        "name",
        "product_description",
        "support_address",
        "support_email",
        "support_phone",
        "support_url",
        "url",
    )
)

_REQUIREMENTS: dict[str, Any] = {
    "alternatives": [],
    "current_deadline": None,
    "currently_due": [],
    "disabled_reason": None,
    "errors": [],
    "eventually_due": [],
    "past_due": [],
    "pending_verification": [],
}


def _settings(account: Account, settlement_days: int) -> dict[str, Any]:
    """Return the settings. Payouts are made by hand."""
    words = ("statement_descriptor", "statement_descriptor_kana", "statement_descriptor_kanji")
    prefixes = ("statement_descriptor_prefix", "statement_descriptor_prefix_kana", "statement_descriptor_prefix_kanji")
    return {
        "bacs_debit_payments": {"display_name": None, "service_user_number": None},
        "branding": {
            "icon": None,
            "logo": None,
            "primary_color": account.brand_colour or None,
            "secondary_color": None,
        },
        "card_issuing": {"tos_acceptance": {"date": None, "ip": None}},
        "card_payments": {
            "decline_on": {"avs_failure": False, "cvc_failure": False},
            **dict.fromkeys(prefixes),
        },
        "dashboard": {"display_name": account.name or None, "timezone": _zone(account)},
        "payments": dict.fromkeys(words) | {"statement_descriptor": account.statement_descriptor or None},
        "payouts": {
            "debit_negative_balances": False,
            "schedule": {"delay_days": settlement_days, "interval": "manual"},
            "statement_descriptor": None,
        },
        "sepa_debit_payments": {},
    }


def _zone(account: Account) -> str:
    return "Etc/UTC" if account.time_zone == "UTC" else account.time_zone
