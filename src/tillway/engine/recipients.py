"""Recipients of payouts on their way into and out of the vault. No other part of the engine sees an account number."""

from typing import Any

import msgspec

from tillway.connectors import port
from tillway.domain.cards import Secret, brand_of, check_card
from tillway.domain.external_account import ExternalAccount, check_bank_account
from tillway.domain.payment_method import CardFacts, Token
from tillway.domain.payout import Recipient
from tillway.domain.record import Moment, SealedRecord
from tillway.domain.refusal import Refused
from tillway.engine.card_vault import CardVault
from tillway.sandbox.cards import by_alias, by_number
from tillway.vault.port import AccountContents, SealedAccount

_encode = msgspec.json.Encoder().encode
_account = msgspec.json.Decoder(SealedAccount).decode


def seal(vault: CardVault, scope_key: str, contents: AccountContents, at: Moment) -> SealedRecord:
    """The sealed record of an account, for the commit of the record that needs it."""
    owner = at.new_id("vlt")
    sealed = vault.vault.seal_account(scope_key, owner, contents)
    return SealedRecord(id=owner, created=at.created, sealed=msgspec.Raw(_encode(sealed)))


async def unseal(vault: CardVault, scope_key: str, id: str | None) -> AccountContents | None:
    """The content of the sealed record of that id; None if it has been deleted."""
    row = await vault.store.get(f"{scope_key}/{id}") if id is not None else None
    if row is None or id is None:
        return None
    record = msgspec.json.decode(row.body, type=SealedRecord)
    vault.on_open(scope_key)
    return vault.vault.open_account(scope_key, id, _account(record.sealed))


async def reveal(vault: CardVault, scope_key: str, recipient: Recipient) -> port.Recipient | None:
    """The recipient for the provider, for one call; None if the payout has settled since."""
    if recipient.email is not None:
        return port.Recipient(recipient.type, recipient.email, recipient.name)
    contents = await unseal(vault, scope_key, recipient.vault)
    if contents is None:
        return None
    number = contents.number.reveal()
    value = number if contents.routing is None else f"{contents.routing}/{number}"
    return port.Recipient(recipient.type, value, contents.name, recipient.holder_type, recipient.account_type)


def bank_account(
    vault: CardVault, scope_key: str, given: dict[str, Any], currency: str, at: Moment
) -> tuple[ExternalAccount, SealedRecord]:
    """The account in `given` and its sealed number. Raises Refused with the parameter if it is invalid."""
    number, routing = check_bank_account(given["account_number"], given.get("routing_number"), given["country"])
    name = given.get("account_holder_name")
    sealed = seal(vault, scope_key, AccountContents(number=Secret(number), routing=routing, name=name), at)
    account = ExternalAccount(
        id=at.new_id("ba"),
        created=at.created,
        type="bank_account",
        currency=currency,
        country=given["country"],
        last4=number[-4:],
        fingerprint=vault.vault.fingerprint(scope_key, Secret(f"{routing or ''}/{number}")),
        routing_number=routing,
        holder_name=name,
        holder_type=given.get("account_holder_type"),
        account_type=given.get("account_type"),
        vault=sealed.id,
    )
    return account, sealed


def card(
    vault: CardVault, scope_key: str, given: dict[str, Any], currency: str, at: Moment
) -> tuple[ExternalAccount, SealedRecord]:
    """The card in `given` as a recipient: the form of its security code is checked, and the code is dropped."""
    checked = check_card(
        given["number"], given["exp_month"], given["exp_year"], given.get("cvc"), now=at.now, param="external_account"
    )
    digits = checked.number.reveal()
    known = by_number(digits) if scope_key.endswith("t") else None
    facts = CardFacts(
        brand=known.brand if known is not None else brand_of(digits),
        last4=digits[-4:],
        exp_month=checked.exp_month,
        exp_year=checked.exp_year,
        funding=known.funding if known is not None else "debit",
        country=known.country if known is not None else None,
        fingerprint=vault.vault.fingerprint(scope_key, checked.number),
    )
    return _card(vault, scope_key, facts, checked.number, given.get("name"), currency, at)


async def card_of_token(
    vault: CardVault, scope_key: str, token: Token, currency: str, at: Moment
) -> tuple[ExternalAccount, SealedRecord]:
    """The card behind a token, sealed again: the sealed card of the token is deleted with it."""
    facts, name = token.card, token.name
    if facts.alias is not None:
        known = by_alias(facts.alias)
        assert known is not None, f"a token with the unknown alias {facts.alias}"
        number = known.number
    else:
        opened = await vault.open(scope_key, facts, None)
        if opened is None:
            raise Refused("token_expired", param="external_account")
        number = opened.number
    bare = CardFacts(
        brand=facts.brand,
        last4=facts.last4,
        exp_month=facts.exp_month,
        exp_year=facts.exp_year,
        funding=facts.funding,
        country=facts.country,
        fingerprint=facts.fingerprint,
    )
    return _card(vault, scope_key, bare, Secret(number), name, currency, at)


def _card(
    vault: CardVault,
    scope_key: str,
    facts: CardFacts,
    number: Secret[str],
    name: str | None,
    currency: str,
    at: Moment,
) -> tuple[ExternalAccount, SealedRecord]:
    sealed = seal(vault, scope_key, AccountContents(number=number, name=name), at)
    account = ExternalAccount(
        id=at.new_id("ba"),
        created=at.created,
        type="card",
        currency=currency,
        country=facts.country or "US",
        last4=facts.last4,
        fingerprint=facts.fingerprint,
        holder_name=name,
        card=facts,
        vault=sealed.id,
    )
    return account, sealed
