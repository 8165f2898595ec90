"""Envelope encryption of cards and other secrets: AES-256-GCM, one data key for each, wrapped by a key-encryption key.

The data key is wrapped with AES-256-GCM too, not with AES key wrap (RFC 3394): GCM takes associated data, so that the
wrapped key is bound to its key id and purpose, and a wrap costs one call instead of 24 block operations. GCM's price is
a random 96-bit nonce, safe for 2**32 wraps under one key (NIST SP 800-38D, 8.3): rotate before four thousand million
records. A data key encrypts exactly one message.
"""

import base64
import binascii
import hashlib
import hmac
import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tillway.domain.cards import Secret
from tillway.domain.record import SEALED_PREFIX, is_sealed
from tillway.vault.port import (
    AccountContents,
    CardContents,
    KeyWrapper,
    Sealed,
    SealedAccount,
    SealedCard,
    SealedCvc,
    SealedSecret,
    SealedText,
    VaultTampered,
)

RECORD_VERSION = 1

_DATA_KEY_BYTES = 32
_NONCE_BYTES = 12
_CARD = "card"
_CVC = "cvc"
_ACCOUNT = "account"
_TEXT = "text"

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FINGERPRINT_CHARACTERS = 16


class _Plain(msgspec.Struct, frozen=True, array_like=True):
    """A card as it lies inside the ciphertext."""

    number: str
    exp_month: int
    exp_year: int
    name: str | None


class _PlainAccount(msgspec.Struct, frozen=True, array_like=True):
    """A bank account as it lies inside the ciphertext."""

    number: str
    routing: str | None
    name: str | None


_encode = msgspec.json.Encoder().encode
_decode_plain = msgspec.json.Decoder(_Plain).decode
_decode_account = msgspec.json.Decoder(_PlainAccount).decode
_pack = msgspec.msgpack.Encoder().encode
_unpack_text = msgspec.msgpack.Decoder(SealedText).decode


class EnvelopeVault:
    """The vault over any `KeyWrapper`: `EnvelopeVault(keyring, keyring.fingerprint_key)`."""

    def __init__(self, keys: KeyWrapper, fingerprint_key: Secret[bytes]) -> None:
        assert len(fingerprint_key.reveal()) == 32
        self._keys = keys
        self._fingerprint_key = fingerprint_key
        # Every request with an Idempotency-Key has a digest: a copy of one that has the key takes a third less.
        self._keyed = hashlib.blake2b(key=fingerprint_key.reveal(), digest_size=16)

    def seal(self, scope: str, owner_id: str, card: CardContents) -> SealedCard:
        plain = _encode(_Plain(card.number.reveal(), card.exp_month, card.exp_year, card.name))
        key_id, wrapped, nonce, ciphertext = self._seal(_CARD, scope, owner_id, plain)
        return SealedCard(
            version=RECORD_VERSION, key_id=key_id, wrapped_key=wrapped, nonce=nonce, ciphertext=ciphertext
        )

    def open(self, scope: str, owner_id: str, sealed: SealedCard) -> CardContents:
        plain = _decode_plain(self._open(_CARD, scope, owner_id, sealed))
        return CardContents(
            number=Secret(plain.number), exp_month=plain.exp_month, exp_year=plain.exp_year, name=plain.name
        )

    def seal_cvc(self, scope: str, owner_id: str, cvc: Secret[str]) -> SealedCvc:
        key_id, wrapped, nonce, ciphertext = self._seal(_CVC, scope, owner_id, cvc.reveal().encode())
        return SealedCvc(version=RECORD_VERSION, key_id=key_id, wrapped_key=wrapped, nonce=nonce, ciphertext=ciphertext)

    def open_cvc(self, scope: str, owner_id: str, sealed: SealedCvc) -> Secret[str]:
        return Secret(self._open(_CVC, scope, owner_id, sealed).decode())

    def seal_account(self, scope: str, owner_id: str, account: AccountContents) -> SealedAccount:
        plain = _encode(_PlainAccount(account.number.reveal(), account.routing, account.name))
        key_id, wrapped, nonce, ciphertext = self._seal(_ACCOUNT, scope, owner_id, plain)
        return SealedAccount(
            version=RECORD_VERSION, key_id=key_id, wrapped_key=wrapped, nonce=nonce, ciphertext=ciphertext
        )

    def open_account(self, scope: str, owner_id: str, sealed: SealedAccount) -> AccountContents:
        plain = _decode_account(self._open(_ACCOUNT, scope, owner_id, sealed))
        return AccountContents(number=Secret(plain.number), routing=plain.routing, name=plain.name)

    def seal_text(self, scope: str, owner_id: str, text: Secret[str]) -> str:
        key_id, wrapped, nonce, ciphertext = self._seal(_TEXT, scope, owner_id, text.reveal().encode())
        return _text_of(
            SealedText(version=RECORD_VERSION, key_id=key_id, wrapped_key=wrapped, nonce=nonce, ciphertext=ciphertext)
        )

    def open_text(self, scope: str, owner_id: str, stored: str) -> Secret[str]:
        sealed = sealed_text(owner_id, stored)
        return Secret(self._open(_TEXT, scope, owner_id, sealed).decode() if sealed is not None else stored)

    def reseal_text(self, scope: str, owner_id: str, stored: str) -> str:
        sealed = sealed_text(owner_id, stored)
        if sealed is None:
            return self.seal_text(scope, owner_id, Secret(stored))
        again = self.rewrap(sealed)
        assert isinstance(again, SealedText)
        return stored if again is sealed else _text_of(again)

    def rewrap(self, sealed: SealedSecret) -> SealedSecret:
        if sealed.key_id == self._keys.current_id():
            return sealed
        context = _wrap_context(_purpose(sealed), sealed.version)
        key_id, wrapped = self._keys.wrap(self._keys.unwrap(sealed.key_id, sealed.wrapped_key, context), context)
        return msgspec.structs.replace(sealed, key_id=key_id, wrapped_key=wrapped)

    def fingerprint(self, scope: str, number: Secret[str]) -> str:
        # A plain hash of a card number is undone by trying all numbers; the key prevents that.
        message = f"{scope}\0{number.reveal()}".encode()
        rest = int.from_bytes(hmac.digest(self._fingerprint_key.reveal(), message, hashlib.sha256), "big")
        characters = []
        for _ in range(_FINGERPRINT_CHARACTERS):
            rest, place = divmod(rest, 62)
            characters.append(_BASE62[place])
        return "".join(characters)

    def digest(self, scope: str, message: bytes) -> str:
        digest = self._keyed.copy()
        digest.update(f"{scope}\0".encode() + message)
        return digest.hexdigest()

    def _seal(self, purpose: str, scope: str, owner_id: str, plain: bytes) -> tuple[str, bytes, bytes, bytes]:
        entropy = os.urandom(_DATA_KEY_BYTES + _NONCE_BYTES)
        data_key, nonce = entropy[:_DATA_KEY_BYTES], entropy[_DATA_KEY_BYTES:]
        bound_to = _associated_data(purpose, RECORD_VERSION, scope, owner_id)
        key_id, wrapped = self._keys.wrap(data_key, _wrap_context(purpose, RECORD_VERSION))
        return key_id, wrapped, nonce, AESGCM(data_key).encrypt(nonce, plain, bound_to)

    def _open(self, purpose: str, scope: str, owner_id: str, sealed: Sealed) -> bytes:
        if sealed.version != RECORD_VERSION:
            raise VaultTampered(f"{owner_id}: record version {sealed.version} is unknown")
        data_key = self._keys.unwrap(sealed.key_id, sealed.wrapped_key, _wrap_context(purpose, sealed.version))
        try:
            return AESGCM(data_key).decrypt(
                sealed.nonce, sealed.ciphertext, _associated_data(purpose, sealed.version, scope, owner_id)
            )
        except (InvalidTag, ValueError):
            # ValueError is a nonce of a wrong length.
            raise VaultTampered(f"{owner_id}: the sealed {purpose} does not open") from None


def _purpose(sealed: SealedSecret) -> str:
    match sealed:
        case SealedCard():
            return _CARD
        case SealedCvc():
            return _CVC
        case SealedAccount():
            return _ACCOUNT
        case SealedText():
            return _TEXT


def _text_of(sealed: SealedText) -> str:
    return SEALED_PREFIX + base64.urlsafe_b64encode(_pack(sealed)).decode()


def sealed_text(owner_id: str, stored: str) -> SealedText | None:
    """The sealed text in a field; None where it is in the clear still. Raises `VaultTampered` where it is damaged."""
    if not is_sealed(stored):
        return None
    try:
        return _unpack_text(base64.urlsafe_b64decode(stored[len(SEALED_PREFIX) :]))
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise VaultTampered(f"{owner_id}: the sealed text is damaged") from None


def _associated_data(purpose: str, version: int, scope: str, owner_id: str) -> bytes:
    """JSON, so that no two different owners can be written as the same bytes."""
    return _encode(("tillway.vault", purpose, version, scope, owner_id))


def _wrap_context(purpose: str, version: int) -> bytes:
    return f"tillway.data_key.{purpose}.{version}".encode()
