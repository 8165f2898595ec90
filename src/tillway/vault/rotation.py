"""Moves every sealed record under a new key-encryption key, while the server runs.

The steps are: add a key, wait until every running server has noticed it, then pass over all sealed records and wrap the
data key of each one anew, until a whole pass finds none under another key; then the old keys are retired. The cards
themselves are not decrypted. Each step is durable by itself and harmless to repeat, so a rotation that was killed
anywhere is finished by running it again: as long as an old key is there, no further one is added.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from tillway.domain.record import SealedRecord
from tillway.store.codec import write_of
from tillway.store.port import WRITES_MAX, CommitUnknown, Conflict, Row, Store, Unavailable, Write
from tillway.vault.envelope import EnvelopeVault
from tillway.vault.keyring import CHECK_EVERY_SECONDS, KeyRefused, Keyring
from tillway.vault.port import SealedSecret, Vault, VaultTampered

PREFIXES = ("vlt_", "cvc_")
"""The id prefixes of sealed records."""

NOTICE_SECONDS = 2 * CHECK_EVERY_SECONDS
"""How long after a key is added the first pass begins. By then every server seals under the new one."""

PASSES_MAX = 10
PAGE_ROWS = WRITES_MAX - 1
"""Records moved in one commit; the last write is the audit trail's."""

PAGES_MAX = 100_000_000
TRIES_MAX = 10
_PAUSE_SECONDS = 0.02

Scopes = Callable[[], Awaitable[Sequence[str]]]
"""Every scope that there is now; asked anew for each pass, since merchants come while it runs."""


Tell = Callable[[str, Sequence[Write]], Awaitable[Sequence[Write]]]
"""Return the audit entry for a commit of these writes in that scope: one write at most."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a pass is. `read` counts the sealed records of this pass, `moved` those that needed the new key."""

    number: int
    scope: str
    read: int
    moved: int


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a rotation. `damaged` are the keys of records that do not open: they stay as they are, for a person
    to look at."""

    key_id: str
    resumed: bool
    read: int
    moved: int
    retired: tuple[str, ...]
    damaged: tuple[str, ...]


class RotationUnfinished(Exception):
    """The store could not be written, or records kept moving. Nothing is lost: run the rotation again."""


async def rotate(
    store: Store,
    keyring: Keyring,
    scopes: Scopes,
    *,
    tell: Tell,
    progress: Callable[[Progress], None] = lambda progress: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Rotation:
    """A new key and all records under it; or the rest of a rotation that was cut off. Raises `RotationUnfinished`."""
    resumed = bool(_old(keyring))
    if not resumed:
        await asyncio.to_thread(keyring.add_kek)
    # Also when resuming: the key may have been added a moment ago.
    await sleep(NOTICE_SECONDS)

    vault = EnvelopeVault(keyring, keyring.fingerprint_key)
    moved = 0
    for number in range(1, PASSES_MAX + 1):
        old = _old(keyring)
        passed = await _pass(store, vault, await scopes(), number, tell, progress, sleep)
        moved += passed.moved
        if passed.moved == 0:
            break
    else:
        raise RotationUnfinished(f"After {PASSES_MAX} passes records still appear under an old key. Run it again.")

    # A retired key still opens, so a record that some server commits late under it is not lost; the next rotation
    # moves it.
    for key_id in old:
        await asyncio.to_thread(keyring.retire, key_id)
    return Rotation(
        key_id=keyring.current_id(),
        resumed=resumed,
        read=passed.read,
        moved=moved,
        retired=old,
        damaged=passed.damaged,
    )


async def forget_key(
    store: Store, keyring: Keyring, key_id: str, scopes: Scopes, *, tell: Callable[[], Awaitable[None]]
) -> None:
    """Destroy a retired key, after a full pass that found no record under it. Raises `KeyRefused`.

    Backups made before the rotation can then no longer be opened. `tell` is awaited before it: the audit trail has it
    first.
    """
    for scope in await scopes():
        async for rows in _pages(store, scope):
            for row in rows:
                if _names_key(row, key_id):
                    raise KeyRefused(f"{row.key} is still sealed under {key_id}. Run `tillway vault rotate` first.")
    await tell()
    await asyncio.to_thread(keyring.forget, key_id)


class _Passed(msgspec.Struct, frozen=True):
    read: int
    moved: int
    damaged: tuple[str, ...]


async def _pass(
    store: Store,
    vault: Vault,
    scopes: Sequence[str],
    number: int,
    tell: Tell,
    progress: Callable[[Progress], None],
    sleep: Callable[[float], Awaitable[None]],
) -> _Passed:
    """Visit every sealed record once, oldest first: records that are sealed meanwhile come at the end."""
    read = moved = 0
    damaged: list[str] = []
    for scope in scopes:
        async for rows in _pages(store, scope):
            writes = []
            for row in rows:
                try:
                    write = _rewrapped(vault, row)
                except (VaultTampered, msgspec.MsgspecError):
                    damaged.append(row.key)
                    continue
                if write is not None:
                    writes.append(write)
            await _commit(store, vault, writes, tell, sleep)
            read += len(rows)
            moved += len(writes)
            progress(Progress(number=number, scope=scope, read=read, moved=moved))
    return _Passed(read, moved, tuple(damaged))


async def _commit(
    store: Store, vault: Vault, writes: Sequence[Write], tell: Tell, sleep: Callable[[float], Awaitable[None]]
) -> None:
    """All of `writes` in one commit; where that does not go, each for itself, read anew."""
    if not writes:
        return
    try:
        await store.commit([*writes, *await tell(_scope(writes[0].key), writes)])
    except (Conflict, CommitUnknown, Unavailable):
        for write in writes:
            await _commit_one(store, vault, write.key, tell, sleep)


async def _commit_one(
    store: Store, vault: Vault, key: str, tell: Tell, sleep: Callable[[float], Awaitable[None]]
) -> None:
    for tried in range(TRIES_MAX):
        row = await store.get(key)
        # Deleted meanwhile: a security code goes at the first attempt. Or moved already, by the commit with the answer
        # that was lost, or by another rotation.
        write = _rewrapped(vault, row) if row is not None else None
        if write is None:
            return
        try:
            await store.commit([write, *await tell(_scope(key), [write])])
            return
        except (Conflict, CommitUnknown, Unavailable):
            await sleep(_PAUSE_SECONDS * 2**tried)
    raise RotationUnfinished(f"{key} could not be written in {TRIES_MAX} tries. Run the rotation again.")


async def _pages(store: Store, scope: str) -> AsyncIterator[list[Row]]:
    """The sealed records of a scope, oldest first, a page at a time."""
    for prefix in PREFIXES:
        after = None
        for _ in range(PAGES_MAX):
            rows = await store.query(None, f"{scope}/{prefix}", after=after, limit=PAGE_ROWS, order="oldest")
            if rows:
                yield rows
            if len(rows) < PAGE_ROWS:
                break
            after = rows[-1].key


_decode_record = msgspec.json.Decoder(SealedRecord).decode
_decode_sealed: Callable[[msgspec.Raw], SealedSecret] = msgspec.json.Decoder(SealedSecret).decode


def _rewrapped(vault: Vault, row: Row) -> Write | None:
    """The write that puts this record under the current key; None where it is. Raises `VaultTampered` or
    `msgspec.MsgspecError` where the record is damaged.

    The lifetime of the record goes with it: without `expires_at`, a rewritten security code would stay for ever.
    """
    record = _decode_record(row.body)
    sealed = _decode_sealed(record.sealed)
    again = vault.rewrap(sealed)
    if again is sealed:
        return None
    record = msgspec.structs.replace(record, sealed=msgspec.Raw(msgspec.json.encode(again)))
    return write_of(_scope(row.key), record, row.version)


def _scope(key: str) -> str:
    return key.partition("/")[0]


def _names_key(row: Row, key_id: str) -> bool:
    """Whether the record is sealed under `key_id`. One that cannot be read counts as such, to be on the safe side."""
    try:
        sealed = _decode_sealed(_decode_record(row.body).sealed)
    except msgspec.MsgspecError:
        return True
    return sealed.key_id == key_id


def _old(keyring: Keyring) -> tuple[str, ...]:
    return tuple(key.id for key in keyring.list_keys() if key.state == "old")
