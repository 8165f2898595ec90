"""Cards and bank accounts on their way into and out of the vault. No other part of the engine sees a number."""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from tillway.connectors.port import BankAccountData, CardData
from tillway.domain.bank_account import BankAccountFacts
from tillway.domain.cards import FORM_DIGITS, CheckedCard, Secret, bin_of, brand_of, check_card
from tillway.domain.method_types import METHOD_TYPES
from tillway.domain.payment_method import CVC_LIFETIME_SECONDS, CardFacts, PaymentMethod
from tillway.domain.record import Moment, Record, SealedRecord
from tillway.sandbox.bank_accounts import by_account_alias
from tillway.sandbox.cards import TestCard, alias_expiry, by_alias, by_number
from tillway.store.port import Store
from tillway.vault.port import AccountContents, CardContents, SealedAccount, SealedCard, SealedCvc, Vault

SECONDS_PER_YEAR = 31_556_952
ALIASES_MAX = 10_000
"""Number of public test cards with cached facts, over all merchants."""


class CardCheck(Protocol):
    """`cards.check_card`, or a dialect's own check."""

    def __call__(
        self, number: str, exp_month: int | str, exp_year: int | str, cvc: str | None, *, now: int, param: str = "card"
    ) -> CheckedCard: ...


_encode = msgspec.json.Encoder().encode
_card = msgspec.json.Decoder(SealedCard)
_cvc = msgspec.json.Decoder(SealedCvc)
_account = msgspec.json.Decoder(SealedAccount)


class CardVault:
    def __init__(self, vault: Vault, store: Store, on_open: Callable[[str], None] = lambda scope_key: None) -> None:
        """`on_open` is called with the scope of each number that is decrypted."""
        self.vault = vault
        self.store = store
        self.on_open = on_open
        self._aliases: dict[tuple[str, str], CardFacts] = {}

    def take_in(
        self,
        scope_key: str,
        given: dict[str, Any],
        address: dict[str, Any],
        at: Moment,
        *,
        param: str = "card",
        keep_until: int | None = None,
        check: CardCheck = check_card,
    ) -> tuple[CardFacts, tuple[Record, ...]]:
        """The storable facts of the card in `given`, and the sealed records for the same commit.

        Raises Refused with the parameter if `check` finds the card invalid. `keep_until`: the epoch second after which
        an unused card is deleted.
        """
        checked = check(
            given["number"], given["exp_month"], given["exp_year"], given.get("cvc"), now=at.now, param=param
        )
        number = checked.number
        owner = at.new_id("vlt")
        contents = CardContents(
            number=number, exp_month=checked.exp_month, exp_year=checked.exp_year, name=given.get("name")
        )
        sealed = self.vault.seal(scope_key, owner, contents)
        records = [
            SealedRecord(id=owner, created=at.created, sealed=msgspec.Raw(_encode(sealed)), expires_at=keep_until)
        ]
        cvc_id = None
        if checked.cvc is not None:
            cvc_id = at.new_id("cvc")
            sealed_cvc = self.vault.seal_cvc(scope_key, cvc_id, checked.cvc)
            records.append(
                SealedRecord(
                    id=cvc_id,
                    created=at.created,
                    sealed=msgspec.Raw(_encode(sealed_cvc)),
                    expires_at=keep_until or at.now + CVC_LIFETIME_SECONDS,
                )
            )
        digits = number.reveal()
        known = by_number(digits) if scope_key.endswith("t") else None
        facts = CardFacts(
            brand=known.brand if known is not None else brand_of(digits),
            last4=digits[-4:],
            exp_month=checked.exp_month,
            exp_year=checked.exp_year,
            fingerprint=self.vault.fingerprint(scope_key, number),
            bin=bin_of(digits),
            vault=owner,
            cvc=cvc_id,
        )
        if known is not None:
            facts = _apply_test_card(facts, known, cvc=checked.cvc is not None, address=address)
        return facts, tuple(records)

    def facts_of_refused(self, scope_key: str, number: str, exp_month: int, exp_year: int) -> CardFacts:
        """The storable facts of a refused card, which is not stored. The number is not kept; if it is not a card
        number, not even its last digits."""
        is_number = len(number) in FORM_DIGITS and number.isascii() and number.isdigit()
        return CardFacts(
            brand=brand_of(number) if is_number else "unknown",
            last4=number[-4:] if is_number else "",
            exp_month=exp_month,
            exp_year=exp_year,
            fingerprint=self.vault.fingerprint(scope_key, Secret(number)),
        )

    def of_alias(self, scope_key: str, alias: str, at: Moment) -> CardFacts | None:
        """The public test card behind `pm_card_visa` or `tok_visa`; None in live mode and for any other id."""
        month, year = alias_expiry(1970 + at.now // SECONDS_PER_YEAR)
        remembered = self._aliases.get((scope_key, alias))
        if remembered is not None and remembered.exp_year == year:
            return remembered
        known = by_alias(alias) if scope_key.endswith("t") else None
        if known is None:
            return None
        facts = CardFacts(
            brand=known.brand,
            last4=known.last4,
            exp_month=month,
            exp_year=year,
            fingerprint=self.vault.fingerprint(scope_key, Secret(known.number)),
            bin=bin_of(known.number),
            alias=alias,
        )
        facts = _apply_test_card(facts, known, cvc=True, address={})
        if len(self._aliases) >= ALIASES_MAX:
            self._aliases.clear()
        self._aliases[scope_key, alias] = facts
        return facts

    async def open(self, scope_key: str, facts: CardFacts, cvc: str | None) -> CardData | None:
        """The card for one call to a provider; None if it has been deleted since."""
        if facts.vault is None:
            return None
        row = await self.store.get(f"{scope_key}/{facts.vault}")
        if row is None:
            return None
        record = msgspec.json.decode(row.body, type=SealedRecord)
        self.on_open(scope_key)
        contents = self.vault.open(scope_key, facts.vault, _card.decode(record.sealed))
        return CardData(contents.number.reveal(), facts.exp_month, facts.exp_year, cvc, contents.name)

    def take_in_account(
        self, scope_key: str, type: str, given: dict[str, Any], at: Moment, *, param: str
    ) -> tuple[BankAccountFacts, tuple[Record, ...]]:
        """The storable facts of the bank account in `given`, and the sealed record for the same commit.

        Raises Refused with the parameter if it cannot be an account of `type`.
        """
        number, facts = _read_account(type, given, param)
        owner = at.new_id("vlt")
        contents = AccountContents(number=number, routing=facts.routing_number)
        sealed = self.vault.seal_account(scope_key, owner, contents)
        known = msgspec.structs.replace(facts, vault=owner, fingerprint=self._account_print(scope_key, number, facts))
        return known, (SealedRecord(id=owner, created=at.created, sealed=msgspec.Raw(_encode(sealed))),)

    def of_account_alias(self, scope_key: str, alias: str) -> tuple[str, BankAccountFacts] | None:
        """Type and facts of the public test account behind `pm_usBankAccount_success`; None in live mode and for any
        other id."""
        known = by_account_alias(alias) if scope_key.endswith("t") else None
        if known is None:
            return None
        number, facts = _read_account(known.type, known.parameters, known.type)
        fingerprint = self._account_print(scope_key, number, facts)
        return known.type, msgspec.structs.replace(facts, alias=alias, fingerprint=fingerprint)

    def _account_print(self, scope_key: str, number: Secret[str], facts: BankAccountFacts) -> str:
        # The same account number exists at many banks; an IBAN names its bank itself.
        return self.vault.fingerprint(scope_key, Secret(f"{facts.routing_number or ''}/{number.reveal()}"))

    async def open_account(self, scope_key: str, method: PaymentMethod) -> BankAccountData | None:
        """The bank account for one call to a provider; None if it has been deleted since."""
        facts = method.bank
        if facts is None:
            return None
        if facts.alias is not None:
            known = by_account_alias(facts.alias)
            assert known is not None, f"a payment method with the unknown alias {facts.alias}"
            number = known.number
        else:
            row = await self.store.get(f"{scope_key}/{facts.vault}") if facts.vault is not None else None
            if row is None or facts.vault is None:
                return None
            record = msgspec.json.decode(row.body, type=SealedRecord)
            self.on_open(scope_key)
            number = self.vault.open_account(scope_key, facts.vault, _account.decode(record.sealed)).number.reveal()
        return BankAccountData(
            method.type,
            number,
            routing_number=facts.routing_number,
            account_holder_type=facts.account_holder_type,
            account_type=facts.account_type,
            name=method.billing_details.get("name"),
        )

    def open_code(self, scope_key: str, code: SealedRecord | None) -> str | None:
        """The security code, for its only sending: the commit before the sending has deleted its record."""
        if code is None:
            return None
        return self.vault.open_cvc(scope_key, code.id, _cvc.decode(code.sealed)).reveal()


def _read_account(type: str, given: dict[str, Any], param: str) -> tuple[Secret[str], BankAccountFacts]:
    read = METHOD_TYPES[type].read_account
    assert read is not None, f"a payment method of the type {type} holds no bank account"
    return read(given, param)


ADDRESS_FIELDS = (
    ("address_city", "city"),
    ("address_country", "country"),
    ("address_line1", "line1"),
    ("address_line2", "line2"),
    ("address_state", "state"),
    ("address_zip", "postal_code"),
)
"""The address among the fields of a card of the older API, and the current names of its parts."""


def postal(card: dict[str, Any]) -> dict[str, str]:
    """The address of a card of the older API."""
    return {name: card[field] for field, name in ADDRESS_FIELDS if card.get(field) is not None}


def _apply_test_card(facts: CardFacts, known: TestCard, *, cvc: bool, address: dict[str, Any]) -> CardFacts:
    """`facts` with the behaviour of the documented test card."""
    decline = known.charge if known.attach == "decline" else None
    return msgspec.structs.replace(
        facts,
        funding=known.funding,
        country=known.country,
        three_d_secure=known.three_d_secure,
        authentication=known.authentication,
        attach_decline=(decline.code, decline.decline_code) if decline is not None else None,
        cvc_check=known.cvc_check if cvc else None,
        address_line1_check=known.address_line1_check if address.get("line1") else None,
        postal_code_check=known.postal_code_check if address.get("postal_code") else None,
        risk_level=known.risk_level,
        blocked=known.blocked,
        instant=known.funds_available_at_once,
    )
