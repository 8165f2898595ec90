"""External accounts: parameters, calls and shapes."""

from typing import Any

from msgspec import UNSET

from tillway.api.cards import card_object
from tillway.domain.bank_account import TEST_ROUTING_NUMBER
from tillway.domain.commands import CreateExternalAccount, UpdateExternalAccount
from tillway.domain.external_account import DeletedAccount, ExternalAccount
from tillway.domain.refusal import Refused
from tillway.http.lists import list_page
from tillway.http.params import (
    LIMIT_DEFAULT,
    AnyOf,
    Boolean,
    CardField,
    Country,
    Currency,
    Email,
    Enum,
    Expand,
    Id,
    Metadata,
    Object,
    Params,
    Text,
    Unsupported,
    list_params,
    pick,
)
from tillway.http.routes import Answer, Call, Page, route
from tillway.http.shapes import View, shape
from tillway.operations import external_accounts

_EXPIRY = "a card's expiry; add the card anew"
_ADDRESS = "a card's address; payouts do not use it"

_NAME = Text(maximum=200)
_HOLDER = Enum("company", "individual")
_KIND = Enum("checking", "futsu", "savings", "toza")

GIVEN = Object(
    object=Enum("bank_account", "card", "email", required=True),
    account_holder_name=_NAME,
    account_holder_type=_HOLDER,
    account_number=CardField(),
    account_type=_KIND,
    country=Country(),
    currency=Currency(),
    cvc=CardField(),
    default_for_currency=Boolean(),
    email=Email(),
    exp_month=CardField(),
    exp_year=CardField(),
    metadata=Metadata(),
    name=_NAME,
    number=CardField(),
    routing_number=CardField(),
)
CREATE = Params(
    external_account=AnyOf(Id(), GIVEN, required=True),
    default_for_currency=Boolean(),
    expand=Expand(),
    metadata=Metadata(),
    twins=Enum("allowed", "refused"),
)
UPDATE = Params(
    account_holder_name=_NAME,
    account_holder_type=_HOLDER,
    account_type=_KIND,
    address_city=Unsupported(_ADDRESS),
    address_country=Unsupported(_ADDRESS),
    address_line1=Unsupported(_ADDRESS),
    address_line2=Unsupported(_ADDRESS),
    address_state=Unsupported(_ADDRESS),
    address_zip=Unsupported(_ADDRESS),
    default_for_currency=Boolean(),
    documents=Unsupported("documents that verify an account"),
    exp_month=Unsupported(_EXPIRY),
    exp_year=Unsupported(_EXPIRY),
    expand=Expand(),
    metadata=Metadata(),
    name=_NAME,
)
LIST = list_params(object=Enum("bank_account", "card", "email"))
EXPAND_ONLY = Params(expand=Expand())

_NEEDED = {
    "bank_account": ("account_number", "country"),
    "card": ("number", "exp_month", "exp_year"),
    "email": ("email",),
}
_OPTIONAL = {
    "bank_account": ("account_holder_name", "account_holder_type", "account_type", "routing_number"),
    "card": ("cvc", "name"),
    "email": ("account_holder_name",),
}
_COMMON = ("object", "currency", "default_for_currency", "metadata")


@route("POST", "/v1/accounts/{account}/external_accounts", CREATE, returns="bank_account")
async def create(call: Call) -> Answer:
    """Add a bank account, card or e-mail address that payouts can go to.

    `twins=refused` refuses a bank account that the merchant has already in that currency (`bank_account_exists`).
    """
    external_accounts.refuse_other(call.caller, call.id)
    params = dict(call.params)
    given = params.pop("external_account")
    if isinstance(given, dict):
        _check(given)
        # Stripe accepts these two beside the account, and also within its card and bank account objects.
        params = {name: given[name] for name in ("metadata", "default_for_currency") if name in given} | params
    command = CreateExternalAccount(
        account=given,
        metadata=params.get("metadata"),
        default=params.get("default_for_currency"),
        twins=params.get("twins") or "allowed",
    )
    return await external_accounts.create(call.platform, call.caller, command)


@route("GET", "/v1/accounts/{account}/external_accounts", LIST, returns="list")
async def list_accounts(call: Call) -> Answer:
    """List external accounts, newest first."""
    external_accounts.refuse_other(call.caller, call.id)
    wanted = call.params.get("object")
    page: Page = await list_page(
        call,
        "ba",
        keep=(lambda account: account.type == wanted) if wanted is not None else None,
        noun="external account",
    )
    page.url = f"/v1/accounts/{call.id}/external_accounts"
    if not page.has_more and "ending_before" not in call.params and wanted in (None, "bank_account"):
        # They are as old as the merchant, so they come last.
        room = call.params.get("limit", LIMIT_DEFAULT) - len(page.records)
        provided = await external_accounts.provided(call.platform, call.caller)
        page.records += provided[:room]
        page.has_more = len(provided) > room
    return page


@route("GET", "/v1/accounts/{account}/external_accounts/{id}", EXPAND_ONLY, returns="bank_account")
async def retrieve(call: Call) -> Answer:
    """Retrieve an external account."""
    account, id = call.ids
    external_accounts.refuse_other(call.caller, account)
    return await external_accounts.retrieve(call.platform, call.caller, id)


@route("POST", "/v1/accounts/{account}/external_accounts/{id}", UPDATE, returns="bank_account")
async def update(call: Call) -> Answer:
    """Change an external account's holder and metadata, or make it the default of its currency."""
    account, id = call.ids
    external_accounts.refuse_other(call.caller, account)
    return await external_accounts.update(call.platform, call.caller, id, _read_update(call.params))


@route("DELETE", "/v1/accounts/{account}/external_accounts/{id}", EXPAND_ONLY, returns="deleted_bank_account")
async def delete(call: Call) -> Answer:
    """Delete an external account and its number, for good."""
    account, id = call.ids
    external_accounts.refuse_other(call.caller, account)
    return await external_accounts.delete(call.platform, call.caller, id)


def _read_update(params: dict[str, Any]) -> UpdateExternalAccount:
    return UpdateExternalAccount(
        # A bank account calls its holder `account_holder_name`, a card `name`.
        holder_name=params.get("name", params.get("account_holder_name", UNSET)),
        holder_type=params.get("account_holder_type", UNSET),
        **pick(params, "account_type", "default_for_currency", "metadata"),
    )


def _check(given: dict[str, Any]) -> None:
    """Refuse missing parameters and those of another type."""
    type = given["object"]
    for name in given:
        if name not in (*_COMMON, *_NEEDED[type], *_OPTIONAL[type]):
            raise Refused(
                "parameter_unknown",
                f"Received unknown parameter: external_account[{name}]; a {type} has none.",
                param=f"external_account[{name}]",
            )
    for name in _NEEDED[type]:
        if name not in given:
            raise Refused(
                "parameter_missing",
                f"Missing required param: external_account[{name}].",
                param=f"external_account[{name}]",
            )


@shape(ExternalAccount)
def account_shape(account: ExternalAccount, view: View) -> dict[str, Any]:
    """Return Stripe's bank account or card object, or Tillway's own object for an e-mail address."""
    common = {
        "available_payout_methods": ["standard", "instant"] if account.type == "card" else ["standard"],
        "currency": account.currency,
        "default_for_currency": account.default_for_currency,
        "metadata": account.metadata,
    }
    if account.card is not None:
        return {**card_object(account.id, account.card, name=account.holder_name, address={}), **common}
    if account.email is not None:
        return {
            "id": account.id,
            "object": "email",
            "account_holder_name": account.holder_name,
            "email": account.email,
            **common,
        }
    return {
        "id": account.id,
        "object": "bank_account",
        "account_holder_name": account.holder_name,
        "account_holder_type": account.holder_type,
        "account_type": account.account_type,
        "bank_name": "STRIPE TEST BANK" if account.routing_number == TEST_ROUTING_NUMBER else None,
        "country": account.country,
        "fingerprint": account.fingerprint,
        "last4": account.last4,
        "routing_number": account.routing_number,
        "status": "new",
        **common,
    }


@shape(DeletedAccount, object="deleted_bank_account")
def deleted_shape(account: DeletedAccount, view: View) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": account.id, "object": account.type, "deleted": True}
    return {**shown, "currency": account.currency} if account.type == "bank_account" else shown
