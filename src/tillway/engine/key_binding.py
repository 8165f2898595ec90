"""Binds a store to its key file, so that no server starts with the key file of another installation: it would seal new
cards under keys that the other hosts lack, and derive other client secrets."""

import hashlib

from tillway.domain.account import SYSTEM
from tillway.domain.cards import Secret
from tillway.domain.key_binding import BINDING_ID, KeyBinding
from tillway.store.codec import decode, write_of
from tillway.store.port import ABSENT, Conflict, Store

BINDING_PURPOSE = "key_binding"
"""The key's purpose at `Keyring.derive`."""

_KEY = f"{SYSTEM}/{BINDING_ID}"


async def bind_or_compare(store: Store, key: Secret[bytes], *, now: int) -> bool:
    """Whether `key` (`keyring.derive(BINDING_PURPOSE)`) is from the key file of this store. A store that has none yet
    is bound to it; `now` is epoch seconds. Raises `Unavailable`."""
    bound = await is_bound(store, key)
    if bound is None:
        binding = KeyBinding(id=BINDING_ID, created=now, digest=_digest(key))
        try:
            await store.commit([write_of(SYSTEM, binding, ABSENT)])
            return True
        except Conflict:
            bound = await is_bound(store, key)
            assert bound is not None, "the binding is never deleted"
    return bound


async def is_bound(store: Store, key: Secret[bytes]) -> bool | None:
    """Whether the store is bound to the key file of `key`; None if it is bound to none yet. Raises `Unavailable`."""
    row = await store.get(_KEY)
    if row is None:
        return None
    held = decode(BINDING_ID, row.body)
    assert isinstance(held, KeyBinding)
    return is_of(held, key)


def is_of(held: KeyBinding, key: Secret[bytes]) -> bool:
    """Whether the binding is to the key file of `key`."""
    return held.digest == _digest(key)


def _digest(key: Secret[bytes]) -> str:
    return hashlib.sha256(key.reveal()).hexdigest()
