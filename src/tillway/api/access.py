"""Who is calling: API keys from the Authorization header, by their digest, as fresh as two seconds."""

import base64
import binascii

from tillway.domain.account import SYSTEM, ApiKey, Scope, key_id
from tillway.domain.refusal import Refused
from tillway.store.codec import decode
from tillway.store.port import Store

CACHE_SECONDS = 2.0
"""How long a key that was just revoked may still be honoured by another process."""

CACHE_MAX = 10_000
KEY_LENGTH_MAX = 255


class Access:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[float, ApiKey, Scope]] = {}

    async def key(self, header: str | None, *, now: float) -> tuple[ApiKey, Scope]:
        """The key in an Authorization header (Bearer, or Basic with the key as user name) and what it reaches.

        Raises Refused `api_key_missing` or `api_key_invalid`. `now` is epoch seconds.
        """
        secret = secret_in(header)
        known = self._known.get(secret)
        if known is not None and known[0] > now:
            return known[1], known[2]
        id = key_id(secret)
        row = await self._store.get(f"{SYSTEM}/{id}")
        key = decode(id, row.body) if row is not None else None
        if (
            not isinstance(key, ApiKey)
            or (key.revoked_at is not None and key.revoked_at <= now)
            or (key.expires_at is not None and key.expires_at <= now)
        ):
            self._known.pop(secret, None)
            raise Refused("api_key_invalid", f"Invalid API Key provided: {masked(secret)}")
        if len(self._known) >= CACHE_MAX:
            self._known.clear()
        found = (now + CACHE_SECONDS, key, Scope(account=key.account, mode=key.mode))
        self._known[secret] = found
        return key, found[2]

    def forget(self) -> None:
        """Look every key up anew: after this process has changed one."""
        self._known.clear()


def secret_in(header: str | None) -> str:
    if not header:
        raise Refused("api_key_missing")
    kind, _, value = header.partition(" ")
    value = value.strip()
    match kind.lower():
        case "bearer":
            secret = value
        case "basic":
            try:
                secret = base64.b64decode(value, validate=True).decode().partition(":")[0]
            except (binascii.Error, UnicodeDecodeError):
                raise Refused("api_key_invalid", "The Basic credentials are not base64 of `key:`.") from None
        case _:
            raise Refused("api_key_missing", "Use the Bearer or the Basic scheme in the Authorization header.")
    if not secret:
        raise Refused("api_key_missing")
    if len(secret) > KEY_LENGTH_MAX or not secret.isascii() or not secret.isprintable():
        raise Refused("api_key_invalid", "Invalid API Key provided.")
    return secret


def masked(secret: str) -> str:
    """A key as an error may repeat it: its kind and its last four characters."""
    if len(secret) < 16:
        return "*" * len(secret)
    return f"{secret[:8]}{'*' * 12}{secret[-4:]}"
