"""The vault port: turns card data into sealed records and back.

The vault encrypts and decrypts and does nothing else. The engine stores a sealed record in the same commit as the token
or payment method it belongs to, so sealing and opening do no I/O.

`scope` is the merchant and mode that a record lives under (`acct_1.t`), `owner_id` the id of the vault record itself.
Both are authenticated with the ciphertext: a record copied to another merchant or another id does not open.
"""

from typing import Any, Literal, Protocol

import msgspec

from tillway.domain.cards import Secret
from tillway.domain.credentials import SigningKey


class CardContents(msgspec.Struct, frozen=True, kw_only=True):
    """The sealed part of a card. The vault does not check it: the code that takes a card decides how strictly to
    check."""

    number: Secret[str]
    exp_month: int
    exp_year: int
    name: str | None = None

    def __repr__(self) -> str:
        return "CardContents(****)"


class AccountContents(msgspec.Struct, frozen=True, kw_only=True):
    """The sealed part of a bank account, or of a card that receives a payout: its number, `routing` where the country
    has one, and the holder's name. The vault does not check it."""

    number: Secret[str]
    routing: str | None = None
    name: str | None = None

    def __repr__(self) -> str:
        return "AccountContents(****)"


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """One ciphertext under its own data key, and that data key under a key-encryption key.

    `version` is the form of the record, authenticated with it. `key_id` names the key-encryption key.
    """

    version: int
    key_id: str
    wrapped_key: bytes
    nonce: bytes
    ciphertext: bytes


class SealedCard(Sealed, frozen=True, kw_only=True, tag_field="purpose", tag="card"):
    """A sealed `CardContents`."""


class SealedCvc(Sealed, frozen=True, kw_only=True, tag_field="purpose", tag="cvc"):
    """A sealed card verification code: a record of its own, because it goes at the first attempt and the card stays."""


class SealedAccount(Sealed, frozen=True, kw_only=True, tag_field="purpose", tag="account"):
    """A sealed `AccountContents`."""


class SealedText(Sealed, frozen=True, kw_only=True, tag_field="purpose", tag="text"):
    """A sealed text: the signing secret of a webhook endpoint, or a setting of a connector."""


SealedSecret = SealedCard | SealedCvc | SealedAccount | SealedText

KeyState = Literal["coming", "current", "old", "retired"]


class KeyInfo(msgspec.Struct, frozen=True):
    """The public facts of a key-encryption key. `created` is epoch seconds."""

    id: str
    state: KeyState
    created: int


class KeyRefused(Exception):
    """A key cannot change as asked. The text names the step that comes first."""


class VaultTampered(Exception):
    """A sealed record does not open: it was changed, cut short, or moved from where it was sealed."""


class KeyMissing(VaultTampered):
    """A sealed record names a key that the key file does not hold: another installation's record, or a lost key."""


class KeyWrapper(Protocol):
    """Wraps data keys under key-encryption keys. `context` is authenticated with the wrapped key."""

    def current_id(self) -> str:
        """The id of the key that `wrap` uses now."""

    def wrap(self, data_key: bytes, context: bytes) -> tuple[str, bytes]:
        """`data_key` (32 bytes) under the current key, as (key id, wrapped)."""

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """The data key. Raises `KeyMissing` for an unknown id and `VaultTampered` where the bytes do not open."""


class Keys(KeyWrapper, Protocol):
    """The keys of an installation: in a key file (`keyring.Keyring`), or in a key service behind the same calls.

    `registry.place_of` finds their place by the setting `keys`; `testing.keys_contract` says what one must do.
    Calls that change keys are durable on return.
    """

    @property
    def fingerprint_key(self) -> Secret[bytes]:
        """32 bytes that stay the same for the life of the installation."""

    def derive(self, purpose: str) -> Secret[bytes]:
        """32 bytes for one purpose, the same for the life of the installation. Purposes are constants of the code."""

    def list_keys(self) -> list[KeyInfo]:
        """The key-encryption keys in the order they were made; one of them is current."""

    def prepare_kek(self) -> str:
        """Add the key that the next rotation makes current. Return its id, or that of the one which is there."""

    def add_kek(self) -> str:
        """Make the prepared key current, or else a new one; the one before becomes old. Return its id."""

    def retire(self, key_id: str) -> None:
        """Mark an old key as one that no record is under; it still opens. Raises `KeyRefused`."""

    def forget(self, key_id: str) -> None:
        """Destroy a retired key. Raises `KeyRefused` for any other."""

    def can_be_loaded(self) -> bool:
        """Whether a process that starts now would find these keys, or their successors. A running one holds them."""


class Vault(Protocol):
    def seal(self, scope: str, owner_id: str, card: CardContents) -> SealedCard:
        """`card`, sealed for this owner. Two seals of one card share no bytes."""

    def open(self, scope: str, owner_id: str, sealed: SealedCard) -> CardContents:
        """The card. Raises `VaultTampered`."""

    def seal_cvc(self, scope: str, owner_id: str, cvc: Secret[str]) -> SealedCvc:
        """`cvc`, sealed for this owner."""

    def open_cvc(self, scope: str, owner_id: str, sealed: SealedCvc) -> Secret[str]:
        """The CVC. Raises `VaultTampered`."""

    def seal_account(self, scope: str, owner_id: str, account: AccountContents) -> SealedAccount:
        """`account`, sealed for this owner."""

    def open_account(self, scope: str, owner_id: str, sealed: SealedAccount) -> AccountContents:
        """The account. Raises `VaultTampered`."""

    def seal_text(self, scope: str, owner_id: str, text: Secret[str]) -> str:
        """`text`, sealed for this owner and written as a text, so that it fits the field that it had in the clear."""

    def open_text(self, scope: str, owner_id: str, stored: str) -> Secret[str]:
        """The text. One that was stored before texts were sealed is returned as it is. Raises `VaultTampered`."""

    def reseal_text(self, scope: str, owner_id: str, stored: str) -> str:
        """`stored` with its data key under the current key, or sealed where it is not yet; itself where nothing is to
        do. Raises `VaultTampered`."""

    def rewrap(self, sealed: SealedSecret) -> SealedSecret:
        """`sealed` with its data key under the current key; itself where that is so already. Raises `VaultTampered`."""

    def fingerprint(self, scope: str, number: Secret[str]) -> str:
        """16 base-62 characters that are the same for the same number within a scope, and tell nothing about it."""

    def digest(self, scope: str, message: bytes) -> str:
        """32 hexadecimal characters, the same for the same bytes within a scope, that tell nothing about them."""


class HeadVerifier(Protocol):
    """Checks the signatures of the audit trail's heads. `public` is the public key as text."""

    public: str

    def verifies(self, text: bytes, signature: bytes) -> bool:
        """Whether `signature` is the one of this key over `text`."""


class HeadSigner(HeadVerifier, Protocol):
    def sign(self, text: bytes) -> bytes:
        """The signature over `text`; the same for the same text."""


class TokenUnfit(Exception):
    """An access token that is not to be believed. The text says why; `expired` is the one harmless reason."""

    def __init__(self, why: str, *, expired: bool = False) -> None:
        super().__init__(why)
        self.expired = expired


class TokenSigner(Protocol):
    """Makes and checks the signatures of access tokens (RFC 7519, RFC 9068)."""

    def new_key(self, id: str, *, created: int) -> SigningKey:
        """A fresh signing key with its private part sealed. It is not stored by this."""

    def sign(self, key: SigningKey, claims: dict[str, Any]) -> str:
        """A token with `claims`. Raises `VaultTampered` where the private part does not open."""

    def key_id(self, token: str) -> str:
        """Which key a token says it was signed with. Nothing is checked yet but its form. Raises `TokenUnfit`."""

    def claims(self, token: str, key: SigningKey, *, issuer: str, audiences: list[str], now: int) -> dict[str, Any]:
        """The claims of a token that `key` signed for one of `audiences`, and that is good at `now` (epoch seconds).

        Issuer, audience, expiry, issue and start must be there. Raises `TokenUnfit`.
        """
