"""External accounts, which a merchant's payouts go to: bank accounts, cards and e-mail addresses, one of them the
default of its currency.

The vault holds the sealed number; a record has its last four characters and a fingerprint.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from tillway.domain.bank_account import iban_valid, routing_valid
from tillway.domain.commands import PayoutMethod, UpdateExternalAccount
from tillway.domain.late_pattern import late_pattern
from tillway.domain.payment_method import CardFacts
from tillway.domain.payout import RecipientType
from tillway.domain.record import Changes, EventDraft, Moment, Reading, Record, SealedRecord, changed
from tillway.domain.refusal import Refused

ACCOUNTS_MAX = 50
"""Most external accounts of a merchant in one mode."""


class ExternalAccount(Record, frozen=True, kw_only=True):
    """`bank_name` to `account_type` belong to bank accounts, `card` to cards, `email` to e-mail addresses. `vault`
    names the sealed number; an e-mail address has none."""

    type: RecipientType
    currency: str
    country: str = "US"
    last4: str = ""
    fingerprint: str = ""
    routing_number: str | None = None
    holder_name: str | None = None
    holder_type: str | None = None
    account_type: str | None = None
    card: CardFacts | None = None
    email: str | None = None
    vault: str | None = None
    default_for_currency: bool = False
    metadata: dict[str, str] = {}
    provided: bool = False
    """Whether it is the test bank account that every merchant has, and not one that the merchant added."""


def account_form(account: ExternalAccount) -> Literal["routing_number", "iban"] | None:
    """How the number of a bank account is written: a US one behind its routing number, or an IBAN. None for others."""
    if account.type != "bank_account":
        return None
    if account.routing_number is None:
        return "iban"
    return "routing_number" if account.country == "US" else None


class DeletedAccount(Reading, frozen=True, kw_only=True):
    """The document of a deleted account."""

    type: RecipientType
    currency: str


def default_of(accounts: Sequence[ExternalAccount], currency: str) -> ExternalAccount | None:
    return next((one for one in accounts if one.currency == currency and one.default_for_currency), None)


def choose(
    named: ExternalAccount | None, saved: Sequence[ExternalAccount], currency: str, method: PayoutMethod
) -> ExternalAccount:
    """The account that a payout in `currency` goes to: the one that the caller `named`, else the default of those
    that are `saved`.

    Refused, in this order: `parameter_invalid_string` for an account in another currency, `payouts_not_allowed` if
    there is no default, `instant_payouts_unsupported` for an instant payout except to a card.
    """
    if named is not None and named.currency != currency:
        raise Refused(
            "parameter_invalid_string",
            f"The external account {named.id} takes {named.currency}, and this payout is in {currency}.",
            param="destination",
        )
    account = named or default_of(saved, currency)
    if account is None:
        raise Refused(
            "payouts_not_allowed",
            f"You have no external account in {currency} that this payout could go to. Add one with POST "
            f"/v1/accounts/{{your account}}/external_accounts.",
            param="currency",
        )
    if method == "instant" and account.type != "card":
        raise Refused(
            "instant_payouts_unsupported",
            f"The external account {account.id} does not take instant payouts; a card does. Use method=standard.",
            param="method",
        )
    return account


def create(
    account: ExternalAccount,
    others: Sequence[ExternalAccount],
    *,
    default: bool | None,
    twins: Literal["allowed", "refused"] = "allowed",
    at: Moment,
) -> Changes[ExternalAccount]:
    """Save `account` beside the merchant's `others`. The first of its currency is the default, and so is one that asks
    for it; the test bank account that every merchant has does not count.

    Refused, in this order: `bank_account_exists` where `twins` are refused and there is one; `external_account_limit`.
    The commit also writes the currency's guard, so that of two concurrent first accounts only one becomes the default,
    and of two twins only one is saved."""
    twin = next((one for one in others if _are_twins(one, account)), None) if twins == "refused" else None
    if twin is not None:
        raise Refused(
            "bank_account_exists",
            f"This bank account is already an external account of yours in {account.currency}: {twin.id}.",
            param="external_account[account_number]",
        )
    if len(others) >= ACCOUNTS_MAX:
        raise Refused(
            "external_account_limit", f"An account has at most {ACCOUNTS_MAX} external accounts in each mode."
        )
    before = default_of(others, account.currency)
    kept = msgspec.structs.replace(account, default_for_currency=before is None or before.provided or bool(default))
    return Changes(
        result=kept,
        records=(kept, *_unset_default(before, kept)),
        events=(EventDraft(type="account.external_account.created", record=kept),),
    )


def _are_twins(one: ExternalAccount, other: ExternalAccount) -> bool:
    """Whether both are the same account at a bank, in the same currency. The test bank account that every merchant has
    is none of the merchant's own."""
    is_own_bank = one.type == other.type == "bank_account" and not one.provided
    return is_own_bank and one.currency == other.currency and one.fingerprint == other.fingerprint


def update(
    account: ExternalAccount, others: Sequence[ExternalAccount], command: UpdateExternalAccount
) -> Changes[ExternalAccount]:
    """Change the holder and the metadata, or make it the default; its number never changes."""
    fields = command.given()
    default = fields.pop("default_for_currency", None)
    if default is False and account.default_for_currency:
        raise Refused(
            "parameter_invalid_boolean",
            "A currency needs a default. Make another external account the default instead.",
            param="default_for_currency",
        )
    after = changed(account, fields)
    if default:
        after = msgspec.structs.replace(after, default_for_currency=True)
    if after == account:
        return Changes(result=account)
    before = default_of([one for one in others if one.id != account.id], account.currency)
    return Changes(
        result=after,
        records=(after, *_unset_default(before, after)),
        events=(EventDraft(type="account.external_account.updated", record=after, previous=account),),
    )


def correct(account: ExternalAccount, after: ExternalAccount, sealed: SealedRecord) -> Changes[ExternalAccount]:
    """Name the account as its bank asks from now on: `sealed` has the new number, and the old one is deleted. Payouts
    under way have copies of their own."""
    return Changes(
        result=after,
        records=(after, sealed),
        deletes=(account.vault,) if account.vault is not None else (),
        events=(EventDraft(type="account.external_account.updated", record=after, previous=account),),
    )


def delete(account: ExternalAccount, others: Sequence[ExternalAccount]) -> Changes[DeletedAccount]:
    """Delete it and its number; payouts under way keep their own copy. The default can be deleted only as the last."""
    if account.default_for_currency and any(
        one.id != account.id and one.currency == account.currency for one in others
    ):
        raise Refused(
            "external_account_default",
            f"You cannot delete the default external account for {account.currency}. Make another one the default "
            "first.",
        )
    return Changes(
        result=DeletedAccount(id=account.id, created=account.created, type=account.type, currency=account.currency),
        deletes=(account.id, *((account.vault,) if account.vault is not None else ())),
        events=(EventDraft(type="account.external_account.deleted", record=account),),
    )


def _unset_default(before: ExternalAccount | None, now: ExternalAccount) -> tuple[ExternalAccount, ...]:
    """The default that `now` replaces."""
    if before is None or not now.default_for_currency or before.id == now.id:
        return ()
    return (msgspec.structs.replace(before, default_for_currency=False),)


# Account numbers. Errors name the field and never repeat its value.

_IBAN = late_pattern(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
_SEPARATORS = str.maketrans("", "", " -")


def check_bank_account(
    number: str, routing: str | None, country: str, *, param: str = "external_account"
) -> tuple[str, str | None]:
    """Check `number` and `routing` and return them without separators: an IBAN with right check digits (ISO 13616), a
    US account behind a routing number with a right check digit (ABA), or the form of another country.

    Raises Refused `account_number_invalid` or `routing_number_invalid`.
    """
    number = number.translate(_SEPARATORS).upper()
    routing = routing.translate(_SEPARATORS).upper() if routing is not None else None
    where = f"{param}[account_number]"
    if number[:2].isalpha():
        if _IBAN.fullmatch(number) is None or not iban_valid(number):
            raise Refused("account_number_invalid", "This is not an IBAN: its check digits are wrong.", param=where)
        if number[:2] != country:
            raise Refused("account_number_invalid", f"This IBAN is one of {number[:2]}, not of {country}.", param=where)
        return number, None
    if not (number.isascii() and number.isdigit() and 4 <= len(number) <= (17 if country == "US" else 34)):
        raise Refused("account_number_invalid", "An account number has 4 to 17 digits.", param=where)
    if routing is None:
        raise Refused(
            "parameter_missing",
            "Missing required param: a bank account without an IBAN needs its routing number.",
            param=f"{param}[routing_number]",
        )
    fit = routing_valid(routing) if country == "US" else routing.isascii() and routing.isalnum() and len(routing) <= 35
    if not fit:
        raise Refused(
            "routing_number_invalid",
            "This is not a US routing number: it has nine digits, the last of which checks the others."
            if country == "US"
            else "A routing number has letters and digits alone.",
            param=f"{param}[routing_number]",
        )
    return number, routing
