"""A passkey without a device: what an authenticator and a browser would answer to the options of a page."""

import hashlib
import json
import os
import struct
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2 import cbor
from fido2.cose import ES256
from fido2.utils import websafe_encode

USER_PRESENT, USER_VERIFIED, WITH_CREDENTIAL = 0x01, 0x04, 0x40


class SoftPasskey:
    """One key for one site. `count` is the counter of signatures; `verifies`: the device asks for its user's lock."""

    def __init__(
        self, origin: str = "http://localhost:8420", site: str = "localhost", *, verifies: bool = True
    ) -> None:
        self.origin, self.site, self.verifies = origin, site, verifies
        self.count = 0
        self.id = os.urandom(16)
        self.user = b""
        self._key = ec.generate_private_key(ec.SECP256R1())

    def register(self, options: dict[str, Any]) -> str:
        """The answer to the options of a new passkey, as the form's field has it."""
        self.user = options["user"]["id"]
        public = ES256.from_cryptography_key(self._key.public_key())
        credential = bytes(16) + struct.pack(">H", len(self.id)) + self.id + cbor.encode(public)
        data = self._data(WITH_CREDENTIAL) + credential
        attested = cbor.encode({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client("webauthn.create", options["challenge"])
        return self._told({"clientDataJSON": _text(client), "attestationObject": _text(attested)})

    def sign(self, options: dict[str, Any]) -> str:
        """The answer to the options of a sign-in."""
        self.count += 1
        data, client = self._data(), self._client("webauthn.get", options["challenge"])
        signed = self._key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        parts = {"authenticatorData": _text(data), "clientDataJSON": _text(client), "signature": _text(signed)}
        return self._told({**parts, "userHandle": self.user})

    def _data(self, more: int = 0) -> bytes:
        flags = USER_PRESENT | more | (USER_VERIFIED if self.verifies else 0)
        return hashlib.sha256(self.site.encode()).digest() + struct.pack(">BI", flags, self.count)

    def _client(self, kind: str, challenge: str) -> bytes:
        told = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}
        return json.dumps(told).encode()

    def _told(self, response: dict[str, Any]) -> str:
        id = _text(self.id)
        return json.dumps({"id": id, "rawId": id, "type": "public-key", "response": response})


def _text(data: bytes) -> str:
    return str(websafe_encode(data))
