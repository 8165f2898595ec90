"""Signatures of the audit trail's heads: Ed25519 (RFC 8032), with a key that follows from the key file.

The private key is derived from the key file's root and stored nowhere, so a database, or a backup without its key file,
can sign nothing. All hosts with the same key file have the same key.
"""

import binascii
from base64 import b64decode, b64encode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tillway.domain.cards import Secret

HEADS_PURPOSE = "audit_heads"
"""The purpose for which the key file derives the signing key."""

FORM = "ed25519:"
"""Before a public key as text; its 32 bytes follow in base64."""


class PublicKeyUnfit(ValueError):
    """A text that is no public key. The text of the error says the form."""


class Ed25519HeadVerifier:
    """A `HeadVerifier` for the public key `ed25519:<base64>`. Raises `PublicKeyUnfit`."""

    def __init__(self, public: str) -> None:
        try:
            self._key = Ed25519PublicKey.from_public_bytes(b64decode(public.removeprefix(FORM), validate=True))
        except (ValueError, binascii.Error):
            raise PublicKeyUnfit(f"a public key is {FORM} and 32 bytes in base64") from None
        self.public = f"{FORM}{b64encode(self._key.public_bytes_raw()).decode()}"

    def verifies(self, text: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, text)
        except InvalidSignature:
            return False
        return True


class Ed25519HeadSigner(Ed25519HeadVerifier):
    """A `HeadSigner`: `Ed25519HeadSigner(keyring.derive(HEADS_PURPOSE))`."""

    def __init__(self, seed: Secret[bytes]) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed.reveal())
        super().__init__(b64encode(self._private.public_key().public_bytes_raw()).decode())

    def sign(self, text: bytes) -> bytes:
        return self._private.sign(text)
