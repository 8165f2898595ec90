"""Signatures of access tokens: ES256 by joserfc, the private key under a key derived from the key file's root.

A token is checked against the one key that its `kid` names, and against one algorithm, which is the code's and never
the token's to choose: `alg: none` and a public key taken for an HMAC secret are refused by that alone.
"""

import os
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import ECKey
from joserfc.jws import extract_compact

from tillway.domain.cards import Secret
from tillway.domain.credentials import LEEWAY_SECONDS, SigningKey
from tillway.vault.port import TokenUnfit, VaultTampered

ALGORITHM = "ES256"
TYPE = "at+jwt"
"""RFC 9068: a token of another kind that is signed here one day is no access token."""

_CURVE = "P-256"
_NONCE_BYTES = 12


class Es256Signer:
    """A `TokenSigner`: `Es256Signer(keyring.derive(SIGNING_PURPOSE))`."""

    def __init__(self, sealing_key: Secret[bytes]) -> None:
        self._cipher = AESGCM(sealing_key.reveal())
        self._opened: dict[str, ECKey] = {}

    def new_key(self, id: str, *, created: int) -> SigningKey:
        key = ECKey.generate_key(_CURVE, private=True)
        nonce = os.urandom(_NONCE_BYTES)
        private = msgspec.json.encode(key.as_dict(private=True))
        return SigningKey(
            id=id,
            created=created,
            public={name: str(value) for name, value in key.as_dict(private=False).items()},
            sealed=nonce + self._cipher.encrypt(nonce, private, id.encode()),
        )

    def sign(self, key: SigningKey, claims: dict[str, Any]) -> str:
        header = {"typ": TYPE, "alg": ALGORITHM, "kid": key.id}
        return jwt.encode(header, claims, self._private(key), algorithms=[ALGORITHM])

    def key_id(self, token: str) -> str:
        try:
            header = extract_compact(token.encode()).headers()
        except (JoseError, ValueError, TypeError, RecursionError):
            raise TokenUnfit("it is not three parts of base64url, the first two JSON objects") from None
        if header.get("alg") != ALGORITHM:
            raise TokenUnfit(f"its algorithm must be {ALGORITHM}")
        id = header.get("kid")
        if header.get("typ") != TYPE or not isinstance(id, str):
            raise TokenUnfit(f"its header must have the typ {TYPE} and a kid")
        return id

    def claims(self, token: str, key: SigningKey, *, issuer: str, audiences: list[str], now: int) -> dict[str, Any]:
        asked = jwt.JWTClaimsRegistry(
            now=now,
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "values": list(audiences)},
            exp={"essential": True},
            nbf={"essential": True},
            iat={"essential": True},
            jti={"essential": True},
            sub={"essential": True},
        )
        try:
            claims = jwt.decode(token, ECKey.import_key(dict(key.public)), algorithms=[ALGORITHM]).claims
            asked.validate(claims)
        except ExpiredTokenError:
            raise TokenUnfit("it has expired", expired=True) from None
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            why = error.description if isinstance(error, JoseError) else ""
            raise TokenUnfit(why.lower().rstrip(".") or "its signature or its claims are not right") from None
        if claims["exp"] <= now:
            raise TokenUnfit("it has expired", expired=True)
        return claims

    def _private(self, key: SigningKey) -> ECKey:
        opened = self._opened.get(key.id)
        if opened is None:
            nonce, ciphertext = key.sealed[:_NONCE_BYTES], key.sealed[_NONCE_BYTES:]
            try:
                private = self._cipher.decrypt(nonce, ciphertext, key.id.encode())
            except (InvalidTag, ValueError):
                raise VaultTampered(f"the private part of {key.id} does not open under this key file") from None
            self._opened.clear()  # Only the newest one signs.
            opened = self._opened[key.id] = ECKey.import_key(msgspec.json.decode(private))
        return opened


SIGNING_PURPOSE = "access_token_signing"
